"""Regions on the sky: CRTF and DS9 files read and written, and turned into pixels."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import ICRS, SkyCoord
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
from peelkit.io.image import Image

log = logging.getLogger(__name__)

CRTF_SUFFIXES = (".crtf",)
DS9_SUFFIXES = (".reg", ".ds9")

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
    """

    shape: SkyRegion | PixelRegion
    label: str = ""
    source: str = ""
    number: int = 0

    def __str__(self) -> str:
        name = f"region {self.number}" if self.number else "region"
        if self.label:
            name += f" ({self.label})"
        return f"{self.source}: {name}" if self.source else name


def read_regions(path: Path) -> list[LabelledRegion]:
    """Read a CRTF or DS9 region file; which of them is told from the content.

    Returns
    -------
    list of LabelledRegion
        At least one. Annotations are left out, with a warning in the log.

    Raises
    ------
    DataError
        If the file is unreadable, empty, or has a region that is malformed, of another shape, an
        exclusion, or there twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such region file.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise DataError(f"{path}: no region file ({reason}); give CRTF or DS9 regions.") from error
    if _is_crtf(path, text):
        found = [LabelledRegion(shape, label, str(path)) for shape, label in parse_crtf(path, text)]
    else:
        found = [LabelledRegion(shape, label, str(path)) for shape, label in parse_ds9(path, text)]
    if not found:
        raise DataError(f"{path}: no region in this file; {USE}, one a line.")
    found = [replace(region, number=number) for number, region in enumerate(found, 1)]
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
    is the pixel that it is in.

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
        If no pixel of the image is in the region.
    """
    shape = region.shape
    ny, nx = image.data.shape
    mask = np.zeros((ny, nx), dtype=bool)
    pixels = _to_pixels(shape, image) if isinstance(shape, SkyRegion) else shape
    if pixels is not None:
        found = pixels.to_mask(mode="center").to_image((ny, nx))
        if found is not None:
            mask = np.asarray(found, dtype=bool)
        if not mask.any():
            x, y = _centre(pixels)
            column, row = round(x), round(y)
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
    centre = PixCoord(*corners[0])
    step = image.cell_arcsec * u.arcsec
    north, east = (
        np.subtract(
            image.pixel(_icrs(shape.center.directional_offset_by(angle * u.deg, step))), corners[0]
        )
        for angle in (0, 90)
    )
    cell = image.cell_arcsec / math.sqrt(abs(north[0] * east[1] - north[1] * east[0]))
    if isinstance(shape, CircleSkyRegion):
        return CirclePixelRegion(centre, shape.radius.to_value("arcsec") / cell)
    turn = shape.angle.to_value("rad")
    # Width along west at angle zero, turned from west through north.
    along = north * math.sin(turn) - east * math.cos(turn)
    kind = EllipsePixelRegion if isinstance(shape, EllipseSkyRegion) else RectanglePixelRegion
    return kind(
        centre,
        width=shape.width.to_value("arcsec") / cell,
        height=shape.height.to_value("arcsec") / cell,
        angle=math.atan2(along[1], along[0]) * u.rad,
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
