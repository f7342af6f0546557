"""Calibrated data over their model, interval by interval: what the mean over an interval has lost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_bins import add_at
from peelkit.io import ms
from peelkit.io.survey import Survey
from peelkit.io.usable import usable_weights


def intervals(found: Survey, solint_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide the scans into intervals.

    Returns
    -------
    starts, ends : ndarray, shape (time,)
        [MJD s], ascending.
    """
    scans: dict[tuple[int, int], tuple[float, float]] = {}
    for visit in found.visits:
        low = float(visit.times_s[0]) - visit.integration_s / 2
        high = float(visit.times_s[-1]) + visit.integration_s / 2
        # Executions count their scans alike.
        scan = (visit.observation, visit.scan)
        old = scans.get(scan, (low, high))
        scans[scan] = (min(old[0], low), max(old[1], high))
    starts, ends = [], []
    for low, high in sorted(scans.values()):
        count = max(1, round((high - low) / solint_s))
        edges = np.linspace(low, high, count + 1)
        starts += list(edges[:-1])
        ends += list(edges[1:])
    return np.array(starts), np.array(ends)


def amplitude_over_model(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    starts: NDArray[np.float64],
    *,
    column: str = "CORRECTED_DATA",
    model: str = "MODEL_DATA",
) -> NDArray[np.float64]:
    """``Re(sum w V M*) / sum w |M|^2`` over each antenna's baselines in each interval.

    1 for data that are their model and noise; less by ``exp(-sigma^2 / 2)`` if phases scatter within the
    interval.

    Parameters
    ----------
    starts : ndarray, shape (time,)
        Beginnings of the intervals [MJD s], ascending.

    Returns
    -------
    ndarray, shape (time, antenna)
        NaN without data or model.
    """
    shape = (starts.size, len(info.antennas))
    product, power = np.zeros(shape), np.zeros(shape)
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows):
            hands = ms.parallel_hands(description.correlations)
            seen = ms.get(main, column, chunk)[:, :, hands]
            expected = ms.get(main, model, chunk)[:, :, hands]
            finite = np.isfinite(seen)
            weight = np.where(finite, usable_weights(main, chunk, hands), 0.0)
            seen = np.where(finite, seen, 0)
            one, two = ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
            upper = (weight * (seen * expected.conj()).real).sum(axis=(1, 2))
            lower = (weight * np.abs(expected) ** 2).sum(axis=(1, 2))
            when = np.searchsorted(starts, ms.get(main, "TIME", chunk), side="right") - 1
            when = np.clip(when, 0, None)
            for antenna in (one, two):
                add_at(product, when, antenna, upper)
                add_at(power, when, antenna, lower)
    return np.divide(product, power, out=np.full(shape, np.nan), where=power > 0)
