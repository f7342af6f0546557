"""Prediction against the direct Fourier sum over the sources' true places, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import FK5, SkyCoord
from casacore.tables import table
from scipy.special import j1

from makemodel import CELL, DEC_DEG, RA_DEG, SIZE, write_model
from makems import MsRecipe, make_ms
from peelkit import memory
from peelkit.core import modelcol, predict_plan
from peelkit.core.predictor import MOST_GRID_BYTES, Predictor, Samples
from peelkit.core.skymodel import grid_of, sky_model
from peelkit.engines.ducc import predict, taylor_weights
from peelkit.errors import DataError
from peelkit.io import frames, ms
from peelkit.io.image import read_image

C = 299792458.0
ARCSEC = np.pi / 180 / 3600
SOURCES = ((100, 80, 1.0), (300, 400, 0.5), (30, 470, 0.2), (255, 250, 2.0))


def direct_sum(terms, cell, centre, uvw, freq, reference):
    """The definition about the phase centre, in double precision."""
    total = np.zeros((uvw.shape[0], freq.size), dtype=complex)
    for power, plane in enumerate(terms):
        for y, x in zip(*np.nonzero(plane), strict=True):
            l, m = -(x - centre[0]) * cell, (y - centre[1]) * cell  # noqa: E741
            path = uvw @ np.array([l, m, np.sqrt(1 - l * l - m * m) - 1])
            weight = plane[y, x] * ((freq - reference) / reference) ** power
            total += weight * np.exp(2j * np.pi * np.outer(path, freq) / C)
    return total


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(found - truth) ** 2) / np.mean(np.abs(truth) ** 2)))


def plane_of(sources=SOURCES) -> np.ndarray:
    plane = np.zeros((SIZE, SIZE), dtype=np.float32)
    for x, y, flux in sources:
        plane[y, x] = flux
    return plane


def unit(ra: float, dec: float) -> np.ndarray:
    return np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def truth_at(info, image, row: int, uvw, field: int, spw: int, flux_of, frame="icrs"):
    """``sum I exp(2 pi i b.(s - s_field) f / c)`` with the places that astropy gives the pixels."""
    centre = info.fields[field]
    east = np.array([-np.sin(centre.ra_rad), np.cos(centre.ra_rad), 0.0])
    toward = unit(centre.ra_rad, centre.dec_rad)
    baseline = uvw[row] @ np.array([east, np.cross(toward, east), toward])
    freq = info.spws[spw].freq_hz
    total = np.zeros(freq.size, dtype=complex)
    for x, y, flux in SOURCES:
        place = image.sky(x, y).transform_to(frame).represent_as("unitspherical")
        there = unit(place.lon.rad, place.lat.rad)
        total += flux_of(flux, freq, np.arccos(there @ toward)) * np.exp(
            2j * np.pi * freq / C * (baseline @ (there - toward))
        )
    return total


def predicted(path: Path, models, **how) -> tuple[ms.MsInfo, dict[str, np.ndarray]]:
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
    info = ms.read_info(path)
    modelcol.predict_model(info, models, rows=np.arange(info.n_rows), **how)
    with table(str(path), ack=False) as main:
        columns = {name: main.getcol(name) for name in ("UVW", "FIELD_ID", "DATA_DESC_ID", "TIME")}
        columns["cells"] = [main.getcell("MODEL_DATA", row) for row in range(main.nrows())]
    return info, columns


def worst(info, columns, image, flux_of, frame="icrs") -> float:
    found, truth = [], []
    for row in range(0, info.n_rows, 5):
        found.append(columns["cells"][row][:, 0])
        truth.append(
            truth_at(
                info, image, row, columns["UVW"], columns["FIELD_ID"][row],
                columns["DATA_DESC_ID"][row], flux_of, frame,
            )
        )  # fmt: skip
    return relative_error(np.concatenate(found), np.concatenate(truth))


WIDE = MsRecipe(
    n_antenna=8, n_scan=3, n_time=2, n_field=3, n_chan=(3, 2), chan_width_hz=5e7, radius_m=8000,
    frame="ICRS", n_corr=4, field_step_rad=0.002,
)  # fmt: skip


@pytest.mark.parametrize("size", [(300, 260), (64, 64), (33, 47)])
@pytest.mark.parametrize("n_terms", [1, 2])
def test_prediction_equals_the_direct_sum(rng, size, n_terms: int) -> None:
    planes = []
    for _ in range(n_terms):
        plane = np.zeros(size)
        plane[rng.integers(0, size[0], 15), rng.integers(0, size[1], 15)] = rng.normal(size=15)
        planes.append(plane)
    uvw = rng.normal(size=(200, 3)) * [6000.0, 6000.0, 2000.0]
    freq = np.array([1.40e9, 1.45e9, 1.52e9])
    centre = (size[1] // 2, size[0] // 2)
    cell = 2.0 * ARCSEC  # the edge is 5 arcmin off: w terms matter
    found = predict(
        planes, taylor_weights(n_terms, freq, 1.45e9), cell_rad=(cell, cell),
        centre_pixel=centre, uvw_m=uvw, freq_hz=freq,
    )  # fmt: skip
    assert relative_error(found, direct_sum(planes, cell, centre, uvw, freq, 1.45e9)) < 1e-5


def test_an_off_centre_source_has_the_right_sign_of_u_and_v() -> None:
    # A source to the east (falling x) on an eastward baseline: the phase grows.
    plane = np.zeros((64, 64))
    plane[32, 22] = 1.0
    u = 1000.0
    found = predict(
        [plane], np.ones((1, 1)), cell_rad=(ARCSEC, ARCSEC), centre_pixel=(32, 32),
        uvw_m=np.array([[u, 0.0, 0.0]]), freq_hz=np.array([C]),
    )  # fmt: skip
    assert np.angle(found[0, 0]) == pytest.approx(2 * np.pi * u * 10 * ARCSEC, rel=1e-3)


def test_an_empty_model_predicts_nothing() -> None:
    found = predict(
        [np.zeros((64, 64))], np.ones((1, 1)), cell_rad=(ARCSEC, ARCSEC), centre_pixel=(32, 32),
        uvw_m=np.ones((3, 3)), freq_hz=np.array([1e9]),
    )  # fmt: skip
    assert not found.any()


def test_fields_beside_the_images_centre_see_sources_at_their_true_places(tmp_path: Path) -> None:
    # 8 km at 3 GHz and an image 17 arcmin wide, off all three phase centres by up to 10 arcmin.
    make_ms(tmp_path / "a.ms", WIDE)
    models = modelcol.read_models([write_model(tmp_path / "m.fits", [plane_of()])])
    info, columns = predicted(tmp_path / "a.ms", models)
    assert worst(info, columns, models[0], lambda flux, freq, _: flux) < 1e-5
    # Stokes I is in both parallel hands and not in the others.
    cells = columns["cells"][0]
    assert np.array_equal(cells[:, 0], cells[:, 3]) and not cells[:, 1:3].any()


def test_a_field_in_another_frame_than_the_image_is_turned_into_it(tmp_path: Path) -> None:
    # J2000 (FK5) and ICRS differ by 23 mas, and by their north: 0.04 rad at the edge of this array.
    make_ms(tmp_path / "a.ms", replace(WIDE, frame="J2000"))
    models = modelcol.read_models([write_model(tmp_path / "m.fits", [plane_of()])])
    info, columns = predicted(tmp_path / "a.ms", models)
    flux = lambda flux, freq, _: flux  # noqa: E731
    assert worst(info, columns, models[0], flux, FK5(equinox="J2000")) < 1e-5
    assert worst(info, columns, models[0], flux) > 1e-3  # as if the numbers were ICRS


def test_b1950_images_of_the_vla_are_predicted_about_their_own_centre(tmp_path: Path) -> None:
    recipe = MsRecipe(n_antenna=6, n_scan=1, n_time=1, frame="B1950_VLA", radius_m=8000)
    make_ms(tmp_path / "a.ms", recipe)
    model = write_model(
        tmp_path / "m.fits", [plane_of()], centre=(RA_DEG, DEC_DEG), radesys="FK4", EQUINOX=1979.9
    )
    models = modelcol.read_models([model])
    info, columns = predicted(tmp_path / "a.ms", models)
    freq = info.spws[0].freq_hz
    truth = direct_sum([plane_of()], CELL * ARCSEC, (256, 256), columns["UVW"], freq, 3e9)
    found = np.array([cell[:, 0] for cell in columns["cells"]])
    assert relative_error(found, truth) < 1e-5


def test_taylor_terms_and_sub_bands_follow_the_spectrum(tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", WIDE)
    slope = plane_of() * -0.7
    paths = [
        write_model(tmp_path / "m.tt0.fits", [plane_of()]),
        write_model(tmp_path / "m.tt1.fits", [slope]),
    ]
    models = modelcol.read_models(paths)
    info, columns = predicted(tmp_path / "a.ms", models)
    rule = lambda flux, freq, _: flux * (1 - 0.7 * (freq - 3e9) / 3e9)  # noqa: E731
    assert worst(info, columns, models[0], rule) < 1e-5
    # The same as sub-bands at 3.0, 3.1 and 3.2 GHz: linear in between, so exact to 3.2 GHz.
    freqs = (3.0e9, 3.1e9, 3.2e9)
    bands = [plane_of() * (1 - 0.7 * (freq - 3e9) / 3e9) for freq in freqs]
    cube = modelcol.read_models([write_model(tmp_path / "cube.fits", bands, freqs=freqs)])
    assert [image.freq_hz for image in cube] == pytest.approx(freqs)
    make_ms(tmp_path / "b.ms", WIDE)
    info, columns = predicted(tmp_path / "b.ms", cube)
    assert worst(info, columns, cube[0], rule) < 1e-5


@pytest.mark.parametrize("spectrum", [(1.0,), (1.0, -0.7)])
def test_each_field_of_a_mosaic_sees_the_sky_through_its_own_beam(tmp_path: Path, spectrum) -> None:
    # Truth: an unblocked aperture of 18 m, written here; two spws of 150 and 100 MHz at 3 GHz.
    make_ms(tmp_path / "a.ms", replace(WIDE, telescope="NGVLA"))
    ys, xs = np.mgrid[:SIZE, :SIZE]
    beam = np.exp(-((xs - 200.0) ** 2 + (ys - 300.0) ** 2) / (2 * 300.0**2))
    pb = read_image(write_model(tmp_path / "m.pb.fits", [beam], BUNIT=""))
    paths = [
        write_model(tmp_path / f"m.tt{k}.fits", [value * plane_of() * beam])
        for k, value in enumerate(spectrum)
    ]
    models = modelcol.read_models(paths)
    info, columns = predicted(tmp_path / "a.ms", models, pb=pb)

    def flux_of(flux, freq, offset):
        x = np.pi * 18.0 * freq / C * offset
        sky = sum(value * ((freq - 3e9) / 3e9) ** k for k, value in enumerate(spectrum))
        return flux * sky * (2 * j1(x) / x) ** 2

    assert worst(info, columns, models[0], flux_of) < 1e-4


def test_the_beams_interpolation_over_a_spw_is_as_accurate_as_it_says() -> None:
    for low, high in ((3.0e9, 3.0e9), (3.0e9, 3.064e9), (1.0e9, 2.0e9)):
        nodes = modelcol.chebyshev_nodes(low, high)
        freq = np.linspace(low, high, 200)
        weights = modelcol.lagrange_weights(nodes, freq)
        for reach in (0.3, 1.0):  # of the first null at 1.5 GHz, or low
            x = 3.83 * reach / high
            power = lambda f, x=x: (2 * j1(x * f) / (x * f)) ** 2  # noqa: E731
            assert np.abs(power(nodes) @ weights - power(freq)).max() < modelcol.BEAM_ACCURACY


def test_where_the_mosaics_beam_is_low_the_model_is_left_out(tmp_path: Path) -> None:
    beam = np.full((SIZE, SIZE), 0.5)
    beam[400, 300], beam[470, 30] = 0.09, np.nan
    pb = read_image(write_model(tmp_path / "m.pb.fits", [beam], BUNIT=""))
    sky = sky_model([read_image(write_model(tmp_path / "m.fits", [plane_of()]))], pb)
    assert sorted(sky.xs) == [100, 255]
    assert sky.flux_jy == pytest.approx((1.0 + 2.0) / 0.5)


def test_grids_take_a_quarter_of_a_process_share_of_the_memory_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=4, n_scan=1, n_time=1, frame="ICRS"))
    info = ms.read_info(tmp_path / "a.ms")
    assert Predictor(info).grid_bytes == MOST_GRID_BYTES
    with memory.limited(0.6, processes=3):
        small = Predictor(info)
    assert small.grid_bytes == int(0.6 * 2**30 / 3 / 4)
    asked = []
    pieces = predict_plan.pieces
    monkeypatch.setattr(
        predict_plan, "pieces", lambda *given: asked.append(given[-1]) or pieces(*given)
    )
    model = read_image(write_model(tmp_path / "m.fits", [plane_of()], centre=(RA_DEG, DEC_DEG)))
    with ms.opened(info.path) as main:
        small.visibilities(sky_model([model]), Samples.read(main, np.arange(3), 0))
    assert asked[0].most_pixels == small.grid_bytes / predict_plan.GRID_PIXEL_BYTES


def test_positions_in_lsrk_images_scale_with_the_doppler_shift(tmp_path: Path) -> None:
    # tclean scales u, v, w by the LSRK frequency; an image in TOPO has its sources where they are.
    recipe = MsRecipe(n_antenna=6, n_scan=1, n_time=1, frame="ICRS", radius_m=8000)
    found = {}
    for name in ("TOPOCENT", "LSRK"):
        make_ms(tmp_path / f"{name}.ms", recipe)
        model = write_model(
            tmp_path / f"{name}.fits",
            [plane_of(((0, 256, 1.0),))],
            centre=(RA_DEG, DEC_DEG),
            specsys=name,
        )
        info, columns = predicted(tmp_path / f"{name}.ms", modelcol.read_models([model]))
        found[name] = np.unwrap(np.angle(np.array([cell[0, 0] for cell in columns["cells"]])))
    ratio = frames.lsrk_over_spw(info, info.spws[0], field=0, time_s=columns["TIME"][0])
    assert 1e-5 < abs(ratio - 1) < 2e-4
    truth = 2 * np.pi * info.spws[0].freq_hz[0] / C * columns["UVW"] @ np.array(
        [256 * CELL * ARCSEC, 0, np.sqrt(1 - (256 * CELL * ARCSEC) ** 2) - 1]
    )  # fmt: skip
    turned = np.angle(np.exp(1j * (found["LSRK"] - found["TOPOCENT"])))
    assert turned == pytest.approx(truth * (ratio - 1), abs=2e-5)


def test_a_doppler_shift_is_asked_for_once_whatever_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=4, n_scan=1, n_time=1, frame="ICRS"))
    model = read_image(
        write_model(tmp_path / "m.fits", [plane_of()], centre=(RA_DEG, DEC_DEG), specsys="LSRK")
    )
    asked = []
    real = frames.lsrk_over_spw
    monkeypatch.setattr(
        frames, "lsrk_over_spw", lambda *given, **how: asked.append(how) or real(*given, **how)
    )
    predictor, sky = Predictor(ms.read_info(tmp_path / "a.ms")), sky_model([model])
    with ms.opened(tmp_path / "a.ms") as main:
        samples = Samples.read(main, np.arange(3), 0)
    once = predictor.visibilities(sky, samples)
    count = len(asked)
    assert count > 0
    np.testing.assert_array_equal(predictor.visibilities(sky, samples), once)
    assert len(asked) == count


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, "projection TAN/TAN is not SIN"),
        ({"PC1_2": 0.1, "PC2_1": -0.1}, "north is not up"),
        ({"CDELT1": CELL / 3600}, "north is not up with east to the left"),
    ],
)
def test_images_on_another_grid_are_refused(tmp_path: Path, cards, message: str) -> None:
    image = read_image(write_model(tmp_path / "m.fits", [plane_of()], **cards))
    with pytest.raises(DataError, match=message):
        grid_of(image)


def test_models_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    one = write_model(tmp_path / "one.fits", [plane_of()])
    other = write_model(tmp_path / "other.fits", [plane_of()], freqs=(4e9,))
    cube = write_model(tmp_path / "cube.fits", [plane_of()] * 2, freqs=(3e9, 4e9))
    with pytest.raises(DataError, match="have the same frequency"):
        sky_model(modelcol.read_models([one, one, other]))
    with pytest.raises(DataError, match="a cube of models stands alone"):
        modelcol.read_models([cube, one])
    with pytest.raises(DataError, match="the model is empty"):
        modelcol.read_models([write_model(tmp_path / "empty.fits", [plane_of(())])])


def test_the_position_of_a_pixel_is_the_same_by_basis_and_by_wcs(tmp_path: Path) -> None:
    image = read_image(write_model(tmp_path / "m.fits", [plane_of()]))
    grid = grid_of(image)
    xs, ys = np.array([3, 500]), np.array([17, 400])
    there = grid.direction_cosines(xs, ys) @ grid.basis
    for x, y, vector in zip(xs, ys, there, strict=True):
        place = image.sky(x, y)
        assert vector == pytest.approx(unit(place.ra.rad, place.dec.rad), abs=1e-13)
    assert isinstance(place, SkyCoord)
