"""Figures of one image in the results of ``peelkit stats``: noise, peak, flux, what is left of a source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.catalogue import peak_near, regrid_labels
from peelkit.core.ghost import ghost, sidelobes
from peelkit.core.measure import Mask, measure, plain_rms, robust_rms
from peelkit.core.psf import read_psf
from peelkit.core.scene import Scene
from peelkit.io.image import Image

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

# A peak is taken for the reference's if it is within this distance [beams] ...
SHIFT_BEAMS = 2.0
# ... and at least this share of it: what peeling leaves of a source has no position of its own.
SHIFT_SHARE = 0.1

# What is left of a bright source, in the record of a region.
GHOST_KEYS = ("ghost_left_jy_beam", "ghost_sidelobes_jy", "ghost_sigma_jy", "ghost_sidelobes_snr")


def image_entry(
    scene: Scene,
    index: int,
    radius: float,
    reference: dict[str, Any] | None,
    peeled: Mapping[str, tuple[float | None, float | None]],
) -> dict[str, Any]:
    """Figures of one image.

    ``reference`` are those of the reference, None if this is it; ``peeled`` are places of what was
    peeled, by label.
    """
    image = scene.images[index]
    assert image.beam is not None
    figures = measure(image, scene.sources[index])
    flux, flux_error = _flux(image, scene.flux_masks[index], figures.rms_jy_beam)
    models = reference["regions"] if reference else [None] * len(scene.places)
    real = _real(scene, index)
    psf = read_psf(image, None)[0] if reference else None
    fitted = (
        sidelobes(
            image, np.nan_to_num(psf.data).astype(np.float64), sources=real, radius_arcsec=radius
        )
        if psf is not None
        else None
    )
    regions = [
        _place_entry(scene, index, number, radius, model, real)
        | _ghost_entry(image, model, fitted, peeled.get(scene.places[number].label))
        for number, model in enumerate(models)
    ]
    local = regions[0]
    position = _refined(image, figures.peak_x, figures.peak_y)
    model = reference or {
        "peak_jy_beam": figures.peak_jy_beam,
        "rms_global_jy_beam": figures.rms_jy_beam,
        "regions": regions,
    }
    return {
        "path": str(image.path),
        "peak_jy_beam": figures.peak_jy_beam,
        "peak_ra_deg": float(position.ra.deg),
        "peak_dec_deg": float(position.dec.deg),
        "peak_shift_arcsec": _shift(image, reference) if reference else None,
        "position_uncertainty_arcsec": image.beam.major_arcsec
        * _ratio(model["rms_global_jy_beam"], 2 * model["peak_jy_beam"]),
        "minimum_jy_beam": figures.minimum_jy_beam,
        "rms_global_jy_beam": figures.rms_jy_beam,
        "rms_plain_jy_beam": figures.rms_plain_jy_beam,
        "rms_local_jy_beam": local["rms_local_jy_beam"],
        "dynamic_range": _ratio(figures.peak_jy_beam, figures.rms_jy_beam),
        "dynamic_range_reference_peak": _ratio(model["peak_jy_beam"], figures.rms_jy_beam),
        "dynamic_range_local": local["dynamic_range_reference_peak"],
        "flux_jy": flux,
        "flux_error_jy": flux_error,
        "flux_to_rms": _ratio(flux, figures.rms_jy_beam),
        "beam": dataclasses.asdict(image.beam),
        "sources_found": len(scene.catalogues[index].sources),
        "regions": regions,
    }


def _place_entry(
    scene: Scene,
    index: int,
    number: int,
    radius: float,
    reference: dict[str, Any] | None,
    real: Mask,
) -> dict[str, Any]:
    """Figures of one image at one bright source and in the circle around it."""
    image, place = scene.images[index], scene.places[number]
    assert image.beam is not None
    mask = place.masks[index]
    circle = _circle(image, place.centre, radius)
    outside = image.data[circle & ~real]
    rms = robust_rms(outside)
    inside = np.where(mask, image.data, np.nan)
    y, x = np.unravel_index(int(np.nanargmax(inside)), inside.shape)
    peak = float(inside[y, x])
    position = _refined(image, float(x), float(y))
    flux, flux_error = _flux(image, mask, rms)
    model = reference or {"peak_jy_beam": peak, "rms_local_jy_beam": rms}
    return {
        "label": place.label,
        "ra_deg": float(place.centre.ra.deg),
        "dec_deg": float(place.centre.dec.deg),
        "radius_arcsec": radius,
        "peak_jy_beam": peak,
        "peak_ra_deg": float(position.ra.deg),
        "peak_dec_deg": float(position.dec.deg),
        "peak_shift_arcsec": _shift(image, reference) if reference else None,
        "position_uncertainty_arcsec": image.beam.major_arcsec
        * _ratio(model["rms_local_jy_beam"], 2 * model["peak_jy_beam"]),
        "minimum_jy_beam": float(np.nanmin(image.data[circle | mask])),
        "rms_local_jy_beam": rms,
        "rms_local_plain_jy_beam": plain_rms(outside),
        "dynamic_range": _ratio(peak, rms),
        "dynamic_range_reference_peak": _ratio(model["peak_jy_beam"], rms),
        "flux_jy": flux,
        "flux_error_jy": flux_error,
    }


def _real(scene: Scene, index: int) -> Mask:
    """The bright sources themselves, and what the best image shows to be real.

    Artefacts are in neither. In a bad image its own detections include its sidelobes.
    """
    best = scene.catalogues[scene.best]
    real = np.asarray(regrid_labels(best.mask, best.image, scene.images[index]))
    return np.any([real, *(place.masks[index] for place in scene.places)], axis=0)


def _ghost_entry(
    image: Image,
    reference: dict[str, Any] | None,
    fitted: NDArray[np.float64] | None,
    peeled: tuple[float | None, float | None] | None,
) -> dict[str, float | None]:
    """What is left of a bright source; null for the reference, and if its place is not in the image."""
    from astropy.coordinates import SkyCoord

    if reference is None:
        return dict.fromkeys(GHOST_KEYS)
    ra, dec = peeled or (None, None)
    if ra is None or dec is None:
        ra, dec = reference["peak_ra_deg"], reference["peak_dec_deg"]
    found = ghost(image, fitted, image.pixel(SkyCoord(ra, dec, unit="deg")))
    if found is None:
        return dict.fromkeys(GHOST_KEYS)
    values = found.left_jy_beam, found.sidelobes_jy, found.sigma_jy, found.sidelobes_snr
    return dict(zip(GHOST_KEYS, values, strict=True))


def _ratio(one: float, two: float) -> float:
    return one / two if two > 0 else math.nan


def _flux(image: Image, mask: Mask, rms: float) -> tuple[float, float]:
    """Integral over the mask and its thermal error, rms times the root of the beams in it [Jy]."""
    values = image.data[mask].astype(float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return math.nan, math.nan
    beams = max(1.0, values.size / image.beam_pixels)
    return float(values.sum() / image.beam_pixels), rms * math.sqrt(beams)


def _circle(image: Image, centre: SkyCoord, radius_arcsec: float) -> Mask:
    x, y = image.pixel(centre)
    ny, nx = image.data.shape
    rows, columns = np.ogrid[0:ny, 0:nx]
    return np.asarray(image.apart(columns - x, rows - y) * image.cell_arcsec <= radius_arcsec)


def _refined(image: Image, x: float, y: float) -> SkyCoord:
    """Position of the maximum at pixel (x, y), to a fraction of a pixel where that is possible."""
    found = peak_near(image, x, y, radius_cells=1.5)
    return image.sky(*found[:2]) if found else image.sky(x, y)


def _shift(image: Image, reference: dict[str, Any]) -> float:
    """Distance of the image's peak from the reference's [arcsec]; NaN if the source is gone."""
    from astropy.coordinates import SkyCoord

    assert image.beam is not None
    there = SkyCoord(reference["peak_ra_deg"], reference["peak_dec_deg"], unit="deg")
    radius = SHIFT_BEAMS * image.beam.major_arcsec / image.cell_arcsec
    found = peak_near(image, *image.pixel(there), radius_cells=radius)
    if found is None or found[2] < SHIFT_SHARE * reference["peak_jy_beam"]:
        return math.nan
    return float(image.sky(*found[:2]).separation(there).arcsec)
