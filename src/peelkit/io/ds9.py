"""DS9's region files, parsed by the ``regions`` package into its shapes."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from regions import PixelRegion, Regions, SkyRegion

from peelkit.errors import DataError
from peelkit.io.crtf import NO_AREA, USE

log = logging.getLogger(__name__)


def parse_ds9(path: Path, text: str) -> Iterator[tuple[SkyRegion | PixelRegion, str]]:
    """Shapes and labels of a DS9 text; ``path`` is for messages.

    Raises
    ------
    DataError
        If a line cannot be read, or is an exclusion.
    """
    text = re.sub(r",\s*\)", ")", text)
    try:
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            found = Regions.parse(text, format="ds9")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(
            f"{path}: not a DS9 or CRTF region file ({str(error).splitlines()[0][:120]})."
        ) from error
    for complaint in complaints:
        message = str(complaint.message)
        first = message.split('"')[1] if message.startswith('"') else ""
        if first.lower() in NO_AREA:
            log.warning("%s: a %s has no area, left out.", path, first)
            continue
        # What is said about colours and the like costs no region.
        if "metadata" not in message and "will be ignored" not in message:
            hint = "use fk5, icrs, fk4, galactic or image coordinates"
            raise DataError(f"{path}: {message.rstrip('.')}; {USE}, and {hint}.")
    number = 0
    for shape in found:
        kind = type(shape).__name__.removesuffix("SkyRegion").removesuffix("PixelRegion").lower()
        if kind in NO_AREA:
            log.warning("%s: a %s has no area, left out.", path, kind)
            continue
        number += 1
        label = str(shape.meta.get("text", "")).strip()
        if not shape.meta.get("include", 1):
            name = f" ({label})" if label else ""
            raise DataError(
                f"{path}: region {number}{name}: an exclusion ('-'); put it into a file of its own "
                "for --exclude."
            )
        yield shape, label
