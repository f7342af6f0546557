"""Parallactic angle of alt-azimuth antennas: how far the feeds turn on the sky during an observation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms
from peelkit.io.survey import Survey

# From this range on Q and U of the feeds' frame are said to be averages [deg].
RANGE_DEG = 10.0


def parallactic_angle(
    hour_angle_rad: NDArray[np.float64], dec_rad: float, latitude_rad: float
) -> NDArray[np.float64]:
    """Angle from the direction of the pole to that of the zenith at a source [rad].

    ``tan chi = sin H / (tan phi cos delta - sin delta cos H)`` (Thompson, Moran & Swenson 2017, eq. 4.44).
    """
    return np.asarray(
        np.arctan2(
            np.sin(hour_angle_rad),
            math.tan(latitude_rad) * math.cos(dec_rad) - math.sin(dec_rad) * np.cos(hour_angle_rad),
        )
    )


def range_deg(info: ms.MsInfo, found: Survey, fields: Sequence[int]) -> float:
    """Range that the parallactic angle of the fields runs through [deg]; 0 for equatorial mounts."""
    with ms.opened(info.path / "ANTENNA") as sub:
        mounts = [str(mount).upper() for mount in sub.getcol("MOUNT")]
    if all("EQUATORIAL" in mount for mount in mounts):
        return 0.0
    x, y, z = np.mean([info.antennas[a].position_m for a in found.antennas], axis=0)
    # Geocentric; the 0.2 deg to the geodetic latitude do not matter here.
    latitude, longitude = math.atan2(z, math.hypot(x, y)), math.atan2(y, x)
    angles = []
    for visit in found.visits:
        if visit.field not in fields:
            continue
        field = info.fields[visit.field]
        # Greenwich mean sidereal time (Meeus 1998, eq. 12.4), turns.
        gmst = (visit.times_s / 86400 - 51544.5) * 1.00273790935 + 0.7790572732640
        hour = 2 * math.pi * gmst + longitude - field.ra_rad
        angles.append(parallactic_angle(hour, field.dec_rad, latitude))
    if not angles:
        return 0.0
    turned = np.sort(np.mod(np.concatenate(angles), 2 * math.pi))
    gaps = np.append(np.diff(turned), turned[0] + 2 * math.pi - turned[-1])
    # What is not the largest gap: the angle may pass through 180 deg.
    return math.degrees(2 * math.pi - float(gaps.max()))
