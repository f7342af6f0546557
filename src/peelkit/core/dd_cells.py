"""How the data of a solve are laid out in its copy: units in a row, each cut into cells. Pure.

Intervals of gains end with the scan (or the field), so that QuartiCal need not know of fields and scans: all
of a spw are one after the other in time, in one group where QuartiCal's own way would be one for each field
and scan, at 0.2 to 0.5 s each. Within a unit the intervals of all terms begin together; a cell is what no
interval ends in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_gains import Key, TimeAxis

# Visibilities (row x channel x correlation) of a chunk, which QuartiCal iterates on until nearly all of its
# solutions have converged: not by the number of cores or workers, so that results do not depend on them. A
# chunk costs 0.2 to 0.5 s.
CHUNK_VISIBILITIES = 6e6


@dataclass(frozen=True)
class Unit:
    """Integrations over whose ends no interval goes.

    Parameters
    ----------
    key : Key
        Group that they are of.
    index : ndarray of int
        Their places on its time axis.
    chunk : int
        Part of the copy that it is in.
    begins : bool
        Not a further piece of what had to be cut.
    """

    key: Key
    index: NDArray[np.int64]
    chunk: int = 0
    begins: bool = True


@dataclass(frozen=True)
class Cells:
    """Cells of one data description.

    Parameters
    ----------
    units : tuple of Unit
        In the order of the copy.
    of : dict of ndarray of int
        By group, the cell that each integration is in.
    unit, chunk : ndarray of int, shape (cell,)
        Unit and chunk of each cell.
    length : int
        Integrations of a cell at most; 0 is a whole unit.
    """

    units: tuple[Unit, ...]
    of: dict[Key, NDArray[np.int64]]
    unit: NDArray[np.int64]
    chunk: NDArray[np.int64]
    length: int


def split(axes: Mapping[Key, TimeAxis], *, across_scans: bool, most: int = 0) -> list[Unit]:
    """Units of some groups: scans, or all of a group; of ``most`` integrations, where that is not 0."""
    units = []
    for key, axis in axes.items():
        scans = np.zeros_like(axis.scans) if across_scans else axis.scans
        # Scans of a group may be interleaved in time; its own intervals end wherever the scan changes.
        starts = np.flatnonzero(np.diff(scans, prepend=scans[0] - 1))
        for start, stop in zip(starts, [*starts[1:], scans.size], strict=True):
            for first in range(start, stop, most or stop - start):
                index = np.arange(first, min(stop, first + most) if most else stop)
                units.append(Unit(key, index, begins=first == start))
    return units


def chunk_integrations(n_antenna: int, n_chan: int, n_corr: int) -> int:
    """Integrations of a chunk: `CHUNK_VISIBILITIES`."""
    return max(1, int(CHUNK_VISIBILITIES / (n_antenna * (n_antenna + 1) / 2 * n_chan * n_corr)))


def chunked(units: Sequence[Unit], most: int) -> list[Unit]:
    """The same units in chunks of ``most`` integrations, or of one unit that is longer.

    Whoever begins with a chunk makes the same ones from there on.
    """
    found: list[Unit] = []
    chunk = held = 0
    for unit in units:
        if held and held + unit.index.size > most:
            chunk, held = chunk + 1, 0
        found.append(replace(unit, chunk=chunk))
        held += unit.index.size
    return found


def cells(units: Sequence[Unit], axes: Mapping[Key, TimeAxis], length: int) -> Cells:
    """Cut units into cells of ``length`` integrations."""
    of = {key: np.zeros(axis.times_s.size, dtype=np.int64) for key, axis in axes.items()}
    counts = [solutions(unit.index.size, length) for unit in units]
    begins = np.cumsum([0, *counts])
    for unit, begin in zip(units, begins[:-1], strict=True):
        place = np.arange(unit.index.size)
        of[unit.key][unit.index] = begin + place // (length or max(1, unit.index.size))
    number = np.repeat(np.arange(len(units)), counts)
    chunk = np.array([unit.chunk for unit in units])
    return Cells(tuple(units), of, number, chunk[number], length)


def solutions(n_time: int, interval: int) -> int:
    """Intervals in so many integrations."""
    return math.ceil(n_time / interval) if interval else 1


def bins(units: Sequence[Unit], key: Key, interval: int) -> NDArray[np.int64]:
    """Interval of each integration of a group: they begin anew in each of its units."""
    pieces, before = [], 0
    for unit in units:
        if unit.key == key:
            place = np.arange(unit.index.size) // (interval or max(1, unit.index.size))
            pieces.append(before + place)
            before += solutions(unit.index.size, interval)
    return np.concatenate(pieces)


def common(intervals: Sequence[int]) -> int:
    """Longest length that divides all intervals; 0 where all are as long as can be."""
    return math.gcd(*intervals)
