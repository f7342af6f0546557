"""ducc0: model visibilities from model images, exactly, w-terms included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.parallel import cores

# Relative accuracy of a prediction; far below any calibration error.
EPSILON = 1e-6

# Least side of a cutout [pixel].
MIN_SIZE = 32


def predict(
    planes: Sequence[NDArray[Any]],
    weights: NDArray[np.float64],
    *,
    cell_rad: tuple[float, float],
    centre_pixel: tuple[float, float],
    uvw_m: NDArray[np.float64],
    freq_hz: NDArray[np.float64],
    epsilon: float = EPSILON,
) -> NDArray[np.complex128]:
    """Visibilities of a model image in CASA's convention.

    ``V = sum_pixels I(l, m) exp(+2 pi i (u l + v m + w (n - 1)))`` with l to the east, the sign of
    the UVW that CASA writes (checked against a direct sum and against tclean's own model).

    Parameters
    ----------
    planes : sequence of ndarray, shape (ny, nx)
        Images whose weighted sum is the brightness [Jy/pixel]: ``I(f) = sum_k weights[k, f] I_k``.
        l grows to the left (falling x), m upwards.
    weights : ndarray, shape (plane, chan)
        For Taylor terms the powers of ``(f - f0) / f0`` (`taylor_weights`).
    cell_rad : tuple of float
        Pixel size along x and y [rad], both positive.
    centre_pixel : tuple of float
        Pixel (x, y) of the point to which u, v, w refer, from 0; CASA puts it at (nx // 2, ny // 2).
    uvw_m : ndarray, shape (row, 3)
        Baselines [m].
    freq_hz : ndarray, shape (chan,)
        Frequencies in the frame of the image [Hz].
    epsilon : float
        Relative accuracy.

    Returns
    -------
    ndarray of complex128, shape (row, chan)
        Visibilities [Jy].
    """
    from ducc0.wgridder import dirty2vis

    total = np.zeros((uvw_m.shape[0], freq_hz.size), dtype=np.complex128)
    for plane, weight in zip(planes, weights, strict=True):
        used = np.flatnonzero(weight)
        if used.size == 0 or not np.any(plane):
            continue
        image, shift = _even(np.nan_to_num(plane), centre_pixel)
        vis = dirty2vis(
            uvw=np.ascontiguousarray(uvw_m),
            freq=np.ascontiguousarray(freq_hz[used]),
            # ducc0 wants [l, m]; l grows with falling x, which flips the first axis' sign.
            dirty=np.ascontiguousarray(image.T, dtype=np.float64),
            pixsize_x=cell_rad[0],
            pixsize_y=cell_rad[1],
            center_x=shift[0] * cell_rad[0],
            center_y=-shift[1] * cell_rad[1],  # flip_v turns this axis too
            epsilon=epsilon,
            do_wgridding=True,
            flip_v=True,
            divide_by_n=False,
            nthreads=cores(),
        )
        total[:, used] += weight[used] * vis
    return total


def taylor_weights(
    count: int, freq_hz: NDArray[np.float64], reference_hz: float
) -> NDArray[np.float64]:
    """Weights of ``count`` Taylor terms, ``((f - f0) / f0)^k``, shape (count, chan)."""
    x = (freq_hz - reference_hz) / reference_hz
    return np.asarray(x[None, :] ** np.arange(count)[:, None])


def _even(
    plane: NDArray[Any], centre: tuple[float, float]
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Cut to the model's bounding box, with even sides; gives the offset of its middle [pixel].

    ducc0 counts from the middle pixel n/2 of an even image.
    """
    ys, xs = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    low_x, high_x = int(xs[0]), int(xs[-1]) + 1
    low_y, high_y = int(ys[0]), int(ys[-1]) + 1
    width = max(MIN_SIZE, high_x - low_x + (high_x - low_x) % 2)
    height = max(MIN_SIZE, high_y - low_y + (high_y - low_y) % 2)
    cut = np.zeros((height, width))
    cut[: high_y - low_y, : high_x - low_x] = plane[low_y:high_y, low_x:high_x]
    return cut, (low_x + width / 2 - centre[0], low_y + height / 2 - centre[1])
