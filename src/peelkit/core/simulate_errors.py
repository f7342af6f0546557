"""What goes wrong in a simulated observation: drifts of gains, delays and pointing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Correlation times [s]: the atmosphere's phase, the electronics, and the pointing.
PHASE_TIME_S = 180.0
SLOW_TIME_S = 900.0
POINTING_TIME_S = 900.0
# Share of the phase variance that is each hand's own; the rest is the atmosphere, the same in both.
OWN_SHARE = 0.1
WAVES = 64


@dataclass(frozen=True)
class Errors:
    """Errors at every time.

    Parameters
    ----------
    phase_deg, delay_ns, amplitude : ndarray, shape (time, antenna, hand)
        Direction-independent.
    pointing_arcsec : ndarray, shape (time, antenna, 2)
        Where the beam's centre lies, east and north of the pointing centre.
    dispersive_deg : ndarray, shape (time, antenna, hand)
        Of the ionosphere, at the reference frequency: this phase goes with 1 / f.
    """

    phase_deg: NDArray[np.float64]
    delay_ns: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    pointing_arcsec: NDArray[np.float64]
    dispersive_deg: NDArray[np.float64]

    def gains(
        self, index: int, freq_hz: NDArray[np.float64], reference_hz: float
    ) -> NDArray[np.complex128]:
        """Gains ``a exp(i (phase + dispersive reference / f + 2 pi delay (f - reference)))``, (antenna, hand, chan)."""
        turns = self.delay_ns[index][..., None] * 1e-9 * (freq_hz - reference_hz)
        phase = np.radians(self.phase_deg[index])[..., None] + 2 * np.pi * turns
        phase += np.radians(self.dispersive_deg[index])[..., None] * (reference_hz / freq_hz)
        return np.asarray(self.amplitude[index][..., None] * np.exp(1j * phase))


def drift(
    time_s: NDArray[np.float64],
    shape: tuple[int, ...],
    correlation_s: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Smooth Gaussian processes of unit variance, shape (time, *shape).

    Correlation ``exp(-t^2 / (2 correlation_s^2))``: a sum of waves with random frequencies and
    phases, which depends on the time alone and not on how it is sampled.
    """
    omega = rng.normal(0.0, 1.0 / correlation_s, (*shape, WAVES))
    start = rng.uniform(0.0, 2 * np.pi, (*shape, WAVES))
    since = time_s - time_s[0]
    found = np.empty((time_s.size, *shape))
    for index, moment in enumerate(since):
        found[index] = np.cos(omega * moment + start).sum(axis=-1)
    return np.asarray(found * np.sqrt(2.0 / WAVES))


def make_errors(
    time_s: NDArray[np.float64],
    n_antenna: int,
    *,
    phase_rms_deg: float,
    delay_rms_ns: float,
    amplitude_rms: float,
    pointing_rms_arcsec: float,
    streams: dict[str, np.random.Generator],
) -> Errors:
    """Draw the errors; the pointing's rms is along each axis."""
    both = (n_antenna, 2)
    common = drift(time_s, (n_antenna, 1), PHASE_TIME_S, streams["phase"])
    own = drift(time_s, both, SLOW_TIME_S, streams["phase"])
    phase = np.sqrt(1 - OWN_SHARE) * common + np.sqrt(OWN_SHARE) * own
    # A logarithm that drifts: amplitudes are never negative, however large the rms.
    log_amplitude = amplitude_rms * drift(time_s, both, SLOW_TIME_S, streams["amplitude"])
    return Errors(
        phase_deg=phase_rms_deg * phase,
        delay_ns=delay_rms_ns * drift(time_s, both, SLOW_TIME_S, streams["delay"]),
        amplitude=np.exp(log_amplitude),
        pointing_arcsec=pointing_rms_arcsec
        * drift(time_s, both, POINTING_TIME_S, streams["pointing"]),
        dispersive_deg=np.zeros((time_s.size, *both)),
    )


def no_errors(n_time: int, n_antenna: int) -> Errors:
    """Perfect gains and pointing."""
    zero = np.zeros((n_time, n_antenna, 2))
    return Errors(zero, zero, np.ones_like(zero), zero, zero)
