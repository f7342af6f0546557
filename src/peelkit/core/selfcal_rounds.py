"""One round after the other: open the mask, predict, solve, apply, image, judge."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import imaging, modelcol, selfcal_crossval, selfcal_terms, snr, solutions
from peelkit.core import selfcal_flux as flux
from peelkit.core import selfcal_plan as planning
from peelkit.core import selfcal_session as state
from peelkit.core.crossval import Found
from peelkit.core.selfcal_session import Best, Session
from peelkit.core.selfcal_solve import How, Solved, interp, solve
from peelkit.core.verdict import Limits, State, Verdict, judge, position_uncertainty_arcsec
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.io.caltable import read_gain_table
from peelkit.io.image import read_image

log = logging.getLogger(__name__)

# The mask opens by this factor in sigma from round to round, down to its final threshold.
MASK_STEP = 0.8


def run_rounds(session: Session) -> None:
    """Do rounds until there is none worth doing."""
    options = session.options
    first = state.state_of(session, "first")
    while True:
        before = state.state_of(session, session.best.imagename)
        rung = planning.next_rung(session, before.figures)
        if rung is None:
            return
        needed = options.phase_snr if rung.calmode == "p" else options.amplitude_snr
        number = len(session.rounds) + 1
        session.progress.stage(f"round {number}: solint {rung.solint} {rung.calmode}")
        if not rung.snr >= needed:
            verdict = Verdict(False, f"S/N per solution {rung.snr:.1f} is below {needed:g}")
            session.rounds.append(
                state.round_record(rung, before, before, verdict, 0, 0, None, None, [])
            )
        else:
            state.average_less(session)
            session.rounds.append(one_round(session, number, rung, before, first))
        state.save(session, "rounds")
        last = session.rounds[-1]
        log.info(
            "round %d: solint %s %s: %s (%s)",
            number, rung.solint, rung.calmode,
            "accepted" if last["accepted"] else "rejected", last["reason"],
        )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One way of solving a round: its solutions, its state, and the verdict on it."""

    solved: Solved
    best: Best
    after: State | None
    moved_arcsec: float | None
    limits: Limits
    verdict: Verdict
    left_out: Found | None


def one_round(
    session: Session, number: int, rung: snr.Rung, best: State, first: State
) -> dict[str, Any]:
    """Do one round; returns its record, and updates the best state if it was accepted."""
    nsigma = open_mask(session, number, best)
    fields = planning.fields_to_solve(session, rung)
    write_model(session, number)
    base = base_tables(session, rung)
    before = state.state_of(session, session.best.imagename)
    hows, check = ways(session, rung, base)
    trials = []
    for how in hows:
        trial = _trial(
            session, number, rung, base, fields, how,
            nsigma=nsigma, before=before, first=first,
        )  # fmt: skip
        trials.append(trial)
    chosen = max(trials, key=lambda trial: (trial.verdict.accepted, _gain(trial)))
    if chosen.verdict.accepted:
        session.best = chosen.best
    record = _record(session, chosen, before, first)
    record["fields"] = fields
    record["model_check"] = check
    record["ways"] = [
        {
            "uvrange": trial.solved.how.uvrange,
            "solnorm": trial.solved.how.solnorm,
            "accepted": trial.verdict.accepted,
            "reason": trial.verdict.reason,
        }
        for trial in trials
    ]
    for trial in trials:
        if trial is not chosen:
            engine.remove_table(trial.solved.caltable)
    return record


def mend_best(session: Session) -> None:
    """Image the best state again, with its model, if averages limit its image."""
    if state.average_less(session):
        apply_tables(session, session.best)
        state.clean_on(session, session.mask, nsigma=session.best.nsigma)


def _gain(trial: Trial) -> float:
    return trial.verdict.gain if math.isfinite(trial.verdict.gain) else 0.0


def _trial(
    session: Session,
    number: int,
    rung: snr.Rung,
    base: Best,
    fields: list[int],
    how: How,
    *,
    nsigma: float,
    before: State,
    first: State,
) -> Trial:
    """Solve one way, apply, image and judge.

    Cleaning begins with the model of the best image, cleaned in the same mask: both images of a round then
    have as many components for what is faint, and the verdict compares the gains alone.
    """
    solved = solve(session, number, rung, base, fields, how)
    trial = Best(
        [*base.tables, solved.caltable.name],
        [*base.table_spwmaps, solved.spwmap],
        [*base.table_modes, rung.calmode],
        f"round{number}{how.word}",
        nsigma,
    )
    limits = _limits(session, trial)
    if solved.failed_fraction >= 1:
        return Trial(
            solved, trial, None, None, limits, Verdict(False, "all solutions failed"), None
        )
    if base.tables or session.options.parang:
        apply_tables(session, base)
    left_out = selfcal_crossval.judge(session, solved, base, fields)
    if left_out is not None and left_out.worse:
        # No image can tell better than data that the solve has not seen.
        return Trial(solved, trial, None, None, limits, Verdict(False, left_out.text), left_out)
    apply_tables(session, trial)
    like = read_image(session.imaging.image(session.name("first")))
    state.clean(
        session, trial.imagename, trial.tables, nsigma=nsigma, like=like,
        # The first image has the largest artefacts, and its model with it.
        model_of=session.best.imagename if session.best.tables else None,
    )  # fmt: skip
    after = state.state_of(session, trial.imagename)
    moved = state.shift_arcsec(session, trial.imagename)
    verdict = judge(
        before,
        after,
        first,
        held=state.held(session, trial.imagename),
        calmode=rung.calmode,
        moved_arcsec=moved,
        failed_fraction=solved.failed_fraction,
        limits=limits,
        least_gain=left_out.least_gain if left_out else 1.0,
    )
    return Trial(solved, trial, after, moved, limits, verdict, left_out)


def _limits(session: Session, trial: Best) -> Limits:
    """The user's, with the S/N that positions of the first image had with the phases that were found since."""
    limits = session.options.limits
    phases = [
        name for name, mode in zip(trial.tables, trial.table_modes, strict=True) if "p" in mode
    ]
    if not phases:
        return limits
    found = solutions.position_snr(read_gain_table(session.workspace.path(phases[0])))
    return replace(limits, transfer_snr=min(limits.transfer_snr, found))


def _record(session: Session, trial: Trial, before: State, first: State) -> dict[str, Any]:
    solved = trial.solved
    names = session.info.antenna_labels
    image = session.imaging.image(session.name(trial.best.imagename)) if trial.after else None
    record = state.round_record(
        solved.rung, before, trial.after or before, trial.verdict, solved.tried, solved.failed,
        solved.caltable, image,
        solutions.suspicions(solved.table, calmode=solved.rung.calmode, names=names),
    )  # fmt: skip
    lost = [names[antenna] for antenna in solved.lost]
    record["antennas_lost"] = lost
    if lost:
        record["suspicious"].append(
            f"most solutions of {', '.join(lost)} failed: the limit of failed solutions is held against the others "
            "alone, and without a solution data stay as they were; a longer --solint may serve all"
        )
    record["uvrange"] = solved.how.uvrange
    record["solnorm"] = solved.how.solnorm and solved.rung.calmode != "p"
    record["spwmap"] = solved.spwmap
    record["fell_back"] = solved.fell_back
    record["cross_validation"] = asdict(trial.left_out) if trial.left_out else None
    record["shift_arcsec"] = trial.moved_arcsec
    record["position_uncertainty_arcsec"] = position_uncertainty_arcsec(
        first, trial.limits.transfer_snr
    )
    return record


def ways(session: Session, rung: snr.Rung, base: Best) -> tuple[list[How], dict[str, Any] | None]:
    """How to solve a round: amplitudes two ways where the model lacks flux on short baselines.

    With the mean amplitude held (solnorm), and without the short baselines; "it is often advantageous
    to try both ... and see which gives the most improvement in the image S/N without a loss in
    integrated flux" (seed 002, tip 4).

    Returns
    -------
    list of How
        One, or two.
    dict or None
        What the model was found to lack, for the sidecar; None for phases.
    """
    options = session.options
    uvrange = session.selection.uvrange
    if rung.calmode == "p":
        return [How(uvrange, False)], None
    apply_tables(session, base)
    check = check_model(session)
    lacking = check["lacking_below_m"]
    if options.solnorm is not None:
        return [How(uvrange, options.solnorm)], check
    hows = [How(uvrange, True)]
    if lacking is not None and not uvrange:
        minimum = options.minblperant or snr.recommended_minblperant(
            len(session.found.antennas), calmode=rung.calmode
        )
        rows = ms.every_row(session.work)
        longest = flux.longest_cut_m(session.work, rows, session.found.antennas.tolist(), minimum)
        cut = min(lacking, longest)
        log.info(
            "the model lacks flux that baselines below %.0f m see: amplitudes are solved with solnorm%s",
            lacking, f", and without baselines below {cut:.0f} m" if cut > 0 else "",
        )  # fmt: skip
        if cut > 0:
            hows.append(How(f">{cut:.0f}m", False, ".uvcut"))
    return hows, check


def check_model(session: Session) -> dict[str, Any]:
    """Compare the corrected data with the model by baseline length: what the sidecar says (tip 3)."""
    rows = ms.every_row(session.work)
    channels = session.info.channels(session.selection)
    ratios = flux.data_over_model(session.work, rows, channels, session.found.max_uv_m)
    return {
        "lacking_below_m": flux.inner_cut_m(ratios),
        "bins": [asdict(item) for item in ratios],
    }


def open_mask(session: Session, number: int, before: State) -> float:
    """Open the mask a little, and clean the best image in it, so that both images of a round compare.

    Returns
    -------
    float
        The depth to clean to [sigma].
    """
    options = session.options
    nsigma = options.nsigma or imaging.depth(before.figures.dynamic_range)
    grown = session.mask
    if options.mask is None:
        image = read_image(session.imaging.image(session.name(session.best.imagename)))
        sigma = max(options.mask_threshold, 2 * options.mask_threshold * MASK_STEP**number)
        grown = imaging.grow_mask(image, session.mask, sigma)
        if session.left_out is not None:
            grown &= ~session.left_out
    if np.any(grown & ~session.mask) or nsigma < session.best.nsigma:
        apply_tables(session, session.best)
        state.clean_on(session, grown, nsigma=nsigma)
    return nsigma


def write_model(session: Session, number: int) -> None:
    """Predict the model of the best image (or the user's, in the first round) into MODEL_DATA."""
    best = session.name(session.best.imagename)
    if session.options.model and number == 1:
        models = list(session.options.model)
    else:
        models = session.imaging.models(best)
    modelcol.predict_model(
        session.work,
        modelcol.read_models(models),
        polarised={
            plane: modelcol.read_models(models, stokes=plane, may_be_empty=True)
            for plane in session.imaging.polarised
        },
        rows=ms.every_row(session.work),
        pb=read_image(session.imaging.pb(best)) if session.imaging.is_mosaic else None,
    )


def base_tables(session: Session, rung: snr.Rung) -> Best:
    """Tables applied on the fly: delays and TEC for phases, all the best phases for amplitudes."""
    best = session.best
    keep = selfcal_terms.kept_for(best, rung)
    return Best(
        [best.tables[index] for index in keep],
        [best.table_spwmaps[index] for index in keep],
        [best.table_modes[index] for index in keep],
    )


def apply_tables(session: Session, wanted: Best, *, applymode: str | None = None) -> None:
    """Bring CORRECTED_DATA of the working copy to ``wanted``; nothing to do if it is there.

    Solutions of all fields count for all: between them CASA interpolates in time, so that a field of a
    mosaic that was not solved for, or failed, gets what its neighbours in time had.
    """
    if applymode is None and session.applied == wanted.tables:
        return
    if not wanted.tables and not session.options.parang:
        reset_corrected(session)
    else:
        engine.apply_gains(
            session.casa,
            session.work.path,
            field=session.field,
            gaintable=[str(session.workspace.path(name).absolute()) for name in wanted.tables],
            spwmap=wanted.table_spwmaps,
            interp=interp(session, wanted.table_modes),
            calwt=session.options.calwt,
            applymode=applymode or "calonly",
            parang=session.options.parang,
        )
    session.applied = list(wanted.tables)


def reset_corrected(session: Session) -> None:
    """Copy DATA of the working copy to its CORRECTED_DATA; weights that gains changed are those of SIGMA again."""
    weights = ("WEIGHT", "WEIGHT_SPECTRUM") if session.options.calwt else ()
    with ms.opened(session.work.path, write=True) as main:
        for _, chunk in ms.chunks(main, session.work, ms.every_row(session.work)):
            data = ms.get(main, "DATA", chunk)
            ms.put(main, "CORRECTED_DATA", chunk, data)
            for name in weights:
                if ms.has_cells(main, name, int(chunk[0])):
                    ms.put(main, name, chunk, _weight_of_sigma(main, name, chunk, data.shape))


def _weight_of_sigma(
    main: Any, name: str, chunk: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """What applycal takes for weights before it calibrates them."""
    spectrum = name == "WEIGHT_SPECTRUM"
    if spectrum and ms.has_cells(main, "SIGMA_SPECTRUM", int(chunk[0])):
        sigma = ms.get(main, "SIGMA_SPECTRUM", chunk)
    else:
        sigma = ms.get(main, "SIGMA", chunk)
        sigma = np.broadcast_to(sigma[:, None], shape) if spectrum else sigma
    good = sigma > 0
    return np.where(good, np.where(good, sigma, 1.0) ** -2.0, 0).astype(np.float32)
