"""The work of ``peelkit selfcal``: rounds of image, model, solve, apply, measure, accept or go back.

Serial for phases (each solve starts from the original data), incremental for amplitudes (the best
phases are applied on the fly), as in Brogan, Hunter & Fomalont, sections 2.3.2 and 2.3.3 (seed 002).
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from peelkit.core import (
    commit,
    executions,
    imaging,
    ladder,
    linechannels,
    mosaic,
    selfcal_flags,
    selfcal_holdout,
    selfcal_terms,
    snr_estimate,
)
from peelkit.core import dry_run as rehearsal
from peelkit.core import selfcal_plan as planning
from peelkit.core import selfcal_polarisation as polarisation
from peelkit.core import selfcal_prepare as preparing
from peelkit.core import selfcal_products as products
from peelkit.core import selfcal_rounds as rounds
from peelkit.core import selfcal_session as state
from peelkit.core.measure import measure
from peelkit.core.selfcal_session import FIRST_NSIGMA, Best, SelfcalOptions, Session
from peelkit.core.workspace import check_folder, fingerprint, make_copy, open_workspace
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import ms, virtual
from peelkit.io.image import read_image
from peelkit.io.region import read_regions
from peelkit.io.survey import Survey, survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection, check_uvrange, parse_ids

log = logging.getLogger(__name__)

COMMAND = "selfcal"


def selfcal(
    path: Path,
    selection: Selection,
    options: SelfcalOptions,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Self-calibrate one field of the MS at ``path``, or several as one mosaic.

    Parameters
    ----------
    path : Path
        The MS. CORRECTED_DATA and MODEL_DATA are written at the end, if any round was accepted;
        DATA never, FLAG only with applymode calflag.
    selection : Selection
        Field (one, or those of a mosaic), spw, scan, and uvrange for the solve.
    options : SelfcalOptions
        See there.
    dry_run : bool
        Only check, and tell what it would cost.

    Returns
    -------
    Outcome
        With a refusal if no round was accepted; the MS is then as it was.
    """
    progress = progress or Progress()
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if dry_run:
        rehearsal.refuse_unfinished(path)
    elif commit.recover(path) is not None:
        info = ms.read_info(path)
    check_uvrange(selection.uvrange)
    check_uvrange(options.choices.uvrange)
    data_column = _check(info, options)
    asked = {**asdict(options), **asdict(selection), "overwrite": None}
    wanted = selection
    selection, options, lines, notes = _line(info, selection, options, data_column)
    preparing.check(info, options.weights, options.statwt_fitspw, options.flag_list)
    found = survey(info, replace(selection, uvrange=""), progress)
    fields = mosaic.check_fields(info, found, imaging.field_of_view_rad(info, found, found.spws()))
    # With --line also the spws without one: they get its solutions.
    rows = ms.select_rows(info, replace(wanted, uvrange=""))
    if options.minblperant is not None and options.minblperant >= len(found.antennas):
        raise OptionError(
            f"--minblperant {options.minblperant}: {len(found.antennas)} antennas have data, and so at most "
            f"{len(found.antennas) - 1} baselines each; give less."
        )
    warnings = [] if options.weights != "keep" else snr_estimate.weight_warnings(info, found)
    warnings += _column_warnings(info, options) + notes + _frame_warnings(info, found, selection)
    polarisation.check(info, found.spws(), options)
    settled, more = imaging.choose(info, found, options.choices, spws=found.spws(), fields=fields)
    warnings += more
    warnings += polarisation.warnings(info, found, fields, settled, parang=options.parang)
    if len(fields) > 1:
        log.info("%d fields form a mosaic: they are imaged and calibrated jointly", len(fields))
    refants = choose_refants(info, found, options.refant)
    folder = options.out or path.with_name(f"{path.stem}.selfcal")
    if dry_run:
        check_folder(folder, fingerprint(info, asked), overwrite=options.overwrite)
        rungs = len(options.plan or ()) or (
            0 if options.solints == ("auto",) else len(options.solints)
        )
        return rehearsal.selfcal(
            info, rows, settled, rounds=rungs or None, most_rounds=options.rounds,
            calwt=options.calwt, folder=folder,
        )  # fmt: skip
    workspace, resumed = open_workspace(
        folder, fingerprint(info, asked), overwrite=options.overwrite
    )
    if resumed:
        log.info("going on with the interrupted run in %s", folder)
        work, bad = ms.read_info(workspace.ms), 0
    else:
        progress.stage("copying the selected data")
        work, bad = make_copy(workspace, info, rows, data_column, found.execution_of)
        workspace.state = {"stage": "first"}
        workspace.save()
    if bad:
        warnings.append(f"{bad} unflagged samples are not numbers; they were left out")
    with engine.Casa(workspace.log) as casa:
        session = Session(
            info, work, rows, workspace, options, selection, found, fields, settled, casa, refants,
            progress,
        )  # fmt: skip
        if virtual.virtual_model_fields(work.path):
            # Of setjy without usescratch: gaincal would take it in place of MODEL_DATA (measured).
            engine.delete_virtual_model(casa, work.path)
        if resumed:
            state.restore(session)
            _leave_out(session)
            preparing.look_again(session)
        else:
            with workspace.closed_if_refused():
                preparing.prepare(session)
                _start(session)
        refusal = planning.gate(session)
        if refusal is None:
            rounds.run_rounds(session)
            if not session.best.tables:
                refusal = _no_round(session)
        products.link_final(session)
        if refusal is None:
            _apply_best(session)
        check = rounds.check_model(session) if refusal is None else None
        made = products.make_plots(session, check) if options.plots else []
        results = products.results_of(session, made)
        warnings += selfcal_holdout.warnings(session, results["left_out"])
        results["model_check"] = check
        results["line_channels"] = [asdict(line) for line in lines]
        results["executions"] = session.executions
        warnings += executions.warnings(session.executions)
        results["flag_proposals"] = selfcal_flags.propose(session)
        if refusal is None:
            products.record_tables(session)
        # Last of all, so that nothing remains to be interrupted once the MS has changed.
        writes = _commit(session) if refusal is None else ()
    workspace.close()
    return Outcome(
        results=results,
        inputs={"ms": str(path)},
        reads=(data_column, "FLAG", "WEIGHT"),
        writes=writes,
        parameters={
            **imaging.summary(settled),
            "out": str(folder),
            "field": session.field_names,
            "refant": ",".join(refants),
            "datacolumn": options.datacolumn,
            "parang": options.parang,
        },
        engine=casa.engine(),
        warnings=tuple(warnings),
        refusal=refusal,
    )


def _check(info: ms.MsInfo, options: SelfcalOptions) -> str:
    """Check the columns before any work; returns the one to calibrate."""
    if options.plan is not None and (options.calmodes or options.combines or options.gaintypes):
        raise OptionError("--from brings calmode, combine and gaintype; leave these options out.")
    if options.plan is None and options.solints == ("auto",):
        if options.calmodes:
            raise OptionError("--calmode goes with --solint intervals; --solint auto chooses it.")
        if len(options.combines) > 1 or len(options.gaintypes) > 1:
            raise OptionError("--combine and --gaintype are given once with --solint auto.")
        for gaintype in options.gaintypes:
            # The automatic ladder goes on to amplitudes.
            if selfcal_terms.is_over_frequency(gaintype):
                raise OptionError(
                    f"--gaintype {gaintype} goes with named intervals, such as --solint inf --solint 60s "
                    f"--gaintype {gaintype} --gaintype G."
                )
    if options.spwmap and (
        len(options.spwmap) < len(info.spws) or max(options.spwmap) >= len(info.spws)
    ):
        raise DataError(
            f"spwmap {','.join(map(str, options.spwmap))}: {info.path} has {len(info.spws)} spws; "
            "give the id of a spw for each."
        )
    if options.plan is None and options.solints != ("auto",):
        # Refused now rather than after the first image.
        rungs = ladder.explicit_rungs(
            options.solints, calmodes=options.calmodes, combines=options.combines,
            gaintypes=options.gaintypes, minsnr=options.minsnr, scan_s=1.0, integration_s=1.0,
        )  # fmt: skip
        for rung in rungs:
            selfcal_terms.check(rung.gaintype, rung.calmode, rung.combine, options.minblperant)
    for combine in options.combines:
        ladder.check_combine(combine)
    # Read now rather than after the first image.
    if options.leave_out is not None:
        read_regions(options.leave_out)
    for path in filter(None, (options.mask, *options.model)):
        if not path.exists():
            raise DataError(f"{path}: no such mask or model.")
    column = info.data_column(options.datacolumn)
    present = {"CORRECTED_DATA", "MODEL_DATA"} & info.columns
    if present and not options.overwrite:
        raise DataError(
            f"{info.path}: {' and '.join(sorted(present))} exist and would be replaced; allow it with "
            "--overwrite ('peelkit undo' puts them back)."
        )
    return column


def _column_warnings(info: ms.MsInfo, options: SelfcalOptions) -> list[str]:
    if options.datacolumn == "data" and "CORRECTED_DATA" in info.columns:
        return [
            "starting from DATA although there is a CORRECTED_DATA; --datacolumn corrected starts there"
        ]
    return []


def choose_refants(info: ms.MsInfo, found: Survey, wanted: str) -> list[str]:
    """Reference antennas in order of preference, by name.

    The user's first, if any; then the central and little flagged: the score is the distance from
    the array's median position, over the largest, plus the flagged fraction (auto_selfcal's).
    """
    names = [antenna.name for antenna in info.antennas]
    used = [int(antenna) for antenna in found.antennas]
    chosen: list[str] = []
    if wanted:
        for antenna in parse_ids(wanted, names, kind="refant"):
            if antenna not in used:
                raise DataError(
                    f"refant {names[antenna]!r}: has no unflagged data; choose another."
                )
            chosen.append(names[antenna])
    positions = np.array([info.antennas[antenna].position_m for antenna in used])
    distance = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    score = distance / max(distance.max(), 1.0) + (1 - found.antenna_unflagged[used])
    ranked = [names[used[index]] for index in np.argsort(score, kind="stable")]
    return (chosen + [name for name in ranked if name not in chosen])[:5]


def _start(session: Session) -> None:
    """First image, and its mask."""
    options = session.options
    session.progress.stage("first image")
    if options.parang:
        rounds.apply_tables(session, Best())
    started = time.time()
    first = imaging.first_image(
        session.casa,
        session.target,
        session.name("first"),
        session.imaging,
        sigma=2 * options.mask_threshold,
        nsigma=FIRST_NSIGMA,
        mask_path=options.mask,
        leave_out=options.leave_out,
        datacolumn="corrected" if options.parang else "data",
    )
    session.mask = first.mask
    _leave_out(session)
    state.record_image(session, "first", [], nsigma=FIRST_NSIGMA, started=started)
    session.best = Best()
    session.executions = executions.compare(session)
    state.save(session, "rounds")
    figures = measure(first.image, session.mask)
    log.info(
        "first image: peak %.4g, rms %.3g Jy/beam, dynamic range %.0f",
        figures.peak_jy_beam, figures.rms_jy_beam, figures.dynamic_range,
    )  # fmt: skip


def _leave_out(session: Session) -> None:
    """Keep the regions that the masks to come must not have."""
    if session.options.leave_out is not None:
        first = read_image(session.imaging.image(session.name("first")))
        session.left_out = imaging.user_mask(session.options.leave_out, first)


def _line(
    info: ms.MsInfo, selection: Selection, options: SelfcalOptions, column: str
) -> tuple[Selection, SelfcalOptions, list[linechannels.Line], list[str]]:
    """Narrow the selection to the channels with line, if the user wants that.

    The solutions count for all channels: the working copy has them, and applycal asks for none. With a
    polarised line in linear feeds XX/YY turns with the parallactic angle: both hands get one solution
    (seed 002, 2.4.2).
    """
    if not options.line:
        return selection, options, [], []
    rows = ms.select_rows(info, replace(selection, uvrange=""))
    lines = linechannels.find_lines(info, rows, column, info.channels(selection))
    words = ",".join(line.selection for line in lines)
    notes = []
    spws = {line.spw for line in lines}
    linear = any("XX" in d.correlations for d in info.data_descriptions if d.spw in spws)
    without = sorted(set(info.channels(selection)) - spws)
    if without:
        notes.append(
            f"spws without a line ({','.join(map(str, without))}) get the solutions of the nearest that has one"
        )
    if linear and not options.gaintypes and options.plan is None:
        options = replace(options, gaintypes=("T",))
        ratios = ", ".join(f"{line.hand_ratio:.2f}" for line in lines)
        notes.append(
            f"the line's power in XX over YY is {ratios}; both get one solution (gaintype T), since in a "
            "polarised line their ratio turns with the parallactic angle (--gaintype G solves each)"
        )
    log.info("channels with line: %s", words)
    return replace(selection, spw=words), options, lines, notes


def _frame_warnings(info: ms.MsInfo, found: Survey, selection: Selection) -> list[str]:
    """Channels of a spw that executions share: tclean picks them by frequency, after the Doppler shift."""
    for spw, ranges in info.channels(selection).items():
        executions = [o for o in found.observations if spw in found.spws_of(o)]
        part = ranges != [(0, len(info.spws[spw].freq_hz) - 1)]
        if part and len(executions) > 1 and info.spws[spw].frame == "TOPO":
            return [
                f"spw {spw} is topocentric and of {len(executions)} executions: their Doppler shifts differ, and CASA "
                "images neighbours of the selected channels too; cvel or mstransform with outframe LSRK first"
            ]
    return []


def _no_round(session: Session) -> str:
    reasons = "; ".join(f"{r['solint']} {r['calmode']}: {r['reason']}" for r in session.rounds)
    return f"{session.info.path}: no round helped ({reasons or 'none was possible'}); the MS is as it was."


def _apply_best(session: Session) -> None:
    """Bring CORRECTED_DATA, MODEL_DATA and flags of the working copy to what the user's MS shall have."""
    session.applied = None
    rounds.apply_tables(session, session.best, applymode=session.options.applymode)
    rounds.write_model(session, 0)


def _commit(session: Session) -> tuple[str, ...]:
    """Write the result into the user's MS."""
    options = session.options
    flags = options.applymode == "calflag"
    columns = commit.applied_columns(session.info, options.datacolumn, calwt=options.calwt)
    columns["MODEL_DATA"] = "model"
    columns |= preparing.columns(session)
    flags |= preparing.has_new_flags(session)
    path = session.info.path
    with commit.recorded_step(path, COMMAND, casa=session.casa if flags else None) as step:
        commit.write_back(
            session.info, session.work, session.rows, step,
            columns=columns, flags=flags, progress=session.progress,
        )  # fmt: skip
        ms.add_history(
            path,
            command=COMMAND,
            message=f"peelkit selfcal: gain tables in {session.workspace.folder}",
            parameters={
                "field": session.field_names,
                "spw": session.selection.spw,
                "gaintable": session.best.tables,
                "applymode": options.applymode,
                "weights": options.weights,
                "flag_list": options.flag_list,
            },
        )
    return (*columns, *(("FLAG",) if flags else ()))


__all__ = ["COMMAND", "SelfcalOptions", "choose_refants", "selfcal"]
