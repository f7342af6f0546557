"""Regions on the sky: CRTF and DS9 files read and written, and turned into pixels."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from numpy.typing import NDArray
from regions import (
    CirclePixelRegion,
    CircleSkyRegion,
    EllipsePixelRegion,
    EllipseSkyRegion,
    PixCoord,
    PixelRegion,
    PolygonPixelRegion,
    PolygonSkyRegion,
    RectanglePixelRegion,
    RectangleSkyRegion,
    SkyRegion,
)

from peelkit import sidecar
from peelkit.errors import DataError
from peelkit.io.crtf import USE, parse_crtf
from peelkit.io.ds9 import parse_ds9
from peelkit.io.image import Image, grid_difference, pixels_of

log = logging.getLogger(__name__)

CRTF_SUFFIXES = (".crtf",)
DS9_SUFFIXES = (".reg", ".ds9")

# A region of DS9 that covers the image, and is more than so many times as wide and as high, is a mistake.
MOST_SIDES = 2

SHAPES = (
    CircleSkyRegion, EllipseSkyRegion, RectangleSkyRegion, PolygonSkyRegion,
    CirclePixelRegion, EllipsePixelRegion, RectanglePixelRegion, PolygonPixelRegion,
)  # fmt: skip


@dataclass(frozen=True)
class LabelledRegion:
    """A region with its name.

    Parameters
    ----------
    shape : regions.SkyRegion or regions.PixelRegion
        Circle, ellipse, rectangle or polygon. Angles as in ``regions``: the position angle, north
        through east, of the height.
    label : str
        Empty if it has none.
    source : str
        The file it was read from, for messages.
    number : int
        Its place in the file, from 1.
    pixels_of : Image or None
        The image whose pixels a region in pixels has; None where it has only ever one.
    """

    shape: SkyRegion | PixelRegion
    label: str = ""
    source: str = ""
    number: int = 0
    pixels_of: Image | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        name = f"region {self.number}" if self.number else "region"
        if self.label:
            name += f" ({self.label})"
        return f"{self.source}: {name}" if self.source else name


def read_regions(path: Path, image: Image) -> list[LabelledRegion]:
    """Read a CRTF or DS9 region file; which of them is told from the content.

    Parameters
    ----------
    path : Path
        The file.
    image : Image
        What the regions are for: its frame is that of CRTF regions without ``coord=`` (as in CASA), and
        its pixels are those of regions in pixels.

    Returns
    -------
    list of LabelledRegion
        At least one. What has no area is left out, and where regions in pixels are is told, with a
        warning in the log.

    Raises
    ------
    DataError
        If the file is unreadable, empty, or has a region that is malformed, of another shape, an
        exclusion, or there twice.
    """
    found = [
        replace(region, pixels_of=image) if isinstance(region.shape, PixelRegion) else region
        for region in _read(path, image.frame)
    ]
    if fallen := [region for region in found if region.pixels_of]:
        log.warning(
            "%s: in pixels, which are taken for those of %s: %s.",
            path, image.path, ", ".join(_fell(region, image) for region in fallen),
        )  # fmt: skip
    return found


def _fell(region: LabelledRegion, image: Image) -> str:
    assert isinstance(region.shape, PixelRegion)
    place = image.sky(*_centre(region.shape))
    where = place.to_string("hmsdms", precision=2) if math.isfinite(place.ra.deg) else "off the sky"
    return f"{region.label or f'region {region.number}'} is at {where}"


def check_regions(path: Path) -> None:
    """Raise `DataError` as `read_regions` would, before there is an image."""
    _read(path, ICRS())


def _read(path: Path, frame: BaseCoordinateFrame) -> list[LabelledRegion]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such region file.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise DataError(f"{path}: no region file ({reason}); give CRTF or DS9 regions.") from error
    shapes = parse_crtf(path, text, frame) if _is_crtf(path, text) else parse_ds9(path, text)
    found = [
        LabelledRegion(shape, label, str(path), number)
        for number, (shape, label) in enumerate(shapes, 1)
    ]
    if not found:
        raise DataError(f"{path}: no region in this file; {USE}, one a line.")
    for region in found:
        _check_shape(region)
    _refuse_duplicates(found)
    return found


def _is_crtf(path: Path, text: str) -> bool:
    first = text.lstrip("\ufeff \t\r\n")[:200]
    if first.upper().startswith("#CRTF"):
        return True
    if re.match(r"#\s*Region file format: DS9", first, re.IGNORECASE):
        return False
    if re.search(r"^\s*[+-]?\s*(ann\s+)?[a-z]+\s*\[\s*\[", text, re.IGNORECASE | re.MULTILINE):
        return True
    return path.suffix.lower() in CRTF_SUFFIXES


def _check_shape(region: LabelledRegion) -> None:
    shape = region.shape
    if not isinstance(shape, SHAPES):
        kind = type(shape).__name__.removesuffix("SkyRegion").removesuffix("PixelRegion").lower()
        raise DataError(f"{region}: a {kind} is no area that can be masked; {USE}.")
    if isinstance(shape, PolygonSkyRegion | PolygonPixelRegion):
        count = len(shape.vertices)
        if count < 3:
            raise DataError(f"{region}: a polygon of {count} corners; give three or more.")
    if not np.isfinite(_signature(shape)[1]).all():
        raise DataError(f"{region}: a number that is not finite; write it again.")


def _signature(shape: SkyRegion | PixelRegion) -> tuple[str, NDArray[np.float64]]:
    """Kind and numbers of a region: degrees in ICRS, or pixels."""
    values: list[float] = []
    for name in shape._params:
        value = getattr(shape, name)
        if isinstance(value, SkyCoord):
            place = _icrs(value)
            values += [*np.atleast_1d(place.ra.deg), *np.atleast_1d(place.dec.deg)]
        elif isinstance(value, PixCoord):
            values += [*np.atleast_1d(value.x), *np.atleast_1d(value.y)]
        else:
            values.append(value.to_value("deg") if hasattr(value, "unit") else float(value))
    return type(shape).__name__, np.array(values, dtype=float)


def _refuse_duplicates(found: Sequence[LabelledRegion]) -> None:
    known: list[tuple[LabelledRegion, str, NDArray[np.float64]]] = []
    for region in found:
        kind, values = _signature(region.shape)
        for other, other_kind, other_values in known:
            # A thousandth of an arcsecond, or of a pixel.
            tolerance = 3e-7 if isinstance(region.shape, SkyRegion) else 1e-3
            if (
                kind == other_kind
                and values.shape == other_values.shape
                and np.all(np.abs(values - other_values) < tolerance)
            ):
                name = f" ({other.label})" if other.label else ""
                raise DataError(f"{region}: the same as region {other.number}{name}; delete one.")
        known.append((region, kind, values))


def _icrs(position: SkyCoord) -> SkyCoord:
    """ICRS position, without the attributes (equinox, ...) that SkyCoord drags along."""
    place = position.transform_to(ICRS())
    return SkyCoord(place.ra, place.dec, frame=ICRS())


# --- pixels -------------------------------------------------------------------------------------


def region_mask(region: LabelledRegion, image: Image) -> NDArray[np.bool_]:
    """Pixels of an image whose centres are in a region.

    The region's centre and corners go through `Image.pixel`, which knows CASA's B1950_VLA; axes and
    position angle are those of the region's own frame at its centre. A region smaller than a pixel
    is the pixel that it is in. A region in pixels is where it is on the sky of its own image.

    Parameters
    ----------
    region : LabelledRegion
        On the sky in any frame, or in pixels.
    image : Image
        Gives shape and coordinates.

    Returns
    -------
    ndarray of bool, shape (ny, nx)

    Raises
    ------
    DataError
        If no pixel of the image is in the region, or it is far larger than the image.
    """
    shape, own = region.shape, region.pixels_of
    ny, nx = image.data.shape
    mask = np.zeros((ny, nx), dtype=bool)
    pixels: PixelRegion | None
    if isinstance(shape, PixelRegion) and own and own is not image and grid_difference(own, image):
        rows, columns = np.mgrid[0:ny, 0:nx].astype(float)
        x, y = pixels_of(image, own, columns, rows)
        # Of a region smaller than these pixels, the one that it is in.
        mask = np.isfinite(x) & np.asarray(shape.contains(PixCoord(x, y)))
        pixels = CirclePixelRegion(PixCoord(*image.pixel(own.sky(*_centre(shape)))), 0.1)
    else:
        pixels = _to_pixels(shape, image) if isinstance(shape, SkyRegion) else shape
        if pixels is not None:
            # Only within the image: what a file says of sizes is not what there is memory for.
            box = pixels.bounding_box
            y, x = np.meshgrid(
                np.arange(max(0, box.iymin), min(ny, box.iymax)),
                np.arange(max(0, box.ixmin), min(nx, box.ixmax)),
                indexing="ij",
            )
            mask[y, x] = pixels.contains(PixCoord(x, y))
            bare = isinstance(shape, SkyRegion) and region.source.lower().endswith(DS9_SUFFIXES)
            if bare and mask.all() and min(box.shape[0] / ny, box.shape[1] / nx) > MOST_SIDES:
                cell_deg = image.cell_arcsec / 3600
                raise DataError(
                    f"{region}: {max(box.shape) * cell_deg:.3g} deg wide, where all of {image.path} is "
                    f'{max(nx, ny) * cell_deg:.3g} deg; DS9 takes a bare number for degrees: write 60" for arcsec.'
                )
    if pixels is not None and not mask.any():
        column, row = (round(value) for value in _centre(pixels))
        if 0 <= column < nx and 0 <= row < ny and pixels.area < 1:
            mask[row, column] = True
    if not mask.any():
        raise DataError(
            f"{region}: {_where(shape)} is outside {image.path}; check its frame, or take it out."
        )
    return mask


def pixel_box(region: LabelledRegion, image: Image) -> tuple[float, float, float]:
    """Middle (x, y) of a region's bounding box in pixels of an image, and its longer side.

    The region may lie outside the image.

    Raises
    ------
    DataError
        If it is on the other side of the sky.
    """
    shape = region.shape
    pixels = _to_pixels(shape, image) if isinstance(shape, SkyRegion) else shape
    if pixels is None:
        raise DataError(
            f"{region}: {_where(shape)} is on the other side of the sky; check its frame."
        )
    box = pixels.bounding_box
    # Its upper limits are exclusive.
    x, y = (box.ixmin + box.ixmax - 1) / 2, (box.iymin + box.iymax - 1) / 2
    return x, y, float(max(box.shape))


def _centre(pixels: PixelRegion) -> tuple[float, float]:
    if isinstance(pixels, PolygonPixelRegion):
        return float(np.mean(pixels.vertices.x)), float(np.mean(pixels.vertices.y))
    return float(pixels.center.x), float(pixels.center.y)


def _where(shape: SkyRegion | PixelRegion) -> str:
    if isinstance(shape, PixelRegion):
        x, y = _centre(shape)
        return f"pixel {x:.1f},{y:.1f}"
    place = shape.vertices[0] if isinstance(shape, PolygonSkyRegion) else shape.center
    return f"{_icrs(place).to_string('hmsdms', precision=2)} (ICRS)"


def _to_pixels(shape: SkyRegion, image: Image) -> PixelRegion | None:
    """Turn it into pixels; None if it is on the other side of the sky."""
    ny, nx = image.data.shape
    middle = image.sky((nx - 1) / 2, (ny - 1) / 2)
    is_polygon = isinstance(shape, PolygonSkyRegion)
    # By way of ICRS: astropy's own path from galactic to FK4 is 0.1 arcsec off the one by FK5.
    places = [_icrs(place) for place in (shape.vertices if is_polygon else [shape.center])]
    # Beyond 90 degrees a projection may fold back onto the image.
    if not all(middle.separation(place).deg < 90 for place in places):
        return None
    corners = [image.pixel(place) for place in places]
    if not np.all(np.isfinite(corners)):
        return None
    if is_polygon:
        return PolygonPixelRegion(PixCoord(*np.transpose(corners)))
    step = image.cell_arcsec * u.arcsec
    # Pixels per arcsec, towards east and north: pixels need be neither square nor north up.
    east, north = (
        np.subtract(
            image.pixel(_icrs(shape.center.directional_offset_by(angle * u.deg, step))), corners[0]
        )
        / image.cell_arcsec
        for angle in (90, 0)
    )
    is_circle = isinstance(shape, CircleSkyRegion)
    width, height = (
        (2 * shape.radius, 2 * shape.radius) if is_circle else (shape.width, shape.height)
    )
    turn = 0.0 if is_circle else shape.angle.to_value("rad")
    # Half the width along west at angle zero, turned from west through north; half the height along north.
    halves = np.column_stack(
        [
            (north * math.sin(turn) - east * math.cos(turn)) * width.to_value("arcsec") / 2,
            (north * math.cos(turn) + east * math.sin(turn)) * height.to_value("arcsec") / 2,
        ]
    )
    if isinstance(shape, RectangleSkyRegion):
        signs = np.array([(-1, 1, 1, -1), (-1, -1, 1, 1)])
        return PolygonPixelRegion(PixCoord(*(np.array(corners[0])[:, None] + halves @ signs)))
    # A linear map makes an ellipse of a circle, and of an ellipse another.
    axes, lengths, _ = np.linalg.svd(halves)
    return EllipsePixelRegion(
        PixCoord(*corners[0]),
        width=2 * lengths[0],
        height=2 * lengths[1],
        angle=math.atan2(axes[1, 0], axes[0, 0]) * u.rad,
    )


# --- writing ------------------------------------------------------------------------------------


def is_region_name(path: Path) -> bool:
    """Tell whether `write_regions` knows the format by the name: .crtf, .reg or .ds9."""
    return path.suffix.lower() in CRTF_SUFFIXES + DS9_SUFFIXES


def write_regions(
    path: Path, regions: Sequence[LabelledRegion], *, overwrite: bool = False
) -> None:
    """Write regions in ICRS, as CRTF (``.crtf``) or DS9 (``.reg``, ``.ds9``), in one step.

    Parameters
    ----------
    path : Path
        The product.
    regions : sequence of LabelledRegion
        On the sky; at least one.
    overwrite : bool
        Replace what exists.

    Raises
    ------
    DataError
        If it exists and may not be replaced, cannot be written, or a region or label cannot be.
    """
    if not is_region_name(path):
        raise DataError(f"{path}: name it .crtf for CASA's format or .reg for DS9's.")
    if not regions:
        raise DataError(f"{path}: no region to write.")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists; give another name or --overwrite.")
    is_crtf = path.suffix.lower() in CRTF_SUFFIXES
    if is_crtf:
        lines = ["#CRTFv0 CASA Region Text Format version 0"]
    else:
        lines = ["# Region file format: DS9 version 4.1", "icrs"]
    for region in regions:
        if not isinstance(region.shape, SHAPES) or not isinstance(region.shape, SkyRegion):
            raise DataError(f"{region}: not written, since it is not on the sky; {USE}.")
        if re.search(r"[\n'\"{}]" if is_crtf else r"[\n{}]", region.label):
            raise DataError(f"{region}: quotes and braces in a label cannot be written; rename it.")
        lines.append(_crtf_line(region) if is_crtf else _ds9_line(region))
    sidecar.write_text(path, "\n".join(lines) + "\n")


def _icrs_angle(centre: SkyCoord, angle: Any) -> float:
    """Turn a position angle in the frame of ``centre`` into one in ICRS [deg]."""
    if isinstance(centre.frame, ICRS):
        return float(angle.to_value("deg"))
    tip = centre.directional_offset_by(angle, 10 * u.arcsec)
    return float(_icrs(centre).position_angle(_icrs(tip)).deg)


def _degrees(position: SkyCoord) -> tuple[float, float]:
    place = _icrs(position)
    return float(place.ra.deg), float(place.dec.deg)


def _arcsec(length: Any) -> str:
    return f"{length.to_value('arcsec'):.9g}"


def _crtf_line(region: LabelledRegion) -> str:
    shape = region.shape
    if isinstance(shape, PolygonSkyRegion):
        corners = ", ".join(_crtf_place(corner) for corner in shape.vertices)
        text = f"poly [{corners}]"
    elif isinstance(shape, CircleSkyRegion):
        text = f"circle [{_crtf_place(shape.center)}, {_arcsec(shape.radius)}arcsec]"
    else:
        angle = f"{_icrs_angle(shape.center, shape.angle):.6f}deg"
        width, height = shape.width, shape.height
        kind, first, second = "rotbox", width, height
        if isinstance(shape, EllipseSkyRegion):
            kind, first, second = "ellipse", height / 2, width / 2
        text = (
            f"{kind} [{_crtf_place(shape.center)}, [{_arcsec(first)}arcsec, "
            f"{_arcsec(second)}arcsec], {angle}]"
        )
    label = f", label='{region.label}'" if region.label else ""
    return f"{text} coord=ICRS{label}"


def _crtf_place(position: SkyCoord) -> str:
    ra, dec = _degrees(position)
    return f"[{ra:.10f}deg, {dec:.10f}deg]"


def _ds9_line(region: LabelledRegion) -> str:
    shape = region.shape
    if isinstance(shape, PolygonSkyRegion):
        text = "polygon(" + ",".join(_ds9_place(corner) for corner in shape.vertices) + ")"
    elif isinstance(shape, CircleSkyRegion):
        text = f'circle({_ds9_place(shape.center)},{_arcsec(shape.radius)}")'
    else:
        angle = _icrs_angle(shape.center, shape.angle)
        kind, part = ("ellipse", 2) if isinstance(shape, EllipseSkyRegion) else ("box", 1)
        width, height = _arcsec(shape.width / part), _arcsec(shape.height / part)
        text = f'{kind}({_ds9_place(shape.center)},{width}",{height}",{angle:.6f})'
    return f"{text} # text={{{region.label}}}" if region.label else text


def _ds9_place(position: SkyCoord) -> str:
    ra, dec = _degrees(position)
    return f"{ra:.10f},{dec:.10f}"
