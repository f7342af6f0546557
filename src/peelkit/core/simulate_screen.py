"""Phase errors of a turbulent screen that the wind blows over the array.

A frozen, Kolmogorov-like screen: its structure function goes with distance to the 5/3 up to the
thickness of the turbulent layer, and to the 2/3 beyond, up to the outer scale (Carilli & Holdaway 1999,
Radio Science 34, 817, whose exponents of the rms are 5/6 and 1/3). What a target's data have left of it
is what the phase calibrator, before and after each scan and some degrees away, did not tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIND_M_S = 10.0
THICKNESS_M = 1000.0
OUTER_M = 6000.0
INNER_M = 5.0
# A wave of k rad/m makes most of its difference between places 2 / k apart.
SCALE = 2.0
WAVES = 1500
# Of the lines of sight to calibrator and target where the turbulence is: 1 km up, 3 deg apart.
CALIBRATOR_OFFSET_M = 50.0


@dataclass(frozen=True)
class Screen:
    """A sum of plane waves.

    Parameters
    ----------
    wave : ndarray, shape (wave, 2)
        Wave vectors east and north [rad/m].
    amplitude, start : ndarray, shape (wave,)
        Of each wave; phase where it starts [rad].
    wind_m_s : ndarray, shape (2,)
        East and north.
    """

    wave: Floats
    amplitude: Floats
    start: Floats
    wind_m_s: Floats

    def phase(self, time_s: Floats, place_m: Floats) -> Floats:
        """Phase, shape (time, place), in units in which the structure function at the thickness is 1."""
        moving = np.exp(-1j * np.outer(time_s, self.wave @ self.wind_m_s))
        standing = self.amplitude[:, None] * np.exp(
            1j * (self.wave @ place_m.T + self.start[:, None])
        )
        return np.asarray((moving @ standing).real)

    def structure(self, distance_m: float) -> float:
        """Mean square difference of the phase between two places so far apart, all directions."""
        from scipy.special import j0

        k = np.hypot(*self.wave.T)
        return float((self.amplitude**2 * (1 - j0(k * distance_m))).sum())


def make_screen(rng: np.random.Generator) -> Screen:
    """Draw a screen; all directions of waves and wind are equally likely."""
    low, high = math.log(SCALE / OUTER_M), math.log(SCALE / INNER_M)
    # One wave in each step of the logarithm: the spectrum is the same in every draw.
    k = np.exp(low + (high - low) * (np.arange(WAVES) + rng.uniform(size=WAVES)) / WAVES)
    angle = rng.uniform(0.0, 2 * math.pi, WAVES)
    start = rng.uniform(0.0, 2 * math.pi, WAVES)
    towards = rng.uniform(0.0, 2 * math.pi)
    # A structure function r^b has k^-b of variance in each step of ln k.
    bend = SCALE / THICKNESS_M
    variance = np.where(k > bend, (k / bend) ** (-5 / 3), (k / bend) ** (-2 / 3))
    screen = Screen(
        k[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1),
        np.sqrt(variance),
        start,
        WIND_M_S * np.array([math.sin(towards), math.cos(towards)]),
    )
    scale = 1 / math.sqrt(screen.structure(THICKNESS_M))
    return Screen(screen.wave, screen.amplitude * scale, start, screen.wind_m_s)


def left_over(
    screen: Screen, time_s: Floats, place_m: Floats, visits_s: list[Floats], run: NDArray[np.intp]
) -> Floats:
    """What is left of the screen after phase referencing, about the mean of the antennas.

    Parameters
    ----------
    screen : Screen
        The atmosphere.
    time_s : ndarray, shape (time,)
        Of the target's integrations.
    place_m : ndarray, shape (antenna, 2)
        East and north.
    visits_s : list of ndarray
        Times when the calibrator was looked at, for each execution; between two of them its phases
        are interpolated linearly.
    run : ndarray, shape (time,)
        Execution of each integration.

    Returns
    -------
    ndarray, shape (time, antenna)
        In units of the screen.
    """
    target = screen.phase(time_s, place_m)
    aside = place_m + np.array([CALIBRATOR_OFFSET_M, 0.0])
    for number, visits in enumerate(visits_s):
        known = screen.phase(visits, aside)
        rows = run == number
        for antenna in range(place_m.shape[0]):
            target[rows, antenna] -= np.interp(time_s[rows], visits, known[:, antenna])
    return np.asarray(target - target.mean(axis=1, keepdims=True))
