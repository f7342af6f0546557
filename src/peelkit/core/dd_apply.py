"""Subtracting directions with their gains, and scoring what that brought."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_gains
from peelkit.core.dd_bins import squared
from peelkit.core.dd_data import Block
from peelkit.core.dd_gains import Key, Solutions


@dataclass
class Sums:
    """Sums over the unflagged parallel hands of some data; chi-squared is ``sum w |r|^2 / (2 n)``.

    1 is the noise that the weights promise, 2 n the real numbers in n samples.

    Parameters
    ----------
    samples : float
        Unflagged samples n.
    data, subtracted : float
        ``sum w |r|^2`` of the data, and of the data without the directions that were subtracted.
    raw, independent, solved : float
        ``sum w |r|^2`` of data minus the whole model: without gains, with the direction-independent
        ones, with all of them.
    without : dict of float
        By direction: with all but that direction's own gain.
    overlap, power : dict of float
        By direction: ``sum w Re(r conj(m))`` of the residual of everything with the direction's
        corrupted model m, and ``sum w |m|^2``: their ratio is the share of it that is left.
    """

    samples: float = 0.0
    data: float = 0.0
    subtracted: float = 0.0
    raw: float = 0.0
    independent: float = 0.0
    solved: float = 0.0
    without: dict[str, float] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    power: dict[str, float] = field(default_factory=dict)

    def reduced(self, value: float) -> float:
        """Chi-squared for each real number."""
        return value / (2 * self.samples) if self.samples else math.nan

    def left(self, label: str) -> float:
        """Share of a direction's model that is still in the residual."""
        return self.overlap[label] / self.power[label] if self.power.get(label) else math.nan

    def add(self, other: Sums) -> None:
        """Add other data."""
        for name in ("samples", "data", "subtracted", "raw", "independent", "solved"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("without", "overlap", "power"):
            mine = getattr(self, name)
            for label, value in getattr(other, name).items():
                mine[label] = mine.get(label, 0.0) + value


@dataclass(frozen=True)
class Peeled:
    """A block after the solve.

    Parameters
    ----------
    peeled : ndarray of complex64, shape (row, chan, corr)
        Data minus the subtracted directions, direction-independent gains taken out.
    corrected : ndarray of complex64, shape (row, chan, corr)
        Data with the direction-independent gains taken out, nothing subtracted.
    failed : ndarray of bool, shape (row, chan)
        Served by a failed solution.
    own : dict of ndarray of complex64, shape (row, chan, corr)
        By direction: data without all else, all gains of this direction taken out.
    residual : ndarray of complex, shape (row, chan, corr)
        Data minus everything with its gains.
    sums : Sums
        Scores of its unflagged data.
    contributions, unsolved : dict of ndarray of complex, shape (row, chan, corr)
        By direction: its model with all gains, and with the direction-independent ones only.
    """

    peeled: NDArray[np.complex64]
    corrected: NDArray[np.complex64]
    failed: NDArray[np.bool_]
    own: dict[str, NDArray[np.complex64]]
    residual: NDArray[np.complexfloating[Any, Any]]
    sums: Sums
    contributions: dict[str, NDArray[np.complex128]]
    unsolved: dict[str, NDArray[np.complex128]]


def peel(
    block: Block,
    groups: Mapping[Key, Solutions],
    *,
    all_column: str,
    directions: Mapping[str, str],
    subtract: Sequence[str],
    gains_needed: Sequence[str],
    own: Collection[str] = (),
) -> Peeled:
    """Subtract from a block.

    Parameters
    ----------
    directions : dict of str
        Label to column, in the order of the solve: direction 1, 2, ...
    subtract : sequence of str
        Labels to subtract.
    gains_needed : sequence of str
        Labels with gains of their own, whose failed solutions count.
    own : collection of str
        Labels whose own data are made.
    """
    solutions = groups[block.key]
    when = dd_gains.time_index(solutions.axis, block.times_s)
    n_corr = block.data.shape[-1]

    def gains(direction: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        return (
            dd_gains.jones(solutions, when, block.antenna1, direction, n_corr),
            dd_gains.jones(solutions, when, block.antenna2, direction, n_corr),
        )

    rest = block.models[all_column] - sum(block.models[column] for column in directions.values())
    # Direction 0 has the gains of the array alone: its dE is pinned to 1.
    independent = gains(0)
    residual = block.data - dd_gains.corrupt(rest, *independent)
    only_independent = residual.copy()
    contributions: dict[str, NDArray[np.complex128]] = {}
    unsolved: dict[str, NDArray[np.complex128]] = {}
    for number, (label, column) in enumerate(directions.items(), start=1):
        model = block.models[column]
        contributions[label] = dd_gains.corrupt(model, *gains(number))
        unsolved[label] = dd_gains.corrupt(model, *independent)
        residual = residual - contributions[label]
        only_independent = only_independent - unsolved[label]
    peeled = block.data - sum(
        (contributions[label] for label in subtract), np.zeros_like(block.data)
    )
    hands = slice(None) if block.hands.size == n_corr else block.hands
    weight = block.weight[..., hands].astype(np.float64)

    def chi2(values: NDArray[np.complexfloating[Any, Any]]) -> float:
        return float(np.sum(weight * squared(values[..., hands])))

    sums = Sums(
        samples=float(np.count_nonzero(weight)),
        data=chi2(block.data),
        subtracted=chi2(peeled),
        raw=chi2(block.data - block.models[all_column]),
        independent=chi2(only_independent),
        solved=chi2(residual),
    )
    for label, mine in contributions.items():
        sums.without[label] = chi2(residual + mine - unsolved[label])
        model_here = mine[..., hands]
        sums.overlap[label] = float(
            np.sum(weight * np.real(residual[..., hands] * np.conj(model_here)))
        )
        sums.power[label] = float(np.sum(weight * squared(model_here)))
    numbers = {label: number for number, label in enumerate(directions, start=1)}
    used = [numbers[label] for label in directions if label in gains_needed]
    return Peeled(
        dd_gains.correct(peeled, *independent).astype(np.complex64),
        dd_gains.correct(block.data, *independent).astype(np.complex64),
        dd_gains.failed(solutions, when, block.antenna1, block.antenna2, used),
        {
            label: dd_gains.correct(residual + contributions[label], *gains(numbers[label])).astype(
                np.complex64
            )
            for label in own
        },
        residual,
        sums,
        contributions,
        unsolved,
    )
