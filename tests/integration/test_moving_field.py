"""A field whose phase centre moves: sources at rest are where they are, through tclean and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from makemoving import DEC, RA, move, seen, write_data
from makems import MsRecipe, make_ms
from peelkit.core import averaging
from peelkit.core.predictor import Predictor, Samples
from peelkit.core.skymodel import sky_model
from peelkit.io import ms
from peelkit.io.image import read_image

pytestmark = pytest.mark.casa

# Forty arcseconds, seven beams, between the first and the last integration.
SPEED = (2.5e-7, -1e-7)
ARCSEC = np.pi / 180 / 3600
SOURCES = [(1.0, RA, DEC), (0.4, RA + 60 * ARCSEC / np.cos(DEC), DEC - 40 * ARCSEC)]
SMALL = ("--imsize", 160, "--cell", "1.5arcsec")


@pytest.mark.parametrize("how", ["ephemeris", "polynomial"])
def test_sources_at_rest_are_imaged_and_predicted_where_they_are(
    invoke, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=14, n_scan=2, n_time=20, flux_jy=0.0))
    move(path, speed_rad_s=SPEED, how=how)
    write_data(path, SOURCES, speed_rad_s=SPEED, noise_jy=0.01)
    monkeypatch.setattr(averaging, "FEWEST", 0)
    for name, smearing in (("whole", 0), ("mean", 0.001))[: 1 if how == "polynomial" else 2]:
        found = invoke(
            "image-residual", path, name, "--column", "DATA", "--smearing", smearing, *SMALL
        )
        assert "moves by" in found.stderr
        image = read_image(Path(f"{name}.image"))
        for flux, ra, dec in SOURCES:
            # What CASA calls J2000.
            x, y = image.pixel(SkyCoord(ra, dec, unit="rad", frame="fk5"))
            ys, xs = np.indices(image.data.shape)
            near = np.where(np.hypot(xs - x, ys - y) < 4, image.data, -1)
            # Between pixels a few per cent less.
            assert near.max() == pytest.approx(flux, rel=0.06)
            peak = np.unravel_index(near.argmax(), near.shape)
            assert np.hypot(peak[1] - x, peak[0] - y) < 1
    info = ms.read_info(path)
    with ms.opened(path) as main:
        where = Samples.read(main, np.arange(info.n_rows), 0)
    back = Predictor(info).visibilities(sky_model([read_image(Path("whole.model"))]), where)
    uvw, times, freq = where.uvw_m, where.time_s, info.spws[0].freq_hz
    truth = seen(uvw, times, freq, SOURCES, SPEED)
    # CLEAN's components are on pixels, and so not exactly at the places.
    assert np.abs(back - truth).mean() < 0.03
    assert np.abs(seen(uvw, times, freq, SOURCES, (0, 0)) - truth).mean() > 0.3


def test_self_calibration_of_a_field_with_an_ephemeris(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=10, n_scan=2, n_time=12, flux_jy=0.0))
    move(path, speed_rad_s=SPEED, how="ephemeris")
    write_data(path, SOURCES, speed_rad_s=SPEED, noise_jy=0.05)
    rng = np.random.default_rng(3)
    with ms.opened(path, write=True) as main:
        one, two, times = (main.getcol(name) for name in ("ANTENNA1", "ANTENNA2", "TIME"))
        step = np.searchsorted(np.unique(times), times) // 6
        gain = np.exp(0.4j * rng.normal(size=(step.max() + 1, 10)))
        error = gain[step, one] * gain[step, two].conj()
        main.putcol("DATA", main.getcol("DATA") * error[:, None, None])
    invoke("selfcal", path, "--solint", "60s", "--calmode", "p", *SMALL, "--no-plots")
    rounds = json.loads(Path("a.ms.selfcal.peelkit.json").read_text())["results"]
    assert rounds["final"]["dynamic_range"] > 3 * rounds["first"]["dynamic_range"]
    assert rounds["final"]["peak_jy_beam"] == pytest.approx(1.0, rel=0.05)
