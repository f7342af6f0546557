"""The model of costs: by hand, and what must hold whatever the coefficients."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelkit import memory
from peelkit.core import cost
from peelkit.core.cost import Estimate, Grid, Rate, Size

SIZE = Size(rows=1_000_000, samples=8_000_000, visibilities=4_000_000)


def test_a_rate_adds_up_rows_samples_and_visibilities() -> None:
    rate = Rate(fixed=1.0, per_mrow=2.0, per_msample=0.5, per_mvis=0.25)
    assert rate.cpu_s(SIZE) == pytest.approx(1 + 2 + 4 + 1)


def test_a_stage_takes_its_share_of_threads_and_the_time_of_its_bytes() -> None:
    found = cost.stage("x", Rate(per_mrow=3.0, lanes=1.5), SIZE, passes=2, read=1e9, written=2e9)
    assert found.cpu_s == pytest.approx(6.0)
    assert found.seconds == pytest.approx(6.0 / 1.5 + 3e9 / cost.DISK_BYTES_S)


def test_passes_of_tclean_are_those_of_its_terms() -> None:
    # PSF 2 n - 1; the first residual only grids, each other one degrids too.
    one = cost.tclean("x", SIZE, Grid(64), residuals=3, psf=True)
    two = cost.tclean("x", SIZE, Grid(64, nterms=2), residuals=3, psf=True)
    assert one.cpu_s / two.cpu_s == pytest.approx((5 + 1) / (2 * 5 + 3))
    assert one.read_bytes == 4 * (SIZE.column_bytes + SIZE.rest_bytes)


@pytest.mark.parametrize("factor", [2, 10])
def test_every_command_costs_no_more_than_in_proportion(factor: int) -> None:
    def chains(size: Size) -> list[list[cost.Stage]]:
        return [
            cost.add_model_col(size, terms=1, whole=size),
            cost.predict_region(size, regions=2, columns=3, fitted=1),
            cost.image_residual(size, size, Grid(512), new=True, grows=True),
            cost.selfcal(size, size, Grid(512), rounds=3, whole=size, calwt=False),
            cost.ddsolve(size, directions=2, auto=True, columns=1, whole=size),
        ]

    for small, large in zip(chains(SIZE), chains(SIZE.times(factor)), strict=True):
        before, after = cost.stages_of(small), cost.stages_of(large)
        assert all(0 < one < two <= factor * one for one, two in zip(before, after, strict=True))


def test_memory_follows_the_limit_and_the_rows_but_not_the_samples() -> None:
    def of(size: Size) -> float:
        return Estimate("predict-region", size, (), 0.0, 0.0, size.rows).memory_bytes

    wide = replace(SIZE, samples=1000 * SIZE.samples)
    assert of(wide) <= of(SIZE) + cost.ALIVE["predict-region"] * memory.chunk_bytes()
    with memory.limited(0.5):
        assert of(wide) < 0.5 * memory.GIB
    more = replace(wide, rows=50 * SIZE.rows)
    assert of(more) - of(wide) == pytest.approx(
        49 * SIZE.rows * cost.KEPT_PER_ROW["predict-region"]
    )


def test_a_vlass_tile_fits_the_default_limit_but_where_one_image_has_all_its_rows() -> None:
    kept = {name: per_row * 67e6 for name, per_row in cost.KEPT_PER_ROW.items()}
    over = {name for name, count in kept.items() if count > memory.DEFAULT_GIB * memory.GIB}
    assert over == {"image-residual"}


def test_a_solve_pays_for_chunks_of_so_many_visibilities_and_one_for_each_spw() -> None:
    # Two of four correlations are solved.
    wide = Size(rows=10, samples=52_000_000, visibilities=13_000_000, spws=2)
    assert wide.chunks == 5
    assert replace(wide, spws=16).chunks == 16


def test_a_mosaic_begins_once_for_each_image() -> None:
    begun = Grid(128, gridder="mosaic", begin_s=8.0, begin_bytes=1e9)
    free = Grid(128, gridder="mosaic")

    def seconds(grid: Grid, rounds: int | None) -> float:
        if rounds is None:
            stages = cost.image_residual(SIZE, None, grid, new=True, grows=True)
        else:
            stages = cost.selfcal(SIZE, None, grid, rounds=rounds, whole=SIZE, calwt=False)
        return sum(one.cpu_s for one in stages)

    assert seconds(begun, None) - seconds(free, None) == pytest.approx(8.0)
    assert seconds(begun, 3) - seconds(free, 3) == pytest.approx(4 * 8.0)
    assert begun.memory_bytes - free.memory_bytes == pytest.approx(1e9)
