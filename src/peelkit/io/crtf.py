"""CASA's region text format (CRTF), parsed into shapes of the ``regions`` package.

That package's own parser takes the height of a ``box`` for its width without cos(dec), reads a
declination with colons as hours, and takes a line without ``coord=`` for pixels.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astropy import units as u
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    Angle,
    BaseCoordinateFrame,
    Galactic,
    Latitude,
    Longitude,
    SkyCoord,
)
from astropy.time import Time
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

from peelkit.errors import DataError
from peelkit.io.image import B1950_VLA_EPOCH

log = logging.getLogger(__name__)

FRAMES: dict[str, BaseCoordinateFrame] = {
    "ICRS": ICRS(),
    "J2000": FK5(),
    "FK5": FK5(),
    "B1950": FK4(),
    "FK4": FK4(),
    "B1950_VLA": FK4(equinox="B1950", obstime=Time(B1950_VLA_EPOCH, format="byear")),
    "GALACTIC": Galactic(),
}

USE = "use circle, ellipse, box or polygon"

# What CASA and DS9 draw, and what marks no pixels: left out with a warning.
NO_AREA = (
    "text", "symbol", "point", "line", "polyline", "vector", "segment", "ruler", "compass", "projection",
)  # fmt: skip

_LINE = re.compile(r"^(?P<sign>[+-]?)\s*(?P<ann>ann\s+)?(?P<shape>[a-z]+)\s*(?=\[)", re.IGNORECASE)
_PARAMETER = re.compile(r"(\w+)\s*=\s*(\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^,]*)")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LENGTH = re.compile(rf"({_NUMBER})\s*(deg|rad|arcmin|arcsec|mas|pix|\"|')")
_UNITS = {
    "deg": u.deg, "rad": u.rad, "arcmin": u.arcmin, "'": u.arcmin,
    "arcsec": u.arcsec, '"': u.arcsec, "mas": u.mas,
}  # fmt: skip
# Selections of channels and correlations, which one plane has no use for.
_SPECTRAL = ("range", "corr")


@dataclass(frozen=True)
class _Values:
    """Numbers of a CRTF region: angles, or pixels."""

    where: str
    frame: BaseCoordinateFrame

    def refuse(self, text: str, remedy: str) -> DataError:
        return DataError(f"{self.where}: {text!r} cannot be read; {remedy}.")

    def pair(self, value: Any) -> list[str]:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(v, str) for v in value)
        ):
            raise self.refuse(str(value), "give two values in brackets")
        return [item.strip() for item in value]

    def position(self, value: Any) -> SkyCoord | PixCoord:
        lon, lat = self.pair(value)
        if lon.endswith("pix") and lat.endswith("pix"):
            return PixCoord(*(self._number(text.removesuffix("pix")) for text in (lon, lat)))
        galactic = isinstance(self.frame, Galactic)
        try:
            angles = Longitude(self._angle(lon, hours=not galactic)), Latitude(self._angle(lat))
        except (ValueError, u.UnitsError) as error:
            raise self.refuse(
                f"{lon}, {lat}", "write 12h29m06.7s, +02d03m08.6s or 187.278deg, 2.0524deg"
            ) from error
        return SkyCoord(*angles, frame=self.frame)

    def _number(self, text: str) -> float:
        if not re.fullmatch(_NUMBER, text.strip()):
            raise self.refuse(text, "give a number of pixels, such as 12.5pix")
        return float(text)

    def _angle(self, text: str, *, hours: bool = False) -> Angle:
        if text.count(".") >= 2:  # CASA's 02.03.08.6 is degrees, minutes, seconds
            return Angle(text.replace(".", ":", 2), u.deg)
        if text.count(":") == 2:
            return Angle(text, u.hourangle if hours else u.deg)
        if re.fullmatch(_NUMBER, text):
            return Angle(float(text), u.deg)
        return Angle(text)

    def length(self, text: Any, like: SkyCoord | PixCoord) -> Any:
        match = _LENGTH.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match:
            raise self.refuse(str(text), "give a length with its unit, such as 3arcsec")
        number, unit = float(match.group(1)), match.group(2)
        if not number > 0:
            raise self.refuse(text, "give a length above zero")
        if (unit == "pix") != isinstance(like, PixCoord):
            raise self.refuse(text, "give position and size both in angles, or both in pix")
        return number if unit == "pix" else number * _UNITS[unit]

    def turn(self, text: Any) -> Any:
        match = _LENGTH.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match or match.group(2) not in ("deg", "rad"):
            raise self.refuse(str(text), "give an angle such as 30deg")
        return float(match.group(1)) * u.Unit(match.group(2))


def parse_crtf(
    path: Path, text: str, frame: BaseCoordinateFrame
) -> Iterator[tuple[SkyRegion | PixelRegion, str]]:
    """Shapes and labels of a CRTF text; ``path`` is for messages.

    Positions without ``coord=`` are in ``frame``: for CASA they are in that of the image (6.7: imstat
    and tclean, from a file as from a string).

    Raises
    ------
    DataError
        If a line cannot be read, or is an exclusion.
    """
    common: dict[str, str] = {}
    count = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().lstrip("\ufeff")
        if not line or line.startswith("#"):
            continue
        if re.match(r"global\b", line, re.IGNORECASE):
            common |= _parameters(line[6:])
            continue
        match = _LINE.match(line)
        end = _closing(line, match.end()) if match else -1
        if not match or end < 0:
            raise DataError(f"{path}: line {number} is no CRTF region: {line[:60]!r}.")
        shape = match["shape"].lower()
        where = f"{path}: line {number} ({shape})"
        if match["ann"] or shape in NO_AREA:
            log.warning("%s: an annotation, or no area; left out.", where)
            continue
        given = common | _parameters(line[end:])
        label = given.get("label", "")
        count += 1
        where = f"{path}: region {count} ({label or shape})"
        if match["sign"] == "-":
            raise DataError(
                f"{where}: an exclusion ('-'); put it into a file of its own for --exclude."
            )
        for word in _SPECTRAL:
            if word in given:
                log.warning(
                    "%s: %s=%s has no effect on a continuum image.", where, word, given[word]
                )
        coord = given.get("coord", "")
        if coord and coord.upper() not in FRAMES:
            raise DataError(f"{where}: frame {coord!r}; use one of {', '.join(FRAMES)}.")
        values = _Values(where, FRAMES.get(coord.upper(), frame))
        fields = _nested(line[match.end() : end])
        yield _shape(shape, fields, values), label


def _parameters(text: str) -> dict[str, str]:
    return {
        key.lower(): value.strip().strip("'\"").strip() for key, value in _PARAMETER.findall(text)
    }


def _closing(line: str, start: int) -> int:
    """Index behind the bracket that closes the one at ``start``; -1 if none does."""
    level = 0
    for index in range(start, len(line)):
        level += {"[": 1, "]": -1}.get(line[index], 0)
        if level == 0:
            return index + 1
    return -1


def _nested(text: str) -> list[Any]:
    """Split ``[[a, b], c]`` into lists of strings; trailing commas are let pass."""
    stack: list[list[Any]] = [[]]
    word = ""
    for sign in text:
        if sign in "[],":
            if word.strip():
                stack[-1].append(word.strip())
            word = ""
        if sign == "[":
            stack.append([])
        elif sign == "]":
            done = stack.pop()
            stack[-1].append(done)
        elif sign != ",":
            word += sign
    fields: list[Any] = stack[0][0]
    return fields


_FIELDS = {"circle": 2, "ellipse": 3, "box": 2, "centerbox": 2, "rotbox": 3}


def _shape(kind: str, fields: list[Any], values: _Values) -> SkyRegion | PixelRegion:
    if kind not in ("poly", "polygon", *_FIELDS):
        raise DataError(f"{values.where}: {kind} is not among the shapes read; {USE}.")
    if len(fields) != _FIELDS.get(kind, len(fields)):
        raise DataError(f"{values.where}: {len(fields)} values, where {kind} has {_FIELDS[kind]}.")
    if kind in ("poly", "polygon"):
        corners = [values.position(field) for field in fields]
        if corners and all(isinstance(corner, PixCoord) for corner in corners):
            return PolygonPixelRegion(PixCoord([c.x for c in corners], [c.y for c in corners]))
        if not corners or any(isinstance(corner, PixCoord) for corner in corners):
            raise values.refuse(str(fields), "give corners all in angles, or all in pix")
        frame = values.frame
        return PolygonSkyRegion(
            SkyCoord(
                [c.spherical.lon for c in corners], [c.spherical.lat for c in corners], frame=frame
            )
        )
    centre = values.position(fields[0])
    on_sky = isinstance(centre, SkyCoord)
    if kind == "circle":
        make = CircleSkyRegion if on_sky else CirclePixelRegion
        return make(centre, values.length(fields[1], centre))
    rectangle = RectangleSkyRegion if on_sky else RectanglePixelRegion
    if kind == "box":
        return _box(centre, values.position(fields[1]), values)
    first, second = (values.length(text, centre) for text in values.pair(fields[1]))
    angle = values.turn(fields[2]) if len(fields) > 2 else 0 * u.deg
    if kind == "ellipse":
        # CRTF has half axes, the first at the position angle (north through east); checked with
        # CASA 6.7, which takes the first as such even where it is the shorter.
        make = EllipseSkyRegion if on_sky else EllipsePixelRegion
        return make(centre, width=2 * second, height=2 * first, angle=angle)
    return rectangle(centre, width=first, height=second, angle=angle)


def _box(corner: SkyCoord | PixCoord, other: SkyCoord | PixCoord, values: _Values) -> Any:
    """Rectangle between two corners."""
    if isinstance(corner, PixCoord) and isinstance(other, PixCoord):
        # CASA's corners are pixels of the box.
        return RectanglePixelRegion(
            PixCoord((corner.x + other.x) / 2, (corner.y + other.y) / 2),
            width=abs(corner.x - other.x) + 1,
            height=abs(corner.y - other.y) + 1,
        )
    if not isinstance(corner, SkyCoord) or not isinstance(other, SkyCoord):
        raise values.refuse("box", "give both corners in angles, or both in pix")
    one, two = corner.spherical, other.spherical
    across = Longitude(two.lon - one.lon, wrap_angle=180 * u.deg)
    lat = (one.lat + two.lat) / 2
    centre = SkyCoord(Longitude(one.lon + across / 2), lat, frame=values.frame)
    return RectangleSkyRegion(
        centre, width=abs(across.to(u.arcsec)) * math.cos(lat.rad), height=abs(two.lat - one.lat)
    )
