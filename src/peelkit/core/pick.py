"""Islands by their number or by a position on the sky or in pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, Latitude, Longitude, SkyCoord

from peelkit.core.islands import Island, Labels, beam_major_pixels
from peelkit.errors import DataError, OptionError
from peelkit.io.crtf import FRAMES
from peelkit.io.image import Image

_FLOAT = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_REMEDY = (
    "use an island number, a position such as '12:29:06.7 +02:03:08' or '187.278deg 2.052deg', or "
    "a pixel x,y"
)


@dataclass(frozen=True)
class Choice:
    """One ``--extract`` or ``--drop``: a number, a pixel (x, y) or a position."""

    text: str
    option: str
    number: int | None = None
    pixel: tuple[float, float] | None = None
    position: SkyCoord | None = None


def parse_choice(text: str, option: str) -> Choice:
    """Read an island number, ``x,y`` in pixels from 0, or a position on the sky.

    A position may begin with its frame (``B1950 12:26:33.2 +02:19:43``); without one it is ICRS.
    Colons and ``h`` in the right ascension are hours, other numbers degrees.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    word = text.strip()
    if re.fullmatch(r"\d+", word):
        return Choice(word, option, number=int(word))
    if match := re.fullmatch(rf"({_FLOAT})\s*,\s*({_FLOAT})", word):
        return Choice(word, option, pixel=(float(match.group(1)), float(match.group(2))))
    pieces = word.replace(",", " ").split()
    frame = FRAMES["ICRS"]
    if pieces and pieces[0].upper() in FRAMES:
        frame = FRAMES[pieces.pop(0).upper()]
    if len(pieces) == 2:
        try:
            lon, lat = _angle(pieces[0], hours=frame.name != "galactic"), _angle(pieces[1])
            position = SkyCoord(Longitude(lon), Latitude(lat), frame=frame)
            return Choice(word, option, position=position)
        except (ValueError, u.UnitsError):
            pass  # said below
    raise OptionError(f"{option} {text!r}: {_REMEDY}.")


def _angle(text: str, *, hours: bool = False) -> Angle:
    if text.count(":") == 2:
        return Angle(text, u.hourangle if hours else u.deg)
    return Angle(float(text), u.deg) if re.fullmatch(_FLOAT, text) else Angle(text)


def pick(
    choices: Sequence[Choice], image: Image, islands: Sequence[Island], labels: Labels
) -> list[int]:
    """Give the numbers of the islands that are chosen, each once, ascending.

    A position takes the island that it is on, or else the nearest within one beam.

    Raises
    ------
    DataError
        If there is no such island.
    """
    return sorted({_pick_one(choice, image, islands, labels) for choice in choices})


def _pick_one(choice: Choice, image: Image, islands: Sequence[Island], labels: Labels) -> int:
    what = f"{choice.option} {choice.text!r}"
    if choice.number is not None:
        if not any(island.number == choice.number for island in islands):
            raise DataError(f"{what}: no such island; there are 1 to {len(islands)}.")
        return choice.number
    x, y = choice.pixel or image.pixel(_required(choice.position))
    ny, nx = image.data.shape
    if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        raise DataError(f"{what}: outside {image.path}, which has {nx}x{ny} pixels.")
    if here := int(labels[round(y), round(x)]):
        return here
    rows, columns = np.nonzero(labels)
    distance = image.apart(columns - x, rows - y)
    nearest = int(np.argmin(distance))
    number = int(labels[rows[nearest], columns[nearest]])
    if distance[nearest] > beam_major_pixels(image):
        raise DataError(
            f"{what}: no island there; the nearest is island {number}, "
            f"{distance[nearest] * image.cell_arcsec:.3g} arcsec away."
        )
    return number


def _required(position: SkyCoord | None) -> SkyCoord:
    if position is None or not math.isfinite(position.spherical.lon.deg):
        raise OptionError(_REMEDY)
    return position
