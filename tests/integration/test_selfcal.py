"""Self-calibration of simulated data with known gains: fluxes and residuals against the truth."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import averaging
from peelkit.io import journal

pytestmark = pytest.mark.casa

SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-plots")
SIGMA = 0.05


def small_ms(path: Path, **changes: object) -> MsRecipe:
    """A 1 Jy point with phase errors of 30 deg that change every two integrations."""
    recipe = MsRecipe(
        **{
            "n_antenna": 12, "n_scan": 2, "n_time": 8, "gain_step": 2, "phase_rms_deg": 30.0,
            "sigma_jy": SIGMA, "seed": 11, **changes,
        }
    )  # fmt: skip
    make_ms(path, recipe)
    return recipe


def column(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol(name))


def names(path: Path) -> set[str]:
    with table(str(path), ack=False) as main:
        return set(main.colnames())


def results(path: Path) -> dict:
    return json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]


def thermal_rms(recipe: MsRecipe) -> float:
    """Noise of a naturally weighted image: sigma over the root of the number of visibilities."""
    n_base = recipe.n_antenna * (recipe.n_antenna - 1) // 2
    hands = 2 if recipe.n_corr > 1 else 1
    return recipe.sigma_jy / math.sqrt(
        n_base * recipe.n_scan * recipe.n_time * sum(recipe.n_chan) * hands
    )


@dataclass(frozen=True)
class Calibrated:
    """An MS after `selfcal` with everything left to it, and what it was before."""

    path: Path
    recipe: MsRecipe
    before: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    path = tmp_path_factory.mktemp("calibrated") / "a.ms"
    recipe = small_ms(path)
    before = {name: column(path, name) for name in ("DATA", "FLAG")}
    command = [sys.executable, "-m", "peelkit", "selfcal", path, *SMALL]
    done = subprocess.run(
        [str(word) for word in command], cwd=path.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stdout
    return Calibrated(path, recipe, before)


def test_flux_noise_and_residuals_are_those_of_the_truth(calibrated: Calibrated) -> None:
    path, recipe = calibrated.path, calibrated.recipe
    found = results(path)
    first, final = found["first"], found["final"]
    # Phase errors of 30 deg rms leave exp(-0.27) = 0.76 of the flux; the ladder brings back all of it.
    assert first["peak_jy_beam"] < 0.85
    assert final["peak_jy_beam"] == pytest.approx(1.0, abs=0.02)
    assert final["flux_jy"] == pytest.approx(1.0, abs=0.03)
    # Briggs weighting costs a few per cent, solving 12 phases from 66 baselines some more.
    assert thermal_rms(recipe) * 0.8 < final["rms_jy_beam"] < thermal_rms(recipe) * 1.4
    # The calibrated data are the model and noise: 1 degree of freedom in 11 went into the phases.
    residual = column(path, "CORRECTED_DATA") - column(path, "MODEL_DATA")
    assert np.std(residual.real) == pytest.approx(SIGMA, rel=0.1)
    assert column(path, "MODEL_DATA").mean() == pytest.approx(1.0, abs=0.03)
    # DATA and FLAG are as they were.
    for name, values in calibrated.before.items():
        assert np.array_equal(column(path, name), values)
    folder = path.parent / "a.selfcal"
    assert not (folder / "work.ms").exists()
    assert (folder / "final.image").resolve().name == Path(final["image"]).name
    assert not list(path.parent.glob("casa-*.log"))
    with table(str(path / "HISTORY"), ack=False) as sub:
        assert sub.getcell("APPLICATION", sub.nrows() - 1) == "peelkit"


def test_undo_puts_back_what_selfcal_replaced(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    from peelkit.io import ms

    with ms.opened(path, write=True) as main:
        ms.add_column(main, "CORRECTED_DATA")
        main.putcol("CORRECTED_DATA", 3 * main.getcol("DATA"))
    before = column(path, "CORRECTED_DATA")
    run = ("selfcal", path, *SMALL, "--datacolumn", "data")
    refused = invoke(*run, code=3)
    assert "CORRECTED_DATA holds calibrated data, and would be made of DATA" in refused.stderr
    assert "replace with --overwrite" in refused.stderr
    invoke(*run, "--solint", "inf", "--overwrite")
    assert not np.array_equal(column(path, "CORRECTED_DATA"), before)
    assert "selfcal" in invoke("undo", path, "--list").stdout
    invoke("undo", path)
    assert np.array_equal(column(path, "CORRECTED_DATA"), before)
    assert "MODEL_DATA" not in names(path)
    assert "nothing to undo" in invoke("undo", path, code=3).stderr


def test_a_folder_of_rounds_is_applied_elsewhere_and_the_same(invoke, tmp_path: Path) -> None:
    path, other = tmp_path / "a.ms", tmp_path / "b.ms"
    small_ms(path, n_chan=(2, 2))
    shutil.copytree(path, other)
    invoke(
        "selfcal", path, *SMALL, "--solint", "inf", "--solint", "inf", "--calmode", "p",
        "--calmode", "ap", "--combine", "spw",
    )  # fmt: skip
    invoke("selfcal", other, "--apply", tmp_path / "a.selfcal")
    assert np.array_equal(column(path, "CORRECTED_DATA"), column(other, "CORRECTED_DATA"))


def test_a_virtual_model_does_not_take_the_place_of_the_clean_model(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path, gain_step=None)
    from peelkit.engines.casa import Casa

    with Casa(tmp_path / "setjy.log") as casa:
        # 1 Jy where the source is: 3 Jy would show in the amplitudes.
        casa.run(
            "setjy", vis=str(path), fluxdensity=[3.0, 0, 0, 0], standard="manual", usescratch=False
        )
    invoke(
        "selfcal", path, *SMALL, "--solint", "inf", "--solint", "inf", "--calmode", "p",
        "--calmode", "ap", "--no-solnorm",
    )  # fmt: skip
    assert results(path)["rounds"][-1]["accepted"]
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, abs=0.1)


def test_noise_is_refused_and_the_ms_left_alone(invoke, noise_ms: Path, copy_ms) -> None:
    path = copy_ms(noise_ms)
    before = {name: column(path, name) for name in ("DATA", "FLAG", "WEIGHT", "FLAG_ROW")}
    columns = names(path)
    for command in (["snr-estimate"], ["selfcal"], ["selfcal", "--solint", "inf", "--overwrite"]):
        found = invoke(
            command[0], path, *command[1:], "--imsize", 160, "--cell", "1.5arcsec", code=5
        )
        assert found.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert names(path) == columns and journal.steps(path) == []
    assert all(np.array_equal(column(path, name), before[name]) for name in before)


def test_two_spws_are_combined_where_one_is_too_weak(invoke, tmp_path: Path) -> None:
    path = tmp_path / "two.ms"
    # Per spw and hand the S/N of an 80 s solution is about 2.3: only combining reaches 3.
    small_ms(
        path, n_chan=(2, 2), n_corr=4, flux_jy=0.1, sigma_jy=0.18, gain_step=8, phase_rms_deg=15.0
    )
    plan = json.loads(invoke("snr-estimate", path, *SMALL[:4], "--json", code=0).stdout)
    ladder = plan["results"]["ladder"]
    assert any("spw" in rung["combine"] or rung["gaintype"] == "T" for rung in ladder)
    invoke(
        "selfcal",
        path,
        *SMALL,
        "--solint",
        "inf",
        "--combine",
        "spw",
        "--gaintype",
        "T",
        "--max-failed",
        "0.5",
    )
    record = json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())
    # Both spws get the solutions that CASA files under the first.
    assert record["results"]["spwmap"] == [[0, 0]]
    corrected, data = column_pair(path)
    assert all(not np.array_equal(corrected[spw], data[spw]) for spw in (0, 1))


def column_pair(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    with table(str(path), ack=False) as main:
        parts = [main.query(f"DATA_DESC_ID == {spw}") for spw in (0, 1)]
        return [p.getcol("CORRECTED_DATA") for p in parts], [p.getcol("DATA") for p in parts]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_chan": (1,), "frame": "B1950"},
        {"n_corr": 4, "telescope": "EVLA", "weight_spectrum": True},
        {"flagged_antennas": (3, 7)},
    ],
    ids=["one channel, B1950", "four correlations, weight spectrum", "flagged antennas"],
)
def test_ms_kinds_that_others_stumble_on(invoke, tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "a.ms"
    small_ms(path, **changes)
    invoke("selfcal", path, *SMALL, "--solint", "20s")
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, abs=0.03)


def test_an_ms_as_an_archive_has_it_is_gone_on_with(invoke, tmp_path: Path) -> None:
    """DATA raw, CORRECTED_DATA calibrated, CASA's default MODEL_DATA; nothing of it needs --overwrite."""
    path = tmp_path / "a.ms"
    small_ms(path)
    from peelkit.io import ms

    with ms.opened(path, write=True) as main:
        calibrated = main.getcol("DATA")
        for name in ("CORRECTED_DATA", "MODEL_DATA"):
            ms.add_column(main, name)
        main.putcol("CORRECTED_DATA", calibrated)
        main.putcol("MODEL_DATA", np.ones_like(calibrated))
        main.putcol("DATA", 30j * calibrated)
    run = ("selfcal", path, *SMALL, "--solint", "20s")
    found = invoke(*run)
    assert "CORRECTED_DATA has calibrated data, which are taken" in found.stderr
    # The source has 1 Jy in CORRECTED_DATA, and 30 in DATA.
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, abs=0.03)
    once = column(path, "CORRECTED_DATA")
    refused = invoke(*run, code=3)
    assert (
        "CORRECTED_DATA is what peelkit self-calibrated from CORRECTED_DATA as it" in refused.stderr
    )
    # Not on top of the first: the same again.
    found = invoke(*run, "--overwrite")
    assert "begins anew from what it was made of, CORRECTED_DATA as it was" in found.stderr
    assert column(path, "CORRECTED_DATA") == pytest.approx(once, abs=1e-5)
    invoke("undo", path)
    invoke("undo", path)
    assert np.array_equal(column(path, "CORRECTED_DATA"), calibrated)
    assert (column(path, "MODEL_DATA") == 1).all()


def test_an_all_zero_corrected_data_is_not_calibrated(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    from peelkit.io import ms

    with ms.opened(path, write=True) as main:
        ms.add_column(main, "CORRECTED_DATA")
        main.putcol("CORRECTED_DATA", np.zeros_like(main.getcol("DATA")))
    found = invoke("selfcal", path, *SMALL, "--datacolumn", "corrected", "--overwrite", code=3)
    assert "all visibilities in CORRECTED_DATA are zero" in found.stderr


def test_nan_data_are_left_out_and_reported(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        data[5] = np.nan
        main.putcol("DATA", data)
    planned = invoke("snr-estimate", path, *SMALL[:4])
    assert f"{data[5].size} unflagged samples are not numbers" in planned.stderr
    found = invoke("selfcal", path, *SMALL, "--solint", "20s")
    assert f"{data[5].size} unflagged samples are not numbers" in found.stderr
    # No zeros for what comes after: the flags are not changed.
    assert np.array_equal(np.isfinite(column(path, "CORRECTED_DATA")), np.isfinite(data))
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, abs=0.03)


def test_calflag_saves_the_flags_and_undo_restores_them(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path, phase_rms_deg=12.0)
    # One antenna sees nothing but strong noise in the first scan: its solutions fail.
    with table(str(path), readonly=False, ack=False) as main:
        rng = np.random.default_rng(1)
        bad = main.query("(ANTENNA1 == 5 || ANTENNA2 == 5) && SCAN_NUMBER == 1")
        shape = bad.getcol("DATA").shape
        bad.putcol(
            "DATA",
            (5 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))).astype(np.complex64),
        )
        bad.close()
    flag = column(path, "FLAG")
    invoke("selfcal", path, *SMALL, "--solint", "20s", "--applymode", "calflag", "--minsnr", "3")
    assert column(path, "FLAG").sum() > flag.sum()
    assert journal.steps(path)[0].flag_version == "peelkit_1_selfcal"
    invoke("undo", path)
    assert np.array_equal(column(path, "FLAG"), flag)


def test_the_plan_of_snr_estimate_is_followed(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    invoke("snr-estimate", path, *SMALL[:4])
    sidecar = Path(f"{path}.snr-estimate.peelkit.json")
    record = json.loads(sidecar.read_text())
    # Not what selfcal would choose itself.
    ladder = record["results"]["ladder"] = record["results"]["ladder"][:2]
    sidecar.write_text(json.dumps(record))
    invoke("selfcal", path, *SMALL, "--from", sidecar)
    done = results(path)["rounds"]
    assert [(r["solint"], r["calmode"]) for r in done] == [
        (r["solint"], r["calmode"]) for r in ladder
    ]


@pytest.mark.slow
def test_an_image_that_averages_would_limit_is_made_again(
    invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averaging, "FEWEST", 0)
    path = tmp_path / "a.ms"
    # The gains of a scan leave so little noise that a source near the edge would suffer from 0.001 of its flux.
    small_ms(
        path, flux_jy=0.0, sources=((1.0, 70.0, 50.0),), sigma_jy=0.02, gain_step=None, n_time=20,
        integration_s=2.0, n_antenna=18, phase_rms_deg=10.0,
    )  # fmt: skip
    how = ("--solint", "inf", "--calmode", "p", "--nsigma", 1)
    invoke("selfcal", path, "--out", "here", *how, *SMALL)
    kept = {
        name: json.loads(Path(f"here/{name}.image.peelkit.json").read_text())["results"]
        for name in ("first", "round1", "final")
    }
    assert kept["first"]["imaging"]["smearing"] == 0.001
    assert kept["round1"]["imaging"]["smearing"] < 0.0008
    assert kept["final"]["imaging"] == kept["round1"]["imaging"]
    # Other averages have other weights, and so the image was made of them.
    assert kept["final"]["psf_mark"] == kept["round1"]["psf_mark"] != kept["first"]["psf_mark"]


def test_a_model_of_the_users_is_used(invoke, calibrated: Calibrated, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    image = Path(results(calibrated.path)["final"]["image"])
    model = image.with_suffix(".model")
    invoke("selfcal", path, *SMALL, "--solint", "20s", "--model", model)
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, abs=0.03)
    wrong = invoke(
        "selfcal", path, *SMALL, "--overwrite", "--model", image, "--out", "wrong", code=3
    )
    assert "not Jy/pixel" in wrong.stderr


def run_until(path: Path, text: str, how: signal.Signals) -> int:
    """Start selfcal in a process of its own, and stop it when stderr shows ``text``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "peelkit", "selfcal", str(path), *map(str, SMALL)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=path.parent,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            time.sleep(0.7)  # into the next round
            process.send_signal(how)
            break
    process.stderr.read()
    process.stderr.close()
    return process.wait(60)


# SIGTERM takes the same way as SIGINT: one of them each time would cost a minute.
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_the_ms_and_goes_on(
    invoke, calibrated: Calibrated, tmp_path: Path, how: signal.Signals
) -> None:
    path = tmp_path / "a.ms"
    small_ms(path)
    code = run_until(path, "round 1", how)
    assert code == (130 if how != signal.SIGKILL else -9)
    assert "CORRECTED_DATA" not in names(path) and journal.steps(path) == []
    assert not Path(f"{path}.selfcal.peelkit.json").exists()
    other = invoke("selfcal", path, *SMALL, "--robust", "0", code=3)
    assert "interrupted run with other parameters" in other.stderr
    # Nor is it gone on with on other data.
    with table(str(path), readonly=False, ack=False) as main:
        flag = main.getcell("FLAG", 7)
        main.putcell("FLAG", 7, ~flag)
    assert "have changed since" in invoke("selfcal", path, *SMALL, code=3).stderr
    with table(str(path), readonly=False, ack=False) as main:
        main.putcell("FLAG", 7, flag)
    # --overwrite is for what was there before, not for a run to go on with.
    second = invoke("selfcal", path, *SMALL, *(["--overwrite"] if how == signal.SIGTERM else []))
    assert "going on with the interrupted run" in second.stderr
    assert "round 1:" not in second.stderr  # it was done before
    # The same as without an interruption.
    whole = results(calibrated.path)
    assert results(path)["final"]["rms_jy_beam"] == pytest.approx(
        whole["final"]["rms_jy_beam"], rel=0.02
    )
    assert len(results(path)["rounds"]) == len(whole["rounds"])
    for name, values in calibrated.before.items():
        assert np.array_equal(column(path, name), values)


def test_plots_are_made(invoke, point_ms: Path, copy_ms) -> None:
    path = copy_ms(point_ms)
    invoke(
        "selfcal",
        path,
        "--imsize",
        160,
        "--cell",
        "1.5arcsec",
        "--solint",
        "inf",
        "--solint",
        "inf",
        "--calmode",
        "p",
        "--calmode",
        "ap",
    )
    plots = {Path(item).name for item in results(path)["plots"]}
    assert {"rounds.png", "images.png", "gain1.p.inf.phase.png", "gain1.p.inf.snr.png"} <= plots
    for item in results(path)["plots"]:
        assert Path(item).read_bytes().startswith(b"\x89PNG")
