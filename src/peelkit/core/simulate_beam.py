"""The primary beam of a simulated antenna: a blocked, uniformly illuminated round aperture."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.special import j1

from peelkit.core.simulate_array import SPEED_OF_LIGHT

# What is written into the MS, and an aperture whose beam is close to the one CASA has for it. Against
# the .pb images of tclean 6.7 (gridder standard, at the middle of L, S, C and X band; niter 0): within
# 1.5 % down to half power, 2 % to a third, 5 % to a fifth; gridder mosaic: the same to a third.
# The dish's diameter is 25 m; what blocks it is the subreflector and its legs.
TELESCOPE = "EVLA"
APERTURE_M = 25.0
BLOCKAGE_M = 3.0


@dataclass(frozen=True)
class Dish:
    """Diameters of an aperture and of what blocks its middle [m].

    Its beam is that of uniform illumination, or ``gaussian`` and as wide at half power, without sidelobes.
    """

    aperture_m: float
    blockage_m: float
    gaussian: bool = False


VLA_DISH = Dish(APERTURE_M, BLOCKAGE_M)
# What CASA has for ALMA's 12 m dishes: the feed lights 10.7 m of them (`primary_beam.ALMA_12M`).
ALMA_DISH = Dish(10.7, 0.75)

# R and L beams lie this share of the beam width apart: 0.53 arcmin at C band and 0.29 at X band were
# measured (Perley, evlatests list, 15 May 2006), of 8.4 arcmin at 5 GHz and 5.0 at 8.4 GHz.
SQUINT_SHARE = 0.06
# From the antenna's up direction; differs from band to band with the place of the feed.
SQUINT_ANGLE = math.radians(60.0)
# Where a width is calculated that goes with 1 / f.
REFERENCE_HZ = 3e9


def voltage(
    radius: NDArray[np.float64], freq_hz: NDArray[np.float64], dish: Dish = VLA_DISH
) -> NDArray[np.float64]:
    """Voltage pattern at a distance from the beam's centre, 1 there.

    Parameters
    ----------
    radius : ndarray
        Sine of the distance; any shape that broadcasts with ``freq_hz``.
    freq_hz : ndarray
        Frequency [Hz].
    dish : Dish
        The aperture.

    Notes
    -----
    The Fourier transform of a ring: ``(A(x) - e^2 A(e x)) / (1 - e^2)`` with
    ``A(x) = 2 J1(x) / x``, ``x = pi D sin(r) / wavelength`` and ``e`` the blocked share of the
    diameter.
    """
    if dish.gaussian:
        width = half_power_width(REFERENCE_HZ, replace(dish, gaussian=False))
        sine = 2 * math.sin(width / 2) * REFERENCE_HZ
        return np.asarray(np.exp(-2 * math.log(2) * (radius * freq_hz / sine) ** 2))
    share = dish.blockage_m / dish.aperture_m
    x = radius * freq_hz * (math.pi * dish.aperture_m / SPEED_OF_LIGHT)
    return np.asarray((_airy(x) - share**2 * _airy(share * x)) / (1 - share**2))


def _airy(x: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.where(np.abs(x) < 1e-6, 1e-6, x)
    return np.asarray(2 * j1(safe) / safe)


def power(
    radius: NDArray[np.float64], freq_hz: NDArray[np.float64], dish: Dish = VLA_DISH
) -> NDArray[np.float64]:
    """Power pattern: what an image of perfect data is multiplied by."""
    return np.asarray(voltage(radius, freq_hz, dish) ** 2)


@functools.cache
def half_power_width(freq_hz: float, dish: Dish = VLA_DISH) -> float:
    """Full width at half power [rad]."""
    freq = np.array(freq_hz)
    guess = SPEED_OF_LIGHT / freq_hz / dish.aperture_m
    found = optimize.brentq(
        lambda r: float(power(np.array(r), freq, dish)) - 0.5, 0.2 * guess, guess
    )
    return 2 * math.asin(float(found))


def squint(freq_hz: NDArray[np.float64], parallactic_angle: float) -> NDArray[np.float64]:
    """Offset of the R beam, shape (chan, 2) as direction cosines east and north; L is opposite."""
    width = half_power_width(REFERENCE_HZ) * REFERENCE_HZ / freq_hz
    angle = parallactic_angle + SQUINT_ANGLE
    direction = np.array([math.sin(angle), math.cos(angle)])
    return np.asarray(0.5 * SQUINT_SHARE * width[:, None] * direction)
