"""How much of the model outside the regions is believed: the parts that need no MS."""

from __future__ import annotations

import numpy as np

from peelkit.core import predict_rest, stefcal
from peelkit.core.predict_rest import choice, levels

N_ANT, N_CHAN = 10, 4


def hermitian(rng: np.random.Generator, scale: float) -> np.ndarray:
    """A sky as seen by all baselines, shape (antenna, antenna, chan)."""
    half = scale * np.exp(2j * np.pi * rng.random((N_ANT, N_ANT, N_CHAN)))
    whole = np.triu(half.transpose(2, 0, 1), 1).transpose(1, 2, 0)
    return whole + whole.conj().swapaxes(0, 1)


def gains_of(rng: np.random.Generator, rms: float) -> np.ndarray:
    return (1 + rms * rng.normal(size=N_ANT)) * np.exp(1j * rms * rng.normal(size=N_ANT))


def seen(sky: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return gains[:, None, None] * sky * gains.conj()[None, :, None]


def test_gains_are_found_again(rng) -> None:
    sky, gains = hermitian(rng, 3.0), gains_of(rng, 0.4)
    cross = (seen(sky, gains) * sky.conj()).sum(axis=2)
    power = (np.abs(sky) ** 2).sum(axis=2)
    solved = stefcal.solve(cross, power, iterations=10)
    for _ in range(5):
        solved = stefcal.solve(cross, power, iterations=10, start=solved)
    # Up to a phase that all have in common.
    turn = np.exp(1j * (np.angle(gains[0]) - np.angle(solved[0])))
    np.testing.assert_allclose(solved * turn, gains, rtol=1e-6)


def test_a_true_source_leaves_less_whatever_the_gains_and_an_artefact_more(rng) -> None:
    bright, faint, wrong = hermitian(rng, 4.0), hermitian(rng, 0.4), hermitian(rng, 0.4)
    # Gains of the array, and those of the bright source through its beam.
    data = seen(seen(bright, gains_of(rng, 0.1)) + faint, gains_of(rng, 0.5))
    weight = np.where(np.eye(N_ANT, dtype=bool)[..., None], 0.0, np.ones(data.shape))
    none, true, both = predict_rest._cell(data, weight, [bright, faint, wrong], 1)
    assert true < 0.3 * none and both > 2 * none / 3 and both > 2 * true


def test_a_second_bright_source_has_gains_of_its_own(rng) -> None:
    first, second, faint = hermitian(rng, 4.0), hermitian(rng, 2.0), hermitian(rng, 0.3)
    data = seen(first, gains_of(rng, 0.3)) + seen(second, gains_of(rng, 0.3)) + faint
    weight = np.where(np.eye(N_ANT, dtype=bool)[..., None], 0.0, np.ones(data.shape))
    none, with_it = predict_rest._cell(data, weight, [first, second, faint], 2)
    # Far below what the gains of one for the other would leave: 0.3^2 x 2^2 of each of 360 values.
    assert none < 0.5 * 0.36 * 360 and with_it < 0.5 * none


def test_the_part_that_leaves_least_is_chosen_and_more_only_if_no_worse(rng) -> None:
    cells = 100 + rng.normal(size=200)
    costs = np.stack(
        [cells + 30, cells + 10, cells, cells + rng.normal(scale=2, size=200), cells + 5]
    )
    assert choice(costs) == 3
    assert choice(costs[:3]) == 2
    # Nothing of the rest is true.
    assert choice(np.stack([cells, cells + 5, cells + 50])) == 0
    # Noise alone decides nothing: then all that the image has is kept.
    assert choice(cells + rng.normal(scale=5, size=(4, 200))) == 3


def test_few_islands_are_parts_of_their_own_and_many_fall_by_equal_factors() -> None:
    assert levels(np.array([7.0, 7.0])).tolist() == [0.0]
    assert levels(np.array([5.0, 6.0, 6.0, 9.0])).tolist() == [9.0, 6.0, 0.0]
    assert levels(np.array([0.0, 9.0])).tolist() == [9.0, 0.0]
    found = levels(np.geomspace(5, 320, 100))
    np.testing.assert_allclose(found[:-1], [160, 80, 40, 20, 10])
    assert found[-1] == 0.0
    # Nothing stands between 10 and 1000: no part is empty.
    some = np.concatenate([np.linspace(5, 10, 20), np.linspace(1000, 2000, 20)])
    counts = [(some >= low).sum() for low in levels(some)]
    assert all(np.diff([0, *counts]) > 0) and counts[-1] == 40
