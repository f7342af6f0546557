"""ddsolve on data with delays of several turns over a spw, which QuartiCal does not find from 0."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, add_delays, make_truth
from peelkit.cli.ddsolve import tables
from peelkit.core import dd_delay
from peelkit.io.gains import read_gains

pytestmark = [pytest.mark.quartical, pytest.mark.slow]

# Off axis: the brighter one turns by half a turn over a spw by itself on the longest baseline.
TWO = (Bright(5.0, 300.0, 200.0, 0.3, 0.1), Bright(0.5, -400.0, 100.0, 0.3, 0.1))
LATE = replace(
    RECIPE, n_chan=(16, 16), chan_width_hz=4e6, sigma_jy=0.1, n_time=6, flagged_antennas=(8,)
)
BAND_HZ = 16 * 4e6
SOLVE = (
    "--all", "ALL", "--peel", "B1", "--peel", "B2", "--refant", "ea03", "--no-plots", "--json",
)  # fmt: skip
FIXED = ("--g-time", "60s", "--de-time", "inf", "--de-freq", "spw", "--k-time", "inf")
REF, DEAD = 2, 8


def some_turns() -> np.ndarray:
    """Truth: up to three turns over the spw, others in each scan, antenna and hand."""
    turns = np.random.default_rng(11).uniform(-3, 3, (LATE.n_scan, LATE.n_antenna, 2))
    return turns - turns[:, REF : REF + 1]


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("late") / "late.ms"
    truth = make_truth(path, TWO, LATE)
    add_delays(path, LATE, some_turns())
    return path, truth


def peeled(path: Path) -> np.ndarray:
    """Parallel hands of unflagged rows are all that these data have."""
    with table(str(path), ack=False) as main:
        return main.getcol("PEELED_DATA")[~main.getcol("FLAG_ROW")]


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(values) ** 2) / 2))


def without_rest(path: Path, truth: dict[str, np.ndarray]) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return peeled(path) - truth["rest"][~main.getcol("FLAG_ROW")]


def recovered(results: dict[str, Any]) -> list[np.ndarray]:
    """Delays in QuartiCal's files in turns over the spw, (interval, antenna, hand), of each spw."""
    found = []
    for gains in read_gains(Path(results["solutions"][0]), "K"):
        assert gains.params is not None
        delays = [n for n, name in enumerate(gains.param_names) if name.startswith("delay")]
        found.append(gains.params[:, :, :, 0, delays] * BAND_HZ)
    return found


def test_delays_of_several_turns_leave_noise(late, copy_ms, invoke, monkeypatch) -> None:
    path, truth = late
    target = copy_ms(path)
    out = invoke("ddsolve", target, *SOLVE, *FIXED, "--k", "delay")
    results = json.loads(out.stdout)["results"]
    assert results["chi2"]["solved"] == pytest.approx(1.0, abs=0.03)
    assert rms(without_rest(target, truth)) == pytest.approx(LATE.sigma_jy, rel=0.05)
    alive = np.arange(LATE.n_antenna) != DEAD
    turns = some_turns()
    for found in recovered(results):
        # sqrt(12) / (2 pi S/N) with S/N 5 Jy / 0.1 Jy sqrt(16 channels, 6 times, 9 baselines): 4e-4 turns.
        assert np.abs(found[:, 0] - turns)[:, alive].max() < 4e-3
    start = results["delay_start"]
    assert start["used"] and start["antennas"] == LATE.n_antenna - 1 and not start["not_believed"]
    assert start["largest_turns"] == pytest.approx(np.abs(turns[:, alive]).max(), abs=0.05)
    assert start["least_snr"] > 50
    assert any("turns over a spw" in note for one in tables(results) for note in one.notes)
    # Without the start: QuartiCal ends in other turns, and the source stays.
    monkeypatch.setattr(dd_delay, "find", lambda *_: None)
    lost = invoke("ddsolve", target, *SOLVE, *FIXED, "--k", "delay", "--overwrite", code=5)
    assert "not credible" in lost.stderr or "worse" in lost.stderr


def test_offsets_and_parts_of_a_spw_keep_the_whole_delay(late, copy_ms, invoke) -> None:
    path, truth = late
    target = copy_ms(path)
    out = invoke(
        "ddsolve", target, *SOLVE, "--g", "amplitude", "--g-time", "inf", "--de-time", "inf",
        "--de-freq", "spw", "--k", "delay_and_offset", "--k-time", "3int", "--k-freq", "8chan",
    )  # fmt: skip
    results = json.loads(out.stdout)["results"]
    assert results["chi2"]["solved"] == pytest.approx(1.0, abs=0.03)
    assert rms(without_rest(target, truth)) == pytest.approx(LATE.sigma_jy, rel=0.05)
    alive = np.arange(LATE.n_antenna) != DEAD
    # Two intervals in each scan, and two parts of each spw.
    turns = np.repeat(some_turns(), 2, axis=0)[:, None]
    for found in recovered(results):
        assert found.shape[:2] == (4, 2)
        assert np.abs(found - turns)[:, :, alive].max() < 0.05


def test_chosen_intervals_and_injected_sources_see_data_without_delays(tmp_path, invoke) -> None:
    path, recipe = tmp_path / "one.ms", replace(LATE, flagged_antennas=())
    truth = make_truth(path, TWO[:1], recipe)
    add_delays(path, recipe, some_turns())
    out = invoke("ddsolve", path, "--all", "ALL", "--peel", "B1", *SOLVE[6:], "--k", "delay", "--k-time", "inf",
                 "--inject", "200mJy@-3,4")  # fmt: skip
    results = json.loads(out.stdout)["results"]
    assert results["chi2"]["solved"] == pytest.approx(1.0, abs=0.03)
    assert rms(without_rest(path, truth)) == pytest.approx(LATE.sigma_jy, rel=0.05)
    # The truth is one gain for the spw. What the start leaves, thousandths of a turn, may show in it, but
    # a delay of turns leaves no interval that predicts anything.
    (chosen,) = results["intervals"]["chosen"]
    assert chosen["integrations"] == 0 and chosen["channels"] in (0, 8)
    assert min(one["chi2_held_out"] for one in results["intervals"]["candidates"]) < 1.05
    # A gain of 10 antennas has up to 2 / (n - 1) of what no model has.
    assert 1 - 2 / 9 < results["injected"][0]["recovered_fraction"] < 1.05
