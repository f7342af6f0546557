"""Which model images, primary beam and columns ``peelkit predict-region`` works with."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core.columns import check_target
from peelkit.core.skymodel import SkyModel
from peelkit.errors import DataError, OptionError
from peelkit.io import ms, rownumbers
from peelkit.io.image import Image, read_image
from peelkit.io.modelimage import tclean_arguments
from peelkit.io.region import LabelledRegion, region_mask

PREFIX = "BRIGHT"

# Phase centres that differ by no more than this are one [rad]: 0.01 arcsec.
SAME_CENTRE_RAD = 5e-8

# Gridders of tclean that take each field's primary beam into account.
MOSAIC_GRIDDERS = ("mosaic", "mosaicft", "ftmosaic", "awproject", "awprojectft", "awp2", "awphpg")


@dataclass(frozen=True)
class Direction:
    """One region, and the part of the model in it.

    Parameters
    ----------
    region : LabelledRegion
        As read.
    label : str
        Its own, or ``BRIGHT_<n>``.
    column : str
        That its visibilities go to.
    sky : SkyModel
        The CLEAN model in the region.
    """

    region: LabelledRegion
    label: str
    column: str
    sky: SkyModel


def model_paths(models: Sequence[Path], image: Path | None) -> list[Path]:
    """Model images that were given, or those beside a restored image, by CASA's names.

    Raises
    ------
    OptionError
        If both or neither are given.
    DataError
        If none is beside the image.
    """
    if bool(models) == (image is not None):
        raise OptionError(
            "give the model with --model, or the image that it is beside with --image."
        )
    if image is None:
        return list(models)
    if not image.exists():
        raise DataError(f"{image}: no such image.")
    # selfcal's final.image is a link to the image of a round.
    real = image.resolve()
    name = real.name.removesuffix(".pbcor")
    match = re.fullmatch(r"(.+)\.image(\.tt0)?", name)
    if not match:
        raise DataError(
            f"{image}: not named x.image or x.image.tt0, so that its model is not known; use --model."
        )
    base, terms = match.groups()
    if terms is None:
        found = [real.with_name(f"{base}.model")]
    else:
        found = [real.with_name(f"{base}.model.tt0")]
        while (more := real.with_name(f"{base}.model.tt{len(found)}")).exists():
            found.append(more)
    if not found[0].exists():
        raise DataError(f"{found[0]}: no such model beside {image}; use --model.")
    return found


def mosaic_beam(
    info: ms.MsInfo, rows: NDArray[np.int64], models: Sequence[Path], pb: Path | None
) -> Image | None:
    """Primary beam of a mosaic; None if the models are no mosaic's.

    Raises
    ------
    DataError
        If it is a mosaic, or may be one, and its primary beam is not there.
    """
    first = models[0]
    made = tclean_arguments(first)
    gridder = str(made.get("gridder", ""))
    if pb is None and gridder in MOSAIC_GRIDDERS:
        pb = first.with_name(first.name.replace(".model", ".pb"))
        if ".model" not in first.name or not pb.exists():
            raise DataError(
                f"{first}: a mosaic (gridder={gridder!r}) without {pb.name} beside it; give it with --pb."
            )
    if pb is None:
        count = len(_phase_centres(info, rows))
        if count > 1 and not gridder:
            raise DataError(
                f"{first}: the rows have {count} phase centres, and it is not known whether this is a "
                "mosaic; give its primary beam with --pb, or choose a field with --field."
            )
        return None
    norm = str(made.get("normtype", "flatnoise"))
    if norm != "flatnoise":
        raise DataError(
            f"{first}: made with normtype={norm!r}; image it with normtype='flatnoise'."
        )
    return read_image(pb)


def _phase_centres(info: ms.MsInfo, rows: NDArray[np.int64]) -> list[tuple[float, float]]:
    with ms.opened(info.path) as main:
        ids = sorted(
            {
                number
                for _, window, _ in rownumbers.windows(main, rows)
                for number in np.unique(ms.get(main, "FIELD_ID", window)).tolist()
            }
        )
    centres: list[tuple[float, float]] = []
    for field in (info.fields[number] for number in ids):
        here = (field.ra_rad, field.dec_rad)
        if not any(
            abs(here[0] - ra) * np.cos(dec) < SAME_CENTRE_RAD
            and abs(here[1] - dec) < SAME_CENTRE_RAD
            for ra, dec in centres
        ):
            centres.append(here)
    return centres


def directions(
    regions: Sequence[LabelledRegion],
    sky: SkyModel,
    *,
    prefix: str | None,
    elsewhere: Collection[str] = (),
) -> list[Direction]:
    """Cut the model into one part for each region.

    Parameters
    ----------
    regions : sequence of LabelledRegion
        At least one.
    sky : SkyModel
        The whole model.
    prefix : str or None
        Columns are ``<prefix>_<n>``; None for the regions' own labels, `PREFIX` where there is none.
    elsewhere : collection of str
        Labels of directions whose models come from elsewhere: this one may have nothing there.

    Raises
    ------
    DataError
        If a region is outside the image, has no flux or negative flux, overlaps another, or has
        another's column.
    """
    found: list[Direction] = []
    owner = np.zeros(sky.grid.shape, dtype=np.int16)
    for region in regions:
        mask = region_mask(region, sky.grid.like)
        taken = owner[mask]
        if taken.any():
            other = regions[int(taken.max()) - 1]
            raise DataError(
                f"{region}: overlaps {_short(other)} by {np.count_nonzero(taken)} pixels; make them "
                "smaller, or one."
            )
        owner[mask] = region.number
        label = region.label or f"{prefix or PREFIX}_{region.number}"
        # With a prefix several regions may be called alike.
        if any(label == one.label for one in found):
            label = f"{label}_{region.number}"
        column = column_name(region, prefix)
        clash = next((one for one in found if one.column == column), None)
        if clash is not None:
            raise DataError(
                f"{region}: its column would be {column}, as that of {_short(clash.region)}; give it "
                "another label, or use --prefix."
            )
        part = sky.where(mask)
        if label in elsewhere:
            found.append(Direction(region, label, column, part))
            continue
        if part.xs.size == 0:
            raise DataError(f"{region}: the model has no flux in it; {_nearest(mask, sky)}.")
        if part.flux_jy <= 0:
            raise DataError(
                f"{region}: the model's flux in it is {part.flux_jy * 1e3:.4g} mJy, not positive; take "
                "it out, make it larger, or, if the image is of peeled data, give --refine with ddsolve's sidecar."
            )
        found.append(Direction(region, label, column, part))
    return found


def column_name(region: LabelledRegion, prefix: str | None) -> str:
    """Column for a region: from its label, in capitals, or from the prefix and its number."""
    if prefix is not None or not region.label:
        name = f"{prefix or PREFIX}_{region.number}"
        check_target(name)
        return name
    name = re.sub(r"[^A-Za-z0-9]+", "_", region.label).strip("_").upper()
    # A column's name begins with a letter: 3C 286 becomes BRIGHT_3C_286.
    if not name[:1].isalpha():
        name = f"{PREFIX}_{name or region.number}"
    check_target(name)
    return name


def _short(region: LabelledRegion) -> str:
    return f"region {region.number}" + (f" ({region.label})" if region.label else "")


def _nearest(mask: NDArray[np.bool_], sky: SkyModel) -> str:
    """Where the model has flux that a region missed."""
    if sky.xs.size == 0:
        return "it has none where the mosaic's primary beam is known"
    ys, xs = np.nonzero(mask)
    x, y = float(xs.mean()), float(ys.mean())
    nearest = int(np.argmin(sky.grid.like.apart(sky.xs - x, sky.ys - y)))
    pixel = float(sky.xs[nearest]), float(sky.ys[nearest])
    place = sky.grid.like.sky(*pixel).to_string("hmsdms", precision=2)
    off = sky.grid.like.apart(pixel[0] - x, pixel[1] - y) * sky.grid.like.cell_arcsec
    return f"the nearest is at {place} (ICRS), {off:.3g} arcsec from its middle"


def check_columns(info: ms.MsInfo, columns: Sequence[str], *, overwrite: bool) -> None:
    """Refuse names that are taken, or given twice.

    Raises
    ------
    OptionError
        If a name is given twice.
    DataError
        If a column exists and may not be replaced.
    """
    for number, name in enumerate(columns):
        check_target(name)
        if name in columns[:number]:
            raise OptionError(f"column {name}: named twice; choose another name for one of them.")
    there = [name for name in columns if name in info.columns]
    if there and not overwrite:
        raise DataError(
            f"{info.path}: {', '.join(there)} exist{'s' if len(there) == 1 else ''} already; use "
            "--overwrite (undo puts it back), or other names."
        )
    with ms.opened(info.path) as main:
        for name in there:
            kind = str(main.getcoldesc(name)["valueType"]).lower()
            if kind not in ("complex", "dcomplex"):
                raise DataError(
                    f"{info.path}: column {name} has values of type {kind}, not visibilities; choose "
                    "another name."
                )
