"""Gains against the truth: what self-calibration cannot know does not count, all else does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gains_truth

RNG = np.random.default_rng(4)
SETTING = gains_truth.Setting(
    np.arange(20) * 10.0, np.array([2.5e9, 3.5e9]), RNG.uniform(-2000, 2000, (12, 3))
)
SHAPE = (20, 12, 2, 2)


def gains(phase_rad: float, amplitude: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(amplitude * rng.normal(size=SHAPE) + 1j * phase_rad * rng.normal(size=SHAPE))


def test_the_error_is_the_rms_of_the_ratio() -> None:
    truth = gains(0.5, 0.1, 1)
    solved = truth * gains(0.03, 0.04, 2)
    assert gains_truth.error(truth, solved, SETTING) == pytest.approx(0.05, rel=0.1)
    assert gains_truth.error(truth, truth, SETTING) == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_known_is_no_error() -> None:
    truth = gains(0.3, 0.1, 1)
    shift = 0.3 * SETTING.place_m @ np.array([0.7, -0.4, 0.2]) / 2000
    position = np.exp(1j * shift[None, :, None, None] * SETTING.freq_hz / 3e9)
    reference = np.exp(1j * RNG.uniform(-3, 3, (20, 1, 2, 2)))
    scale = np.array([1.1, 0.9])
    solved = truth * position * reference * scale
    assert gains_truth.error(truth, solved, SETTING) < 1e-3
    # A gradient that comes and goes is an error.
    moving = np.exp(1j * shift[None, :, None, None] * np.sin(np.arange(20))[:, None, None, None])
    assert gains_truth.error(truth, truth * moving, SETTING) > 0.05


def test_the_truth_is_the_gain_towards_what_dominates() -> None:
    zero = np.zeros((20, 12, 2))
    pointing = zero.copy()
    pointing[:, 3, 0] = 120.0
    truth = {
        "beam": "gaussian",
        "reference_hz": 3e9,
        "fields": [{"ra_deg": 0.0, "dec_deg": 0.0}],
        "sources": [
            {"ra_deg": 0.1, "dec_deg": 0.0, "apparent_flux_jy": [9.0]},
            {"ra_deg": -0.1, "dec_deg": 0.0, "apparent_flux_jy": [0.01]},
        ],
        "gains": {"phase_deg": zero + 10, "delay_ns": zero, "amplitude": zero + 1, "dispersive_deg": zero,
                  "pointing_arcsec": pointing, "squint_arcsec": np.zeros((20, 2))},
    }  # fmt: skip
    found = gains_truth.true_gains(truth, SETTING)
    assert np.angle(found) == pytest.approx(np.full(SHAPE, np.radians(10)))
    assert np.abs(found[:, 4]) == pytest.approx(np.ones((20, 2, 2)))
    # The beam of antenna 3 points nearer to the source by 2 of its 6 arcmin; the faint source on the other side does not count.
    width = 14.0 * 3e9 / SETTING.freq_hz
    wanted = 2 ** (-2 * (4**2 - 6**2) / width**2)
    assert np.abs(found[0, 3, 0]) == pytest.approx(wanted, rel=2e-3)


def test_rounds_are_judged_one_on_top_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = gains(0.5, 0.1, 1)
    phases, wrong, amplitudes = np.exp(1j * np.angle(truth)), gains(0.9, 0, 8), np.abs(truth)
    made = {"p1": phases, "p2": wrong, "ap1": amplitudes}
    rounds = [
        {
            "calmode": mode,
            "solint": "int",
            "caltable": name,
            "spwmap": [],
            "accepted": yes,
            "reason": "",
        }
        for name, mode, yes in (("p1", "p", True), ("p2", "p", False), ("ap1", "ap", True))
    ]
    for name in made:
        (tmp_path / name).mkdir()
    (tmp_path / "s.json").write_text(json.dumps({"results": {"rounds": rounds}}))
    monkeypatch.setattr(gains_truth, "read_setting", lambda *_: SETTING)
    monkeypatch.setattr(gains_truth, "true_gains", lambda *_: truth)
    monkeypatch.setattr(
        gains_truth,
        "applied",
        lambda tables, _: np.prod([made[path.name] for path, _ in tables], axis=0),
    )
    one, two, three = gains_truth.judge_rounds(tmp_path, tmp_path / "s.json", {})
    assert (one["nearer"], two["nearer"], three["nearer"]) == (True, False, True)
    # The round that was taken back leaves no trace; amplitudes come on top of the phases.
    assert two["before"] == three["before"] == one["after"] == pytest.approx(0.1, rel=0.1)
    assert three["after"] == pytest.approx(0, abs=1e-6)
