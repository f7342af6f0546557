"""``peelkit stats``: the figures of images, side by side and against a reference."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peelkit import sidecar
from peelkit.core import plots_images
from peelkit.core.catalogue import (
    Catalogue,
    Comparison,
    compare,
    find_sources,
    peak_near,
    regrid_labels,
)
from peelkit.core.islands import threshold_mask
from peelkit.core.measure import Mask, measure, plain_rms, robust_rms
from peelkit.errors import DataError, OptionError
from peelkit.io.image import Image, grid_difference, read_image
from peelkit.io.region import read_regions, region_mask
from peelkit.outcome import Outcome
from peelkit.progress import Progress

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

COMMAND = "stats"

# Radius of the circle in which the local rms is measured, if none is given [beams].
LOCAL_BEAMS = 30.0

# A peak is taken for the reference's if it is within this distance [beams] ...
SHIFT_BEAMS = 2.0
# ... and at least this share of it: what peeling leaves of a source has no position of its own.
SHIFT_SHARE = 0.1

# Without regions the brightest source is what is connected to the peak above this share of it,
# which is more than the sidelobes of bad gains reach, grown by this many beams.
BRIGHTEST_SHARE = 0.05
GROW_BEAMS = 1.0

# What is said about beams and frequencies that differ by more than this share.
BEAM_TOLERANCE = 0.05
FREQ_TOLERANCE = 0.01

# Rows of cutouts in one plot.
MOST_CUTOUTS = 8


@dataclass(frozen=True)
class StatsOptions:
    """What the command line asks for.

    Parameters
    ----------
    reference, regions, mask : Path or None
        Reference image; CRTF or DS9 regions of the bright sources; image of pixels to leave out.
    radius_arcsec : float or None
        Radius for the local rms [arcsec]; 30 beams of the reference if None.
    threshold : float
        For the source finder [sigma].
    match_radius_arcsec : float or None
        Largest distance of a matched pair [arcsec]; half a beam if None.
    csv, plot : Path or None
        Products.
    overwrite : bool
        Replace products that exist.
    """

    reference: Path | None = None
    regions: Path | None = None
    mask: Path | None = None
    radius_arcsec: float | None = None
    threshold: float = 5.0
    match_radius_arcsec: float | None = None
    csv: Path | None = None
    plot: Path | None = None
    overwrite: bool = False


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


def plot_files(plot: Path) -> tuple[Path, Path]:
    """Files that ``--plot`` makes: the cutouts, and the fluxes (``<name>-flux.<suffix>``)."""
    return plot, plot.with_name(f"{plot.stem}-flux{plot.suffix}")


def default_sidecar(images: Sequence[Path], reference: Path | None) -> Path:
    """Where the sidecar goes: beside the first image.

    ``<image>.stats.peelkit.json`` for one image; for a comparison
    ``<reference>-<last image>.stats.peelkit.json``, so that neither replaces the other, nor the
    sidecar of the command that made the image.
    """
    first, last = reference or images[0], images[-1]
    if first == last:
        return sidecar.ms_sidecar(images[0], COMMAND)
    return sidecar.ms_sidecar(images[0].with_name(f"{first.name}-{last.name}"), COMMAND)


def stats(paths: Sequence[Path], options: StatsOptions, progress: Progress) -> Outcome:
    """Measure images.

    Parameters
    ----------
    paths : sequence of Path
        The images, at least one.
    options : StatsOptions
        What is asked for.
    progress : Progress
        Is told of each stage.

    Raises
    ------
    OptionError
        If an option makes no sense.
    DataError
        If an image, the mask or a region will not do, or a product exists.
    """
    _check_options(options)
    reference = options.reference or paths[0]
    everything = [reference, *(path for path in paths if path != reference)]
    compared = len(everything) > 1
    progress.stage("reading", len(everything))
    images = []
    for path in everything:
        images.append(_read(path))
        progress.advance()
    scene, notes = _scene(images, options, progress)
    first = scene.images[0]
    assert first.beam is not None
    radius = options.radius_arcsec or LOCAL_BEAMS * first.beam.major_arcsec
    match_radius = options.match_radius_arcsec or 0.5 * max(
        image.beam.major_arcsec for image in images if image.beam
    )
    exclude = np.zeros_like(scene.sources[0])
    if options.regions:
        exclude = np.any([place.masks[0] for place in scene.places], axis=0)
    progress.stage("measuring", len(everything))
    entries: list[dict[str, Any]] = []
    comparisons: list[Comparison] = []
    for index in range(len(everything)):
        comparison = Comparison(())
        if index:
            comparison = compare(
                scene.catalogues[0],
                scene.catalogues[index],
                exclude=exclude,
                match_radius_arcsec=match_radius,
            )
        comparisons.append(comparison)
        entry = _image_entry(scene, index, radius, entries[0] if index else None)
        if not compared:
            entry["dynamic_range_reference_peak"] = None
        entries.append(entry | _comparison_entry(comparison))
        if index and not comparison.matches:
            notes.append(
                f"{everything[index]}: no source of the reference within "
                f"{match_radius:.3g} arcsec; no fluxes compared."
            )
        progress.advance()
    by_path = dict(zip(everything, entries, strict=True))
    results = {
        "images": [by_path[path] for path in paths],
        "reference": entries[0] if compared else None,
        "best_image": str(everything[scene.best]),
        "threshold_sigma": options.threshold,
        "local_radius_arcsec": radius,
        "match_radius_arcsec": match_radius if compared else None,
        "places": [place.label for place in scene.places],
        "notes": notes,
    }
    writes, warnings = _products(scene, everything, entries, comparisons, radius, options)
    inputs = {f"image_{number}": str(path) for number, path in enumerate(paths, 1)}
    for role in ("reference", "regions", "mask"):
        if value := getattr(options, role):
            inputs[role] = str(value)
    return Outcome(
        results=results,
        inputs=inputs,
        reads=tuple(dict.fromkeys(inputs.values())),
        writes=tuple(str(path) for path in writes),
        parameters={
            "reference": str(reference),
            "radius_arcsec": radius,
            "match_radius_arcsec": match_radius,
        },
        warnings=tuple(warnings),
    )


def _check_options(options: StatsOptions) -> None:
    for name, value in (
        ("--threshold", options.threshold),
        ("--radius", options.radius_arcsec),
        ("--match-radius", options.match_radius_arcsec),
    ):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise OptionError(f"{name} {value:g}: give a positive number.")
    products = [options.csv] if options.csv else []
    if options.plot:
        plots_images.check_suffix(options.plot)
        products += plot_files(options.plot)
    for path in products:
        if path and path.exists() and not options.overwrite:
            raise DataError(f"{path}: exists; give another name or --overwrite.")


def _read(path: Path) -> Image:
    image = read_image(path)
    if image.beam is None:
        raise DataError(f"{path}: no restoring beam; use a restored image.")
    if image.unit.lower().replace(" ", "") not in ("jy/beam", "jybeam-1", "jybeam^-1", "beam-1jy"):
        raise DataError(f"{path}: unit {image.unit!r} is not Jy/beam; use a restored image.")
    finite = image.data[np.isfinite(image.data)]
    if finite.size == 0:
        raise DataError(f"{path}: every pixel is blank; image it again.")
    if finite.min() == finite.max():
        raise DataError(f"{path}: every pixel is {finite[0]:g}; check what it was made of.")
    return image


def _scene(
    images: Sequence[Image], options: StatsOptions, progress: Progress
) -> tuple[Scene, list[str]]:
    """Find the sources, and which pixels are whose."""
    notes = _differences(images)
    shared = [grid_difference(images[0], image) is None for image in images]
    images = _blank_alike(images, shared, notes)
    progress.stage("finding sources", len(images))
    catalogues = []
    for image in images:
        noise = threshold_mask(image, sigma=options.threshold).noise
        catalogues.append(find_sources(image, noise, sigma=options.threshold))
        progress.advance()
    user = [np.zeros(image.data.shape, dtype=bool) for image in images]
    if options.mask:
        user = _user_mask(options.mask, images)
    places = _places(images, catalogues[0], options.regions)
    sources: list[Mask] = []
    for index, image in enumerate(images):
        if index and shared[index]:
            sources.append(sources[0])
            continue
        found = [regrid_labels(one.mask, one.image, image) for one in catalogues]
        sources.append(
            np.any([*found, user[index], *(place.masks[index] for place in places)], axis=0)
        )
    for image, mask in zip(images, sources, strict=True):
        if not np.isfinite(image.data[~mask]).any():
            raise DataError(
                f"{image.path}: no pixel left outside mask and sources; give a smaller --mask."
            )
    rms = [robust_rms(image.data[~mask]) for image, mask in zip(images, sources, strict=True)]
    scene = Scene(
        images=tuple(images),
        catalogues=tuple(catalogues),
        flux_masks=tuple(user if options.mask else sources),
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
        return (_brightest(images, reference),)
    places = []
    for region in read_regions(regions):
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
    mask = np.asarray(ndimage.distance_transform_edt(parts != parts[pixel]) <= grow)
    masks = tuple(regrid_labels(mask, image, other) for other in images)
    return Place("brightest", image.sky(x, y), masks)


def _image_entry(
    scene: Scene, index: int, radius: float, reference: dict[str, Any] | None
) -> dict[str, Any]:
    """Figures of one image; ``reference`` are those of the reference, None if this is it."""
    image = scene.images[index]
    assert image.beam is not None
    figures = measure(image, scene.sources[index])
    flux, flux_error = _flux(image, scene.flux_masks[index], figures.rms_jy_beam)
    models = reference["regions"] if reference else [None] * len(scene.places)
    regions = [
        _place_entry(scene, index, number, radius, model) for number, model in enumerate(models)
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
    scene: Scene, index: int, number: int, radius: float, reference: dict[str, Any] | None
) -> dict[str, Any]:
    """Figures of one image at one bright source and in the circle around it."""
    image, place = scene.images[index], scene.places[number]
    assert image.beam is not None
    mask = place.masks[index]
    circle = _circle(image, place.centre, radius)
    # Artefacts stay in: only the bright sources themselves and what the best image shows to be
    # real are left out. In a bad image its own detections include its sidelobes.
    best = scene.catalogues[scene.best]
    real = regrid_labels(best.mask, best.image, image)
    bright = np.any([one.masks[index] for one in scene.places], axis=0)
    outside = image.data[circle & ~real & ~bright]
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


def _comparison_entry(comparison: Comparison) -> dict[str, Any]:
    """Fluxes against the reference's; null where there is nothing to compare."""
    return {
        "flux_ratio_median": comparison.flux_ratio_median,
        "flux_ratio_scatter": comparison.flux_ratio_scatter,
        "flux_ratio_noise": comparison.flux_ratio_noise,
        "peak_ratio_median": comparison.peak_ratio_median,
        "peak_ratio_scatter": comparison.peak_ratio_scatter,
        "offset_ra_arcsec": comparison.offset_ra_arcsec,
        "offset_dec_arcsec": comparison.offset_dec_arcsec,
        "sources_compared": len(comparison.matches),
        "sources": [
            {
                **dataclasses.asdict(match),
                "flux_ratio": match.flux_ratio,
                "flux_ratio_error": match.flux_ratio_error,
                "peak_ratio": match.peak_ratio,
            }
            for match in comparison.matches
        ],
    }


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
    return np.asarray(np.hypot(columns - x, rows - y) * image.cell_arcsec <= radius_arcsec)


def _refined(image: Image, x: float, y: float) -> SkyCoord:
    """Position of the maximum at pixel (x, y), to a fraction of a pixel where that is possible."""
    found = peak_near(image, x, y, radius_pixels=1.5)
    return image.sky(*found[:2]) if found else image.sky(x, y)


def _shift(image: Image, reference: dict[str, Any]) -> float:
    """Distance of the image's peak from the reference's [arcsec]; NaN if the source is gone."""
    from astropy.coordinates import SkyCoord

    assert image.beam is not None
    there = SkyCoord(reference["peak_ra_deg"], reference["peak_dec_deg"], unit="deg")
    radius = SHIFT_BEAMS * image.beam.major_arcsec / image.cell_arcsec
    found = peak_near(image, *image.pixel(there), radius_pixels=radius)
    if found is None or found[2] < SHIFT_SHARE * reference["peak_jy_beam"]:
        return math.nan
    return float(image.sky(*found[:2]).separation(there).arcsec)


def _products(
    scene: Scene,
    paths: Sequence[Path],
    entries: Sequence[dict[str, Any]],
    comparisons: Sequence[Comparison],
    radius: float,
    options: StatsOptions,
) -> tuple[list[Path], list[str]]:
    """Write the CSV file and the plots; returns what was written, and warnings."""
    written: list[Path] = []
    warnings: list[str] = []
    if options.csv:
        sidecar.write_text(options.csv, csv_text(entries))
        written.append(options.csv)
    if not options.plot:
        return written, warnings
    cutouts, fluxes = plot_files(options.plot)
    names = short_names(paths)
    shown = scene.places[:MOST_CUTOUTS]
    if len(shown) < len(scene.places):
        warnings.append(
            f"{cutouts}: the first {len(shown)} of {len(scene.places)} regions are shown; give the "
            "others in another --regions file."
        )
    rows = [_cutout_row(scene, number, radius, names, entries) for number in range(len(shown))]
    plots_images.cutouts(scene.images, rows, cutouts)
    written.append(cutouts)
    series = [
        plots_images.FluxSeries(name, comparison.matches)
        for name, comparison in zip(names, comparisons, strict=True)
        if comparison.matches
    ]
    if series:
        plots_images.flux_against_flux(series, names[0], fluxes)
        written.append(fluxes)
    else:
        # One that an earlier run left would be taken for this run's.
        if fluxes.exists():
            fluxes.unlink()
        if len(paths) > 1:
            warnings.append(f"{fluxes}: not made, since no fluxes could be compared.")
    return written, warnings


def _cutout_row(
    scene: Scene,
    number: int,
    radius: float,
    names: Sequence[str],
    entries: Sequence[dict[str, Any]],
) -> plots_images.CutoutRow:
    place = scene.places[number]
    figures = [entry["regions"][number] for entry in entries]
    titles = []
    for name, figure in zip(names, figures, strict=True):
        factor, unit = plots_images.unit_for(figure["rms_local_jy_beam"])
        rms = f"{figure['rms_local_jy_beam'] * factor:.3g} {plots_images.unit_label(unit)}/beam"
        titles.append(f"{name}\nrms {rms}, DR {figure['dynamic_range_reference_peak']:.0f}")
    # No wider than the largest image: the rest would be blank.
    widest = max(max(image.data.shape) * image.cell_arcsec for image in scene.images)
    return plots_images.CutoutRow(
        label=place.label,
        centre=place.centre,
        half_width_arcsec=min(radius, widest / 2),
        rms_jy_beam=tuple(figure["rms_local_jy_beam"] for figure in figures),
        titles=tuple(titles),
        outlines=place.masks,
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names of the images; whole paths where two have the same name."""
    names = [path.name for path in paths]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, paths, strict=True)
    ]


def csv_text(entries: Sequence[dict[str, Any]]) -> str:
    """CSV table: a row for each image, and one for each of its regions (column ``region``).

    Parameters
    ----------
    entries : sequence of dict
        Images, as in the results. What is not known is empty.
    """
    rows: list[dict[str, Any]] = []
    for entry in entries:
        flat = {key: value for key, value in entry.items() if not isinstance(value, list | dict)}
        beam = {f"beam_{key}": value for key, value in entry["beam"].items()}
        rows.append({"path": entry["path"], "region": ""} | flat | beam)
        for region in entry["regions"]:
            figures = {key: value for key, value in region.items() if key != "label"}
            rows.append({"path": entry["path"], "region": region["label"]} | figures)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        clean = sidecar.clean(row)
        writer.writerow({key: "" if value is None else value for key, value in clean.items()})
    return stream.getvalue()
