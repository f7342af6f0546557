"""Threshold masks on a local noise map, and the islands in them. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import refined_peak
from peelkit.core.noisemap import NEIGHBOURS, noise_map
from peelkit.errors import DataError
from peelkit.io.image import Image

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

# Side of the boxes in which noise is measured [beams]. 15 beams a side hold some 200 independent
# values, so the noise of one box is good to 6 %; larger boxes would not follow the artefacts around
# bright sources.
NOISE_BOX_BEAMS = 15.0
# In a small image the boxes shrink to a third of it, but not below this [beams] and [pixels].
LEAST_BOX_BEAMS = 5.0
LEAST_BOX_PIXELS = 16

# A point source has log(peak / threshold) beams above the threshold, so this size lets pass what is
# 1.1 times the threshold, and stops single bad pixels.
MIN_BEAMS = 0.1


@dataclass(frozen=True)
class ThresholdMask:
    """A mask, and the noise map that it was made with.

    Parameters
    ----------
    mask : ndarray of bool, shape (ny, nx)
        True on sources.
    noise : ndarray of float, shape (ny, nx)
        Local noise, in the unit of the image; positive everywhere, blank pixels too.
    """

    mask: Mask
    noise: NDArray[np.float64]


@dataclass(frozen=True)
class Island:
    """One connected patch of a mask.

    Parameters
    ----------
    number : int
        From 1, by descending peak.
    x, y : float
        Position of the peak [pixel], counted from 0.
    peak_jy_beam : float
        Brightest pixel.
    flux_jy, flux_error_jy : float
        Sum over the island and one beam around it, and what noise does to that sum.
    pixels : int
        Of the mask.
    local_rms_jy_beam : float
        Noise map at the peak.
    """

    number: int
    x: float
    y: float
    peak_jy_beam: float
    flux_jy: float
    flux_error_jy: float
    pixels: int
    local_rms_jy_beam: float


def noise_box_pixels(image: Image, beams: float) -> float:
    """Side of the noise boxes [pixel]: ``beams`` beams, less in an image of few beams.

    Raises
    ------
    DataError
        If the image has no beam.
    """
    major = beam_major_pixels(image)
    ny, nx = image.data.shape
    most = max(min(ny, nx) / 3, LEAST_BOX_BEAMS * major)
    return max(min(beams * major, most), LEAST_BOX_PIXELS)


def beam_major_pixels(image: Image) -> float:
    """Major axis of the beam [cell].

    Raises
    ------
    DataError
        If the image has no beam.
    """
    if image.beam is None:
        raise DataError(f"{image.path}: no restoring beam; use a restored image.")
    return image.beam.major_arcsec / image.cell_arcsec


def threshold_mask(
    image: Image,
    *,
    sigma: float = 8.0,
    noise_box_beams: float = NOISE_BOX_BEAMS,
    min_beams: float = MIN_BEAMS,
    dilate: int = 0,
    fill_holes: bool = False,
) -> ThresholdMask:
    """Mask of what is brighter than ``sigma`` times the local noise; it may be empty.

    Parameters
    ----------
    image : Image
        With a beam.
    sigma : float
        Threshold, in units of the local noise.
    noise_box_beams : float
        Side of the boxes for the noise [beams]; less in an image that is only a few boxes wide.
    min_beams : float
        Islands of fewer beams are left out.
    dilate : int
        Grow the islands by so many pixels in all directions.
    fill_holes : bool
        Fill what is enclosed by an island.

    Returns
    -------
    ThresholdMask

    Raises
    ------
    DataError
        If the image has no beam, or is blank or constant.
    """
    try:
        noise = noise_map(image.data, box_pixels=noise_box_pixels(image, noise_box_beams))
    except DataError as error:
        if str(error).startswith(str(image.path)):
            raise
        raise DataError(f"{image.path}: {error}") from error
    mask = above(image.data, noise, sigma=sigma, min_pixels=min_beams * image.beam_pixels)
    return ThresholdMask(shaped(mask, dilate=dilate, fill_holes=fill_holes), noise)


def above(
    data: NDArray[Any], noise: NDArray[Any], *, sigma: float, min_pixels: float = 0.0
) -> Mask:
    """Pixels above ``sigma`` times the noise, in islands of ``min_pixels`` or more."""
    from scipy import ndimage

    mask = np.nan_to_num(np.asarray(data, dtype=float), nan=-np.inf) > sigma * noise
    if min_pixels > 1:
        labels, _ = ndimage.label(mask, NEIGHBOURS)
        large = np.bincount(labels.ravel()) >= min_pixels
        large[0] = False
        mask = large[labels]
    return np.asarray(mask, dtype=bool)


def shaped(mask: Mask, *, dilate: int = 0, fill_holes: bool = False) -> Mask:
    """Grow a mask by ``dilate`` pixels in all directions, and fill what it encloses."""
    from scipy import ndimage

    if dilate > 0 and mask.any():
        mask = ndimage.distance_transform_edt(~mask) <= dilate
    if fill_holes:
        mask = ndimage.binary_fill_holes(mask)
    return np.asarray(mask, dtype=bool)


def label_islands(mask: Mask, data: NDArray[Any]) -> Labels:
    """Give the islands of a mask numbers by descending peak, from 1; 0 is outside.

    Islands without a single value in ``data`` (blank pixels) come last.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, NEIGHBOURS)
    values = np.where(np.isfinite(data), data, -np.inf)
    tops = np.atleast_1d(ndimage.maximum(values, labels, np.arange(1, count + 1)))
    order = np.zeros(count + 1, dtype=np.int32)
    order[np.argsort(-tops, kind="stable") + 1] = np.arange(1, count + 1)
    return np.asarray(order[labels], dtype=np.int32)


def measure_islands(image: Image, labels: Labels, noise: NDArray[Any]) -> list[Island]:
    """Measure every island, in the order of their numbers.

    The flux is the sum over the island and what is within one beam (major axis) of it and of no
    other island. A mask alone would lose ``threshold / peak`` of a source's flux (exact for a
    Gaussian of any size); with the margin a point source at the very threshold keeps 94 %, and
    brighter ones more.

    Parameters
    ----------
    image : Image
        In Jy/beam, with a beam.
    labels : ndarray of int, shape (ny, nx)
        Numbers of the islands, from `label_islands`.
    noise : ndarray of float, shape (ny, nx)
        Noise map [Jy/beam].
    """
    from scipy import ndimage

    data = np.asarray(image.data, dtype=np.float64)
    margin = math.ceil(beam_major_pixels(image))
    reach = math.ceil(margin / min(image.stretch))
    beam = image.beam_pixels
    distance, nearest = ndimage.distance_transform_edt(
        labels == 0, sampling=image.stretch[::-1], return_indices=True
    )
    owner = np.where(distance <= margin, labels[tuple(nearest)], 0)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        window = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
        inside = labels[window] == number
        values = np.where(inside, data[window], np.nan)
        near = owner[window] == number
        if np.isfinite(values).any():
            x, y, peak = refined_peak(values)
        else:
            rows, columns = np.nonzero(inside)
            x, y, peak = float(columns.mean()), float(rows.mean()), math.nan
        x, y = x + window[1].start, y + window[0].start
        rms = float(noise[round(y), round(x)])
        area = near & np.isfinite(data[window])
        found.append(
            Island(
                number=number,
                x=x,
                y=y,
                peak_jy_beam=peak,
                flux_jy=float(np.sum(data[window][area]) / beam),
                flux_error_jy=rms * math.sqrt(area.sum() / beam),
                pixels=int(inside.sum()),
                local_rms_jy_beam=rms,
            )
        )
    return found
