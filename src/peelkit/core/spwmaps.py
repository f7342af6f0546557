"""Which solutions each spectral window gets, and which spws are solved together. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from peelkit.io.ms import MsInfo, Spw
from peelkit.io.survey import Survey


def groups(info: MsInfo, found: Survey, combine: str) -> list[list[int]]:
    """Spws that are solved together, by execution: each alone, by ``baseband``, or all (``spw``).

    Parameters
    ----------
    combine : str
        As in a rung: ``spw`` or ``baseband`` among words that matter not here.
    """
    words = combine.split(",")
    result: list[list[int]] = []
    for observation in found.observations:
        spws = found.spws_of(observation)
        if "spw" in words:
            parts = [spws]
        elif "baseband" in words:
            parts = list(basebands(info, spws).values())
        else:
            parts = [[spw] for spw in spws]
        result += [part for part in parts if part not in result]
    return result


def basebands(info: MsInfo, spws: Collection[int]) -> dict[str, list[int]]:
    """Spws of each baseband; a spw whose baseband the MS does not tell is one of its own."""
    result: dict[str, list[int]] = {}
    for spw in sorted(spws):
        result.setdefault(info.spws[spw].baseband or f"spw {spw}", []).append(spw)
    return result


def has_basebands(info: MsInfo, found: Survey) -> bool:
    """Whether combining basebands is something between single spws and all of them."""
    for observation in found.observations:
        spws = found.spws_of(observation)
        if 1 < len(basebands(info, spws)) < len(spws):
            return True
    return False


def spw_map(
    info: MsInfo,
    found: Survey,
    solved: Mapping[int, Collection[int]],
    *,
    combine: str = "",
    avoid: Collection[int] = (),
) -> list[int]:
    """CASA's ``spwmap``: for each spw of the MS, the spw that its solutions are filed under.

    CASA files combined solutions under the first spw of each execution (measured, casatasks 6.7), so
    that executions with spws of their own need a map each (seed 002, tip 15).

    Parameters
    ----------
    solved : mapping of int to collection of int
        By execution, the spws that the gain table has solutions under.
    combine : str
        How it was solved.
    avoid : collection of int
        Spws whose own solutions will not do: these get those of the nearest in frequency.

    Returns
    -------
    list of int
        Empty if every spw has its own.
    """
    together = groups(info, found, combine)
    result = []
    for spw in info.spws:
        mine = [o for o in found.observations if spw.id in found.spws_of(o)] or found.observations
        candidates = sorted({s for o in mine for s in solved.get(o, ())} - set(avoid))
        if not candidates:
            candidates = sorted({s for each in solved.values() for s in each})
        partners = {other for group in together if spw.id in group for other in group}
        result.append(_choose(info, spw, candidates, partners))
    return [] if result == list(range(len(info.spws))) else result


def _choose(info: MsInfo, spw: Spw, candidates: list[int], partners: set[int]) -> int:
    """Its own solutions, those that it was solved with, or the nearest in frequency."""
    if not candidates or spw.id in candidates:
        return spw.id
    shared = [other for other in candidates if other in partners]
    return min(
        shared or candidates, key=lambda other: abs(info.spws[other].centre_hz - spw.centre_hz)
    )
