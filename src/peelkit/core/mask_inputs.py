"""What ``peelkit mask`` reads: the image, its PSF, and masks with the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peelkit.core.islands import Mask
from peelkit.errors import DataError
from peelkit.io.image import Image, grid_difference, read_image


def read_restored(path: Path) -> Image:
    """Read an image that has a beam and is in Jy/beam.

    Raises
    ------
    DataError
        If it is another.
    """
    image = read_image(path)
    if image.beam is None:
        raise DataError(f"{path}: no restoring beam; use a restored image.")
    if image.unit.lower().replace(" ", "") not in ("jy/beam", "jybeam-1", "jybeam^-1", "beam-1jy"):
        raise DataError(
            f"{path}: unit {image.unit!r}, where Jy/beam is needed; use a restored image."
        )
    return image


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


def read_mask(path: Path, image: Image) -> Mask:
    """Read a mask image, 0 and not 0 (1, or numbers of islands), that has the pixels of ``image``.

    Raises
    ------
    DataError
        If it does not match, naming what differs, or is no mask.
    """
    mask = read_image(path)
    if difference := grid_difference(mask, image):
        raise DataError(
            f"{path}: does not match {image.path}: {difference}; regrid it (CASA's imregrid)."
        )
    values = np.nan_to_num(np.asarray(mask.data, dtype=float))
    if np.any(values < 0) or np.any(values != np.rint(values)):
        raise DataError(
            f"{path}: values from {values.min():.4g} to {values.max():.4g}, where a mask has 0 and "
            "1; give a mask image."
        )
    return np.asarray(values > 0)
