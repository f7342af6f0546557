"""Whether to go on, and with which round: the S/N of the best image decides."""

from __future__ import annotations

import math
from dataclasses import replace

from peelkit.core import ladder, snr, snr_estimate
from peelkit.core import selfcal_session as state
from peelkit.core.measure import Figures
from peelkit.core.selfcal_session import Session
from peelkit.selection import parse_solint


def current_plan(session: Session, figures: Figures) -> snr_estimate.Plan:
    """S/N table and ladder from the figures of the best image so far."""
    return snr_estimate.make_plan(
        session.info,
        session.found,
        field=session.field_id,
        peak=figures.peak_jy_beam,
        rms=figures.rms_jy_beam,
        phase_snr=session.options.phase_snr,
        amplitude_snr=session.options.amplitude_snr,
    )


def gate(session: Session) -> str | None:
    """Why there is nothing to calibrate on, or None."""
    if not session.mask.any() and not session.options.model:
        return (
            f"{session.info.path}: no source stands out of the first image "
            f"(at {2 * session.options.mask_threshold:g} times the local noise); there is nothing to "
            "calibrate on."
        )
    plan = current_plan(session, state.state_of(session, session.best.imagename).figures)
    if session.options.solints == ("auto",) and session.options.plan is None and not plan.feasible:
        return snr_estimate.refusal_text(session.info, plan, session.options.phase_snr)
    if not plan.detected and not session.options.model:
        return snr_estimate.refusal_text(session.info, plan, session.options.phase_snr)
    return None


def next_rung(session: Session, figures: Figures) -> snr.Rung | None:
    """Next round, with the S/N that its solutions will have; None at the end."""
    options = session.options
    if len(session.rounds) >= options.rounds:
        return None
    plan = current_plan(session, figures)
    fixed = fixed_rungs(session, plan)
    if fixed is not None:
        number = len(session.rounds)
        if number >= len(fixed):
            return None
        rung = fixed[number]
        return replace(rung, snr=rung_snr(session, rung, figures))
    done = [
        ladder.Done(
            snr.Rung(r["solint"], r["solint_s"], r["calmode"], r["combine"], r["gaintype"], r["minsnr"], 0.0),
            r["accepted"],
            r["gain"],
        )
        for r in session.rounds
    ]  # fmt: skip
    phases = [rung for rung in plan.ladder if rung.calmode == "p"]
    amplitudes = [
        replace(rung, calmode="ap", minsnr=3.0)
        for rung in snr.recommend_ladder(
            plan.rows, n_ant=plan.n_ant, phase_snr=options.amplitude_snr,
            amplitude_snr=options.amplitude_snr,
        )
        if rung.calmode == "p"
    ]  # fmt: skip
    following = ladder.next_auto(phases, amplitudes, done)
    if following is None:
        return None
    rung = replace(following, snr=rung_snr(session, following, figures))
    return ladder.with_overrides(
        rung,
        minsnr=options.minsnr,
        combine=options.combines[0] if options.combines else None,
        gaintype=options.gaintypes[0] if options.gaintypes else None,
    )


def fixed_rungs(session: Session, plan: snr_estimate.Plan) -> list[snr.Rung] | None:
    """Rungs that the user or a plan named; None for an automatic ladder."""
    options = session.options
    if options.plan is not None:
        return [
            snr.Rung(
                r["solint"], solint_seconds(r["solint"], plan.scan_s, session.found.integration_s), r["calmode"],
                r["combine"], r["gaintype"], options.minsnr or r["minsnr"], math.nan,
            )
            for r in options.plan
        ]  # fmt: skip
    if options.solints == ("auto",):
        return None
    return ladder.explicit_rungs(
        options.solints,
        calmodes=options.calmodes,
        combines=options.combines,
        gaintypes=options.gaintypes,
        minsnr=options.minsnr,
        scan_s=plan.scan_s,
        integration_s=session.found.integration_s,
    )


def solint_seconds(solint: str, scan_s: float, integration_s: float) -> float:
    """Length of a solution interval [s]."""
    seconds = parse_solint(solint, integration_s=integration_s)
    return scan_s if seconds is None else seconds


def rung_snr(session: Session, rung: snr.Rung, figures: Figures) -> float:
    """S/N per antenna and solution of a rung."""
    share = snr_estimate.shares(session.info, session.found, session.field_id)
    length = rung.solint_s
    if "scan" in rung.combine and rung.solint == "inf":
        length = session.found.on_source_s(session.field_id)
    rows = snr.snr_rows(
        figures.peak_jy_beam,
        figures.rms_jy_beam,
        n_ant=len(session.found.antennas),
        on_source_s=session.found.on_source_s(session.field_id),
        intervals=[(rung.solint, length)],
        shares=share,
    )
    combine = "spw" if "spw" in rung.combine and len(share.spw) > 1 else ""
    gaintype = rung.gaintype if share.two_hands else "G"
    return next(row.snr for row in rows if (row.combine, row.gaintype) == (combine, gaintype))
