"""Weights against the scatter of data whose noise is known, and what statwt makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import weights
from peelkit.engines.casa import Casa
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.selection import Selection

SIGMA, NOISY, FACTOR = 0.05, 4, 3.0
SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-plots")


def noisy_ms(path: Path, **changes: object) -> MsRecipe:
    """All weights say 0.05 Jy; the baselines of ea05 have three times that noise."""
    recipe = MsRecipe(
        **{
            "n_antenna": 10, "n_scan": 2, "n_time": 16, "sigma_jy": SIGMA, "n_chan": (16,),
            "gain_step": 8, "phase_rms_deg": 20.0, "seed": 5, **changes,
        }
    )  # fmt: skip
    make_ms(path, recipe)
    rng = np.random.default_rng(99)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        mine = (main.getcol("ANTENNA1") == NOISY) | (main.getcol("ANTENNA2") == NOISY)
        extra = SIGMA * math.sqrt(FACTOR**2 - 1)
        noise = rng.normal(0, extra, (2, *data[mine].shape))
        data[mine] += noise[0] + 1j * noise[1]
        main.putcol("DATA", data)
    return recipe


def column(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol(name))


def mine(path: Path) -> np.ndarray:
    return (column(path, "ANTENNA1") == NOISY) | (column(path, "ANTENNA2") == NOISY)


def checked(path: Path) -> list[weights.SpwWeights]:
    info = ms.read_info(path)
    rows = ms.select_rows(info, Selection())
    return weights.check(info, rows, column="DATA", channels=info.channels(Selection()))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_chan": (1,), "n_time": 40},
        {"weight_spectrum": True},
        {"n_chan": (8, 8), "n_corr": 4, "flagged_antennas": (7,)},
    ],
)
def test_the_noisy_antenna_is_found_and_the_others_are_not(tmp_path: Path, changes: dict) -> None:
    noisy_ms(tmp_path / "a.ms", **changes)
    for found in checked(tmp_path / "a.ms"):
        assert found.off == ["ea05"]
        # Thousands of samples an antenna, where there is one channel hundreds: 2 to 10 %.
        assert found.antennas["ea05"] == pytest.approx(FACTOR**2, rel=0.15)
        others = [ratio for name, ratio in found.antennas.items() if name != "ea05"]
        assert others == pytest.approx([1.0] * len(others), rel=0.2)
    lines = weights.warnings(checked(tmp_path / "a.ms"))
    assert any("ea05 (" in line and "statwt" in line for line in lines)


def test_true_weights_raise_no_word(tmp_path: Path) -> None:
    # A 1 Jy source with 20 deg of phase errors is no noise.
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=8, n_chan=(8,), phase_rms_deg=20.0, gain_step=4))
    (found,) = checked(tmp_path / "a.ms")
    assert found.ratio == pytest.approx(1.0, abs=0.05)
    assert weights.warnings([found]) == []


def test_weights_on_another_scale_are_told(tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=8, n_chan=(8,)))
    with table(str(tmp_path / "a.ms"), readonly=False, ack=False) as main:
        main.putcol("WEIGHT", 5 * main.getcol("WEIGHT"))
    (found,) = checked(tmp_path / "a.ms")
    assert found.ratio == pytest.approx(5.0, rel=0.05) and found.off == []
    assert "not 1" in weights.warnings([found])[0]


def test_snr_estimate_reports_and_offers_the_remedy(invoke, tmp_path: Path) -> None:
    noisy_ms(tmp_path / "a.ms")
    run = invoke("snr-estimate", tmp_path / "a.ms", "--peak", 1, "--rms", 0.001, "--json")
    (found,) = json.loads(run.stdout)["results"]["weights"]
    assert found["off"] == ["ea05"]
    assert "selfcal --weights statwt" in run.stderr


@pytest.mark.casa
@pytest.mark.parametrize("changes", [{}, {"weight_spectrum": True}, {"n_chan": (1,), "n_time": 64}])
def test_statwt_gives_the_noisy_antenna_a_ninth(tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "a.ms"
    noisy_ms(path, flagged_antennas=(7,), phase_rms_deg=0.0, **changes)
    with Casa(tmp_path / "casa.log") as casa:
        report = weights.reweigh(ms.read_info(path), "statwt", casa, integration_s=10.0)
    weight, sigma, flagged = column(path, "WEIGHT"), column(path, "SIGMA"), column(path, "FLAG_ROW")
    # 64 samples a weight are 12 % each, thousands of weights: the mean is good to the bias, 1 / 64.
    ratio = np.median(weight[mine(path) & ~flagged]) / np.median(weight[~mine(path) & ~flagged])
    assert ratio == pytest.approx(1 / FACTOR**2, rel=0.05)
    assert np.median(weight[~mine(path) & ~flagged]) == pytest.approx(1 / SIGMA**2, rel=0.05)
    assert sigma[~flagged] == pytest.approx(weight[~flagged] ** -0.5, rel=1e-3)
    # Data that were flagged have no scatter: weight zero, and no chance values.
    assert np.all(weight[flagged] == 0) and report["flagged"] == 0
    assert report["before"][0]["off"] == ["ea05"] and report["after"][0]["off"] == []
    assert report["warnings"] == [] and not list(tmp_path.glob("*.flagversions"))


@pytest.mark.casa
def test_a_weight_that_is_huge_by_chance_becomes_that_of_its_baseline(tmp_path: Path) -> None:
    # 50 integrations of 1 channel: bins of 48 and of 2, whose scatter is a few times next to nothing.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=10, n_scan=1, n_time=50, n_chan=(1,), sigma_jy=SIGMA, seed=6))
    with Casa(tmp_path / "casa.log") as casa:
        report = weights.reweigh(ms.read_info(path), "statwt", casa, integration_s=7.5)
    assert report["timebin_s"] == 480.0 and report["capped"] > 0
    assert column(path, "WEIGHT").max() < weights.OUTLIER * 2 / SIGMA**2


@pytest.mark.casa
def test_initweights_are_nominal_and_flagged_data_have_them_too(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    noisy_ms(path, flagged_antennas=(7,), weight_spectrum=True)
    with Casa(tmp_path / "casa.log") as casa:
        weights.reweigh(ms.read_info(path), "initweights", casa, integration_s=10.0)
    # 2 x 10 MHz x 10 s.
    for name in ("WEIGHT", "WEIGHT_SPECTRUM"):
        assert column(path, name) == pytest.approx(2e8)


@pytest.mark.casa
def test_statwt_that_would_flag_everything_is_refused(tmp_path: Path, monkeypatch) -> None:
    noisy_ms(tmp_path / "a.ms", n_chan=(1,), n_time=4)
    # One sample a weight: what CASA's default does with one channel.
    monkeypatch.setattr(weights, "SAMPLES", 1)
    with (
        Casa(tmp_path / "casa.log") as casa,
        pytest.raises(DataError, match=r"would flag 100 %.*--weights keep"),
    ):
        weights.reweigh(ms.read_info(tmp_path / "a.ms"), "statwt", casa, integration_s=10.0)


@pytest.mark.casa
@pytest.mark.slow
def test_selfcal_writes_new_weights_and_undo_puts_back_the_old(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    noisy_ms(path)
    kept = {name: column(path, name) for name in ("WEIGHT", "SIGMA", "FLAG", "DATA")}
    out = invoke("selfcal", path, *SMALL, "--solint", "80s", "--weights", "statwt").stdout
    assert "Weights by statwt" in out
    weight = column(path, "WEIGHT")
    ratio = np.median(weight[mine(path)]) / np.median(weight[~mine(path)])
    assert ratio == pytest.approx(1 / FACTOR**2, rel=0.1)
    assert np.array_equal(column(path, "DATA"), kept["DATA"])
    record = json.loads((tmp_path / "a.ms.selfcal.peelkit.json").read_text())
    assert {"WEIGHT", "SIGMA"} <= set(record["writes"])
    report = record["results"]["prepared"]["weights"]
    assert report["how"] == "statwt" and report["after"][0]["off"] == []
    invoke("undo", path)
    for name, values in kept.items():
        assert np.array_equal(column(path, name), values), name


def test_fitspw_without_statwt_is_refused(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=5, n_scan=1, n_time=2))
    run = invoke("selfcal", tmp_path / "a.ms", "--statwt-fitspw", "0:1~2", code=2)
    assert "--weights statwt" in run.stderr
