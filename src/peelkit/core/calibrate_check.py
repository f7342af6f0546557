"""Whether the calibrator, once calibrated, looks like its model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms
from peelkit.io.usable import usable_weights
from peelkit.selection import Selection


def check_corrected(
    work: ms.MsInfo, rows: NDArray[np.int64], selection: Selection
) -> list[dict[str, Any]]:
    """Compare CORRECTED_DATA with MODEL_DATA, spw by spw, in the selected channels.

    With ``<V M*> / <|M|^2>`` over all baselines, times and channels, weighted: amplitude 1 and phase 0
    if the calibration is right. The spectrum of that, channel by channel, is flat then; its scatter is
    compared with what the noise allows.

    Returns
    -------
    list of dict
        For each spw ``amplitude_ratio``, ``phase_deg``, ``residual_rms_jy`` (per visibility),
        ``spectrum_scatter_percent`` (over channels) and ``spectrum_noise_percent`` (expected of it).
    """
    ranges = work.channels(selection)
    sums: dict[int, list[NDArray[Any]]] = {}
    with ms.opened(work.path) as main:
        for description, chunk in ms.chunks(main, work, rows):
            if description.spw not in ranges:
                continue
            hands = ms.parallel_hands(description.correlations)
            data = ms.get(main, "CORRECTED_DATA", chunk)[:, :, hands].astype(np.complex128)
            model = ms.get(main, "MODEL_DATA", chunk)[:, :, hands]
            weight = usable_weights(main, chunk, hands).astype(np.float64)
            weight[~np.isfinite(data)] = 0
            data[weight == 0] = 0
            pieces = [
                (weight * data * model.conj()).sum(axis=(0, 2)),
                (weight * np.abs(model) ** 2).sum(axis=(0, 2)),
                (weight * np.abs(data - model) ** 2).sum(axis=(0, 2)),
                weight.sum(axis=(0, 2)),
                (weight > 0).sum(axis=(0, 2)),
            ]
            kept = sums.setdefault(description.spw, [np.zeros_like(one) for one in pieces])
            for total, one in zip(kept, pieces, strict=True):
                total += one
    return [
        _figures(spw, total, ranges[spw]) for spw, total in sorted(sums.items()) if total[4].any()
    ]


def _figures(spw: int, sums: list[NDArray[Any]], ranges: list[tuple[int, int]]) -> dict[str, Any]:
    inside = ms.channel_mask(ranges, sums[0].size) & (sums[4] > 0)
    cross, power, residual, weight, count = (one[inside] for one in sums)
    ratio = cross.sum() / power.sum()
    spectrum = np.abs(cross / power)
    rms = math.sqrt(residual.sum() / weight.sum())
    # Each part of the residual has half its power; only that along the model moves an amplitude.
    noise = rms / math.sqrt(2) / np.sqrt(np.median(count) * power.sum() / weight.sum())
    return {
        "spw": spw,
        "amplitude_ratio": float(np.abs(ratio)),
        "phase_deg": float(np.degrees(np.angle(ratio))),
        "residual_rms_jy": rms,
        "spectrum_scatter_percent": 100 * float(np.std(spectrum)) if spectrum.size > 1 else None,
        "spectrum_noise_percent": 100 * float(noise),
    }
