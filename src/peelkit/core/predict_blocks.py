"""Predicting whole columns: blocks of rows, worked on in threads or by Dask's workers, and written here.

Only this process touches the MS, and only in one thread: casacore is not made for more. What a worker
gets is where the samples are (about 50 bytes a row), what it gives back is one hand of each column.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import parallel
from peelkit.core.predict_plan import GRID_PIXEL_BYTES
from peelkit.core.predictor import Doppler, Predictor, Samples, Sky
from peelkit.core.skymodel import SkyModel
from peelkit.core.stokes import to_correlations
from peelkit.io import ms, rownumbers
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

# Blocks are larger than the chunks in which columns are read: each pays for the transforms of the images.
# Bytes of a visibility in the prediction itself, and more for each column.
VIS_BYTES, COLUMN_VIS_BYTES = 40, 8
BLOCK_CHUNKS = 4

# Cells are written in pieces of about this size, which stay in a processor's cache [B].
WRITE_BYTES = 4 * 2**20

# Rows are written run by run where runs of consecutive ones are at least so long on average.
RUN_ROWS = 16


@dataclass(frozen=True)
class Work:
    """What is predicted into which columns.

    Parameters
    ----------
    predictor : Predictor
        For the MS.
    skies : mapping
        Column to its sky.
    total : str or None
        Column for the sum of all, and ``unwritten``.
    unwritten : Sky or None
        Part of the sum without a column of its own.
    stokes : str
        Column that the skies, which are then Stokes planes, go to with all correlations; else empty.
    """

    predictor: Predictor
    skies: Mapping[str, Sky]
    total: str | None = None
    unwritten: Sky | None = None
    stokes: str = ""


@dataclass(frozen=True)
class Block:
    """Some rows of one spw, without their numbers: what is sent to a worker."""

    samples: Samples
    correlations: tuple[str, ...]


def predict_block(block: Block, work: Work) -> dict[str, NDArray[np.complex64]]:
    """Columns to their visibilities: shape (row, chan) of one hand, (row, chan, corr) with ``stokes``."""
    predictor, samples = work.predictor, block.samples
    if work.stokes:
        planes = {name: predictor.visibilities(sky, samples) for name, sky in work.skies.items()}
        return {work.stokes: to_correlations(planes, block.correlations)}
    found: dict[str, NDArray[np.complex64]] = {}
    both: NDArray[np.complex128] | None = None
    if work.total and work.unwritten is not None:
        both = predictor.visibilities(work.unwritten, samples)
    for name, sky in work.skies.items():
        vis = predictor.visibilities(sky, samples)
        found[name] = vis.astype(np.complex64)
        if work.total:
            both = vis if both is None else np.add(both, vis, out=both)
    if work.total:
        if both is None:
            n_chan = predictor.info.spws[samples.spw].freq_hz.size
            both = np.zeros((samples.time_s.size, n_chan), dtype=np.complex128)
        found[work.total] = both.astype(np.complex64)
    return found


def run(
    work: Work, rows: NDArray[np.int64], *, spread: Spread = IN_PROCESS, progress: Progress
) -> None:
    """Predict the columns of ``work`` at ``rows``, which exist, and write them.

    Workers on this machine share the limit of memory and have smaller blocks, some of which are summed where larger
    ones are gridded: results are the same to `peelkit.engines.ducc.EPSILON`.

    Parameters
    ----------
    spread : Spread, optional
        Workers; threads of this process if not given.
    """
    info = work.predictor.info
    doppler = Doppler(info) if _in_lsrk(work) else None
    waiting: deque[tuple[NDArray[np.int64], tuple[str, ...]]] = deque()
    with ms.opened(info.path, write=True) as main:

        def items() -> Iterator[Block]:
            for description, chunk in _blocks(main, work, rows):
                waiting.append((chunk, description.correlations))
                samples = Samples.read(main, chunk, description.spw, doppler)
                yield Block(samples, description.correlations)

        if spread.several:
            results = spread.run(predict_block, items(), shared=_light(work))
        else:
            at_once = _at_once(work)
            predictor = Predictor(
                info, work.predictor.beam, threads=max(1, parallel.cores() // at_once)
            )
            here = replace(work, predictor=predictor)
            results = parallel.in_order(
                lambda block: predict_block(block, here), items(), threads=at_once
            )
        writer = _Writer(main)
        for columns in results:
            chunk, correlations = waiting.popleft()
            for name, values in columns.items():
                writer.put(name, chunk, values, correlations)
            progress.advance(chunk.size)


def _blocks(
    main: Any, work: Work, rows: NDArray[np.int64]
) -> Iterator[tuple[ms.DataDescription, NDArray[np.int64]]]:
    """Rows of one data description, ascending; where each field sees another sky, of few fields."""
    info = work.predictor.info
    columns = len(work.skies) + bool(work.total)
    vis_bytes = VIS_BYTES + (32 if work.stokes else COLUMN_VIS_BYTES) * columns
    for _, window, ddids in rownumbers.windows(main, rows):
        for description in info.data_descriptions:
            mine = window[ddids == description.id]
            by_field = work.predictor.beam is not None and mine.size > 0
            if by_field:
                fields = rownumbers.column(main, "FIELD_ID", mine)
                mine = mine[np.argsort(fields, kind="stable")]
            row_bytes = info.spws[description.spw].freq_hz.size * vis_bytes + 200
            for start, count in ms.row_ranges(mine.size, int(row_bytes / BLOCK_CHUNKS)):
                block = mine[start : start + count]
                yield description, np.sort(block) if by_field else block


def _pixels(work: Work) -> list[SkyModel]:
    skies = [*work.skies.values(), *([work.unwritten] if work.unwritten is not None else [])]
    return [sky for sky in skies if isinstance(sky, SkyModel)]


def _in_lsrk(work: Work) -> bool:
    return any(sky.grid.in_lsrk for sky in _pixels(work))


def _at_once(work: Work) -> int:
    """Blocks that are worked on at a time, in as many threads: fewer if their grids are large."""
    largest = 1.0
    for sky in _pixels(work):
        if sky.xs.size:
            largest = max(largest, float(np.ptp(sky.xs) + 1) * float(np.ptp(sky.ys) + 1))
    room = work.predictor.grid_bytes
    fit = int(room // min(room, GRID_PIXEL_BYTES * largest))
    return max(1, min(parallel.cores(), parallel.MOST, fit))


def _light(work: Work) -> Work:
    """The same as workers need it: without the images, and with one thread."""

    def light(sky: Sky) -> Sky:
        if not isinstance(sky, SkyModel):
            return sky
        like = replace(sky.grid.like, data=np.empty((0, 0)))
        return replace(sky, grid=replace(sky.grid, like=like))

    return replace(
        work,
        predictor=Predictor(work.predictor.info, work.predictor.beam, threads=1),
        skies={name: light(sky) for name, sky in work.skies.items()},
        unwritten=None if work.unwritten is None else light(work.unwritten),
    )


class _Writer:
    """Writes visibilities to columns, one hand to both, by way of a buffer that is used again."""

    def __init__(self, main: Any) -> None:
        self._main = main
        self._buffer = np.zeros((0, 1, 1), dtype=np.complex64)
        self._hands: tuple[str, ...] = ()

    def put(
        self,
        column: str,
        rows: NDArray[np.int64],
        values: NDArray[np.complex64],
        correlations: tuple[str, ...],
    ) -> None:
        """Write ``values``, shape (row, chan) of one hand or (row, chan, corr), at ``rows``, ascending."""
        n_chan, n_corr = values.shape[1], len(correlations)
        step = max(1, WRITE_BYTES // (8 * n_chan * n_corr))
        ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, rows.size)
        by_runs = rows.size >= RUN_ROWS * ends.size
        if not by_runs:
            # Rows here and there: fewer selections.
            step *= 4
        start = 0
        while start < rows.size:
            end = min(rows.size, start + step)
            if by_runs:
                end = min(end, int(ends[np.searchsorted(ends, start, side="right")]))
            part = slice(start, end)
            ms.put(self._main, column, rows[part], self._cells(values[part], correlations))
            start = end

    def _cells(
        self, values: NDArray[np.complex64], correlations: tuple[str, ...]
    ) -> NDArray[np.complex64]:
        if values.ndim == 3:
            return values
        shape = (*values.shape, len(correlations))
        small = self._buffer.shape[0] < shape[0] or self._buffer.shape[1:] != shape[1:]
        if small or self._hands != correlations:
            self._buffer = np.zeros(shape, dtype=np.complex64)
            self._hands = correlations
        cells = self._buffer[: shape[0]]
        for hand in ms.parallel_hands(correlations):
            cells[:, :, hand] = values
        return cells
