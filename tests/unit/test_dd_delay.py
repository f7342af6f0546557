"""Start values of K on Measurement Sets: searched against the model, taken out, and put into K."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, add_delays, make_truth
from makems import MsRecipe
from peelkit.core import dd_delay, dd_gains
from peelkit.core.dd_data import blocks, gather
from peelkit.core.dd_delay import DelayStart, SpwStart
from peelkit.core.dd_gains import Solutions, TimeAxis
from peelkit.core.dd_plan import Plan, settle
from peelkit.core.dd_terms import TermChoice
from peelkit.core.ddsolve_options import DdOptions
from peelkit.io import ms
from peelkit.io.gains import TermGains
from peelkit.progress import Progress
from peelkit.selection import Selection

WIDE = replace(RECIPE, n_chan=(16, 16), n_time=6, n_antenna=8)
# Off axis: over these spws it turns by up to 0.3 times around by itself.
SOURCE = (Bright(5.0, 400.0, 300.0),)
REF = 2


def some_turns(recipe: MsRecipe = WIDE, *, most: float = 2.5) -> np.ndarray:
    turns = np.random.default_rng(7).uniform(-most, most, (recipe.n_scan, recipe.n_antenna, 2))
    turns[:, REF] = 0.0
    return turns


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("delay") / "late.ms"
    make_truth(path, SOURCE, WIDE)
    add_delays(path, WIDE, some_turns())
    return path, some_turns()


def plan_of(path: Path, *, k: str = "delay", g: str = "diag_complex", **options) -> Plan:
    terms = (
        TermChoice("G", g, "60s", "spw"),
        TermChoice("K", k, "inf", "spw"),
        TermChoice("dE", "diag_complex", "inf", "spw"),
    )
    uvrange = options.pop("uvrange", "")
    chosen = DdOptions(
        all_column="ALL", peel=("B1",), terms=terms, refant=f"ea{REF + 1:02d}", **options
    )
    return settle(ms.read_info(path), Selection(uvrange=uvrange), chosen, Progress())


def found_in(plan: Plan, **extra: str) -> DelayStart:
    scale = dict.fromkeys(plan.rows.ddids, 1.0)
    found = dd_delay.find(plan, scale, extra, Progress())
    assert found is not None
    return found


def turns_of(found: DelayStart, ddid: int = 0) -> np.ndarray:
    spw = found.spws[ddid]
    width_hz = np.abs(np.diff(spw.freq_hz)).mean()
    return spw.delay_s * width_hz * spw.freq_hz.size


def test_delays_are_found_against_a_source_off_axis(late) -> None:
    path, turns = late
    found = found_in(plan_of(path))
    for ddid in (0, 1):
        # Errors of 0.5 rad towards the source and the rest of the sky (6 %) move a peak a little.
        assert np.abs(turns_of(found, ddid) - turns).max() < 0.03
    assert found.largest_turns == pytest.approx(np.abs(turns).max(), abs=0.03)
    assert len(found.believed) == WIDE.n_antenna and not found.doubtful
    assert found.least_snr > 100


def test_descending_frequencies_have_the_same_delays(late, tmp_path) -> None:
    path, turns = late
    down = tmp_path / "down.ms"
    shutil.copytree(path, down)
    add_delays(down, WIDE, np.zeros_like(turns), descending=True)
    up, found = found_in(plan_of(path)), found_in(plan_of(down))
    for ddid in (0, 1):
        np.testing.assert_allclose(turns_of(found, ddid), turns_of(up, ddid), atol=1e-3)
        assert (found.spws[ddid].delay_s * up.spws[ddid].delay_s).sum() > 0


def test_small_delays_and_single_channels_get_no_start(tmp_path) -> None:
    path = tmp_path / "small.ms"
    recipe = replace(WIDE, n_time=2)
    make_truth(path, SOURCE, recipe)
    add_delays(path, recipe, some_turns(recipe, most=0.1))
    found = found_in(plan_of(path))
    assert not found.spws and 0.05 < found.largest_turns < 0.15
    single = tmp_path / "single.ms"
    make_truth(single, SOURCE, replace(recipe, n_chan=(1, 1)))
    found = found_in(plan_of(single))
    assert not found.spws and math.isnan(found.largest_turns) and math.isnan(found.least_snr)
    plan = replace(plan_of(single), delay_start=found)
    record = {
        "used": False,
        "largest_turns": None,
        "antennas": 0,
        "not_believed": [],
        "least_snr": None,
    }
    assert dd_delay.record(plan) == record and dd_delay.words(plan) == []
    # Nor is anything searched where K has no delay.
    for k in ("none", "tec_and_offset"):
        assert dd_delay.find(plan_of(path, k=k), {}, {}, Progress()) is None


def test_one_start_serves_all_scans_where_the_solve_goes_on_over_their_ends(tmp_path) -> None:
    path = tmp_path / "across.ms"
    make_truth(path, SOURCE, replace(WIDE, n_time=3))
    turns = np.repeat(some_turns()[:1], 2, axis=0)
    add_delays(path, WIDE, turns)
    found = found_in(plan_of(path, combine=frozenset({"scan"})))
    assert found.spws[0].delay_s.shape == (1, WIDE.n_antenna, 2)
    assert np.abs(turns_of(found) - turns[:1]).max() < 0.03


def test_bins_and_batches_of_bounded_memory_find_the_same(late, monkeypatch) -> None:
    path, _ = late
    expected = found_in(plan_of(path))
    # One bin and one scan at a time.
    monkeypatch.setattr(dd_delay, "MOST_BYTES", 1.0)
    plan = plan_of(path)
    assert len(list(dd_delay._batches(plan))) == WIDE.n_scan
    found = found_in(plan)
    np.testing.assert_array_equal(found.spws[1].begins_s, expected.spws[1].begins_s)
    np.testing.assert_allclose(turns_of(found), turns_of(expected), atol=0.01)


def test_a_full_g_gets_one_delay_for_both_hands(late) -> None:
    path, turns = late
    found = found_in(plan_of(path, g="complex"))
    np.testing.assert_array_equal(found.spws[0].delay_s[..., 0], found.spws[0].delay_s[..., 1])
    assert np.abs(turns_of(found) - turns.mean(axis=2, keepdims=True)).max() < 0.05
    again = found_in(plan_of(path), **{"K.scalar": "true"})
    np.testing.assert_array_equal(again.spws[0].delay_s, found.spws[0].delay_s)


def test_baselines_that_are_not_solved_on_are_not_searched(late, tmp_path) -> None:
    path, turns = late
    spoilt = tmp_path / "spoilt.ms"
    shutil.copytree(path, spoilt)
    with table(str(spoilt), readonly=False, ack=False) as main:
        data, uvw = main.getcol("DATA"), main.getcol("UVW")
        short = np.hypot(uvw[:, 0], uvw[:, 1]) < 900
        # Something vast that no model has.
        data[short] = 1e4 * np.exp(2j * np.pi * np.arange(data.shape[1]) / 7)[:, None]
        main.putcol("DATA", data)
    assert 0.1 < short.mean() < 0.9
    assert np.abs(turns_of(found_in(plan_of(spoilt, uvrange=">900m"))) - turns).max() < 0.05


def test_antennas_that_are_not_found_are_named_if_others_need_a_start(late, tmp_path) -> None:
    path, _ = late
    noisy = tmp_path / "noisy.ms"
    shutil.copytree(path, noisy)
    with table(str(noisy), readonly=False, ack=False) as main:
        data, flag = main.getcol("DATA"), main.getcol("FLAG")
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        rng = np.random.default_rng(1)
        rows = (one == 5) | (two == 5)
        data[rows] = 0.05 * (rng.normal(size=data[rows].shape) + 1j * rng.normal(size=data[rows].shape))  # fmt: skip
        main.putcol("DATA", data)
        flag[(one == 6) | (two == 6)] = True
        main.putcol("FLAG", flag)
    plan = plan_of(noisy)
    plan = replace(plan, delay_start=found_in(plan))
    record, words = dd_delay.record(plan), dd_delay.words(plan)
    assert record is not None and record["used"] and record["not_believed"] == ["ea06"]
    # Without the one that is not found, and without the one that is flagged.
    assert record["antennas"] == WIDE.n_antenna - 2
    assert record["least_snr"] < 5
    assert len(words) == 1 and "ea06" in words[0] and "ea07" not in words[0]
    assert plan.delay_start is not None
    assert not plan.delay_start.spws[0].delay_s[:, [5, 6]].any()


def test_each_class_of_fields_has_its_own_start(late) -> None:
    path, turns = late
    plan = plan_of(path)
    scans = [
        replace(
            plan,
            rows=gather(plan.rows.info, plan.rows.rows[plan.rows.scans == n], combine_fields=False),
        )
        for n in range(2)
    ]
    # The classes of a mosaic; here they are two scans.
    whole = dd_delay.with_start(
        replace(plan, by_field={0: scans[0], 1: scans[1], 2: scans[0]}), {0: 1.0, 1: 1.0}, {}, Progress()
    )  # fmt: skip
    assert whole.by_field[0] is whole.by_field[2] and len(whole.classes) == 2
    for n in range(2):
        start = whole.by_field[n].delay_start
        assert start is not None and start.spws[0].delay_s.shape[0] == 1
        assert np.abs(turns_of(start) - turns[n : n + 1]).max() < 0.03
    record = dd_delay.record(whole)
    assert record is not None and record["antennas"] == WIDE.n_antenna
    assert dd_delay.words(whole) == []


def test_what_is_taken_out_of_the_data_is_what_is_put_into_k(late) -> None:
    path, _ = late
    plan = plan_of(path)
    found = found_in(plan)
    with ms.opened(path) as main:
        for block in blocks(plan.rows, "DATA", (), main):
            without = found.without(block).data
            axis = plan.rows.axes[block.key]
            solved = Solutions(
                axis, (unit(axis, block.data.shape[1]),), *bins(axis, block.data.shape[1])
            )
            total, fresh = found.put_into(solved, block.description.id)
            assert fresh is total.terms[0]
            when = dd_gains.time_index(axis, block.times_s)
            one, two = (
                dd_gains.jones(total, when, a, 0, 2) for a in (block.antenna1, block.antenna2)
            )
            again = dd_gains.corrupt(without, one, two)
            np.testing.assert_allclose(again, block.data, atol=1e-5)
            # K of a solve that found 1 ns more.
            spw = found.spws[block.description.id]
            np.testing.assert_allclose(fresh.params[:, 0, :, 0], spw.delay_s + 1e-9, atol=1e-15)


def bins(axis: TimeAxis, n_chan: int) -> tuple[tuple[np.ndarray], tuple[np.ndarray]]:
    return (axis.scans - axis.scans[0],), (np.arange(n_chan),)


def unit(axis: TimeAxis, n_chan: int) -> TermGains:
    """K of 1, for each scan; its parameter says 1 ns."""
    n_time = np.unique(axis.scans).size
    shape = (n_time, n_chan, WIDE.n_antenna, 1)
    return TermGains(
        "K", "delay", 0, 0, np.ones((*shape, 2), dtype=complex), np.zeros(shape, dtype=bool),
        np.zeros((*shape, 2)), np.zeros(n_time), np.zeros(n_chan), np.ones((1, 1)),
        np.ones((1, 1), dtype=int), np.full((n_time, 1, WIDE.n_antenna, 1, 2), 1e-9),
        ("delay_RR", "delay_LL"),
    )  # fmt: skip


def test_a_solution_over_scans_with_starts_of_their_own_is_a_bug() -> None:
    axis = TimeAxis(np.arange(4.0), np.array([0, 0, 1, 1]))
    start = DelayStart({0: SpwStart(np.arange(3e9, 3.03e9, 1e7), np.array([0.0, 2.0]), np.zeros((2, 8, 2)))})  # fmt: skip
    solved = Solutions(axis, (unit(axis, 3),), (np.zeros(4, dtype=int),), (np.arange(3),))
    with pytest.raises(AssertionError, match="different start"):
        start.put_into(solved, 0)
