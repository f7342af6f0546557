"""``peelkit predict-region``: the model in each region, predicted into a column of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import commit, datacolumn, predict_shapes, predict_tclean
from peelkit.core import dry_run as rehearsal
from peelkit.core.modelcol import Predictor, Samples, Sky, predict_columns, read_models
from peelkit.core.predict_inputs import (
    Direction,
    check_columns,
    directions,
    model_paths,
    mosaic_beam,
)
from peelkit.core.predict_rest import Believed, believed
from peelkit.core.predict_shapes import Choice
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import PB_LIMIT, SkyModel, sky_model
from peelkit.errors import OptionError
from peelkit.io import journal, ms, rownumbers
from peelkit.io.image import Image
from peelkit.io.region import read_regions
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection
from peelkit.spread import HERE, Machines, opened

COMMAND = "predict-region"

# Rows of each data description in which the sum of the columns is compared with the whole model.
CLOSURE_ROWS = 512

# What of the model outside the regions is predicted.
AUTO, ALL, NONE = "auto", "all", "none"


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
    rest : str
        What is outside the regions: ``auto`` as far as the data confirm it (`peelkit.core.predict_rest`),
        ``all`` or ``none`` of it.
    overwrite : bool
        Replace columns that exist.
    shape : tuple of str
        ``KIND`` of all directions, ``LABEL=KIND`` of one; auto if empty.
    datacolumn : str
        That compact sources are fitted to: ``auto``, ``data`` or ``corrected``.
    refine : Path or None
        Sidecar of an earlier ddsolve, whose refined models are taken.
    direction_models : tuple of str
        ``LABEL=IMAGE``: restored images of single directions.
    """

    models: tuple[Path, ...]
    image: Path | None
    regions: Path
    prefix: str | None = None
    rest_column: str | None = None
    all_column: str | None = None
    predictor: str = "ducc"
    pb: Path | None = None
    rest: str = AUTO
    overwrite: bool = False
    shape: tuple[str, ...] = ()
    datacolumn: str = "auto"
    refine: Path | None = None
    direction_models: tuple[str, ...] = ()


def predict_region(
    path: Path,
    selection: Selection,
    options: PredictOptions,
    progress: Progress | None = None,
    *,
    machines: Machines = HERE,
    dry_run: bool = False,
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
    machines : Machines
        Where visibilities are computed; this process reads and writes the MS.
    dry_run : bool
        Only check, and tell what it would cost.

    Raises
    ------
    OptionError, DataError, EngineError
        If options, MS, images, regions or machines will not do.
    """
    progress = progress or Progress()
    if options.rest == NONE and options.predictor == "tclean":
        raise OptionError("--rest none: goes with --predictor ducc only.")
    if machines.several and options.predictor == "tclean":
        raise OptionError("--workers, --dask-address: go with --predictor ducc only.")
    paths = model_paths(options.models, options.image)
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if dry_run:
        rehearsal.refuse_unfinished(path)
    elif commit.recover(path) is not None:
        info = ms.read_info(path)
    if info.parts_of_spws(selection):
        raise OptionError(
            f"spw {selection.spw!r}: channels cannot be selected; all of a spw are predicted."
        )
    info.require("DATA", "its shape and storage are what the new columns get.")
    rows = ms.select_rows(info, selection)
    progress.stage("reading the model")
    given = predict_shapes.Given.read(options.refine, options.direction_models)
    models = read_models(paths, may_be_empty=options.refine is not None)
    pb = mosaic_beam(info, rows, paths, options.pb)
    beam = Beam.of(info) if pb is not None and options.predictor == "ducc" else None
    sky = sky_model(models, pb)
    parts = directions(
        read_regions(options.regions, sky.grid.like),
        sky,
        prefix=options.prefix,
        elsewhere=given.labels,
    )
    columns = [part.column for part in parts]
    columns += [name for name in (options.rest_column, options.all_column) if name]
    check_columns(info, columns, overwrite=options.overwrite)
    if dry_run:
        kinds = predict_shapes.parse_shapes(options.shape, [part.label for part in parts])
        fitted = len(
            [
                label
                for label, kind in kinds.items()
                if kind != "clean" and label not in given.labels
            ]
        )
        return rehearsal.predict_region(
            info, rows, regions=len(parts), columns=len(columns),
            fitted=fitted if options.predictor == "ducc" else 0,
        )  # fmt: skip

    def chosen(of: SkyModel) -> tuple[list[Choice], SkyModel]:
        return predict_shapes.choose(
            info, rows, parts, of, given, shapes=options.shape, datacolumn=options.datacolumn,
            predictor=options.predictor, beam=beam,
            beam_arcsec=predict_shapes.restoring_beam_arcsec(paths, options.image, sky),
            is_mosaic=pb is not None, progress=progress,
        )  # fmt: skip

    choices, rest = chosen(sky)
    found = _believed(info, rows, paths, options, choices, rest, beam, progress)
    if found.sky.xs.size < rest.xs.size:
        # Bright sources are fitted without the rest, so once more without what was wrong in it.
        keep = np.ones(sky.grid.shape, dtype=bool)
        keep[rest.ys, rest.xs] = False
        keep[found.sky.ys, found.sky.xs] = True
        choices, rest = chosen(sky.where(keep))
    warnings = _warnings(sky, rest, models, pb, beam, options)
    if len(models[0].stokes) > 1:
        if options.predictor == "tclean":
            raise OptionError(
                f"--predictor tclean: {models[0].path} has Stokes {','.join(models[0].stokes)}, and tclean would "
                "predict them all; use ducc, which predicts I."
            )
        warnings.append(
            f"{models[0].path} has Stokes {','.join(models[0].stokes)}; only I is predicted, the same for both "
            "parallel hands: what is polarised stays in the data"
        )
    if found.words:
        warnings.append(found.words)
    warnings += [choice.warning for choice in choices if choice.warning]
    skies: dict[str, Sky] = {
        part.column: choice.sky for part, choice in zip(parts, choices, strict=True)
    }
    engine = None
    # Machines first: if there are none, the MS is not touched.
    with opened(machines) as spread, commit.recorded_step(path, COMMAND) as step:
        for name in columns:
            step = journal.new_column(path, step, name)
        _fill(info, rows, {name: step.replaced.get(name) for name in columns})
        info = ms.read_info(path)
        if options.predictor == "tclean":
            closure, engine, more = predict_tclean.predict(
                info, rows, paths, models, predict_shapes.clean_skies(skies), rest,
                rest_column=options.rest_column, all_column=options.all_column, progress=progress,
            )  # fmt: skip
            warnings += more
        else:
            if options.rest_column:
                skies[options.rest_column] = rest
            progress.stage("predicting", total=rows.size)
            predict_columns(
                info, skies, rows=rows, beam=beam, total=options.all_column,
                unwritten=None if options.rest_column else rest,
                spread=spread, progress=progress,
            )  # fmt: skip
            progress.stage("checking the sum")
            closure = _closure(
                info, rows, columns[: len(parts)], _pieces(sky, rest, choices), rest, beam
            )
        ms.add_history(
            path, command=COMMAND, message=f"peelkit {COMMAND}: predicted {', '.join(columns)}",
            parameters={"models": paths, "regions": options.regions, "predictor": options.predictor},
        )  # fmt: skip
    inputs = {"ms": str(path), "regions": str(options.regions)}
    inputs |= {f"model_{number}": str(model) for number, model in enumerate(paths)}
    if pb is not None:
        inputs["pb"] = str(pb.path)
    total_jy = rest.flux_jy + sum(choice.flux_jy for choice in choices)
    if options.refine is not None:
        inputs["refine"] = str(options.refine)
    inputs |= {f"direction_model_{label}": str(image) for label, image in given.images.items()}
    results = {
        "models": [str(model) for model in paths],
        "model_kind": "taylor" if sky.is_taylor else "subbands",
        "predictor": options.predictor,
        "pb": None if pb is None else str(pb.path),
        "beam": None
        if beam is None
        else {"telescope": beam.telescope, "diameter_m": beam.diameter_m, "known": beam.is_known},
        "rows": int(rows.size),
        "flux_jy": total_jy,
        "components": int(rest.xs.size) + sum(choice.components for choice in choices),
        "directions": [
            _entry(info, part, choice, total_jy)
            for part, choice in zip(parts, choices, strict=True)
        ],
        "rest_column": options.rest_column,
        "all_column": options.all_column,
        "rest": {
            "flux_jy": rest.flux_jy,
            "components": int(rest.xs.size),
            "trials": [asdict(trial) for trial in found.trials],
        },
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


def _believed(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    paths: Sequence[Path],
    options: PredictOptions,
    choices: Sequence[Choice],
    rest: SkyModel,
    beam: Beam | None,
    progress: Progress,
) -> Believed:
    """The part of the model outside the regions that is predicted."""
    if options.rest == NONE:
        return Believed(rest.where(np.zeros(rest.grid.shape, dtype=bool)))
    image = predict_shapes.restored_image(paths, options.image)
    # Only a restored image on the model's grid tells what stands out of artefacts.
    if options.rest == ALL or options.predictor == "tclean" or not rest.xs.size or image is None:
        return Believed(rest)
    if image.data.shape != rest.grid.shape:
        return Believed(rest)
    column = datacolumn.choose_calibrated(info, rows, options.datacolumn)
    skies = [choice.sky for choice in choices]
    return believed(info, rows, column, skies, rest, image, beam=beam, progress=progress)


def _pieces(sky: SkyModel, rest: SkyModel, choices: Sequence[Choice]) -> list[Sky]:
    """The whole model: in one piece as far as it is of one image, then what is by formula or of others."""
    keep = np.zeros(sky.grid.shape, dtype=bool)
    keep[rest.ys, rest.xs] = True
    more: list[Sky] = []
    for choice in choices:
        if isinstance(choice.sky, SkyModel) and choice.sky.grid is sky.grid:
            keep[choice.sky.ys, choice.sky.xs] = True
        else:
            more.append(choice.sky)
    return [sky.where(keep), *more]


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
    other = ms.other_rows(info, rows)
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
    pieces: Sequence[Sky],
    rest: SkyModel,
    beam: Beam | None,
) -> float | None:
    """Largest ``|whole - rest - sum of columns|`` over the largest ``|whole|``, in a sample of rows.

    The whole model is predicted afresh, in as few pieces as can be; directions are as they were written.
    """
    predictor = Predictor(info, beam)
    difference = largest = 0.0
    with ms.opened(info.path) as main:
        samples = rownumbers.sample(main, rows, len(info.data_descriptions), CLOSURE_ROWS)
        for ddid, sample in samples.items():
            description = info.data_descriptions[ddid]
            where = Samples.read(main, sample, description.spw)
            whole = np.sum([predictor.visibilities(sky, where) for sky in pieces], axis=0)
            hand = ms.parallel_hands(description.correlations)[0]
            left = whole - predictor.visibilities(rest, where)
            for name in columns:
                left -= ms.get(main, name, sample)[:, :, hand]
            difference = max(difference, float(np.abs(left).max()))
            largest = max(largest, float(np.abs(whole).max()))
    return difference / largest if largest else None


def _entry(info: ms.MsInfo, part: Direction, choice: Choice, total_jy: float) -> dict[str, Any]:
    ra_deg, dec_deg = choice.place
    return {
        "label": part.label,
        "column": part.column,
        "ra_deg": ra_deg,
        "dec_deg": dec_deg,
        "flux_jy": choice.flux_jy,
        "peak_jy_pixel": choice.peak_jy_pixel,
        "flux_share": choice.flux_jy / total_jy if total_jy > 0 else None,
        "shape": choice.shape,
        "components": choice.components,
        "model": None if choice.compact is None else choice.compact.record(),
        "fit": choice.fit,
        "apparent": [
            {"field": info.fields[field].name, "field_id": field, "spw": spw, "flux_jy": flux}
            for (field, spw), flux in sorted(choice.compact.apparent.items())
        ]
        if choice.compact is not None
        else [],
    }


__all__ = ["COMMAND", "PredictOptions", "default_sidecar", "predict_region"]
