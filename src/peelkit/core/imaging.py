"""Making images for self-calibration: what size, how deep, with which mask."""

from __future__ import annotations

import glob
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import imagers, mosaic, restart, stokes
from peelkit.core.islands import threshold_mask
from peelkit.core.mask_inputs import read_mask
from peelkit.core.measure import robust_rms
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.image import Image, read_image, write_like
from peelkit.io.survey import C_M_S, Survey

# Pixels across the synthesised beam (seed 002, 2.3.4: "over-sample the beam by about 5").
OVERSAMPLING = 5.0

# Images are as wide as the primary beam's half-power width; as wide as its main lobe, about twice
# that, where this costs next to nothing.
MAIN_LOBE = 2.0
CHEAP_IMSIZE = 640

# An automatic image is no larger than this; the user hears of it.
MAX_AUTO_IMSIZE = 2048

# Phase of the w term at the image's edge from which w-projection is needed [rad].
W_PHASE_LIMIT = 0.5

# Of Briggs weighting, if the user names none.
ROBUST = 0.5

# Fractional bandwidth from which the spectrum needs a second Taylor term.
TAYLOR_BANDWIDTH = 0.1

# The mask of a dirty image leaves out peaks below this multiple of the highest sidelobe.
SIDELOBE_FACTOR = 1.5

# A mask that grows by less than this factor has opened to all there is: edges of islands go on growing.
LEAST_OPENING = 1.05

# From this dynamic range images are cleaned deeper.
HIGH_DYNAMIC_RANGE = 5000.0


@dataclass(frozen=True)
class Choices:
    """What the user asked for; None where peelkit is to choose."""

    imsize: int | None = None
    cell_arcsec: float | None = None
    robust: float | None = None
    nterms: int | None = None
    scales: tuple[int, ...] = ()
    gridder: str | None = None
    uvrange: str = ""
    niter: int = 20000
    stokes: str = "I"
    imager: str = imagers.TCLEAN
    smearing: float | None = None


def primary_beam_rad(freq_hz: float, diameter_m: float) -> float:
    """Half-power width of the primary beam [rad], ``1.13 lambda / D`` (a tapered dish)."""
    return 1.13 * C_M_S / freq_hz / diameter_m


def field_of_view_rad(info: ms.MsInfo, survey: Survey, spws: Sequence[int]) -> float:
    """Half-power width of the widest primary beam in the data [rad]: smallest dish, lowest frequency."""
    low = min(
        float((info.spws[spw].freq_hz - np.abs(info.spws[spw].width_hz) / 2).min()) for spw in spws
    )
    diameters = [info.antennas[antenna].diameter_m for antenna in survey.antennas]
    return primary_beam_rad(low, min((size for size in diameters if size > 0), default=25.0))


def fast_size(pixels: float) -> int:
    """Smallest even size of at least ``pixels`` with the factors 2, 3 and 5 only."""
    size = max(64, math.ceil(pixels))
    while True:
        size += size % 2
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def choose(
    info: ms.MsInfo,
    survey: Survey,
    choices: Choices,
    *,
    spws: list[int],
    fields: Sequence[int] = (),
) -> tuple[engine.Imaging, list[str]]:
    """Settle how to image one field, or several as one mosaic, and what to tell the user about it.

    Parameters
    ----------
    fields : sequence of int
        More than one is a mosaic: the image is centred on the middle of the pointings and covers them
        and the primary beam around them.

    Returns
    -------
    Imaging
        For `peelkit.engines.casa.clean`.
    list of str
        Warnings.
    """
    warnings = []
    freqs = np.concatenate([info.spws[spw].freq_hz for spw in spws])
    widths = np.concatenate([np.abs(info.spws[spw].width_hz) for spw in spws])
    low, high = float((freqs - widths / 2).min()), float((freqs + widths / 2).max())
    if survey.max_uv_lambda <= 0:
        raise DataError(f"{info.path}: all baselines have zero length; is UVW filled?")
    cell = choices.cell_arcsec or _round_down(
        math.degrees(1 / survey.max_uv_lambda) * 3600 / OVERSAMPLING
    )
    view = math.degrees(field_of_view_rad(info, survey, spws)) * 3600
    middle = mosaic.centre(info, fields) if len(fields) > 1 else None
    if middle is not None and choices.gridder not in (None, "mosaic"):
        raise OptionError(
            f"--gridder {choices.gridder}: {len(fields)} fields need the mosaic gridder; leave it out, or "
            "choose one with --field."
        )
    imsize = choices.imsize
    if imsize is None:
        if middle is None:
            imsize = fast_size(max(view / cell, min(MAIN_LOBE * view / cell, CHEAP_IMSIZE)))
        else:
            view = 2 * (math.degrees(middle.reach_rad) * 3600 + mosaic.REACH_BEAMS * view)
            imsize = fast_size(view / cell)
        if imsize > MAX_AUTO_IMSIZE:
            covered = "primary beam" if middle is None else "mosaic"
            warnings.append(
                f"the image covers {MAX_AUTO_IMSIZE * cell / 60:.2g}' of the {covered}'s "
                f"{view / 60:.2g}'; sources outside it are not modelled "
                "(--imsize makes it larger)"
            )
            imsize = MAX_AUTO_IMSIZE
    w_phase = w_phase_rad(survey, imsize, cell)
    gridder = choices.gridder or tclean_gridder(w_phase)
    if choices.imager == imagers.WSCLEAN and middle is None:
        gridder = imagers.gridder(choices.gridder)
    if middle is not None:
        gridder = "mosaic"
        if w_phase > W_PHASE_LIMIT:
            warnings.append(
                f"CASA's mosaic gridder leaves out the w term, here {w_phase:.1f} rad at the edge of the "
                "image; bright sources there are smeared (fewer fields at a time, --field, help)"
            )
    nterms = choices.nterms or (2 if (high - low) / ((high + low) / 2) > TAYLOR_BANDWIDTH else 1)
    hands = {
        name
        for item in info.data_descriptions
        if item.spw in spws
        for name in item.correlations
        if name in ms.PARALLEL_HANDS
    }
    if not hands:
        raise DataError(f"{info.path}: no parallel-hand correlations; Stokes I cannot be made.")
    correlations = {
        name for item in info.data_descriptions if item.spw in spws for name in item.correlations
    }
    stokes.check(choices.stokes, correlations)
    imaging = engine.Imaging(
        imsize=imsize,
        cell_arcsec=cell,
        robust=ROBUST if choices.robust is None else choices.robust,
        nterms=nterms,
        scales=choices.scales,
        gridder=gridder,
        uvrange=choices.uvrange,
        niter=choices.niter,
        stokes=choices.stokes if len(hands) > 1 else next(iter(hands)),
        phasecenter=middle.phasecenter if middle is not None else "",
        imager=choices.imager,
        smearing=engine.SMEARING if choices.smearing is None else choices.smearing,
    )
    return imaging, warnings


def w_phase_rad(survey: Survey, imsize: int, cell_arcsec: float) -> float:
    """Phase of the w term at the edge of an image [rad]."""
    edge = math.radians(imsize * cell_arcsec / 3600) / 2
    return math.pi * survey.max_w_lambda * edge**2


def tclean_gridder(w_phase_rad: float) -> str:
    """Tclean's gridder for one field."""
    return "wproject" if w_phase_rad > W_PHASE_LIMIT else "standard"


def _round_down(value: float) -> float:
    """Two significant digits, downwards: 0.4113 becomes 0.41."""
    digits = 1 - math.floor(math.log10(value))
    return math.floor(value * 10**digits) / 10**digits


@dataclass(frozen=True)
class Target:
    """What is imaged: the MS, and its field, spws, executions and column in CASA's words."""

    ms: Path
    field: str
    spw: str
    observation: str = ""
    datacolumn: str = "data"


@dataclass(frozen=True)
class Cleaned:
    """A cleaned image with the mask that it was cleaned in."""

    imagename: Path
    image: Image
    mask: NDArray[np.bool_]

    @property
    def empty(self) -> bool:
        """No source was found."""
        return not bool(self.mask.any())


def remove_products(imagename: Path) -> None:
    """Delete what tclean made of ``imagename``."""
    for path in products(imagename):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


# What depends on the weights alone, so that tclean need not make it again of the same data.
PSF_PRODUCTS = frozenset({"psf", "sumwt", "weight", "pb"})

# What tclean makes of an imagename, and what we put beside it. Only these are ever deleted: an MS may
# have the same stem.
PRODUCTS = (
    "image", "image.pbcor", "restored.image", "psf", "residual", "model", "mask", "cleanmask", "pb",
    "sumwt", "weight", "gridwt", "gridwt_moswt", "gridwt_temp", "alpha", "alpha.error", "workdirectory",
)  # fmt: skip


def products(imagename: Path) -> list[Path]:
    """What is there of ``imagename``: images, with and without Taylor terms, and their sidecars."""
    found = []
    for path in imagename.parent.glob(f"{glob.escape(imagename.name)}.*"):
        if kind(path, imagename) in PRODUCTS:
            found.append(path)
    return sorted(found)


def kind(path: Path, imagename: Path) -> str:
    """Kind of a product: ``image`` of ``<imagename>.image.tt0``."""
    kind = path.name[len(imagename.name) + 1 :].removesuffix(".peelkit.json")
    return re.sub(r"\.tt\d$", "", kind)


def max_sidelobe(psf: Image, beam_major_pixels: float) -> float:
    """Highest absolute sidelobe of a PSF, outside 1.5 beams from its peak."""
    data = np.asarray(psf.data)
    y, x = np.unravel_index(int(np.nanargmax(data)), data.shape)
    ys, xs = np.ogrid[: data.shape[0], : data.shape[1]]
    outside = np.hypot(ys - y, xs - x) > 1.5 * beam_major_pixels
    return float(np.nanmax(np.abs(data[outside]))) if outside.any() else 0.0


def grow_mask(
    image: Image, mask: NDArray[np.bool_], sigma: float, *, floor: float = 0.0
) -> NDArray[np.bool_]:
    """Mask of what stands out of the image by ``sigma``, and above ``floor`` [Jy/beam], and ``mask``.

    What is found is widened by one beam: the wings of a bright source below the threshold are real,
    and their sidelobes stay in the image if they are not cleaned.
    """
    found = threshold_mask(image, sigma=sigma).mask
    if floor > 0:
        found = found & (image.data > floor)
    if found.any() and image.beam is not None:
        found = widened(found, image.beam.major_arcsec / image.cell_arcsec)
    # A mosaic is blank beyond its primary beam.
    grown: NDArray[np.bool_] = (found & np.isfinite(image.data)) | mask
    return grown


def sidelobe_level(image: Image, psf: Image) -> float:
    """Level below which sidelobes of a source of 1 Jy/beam are expected, with a margin."""
    major = image.beam.major_arcsec / image.cell_arcsec if image.beam else 5.0
    return min(0.9, SIDELOBE_FACTOR * max_sidelobe(psf, major))


def doubtful_jy(image: Image, psf: Path, added: NDArray[np.bool_], *, nsigma: float) -> float:
    """Components fainter than this [Jy] may stand for sidelobes of what the mask opens to, ``added``.

    0 where those sidelobes were too faint to be cleaned, to ``nsigma``.
    """
    if not added.any():
        return 0.0
    level = sidelobe_level(image, read_image(psf)) * float(image.data[added].max())
    cleaned_to = nsigma * robust_rms(image.data[~added & np.isfinite(image.data)])
    return level if level > SIDELOBE_FACTOR * cleaned_to else 0.0


def dirty_mask(dirty: Image, psf: Image, sigma: float) -> NDArray[np.bool_]:
    """Mask of a dirty image: what stands out of the noise and of the brightest peak's sidelobes."""
    floor = sidelobe_level(dirty, psf) * float(np.nanmax(dirty.data))
    return grow_mask(dirty, np.zeros(dirty.data.shape, dtype=bool), sigma, floor=floor)


def user_mask(path: Path, template: Image) -> NDArray[np.bool_]:
    """Mask or regions of the user's on the grid of ``template``.

    Raises
    ------
    DataError
        If it does not fit, or is empty.
    """
    from peelkit.io.region import read_regions, region_mask

    if path.suffix.lower() in (".crtf", ".reg", ".ds9"):
        result = np.zeros(template.data.shape, dtype=bool)
        for region in read_regions(path, template):
            result |= region_mask(region, template)
    else:
        result = read_mask(path, template)
    if not result.any():
        raise DataError(f"{path}: the mask is empty; nothing would be cleaned.")
    return result


def widened(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """Grow ``mask`` by ``pixels`` in all directions."""
    from scipy.ndimage import distance_transform_edt

    result: NDArray[np.bool_] = distance_transform_edt(~mask) <= pixels
    return result


def depth(dynamic_range: float) -> float:
    """How deep to clean in a trusted mask [sigma].

    3 as a rule. At high dynamic range 1: there the sidelobes of what is left uncleaned in the mask
    add up above the noise (3C273: rms 1.8 mJy at 3 sigma, 1.4 at 1 sigma, the same solutions). Where
    noise limits the image, 1 sigma would clean noise away: a point of S/N 1800 then came out with 0.75
    of its thermal rms.
    """
    return 1.0 if dynamic_range > HIGH_DYNAMIC_RANGE else 3.0


def clean_in_mask(
    imager: imagers.Imager,
    target: Target,
    imagename: Path,
    imaging: engine.Imaging,
    mask: NDArray[np.bool_],
    *,
    nsigma: float,
    like: Image | None = None,
    resume: bool = False,
    model_changed: bool = False,
    psf_there: bool = False,
) -> Cleaned:
    """Clean in ``mask`` (shape of the image); with an empty mask the image stays dirty.

    ``like`` is an image of the same size, needed to write the mask before there is an own image. For the rest
    see `peelkit.engines.casa.clean`.
    """
    mask_path = None
    if mask.any():
        mask_path = imagename.with_name(f"{imagename.name}.cleanmask")
        template = like or read_image(imaging.image(imagename))
        write_like(mask_path, mask, template, unit="", overwrite=True)
    imagers.clean(
        imager,
        target.ms,
        imagename,
        imaging,
        field=target.field,
        spw=target.spw,
        observation=target.observation,
        datacolumn=target.datacolumn,
        mask=mask_path,
        nsigma=nsigma,
        resume=resume,
        model_changed=model_changed,
        psf_there=psf_there,
    )
    return Cleaned(imagename, read_image(imaging.image(imagename)), mask)


def clean_on(
    imager: imagers.Imager,
    target: Target,
    before: Cleaned,
    imaging: engine.Imaging,
    mask: NDArray[np.bool_],
    *,
    cleaned_to: float,
    nsigma: float,
    same_weights: bool = True,
) -> Cleaned:
    """Clean an image of the same data on, in a mask that opened.

    Components that may stand for sidelobes of what the mask opened to are taken out first (`restart`).

    Parameters
    ----------
    cleaned_to, nsigma : float
        Depth before, and now.
    same_weights : bool
        Else the PSF is made anew.
    """
    name = before.imagename
    doubtful = 0.0
    if imagers.begins_with_model(imaging):
        added = mask & ~before.mask
        doubtful = doubtful_jy(before.image, imaging.psf(name), added, nsigma=cleaned_to)
        restart.drop_doubtful(name, imaging, doubtful)
    return clean_in_mask(
        imager, target, name, imaging, mask, nsigma=nsigma,
        resume=same_weights, model_changed=doubtful > 0,
    )  # fmt: skip


def dirty_image(
    imager: imagers.Imager, target: Target, imagename: Path, imaging: engine.Imaging
) -> Cleaned:
    """Image without cleaning; what there was of ``imagename`` is replaced."""
    remove_products(imagename)
    none = np.zeros((imaging.imsize, imaging.imsize), dtype=bool)
    return clean_in_mask(imager, target, imagename, imaging, none, nsigma=0.0)


def opened(
    imager: imagers.Imager,
    target: Target,
    cleaned: Cleaned,
    imaging: engine.Imaging,
    *,
    sigma: float,
    nsigma: float,
    passes: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Cleaned:
    """Open the mask to what stands out by ``sigma``, and clean on, until it opens no more.

    Parameters
    ----------
    passes : int
        How often at most.
    allowed : ndarray of bool, optional
        Where the mask may be.
    """
    for _ in range(passes):
        if cleaned.mask.any():
            grown = grow_mask(cleaned.image, cleaned.mask, sigma)
        else:
            grown = dirty_mask(cleaned.image, read_image(imaging.psf(cleaned.imagename)), sigma)
        if allowed is not None:
            grown &= allowed
        if grown.sum() <= LEAST_OPENING * cleaned.mask.sum():
            break
        cleaned = clean_on(
            imager, target, cleaned, imaging, grown,
            cleaned_to=nsigma, nsigma=nsigma,
        )  # fmt: skip
    return cleaned


def summary(imaging: engine.Imaging) -> dict[str, Any]:
    """What the sidecar says of the imaging."""
    return {**asdict(imaging), "scales": list(imaging.scales)}


def from_summary(record: dict[str, Any]) -> engine.Imaging:
    """The imaging that `summary` described."""
    return engine.Imaging(**{**record, "scales": tuple(record["scales"])})
