"""The simulated array: VLA pads, bands, spectral windows, and how the sky turns above it.

Everything is by formula, so that what is tested against it shares nothing with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPEED_OF_LIGHT = 299792458.0
DISH_M = 25.0


@dataclass(frozen=True)
class Site:
    """Where an array is: latitude and longitude [rad], and ITRF position of its centre [m]."""

    latitude: float
    longitude: float
    centre_m: tuple[float, float, float]


# Centre of the Y, and Earth's radius below it (geocentric; the relief is left out).
LATITUDE, LONGITUDE = math.radians(34.0787), math.radians(-107.6184)
CENTRE_M = (-1601185.4, -5041977.5, 3554875.9)
EARTH_RADIUS_M = 6.371e6
VLA = Site(LATITUDE, LONGITUDE, CENTRE_M)

# Pads: the distance from the centre of the Y goes with pad number to the 1.716 (its factor of 2 is
# the 3.285 between configurations). With these three lines the pads of CASA's own list (simmos
# vla.*.cfg) come out within 0.3 % in distance, but for the innermost and N24 (3.5 %).
ARM_AZIMUTH_DEG = {"W": 236.0, "E": 115.0, "N": 355.0}
ARM_AT_PAD_18_M = {"W": 1946.0, "E": 1946.0, "N": 1754.6}
PAD_EXPONENT = 1.716
# (distance [m], azimuth [deg]) of the innermost pads, which are moved out of each other's way.
INNER_PADS = {
    ("W", 1): (40.0, 174.9), ("E", 1): (80.0, 174.9),
    ("N", 1): (0.0, 0.0), ("N", 2): (54.9, 355.0), ("N", 3): (94.8, 355.0), ("N", 4): (134.8, 355.0),
}  # fmt: skip

# Numbers of the pads in use: 1 to 9 times this.
PAD_STEP = {"A": 8, "B": 4, "C": 2, "D": 1}
MAX_ANTENNAS = 27

# Middle of January 2022, in MJD seconds: leap seconds and Earth rotation are known to every CASA.
EPOCH_S = 5.1492e9
SIDEREAL = 1.00273790935


@dataclass(frozen=True)
class Band:
    """A receiver: range [Hz], width of a spw [Hz], and SEFD [Jy] (VLA Observational Status Summary)."""

    low_hz: float
    high_hz: float
    spw_width_hz: float
    sefd_jy: float

    @property
    def centre_hz(self) -> float:
        """Middle of the band [Hz], where fluxes and delays have their reference."""
        return (self.low_hz + self.high_hz) / 2


BANDS = {
    "L": Band(1e9, 2e9, 64e6, 420.0),
    "S": Band(2e9, 4e9, 128e6, 370.0),
    "C": Band(4e9, 8e9, 128e6, 310.0),
    "X": Band(8e9, 12e9, 128e6, 250.0),
}


def spectral_windows(band: Band, n_spw: int, n_chan: int) -> list[NDArray[np.float64]]:
    """Channel centres [Hz] of spws spread evenly over the band.

    As wide as the band's usual ones, or narrower if so many would not fit.
    """
    share = (band.high_hz - band.low_hz) / n_spw
    width = channel_width(band, n_spw, n_chan)
    middles = band.low_hz + (np.arange(n_spw) + 0.5) * share
    offsets = (np.arange(n_chan) - (n_chan - 1) / 2) * width
    return list(middles[:, None] + offsets)


def channel_width(band: Band, n_spw: int, n_chan: int) -> float:
    """Width of a channel [Hz]."""
    return min(band.spw_width_hz, (band.high_hz - band.low_hz) / n_spw) / n_chan


def pads(config: str, n_antenna: int) -> list[tuple[str, int]]:
    """Arm and number of the pads in use; fewer antennas than 27 are spread over the arms."""
    every = [(arm, PAD_STEP[config] * number) for number in range(1, 10) for arm in "WEN"]
    chosen = np.linspace(0, len(every) - 1, n_antenna).round().astype(int)
    return sorted((every[index] for index in chosen), key=lambda pad: ("WEN".index(pad[0]), pad[1]))


def offsets(chosen: list[tuple[str, int]]) -> NDArray[np.float64]:
    """Where pads are, east and north of the centre, shape (antenna, 2) [m]."""
    places = []
    for arm, number in chosen:
        distance, azimuth = INNER_PADS.get(
            (arm, number),
            (ARM_AT_PAD_18_M[arm] * (number / 18) ** PAD_EXPONENT, ARM_AZIMUTH_DEG[arm]),
        )
        angle = math.radians(azimuth)
        places.append((distance * math.sin(angle), distance * math.cos(angle)))
    return np.array(places)


def positions(chosen: list[tuple[str, int]]) -> NDArray[np.float64]:
    """ITRF positions of pads, shape (antenna, 3) [m], on a round Earth."""
    return on_ground(offsets(chosen), VLA)


def on_ground(offset_m: NDArray[np.float64], site: Site) -> NDArray[np.float64]:
    """ITRF positions, shape (antenna, 3) [m], of offsets east and north, shape (antenna, 2) [m]."""
    height = -(offset_m**2).sum(axis=1, keepdims=True) / (2 * EARTH_RADIUS_M)
    sin_a, cos_a = math.sin(site.latitude), math.cos(site.latitude)
    sin_o, cos_o = math.sin(site.longitude), math.cos(site.longitude)
    east = np.array([-sin_o, cos_o, 0.0])
    up = np.array([cos_a * cos_o, cos_a * sin_o, sin_a])
    axes = np.stack([east, np.cross(up, east), up])
    return np.asarray(np.array(site.centre_m) + np.hstack([offset_m, height]) @ axes)


def longest_baseline(position_m: NDArray[np.float64]) -> float:
    """Longest distance between two antennas [m]."""
    return float(np.linalg.norm(position_m[:, None] - position_m[None], axis=2).max())


def resolution_arcsec(position_m: NDArray[np.float64], freq_hz: float) -> float:
    """About the width of the synthesised beam [arcsec]: 1.15 wavelengths over the longest baseline."""
    wavelength = SPEED_OF_LIGHT / freq_hz
    return math.degrees(1.15 * wavelength / longest_baseline(position_m)) * 3600


def sidereal_angle(time_s: float) -> float:
    """Greenwich mean sidereal time [rad] at an MJD [s]; UT1 is taken for UTC."""
    return 2 * math.pi * ((time_s / 86400.0 - 51544.5) * SIDEREAL + 0.7790572732640)


def time_at(hour_angle_rad: float, ra_rad: float, site: Site = VLA) -> float:
    """MJD [s] of the first time after `EPOCH_S` when ``ra_rad`` has this local hour angle."""
    wanted = hour_angle_rad + ra_rad - site.longitude - sidereal_angle(EPOCH_S)
    return EPOCH_S + (wanted / (2 * math.pi) % 1.0) * 86400.0 / SIDEREAL


def antenna_uvw(
    position_m: NDArray[np.float64],
    time_s: float,
    ra_rad: float,
    dec_rad: float,
    site: Site = VLA,
) -> NDArray[np.float64]:
    """UVW of each antenna, shape (antenna, 3) [m], about the centre of the array.

    A baseline's is antenna 1 minus antenna 2, which is CASA's sign with `visibilities`' phase.
    Precession, nutation and aberration are left out: the frame is rigid, and all agree in it.
    """
    hour = sidereal_angle(time_s) - ra_rad
    x, y, z = (position_m - np.array(site.centre_m)).T
    sin_h, cos_h = math.sin(hour), math.cos(hour)
    sin_d, cos_d = math.sin(dec_rad), math.cos(dec_rad)
    return np.stack(
        [
            sin_h * x + cos_h * y,
            -sin_d * cos_h * x + sin_d * sin_h * y + cos_d * z,
            cos_d * cos_h * x - cos_d * sin_h * y + sin_d * z,
        ],
        axis=1,
    )


def elevation(time_s: float, ra_rad: float, dec_rad: float, site: Site = VLA) -> float:
    """Elevation [rad] of a position at the array."""
    hour = sidereal_angle(time_s) + site.longitude - ra_rad
    sine = math.sin(site.latitude) * math.sin(dec_rad)
    return math.asin(sine + math.cos(site.latitude) * math.cos(dec_rad) * math.cos(hour))


def parallactic_angle(time_s: float, ra_rad: float, dec_rad: float, site: Site = VLA) -> float:
    """Angle of the antennas' up direction [rad], from north through east."""
    hour = sidereal_angle(time_s) + site.longitude - ra_rad
    return math.atan2(
        math.sin(hour),
        math.tan(site.latitude) * math.cos(dec_rad) - math.sin(dec_rad) * math.cos(hour),
    )
