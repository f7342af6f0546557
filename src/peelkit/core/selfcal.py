"""The work of ``peelkit selfcal``: rounds of image, model, solve, apply, measure, accept or go back.

Serial for phases (each solve starts from the original data), incremental for amplitudes (the best
phases are applied on the fly), as in Brogan, Hunter & Fomalont, sections 2.3.2 and 2.3.3 (seed 002).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import (
    averaging,
    commit,
    datacolumn,
    executions,
    imagers,
    imaging,
    linechannels,
    mosaic,
    reuse,
    selfcal_check,
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
from peelkit.core.first_image import FIRST_NSIGMA, first_image_by_weights, natural_text
from peelkit.core.selfcal_session import Best, SelfcalOptions, Session
from peelkit.core.workspace import (
    Workspace,
    check_folder,
    fingerprint,
    inputs,
    make_copy,
    open_workspace,
)
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import ms, virtual
from peelkit.io.image import read_image
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
    info = open_ms(path, selection, options, dry_run=dry_run)
    selection = info.by_id(selection)
    options = with_data(info, selection, options)
    if dry_run:
        return _rehearsed(info, selection, options, progress or Progress())
    done = calibrate(info, selection, options, progress or Progress(), write=True)
    done.workspace.close()
    return done.outcome


def open_ms(
    path: Path, selection: Selection, options: SelfcalOptions, *, dry_run: bool = False
) -> ms.MsInfo:
    """Look at an MS that a run will write into, and check what can be checked before any work."""
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if dry_run:
        rehearsal.refuse_unfinished(path)
    elif commit.recover(path) is not None:
        info = ms.read_info(path)
    check_uvrange(selection.uvrange)
    check_uvrange(options.choices.uvrange)
    selfcal_check.check(info, options)
    preparing.check(info, options.weights, options.statwt_fitspw, options.flag_list)
    return info


@dataclass(frozen=True)
class Calibrated:
    """What rounds found, and the working copy with it; of a refusal there is nothing to write.

    Parameters
    ----------
    outcome : Outcome
        For the sidecar.
    workspace : Workspace
        Its copy has CORRECTED_DATA, MODEL_DATA and the rest of what the MS shall have.
    columns : dict of str
        To write, as `commit.write_back` wants them; empty after a refusal.
    flags : bool
        Whether FLAG goes into the MS, too.
    """

    outcome: Outcome
    workspace: Workspace
    columns: Mapping[str, str]
    flags: bool


def mark(info: ms.MsInfo, selection: Selection, options: SelfcalOptions) -> str:
    """`fingerprint` of a run: what must be the same for it to be gone on with."""
    return fingerprint(info, {**asdict(options), **asdict(selection), "overwrite": None})


def with_data(info: ms.MsInfo, selection: Selection, options: SelfcalOptions) -> SelfcalOptions:
    """The options with the column that is calibrated, which must not replace what would be missed."""
    rows = selected_rows(info, selection)
    chosen = datacolumn.choose(info, rows, options.datacolumn)
    datacolumn.refuse_replacing(info, rows, chosen.column, overwrite=options.overwrite)
    if chosen.why:
        log.info("%s: %s", info.path, chosen.why)
    return replace(options, datacolumn=chosen.column)


def data_mark(info: ms.MsInfo, rows: NDArray[np.int64], column: str) -> str:
    """Hash of all that a run reads of the MS: what must be the same for it to be gone on with."""
    return reuse.mark(info, rows, (column, "SIGMA", "SIGMA_SPECTRUM"))


def selected_rows(info: ms.MsInfo, selection: Selection) -> NDArray[np.int64]:
    """Rows of the working copy; with --line also the spws without one: they get its solutions."""
    return ms.select_rows(info, replace(selection, uvrange=""))


def calibrate(
    info: ms.MsInfo,
    selection: Selection,
    options: SelfcalOptions,
    progress: Progress,
    *,
    write: bool,
) -> Calibrated:
    """Self-calibrate on a copy of the selected rows; writes into the MS only with ``write``.

    See `selfcal` and `open_ms`. An interrupted run in the same folder is gone on with.
    """
    data_column = info.data_column(options.datacolumn)
    identity = mark(info, selection, options)
    ready = _settle(info, selection, options, progress)
    selection, options, found, fields = ready.selection, ready.options, ready.found, ready.fields
    rows, settled, folder = ready.rows, ready.imaging, ready.folder
    refants, warnings = ready.refants, list(ready.warnings)
    workspace, resumed = open_workspace(
        folder, identity, overwrite=options.overwrite, needed=[info.path, *inputs(asdict(options))]
    )
    data = data_mark(info, rows, data_column)
    if resumed and workspace.state.get("data") != data:
        if not options.overwrite:
            raise DataError(
                f"{folder}: holds an interrupted run, and the data, flags or weights of {info.path} have changed since; "
                "start anew with --overwrite, or give another --out."
            )
        workspace.close()
        workspace, resumed = open_workspace(
            folder, identity, overwrite=True, needed=[info.path, *inputs(asdict(options))]
        )
    if resumed:
        log.info("going on with the interrupted run in %s", folder)
        work = ms.read_info(workspace.ms)
    else:
        progress.stage("copying the selected data")
        work, left = make_copy(
            workspace,
            info,
            rows,
            data_column,
            found.execution_of,
            weights=options.weights == "keep",
        )
        warnings += left
        workspace.state = {"stage": "first", "data": data}
        workspace.save()
    settled = averaging.settled(work, ms.every_row(work), folder, settled)
    with (
        engine.Casa(workspace.log, imagers.processes(settled.imager)) as casa,
        imagers.opened(settled.imager, workspace.log, casa) as imager,
    ):
        session = Session(
            info, work, rows, workspace, options, selection, found, fields, settled, casa, imager, refants,
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
        rounds.mend_best(session)
        state.link_final(session)
        imagers.forget(imager)
        workspace.drop_averages()
        if refusal is None:
            _apply_best(session)
        check = rounds.check_model(session) if refusal is None else None
        made = products.make_plots(session, check) if options.plots else []
        results = products.results_of(session, made)
        if session.imaging.robust != settled.robust:
            warnings.append(natural_text(settled))
        warnings += selfcal_holdout.warnings(session, results["left_out"])
        results["model_check"] = check
        results["line_channels"] = [asdict(line) for line in ready.lines]
        results["executions"] = session.executions
        warnings += executions.warnings(session.executions)
        results["flag_proposals"] = selfcal_flags.propose(session)
        if refusal is None:
            products.record_tables(session)
        columns, flags = _to_write(session) if refusal is None else ({}, False)
        # Last of all, so that nothing remains to be interrupted once the MS has changed.
        if write and columns:
            _commit(session, columns, flags=flags)
    outcome = Outcome(
        results=results,
        inputs={"ms": str(info.path)},
        reads=(data_column, "FLAG", "WEIGHT"),
        writes=(*columns, *(("FLAG",) if flags else ())),
        parameters={
            **imaging.summary(session.imaging),
            "out": str(folder),
            "field": session.field_names,
            "refant": ",".join(info.antenna_words(refants)),
            "datacolumn": options.datacolumn,
            "parang": options.parang,
        },
        engine=imagers.engines(casa, imager),
        warnings=tuple(warnings),
        refusal=refusal,
    )
    return Calibrated(outcome, workspace, columns, flags)


@dataclass(frozen=True)
class _Ready:
    """All that is settled before the first work: see `_settle`."""

    selection: Selection
    options: SelfcalOptions
    lines: Sequence[linechannels.Line]
    found: Survey
    fields: list[int]
    rows: NDArray[np.int64]
    imaging: engine.Imaging
    refants: list[int]
    folder: Path
    warnings: Sequence[str]


def _settle(
    info: ms.MsInfo, selection: Selection, options: SelfcalOptions, progress: Progress
) -> _Ready:
    """Look at the data, and choose what is not given: channels, image, reference antennas, folder."""
    wanted = selection
    selection, options, lines, notes = _line(
        info, selection, options, info.data_column(options.datacolumn)
    )
    found = survey(
        info, replace(selection, uvrange=""), progress, weights=options.weights == "keep"
    )
    if lines:
        _require_lines(info, wanted, found, progress)
    fields = mosaic.check_fields(info, found, imaging.field_of_view_rad(info, found, found.spws()))
    rows = selected_rows(info, wanted)
    if options.minblperant is not None and options.minblperant >= len(found.antennas):
        raise OptionError(
            f"--minblperant {options.minblperant}: {len(found.antennas)} antennas have data, and so at most "
            f"{len(found.antennas) - 1} baselines each; give less."
        )
    warnings = [] if options.weights != "keep" else snr_estimate.weight_warnings(info, found)
    warnings += notes + _frame_warnings(info, found, selection)
    polarisation.check(info, found.spws(), options)
    settled, more = imaging.choose(info, found, options.choices, spws=found.spws(), fields=fields)
    imagers.check(settled, info, fields, selection.spw)
    warnings += more
    warnings += polarisation.warnings(info, found, fields, settled, parang=options.parang)
    if len(fields) > 1:
        log.info("%d fields form a mosaic: they are imaged and calibrated jointly", len(fields))
    refants = choose_refants(info, found, options.refant)
    folder = options.out or info.path.with_name(f"{info.path.stem}.selfcal")
    return _Ready(
        selection, options, lines, found, fields, rows, settled, refants, folder, tuple(warnings)
    )


def _rehearsed(
    info: ms.MsInfo, selection: Selection, options: SelfcalOptions, progress: Progress
) -> Outcome:
    """What it would cost."""
    ready = _settle(info, selection, options, progress)
    check_folder(ready.folder, mark(info, selection, options), overwrite=ready.options.overwrite)
    return rehearsal.selfcal(info, ready.rows, ready.imaging, planned(ready.options, ready.folder))


def planned(options: SelfcalOptions, folder: Path) -> rehearsal.Rounds:
    """Rounds that the options ask for."""
    rungs = len(options.plan or ()) or (0 if options.solints == ("auto",) else len(options.solints))
    return rehearsal.Rounds(rungs or None, options.rounds, options.calwt, folder)


def settled_imaging(
    info: ms.MsInfo, selection: Selection, options: SelfcalOptions, progress: Progress
) -> engine.Imaging:
    """How the selected field would be imaged, all else checked as for a run."""
    return _settle(info, selection, options, progress).imaging


def choose_refants(info: ms.MsInfo, found: Survey, wanted: str) -> list[int]:
    """Reference antennas in order of preference.

    The user's first, if any; then the central and little flagged: the score is the distance from
    the array's median position, over the largest, plus the flagged fraction (auto_selfcal's).
    """
    names = [antenna.name for antenna in info.antennas]
    used = [int(antenna) for antenna in found.antennas]
    chosen: list[int] = []
    if wanted:
        for antenna in parse_ids(wanted, names, kind="refant"):
            if antenna not in used:
                raise DataError(
                    f"refant {names[antenna]!r}: has no unflagged data; choose another."
                )
            chosen.append(antenna)
    positions = np.array([info.antennas[antenna].position_m for antenna in used])
    distance = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    score = distance / max(distance.max(), 1.0) + (1 - found.antenna_unflagged[used])
    ranked = [used[int(index)] for index in np.argsort(score, kind="stable")]
    return (chosen + [antenna for antenna in ranked if antenna not in chosen])[:5]


def _start(session: Session) -> None:
    """First image, and its mask."""
    options = session.options
    session.progress.stage("first image")
    if options.parang:
        rounds.apply_tables(session, Best())
    started = time.time()
    data = state.target(session, "corrected" if options.parang else "data")
    first, session.imaging = first_image_by_weights(
        session.imager,
        data,
        session.name("first"),
        session.imaging,
        sigma=2 * options.mask_threshold,
        mask_path=options.mask,
        leave_out=options.leave_out,
        weights_given=options.choices.robust is not None,
    )
    session.mask = first.mask
    _leave_out(session)
    state.record_image(
        session, "first", [], nsigma=FIRST_NSIGMA, started=started, mark=session.mark(data)
    )
    session.best = Best()
    session.executions = executions.compare(session)
    began = state.state_of(session, "first")
    figures, session.first = began.figures, state.figures_record(began)
    state.save(session, "rounds")
    log.info(
        "first image: peak %.4g, rms %.3g Jy/beam, dynamic range %.0f",
        figures.peak_jy_beam, figures.rms_jy_beam, figures.dynamic_range,
    )  # fmt: skip


def _leave_out(session: Session) -> None:
    """Keep the regions that the masks to come must not have."""
    if session.options.leave_out is not None:
        first = read_image(session.imaging.image(session.name("first")))
        session.left_out = imaging.user_mask(session.options.leave_out, first)


def _require_lines(info: ms.MsInfo, wanted: Selection, found: Survey, progress: Progress) -> None:
    """Refuse executions in which no line was found: solutions do not span two."""
    whole = survey(info, replace(wanted, uvrange=""), progress)
    without = sorted(set(whole.observations) - set(found.observations))
    if without:
        raise DataError(
            f"{info.path}: no line was found in execution {', '.join(map(str, without))}, whose data would get no "
            "solutions of their own; name the channels with --spw in place of --line, or choose scans with --scan."
        )


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
    fitted = [kind for kind in options.gaintypes if selfcal_terms.is_fitted(kind)]
    if without and fitted:
        raise OptionError(
            f"--gaintype {fitted[0]}: is solved for the spws with a line, and does not count for the others "
            f"({','.join(map(str, without))}); choose those with --spw, or another --gaintype."
        )
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


# End of what a refused run says; not of one field among others that may be written.
UNTOUCHED = "; the MS is as it was."


def _no_round(session: Session) -> str:
    reasons = "; ".join(f"{r['solint']} {r['calmode']}: {r['reason']}" for r in session.rounds)
    return f"{session.info.path}: no round helped ({reasons or 'none was possible'}){UNTOUCHED}"


def _apply_best(session: Session) -> None:
    """Bring CORRECTED_DATA, MODEL_DATA and flags of the working copy to what the user's MS shall have."""
    session.applied = None
    rounds.apply_tables(session, session.best, applymode=session.options.applymode)
    rounds.write_model(session, 0)


def _to_write(session: Session) -> tuple[dict[str, str], bool]:
    """Columns that the MS shall have of the working copy, and whether its flags, too."""
    options = session.options
    columns = commit.applied_columns(session.info, calwt=options.calwt)
    columns["MODEL_DATA"] = "model"
    columns |= preparing.columns(session)
    return columns, options.applymode == "calflag" or preparing.has_new_flags(session)


def _commit(session: Session, columns: Mapping[str, str], *, flags: bool) -> None:
    """Write the result into the user's MS."""
    options = session.options
    path = session.info.path
    with commit.recorded_step(path, COMMAND, casa=session.casa if flags else None) as step:
        commit.write_back(
            session.info,
            [commit.Part(session.work.path, session.rows, session.info.data_column(options.datacolumn))],
            step, columns=columns, flags=flags, self_calibrated=True, progress=session.progress,
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


__all__ = ["COMMAND", "SelfcalOptions", "choose_refants", "selfcal"]
