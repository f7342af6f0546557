"""Do gains describe data that they were not solved on? Cross-validation over baselines.

Gains that were solved on all data fit these better the shorter their intervals are, noise or not, and
with the noise the peak of the image rises. Here they are solved again, each time without a part of the
baselines, and it is the baselines left out that judge: there noise that was fitted adds to chi-squared,
and only what is common to all baselines of an antenna takes from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core import stefcal

# Baselines are left out in so many parts, one after the other.
FOLDS = 12

# With fewer antennas the baselines left are too few to solve for them.
LEAST_ANTENNAS = 5

# Better, or worse, by so many standard errors is beyond doubt.
BETTER, WORSE = 3.0, 2.0

# S/N of an image are known to this. One that rises by so much, though baselines left out fit
# no better, has errors of its model for noise, and better gains all the same (3C273: amplitudes, 7 %).
IMAGE_ERROR, UNDECIDED_GAIN = 0.01, 1.03

# Iterations of a solve.
ITERATIONS = 40


@dataclass(frozen=True)
class Sums:
    """Data against model, in a cell for each integration, spw and hand.

    Parameters
    ----------
    cross : ndarray of complex, shape (cell, antenna, antenna)
        ``sum w D conj(M)`` of data D and model M, for antenna1 and antenna2; Hermitian.
    power : ndarray, shape of cross
        ``sum w |M|^2``; symmetric.
    time_s : ndarray, shape (cell,)
    """

    cross: NDArray[np.complex128]
    power: NDArray[np.float64]
    time_s: NDArray[np.float64]

    def merged(self, which: NDArray[np.int64]) -> Sums:
        """Sums of coarser cells: ``which`` one each cell belongs to."""
        shape = (int(which.max()) + 1, *self.cross.shape[1:])
        cross, power = np.zeros(shape, dtype=np.complex128), np.zeros(shape)
        np.add.at(cross, which, self.cross)
        np.add.at(power, which, self.power)
        time = np.bincount(which, self.time_s) / np.bincount(which)
        return Sums(cross, power, time)


@dataclass(frozen=True)
class Way:
    """How gains are solved and applied.

    Parameters
    ----------
    cells : ndarray of int, shape (cell of the sums,)
        The solution that each cell of the sums goes into.
    calmode : str
        ``p``, ``a`` or ``ap``; empty: no gains.
    series : ndarray of int, shape (solution,)
        Which solutions follow one another in time: between these, gains are interpolated linearly.
    normalised : bool
        The mean power of the gains of a series is kept at 1.
    """

    cells: NDArray[np.int64]
    calmode: str
    series: NDArray[np.int64]
    normalised: bool = False

    def between(
        self, time_s: NDArray[np.float64], own_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For each cell of the sums, the other solution next to it in time, and that one's share."""
        other = self.cells.copy()
        later = time_s > own_s[self.cells]
        order = np.lexsort((own_s, self.series))
        same = self.series[order][1:] == self.series[order][:-1]
        following = np.arange(order.size)
        before = following.copy()
        following[order[:-1][same]] = order[1:][same]
        before[order[1:][same]] = order[:-1][same]
        other = np.where(later, following[self.cells], before[self.cells])
        gap = own_s[other] - own_s[self.cells]
        share = np.divide(time_s - own_s[self.cells], gap, out=np.zeros_like(gap), where=gap != 0)
        return other, np.clip(share, 0, 1)


@dataclass(frozen=True)
class Found:
    """Chi-squared of baselines left out.

    Parameters
    ----------
    gain : float
        How much lower it is with the new gains than with the old.
    error : float
        Standard error of that, from its scatter between antennas.
    old : float
        How much lower it is with the old gains than with none.
    """

    gain: float
    error: float
    old: float

    @property
    def lead(self) -> float:
        """By how much the new gains are better than the better of old and none."""
        return min(self.gain, self.old + self.gain)

    @property
    def worse(self) -> bool:
        """The new gains describe what they have not seen worse, beyond doubt."""
        return self.lead < -WORSE * self.error

    @property
    def least_gain(self) -> float:
        """Factor that the S/N of the image must gain: less than 1 where the new gains are better beyond doubt."""
        if self.gain > BETTER * self.error:
            return 1 - IMAGE_ERROR
        return 1.0 if self.lead >= self.error else UNDECIDED_GAIN

    @property
    def text(self) -> str:
        """Why a round is refused."""
        lost, than = (
            (-self.gain, "the gains before")
            if self.gain < 0
            else (-self.gain - self.old, "no gains")
        )
        return (
            f"baselines left out of the solve fit worse than with {than} (chi-squared higher by {lost:.3g} +- "
            f"{self.error:.2g}): it fits noise, or a wrong model"
        )


def _normalised(
    gains: NDArray[np.complex128], used: NDArray[np.bool_], series: NDArray[np.int64]
) -> NDArray[np.complex128]:
    power = np.bincount(series, (np.abs(gains) ** 2 * used).sum(axis=1))
    count = np.bincount(series, used.sum(axis=1))
    scale = np.sqrt(np.divide(power, count, out=np.ones_like(power), where=power > 0))
    return gains / scale[series][:, None]


def _applied(
    gains: NDArray[np.complex128],
    way: Way,
    between: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> NDArray[np.complex128]:
    """Gains of each cell of the sums, interpolated in amplitude and direction."""
    other, share = between
    one, two = gains[way.cells], gains[other]
    mixed = one + share[:, None] * (two - one)
    size = np.abs(one) + share[:, None] * (np.abs(two) - np.abs(one))
    length = np.abs(mixed)
    return mixed * np.divide(size, length, out=np.ones_like(size), where=length > 0)


def _drop(sums: Sums, gains: NDArray[np.complex128]) -> NDArray[np.float64]:
    """How much lower chi-squared is with gains than with none, by baseline."""
    both = gains[:, :, None] * np.conj(gains[:, None, :])
    drop = 2 * (np.conj(both - 1) * sums.cross).real - (np.abs(both) ** 2 - 1) * sums.power
    return np.asarray(drop.sum(axis=0))


def compare(sums: Sums, old: Way, new: Way, *, refant: int = 0) -> Found | None:
    """Chi-squared of baselines left out, with the new gains and the old; None with too few antennas.

    Gains are interpolated in time with the phase of ``refant`` at 0, as they are applied.
    """
    n_antenna = sums.power.shape[1]
    seen = np.flatnonzero(sums.power.any(axis=(0, 1)))
    if seen.size < LEAST_ANTENNAS:
        return None
    rank = np.full(n_antenna, -1)
    rank[seen] = np.arange(seen.size)
    fold = (rank[:, None] + rank[None, :]) % FOLDS
    totals = np.zeros((2, n_antenna, n_antenna))
    for total, way in zip(totals, (old, new), strict=True):
        if not way.calmode:
            continue
        own = sums.merged(way.cells)
        between = way.between(sums.time_s, own.time_s)
        for number in range(FOLDS):
            left_out = fold == number
            gains = stefcal.solve(
                np.where(left_out, 0, own.cross), np.where(left_out, 0, own.power),
                iterations=ITERATIONS, calmode=way.calmode,
            )  # fmt: skip
            gains *= np.exp(-1j * np.angle(gains[:, [refant]]))
            if way.normalised:
                gains = _normalised(gains, np.asarray(own.power.any(axis=2)), way.series)
            total += np.where(left_out, _drop(sums, _applied(gains, way, between)), 0)
    # Half of each baseline for either antenna: their sum is that of the baselines, and its variance twice that
    # of antennas with nothing in common.
    difference = (totals[1] - totals[0])[seen].sum(axis=1) / 2
    error = math.sqrt(2 * seen.size) * float(difference.std(ddof=1))
    return Found(float(difference.sum()), error, float(totals[0].sum() / 2))
