"""Prediction with tclean, for what only CASA can do: its gridders, and beams it has."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.predict_inputs import MOSAIC_GRIDDERS
from peelkit.core.skymodel import SkyModel
from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import Image, is_casa_image, write_like
from peelkit.io.modelimage import tclean_arguments
from peelkit.io.survey import C_M_S
from peelkit.progress import Progress

# What tclean needs beside a model, if it was made: a mosaic's weights, and what it looks for.
BESIDE = ("weight", "sumwt", "pb", "psf", "residual")

# Arguments that say how u, v, w and the primary beam are treated.
KEPT = (
    "cell", "stokes", "projection", "specmode", "reffreq", "outframe", "veltype", "restfreq",
    "interpolation", "gridder", "facets", "wprojplanes", "vptable", "mosweight", "aterm", "psterm",
    "wbawp", "conjbeams", "cfcache", "usepointing", "computepastep", "rotatepastep",
    "pointingoffsetsigdev", "pblimit", "normtype", "deconvolver", "scales", "weighting", "robust",
)  # fmt: skip

# The job that predicts everything in one piece, to compare with the sum; no column's name.
WHOLE = "*"

FRAMES = {"fk5": "J2000", "icrs": "ICRS", "fk4": "B1950", "galactic": "GALACTIC"}


def predict(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    paths: Sequence[Path],
    models: Sequence[Image],
    skies: Mapping[str, SkyModel],
    rest: SkyModel,
    *,
    rest_column: str | None,
    all_column: str | None,
    progress: Progress,
) -> tuple[float | None, dict[str, Any], list[str]]:
    """Write each sky's visibilities, the rest's and the sum's to their columns.

    tclean works on a copy of the rows, unflagged (it predicts 0 for flagged samples) and with models
    masked to each sky, so that no other column of the MS is touched.

    Returns
    -------
    float or None
        Closure, if the whole was asked for.
    dict
        What the sidecar says of the engine.
    list of str
        Warnings.
    """
    arguments = arguments_of(paths, models)
    roles = [f"model.tt{number}" for number in range(len(paths))]
    if arguments.get("deconvolver") != "mtmfs":
        roles = ["model"]
    jobs: list[tuple[str | None, SkyModel | None]] = [*skies.items()]
    if rest_column or all_column:
        jobs.append((rest_column, rest))
    if all_column:
        jobs.append((WHOLE, None))
    closure = None
    log = info.path.with_name(f"{info.path.name}.predict-region.casa.log")
    folder = Path(
        tempfile.mkdtemp(prefix=f".{info.path.name}.predict.", dir=info.path.absolute().parent)
    )
    try:
        copy = folder / "copy.ms"
        ms.copy_rows(info.path, copy, rows, data_column="DATA")
        _unflag(copy)
        for path in _beside(paths[0]):
            shutil.copytree(path, folder / f"work{path.name.removeprefix(_base(paths[0]))}")
        with engine.Casa(log) as casa:
            progress.stage("predicting with tclean", total=len(jobs))
            for number, (name, sky) in enumerate(jobs):
                keep = np.ones(models[0].data.shape, dtype=bool)
                if sky is not None:
                    keep[:] = False
                    keep[sky.ys, sky.xs] = True
                for role, image in zip(roles, models, strict=True):
                    plane = np.where(keep, np.nan_to_num(image.data), 0.0)
                    write_like(
                        folder / f"work.{role}", plane, image, unit="Jy/pixel", overwrite=True
                    )
                engine.predict(casa, copy, folder / "work", arguments)
                if name == WHOLE:
                    closure = _compare(info, rows, copy, str(all_column))
                else:
                    _collect(info, rows, copy, name, all_column, first=number == 0)
                progress.advance()
            described = casa.engine()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return closure, described, _off_grid(info, rows, models[0])


def arguments_of(paths: Sequence[Path], models: Sequence[Image]) -> dict[str, Any]:
    """Arguments of tclean with which it predicts these models as it did when it made them.

    Raises
    ------
    DataError
        If tclean did not make them.
    """
    made = tclean_arguments(paths[0])
    if not all(is_casa_image(path) for path in paths) or "gridder" not in made:
        raise DataError(
            f"{paths[0]}: not made by tclean, or without its history, so that it is not known how to "
            "predict it with tclean; use --predictor ducc."
        )
    if len(models) != len(paths) or made.get("specmode") != "mfs":
        raise DataError(f"{paths[0]}: a cube; --predictor tclean takes continuum models only.")
    needed = ("sumwt", "weight") if made["gridder"] in MOSAIC_GRIDDERS else ("sumwt",)
    for role in needed:
        if not any(f".{role}" in path.name for path in _beside(paths[0])):
            raise DataError(
                f"{paths[0]}: no {_base(paths[0])}.{role} beside it, which tclean needs to predict; use "
                "--predictor ducc, or keep what tclean made together."
            )
    first = models[0]
    chosen = {key: made[key] for key in KEPT if key in made}
    chosen["imsize"] = [first.data.shape[1], first.data.shape[0]]
    chosen["nterms"] = len(paths)
    # The field that it was the phase centre of need not be the first of the copy.
    frame = FRAMES[first.frame.name]
    if frame == "B1950" and first.frame.obstime != first.frame.equinox:
        frame = "B1950_VLA"
    ra, dec = (math.radians(float(value)) for value in first.wcs.wcs.crval)
    chosen["phasecenter"] = f"{frame} {ra!r}rad {dec!r}rad"
    return chosen


def _off_grid(info: ms.MsInfo, rows: NDArray[np.int64], image: Image) -> list[str]:
    """Warn of samples beyond tclean's uv grid, 1 / (2 cell): it writes 0 there, without a word."""
    limit = 1 / (2 * math.radians(image.cell_arcsec / 3600))
    outside = total = 0
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows):
            freq = info.spws[description.spw].freq_hz
            longest = np.abs(ms.get(main, "UVW", chunk)[:, :2]).max(axis=1)
            outside += int(np.count_nonzero(np.outer(longest, freq) / C_M_S > limit))
            total += chunk.size * freq.size
    if not outside:
        return []
    return [
        f"tclean predicted 0 for {100 * outside / total:.2g} % of the samples: their baselines are too "
        f"long for the model's cells of {image.cell_arcsec:.3g} arcsec; use --predictor ducc"
    ]


def _base(path: Path) -> str:
    return path.name.split(".model")[0]


def _beside(path: Path) -> list[Path]:
    """Images of the same run that tclean needs."""
    return [
        found
        for role in BESIDE
        for found in path.parent.glob(f"{_base(path)}.{role}*")
        if is_casa_image(found)
    ]


def _unflag(copy: Path) -> None:
    work = ms.read_info(copy)
    with ms.opened(copy, write=True) as main:
        for _, chunk in ms.chunks(main, work, ms.every_row(work)):
            ms.put(main, "FLAG", chunk, np.zeros_like(ms.get(main, "FLAG", chunk)))
            ms.put(main, "FLAG_ROW", chunk, np.zeros(chunk.size, dtype=bool))


def _collect(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    copy: Path,
    name: str | None,
    all_column: str | None,
    *,
    first: bool,
) -> None:
    """Copy MODEL_DATA of the copy to a column, and add it to the sum."""
    with ms.opened(info.path, write=True) as main, ms.opened(copy) as work:
        for _, chunk in ms.chunks(main, info, rows):
            values = ms.get(work, "MODEL_DATA", np.searchsorted(rows, chunk))
            if name:
                ms.put(main, name, chunk, values)
            if all_column:
                before = 0 if first else ms.get(main, all_column, chunk)
                ms.put(main, all_column, chunk, before + values)


def _compare(info: ms.MsInfo, rows: NDArray[np.int64], copy: Path, column: str) -> float | None:
    """Largest difference of MODEL_DATA of the copy to a column, over its largest value."""
    difference = largest = 0.0
    with ms.opened(info.path) as main, ms.opened(copy) as work:
        for _, chunk in ms.chunks(main, info, rows):
            whole = ms.get(work, "MODEL_DATA", np.searchsorted(rows, chunk))
            left = np.abs(whole - ms.get(main, column, chunk))
            difference = max(difference, float(left.max()))
            largest = max(largest, float(np.abs(whole).max()))
    return difference / largest if largest else None
