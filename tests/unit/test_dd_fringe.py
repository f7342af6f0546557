"""Delays from cross-spectra: the search itself, on spectra with known delays."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.core import dd_fringe
from peelkit.core.dd_fringe import Spectra

N_ANT, N_CHAN, N_BIN = 8, 32, 3
WIDTH_HZ = 2e6


def spectra_of(
    turns: np.ndarray, rng: np.random.Generator, snr: float = 3.0, *, n_chan: int = N_CHAN
) -> Spectra:
    """Delays (antenna, hand) in turns over the spw; each channel of a baseline and bin has this S/N.

    The phase of an antenna is another one in each bin.
    """
    n_ant, n_hand = turns.shape
    one, two = np.triu_indices(n_ant, 1)
    rows = np.arange(one.size)
    sums = Spectra.empty(N_BIN, n_ant, n_chan, n_hand)
    for number in range(N_BIN):
        phase = rng.uniform(0, 1, size=(n_ant, 1, n_hand))
        angle = phase + turns[:, None] * (np.arange(n_chan) / n_chan)[:, None]
        # Weight 1 and model 1: noise of 1 in each component.
        noise = rng.normal(size=(2, one.size, n_chan, n_hand))
        vis = snr * np.exp(2j * np.pi * (angle[one] - angle[two])) + noise[0] + 1j * noise[1]
        bins = np.full(rows.size, number)
        sums.add(bins, one, two, vis, np.full((one.size, n_hand), float(n_chan)))
    return sums


def some_turns(rng: np.random.Generator, most: float = 4.0, n_hand: int = 2) -> np.ndarray:
    turns = rng.uniform(-most, most, size=(N_ANT, n_hand))
    turns[2] = 0.0  # the reference antenna
    return turns


def found_turns(found: dd_fringe.Delays, n_chan: int = N_CHAN) -> np.ndarray:
    return found.delay_s * WIDTH_HZ * n_chan


def test_delays_of_several_turns_are_found_in_noise(rng) -> None:
    turns = some_turns(rng)
    found = dd_fringe.search(spectra_of(turns, rng), WIDTH_HZ, 2)
    # A fit to 21 spectra of S/N 3 sqrt(32) would have sqrt(12) / (2 pi S/N sqrt(21)) = 0.007 turns.
    assert np.abs(found_turns(found) - turns).max() < 0.03
    assert found.believed.all() and np.isinf(found.snr[2]).all()


def test_the_stack_finds_what_one_baseline_does_not_show(rng) -> None:
    turns = some_turns(rng)
    sums = spectra_of(turns, rng, snr=1.5)
    # Antenna 5 and the reference: 1.5 sqrt(32) = 8.5 become 2.1 in each bin.
    noise = rng.normal(size=(2, N_BIN, N_CHAN, 2)) * 4
    sums.cross[:, 2, 5] += noise[0] + 1j * noise[1]
    sums.power[:, 2, 5] *= 17
    alone = dd_fringe.stack(sums, 0, 5, np.array([2]), np.zeros(N_ANT))
    assert dd_fringe.peak(*alone, N_CHAN)[1] < dd_fringe.LEAST_SNR
    found = dd_fringe.search(sums, WIDTH_HZ, 2)
    assert found.believed.all()
    assert np.abs(found_turns(found) - turns).max() < 0.06


def test_the_order_of_antennas_in_the_ms_does_not_matter(rng) -> None:
    turns = some_turns(rng)
    sums = spectra_of(turns, rng)
    turned = Spectra(np.conj(np.swapaxes(sums.cross, 1, 2)), np.swapaxes(sums.power, 1, 2))
    expected, found = (dd_fringe.search(one, WIDTH_HZ, 2).delay_s for one in (sums, turned))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-14)


def test_flagged_channels_do_not_move_a_delay(rng) -> None:
    turns = some_turns(rng)
    sums = spectra_of(turns, rng)
    flagged = np.zeros(N_CHAN, dtype=bool)
    flagged[[3, 4, 11, 20]] = True
    flagged[26:] = True
    sums.cross[..., flagged, :] = 0
    sums.power[:] *= np.mean(~flagged)
    found = dd_fringe.search(sums, WIDTH_HZ, 2)
    assert found.believed.all()
    assert np.abs(found_turns(found) - turns).max() < 0.05


def test_antennas_without_data_are_left_alone(rng) -> None:
    turns = some_turns(rng)
    sums = spectra_of(turns, rng)
    for values in (sums.cross, sums.power):
        values[:, 4], values[:, :, 4] = 0, 0
    found = dd_fringe.search(sums, WIDTH_HZ, 2)
    assert not found.live[4].any() and not found.believed[4].any() and not found.delay_s[4].any()
    others = np.arange(N_ANT) != 4
    assert found.believed[others].all()
    assert np.abs((found_turns(found) - turns)[others]).max() < 0.03


def test_without_the_reference_antenna_delays_are_right_among_each_other(rng) -> None:
    turns = some_turns(rng, most=2.0)
    sums = spectra_of(turns, rng)
    for values in (sums.cross, sums.power):
        values[:, 2], values[:, :, 2] = 0, 0
    found = dd_fringe.search(sums, WIDTH_HZ, 2)
    error = np.delete(found_turns(found) - turns, 2, axis=0)
    assert np.abs(error - error.mean(axis=0)).max() < 0.03
    assert found.believed.sum() == 2 * (N_ANT - 1)


@pytest.mark.parametrize("n_chan", [4, 32])
def test_noise_is_not_believed(rng, n_chan) -> None:
    sums = spectra_of(np.zeros((N_ANT, 1)), rng, snr=0.0, n_chan=n_chan)
    found = dd_fringe.search(sums, WIDTH_HZ, 2)
    assert not found.believed.any() and not found.delay_s.any()


def test_a_spike_in_one_channel_is_not_believed(rng) -> None:
    sums = spectra_of(np.zeros((N_ANT, 1)), rng, snr=0.0)
    sums.cross[..., 7, :] *= 1000
    assert not dd_fringe.search(sums, WIDTH_HZ, 2).believed.any()


def test_every_second_channel_flagged_leaves_two_answers_and_none_is_believed(rng) -> None:
    sums = spectra_of(np.zeros((N_ANT, 1)), rng, snr=3.0)
    sums.cross[..., ::2, :] = 0
    assert not dd_fringe.search(sums, WIDTH_HZ, 2).believed.any()


def test_four_channels_are_enough_where_the_source_is_bright(rng) -> None:
    turns = some_turns(rng, most=0.8)
    found = dd_fringe.search(spectra_of(turns, rng, snr=10.0, n_chan=4), WIDTH_HZ, 2)
    assert found.believed.all()
    assert np.abs(found_turns(found, 4) - turns).max() < 0.05


def test_one_delay_for_both_hands_is_the_mean_of_those_that_are_believed() -> None:
    found = dd_fringe.Delays(
        np.array([[1.0, 4.0], [5.0, 0.0], [0.0, 0.0]]),
        np.array([[10.0, 20.0], [10.0, 1.0], [1.0, 1.0]]),
        np.array([[True, True], [True, False], [False, False]]),
        np.ones((3, 2), dtype=bool),
    )
    both = found.common()
    np.testing.assert_allclose(both.delay_s, [[2.5, 2.5], [5, 5], [0, 0]])
    np.testing.assert_array_equal(both.believed, [[True, True], [True, True], [False, False]])
