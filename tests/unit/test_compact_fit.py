"""Fits of compact sources to simulated data, against what was put in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from makemodel import CELL, SIZE, write_model
from peelkit.core import compact_shape
from peelkit.core.compact_fit import Asked, Fitted, fit_compact
from peelkit.core.compact_shape import _robust_polynomial
from peelkit.core.primary_beam import Beam
from peelkit.core.simulate import SimulateOptions, simulate
from peelkit.core.skymodel import sky_model
from peelkit.core.truth import TrueSource, read_truth
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import read_image
from peelkit.progress import Progress

REFERENCE = 3e9
# D configuration with 14 antennas: longest baselines of about 1 km; c / (3 GHz 1 km) [arcsec].
BEAM_ARCSEC = 20.6


def simulated(folder: Path, **how) -> tuple[ms.MsInfo, list[TrueSource]]:
    """A small MS and its bright sources; 20 deg of phase errors, others in each integration."""
    options = {
        "config": "D", "band": "S", "spws": 4, "channels": 4, "integrations": 12, "integration": 300.0,
        "scans": 1, "fields": 1, "antennas": 14, "correlations": 2, "bright": ("5@2,1.5",),
        "bright_shape": "point", "spectral_index": -0.7, "faint": 0, "faint_flux": (0.001, 0.03),
        "phase_rms": 20.0, "delay_rms": 0.0, "amplitude_rms": 0.0, "pointing_rms": 0.0, "squint": False,
        "sefd": None, "seed": 3, "without": (), "truth": None, "overwrite": False,
    } | how  # fmt: skip
    path = folder / "s.ms"
    simulate(path, SimulateOptions(**options), Progress())
    truth = read_truth(folder / "s.ms.truth.json")
    return ms.read_info(path), [source for source in truth.sources if source.bright]


def scattered(folder: Path, source: TrueSource) -> object:
    """A CLEAN model as phase errors scatter it: the brightest component half a beam off, others around."""
    path = folder / f"{source.name}.fits"
    path.unlink(missing_ok=True)
    plane = np.zeros((SIZE, SIZE))
    middle = SIZE // 2
    for east, north, flux in ((10, 4, 2.0), (-12, 8, 1.5), (4, -14, 1.0), (-6, -6, -0.3)):
        plane[middle + round(north / CELL), middle - round(east / CELL)] = flux
    write_model(
        folder / f"{source.name}.fits",
        [plane],
        centre=(source.ra_deg, source.dec_deg),
        specsys="LSRK",
    )
    return sky_model([read_image(path)])


def fit(folder: Path, info: ms.MsInfo, source: TrueSource, kind: str = "auto", **how) -> Fitted:
    asked = [Asked("B", scattered(folder, source), kind)]
    return fit_compact(
        info, np.arange(info.n_rows), "DATA", asked, [], reference_hz=REFERENCE, **how
    )[0]


def off_arcsec(found: Fitted, source: TrueSource) -> float:
    place = SkyCoord(found.model.ra_deg, found.model.dec_deg, unit="deg")
    return place.separation(SkyCoord(source.ra_deg, source.dec_deg, unit="deg")).arcsec


def apparent(path: Path, source: TrueSource, freq: np.ndarray) -> np.ndarray:
    """Spectrum through the beam: what a simulation without errors and noise has, as its amplitude."""
    info, _ = simulated(path, without=("errors", "noise"), integrations=1)
    found = []
    with ms.opened(info.path) as main:
        ddid = main.getcol("DATA_DESC_ID")
        for spw in range(4):
            found.append(
                np.abs(ms.get(main, "DATA", np.flatnonzero(ddid == spw))).mean(axis=(0, 2))
            )
    return np.concatenate(found)


def all_freq(info: ms.MsInfo) -> np.ndarray:
    return np.concatenate([spw.freq_hz for spw in info.spws])


def test_a_point_has_its_place_and_apparent_spectrum_despite_phase_errors(tmp_path: Path) -> None:
    info, (source,) = simulated(tmp_path)
    found = fit(tmp_path, info, source)
    assert found.shape == "point" and found.model.major_arcsec == 0, found.reason
    assert off_arcsec(found, source) < 0.05 * BEAM_ARCSEC
    # The error that is promised is not far from the truth.
    assert off_arcsec(found, source) < 6 * found.position_error_arcsec
    freq = all_freq(info)
    clean = tmp_path / "clean"
    clean.mkdir()
    truth = apparent(clean, source, freq)
    assert found.model.flux(freq) == pytest.approx(truth, rel=0.01)
    # The beam makes it steeper than the source's -0.7, and curved; a plain -0.7 would not pass above.
    assert np.polyfit(np.log(freq), np.log(truth), 1)[0] < -0.8
    assert found.spectrum_rms < 0.01 and found.size.scatter < 0.05


def test_a_gaussian_has_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, (source,) = simulated(tmp_path, bright_shape="gaussian:8")
    found = fit(tmp_path, info, source)
    assert found.shape == "gaussian", found.reason
    sizes = (found.model.major_arcsec, found.model.minor_arcsec)
    true = (source.major_arcsec, source.minor_arcsec)
    assert sizes == pytest.approx(true, rel=0.1)
    assert off_arcsec(found, source) < 0.05 * BEAM_ARCSEC
    # The flux is that at zero spacing, not the mean over the baselines, which is lower.
    assert found.model.flux_jy == pytest.approx(source.apparent_flux_jy[0], rel=0.02)
    # So it is from fewer amplitudes.
    monkeypatch.setattr(compact_shape, "MAX_CELLS", 500)
    fewer = fit(tmp_path, info, source)
    assert fewer.model != found.model
    assert fewer.model.major_arcsec == pytest.approx(source.major_arcsec, rel=0.1)
    forced = fit(tmp_path, info, source, "point")
    assert forced.shape == "point" and "the data say gaussian" in forced.warning
    assert forced.model.flux_jy < 0.97 * source.apparent_flux_jy[0]


def test_a_double_stays_clean_and_is_a_point_only_under_protest(tmp_path: Path) -> None:
    info, sources = simulated(tmp_path, bright_shape="double")
    middle = sources[0]
    found = fit(tmp_path, info, middle)
    assert found.shape == "clean" and found.model is None and "extended" in found.reason
    forced = fit(tmp_path, info, middle, "point")
    assert forced.shape == "point" and "the data say clean" in forced.warning


def test_two_sources_do_not_disturb_each_other(tmp_path: Path) -> None:
    info, sources = simulated(tmp_path, bright=("5@2,1.5", "4@-1.5,-2"))
    asked = [Asked(source.name, scattered(tmp_path, source), "auto") for source in sources]
    found = fit_compact(info, np.arange(info.n_rows), "DATA", asked, [], reference_hz=REFERENCE)
    for one, source in zip(found, sources, strict=True):
        assert one.shape == "point", one.reason
        assert off_arcsec(one, source) < 0.05 * BEAM_ARCSEC
        assert one.model.flux_jy == pytest.approx(source.apparent_flux_jy[0], rel=0.02)


def test_in_a_mosaic_the_flux_is_that_of_the_sky(tmp_path: Path) -> None:
    info, (source,) = simulated(tmp_path, fields=3, integrations=6)
    found = fit(tmp_path, info, source, beam=Beam.of(info))
    assert found.shape == "point", found.reason
    assert off_arcsec(found, source) < 0.05 * BEAM_ARCSEC
    # The simulated beam and the nominal one differ by some per cent of the peak.
    freq = all_freq(info)
    truth = source.flux_jy * (freq / REFERENCE) ** source.spectral_index
    assert found.model.flux(freq) == pytest.approx(truth, rel=0.05)
    assert min(source.apparent_flux_jy) < 0.7 * source.flux_jy


def test_data_without_the_source_are_refused(tmp_path: Path) -> None:
    info, (source,) = simulated(tmp_path)
    with ms.opened(info.path, write=True) as main:
        ms.put(
            main, "DATA", np.arange(info.n_rows), 0 * ms.get(main, "DATA", np.arange(info.n_rows))
        )
    with pytest.raises(DataError, match="DATA is all zero; use another --datacolumn"):
        fit(tmp_path, info, source)


def test_a_bad_channel_does_not_bend_the_spectrum(rng: np.random.Generator) -> None:
    x = np.linspace(-0.3, 0.3, 16)
    y = 0.4 - 0.9 * x + rng.normal(0, 1e-3, 16)
    y[5] += math.log(3)
    fitted, rms, used = _robust_polynomial(x, y, np.ones(16), 1)
    assert fitted == pytest.approx([0.4, -0.9], abs=5e-3)
    assert used == 15 and rms < 3e-3
