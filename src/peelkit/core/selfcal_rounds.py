"""One round after the other: open the mask, predict, solve, apply, image, judge."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import imaging, modelcol, selfcal_terms, snr, solutions
from peelkit.core import selfcal_plan as planning
from peelkit.core import selfcal_session as state
from peelkit.core.selfcal_session import Best, Session
from peelkit.core.verdict import State, Verdict, judge, position_uncertainty_arcsec
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.io.caltable import read_gain_table
from peelkit.io.image import read_image

log = logging.getLogger(__name__)

# The mask opens by this factor in sigma from round to round, down to its final threshold.
MASK_STEP = 0.8

# Above this frequency phases are interpolated with their growth with frequency (auto_selfcal).
LINEARPD_ABOVE_HZ = 12e9


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
            session.rounds.append(one_round(session, number, rung, first))
        state.save(session, "rounds")
        last = session.rounds[-1]
        log.info(
            "round %d: solint %s %s: %s (%s)",
            number, rung.solint, rung.calmode,
            "accepted" if last["accepted"] else "rejected", last["reason"],
        )  # fmt: skip


def one_round(session: Session, number: int, rung: snr.Rung, first: State) -> dict[str, Any]:
    """Do one round; returns its record, and updates the best state if it was accepted."""
    options = session.options
    nsigma = open_mask(session, number, state.state_of(session, session.best.imagename))
    solved = planning.fields_to_solve(session, rung)
    write_model(session, number)
    base = base_tables(session, rung)
    caltable = session.workspace.path(selfcal_terms.table_name(number, rung))
    engine.remove_table(caltable)
    spwmap = list(options.spwmap) or combined_spwmap(session, rung)
    _solve(session, rung, caltable, base, solved)
    table = read_gain_table(caltable)
    tried, failed = solutions.count(table, session.found.antennas.tolist())
    names = [antenna.name for antenna in session.info.antennas]
    suspicious = solutions.suspicions(table, calmode=rung.calmode, names=names)
    trial = Best(
        [*base.tables, caltable.name],
        [*base.table_spwmaps, spwmap],
        [*base.table_modes, rung.calmode],
        f"round{number}",
        nsigma,
    )
    before = state.state_of(session, session.best.imagename)
    if tried == 0 or failed == tried:
        verdict = Verdict(False, "all solutions failed")
        return state.round_record(
            rung, before, before, verdict, tried, failed, caltable, None, suspicious
        )
    apply_tables(session, trial)
    imaging.remove_products(session.name(trial.imagename))
    like = read_image(session.imaging.image(session.name("first")))
    state.clean(session, trial.imagename, trial.tables, nsigma=nsigma, like=like)
    after = state.state_of(session, trial.imagename)
    moved = state.shift_arcsec(session, trial.imagename)
    verdict = judge(
        before,
        after,
        first,
        calmode=rung.calmode,
        moved_arcsec=moved,
        failed_fraction=failed / tried,
        limits=options.limits,
    )
    if verdict.accepted:
        session.best = trial
    image = session.imaging.image(session.name(trial.imagename))
    record = state.round_record(
        rung, before, after, verdict, tried, failed, caltable, image, suspicious
    )
    record["fields"] = solved
    record["shift_arcsec"] = moved
    record["position_uncertainty_arcsec"] = position_uncertainty_arcsec(
        first, options.limits.transfer_snr
    )
    return record


def _solve(session: Session, rung: snr.Rung, caltable: Path, base: Best, fields: list[int]) -> None:
    """Solve one round: gaincal, or the fit over all spws."""
    options = session.options
    if selfcal_terms.is_fitted(rung.gaintype):
        selfcal_terms.solve(session, rung, caltable, fields)
        return
    engine.solve_gains(
        session.casa,
        session.work.path,
        caltable,
        field=",".join(map(str, fields)),
        spw=session.selection.spw,
        solint=casa_solint(rung, session.found.integration_s),
        combine=rung.combine,
        refant=",".join(session.refants),
        refantmode="flex",
        minsnr=rung.minsnr,
        minblperant=options.minblperant
        or snr.recommended_minblperant(len(session.found.antennas), calmode=rung.calmode),
        gaintype=rung.gaintype,
        calmode=rung.calmode,
        solnorm=options.solnorm and rung.calmode != "p",
        uvrange=session.selection.uvrange,
        gaintable=[str(session.workspace.path(name).absolute()) for name in base.tables],
        spwmap=base.table_spwmaps,
        interp=interp(session, base.table_modes),
        parang=options.parang,
    )


def open_mask(session: Session, number: int, before: State) -> float:
    """Open the mask a little, and clean the best image in it, so that both images of a round compare.

    Returns
    -------
    float
        The depth to clean to [sigma].
    """
    options = session.options
    nsigma = options.nsigma or imaging.depth(before.figures.dynamic_range)
    best = session.name(session.best.imagename)
    grown = session.mask
    if options.mask is None:
        sigma = max(options.mask_threshold, 2 * options.mask_threshold * MASK_STEP**number)
        grown = imaging.grow_mask(read_image(session.imaging.image(best)), session.mask, sigma)
    if grown.sum() > session.mask.sum() or nsigma < session.best.nsigma:
        session.mask = grown
        apply_tables(session, session.best)
        state.clean(
            session, session.best.imagename, session.best.tables, nsigma=nsigma, resume=True
        )
        session.best.nsigma = nsigma
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
        rows=np.arange(session.work.n_rows),
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
    """Copy DATA of the working copy to its CORRECTED_DATA."""
    with ms.opened(session.work.path, write=True) as main:
        for _, chunk in ms.chunks(main, session.work, np.arange(session.work.n_rows)):
            ms.put(main, "CORRECTED_DATA", chunk, ms.get(main, "DATA", chunk))


def combined_spwmap(session: Session, rung: snr.Rung) -> list[int]:
    """Every spw gets the combined solutions, which CASA files under the first spw of the solve."""
    # Delays and TEC of all spws are filed under each.
    if "spw" not in rung.combine or selfcal_terms.is_fitted(rung.gaintype):
        return []
    return [min(session.found.spws())] * len(session.info.spws)


def interp(session: Session, modes: list[str]) -> list[str]:
    """CASA's interpolation for each table; by itself unless the user chose."""
    if session.options.interp:
        return [session.options.interp] * len(modes)
    spws = session.found.spws()
    high = max(session.info.spws[spw].centre_hz for spw in spws) > LINEARPD_ABOVE_HZ
    per_obs = "perobs" if session.found.n_observations > 1 else ""
    return [("linearPD" if high and mode == "p" else "linear") + per_obs for mode in modes]


def casa_solint(rung: snr.Rung, integration_s: float) -> str:
    """``solint`` in a spelling that gaincal knows: 3int becomes seconds."""
    return rung.solint if rung.solint in ("inf", "int") else f"{rung.solint_s:g}s"
