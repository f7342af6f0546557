"""The noise of visibilities, by differences in which errors of antennas and unmodelled sources cancel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peelkit.core.dd_noise import BOTH, HANDS, PLAIN, TIME, Noise, scales

N_BASE, N_TIME = 40, 50
SERIES = np.repeat(np.arange(N_BASE), N_TIME)
TIMES = np.tile(np.arange(float(N_TIME)), N_BASE)


def noise_of(rng: np.random.Generator, shape: tuple[int, ...] = (2000, 3, 2)) -> tuple:
    """White noise, and weights that are true: variance 1 / w of each component."""
    weight = rng.uniform(1, 4, shape)
    noise = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(weight)
    return noise, weight


def found(residual: np.ndarray, weight: np.ndarray, freedom: float = 0.0) -> Noise:
    noise = Noise(freedom=freedom)
    noise.add(residual, weight, SERIES, TIMES, np.random.default_rng(1))
    return noise


def test_white_noise_is_the_noise_by_every_difference(rng) -> None:
    made = found(*noise_of(rng))
    # Thousands of values: medians are known to about a per cent.
    for kind in (PLAIN, TIME, HANDS, BOTH):
        assert made.ratios[kind] == pytest.approx(1.0, abs=0.04), kind
    assert made.is_white and made.weight_scale == 1.0 and made.too_much == 1.0


@pytest.mark.parametrize("promise", [1e-3, 0.1, 10.0, 1e6])
def test_weights_of_unknown_scale_are_found_out_in_what_is_white(rng, promise: float) -> None:
    noise, weight = noise_of(rng)
    made = found(noise, promise * weight)
    assert made.ratio == pytest.approx(math.sqrt(promise), rel=0.05)
    assert made.weight_scale == pytest.approx(1 / promise, rel=0.1)
    # Before a solve only weights that are too low are known to be wrong.
    assert made.too_much == (pytest.approx(1 / promise, rel=0.1) if promise < 1 else 1.0)


def test_a_steady_drift_drops_out_in_time(rng) -> None:
    noise, weight = noise_of(rng)
    made = found(noise + 30.0 * TIMES[:, None, None], weight)
    assert made.ratios[PLAIN] > 100
    assert made.ratios[TIME] == pytest.approx(1.0, abs=0.04)


def test_a_source_without_model_drops_out_of_the_hands(rng) -> None:
    noise, weight = noise_of(rng)
    # As strong as a hundred times the noise, and of a phase that turns at random from one value to the next.
    source = 100 * np.exp(2j * np.pi * rng.random((2000, 3, 1)))
    made = found(noise + source, weight)
    assert made.ratios[TIME] > 50
    assert made.kind in (HANDS, BOTH) and made.ratio == pytest.approx(1.0, abs=0.04)
    # The scatter is no reason to call the weights wrong.
    assert not made.is_white and made.weight_scale == 1.0


def test_what_gains_took_of_the_noise_is_given_back(rng) -> None:
    noise, weight = noise_of(rng)
    # Gains that are a fifth of the numbers leave 0.8 of the variance.
    made = found(noise * math.sqrt(0.8), weight, freedom=0.2)
    assert made.ratio == pytest.approx(1.0, abs=0.04)


def test_errors_that_no_difference_cancels_are_an_upper_limit(rng) -> None:
    noise, weight = noise_of(rng)
    drift = 20.0 * np.sin(TIMES / 10)[:, None, None] * np.array([1.0, -1.0])
    # 1.5 times the noise in every difference, and not white: weights that promise less are believed.
    made = found(1.5 * noise + drift, weight)
    assert not made.is_white and 1.4 < made.ratio < 2 and made.weight_scale == 1.0
    # Ten times: they are not.
    assert found(10 * noise + 10 * drift, weight).weight_scale < 0.02


def test_hands_that_are_copies_of_each_other_tell_nothing(rng) -> None:
    noise, weight = noise_of(rng)
    made = found(np.repeat(noise[..., :1], 2, axis=-1), np.repeat(weight[..., :1], 2, axis=-1))
    assert HANDS not in made.ratios and made.ratio == pytest.approx(1.0, abs=0.04)


def test_flagged_values_and_gaps_are_left_out(rng) -> None:
    noise, weight = noise_of(rng)
    bad = rng.random(weight.shape) < 0.2
    made = found(np.where(bad, 1e6, noise), np.where(bad, 0.0, weight))
    assert made.ratio == pytest.approx(1.0, abs=0.05)


def test_fields_of_two_integrations_have_the_difference_of_the_hands(rng) -> None:
    noise, weight = noise_of(rng, (40, 3, 2))
    made = Noise()
    made.add(noise, weight, np.arange(40) // 2, np.arange(40.0) % 2, rng)
    assert set(made.ratios) == {PLAIN, HANDS}
    assert Noise().kind is None and math.isnan(Noise().ratio)
    assert scales({0: Noise()}, solved=True) == scales({0: Noise()}, solved=False) == {0: 1.0}
