"""Visibilities of a point or Gaussian by formula, against the image path and hand-made sums."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord

from makemodel import SIZE, write_model
from makems import MsRecipe, make_ms
from peelkit.core.compact import Compact
from peelkit.core.modelcol import Predictor, Samples
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import sky_model
from peelkit.io import ms
from peelkit.io.image import read_image

C = 299792458.0
REFERENCE = 3e9


def setting(tmp_path: Path, frame: str) -> tuple[ms.MsInfo, list[Samples]]:
    recipe = MsRecipe(
        n_antenna=7, n_scan=2, n_time=3, n_field=2, n_chan=(3, 2), frame=frame, field_step_rad=0.002
    )
    make_ms(tmp_path / "a.ms", recipe)
    info = ms.read_info(tmp_path / "a.ms")
    with ms.opened(info.path) as main:
        ddid = main.getcol("DATA_DESC_ID")
        return info, [Samples.read(main, np.flatnonzero(ddid == spw), spw) for spw in (0, 1)]


def pixel_model(tmp_path: Path, x: int, y: int):
    plane = np.zeros((SIZE, SIZE))
    plane[y, x] = 2.0
    return read_image(write_model(tmp_path / "m.fits", [plane]))


@pytest.mark.parametrize("frame", ["ICRS", "J2000"])
@pytest.mark.parametrize("with_beam", [False, True])
def test_a_point_on_a_pixel_is_as_the_image_of_it(tmp_path: Path, frame: str, with_beam) -> None:
    info, samples = setting(tmp_path, frame)
    image = pixel_model(tmp_path, 120, 300)
    # Its positions are true ones only without tclean's scaling to LSRK.
    sky = sky_model([image])
    sky = replace(sky, grid=replace(sky.grid, in_lsrk=False))
    place = image.sky(120, 300)
    point = Compact(float(place.ra.deg), float(place.dec.deg), 2.0, REFERENCE)
    predictor = Predictor(info, Beam.of(info) if with_beam else None)
    for where in samples:
        one, two = (predictor.visibilities(each, where) for each in (sky, point))
        assert np.abs(one - two).max() < (2e-5 if with_beam else 2e-6) * np.abs(one).max()
        assert np.ptp(np.angle(two)) > 3


def test_spectrum_and_size_are_those_of_the_formulas(tmp_path: Path) -> None:
    info, samples = setting(tmp_path, "J2000")
    place = SkyCoord(114.62, 30.05, unit="deg", frame="icrs")
    size = Compact(
        114.62, 30.05, 3.0, REFERENCE, (-0.7, 0.3), major_arcsec=12.0, minor_arcsec=5.0, pa_deg=40.0
    )
    where = samples[1]
    field = info.fields[0]
    mine = where.fields == 0
    freq = info.spws[1].freq_hz
    found = Predictor(info).visibilities(size, where)[mine]
    # By hand in the field's own frame: u, v, w and direction cosines, no rotation.
    local = place.transform_to(FK5(equinox="J2000"))
    turn = local.ra.rad - field.ra_rad
    l = math.cos(local.dec.rad) * math.sin(turn)  # noqa: E741
    m = math.sin(local.dec.rad) * math.cos(field.dec_rad)
    m -= math.cos(local.dec.rad) * math.sin(field.dec_rad) * math.cos(turn)
    uvw = where.uvw_m[mine]
    path = uvw @ [l, m, math.sqrt(1 - l * l - m * m) - 1]
    x = np.log(freq / REFERENCE)
    flux = 3.0 * np.exp(-0.7 * x + 0.3 * x**2)
    truth = flux * np.exp(2j * np.pi * np.outer(path, freq) / C)
    arcsec, angle = math.pi / 180 / 3600, math.radians(40.0)
    along = uvw[:, 0] * math.sin(angle) + uvw[:, 1] * math.cos(angle)
    across = uvw[:, 0] * math.cos(angle) - uvw[:, 1] * math.sin(angle)
    squares = (12 * arcsec * along) ** 2 + (5 * arcsec * across) ** 2
    truth *= np.exp(-np.outer(squares, (math.pi * freq / C) ** 2) / (4 * math.log(2)))
    assert np.abs(truth).min() < 0.9 * 2.9
    # Baselines are foreshortened at the source, 5' off: some 1e-3 of the size.
    assert np.abs(found - truth).max() < 2e-3 * 3.0
    point = replace(size, major_arcsec=0.0, minor_arcsec=0.0)
    assert np.abs(Predictor(info).visibilities(point, where)[mine]) == pytest.approx(
        np.broadcast_to(flux, path.shape + flux.shape), rel=1e-12
    )
    assert Compact.of_record(size.record()) == size and size.shape == "gaussian"
    assert point.shape == "point"
