"""Rounds that bring gains nearer to the truth are kept, and those that fit noise or a wrong model are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.casa, pytest.mark.slow]

FIELD = ("--config", "D", "--spws", 1, "--integrations", 12, "--seed", 1, "--quiet")
# Every round is tried, whatever S/N its solutions have.
ANY = ("--phase-snr", 1, "--amplitude-snr", 1, "--minsnr", 1, "--no-plots")


def rounds_of(path: Path) -> list[dict]:
    text = Path(f"{path}.selfcal.peelkit.json").read_text()
    return json.loads(text)["results"]["rounds"]


def test_artefacts_in_the_mask_are_no_flux_that_is_missed(invoke, tmp_path: Path) -> None:
    # The source has 3.16 Jy through the beam; the mask of the first image 4.6.
    path = tmp_path / "a.ms"
    invoke(
        "simulate", path, *FIELD, "--channels", 4, "--bright", "6@5.5,4", "--faint", 10
    )  # fmt: skip
    invoke("selfcal", path, "--solint", "inf", "--solint", "60s", "--no-plots")
    one, two = rounds_of(path)
    assert one["accepted"] and two["accepted"]
    # Flux in the mask falls by more than --flux-range allows, and was not there.
    assert one["flux_jy"] < 0.95 * one["before"]["flux_jy"]
    assert one["before"]["flux_jy"] > 1.3 * 3.16
    assert two["peak_jy_beam"] == pytest.approx(3.16, rel=0.05)
    assert two["cross_validation"]["gain"] > 0


def test_noise_that_is_fitted_is_caught_though_the_image_is_no_worse(
    invoke, tmp_path: Path
) -> None:
    # 25 mJy, amplitudes of 5 %: the noise of an amplitude is 1/16 in one integration, and 1/51 in all.
    path = tmp_path / "b.ms"
    invoke(
        "simulate", path, *FIELD, "--channels", 2, "--bright", "0.025@0.5,0.3", "--faint", 0
    )  # fmt: skip
    invoke(
        "selfcal", path, *ANY, "--solint", "inf", "--solint", "inf", "--solint", "int",
        "--calmode", "p", "--calmode", "ap", "--calmode", "ap",
    )  # fmt: skip
    phases, all_amplitudes, single = rounds_of(path)
    assert phases["accepted"] and all_amplitudes["accepted"]
    assert not single["accepted"] and "baselines left out" in single["reason"]


def test_gains_of_a_wrong_model_are_refused(invoke, tmp_path: Path) -> None:
    # Hardly any errors; the mask and so the model have one of three sources.
    path, mask = tmp_path / "c.ms", tmp_path / "core.crtf"
    invoke(
        "simulate", path, *FIELD, "--channels", 2, "--bright", "0.5@0.5,0.3", "--bright", "0.4@3,-2",
        "--bright", "0.3@-3,3", "--faint", 0, "--phase-rms", 2, "--amplitude-rms", 0.005,
        "--delay-rms", 0,
    )  # fmt: skip
    truth = json.loads(Path(f"{path}.truth.json").read_text())
    first = truth["sources"][0]
    mask.write_text(
        f"#CRTFv0\ncircle[[{first['ra_deg']}deg, {first['dec_deg']}deg], 60arcsec], coord=ICRS\n"
    )
    refused = invoke(
        "selfcal", path, *ANY, "--mask", mask, "--solint", "inf", "--solint", "inf", "--calmode", "p",
        "--calmode", "ap", code=5,
    )  # fmt: skip
    assert "no round helped" in refused.stderr
