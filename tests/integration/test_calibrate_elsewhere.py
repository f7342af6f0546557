"""Calibrations of several executions, flux scales and frames: what must not be mixed up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table
from click.testing import CliRunner

from makems import MsRecipe, make_ms
from peelkit.cli.main import cli

pytestmark = pytest.mark.casa

SMALL = {"n_antenna": 7, "n_time": 3, "sigma_jy": 0.02}


def results(path: str) -> dict:
    return json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]


def column(path: str, name: str) -> np.ndarray:
    with table(path, ack=False) as main:
        return main.getcol(name)


def corrected(path: str) -> dict[int, complex]:
    """Mean of CORRECTED_DATA of each spw: 1 where the gains are right."""
    data, spw = column(path, "CORRECTED_DATA"), column(path, "DATA_DESC_ID")
    return {int(one): complex(data[spw == one].mean()) for one in np.unique(spw)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with raw.ms of two executions whose spws 0, 1 and 2, 3 have the same frequencies, calibrated."""
    folder = tmp_path_factory.mktemp("two")
    recipe = MsRecipe(
        n_scan=2, n_chan=(2, 2, 2, 2), executions=2, phase_rms_deg=80, amplitude_rms=0.2, seed=4,
        **SMALL,
    )  # fmt: skip
    make_ms(folder / "raw.ms", recipe)
    with table(f"{folder}/raw.ms/SPECTRAL_WINDOW", readonly=False, ack=False) as sub:
        for name in ("CHAN_FREQ", "REF_FREQUENCY"):
            for row in (0, 1):
                sub.putcell(name, row + 2, sub.getcell(name, row))
    shutil.copytree(folder / "raw.ms", folder / "x.ms")
    words = ["--model", "point:1Jy", "--term", "B", "--term", "G", "--no-plots"]
    result = CliRunner().invoke(
        cli, ["selfcal", f"{folder}/x.ms", *words, "--out", f"{folder}/x.cal"],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder


def test_each_execution_gets_its_own_gains_elsewhere(invoke, two: Path) -> None:
    shutil.copytree(two / "raw.ms", "y.ms")
    said = invoke("selfcal", "y.ms", "--apply", two / "x.cal")
    applied = results("y.ms")["applied"][0]
    assert applied["spwmap"] == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert applied["interp"] == ["nearestperobs", "linearperobs"]
    assert "told apart by time" in said.stdout
    # Noise of a spw's mean: 0.02 / sqrt(21 baselines x 3 times x 2 channels x 2 hands) Jy.
    assert all(abs(value - 1) < 0.01 for value in corrected("y.ms").values())


def test_a_copy_of_one_execution_gets_the_gains_of_that(invoke, two: Path) -> None:
    with table(f"{two}/raw.ms", ack=False) as main:
        main.query("OBSERVATION_ID == 1").copy("late.ms", deep=True).close()
    # Numbered anew, as by split; the spws stay as they were.
    with table("late.ms", readonly=False, ack=False) as main:
        main.putcol("OBSERVATION_ID", np.zeros(main.nrows(), dtype=np.int32))
        main.putcol("DATA_DESC_ID", main.getcol("DATA_DESC_ID") - 2)
    invoke("selfcal", "late.ms", "--apply", two / "x.cal")
    assert results("late.ms")["applied"][0]["spwmap"][1][:2] == [2, 3]
    assert all(abs(value - 1) < 0.01 for value in corrected("late.ms").values())
    record = Path("late.ms.selfcal.peelkit.json")
    shutil.copy(record, "applied.json")
    again = invoke("selfcal", "late.ms", "--apply", "applied.json", "--overwrite", code=3)
    assert "made no tables of its own" in again.stderr and "G.cal" in again.stderr


def test_spws_are_combined_in_each_execution(invoke, two: Path) -> None:
    shutil.copytree(two / "raw.ms", "y.ms")
    invoke(
        "selfcal", "y.ms", "--model", "point:1Jy", "--term", "G", "--combine", "spw", "--no-plots",
        "--interp", "linear", "--out", "y.cal",
    )  # fmt: skip
    assert results("y.ms")["applied"][0]["spwmap"] == [[0, 0, 2, 2]]
    # The interpolation that was asked for is the calibrator's too.
    assert results("y.ms")["applied"][0]["interp"] == ["linearperobs"]
    # All spws of one execution have the same gains here.
    assert all(abs(value - 1) < 0.01 for value in corrected("y.ms").values())


def test_a_bandpass_is_interpolated_as_asked(invoke, two: Path) -> None:
    shutil.copytree(two / "raw.ms", "y.ms")
    invoke("selfcal", "y.ms", "--apply", two / "x.cal", "--interp", "linearperobs")
    assert results("y.ms")["applied"][0]["interp"] == ["linearperobs", "linearperobs"]


def test_a_table_that_casa_cannot_read_leaves_no_interrupted_run(invoke, two: Path) -> None:
    shutil.copytree(two / "raw.ms", "y.ms")
    shutil.copytree(two / "x.cal" / "G.cal", "bad.cal")
    shutil.rmtree("bad.cal/OBSERVATION")
    invoke("selfcal", "y.ms", "--apply", "bad.cal", code=4)
    assert not Path("y.applied/work.ms").exists()
    assert not Path("y.applied/state.json").exists()
    invoke("selfcal", "y.ms", "--apply", two / "x.cal" / "G.cal")


# True fluxes of the two sources, which take turns.
FLUX_JY = {0: 1.0, 1: 4.0}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an MS of two sources of which the first is calibrated, with and without a bandpass."""
    folder = tmp_path_factory.mktemp("pair")
    make_ms(
        folder / "x.ms", MsRecipe(n_scan=2, n_field=2, n_chan=(4, 4), amplitude_rms=0.1, **SMALL)
    )
    with table(f"{folder}/x.ms", readonly=False, ack=False) as main:
        flux = np.array(list(FLUX_JY.values()))[main.getcol("FIELD_ID")][:, None, None]
        main.putcol("DATA", (main.getcol("DATA") * flux).astype(np.complex64))
    for out, words in (
        ("plain", ["--term", "G"]), ("band", ["--term", "B", "--term", "G"]),
        ("both", ["--term", "G", "--term", "T"]), ("combined", ["--term", "G", "--combine", "spw"]),
    ):  # fmt: skip
        result = CliRunner().invoke(
            cli, ["selfcal", f"{folder}/x.ms", "--field", "0", "--model", "point:1Jy", *words,
                  "--no-plots", "--overwrite", "--out", f"{folder}/{out}",
                  "--sidecar", f"{folder}/{out}.json"],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
    return folder


@pytest.mark.parametrize(
    ("words", "flux_from", "said", "code"),
    [
        ("--term G --term T", "both", "amplitudes of one term", 2),
        ("--term G", "both", "amplitudes of one term", 2),
        ("--term B --term G", "plain/G.cal", "takes up the flux", 2),
        ("--term G --solnorm", "plain", "--solnorm", 2),
        ("--term G", "band/G.cal", "another bandpass", 3),
        ("--term T", "plain", "no amplitude gains of type T", 3),
        ("--term G", "combined", "same --combine", 3),
        ("--term G --combine spw", "plain/G.cal", "same --combine", 3),
    ],
)
def test_gains_that_do_not_compare_tell_no_flux(
    invoke, pair: Path, words: str, flux_from: str, said: str, code: int
) -> None:
    refused = invoke(
        "selfcal", pair / "x.ms", "--field", "1", "--model", "point:1Jy", *words.split(), "--no-plots",
        "--overwrite", "--out", "out", "--flux-from", pair / flux_from, code=code,
    )  # fmt: skip
    assert said in refused.stderr
    # Refused before anything is solved, or with nothing to go on with.
    assert not Path("out/state.json").exists()


@pytest.mark.parametrize(
    ("words", "reference"),
    [
        ("", "plain"),
        ("", "plain/G.cal"),
        ("", "plain.json"),
        ("--combine spw", "combined"),
        ("--pre", "band"),
    ],
)
def test_the_flux_is_found_with_the_same_solves_on_both(
    invoke, pair: Path, words: str, reference: str
) -> None:
    pre = [words, str(pair / reference)] if words == "--pre" else words.split()
    invoke(
        "selfcal", pair / "x.ms", "--field", "1", "--model", "point:1Jy", "--term", "G", *pre, "--no-plots",
        "--overwrite", "--out", "out", "--flux-from", pair / reference, "--sidecar", "out.json",
    )  # fmt: skip
    record = json.loads(Path("out.json").read_text())["results"]
    # Gain errors of 0.02 Jy / sqrt(6 baselines x 3 times x 4 channels) = 0.2 % on 1 Jy, of 14 gains.
    assert [item["flux_jy"] for item in record["flux"]] == pytest.approx([4, 4], rel=0.01)
    assert [item["amplitude_ratio"] for item in record["check"]] == pytest.approx([1, 1], abs=2e-3)


def test_the_parallactic_angle_of_the_solve_is_that_of_the_apply(invoke, tmp_path: Path) -> None:
    recipe = MsRecipe(n_scan=1, n_chan=(2,), n_corr=4, polarised=(0.1, 0.05, 0.0), phase_rms_deg=40,
                      **SMALL)  # fmt: skip
    make_ms(tmp_path / "x.ms", recipe)
    shutil.copytree("x.ms", "y.ms")
    common = ("--model", "point:1Jy", "--term", "G", "--no-plots")
    invoke("selfcal", "x.ms", *common, "--parang", "--out", "x.cal")
    for tables in ("x.cal/G.cal", "x.ms.selfcal.peelkit.json"):
        invoke("selfcal", "y.ms", "--apply", tables, "--overwrite")
        assert results("y.ms")["parang"] is True
        here, there = (column(path, "CORRECTED_DATA") for path in ("y.ms", "x.ms"))
        assert np.allclose(here, there, atol=1e-5)
    refused = invoke("selfcal", "y.ms", "--apply", "x.cal", "--no-parang", "--overwrite", code=2)
    assert "was solved with it" in refused.stderr
    mixed = invoke(
        "selfcal", "y.ms", *common, "--pre", "x.cal", "--out", "z.cal", "--overwrite", code=2
    )
    assert "was solved with --parang" in mixed.stderr
    shutil.copytree("x.cal/G.cal", "alone.cal")
    said = invoke("selfcal", "y.ms", "--apply", "alone.cal", "--overwrite")
    assert "nothing is known of how these tables were solved" in said.stdout


def test_data_of_one_hand_have_no_failed_second_one(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "x.ms", MsRecipe(n_scan=1, n_chan=(8,), n_corr=1, **SMALL))
    said = invoke(
        "selfcal", "x.ms", "--model", "point:1Jy", "--term", "B", "--term", "G", "--out", "x.cal", "--no-plots"
    )  # fmt: skip
    terms = results("x.ms")["terms"]
    assert [(t["solutions"], t["solutions_failed"]) for t in terms] == [(7 * 8, 0), (7, 0)]
    assert terms[0]["helper"]["solint"] == "int"
    assert "failed: the data" not in said.stderr


def test_a_refused_calibration_is_none_to_apply(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "x.ms", MsRecipe(n_scan=1, n_chan=(1,), **{**SMALL, "flux_jy": 0.0}))
    invoke(
        "selfcal", "x.ms", "--model", "point:1Jy", "--term", "G", "--minsnr", "50", "--out", "x.cal",
        "--no-plots", code=5,
    )  # fmt: skip
    assert not Path("x.cal/calibration.json").exists()


def test_a_list_of_flags_that_is_wrong_leaves_no_interrupted_run(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "x.ms", MsRecipe(n_scan=1, n_chan=(1,), **SMALL))
    Path("flags.txt").write_text("mode='manual' antenna='nowhere'\n")
    invoke("selfcal", "x.ms", "--flag-list", "flags.txt", "--imsize", "64", code=3)
    assert not Path("x.selfcal/work.ms").exists()
    assert not Path("x.selfcal/state.json").exists()
