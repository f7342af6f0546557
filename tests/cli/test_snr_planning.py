"""snr-estimate says what limits the data: coherence time, season, parallactic angle."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core.atmosphere import Troposphere


@pytest.fixture(scope="module")
def high_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The VLA at 43 GHz on baselines to 12 km, 2 scans of 5 min."""
    path = tmp_path_factory.mktemp("ms") / "high.ms"
    make_ms(
        path,
        MsRecipe(n_antenna=8, n_scan=2, n_time=30, freq_hz=43e9, radius_m=6000.0, n_chan=(1,)),
    )
    return path


def results(invoke, path: Path, peak: float, *more: object, code: int = 0) -> dict:
    out = invoke(
        "snr-estimate", path, "--peak", peak, "--rms", 0.001, *more, "--json", code=code
    ).stdout
    return json.loads(out)["results"]


def edit(path: Path, subtable: str, column: str, values: list) -> None:
    with table(f"{path}/{subtable}", readonly=False, ack=False) as sub:
        for row, value in enumerate(values):
            sub.putcell(column, row, value)


def test_a_weak_source_at_43_ghz_is_limited_by_coherence(invoke, high_ms: Path) -> None:
    # S/N 3 in a scan of 300 s with T and both... : peak such that the needed interval is 250 s.
    found = results(invoke, high_ms, 0.1)
    strong = found["physics"]["needed_interval_s"]
    assert found["limited_by_coherence"] is False and strong == 10.0
    # S/N grows with the root of time: so weak that 200 s are needed.
    inf = next(
        r
        for r in found["rows"]
        if r["solint"] == "inf" and r["gaintype"] == "T" and not r["combine"]
    )
    peak = 0.1 * 3 / inf["snr"] * math.sqrt(300 / 200)
    weak = results(invoke, high_ms, peak)
    assert weak["physics"]["needed_interval_s"] == pytest.approx(200.0, rel=0.01)
    assert weak["limited_by_coherence"] is True
    assert any("needs 200 s" in note for note in weak["physics"]["notes"])


def test_the_figures_are_those_of_the_formula_and_the_month(invoke, high_ms: Path) -> None:
    found = results(invoke, high_ms, 0.1)
    physics = found["physics"]
    # The recipe observes near transit of RA 2 rad from MJD 57870, 27 April 2017: in the afternoon.
    assert physics["months"] == [4]
    assert physics["day_fraction"] == 1.0 and physics["convection_fraction"] == 1.0
    assert physics["api_rms_deg"] == pytest.approx(6.2)
    assert physics["configuration"] == "B"
    air = Troposphere(6.2)
    for entry in physics["coherence"]:
        length, freq = entry["baseline_m"], physics["frequency_hz"]
        assert entry["coherence_time_s"] == pytest.approx(air.coherence_time_s(length, freq))
        assert entry["coherence_time_fast_wind_s"] < entry["coherence_time_s"]
        assert entry["coherence_time_30deg_s"] < entry["coherence_time_s"]
    median = physics["coherence"][0]["baseline_m"]
    for row in [*found["rows"], *found["ladder"]]:
        assert row["decorrelation"] == pytest.approx(
            air.decorrelation(row["solint_s"], median, physics["frequency_hz"])
        )
    table_text = invoke("snr-estimate", high_ms, "--peak", 0.1, "--rms", 0.001).stdout
    assert "decorr" in table_text and "by 1 rad in" in table_text and "10 AM" in table_text


def test_where_nothing_is_known_it_says_so(invoke, high_ms: Path, copy_ms) -> None:
    path = copy_ms(high_ms)
    edit(path, "OBSERVATION", "TELESCOPE_NAME", ["ALMA"])
    found = results(invoke, path, 0.1)
    assert found["limited_by_coherence"] is None
    assert found["physics"]["coherence_known"] is False
    assert found["physics"]["configuration"] is None and found["physics"]["api_rms_deg"] is None
    assert found["physics"]["corner_time_s"] == 20.0
    assert {row["decorrelation"] for row in found["rows"]} == {None}
    assert any("unknown" in note for note in found["physics"]["notes"])


def test_below_4_ghz_the_ionosphere_is_not_foretold(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "l.ms", MsRecipe(n_antenna=6, n_scan=1, freq_hz=1.5e9, radius_m=6000.0))
    found = results(invoke, tmp_path / "l.ms", 1.0)
    assert found["limited_by_coherence"] is None and found["physics"]["coherence_known"] is False
    assert any("ionosphere dominates" in note for note in found["physics"]["notes"])
    # The troposphere's part of it is known.
    assert found["physics"]["coherence"][0]["troposphere_rms_deg"] > 0


def test_in_d_configuration_at_l_band_the_atmosphere_is_unimportant(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "d.ms", MsRecipe(n_antenna=6, n_scan=1, freq_hz=1.5e9, radius_m=500.0))
    found = results(invoke, tmp_path / "d.ms", 1.0)
    assert found["physics"]["atmosphere_unimportant"] is True
    assert found["limited_by_coherence"] is False
    assert any("three or four" in note for note in found["physics"]["notes"])


def test_linear_feeds_are_told_of_the_parallactic_angle(invoke, high_ms: Path, copy_ms) -> None:
    path = copy_ms(high_ms)
    edit(path, "POLARIZATION", "CORR_TYPE", [np.array([9, 12], dtype=np.int32)])
    found = results(invoke, path, 0.1)
    low, high = found["parallactic_angle_deg"]

    # From 10 minutes before transit to 290 s after it, tan chi = cos l sin h / (sin l cos d - cos l sin d cos h).
    def angle(seconds: float) -> float:
        lat, dec, hour = math.radians(34.26), math.radians(30.0), seconds / 86164 * 2 * math.pi
        down = math.sin(lat) * math.cos(dec) - math.cos(lat) * math.sin(dec) * math.cos(hour)
        return math.degrees(math.atan2(math.cos(lat) * math.sin(hour), down))

    # Precession since 2000 moves the transit by a minute: 2 deg at 4 deg from the zenith.
    assert found["feeds"] == "linear"
    assert high - low == pytest.approx(angle(290) - angle(-600), abs=3)
    assert any("gaintype T" in note for note in found["physics"]["notes"])
    circular = results(invoke, high_ms, 0.1)
    assert circular["feeds"] == "circular"
    assert not any("gaintype T" in note for note in circular["physics"]["notes"])
    # An equatorial mount turns with the sky.
    edit(path, "ANTENNA", "MOUNT", ["EQUATORIAL"] * 8)
    assert results(invoke, path, 0.1)["parallactic_angle_deg"] is None
