"""``--dry-run``: what a command would cost, of options and data that have been checked, without writing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peelkit import memory
from peelkit.core import averaging, cost, imagers
from peelkit.core.cost import Estimate, Size, Stage
from peelkit.engines import casa_mpi, quartical
from peelkit.errors import DataError
from peelkit.io import journal, ms, rownumbers
from peelkit.outcome import Outcome

if TYPE_CHECKING:
    from peelkit.core.dd_plan import Plan
    from peelkit.engines.casa import Imaging

# An automatic ladder seldom has more rounds.
USUAL_ROUNDS = 4


def refuse_unfinished(path: Path) -> None:
    """Raise `DataError` where a step was interrupted: putting it back would write."""
    if (step := journal.unfinished(path)) is not None:
        raise DataError(
            f"{path}: {step.command} was interrupted while it wrote; 'peelkit undo' {path} puts it back, "
            "then ask again."
        )


def size_of(info: ms.MsInfo, rows: NDArray[np.int64]) -> Size:
    """Count the samples, fields and spws of ``rows``."""
    with ms.opened(info.path) as main:
        counts = rownumbers.counts_by_field(main, rows, len(info.data_descriptions))
    return _size_of_fields(info, counts)


def _size_of_fields(info: ms.MsInfo, counts: Mapping[int, NDArray[np.int64]]) -> Size:
    """Size of all fields together, of which there are so many rows by data description."""
    none = np.zeros(len(info.data_descriptions), dtype=np.int64)
    return replace(_size(info, sum(counts.values(), start=none)), fields=len(counts))


def sizes_of(info: ms.MsInfo, rows: NDArray[np.int64]) -> tuple[Size, Size]:
    """Sizes of ``rows``, and of the whole MS, whose fields nobody asks for."""
    size = size_of(info, rows)
    return size, size if rows.size == info.n_rows else _whole(info)


def _whole(info: ms.MsInfo) -> Size:
    with ms.opened(info.path) as main:
        counts = rownumbers.counts(main, ms.every_row(info), len(info.data_descriptions))
    return _size(info, counts)


def _size(info: ms.MsInfo, counts: NDArray[np.int64]) -> Size:
    """Size of so many rows of each data description."""
    there = counts > 0
    n_chan = np.array([info.spws[item.spw].freq_hz.size for item in info.data_descriptions])
    n_corr = np.array([len(item.correlations) for item in info.data_descriptions])
    return Size(
        rows=int(counts.sum()),
        samples=int((counts * n_chan * n_corr).sum()),
        visibilities=int((counts * n_chan).sum()),
        spws=len({info.data_descriptions[n].spw for n in np.flatnonzero(there)}),
        antennas=len(info.antennas),
        channels=int(n_chan[there].sum()),
    )


def outcome(
    info: ms.MsInfo, estimate: Estimate, *, place: Path | None = None, notes: Sequence[str] = ()
) -> Outcome:
    """The estimate as the result of a command.

    Parameters
    ----------
    place : Path, optional
        Where space is needed; at the MS if not given.
    notes : sequence of str
        What the estimate assumes.
    """
    where = _existing(place or info.path.absolute().parent)
    free = shutil.disk_usage(where).free
    results = {**estimate.record(), "disk_free_bytes": free, "assumed": list(notes)}
    warnings = []
    if estimate.disk_bytes > free:
        warnings.append(
            f"{where}: {estimate.disk_bytes / 1e9:.1f} GB of disk are needed and {free / 1e9:.1f} GB free"
        )
    limit = memory.limit_gib() * memory.GIB
    if estimate.memory_bytes > limit:
        warnings.append(
            f"about {estimate.memory_bytes / memory.GIB:.1f} GiB of memory are needed, more than --memory "
            f"{memory.limit_gib():g}: {_what_takes_it(estimate)}"
        )
    return Outcome(results=results, inputs={"ms": str(info.path)}, warnings=tuple(warnings))


def _what_takes_it(estimate: Estimate) -> str:
    if estimate.children_bytes > estimate.kept_bytes:
        return "the engine's part does not get smaller with it; a smaller --imsize makes that of its images smaller"
    return (
        f"{estimate.kept_bytes / memory.GIB:.1f} GiB are for the row numbers; choose fields or spws"
    )


# ---------------------------------------------------------------- the commands


def add_model_col(info: ms.MsInfo, rows: NDArray[np.int64], *, terms: int) -> Outcome:
    """Of copying a sum of so many columns."""
    size, whole = sizes_of(info, rows)
    found = cost.add_model_col(size, terms=terms, whole=whole)
    return outcome(
        info, Estimate("add-model-col", size, tuple(found), whole.column_bytes, 0.0, info.n_rows)
    )


def predict_region(
    info: ms.MsInfo, rows: NDArray[np.int64], *, regions: int, columns: int, fitted: int
) -> Outcome:
    """Of predicting so many regions into so many columns."""
    size, whole = sizes_of(info, rows)
    found = cost.predict_region(size, regions=regions, columns=columns, fitted=fitted)
    disk = columns * whole.column_bytes
    return outcome(
        info, Estimate("predict-region", size, tuple(found), disk, 0.0, info.n_rows),
        notes=["sources are fitted in two passes"] if fitted else [],
    )  # fmt: skip


def image_residual(
    info: ms.MsInfo, rows: NDArray[np.int64], imaging: Imaging, *, new: bool, grows: bool, out: Path
) -> Outcome:
    """Of an image."""
    size, grid = size_of(info, rows), _grid(info, imaging)
    place = out.absolute().parent
    averages = _averages(info, rows, imaging, size, place)
    found = cost.image_residual(size, averages, grid, new=new, grows=grows)
    disk = grid.images_bytes + _disk_bytes(averages)
    notes = _imaging_notes(grid)
    if grows:
        notes.append("the mask opens twice")
    estimate = Estimate("image-residual", size, tuple(found), disk, grid.memory_bytes, info.n_rows)
    return outcome(info, estimate, place=place, notes=notes)


@dataclass(frozen=True)
class Rounds:
    """How self-calibration would go.

    Parameters
    ----------
    rounds : int or None
        Of the ladder; None if it is automatic, which is as many as usual.
    most : int
        At most.
    calwt : bool
        Weights change with the gains.
    folder : Path
        Of the images.
    """

    rounds: int | None
    most: int
    calwt: bool
    folder: Path

    @property
    def count(self) -> int:
        """Rounds that are counted with."""
        return min(self.rounds or USUAL_ROUNDS, self.most)

    @property
    def place(self) -> Path:
        """Where the folder will be."""
        return self.folder.absolute().parent

    def notes(self, grid: cost.Grid) -> list[str]:
        """What is assumed."""
        return [
            f"{self.count} round{'s' if self.count > 1 else ''}"
            + ("" if self.rounds else f" (--solint auto; at most {self.most})"),
            *_imaging_notes(grid),
        ]

    def disk_bytes(self, size: Size, averages: Size | None, grid: cost.Grid) -> float:
        """Of the copy that is worked on, and the images."""
        disk = 3 * size.column_bytes + size.rest_bytes + _disk_bytes(averages)
        return disk + grid.images_bytes * (self.count + 1)


def selfcal(info: ms.MsInfo, rows: NDArray[np.int64], imaging: Imaging, planned: Rounds) -> Outcome:
    """Of self-calibration of one field, or of a mosaic."""
    (size, whole), grid = sizes_of(info, rows), _grid(info, imaging)
    averages = _averages(info, rows, imaging, size, planned.place)
    found = cost.selfcal(
        size, averages, grid, rounds=planned.count, whole=whole, calwt=planned.calwt
    )
    disk = planned.disk_bytes(size, averages, grid) + 2 * whole.column_bytes
    estimate = Estimate("selfcal", size, tuple(found), disk, grid.memory_bytes, info.n_rows)
    return outcome(info, estimate, place=planned.place, notes=planned.notes(grid))


def selfcal_fields(
    info: ms.MsInfo,
    counts: Mapping[int, NDArray[np.int64]],
    example: NDArray[np.int64],
    imaging: Imaging,
    planned: Rounds,
    workers: int,
) -> Outcome:
    """Of each field by itself, on so many workers.

    Parameters
    ----------
    counts : dict of ndarray
        Selected rows of each field by data description (`rownumbers.counts_by_field`).
    example : ndarray of int, shape (row,)
        Rows of the field that ``imaging`` is of; the others are imaged alike.
    """
    grid = _grid(info, imaging)
    averages = _averages(info, example, imaging, size_of(info, example), planned.place)
    share = None if averages is None else averages.rows / max(1, example.size)
    lanes = max(1, min(workers, len(counts)))
    stages: dict[str, Stage] = {}
    disk = 2.0 * _whole(info).column_bytes
    for size in (_size(info, count) for count in counts.values()):
        averaged = None if share is None else size.times(share)
        disk += planned.disk_bytes(size, averaged, grid)
        begun, *work = cost.selfcal(
            size, averaged, grid, rounds=planned.count, whole=size, calwt=planned.calwt
        )
        stages.setdefault(begun.name, begun)
        for one in work:
            name = f"each field: {one.name}"
            before = stages.get(name, Stage(name, 0, 0))
            stages[name] = Stage(
                name,
                before.cpu_s + one.cpu_s,
                before.seconds + one.seconds / lanes,
                before.read_bytes + one.read_bytes,
                before.written_bytes + one.written_bytes,
            )
    estimate = Estimate(
        "selfcal", _size_of_fields(info, counts), tuple(stages.values()), disk, lanes * grid.memory_bytes,
        info.n_rows,
    )  # fmt: skip
    notes = [*planned.notes(grid), "all fields are imaged as the largest"]
    if workers > 1:
        notes.append(f"{lanes} of {workers} workers at a time, with a core each")
    return outcome(info, estimate, place=planned.place, notes=notes)


def ddsolve(plan: Plan, *, auto: bool, columns: int) -> Outcome:
    """Of a solve of all directions of a plan, before the gate leaves some out."""
    info, options = plan.rows.info, plan.options
    size, whole = sizes_of(info, plan.rows.rows)
    directions = len(plan.directions)
    found = cost.ddsolve(
        size, directions=directions, auto=auto, columns=columns, whole=whole,
        sweeps=options.rounds * options.iterations / 50,
    )  # fmt: skip
    disk = (2 + directions) * size.column_bytes + size.rest_bytes + columns * whole.column_bytes
    children = min(
        memory.limit_gib() * memory.GIB - cost.OWN_BYTES,
        quartical.BASE_BYTES + quartical.sample_bytes(1 + directions) * size.samples,
    )
    estimate = Estimate("ddsolve", size, tuple(found), disk, children, info.n_rows)
    return outcome(
        info, estimate, place=plan.folder.absolute().parent,
        notes=["every direction is solved; the gate may leave some out"],
    )  # fmt: skip


def _averages(
    info: ms.MsInfo, rows: NDArray[np.int64], imaging: Imaging, size: Size, place: Path
) -> Size | None:
    """What is imaged of so much data; None if it is the data as they are."""
    settled = averaging.settled(info, rows, _existing(place), imaging)
    if settled.smearing == 0:
        return None
    return size.times(averaging.share(info, rows, settled))


def _disk_bytes(averages: Size | None) -> int:
    """Of what is averaged for imaging."""
    return 0 if averages is None else 2 * averages.column_bytes


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    while not folder.exists():
        folder = folder.absolute().parent
    return folder


def _grid(info: ms.MsInfo, imaging: Imaging) -> cost.Grid:
    processes = imagers.processes(imaging.imager)
    begin = (0.0, 0.0)
    if imaging.is_mosaic:
        different = info.telescope.upper() in cost.DIFFERENT_DISHES
        begin = cost.DIFFERENT_BEGIN if different else cost.ALIKE_BEGIN
    return cost.Grid(imaging.imsize, imaging.nterms, imaging.gridder, processes, *begin)


def _imaging_notes(grid: cost.Grid) -> list[str]:
    notes = [f"{cost.MAJOR_CYCLES} major cycles of each cleaning, {grid.imsize} pixels a side"]
    if grid.processes > 1:
        notes.append(
            f"tclean in {grid.processes} processes ({casa_mpi.VARIABLE}); the time is that of one"
        )
    return notes


__all__ = [
    "Rounds", "add_model_col", "ddsolve", "image_residual", "predict_region", "refuse_unfinished", "selfcal",
    "selfcal_fields", "size_of",
]  # fmt: skip
