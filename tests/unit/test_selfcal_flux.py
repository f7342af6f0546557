"""Data over model by baseline length, on data made by formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import selfcal_flux
from peelkit.core.decorrelation import intervals
from peelkit.io import ms
from peelkit.io.survey import survey
from peelkit.selection import Selection


def compared(path: Path, halo_jy: float, width_arcsec: float = 12.0) -> tuple[list, float | None]:
    """1 Jy in the model; the data have a Gaussian halo as well."""
    recipe = MsRecipe(n_antenna=20, n_scan=2, n_time=6, sigma_jy=0.02, radius_m=3000.0)
    make_ms(path, recipe)
    info = ms.read_info(path)
    with ms.opened(path, write=True) as main:
        for name in ("CORRECTED_DATA", "MODEL_DATA"):
            ms.add_column(main, name)
    with table(str(path), readonly=False, ack=False) as main:
        uvw, data = main.getcol("UVW"), main.getcol("DATA")
        waves = np.hypot(uvw[:, 0], uvw[:, 1]) * 3e9 / 299792458.0
        sigma = math.radians(width_arcsec / 3600) / math.sqrt(8 * math.log(2))
        halo = halo_jy * np.exp(-2 * (math.pi * sigma * waves) ** 2)
        main.putcol("CORRECTED_DATA", data + halo[:, None, None].astype(np.complex64))
        main.putcol("MODEL_DATA", np.ones_like(data))
    found = survey(info, Selection())
    ratios = selfcal_flux.data_over_model(
        info, np.arange(info.n_rows), info.channels(Selection()), found.max_uv_m
    )
    return ratios, selfcal_flux.inner_cut_m(ratios)


def test_a_halo_shows_on_short_baselines_and_is_cut_there(tmp_path: Path) -> None:
    ratios, cut = compared(tmp_path / "a.ms", 1.0)
    assert len(ratios) == selfcal_flux.BINS
    assert ratios[0].ratio > 1.3
    for item in ratios[7:]:
        assert item.ratio == pytest.approx(1.0, abs=4 * item.error)
    # exp(-2 (pi sigma u)^2) = 0.05 at 15800 wavelengths, 1580 m.
    assert cut == pytest.approx(1580, rel=0.3)


def test_a_model_that_is_right_lacks_nothing(tmp_path: Path) -> None:
    ratios, cut = compared(tmp_path / "a.ms", 0.0)
    assert cut is None
    # Error of a bin: sigma over the root of its samples and over 1 Jy.
    assert np.std([item.ratio for item in ratios]) < 3 * np.mean([item.error for item in ratios])


def test_a_common_scale_is_no_lack(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    compared(path, 0.0)
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("MODEL_DATA", main.getcol("MODEL_DATA") * 0.8)
    info = ms.read_info(path)
    found = survey(info, Selection())
    ratios = selfcal_flux.data_over_model(
        info, np.arange(info.n_rows), info.channels(Selection()), found.max_uv_m
    )
    assert ratios[0].ratio == pytest.approx(1.25, rel=0.02)
    assert selfcal_flux.inner_cut_m(ratios) is None


def test_intervals_of_executions_do_not_run_together(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    recipe = MsRecipe(n_antenna=5, n_scan=4, n_time=4, n_chan=(2, 2), executions=2)
    make_ms(path, recipe)
    starts, ends = intervals(survey(ms.read_info(path), Selection()), 20.0)
    # Four scans of 40 s in two intervals each; both executions have scans 1 and 2.
    assert starts.size == 8 and np.all(np.diff(starts) > 0)
    assert np.allclose(ends - starts, 20.0)
