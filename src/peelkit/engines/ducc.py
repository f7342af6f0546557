"""ducc0: model visibilities from model images, exactly, w-terms included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Relative accuracy of a prediction; far below any calibration error.
EPSILON = 1e-6


def predict(
    terms: Sequence[NDArray[Any]],
    *,
    cell_rad: float,
    centre_pixel: tuple[float, float],
    uvw_m: NDArray[np.float64],
    freq_hz: NDArray[np.float64],
    reference_hz: float,
    epsilon: float = EPSILON,
) -> NDArray[np.complex64]:
    """Visibilities of a model image in CASA's convention.

    ``V = sum_pixels I(l, m) exp(+2 pi i (u l + v m + w (n - 1)))`` with l to the east, the sign of
    the UVW that CASA writes (checked against a direct sum and against tclean's own model).

    Parameters
    ----------
    terms : sequence of ndarray, shape (ny, nx)
        Taylor terms of the brightness [Jy/pixel] about ``reference_hz``: ``I = sum_k I_k x^k`` with
        ``x = (f - f0) / f0``. l grows to the left (falling x), m upwards.
    cell_rad : float
        Pixel size [rad].
    centre_pixel : tuple of float
        Pixel (x, y) of the phase centre, from 0; CASA puts it at (nx // 2, ny // 2).
    uvw_m : ndarray, shape (row, 3)
        Baselines [m].
    freq_hz : ndarray, shape (chan,)
        Frequencies in the frame of the image [Hz].
    reference_hz : float
        Reference frequency f0 of the Taylor terms [Hz].
    epsilon : float
        Relative accuracy.

    Returns
    -------
    ndarray of complex64, shape (row, chan)
        Visibilities [Jy].
    """
    from ducc0.wgridder import dirty2vis

    total = np.zeros((uvw_m.shape[0], freq_hz.size), dtype=np.complex128)
    power = np.ones(freq_hz.size)
    for plane in terms:
        if np.any(plane):
            image, shift = _even(np.nan_to_num(plane), centre_pixel)
            total += power * dirty2vis(
                uvw=np.ascontiguousarray(uvw_m),
                freq=np.ascontiguousarray(freq_hz),
                # ducc0 wants [l, m]; l grows with falling x, which flips the first axis' sign.
                dirty=np.ascontiguousarray(image.T, dtype=np.float64),
                pixsize_x=cell_rad,
                pixsize_y=cell_rad,
                center_x=shift[0] * cell_rad,
                center_y=-shift[1] * cell_rad,  # flip_v turns this axis too
                epsilon=epsilon,
                do_wgridding=True,
                flip_v=True,
                divide_by_n=False,
                nthreads=len(os.sched_getaffinity(0)),
            )
        power = power * (freq_hz - reference_hz) / reference_hz
    return total.astype(np.complex64)


def _even(
    plane: NDArray[Any], centre: tuple[float, float]
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Cut to the model's bounding box, with even sides; gives the offset of its middle [pixel].

    ducc0 counts from the middle pixel n/2 of an even image.
    """
    ys, xs = np.nonzero(plane)
    low_x, high_x = int(xs.min()), int(xs.max()) + 1
    low_y, high_y = int(ys.min()), int(ys.max()) + 1
    width = max(32, high_x - low_x + (high_x - low_x) % 2)
    height = max(32, high_y - low_y + (high_y - low_y) % 2)
    cut = np.zeros((height, width))
    cut[: high_y - low_y, : high_x - low_x] = plane[low_y:high_y, low_x:high_x]
    return cut, (low_x + width / 2 - centre[0], low_y + height / 2 - centre[1])
