"""The two generators of bench/cases.py: their errors have the same statistics, their gains the same meaning."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cases
import independent
from peelkit.core import simulate_processes as processes
from peelkit.core.simulate_errors import Errors, no_errors
from regimes import REGIMES

TIMES = np.arange(20) * 10.0
PLACE = np.random.default_rng(5).uniform(-1500, 1500, (40, 2))
ELEVATION = np.linspace(math.radians(40), math.radians(60), 20)
# East is y and north is z where latitude and longitude are 0.
ROWS = SimpleNamespace(
    time=TIMES, n_antenna=40, elevation=ELEVATION,
    place=np.column_stack([np.full(40, 6.4e6), PLACE]),
)  # fmt: skip


def figures(phase: np.ndarray, log_amplitude: np.ndarray) -> list[float]:
    """Rms of the phase, its structure function after 10 and 50 s, and the same of the logarithm of the amplitude."""
    return [
        float(np.sqrt(value))
        for one in (phase, log_amplitude)
        for value in (
            (one**2).mean(),
            (np.diff(one, axis=0) ** 2).mean(),
            ((one[5:] - one[:-5]) ** 2).mean(),
        )
    ]


@pytest.mark.parametrize("regime", list(REGIMES))
def test_both_generators_have_errors_of_the_same_statistics(regime: str) -> None:
    ours, theirs = [], []
    for seed in range(4 if regime == "kolmogorov" else 20):
        case = cases.Case(regime, "peelkit", 1, "C", False, 30)
        words = [
            word for word in cases.simulate_words(case, Path("x.ms"), False) if "--errors" in word
        ]
        at = processes.Setting(TIMES, PLACE, ELEVATION, 3e9)
        asked = processes.parse(tuple(word.removeprefix("--errors=") for word in words))
        found = processes.add(no_errors(20, 40), asked, at, np.random.default_rng(seed))
        ours.append(figures(found.phase_deg + found.dispersive_deg, np.log(found.amplitude)))
        rng = np.random.default_rng(seed)
        drawn = [independent.draw_process(one, ROWS, rng) for one in REGIMES[regime].processes]
        theirs.append(figures(sum(one for one, _ in drawn), sum(one for _, one in drawn)))
    one, two = np.mean(ours, axis=0), np.mean(theirs, axis=0)
    # Turbulence is of two kinds: a thick layer and an outer scale. Whose the smooth phases are, each hand's or the air's, too.
    tolerance = 0.5 if regime == "kolmogorov" else 0.12
    assert one == pytest.approx(two, rel=tolerance, abs=1e-9)


def test_gains_mean_the_same_in_both_truths() -> None:
    rng = np.random.default_rng(1)
    values = {
        name: rng.normal(size=(3, 4, 2)) * scale + shift
        for name, scale, shift in (("phase_deg", 50, 0), ("delay_ns", 1, 0), ("amplitude", 0.1, 1),
                                   ("dispersive_deg", 20, 0), ("pointing_arcsec", 9, 0))
    }  # fmt: skip
    freq = np.array([2.2e9, 3.6e9])
    for hand in (0, 1):
        theirs = independent.gains(values, freq, hand)
        assert Errors(**values).gains(1, freq, 3e9)[:, hand] == pytest.approx(theirs[1])


def test_turbulence_of_the_independent_one_goes_with_the_power_of_five_thirds() -> None:
    distances = np.array([0.0, 20.0, 40.0, 80.0, 160.0])
    spread = np.random.default_rng(2).uniform(-1500, 1500, 20)
    east = np.concatenate([distances, spread])
    rows = SimpleNamespace(
        time=TIMES[:6] * 10, n_antenna=25,
        place=np.column_stack([np.full(25, 6.4e6), east, np.zeros(25)]),
    )  # fmt: skip
    # Below an outer scale the power is reached slowly: it is 1.5 here with the 6 km that the cases have.
    structure = np.zeros(4)
    for seed in range(60):
        phase = independent.kolmogorov(rows, np.random.default_rng(seed), outer=1e7)
        structure += ((phase[:, 1:5] - phase[:, :1]) ** 2).mean(axis=0)
    exponent = np.polyfit(np.log(distances[1:]), np.log(structure), 1)[0]
    assert exponent == pytest.approx(5 / 3, abs=0.15)


def test_correlated_noise_has_unit_variance_and_the_correlation() -> None:
    noise = independent.coloured_noise((2, 8, 20000), 0.5, np.random.default_rng(1))
    assert noise.real.std() == pytest.approx(1, rel=0.01)
    assert noise.imag.std(axis=(0, 2)) == pytest.approx(np.ones(8), rel=0.02)
    assert (noise[:, 1:] * noise[:, :-1].conj()).mean().real / 2 == pytest.approx(0.5, abs=0.01)


def test_the_matrix_covers_what_it_is_said_to() -> None:
    every = list(cases.matrix((1, 2, 3)))
    assert len({one.name for one in every}) == len(every) == 60
    for regime in REGIMES:
        mine = [one for one in every if one.regime == regime]
        assert {one.snr for one in mine} == set(cases.SNRS)
        assert {one.config for one in mine} == {"C", "D"}
        assert {one.central for one in mine} == {True, False}
    # Both generators see the same: each S/N and configuration, with and without a source in the middle.
    for generator in cases.GENERATORS:
        mine = [one for one in every if one.generator == generator]
        assert {(one.snr, one.config) for one in mine} >= {(snr, "C") for snr in cases.SNRS[::2]}
        assert {one.snr for one in mine} == set(cases.SNRS)
    assert {len(one.bright()) for one in every} == {1, 2}


def test_no_code_is_shared_with_peelkit() -> None:
    for module in (independent, __import__("regimes")):
        text = Path(module.__file__).read_text()
        assert not re.search(r"^\s*(from|import) peelkit", text, re.M)


def test_regions_are_drawn_by_one_rule(tmp_path: Path) -> None:
    case = cases.Case("walk", "independent", 3, "D", True, 30)
    sources = [{"name": name, "ra_deg": ra, "dec_deg": 30.0} for name, ra in
               (("BRIGHT_1", 150.1), ("BRIGHT_2", 149.9), ("BRIGHT_3", 150.0), ("FAINT_1", 150.2))]  # fmt: skip
    cases.write_regions(case, {"sources": sources}, tmp_path / "bright.crtf")
    lines = (tmp_path / "bright.crtf").read_text().splitlines()
    # The third is the one in the middle.
    assert len(lines) == 3 and "92arcsec" in lines[1] and "149.9" in lines[2]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"status": 0, "rms_over": [1.1], "flux_twin": [0.99, 0.02]}, "good"),
        ({"status": 0, "rms_over": [1.1, 1.6], "flux_twin": [0.99, 0.02]}, "fair"),
        ({"status": 0, "rms_over": [2.1], "flux_twin": [0.99, 0.02]}, "wrong"),
        ({"status": 0, "rms_over": [1.1], "flux_twin": [0.93, 0.02]}, "wrong"),
        ({"status": 5, "rms_over": [9.0], "flux_twin": [0.5, 0.02]}, "refused"),
        ({"status": 3}, "refused"),
        ({"status": 4}, "failed"),
        ({"status": 0}, "wrong"),
    ],
)
def test_a_chain_is_judged_by_what_it_did_and_what_it_says(found: dict, said: str) -> None:
    assert cases.verdict(found) == said


def test_a_result_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    cases.add_result(path, {"case": "a", "code": "1"})
    with path.open("a") as where:
        where.write('{"case": "b", "co')
    assert cases.read_results(path) == [{"case": "a", "code": "1"}]


def test_the_reason_is_told_and_not_where_the_products_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    end = "== 3 rounds; the peeled data are in PEELED_DATA of a.ms\n== images: a b\n== plots: c\n\n"
    log.write_text(f"== round 3 of rounds=3\nbetter, but not what it could be\n{end}")
    assert cases.last_line(log) == "better, but not what it could be"
