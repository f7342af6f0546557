"""The pure parts of ddsolve: intervals in human units, bins, Jones matrices, gate, QuartiCal's words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from peelkit.core import dd_freedom, dd_gains, dd_gate, dd_terms
from peelkit.core.dd_gains import TimeAxis
from peelkit.core.dd_terms import TermChoice
from peelkit.engines import quartical
from peelkit.errors import OptionError


@pytest.mark.parametrize(
    ("text", "integration_s", "count"),
    [
        ("10s", 10.0, 1), ("0.5min", 10.0, 3), ("3int", 10.0, 3), ("int", 2.0, 1), ("inf", 10.0, 0),
        ("1s", 10.0, 1), ("4.5s", 0.45, 10), ("25s", 10.0, 2), ("1h", 3.0, 1200),
    ],
)  # fmt: skip
def test_time_intervals_become_integrations(text: str, integration_s: float, count: int) -> None:
    assert dd_terms.time_integrations(text, integration_s) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [("64MHz", 4), ("16MHz", 1), ("1MHz", 1), ("8chan", 8), ("1 channel", 1), ("spw", 0), ("inf", 0),
     ("2GHz", 0), ("64chan", 0), ("0.032GHz", 2)],
)  # fmt: skip
def test_frequency_intervals_become_channels(text: str, count: int) -> None:
    assert dd_terms.freq_channels(text, 16e6, 64) == count


@pytest.mark.parametrize("text", ["10", "ten", "0chan", "-3MHz", "3s", ""])
def test_what_is_no_frequency_interval_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="use spw, 8chan"):
        dd_terms.freq_channels(text, 16e6, 64)


@pytest.mark.parametrize(
    ("text", "metres"),
    [("", (0, 0)), (">100m", (100, 0)), ("<5km", (0, 5000)), ("100~5000m", (100, 5000)), ("> 30", (30, 0))],
)  # fmt: skip
def test_baseline_ranges_are_in_metres(text: str, metres: tuple[float, float]) -> None:
    assert dd_terms.uv_range_m(text) == metres


@pytest.mark.parametrize("text", [">1klambda", "100~50m", ">1m,<5m"])
def test_baseline_ranges_that_quartical_cannot_cut_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="uvrange"):
        dd_terms.uv_range_m(text)


def test_two_terms_that_take_up_the_same_phases_are_refused() -> None:
    same = (
        TermChoice("G", "phase", "10s", "spw"),
        TermChoice("K", "delay_and_offset", "10s", "spw"),
    )
    with pytest.raises(OptionError, match="same phases"):
        dd_terms.check(same)
    dd_terms.check((same[0], TermChoice("K", "delay", "10s", "spw")))


@pytest.mark.parametrize(
    ("g", "k", "intervals", "refused"),
    [
        ("diag_complex", "delay_and_offset", ("10s", "spw"), "--k delay,"),
        ("complex", "delay_tec_and_offset", ("10s", "spw"), "--k delay_and_tec,"),
        ("diag_complex", "tec_and_offset", ("10 S", "inf"), "--k delay,"),
        # About the middle of the spw a delay has no phase; in a part of it that is not its middle.
        ("diag_complex", "delay", ("10s", "spw"), None),
        ("diag_complex", "delay", ("10s", "4chan"), "--k-freq spw"),
        ("amplitude", "delay_and_offset", ("10s", "spw"), None),
        ("none", "delay_and_offset", ("10s", "spw"), None),
    ],
)
def test_terms_are_refused_where_each_can_have_the_others_phase(g, k, intervals, refused) -> None:
    terms = (TermChoice("G", g, "10s", intervals[1]), TermChoice("K", k, *intervals))
    if refused is None:
        dd_terms.check(terms)
        return
    with pytest.raises(OptionError, match=f"--g {g} and --k {k} .* {refused}"):
        dd_terms.check(terms)


def test_the_same_interval_in_other_words_is_refused_too() -> None:
    terms = (
        TermChoice("G", "phase", "2int", "spw"),
        TermChoice("K", "delay_and_offset", "20s", "64chan"),
    )
    dd_terms.check(terms)
    known = {"width_hz": 1e6, "n_chan": 64}
    dd_terms.check_intervals(terms, integration_s=5.0, **known)
    with pytest.raises(OptionError, match="same phases"):
        dd_terms.check_intervals(terms, integration_s=10.0, **known)


@pytest.mark.parametrize(
    ("free", "told"),
    [({"A": 0.1}, []), ({"A": 0.2, "B": 0.01}, ["A: the gains are 20 %"]),
     ({"A": 0.1, "B": 0.1}, ["A and B: the gains are 20 %"])],
)  # fmt: skip
def test_too_much_freedom_is_told(free, told) -> None:
    found = dd_freedom.words(free)
    assert len(found) == len(told)
    assert all(words.startswith(start) for words, start in zip(found, told, strict=True))


def test_the_direction_dependent_term_comes_last_and_is_solved_first() -> None:
    choices = (
        TermChoice("dE", "diag_complex", "inf", "spw"), TermChoice("G", "phase", "int", "2chan"),
        TermChoice("K", "none", "int", "spw"),
    )  # fmt: skip
    terms = dd_terms.build(
        choices, integration_s=10, width_hz=1e6, n_chan=8, pinned=(0, 2), across_scans=False
    )
    assert [term.name for term in terms] == ["G", "dE"]
    assert [(term.time_interval, term.freq_interval) for term in terms] == [(1, 2), (0, 0)]
    assert terms[1].pinned == (0, 2)
    assert dd_terms.iterations(terms, rounds=2, each=9) == [0, 9, 9, 9, 9, 9]
    assert dd_terms.iterations(terms[1:], rounds=2, each=9) == [9, 9]


def test_the_recipe_takes_every_direction_out_of_direction_0() -> None:
    assert dd_terms.recipe("ALL", ["B1", "B2"]) == "ALL~B1~B2:B1:B2"


AXIS = TimeAxis(np.arange(10.0), np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2]))


@pytest.mark.parametrize(
    ("interval", "across", "chunk", "bins"),
    [
        (0, False, 0, [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]),
        (2, False, 0, [0, 0, 1, 1, 2, 3, 3, 4, 5, 5]),
        (4, True, 0, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]),
        (0, True, 0, [0] * 10),
        (3, False, 6, [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]),
    ],
)
def test_time_bins_are_quarticals(interval: int, across: bool, chunk: int, bins: list[int]) -> None:
    assert dd_gains.time_bins(AXIS, interval, across_scans=across, chunk=chunk).tolist() == bins


def test_frequency_bins() -> None:
    assert dd_gains.freq_bins(5, 2, 3).tolist() == [0, 0, 1, 1, 2]
    assert dd_gains.freq_bins(4, 0, 1).tolist() == [0, 0, 0, 0]
    # A delay has a gain for each channel.
    assert dd_gains.freq_bins(4, 0, 4).tolist() == [0, 1, 2, 3]


def test_corrupting_is_the_matrix_product_and_correcting_takes_it_back(rng) -> None:
    vis = rng.normal(size=(3, 2, 4)) + 1j * rng.normal(size=(3, 2, 4))
    one, two = (rng.normal(size=(3, 2, 2, 2)) + 1j * rng.normal(size=(3, 2, 2, 2)) for _ in "pq")
    expected = np.einsum("rcij,rcjk,rclk->rcil", one, vis.reshape(3, 2, 2, 2), two.conj()).reshape(
        vis.shape
    )
    np.testing.assert_allclose(dd_gains.corrupt(vis, one, two), expected, rtol=1e-12)
    np.testing.assert_allclose(dd_gains.correct(expected, one, two), vis, rtol=1e-9)
    diagonal_one, diagonal_two = one[..., [0, 1], [0, 1]], two[..., [0, 1], [0, 1]]
    full = dd_gains.corrupt(vis, _matrix(diagonal_one), _matrix(diagonal_two))
    np.testing.assert_allclose(dd_gains.corrupt(vis, diagonal_one, diagonal_two), full, rtol=1e-12)
    two_hands = vis[..., [0, 3]]
    np.testing.assert_allclose(
        dd_gains.corrupt(two_hands, diagonal_one, diagonal_two), full[..., [0, 3]], rtol=1e-12
    )


def _matrix(diagonal: np.ndarray) -> np.ndarray:
    result = np.zeros((*diagonal.shape, 2), dtype=complex)
    result[..., 0, 0], result[..., 1, 1] = diagonal[..., 0], diagonal[..., 1]
    return result


def test_information_gives_the_snr_of_a_gain() -> None:
    # One antenna, 5 baselines, 4 integrations, 2 channels in one solution; 2 Jy in 0.5 Jy of noise:
    # S/N of a gain is 2 / 0.5 x sqrt(40).
    info = dd_gate.Information.empty(np.zeros(4, int), np.zeros(2, int), 6)
    power = np.full((20, 2), 4.0 / 0.25)
    info.add(
        power, np.zeros(20, int), np.zeros(2, int), [np.zeros(20, int), np.repeat(range(1, 6), 4)]
    )
    assert info.values[0, 0, 0] == pytest.approx((4 * math.sqrt(40)) ** 2)
    assert info.values[0, 0, 3] == pytest.approx(16 * 8)


@pytest.mark.parametrize(
    ("snr", "total", "decision"), [(10, 300, "peel"), (2, 60, "subtract"), (0.1, 3, "skip")]
)
def test_the_gate_decides_by_snr(snr: float, total: float, decision: str) -> None:
    found, reason = dd_gate.decide(snr, total, min_snr=3)
    assert found == decision and f"{snr if decision != 'skip' else total:.1f}" in reason


def test_the_configuration_of_a_job() -> None:
    job = quartical.Job(
        Path("w.ms"), "ALL~B:B",
        [quartical.Term("G", "phase", 2, 0), quartical.Term("dE", "complex", 0, 4, True, (0,), True)],
        7, [0, 5, 5, 5], threads=2,
        extra=quartical.parse_extra(["solver.robust=true", "dE.scalar=true"]),
    )  # fmt: skip
    made = quartical.config(job, Path("g"), Path("l"))
    assert made["input_ms"]["group_by"] == ["FIELD_ID", "DATA_DESC_ID"]
    assert made["solver"] == {
        "terms": ["G", "dE"], "iter_recipe": [0, 5, 5, 5], "propagate_flags": True,
        "reference_antenna": 7, "threads": 1, "robust": True,
    }  # fmt: skip
    assert made["dE"] == {
        "type": "complex", "time_interval": "0", "freq_interval": "4", "direction_dependent": True,
        "respect_scan_boundaries": True, "pinned_directions": [0], "scalar": True,
    }  # fmt: skip
    assert made["output"]["flags"] is False and "products" not in made["output"]


@pytest.mark.parametrize(
    "pair",
    ["robust=true", "solver.robust", "solver.robust=", "output.flags=true", "input_ms.path=x"],
)
def test_options_that_would_break_the_solve_are_refused(pair: str) -> None:
    with pytest.raises(OptionError, match="--quartical"):
        quartical.parse_extra([pair])


def test_chi_squared_is_read_from_the_log() -> None:
    text = """2026-11-21 09:48:05 | INFO | logging:log_chisq |
    FLD: 3 SPW: 1 SCN: ? T_CHUNK: 0 F_CHUNK: 0 CHISQ: 2019.04 -> 1.97
    FLD: 3 SPW: 0 SCN: ? T_CHUNK: 2 F_CHUNK: 0 CHISQ: nan -> 1.9"""
    found = quartical.parse_chi2(text)
    assert [(one.field, one.ddid, one.time_chunk, one.after) for one in found] == [
        (3, 1, 0, 1.97), (3, 0, 2, 1.9),
    ]  # fmt: skip
    assert found[0].before == 2019.04 and math.isnan(found[1].before)
