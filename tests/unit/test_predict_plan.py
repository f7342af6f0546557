"""Sums over components, how models are cut up, and the fewest images that stand for a sky."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.core import fourier, predict_plan

C = 299792458.0
EVEN = 3e9 + 2e6 * np.arange(33)
UNEVEN = np.array([3.0e9, 3.1e9, 3.15e9, 3.5e9])


@pytest.mark.parametrize("freq", [EVEN, UNEVEN, EVEN[:1], EVEN[:2], EVEN[::-1]])
def test_turns_are_exponentials_whatever_the_channels(rng, freq) -> None:
    path = rng.normal(size=300) * 500  # a source 1 deg off on 30 km
    truth = np.exp(2j * np.pi * np.outer(path, freq) / C)
    # Phases of 2 pi 5000 in double precision.
    assert np.abs(fourier.turns(path, freq) - truth).max() < 1e-10
    vis = np.full(truth.shape, 2.0 + 1j)
    fourier.turn(vis, path, freq)
    assert np.abs(vis - (2 + 1j) * truth).max() < 1e-9


@pytest.mark.parametrize("freq", [EVEN, UNEVEN, EVEN[:1]])
@pytest.mark.parametrize("count", [1, 40, 20_000])
def test_a_sum_over_components_is_the_definition(rng, freq, count: int) -> None:
    baselines = rng.normal(size=(7, 3)) * 3e3
    flat = rng.uniform(-0.01, 0.01, (count, 2))
    cosines = np.column_stack([flat, np.sqrt(1 - (flat**2).sum(axis=1))])
    flux = rng.normal(size=(count, freq.size))
    found = np.ones((7, freq.size), dtype=complex)
    fourier.add_sum(found, baselines, cosines, baselines[:, 2], flux, freq)
    path = baselines @ cosines.T - baselines[:, 2:]
    truth = 1 + np.einsum("cf,rcf->rf", flux, np.exp(2j * np.pi * path[..., None] * freq / C))
    assert np.abs(found - truth).max() < 1e-9 * np.abs(flux).sum(axis=0).max()


def amount(**changes: float) -> predict_plan.Amount:
    values = {
        "rows": 20_000, "chans": 64, "planes": 1, "w_waves": 1e4, "cell_rad": 1e-5,
        "most_pixels": 4e6, **changes,
    }  # fmt: skip
    return predict_plan.Amount(**values)  # type: ignore[arg-type]


def test_few_components_are_summed_and_many_go_on_a_grid(rng) -> None:
    xs, ys = rng.integers(400, 600, (2, 2000))
    direct, grids = predict_plan.pieces(xs[:5], ys[:5], (500, 500), amount())
    assert direct.size == 5 and not grids
    direct, grids = predict_plan.pieces(xs, ys, (500, 500), amount())
    assert direct.size == 0 and len(grids) == 1


def test_far_corners_do_not_make_a_large_grid(rng) -> None:
    # Few rows: the transforms cost most. Two clusters, and one component by itself.
    xs, ys = rng.integers(0, 60, (2, 1500))
    xs[700:] += 1900
    ys[700:] += 1900
    xs[-1], ys[-1] = 100, 1800
    direct, grids = predict_plan.pieces(xs, ys, (1000, 1000), amount(rows=2000))
    assert direct.tolist() == [1499] and len(grids) == 2
    assert sorted(np.concatenate([direct, *grids]).tolist()) == list(range(1500))


def test_a_grid_that_is_too_large_is_cut_even_without_a_gap(rng) -> None:
    xs, ys = rng.integers(0, 3000, (2, 40_000))
    much = amount(rows=10**6, most_pixels=1.2e6)
    _, grids = predict_plan.pieces(xs, ys, (1500, 1500), much)
    assert len(grids) >= 8 and sum(grid.size for grid in grids) == 40_000
    for grid in grids:
        assert (np.ptp(xs[grid]) + 1) * (np.ptp(ys[grid]) + 1) <= 1.2e6


def test_planes_are_as_many_as_sources_differ_over_the_band(rng) -> None:
    x = np.linspace(-0.02, 0.02, 64)
    weights = x[None, :] ** np.arange(3)[:, None]
    flux = rng.uniform(0.1, 1, 50)
    # One spectral index: one plane.
    same = flux * np.array([[1.0], [-0.7], [0.6]])
    values, shares = predict_plan.fewest_planes(same, weights)
    assert values.shape[0] == 1
    assert np.abs(values.T @ shares - same.T @ weights).max() < 1e-12
    # Each its own: two in this band, to the accuracy that is promised; three in one ten times as wide.
    own = flux * np.array([np.ones(50), rng.normal(-0.7, 0.3, 50), rng.normal(0.02, 0.01, 50)])
    values, shares = predict_plan.fewest_planes(own, weights)
    assert values.shape[0] == 2
    wrong = np.abs(values.T @ shares - own.T @ weights).sum(axis=0).max()
    assert wrong < predict_plan.PLANE_ACCURACY * np.abs(own.T @ weights).sum(axis=0).max()
    wide = (10 * x)[None, :] ** np.arange(3)[:, None]
    assert predict_plan.fewest_planes(own, wide)[0].shape[0] == 3
    # One channel is one plane, however many images.
    values, shares = predict_plan.fewest_planes(own, weights[:, :1])
    assert values.shape[0] == 1 and values.T @ shares == pytest.approx(own.T @ weights[:, :1])
