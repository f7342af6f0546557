"""Local noise of an image. Pure functions on arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import MAD_TO_SIGMA
from peelkit.errors import DataError

Mask = NDArray[np.bool_]

# Sources are left out of the noise from here up [sigma], with what is connected to them above the
# second value; so often is the map made again.
SOURCE_SIGMA = 5.0
WING_SIGMA = 2.5
ROUNDS = 4

# Boxes with less than this share of their pixels left get their noise from their neighbours.
LEAST_SHARE = 0.1
# The same for the first guess, which has half of the pixels (the negative ones) to begin with.
LEAST_SHARE_NEGATIVE = 0.05
# Exact zeros are blanks, not noise, if they are more than this share of the image.
BLANK_ZEROS = 0.01

# Eight neighbours: islands that touch at a corner are one.
NEIGHBOURS = np.ones((3, 3), dtype=bool)


def noise_map(
    data: NDArray[Any], *, box_pixels: float, exclude: Mask | None = None
) -> NDArray[np.float64]:
    """Local noise that sources do not inflate.

    A first guess comes from the negative pixels alone, ``1.4826 * median(|x|; x < 0)`` in boxes:
    noise and the artefacts of bad gains have both signs, the sky in Stokes I has one, so that a
    source may fill most of a box. Then, again and again: what stands out of the map is left out
    with its wings, and the noise is 1.4826 times the median absolute deviation of the rest in each
    box. Boxes with next to nothing left take their neighbours' noise. Between the middles of the
    boxes the map is linear, so it stays positive.

    Parameters
    ----------
    data : ndarray of float, shape (ny, nx)
        Brightness; NaN is blank, and so is exact zero if there is much of it.
    box_pixels : float
        Side of a box [pixel]; the image's own if that is smaller.
    exclude : ndarray of bool, shape (ny, nx), optional
        Known sources, left out from the start.

    Returns
    -------
    ndarray of float, shape (ny, nx)
        Noise in the unit of ``data``, positive everywhere.

    Raises
    ------
    DataError
        If there is nothing to measure: all blank, or all the same.
    """
    from scipy import ndimage

    data = np.asarray(data, dtype=np.float64)
    usable = usable_pixels(data)
    if exclude is not None and (usable & ~exclude).any():
        usable &= ~exclude
    values = data[usable]
    if values.size == 0:
        raise DataError("every pixel is blank or zero; image it again.")
    if values.min() == values.max():
        raise DataError(f"every pixel is {values[0]:g}; check the column that it was made of.")
    box = _box(data.shape, box_pixels)
    grow = max(1, round(max(box) / 30))
    noise = _spread(_negative_mesh(data, usable, box), box, data.shape)
    if noise is None:
        noise = _spread(_mesh(data, ~usable, box, LEAST_SHARE), box, data.shape)
    before = None
    for _ in range(ROUNDS if noise is not None else 0):
        assert noise is not None
        sources = _connected(data, noise, usable)
        sources = ndimage.binary_dilation(sources, NEIGHBOURS, iterations=grow)
        if before is not None and np.array_equal(sources, before):
            break
        before = sources
        better = _spread(_mesh(data, ~usable | sources, box, LEAST_SHARE), box, data.shape)
        if better is None:
            break
        noise = better
    if noise is None:
        # Hardly two values alike: the plain deviation is all there is.
        return np.full(data.shape, float(np.std(values)))
    return noise


def usable_pixels(data: NDArray[Any]) -> Mask:
    """Pixels with a value: finite, and not zero if the image was blanked with zeros."""
    usable = np.isfinite(data)
    zeros = usable & (data == 0)
    if zeros.sum() > BLANK_ZEROS * max(1, usable.sum()):
        usable &= ~zeros
    return np.asarray(usable)


def _box(shape: tuple[int, ...], box_pixels: float) -> tuple[int, int]:
    """Box (y, x) near the size asked for that parts the image evenly, without slivers."""
    sides = []
    for length in shape:
        wanted = min(max(2.0, box_pixels), length)
        sides.append(math.ceil(length / max(1, round(length / wanted))))
    return sides[0], sides[1]


def _boxes(
    data: NDArray[np.float64], left_out: Mask, box: tuple[int, int], share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Median and noise in each box; None if no box has ``share`` of its pixels left."""
    from photutils.background import Background2D, MADStdBackgroundRMS, MedianBackground

    if left_out.all():
        return None
    try:
        made = Background2D(
            np.where(left_out, 0.0, data),
            box,
            mask=left_out,
            sigma_clip=None,
            filter_size=1,
            exclude_percentile=100 * (1 - share),
            bkg_estimator=MedianBackground(sigma_clip=None),
            bkg_rms_estimator=MADStdBackgroundRMS(sigma_clip=None),
        )
    except ValueError:  # photutils has no other word for: every box is too empty
        return None
    return np.asarray(made.background_mesh, dtype=float), np.asarray(
        made.background_rms_mesh, dtype=float
    )


def _mesh(
    data: NDArray[np.float64], left_out: Mask, box: tuple[int, int], share: float
) -> NDArray[np.float64] | None:
    """Noise in each box."""
    found = _boxes(data, left_out, box, share)
    return None if found is None else found[1]


def _negative_mesh(
    data: NDArray[np.float64], usable: Mask, box: tuple[int, int]
) -> NDArray[np.float64] | None:
    """Noise in each box from its negative pixels: with their mirror images they have this MAD."""
    found = _boxes(-data, ~usable | (data >= 0), box, LEAST_SHARE_NEGATIVE)
    return None if found is None else MAD_TO_SIGMA * found[0]


def _spread(
    mesh: NDArray[np.float64] | None, box: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """Interpolate boxes onto pixels; None if there is no noise in any."""
    from scipy import ndimage

    if mesh is None:
        return None
    good = np.isfinite(mesh) & (mesh > 0)
    if not good.any():
        return None
    if not good.all():
        nearest = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
        mesh = mesh[tuple(nearest)]
    # Linear along one axis, then the other; beyond the outer middles constant.
    for axis in (0, 1):
        place = (np.arange(shape[axis]) + 0.5) / box[axis] - 0.5
        place = np.clip(place, 0, mesh.shape[axis] - 1)
        low = np.minimum(place.astype(int), max(0, mesh.shape[axis] - 2))
        high = np.minimum(low + 1, mesh.shape[axis] - 1)
        weight = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        mesh = (1 - weight) * mesh.take(low, axis) + weight * mesh.take(high, axis)
    return mesh


def _connected(data: NDArray[np.float64], noise: NDArray[np.float64], usable: Mask) -> Mask:
    """Pixels above `WING_SIGMA` that are connected to one above `SOURCE_SIGMA`."""
    from scipy import ndimage

    ratio = np.where(usable, data, 0.0) / noise
    labels, count = ndimage.label(ratio > WING_SIGMA, NEIGHBOURS)
    tops = np.zeros(count + 1, dtype=bool)
    tops[labels[ratio > SOURCE_SIGMA]] = True
    tops[0] = False
    return np.asarray(tops[labels])
