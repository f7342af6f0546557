"""Images in memory, for tests that need coordinates more than brightness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame
from astropy.io import fits

from peelkit.io.image import Image, as_image


def make_image(
    data: Any = None,
    *,
    size: int = 512,
    cells: tuple[float, float] = (1.0, 1.0),
    centre: tuple[float, float] = (150.0, 60.0),
    frame: BaseCoordinateFrame | None = None,
    beam: tuple[float, float, float] = (3.0, 3.0, 0.0),
    path: str = "image.fits",
) -> Image:
    """Zeros, or ``data``, in pixels of ``cells`` (x, y) [arcsec], with a beam [arcsec, deg]."""
    frame = frame or ICRS()
    names = ("GLON", "GLAT") if frame.name == "galactic" else ("RA--", "DEC-")
    data = np.zeros((size, size), np.float32) if data is None else np.asarray(data)
    header = fits.Header({"BUNIT": "Jy/beam"})
    for axis, sign in ((1, -1), (2, 1)):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = f"{names[axis - 1]}-SIN", "deg"
        header[f"CRVAL{axis}"] = centre[axis - 1]
        header[f"CRPIX{axis}"] = data.shape[2 - axis] / 2 + 1
        header[f"CDELT{axis}"] = sign * cells[axis - 1] / 3600
    header["BMAJ"], header["BMIN"], header["BPA"] = beam[0] / 3600, beam[1] / 3600, beam[2]
    return as_image(Path(path), data, header, frame)
