"""Polarised sources in self-calibration: the difference of the hands is kept, or taken for gains."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import LATITUDE, LONGITUDE, MsRecipe, make_ms
from peelkit.core.horizon import parallactic_angle_rad
from peelkit.errors import DataError
from peelkit.io.image import read_image

SMALL = ("--imsize", 80, "--cell", "1.5arcsec", "--no-plots", "--overwrite")
SIGMA = 0.05
# Q / I = 0.3 in the frame of the feeds: XX 1.3 Jy, YY 0.7 Jy.
POLARISED = MsRecipe(
    n_antenna=12, n_scan=2, n_time=4, n_chan=(2,), phase_rms_deg=12, same_hands=True, sigma_jy=SIGMA,
    linear_feeds=True, polarised=(0.3, 0.0, 0.0), seed=4,
)  # fmt: skip


def hands(path: str) -> np.ndarray:
    """Mean of the corrected visibilities of a point, for each hand [Jy]."""
    with table(path, ack=False) as main:
        return main.getcol("CORRECTED_DATA").mean(axis=(0, 1)).real


def results(name: str) -> dict:
    return json.loads(Path(f"{name}.selfcal.peelkit.json").read_text())["results"]


@pytest.mark.casa
@pytest.mark.slow
def test_a_model_of_i_and_q_keeps_the_ratio_of_the_hands(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", POLARISED)
    ratio, model = {}, {}
    # Amplitudes drive the hands to the model at once; a model of I and Q wants phases first.
    for stokes, gaintype, modes in (
        ("I", "G", ["ap"]), ("IQ", "G", ["p", "ap"]), ("I", "T", ["ap"]),
    ):  # fmt: skip
        ladder = [word for mode in modes for word in ("--solint", "inf", "--calmode", mode)]
        invoke(
            "selfcal", "a.ms", *SMALL, "--out", f"{stokes}.{gaintype}", "--stokes", stokes,
            *ladder, "--gaintype", gaintype, "--flux-range", 0.5, 2,
        )  # fmt: skip
        rounds = results("a.ms")["rounds"]
        assert [item["accepted"] for item in rounds] == [True] * len(modes)
        xx, yy = hands("a.ms")
        ratio[stokes, gaintype] = xx / yy
        with table("a.ms", ack=False) as main:
            model[stokes, gaintype] = main.getcol("MODEL_DATA").mean(axis=(0, 1)).real
            residual = main.getcol("CORRECTED_DATA") - main.getcol("MODEL_DATA")
        if stokes == "IQ":
            assert np.std(residual.real) == pytest.approx(SIGMA, rel=0.1)
    # 720 visibilities of S/N 20 a hand give the ratio to 0.3 %; the model of a cleaned image to 1 or 2 %.
    assert ratio["IQ", "G"] == pytest.approx(1.3 / 0.7, rel=0.03)
    assert ratio["I", "T"] == pytest.approx(1.3 / 0.7, rel=0.01)
    # The model says that both hands are alike, and so they become.
    assert ratio["I", "G"] == pytest.approx(1.0, abs=0.03)
    # The flux scale is that of the first clean models, 1.6 % low here.
    assert model["IQ", "G"] == pytest.approx([1.3, 0.7], rel=0.03)
    assert model["I", "T"] == pytest.approx([1.0, 1.0], rel=0.03)


@pytest.mark.casa
@pytest.mark.slow
def test_parallactic_angle_is_taken_out_with_four_correlations(invoke, tmp_path: Path) -> None:
    recipe = MsRecipe(
        n_antenna=10, n_scan=3, n_time=4, scan_gap_s=1500, n_chan=(2,), n_corr=4, phase_rms_deg=25,
        same_hands=True, sigma_jy=SIGMA, polarised=(0.2, 0.1, 0.0), seed=6,
    )  # fmt: skip
    path = tmp_path / "a.ms"
    angles = turn_feeds(path, make_ms(path, recipe)["times"])
    turned = np.angle(np.exp(2j * (angles[-1] - angles[0])))
    assert abs(turned) > 0.4
    for option in ("--parang", "--no-parang"):
        shown = invoke(
            "selfcal", "a.ms", *SMALL, "--out", option[2:], "--stokes", "IQUV", option, "--solint", "inf",
            "--flux-range", 0.5, 2,
        )  # fmt: skip
        assert ("parallactic angle runs through" in shown.stderr) == (option == "--no-parang")
        with table(str(path), ack=False) as main:
            corrected, model = main.getcol("CORRECTED_DATA"), main.getcol("MODEL_DATA")
            scan = main.getcol("SCAN_NUMBER")
        rl = np.array([corrected[scan == number, :, 1].mean() for number in (1, 2, 3)])
        # 360 visibilities a scan of S/N 4.5: 0.7 deg. Gains of both hands are the same, and so is their phase.
        left = np.angle(rl[-1] / rl[0])
        if option == "--parang":
            assert left == pytest.approx(0, abs=0.05)
            assert rl == pytest.approx(0.2 + 0.1j, abs=0.02)
            assert np.std((corrected - model)[..., 1].real) == pytest.approx(SIGMA, rel=0.05)
        else:
            assert abs(left) == pytest.approx(abs(turned), abs=0.05)


def turn_feeds(path: Path, times: np.ndarray) -> np.ndarray:
    """Give RL and LR the parallactic angle: ``P = diag(exp(-i chi), exp(i chi))``; returns chi by time."""
    gmst = 2 * np.pi * ((times / 86400 - 51544.5) * 1.00273790935 + 0.7790572732640)
    angles = parallactic_angle_rad(LATITUDE, gmst + LONGITUDE - 2.0, math.radians(30.0))
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        chi = angles[np.searchsorted(times, main.getcol("TIME"))][:, None]
        data[..., 1] *= np.exp(-2j * chi)
        data[..., 2] *= np.exp(2j * chi)
        main.putcol("DATA", data)
    return angles


def test_what_cannot_be_is_refused_in_one_line(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_scan=1, n_time=2, linear_feeds=True))
    assert "--stokes IV: XX,YY do not hold V" in invoke("selfcal", "a.ms", "--stokes", "IV", code=2).stderr  # fmt: skip
    assert "--parang: spw 0 has XX,YY" in invoke("selfcal", "a.ms", "--parang", code=2).stderr


@pytest.mark.casa
def test_other_commands_take_plane_i_of_a_polarised_image(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", POLARISED)
    invoke(
        "selfcal", "a.ms", *SMALL, "--stokes", "IQ", "--solint", "inf", "--flux-range", 0.5, 2,
    )  # fmt: skip
    final = Path("a.selfcal/final.image")
    plane = read_image(final)
    assert plane.stokes == ("I", "Q") and plane.beam is not None
    assert np.nanmax(read_image(final, "Q").data) == pytest.approx(
        0.3 * np.nanmax(plane.data), rel=0.1
    )
    with pytest.raises(DataError, match="no plane of Stokes V"):
        read_image(final, "V")
    invoke("image-residual", "a.ms", "again", "--column", "CORRECTED_DATA", "--like", final)
    assert np.nanmax(read_image(Path("again.image")).data) == pytest.approx(np.nanmax(plane.data), rel=1e-3)  # fmt: skip
    Path("r.reg").write_text('fk5\ncircle(114.5916,30.0,20")\n')
    shown = invoke("predict-region", "a.ms", "--image", final, "--regions", "r.reg", "--all-column")
    assert "has Stokes I,Q; only I is predicted" in shown.stderr
    with table("a.ms", ack=False) as main:
        name = next(name for name in main.colnames() if name.startswith("BRIGHT"))
        both = main.getcol(name)
    assert np.array_equal(both[..., 0], both[..., 1]) and np.abs(both).mean() > 0.9
    refused = invoke(
        "predict-region", "a.ms", "--image", final, "--regions", "r.reg", "--predictor", "tclean",
        "--overwrite", code=2,
    ).stderr  # fmt: skip
    assert "use ducc" in refused
