"""The PSF of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peelkit.errors import DataError
from peelkit.io.image import Image, read_image


def find_psf(path: Path) -> Path | None:
    """Find the PSF that CASA left beside an image: ``x.psf`` of ``x.image``, and with ``.tt0``."""
    stem, found, rest = path.name.rpartition(".image")
    for tail in (rest, rest.replace(".pbcor", "")) if found else ():
        psf = path.with_name(f"{stem}.psf{tail}")
        if psf.exists():
            return psf
    return None


def read_psf(image: Image, given: Path | None) -> tuple[Image | None, list[str]]:
    """Read the PSF that is given, or the one beside the image; and warnings.

    Raises
    ------
    DataError
        If the one given is none, or has other pixels. The one beside it is then left alone.
    """
    path = given or find_psf(image.path)
    if path is None:
        return None, []
    try:
        psf = read_image(path)
        ratio = psf.cell_arcsec / image.cell_arcsec
        if abs(ratio - 1) > 0.01:
            raise DataError(
                f"{path}: pixels of {psf.cell_arcsec:.4g} arcsec, {image.path} has "
                f"{image.cell_arcsec:.4g}; give the PSF of this image with --psf."
            )
        if not np.nanmax(np.nan_to_num(psf.data)) > 0:
            raise DataError(f"{path}: no PSF, since no pixel is above zero; give another --psf.")
    except DataError as error:
        if given:
            raise
        return None, [f"{error} Sidelobes are not looked at."]
    return psf, []
