"""Ten regimes of errors by name, for both generators: `peelkit simulate`, and `independent.py`, which shares no code with it.

Each process has the phase [deg, rms], log amplitude [rms] and time scale [s] of the gains that it brings. Delays of 0.1 ns,
amplitudes of 5 % and pointing errors of 12" are in every regime.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Process:
    """One kind of error.

    Parameters
    ----------
    kind : str
        ``smooth``, ``walk``, ``kolmogorov``, ``steps``, ``bad-antennas``, ``scintillation``, ``jitter`` or ``elevation``.
    phase_deg, amplitude, time_s : float
        Rms of the phase, rms of the logarithm of the amplitude, time scale (of no meaning for some kinds).
    """

    kind: str
    phase_deg: float = 0.0
    amplitude: float = 0.0
    time_s: float = 0.0


@dataclass(frozen=True)
class Regime:
    """What goes wrong in a case.

    Parameters
    ----------
    processes : tuple of Process
        Their phases and log amplitudes add up.
    beam : str
        ``airy`` or ``gaussian``.
    weights_scale : float
        WEIGHT is this times the true one.
    noise_correlation : float
        Correlation of the noise of neighbouring channels.
    """

    name: str
    processes: tuple[Process, ...]
    beam: str = "airy"
    weights_scale: float = 1.0
    noise_correlation: float = 0.0


_SMOOTH = Process("smooth", 20, 0, 180)
_WALK = Process("walk", 20, 0, 240)

REGIMES = {
    one.name: one
    for one in (
        Regime("smooth", (_SMOOTH,)),
        Regime("walk", (_WALK,), beam="gaussian"),
        Regime("kolmogorov", (Process("kolmogorov", 30),)),
        Regime("steps", (Process("steps", 25, 0.05, 150),), beam="gaussian"),
        Regime("bad-antennas", (_SMOOTH, Process("bad-antennas", 90, 0.5, 60))),
        Regime("scintillation", (_SMOOTH, Process("scintillation", 10, 0.1, 30)), beam="gaussian"),
        Regime("jitter", (_WALK, Process("jitter", 8, 0.03))),
        Regime("elevation", (_SMOOTH, Process("elevation", 0, 0.3)), beam="gaussian"),
        Regime("weights", (_WALK,), weights_scale=1e-3),
        Regime("correlated", (_WALK,), noise_correlation=0.5),
    )
}
