"""Baselines left out of a solve tell gains from noise: against gains that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from peelkit.core import stefcal
from peelkit.core.crossval import ITERATIONS, Found, Sums, Way, compare

N_ANT, N_TIME = 15, 24
TIME = np.arange(N_TIME)
NO_GAINS = Way(TIME, "", np.zeros(24, dtype=np.int64))


def way(length: int, calmode: str = "p", **changes: bool) -> Way:
    """Solutions of so many integrations each."""
    return Way(TIME // length, calmode, np.zeros(N_TIME // length, dtype=np.int64), **changes)


def simulated(gains: NDArray[np.complex128], snr: float, *, seed: int, error: float = 0.0) -> Sums:
    """A point of 1 Jy with a S/N of each antenna and integration; ``error`` of the model on short baselines."""
    rng = np.random.default_rng(seed)
    weight = snr**2 / (N_ANT - 1)
    truth = gains[:, :, None] * np.conj(gains[:, None, :])
    if error:
        # Antennas of like number are near each other: the sky has more flux there than the model.
        apart = np.abs(np.subtract.outer(np.arange(N_ANT), np.arange(N_ANT)))
        truth = truth * (1 + error * np.exp(-apart / 2))
    noise = rng.normal(size=(2, *truth.shape))
    cross = np.triu(weight * truth + math.sqrt(weight) * (noise[0] + 1j * noise[1]), 1)
    power = np.broadcast_to(weight * (1 - np.eye(N_ANT)), truth.shape)
    return Sums(cross + np.conj(np.swapaxes(cross, 1, 2)), power.copy(), 10.0 * TIME)


def drift(rms_rad: float, *, step: int, seed: int) -> NDArray[np.complex128]:
    """Phases that run from one value to another every ``step`` integrations."""
    phases = np.random.default_rng(seed).normal(0, rms_rad, (N_TIME // step + 1, N_ANT))
    place = TIME / step
    low = place.astype(int)
    share = (place - low)[:, None]
    return np.exp(1j * ((1 - share) * phases[low] + share * phases[low + 1]))


def phase_error(sums: Sums, how: Way, truth: NDArray[np.complex128]) -> float:
    """Rms of the gains that are solved on everything, about the truth [rad]."""
    own = sums.merged(how.cells)
    solved = stefcal.solve(own.cross, own.power, iterations=ITERATIONS, calmode=how.calmode)
    found = solved[how.cells]
    off = found * np.conj(truth)
    off *= np.conj(off.mean(axis=1, keepdims=True))
    return float(np.sqrt((np.angle(off) ** 2).mean()))


@pytest.mark.parametrize("seed", range(1, 6))
def test_noise_at_a_signal_of_three_is_caught(seed: int) -> None:
    # Phases drift slowly: 8 integrations give S/N 8; one has S/N 3, and 19 deg of noise.
    truth = drift(0.4, step=24, seed=seed)
    sums = simulated(truth, 3.0, seed=seed)
    right, short = way(8), way(1)
    assert phase_error(sums, short, truth) > 2 * phase_error(sums, right, truth)
    good, bad = compare(sums, NO_GAINS, right), compare(sums, right, short)
    assert good is not None and good.gain > 0 and not good.worse
    assert bad is not None and bad.worse and "noise" in bad.text


@pytest.mark.parametrize("seed", range(1, 6))
def test_phases_that_do_change_are_followed(seed: int) -> None:
    # S/N 5, and phases that change by 40 deg from one integration to the next.
    truth = drift(0.5, step=1, seed=seed)
    sums = simulated(truth, 5.0, seed=seed)
    long, short = way(8), way(1)
    assert phase_error(sums, short, truth) < phase_error(sums, long, truth)
    found = compare(sums, long, short)
    assert found is not None and found.least_gain < 1


def test_gains_of_nothing_are_no_better_than_none() -> None:
    # A signal of half the noise: both intervals are noise, and the longer one less of it.
    truth = np.ones((N_TIME, N_ANT), dtype=np.complex128)
    sums = simulated(truth, 0.5, seed=1)
    for length in (1, 4, 24):
        found = compare(sums, NO_GAINS, way(length))
        assert found is not None and found.lead < 0 and found.least_gain > 1


def test_amplitudes_of_an_incomplete_model_are_caught() -> None:
    # Antennas have no errors; the sky has up to 40 % more on short baselines than the model.
    truth = np.ones((N_TIME, N_ANT), dtype=np.complex128)
    sums = simulated(truth, 10.0, seed=3, error=0.4)
    amplitudes = way(24, "a", normalised=True)
    found = compare(sums, NO_GAINS, amplitudes)
    assert found is not None and found.lead < 0 and found.least_gain > 1
    # Amplitudes that are wrong by 20 % are found, with the right model.
    wrong = truth * (1 + 0.2 * np.random.default_rng(4).normal(size=N_ANT))
    found = compare(simulated(wrong, 10.0, seed=3), NO_GAINS, amplitudes)
    assert found is not None and found.least_gain < 1


def test_four_antennas_are_too_few_to_leave_any_out() -> None:
    sums = simulated(drift(0.5, step=8, seed=1), 3.0, seed=1)
    few = Sums(sums.cross[:, :4, :4], sums.power[:, :4, :4], sums.time_s)
    assert compare(few, NO_GAINS, way(1)) is None


def test_no_better_than_its_error_leaves_the_word_to_the_image() -> None:
    assert Found(gain=5.0, error=15.0, old=600.0).least_gain > 1
    assert Found(gain=-14.0, error=15.0, old=600.0).least_gain > 1
    assert Found(gain=25.0, error=15.0, old=600.0).least_gain == 1
    assert Found(gain=60.0, error=15.0, old=600.0).least_gain < 1
    assert not Found(gain=-14.0, error=15.0, old=600.0).worse
    assert Found(gain=-40.0, error=15.0, old=600.0).worse
    # Better than gains that are worse than none is not enough.
    assert Found(gain=60.0, error=15.0, old=-200.0).worse


def test_the_same_way_is_neither_better_nor_worse() -> None:
    sums = simulated(drift(0.5, step=8, seed=1), 3.0, seed=1)
    found = compare(sums, way(8), way(8))
    assert found is not None and found.gain == 0 and not found.worse and found.least_gain >= 1
