"""Writes FITS model images: nothing of peelkit is used, so that tests mean something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

# Pixels a side, and pixel size [arcsec].
SIZE, CELL = 512, 2.0
# The first field of makems.
RA_DEG, DEC_DEG = float(np.degrees(2.0)), 30.0


def write_model(
    path: Path,
    planes,
    *,
    freqs=(3e9,),
    radesys: str = "ICRS",
    specsys: str = "TOPOCENT",
    centre=(RA_DEG + 0.05, DEC_DEG + 0.04),
    **cards: object,
) -> Path:
    """A FITS model of one plane for each frequency; its centre is off every field's by default."""
    header = fits.Header()
    step = freqs[1] - freqs[0] if len(freqs) > 1 else 1e7
    for axis, (kind, value, delta, pixel) in enumerate(
        [
            ("RA---SIN", centre[0], -CELL / 3600, SIZE // 2 + 1),
            ("DEC--SIN", centre[1], CELL / 3600, SIZE // 2 + 1),
            ("STOKES", 1, 1, 1), ("FREQ", freqs[0], step, 1),
        ],
        start=1,
    ):  # fmt: skip
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = kind, value
        header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = delta, pixel
    header["RADESYS"], header["SPECSYS"], header["BUNIT"] = radesys, specsys, "Jy/pixel"
    header.update(cards)
    fits.PrimaryHDU(np.array(planes, dtype=np.float32)[:, None], header).writeto(path)
    return path
