"""Predicting model images into columns, exactly, wherever the fields' phase centres are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import predict_blocks
from peelkit.core.predict_blocks import Work
from peelkit.core.predictor import (
    BEAM_ACCURACY,
    Predictor,
    Samples,
    Sky,
    chebyshev_nodes,
    lagrange_weights,
)
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import SkyModel, sky_model
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import Image
from peelkit.io.modelimage import read_planes
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread


def read_models(
    paths: Sequence[Path], *, may_be_empty: bool = False, stokes: str = ""
) -> list[Image]:
    """Model images [Jy/pixel], all on one grid: one for each Taylor term, or the planes of a cube.

    Parameters
    ----------
    paths : sequence of Path
        Which.
    may_be_empty : bool
        Nothing but zeros is a model too: that of a sky whose sources have all been peeled.
    stokes : str
        Which plane; I (or the only one) if empty.

    Raises
    ------
    DataError
        If one is not a model image, they do not match, or all are zero.
    """
    images = [plane for path in paths for plane in read_planes(path, stokes)]
    if len(images) > len(paths) > 1:
        raise DataError(
            f"{images[0].path}: a cube of models stands alone; give one cube, or Taylor terms."
        )
    for image in images:
        if image.unit not in ("Jy/pixel", ""):
            raise DataError(
                f"{image.path}: unit {image.unit!r} is not Jy/pixel; give the .model, not the .image."
            )
        if image.data.shape != images[0].data.shape:
            raise DataError(f"{image.path}: its size does not match {images[0].path}.")
    if not may_be_empty and not any(np.any(np.nan_to_num(image.data)) for image in images):
        raise DataError(f"{images[0].path}: the model is empty; clean deeper or with another mask.")
    return images


def predict_model(
    info: ms.MsInfo,
    models: Sequence[Image],
    *,
    rows: NDArray[np.int64],
    column: str = "MODEL_DATA",
    mask: NDArray[np.bool_] | None = None,
    pb: Image | None = None,
    polarised: Mapping[str, Sequence[Image]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the visibilities of ``models`` to ``column`` at ``rows``, of whatever fields.

    Stokes I goes to both parallel hands, nothing to the cross hands, unless there are polarised models
    (`peelkit.core.stokes`). The column must exist.

    Parameters
    ----------
    info : MsInfo
        The MS.
    models : sequence of Image
        Taylor terms (of one frequency) or sub-bands (of one each) [Jy/pixel].
    rows : ndarray of int
        Which.
    column : str
        To write.
    mask : ndarray of bool, shape (ny, nx), optional
        Only these pixels.
    pb : Image, optional
        Primary beam of a mosaic (tclean's ``.pb``), whose models are the sky times it. Each field
        then sees the sky through its own beam.
    polarised : mapping, optional
        ``Q``, ``U``, ``V`` to their models, on the same grid.
    """
    beam = Beam.of(info) if pb is not None else None
    skies = {"I": sky_model(models, pb)}
    skies |= {name: sky_model(planes, pb) for name, planes in (polarised or {}).items()}
    if mask is not None:
        skies = {name: sky.where(mask) for name, sky in skies.items()}
    if polarised:
        work = Work(Predictor(info, beam), skies, stokes=column)
        predict_blocks.run(work, rows, progress=progress or Progress())
        return
    predict_columns(info, {column: skies["I"]}, rows=rows, beam=beam, progress=progress)


def predict_columns(
    info: ms.MsInfo,
    skies: Mapping[str, Sky],
    *,
    rows: NDArray[np.int64],
    beam: Beam | None = None,
    total: str | None = None,
    unwritten: SkyModel | None = None,
    spread: Spread = IN_PROCESS,
    progress: Progress | None = None,
) -> None:
    """Write the visibilities of each sky to its column; those of all, and ``unwritten``, to ``total``.

    Workers of ``spread`` predict, and this process writes.
    """
    work = Work(Predictor(info, beam), skies, total, unwritten)
    predict_blocks.run(work, rows, spread=spread, progress=progress or Progress())


__all__ = [
    "BEAM_ACCURACY",
    "Predictor",
    "Samples",
    "Sky",
    "chebyshev_nodes",
    "lagrange_weights",
    "predict_columns",
    "predict_model",
    "read_models",
]
