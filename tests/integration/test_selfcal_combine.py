"""Combining spws, executions, lines; flux that the model lacks; weak sources left out: against the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.io.image import read_image
from peelkit.io.region import read_regions, region_mask

pytestmark = pytest.mark.casa

SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-plots")


def made(path: Path, **changes: object) -> MsRecipe:
    recipe = MsRecipe(
        **{
            "n_antenna": 12, "n_scan": 2, "n_time": 6, "phase_rms_deg": 30.0, "sigma_jy": 0.05,
            "seed": 11, **changes,
        }
    )  # fmt: skip
    make_ms(path, recipe)
    return recipe


def results(path: Path) -> dict:
    return json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]


def residual_sigma(path: Path, spw: int) -> float:
    """Scatter of CORRECTED_DATA about MODEL_DATA in one spw."""
    with table(str(path), ack=False) as main:
        mine = main.query(f"DATA_DESC_ID=={spw}")
        difference = mine.getcol("CORRECTED_DATA") - mine.getcol("MODEL_DATA")
    return float(np.std(difference.real))


def test_executions_with_own_spws_are_each_calibrated_by_their_own(invoke, tmp_path: Path) -> None:
    # The gains differ from scan to scan, and so from one execution to the other.
    path = tmp_path / "two.ms"
    made(path, n_chan=(2, 2, 2, 2), executions=2, n_scan=4)
    invoke("selfcal", path, *SMALL, "--solint", "inf", "--combine", "spw")
    found = results(path)
    assert found["spwmap"] == [[0, 0, 2, 2]]
    assert found["interp"] == ["linearperobs"]
    # 1 degree of freedom in 12 went into phases.
    for spw in range(4):
        assert residual_sigma(path, spw) == pytest.approx(0.05, rel=0.1)


def test_executions_that_disagree_about_the_position_are_named(invoke, tmp_path: Path) -> None:
    # The second one sees the source 3" east (a wrong calibrator position): 0.6 of the beam.
    path = tmp_path / "moved.ms"
    made(path, n_chan=(2, 2), executions=2, n_scan=4, phase_rms_deg=5.0)
    with table(str(path), readonly=False, ack=False) as main:
        late = main.getcol("OBSERVATION_ID") == 1
        data, u = main.getcol("DATA"), main.getcol("UVW")[:, 0]
        turn = np.exp(2j * np.pi * np.radians(3 / 3600) * u * 3.03e9 / 299792458.0)
        data[late] *= turn[late, None, None]
        main.putcol("DATA", data)
    out = invoke("selfcal", path, *SMALL, "--solint", "inf", "--flux-range", 0.5, 4)
    one, two = results(path)["executions"]
    moved = np.subtract(two["shift_arcsec"], one["shift_arcsec"])
    assert moved[0] == pytest.approx(3.0, abs=0.3) and abs(moved[1]) < 0.3
    assert "its sources lie" in out.stderr and "--model" in out.stderr


def test_where_single_spws_fail_basebands_are_combined(invoke, tmp_path: Path) -> None:
    # S/N of a phase per spw and hand: 0.3 sqrt(11 x 6 x 2) / 1.6 = 2.2, below minsnr 3; of a baseband 3.0,
    # at the edge; of all 4.3. Errors of 30 deg are twice its noise: that round is good.
    path = tmp_path / "weak.ms"
    names = ("EVLA_S#A0C0#0", "EVLA_S#A0C0#1", "EVLA_S#B0D0#2", "EVLA_S#B0D0#3")
    made(
        path, n_chan=(2, 2, 2, 2), spw_names=names, flux_jy=0.3, sigma_jy=1.6, phase_rms_deg=30.0,
        n_scan=6,
    )  # fmt: skip
    invoke(
        "selfcal",
        path,
        *SMALL,
        "--solint",
        "inf",
        "--fallback",
        "--phase-snr",
        1,
        "--max-failed",
        1,
    )
    (done,) = results(path)["rounds"]
    assert done["combine"] == "spw"
    assert [line.split(":")[0] for line in done["fell_back"][:2]] == ["G per spw", "G baseband"]
    assert done["solutions_failed"] < 0.2 * done["solutions"]
    assert not list((tmp_path / "weak.selfcal").glob("gain1.p.inf.g"))


def test_a_failing_spw_gets_the_solutions_of_the_nearest(invoke, tmp_path: Path) -> None:
    path = tmp_path / "narrow.ms"
    made(path, n_chan=(4, 4, 4, 4), spw_noise=(1, 1, 1, 300))
    out = invoke("selfcal", path, *SMALL, "--solint", "inf")
    (done,) = results(path)["rounds"]
    assert done["accepted"]
    assert done["combine"] == "" and done["spwmap"] == [0, 1, 2, 2]
    assert done["solutions_failed"] == 0
    assert done["fell_back"][0].startswith("spw 3: ")
    assert "kept G per spw, spwmap [0, 1, 2, 2]" in out.stdout


def test_data_of_one_hand_have_no_failed_solutions(invoke, tmp_path: Path) -> None:
    # CASA's tables have a second polarisation all the same, which is empty.
    path = tmp_path / "one.ms"
    made(path, n_corr=1)
    invoke("selfcal", path, *SMALL, "--solint", "inf")
    (done,) = results(path)["rounds"]
    assert done["accepted"] and done["gaintype"] == "G"
    assert (done["solutions"], done["solutions_failed"]) == (24, 0)


def test_no_fallback_leaves_the_choice_to_the_user(invoke, tmp_path: Path) -> None:
    path = tmp_path / "narrow.ms"
    made(path, n_chan=(4, 4, 4, 4), spw_noise=(1, 1, 1, 300))
    invoke("selfcal", path, *SMALL, "--solint", "inf", "--no-fallback")
    (done,) = results(path)["rounds"]
    assert done["spwmap"] == [] and done["fell_back"] == []
    assert done["solutions_failed"] > 0


def test_a_line_is_found_solved_and_applied_to_all_channels(invoke, tmp_path: Path) -> None:
    # Continuum 0.02 Jy is lost in noise; the line of 1 Jy in channels 5 and 6 calibrates them all.
    path = tmp_path / "line.ms"
    recipe = made(path, n_chan=(16,), flux_jy=0.02, line=((5, 1.0), (6, 1.0)))
    out = invoke("selfcal", path, *SMALL, "--solint", "inf", "--line")
    found = results(path)
    assert [line["ranges"] for line in found["line_channels"]] == [[[5, 6]]]
    assert found["final"]["peak_jy_beam"] == pytest.approx(1.02, abs=0.03)
    assert "line in channels 5 to 6" in out.stdout
    with table(str(path), ack=False) as main:
        data, corrected = main.getcol("DATA"), main.getcol("CORRECTED_DATA")
    mean = corrected.mean(axis=(0, 2))
    error = recipe.sigma_jy / np.sqrt(corrected.shape[0] * 2)
    assert abs(mean[5] - 1.02) < 0.02
    # The phases of the line bring the continuum of the other channels in phase too.
    others = np.delete(np.arange(16), [5, 6])
    assert np.allclose(mean[others], 0.02, atol=5 * error)
    assert not np.allclose(data, corrected)


def test_spws_without_the_line_get_its_solutions(invoke, tmp_path: Path) -> None:
    path = tmp_path / "two.ms"
    made(path, n_chan=(16, 16), flux_jy=0.05, line=((5, 1.0), (6, 1.0)))
    with table(str(path), readonly=False, ack=False) as main:
        data, spw = main.getcol("DATA"), main.getcol("DATA_DESC_ID")
        # The second spw has continuum and noise only.
        clean = data[:, [0, 1]][spw == 1]
        data[spw == 1, 5:7] = clean
        main.putcol("DATA", data)
    out = invoke("selfcal", path, *SMALL, "--solint", "inf", "--line")
    found = results(path)
    assert [line["spw"] for line in found["line_channels"]] == [0]
    assert found["spwmap"] == [[0, 0]]
    assert "spws without a line (1) get the solutions" in out.stderr
    with table(str(path), ack=False) as main:
        mine = main.getcol("DATA_DESC_ID") == 1
        mean = main.getcol("CORRECTED_DATA")[mine].mean()
        raw = main.getcol("DATA")[mine].mean()
    # Phase errors of 30 deg take a quarter of the continuum; the line's solutions bring it back.
    assert abs(raw) < 0.042
    assert mean.real == pytest.approx(0.05, abs=0.003)


def test_antennas_without_data_and_an_empty_hand_do_not_fail(invoke, tmp_path: Path) -> None:
    path = tmp_path / "fitted.ms"
    made(
        path,
        n_chan=(8,),
        n_corr=1,
        flagged_antennas=(3, 7),
        delay_ns=tuple(np.linspace(-0.03, 0.03, 12)),
    )
    invoke("selfcal", path, *SMALL, "--solint", "inf", "--gaintype", "delay_and_offset")
    (done,) = results(path)["rounds"]
    assert done["accepted"] and done["solutions_failed"] == 0


def test_more_baselines_than_an_antenna_has_are_refused(invoke, tmp_path: Path) -> None:
    path = tmp_path / "few.ms"
    made(path, n_antenna=6)
    refused = invoke("selfcal", path, "--minblperant", 6, code=2)
    assert "6 antennas have data" in refused.stderr


def test_amplitudes_are_solved_two_ways_where_the_model_lacks_flux(invoke, tmp_path: Path) -> None:
    # A core of 1 Jy in a halo of 2 Jy (Gaussian, 40" wide) that the mask leaves out.
    rng = np.random.default_rng(5)
    halo = tuple((2 / 80, *rng.normal(0, 17.0, 2)) for _ in range(80))
    path = tmp_path / "halo.ms"
    made(path, sources=halo, amplitude_rms=0.05, phase_rms_deg=10.0, n_antenna=16, radius_m=2500.0)
    (tmp_path / "core.crtf").write_text(
        "#CRTFv0\ncircle[[114.5915590261646deg, 30deg], 4arcsec] coord=J2000\n"
    )
    out = invoke(
        "selfcal", path, *SMALL, "--solint", "inf", "--solint", "inf", "--calmode", "p",
        "--calmode", "ap", "--mask", tmp_path / "core.crtf", "--flux-range", 0.8, 1.25,
    )  # fmt: skip
    done = results(path)["rounds"][-1]
    assert done["calmode"] == "ap"
    assert done["model_check"]["lacking_below_m"] > 100
    assert done["model_check"]["bins"][0]["ratio"] > 1.2
    assert [way["solnorm"] for way in done["ways"]] == [True, False]
    assert done["ways"][1]["uvrange"].startswith(">")
    assert "the model lacks flux on baselines below" in out.stdout
    assert results(path)["final"]["peak_jy_beam"] == pytest.approx(1.0, rel=0.15)


def test_a_model_that_has_all_flux_is_solved_one_way(invoke, tmp_path: Path) -> None:
    path = tmp_path / "point.ms"
    made(path, amplitude_rms=0.05, phase_rms_deg=10.0)
    invoke(
        "selfcal", path, *SMALL, "--solint", "inf", "--solint", "inf",
        "--calmode", "p", "--calmode", "ap",
    )  # fmt: skip
    done = results(path)["rounds"][-1]
    assert done["model_check"]["lacking_below_m"] is None
    assert len(done["ways"]) == 1 and done["solnorm"]


def test_a_weak_source_left_out_rises_and_an_artefact_falls(invoke, tmp_path: Path) -> None:
    path = tmp_path / "weak.ms"
    made(path, sources=((0.02, 45.0, 30.0),), phase_rms_deg=40.0)
    # Where nothing is but sidelobes, which the phase errors scatter in the first image.
    (tmp_path / "weak.crtf").write_text(
        "#CRTFv0\n"
        "circle[[114.606deg, 30.00833deg], 6arcsec] coord=J2000, label='real'\n"
        "circle[[114.571deg, 29.9917deg], 20arcsec] coord=J2000, label='nothing'\n"
    )
    out = invoke("selfcal", path, *SMALL, "--leave-out", tmp_path / "weak.crtf")
    found = {item["label"]: item for item in results(path)["left_out"]}
    assert found["real"]["verdict"] == "real"
    # Solutions that know nothing of it take up to 2 / (n - 1) of it, 18 %, with 12 antennas.
    assert found["real"]["peak_final_jy_beam"] == pytest.approx(0.018, abs=0.004)
    assert found["nothing"]["verdict"] in ("artefact", "unclear")
    assert found["nothing"]["snr_final"] < found["real"]["snr_final"] / 2
    assert "Left out, real: S/N" in out.stdout
    # It is in no model.
    model = read_image(tmp_path / "weak.selfcal" / "final.model")
    left_out = np.zeros(model.data.shape, dtype=bool)
    for region in read_regions(tmp_path / "weak.crtf", model):
        left_out |= region_mask(region, model)
    assert left_out.any() and not model.data[left_out].any()
    assert model.data.sum() == pytest.approx(1.0, abs=0.05)


def test_a_refused_run_leaves_the_folder_free_for_the_corrected_one(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    made(path)
    # Outside the image: found out when there is one.
    (tmp_path / "far.crtf").write_text("#CRTFv0\ncircle[[120deg, 30deg], 4arcsec] coord=J2000\n")
    invoke("selfcal", path, *SMALL, "--leave-out", tmp_path / "far.crtf", code=3)
    assert [item.name for item in (tmp_path / "a.selfcal").iterdir()] == ["casa.log"]
    missing = invoke("selfcal", path, *SMALL, "--leave-out", tmp_path / "none.crtf", code=3)
    assert "none.crtf" in missing.stderr
    invoke("selfcal", path, *SMALL, "--solint", "inf")
    # A folder of rounds knows no flux.
    refused = invoke(
        "selfcal", path, "--term", "G", "--model", "point:1Jy", "--flux-from",
        tmp_path / "a.selfcal", "--overwrite", code=3,
    )  # fmt: skip
    assert "no calibration on a source of known flux" in refused.stderr
    wrong = invoke("selfcal", path, *SMALL, "--combine", "fields", "--overwrite", code=2)
    assert "combine 'fields'" in wrong.stderr
