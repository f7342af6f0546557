"""Does the model have the flux that the short baselines see? Seed 002, tips 3 and 4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms
from peelkit.io.usable import usable_weights

# Bins of baseline length, and the fine ones that they are made of.
BINS, FINE_BINS = 10, 2000

# The model lacks flux where the data have so much more than it has on the longer half of the baselines.
LACKING = 0.05

# ... and by so many standard errors.
SIGNIFICANT = 3.0


@dataclass(frozen=True)
class Ratio:
    """Data over model on baselines of some length.

    Parameters
    ----------
    uv_m : tuple of float
        Range of projected baselines [m].
    data_jy, model_jy : float
        Weighted means: of the data along the model, and rms of the model.
    ratio, error : float
        ``Re sum w D M* / sum w |M|^2`` and its standard error.
    """

    uv_m: tuple[float, float]
    data_jy: float
    model_jy: float
    ratio: float
    error: float


def data_over_model(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    channels: dict[int, list[tuple[int, int]]],
    longest_m: float,
) -> list[Ratio]:
    """Compare CORRECTED_DATA with MODEL_DATA, in bins of baseline length with as much weight each.

    The error takes the scatter of the data about the model for their noise.

    Parameters
    ----------
    rows : ndarray of int
        Which.
    channels : dict
        Ranges of each spw.
    longest_m : float
        Longest projected baseline [m].
    """
    # Of fine bins, so that memory does not grow with the rows; merged when all are known.
    edges = np.linspace(0.0, longest_m * (1 + 1e-9), FINE_BINS + 1)
    sums = np.zeros((5, FINE_BINS))
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=40):
            if description.spw not in channels:
                continue
            hands = ms.parallel_hands(description.correlations)
            n_chan = len(info.spws[description.spw].freq_hz)
            inside = ms.channel_mask(channels[description.spw], n_chan)
            data, model = (
                ms.get(main, name, chunk)[:, inside][:, :, hands]
                for name in ("CORRECTED_DATA", "MODEL_DATA")
            )
            weight = usable_weights(main, chunk, hands, inside)
            data = np.where(weight > 0, data, 0.0)
            uvw = ms.get(main, "UVW", chunk)
            which = np.searchsorted(edges, np.hypot(uvw[:, 0], uvw[:, 1]), side="right") - 1
            which = np.clip(which, 0, FINE_BINS - 1)
            for total, part in zip(
                sums,
                (
                    weight * (data * model.conj()).real,
                    weight * np.abs(model) ** 2,
                    weight * np.abs(data - model) ** 2,
                    weight,
                    weight > 0,
                ),
                strict=True,
            ):
                total += np.bincount(which, part.sum(axis=(1, 2)), FINE_BINS)
    return _merged(edges, sums)


def _merged(edges: NDArray[np.float64], sums: NDArray[np.float64]) -> list[Ratio]:
    """Merge fine bins into `BINS` of as much weight each."""
    weight = np.cumsum(sums[3])
    if not weight[-1] > 0:
        return []
    cuts = np.searchsorted(weight, weight[-1] * np.arange(1, BINS) / BINS) + 1
    bounds = np.unique(
        [int(np.flatnonzero(sums[3])[0]), *cuts, int(np.flatnonzero(sums[3])[-1]) + 1]
    )
    result = []
    for low, high in itertools.pairwise(bounds):
        along, power, misfit, total, count = sums[:, low:high].sum(axis=1)
        if power > 0 and count > 1:
            amplitude = math.sqrt(power / total)
            # Of the real part; what the model lacks counts as noise too.
            error = math.sqrt(misfit / count / 2 / power)
            ratio = float(along / power)
            between = (float(edges[low]), float(edges[high]))
            result.append(Ratio(between, ratio * amplitude, amplitude, ratio, error))
    return result


def inner_cut_m(ratios: Sequence[Ratio]) -> float | None:
    """Length [m] below which the data have flux that the model lacks; None if it lacks nothing.

    Measured against the longer half of the baselines, so that a common scale of data and model does not
    matter: gains will take it up.
    """
    outer = ratios[len(ratios) // 2 :]
    weight = sum(1 / item.error**2 for item in outer if item.error > 0)
    if not weight:
        return None
    level = sum(item.ratio / item.error**2 for item in outer if item.error > 0) / weight
    cut = None
    for item in ratios[: len(ratios) // 2]:
        excess = item.ratio - level
        if excess < LACKING * abs(level) or excess < SIGNIFICANT * item.error:
            break
        cut = item.uv_m[1]
    return cut


def longest_cut_m(
    info: ms.MsInfo, rows: NDArray[np.int64], antennas: Collection[int], minblperant: int
) -> float:
    """Longest inner cut [m] that leaves each antenna ``minblperant`` baselines (by their median lengths)."""
    n_antenna = len(info.antennas)
    sums = np.zeros((n_antenna, n_antenna))
    counts = np.zeros((n_antenna, n_antenna))
    with ms.opened(info.path) as main:
        for _, chunk in ms.chunks(main, info, rows):
            one, two = ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
            uvw = ms.get(main, "UVW", chunk)
            np.add.at(sums, (one, two), np.hypot(uvw[:, 0], uvw[:, 1]))
            np.add.at(counts, (one, two), 1)
    sums, counts = sums + sums.T, counts + counts.T
    length = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    np.fill_diagonal(length, 0.0)
    # The cut of an antenna is below its minblperant-th longest baseline.
    kept = -np.sort(-length, axis=1)[:, minblperant - 1]
    return float(min((kept[antenna] for antenna in antennas), default=0.0))
