"""The solve of one round: gaincal, what failed, and what to combine when too much did."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peelkit.core import selfcal_terms, snr, solutions, spwmaps
from peelkit.core.selfcal_session import Best, Session
from peelkit.engines import casa as engine
from peelkit.io.caltable import GainTable, read_gain_table
from peelkit.selection import casa_solint

log = logging.getLogger(__name__)

# Above this frequency phases are interpolated with their growth with frequency (auto_selfcal).
LINEARPD_ABOVE_HZ = 12e9

# More failed solutions than this share, and more data are combined; a way that fails by less than half
# as much less is not worth its coarser solutions.
TOLERATED = 0.05
WORTH_COMBINING = 0.5

# Stands for all antennas where they are not counted one by one.
ALL = -1

# A spw that fails in more than this share gets the solutions of another, if no more than half of them do.
SPW_FAILED = 0.25


@dataclass(frozen=True)
class How:
    """What a solve may vary beside its rung: ``uvrange`` of the baselines, and ``solnorm``; a word for both."""

    uvrange: str
    solnorm: bool
    word: str = ""


@dataclass(frozen=True)
class Solved:
    """One solve.

    Parameters
    ----------
    rung : Rung
        As it was solved in the end.
    caltable : Path
        Where the solutions are.
    spwmap : list of int
        To apply them with.
    table : GainTable
        The solutions.
    counts : dict of int to dict of int to tuple
        By spw and antenna: solutions with unflagged data, and how many of them failed.
    how : How
        Baselines and normalisation.
    fell_back : list of str
        What was tried before and failed too much.
    """

    rung: snr.Rung
    caltable: Path
    spwmap: list[int]
    table: GainTable
    counts: Mapping[int, Mapping[int, tuple[int, int]]]
    how: How
    fell_back: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Solutions with unflagged data."""
        return _total(self.counts.values())[0]

    @property
    def failed(self) -> int:
        """Those of them that failed (too few baselines, or below minsnr)."""
        return _total(self.counts.values())[1]

    @property
    def failed_of_all(self) -> float:
        """Share of solutions that failed; 1 if there was nothing to solve."""
        return self.failed / self.tried if self.tried else 1.0

    @property
    def lost(self) -> list[int]:
        """Antennas that have no part in the verdict: see `solutions.lost_antennas`."""
        return solutions.lost_antennas(self._by_antenna())

    @property
    def failed_fraction(self) -> float:
        """Share of solutions that failed of the antennas that are not `lost`."""
        lost = self.lost
        kept = {a: count for a, count in self._by_antenna().items() if a not in lost}
        tried, failed = _total([kept])
        return failed / tried if tried else 1.0

    def _by_antenna(self) -> dict[int, tuple[int, int]]:
        antennas = {antenna for spw in self.counts.values() for antenna in spw}
        return {
            antenna: _total({0: spw[antenna]} for spw in self.counts.values() if antenna in spw)
            for antenna in antennas
        }


def _total(counts: Iterable[Mapping[int, tuple[int, int]]]) -> tuple[int, int]:
    """Solutions, and how many failed, of all antennas."""
    pairs = [pair for each in counts for pair in each.values()]
    return sum(tried for tried, _ in pairs), sum(failed for _, failed in pairs)


def solve(
    session: Session, number: int, rung: snr.Rung, base: Best, fields: list[int], how: How
) -> Solved:
    """Solve for gains; where too many solutions fail, combine more data, as far as the user lets us.

    The chain is the field's (auto_selfcal's): each spw, each baseband, all spws, all spws with both
    polarisations together. Before that, where few spws fail (narrow ones), these get the solutions of the
    spw nearest in frequency.
    """
    stem = f"gain{number}.{rung.calmode}.{rung.solint}{how.word}"
    ending = selfcal_terms.ending(rung)
    best = _one(session, rung, base, fields, how, session.workspace.path(f"{stem}.{ending}"))
    tried = []
    if not session.options.fallback or ending != "g":
        return best
    for combine, gaintype in chain(session, rung):
        if best.failed_of_all <= TOLERATED:
            break
        mapped = _mapped(session, best)
        if mapped is not None:
            best = mapped
            break
        tried.append(_words(best))
        wider = replace(rung, combine=combine, gaintype=gaintype)
        kind = "".join(f".{word}" for word in [*combine.split(","), gaintype] if word)
        path = session.workspace.path(f"{stem}{kind}.g")
        next_one = _one(session, wider, base, fields, how, path)
        if next_one.failed_of_all <= WORTH_COMBINING * best.failed_of_all:
            engine.remove_table(best.caltable)
            best = next_one
        else:
            engine.remove_table(path)
            tried.append(_words(next_one))
    if tried:
        kept = _words(best)
        tried = [words for words in dict.fromkeys(tried) if words != kept]
        log.info("round %d: %s; kept %s", number, "; ".join(tried), kept)
    return replace(best, fell_back=[*tried, *best.fell_back])


def chain(session: Session, rung: snr.Rung) -> list[tuple[str, str]]:
    """What to combine beyond ``rung``, from little to much: (combine, gaintype)."""
    rest = [word for word in rung.combine.split(",") if word and word not in ("spw", "baseband")]
    spws = max(len(session.found.spws_of(o)) for o in session.found.observations)
    steps = (
        ["", "baseband", "spw"]
        if spwmaps.has_basebands(session.info, session.found)
        else ["", "spw"]
    )
    if spws == 1:
        steps = [""]
    now = next((word for word in ("spw", "baseband") if word in rung.combine.split(",")), "")
    later = steps[steps.index(now) + 1 :] if now in steps else []
    found = [(step, rung.gaintype) for step in later]
    if two_hands(session) and rung.gaintype == "G":
        found.append((steps[-1], "T"))
    return [(",".join(filter(None, (step, *rest))), gaintype) for step, gaintype in found]


def _words(solved: Solved) -> str:
    how = " ".join(filter(None, (solved.rung.gaintype, solved.rung.combine or "per spw")))
    return f"{how}: {solved.failed} of {solved.tried} failed"


def _one(
    session: Session, rung: snr.Rung, base: Best, fields: list[int], how: How, caltable: Path
) -> Solved:
    """One way of combining: a gaincal, or one for each baseband into the same table."""
    options = session.options
    words = [word for word in rung.combine.split(",") if word and word != "baseband"]
    selections = [session.selection.spw]
    if "baseband" in rung.combine.split(","):
        words.append("spw")
        channels = session.info.channels(session.selection)
        selections = [
            ",".join(
                f"{spw}:{first}~{last}" for spw in group for first, last in channels.get(spw, [])
            )
            for group in spwmaps.groups(session.info, session.found, "baseband")
        ]
    engine.remove_table(caltable)
    counts: dict[int, dict[int, tuple[int, int]]]
    if selfcal_terms.is_fitted(rung.gaintype):
        # Over all spws, and filed under each.
        report = selfcal_terms.solve(session, rung, caltable, fields)
        table = read_gain_table(caltable)
        counts = {min(session.found.spws()): {ALL: (report.solutions, report.failed)}}
        return Solved(rung, caltable, list(options.spwmap), table, counts, how)
    counts = {}
    for index, spw in enumerate(selections):
        stats = engine.solve_gains(
            session.casa,
            session.work.path,
            caltable,
            append=index > 0,
            field=",".join(map(str, fields)),
            spw=spw,
            solint=casa_solint(rung.solint, integration_s=session.found.integration_s),
            combine=",".join(words),
            refant=",".join(session.info.antenna_words(session.refants)),
            refantmode="flex",
            minsnr=rung.minsnr,
            minblperant=options.minblperant
            or snr.recommended_minblperant(len(session.found.antennas), calmode=rung.calmode),
            gaintype=rung.gaintype,
            calmode=rung.calmode,
            solnorm=how.solnorm and rung.calmode != "p",
            uvrange=how.uvrange,
            gaintable=[str(session.workspace.path(name).absolute()) for name in base.tables],
            spwmap=base.table_spwmaps,
            interp=interp(session, base.table_modes),
            parang=options.parang,
        )
        _count(stats, counts, two_hands(session))
    table = read_gain_table(caltable)
    spwmap = list(options.spwmap) or spwmaps.spw_map(
        session.info, session.found, table.spws, combine=rung.combine
    )
    return Solved(rung, caltable, spwmap, table, counts, how)


def two_hands(session: Session) -> bool:
    """Whether the data have both parallel hands."""
    return session.info.n_hands(session.found.spws()) > 1


def _count(
    stats: Mapping[str, Any], counts: dict[int, dict[int, tuple[int, int]]], two_hands: bool
) -> None:
    """Add gaincal's own statistics: solutions with unflagged data and those below the limits, by spw and antenna.

    CASA's tables have two polarisations always; of one hand the second is empty and counts as failed.
    """
    polarisations = 2 if two_hands else 1
    for key, spw in stats.get("solvestats", {}).items():
        if not key.startswith("spw"):
            continue
        for name, antenna in spw.items():
            if not name.startswith("ant"):
                continue
            tried = int(sum(antenna["data_unflagged"][:polarisations]))
            good = int(sum(sorted(antenna["above_minsnr"], reverse=True)[:polarisations]))
            if tried:
                mine = counts.setdefault(int(key.removeprefix("spw")), {})
                number = int(name.removeprefix("ant"))
                before = mine.get(number, (0, 0))
                mine[number] = (before[0] + tried, before[1] + tried - good)


def _mapped(session: Session, solved: Solved) -> Solved | None:
    """The same solutions with the failing spws served by others; None if that is no remedy."""
    if session.options.spwmap or len(solved.counts) < 2:
        return None
    totals = {spw: _total([counts]) for spw, counts in solved.counts.items()}
    bad = [spw for spw, (tried, failed) in totals.items() if failed > SPW_FAILED * tried]
    good = {spw: counts for spw, counts in solved.counts.items() if spw not in bad}
    if not bad or len(bad) > len(solved.counts) // 2:
        return None
    tried, failed = _total(good.values())
    if failed > TOLERATED * tried:
        return None
    spwmap = spwmaps.spw_map(
        session.info, session.found, solved.table.spws, combine=solved.rung.combine, avoid=bad
    )
    log.info(
        "most solutions of spw %s failed: they get those of the nearest in frequency (spwmap %s)",
        ",".join(map(str, bad)), ",".join(map(str, spwmap)),
    )  # fmt: skip
    words = [f"spw {spw}: {totals[spw][1]} of {totals[spw][0]} failed" for spw in bad]
    return replace(solved, spwmap=spwmap, counts=good, fell_back=words)


def interp(session: Session, modes: list[str]) -> list[str]:
    """CASA's interpolation for each table; by itself unless the user chose."""
    if session.options.interp:
        return [session.options.interp] * len(modes)
    spws = session.found.spws()
    high = max(session.info.spws[spw].centre_hz for spw in spws) > LINEARPD_ABOVE_HZ
    per_obs = "perobs" if len(session.found.observations) > 1 else ""
    return [("linearPD" if high and mode == "p" else "linear") + per_obs for mode in modes]
