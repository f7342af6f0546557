"""The first image of data of which nothing is known, and whether a source stands out of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from peelkit.core import imagers
from peelkit.core.imaging import (
    Cleaned,
    Target,
    clean_in_mask,
    clean_on,
    dirty_image,
    dirty_mask,
    opened,
    sidelobe_level,
    user_mask,
    widened,
)
from peelkit.core.islands import (
    MIN_BEAMS,
    NOISE_BOX_BEAMS,
    above,
    beam_major_pixels,
    noise_box_pixels,
)
from peelkit.core.measure import robust_rms
from peelkit.core.noisemap import NEIGHBOURS, noise_map
from peelkit.engines import casa as engine
from peelkit.io.image import Image, read_image

Mask = NDArray[np.bool_]

# Depth of the first image [sigma]: conservative.
FIRST_NSIGMA = 3.0

# Robust of Briggs weighting that is as good as natural.
NATURAL = 2.0

# What is cleaned on trial stands out by this share of what a source must.
TRIAL = 0.5


def first_image(
    imager: imagers.Imager,
    target: Target,
    imagename: Path,
    imaging: engine.Imaging,
    *,
    sigma: float,
    nsigma: float,
    mask_path: Path | None = None,
    leave_out: Path | None = None,
    passes: int = 3,
) -> Cleaned:
    """Image data of which nothing is known: dirty image, mask, clean, until the mask stops growing.

    The first mask keeps above the sidelobes of the brightest peak; each pass opens it to what stands
    out once the brighter sources are cleaned (a jet beside a core). Conservative first: features
    made from artefacts would be calibrated into the data (seed 002, 2.3.4). Where nothing stands out of
    the dirty image, its own sidelobes may be in the way: see `_on_trial`. A mask or regions of the
    user's (``mask_path``) stay as they are. What the regions ``leave_out`` enclose is in no mask.
    """
    dirty = dirty_image(imager, target, imagename, imaging)
    allowed = np.ones(dirty.mask.shape, dtype=bool)
    if leave_out:
        allowed = ~user_mask(leave_out, dirty.image)
    if mask_path is not None:
        mask = user_mask(mask_path, dirty.image) & allowed
        passes = 1
    else:
        mask = dirty_mask(dirty.image, read_image(imaging.psf(imagename)), sigma) & allowed
        if not mask.any():
            mask, cleaned = _on_trial(
                imager, target, dirty, imaging, allowed, sigma=sigma, nsigma=nsigma, passes=passes
            )
            if cleaned is not dirty:
                dirty = dirty_image(imager, target, imagename, imaging)
    if not mask.any():
        return dirty
    cleaned = clean_in_mask(imager, target, imagename, imaging, mask, nsigma=nsigma, resume=True)
    return opened(
        imager, target, cleaned, imaging,
        sigma=sigma, nsigma=nsigma, passes=passes - 1, allowed=allowed,
    )  # fmt: skip


def _on_trial(
    imager: imagers.Imager,
    target: Target,
    dirty: Cleaned,
    imaging: engine.Imaging,
    allowed: Mask,
    *,
    sigma: float,
    nsigma: float,
    passes: int,
) -> tuple[Mask, Cleaned]:
    """Mask of what stands out once what is strongest has been cleaned a little; and how far it got.

    The sidelobes and the negative bowl of an extended source are the larger part of what is around it in
    the dirty image. Of noise next to nothing is bright enough to be cleaned on trial, and what is stays at
    its peak of four or five sigma.
    """
    psf = read_image(imaging.psf(dirty.imagename))
    cleaned, mask = dirty, _with_strongest(dirty, psf, allowed, TRIAL * sigma)
    while passes > 0 and mask.sum() > cleaned.mask.sum():
        if cleaned is dirty:
            cleaned = clean_in_mask(
                imager, target, dirty.imagename, imaging, mask, nsigma=nsigma, resume=True
            )
        else:
            cleaned = clean_on(
                imager, target, cleaned, imaging, mask, cleaned_to=nsigma, nsigma=nsigma
            )
        found = standing_out(cleaned.image, mask, psf, sigma)
        if found.any():
            return found, cleaned
        mask = _with_strongest(cleaned, psf, allowed, TRIAL * sigma)
        passes -= 1
    return np.zeros_like(allowed), cleaned


def _with_strongest(cleaned: Cleaned, psf: Image, allowed: Mask, sigma: float) -> Mask:
    """The mask, and what is strongest outside it: above its own sidelobes, and ``sigma`` of the whole image.

    Not of the local noise, which may be the bowl around the source.
    """
    image = cleaned.image
    rest = np.where(allowed & ~cleaned.mask, image.data, np.nan)
    level = max(sigma * robust_rms(rest), sidelobe_level(image, psf) * float(np.nanmax(rest)))
    found = above(rest, np.ones_like(rest), sigma=level, min_pixels=MIN_BEAMS * image.beam_pixels)
    if found.any():
        found = widened(found, beam_major_pixels(image)) & np.isfinite(image.data) & allowed
    return found | cleaned.mask


def standing_out(image: Image, mask: Mask, psf: Image, sigma: float) -> Mask:
    """The islands of ``mask`` that are ``sigma`` times the local noise: their peak, or their flux; or all together.

    The noise of a flux is that of the sum over its pixels, which the PSF correlates: ``sum_ij PSF(i - j)``
    pixels squared, as in a dirty image of noise alone (Briggs weights change this little). In a cleaned image,
    which lacks the PSF's negatives, it is taken as no less than ``pixels * beam``. All islands together: an
    arc often falls to pieces in a poor image.

    Where the image has few degrees of freedom (`degrees`: few antennas, little time) cleaning takes some of
    its noise away, about one for each beam of the mask, which is reckoned in.
    """
    mask = mask & np.isfinite(image.data)
    result = np.zeros_like(mask)
    if not mask.any():
        return result
    box_pixels = noise_box_pixels(image, NOISE_BOX_BEAMS)
    rest = 1 - mask.sum() / image.beam_pixels / degrees(psf)
    if rest <= 0:
        return result
    noise = noise_map(image.data, box_pixels=box_pixels, exclude=mask) / math.sqrt(rest)
    labels, _ = ndimage.label(mask, NEIGHBOURS)
    total = square = 0.0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        values, local = image.data[box][inside], noise[box][inside]
        pairs = max(_pairs(inside, psf), values.size * image.beam_pixels)
        flux, error = float(np.sum(values)), float(np.median(local)) * math.sqrt(pairs)
        total, square = total + flux, square + error**2
        if max(np.max(values / local), flux / error) >= sigma:
            result[box] |= inside
    return result if result.any() or total < sigma * math.sqrt(square) else mask


def degrees(psf: Image) -> float:
    """Degrees of freedom of an image: the cells of the uv plane that have data, counted by their weights.

    ``pixels / sum PSF^2``, which is ``(sum w)^2 / sum w^2`` over the cells and their conjugates (Parseval).
    """
    response = np.nan_to_num(np.asarray(psf.data, dtype=np.float64))
    return float(response.size * response.max() ** 2 / np.sum(response**2))


def _pairs(inside: Mask, psf: Image) -> float:
    """Sum of the PSF, 1 at its peak, over all pairs of pixels."""
    response = np.nan_to_num(np.asarray(psf.data, dtype=np.float64))
    peak = np.unravel_index(int(np.argmax(response)), response.shape)
    own = inside.astype(np.float64)
    # How often each offset occurs, about the middle.
    pairs = fftconvolve(own, own[::-1, ::-1])
    cuts = []
    for middle, side, length in zip(peak, own.shape, response.shape, strict=True):
        first = int(middle) - (side - 1)
        low, high = max(0, first), min(length, first + 2 * side - 1)
        cuts.append((slice(low, high), slice(low - first, high - first)))
    (rows, their_rows), (columns, their_columns) = cuts
    total = np.sum(response[rows, columns] * pairs[their_rows, their_columns])
    return float(total / response[peak])


def first_image_by_weights(
    imager: imagers.Imager,
    target: Target,
    imagename: Path,
    imaging: engine.Imaging,
    *,
    sigma: float,
    mask_path: Path | None = None,
    leave_out: Path | None = None,
    weights_given: bool,
) -> tuple[Cleaned, engine.Imaging]:
    """`first_image` to `FIRST_NSIGMA`, with natural weights where only these show a source.

    Parameters
    ----------
    weights_given : bool
        The user named the weights: no others are tried.

    Returns
    -------
    Cleaned
        With an empty mask if nothing stands out.
    Imaging
        As it was made.
    """
    cleaned = first_image(
        imager, target, imagename, imaging,
        sigma=sigma, nsigma=FIRST_NSIGMA, mask_path=mask_path, leave_out=leave_out,
    )  # fmt: skip
    if not cleaned.empty or weights_given or imaging.robust >= NATURAL:
        return cleaned, imaging
    natural = replace(imaging, robust=NATURAL)
    again = first_image(
        imager, target, imagename, natural, sigma=sigma, nsigma=FIRST_NSIGMA, leave_out=leave_out
    )
    if again.empty:
        return dirty_image(imager, target, imagename, imaging), imaging
    return again, natural


def natural_text(imaging: engine.Imaging) -> str:
    """What is told of an image that natural weights made."""
    return (
        f"no source stands out with robust {imaging.robust:g}, but with natural weights: the images are made with "
        f"robust {NATURAL:g}, whose beam is larger (--robust keeps what you name)"
    )


def nothing_text(path: Path, sigma: float) -> str:
    """What is told of data without a source."""
    return (
        f"{path}: no source stands out of the first image (at {sigma:g} times the local noise, its peak or its flux "
        "over its area)"
    )
