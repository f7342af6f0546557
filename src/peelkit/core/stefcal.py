"""Gains of antennas from sums of data against a model: StefCal (Salvini & Wijnholds 2014, algorithm 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_bins import squared


def solve(
    cross: NDArray[np.complex128],
    power: NDArray[np.float64],
    *,
    iterations: int,
    calmode: str = "ap",
    start: NDArray[np.complex128] | None = None,
) -> NDArray[np.complex128]:
    """Gains, shape (..., antenna); those of the start, or 1, without data.

    Each second iteration is averaged with the one before.

    Parameters
    ----------
    cross : ndarray of complex, shape (..., antenna, antenna)
        ``sum w D conj(M)`` of data D and model M; Hermitian.
    power : ndarray, shape of cross
        ``sum w |M|^2``; symmetric.
    calmode : str
        ``p``, ``a`` or ``ap``.
    start : ndarray of complex, shape (..., antenna), optional
        To begin with; 1 if not given.
    """
    gains = np.ones(cross.shape[:-1], dtype=np.complex128) if start is None else start
    for number in range(iterations):
        top = np.matmul(cross, gains[..., None])[..., 0]
        if calmode == "p":
            fresh = _phases(top)
        else:
            bottom = np.matmul(power, squared(gains)[..., None])[..., 0]
            fresh = np.divide(top, bottom, out=gains.copy(), where=bottom > 0)
            if calmode == "a":
                fresh = np.abs(fresh).astype(np.complex128)
        gains = (gains + fresh) / 2 if number % 2 else fresh
        if calmode == "p":
            gains = _phases(gains)
    return np.asarray(gains)


def _phases(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    size = np.abs(values)
    return np.divide(values, size, out=np.ones_like(values), where=size > 0)
