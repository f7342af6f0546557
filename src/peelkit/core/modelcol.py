"""Predicting a model image into a column, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.engines import ducc
from peelkit.errors import DataError
from peelkit.io import frames, ms
from peelkit.io.image import Image, read_image


def read_models(paths: Sequence[Path]) -> list[Image]:
    """Model images [Jy/pixel], one for each Taylor term, all on one grid.

    Raises
    ------
    DataError
        If one is not a model image, they do not match, or all are zero.
    """
    images = [read_image(path) for path in paths]
    for image in images:
        if image.unit not in ("Jy/pixel", "Jy/PIXEL", "JY/PIXEL", ""):
            raise DataError(
                f"{image.path}: unit {image.unit!r} is not Jy/pixel; give the .model, not the .image."
            )
        if image.data.shape != images[0].data.shape:
            raise DataError(f"{image.path}: its size does not match {images[0].path}.")
    if not np.any(np.nan_to_num(images[0].data)):
        raise DataError(f"{images[0].path}: the model is empty; clean deeper or with another mask.")
    return images


def predict_model(
    info: ms.MsInfo,
    models: Sequence[Image],
    *,
    field: int,
    rows: NDArray[np.int64],
    column: str = "MODEL_DATA",
) -> None:
    """Write the visibilities of ``models`` to ``column`` at ``rows``, all of one field.

    The images must be centred on the field's phase centre, as tclean makes them. Stokes I goes to
    both parallel hands, nothing to the cross hands. The column must exist.
    """
    first = models[0]
    ny, nx = first.data.shape
    centre = first.pixel(_phase_centre(info, first, field))
    if math.hypot(centre[0] - nx // 2, centre[1] - ny // 2) > 0.5:
        raise DataError(
            f"{first.path}: not centred on field {info.fields[field].name} "
            f"(its phase centre is at pixel {centre[0]:.1f}, {centre[1]:.1f})."
        )
    cell = math.radians(first.cell_arcsec / 3600)
    planes = [model.data for model in models]
    with ms.opened(info.path, write=True) as main:
        for description, chunk in ms.chunks(main, info, rows):
            spw = info.spws[description.spw]
            uvw = ms.get(main, "UVW", chunk).astype(np.float64)
            time_s = float(np.mean(ms.get(main, "TIME", chunk)))
            freq = spw.freq_hz * frames.lsrk_over_spw(info, spw, field=field, time_s=time_s)
            vis = ducc.predict(
                planes,
                cell_rad=cell,
                centre_pixel=(nx // 2, ny // 2),
                uvw_m=uvw,
                freq_hz=freq,
                reference_hz=first.freq_hz or float(freq.mean()),
            )
            cells = np.zeros((*vis.shape, len(description.correlations)), dtype=np.complex64)
            cells[:, :, ms.parallel_hands(description.correlations)] = vis[:, :, None]
            ms.put(main, column, chunk, cells)


def _phase_centre(info: ms.MsInfo, image: Image, field: int):  # type: ignore[no-untyped-def]
    from astropy.coordinates import SkyCoord

    centre = info.fields[field]
    # The image is made in the frame of the field, so that the numbers are its own.
    return SkyCoord(centre.ra_rad, centre.dec_rad, unit="rad", frame=image.frame)
