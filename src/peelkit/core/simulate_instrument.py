"""The telescopes that are simulated: where they are, their dishes, feeds and sensitivity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.simulate_array import DISH_M, VLA, Site
from peelkit.core.simulate_beam import ALMA_DISH, TELESCOPE, VLA_DISH, Dish


@dataclass(frozen=True)
class Instrument:
    """A telescope.

    Parameters
    ----------
    telescope : str
        Name that imagers know its primary beam by.
    site : Site
        Where it is.
    dish : Dish
        The aperture that makes its beam.
    dish_m : float
        Diameter of a dish [m], as in the ANTENNA table.
    hands : str
        RL or XY: the feeds.
    antenna_prefix : str
        Antennas are this and a number.
    efficiency : float
        Share of the sensitivity that the correlator keeps.
    """

    telescope: str
    site: Site
    dish: Dish
    dish_m: float
    hands: str
    antenna_prefix: str
    efficiency: float

    @property
    def is_linear(self) -> bool:
        """The feeds are linear: they turn against the sky's polarisation."""
        return self.hands == "XY"

    def correlations(self, count: int) -> tuple[str, ...]:
        """Names of two or four correlations."""
        first, second = self.hands[0], self.hands[1]
        parallel = (first * 2, second * 2)
        return (
            parallel if count == 2 else (parallel[0], first + second, second + first, parallel[1])
        )


# 8-bit samplers (VLA Observational Status Summary).
EVLA = Instrument(TELESCOPE, VLA, VLA_DISH, DISH_M, "RL", "ea", 0.93)

# 2-bit correlator with Hanning windows (ALMA Technical Handbook, on sensitivity).
ALMA = Instrument(
    "ALMA",
    Site(math.radians(-23.0229), math.radians(-67.7548), (2225142.2, -5440307.4, -2481029.9)),
    ALMA_DISH,
    12.0,
    "XY",
    "DV",
    0.88,
)

# Band 6: 2 k T / (efficiency x area) of 80 K above the atmosphere and 68 % of a 12 m dish.
ALMA_BAND_6_SEFD_JY = 2900.0

# A spiral that turns by the golden angle: no two antennas in line, and baselines of all directions.
GOLDEN_ANGLE = math.radians(137.507764)
ALMA_SHORTEST_M = 15.0


def spiral(n_antenna: int, longest_m: float, exponent: float) -> NDArray[np.float64]:
    """Offsets of antennas east and north of the centre, shape (antenna, 2) [m].

    The distance from the centre grows with the antenna's number to ``exponent`` (2 puts as many short
    baselines as long ones; below 1 is a compact array), and no two are closer than their dishes allow.

    Parameters
    ----------
    n_antenna : int
        How many, two or more.
    longest_m : float
        Longest baseline, which comes out exactly.
    exponent : float
        As above.
    """
    number = np.arange(n_antenna)
    angle = number * GOLDEN_ANGLE
    reach = (number / (n_antenna - 1)) ** exponent
    scale = 0.5 * longest_m
    for _ in range(40):
        radius = np.hypot(scale * reach, ALMA_SHORTEST_M * np.sqrt(number))
        found = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        length = np.linalg.norm(found[:, None] - found[None], axis=2)
        scale *= longest_m / length.max()
    return np.asarray(found * (longest_m / length.max()))
