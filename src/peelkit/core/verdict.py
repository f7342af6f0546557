"""Whether a round of self-calibration helped. Pure functions.

Sources: Brogan, Hunter & Fomalont, section 2.3 (seed 002): judge the S/N, not the noise alone; the
integrated flux must hold, as far as both images believe it (`measure.flux_held`), and of extended
emission it is the flux over the noise that counts; many failed solutions mean that something is wrong;
positions are as good as beam / (2 S/N) of the image before. auto_selfcal's rules for the near field and
the beam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peelkit.core.measure import Figures, Held
from peelkit.io.image import Beam

# Factor gained in S/N from which a fall of the flux is that of artefacts.
LARGE_RISE = 1.5


@dataclass(frozen=True)
class Limits:
    """What a round may not do.

    Parameters
    ----------
    flux_low, flux_high : float
        Range of the flux that both images believe (`measure.flux_held`), over that before the round. The
        upper end is for phases, which restore what decorrelation took (40 deg rms: a factor 1.6);
        amplitudes may change the flux by no more upwards than downwards.
    beam_change : float
        Change of the beam's area, either way, as a fraction.
    failed : float
        Failed solutions, as a fraction.
    transfer_snr : float
        S/N that positions of an uncalibrated image are trusted with at most: errors of gain
        transfer, not noise, limit them, to a fiftieth of the beam even in a good image (20 deg of
        phase rms: sources moved by up to 3 % of the beam, to where they are). Rounds lower it by the phases
        they find (`solutions.position_snr`).
    near_loss : float
        Loss of S/N near the source that is still no fall: the near field has some hundred beams, so
        that its rms is known to some per cent only. The same for the peak's S/N where the flux is judged.
    shift_sigma : float
        Shift of the peak, in units of the position uncertainty.
    """

    flux_low: float = 0.95
    flux_high: float = 2.0
    beam_change: float = 0.05
    failed: float = 0.25
    transfer_snr: float = 25.0
    near_loss: float = 0.01
    shift_sigma: float = 3.0


@dataclass(frozen=True)
class State:
    """An image's figures, its beam, and the pixel size [arcsec]."""

    figures: Figures
    beam: Beam
    cell_arcsec: float


@dataclass(frozen=True)
class Verdict:
    """Accepted or not, why, and the factor gained in S/N (of the peak, or of an extended source's flux)."""

    accepted: bool
    reason: str
    gain: float = math.nan


def position_uncertainty_arcsec(state: State, transfer_snr: float) -> float:
    """Uncertainty of a position, ``beam / (2 S/N)`` [arcsec], with the S/N before the round.

    The S/N is taken as no better than gain transfer allows.
    """
    return state.beam.major_arcsec / (2 * min(state.figures.dynamic_range, transfer_snr))


def judge(
    before: State,
    after: State,
    first: State,
    *,
    held: Sequence[Held],
    calmode: str,
    moved_arcsec: float,
    failed_fraction: float,
    limits: Limits,
    least_gain: float = 1.0,
) -> Verdict:
    """Judge a round by its images before and after, measured with the same mask.

    Parameters
    ----------
    before, after : State
        With the best solutions so far, and with this round's.
    first : State
        Before any self-calibration: positions are held to it.
    held : sequence of Held
        Flux that both images believe: of all sources, and of all but the brightest.
    calmode : str
        ``p``, ``a`` or ``ap``.
    moved_arcsec : float
        How far the sources moved since the first image.
    failed_fraction : float
        Of this round's solutions.
    limits : Limits
        What is tolerated.
    least_gain : float
        Factor that the S/N must gain (`crossval.Found.least_gain`).
    """
    gain, reason = _against(
        before, after, first, held, calmode, moved_arcsec, failed_fraction, limits, least_gain
    )
    return Verdict(reason is None, reason or _praise(before.figures, after.figures), gain)


def _from_to(one: float, two: float) -> str:
    """``92 to 130``, with as many digits as tell the two apart."""
    digits = 0 if round(one) != round(two) else 2
    return f"{one:.{digits}f} to {two:.{digits}f}"


def _praise(old: Figures, new: Figures) -> str:
    if old.extended:
        return (
            f"flux S/N {_from_to(old.flux_snr, new.flux_snr)}, "
            f"peak S/N {_from_to(old.dynamic_range, new.dynamic_range)}"
        )
    return f"S/N {_from_to(old.dynamic_range, new.dynamic_range)}"


def _against(
    before: State,
    after: State,
    first: State,
    held: Sequence[Held],
    calmode: str,
    moved_arcsec: float,
    failed_fraction: float,
    limits: Limits,
    least_gain: float,
) -> tuple[float, str | None]:
    """Factor gained in S/N, and what speaks against the round."""
    old, new = before.figures, after.figures
    peak_gain = new.dynamic_range / old.dynamic_range
    gain = new.flux_snr / old.flux_snr if old.extended else peak_gain
    if failed_fraction > limits.failed:
        return gain, (
            f"{100 * failed_fraction:.0f} % of the solutions failed (limit {100 * limits.failed:.0f} %)"
        )
    if not gain >= least_gain:
        what = "flux S/N" if old.extended else "S/N"
        one, two = (f.flux_snr if old.extended else f.dynamic_range for f in (old, new))
        if not gain >= 1:
            return gain, f"{what} fell from {_from_to(one, two)}"
        return gain, (
            f"{what} rose from {_from_to(one, two)}, less than the {100 * (least_gain - 1):.0f} % that tell, "
            "as baselines left out of the solve fit no better"
        )
    if not peak_gain >= 1 - limits.near_loss:
        return gain, f"peak S/N fell from {_from_to(old.dynamic_range, new.dynamic_range)}"
    # NaN where the mask leaves no near field: then there is nothing to compare.
    if new.dynamic_range_near < old.dynamic_range_near * (1 - limits.near_loss):
        return gain, (
            f"S/N near the source fell from {_from_to(old.dynamic_range_near, new.dynamic_range_near)}"
        )
    high = limits.flux_high if calmode == "p" else min(limits.flux_high, 1 / limits.flux_low)
    # A fall that comes with a large rise of S/N is no loss: artefacts went.
    low = limits.flux_low if gain < LARGE_RISE else 0.0
    for what, flux in zip(("flux", "flux of the fainter sources"), held, strict=True):
        if not flux.within(low, high):
            return gain, (
                f"{what} above the artefacts changed by a factor {flux.after_jy / flux.before_jy:.3f} "
                f"(--flux-range allows {limits.flux_low:.3g} to {high:.3g})"
            )
    area = after.beam.area_arcsec2 / first.beam.area_arcsec2
    if abs(area - 1) > limits.beam_change:
        return gain, (
            f"beam area changed by {100 * (area - 1):+.1f} % (limit {100 * limits.beam_change:.0f} %)"
        )
    sigma = position_uncertainty_arcsec(first, limits.transfer_snr)
    if moved_arcsec > limits.shift_sigma * sigma:
        return gain, (
            f'sources moved by {moved_arcsec:.3g}", {moved_arcsec / sigma:.1f} times the uncertainty of {sigma:.3g}" '
            f"(limit {limits.shift_sigma:g})"
        )
    return gain, None
