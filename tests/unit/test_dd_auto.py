"""Choosing intervals, and sharing gains between G and dE: the parts that need no engine."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from peelkit.core import dd_auto, dd_balance, dd_heldout, dd_results, dd_solve, plots
from peelkit.core.dd_auto import Table
from peelkit.core.dd_balance import Normal
from peelkit.core.dd_terms import TermChoice

N_TIME, N_CHAN, N_ANT = 12, 4, 6


def table_of(gains: np.ndarray, scans: np.ndarray | None = None) -> Table:
    """Base intervals of one integration and one channel."""
    return Table(
        gains[:, :, :, None],
        np.ones(gains[:, :, :, None].shape),
        np.arange(N_TIME),
        np.arange(N_CHAN),
        np.zeros(N_TIME, int) if scans is None else scans,
    )


def some_gains(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (1 + 0.2 * rng.normal(size=shape)) * np.exp(1j * rng.normal(size=shape))


def test_a_quarter_of_the_cells_is_held_out_and_always_the_same() -> None:
    rows = np.arange(5000)
    whole = dd_heldout.held_out(rows, 8)
    assert whole.mean() == pytest.approx(0.25, abs=0.01)
    # Rows and channels alike, not in stripes.
    assert abs(whole.mean(axis=0) - 0.25).max() < 0.03
    assert abs(whole[:-1] & whole[1:]).mean() == pytest.approx(1 / 16, abs=0.01)
    np.testing.assert_array_equal(dd_heldout.held_out(rows[100:200], 8), whole[100:200])


def test_longer_intervals_end_with_the_scan() -> None:
    scans = np.repeat([0, 1], [5, 7])
    table = table_of(np.ones((N_TIME, N_CHAN, N_ANT, 2), complex), scans)
    time, freq = table.longer(4, 2, (1, 1))
    assert time.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3]
    assert freq.tolist() == [0, 0, 1, 1]
    time, freq = table.longer(0, 0, (1, 1))
    assert time.tolist() == [0] * 5 + [1] * 7 and freq.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("base", "n", "expected"),
    [(1, 10, [1, 2, 4, 8, 0]), (6, 60, [6, 12, 24, 48, 0]), (6, 12, [6, 0]), (9, 6, [0]), (0, 6, [0])],
)  # fmt: skip
def test_candidates_are_what_base_intervals_add_up_to(base, n, expected) -> None:
    assert dd_auto._multiples(base, n) == expected


def test_the_product_of_a_fast_and_a_slow_gain_is_found_again() -> None:
    rng = np.random.default_rng(1)
    fast = some_gains(rng, N_TIME, 1, N_ANT, 2)
    slow = np.repeat(some_gains(rng, 3, N_CHAN, N_ANT, 2), 4, axis=0)
    table = table_of(fast * slow)
    four = table.longer(4, 1, (1, 1))
    found = dd_auto.nearest(table, 0, four, np.arange(N_TIME))
    np.testing.assert_allclose(found, fast * slow, rtol=1e-3)
    # Longer than it is true does not fit; without G neither.
    six = table.longer(6, 1, (1, 1))
    assert np.abs(dd_auto.nearest(table, 0, six, np.arange(N_TIME)) - fast * slow).max() > 0.1
    assert np.abs(dd_auto.nearest(table, 0, four, None) - fast * slow).max() > 0.1


def test_phases_that_all_antennas_share_do_not_spoil_a_mean() -> None:
    rng = np.random.default_rng(5)
    truth = some_gains(rng, 1, 1, N_ANT, 1, 2)
    common = np.exp(1j * rng.uniform(-3, 3, size=(N_TIME, N_CHAN, 1, 1, 2)))
    turned = dd_auto.aligned(truth * common, np.ones((N_TIME, N_CHAN, N_ANT, 1, 2)))
    mean = turned.mean(axis=(0, 1), keepdims=True)
    np.testing.assert_allclose(np.abs(mean), np.abs(truth), rtol=1e-9)
    np.testing.assert_allclose(turned, np.broadcast_to(mean, turned.shape), rtol=1e-9)


def test_failed_solutions_do_not_count() -> None:
    rng = np.random.default_rng(2)
    slow = some_gains(rng, 1, 1, N_ANT, 2) * np.ones((N_TIME, N_CHAN, 1, 1))
    table = table_of(slow.copy())
    table.gains[3, 1] = 1e6
    table.weight[3, 1] = 0
    found = dd_auto.nearest(table, 0, table.longer(0, 0, (1, 1)), None)
    np.testing.assert_allclose(found, slow, rtol=1e-9)


def test_the_fewest_parameters_that_cost_nothing_win() -> None:
    rng = np.random.default_rng(3)
    samples, n = 100_000, 50
    common = rng.chisquare(2 * samples / n, size=n)
    costs = np.array([0.0, 0.002, 0.1])[:, None] * 2 * samples / n
    winner, score, excess, sigma = dd_auto._pick(common + costs, samples, [1000, 100, 10])
    assert winner == 1
    assert excess == pytest.approx([0, 0.002, 0.1], abs=1e-6)
    assert score[0] == pytest.approx(1.0, abs=0.02) and (sigma < 1e-9).all()


def test_costs_are_counted_against_the_noise_and_not_against_a_wrong_model(rng) -> None:
    # 300 times the noise by a wrong model: a per cent of that is three times the noise.
    samples, n_time = 2000, 500
    common = 2 * samples / n_time * (300 + rng.normal(scale=0.5, size=n_time))
    costs = 2 * samples / n_time * np.array([[0.0], [0.005], [2.5]])
    winner, _, excess, _ = dd_auto._pick(common + costs, samples, [1000, 100, 10])
    assert winner == 1 and excess[2] == pytest.approx(2.5)


def test_what_a_few_integrations_alone_need_is_not_put_down_to_chance() -> None:
    samples, n = 100_000, 50
    common = np.full(n, 2 * samples / n)
    # A tenth more in all, from one part: the scatter of the difference is as large as the difference.
    one_part = np.where(np.arange(n) == 7, 0.1 * 2 * samples, 0.0)
    little = 0.1 * one_part
    sums = common + np.array([np.zeros(n), little, one_part])
    winner, _, excess, sigma = dd_auto._pick(sums, samples, [1000, 100, 10])
    assert excess[2] == pytest.approx(0.1) and sigma[2] > 0.09
    assert winner == 1


def normal_of(truth: np.ndarray, power: float) -> Normal:
    """Data ``g_p M conj(g_q)`` with M = 1, each baseline once."""
    n_time, n_freq, n_ant, n_hand = truth.shape
    cross = np.zeros((n_time, n_freq, n_ant, n_ant, n_hand), complex)
    weight = np.zeros(cross.shape)
    for p in range(n_ant):
        for q in range(p + 1, n_ant):
            cross[:, :, p, q] = power * truth[:, :, p] * truth[:, :, q].conj()
            weight[:, :, p, q] = power
    return Normal(cross, weight, np.arange(n_time), np.arange(n_freq))


def test_x_is_solved_from_what_is_left() -> None:
    rng = np.random.default_rng(4)
    truth = some_gains(rng, 2, 3, N_ANT, 2)
    found = normal_of(truth, 100.0).solve()
    turned = found * np.conj(found[:, :, :1]) / np.abs(found[:, :, :1])
    expected = truth * np.conj(truth[:, :, :1]) / np.abs(truth[:, :, :1])
    np.testing.assert_allclose(turned, expected, rtol=1e-5)


def test_intervals_of_x_grow_until_the_rest_is_bright_enough() -> None:
    truth = np.ones((4, 4, N_ANT, 2), complex)
    # 5 baselines of power 5 each: S/N 5 per solution.
    normal = normal_of(truth, 5.0)
    assert normal.snr == pytest.approx(5.0)
    assert normal.settled(4.0).cross.shape[:2] == (4, 4)
    # First in frequency (x 2 with four channels), then in time.
    assert normal.settled(9.0).cross.shape[:2] == (4, 1)
    longer = normal.settled(14.0)
    assert longer.cross.shape[:2] == (2, 1)
    assert longer.t_bins.tolist() == [0, 0, 1, 1] and longer.f_bins.tolist() == [0] * 4
    assert normal.settled(21.0) is None


@pytest.mark.parametrize(
    ("snr", "equations", "expected"),
    [
        # 27 antennas: two bright sources have equations enough, three have not; ten antennas need four.
        (1e4, 9.75, (1, 1)), (1e4, 4.9, (1, 1)), (1e4, 3.25, (1, 2)), (1e4, 1.2, (1, 4)),
        # S/N is short: as little time as possible.
        (2.0, 9.75, (1, 4)), (0.5, 9.75, (4, 0)), (0.01, 9.75, (0, 0)),
    ],
)  # fmt: skip
def test_the_shortest_intervals_have_equations_and_signal(snr, equations, expected) -> None:
    pairs = [(t, f) for t in (1, 2, 4, 8, 0) for f in (1, 2, 4, 8, 0)]
    found = dd_auto.shortest(pairs, (16, 16), snr=snr, equations=equations)
    cells = (found[0] or 16) * (found[1] or 16)
    assert cells * equations >= dd_auto.BASE_EQUATIONS
    assert found == expected


def plan_of(*terms: TermChoice) -> SimpleNamespace:
    """What `dd_auto._apart` asks for: 10 s integrations, 8 channels of 2 MHz."""
    spw = SimpleNamespace(width_hz=np.full(8, 2e6), freq_hz=3e9 + 2e6 * np.arange(8))
    info = SimpleNamespace(spws=[spw], data_descriptions=[SimpleNamespace(spw=0)])
    rows = SimpleNamespace(ddids=[0], info=info, integration_s={0: 10.0})
    return SimpleNamespace(rows=rows, options=SimpleNamespace(terms=terms))


def test_g_gets_no_interval_that_k_has_with_an_offset() -> None:
    g = TermChoice("G", "diag_complex", "auto", "auto")
    k = TermChoice("K", "delay_and_offset", "20s", "spw")
    de = TermChoice("dE", "diag_complex", "auto", "auto")
    apart = {n: dd_auto._apart(plan_of(g, k, de), g, n) for n in (1, 2, 4, 0)}
    assert apart == {1: True, 2: False, 4: True, 0: True}
    # A delay alone has no phase in common with it over a whole spw.
    delay = TermChoice("K", "delay", "20s", "spw")
    assert all(dd_auto._apart(plan_of(g, delay, de), g, n) for n in (1, 2, 4, 0))


def test_options_of_terms_that_a_solve_has_not_are_left_out() -> None:
    extra = {"K.scalar": "true", "dE.x": "1", "solver.robust": "true", "nonsense.y": "2"}
    found = dd_solve._of_terms(extra, [SimpleNamespace(name="dE")])
    assert found == {"dE.x": "1", "solver.robust": "true", "nonsense.y": "2"}


def test_sums_of_the_balance_are_bounded_by_longer_bins() -> None:
    wanted = {
        (0, 0): (np.repeat(np.arange(6), 2), np.arange(8)),
        (1, 0): (np.repeat(np.arange(3), 4), np.arange(8)),
    }
    same = dd_balance.bounded(wanted, 72)
    assert all(
        np.array_equal(one, two)
        for key in wanted
        for one, two in zip(same[key], wanted[key], strict=True)
    )
    # 9 bins of time and 8 channels: three halvings of the channels, one of time.
    small = dd_balance.bounded(wanted, 6)
    assert small[0, 0][0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and not small[0, 0][1].any()
    assert small[1, 0][0].tolist() == [0] * 8 + [1] * 4
    least = dd_balance.bounded(wanted, 0)
    assert not any(one.any() for pair in least.values() for one in pair)


def test_a_compact_source_without_gains_of_its_own_keeps_its_model_for_the_next_round() -> None:
    model = SimpleNamespace(record=lambda: {"shape": "point"})
    judged = SimpleNamespace(refusal=None, refinements={})
    direction = SimpleNamespace(label="B", model=model)
    assert dd_results._refined(judged, direction) == {"shape": "point"}
    assert dd_results._refined(judged, SimpleNamespace(label="B", model=None)) is None


def test_solves_that_did_not_converge_are_told() -> None:
    done, not_done = (SimpleNamespace(converged=np.full((2, 2), share)) for share in (1.0, 0.33))
    assert not dd_results.convergence_words({"G": [done]})
    (words,) = dd_results.convergence_words({"G": [done], "dE": [not_done, not_done]})
    assert words.startswith("dE: 33 % of the solves converged")


def test_a_label_is_a_part_of_a_files_name() -> None:
    assert plots.file_label("3C 84/NGC 1275") == "3C_84_NGC_1275"
    assert plots.file_label("B1.5-x+y_z") == "B1.5-x+y_z"
