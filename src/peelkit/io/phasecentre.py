"""Phase centres that move: polynomials in time (NUM_POLY), and ephemerides (EPHEMERIS_ID) in CASA's way.

An ephemeris is a table in the folder of FIELD. The direction of a field that follows one is an offset from it.
CASA's imager takes its times for TDB, and a geocentric one for the place less the parallax; other parts of CASA take
neither, so that of a geocentric one it is not known where the data have their phase centre.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.time import Time
from casacore.tables import table
from numpy.typing import NDArray

DAY_S = 86400.0

# Earth's radius at one astronomical unit.
PARALLAX_ARCSEC = 8.794

# An ephemeris' keyword posrefsys ends in one of these; CASA's names for them.
FRAMES = {
    "ICRS": "ICRS",
    "J2000": "J2000",
    "J2000.0": "J2000",
    "B1950": "B1950",
    "B1950.0": "B1950",
}


@dataclass(frozen=True)
class Ephemeris:
    """Places of a moving source.

    Parameters
    ----------
    path : Path
        The table.
    time_s : ndarray, shape (n,)
        Ascending [MJD s, TDB].
    place : ndarray, shape (n, 3)
        Vectors, with the distance if it is known; between two times they go straight.
    frame : str
        CASA's name.
    icrf : bool
        Whether its places are in ICRF, whatever CASA calls them.
    """

    path: Path
    time_s: NDArray[np.float64]
    place: NDArray[np.float64]
    frame: str
    icrf: bool

    def vector(self, time_s: float) -> NDArray[np.float64]:
        """Unit vector at a time [MJD s]."""
        found = np.array([np.interp(time_s, self.time_s, axis) for axis in self.place.T])
        return found / np.linalg.norm(found)

    def within(self, first_s: float, last_s: float) -> Ephemeris:
        """The part that is needed between two times."""
        low = max(0, int(np.searchsorted(self.time_s, first_s, side="right")) - 1)
        high = int(np.searchsorted(self.time_s, last_s, side="left")) + 1
        return replace(self, time_s=self.time_s[low:high], place=self.place[low:high])


@dataclass(frozen=True)
class Track:
    """Where a phase centre is, at the times of its data.

    Parameters
    ----------
    polynomial : ndarray, shape (order + 1, 2)
        Of right ascension and declination [rad, rad/s, ...], or of the offsets from the ephemeris.
    origin_s : float
        Its zero [MJD s].
    ephemeris : Ephemeris or None
        What it is an offset from.
    problem : str
        Why it cannot be used, with the remedy; empty if it can.
    span_s : tuple of float
        First and last time of the data.
    """

    polynomial: NDArray[np.float64]
    origin_s: float
    ephemeris: Ephemeris | None = None
    problem: str = ""
    span_s: tuple[float, float] = (0.0, 0.0)

    @property
    def moved_arcsec(self) -> float:
        """How far it goes from the first data to the last [arcsec]."""
        if self.problem:
            return 0.0
        (ra1, dec1), (ra2, dec2) = (self.direction(moment) for moment in self.span_s)
        east = math.remainder(ra2 - ra1, 2 * math.pi) * math.cos(dec1)
        return math.degrees(math.hypot(east, dec2 - dec1)) * 3600

    def direction(self, time_s: float) -> tuple[float, float]:
        """Right ascension and declination at a time [rad]."""
        powers = (time_s - self.origin_s) ** np.arange(len(self.polynomial))
        lon, lat = (float(value) for value in powers @ self.polynomial)
        if self.ephemeris is not None:
            # As casacore's MVDirection.shift: to the north first, then along a great circle to the east.
            x, y, z = (float(value) for value in self.ephemeris.vector(time_s))
            ra, dec = math.atan2(y, x), math.atan2(z, math.hypot(x, y)) + lat
            flat = math.cos(lon) * math.cos(dec)
            lat = math.asin(math.cos(lon) * math.sin(dec))
            lon = ra + math.atan2(math.sin(lon), flat)
        return lon % (2 * math.pi), lat

    def during(self, first_s: float, last_s: float) -> Track:
        """What is needed of it between two times [MJD s]; with a problem if it does not reach so far."""
        span = (first_s, last_s)
        if self.problem or self.ephemeris is None:
            return replace(self, span_s=span)
        later = tdb_later_s((first_s + last_s) / 2)
        own = replace(self.ephemeris, time_s=self.ephemeris.time_s - later)
        if own.time_s[0] <= first_s and last_s <= own.time_s[-1]:
            return replace(self, ephemeris=own.within(first_s, last_s), span_s=span)
        return replace(
            self,
            problem=f"its ephemeris {own.path} has MJD {own.time_s[0] / DAY_S:.4f} to {own.time_s[-1] / DAY_S:.4f}, and "
            f"the data {first_s / DAY_S:.4f} to {last_s / DAY_S:.4f}; attach one that covers them with "
            "CASA's ms.addephemeris.",
        )


def tdb_later_s(time_s: float) -> float:
    """How much further TDB is than UTC [s], at a time in UTC [MJD s]."""
    moment = Time(time_s / DAY_S, format="mjd", scale="utc")
    return float((moment.tdb.mjd - moment.mjd) * DAY_S)


def read_ephemeris(fields: Path, number: int) -> Ephemeris | str:
    """Read the ephemeris with an EPHEMERIS_ID from the folder of FIELD; what is the matter if there is none."""
    found = sorted(fields.glob(f"EPHEM{number}_*.tab"))
    if not found:
        return (
            f"its ephemeris, a table {fields}/EPHEM{number}_*.tab, is not there; copy it from the original MS, "
            "or attach it with CASA's ms.addephemeris."
        )
    with table(str(found[0]), ack=False) as sub:
        keywords: Mapping[str, object] = sub.getkeywords()
        units = {"deg": math.radians(1), "rad": 1.0}
        angles = []
        for name in ("RA", "DEC"):
            unit = str(sub.getcolkeywords(name).get("QuantumUnits", ["deg"])[0])
            angles.append(
                np.asarray(sub.getcol(name), dtype=np.float64) * units.get(unit, math.nan)
            )
        far = sub.getcol("Rho") if "Rho" in sub.colnames() else np.ones(sub.nrows())
        time_s = np.asarray(sub.getcol("MJD"), dtype=np.float64) * DAY_S
    if str(keywords.get("obsloc", "")).strip().upper() == "GEOCENTRIC":
        parallax = f" by up to {PARALLAX_ARCSEC / far.min():.2g} arcsec" if far.min() > 0 else ""
        return (
            f"its ephemeris {found[0]} is geocentric; the telescope sees the source elsewhere{parallax}, so that the "
            "phase centre is not known; attach one for the telescope with CASA's ms.addephemeris."
        )
    ra, dec = angles
    toward = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    place = toward * np.where(far > 0, far, 1.0)[:, None]
    if time_s.size < 2 or not np.isfinite(place).all() or not (np.diff(time_s) > 0).all():
        return (
            f"its ephemeris {found[0]} does not hold places at ascending times; attach another with CASA's "
            "ms.addephemeris."
        )
    family, _, system = str(keywords.get("posrefsys", "")).rpartition("/")
    system = system.strip()
    frame = FRAMES.get(system, system or "APP")
    return Ephemeris(found[0], time_s, place, frame, family.strip() == "ICRF")
