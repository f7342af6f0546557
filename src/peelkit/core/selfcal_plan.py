"""Whether to go on, and with which round: the S/N of the best image decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from peelkit.core import ladder, mosaic, selfcal_terms, snr, snr_estimate, spwmaps
from peelkit.core import selfcal_session as state
from peelkit.core.first_image import nothing_text, standing_out
from peelkit.core.measure import Figures
from peelkit.core.selfcal_session import Session
from peelkit.io.image import read_image
from peelkit.selection import parse_solint

# Fields are combined that have this share of the best field's S/N: in the first round, less in each
# that follows, and at least.
FIRST_SHARE, SHARE_STEP, LEAST_SHARE = 0.5, 0.75, 0.1


def current_plan(session: Session, figures: Figures) -> snr_estimate.Plan:
    """S/N table and ladder from the figures of the best image so far.

    Of a mosaic they are for the field that sees the source best, since fields are solved one by one:
    its noise is that of the joint image times `Sight.noise`.
    """
    sight = seen(session, figures)
    return snr_estimate.make_plan(
        session.info,
        session.found,
        field=sight.best,
        peak=figures.peak_jy_beam,
        rms=figures.rms_jy_beam,
        phase_snr=session.options.phase_snr,
        amplitude_snr=session.options.amplitude_snr,
        field_noise=sight.noise(sight.best),
        signal=_signal(session, figures),
    )


def _signal(session: Session, figures: Figures) -> float:
    """What baselines see of the sources [Jy]; of a mosaic, of whose sources a field sees some, the peak."""
    return figures.signal_jy if len(session.fields) == 1 else figures.peak_jy_beam


@dataclass(frozen=True)
class Sight:
    """What each field sees of the sources.

    Parameters
    ----------
    image_snr : float
        Peak over rms of the (joint) image.
    snr : dict of float
        By field: S/N of the best source in all data of this field alone (`mosaic.field_snrs`); of a
        single field that of the image.
    """

    image_snr: float
    snr: dict[int, float]

    @property
    def best(self) -> int:
        """Field with the highest S/N."""
        return max(self.snr, key=lambda field: self.snr[field])

    def noise(self, field: int) -> float:
        """Noise of a field's own data towards the source, over that of the image.

        ``image_snr / snr``, which for one source is the root of the effective number of fields that see
        it, ``sqrt(sum w A^2 / (w_f A_f^2))`` with weights w and primary beams A; 1 for a single field.
        """
        if len(self.snr) == 1:
            return 1.0
        own = self.snr[field]
        return max(1.0, self.image_snr / own) if own > 0 else math.inf


def seen(session: Session, figures: Figures) -> Sight:
    """What each field sees in the best image so far."""
    image_snr = figures.dynamic_range
    if len(session.fields) == 1:
        return Sight(image_snr, {session.fields[0]: image_snr})
    image = read_image(session.imaging.image(session.name(session.best.imagename)))
    own = mosaic.field_snrs(
        session.info, session.found, session.fields, image, session.mask, figures.rms_jy_beam
    )
    return Sight(image_snr, dict(zip(session.fields, own.tolist(), strict=True)))


def gate(session: Session) -> str | None:
    """Why there is nothing to calibrate on, or None."""
    if not session.mask.any():
        rest = (
            "say with --mask where those of --model are."
            if session.options.model
            else "there is nothing to calibrate on."
        )
        return f"{nothing_text(session.info.path, 2 * session.options.mask_threshold)}; {rest}"
    plan = current_plan(session, state.state_of(session, session.best.imagename).figures)
    if session.options.mask is not None and plan.image_snr < snr.DETECTION_SNR:
        # Noise has a flux too in a mask that nobody measured.
        name = session.name(session.best.imagename)
        image, psf = (
            read_image(path(name)) for path in (session.imaging.image, session.imaging.psf)
        )
        if not standing_out(image, session.mask, psf, snr.DETECTION_SNR).any():
            plan = replace(plan, signal=plan.peak, ladder=[])
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
    rung = ladder.with_overrides(
        following,
        minsnr=options.minsnr,
        combine=options.combines[0] if options.combines else None,
        gaintype=options.gaintypes[0] if options.gaintypes else None,
    )
    return replace(rung, snr=rung_snr(session, rung, figures))


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
    """S/N per antenna and solution of a rung; in a mosaic, of the field that sees the source best."""
    sight = seen(session, figures)
    return _field_rung_snr(session, rung, figures, sight.best, sight.noise(sight.best))


def fields_to_solve(session: Session, rung: snr.Rung) -> list[int]:
    """Fields with the S/N that solutions of this rung need; those that add to it if it combines fields.

    In a mosaic a field without a strong source has noise for solutions; it gets its neighbours' (Brogan,
    Hunter & Fomalont solve for the strong fields of 30 Doradus only, and apply to all). Where fields are
    combined, those count that see a fair share of what the best sees; the share falls from round to
    round, as the model gets better (they took 7, 12 and 14 of 23 fields).
    """
    if len(session.fields) == 1:
        return session.fields
    options = session.options
    needed = options.phase_snr if rung.calmode == "p" else options.amplitude_snr
    figures = state.state_of(session, session.best.imagename).figures
    sight = seen(session, figures)
    if "field" in rung.combine.split(","):
        least = max(LEAST_SHARE, FIRST_SHARE * SHARE_STEP ** len(session.rounds))
        return [f for f in session.fields if sight.snr[f] >= least * sight.snr[sight.best]]
    strong = [
        field
        for field in session.fields
        if sight.snr[field] > 0
        and _field_rung_snr(session, rung, figures, field, sight.noise(field)) >= needed
    ]
    return strong or [sight.best]


def _field_rung_snr(
    session: Session, rung: snr.Rung, figures: Figures, field: int, noise: float
) -> float:
    share = snr_estimate.shares(session.info, session.found, field)
    on_source = session.found.on_source_s(field)
    combine = rung.combine.split(",")
    length = rung.solint_s
    visit = snr_estimate.scan_length_s(session.found, field)
    if "scan" in combine:
        if rung.solint == "inf":
            length = session.found.execution_s(field)
    else:
        # Solutions end with the scan, in which a field of a mosaic is seen for a part.
        length = min(length, visit)
    found = snr.antenna_snr(
        _signal(session, figures),
        figures.rms_jy_beam * noise,
        n_ant=len(session.found.antennas),
        on_source_s=on_source,
        solint_s=length,
    )
    if rung.gaintype == "T" and share.two_hands:
        found *= math.sqrt(2)
    if "baseband" in combine:
        found *= math.sqrt(_baseband_share(session, field))
    elif "spw" not in combine and not selfcal_terms.is_fitted(rung.gaintype):
        found *= math.sqrt(sorted(share.spw)[len(share.spw) // 2])
    if "field" in combine:
        # All that see the source, if their scans are combined too; else those of one scan.
        fields = noise**2
        if "scan" not in combine:
            seen_together = snr_estimate.fields_per_scan(session.found)
            if rung.solint != "inf":
                seen_together = min(seen_together, rung.solint_s / visit)
            fields = min(fields, seen_together)
        found *= math.sqrt(max(fields, 1.0))
    return found


def _baseband_share(session: Session, field: int) -> float:
    """Share of the median baseband in the sensitivity towards a field."""
    share = snr_estimate.shares(session.info, session.found, field)
    spws = session.found.spws(field)
    parts = [
        sum(share.spw[spws.index(spw)] for spw in group if spw in spws)
        for group in spwmaps.groups(session.info, session.found, "baseband")
    ]
    return sorted(parts)[len(parts) // 2]
