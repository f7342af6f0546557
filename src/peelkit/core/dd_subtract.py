"""Subtracts the directions block by block: in threads here, or on Dask's workers; the caller alone writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_apply, dd_fields, dd_own
from peelkit.core.dd_data import Block, Place, places, read
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.core.dd_refine import Refinement
from peelkit.core.dd_results import Judgement
from peelkit.io import ms
from peelkit.parallel import in_order
from peelkit.spread import Spread


@dataclass(frozen=True)
class Work:
    """What is the same for all blocks.

    Parameters
    ----------
    plan : Plan
        What was solved.
    groups : dict
        Solutions.
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    source : str
        Column with the data.
    columns : sequence of str
        Columns to be written.
    """

    plan: Plan
    groups: Mapping[Key, Solutions]
    scale: Mapping[int, float]
    source: str
    columns: Sequence[str]


@dataclass(frozen=True)
class Done:
    """A block to be written.

    Parameters
    ----------
    rows : ndarray of int, shape (row,)
        In the MS.
    values : dict of ndarray of complex64, shape (row, chan, corr)
        By column.
    failed : ndarray of bool, shape (row, chan)
        Served by a failed solution.
    judged : Judgement
        Of this block.
    """

    rows: NDArray[np.int64]
    values: dict[str, NDArray[np.complex64]]
    failed: NDArray[np.bool_]
    judged: Judgement


def refinements(plan: Plan) -> dict[str, Refinement]:
    """Empty sums for the directions whose compact models the gains can mend."""
    spws = len(plan.rows.ddids)
    return {
        d.label: Refinement(d.model, spws)
        for d in plan.directions
        if d.model is not None and d.label in plan.peeled
    }


def done(work: Work, main: Any, spread: Spread) -> Iterator[Done]:
    """All blocks in order; ``main`` is the opened MS."""
    plan = work.plan
    every = places(plan.rows, len(plan.models), main)
    if spread.several:
        yield from spread.run(_elsewhere, every, shared=replace(work, plan=plan.light))
        return

    def one(pair: tuple[Block, NDArray[np.float64]]) -> Done:
        return _one(work, *pair)

    blocks = (_read(work, main, place) for place in every)
    yield from in_order(one, blocks, threads=plan.options.threads)


def _read(work: Work, main: Any, place: Place) -> tuple[Block, NDArray[np.float64]]:
    """A block, and its baselines."""
    return read(main, place, work.source, work.plan.models), ms.get(main, "UVW", place.rows)


def _elsewhere(place: Place, work: object) -> Done:
    """On a worker: the MS is only read."""
    assert isinstance(work, Work)
    with ms.opened(work.plan.rows.info.path) as main:
        pair = _read(work, main, place)
    return _one(work, *pair)


def _one(work: Work, block: Block, uvw_m: NDArray[np.float64]) -> Done:
    plan = work.plan
    block = replace(block, weight=block.weight * np.float32(work.scale[block.description.id]))
    here = plan.at(block.key)
    peeled = dd_apply.peel(
        block,
        work.groups,
        all_column=plan.all_column,
        directions=here.used,
        subtract=here.subtracted,
        gains_needed=here.peeled,
        own=dd_own.columns(here),
    )
    dd_fields.complete(plan, peeled.sums)
    judged = Judgement(refinements=refinements(plan))
    judged.add(block, peeled)
    for label, refinement in judged.refinements.items():
        if label in here.peeled:
            refinement.add(plan.rows.info, uvw_m, block, peeled, label)
    values = dd_own.outputs(plan, peeled)
    return Done(block.rows, {name: values[name] for name in work.columns}, peeled.failed, judged)
