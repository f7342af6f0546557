"""Lets the field of an MS move: an ephemeris, or a polynomial, and data of a sky at rest seen from it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from casacore.tables import makearrcoldesc, makescacoldesc, maketabdesc, table

from makems import C, baseline_uvw

RA, DEC = 2.0, math.radians(30.0)
# TDB less UTC at the time of makems' MSs, 2017.
TDB_LATER_S = 69.184
DIRECTIONS = ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR")


def write_ephemeris(
    path: Path, time_s, ra, dec, *, system: str = "ICRF/J2000.0", obsloc: str = "VLA"
) -> None:
    """A table as CASA attaches it; angles [rad], times TDB."""
    names = {"MJD": "d", "RA": "deg", "DEC": "deg", "Rho": "AU", "RadVel": "AU/d"}
    with table(
        str(path),
        maketabdesc([makescacoldesc(name, 0.0) for name in names]),
        nrow=len(time_s),
        ack=False,
    ) as sub:
        days = np.asarray(time_s) / 86400
        values = (days, np.degrees(ra), np.degrees(dec), 8.0 + 0 * days, 0 * days)
        for (name, unit), column in zip(names.items(), values, strict=True):
            sub.putcol(name, column)
            sub.putcolkeyword(name, "QuantumUnits", [unit])
        step = float(days[1] - days[0])
        for name, value in {
            "VS_CREATE": "2020/01/01/00:00", "VS_DATE": "2020/01/01/00:00", "VS_VERSION": "0004.0001",
            "VS_TYPE": "Table of comet/planetary positions", "NAME": "MOVER", "MJD0": float(days[0] - step), "dMJD": step,
            "GeoDist": 0.0 if obsloc == "GEOCENTRIC" else 6.37, "GeoLat": 34.08, "GeoLong": -107.62, "obsloc": obsloc,
            "posrefsys": system,
        }.items():  # fmt: skip
            sub.putkeyword(name, value)
        sub.putinfo({"type": "IERS", "subType": "", "readme": ""})


def set_field(path: Path, rows: list[np.ndarray], *, time_s: float, ephemeris: int = -1) -> None:
    """Directions of field 0: polynomials with their zero at ``time_s``."""
    with table(f"{path}/FIELD", readonly=False, ack=False) as sub:
        if "EPHEMERIS_ID" not in sub.colnames():
            sub.addcols(makescacoldesc("EPHEMERIS_ID", 0))
            sub.putcol("EPHEMERIS_ID", np.full(sub.nrows(), -1, dtype="i4"))
        sub.putcell("EPHEMERIS_ID", 0, ephemeris)
        sub.putcell("NUM_POLY", 0, len(rows) - 1)
        sub.putcell("TIME", 0, time_s)
        for name in DIRECTIONS:
            if sub.nrows() > 1 and name not in sub.colnames():
                sub.addcols(makearrcoldesc(name, 0.0, ndim=2))
            sub.putcell(name, 0, np.array(rows))


def move(path: Path, *, speed_rad_s: tuple[float, float], how: str) -> None:
    """Let field 0 pass `RA`, `DEC` in the middle of the data, as an ``ephemeris`` or a ``polynomial``."""
    with table(str(path), ack=False) as main:
        times = main.getcol("TIME")
    middle = (times.min() + times.max()) / 2
    if how == "polynomial":
        set_field(path, [np.array([RA, DEC]), np.array(speed_rad_s)], time_s=middle)
        return
    gone = np.arange(-3600.0, 3601.0, 60.0)
    ra, dec = RA + speed_rad_s[0] * gone, DEC + speed_rad_s[1] * gone
    write_ephemeris(path / "FIELD" / "EPHEM0_MOVER.tab", middle + TDB_LATER_S + gone, ra, dec)
    set_field(path, [np.zeros(2)], time_s=middle, ephemeris=0)


def frame(ra: float, dec: float) -> np.ndarray:
    """Unit vectors east, north and outwards at a direction, one a row."""
    east = np.array([-math.sin(ra), math.cos(ra), 0.0])
    out = np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])
    return np.array([east, np.cross(out, east), out])


def seen(uvw: np.ndarray, times: np.ndarray, freq: np.ndarray, sources, speed_rad_s) -> np.ndarray:
    """Visibilities of points at rest, (flux [Jy], ra, dec [rad]), about the centre of `move`, shape (row, chan)."""
    middle = (times.min() + times.max()) / 2
    total = np.zeros((times.size, freq.size), dtype=complex)
    for moment in np.unique(times):
        mine = times == moment
        gone = moment - middle
        axes = frame(RA + speed_rad_s[0] * gone, DEC + speed_rad_s[1] * gone)
        for flux, ra, dec in sources:
            cosines = axes @ frame(ra, dec)[2] - [0, 0, 1]
            total[mine] += flux * np.exp(2j * np.pi * np.outer(uvw[mine] @ cosines, freq) / C)
    return total


def write_data(path: Path, sources, *, speed_rad_s: tuple[float, float], noise_jy: float) -> None:
    """UVW of the moving centre of `move`, and DATA of points at rest, in an MS of one field."""
    rng = np.random.default_rng(5)
    with table(f"{path}/ANTENNA", ack=False) as sub:
        positions = sub.getcol("POSITION")
    with table(f"{path}/SPECTRAL_WINDOW", ack=False) as sub:
        freqs = [sub.getcell("CHAN_FREQ", row) for row in range(sub.nrows())]
    with table(str(path), readonly=False, ack=False) as main:
        one, two, times = (main.getcol(name) for name in ("ANTENNA1", "ANTENNA2", "TIME"))
        middle = (times.min() + times.max()) / 2
        uvw = main.getcol("UVW")
        for moment in np.unique(times):
            mine, gone = times == moment, moment - middle
            place = RA + speed_rad_s[0] * gone, DEC + speed_rad_s[1] * gone
            antennas = baseline_uvw(positions, moment, *place)
            uvw[mine] = antennas[one[mine]] - antennas[two[mine]]
        main.putcol("UVW", uvw)
        data, spw = main.getcol("DATA"), main.getcol("DATA_DESC_ID")
        for number, freq in enumerate(freqs):
            vis = seen(uvw, times, freq, sources, speed_rad_s)[spw == number]
            data[spw == number] = vis[:, :, None]
        noise = rng.normal(0, noise_jy, (2, *data.shape))
        main.putcol("DATA", data + noise[0] + 1j * noise[1])
