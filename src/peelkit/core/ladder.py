"""Which round of self-calibration comes next. Pure functions of what has been done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from peelkit.core.snr import Rung
from peelkit.errors import OptionError
from peelkit.selection import parse_solint

# The shortest phase interval is solved again while a better model gains this much.
WORTH_REPEATING = 1.01
MAX_REPEATS = 2

# After so many rejected phase rounds in a row, shorter ones will not do better.
MAX_REJECTED = 2


@dataclass(frozen=True)
class Done:
    """A round that was done: its rung, whether it was accepted, and the factor gained in S/N."""

    rung: Rung
    accepted: bool
    gain: float


def next_auto(
    phases: Sequence[Rung], amplitudes: Sequence[Rung], done: Sequence[Done]
) -> Rung | None:
    """Choose the next round of an automatic ladder.

    Phases from long to short intervals; the shortest once more while a better model helps; then
    amplitudes, from long to short while they help. ``phases`` and ``amplitudes`` are what the S/N of
    the best image so far allows, longest first.
    """
    done_phases = [item for item in done if item.rung.calmode == "p"]
    done_amplitudes = [item for item in done if item.rung.calmode != "p"]
    if not done_amplitudes:
        rung = _next_phase(phases, done_phases)
        if rung is not None:
            return rung
    if not any(item.accepted for item in done_phases):
        # Amplitudes are solved on top of good phases only (seed 002, 2.3.2).
        return None
    if done_amplitudes and not done_amplitudes[-1].accepted:
        return None
    if done_amplitudes and done_amplitudes[-1].gain < WORTH_REPEATING:
        return None
    shortest = min((item.rung.solint_s for item in done_amplitudes), default=math.inf)
    return next((rung for rung in amplitudes if rung.solint_s < shortest), None)


def _next_phase(phases: Sequence[Rung], done: Sequence[Done]) -> Rung | None:
    tail = done[-MAX_REJECTED:]
    if len(tail) == MAX_REJECTED and not any(item.accepted for item in tail):
        return None
    shortest = min((item.rung.solint_s for item in done), default=math.inf)
    shorter = next((rung for rung in phases if rung.solint_s < shortest), None)
    if shorter is not None:
        return shorter
    if not done or not done[-1].accepted or done[-1].gain < WORTH_REPEATING:
        return None
    again = done[-1].rung
    repeats = sum(item.rung.solint_s == again.solint_s for item in done) - 1
    return again if repeats < MAX_REPEATS else None


def explicit_rungs(
    solints: Sequence[str],
    *,
    calmodes: Sequence[str],
    combines: Sequence[str],
    gaintypes: Sequence[str],
    minsnr: float | None,
    scan_s: float,
    integration_s: float,
) -> list[Rung]:
    """Rungs that the user named: each option once for all rounds, or once a round.

    Raises
    ------
    OptionError
        If their numbers do not fit, or an amplitude round comes before a phase round.
    """
    columns = {
        "calmode": _spread("calmode", calmodes or ["p"], len(solints)),
        "combine": _spread("combine", combines or [""], len(solints)),
        "gaintype": _spread("gaintype", gaintypes or ["G"], len(solints)),
    }
    rungs: list[Rung] = []
    for number, solint in enumerate(solints):
        seconds = parse_solint(solint, integration_s=integration_s)
        calmode = columns["calmode"][number]
        check_combine(columns["combine"][number])
        if calmode == "p" and any(rung.calmode != "p" for rung in rungs):
            raise OptionError(
                f"round {number + 1} (solint {solint}, calmode p) comes after amplitudes; "
                "give the phase rounds first."
            )
        rungs.append(
            Rung(
                solint=solint,
                solint_s=scan_s if seconds is None else seconds,
                calmode=calmode,
                combine=columns["combine"][number],
                gaintype=columns["gaintype"][number],
                minsnr=3.0 if minsnr is None else minsnr,
                snr=math.nan,
            )
        )
    return rungs


def check_combine(combine: str) -> None:
    """Refuse what cannot be combined.

    Raises
    ------
    OptionError
        If there is such a word.
    """
    unknown = set(filter(None, combine.split(","))) - {"spw", "baseband", "scan", "field"}
    if unknown:
        raise OptionError(
            f"combine {sorted(unknown)[0]!r}: use spw, baseband, scan or field, or spw,scan."
        )


def _spread(name: str, values: Sequence[str], count: int) -> list[str]:
    if len(values) == 1:
        return list(values) * count
    if len(values) != count:
        raise OptionError(
            f"--{name} given {len(values)} times for {count} rounds; give it once, or once a round."
        )
    return list(values)


def with_overrides(
    rung: Rung, *, minsnr: float | None, combine: str | None, gaintype: str | None
) -> Rung:
    """The rung with what the user insists on."""
    return replace(
        rung,
        minsnr=rung.minsnr if minsnr is None else minsnr,
        combine=rung.combine if combine is None else combine,
        gaintype=rung.gaintype if gaintype is None else gaintype,
    )
