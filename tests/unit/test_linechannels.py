"""Channels with a spectral line, found in data whose phases are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import linechannels
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.selection import Selection, parse_spw


def lines(path: Path, spw: str = "", **changes: object) -> list[linechannels.Line]:
    recipe = MsRecipe(
        **{
            "n_antenna": 10, "n_scan": 1, "n_time": 10, "n_chan": (32,), "flux_jy": 0.02,
            "sigma_jy": 0.3, "phase_rms_deg": 90.0, "gain_step": 1, "seed": 3, **changes,
        }
    )  # fmt: skip
    make_ms(path, recipe)
    info = ms.read_info(path)
    selection = Selection(spw=spw)
    rows = ms.select_rows(info, selection)
    return linechannels.find_lines(info, rows, "DATA", info.channels(selection))


def test_the_channels_with_line_are_found_whatever_the_phases(tmp_path: Path) -> None:
    # S/N of a visibility 1; with phases of 90 deg rms a vector average holds nothing of it.
    (line,) = lines(tmp_path / "a.ms", line=((11, 0.3), (12, 0.4), (13, 0.3), (20, 0.35)))
    assert line.ranges == ((11, 13), (20, 20))
    assert line.selection == "0:11~13;20~20"
    assert parse_spw(line.selection, [32], ["spw0"]) == {0: [(11, 13), (20, 20)]}
    # Unpolarised: a tenth of the power is the noise of both together here.
    assert line.hand_ratio == pytest.approx(1.0, abs=0.3)


def test_a_channel_that_would_add_more_noise_than_signal_is_left_out(tmp_path: Path) -> None:
    # (1 + 0.3) / sqrt(2) < 1: the weak one, though a detection, lowers the S/N of the average.
    (line,) = lines(tmp_path / "a.ms", line=((5, 1.0), (6, 0.3)))
    assert line.ranges == ((5, 5),)


def test_noise_and_continuum_are_no_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no channel stands 5 sigma above"):
        lines(tmp_path / "a.ms", flux_jy=1.0)


def test_only_the_selected_channels_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no channel stands"):
        lines(tmp_path / "a.ms", spw="0:16~31", line=((5, 1.0),))


def test_a_wide_line_does_not_raise_the_level(tmp_path: Path) -> None:
    (line,) = lines(
        tmp_path / "a.ms", line=tuple((channel, 0.5) for channel in range(10, 24)), sigma_jy=0.1
    )
    assert line.ranges == ((10, 23),)
    assert np.isfinite(line.sigma)
