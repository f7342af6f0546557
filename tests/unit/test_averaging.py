"""Averages for imaging: sources at the edge keep their flux, sums are kept, and nothing is mixed that differs."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from casacore.tables import makescacoldesc, table
from numpy.typing import NDArray

from makems import MsRecipe, baseline_uvw, make_ms, sky_visibility
from peelkit.core import averaging
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.io import ms

# An image whose edge is 200 arcsec from its middle.
IMAGING = Imaging(imsize=400, cell_arcsec=1.0, smearing=0.002)
EDGE = (1.0, 120.0, 160.0)
AT_EDGE = {"flux_jy": 0.0, "sources": (EDGE,), "sigma_jy": 0.0, "n_time": 40, "integration_s": 5.0}


def column(path: Path, name: str) -> NDArray[Any]:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol(name))


def change(path: Path, name: str, values: NDArray[Any]) -> None:
    with ms.opened(path, write=True) as main:
        main.putcol(name, values)


def averaged(path: Path, imaging: Imaging = IMAGING, rows: NDArray[Any] | None = None) -> Path:
    info = ms.read_info(path)
    target = path.with_name("averaged.ms")
    shutil.rmtree(target, ignore_errors=True)
    chosen = ms.every_row(info) if rows is None else rows
    count = averaging.write(info, chosen, "DATA", target, imaging)
    assert count == column(target, "TIME").size
    return target


@pytest.mark.parametrize("loss", [1e-4, 1e-3, 1e-2])
def test_as_many_integrations_are_averaged_as_the_edge_bears(loss: float) -> None:
    across = np.geomspace(3, 30000, 50)
    edge, wave, step = 0.004, 0.1, 2.0
    count = averaging.together(across, np.full(50, step), edge, wave, loss)
    turn = np.pi * across * averaging.EARTH_RAD_S * step * edge / wave

    def lost(n: NDArray[np.int64]) -> NDArray[np.float64]:
        return 1 - np.sin(n * turn) / (n * np.sin(turn))

    assert (count >= 1).all() and (count <= averaging.BLOCK_S / step).all()
    several, bound = count > 1, count == averaging.BLOCK_S / step
    assert several.any() and bound.any() and (count == 1).any()
    assert (lost(count)[several] <= 1.01 * loss).all()
    assert (lost(count + 1)[~bound & (turn < 0.3)] > 0.97 * loss).all()


@pytest.mark.parametrize("dec", [-20.0, 30.0, 85.0])
def test_a_source_at_the_edge_keeps_its_flux_on_every_baseline(tmp_path: Path, dec: float) -> None:
    recipe = MsRecipe(**AT_EDGE, dec_deg=dec)
    make_ms(tmp_path / "a.ms", recipe)
    made = averaged(tmp_path / "a.ms")
    before, data, uvw = (
        column(tmp_path / "a.ms", "TIME").size,
        column(made, "DATA"),
        column(made, "UVW"),
    )
    freq = recipe.freq_hz + np.arange(4) * recipe.chan_width_hz
    # At the mean place in uv the source is real and positive, and at most so much smaller.
    kept = data * sky_visibility(recipe, uvw, freq).conj()[:, :, None]
    assert before > 3 * data.shape[0]
    assert kept.real.max() < 1 + 1e-5
    assert 1 - IMAGING.smearing < kept.real.min() < 1 - 0.3 * IMAGING.smearing
    assert np.abs(kept.imag).max() < 1e-3


def test_how_many_there_will_be_is_known_beforehand(tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(**AT_EDGE))
    info = ms.read_info(tmp_path / "a.ms")
    rows = ms.every_row(info)
    told = averaging.share(info, rows, IMAGING)
    # Scans and blocks end before their last bin is full.
    found = column(averaged(tmp_path / "a.ms"), "TIME").size / rows.size
    assert told < found < 1.6 * told


def test_sums_over_what_is_used_are_kept(tmp_path: Path) -> None:
    recipe = MsRecipe(n_antenna=8, n_chan=(4, 3), weight_spectrum=True, executions=1, seed=5)
    path = tmp_path / "a.ms"
    make_ms(path, recipe)
    rng = np.random.default_rng(1)
    with ms.opened(path, write=True) as main:
        info = ms.read_info(path)
        for _, chunk in ms.chunks(main, info, ms.every_row(info)):
            shape = ms.get(main, "DATA", chunk).shape
            ms.put(main, "FLAG", chunk, rng.random(shape) < 0.2)
            ms.put(main, "WEIGHT_SPECTRUM", chunk, rng.uniform(0, 2, shape).astype(np.float32))
        main.putcol("FLAG_ROW", rng.random(main.nrows()) < 0.1)
        main.putcell("DATA", 7, np.full_like(main.getcell("DATA", 7), np.nan))
        main.putcell("FLAG", 7, np.zeros_like(main.getcell("FLAG", 7)))
    made = averaged(path)

    def sums(name: str, *, raw: bool) -> list[NDArray[Any]]:
        with ms.opened(tmp_path / name) as main:
            info, found = ms.read_info(tmp_path / name), []
            for _, chunk in ms.chunks(main, info, ms.every_row(info)):
                data, uvw = ms.get(main, "DATA", chunk), ms.get(main, "UVW", chunk)
                weight = ms.get(main, "WEIGHT_SPECTRUM", chunk).astype(float)
                left_out = ms.get(main, "FLAG", chunk)
                if raw:
                    left_out |= ms.get(main, "FLAG_ROW", chunk)[:, None, None] | ~np.isfinite(data)
                    # Stokes I needs both hands.
                    left_out |= left_out.any(axis=2, keepdims=True)
                weight[left_out] = 0
                data = np.where(left_out, 0, data)
                found += [
                    weight.sum(axis=0), (weight * data).sum(axis=0),
                    (weight.sum(axis=(1, 2))[:, None] * uvw).sum(axis=0),
                ]  # fmt: skip
            return found

    for one, other in zip(sums("a.ms", raw=True), sums("averaged.ms", raw=False), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-3 * np.abs(one).max())
    assert np.isfinite(column(made, "UVW")).all()


def test_what_differs_is_not_averaged(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(
        path, MsRecipe(n_antenna=6, n_scan=4, n_time=3, n_field=2, n_chan=(2, 2), scan_gap_s=0.0)
    )
    # Every baseline's whole scan in one.
    made = averaged(path, Imaging(imsize=64, cell_arcsec=0.01))
    assert column(made, "TIME").size == 15 * 4 * 2
    for name in ("SCAN_NUMBER", "FIELD_ID", "DATA_DESC_ID", "ANTENNA1", "ANTENNA2"):
        kinds, counts = np.unique(column(path, name), return_counts=True)
        found, fewer = np.unique(column(made, name), return_counts=True)
        np.testing.assert_array_equal(kinds, found)
        np.testing.assert_array_equal(counts, 3 * fewer)
    np.testing.assert_allclose(column(made, "INTERVAL"), 30.0)
    np.testing.assert_allclose(column(made, "EXPOSURE"), 30.0)


def test_times_are_those_of_few_blocks_and_centroids_are_true(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=2, n_time=70))
    made = averaged(path)
    times, centroids = column(made, "TIME"), column(made, "TIME_CENTROID")
    assert np.unique(times).size == 2 * math.ceil(700 / averaging.BLOCK_S)
    assert np.abs(times - centroids).max() <= averaging.BLOCK_S / 2 + 5
    assert np.unique(centroids).size > 10


def test_an_interval_that_is_too_long_does_not_average_what_may_not_be(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=1, n_time=12))
    change(path, "INTERVAL", np.full(column(path, "TIME").size, 60.0))
    wide = Imaging(imsize=4000, cell_arcsec=2.0)
    assert column(averaged(path, wide), "TIME").size == column(path, "TIME").size


def test_a_field_that_moves_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=1, n_time=20))
    with table(f"{path}/FIELD", readonly=False, ack=False) as field:
        field.addcols(makescacoldesc("EPHEMERIS_ID", 0))
        field.putcol("EPHEMERIS_ID", np.zeros(field.nrows(), dtype=np.int32))
    made = averaged(path)
    np.testing.assert_array_equal(column(made, "TIME"), column(made, "TIME_CENTROID"))


def test_sources_far_from_the_phase_centre_are_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=8, n_scan=1, n_time=40))
    here = column(averaged(path, Imaging(imsize=100, cell_arcsec=1.0)), "TIME").size
    centre = "J2000 2.002rad 30deg"
    there = Imaging(imsize=100, cell_arcsec=1.0, phasecenter=centre)
    away = Imaging(
        imsize=100 + 2 * round(math.degrees(0.002 * math.cos(math.pi / 6)) * 3600), cell_arcsec=1.0
    )
    shifted = column(averaged(path, there), "TIME").size
    assert shifted > 1.5 * here
    assert shifted == pytest.approx(column(averaged(path, away), "TIME").size, rel=0.02)


def test_what_cannot_be_used_is_not_there_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, flagged_antennas=(2,)))
    made = averaged(path)
    assert 2 not in column(made, "ANTENNA1") and 2 not in column(made, "ANTENNA2")
    change(path, "FLAG_ROW", np.ones(column(path, "TIME").size, dtype=bool))
    with pytest.raises(DataError, match="nothing is left to image"):
        averaged(path)


def test_without_room_and_few_the_data_are_imaged_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6))
    info = ms.read_info(path)
    rows = ms.every_row(info)
    as_they_are = replace(IMAGING, smearing=0.0)
    assert averaging.settled(info, rows, tmp_path, IMAGING) == as_they_are
    monkeypatch.setattr(averaging, "FEWEST", 1000)
    assert averaging.settled(info, rows, tmp_path, IMAGING) == IMAGING
    assert averaging.settled(info, rows, tmp_path, as_they_are) == as_they_are
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with caplog.at_level("INFO"):
        assert averaging.settled(info, rows, tmp_path, IMAGING) == as_they_are
    assert "0 GB are free" in caplog.text


def test_baselines_do_not_depend_on_where_the_array_looks() -> None:
    """What turns with the Earth, from UVW alone, against the positions of the antennas."""
    positions = np.array([[0.0, 0, 0], [900.0, -300, 500]])
    for dec in (-0.5, 0.3, 1.4):
        uvw = np.diff(baseline_uvw(positions, 5.0e9, 2.0, dec), axis=0)
        place = SkyCoord(2.0, dec, unit="rad", frame="fk5")
        across = averaging._View(0.001, place, dec).across_m(uvw)
        assert across[0] == pytest.approx(math.hypot(900, 300), rel=1e-6)
        assert averaging._View(0.001).across_m(uvw)[0] >= across[0]
