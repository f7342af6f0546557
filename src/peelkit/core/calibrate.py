"""The work of ``peelkit selfcal --term``: calibrate on a source whose model is known.

No image and no rounds: the model is given, so the terms are solved once, and applied to the calibrator
and to other fields.
"""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import calibrate_earlier as earlier_runs
from peelkit.core import calibrate_model as modelling
from peelkit.core import calibrate_write as writing
from peelkit.core import commit, plots, plots_calibrate, snr_estimate
from peelkit.core.calibrate_check import check_corrected
from peelkit.core.calibrate_plan import (
    CalibrateOptions,
    PointModel,
    check_data,
    make_terms,
    parse_model,
)
from peelkit.core.calibrate_solve import Job, Solved, solve_terms
from peelkit.core.calibrate_tables import find, write_record
from peelkit.core.selfcal import choose_refants
from peelkit.core.workspace import fingerprint, inputs, keep_inputs, make_copy, open_workspace
from peelkit.engines import casa as engine
from peelkit.errors import OptionError
from peelkit.io import caltable, ms, virtual
from peelkit.io.survey import survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection, check_uvrange

log = logging.getLogger(__name__)


def calibrate(
    path: Path, selection: Selection, options: CalibrateOptions, progress: Progress | None = None
) -> Outcome:
    """Calibrate one source of the MS at ``path``, and other fields with its solutions.

    Parameters
    ----------
    path : Path
        The MS. CORRECTED_DATA of the calibrator and of ``options.apply_to`` and MODEL_DATA of the
        calibrator are written at the end; other rows keep what they have. DATA never, FLAG only with
        applymode calflag.
    selection : Selection
        The calibrator; spw, scan and uvrange of the solves. Every scan and channel of the fields gets
        the solutions.

    Returns
    -------
    Outcome
        With a refusal if a term has no solutions; the MS is then as it was.
    """
    progress = progress or Progress()
    model = parse_model(options.model)
    terms = make_terms(options)
    if options.flux_from and not any("a" in term.calmode for term in terms):
        raise OptionError(
            "--flux-from compares gain amplitudes; it needs --term G with calmode ap or a."
        )
    if options.flux_from and not isinstance(model, PointModel):
        raise OptionError(
            f"--flux-from: {options.model} has a flux of its own; give --model point:1Jy for a source "
            "whose flux is to be found."
        )
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if commit.recover(path) is not None:
        info = ms.read_info(path)
    check_uvrange(selection.uvrange)
    selection = info.by_id(selection)
    column = info.data_column(options.datacolumn)
    fields, others = check_data(info, selection, options)
    found = survey(info, replace(selection, uvrange=""), progress)
    earlier, by_time = earlier_runs.tables_before(
        info, found, selection, options, [term.kind for term in terms]
    )
    reference = find(options.flux_from) if options.flux_from else None
    if reference is not None:
        earlier_runs.check_flux_from(options, terms, earlier, reference)
    warnings = snr_estimate.weight_warnings(info, found)
    refants = choose_refants(info, found, options.refant)
    spws = ",".join(map(str, info.channels(selection)))
    rows = ms.select_rows(info, Selection(field=",".join(map(str, [*fields, *others])), spw=spws))
    name = info.fields[fields[0]].name
    folder = options.out or path.with_name(f"{path.stem}.{_plain(name)}.cal")
    parameters = {**asdict(options), **asdict(selection), "overwrite": None}
    used = [*earlier.tables, *(reference.tables if reference else ())]
    keep_inputs(folder, [item.path for item in used])
    workspace, _ = open_workspace(
        folder, fingerprint(info, parameters), overwrite=options.overwrite,
        needed=[path, *inputs(parameters)],
    )  # fmt: skip
    progress.stage("copying the selected data")
    work, left = make_copy(workspace, info, rows, column)
    warnings += left
    with workspace.closed_if_refused(), engine.Casa(workspace.log) as casa:
        job = Job(casa, work, workspace, options, selection, fields, found, refants, earlier.tables)
        own = ms.select_rows(work, Selection(field=job.field))
        if virtual.virtual_model_fields(work.path):
            # Of setjy without usescratch: gaincal would take it in place of MODEL_DATA (measured).
            engine.delete_virtual_model(casa, work.path)
            warnings.append(
                f"{path}: has a virtual model too, which is not used here; CASA's own tasks prefer it "
                "over MODEL_DATA (delmod drops it)"
            )
        progress.stage("model of the calibrator")
        scale: dict[int, float] = {}
        if isinstance(model, PointModel):
            modelling.write_point(work, own, model, scale=scale)
            fluxes = {
                spw: float(modelling.point_flux(model, np.array([info.spws[spw].centre_hz]))[0])
                for spw in found.spws()
            }
            said = "a point at the phase centre"
        else:
            fluxes, said = modelling.write_standard(
                casa, work, model, fields=fields, spws=found.spws(), standard=options.standard
            )
        progress.stage("solving")
        solved = solve_terms(job, terms)
        last = solved[-1]
        refusal = None
        if last.record["solutions_failed"] == last.record["solutions"]:
            refusal = f"{path}: all solutions of {last.term.name} failed; the MS is as it was."
        tables = [*earlier.tables, *(item.table for item in solved)]
        flux: list[dict[str, Any]] = []
        if refusal is None and reference is not None:
            scale, flux = earlier_runs.bootstrap(job, solved, reference, fluxes, name)
            fluxes = {spw: fluxes[spw] * scale.get(spw, 1.0) for spw in fluxes}
            tables = [*earlier.tables, *(earlier_runs.scaled(item, scale) for item in solved)]
            assert isinstance(model, PointModel)
            modelling.write_point(work, own, model, scale=scale)
        elif refusal is None:
            flux = [
                {
                    "field": name,
                    "spw": spw,
                    "flux_jy": value,
                    "scatter_percent": None,
                    "source": said,
                }
                for spw, value in sorted(fluxes.items())
            ]
        if refusal is None:
            write_record(folder, tables=tables, field=name, fluxes_jy=fluxes, parang=options.parang)
        applied: list[dict[str, Any]] = []
        check: list[dict[str, Any]] = []
        if refusal is None:
            progress.stage("applying")
            applied = writing.apply(job, tables, others)
            check = check_corrected(work, own, selection)
        made = _plots(job, solved) if options.plots else []
        warnings += _warnings(solved, options, others)
        writes: tuple[str, ...] = ()
        if refusal is None:
            modelling.fill_others(info, work, rows, fields)
            writes = writing.write(job, info, rows, tables, progress)
        made_by = casa.engine()
    workspace.close()
    return Outcome(
        results={
            "mode": "calibrator",
            "field": name,
            "model": said,
            "terms": [item.record for item in solved],
            "tables": [{**asdict(item), "path": str(item.path)} for item in tables],
            "applied": applied,
            "matched_by_time": by_time,
            "flux": flux,
            "check": check,
            "parang": options.parang,
            "parang_reason": _parang_reason(info, options),
            "plots": [str(item) for item in made],
        },
        inputs={
            "ms": str(path),
            **{f"pre{number}": text for number, text in enumerate(options.pre, start=1)},
            **({"flux_from": options.flux_from} if options.flux_from else {}),
        },
        reads=(column, "FLAG", "WEIGHT"),
        writes=writes,
        parameters={
            "out": str(folder),
            "field": name,
            "refant": ",".join(info.antenna_words(refants)),
        },
        engine=made_by,
        warnings=tuple(warnings),
        refusal=refusal,
    )


def _plain(name: str) -> str:
    """A field's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)


def _parang_reason(info: ms.MsInfo, options: CalibrateOptions) -> str:
    if options.parang:
        return "asked for: solutions and corrected data are in the frame of the sky"
    hands = max(len(item.correlations) for item in info.data_descriptions)
    if hands < 4:
        return "parallel hands only: for circular feeds it is a phase that the gains take up"
    return (
        "not asked for (--parang): cross hands and Stokes Q, U stay in the frame of the antennas, "
        "Stokes I is the same"
    )


def _warnings(solved: list[Solved], options: CalibrateOptions, others: list[int]) -> list[str]:
    found = []
    for item in solved:
        tried, failed = item.record["solutions"], item.record["solutions_failed"]
        if failed and options.applymode == "calonly":
            found.append(
                f"{failed} of {tried} solutions of {item.term.name} failed: the data that they belong to "
                "are left uncalibrated and unflagged (--applymode calflag flags them)"
            )
    if others and not any(item.term.kind in "GT" for item in solved):
        found.append("no G or T was solved: the other fields get no gains of this source")
    return found


def _plots(job: Job, solved: list[Solved]) -> list[Path]:
    folder = job.workspace.folder
    names = job.work.antenna_labels
    made: list[Path] = []
    for item in solved:
        stem = folder / item.term.name
        if item.record["solutions_failed"] == item.record["solutions"]:
            continue
        if item.term.kind == "K":
            made.append(plots_calibrate.delays(item.content, Path(f"{stem}.delays.png")))
        elif item.term.kind == "B":
            made += plots_calibrate.bandpass(item.content, stem)
        else:
            # As applied: on the flux scale.
            path = Path(item.record.get("caltable_flux_scaled", item.table.path))
            table = caltable.read_gain_table(path)
            rest = float(np.median(np.abs(table.gain[table.ok])))
            made += plots.gains(table, names, stem, calmode=item.term.calmode, rest=rest)
    return made
