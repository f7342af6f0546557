"""``peelkit predict-region``: the model in each region, predicted into a column of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import commit, predict_tclean
from peelkit.core.modelcol import Predictor, Samples, predict_columns, read_models
from peelkit.core.predict_inputs import (
    Direction,
    check_columns,
    directions,
    model_paths,
    mosaic_beam,
)
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import PB_LIMIT, SkyModel, sky_model
from peelkit.errors import OptionError
from peelkit.io import journal, ms
from peelkit.io.image import Image
from peelkit.io.region import read_regions
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

COMMAND = "predict-region"

# Rows of each data description in which the sum of the columns is compared with the whole model.
CLOSURE_ROWS = 512


@dataclass(frozen=True)
class PredictOptions:
    """What the command line asks for.

    Parameters
    ----------
    models : tuple of Path
        Taylor terms in order, or a cube of sub-bands.
    image : Path or None
        Restored image with its models beside it, in place of ``models``.
    regions : Path
        CRTF or DS9 file.
    prefix : str or None
        Of the columns' names; the regions' labels if None.
    rest_column, all_column : str or None
        Columns of what is in no region, and of everything.
    predictor : str
        ``ducc`` or ``tclean``.
    pb : Path or None
        Primary beam of a mosaic.
    overwrite : bool
        Replace columns that exist.
    """

    models: tuple[Path, ...]
    image: Path | None
    regions: Path
    prefix: str | None = None
    rest_column: str | None = None
    all_column: str | None = None
    predictor: str = "ducc"
    pb: Path | None = None
    overwrite: bool = False


def predict_region(
    path: Path, selection: Selection, options: PredictOptions, progress: Progress | None = None
) -> Outcome:
    """Predict the model in each region, what is left, and the whole, into columns.

    Parameters
    ----------
    path : Path
        The MS; its other columns stay as they are.
    selection : Selection
        Field, spw and scan. Rows that are not selected get 0 in new columns, and keep what a replaced
        column had.
    options : PredictOptions
        See there.

    Raises
    ------
    OptionError, DataError
        If options, MS, images or regions will not do.
    """
    progress = progress or Progress()
    if ":" in selection.spw:
        raise OptionError(
            f"spw {selection.spw!r}: channels cannot be selected; all of a spw are predicted."
        )
    paths = model_paths(options.models, options.image)
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if commit.recover(path) is not None:
        info = ms.read_info(path)
    info.require("DATA", "its shape and storage are what the new columns get.")
    rows = ms.select_rows(info, selection)
    progress.stage("reading the model")
    models = read_models(paths)
    pb = mosaic_beam(info, rows, paths, options.pb)
    beam = Beam.of(info) if pb is not None and options.predictor == "ducc" else None
    sky = sky_model(models, pb)
    parts = directions(read_regions(options.regions), sky, prefix=options.prefix)
    rest = _rest(sky, parts)
    columns = [part.column for part in parts]
    columns += [name for name in (options.rest_column, options.all_column) if name]
    check_columns(info, columns, overwrite=options.overwrite)
    warnings = _warnings(sky, rest, models, pb, beam, options)
    skies = {part.column: part.sky for part in parts}
    engine = None
    with commit.recorded_step(path, COMMAND) as step:
        for name in columns:
            step = journal.new_column(path, step, name)
        _fill(info, rows, {name: step.replaced.get(name) for name in columns})
        info = ms.read_info(path)
        if options.predictor == "tclean":
            closure, engine, more = predict_tclean.predict(
                info, rows, paths, models, skies, rest,
                rest_column=options.rest_column, all_column=options.all_column, progress=progress,
            )  # fmt: skip
            warnings += more
        else:
            if options.rest_column:
                skies[options.rest_column] = rest
            progress.stage("predicting", total=rows.size)
            predict_columns(
                info, skies, rows=rows, beam=beam, total=options.all_column,
                unwritten=None if options.rest_column else rest, progress=progress,
            )  # fmt: skip
            progress.stage("checking the sum")
            closure = _closure(info, rows, columns[: len(parts)], sky, rest, beam)
        ms.add_history(
            path, command=COMMAND, message=f"peelkit {COMMAND}: predicted {', '.join(columns)}",
            parameters={"models": paths, "regions": options.regions, "predictor": options.predictor},
        )  # fmt: skip
    inputs = {"ms": str(path), "regions": str(options.regions)}
    inputs |= {f"model_{number}": str(model) for number, model in enumerate(paths)}
    if pb is not None:
        inputs["pb"] = str(pb.path)
    results = {
        "models": [str(model) for model in paths],
        "model_kind": "taylor" if sky.is_taylor else "subbands",
        "predictor": options.predictor,
        "pb": None if pb is None else str(pb.path),
        "beam": None
        if beam is None
        else {"telescope": beam.telescope, "diameter_m": beam.diameter_m, "known": beam.is_known},
        "rows": int(rows.size),
        "flux_jy": sky.flux_jy,
        "components": int(sky.xs.size),
        "directions": [_entry(part, sky) for part in parts],
        "rest_column": options.rest_column,
        "all_column": options.all_column,
        "rest": {"flux_jy": rest.flux_jy, "components": int(rest.xs.size)},
        "closure": closure,
    }
    return Outcome(
        results=results,
        inputs=inputs,
        reads=("UVW", *inputs.values()),
        writes=tuple(columns),
        parameters={"models": paths, "pb": pb.path if pb is not None else None},
        engine=engine,
        warnings=tuple(warnings),
    )


def default_sidecar(path: Path) -> Path:
    """Where the sidecar goes unless the user says otherwise."""
    return sidecar.ms_sidecar(path, COMMAND)


def _rest(sky: SkyModel, parts: Sequence[Direction]) -> SkyModel:
    inside = np.zeros(sky.grid.shape, dtype=bool)
    for part in parts:
        inside[part.sky.ys, part.sky.xs] = True
    return sky.where(~inside)


def _warnings(
    sky: SkyModel,
    rest: SkyModel,
    models: Sequence[Image],
    pb: Image | None,
    beam: Beam | None,
    options: PredictOptions,
) -> list[str]:
    found = []
    if pb is not None:
        outside = np.nan_to_num(models[0].data) * ~(np.nan_to_num(pb.data) >= PB_LIMIT)
        lost = float(outside.sum())
        if lost:
            found.append(
                f"{lost * 1e3:.4g} mJy of the model are where the mosaic's primary beam is below "
                f"{PB_LIMIT:g}; tclean does not predict them, and neither does this"
            )
    if beam is not None and not beam.is_known:
        found.append(
            f"no primary beam is known for {beam.telescope or 'this telescope'}; that of a dish of "
            f"{beam.diameter_m:g} m is taken, as tclean does"
        )
    if rest.xs.size == 0 and options.rest_column:
        found.append(f"the model has nothing outside the regions: {options.rest_column} is zero")
    return found


def _fill(info: ms.MsInfo, rows: NDArray[np.int64], columns: Mapping[str, str | None]) -> None:
    """Rows that are not selected: what the replaced column had, else 0."""
    other = np.setdiff1d(np.arange(info.n_rows), rows)
    if other.size == 0:
        return
    with ms.opened(info.path, write=True) as main:
        for _, chunk in ms.chunks(main, info, other):
            for name, kept in columns.items():
                if kept:
                    values = ms.get(main, kept, chunk)
                else:
                    values = np.zeros_like(ms.get(main, "DATA", chunk))
                ms.put(main, name, chunk, values)


def _closure(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    columns: Sequence[str],
    sky: SkyModel,
    rest: SkyModel,
    beam: Beam | None,
) -> float | None:
    """Largest ``|whole - rest - sum of columns|`` over the largest ``|whole|``, in a sample of rows.

    The whole model is predicted afresh, in one piece; the directions are as they were written.
    """
    predictor = Predictor(info, beam)
    difference = largest = 0.0
    with ms.opened(info.path) as main:
        ddids = main.getcol("DATA_DESC_ID")[rows]
        for description in info.data_descriptions:
            mine = rows[ddids == description.id]
            if mine.size == 0:
                continue
            sample = mine[np.unique(np.linspace(0, mine.size - 1, CLOSURE_ROWS).astype(int))]
            where = Samples.read(main, sample, description.spw)
            whole = predictor.visibilities(sky, where)
            hand = ms.parallel_hands(description.correlations)[0]
            left = whole - predictor.visibilities(rest, where)
            for name in columns:
                left -= ms.get(main, name, sample)[:, :, hand]
            difference = max(difference, float(np.abs(left).max()))
            largest = max(largest, float(np.abs(whole).max()))
    return difference / largest if largest else None


def _entry(part: Direction, whole: SkyModel) -> dict[str, Any]:
    flux = part.sky.reference()
    # Negative components would pull the centroid out of the source.
    weight = np.maximum(flux, 0.0)
    place = whole.grid.like.sky(
        float(np.average(part.sky.xs, weights=weight)),
        float(np.average(part.sky.ys, weights=weight)),
    )
    return {
        "label": part.label,
        "column": part.column,
        "ra_deg": float(place.ra.deg),
        "dec_deg": float(place.dec.deg),
        "flux_jy": part.sky.flux_jy,
        "peak_jy_pixel": float(flux.max()),
        "flux_share": part.sky.flux_jy / whole.flux_jy if whole.flux_jy > 0 else None,
        "shape": "clean",
        "components": int(part.sky.xs.size),
    }


__all__ = ["COMMAND", "PredictOptions", "default_sidecar", "predict_region"]
