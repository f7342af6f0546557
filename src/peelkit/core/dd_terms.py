"""The terms of a direction-dependent solve: types, and intervals in human units. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from peelkit.engines import quartical
from peelkit.errors import OptionError
from peelkit.selection import parse_solint

_FREQ = re.compile(r"^\s*(\d*\.?\d+)\s*(hz|khz|mhz|ghz)\s*$", re.IGNORECASE)
_CHANNELS = re.compile(r"^\s*(\d+)\s*(chan|channels?|ch)\s*$", re.IGNORECASE)
_HZ = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}

NONE = "none"
# Sections of QuartiCal's options that are of a term.
NAMES = frozenset({"G", "K", "dE"})

# Types of G that can turn a phase.
HAS_PHASE = frozenset({"phase", "diag_complex", "complex"})

# An interval that is chosen from the data.
AUTO = "auto"


@dataclass(frozen=True)
class TermChoice:
    """One term as the user asked for it.

    Parameters
    ----------
    name : str
        ``G``, ``K`` or ``dE``.
    type : str
        QuartiCal's gain type, or ``none`` for no such term.
    time, freq : str
        Intervals such as ``10s``, ``3int``, ``inf``; ``64MHz``, ``8chan``, ``spw``.
    """

    name: str
    type: str
    time: str
    freq: str

    @property
    def direction_dependent(self) -> bool:
        """Whether it has solutions of its own for each direction."""
        return self.name == "dE"


def time_integrations(text: str, integration_s: float) -> int:
    """Integrations of a time interval; 0 for ``inf``, the whole scan.

    QuartiCal takes whole seconds or integers only, and sums INTERVAL without gaps; a count of
    integrations means what it says.
    """
    seconds = parse_solint(text, integration_s=integration_s)
    if seconds is None:
        return 0
    return max(1, round(seconds / integration_s))


def freq_channels(text: str, width_hz: float, n_chan: int) -> int:
    """Channels of a frequency interval; 0 for ``spw``, all channels of the spw.

    Raises
    ------
    OptionError
        If it is no interval.
    """
    word = text.strip().lower()
    if word in ("spw", "inf"):
        return 0
    if match := _CHANNELS.match(word):
        count = int(match.group(1))
    elif match := _FREQ.match(word):
        count = max(1, round(float(match.group(1)) * _HZ[match.group(2).lower()] / width_hz))
    else:
        count = 0
    if count < 1:
        raise OptionError(f"frequency interval {text!r}: use spw, 8chan, or a width such as 64MHz.")
    return 0 if count >= n_chan else count


def longest(choice: TermChoice) -> TermChoice:
    """The term with the longest intervals in place of ``auto``."""
    return replace(
        choice,
        time="inf" if choice.time == AUTO else choice.time,
        freq="spw" if choice.freq == AUTO else choice.freq,
    )


def check(choices: Sequence[TermChoice]) -> None:
    """Refuse choices that make no sense, before any data are read.

    Raises
    ------
    OptionError
        If an interval or a type is wrong.
    """
    for choice in choices:
        if choice.type == NONE:
            continue
        if AUTO in (choice.time, choice.freq) and choice.name == "K":
            raise OptionError("--k-time and --k-freq: auto is for G and dE; give intervals.")
        try:
            if choice.time != AUTO:
                time_integrations(choice.time, 1.0)
        except OptionError as error:
            raise OptionError(
                f"--{choice.name.lower()}-time {choice.time!r}: use auto, inf (a scan), 3int, or a time such as "
                "60s or 2min."
            ) from error
        if choice.freq != AUTO:
            freq_channels(choice.freq, 1.0, 1 << 30)
    g, k = _array_terms(choices)
    if g and k and (_word(g.time), _word(g.freq)) == (_word(k.time), _word(k.freq)):
        _refuse_same(g, k, whole_spw=_word(k.freq) == "spw")


def check_intervals(
    choices: Sequence[TermChoice], *, integration_s: float, width_hz: float, n_chan: int
) -> None:
    """Refuse G and K that `check` lets pass because their intervals are written differently.

    Raises
    ------
    OptionError
        If they take up the same phases. Intervals that are still ``auto`` pass.
    """
    g, k = _array_terms(choices)
    if not g or not k or AUTO in (g.time, g.freq):
        return
    intervals = [
        (time_integrations(c.time, integration_s), freq_channels(c.freq, width_hz, n_chan))
        for c in (g, k)
    ]
    if intervals[0] == intervals[1]:
        _refuse_same(g, k, whole_spw=intervals[1][1] == 0)


def _array_terms(choices: Sequence[TermChoice]) -> tuple[TermChoice | None, TermChoice | None]:
    """G and K, if they are solved."""
    solved = {c.name: c for c in choices if c.type != NONE}
    return solved.get("G"), solved.get("K")


def _word(text: str) -> str:
    word = text.replace(" ", "").lower()
    return {"inf": "spw"}.get(word, word)


def _refuse_same(g: TermChoice, k: TermChoice, *, whole_spw: bool) -> None:
    """Refuse G and K with the same intervals where each can have what the other has.

    A product of two gains fixes neither where both have the same freedom: the phase then goes back and
    forth between them from round to round. G has a phase in each interval unless it is an amplitude. K
    has one too if it is solved with an offset. A delay or TEC alone has none over a whole spw, because
    QuartiCal turns it about the middle of the spw (delay: nu - nu_mid; TEC: 1/nu without its mean). In a
    part of the spw it is still about that middle, and so is mostly a phase there. Amplitudes are in G
    alone. dE and G share phases too, but the rest of the sky tells them apart (`dd_balance`).
    """
    if g.type not in HAS_PHASE or ("offset" not in k.type and whole_spw):
        return
    delay = {"delay_tec_and_offset": "delay_and_tec"}.get(
        k.type, k.type.removesuffix("_and_offset")
    )
    delay = "delay" if delay == "tec" else delay
    remedy = f"--k {delay}" if whole_spw else "--k-freq spw"
    raise OptionError(
        f"--g {g.type} and --k {k.type} at the same interval ({k.time}, {k.freq}) take up the same phases "
        f"and make the solve unstable; use --g none or --g amplitude, or {remedy}, or other intervals."
    )


def build(
    choices: Sequence[TermChoice],
    *,
    integration_s: float,
    width_hz: float,
    n_chan: int,
    pinned: tuple[int, ...],
    across_scans: bool,
) -> list[quartical.Term]:
    """QuartiCal's terms for data of one integration time and channel width; dE comes last."""
    check_intervals(choices, integration_s=integration_s, width_hz=width_hz, n_chan=n_chan)
    terms = [
        quartical.Term(
            name=choice.name,
            type=choice.type,
            time_interval=time_integrations(choice.time, integration_s),
            freq_interval=freq_channels(choice.freq, width_hz, n_chan),
            direction_dependent=choice.direction_dependent,
            pinned=pinned,
            across_scans=across_scans,
        )
        for choice in choices
        if choice.type != NONE
    ]
    # A direction-dependent term to the left of another is not solved right (engines.md 2c).
    return sorted(terms, key=lambda term: term.direction_dependent)


def iterations(terms: Sequence[quartical.Term], *, rounds: int, each: int) -> list[int]:
    """``each`` iterations of every term in turn, ``rounds`` times over; dE goes first.

    The data have been self-calibrated: what is left towards a bright source is its own. Solved first, G
    takes up the errors of the brightest direction, and alternating does not get out of that again
    (simulated: chi-squared 4.6 after G first, 0.99 after dE first).
    """
    first = [each if term.direction_dependent else 0 for term in terms]
    start = first if any(first) and not all(first) else []
    return start + [each] * (len(terms) * rounds)


def uv_range_m(text: str) -> tuple[float, float]:
    """CASA's uvrange in metres, as QuartiCal cuts it.

    Raises
    ------
    OptionError
        If it is in wavelengths, or not one range.
    """
    if not text.strip():
        return 0.0, 0.0
    number = r"(\d*\.?\d+)"
    form = rf"\s*(?:([<>])\s*{number}|{number}\s*~\s*{number})\s*(m|km)?\s*"
    match = re.fullmatch(form, text)
    if not match:
        raise OptionError(
            f"uvrange {text!r}: QuartiCal cuts in metres; use one range such as >100m, <5km or 100~5000m."
        )
    scale = 1e3 if match.group(5) == "km" else 1.0
    if match.group(1) == ">":
        return float(match.group(2)) * scale, 0.0
    if match.group(1) == "<":
        return 0.0, float(match.group(2)) * scale
    low, high = float(match.group(3)) * scale, float(match.group(4)) * scale
    if low >= high:
        raise OptionError(f"uvrange {text!r}: the lower end comes first.")
    return low, high


def recipe(all_column: str, directions: Sequence[str]) -> str:
    """QuartiCal's model recipe ``ALL~B1~B2:B1:B2``: direction 0 is what is left of ALL."""
    return ":".join(["~".join([all_column, *directions]), *directions])
