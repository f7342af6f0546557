"""Where a field and the sun stand over an array: hour angle, elevation, parallactic angle.

Good to a few arc minutes, which is far better than what is made of them (day or night, how far the
parallactic angle turned): precession is taken into account, nutation, aberration, refraction and UT1 - UTC
are not, so that no table of the Earth's rotation is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import FK5, BaseCoordinateFrame, EarthLocation, SkyCoord, get_sun
from astropy.time import Time
from numpy.typing import NDArray

MJD_DAY_S = 86400.0

# The sun's upper limb touches the horizon, with refraction [deg].
SUNRISE_DEG = -0.83


@dataclass(frozen=True)
class Site:
    """Where an array is: geodetic latitude, and longitude east of Greenwich [rad]."""

    latitude_rad: float
    longitude_rad: float


def site(position_m: tuple[float, float, float]) -> Site | None:
    """Site of an ITRF position [m]; None if it is not on the Earth's surface."""
    if np.linalg.norm(position_m) < 6e6:
        return None
    place = EarthLocation.from_geocentric(*position_m, unit="m").geodetic
    return Site(float(place.lat.rad), float(place.lon.rad))


def parallactic_angle_rad(
    latitude_rad: float, hour_angle_rad: NDArray[np.float64], dec_rad: float
) -> NDArray[np.float64]:
    """Parallactic angle [rad], positive west of the meridian.

    ``chi = atan2(cos l sin h, sin l cos d - cos l sin d cos h)``, calibration lecture (seed 001).
    """
    sine, cosine = math.sin(latitude_rad), math.cos(latitude_rad)
    return np.asarray(
        np.arctan2(
            cosine * np.sin(hour_angle_rad),
            sine * math.cos(dec_rad) - cosine * math.sin(dec_rad) * np.cos(hour_angle_rad),
        )
    )


def elevation_rad(
    latitude_rad: float, hour_angle_rad: NDArray[np.float64], dec_rad: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Elevation [rad]: ``sin e = sin l sin d + cos l cos d cos h``."""
    return np.asarray(
        np.arcsin(
            np.sin(latitude_rad) * np.sin(dec_rad)
            + np.cos(latitude_rad) * np.cos(dec_rad) * np.cos(hour_angle_rad)
        )
    )


def parallactic_range_deg(
    where: Site,
    times_s: NDArray[np.float64],
    ra_rad: float,
    dec_rad: float,
    frame: BaseCoordinateFrame,
) -> tuple[float, float]:
    """Least and greatest parallactic angle of a direction at ``times_s`` [MJD s, UTC], in degrees.

    The range is the shortest that has all angles; the second may exceed 180 deg, where a field
    passed between zenith and pole.
    """
    moments = _moments(times_s)
    middle = moments[len(moments) // 2]
    now = SkyCoord(ra_rad, dec_rad, unit="rad", frame=frame).transform_to(FK5(equinox=middle))
    angle = parallactic_angle_rad(
        where.latitude_rad, _sidereal(moments, where) - now.ra.rad, float(now.dec.rad)
    )
    degrees = np.sort(np.degrees(angle))
    # The largest gap between angles, on the circle, is the part that was not passed.
    gaps = np.diff(degrees, append=degrees[0] + 360.0)
    start = (int(np.argmax(gaps)) + 1) % degrees.size
    low, high = float(degrees[start]), float(degrees[start - 1])
    return low, high if high >= low else high + 360.0


def sun_elevation_deg(where: Site, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elevation of the sun [deg] at ``times_s`` [MJD s, UTC], shape (time,)."""
    moments = _moments(times_s)
    seen = get_sun(moments)
    # The direction only: with its distance the sun would be moved to where the barycentre sees it.
    sun = SkyCoord(seen.ra, seen.dec, frame="icrs").transform_to(
        FK5(equinox=moments[len(moments) // 2])
    )
    hour = _sidereal(moments, where) - sun.ra.rad
    return np.degrees(elevation_rad(where.latitude_rad, hour, sun.dec.rad))


def solar_hour(where: Site, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local mean solar time [h], shape (time,); at the VLA 11 minutes behind Mountain Standard Time."""
    days = np.asarray(times_s, dtype=float) / MJD_DAY_S + where.longitude_rad / (2 * math.pi)
    return np.asarray(24 * (days % 1.0))


def months(times_s: NDArray[np.float64]) -> list[int]:
    """Month, 1 to 12, of each of ``times_s`` [MJD s, UTC]."""
    return [int(moment.datetime.month) for moment in _moments(times_s)]


def _moments(times_s: NDArray[np.float64]) -> Any:
    moments = Time(np.atleast_1d(times_s) / MJD_DAY_S, format="mjd", scale="utc")
    # At most 0.9 s, and no table of the Earth's rotation is looked for.
    moments.delta_ut1_utc = 0.0
    return moments


def _sidereal(moments: Any, where: Site) -> NDArray[np.float64]:
    """Mean sidereal time at the site [rad]."""
    return np.asarray(moments.sidereal_time("mean", longitude=where.longitude_rad * units.rad).rad)
