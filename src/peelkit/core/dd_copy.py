"""Makes the copy of the data that QuartiCal solves: each cell of time and frequency as few samples, or as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import memory
from peelkit.core import dd_compress, dd_known
from peelkit.core.dd_cells import Cells
from peelkit.core.dd_compress import Normal
from peelkit.core.dd_data import (
    Block,
    Place,
    Rows,
    bytes_per_sample,
    in_uv_range,
    integrations,
    read,
)
from peelkit.core.dd_plan import Plan
from peelkit.io import ms, solvecopy
from peelkit.parallel import in_order

# Samples that stand for a cell are worth it below this share of the visibilities.
WORTH = 0.7

# Between the channels of the copy that stand for one [Hz]: QuartiCal wants them to differ.
APART_HZ = 1.0

# What is solved in place of the data, such as without what is held out.
Change = Callable[[Block], Block]

# Models of a block for the directions of the solve, shape of its data, and gains that failed before.
Models = Callable[[Block], list[NDArray[Any]]]


@dataclass(frozen=True)
class Shape:
    """What the copy of a family looks like.

    Parameters
    ----------
    cells : dict of Cells
        By data description.
    f_length : int
        Channels of a cell; 0 is all.
    n_direction : int
        Directions of the solve.
    few : bool
        Cells become as many samples as there are directions; as they are otherwise, and then a cell is an
        integration and a channel.
    full : bool
        All correlations, not the parallel hands alone.
    """

    cells: Mapping[int, Cells]
    f_length: int
    n_direction: int
    few: bool
    full: bool

    def f_starts(self, n_chan: int) -> NDArray[np.int64]:
        """First channel of each cell."""
        return np.arange(0, n_chan, self.f_length or n_chan)

    def channels(self, n_chan: int) -> int:
        """Channels of the copy."""
        return self.f_starts(n_chan).size * self.each

    @property
    def weighted(self) -> bool:
        """Weights are in a column of their own."""
        return self.full or (self.few and self.n_direction == 1)

    @property
    def each(self) -> int:
        """Channels of the copy for each cell."""
        return self.n_direction if self.few else 1

    @property
    def chunks(self) -> int:
        """Parts that it is in."""
        return 1 + max(int(one.chunk.max()) for one in self.cells.values())


@dataclass
class Left:
    """What the copy does not have of chi-squared: ``constant`` and visibilities, by chunk and data description."""

    constant: dict[tuple[int, int], float]
    samples: dict[tuple[int, int], int]
    kept: dict[tuple[int, int], int]

    @classmethod
    def nothing(cls) -> Left:
        """Before any data."""
        return cls({}, {}, {})

    def add(self, chunk: int, ddid: int, constant: float, samples: int, kept: int) -> None:
        """Count some rows of the copy."""
        where = (chunk, ddid)
        self.constant[where] = self.constant.get(where, 0.0) + constant
        self.samples[where] = self.samples.get(where, 0) + samples
        self.kept[where] = self.kept.get(where, 0) + kept

    def mean(self, chunk: int, ddid: int, of_copy: float) -> float:
        """Mean of ``w |r|^2`` of the visibilities, from that of the samples of the copy."""
        where = (chunk, ddid)
        if not self.samples.get(where):
            return of_copy
        return (of_copy * self.kept[where] + self.constant[where]) / self.samples[where]


def make(
    plan: Plan,
    family: solvecopy.Family,
    target: Path,
    shape: Shape,
    scale: Mapping[int, float],
    *,
    change: Change | None = None,
    models: Models | None = None,
) -> Left:
    """Write the copy at ``target``.

    Parameters
    ----------
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    change : callable, optional
        Makes of each block what is solved.
    models : callable, optional
        Makes its models; those of the plan's directions by default.
    """
    info = plan.rows.info
    copier = _Copier(plan, shape, scale, change, models)
    freq = [_frequencies(info, ddid, shape) for ddid in family.ddids]
    solvecopy.write(
        info, target, copier.parts(family.ddids), freq_hz=freq, width_hz=family.width_hz,
        correlations=correlations(family, full=shape.full), models=names(shape.n_direction),
        chunks=shape.chunks, weights=shape.weighted,
    )  # fmt: skip
    return copier.left


def names(n_direction: int) -> list[str]:
    """Columns of the copy with the models of all directions, the rest first."""
    return [solvecopy.REST, *(f"DIRECTION_{n}" for n in range(1, n_direction))]


def correlations(family: solvecopy.Family, *, full: bool) -> tuple[str, ...]:
    """Of the copy: what carries signal."""
    hands = ms.parallel_hands(family.correlations)
    return family.correlations if full else tuple(family.correlations[n] for n in hands)


def _frequencies(info: ms.MsInfo, ddid: int, shape: Shape) -> NDArray[np.float64]:
    """Channels of the copy; where cells are channels they are those of the MS, for delays."""
    freq_hz = info.spws[info.data_descriptions[ddid].spw].freq_hz
    starts = shape.f_starts(freq_hz.size)
    centre = np.add.reduceat(freq_hz, starts) / np.diff(starts, append=freq_hz.size)
    return (centre[:, None] + APART_HZ * np.arange(shape.each)).ravel()


def rest(plan: Plan, block: Block) -> list[NDArray[Any]]:
    """Model of what is in no direction of its own, and of each direction."""
    directions = [block.models[column] for column in plan.used.values()]
    return [block.models[plan.all_column] - sum(directions), *directions]


@dataclass(frozen=True)
class _Piece:
    """Some rows of consecutive cells: a batch of these, or a part of a single long one."""

    block: Block
    cell: NDArray[np.int64]
    inside: NDArray[np.bool_]
    first: int
    last: bool


class _Copier:
    def __init__(
        self,
        plan: Plan,
        shape: Shape,
        scale: Mapping[int, float],
        change: Change | None,
        models: Models | None,
    ) -> None:
        self.plan, self.shape, self.scale = plan, shape, scale
        self.change, self.models = change, models
        self.left = Left.nothing()

    def parts(self, ddids: Sequence[int]) -> Iterator[solvecopy.Part]:
        """All of the copy, data description by data description, in the order of cells."""
        threads = self.plan.options.threads
        with ms.opened(self.plan.rows.info.path) as main:
            for number, ddid in enumerate(ddids):
                if not self.shape.few:
                    for part in in_order(self._as_is, self._pieces(main, ddid), threads=threads):
                        yield replace(part, ddid=number)
                    continue
                held: list[tuple[_Piece, _Sums]] = []
                for piece, sums in in_order(
                    self._summed, self._pieces(main, ddid), threads=threads
                ):
                    held.append((piece, sums))
                    if piece.last:
                        yield self._emitted(number, ddid, [one for _, one in held])
                        held = []

    # ------------------------------------------------------------ reading

    def _pieces(self, main: Any, ddid: int) -> Iterator[_Piece]:
        """Rows of a data description by cells, as many as fit the memory of a chunk."""
        plan, cells = self.plan, self.shape.cells[ddid]
        description = plan.rows.info.data_descriptions[ddid]
        rows, scans, field, cell = _rows(plan.rows, main, ddid, cells)
        order = np.argsort(cell, kind="stable")
        rows, scans, field, cell = (one[order] for one in (rows, scans, field, cell))
        n_chan = plan.rows.info.spws[description.spw].freq_hz.size
        models = plan.models
        row_bytes = n_chan * len(description.correlations) * bytes_per_sample(len(models)) + 200
        most = max(1, memory.chunk_bytes() // row_bytes)
        begins = np.append(0, 1 + np.flatnonzero(np.diff(cell)))
        ends = np.append(begins[1:], cell.size)
        batch = 0
        while batch < begins.size:
            after = max(batch + 1, int(np.searchsorted(ends, begins[batch] + most, side="right")))
            start, stop = int(begins[batch]), int(ends[after - 1])
            # One cell may be longer than what fits; rows in the order of the MS are read faster.
            here = start + np.argsort(rows[start:stop], kind="stable")
            ranges = [here[n : n + most] for n in range(0, here.size, most)]
            pieces = [
                part[field[part] == number] for part in ranges for number in np.unique(field[part])
            ]
            for n, part in enumerate(pieces):
                number = int(field[part[0]])
                place = Place(
                    plan.rows.key(number, ddid), number, description, rows[part], scans[part]
                )
                block = read(main, place, plan.data_column, models)
                inside = in_uv_range(main, block, plan.uv_range_m)
                if self.change is not None:
                    # Here and not in a thread: it may read the MS.
                    block = self.change(block)
                # Cells x antennas^2 are counted in it.
                wide = cell[part].astype(np.int64)
                yield _Piece(block, wide, inside, int(cell[start]), n == len(pieces) - 1)
            batch = after

    def _seen(
        self, piece: _Piece
    ) -> tuple[Block, list[NDArray[Any]], NDArray[Any], NDArray[np.intp] | slice]:
        """The block as it is solved, its models, and its weights: 0 in all hands or in none."""
        block = dd_known.without(self.plan.known, piece.block)
        if self.plan.delay_start is not None:
            block = self.plan.delay_start.without(block)
        hands: NDArray[np.intp] | slice = slice(None) if self.shape.full else block.hands
        models = self.models(block) if self.models else rest(self.plan, block)
        weight = block.weight[..., hands] * np.float32(self.scale[block.description.id])
        parallel = block.hands if self.shape.full else slice(None)
        # As QuartiCal does: a sample without one hand is none.
        good = np.all((weight > 0)[..., parallel], axis=-1, keepdims=True)
        good &= np.all(block.data[..., hands][..., parallel] != 0, axis=-1, keepdims=True)
        good &= piece.inside[:, None, None]
        return block, models, np.where(good, weight, 0), hands

    # ------------------------------------------------------------ cells as they are

    def _as_is(self, piece: _Piece) -> solvecopy.Part:
        block, models, weight, hands = self._seen(piece)
        flag = ~np.any(weight > 0, axis=-1, keepdims=True) | (weight == 0)
        # A weight of each hand may as well be in what it weighs; not where hands are mixed.
        root = np.float32(1) if self.shape.full else np.sqrt(weight)
        keep = block.antenna1 != block.antenna2
        order = np.flatnonzero(keep)[np.argsort(piece.cell[keep], kind="stable")]
        cells = self.shape.cells[block.description.id]
        cell = piece.cell[order]
        return solvecopy.Part(
            0, cell, cells.unit[cell], cells.chunk[cell], block.antenna1[order], block.antenna2[order],
            (root * block.data[..., hands])[order].astype(np.complex64), flag[order],
            {
                name: (root * model[..., hands])[order].astype(np.complex64)
                for name, model in zip(names(self.shape.n_direction), models, strict=True)
            },
            weight[order] if self.shape.full else None,
        )  # fmt: skip

    # ------------------------------------------------------------ cells as few samples

    def _summed(self, piece: _Piece) -> tuple[_Piece, _Sums]:
        block, models, weight, hands = self._seen(piece)
        n_antenna = len(self.plan.rows.info.antennas)
        keep = np.flatnonzero(block.antenna1 != block.antenna2)
        place = (piece.cell * n_antenna + block.antenna1) * n_antenna + block.antenna2
        places, which = np.unique(place[keep], return_inverse=True)
        starts = self.shape.f_starts(block.data.shape[1])
        normal = Normal.empty(places.size, starts.size, weight.shape[-1], len(models)).with_rows(
            which, block.data[keep][..., hands], [model[keep][..., hands] for model in models],
            weight[keep], starts,
        )  # fmt: skip
        # The block itself is not needed any more.
        return replace(piece, block=None), _Sums(places, normal)  # type: ignore[arg-type]

    def _emitted(self, number: int, ddid: int, sums: Sequence[_Sums]) -> solvecopy.Part:
        """Samples of a batch of cells."""
        whole = _Sums.together(sums)
        data, models, flag = dd_compress.samples(whole.normal)
        n_antenna = len(self.plan.rows.info.antennas)
        cells = self.shape.cells[ddid]
        baseline = whole.places % n_antenna**2
        cell = whole.places // n_antenna**2
        chunk = cells.chunk[cell]
        power = np.where(flag, 0, data.real**2 + data.imag**2).astype(np.float64)
        if self.shape.weighted:
            power *= whole.normal.weight
        power = power.sum(axis=(1, 2))
        count = np.count_nonzero(~flag, axis=(1, 2))
        for one in np.unique(chunk):
            here = chunk == one
            # What is constant, and how many visibilities there are, is known of the whole batch.
            share = count[here].sum() / max(1, count.sum())
            self.left.add(
                int(one), ddid, whole.normal.constant * share - float(power[here].sum()),
                round(whole.normal.samples * share), int(count[here].sum()),
            )  # fmt: skip
        return solvecopy.Part(
            number, cell, cells.unit[cell], chunk, baseline // n_antenna, baseline % n_antenna,
            data, flag, dict(zip(names(self.shape.n_direction), models, strict=True)),
            whole.normal.weight.astype(np.float32) if self.shape.weighted else None,
        )  # fmt: skip


@dataclass(frozen=True)
class _Sums:
    """Sums over places: (cell, antenna1, antenna2) as one number."""

    places: NDArray[np.int64]
    normal: Normal

    @classmethod
    def together(cls, sums: Sequence[_Sums]) -> _Sums:
        """Of several pieces of the same cells."""
        if len(sums) == 1:
            return sums[0]
        places = np.unique(np.concatenate([one.places for one in sums]))
        n_freq, n_hand, n = sums[0].normal.cross.shape[1:]
        whole = Normal.empty(places.size, n_freq, n_hand, n)
        for one in sums:
            where = np.searchsorted(places, one.places)
            whole.power[where] += one.normal.power
            whole.weight[where] += one.normal.weight
            whole.cross[where] += one.normal.cross
        return cls(
            places,
            replace(
                whole,
                constant=math.fsum(one.normal.constant for one in sums),
                samples=sum(one.normal.samples for one in sums),
            ),
        )


def _rows(selected: Rows, main: Any, ddid: int, cells: Cells) -> list[NDArray[Any]]:
    """Rows of a data description: numbers, scans, fields and cells, of 4 bytes each."""
    found: list[tuple[NDArray[Any], ...]] = []
    for places, number, key, when in integrations(selected, main, [ddid]):
        field = np.full(places.size, number, dtype=np.int32)
        cell = cells.of[key][when].astype(np.int32)
        found.append((selected.rows[places], selected.scans[places], field, cell))
    return [np.concatenate(one) for one in zip(*found, strict=True)]
