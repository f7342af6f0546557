"""Gains of the array that are known before a solve."""

from __future__ import annotations

import numpy as np

from peelkit.core import dd_gains, dd_known
from peelkit.core.dd_balance import NAME
from peelkit.core.dd_data import Block
from peelkit.core.dd_gains import Solutions, TimeAxis
from peelkit.io.gains import TermGains
from peelkit.io.ms import DataDescription

N_TIME, N_CHAN, N_ANT = 6, 4, 3
AXIS = TimeAxis(10.0 * np.arange(N_TIME), np.zeros(N_TIME, int))


def gains_of(rng: np.random.Generator, name: str, axis: TimeAxis, n_freq: int) -> Solutions:
    n_time = axis.times_s.size
    shape = (n_time, n_freq, N_ANT, 1)
    values = (1 + 0.2 * rng.normal(size=(*shape, 2))) * np.exp(1j * rng.normal(size=(*shape, 2)))
    term = TermGains(
        term=name, type="diag_complex", field=0, ddid=0, gains=values, flags=np.zeros(shape, bool),
        information=np.ones((*shape, 2)), time_s=axis.times_s, freq_hz=1e9 + np.arange(n_freq),
        converged=np.ones((1, 1)), iterations=np.ones((1, 1), int), params=None, param_names=(),
    )  # fmt: skip
    bins = np.arange(N_CHAN) * n_freq // N_CHAN
    return Solutions(axis, (term,), (np.arange(n_time),), (bins,))


def block_of(rng: np.random.Generator) -> Block:
    one, two = np.tile([0, 0, 1], N_TIME), np.tile([1, 2, 2], N_TIME)
    shape = (3 * N_TIME, N_CHAN, 2)
    data = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    return Block(
        (0, 0), 0, DataDescription(0, 0, ("RR", "LL")), np.arange(3 * N_TIME), np.zeros(3 * N_TIME, int),
        one, two, np.repeat(AXIS.times_s, 3), data, {}, np.zeros(shape, bool),
        rng.uniform(1, 2, shape).astype(np.float32),
    )  # fmt: skip


def test_what_is_taken_out_is_put_in_front_again(rng) -> None:
    known = {(0, 0): gains_of(rng, NAME, AXIS, 4)}
    block = block_of(rng)
    out = dd_known.without(known, block)
    # A solve of half of the integrations.
    half = TimeAxis(AXIS.times_s[3:], AXIS.scans[3:])
    solved = gains_of(rng, "G", half, 1)
    whole = dd_known.in_front(known, (0, 0), solved)
    late = block.times_s >= 30.0

    def seen(solutions: Solutions, vis: np.ndarray) -> np.ndarray:
        when = dd_gains.time_index(half, block.times_s[late])
        pair = (block.antenna1[late], block.antenna2[late])
        return dd_gains.correct(
            vis[late], *(dd_gains.jones(solutions, when, a, 0, 2) for a in pair)
        )

    np.testing.assert_allclose(seen(whole, block.data), seen(solved, out.data), rtol=1e-5)
    assert dd_known.of({(0, 0): whole})[(0, 0)].terms == known[(0, 0)].terms
    assert dd_known.of({(0, 0): solved}) == {}


def test_weights_follow_what_is_taken_out(rng) -> None:
    known = {(0, 0): gains_of(rng, NAME, AXIS, 4)}
    block = block_of(rng)
    out = dd_known.without(known, block)
    # Chi-squared of the data is what it was.
    np.testing.assert_allclose(
        out.weight * np.abs(out.data) ** 2, block.weight * np.abs(block.data) ** 2, rtol=1e-4
    )
    assert dd_known.without({}, block) is block
