"""Weights of what may be used: rows flagged as a whole, autocorrelations and samples without weight count nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import linechannels, selfcal_flux
from peelkit.core.calibrate_check import check_corrected
from peelkit.core.decorrelation import amplitude_over_model
from peelkit.core.dispersive_data import band, intervals, sums
from peelkit.io import ms
from peelkit.io.usable import sample_weights, usable_weights
from peelkit.selection import Selection

# 10 baselines, 4 integrations of 10 s, 1 Jy.
RECIPE = MsRecipe(n_antenna=5, n_scan=1, n_time=4, n_chan=(16,), sigma_jy=0.1, phase_rms_deg=0.0)
ROW_FLAGGED = 7
HANDS = np.array([0, 1])


def make(path: Path, **changes: object) -> ms.MsInfo:
    make_ms(path, MsRecipe(**{**RECIPE.__dict__, **changes}))
    return ms.read_info(path)


def test_what_is_flagged_or_without_weight_counts_nothing(tmp_path: Path) -> None:
    info = make(tmp_path / "a.ms")
    rows = np.arange(info.n_rows)
    with ms.opened(info.path, write=True) as main:
        flag = main.getcell("FLAG", 1)
        flag[3, 0] = True
        main.putcell("FLAG", 1, flag)
        main.putcell("FLAG_ROW", 2, True)
        main.putcell("ANTENNA2", 3, main.getcell("ANTENNA1", 3))
        main.putcell("WEIGHT", 4, np.array([0.0, 50.0]))
        main.putcell("WEIGHT", 5, np.array([np.nan, -1.0]))
    expected = np.full((rows.size, 16, 2), 100.0)
    expected[1, 3, 0] = expected[2] = expected[3] = expected[5] = 0
    expected[4] = [0, 50]
    with ms.opened(info.path) as main:
        assert usable_weights(main, rows, HANDS) == pytest.approx(expected)
        inside = np.arange(16) < 5
        assert usable_weights(main, rows, HANDS[1:], inside) == pytest.approx(expected[:, :5, 1:])
        assert sample_weights(main, rows).shape == (rows.size, 1, 2)


def test_the_weights_of_the_channels_are_taken_where_there_are_some(tmp_path: Path) -> None:
    info = make(tmp_path / "a.ms", weight_spectrum=True)
    with ms.opened(info.path, write=True) as main:
        own = np.outer(np.arange(16.0), [1, 2])
        main.putcell("WEIGHT_SPECTRUM", 6, own)
        assert sample_weights(main, np.array([6]))[0] == pytest.approx(own)
        assert usable_weights(main, np.array([6]), HANDS, slice(4, 8))[0] == pytest.approx(own[4:8])


def spoiled(path: Path, value: complex) -> ms.MsInfo:
    """A model of 1 Jy, its data, and a row flagged as a whole in which they are ``value``."""
    info = make(path)
    with ms.opened(info.path, write=True) as main:
        for name in ("CORRECTED_DATA", "MODEL_DATA"):
            ms.add_column(main, name)
        data = main.getcol("DATA")
        main.putcol("MODEL_DATA", np.ones_like(data))
        data[ROW_FLAGGED] = value
        for name in ("DATA", "CORRECTED_DATA"):
            main.putcol(name, data)
        main.putcell("FLAG_ROW", ROW_FLAGGED, True)
    return ms.read_info(path)


def figures(info: ms.MsInfo) -> list[np.ndarray]:
    """What the readers of visibilities make of them."""
    rows, every = np.arange(info.n_rows), info.channels(Selection())
    (interval,) = intervals(info, rows, solint_s=None, combine=())
    layout = band(info, [0], every)
    ratios = selfcal_flux.data_over_model(info, rows, every, 2e4)
    (checked,) = check_corrected(info, rows, Selection())
    return [
        np.array([[item.ratio, item.error] for item in ratios]),
        sums(info, interval, layout, column="DATA").product,
        amplitude_over_model(info, rows, np.array([0.0])),
        np.array([checked["amplitude_ratio"], checked["residual_rms_jy"]]),
    ]


@pytest.mark.parametrize("value", [1e6, np.nan])
def test_a_row_flagged_as_a_whole_is_heeded_wherever_data_are_added_up(
    tmp_path: Path, value: float
) -> None:
    found = figures(spoiled(tmp_path / "a.ms", value))
    truth = figures(spoiled(tmp_path / "b.ms", 1.0))
    for one, other in zip(found, truth, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0].size


def test_a_row_flagged_as_a_whole_makes_no_line(tmp_path: Path) -> None:
    info = make(tmp_path / "a.ms", line=((5, 2.0),), flux_jy=0.1)
    with ms.opened(info.path, write=True) as main:
        data = main.getcell("DATA", ROW_FLAGGED)
        data[11] = 1e3
        main.putcell("DATA", ROW_FLAGGED, data)
        main.putcell("FLAG_ROW", ROW_FLAGGED, True)
    rows = np.arange(info.n_rows)
    (line,) = linechannels.find_lines(info, rows, "DATA", info.channels(Selection()))
    assert line.ranges == ((5, 5),)
