"""Signal-to-noise of antenna gain solutions, and what to do with it. Pure functions.

Source: Brogan, Hunter & Fomalont, "Advanced Gain Calibration Techniques", section 2.3 (seed 002),
after Cornwell 1981.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A peak below this many sigma may be noise: an image has of the order of 1e5 beams.
DETECTION_SNR = 6.0

# "image S/N > 20 with 25 antennas" (seed 002, 2.3.1).
RULE_OF_THUMB_SNR, RULE_OF_THUMB_ANTENNAS = 20.0, 25

# Seed 002, tip 12: a lower minsnr only for arrays larger than this.
LARGE_ARRAY = 25

# Wind aloft [m/s], VLA gain guide (seed 003).
WIND_M_S = (10.0, 15.0)

# Below this the ionosphere, above it the troposphere (seed 003) [Hz].
IONOSPHERE_BELOW_HZ = 4e9

# Dynamic range that gain transfer from a calibrator reaches (seed 002, 2.2).
TRANSFER_LIMIT = {"VLA": 1000.0, "EVLA": 1000.0, "ALMA": 100.0}

# A spw with this share of the weights is all there is.
ALL_BUT = 0.99

# Spws combined or not, and the type of gain, from the least to the most averaging.
COMBINATIONS = (("", "G"), ("", "T"), ("spw", "G"), ("spw", "T"))


def antenna_noise(rms: float, *, n_ant: int, on_source_s: float, solint_s: float) -> float:
    """Noise of one antenna's gain solution, in units of the image.

    ``sigma_self = sigma_image * sqrt(n_ant - 3) * sqrt(t_on_source / t_solint)``, equation 2 of
    Brogan, Hunter & Fomalont.

    Parameters
    ----------
    rms : float
        Off-source noise of the image [Jy/beam].
    n_ant : int
        Antennas with unflagged data; at least 4.
    on_source_s, solint_s : float
        Time on source and solution interval [s].
    """
    if n_ant < 4:
        return math.inf
    return rms * math.sqrt(n_ant - 3) * math.sqrt(on_source_s / min(solint_s, on_source_s))


def antenna_snr(
    peak: float, rms: float, *, n_ant: int, on_source_s: float, solint_s: float
) -> float:
    """S/N of one antenna's gain solution of one polarisation (gaintype G), all image spws combined.

    ``peak / antenna_noise(rms, ...)``: the image holds two polarisations, and a phase takes up half
    of the noise, so that the two factors sqrt(2) cancel.
    """
    noise = antenna_noise(rms, n_ant=n_ant, on_source_s=on_source_s, solint_s=solint_s)
    return peak / noise if noise > 0 else math.nan


def phase_error_deg(snr: float) -> float:
    """Phase error of a solution [deg], about 1/snr rad (S/N 3: 20 deg)."""
    return math.degrees(1 / snr) if snr > 0 else math.nan


def amplitude_error_percent(snr: float) -> float:
    """Amplitude error of a solution [%], about 1/snr (S/N 10: 10 %)."""
    return 100 / snr if snr > 0 else math.nan


def rule_of_thumb(n_ant: int) -> float:
    """Image S/N from which self-calibration is worth a try: 20 for 25 antennas.

    Scaled by ``sqrt((n_ant - 3) / 22)``, as the noise of an antenna is in equation 2.
    """
    return RULE_OF_THUMB_SNR * math.sqrt(max(n_ant - 3, 1) / (RULE_OF_THUMB_ANTENNAS - 3))


def effective_baseline_m(seconds: float) -> tuple[float, float]:
    """Baselines [m] up to which a cycle of ``seconds`` follows the troposphere: ``v_a t / 2``."""
    return WIND_M_S[0] * seconds / 2, WIND_M_S[1] * seconds / 2


def interval_ladder(scan_s: float, integration_s: float) -> list[tuple[str, float]]:
    """Solution intervals from one scan down to one integration.

    The steps between are a geometric series in whole integrations, a factor of about the fourth
    root of the scan's integrations apart, at least 2 (as auto_selfcal does).

    Returns
    -------
    list of (str, float)
        CASA's ``solint`` and its length [s].
    """
    n_int = max(1, round(scan_s / integration_s))
    ladder = [("inf", scan_s)]
    factor = max(2.0, n_int**0.25)
    count = n_int / factor
    # Below two integrations the next step is the integration itself.
    while count >= 1.9:
        whole = round(count)
        ladder.append((f"{whole * integration_s:g}s", whole * integration_s))
        count /= factor
    if n_int > 1:
        ladder.append(("int", integration_s))
    return ladder


@dataclass(frozen=True)
class Row:
    """S/N that one kind of solution would have."""

    solint: str
    solint_s: float
    combine: str
    gaintype: str
    snr: float
    phase_ok: bool
    amplitude_ok: bool

    @property
    def phase_error_deg(self) -> float:
        """Phase error [deg]."""
        return phase_error_deg(self.snr)

    @property
    def amplitude_error_percent(self) -> float:
        """Amplitude error [%]."""
        return amplitude_error_percent(self.snr)


@dataclass(frozen=True)
class Shares:
    """How the sensitivity of the image is split up.

    Parameters
    ----------
    spw : sequence of float
        Share of each spw in the sum of weights of the executions that observe it: they add up to 1 unless
        executions have spws of their own.
    n_field : float
        Fields per scan that would add up with equal signal; 1 for one field.
    two_hands : bool
        Whether both parallel hands are there, so that gaintype T averages them.
    """

    spw: Sequence[float]
    n_field: float = 1.0
    two_hands: bool = True


def snr_rows(
    peak: float,
    rms: float,
    *,
    n_ant: int,
    on_source_s: float,
    intervals: Sequence[tuple[str, float]],
    shares: Shares,
    execution_s: float | None = None,
    phase_snr: float = 3.0,
    amplitude_snr: float = 10.0,
) -> list[Row]:
    """One row for each interval and each way of combining.

    Solutions per spw have the S/N of the spw with the median share; combining spws gains the rest,
    sqrt(number of spws) if they are equal. Gaintype T gains sqrt(2).

    Parameters
    ----------
    peak, rms : float
        Of the image of all spws [Jy/beam].
    n_ant, on_source_s
        As in `antenna_noise`.
    intervals : sequence of (str, float)
        From `interval_ladder`.
    shares : Shares
        Of the sensitivity.
    execution_s : float, optional
        Time on source in one execution [s], if there are several: combining scans goes no further.
    phase_snr, amplitude_snr : float
        S/N from which phases and amplitudes are worth solving.
    """
    rows = []
    spw_share = sorted(shares.spw)[len(shares.spw) // 2]
    # Where each execution has one spw, there is nothing to combine at any one time.
    spw_words = ["", "spw"] if min(shares.spw) < ALL_BUT else [""]
    together_s = min(on_source_s, execution_s or on_source_s)
    hands = ["G", "T"] if shares.two_hands else ["G"]
    for solint, seconds in intervals:
        extras: list[tuple[str, float, float]] = [("", seconds, 1.0)]
        if solint == "inf" and together_s > 1.01 * seconds:
            extras.append(("scan", together_s, 1.0))
        if solint == "inf" and shares.n_field > 1:
            extras.append(("field", seconds, shares.n_field))
        for extra, length, n_field in extras:
            for spw in spw_words:
                for gaintype in hands:
                    snr = antenna_snr(
                        peak, rms, n_ant=n_ant, on_source_s=on_source_s, solint_s=length
                    )
                    snr *= math.sqrt(n_field)
                    snr *= 1.0 if spw else math.sqrt(spw_share)
                    snr *= math.sqrt(2) if gaintype == "T" else 1.0
                    rows.append(
                        Row(
                            solint,
                            length,
                            ",".join(filter(None, (spw, extra))),
                            gaintype,
                            snr,
                            snr >= phase_snr,
                            snr >= amplitude_snr,
                        )
                    )
    return rows


@dataclass(frozen=True)
class Rung:
    """One round of self-calibration that is worth doing."""

    solint: str
    solint_s: float
    calmode: str
    combine: str
    gaintype: str
    minsnr: float
    snr: float


def recommend_ladder(
    rows: Sequence[Row], *, n_ant: int, phase_snr: float = 3.0, amplitude_snr: float = 10.0
) -> list[Rung]:
    """Recommend rounds, long to short: phases first, then amplitudes over a longer interval.

    Each interval takes the least averaging that suffices (`COMBINATIONS`); where none does, scans are
    combined for the longest interval.
    """
    ladder: list[Rung] = []
    for solint in dict.fromkeys(row.solint for row in rows):
        row = _least_averaging(rows, solint, phase_snr)
        if row is not None:
            ladder.append(_rung(row, "p", n_ant, phase_snr))
    if ladder:
        row = _least_averaging(rows, "inf", amplitude_snr)
        if row is not None:
            ladder.append(_rung(row, "ap", n_ant, amplitude_snr))
    return ladder


def _least_averaging(rows: Sequence[Row], solint: str, needed: float) -> Row | None:
    mine = [row for row in rows if row.solint == solint]
    order = [*COMBINATIONS]
    order += [(",".join(filter(None, (spw, extra))), hand)
              for extra in ("field", "scan") for spw, hand in COMBINATIONS]  # fmt: skip
    for combine, gaintype in order:
        for row in mine:
            if (row.combine, row.gaintype) == (combine, gaintype) and row.snr >= needed:
                return row
    return None


def _rung(row: Row, calmode: str, n_ant: int, phase_snr: float) -> Rung:
    return Rung(
        row.solint,
        row.solint_s,
        calmode,
        row.combine,
        row.gaintype,
        recommended_minsnr(row.snr, calmode=calmode, n_ant=n_ant, phase_snr=phase_snr),
        row.snr,
    )


def recommended_minsnr(snr: float, *, calmode: str, n_ant: int, phase_snr: float = 3.0) -> float:
    """S/N below which a solution is dropped: 3, or 2 to keep the outer antennas (seed 002, tip 12).

    2 only for phases, only with more than 25 antennas, and only where the typical S/N is at least
    twice the threshold.
    """
    relaxed = calmode == "p" and n_ant > LARGE_ARRAY and snr >= 2 * phase_snr
    return 2.0 if relaxed else 3.0


def recommended_minblperant(n_ant: int, *, calmode: str) -> int:
    """Baselines that an antenna must have: 4, for amplitudes 6 (seed 002, tip 13), never below 3.

    Of few antennas for phases half as many: with 5 of them and 4 baselines none would have a solution when one of
    them is away.
    """
    wanted, most = (6, n_ant - 1) if calmode != "p" else (4, n_ant // 2)
    return max(3, min(wanted, most))


def dominant_atmosphere(freq_hz: float) -> str:
    """``ionosphere`` below about 4 GHz, ``troposphere`` above (seed 003)."""
    return "ionosphere" if freq_hz < IONOSPHERE_BELOW_HZ else "troposphere"


def transfer_limit(telescope: str) -> float | None:
    """Dynamic range that gain transfer reaches without self-calibration; None if not known."""
    return TRANSFER_LIMIT.get(telescope.upper())
