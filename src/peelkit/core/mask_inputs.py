"""Masks that ``peelkit mask`` reads, with the pixels of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peelkit.core.islands import Mask
from peelkit.errors import DataError
from peelkit.io.image import Image, grid_difference, read_image


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
