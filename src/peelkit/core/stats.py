"""``peelkit stats``: the figures of images, side by side and against a reference."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peelkit import sidecar
from peelkit.core import image_record, peel_verdict, plots_images
from peelkit.core.catalogue import (
    Comparison,
    compare,
    regrid_labels,
)
from peelkit.core.image_figures import image_entry
from peelkit.core.measure import Mask
from peelkit.core.scene import Scene, find_scene, read_measurable
from peelkit.core.thermal import Thermal, thermal
from peelkit.core.truth import Truth, against_truth, read_truth
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.outcome import Outcome
from peelkit.progress import Progress

COMMAND = "stats"

# Radius of the circle in which the local rms is measured, if none is given [beams].
LOCAL_BEAMS = 30.0

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
    names : tuple of str
        What the images are called in tables and plots; their file names if empty.
    truth : Path or None
        Truth file of ``peelkit simulate``.
    pb : Path or None
        Primary beam image, for the truth of a mosaic.
    ms : Path or None
        What the images were made of, for their thermal noise.
    solve : Path or None
        Sidecar of the ddsolve between the last image but one and the last, for the verdict.
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
    names: tuple[str, ...] = ()
    truth: Path | None = None
    pb: Path | None = None
    ms: Path | None = None
    solve: Path | None = None
    csv: Path | None = None
    plot: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Pair:
    """Fluxes of the sources that two images have in common; indices of the images."""

    before: int
    after: int
    comparison: Comparison


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
    _check_options(options, len(paths))
    truth = read_truth(options.truth) if options.truth else None
    info = ms.read_info(options.ms) if options.ms else None
    solve = sidecar.read(options.solve, "ddsolve")["results"] if options.solve else None
    reference = options.reference or paths[0]
    everything = [reference, *(path for path in paths if path != reference)]
    compared = len(everything) > 1
    given = dict(zip(paths, options.names, strict=True)) if options.names else {}
    names = [
        given.get(path, name)
        for path, name in zip(everything, short_names(everything), strict=True)
    ]
    progress.stage("reading", len(everything))
    images = []
    for path in everything:
        images.append(read_measurable(path))
        progress.advance()
    scene, notes = find_scene(
        images,
        threshold=options.threshold,
        regions=options.regions,
        mask=options.mask,
        progress=progress,
    )
    first = scene.images[0]
    assert first.beam is not None
    radius = options.radius_arcsec or LOCAL_BEAMS * first.beam.major_arcsec
    match_radius = options.match_radius_arcsec or 0.5 * max(
        image.beam.major_arcsec for image in images if image.beam
    )
    limits: list[Thermal | None] = [None] * len(everything)
    if info is not None:
        limits, more = _thermal(info, everything, progress)
        notes += more
    peeled = (
        {one["label"]: (one["ra_deg"], one["dec_deg"]) for one in solve["directions"]}
        if solve
        else {}
    )
    progress.stage("measuring", len(everything))
    entries: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        comparison = _compared(scene, 0, index, match_radius, options) if index else Comparison(())
        entry = {"name": name} | image_entry(
            scene, index, radius, entries[0] if index else None, peeled
        )
        if not compared:
            entry["dynamic_range_reference_peak"] = None
        entry |= _thermal_entry(entry, limits[index])
        entry |= _comparison_entry(comparison)
        entry["truth"] = _truth_entry(scene, index, truth, options) if truth else None
        entries.append(entry)
        if index and not comparison.matches:
            notes.append(f"{everything[index]}: {_why_none(scene, options, match_radius)}")
        progress.advance()
    pairs = _pairs(scene, everything, match_radius, options)
    by_path = dict(zip(everything, entries, strict=True))
    fell = _fall([by_path[path] for path in paths])
    verdict = None
    if solve is not None:
        before, after = (everything.index(path) for path in paths[-2:])
        comparison = _compared(scene, before, after, match_radius, options)
        verdict = peel_verdict.judge(
            entries[before], entries[after], _comparison_entry(comparison), solve, fell=fell
        )
    results = {
        "images": [by_path[path] for path in paths],
        "reference": entries[0] if compared else None,
        "best_image": str(everything[scene.best]),
        "threshold_sigma": options.threshold,
        "local_radius_arcsec": radius,
        "match_radius_arcsec": match_radius if compared else None,
        "places": [place.label for place in scene.places],
        "pairs": [_pair_entry(pair, everything, names) for pair in pairs],
        "truth": str(options.truth) if options.truth else None,
        "local_rms_fell_by": fell,
        "peeling": verdict.record if verdict else None,
        "notes": notes,
    }
    writes, warnings = _products(scene, names, entries, pairs, radius, options)
    inputs = {f"image_{number}": str(path) for number, path in enumerate(paths, 1)}
    for role in ("reference", "regions", "mask", "truth", "pb", "ms", "solve"):
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
        refusal=_refusal(verdict, paths) if verdict else None,
    )


def _refusal(verdict: peel_verdict.PeelVerdict, paths: Sequence[Path]) -> str | None:
    """Say no if the last image is worse than the one before it."""
    if verdict.verdict != peel_verdict.WORSE:
        return None
    return (
        f"{paths[-1]}: worse than {paths[-2]}: {'; '.join(verdict.reasons)}; take the peeling back with "
        "'peelkit undo'."
    )


def _fall(entries: Sequence[dict[str, Any]]) -> float | None:
    """Share by which the local rms fell from the last image but one to the last: mean over the regions.

    Geometric, so that a region with much to gain does not outvote the others.
    """
    if len(entries) < 2:
        return None
    ratios = [
        after["rms_local_jy_beam"] / before["rms_local_jy_beam"]
        for before, after in zip(entries[-2]["regions"], entries[-1]["regions"], strict=True)
        if before["rms_local_jy_beam"] > 0
    ]
    return 1 - float(np.prod(ratios)) ** (1 / len(ratios)) if ratios else None


def _compared(
    scene: Scene, before: int, after: int, match_radius: float, options: StatsOptions
) -> Comparison:
    """Fluxes of one image against another's, but for the sources in the regions."""
    return compare(
        scene.catalogues[before],
        scene.catalogues[after],
        exclude=_peeled(scene, before, options),
        match_radius_arcsec=match_radius,
    )


def _peeled(scene: Scene, index: int, options: StatsOptions) -> Mask:
    """Pixels of the regions; without regions no source is taken for peeled."""
    if not options.regions:
        return np.zeros_like(scene.sources[index])
    return np.asarray(np.any([place.masks[index] for place in scene.places], axis=0))


def _why_none(scene: Scene, options: StatsOptions, match_radius: float) -> str:
    """Why no fluxes were compared with the reference's."""
    found = scene.catalogues[0].sources
    peeled = _peeled(scene, 0, options)
    if not found:
        return "the reference has no source above the threshold; no fluxes compared."
    if all(peeled[round(source.y), round(source.x)] for source in found):
        return (
            f"{len(found)} sources found in the reference, all in the regions; no others to compare "
            "the fluxes of (a lower --threshold may find some)."
        )
    return f"no source of the reference within {match_radius:.3g} arcsec; no fluxes compared."


def _pairs(
    scene: Scene, paths: Sequence[Path], match_radius: float, options: StatsOptions
) -> list[Pair]:
    """Each image against the one before it, as in VLASS memo 23; with --reference, against that."""
    found = []
    for after in range(1, len(paths)):
        before = 0 if options.reference else after - 1
        found.append(Pair(before, after, _compared(scene, before, after, match_radius, options)))
    return found


def _pair_entry(pair: Pair, paths: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    figures = _comparison_entry(pair.comparison)
    del figures["sources"]
    return {
        "before": str(paths[pair.before]),
        "after": str(paths[pair.after]),
        "before_name": names[pair.before],
        "after_name": names[pair.after],
        **figures,
    }


def _truth_entry(scene: Scene, index: int, truth: Truth, options: StatsOptions) -> dict[str, Any]:
    best = scene.catalogues[scene.best]
    image = scene.images[index]
    return against_truth(
        truth,
        image,
        scene.catalogues[index].noise,
        exclude=_peeled(scene, index, options),
        real=np.asarray(regrid_labels(best.mask, best.image, image)),
        pb=options.pb,
    )


def _check_options(options: StatsOptions, n_images: int) -> None:
    if options.names and len(options.names) != n_images:
        raise OptionError(
            f"--names: {len(options.names)} names for {n_images} images; give one for each IMAGE."
        )
    if len(set(options.names)) < len(options.names):
        raise OptionError("--names: two images have the same name.")
    if options.solve and n_images < 2:
        raise OptionError("--ddsolve: give at least two images, before and after the solve.")
    if options.pb and not options.truth:
        raise OptionError("--pb: goes with --truth; nothing else uses the primary beam.")
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


def _thermal(
    info: ms.MsInfo, paths: Sequence[Path], progress: Progress
) -> tuple[list[Thermal | None], list[str]]:
    """Thermal noise of the images whose sidecars say how they were made; and notes on the others."""
    progress.stage("adding up weights", len(paths))
    known: dict[Any, Thermal] = {}
    found: list[Thermal | None] = []
    notes: list[str] = []
    for path in paths:
        limit = None
        try:
            record = image_record.read(path)
            key = record.imaging, record.selection, record.column
            if key not in known:
                known[key] = thermal(info, record)
                notes += known[key].notes
            limit = known[key]
        except DataError as error:
            notes.append(f"no thermal noise: {error}")
        found.append(limit)
        progress.advance()
    return found, list(dict.fromkeys(notes))


def _thermal_entry(entry: dict[str, Any], limit: Thermal | None) -> dict[str, Any]:
    """Thermal noise, and the measured against it; null where it is not known."""
    rms = limit.rms_jy_beam if limit is not None else math.nan
    known = rms > 0
    return {
        "rms_thermal_jy_beam": rms if known else None,
        "rms_local_over_thermal": entry["rms_local_jy_beam"] / rms if known else None,
        "rms_global_over_thermal": entry["rms_global_jy_beam"] / rms if known else None,
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


def _products(
    scene: Scene,
    names: Sequence[str],
    entries: Sequence[dict[str, Any]],
    pairs: Sequence[Pair],
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
        plots_images.FluxSeries(names[pair.before], names[pair.after], pair.comparison.matches)
        for pair in pairs
        if pair.comparison.matches
    ]
    if series:
        plots_images.flux_against_flux(series, fluxes)
        written.append(fluxes)
    else:
        # One that an earlier run left would be taken for this run's.
        if fluxes.exists():
            fluxes.unlink()
        if len(names) > 1:
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
        titles.append(f"{name}\nlocal rms {rms}\nDR {figure['dynamic_range_reference_peak']:.0f}")
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
