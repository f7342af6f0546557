"""Does the model have the flux that the short baselines see? Seed 002, tips 3 and 4."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms

# Bins of baseline length, with equal numbers of samples.
BINS = 10

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
    info: ms.MsInfo, rows: NDArray[np.int64], channels: dict[int, list[tuple[int, int]]]
) -> list[Ratio]:
    """Compare CORRECTED_DATA with MODEL_DATA, in bins of baseline length.

    The error takes the scatter of the data about the model for their noise.
    """
    sums: list[list[NDArray[np.float64]]] = []
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=40):
            if description.spw not in channels:
                continue
            hands = ms.parallel_hands(description.correlations)
            inside = np.zeros(len(info.spws[description.spw].freq_hz), dtype=bool)
            for first, last in channels[description.spw]:
                inside[first : last + 1] = True
            data, model, flag = (
                ms.get(main, name, chunk)[:, inside][:, :, hands]
                for name in ("CORRECTED_DATA", "MODEL_DATA", "FLAG")
            )
            weight = np.where(flag, 0.0, ms.get(main, "WEIGHT", chunk)[:, None, hands])
            weight[ms.get(main, "ANTENNA1", chunk) == ms.get(main, "ANTENNA2", chunk)] = 0.0
            data = np.where(weight > 0, data, 0.0)
            uvw = ms.get(main, "UVW", chunk)
            axes = (1, 2)
            sums.append(
                [
                    np.hypot(uvw[:, 0], uvw[:, 1]),
                    (weight * (data * model.conj()).real).sum(axis=axes),
                    (weight * np.abs(model) ** 2).sum(axis=axes),
                    (weight * np.abs(data - model) ** 2).sum(axis=axes),
                    weight.sum(axis=axes),
                    (weight > 0).sum(axis=axes),
                ]
            )
    return _binned(*(np.concatenate(column) for column in zip(*sums, strict=True))) if sums else []


def _binned(
    length: NDArray[np.float64],
    along: NDArray[np.float64],
    power: NDArray[np.float64],
    misfit: NDArray[np.float64],
    weight: NDArray[np.float64],
    count: NDArray[np.float64],
) -> list[Ratio]:
    used = weight > 0
    if not used.any():
        return []
    edges = np.unique(np.quantile(length[used], np.linspace(0, 1, BINS + 1)))
    n_bin = max(len(edges) - 1, 1)
    which = np.clip(np.searchsorted(edges, length[used], side="right") - 1, 0, n_bin - 1)
    sums = [np.bincount(which, x[used], n_bin) for x in (along, power, misfit, weight, count)]
    result = []
    for index, (a, p, m, w, n) in enumerate(zip(*sums, strict=True)):
        if p > 0 and n > 1:
            amplitude = math.sqrt(p / w)
            # Of the real part; what the model lacks counts as noise too.
            variance = m / n / 2
            between = (float(edges[index]), float(edges[min(index + 1, len(edges) - 1)]))
            result.append(
                Ratio(between, a / p * amplitude, amplitude, a / p, math.sqrt(variance / p))
            )
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
