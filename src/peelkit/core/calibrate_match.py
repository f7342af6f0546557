"""Fitting gain tables to an MS: antennas by name, spws by frequency, executions by time. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.caltable import CalTable
from peelkit.io.survey import Survey

# First and last moment [MJD s].
Span = tuple[float, float]
Band = tuple[float, float]


class Match(NamedTuple):
    """Which solutions the spws of an MS get.

    Parameters
    ----------
    spwmap : list of int
        CASA's spwmap.
    ratios : dict of float
        For each calibrated spw its centre frequency over that of the spw it is likest in the MS that was
        solved.
    by_time : bool
        Whether spws alike in frequency, of several executions, were told apart by time.
    """

    spwmap: list[int]
    ratios: dict[int, float]
    by_time: bool = False


def antenna_ids(table: CalTable, info: ms.MsInfo, used: Sequence[int]) -> dict[int, int]:
    """Id in the MS of each antenna of the table, by name.

    Raises
    ------
    DataError
        If an antenna of the MS that has data is not in the table.
    """
    if list(table.antennas) == [antenna.name for antenna in info.antennas]:
        # Names need not be unique: some are blank.
        return {antenna.id: antenna.id for antenna in info.antennas}
    ids = {antenna.name: antenna.id for antenna in info.antennas}
    missing = [info.antennas[a].name for a in used if info.antennas[a].name not in table.antennas]
    if missing:
        raise DataError(
            f"{table.path}: has no antenna {', '.join(missing[:6])}"
            f"{f' and {len(missing) - 6} more' if len(missing) > 6 else ''} of {info.path} (its own are "
            f"{', '.join(table.antennas[:6])}...); flag them there, or use tables of the same array."
        )
    return {number: ids[name] for number, name in enumerate(table.antennas) if name in ids}


def spans_of(found: Survey) -> dict[int, dict[int, Span]]:
    """When the data of each spw were taken, by execution: spw to execution to first and last moment."""
    result: dict[int, dict[int, Span]] = {}
    for visit in found.visits:
        mine = result.setdefault(visit.spw, {})
        low, high = mine.get(visit.observation, (np.inf, -np.inf))
        first, last = float(visit.times_s[0]), float(visit.times_s[-1])
        mine[visit.observation] = (min(low, first), max(high, last))
    return result


def match_spws(
    table: CalTable,
    info: ms.MsInfo,
    spws: Sequence[int],
    spwmap: Sequence[int] = (),
    spans: Mapping[int, Mapping[int, Span]] | None = None,
) -> Match:
    """Spw of the table for each spw of the MS: that which covers most of it, else the nearest.

    Executions have spws of their own with the same frequencies: among those that overlap, the spws
    solved in the execution that the data belong to (by time) come first.

    Parameters
    ----------
    spws : sequence of int
        Spws of the MS that are calibrated.
    spwmap : sequence of int
        How the table's own MS was mapped, such as all spws to the one of a combined solve.
    spans : mapping of int to mapping
        From `spans_of`; without it the times do not matter.

    Raises
    ------
    DataError
        If the table has no solutions, is a bandpass of other frequencies, or keeps the solutions of the
        executions that one spw was observed in under several.
    """
    solved = table.spws
    if not solved:
        raise DataError(f"{table.path}: all its solutions failed; nothing can be applied.")
    sources = list(range(len(table.freq_hz))) if spwmap else solved
    result = list(range(len(info.spws)))
    # CASA wants an entry for every spw, and it must be one of the table's.
    result = [min(number, len(table.freq_hz) - 1) for number in result]
    # Solutions may be filed under another spw than they were solved for.
    filed = {s: int(spwmap[s]) if s < len(spwmap) else s for s in sources}
    ratios = {}
    by_time = False
    for spw in spws:
        own = band_of(info.spws[spw])
        # In the MS that was solved; of which the solutions may be filed under another spw.
        among = _of_execution(table, own, sources, filed, (spans or {}).get(spw, {}), spw, info)
        best = _likest(own, table, among, spw)
        alike = {s for s in sources if _overlap(own, table.bands_hz[s]) > 0}
        by_time |= not alike <= set(among)
        if table.kind == "B" and _overlap(own, table.bands_hz[best]) == 0:
            raise DataError(
                f"{table.path}: its bandpass has nothing at the {sum(own) / 2e9:.5g} GHz of spw {spw} of "
                f"{info.path}; leave this table out, or this spw (--spw)."
            )
        taken = filed[best]
        if taken not in solved:
            taken = _likest(own, table, solved, spw)
        result[spw] = taken
        ratios[spw] = sum(own) / sum(table.bands_hz[best])
    return Match(result, ratios, by_time)


def _of_execution(
    table: CalTable,
    own: Band,
    sources: Sequence[int],
    filed: Mapping[int, int],
    spans: Mapping[int, Span],
    spw: int,
    info: ms.MsInfo,
) -> list[int]:
    """Those of ``sources`` with solutions of the executions of the data; all if that says nothing."""
    there = table.observations
    executions = {one for each in there.values() for one in each}
    alike = [s for s in sources if _overlap(own, table.bands_hz[s]) > 0]
    if len(executions) < 2 or not spans or len({filed[s] for s in alike}) < 2:
        return list(sources)
    wanted = {_nearest(span, table.spans_s) for span in spans.values()}
    having = {s: wanted & set(there.get(filed[s], ())) for s in alike}
    most = max(len(one) for one in having.values())
    if most == 0:
        return list(sources)
    kept = [s for s in alike if len(having[s]) == most]
    if most < len({one for each in having.values() for one in each}):
        raise DataError(
            f"{table.path}: has the solutions for spw {spw} of {info.path} under spw "
            f"{', '.join(str(filed[s]) for s in alike if having[s])}, one for each execution; apply it to the "
            "scans of one execution at a time (--scan, --out)."
        )
    return kept


def correspond(table: CalTable, found: Survey) -> bool:
    """Whether the executions of the data are the table's, by number and time: CASA keeps them apart then."""
    theirs = table.spans_s
    spans: dict[int, Span] = {}
    for each in spans_of(found).values():
        for one, (first, last) in each.items():
            low, high = spans.get(one, (first, last))
            spans[one] = (min(low, first), max(high, last))
    return len(theirs) > 1 and all(_nearest(span, theirs) == one for one, span in spans.items())


def time_interp(kind: str, wanted: str, usual: str) -> str:
    """Interpolation of a table: the wanted, or the usual where nothing is said.

    A delay or a bandpass has its growth with frequency in itself: ``PD`` is for G and T only.
    """
    chosen = wanted or usual
    return chosen if kind in ("G", "T") else chosen.replace("PD", "")


def _nearest(span: Span, executions: Mapping[int, Span]) -> int:
    """Execution of a table that is nearest in time: by the gap, then by the middles."""
    return min(
        executions,
        key=lambda one: (
            max(0.0, executions[one][0] - span[1], span[0] - executions[one][1]),
            abs(sum(executions[one]) - sum(span)),
        ),
    )


def band_of(spw: ms.Spw) -> Band:
    """Lower and upper edge of a spw [Hz]."""
    half = np.abs(spw.width_hz) / 2
    return float((spw.freq_hz - half).min()), float((spw.freq_hz + half).max())


def _overlap(one: Band, two: Band) -> float:
    return max(0.0, min(one[1], two[1]) - max(one[0], two[0]))


def _likest(own: Band, table: CalTable, among: Sequence[int], spw: int) -> int:
    """Spw of the table with the largest overlap [Hz]; of several, or none, that of the nearest centre.

    Of several alike that of the same number.
    """
    return max(
        among,
        key=lambda other: (
            _overlap(own, table.bands_hz[other]),
            -abs(sum(own) - sum(table.bands_hz[other])),
            other == spw,
        ),
    )
