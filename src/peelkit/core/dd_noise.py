"""The noise of visibilities in units of what their weights promise, found where errors of antennas cancel.

Any scatter is an upper limit: beside the noise it has errors of gains, and sources that no model has. Second
differences in time are free of what changes steadily, differences of the parallel hands of what both have
in common. The least of them is nearest to the noise; after a solve at short intervals it is the noise, if
what is left is white: no larger as it is than any of its differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN, TIME, HANDS, BOTH = "values", "time", "hands", "time and hands"

# Weights that promise the noise to this share are believed.
BELIEVED = 0.1

# What is left of a solve is white if it is above its least difference by no more than this share.
WHITE = 0.1

# Weights that promise so many times less noise than the upper limit are not believed, white or not.
MOST_BELOW = 2.0

# Values of one chunk that go into the estimate.
SAMPLES = 20_000

# Median of |z|^2 for complex z with unit variance of each component.
MEDIAN_CHI2 = 2 * math.log(2)

Values = NDArray[np.float64]


@dataclass
class Noise:
    """Scatter of residuals of one data description.

    Parameters
    ----------
    values : dict of list of ndarray
        By the kind of difference: ``|z|^2`` in units of the weights, 2 on average for noise.
    freedom : float
        Share of the real numbers in the data that gains were solved from, which takes that share of the
        noise.
    """

    values: dict[str, list[Values]] = field(default_factory=dict)
    freedom: float = 0.0

    def add(
        self,
        residual: NDArray[np.complexfloating[Any, Any]],
        weight: NDArray[np.floating[Any]],
        series: NDArray[np.int64],
        times_s: Values,
        rng: np.random.Generator,
    ) -> None:
        """Count rows of one chunk.

        Parameters
        ----------
        residual, weight : ndarray, shape (row, chan, hand)
            Data minus model, and weights, 0 where flagged.
        series : ndarray of int, shape (row,)
            One number for each baseline, field and scan.
        times_s : ndarray, shape (row,)
            TIME.
        """
        for kind, found in differences(residual, weight, series, times_s, rng).items():
            self.values.setdefault(kind, []).append(found)

    def merge(self, other: Noise) -> None:
        """Add what was found in other data."""
        for kind, found in other.values.items():
            self.values.setdefault(kind, []).extend(found)

    @property
    def ratios(self) -> dict[str, float]:
        """Noise over promise by each kind of difference that there is."""
        kept = math.sqrt(max(1e-3, 1 - self.freedom))
        together = {kind: np.concatenate(found) for kind, found in self.values.items()}
        return {
            kind: math.sqrt(float(np.median(found)) / MEDIAN_CHI2) / kept
            for kind, found in together.items()
            # Hands that are copies of each other have no difference.
            if found.size and np.median(found) > 0
        }

    @property
    def kind(self) -> str | None:
        """Kind of the least difference; None where nothing could be compared."""
        ratios = {kind: ratio for kind, ratio in self.ratios.items() if kind != PLAIN}
        return min(ratios, key=lambda kind: ratios[kind]) if ratios else None

    @property
    def ratio(self) -> float:
        """Least scatter over promise: an upper limit of the noise; NaN where nothing could be compared."""
        kind = self.kind
        return math.nan if kind is None else self.ratios[kind]

    @property
    def is_white(self) -> bool:
        """Whether nothing but noise is left."""
        return self.kind is not None and self.ratios.get(PLAIN, 0.0) <= (1 + WHITE) * self.ratio

    @property
    def too_much(self) -> float:
        """Factor on weights that promise more noise than there can be; else 1. For data before any solve."""
        ratio = self.ratio
        return ratio**-2 if 0 < ratio < 1 - BELIEVED else 1.0

    @property
    def weight_scale(self) -> float:
        """Factor that makes the weights 1/sigma^2; 1 if they are believed. For what a solve leaves."""
        ratio = self.ratio
        if not ratio > 0 or abs(ratio - 1) <= BELIEVED:
            return 1.0
        if 1 < ratio < MOST_BELOW and not self.is_white:
            return 1.0
        return ratio**-2


def scales(noise: Mapping[int, Noise], *, solved: bool) -> dict[int, float]:
    """Factors on the weights of each data description, before or after a solve."""
    return {ddid: one.weight_scale if solved else one.too_much for ddid, one in noise.items()}


def differences(
    residual: NDArray[np.complexfloating[Any, Any]],
    weight: NDArray[np.floating[Any]],
    series: NDArray[np.int64],
    times_s: Values,
    rng: np.random.Generator,
) -> dict[str, Values]:
    """``|z|^2`` of values and their differences, each over its variance by the weights; see `Noise.add`.

    In time ``r_0 - 2 r_1 + r_2`` of three successive integrations of a baseline, from which what changes
    steadily drops out; of hands ``r_RR - r_LL``, and both.
    """
    order = np.lexsort((times_s, series))
    same = (series[order][2:] == series[order][:-2]).nonzero()[0]
    most = max(1, SAMPLES // (residual.shape[1] * residual.shape[2]))
    if same.size > most:
        same = rng.choice(same, most, replace=False)
    three = [order[same + step] for step in range(3)]
    good = np.logical_and.reduce([weight[rows] > 0 for rows in three])
    variance = np.divide(1.0, weight, out=np.zeros(weight.shape), where=weight > 0)
    change = residual[three[0]] - 2 * residual[three[1]] + residual[three[2]]
    spread = variance[three[0]] + 4 * variance[three[1]] + variance[three[2]]
    rows = three[1]
    if not same.size:
        # Fields of less than three integrations.
        rows = rng.choice(series.size, min(series.size, most), replace=False)
    found = {
        PLAIN: _squares(residual[rows], variance[rows], weight[rows] > 0),
        TIME: _squares(change, spread, good),
    }
    if residual.shape[2] == 2:
        found[HANDS] = _squares(*_of_hands(residual[rows], variance[rows], weight[rows] > 0))
        found[BOTH] = _squares(*_of_hands(change, spread, good))
    return found


def _of_hands(
    values: NDArray[np.complexfloating[Any, Any]], variance: Values, good: NDArray[np.bool_]
) -> tuple[NDArray[np.complexfloating[Any, Any]], Values, NDArray[np.bool_]]:
    both = np.logical_and(good[..., 0], good[..., 1])
    return values[..., 0] - values[..., 1], variance.sum(axis=-1), both


def _squares(
    values: NDArray[np.complexfloating[Any, Any]], variance: Values, good: NDArray[np.bool_]
) -> Values:
    return np.asarray(np.abs(values[good]) ** 2 / variance[good], dtype=np.float64)
