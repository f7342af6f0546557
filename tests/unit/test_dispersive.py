"""Delays and TEC against gains by formula: values, errors, and that noise is not believed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from peelkit.core.dispersive import KINDS, TEC_RAD_HZ, Cross, Design
from peelkit.core.dispersive_fit import Fit, fit

N_ANTENNA = 10
# 32 channels each: 300 to 500 MHz, and two spws with 1 to 2 GHz between their ends.
LOW = 300e6 + np.arange(32) * 6.25e6
WIDE = np.concatenate([1e9 + np.arange(16) * 10e6, 1.84e9 + np.arange(16) * 10e6])


def truth(design: Design, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = {"tec": 0.3, "delay": 5.0, "offset": 1.5}
    x = rng.normal(size=(N_ANTENNA, len(design.names))) * [size[name] for name in design.names]
    x[0] = 0
    return x


def observe(design: Design, x: np.ndarray, *, sigma: float, flux: float, seed: int) -> Cross:
    rng = np.random.default_rng(seed)
    cross = Cross.empty(N_ANTENNA, design.freq_hz.size, 2)
    g = np.exp(1j * design.phases(x))
    for _ in range(4):
        noise = rng.normal(0, sigma, (2, *cross.product.shape))
        vis = flux * g[cross.antenna1] * g[cross.antenna2].conj() + noise[0] + 1j * noise[1]
        cross.product[...] += vis / sigma**2
        cross.data[...] += (np.abs(vis) ** 2).sum(axis=1) / sigma**2
        cross.model[...] += design.freq_hz.size / sigma**2
        cross.samples[...] += design.freq_hz.size
    return cross


def solved(
    kind: str, freq: np.ndarray, *, sigma: float, seed: int = 1
) -> tuple[Design, np.ndarray, Fit]:
    design = Design.of(kind, freq, 2)
    x = truth(design, seed)
    cross = observe(design, x, sigma=sigma, flux=1.0, seed=seed + 100)
    return design, x, fit(cross, design, [0], minsnr=3.0, n_antenna=N_ANTENNA)


def test_a_tecu_turns_the_phase_by_a_hand_worked_number() -> None:
    # e^2 / (4 pi eps0 m_e c) is the classical electron radius times c: 2.8179403e-15 m x 2.99792458e8 m/s.
    by_hand = -2.8179403e-15 * 2.99792458e8 * 1e16
    assert pytest.approx(by_hand, rel=1e-6) == TEC_RAD_HZ
    design = Design.of("tec_and_offset", np.array([1e9, 2e9]), 1)
    assert design.phases(np.array([[1.0, 0.5]]))[0, :, 0] == pytest.approx([0.5 - 8.44797, 0.5 - 4.22399], abs=1e-4)  # fmt: skip


@pytest.mark.parametrize("freq", [LOW, WIDE], ids=["300-500 MHz", "two spws in 1-2 GHz"])
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_the_truth_within_their_errors(kind: str, freq: np.ndarray) -> None:
    pulls = []
    for seed in range(1, 4):
        design, x, found = solved(kind, freq, sigma=0.5, seed=seed)
        assert not found.failed.any() and found.reference == 0
        off = found.x - x
        for k in design.which("offset"):
            off[:, k] = (off[:, k] + np.pi) % (2 * np.pi) - np.pi
        pulls.append(off[1:] / found.error[1:])
    # Numbers of standard deviation 1, alike within an antenna and between antennas (the reference's noise):
    # of three truths, each of which counts as two or three numbers, the rms is within 1 +- 0.4.
    assert 0.6 < np.sqrt(np.mean(np.array(pulls) ** 2)) < 1.4
    assert np.abs(pulls).max() < 4.5
    # A sum over 9 baselines, 32 channels and 4 times of 1 Jy with 0.5 Jy of noise.
    assert np.median(found.snr) == pytest.approx(math.sqrt(9 * 32 * 4) / 0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["tec_and_offset", "delay_and_offset", "delay"])
def test_phases_are_right_where_a_baseline_alone_has_no_signal(kind: str) -> None:
    # S/N per baseline 2.8, per antenna 8.5: no baseline shows a fringe.
    _, _, strong = solved(kind, LOW, sigma=0.1)
    assert not strong.failed.any()
    design = Design.of(kind, LOW, 2)
    x = 0.2 * truth(design, 5)
    cross = observe(design, x, sigma=4.0, flux=1.0, seed=5)
    found = fit(cross, design, [0], minsnr=3.0, n_antenna=N_ANTENNA)
    off = np.angle(np.exp(1j * (design.phases(found.x) - design.phases(x))))
    assert np.median(found.snr) == pytest.approx(8.5, rel=0.25)
    # Two or three parameters, each of error 1/8.5, and the reference antenna's: 0.3 rad.
    assert np.std(off[1:]) < 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_not_believed(kind: str) -> None:
    design = Design.of(kind, LOW, 2)
    # Delay and TEC together are searched for in a plane, which takes seconds.
    times = 2 if {"delay", "tec"} <= set(design.names) else 5
    believed = 0
    for seed in range(times):
        cross = observe(design, truth(design, seed), sigma=1.0, flux=0.0, seed=seed)
        believed += int((~fit(cross, design, [0], minsnr=3.0, n_antenna=N_ANTENNA).failed).sum())
    # 20 solutions each time; the S/N of a place searched for in noise is over 5 in a few of 100.
    assert believed <= 1 + times


def test_amplitudes_and_scale_of_the_weights_do_not_matter() -> None:
    design = Design.of("delay_and_offset", LOW, 2)
    x = truth(design, 3)
    cross = observe(design, x, sigma=0.5, flux=1.0, seed=4)
    one = fit(cross, design, [0], minsnr=3.0, n_antenna=N_ANTENNA)
    scaled = replace(
        cross, product=1e-3 * cross.product, model=1e-3 * cross.model, data=1e-3 * cross.data
    )
    two = fit(scaled, design, [0], minsnr=3.0, n_antenna=N_ANTENNA)
    assert two.x == pytest.approx(one.x, abs=1e-6)
    assert two.snr == pytest.approx(one.snr, rel=1e-6)
    # Data in other units than the model: V is 100 times as large.
    raw = replace(cross, product=1e2 * cross.product, data=1e4 * cross.data)
    three = fit(raw, design, [0], minsnr=3.0, n_antenna=N_ANTENNA)
    assert three.snr == pytest.approx(one.snr, rel=1e-6)


def test_an_antenna_without_data_fails_and_another_reference_is_taken() -> None:
    design = Design.of("tec_and_offset", LOW, 2)
    x = truth(design, 6)
    cross = observe(design, x, sigma=0.2, flux=1.0, seed=7)
    dead = (cross.antenna1 == 0) | (cross.antenna2 == 0)
    for array in (cross.product, cross.model, cross.data, cross.samples):
        array[dead] = 0
    found = fit(cross, design, [0, 4], minsnr=3.0, n_antenna=N_ANTENNA)
    assert found.reference == 4
    assert found.failed[0].all() and not found.failed[1:].any()
    off = (found.x - (x - x[4]))[1:, 0] / np.where(np.arange(1, 10) == 4, 1, found.error[1:, 0])
    assert np.abs(off).max() < 4
