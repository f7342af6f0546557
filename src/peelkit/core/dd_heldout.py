"""Data that are held out of a solve, and how well gains predict them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_gains, dd_known
from peelkit.core.dd_bins import squared
from peelkit.core.dd_data import Block, blocks
from peelkit.core.dd_gains import Key
from peelkit.core.dd_plan import Plan
from peelkit.io import ms
from peelkit.parallel import in_order

if TYPE_CHECKING:
    from peelkit.core.dd_auto import Table

# Share of the cells (row, channel) that is held out.
HELD_OUT = 0.25

Gains = dict[Key, NDArray[np.complex128]]


def held_out(rows: NDArray[np.int64], n_chan: int) -> NDArray[np.bool_]:
    """Cells that are held out, shape (row, chan): the same ones whenever a row is asked for."""
    number: Any = rows.astype(np.uint64)[:, None] * np.uint64(n_chan) + np.arange(
        n_chan, dtype=np.uint64
    )
    # SplitMix64 (Steele et al. 2014): scattered, and without state.
    with np.errstate(over="ignore"):
        z: Any = number + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray(z < np.uint64(int(HELD_OUT * 2**64)))


def hide(block: Block) -> Block:
    """A block without what is held out."""
    hidden = held_out(block.rows, block.data.shape[1])
    return replace(block, weight=np.where(hidden[:, :, None], 0, block.weight))


class Score:
    """Chi-squared of the data held out, for gains of every direction at the base intervals."""

    def __init__(self, part: Plan, scale: Mapping[int, float], tables: Mapping[Key, Table]) -> None:
        self.part, self.scale, self.tables = part, scale, tables
        self.base = {
            label: {key: one.gains[:, :, :, number] for key, one in tables.items()}
            for number, label in enumerate(part.used)
        }
        self.samples = 0

    def of(self, label: str, tried: Sequence[Gains]) -> NDArray[np.float64]:
        """Sum of ``w |r|^2`` for each of the gains tried and each (group, integration)."""
        start, total = {}, 0
        for key, axis in self.part.rows.axes.items():
            start[key] = total
            total += axis.times_s.size
        sums = np.zeros((len(tried), total))
        self.samples = 0

        def scored(block: Block) -> tuple[slice, int, NDArray[np.float64]]:
            # As they were solved.
            block = dd_known.without(self.part.known, block)
            if self.part.delay_start is not None:
                block = self.part.delay_start.without(block)
            size = self.part.rows.axes[block.key].times_s.size
            here = slice(start[block.key], start[block.key] + size)
            return here, *self._block(block, label, [gains[block.key] for gains in tried])

        with ms.opened(self.part.rows.info.path) as main:
            pieces = blocks(self.part.rows, self.part.data_column, self.part.models, main)
            for here, samples, power in in_order(scored, pieces, threads=self.part.options.threads):
                self.samples += samples
                sums[:, here] += power
        return sums

    def _block(
        self, block: Block, label: str, tried: Sequence[NDArray[np.complex128]]
    ) -> tuple[int, NDArray[np.float64]]:
        """Samples of a block that are held out, and ``w |r|^2``, shape (tried, integration)."""
        table, axis = self.tables[block.key], self.part.rows.axes[block.key]
        n_time, n_freq, n_antenna = table.gains.shape[:3]
        # Nothing else is computed: it is a quarter of the data.
        row, chan = np.nonzero(held_out(block.rows, block.data.shape[1]))

        def hidden(values: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(values[row, chan][:, block.hands])

        weight = hidden(block.weight) * np.float32(self.scale[block.description.id])
        when = dd_gains.time_index(axis, block.times_s)
        cell = (table.t_bins[when][row] * n_freq + table.f_bins[chan]) * n_antenna
        one, two = cell + block.antenna1[row], cell + block.antenna2[row]

        def seen(model: NDArray[Any], gains: NDArray[np.complex128]) -> NDArray[np.complex128]:
            # One index for a gain of both hands: several cost four times as much.
            flat = gains.reshape(n_time * n_freq * n_antenna, -1)
            return np.asarray(flat.take(one, axis=0) * model * np.conj(flat.take(two, axis=0)))

        residual = hidden(block.data) - hidden(block.models[self.part.all_column])
        for other, column in self.part.used.items():
            model = hidden(block.models[column])
            residual = residual + model
            if other != label:
                residual = residual - seen(model, self.base[other][block.key])
        model = hidden(block.models[self.part.used[label]])
        sums = np.empty((len(tried), axis.times_s.size))
        for number, gains in enumerate(tried):
            left = residual - seen(model, gains)
            power = (weight * squared(left)).sum(axis=1)
            sums[number] = np.bincount(when[row], power, axis.times_s.size)
        return int(np.count_nonzero(weight)), sums
