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
    stack = np.array([np.nan_to_num(plane) for plane in planes], dtype=np.float64)
    ys, xs = np.nonzero(stack.any(axis=0))
    return predict_pixels(
        xs, ys, stack[:, ys, xs], weights, cell_rad=cell_rad, centre_pixel=centre_pixel,
        uvw_m=uvw_m, freq_hz=freq_hz, epsilon=epsilon,
    )  # fmt: skip


def predict_pixels(
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    cell_rad: tuple[float, float],
    centre_pixel: tuple[float, float],
    uvw_m: NDArray[np.float64],
    freq_hz: NDArray[np.float64],
    epsilon: float = EPSILON,
    threads: int = 0,
) -> NDArray[np.complex128]:
    """The same from the pixels that are not zero, on a grid that is cut to them.

    Parameters
    ----------
    xs, ys : ndarray of int, shape (pixel,)
        Which.
    values : ndarray, shape (plane, pixel)
        Their values in each plane [Jy].
    weights, cell_rad, centre_pixel, uvw_m, freq_hz, epsilon
        See `predict`.
    threads : int
        0 is one for each core.
    """
    from ducc0.wgridder import dirty2vis

    total: NDArray[np.complex128] | None = None
    shape = (uvw_m.shape[0], freq_hz.size)
    for plane, weight in zip(values, weights, strict=True):
        used = np.flatnonzero(weight)
        if used.size == 0 or not np.any(plane):
            continue
        image, shift = _cutout(xs, ys, plane, centre_pixel)
        vis = dirty2vis(
            uvw=np.ascontiguousarray(uvw_m),
            freq=np.ascontiguousarray(freq_hz[used]),
            dirty=image,
            pixsize_x=cell_rad[0],
            pixsize_y=cell_rad[1],
            center_x=shift[0] * cell_rad[0],
            center_y=-shift[1] * cell_rad[1],  # flip_v turns this axis too
            epsilon=epsilon,
            do_wgridding=True,
            flip_v=True,
            divide_by_n=False,
            nthreads=threads or cores(),
        )
        if np.any(weight[used] != 1):
            vis *= weight[used]
        if total is None and used.size == freq_hz.size:
            total = vis
            continue
        if total is None:
            total = np.zeros(shape, dtype=np.complex128)
        if used.size == freq_hz.size:
            total += vis
        else:
            total[:, used] += vis
    return np.zeros(shape, dtype=np.complex128) if total is None else total


def taylor_weights(
    count: int, freq_hz: NDArray[np.float64], reference_hz: float
) -> NDArray[np.float64]:
    """Weights of ``count`` Taylor terms, ``((f - f0) / f0)^k``, shape (count, chan)."""
    x = (freq_hz - reference_hz) / reference_hz
    return np.asarray(x[None, :] ** np.arange(count)[:, None])


def _cutout(
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    values: NDArray[np.float64],
    centre: tuple[float, float],
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Image [l, m] of the pixels' bounding box, with even sides; the offset of its middle [pixel].

    ducc0 counts from the middle pixel n/2 of an even image, and wants l first, which grows with falling x:
    that flips the first axis' sign.
    """
    low_x, low_y = int(xs.min()), int(ys.min())
    width, height = (
        max(MIN_SIZE, extent + extent % 2)
        for extent in (int(xs.max()) + 1 - low_x, int(ys.max()) + 1 - low_y)
    )
    cut = np.zeros((width, height))
    cut[xs - low_x, ys - low_y] = values
    return cut, (low_x + width / 2 - centre[0], low_y + height / 2 - centre[1])
