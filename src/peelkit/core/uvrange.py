"""CASA's ``uvrange``: which baselines a range of lengths takes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In metres, or in wavelengths; a bare number is in metres.
LENGTHS = {"": 1.0, "m": 1.0, "km": 1e3}
WAVELENGTHS = {"lambda": 1.0, "klambda": 1e3, "mlambda": 1e6}


def in_range(
    text: str, length_m: NDArray[np.float64], per_m: float | NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Tell which baselines CASA's ``uvrange`` takes; pieces after commas add up.

    Parameters
    ----------
    text : str
        Checked by `peelkit.selection.check_uvrange`; empty takes all.
    length_m : ndarray, shape (row,) or (row, 1)
        Length in the uv plane [m].
    per_m : float, or ndarray of shape (chan,)
        Wavelengths in a metre: at the middle of the spw as in CASA, or in each channel.

    Returns
    -------
    ndarray of bool
        As ``length_m`` and ``per_m`` broadcast: (row,) or (row, chan).
    """
    shape = np.broadcast_shapes(length_m.shape, np.shape(per_m))
    pieces = [part.strip() for part in text.split(",") if part.strip()]
    taken = np.full(shape, not pieces)
    for piece in pieces:
        *numbers, unit = re.findall(r"[\d.]+|[a-zA-Z]*$", piece)[: 3 if "~" in piece else 2]
        word = unit.lower()
        length: NDArray[Any] = length_m if word in LENGTHS else length_m * per_m
        scale = LENGTHS[word] if word in LENGTHS else WAVELENGTHS[word]
        limits = [float(number) * scale for number in numbers]
        if piece.startswith(">"):
            taken |= length > limits[0]
        elif piece.startswith("<"):
            taken |= length < limits[0]
        else:
            taken |= (length >= limits[0]) & (length <= limits[1])
    return taken
