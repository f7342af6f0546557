"""Phase centres that move: ephemerides and polynomials, at each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from casacore.tables import table

from makemodel import DEC_DEG, RA_DEG, SIZE, write_model
from makemoving import frame, move, seen, set_field, write_ephemeris
from makems import MsRecipe, make_ms
from peelkit.core.compact import Compact
from peelkit.core.dd_inject import Sky
from peelkit.core.predictor import Predictor, Samples
from peelkit.core.skymodel import sky_model
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import read_image
from peelkit.selection import Selection

# Half an arcminute between the first and the last integration: tens of fringes.
SPEED = (1.2e-7, -0.8e-7)
PIXELS = ((230, 300, 2.0), (100, 120, 1.0))


@pytest.fixture(params=["ephemeris", "polynomial"])
def moving(request, tmp_path: Path) -> Path:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=7, n_scan=2, n_time=4, n_chan=(3, 2), frame="ICRS"))
    move(path, speed_rad_s=SPEED, how=request.param)
    return path


def samples(info: ms.MsInfo, spw: int) -> Samples:
    with ms.opened(info.path) as main:
        return Samples.read(main, np.flatnonzero(main.getcol("DATA_DESC_ID") == spw), spw)


def test_models_are_predicted_about_the_place_at_each_time(moving: Path) -> None:
    info = ms.read_info(moving)
    plane = np.zeros((SIZE, SIZE))
    for x, y, flux in PIXELS:
        plane[y, x] = flux
    image = read_image(write_model(moving.with_name("m.fits"), [plane]))
    places = [image.sky(x, y).icrs for x, y, _ in PIXELS]
    sources = [
        (flux, at.ra.rad, at.dec.rad) for at, (_, _, flux) in zip(places, PIXELS, strict=True)
    ]
    for spw in (0, 1):
        where, freq = samples(info, spw), info.spws[spw].freq_hz
        truth = seen(where.uvw_m, where.time_s, freq, sources, SPEED)
        still = seen(where.uvw_m, where.time_s, freq, sources, (0.0, 0.0))
        assert np.abs(truth - still).max() > 1.0
        found = Predictor(info).visibilities(sky_model([image]), where)
        # Of the ephemeris, which goes straight from one place to the next.
        np.testing.assert_allclose(found, truth, atol=2e-4)
        points = [Compact(np.degrees(ra), np.degrees(dec), flux, 3e9) for flux, ra, dec in sources]
        found = sum(Predictor(info).visibilities(point, where) for point in points)
        np.testing.assert_allclose(found, truth, atol=2e-4)


def test_sources_are_injected_about_the_place_at_each_time(moving: Path) -> None:
    info = ms.read_info(moving)
    ra, dec = np.radians(RA_DEG) + 1e-3, np.radians(DEC_DEG) + 5e-4
    sky = Sky(info, False, np.array([2.0]), frame(ra, dec)[2][None])
    where, freq = samples(info, 1), info.spws[1].freq_hz
    with ms.opened(moving) as main:
        rows = np.flatnonzero(main.getcol("DATA_DESC_ID") == 1)
        found = sky.visibilities(main, rows, info.data_descriptions[1])[0]
    truth = seen(where.uvw_m, where.time_s, freq, [(2.0, ra, dec)], SPEED)
    np.testing.assert_allclose(found, truth, atol=2e-4)


def test_places_and_offsets_are_casas(tmp_path: Path) -> None:
    """Two days of CASA's ephemeris of Titan, and what msmetadata.phasecenter of CASA 6.7 makes of them [deg].

    That takes its times for UTC, and CASA's imager, which this is to agree with, for TDB: 66.184 s in 2010.
    """
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=3, n_scan=1, n_time=2))
    days = 86400.0 * np.array([55297.0, 55298.0])
    ephemeris = path / "FIELD" / "EPHEM0_TITAN.tab"
    write_ephemeris(
        ephemeris, days, np.radians([180.7201, 180.65683]), np.radians([2.50848, 2.53442])
    )
    with table(str(ephemeris), readonly=False, ack=False) as sub:
        sub.putcol("Rho", np.array([8.56757476, 8.57053179]))
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("TIME", days[0] + 3600.0 * np.arange(main.nrows()))
    expected = {
        (0.25, 0.0, 0.0): (180.70427864365078, 2.5149669656436933),
        (0.9, 0.0, 0.0): (180.66315514783977, 2.531826944294872),
        (0.5, 1e-3, 2e-3): (180.74581632911057, 2.636042861771948),
    }
    for (day, east, north), (ra, dec) in expected.items():
        set_field(path, [np.array([east, north])], time_s=days[0], ephemeris=0)
        field = ms.read_info(path).fields[0].at(days[0] + 86400 * day - 66.184)
        place = SkyCoord(field.ra_rad, field.dec_rad, unit="rad")
        assert place.separation(SkyCoord(ra, dec, unit="deg")).arcsec < 1e-5
        assert field.frame == "J2000"


@pytest.mark.parametrize("why", ["missing", "too short", "geocentric", "offsets"])
def test_a_field_whose_place_is_not_known_is_refused_with_the_remedy(tmp_path: Path, why) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=4, n_scan=2, n_time=2, n_field=2))
    move(path, speed_rad_s=SPEED, how="ephemeris")
    ephemeris = path / "FIELD" / "EPHEM0_MOVER.tab"
    if why == "missing":
        shutil.rmtree(ephemeris)
    elif why == "offsets":
        with table(f"{path}/FIELD", readonly=False, ack=False) as sub:
            sub.putcell("REFERENCE_DIR", 0, np.array([[1e-4, 0.0]]))
    elif why == "geocentric":
        with table(str(ephemeris), readonly=False, ack=False) as sub:
            sub.putkeyword("obsloc", "GEOCENTRIC")
    else:
        with table(str(ephemeris), readonly=False, ack=False) as sub:
            sub.putcol("MJD", sub.getcol("MJD") - 1)
    info = ms.read_info(path)
    with pytest.raises(DataError, match=r"field 0 \(field0\).*(ms.addephemeris|FIELD table)"):
        ms.select_rows(info, Selection())
    # The other field is at rest.
    assert ms.select_rows(info, Selection(field="1")).size


def test_a_copy_keeps_the_ephemeris(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=4, n_scan=1, n_time=3))
    move(path, speed_rad_s=SPEED, how="ephemeris")
    rows = np.arange(6)
    ms.copy_rows(path, tmp_path / "b.ms", rows, data_column="DATA")
    ms.empty_copy(path, tmp_path / "c.ms", data_column="DATA")
    for name in ("b.ms", "c.ms"):
        assert ms.read_info(tmp_path / name).fields[0].track.ephemeris.path.exists()
