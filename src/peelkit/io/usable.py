"""Weights of visibilities, and which of them are left out: flagged, autocorrelations, without weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms

# What numpy takes to choose along an axis: ids, a mask, a slice.
Choice = NDArray[Any] | slice

EVERY = slice(None)


def sample_weights(
    main: Any, rows: NDArray[np.int64], hands: Choice = EVERY, channels: Choice = EVERY
) -> NDArray[np.floating[Any]]:
    """Weights of ``rows``: WEIGHT_SPECTRUM where it is filled, else WEIGHT; 0 for one that is no finite number.

    Returns
    -------
    ndarray, shape (row, chan, hand)
        Or (row, 1, hand), which broadcasts, where all channels have one.
    """
    if ms.has_cells(main, "WEIGHT_SPECTRUM", int(rows[0])):
        weight = ms.get(main, "WEIGHT_SPECTRUM", rows)[:, channels][:, :, hands]
    else:
        weight = ms.get(main, "WEIGHT", rows)[:, None][:, :, hands]
    return np.where(np.isfinite(weight), weight, np.zeros((), weight.dtype))


def usable_weights(
    main: Any, rows: NDArray[np.int64], hands: Choice = EVERY, channels: Choice = EVERY
) -> NDArray[np.floating[Any]]:
    """Weights of ``rows``, shape (row, chan, hand); 0 where the data are not to be used.

    By FLAG, FLAG_ROW, as an autocorrelation, or without a weight. The data may still be no numbers.
    """
    left_out = ms.get(main, "FLAG", rows)[:, channels][:, :, hands]
    whole = ms.get(main, "FLAG_ROW", rows).astype(bool)
    whole |= ms.get(main, "ANTENNA1", rows) == ms.get(main, "ANTENNA2", rows)
    weight = sample_weights(main, rows, hands, channels)
    left_out = left_out | whole[:, None, None] | ~(weight > 0)
    return np.where(left_out, np.float32(0), weight)
