"""The troposphere's phases: limits by formula, and what the VLA guide says of its own array."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from peelkit.core import atmosphere
from peelkit.core.atmosphere import ONE_RADIAN, THIRTY_DEG, Troposphere

# Median weather of the year at the VLA: the median of the table's monthly medians.
AVERAGE = Troposphere(
    statistics.median(atmosphere.api_rms_deg(month) for month in atmosphere.VLA_SEASONS)
)


def test_the_api_measures_its_own_baseline_and_frequency() -> None:
    found = Troposphere(5.0).rms_rad(300.0, 11.7e9)
    assert math.degrees(found) == pytest.approx(5.0)
    # Non-dispersive: a path, so that the phase grows with the frequency.
    assert math.degrees(Troposphere(5.0).rms_rad(300.0, 23.4e9)) == pytest.approx(10.0)


def test_the_table_is_that_of_the_guide() -> None:
    assert atmosphere.api_rms_deg(1, day=False) == 2.3
    assert atmosphere.api_rms_deg(8, day=True) == 11.3
    assert atmosphere.api_rms_deg(12) == 3.2
    assert sorted(atmosphere.VLA_SEASONS) == list(range(1, 13))
    for (night, median, day), _ in atmosphere.VLA_SEASONS.values():
        assert night < median < day


@pytest.mark.parametrize(
    ("near", "far", "ratio"),
    [
        (100.0, 200.0, 2 ** (5 / 6)),
        (300.0, 1000.0, (1000 / 300) ** (5 / 6)),
        (1000.0, 4000.0, 4 ** (1 / 3)),
        (6000.0, 36000.0, 1.0),
    ],
)
def test_slopes_are_kolmogorovs(near: float, far: float, ratio: float) -> None:
    found = AVERAGE.rms_rad(far, 8e9) / AVERAGE.rms_rad(near, 8e9)
    assert found == pytest.approx(ratio)


def test_the_guides_120_s_at_43_ghz_leave_30_deg_in_average_weather() -> None:
    # "Under average weather conditions, and using a 120 second cycle time, the residual phase at 43 GHz
    # should be reduced to <= 30 degrees": 600 m at 10 m/s; 4.55 deg x 43 / 11.7 x 2^(5/6) = 29.8 deg.
    found = math.degrees(AVERAGE.switching_residual_rad(120.0, 43e9))
    assert found == pytest.approx(4.55 * 43 / 11.7 * 2 ** (5 / 6))
    assert 25 < found <= 30


@pytest.mark.parametrize(("array", "freq_hz"), [("C", 3e9), ("D", 1.5e9), ("D", 8e9), ("D", 11e9)])
def test_where_the_guide_calls_the_atmosphere_unimportant_it_never_turns_phases_by_30_deg(
    array: str, freq_hz: float
) -> None:
    assert atmosphere.unimportant(array, freq_hz)
    longest = atmosphere.CONFIGURATIONS[array]
    assert AVERAGE.coherence_time_s(longest, freq_hz, limit_rad=THIRTY_DEG) is None


@pytest.mark.parametrize(("array", "freq_hz"), [("B", 1.5e9), ("C", 5e9), ("D", 22e9), (None, 1e9)])
def test_elsewhere_it_does_not(array: str | None, freq_hz: float) -> None:
    assert not atmosphere.unimportant(array, freq_hz)


def test_both_ends_of_a_long_baseline_change_and_a_short_one_sees_its_own_scale() -> None:
    # Long baseline, 10 s at 10 m/s: 2 D(100 m).
    long = AVERAGE.change_rad(10.0, 30000.0, 43e9)
    assert long == pytest.approx(math.sqrt(2) * AVERAGE.rms_rad(100.0, 43e9), rel=1e-6)
    # Short baseline, long time: two independent phases of rms D(b).
    short = AVERAGE.change_rad(5000.0, 100.0, 43e9)
    assert short == pytest.approx(math.sqrt(2) * AVERAGE.rms_rad(100.0, 43e9), rel=1e-3)


def test_the_frozen_screen_formula_is_that_of_a_simulated_screen(rng: np.random.Generator) -> None:
    # A screen along a line, with increments of D ~ d: random walk, exponent 1/2. Only the algebra of
    # the frozen screen is tested here, with the wind along the baseline.
    walk = np.cumsum(rng.normal(size=1_000_000))
    baseline, moved = 300, 100
    phase = walk[:-baseline] - walk[baseline:]
    change = np.mean((phase[moved:] - phase[:-moved]) ** 2)
    d = {n: float(n) for n in (baseline, moved, baseline + moved, baseline - moved)}
    expected = 2 * d[moved] + 2 * d[baseline] - d[baseline + moved] - d[baseline - moved]
    # 10^6 / 300 independent stretches: 2.5 % for a variance.
    assert change == pytest.approx(expected, rel=0.1)


def test_coherence_time_by_hand() -> None:
    # 2 D(vt) = 1 rad^2 below the break: rms(300 m) = 5 deg x 43 / 11.7 = 18.38 deg; the distance is
    # 300 m x (57.30 / (sqrt2 x 18.38))^(6/5) = 794 m, at 10 m/s 79.4 s.
    found = Troposphere(5.0).coherence_time_s(30000.0, 43e9)
    expected = 30.0 * (math.degrees(ONE_RADIAN) / (math.sqrt(2) * 5 * 43 / 11.7)) ** 1.2
    assert found == pytest.approx(expected, rel=1e-3)
    # A faster wind shortens it in proportion.
    fast = Troposphere(5.0, wind_m_s=15.0).coherence_time_s(30000.0, 43e9)
    assert fast == pytest.approx(expected / 1.5, rel=1e-3)


def test_phases_that_never_change_by_a_radian_have_no_coherence_time() -> None:
    assert AVERAGE.coherence_time_s(300.0, 8.4e9) is None


def test_the_scatter_within_an_interval_by_hand() -> None:
    # For a change of 2 D ~ t^(5/3) it is change / sqrt((8/3)(11/3)) = change / 3.127.
    found = AVERAGE.within_rad(20.0, 30000.0, 43e9)
    expected = AVERAGE.change_rad(20.0, 30000.0, 43e9) / math.sqrt(8 / 3 * 11 / 3)
    assert found == pytest.approx(expected, rel=2e-3)
    lost = AVERAGE.decorrelation(20.0, 30000.0, 43e9)
    assert lost == pytest.approx(1 - math.exp(-(expected**2) / 2), rel=5e-3)
    assert AVERAGE.decorrelation(0.0, 30000.0, 43e9) == 0.0


def test_a_long_interval_scatters_as_much_as_the_baseline_does() -> None:
    found = AVERAGE.within_rad(20000.0, 1000.0, 22e9)
    assert found == pytest.approx(AVERAGE.rms_rad(1000.0, 22e9), rel=0.02)


@pytest.mark.parametrize(
    ("longest", "name"),
    [(36.4e3, "A"), (11.1e3, "B"), (9e3, "B"), (3.4e3, "C"), (1.0e3, "D"), (0.0, "D")],
)
def test_configurations_of_the_vla(longest: float, name: str) -> None:
    assert atmosphere.configuration(longest) == name


def test_mean_weather_is_a_mean_of_squares() -> None:
    assert atmosphere.mean_rms_deg([3.0, 4.0], [1.0, 1.0]) == pytest.approx(math.sqrt(12.5))


def test_median_and_longest_baseline() -> None:
    positions = np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 4.0, 0]])
    assert atmosphere.baselines_m(positions) == (4.0, 5.0)
