"""Parts of a solve for several processes: whole scans of some fields and spws each, and their gains together."""

from __future__ import annotations

import itertools
import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_cells import Unit
from peelkit.core.dd_copy import Shape
from peelkit.core.dd_data import integrations
from peelkit.core.dd_gains import Key, Solutions, TimeAxis
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.io import ms
from peelkit.io.gains import TermGains

# Chunks of a part: a run of QuartiCal costs a second.
MOST_CHUNKS = 8


@dataclass(frozen=True)
class Part:
    """What one of several processes solves; all else is the same for all.

    Parameters
    ----------
    number : int
        Of the part.
    ddids : tuple of int
        Its data descriptions.
    rows, scans : ndarray of int, shape (row,)
        Its rows, as in `peelkit.core.dd_data.Rows`.
    axes : dict
        Its integrations, by group.
    """

    number: int
    ddids: tuple[int, ...]
    rows: NDArray[np.int64]
    scans: NDArray[np.int64]
    axes: dict[Key, TimeAxis]

    def of(self, plan: Plan) -> Plan:
        """The part of a plan."""
        rows = replace(plan.rows, rows=self.rows, scans=self.scans, axes=self.axes)
        return replace(plan, rows=rows, by_field={}, fields=())


@dataclass(frozen=True)
class Result:
    """Solutions of a part, and its run."""

    groups: dict[Key, Solutions]
    run: quartical.Solved


def split(plan: Plan, shape: Shape, workers: int) -> list[Part]:
    """Parts of the rows of whole chunks, so that the results are those of one process."""
    chunks = _chunks(shape)
    count = max(workers, math.ceil(len(chunks) / MOST_CHUNKS / workers) * workers)
    sizes = np.array([sum(unit.index.size for unit in chunk) for chunk in chunks])
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    number = np.minimum((middle * count).astype(int), count - 1)
    parted = [
        replace(unit, chunk=int(n))
        for n, chunk in zip(number, chunks, strict=True)
        for unit in chunk
    ]
    part_of_row = _part_of_rows(plan, parted)
    found: list[Part] = []
    for number in range(1 + max(unit.chunk for unit in parted)):
        mine = part_of_row == number
        if not mine.any():
            continue
        own = [unit for unit in parted if unit.chunk == number]
        here = tuple(d for d in shape.cells if d in {unit.key[1] for unit in own})
        rows, scans = plan.rows.rows[mine], plan.rows.scans[mine]
        found.append(Part(len(found), here, rows, scans, _axes(plan.rows.axes, own)))
    return found


def _chunks(shape: Shape) -> list[list[Unit]]:
    """Units of each chunk; the pieces of a unit that was cut stay together, since a turn may leave it whole."""
    found: list[list[Unit]] = []
    for cells in shape.cells.values():
        for _, one in itertools.groupby(cells.units, key=lambda unit: unit.chunk):
            units = list(one)
            if units[0].begins:
                found.append(units)
            else:
                found[-1] += units
    return found


def _axes(axes: Mapping[Key, TimeAxis], units: Sequence[Unit]) -> dict[Key, TimeAxis]:
    found: dict[Key, list[NDArray[np.int64]]] = {}
    for unit in units:
        found.setdefault(unit.key, []).append(unit.index)
    return {
        key: TimeAxis(axes[key].times_s[index], axes[key].scans[index])
        for key, index in ((key, np.concatenate(pieces)) for key, pieces in found.items())
    }


def _part_of_rows(plan: Plan, units: Sequence[Unit]) -> NDArray[np.int32]:
    """Part that each row is in; -1 for those of other data descriptions."""
    rows, ddids = plan.rows, sorted({unit.key[1] for unit in units})
    part_of = {
        key: np.zeros(rows.axes[key].times_s.size, dtype=np.int32)
        for key in {unit.key for unit in units}
    }
    for unit in units:
        part_of[unit.key][unit.index] = unit.chunk
    found = np.full(rows.rows.size, -1, dtype=np.int32)
    with ms.opened(rows.info.path) as main:
        for places, _, key, when in integrations(rows, main, ddids):
            found[places] = part_of[key][when]
    return found


def together(results: Sequence[Result], axes: Mapping[Key, TimeAxis]) -> dict[Key, Solutions]:
    """Solutions of all parts; those of one group one after the other in time."""
    pieces: dict[Key, list[Solutions]] = {}
    for one in results:
        for key, solutions in one.groups.items():
            pieces.setdefault(key, []).append(solutions)
    found = {}
    for key, ones in pieces.items():
        ones = sorted(ones, key=lambda one: float(one.axis.times_s[0]))
        count = len(ones[0].terms)
        found[key] = Solutions(
            axes[key],
            tuple(_joined([one.terms[n] for one in ones]) for n in range(count)),
            tuple(_counted([one.time_bins[n] for one in ones]) for n in range(count)),
            ones[0].freq_bins,
        )
    return {key: found[key] for key in axes if key in found}


def _counted(bins: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    before = np.cumsum([0, *(int(one[-1]) + 1 for one in bins[:-1])])
    return np.concatenate([one + n for one, n in zip(bins, before, strict=True)])


def _joined(terms: Sequence[TermGains]) -> TermGains:
    params = [term.params for term in terms if term.params is not None]
    return replace(
        terms[0],
        gains=np.concatenate([term.gains for term in terms]),
        flags=np.concatenate([term.flags for term in terms]),
        information=np.concatenate([term.information for term in terms]),
        time_s=np.concatenate([term.time_s for term in terms]),
        converged=np.concatenate([term.converged for term in terms]),
        iterations=np.concatenate([term.iterations for term in terms]),
        params=np.concatenate(params) if params else None,
    )


def as_one(runs: Sequence[quartical.Solved], folder: Path) -> quartical.Solved:
    """The runs of all parts as one; its gains are to be written into those of the first part."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    gains = folder / "gains"
    shutil.copytree(runs[0].gains, gains)
    chi2: list[quartical.ChunkChi2] = []
    begins: dict[int, int] = {}
    for run in runs:
        # A part counts its chunks of each data description from 0; those of all parts follow one another.
        mine = [
            replace(one, time_chunk=begins.get(one.ddid, 0) + one.time_chunk) for one in run.chi2
        ]
        chi2 += mine
        for one in mine:
            begins[one.ddid] = max(begins.get(one.ddid, 0), one.time_chunk + 1)
    return quartical.together(runs, replace(runs[0], gains=gains), chi2)


class Folder:
    """A part's own folder: made under another name, and renamed when all is in it.

    A part that is done again, because its worker was lost or only seemed to be, finds nothing in its way.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self.final = plan.folder / name
        self.made = plan.folder / f".{name}.{uuid.uuid4().hex}"
        self.made.mkdir(parents=True)

    def finish(self, run: quartical.Solved) -> quartical.Solved:
        """Rename it; the run as it is then."""
        old = self.made.with_name(f"{self.made.name}.old")
        if self.final.exists():
            self.final.rename(old)
        self.made.rename(self.final)
        shutil.rmtree(old, ignore_errors=True)
        moved = [self.final / path.relative_to(self.made) for path in (run.gains, run.log)]
        argv = [word.replace(str(self.made), str(self.final)) for word in run.argv]
        return replace(run, gains=moved[0], log=moved[1], argv=tuple(argv))
