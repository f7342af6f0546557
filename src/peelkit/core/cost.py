"""What a command will cost: a model with measured coefficients, by stage.

Time is linear in rows, samples (row x channel x correlation), visibilities (row x channel), pixels and
chunks of a solve, with a fixed part. The coefficients are CPU seconds of ``bench/coefficients.py`` (21 060 rows of 16 and
84 240 rows of 32 channels, two correlations, one point source) and, for rows and large data, of single commands
on 10 M rows of 1 channel and 336 960 rows of 64 channels x 4 correlations, taken on two busy cores (casatasks
6.7, QuartiCal 0.2.7): expect a factor of two on such a machine, and another on another. Wall time is CPU time
over the threads that share it, and the bytes at `DISK_BYTES_S`. Pure functions: nothing is read here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from peelkit import memory
from peelkit.core.dd_cells import CHUNK_VISIBILITIES

COMPLEX_BYTES = 8
# FLAG is packed into bits.
FLAG_BYTES = 1 / 8
# Of WEIGHT and SIGMA, UVW, times and ids: the row beside its samples.
ROW_BYTES = 150


@dataclass(frozen=True)
class Size:
    """How much data.

    Parameters
    ----------
    rows, samples, visibilities : int
        Rows; row x channel x correlation; row x channel.
    fields, spws, antennas : int
        Of the selection; antennas of the MS.
    channels : int
        Of all spws together.
    """

    rows: int
    samples: int
    visibilities: int
    fields: int = 1
    spws: int = 1
    antennas: int = 27
    channels: int = 1

    def times(self, factor: float) -> Size:
        """The same, so many times over."""
        return replace(
            self,
            rows=round(self.rows * factor),
            samples=round(self.samples * factor),
            visibilities=round(self.visibilities * factor),
        )

    @property
    def chunks(self) -> int:
        """What QuartiCal solves one by one: of one spw each, and of the parallel hands."""
        solved = min(self.samples, 2 * self.visibilities)
        return max(self.spws, math.ceil(solved / CHUNK_VISIBILITIES))

    @property
    def column_bytes(self) -> int:
        """Of one column of visibilities."""
        return self.samples * COMPLEX_BYTES

    @property
    def rest_bytes(self) -> int:
        """Of what is read with every column: flags, weights, UVW, ids."""
        return round(self.samples * FLAG_BYTES + self.rows * ROW_BYTES)


@dataclass(frozen=True)
class Rate:
    """CPU time of one pass [s]: fixed, for a million rows, samples, visibilities; and threads that share it."""

    fixed: float = 0.0
    per_mrow: float = 0.0
    per_msample: float = 0.0
    per_mvis: float = 0.0
    lanes: float = 1.0

    def cpu_s(self, size: Size) -> float:
        """CPU time of a pass over all data [s]."""
        return (
            self.fixed
            + self.per_mrow * size.rows / 1e6
            + self.per_msample * size.samples / 1e6
            + self.per_mvis * size.visibilities / 1e6
        )


# What a disk takes and gives in a sequential copy beside other work [B/s]; the page cache is faster.
DISK_BYTES_S = 1.0e9

START = Rate(fixed=0.6)
SURVEY = Rate(per_mrow=2.3, per_msample=0.028)
AUDIT = Rate(per_mrow=0.3, per_msample=0.015)
# A column and its audit: of two columns, one read and one written.
COPY = Rate(per_mrow=0.9, per_msample=0.022)
# One sky, or one column to write (half each).
PREDICT = Rate(fixed=0.1, per_mrow=0.5, per_msample=0.16, lanes=1.3)
# A fit has so many passes, and reads so many visibilities at most (core/compact_fit.py).
FIT = Rate(fixed=0.05, per_mrow=0.5, per_msample=0.37)
FIT_PASSES, FIT_VISIBILITIES = 2, 20e6
AVERAGE = Rate(fixed=0.1, per_mrow=2.0, per_msample=0.13)
CASA_START = Rate(fixed=1.5)
# tclean: one pass of gridding or degridding of one Taylor term, and what it costs for a pixel [s].
GRID = Rate(fixed=0.1, per_mrow=0.35, per_mvis=0.17)
GRIDDER_FACTOR = {"standard": 1.0, "wproject": 3.0, "mosaic": 3.0, "wgridder": 0.7}
PIXEL_S = 3.0e-7
# What the mosaic gridder takes to begin, once for an image and whatever the data [s, B]: convolution functions of primary
# beams, where CASA has all dishes for alike (VLA: SimplePBConvFunc), and where not.
ALIKE_BEGIN, DIFFERENT_BEGIN = (8.0, 2.7e9), (4.0, 0.0)
DIFFERENT_DISHES = frozenset({"ALMA", "ACA", "EVLA", "CARMA", "OVRO", "BIMA"})
MAJOR_CYCLES = 6
# gaincal and applycal of one round, and the model's column.
ROUND = Rate(fixed=1.9, per_mvis=3.9)
# MS copies of selfcal and ddsolve, with two columns.
DEEP_COPY = Rate(fixed=0.2, per_mrow=4.0, per_msample=0.09)
# ddsolve: S/N of the directions; the solve, for one direction; what QuartiCal pays to begin, and for a chunk
# [s]; intervals, chosen on so many visibilities at most (core/dd_auto.py); gains balanced and subtracted.
MEASURE = Rate(per_mrow=2.0, per_msample=0.1, lanes=1.3)
SOLVE = Rate(per_msample=1.3, lanes=1.7)
QUARTICAL_START = Rate(fixed=1.2, lanes=1.0)
CHUNK_S = 0.25
AUTO_VISIBILITIES = 0.8e6
SUBTRACT = Rate(per_mrow=3.0, per_msample=0.25, lanes=1.3)
WRITE_BACK = Rate(fixed=0.2, per_mrow=1.5, per_msample=0.03)

# Resident memory [B]: CASA's child (tests/integration/test_memory.py: 330 MB whatever the data), and what
# tclean takes for a pixel of each image that it holds.
CASA_BYTES = 340e6
PIXEL_BYTES = 60.0
OWN_BYTES = 170e6
# Nominal chunks that are alive (`peelkit.memory.ALIVE` is the bound of all commands).
ALIVE = {"add-model-col": 3, "predict-region": 8, "image-residual": 3, "selfcal": 5, "ddsolve": 12}
# What stays for each row of the MS while a command runs [B], beside what the engines have: row numbers (4), scans
# and ids (4 each), groups (2), marks (1). The table of references that image-residual hands to CASA has 37 (measured
# on 9.3 M rows); MSs are copied in windows.
KEPT_PER_ROW = {
    "add-model-col": 12.0,
    "predict-region": 27.0,
    "image-residual": 42.0,
    "selfcal": 14.0,
    "ddsolve": 26.0,
}


@dataclass(frozen=True)
class Stage:
    """One stage of a command: CPU and wall time [s], and bytes that are read and written."""

    name: str
    cpu_s: float
    seconds: float
    read_bytes: float = 0.0
    written_bytes: float = 0.0


def stage(
    name: str, rate: Rate, size: Size, *, passes: float = 1, read: float = 0, written: float = 0
) -> Stage:
    """A stage of so many passes over the data, that moves so many bytes in all."""
    cpu = rate.cpu_s(size) * passes
    return Stage(name, cpu, cpu / rate.lanes + (read + written) / DISK_BYTES_S, read, written)


@dataclass(frozen=True)
class Grid:
    """An image: pixels a side, Taylor terms, CASA's gridder, the processes that grid, and what it takes to begin."""

    imsize: int
    nterms: int = 1
    gridder: str = "standard"
    processes: int = 1
    begin_s: float = 0.0
    begin_bytes: float = 0.0

    @property
    def memory_bytes(self) -> float:
        """Of tclean's images while it runs, in all its processes."""
        one = CASA_BYTES + PIXEL_BYTES * self.imsize**2 * (3 * self.nterms - 1) + self.begin_bytes
        return one * self.processes + (CASA_BYTES if self.processes > 1 else 0)

    @property
    def images_bytes(self) -> float:
        """Of the images on disk."""
        return 4.0 * 8 * self.imsize**2 * self.nterms


@dataclass(frozen=True)
class Estimate:
    """What a command costs.

    Parameters
    ----------
    command : str
        Its name.
    size : Size
        The selected data.
    stages : tuple of Stage
        In order.
    disk_bytes : float
        Space that is needed at the same time, beyond what is used now.
    children_bytes : float
        Resident memory of the engines' processes.
    ms_rows : int
        Rows of the whole MS.
    """

    command: str
    size: Size
    stages: tuple[Stage, ...]
    disk_bytes: float
    children_bytes: float = 0.0
    ms_rows: int = 0

    @property
    def cpu_s(self) -> float:
        """In all."""
        return sum(one.cpu_s for one in self.stages)

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(one.seconds for one in self.stages)

    @property
    def memory_bytes(self) -> float:
        """Resident memory of all processes at its highest, as far as it is known."""
        own = ALIVE[self.command] * min(memory.chunk_bytes(), 30.0 * self.size.samples)
        workers = (memory.processes() - 1) * (memory.LEAST_PROCESS_GIB * memory.GIB + own)
        return OWN_BYTES + own + workers + self.kept_bytes + self.children_bytes

    @property
    def kept_bytes(self) -> float:
        """What grows with the rows."""
        return KEPT_PER_ROW[self.command] * max(self.ms_rows, self.size.rows)

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.size.rows,
            "channels": self.size.channels,
            "visibilities": self.size.visibilities,
            "samples": self.size.samples,
            "fields": self.size.fields,
            "spws": self.size.spws,
            "read_bytes": round(sum(one.read_bytes for one in self.stages)),
            "written_bytes": round(sum(one.written_bytes for one in self.stages)),
            "disk_bytes": round(self.disk_bytes),
            "memory_bytes": round(self.memory_bytes),
            "memory_limit_bytes": round(memory.limit_gib() * memory.GIB),
            "cpu_s": self.cpu_s,
            "seconds": self.seconds,
            "stages": [
                {
                    "name": one.name, "cpu_s": one.cpu_s, "seconds": one.seconds,
                    "read_bytes": round(one.read_bytes), "written_bytes": round(one.written_bytes),
                }
                for one in self.stages
            ],
        }  # fmt: skip


# ---------------------------------------------------------------- stages of the commands


def survey(size: Size) -> Stage:
    """Reading flags and weights."""
    return stage("reading flags and weights", SURVEY, size, read=size.rest_bytes)


def tclean(
    name: str, size: Size, grid: Grid, *, residuals: float, psf: bool, begins: bool = True
) -> Stage:
    """So many passes that make residuals (the first has nothing to degrid), and the PSF; ``begins`` an image."""
    factor = GRIDDER_FACTOR[grid.gridder]
    # The PSF needs 2 n - 1 terms; degridding and gridding n each.
    passes = grid.nterms * (2 * residuals - 1) + (2 * grid.nterms - 1 if psf else 0)
    pixels = PIXEL_S * grid.imsize**2 * passes
    cpu = factor * passes * GRID.cpu_s(size) + pixels
    if begins:
        cpu += grid.begin_s
    read = (residuals + psf) * (size.column_bytes + size.rest_bytes)
    written = grid.images_bytes
    return Stage(name, cpu, cpu / GRID.lanes + (read + written) / DISK_BYTES_S, read, written)


def start() -> Stage:
    """Of Python and its packages."""
    return stage("starting", START, Size(0, 0, 0))


def add_model_col(size: Size, *, terms: int, whole: Size) -> list[Stage]:
    """``whole`` is the MS, all rows of which are written."""
    return [
        start(),
        stage("looking at short baselines", AUDIT, size.times(0.0), read=24 * size.rows),
        stage(
            "copying", replace(COPY, per_msample=COPY.per_msample * (1 + terms) / 2), whole,
            read=terms * size.column_bytes, written=whole.column_bytes,
        ),
    ]  # fmt: skip


def predict_region(size: Size, *, regions: int, columns: int, fitted: int) -> list[Stage]:
    """``fitted`` of the regions are fitted by a point or Gaussian; ``columns`` are written."""
    found = [start()]
    if fitted:
        part = size.times(min(1.0, FIT_VISIBILITIES / max(1, size.visibilities)))
        found.append(
            stage(
                "fitting sources", FIT, part, passes=FIT_PASSES * (1 + regions) / 2,
                read=FIT_PASSES * part.column_bytes,
            )
        )  # fmt: skip
    found.append(
        stage("predicting", PREDICT, size, passes=(regions + columns) / 2, read=24 * size.rows,
              written=columns * size.column_bytes)
    )  # fmt: skip
    return found


def image_residual(
    size: Size, averages: Size | None, grid: Grid, *, new: bool, grows: bool
) -> list[Stage]:
    """``new`` is an image like no other: dirty, then in a mask; ``grows`` in larger masks, two as a rule.

    ``averages`` are what is imaged; None is the data as they are.
    """
    imaged = averages or size
    found = [start(), *([survey(size)] if new else [])]
    found.append(stage("reading the column", AUDIT, size, read=size.column_bytes + size.rest_bytes))
    found += average(size, averages)
    if grid.gridder != "wgridder":
        found.append(stage("starting CASA", CASA_START, size))
    if new:
        found.append(tclean("dirty image", imaged, grid, residuals=1, psf=True))
    found.append(
        tclean("cleaning", imaged, grid, residuals=MAJOR_CYCLES, psf=not new, begins=not new)
    )
    if grows:
        found.append(
            tclean(
                "cleaning in the mask that opened",
                imaged,
                grid,
                residuals=1.5 * MAJOR_CYCLES,
                psf=False,
                begins=False,
            )
        )
    return found


def average(size: Size, averages: Size | None) -> list[Stage]:
    """Averaging for imaging, if that is done."""
    if averages is None:
        return []
    return [
        stage(
            "averaging", AVERAGE, size,
            read=size.column_bytes + size.rest_bytes, written=2 * averages.column_bytes,
        )
    ]  # fmt: skip


def selfcal(
    size: Size, averages: Size | None, grid: Grid, *, rounds: int, whole: Size, calwt: bool
) -> list[Stage]:
    """So many rounds, of which some more may be tried and taken back; ``averages`` as for `image_residual`."""
    imaged = averages or size
    one_round = [
        stage(
            "predicting, solving, applying",
            ROUND,
            size,
            read=3 * size.column_bytes,
            written=2 * size.column_bytes,
        ),
        *average(size, averages),
        tclean("imaging", imaged, grid, residuals=MAJOR_CYCLES, psf=calwt),
    ]
    return [
        start(), survey(size),
        stage("copying the selected data", DEEP_COPY, size, read=2 * size.column_bytes,
              written=4 * size.column_bytes + size.rest_bytes),
        stage("starting CASA", CASA_START, size),
        *average(size, averages),
        tclean("dirty image", imaged, grid, residuals=1, psf=True),
        tclean("first image", imaged, grid, residuals=MAJOR_CYCLES, psf=False, begins=False),
        *(
            Stage(f"rounds: {one.name}", rounds * one.cpu_s, rounds * one.seconds,
                  rounds * one.read_bytes, rounds * one.written_bytes)
            for one in one_round
        ),
        stage("writing the result", WRITE_BACK, whole, passes=2, read=2 * whole.column_bytes,
              written=2 * whole.column_bytes),
    ]  # fmt: skip


def ddsolve(
    size: Size, *, directions: int, auto: bool, columns: int, whole: Size, sweeps: float = 1.0
) -> list[Stage]:
    """Solve of so many directions; ``auto`` chooses intervals first; ``columns`` are written.

    ``sweeps`` is rounds x iterations over their defaults, 2 x 25.
    """
    models = 1 + directions
    solve = replace(SOLVE, per_msample=SOLVE.per_msample * sweeps * models / 2)
    found = [
        start(), survey(size),
        stage("noise, and S/N of each direction", MEASURE, size, passes=models / 2,
              read=models * size.column_bytes),
    ]  # fmt: skip
    if auto:
        part = size.times(min(1.0, AUTO_VISIBILITIES / max(1, size.visibilities)))
        found += _solve("choosing intervals", part, solve, models)
        found.append(stage("choosing intervals: scores", SUBTRACT, part, passes=2))
    found += _solve("solving", size, solve, models)
    found.append(
        stage("balancing the gains, and subtracting", SUBTRACT, whole, passes=(2 + directions) / 2,
              read=2 * (models + 1) * size.column_bytes, written=columns * whole.column_bytes)
    )  # fmt: skip
    return found


def _solve(name: str, size: Size, rate: Rate, models: int) -> list[Stage]:
    seconds = QUARTICAL_START.cpu_s(size) + CHUNK_S * size.chunks
    columns = (1 + models) * size.column_bytes
    return [
        stage(f"{name}: copy", DEEP_COPY, size, read=columns, written=columns + size.rest_bytes),
        Stage(f"{name}: QuartiCal's own", seconds, seconds / QUARTICAL_START.lanes),
        stage(f"{name}: QuartiCal", rate, size, read=columns),
    ]


def stages_of(stages: Sequence[Stage]) -> tuple[float, float]:
    """CPU and wall time of all [s]."""
    return sum(one.cpu_s for one in stages), sum(one.seconds for one in stages)
