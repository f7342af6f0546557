"""How fast the atmosphere turns phases: its spectrum of turbulence, and the VLA's seasons. Pure functions.

Sources: VLA guide "Complex Gain Calibration" with its table 3.12.1 (seed 003), and Brogan, Hunter &
Fomalont, section 3.1 (seed 002). A frozen screen of turbulence drifts over the array with the wind
aloft. The root of its structure function, the rms phase between two points, grows with their distance
with the exponents of Kolmogorov turbulence: 5/6 as long as it is three-dimensional, 1/3 beyond, and not
at all beyond the outer scale. The Atmospheric Phase Interferometer (API) measures it at 300 m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The API's baseline [m] and frequency [Hz] (seed 003).
API_BASELINE_M, API_FREQ_HZ = 300.0, 11.7e9

# Table 3.12.1: month to API phase rms [deg] by night, median and by day, and wind [m/s] likewise. Night is
# from sunset to sunrise. The wind is that on the ground, not the wind aloft.
VLA_SEASONS: dict[int, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    1: ((2.3, 2.8, 3.6), (1.6, 1.9, 2.3)),
    2: ((2.9, 3.4, 4.5), (4.0, 4.3, 4.5)),
    3: ((2.8, 3.7, 5.5), (3.4, 3.9, 4.7)),
    4: ((3.3, 4.5, 6.2), (5.3, 5.5, 5.8)),
    5: ((2.9, 4.6, 6.7), (2.6, 3.2, 3.7)),
    6: ((3.8, 5.5, 7.4), (2.5, 3.9, 6.3)),
    7: ((6.2, 8.3, 10.5), (2.9, 2.9, 3.0)),
    8: ((5.4, 7.1, 11.3), (1.7, 2.3, 3.0)),
    9: ((5.2, 6.6, 8.8), (2.3, 3.0, 3.6)),
    10: ((4.2, 5.3, 7.4), (2.3, 2.9, 3.7)),
    11: ((2.6, 3.0, 4.0), (1.2, 2.5, 1.6)),
    12: ((2.8, 3.2, 4.1), (1.2, 1.6, 2.7)),
}

# Exponents of the root phase structure function (seed 002, section 3.1), and where they change [m].
# The seeds say "a few hundred metres" to "kilometre scales", and "a few km". At 1 km the guide's own check
# comes out as it says (43 GHz, 120 s, median weather: 30 deg); a break at 300 m would give 22 deg. The
# break is the cautious one of the two: it makes long intervals worse.
SLOPES = (5 / 6, 1 / 3)
BREAK_M, OUTER_M = 1000.0, 6000.0

# Wind aloft [m/s]: typical, and the fastest of the guide's range.
WIND_ALOFT_M_S, FAST_WIND_ALOFT_M_S = 10.0, 15.0

# Corner time of the structure function [s] (seed 002, section 3.1). Of ALMA no rms is given.
CORNER_TIME_S = {"ALMA": 20.0, "VLA": 30.0, "EVLA": 30.0}

# Phase changes [rad] that are quoted: one radian, and the guide's 30 deg.
ONE_RADIAN, THIRTY_DEG = 1.0, math.radians(30.0)

# Longest baseline [m] of the VLA's configurations (NRAO, VLA observational status summary).
CONFIGURATIONS = {"A": 36400.0, "B": 11100.0, "C": 3400.0, "D": 1030.0}

# (configuration, below this frequency [Hz]): the atmosphere is "nearly always unimportant" in C and D
# at L and S band, in D at C and X band too (seed 003).
UNIMPORTANT_BELOW_HZ = {"C": 4e9, "D": 12e9}

# "Phase stability often deteriorates dramatically after about 10AM ... between this time and a couple of
# hours after sundown" (seed 003).
CONVECTION_FROM_HOUR, CONVECTION_AFTER_SUNSET_S = 10.0, 7200.0

# Beyond this no coherence time is sought: the phase has stopped to grow long before.
LONGEST_TIME_S = 36000.0


def api_rms_deg(month: int, *, day: bool | None = None) -> float:
    """Phase rms [deg] of the API in a month, by day or by night; None is the median of both."""
    night, median, daytime = VLA_SEASONS[month][0]
    return median if day is None else daytime if day else night


@dataclass(frozen=True)
class Troposphere:
    """Turbulence over an array.

    Parameters
    ----------
    api_rms_deg : float
        Phase rms on 300 m at 11.7 GHz [deg], over times long enough for the whole spectrum (the API's
        10 minutes are: 6 km of wind).
    wind_m_s : float
        Wind aloft [m/s].
    """

    api_rms_deg: float
    wind_m_s: float = WIND_ALOFT_M_S

    def rms_rad(self, distance_m: float, freq_hz: float) -> float:
        """Rms phase between two lines of sight ``distance_m`` apart [rad].

        Path lengths do not depend on frequency, so that the phase grows with it.
        """
        scale = math.radians(self.api_rms_deg) * freq_hz / API_FREQ_HZ
        return scale * _growth(distance_m) / _growth(API_BASELINE_M)

    def change_rad(self, seconds: float, baseline_m: float, freq_hz: float) -> float:
        """Rms change of a baseline's phase in a time [rad].

        For a frozen screen ``<(phi(t) - phi(0))^2> = 2 D(vt) + 2 D(b) - D(|b + vt|) - D(|b - vt|)``, with the
        structure function D: mean of wind along the baseline and across it. It is ``2 D(vt)`` on baselines
        longer than vt, of which each end changes by ``D(vt)``, and ``2 D(b)`` on shorter ones.
        """
        moved = self.wind_m_s * seconds

        def square(distance_m: float) -> float:
            return self.rms_rad(distance_m, freq_hz) ** 2

        along = square(baseline_m + moved) + square(abs(baseline_m - moved))
        across = 2 * square(math.hypot(baseline_m, moved))
        change = 2 * square(moved) + 2 * square(baseline_m) - (along + across) / 2
        return math.sqrt(max(change, 0.0))

    def within_rad(self, seconds: float, baseline_m: float, freq_hz: float) -> float:
        """Rms of a baseline's phase about its mean over an interval [rad].

        ``sigma^2 = T^-2 int_0^T (T - t) C(t) dt`` with ``C`` the square of `change_rad`.
        """
        if seconds <= 0:
            return 0.0
        # Midpoints: the integrand is smooth, and zero at both ends.
        times = (np.arange(64) + 0.5) / 64 * seconds
        squares = np.array([self.change_rad(float(t), baseline_m, freq_hz) ** 2 for t in times])
        return float(math.sqrt(np.mean((1 - times / seconds) * squares)))

    def decorrelation(self, seconds: float, baseline_m: float, freq_hz: float) -> float:
        """Share of the amplitude that is lost in the mean over an interval: ``1 - exp(-sigma^2 / 2)``."""
        return 1 - math.exp(-(self.within_rad(seconds, baseline_m, freq_hz) ** 2) / 2)

    def coherence_time_s(
        self, baseline_m: float, freq_hz: float, *, limit_rad: float = ONE_RADIAN
    ) -> float | None:
        """Time in which a baseline's phase changes by ``limit_rad`` rms [s]; None if it never does."""
        times = np.geomspace(0.01, LONGEST_TIME_S, 200)
        over = [self.change_rad(float(t), baseline_m, freq_hz) >= limit_rad for t in times]
        if not any(over):
            return None
        # The first crossing: the change overshoots a little where the wind has moved by the baseline.
        first = over.index(True)
        low, high = (float(times[first - 1]) if first else 0.0), float(times[first])
        for _ in range(40):
            middle = (low + high) / 2
            if self.change_rad(middle, baseline_m, freq_hz) < limit_rad:
                low = middle
            else:
                high = middle
        return high

    def switching_residual_rad(self, cycle_s: float, freq_hz: float) -> float:
        """Phase that is left by a calibration cycle [rad]: that of the effective baseline ``v_a t / 2``."""
        return self.rms_rad(self.wind_m_s * cycle_s / 2, freq_hz)


def _growth(distance_m: float) -> float:
    """Root structure function, 1 at `BREAK_M`."""
    steep, flat = SLOPES
    if distance_m <= BREAK_M:
        return float((distance_m / BREAK_M) ** steep)
    return float((min(distance_m, OUTER_M) / BREAK_M) ** flat)


def configuration(longest_m: float) -> str:
    """The VLA configuration, A to D, whose longest baseline is nearest (by ratio) to ``longest_m``."""
    return min(
        CONFIGURATIONS, key=lambda name: abs(math.log(CONFIGURATIONS[name] / max(longest_m, 1.0)))
    )


def unimportant(array: str | None, freq_hz: float) -> bool:
    """The guide calls the atmosphere nearly always unimportant in this VLA configuration and band."""
    # What holds in C at L and S holds in D.
    limit = UNIMPORTANT_BELOW_HZ.get(array or "", 0.0)
    return freq_hz < limit


def mean_rms_deg(rms_deg: Sequence[float], weights: Sequence[float]) -> float:
    """Rms of observations in different weather, weighted by their lengths [deg]."""
    squares = np.square(np.asarray(rms_deg, dtype=float))
    return float(np.sqrt(np.average(squares, weights=weights)))


def baselines_m(positions_m: NDArray[np.float64]) -> tuple[float, float]:
    """Median and longest baseline [m] of antennas at ``positions_m``, shape (antenna, 3)."""
    one, two = np.triu_indices(len(positions_m), 1)
    lengths = np.linalg.norm(positions_m[one] - positions_m[two], axis=1)
    return (float(np.median(lengths)), float(lengths.max())) if lengths.size else (0.0, 0.0)
