"""Cells as few samples: the same chi-squared for all gains."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.core import dd_cells, dd_compress
from peelkit.core.dd_cells import Unit
from peelkit.core.dd_gains import TimeAxis

N_BASE, N_TIME, N_CHAN, N_HAND = 5, 6, 7, 2


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def some(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 3, 7])
def test_chi_squared_is_that_of_all_visibilities_for_any_gains(rng, n, length) -> None:
    rows = N_BASE * N_TIME
    base = np.tile(np.arange(N_BASE), N_TIME)
    shape = (rows, N_CHAN, N_HAND)
    data, models = some(rng, *shape), [some(rng, *shape) for _ in range(n)]
    weight = rng.random(shape) * (rng.random((rows, N_CHAN, 1)) < 0.8)
    starts = np.arange(0, N_CHAN, length)
    # In two pieces, as blocks of an MS come.
    normal = dd_compress.Normal.empty(N_BASE, starts.size, N_HAND, n)
    for half in (slice(None, 13), slice(13, None)):
        normal = normal.with_rows(
            base[half], data[half], [m[half] for m in models], weight[half], starts
        )
    few, seen, flag = dd_compress.samples(normal)
    assert few.shape == (N_BASE, starts.size * n, N_HAND) and not flag.any()
    cell = np.arange(N_CHAN) // length
    for _ in range(5):
        gains = some(rng, n, N_BASE, starts.size, N_HAND)
        left = data - sum(g[base][:, cell] * m for g, m in zip(gains, models, strict=True))
        expected = np.sum(weight * np.abs(left) ** 2)
        wide = np.repeat(gains, n, axis=2)
        residual = few - sum(g * m for g, m in zip(wide, seen, strict=True))
        # One sample has the weight of all.
        one = normal.weight if n == 1 else 1.0
        found = np.sum(one * np.abs(residual) ** 2)
        found += normal.constant - np.sum(one * np.abs(few) ** 2)
        assert found == pytest.approx(expected, rel=1e-5)
    assert normal.samples == np.count_nonzero(weight)


def test_what_says_nothing_is_flagged(rng) -> None:
    shape = (4, 3, N_HAND)
    data, model = some(rng, *shape), some(rng, *shape)
    weight = np.ones(shape)
    weight[2] = 0
    # The second model is twice the first one.
    normal = dd_compress.Normal.empty(4, 1, N_HAND, 2).with_rows(
        np.arange(4), data, [model, 2 * model], weight, np.array([0])
    )
    few, _, flag = dd_compress.samples(normal)
    assert flag[:, :, 0].tolist() == [[False, True], [False, True], [True, True], [False, True]]
    assert np.isfinite(few).all()


def test_cells_end_with_intervals_and_intervals_with_units() -> None:
    scans = np.repeat([3, 4], [5, 6])
    axes = {
        (0, 0): TimeAxis(np.arange(11.0), scans),
        (1, 0): TimeAxis(np.arange(4.0), np.full(4, 9)),
    }
    units = dd_cells.split(axes, across_scans=False)
    assert [(unit.key[0], unit.index.size) for unit in units] == [(0, 5), (0, 6), (1, 4)]
    assert dd_cells.common([4, 6]) == 2 and dd_cells.common([0, 0]) == 0
    found = dd_cells.cells(dd_cells.chunked(units, 10), axes, 2)
    assert found.of[0, 0].tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5]
    assert found.of[1, 0].tolist() == [6, 6, 7, 7]
    assert found.chunk.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert dd_cells.bins(found.units, (0, 0), 4).tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 3]
    assert dd_cells.bins(found.units, (1, 0), 0).tolist() == [0, 0, 0, 0]
    whole = dd_cells.cells(units, axes, 0)
    assert whole.of[0, 0].tolist() == [0] * 5 + [1] * 6
    # Over the ends of scans, but not of fields; long ones are cut.
    assert [u.index.size for u in dd_cells.split(axes, across_scans=True, most=8)] == [8, 3, 4]
    # Chunks are the same for whoever begins with one of them.
    many = [Unit((n, 0), np.arange(size)) for n, size in enumerate((3, 3, 9, 1, 1, 4))]
    assert [unit.chunk for unit in dd_cells.chunked(many, 6)] == [0, 0, 1, 2, 2, 2]
    assert [unit.chunk for unit in dd_cells.chunked(many[2:], 6)] == [0, 1, 1, 1]
