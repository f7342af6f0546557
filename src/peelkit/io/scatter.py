"""The scatter of visibilities, in units of what their weights promise.

Differences of neighbours, in time and in channel where there are several: what changes steadily in
either, source, bandpass and drift of phase, drops out to second order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from peelkit.io import ms, rownumbers
from peelkit.io.usable import usable_weights

# Rows of one data description that are looked at, at most: the scatter needs no more.
MOST_ROWS = 100_000

# Real differences that a baseline must have to count.
FEWEST = 8


@dataclass(frozen=True)
class Scatter:
    """Sums for each baseline of one spw.

    Parameters
    ----------
    spw : int
        Which.
    chi2 : ndarray, shape (antenna, antenna)
        Sum of ``|difference|^2 / variance promised``, expected to be ``count``; antenna 1 < antenna 2.
    count : ndarray, shape (antenna, antenna)
        Real differences, two for each complex one.
    """

    spw: int
    chi2: NDArray[np.float64]
    count: NDArray[np.float64]

    @property
    def ratio(self) -> float:
        """Weight times variance over all baselines: 1 for true weights; NaN if nothing was compared."""
        total = self.count.sum()
        return float(self.chi2.sum() / total) if total else math.nan

    def antenna_count(self) -> NDArray[np.float64]:
        """Real differences on the baselines of each antenna, shape (antenna,)."""
        return np.asarray(self.count.sum(axis=0) + self.count.sum(axis=1))

    def antenna_ratio(self) -> NDArray[np.float64]:
        """Weight times variance on baselines of each antenna with a typical one, shape (antenna,).

        The variance of a baseline is a product of its antennas' (sigma^2 ~ T_i T_j): the logarithms of the
        baselines' ratios are sums of the antennas', solved by least squares. A noisy antenna stands out, and
        the others on its baselines do not. NaN where nothing was compared.
        """
        n_antenna = len(self.chi2)
        one, two = np.nonzero(self.count >= FEWEST)
        count = self.count[one, two]
        # Mean of the logarithm of chi^2 / n with n degrees of freedom.
        bias = digamma(count / 2) - np.log(count / 2)
        found = self.chi2[one, two] / count
        good = found > 0
        one, two, count = one[good], two[good], count[good]
        result = np.full(n_antenna, math.nan)
        used = np.unique([one, two])
        # Three baselines that close are the least that tells antennas apart.
        if used.size < 3 or one.size < used.size:
            return result
        matrix = np.zeros((one.size, n_antenna))
        matrix[np.arange(one.size), one] = matrix[np.arange(one.size), two] = 1.0
        root = np.sqrt(count)[:, None]
        target = (np.log(found[good]) - bias[good])[:, None]
        solved = np.linalg.lstsq(matrix[:, used] * root, target * root, rcond=None)[0][:, 0]
        result[used] = np.exp(solved + np.median(solved))
        return result


def measure_scatter(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    *,
    column: str,
    channels: dict[int, list[tuple[int, int]]],
) -> list[Scatter]:
    """Scatter of the unflagged parallel hands in ``rows``, spw by spw.

    Parameters
    ----------
    column : str
        Data to look at.
    channels : dict
        Spw to ranges of channels.
    """
    n_antenna = len(info.antennas)
    sums: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, _sample(main, info, rows)):
            n_chan = len(info.spws[description.spw].freq_hz)
            inside = ms.channel_mask(channels[description.spw], n_chan)
            chi2, count = sums.setdefault(
                description.spw,
                (np.zeros((n_antenna, n_antenna)), np.zeros((n_antenna, n_antenna))),
            )
            _add_chunk(main, description, chunk, inside, column, chi2, count)
    return [Scatter(spw, chi2, count) for spw, (chi2, count) in sorted(sums.items())]


def _sample(main: Any, info: ms.MsInfo, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of pairs of successive integrations, spread over the observation; all if they are few."""
    fewest = len(info.data_descriptions) * MOST_ROWS
    if rows.size <= fewest:
        return rows
    times = rownumbers.times(main, rows)
    pair = np.arange(times.size) // 2
    return rownumbers.at_times(main, rows, times[pair % math.ceil(rows.size / fewest) == 0])


def _add_chunk(
    main: Any,
    description: ms.DataDescription,
    rows: NDArray[np.int64],
    inside: NDArray[np.bool_],
    column: str,
    chi2: NDArray[np.float64],
    count: NDArray[np.float64],
) -> None:
    one, two = ms.get(main, "ANTENNA1", rows), ms.get(main, "ANTENNA2", rows)
    low, high = np.minimum(one, two), np.maximum(one, two)
    keys = (low, high, ms.get(main, "FIELD_ID", rows), ms.get(main, "SCAN_NUMBER", rows))
    times = ms.get(main, "TIME", rows)
    order = np.lexsort((times, *keys[::-1]))
    first, second = order[:-1], order[1:]
    step = times[second] - times[first]
    same = (low[first] != high[first]) & (step > 0)
    # One that is missing between two would let the phase drift further.
    same &= step <= 1.5 * ms.get(main, "INTERVAL", rows)[first]
    for key in keys:
        same &= key[first] == key[second]
    pairs = _disjoint(np.flatnonzero(same))
    if pairs.size == 0:
        return
    first, second = first[pairs], second[pairs]
    hands = ms.parallel_hands(description.correlations)
    data = ms.get(main, column, rows)[:, inside][:, :, hands]
    weight = usable_weights(main, rows, hands, inside)
    flag = ~np.isfinite(data) | (weight == 0)
    variance = np.divide(1.0, weight, out=np.zeros(data.shape), where=~flag)
    data = np.where(flag, 0, data)
    change, bad = data[second] - data[first], flag[first] | flag[second]
    spread = variance[first] + variance[second]
    if change.shape[1] > 1:
        n_even = change.shape[1] // 2 * 2
        change = change[:, 1:n_even:2] - change[:, 0:n_even:2]
        bad = bad[:, 1:n_even:2] | bad[:, 0:n_even:2]
        spread = spread[:, 1:n_even:2] + spread[:, 0:n_even:2]
    squares = np.divide(np.abs(change) ** 2, spread, out=np.zeros(change.shape), where=~bad)
    np.add.at(chi2, (low[first], high[first]), squares.sum(axis=(1, 2)))
    np.add.at(count, (low[first], high[first]), 2.0 * (~bad).sum(axis=(1, 2)))


def _disjoint(starts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every other one of each run of consecutive numbers, so that pairs share no sample."""
    if starts.size == 0:
        return starts
    run = np.flatnonzero(np.diff(starts, prepend=starts[0] - 2) != 1)
    place = np.arange(starts.size) - np.repeat(run, np.diff(run, append=starts.size))
    return starts[place % 2 == 0]
