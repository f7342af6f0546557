"""Sources of an image, and the same sources in another: found, matched, and measured alike."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import Mask, refined_peak, robust_rms
from peelkit.io.image import Image, grid_difference, pixels_of

Labels = NDArray[np.int32]

# A source is followed from its peak, above the threshold, down to this many sigma: a cut at the
# threshold itself would lose the wings, and with them a share of the flux that depends on the S/N.
ISLAND_SIGMA = 3.0

# Two maxima of an island are two sources if the saddle between them is lower than the lower one by
# this many sigma and by this share of it.
SADDLE_SIGMA = 3.0
SADDLE_SHARE = 0.2

# A maximum is no more than an artefact if a minimum as deep lies within this distance [beams]: the
# sidelobes that bad gains leave are as deep as they are high.
ARTEFACT_BEAMS = 10.0

# Pixels whose coordinates are transformed at once: bounds the memory.
CHUNK_PIXELS = 1_000_000


@dataclass(frozen=True)
class Source:
    """One source of an image.

    Parameters
    ----------
    label : int
        Its number in the label image.
    ra_deg, dec_deg : float
        ICRS position of the peak.
    x, y : float
        The same [pixel, from 0].
    peak_jy_beam : float
        Brightest pixel.
    flux_jy : float
        Integral over its segment.
    snr : float
        Peak over the noise at that place.
    """

    label: int
    ra_deg: float
    dec_deg: float
    x: float
    y: float
    peak_jy_beam: float
    flux_jy: float
    snr: float


@dataclass(frozen=True)
class Catalogue:
    """The sources of an image.

    Parameters
    ----------
    image : Image
        Where they were found.
    labels : ndarray of int, shape (ny, nx)
        Number of the source that a pixel belongs to; 0 is none.
    noise : ndarray of float, shape (ny, nx)
        Noise [Jy/beam].
    sources : tuple of Source
        Brightest first.
    """

    image: Image
    labels: Labels
    noise: NDArray[Any]
    sources: tuple[Source, ...]

    @property
    def mask(self) -> Mask:
        """True on every source, shape (ny, nx)."""
        return np.asarray(self.labels > 0)


@dataclass(frozen=True)
class Match:
    """One source, measured in two images over the same patch of sky.

    Fluxes are integrals [Jy], peaks the brightest pixel [Jy/beam]; errors are of the thermal kind:
    noise times the square root of the patch in beams. ``offset_*`` is image minus reference, on the
    sky.
    """

    ra_deg: float
    dec_deg: float
    flux_reference_jy: float
    flux_reference_error_jy: float
    flux_jy: float
    flux_error_jy: float
    peak_reference_jy_beam: float
    peak_reference_error_jy_beam: float
    peak_jy_beam: float
    peak_error_jy_beam: float
    offset_ra_arcsec: float
    offset_dec_arcsec: float

    @property
    def flux_ratio(self) -> float:
        """Flux over that in the reference."""
        return self.flux_jy / self.flux_reference_jy

    @property
    def flux_ratio_error(self) -> float:
        """Error of `flux_ratio` from the noise of both images, taken as independent."""
        return self.flux_ratio * math.hypot(
            self.flux_error_jy / self.flux_jy, self.flux_reference_error_jy / self.flux_reference_jy
        )

    @property
    def peak_ratio(self) -> float:
        """Peak over that in the reference."""
        return self.peak_jy_beam / self.peak_reference_jy_beam


@dataclass(frozen=True)
class Comparison:
    """Fluxes of an image against those of a reference. NaN where there is nothing to compare."""

    matches: tuple[Match, ...]

    @property
    def flux_ratio_median(self) -> float:
        """Median of the flux ratios."""
        return _median([match.flux_ratio for match in self.matches])

    @property
    def flux_ratio_scatter(self) -> float:
        """Robust scatter of the flux ratios about their median; NaN for fewer than two sources."""
        return _scatter([match.flux_ratio for match in self.matches])

    @property
    def flux_ratio_noise(self) -> float:
        """Scatter that the noise of the two images alone would make: median of the errors."""
        return _median([match.flux_ratio_error for match in self.matches])

    @property
    def peak_ratio_median(self) -> float:
        """Median of the ratios of the peaks."""
        return _median([match.peak_ratio for match in self.matches])

    @property
    def peak_ratio_scatter(self) -> float:
        """Robust scatter of the ratios of the peaks; NaN for fewer than two sources."""
        return _scatter([match.peak_ratio for match in self.matches])

    @property
    def offset_ra_arcsec(self) -> float:
        """Median shift towards the east [arcsec]."""
        return _median([match.offset_ra_arcsec for match in self.matches])

    @property
    def offset_dec_arcsec(self) -> float:
        """Median shift towards the north [arcsec]."""
        return _median([match.offset_dec_arcsec for match in self.matches])


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _scatter(values: Sequence[float]) -> float:
    return robust_rms(np.asarray(values)) if len(values) > 1 else math.nan


def gaussian_peak(data: NDArray[Any]) -> tuple[float, float, float]:
    """Position (x, y) [pixel] and value of the maximum, exact for a Gaussian however it lies.

    A quadratic surface through the logarithm of the 3 x 3 pixels about the maximum; where one of
    them is not positive, at an edge, or for a ridge: `peelkit.core.measure.refined_peak`.

    Parameters
    ----------
    data : ndarray of float, shape (ny, nx)
        Brightness; NaN is left out.

    Raises
    ------
    ValueError
        If no pixel is finite.
    """
    y, x = (int(index) for index in np.unravel_index(int(np.nanargmax(data)), data.shape))
    ny, nx = data.shape
    if 0 < x < nx - 1 and 0 < y < ny - 1:
        patch = np.asarray(data[y - 1 : y + 2, x - 1 : x + 2], dtype=float)
        if np.all(patch > 0):
            dx, dy = _quadratic_maximum(np.log(patch))
            if max(abs(dx), abs(dy)) <= 1:
                return x + dx, y + dy, float(data[y, x])
    return refined_peak(data)


def _quadratic_maximum(patch: NDArray[np.float64]) -> tuple[float, float]:
    """Least-squares quadratic through 3 x 3 values: its maximum, from the centre; NaN if none."""
    dy, dx = np.mgrid[-1:2, -1:2]
    slope_x = float(np.sum(patch * dx)) / 6
    slope_y = float(np.sum(patch * dy)) / 6
    curve_x = float(np.sum(patch * (3 * dx**2 - 2))) / 6  # of c x^2: sum over rows of the second
    curve_y = float(np.sum(patch * (3 * dy**2 - 2))) / 6  # difference, divided by 2 * 3
    twist = float(np.sum(patch * dx * dy)) / 4
    determinant = 4 * curve_x * curve_y - twist**2
    if determinant <= 0 or curve_x >= 0:
        return math.nan, math.nan
    return (
        (twist * slope_y - 2 * curve_y * slope_x) / determinant,
        (twist * slope_x - 2 * curve_x * slope_y) / determinant,
    )


def peak_near(
    image: Image, x: float, y: float, *, radius_cells: float
) -> tuple[float, float, float] | None:
    """Position (x, y) [pixel] and value of the maximum within a circle; None if it has none.

    A maximum on the rim that only goes on rising outside is the flank of something else, and no
    maximum.
    """
    ny, nx = image.data.shape
    # At least the neighbours, however long a pixel is.
    reach_x, reach_y = (max(1.0, radius_cells / side) for side in image.stretch)
    x0, x1 = max(0, math.floor(x - reach_x) - 1), min(nx, math.ceil(x + reach_x) + 2)
    y0, y1 = max(0, math.floor(y - reach_y) - 1), min(ny, math.ceil(y + reach_y) + 2)
    if x1 <= x0 or y1 <= y0:
        return None
    box = np.asarray(image.data[y0:y1, x0:x1], dtype=float)
    rows, columns = np.mgrid[y0:y1, x0:x1]
    circle = np.where(image.apart(columns - x, rows - y) <= radius_cells, box, np.nan)
    if not np.isfinite(circle).any():
        return None
    top_y, top_x = np.unravel_index(int(np.nanargmax(circle)), circle.shape)
    around = box[max(0, top_y - 1) : top_y + 2, max(0, top_x - 1) : top_x + 2]
    if np.nanmax(around) > box[top_y, top_x]:
        return None
    alone = np.full_like(box, np.nan)  # so that nothing brighter in the corners is taken
    alone[max(0, top_y - 1) : top_y + 2, max(0, top_x - 1) : top_x + 2] = around
    peak_x, peak_y, value = gaussian_peak(alone)
    return x0 + peak_x, y0 + peak_y, value


def find_sources(image: Image, noise: NDArray[Any], *, sigma: float) -> Catalogue:
    """Find the sources of an image.

    Islands above 3 sigma (photutils) that reach ``sigma``, parted where they have several maxima.
    The background of an interferometer's image is zero, so none is subtracted. Maxima with a
    minimum as deep nearby are artefacts, and left out.

    Parameters
    ----------
    image : Image
        With a restoring beam.
    noise : ndarray of float, shape (ny, nx)
        Noise [Jy/beam].
    sigma : float
        Threshold for the peak, in units of the noise.
    """
    from photutils.segmentation import detect_sources
    from photutils.utils.exceptions import NoDetectionsWarning
    from scipy import ndimage

    data = np.asarray(image.data, dtype=float)
    usable = np.isfinite(data) & np.isfinite(noise) & (noise > 0)
    snr = np.where(usable, data / np.where(usable, noise, 1.0), 0.0)
    # A point source at the threshold has about half a beam above 3/5 of its peak.
    least = max(1, round(0.3 * image.beam_pixels))
    empty = Catalogue(image, np.zeros(data.shape, dtype=np.int32), noise, ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        islands = detect_sources(snr, min(ISLAND_SIGMA, sigma), least)
    if islands is None:
        return empty
    # Of the islands' pixels only: scipy sorts all that it is given.
    inside = islands.data > 0
    tops = ndimage.maximum(snr[inside], islands.data[inside], index=islands.labels)
    islands.keep_labels(islands.labels[np.asarray(tops) >= sigma])
    if not np.any(islands.data):
        return empty
    labels = part(snr, np.asarray(islands.data))
    return _measured(image, labels, data, noise, snr, sigma)


def part(snr: NDArray[Any], islands: NDArray[Any]) -> Labels:
    """Part islands into one piece for each maximum that stands out.

    Flooding from the top: pixels are taken from the brightest down, each joins the piece beside it.
    Where two pieces meet they become one, unless both rise far enough above the meeting point.
    (photutils' deblending needs scikit-image, and depends on the number of its levels.)

    Parameters
    ----------
    snr : ndarray of float, shape (ny, nx)
        Brightness over noise.
    islands : ndarray of int, shape (ny, nx)
        0 outside.

    Returns
    -------
    ndarray of int, shape (ny, nx)
        1, 2, ... for the pieces, 0 outside.
    """
    width = islands.shape[1] + 2
    inside = np.flatnonzero(np.pad(islands > 0, 1))
    values = np.pad(snr, 1).ravel()
    order = inside[np.argsort(-values[inside], kind="stable")].tolist()
    piece: dict[int, int] = {}  # pixel -> top pixel of the piece it joined
    merged: dict[int, int] = {}  # top -> higher top that it turned out to belong to
    neighbours = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)

    def root(top: int) -> int:
        while merged[top] != top:
            merged[top] = merged[merged[top]]
            top = merged[top]
        return top

    for pixel in order:
        tops = {root(piece[pixel + step]) for step in neighbours if pixel + step in piece}
        if not tops:
            piece[pixel] = merged[pixel] = pixel
            continue
        highest = max(tops, key=lambda top: (values[top], -top))
        piece[pixel] = highest
        for top in tops - {highest}:
            dip = values[top] - values[pixel]
            if dip < max(SADDLE_SIGMA, SADDLE_SHARE * values[top]):
                merged[top] = highest
    numbers: dict[int, int] = {}
    labels = np.zeros(values.size, dtype=np.int32)
    for pixel in order:
        labels[pixel] = numbers.setdefault(root(piece[pixel]), len(numbers) + 1)
    return labels.reshape(-1, width)[1:-1, 1:-1]


def _measured(
    image: Image,
    labels: Labels,
    data: NDArray[Any],
    noise: NDArray[Any],
    snr: NDArray[Any],
    sigma: float,
) -> Catalogue:
    """Measure each segment; forget those that do not reach the threshold or are artefacts."""
    from scipy import ndimage

    assert image.beam is not None
    reach = tuple(
        max(3, round(2 * ARTEFACT_BEAMS * image.beam.major_arcsec / (image.cell_arcsec * side)))
        for side in image.stretch[::-1]
    )
    depth = -ndimage.minimum_filter(np.where(np.isfinite(data), data, 0.0), size=reach)
    rows, columns = np.nonzero(labels)
    numbers = np.arange(1, int(labels.max()) + 1)
    own = labels[rows, columns]
    fluxes = ndimage.sum_labels(data[rows, columns], own, numbers) / image.beam_pixels
    tops = [int(top) for (top,) in ndimage.maximum_position(snr[rows, columns], own, numbers)]
    found: list[tuple[int, float, float, float, int, int]] = []
    for number, flux, top in zip(numbers, fluxes, tops, strict=True):
        row, column = int(rows[top]), int(columns[top])
        if snr[row, column] >= sigma and data[row, column] > depth[row, column]:
            refined = peak_near(image, column, row, radius_cells=1.0)
            x, y = refined[:2] if refined else (float(column), float(row))
            found.append((int(number), float(flux), x, y, row, column))
    xs: Any = np.array([entry[2] for entry in found])
    ys: Any = np.array([entry[3] for entry in found])
    positions = image.sky(xs, ys)
    kept = [
        Source(
            label=number,
            ra_deg=float(ra),
            dec_deg=float(dec),
            x=x,
            y=y,
            peak_jy_beam=float(data[row, column]),
            flux_jy=flux,
            snr=float(snr[row, column]),
        )
        for (number, flux, x, y, row, column), ra, dec in zip(
            found, positions.ra.deg, positions.dec.deg, strict=True
        )
    ]
    table = np.zeros(len(numbers) + 1, dtype=np.int32)
    table[[source.label for source in kept]] = [source.label for source in kept]
    kept.sort(key=lambda source: -source.peak_jy_beam)
    return Catalogue(image, table[labels], noise, tuple(kept))


def regrid_labels(labels: NDArray[Any], have: Image, want: Image) -> NDArray[Any]:
    """Labels of the nearest pixel on another grid; 0 outside.

    Parameters
    ----------
    labels : ndarray of int or bool, shape of ``have.data``
        Labels, or a mask.
    have, want : Image
        The grids they are on, and go to.

    Returns
    -------
    ndarray, shape of ``want.data``
        The same labels.
    """
    if grid_difference(have, want) is None:
        return labels
    ny, nx = want.data.shape
    result = np.zeros((ny, nx), dtype=labels.dtype)
    step = max(1, CHUNK_PIXELS // nx)
    for start in range(0, ny, step):
        rows, columns = np.mgrid[start : min(ny, start + step), 0:nx]
        x, y = pixels_of(want, have, columns.astype(float), rows.astype(float))
        inside = (x > -0.5) & (x < labels.shape[1] - 0.5) & (y > -0.5) & (y < labels.shape[0] - 0.5)
        near_x = np.rint(np.where(inside, x, 0)).astype(int)
        near_y = np.rint(np.where(inside, y, 0)).astype(int)
        result[start : start + step] = np.where(inside, labels[near_y, near_x], 0)
    return result


def match_sources(
    reference: Sequence[Source], other: Sequence[Source], *, radius_arcsec: float
) -> list[tuple[int, int]]:
    """Pairs (index in ``reference``, index in ``other``) that are each other's nearest.

    Parameters
    ----------
    reference, other : sequence of Source
        The sources of two images.
    radius_arcsec : float
        Pairs further apart are none [arcsec].
    """
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    if not reference or not other:
        return []
    ours, theirs = (
        SkyCoord([s.ra_deg for s in sources] * u.deg, [s.dec_deg for s in sources] * u.deg)
        for sources in (reference, other)
    )
    nearest, distance, _ = ours.match_to_catalog_sky(theirs)
    back, _, _ = theirs.match_to_catalog_sky(ours)
    return [
        (index, int(partner))
        for index, (partner, apart) in enumerate(zip(nearest, distance.arcsec, strict=True))
        if apart <= radius_arcsec and int(back[partner]) == index
    ]


def compare(
    reference: Catalogue, other: Catalogue, *, exclude: Mask, match_radius_arcsec: float
) -> Comparison:
    """Measure the sources that two images have in common.

    Both images are integrated over the same patch: the source's segments of both, grown by half a
    beam. So a source whose segment is larger in one image, for its lower noise, counts alike in
    both; and as it has to be found in both, neither image's noise is favoured.

    Parameters
    ----------
    reference, other : Catalogue
        Sources of the two images.
    exclude : ndarray of bool, shape of the reference's data
        Sources with their peak here are not compared: those that were peeled.
    match_radius_arcsec : float
        Largest distance of a pair [arcsec].
    """
    candidates = [
        source for source in reference.sources if not exclude[round(source.y), round(source.x)]
    ]
    pairs = match_sources(candidates, other.sources, radius_arcsec=match_radius_arcsec)
    if not pairs:
        return Comparison(())
    ours = [candidates[index] for index, _ in pairs]
    theirs = [other.sources[index] for _, index in pairs]
    patches = _common_patches(reference, other, ours, theirs)
    flux_ref, peak_ref, noise_ref, size_ref = _integrate(reference, patches, len(pairs))
    on_other = regrid_labels(patches, reference.image, other.image)
    flux, peak, noise, size = _integrate(other, on_other, len(pairs))
    matches = []
    for index, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        values = (flux_ref[index], flux[index], peak_ref[index], peak[index])
        if not all(math.isfinite(value) and value > 0 for value in values):
            continue  # blank pixels in one of the images
        matches.append(
            Match(
                ra_deg=one.ra_deg,
                dec_deg=one.dec_deg,
                flux_reference_jy=float(flux_ref[index]),
                flux_reference_error_jy=float(noise_ref[index] * math.sqrt(size_ref[index])),
                flux_jy=float(flux[index]),
                flux_error_jy=float(noise[index] * math.sqrt(size[index])),
                peak_reference_jy_beam=float(peak_ref[index]),
                peak_reference_error_jy_beam=float(noise_ref[index]),
                peak_jy_beam=float(peak[index]),
                peak_error_jy_beam=float(noise[index]),
                offset_ra_arcsec=_wrapped(two.ra_deg - one.ra_deg)
                * 3600
                * math.cos(math.radians(one.dec_deg)),
                offset_dec_arcsec=(two.dec_deg - one.dec_deg) * 3600,
            )
        )
    return Comparison(tuple(matches))


def _wrapped(angle_deg: float) -> float:
    """Angle within -180 to 180 degrees."""
    return (angle_deg + 180.0) % 360.0 - 180.0


def _common_patches(
    reference: Catalogue, other: Catalogue, ours: Sequence[Source], theirs: Sequence[Source]
) -> Labels:
    """Patch numbers, 1 for the first pair, on the reference's grid."""
    from scipy.ndimage import distance_transform_edt

    assert reference.image.beam is not None
    there = regrid_labels(other.labels, other.image, reference.image)
    first = _renumbered(reference.labels, [source.label for source in ours])
    second = _renumbered(there, [source.label for source in theirs])
    patches = np.where(first > 0, first, second)
    # Grown by half a beam, but not into a neighbour.
    half_beam = 0.5 * reference.image.beam.major_arcsec / reference.image.cell_arcsec
    distance, (rows, columns) = distance_transform_edt(
        patches == 0, sampling=reference.image.stretch[::-1], return_indices=True
    )
    free = (patches == 0) & (reference.labels == 0) & (there == 0)
    return np.where(free & (distance <= half_beam), patches[rows, columns], patches)


def _renumbered(labels: NDArray[Any], order: Sequence[int]) -> Labels:
    """Labels 1, 2, ... for those listed, in their order; 0 for the rest."""
    table = np.zeros(int(labels.max()) + 1, dtype=np.int32)
    table[list(order)] = np.arange(1, len(order) + 1)
    return table[labels]


def _integrate(
    catalogue: Catalogue, patches: NDArray[Any], count: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Flux [Jy], peak and noise [Jy/beam], and size in beams (at least one) of each patch."""
    from scipy import ndimage

    numbers = np.arange(1, count + 1)
    inside = patches > 0
    own = patches[inside]
    data = np.asarray(catalogue.image.data[inside], dtype=float)
    pixels = ndimage.sum_labels(np.ones_like(data), own, numbers)
    beams = pixels / catalogue.image.beam_pixels
    flux = ndimage.sum_labels(data, own, numbers) / catalogue.image.beam_pixels
    peak = ndimage.maximum(data, own, numbers)
    noise = ndimage.sum_labels(catalogue.noise[inside], own, numbers) / np.maximum(pixels, 1)
    missing = pixels == 0
    return (
        np.where(missing, np.nan, flux),
        np.where(missing, np.nan, peak),
        np.asarray(noise),
        np.maximum(beams, 1.0),
    )
