"""S/N of gain solutions, against numbers worked by hand from the lecture's formulas."""

from __future__ import annotations

import math

import pytest

from peelkit.core import snr


def test_equation_2_by_hand() -> None:
    # 28 antennas: sqrt(25) = 5; 400 s on source, 100 s intervals: sqrt(4) = 2. 1 Jy over 10 mJy x 10.
    found = snr.antenna_snr(1.0, 0.01, n_ant=28, on_source_s=400.0, solint_s=100.0)
    assert found == pytest.approx(1.0 / (0.01 * 5 * 2))


def test_the_errors_that_the_lecture_quotes() -> None:
    assert snr.phase_error_deg(3.0) == pytest.approx(19.1, abs=0.1)  # "less than 20 deg"
    assert snr.amplitude_error_percent(10.0) == pytest.approx(10.0)


def test_three_antennas_have_no_solution() -> None:
    assert snr.antenna_snr(1.0, 0.01, n_ant=3, on_source_s=10.0, solint_s=10.0) == 0.0


def test_the_rule_of_thumb_is_20_for_25_antennas() -> None:
    assert snr.rule_of_thumb(25) == pytest.approx(20.0)
    assert snr.rule_of_thumb(12) == pytest.approx(20.0 * math.sqrt(9 / 22))


def test_effective_baseline_of_the_guide() -> None:
    # Seed 002: cycle times of 100 to 150 s at 10 m/s keep it below 500 to 750 m.
    assert snr.effective_baseline_m(100.0)[0] == pytest.approx(500.0)
    assert snr.effective_baseline_m(150.0)[0] == pytest.approx(750.0)


@pytest.mark.parametrize(
    ("scan", "integration", "expected"),
    [
        (80.0, 10.0, ["inf", "40s", "20s", "int"]),
        (10.0, 10.0, ["inf"]),
        (20.0, 10.0, ["inf", "int"]),
        (78.0, 3.0, ["inf", "36s", "15s", "6s", "int"]),
    ],
)
def test_ladder_of_intervals(scan: float, integration: float, expected: list[str]) -> None:
    assert [name for name, _ in snr.interval_ladder(scan, integration)] == expected


def test_ladder_steps_are_whole_integrations_and_fall() -> None:
    seconds = [length for _, length in snr.interval_ladder(600.0, 2.0)]
    assert seconds == sorted(seconds, reverse=True)
    assert all(math.isclose(length / 2.0, round(length / 2.0)) for length in seconds)


def rows(peak: float = 1.0, *, n_spw: int = 4, two_hands: bool = True) -> list[snr.Row]:
    return snr.snr_rows(
        peak, 0.01, n_ant=28, on_source_s=800.0, intervals=[("inf", 200.0), ("int", 10.0)],
        shares=snr.Shares([1 / n_spw] * n_spw, two_hands=two_hands),
    )  # fmt: skip


def pick(found: list[snr.Row], solint: str, combine: str, gaintype: str) -> snr.Row:
    return next(
        r for r in found if (r.solint, r.combine, r.gaintype) == (solint, combine, gaintype)
    )


def test_combining_gains_what_the_lecture_says() -> None:
    found = rows()
    single = pick(found, "inf", "", "G").snr
    assert pick(found, "inf", "", "T").snr == pytest.approx(math.sqrt(2) * single)
    assert pick(found, "inf", "spw", "G").snr == pytest.approx(math.sqrt(4) * single)
    assert pick(found, "inf", "spw", "T").snr == pytest.approx(math.sqrt(8) * single)
    # All four scans together: twice the S/N of one.
    assert pick(found, "inf", "scan", "G").snr == pytest.approx(2 * single)
    # All spws, one hand: equation 2 as it stands, 1 / (0.01 x 5 x 2).
    assert pick(found, "inf", "spw", "G").snr == pytest.approx(10.0)


def test_one_hand_offers_no_gaintype_t() -> None:
    assert {row.gaintype for row in rows(two_hands=False)} == {"G"}


def test_one_spw_offers_no_combining_of_spws() -> None:
    assert not any("spw" in row.combine for row in rows(n_spw=1))


def test_thresholds_decide() -> None:
    found = pick(rows(), "inf", "spw", "G")
    assert found.phase_ok and found.amplitude_ok  # 10.0
    weaker = pick(rows(0.99), "inf", "spw", "G")
    assert weaker.phase_ok and not weaker.amplitude_ok


def test_the_recommended_ladder_takes_the_least_averaging_that_suffices() -> None:
    found = snr.recommend_ladder(rows(), n_ant=28)
    # inf: none 5.0 suffices; int: none 1.1, T 1.6, spw 2.2, spw and T 3.2.
    assert [(r.solint, r.calmode, r.combine, r.gaintype) for r in found] == [
        ("inf", "p", "", "G"), ("int", "p", "spw", "T"), ("inf", "ap", "spw", "G"),
    ]  # fmt: skip


def test_nothing_is_recommended_for_noise() -> None:
    assert snr.recommend_ladder(rows(0.04), n_ant=28) == []


@pytest.mark.parametrize(
    ("value", "calmode", "n_ant", "expected"),
    [(30, "p", 27, 2.0), (5, "p", 27, 3.0), (30, "ap", 27, 3.0), (30, "p", 25, 3.0)],
)
def test_minsnr_is_relaxed_only_as_the_lecture_allows(
    value: float, calmode: str, n_ant: int, expected: float
) -> None:
    assert snr.recommended_minsnr(value, calmode=calmode, n_ant=n_ant) == expected


@pytest.mark.parametrize(
    ("n_ant", "calmode", "expected"),
    [
        (27, "p", 4),
        (27, "ap", 6),
        (5, "ap", 4),
        (4, "p", 3),
        # One or two of few may be away.
        (8, "p", 4),
        (7, "p", 3),
        (5, "p", 3),
    ],
)
def test_minblperant_is_never_below_three(n_ant: int, calmode: str, expected: int) -> None:
    assert snr.recommended_minblperant(n_ant, calmode=calmode) == expected


def test_physics_of_the_seeds() -> None:
    assert snr.dominant_atmosphere(1.4e9) == "ionosphere"
    assert snr.dominant_atmosphere(43e9) == "troposphere"
    assert snr.transfer_limit("ALMA") == 100 and snr.transfer_limit("EVLA") == 1000
    assert snr.transfer_limit("GMRT") is None
