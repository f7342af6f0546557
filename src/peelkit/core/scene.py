"""The images of a comparison, with the sources found in them and the places to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peelkit.core.catalogue import Catalogue, find_sources, regrid_labels
from peelkit.core.islands import threshold_mask
from peelkit.core.measure import Mask, robust_rms
from peelkit.errors import DataError
from peelkit.io.image import Image, grid_difference, read_image, read_restored
from peelkit.io.region import read_regions, region_mask
from peelkit.progress import Progress

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

# Without regions the brightest source is what is connected to the peak above this share of it,
# which is more than the sidelobes of bad gains reach, grown by this many beams.
BRIGHTEST_SHARE = 0.05
GROW_BEAMS = 1.0

# What is said about beams and frequencies that differ by more than this share.
BEAM_TOLERANCE = 0.05
FREQ_TOLERANCE = 0.01


@dataclass(frozen=True)
class Place:
    """A bright source: where it is in each image, and the circle around it.

    Parameters
    ----------
    label : str
        Its name.
    centre : SkyCoord
        Centre of the circle of the local rms.
    masks : tuple of ndarray of bool
        The source's pixels in each image, shape of its data.
    """

    label: str
    centre: SkyCoord
    masks: tuple[Mask, ...]


@dataclass(frozen=True)
class Scene:
    """All images with what was found in them; the reference is the first.

    Parameters
    ----------
    images : tuple of Image
        With the pixels blanked that are blank in another image of the same grid.
    catalogues : tuple of Catalogue
        Sources of each.
    flux_masks : tuple of ndarray of bool
        Pixels that the flux of each image is the integral of: ``--mask``, else all the sources.
    sources : tuple of ndarray of bool
        All pixels on sources: of any image, of the mask and of the places.
    places : tuple of Place
        The bright sources: the regions, or the reference's brightest source.
    best : int
        The image of the lowest global rms.
    """

    images: tuple[Image, ...]
    catalogues: tuple[Catalogue, ...]
    flux_masks: tuple[Mask, ...]
    sources: tuple[Mask, ...]
    places: tuple[Place, ...]
    best: int


def read_measurable(path: Path) -> Image:
    """Read an image that figures can be measured in.

    Raises
    ------
    DataError
        If it is no restored image, or has nothing in it.
    """
    image = read_restored(path)
    finite = image.data[np.isfinite(image.data)]
    if finite.size == 0:
        raise DataError(f"{path}: every pixel is blank; image it again.")
    if finite.min() == finite.max():
        raise DataError(f"{path}: every pixel is {finite[0]:g}; check what it was made of.")
    return image


def find_scene(
    images: Sequence[Image],
    *,
    threshold: float,
    regions: Path | None,
    mask: Path | None,
    progress: Progress,
) -> tuple[Scene, list[str]]:
    """Find the sources, and which pixels are whose.

    Parameters
    ----------
    images : sequence of Image
        The reference first.
    threshold : float
        For the source finder [sigma].
    regions, mask : Path or None
        Regions of the bright sources; image of pixels to leave out.
    progress : Progress
        Is told of each stage.

    Returns
    -------
    Scene
        What was found.
    list of str
        What a reader of the comparison should know.
    """
    notes = _differences(images)
    shared = [grid_difference(images[0], image) is None for image in images]
    images = _blank_alike(images, shared, notes)
    progress.stage("finding sources", len(images))
    catalogues = []
    for image in images:
        noise = threshold_mask(image, sigma=threshold).noise
        catalogues.append(find_sources(image, noise, sigma=threshold))
        progress.advance()
    user = [np.zeros(image.data.shape, dtype=bool) for image in images]
    if mask:
        user = _user_mask(mask, images)
    places = _places(images, catalogues[0], regions)
    sources: list[Mask] = []
    for index, image in enumerate(images):
        if index and shared[index]:
            sources.append(sources[0])
            continue
        found = [regrid_labels(one.mask, one.image, image) for one in catalogues]
        sources.append(
            np.any([*found, user[index], *(place.masks[index] for place in places)], axis=0)
        )
    for image, inside in zip(images, sources, strict=True):
        if not np.isfinite(image.data[~inside]).any():
            raise DataError(
                f"{image.path}: no pixel left outside mask and sources; give a smaller --mask."
            )
    rms = [robust_rms(image.data[~inside]) for image, inside in zip(images, sources, strict=True)]
    scene = Scene(
        images=tuple(images),
        catalogues=tuple(catalogues),
        flux_masks=tuple(user if mask else sources),
        sources=tuple(sources),
        places=places,
        best=int(np.argmin(rms)),
    )
    return scene, notes


def _differences(images: Sequence[Image]) -> list[str]:
    """Say where images differ from the reference in what makes a comparison unfair."""
    notes = []
    first = images[0]
    assert first.beam is not None
    for image in images[1:]:
        assert image.beam is not None
        if grid_difference(first, image):
            notes.append(
                f"{image.path}: other pixels than {first.path}; compared by sky position, rms from "
                "its own pixels."
            )
        ratio = image.beam.area_arcsec2 / first.beam.area_arcsec2
        if abs(ratio - 1) > BEAM_TOLERANCE:
            notes.append(
                f"{image.path}: its beam has {ratio:.2f} times the area of the reference's; peaks "
                "and rms in Jy/beam are not alike, nor the fluxes of what one of them resolves."
            )
        apart = abs(image.freq_hz / first.freq_hz - 1) if first.freq_hz and image.freq_hz else 0.0
        if first.freq_hz and image.freq_hz and apart > FREQ_TOLERANCE:
            notes.append(
                f"{image.path}: at {image.freq_hz / 1e9:.4g} GHz, the reference at "
                f"{first.freq_hz / 1e9:.4g} GHz; spectra enter the flux ratios."
            )
    return notes


def _blank_alike(images: Sequence[Image], shared: Sequence[bool], notes: list[str]) -> list[Image]:
    """Blank in every image of the reference's grid what is blank in one of them."""
    finite = [np.isfinite(image.data) for image in images]
    common = np.all([mask for mask, same in zip(finite, shared, strict=True) if same], axis=0)
    if not common.any():
        raise DataError(f"{images[0].path}: no pixel that all images have; compare them in pairs.")
    result = []
    for image, mask, same in zip(images, finite, shared, strict=True):
        extra = int(np.sum(mask & ~common)) if same else 0
        if extra:
            notes.append(
                f"{image.path}: {extra} pixels left out, which are blank in another of the images."
            )
            image = dataclasses.replace(image, data=np.where(common, image.data, np.nan))
        result.append(image)
    return result


def _user_mask(path: Path, images: Sequence[Image]) -> list[Mask]:
    mask = read_image(path)
    inside = np.isfinite(mask.data) & (mask.data > 0.5)
    if not inside.any():
        raise DataError(f"{path}: an empty mask; give one with pixels of 1.")
    result = [regrid_labels(inside, mask, image) for image in images]
    for image, moved in zip(images, result, strict=True):
        if not moved.any():
            raise DataError(f"{path}: nothing of this mask is in {image.path}; give its own mask.")
    return result


def _places(
    images: Sequence[Image], reference: Catalogue, regions: Path | None
) -> tuple[Place, ...]:
    """Give the regions, or the brightest source of the reference if there are none."""
    if regions is None:
        place = _brightest(images, reference)
        for image, mask in zip(images, place.masks, strict=True):
            if not np.isfinite(image.data[mask]).any():
                raise DataError(
                    f"{image.path}: does not show the brightest source of {images[0].path}; give --regions that all "
                    "images show."
                )
        return (place,)
    places = []
    for region in read_regions(regions, images[0]):
        masks = []
        label = region.label or str(region.number)
        for image in images:
            mask = region_mask(region, image)
            if not np.isfinite(image.data[mask]).any():
                raise DataError(
                    f"{regions}: region {label} has no pixel in {image.path}; leave one out."
                )
            masks.append(mask)
        y, x = np.nonzero(masks[0])
        centre = images[0].sky(float(x.mean()), float(y.mean()))
        places.append(Place(label, centre, tuple(masks)))
    return tuple(places)


def _brightest(images: Sequence[Image], reference: Catalogue) -> Place:
    from scipy import ndimage

    image = reference.image
    assert image.beam is not None
    if reference.sources:
        x, y = reference.sources[0].x, reference.sources[0].y
    else:
        row, column = np.unravel_index(int(np.nanargmax(image.data)), image.data.shape)
        x, y = float(column), float(row)
    pixel = round(y), round(x)
    data = np.nan_to_num(np.asarray(image.data, dtype=float))
    parts, _ = ndimage.label(data >= BRIGHTEST_SHARE * data[pixel])
    grow = GROW_BEAMS * image.beam.major_arcsec / image.cell_arcsec
    away = ndimage.distance_transform_edt(parts != parts[pixel], sampling=image.stretch[::-1])
    mask = np.asarray(away <= grow)
    masks = tuple(regrid_labels(mask, image, other) for other in images)
    return Place("brightest", image.sky(x, y), masks)
