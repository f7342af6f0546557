"""``peelkit mask``: a mask from an image, its islands, and regions of the sources to peel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from peelkit import sidecar
from peelkit.core.artefacts import Verdict, classify, sources_mask
from peelkit.core.islands import (
    MIN_BEAMS,
    NOISE_BOX_BEAMS,
    Island,
    Labels,
    Mask,
    above,
    label_islands,
    measure_islands,
    noise_box_pixels,
    threshold_mask,
)
from peelkit.core.mask_inputs import read_mask
from peelkit.core.mask_regions import Ellipse, ellipse_region, enclosing_ellipses, overlaps
from peelkit.core.measure import robust_rms
from peelkit.core.noisemap import NEIGHBOURS, usable_pixels
from peelkit.core.pick import Choice, parse_choice, pick
from peelkit.core.psf import read_psf
from peelkit.errors import DataError, OptionError
from peelkit.io.image import Image, read_image, read_restored, write_like
from peelkit.io.region import (
    is_region_name,
    read_regions,
    region_mask,
    write_regions,
)
from peelkit.outcome import Outcome
from peelkit.progress import Progress

# The quietest parts of an image: this much of it [%]. Of even noise, the map is there a tenth too low.
QUIET_PERCENT = 5.0


@dataclass(frozen=True)
class MaskOptions:
    """What the command line asks for.

    Parameters
    ----------
    threshold : float
        In units of the local noise.
    noise_box : float
        Side of the noise boxes [beams].
    min_size : float
        Least size of an island [beams].
    dilate : int
        Growth of the islands [pixel].
    fill_holes : bool
        Fill what an island encloses.
    include, exclude : tuple of Path
        Region files: added to the mask, taken from it.
    merge, subtract : tuple of Path
        Mask images: added to the mask, taken from it.
    extract, drop : tuple of str
        Islands to keep alone, islands to leave out: numbers or positions.
    drop_artefacts : bool
        Leave out what looks like an artefact.
    bright_flux : float
        Least peak or flux of a bright source [Jy].
    artefact_ratio : float
        Least ratio of the rms around a bright source to the global rms.
    psf : Path or None
        PSF image; found by the image's name if None.
    regions : Path or None
        Region file to write; OUT's name with .crtf and .reg if None.
    regions_of : str
        ``bright``, ``all`` or ``none``.
    overwrite : bool
        Replace products that exist.
    """

    threshold: float = 8.0
    noise_box: float = NOISE_BOX_BEAMS
    min_size: float = MIN_BEAMS
    dilate: int = 0
    fill_holes: bool = False
    include: tuple[Path, ...] = ()
    exclude: tuple[Path, ...] = ()
    merge: tuple[Path, ...] = ()
    subtract: tuple[Path, ...] = ()
    extract: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    drop_artefacts: bool = False
    bright_flux: float = 0.1
    artefact_ratio: float = 2.0
    psf: Path | None = None
    regions: Path | None = None
    regions_of: str = "bright"
    overwrite: bool = False


@dataclass(frozen=True)
class Scene:
    """The mask before islands are left out, and what was found in it."""

    labels: Labels
    noise: NDArray[np.float64]
    rms: float
    islands: list[Island]
    verdicts: list[Verdict]
    negative_islands: int


def make_mask(path: Path, out: Path, options: MaskOptions, progress: Progress) -> Outcome:
    """Make a mask, list its islands, and write regions of the bright sources.

    Raises
    ------
    OptionError
        If an option makes no sense.
    DataError
        If the image, a mask or a region will not do, a product exists, or the mask is empty.
    """
    for name in ("threshold", "noise_box", "min_size", "bright_flux", "artefact_ratio"):
        if not math.isfinite(getattr(options, name)):
            raise OptionError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: give a number."
            )
    keep, leave = (
        [parse_choice(text, option) for text in texts]
        for option, texts in (("--extract", options.extract), ("--drop", options.drop))
    )
    if not path.exists() and out.exists():
        raise DataError(
            f"{path}: no such image; {out} is there, but stands where the mask is to be written. IMAGE comes first."
        )
    progress.stage("reading", None)
    # Before it is said that OUT exists: the two may have been swapped.
    image = read_restored(path)
    region_files = _region_files(out, options)
    _check_products(path, out, region_files, options)
    psf, warnings = read_psf(image, options.psf)
    progress.stage("finding islands", None)
    scene = _scene(image, options, psf)
    chosen = _chosen(image, scene, keep, leave, options)
    mask = sources_mask(scene.labels, chosen)
    labels = _labels(scene, chosen, options.regions_of)
    ellipses = enclosing_ellipses(scene.labels, image)
    regions = [
        ellipse_region(image, ellipses[number - 1], label) for number, label in labels.items()
    ]
    warnings += overlaps(image, regions)
    refusal = None
    if not regions and options.regions_of != "none":
        missing = _no_region(scene, chosen, options)
        # A file that was asked for is what the next command reads.
        if options.regions:
            refusal = f"{options.regions}: {missing}"
        else:
            warnings.append(missing)
    progress.stage("writing", None)
    write_like(out, mask.astype(np.float32), image, unit="", overwrite=options.overwrite)
    for file in region_files:
        if regions:
            write_regions(file, regions, overwrite=options.overwrite)
        elif options.overwrite:
            # It would be taken for the regions of this mask.
            file.unlink(missing_ok=True)
    written = tuple(str(file) for file in region_files) if regions else ()
    entries = _entries(image, scene, labels, ellipses)
    inputs = {"image": str(path)}
    if psf is not None:
        inputs["psf"] = str(psf.path)
    for role in ("include", "exclude", "merge", "subtract"):
        for number, file in enumerate(getattr(options, role), 1):
            inputs[f"{role}_{number}"] = str(file)
    usable = usable_pixels(image.data)
    results = {
        "mask": str(out),
        "regions": list(written),
        "rms_jy_beam": scene.rms,
        "threshold_sigma": options.threshold,
        "threshold_jy_beam": options.threshold * float(np.median(scene.noise[usable])),
        "noise_min_jy_beam": float(scene.noise[usable].min()),
        "noise_max_jy_beam": float(scene.noise[usable].max()),
        "n_islands": len(chosen),
        "masked_pixels": int(mask.sum()),
        "flux_jy": sum(scene.islands[number - 1].flux_jy for number in chosen),
        "negative_islands": scene.negative_islands,
        "islands": [entries[number - 1] for number in chosen],
        "dropped": [entry for entry in entries if entry["number"] not in chosen],
    }
    return Outcome(
        results=results,
        inputs=inputs,
        reads=tuple(inputs.values()),
        writes=(str(out), *written),
        parameters={
            "noise_box_pixels": noise_box_pixels(image, options.noise_box),
            "psf": psf.path if psf else None,
        },
        warnings=tuple(warnings),
        refusal=refusal,
    )


# --- before -------------------------------------------------------------------------------------


def _region_files(out: Path, options: MaskOptions) -> list[Path]:
    if options.regions_of == "none":
        if options.regions:
            raise OptionError(
                f"--regions {options.regions}: --regions-of none writes none; leave one out."
            )
        return []
    if options.regions is None:
        return [out.with_suffix(".crtf"), out.with_suffix(".reg")] if out.name else []
    if not is_region_name(options.regions):
        raise OptionError(
            f"--regions {options.regions}: name it .crtf for CASA's format or .reg for DS9's."
        )
    return [options.regions]


def _check_products(
    path: Path, out: Path, region_files: Sequence[Path], options: MaskOptions
) -> None:
    sources = [path, *options.include, *options.exclude, *options.merge, *options.subtract]
    if options.psf:
        sources.append(options.psf)
    for product in (out, *region_files):
        if any(product.resolve() == source.resolve() for source in sources):
            raise OptionError(f"{product}: read and written; give the product another name.")
        if not product.exists():
            continue
        if not options.overwrite:
            raise DataError(f"{product}: exists; give another name or --overwrite.")
        if product is not out and not product.is_file():
            raise DataError(f"{product}: no file, so not replaced; give another name.")
    if out.exists():
        try:
            read_image(out)
        except DataError as error:
            # --overwrite is for an older mask, not for a Measurement Set or a folder.
            raise DataError(
                f"{out}: exists and is no image, so not replaced; give another name."
            ) from error


# --- the mask -----------------------------------------------------------------------------------


def _scene(image: Image, options: MaskOptions, psf: Image | None) -> Scene:
    made = threshold_mask(
        image,
        sigma=options.threshold,
        noise_box_beams=options.noise_box,
        min_beams=options.min_size,
        dilate=options.dilate,
        fill_holes=options.fill_holes,
    )
    mask = made.mask.copy()
    for add, files in ((True, options.include), (False, options.exclude)):
        for file in files:
            for region in read_regions(file, image):
                pixels = region_mask(region, image)
                mask = mask | pixels if add else mask & ~pixels
        for file in options.merge if add else options.subtract:
            other = read_mask(file, image)
            mask = mask | other if add else mask & ~other
    # Blank pixels have nothing to clean, and have no brightness.
    mask &= np.isfinite(image.data)
    if not mask.any():
        raise _empty(image, made.mask, made.noise, options)
    labels = label_islands(mask, image.data)
    islands = measure_islands(image, labels, made.noise)
    rms = robust_rms(image.data[usable_pixels(image.data) & ~mask])
    min_pixels = options.min_size * image.beam_pixels
    negative = above(-image.data, made.noise, sigma=options.threshold, min_pixels=min_pixels)
    verdicts = classify(
        image,
        islands,
        labels,
        global_rms=rms if rms > 0 else float(np.median(made.noise)),
        quiet_rms=float(np.percentile(made.noise[usable_pixels(image.data)], QUIET_PERCENT)),
        bright_flux_jy=options.bright_flux,
        artefact_ratio=options.artefact_ratio,
        psf=psf,
    )
    return Scene(labels, made.noise, rms, islands, verdicts, ndimage.label(negative, NEIGHBOURS)[1])


def _empty(image: Image, found: Mask, noise: NDArray[Any], options: MaskOptions) -> DataError:
    if found.any():
        return DataError(
            f"{image.path}: nothing is left of the mask; check --exclude and --subtract."
        )
    ratio = np.where(np.isfinite(image.data), image.data, -np.inf) / noise
    y, x = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    least = f" in islands of {options.min_size:g} beams" if ratio[y, x] > options.threshold else ""
    remedy = "lower --min-size" if least else "lower --threshold"
    return DataError(
        f"{image.path}: empty mask: nothing above {options.threshold:g} sigma{least}, where the "
        f"noise is {noise[y, x] * 1e3:.4g} mJy/beam and the peak {image.data[y, x] * 1e3:.4g} "
        f"mJy/beam ({ratio[y, x]:.1f} sigma); {remedy}."
    )


def _chosen(
    image: Image,
    scene: Scene,
    keep: Sequence[Choice],
    leave: Sequence[Choice],
    options: MaskOptions,
) -> list[int]:
    """Numbers of the islands that stay."""
    chosen = [island.number for island in scene.islands]
    if keep:
        chosen = pick(keep, image, scene.islands, scene.labels)
    dropped = set(pick(leave, image, scene.islands, scene.labels))
    if options.drop_artefacts:
        dropped |= {
            island.number
            for island, verdict in zip(scene.islands, scene.verdicts, strict=True)
            if verdict.artefact
        }
    left = [number for number in chosen if number not in dropped]
    if not left:
        raise DataError(
            f"{image.path}: empty mask: all of {len(scene.islands)} islands are left out; check "
            "--extract, --drop and --drop-artefacts."
        )
    return left


# --- what is told -------------------------------------------------------------------------------


def _labels(scene: Scene, chosen: Sequence[int], regions_of: str) -> dict[int, str]:
    """Give number and label of each island that gets a region, the brightest flux first."""
    if regions_of == "none":
        return {}
    by_flux = sorted(chosen, key=lambda number: -scene.islands[number - 1].flux_jy)
    bright = [number for number in by_flux if scene.verdicts[number - 1].bright]
    labels = {number: f"BRIGHT_{place}" for place, number in enumerate(bright, 1)}
    if regions_of == "all":
        labels |= {number: f"ISLAND_{number}" for number in chosen if number not in labels}
    return labels


def _no_region(scene: Scene, chosen: Sequence[int], options: MaskOptions) -> str:
    """Say why there is no bright source."""
    number = max(chosen, key=lambda one: scene.islands[one - 1].flux_jy)
    island, verdict = scene.islands[number - 1], scene.verdicts[number - 1]
    strong = f"no source worth peeling: island {number}, the strongest, has {island.flux_jy:.3g} Jy"
    if verdict.artefact:
        return f"{strong}, but it is {verdict.reason}; give --regions-of all."
    if not math.isfinite(verdict.rms_ratio):
        return f"{strong}, below --bright-flux {options.bright_flux:g}; lower that."
    return (
        f"{strong}, but no artefacts around it: {verdict.rms_ratio:.2g} times the global rms, not "
        f"{options.artefact_ratio:g}, and no such negatives; lower --artefact-ratio to have it all the same."
    )


def _entries(
    image: Image, scene: Scene, labels: dict[int, str], ellipses: Sequence[Ellipse]
) -> list[dict[str, Any]]:
    """Entries of the sidecar, one for each island."""
    entries = []
    for island, verdict in zip(scene.islands, scene.verdicts, strict=True):
        values = dataclasses.asdict(island)
        x, y = values.pop("x"), values.pop("y")
        place = image.sky(x, y)
        ellipse = ellipses[island.number - 1]
        entries.append(
            {
                "number": values.pop("number"),
                "label": labels.get(island.number),
                "ra_deg": float(place.ra.deg),
                "dec_deg": float(place.dec.deg),
                "x_pixel": x,
                "y_pixel": y,
                **values,
                "beams": island.pixels / image.beam_pixels,
                "major_arcsec": 2 * ellipse.major * image.cell_arcsec,
                "minor_arcsec": 2 * ellipse.minor * image.cell_arcsec,
                "rms_ratio": verdict.rms_ratio,
                "artefact_parity": verdict.parity,
                "bright": verdict.bright,
                "artefact": verdict.artefact,
                "artefact_of": verdict.artefact_of or None,
                "artefact_reason": verdict.reason or None,
            }
        )
    return entries


def default_sidecar(out: Path) -> Path:
    """Where the sidecar goes: ``<OUT>.peelkit.json``."""
    return sidecar.image_sidecar(out)
