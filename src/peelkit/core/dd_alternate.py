"""One term at a time: for gains that change fast in time and slowly in frequency, and the other way round.

QuartiCal solves terms in turn, each with the others as they are (`peelkit.core.dd_terms.iterations`). Where one
has short intervals in time and another in frequency, no cell of both holds more than a visibility, and each
iteration goes through all data. With the others applied to the models beforehand each turn has cells of its
own term's intervals alone, which are few samples (`peelkit.core.dd_compress`); a direction-independent
term sees one model, the sum of all. The turns, their order and their start values are the same: a term goes on
from what it was, as the factor by which it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_cells, dd_compress, dd_copy, dd_gains
from peelkit.core.dd_data import Block
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.engines.quartical import Term
from peelkit.io import solvecopy
from peelkit.io.gains import TermGains

# What a run of QuartiCal costs beside its iterations [s], an iteration for each sample and direction, and making
# the copy for each visibility and direction (measured, one core of 2024).
RUN_S, ITERATION_S, COPY_S = 1.0, 50e-9, 60e-9

# Iterations of a turn until it has converged.
ITERATIONS = 10

# Turns must be cheaper than this share of a solve of all terms together.
WORTH = 0.7


def turns(terms: Sequence[Term], recipe: Sequence[int]) -> list[tuple[int, int]]:
    """Term and iterations of each turn of a recipe, which goes through the terms again and again."""
    return [(n % len(terms), count) for n, count in enumerate(recipe) if count]


def worthwhile(
    plan: Plan, family: solvecopy.Family, terms: Sequence[Term], recipe: Sequence[int]
) -> bool:
    """Whether turns on their own are cheaper than all terms together."""
    if len(terms) < 2 or any(term.type not in quartical.DIAGONAL_TYPES for term in terms):
        return False
    n = 1 + len(plan.used)
    samples = plan.rows.rows.size * family.n_chan * min(2, len(family.correlations))
    count = len(turns(terms, recipe))
    share = cell_share(terms, family.n_chan, n, _longest(plan))
    together = RUN_S + samples * n * (COPY_S + count * ITERATIONS * ITERATION_S * share)
    apart = 0.0
    for number, _ in turns(terms, recipe):
        term = terms[number]
        here = n if term.direction_dependent else 1
        share = cell_share([term], family.n_chan, here, _longest(plan))
        apart += RUN_S + samples * n * COPY_S + samples * here * ITERATIONS * ITERATION_S * share
    return apart < WORTH * together


def _longest(plan: Plan) -> int:
    """Integrations of the longest scan."""
    return max(
        int(np.unique(a.scans, return_counts=True)[1].max()) for a in plan.rows.axes.values()
    )


def cell_share(terms: Sequence[Term], n_chan: int, n_direction: int, n_time: int) -> float:
    """Samples of the copy for each visibility."""
    if not dd_compress.few([term.type for term in terms], n_direction):
        return 1.0
    time = dd_cells.common([term.time_interval for term in terms]) or n_time
    freq = dd_cells.common([term.freq_interval for term in terms]) or n_chan
    return min(1.0, n_direction / (min(time, n_time) * min(freq, n_chan)))


class Turns:
    """Gains of all terms so far."""

    def __init__(self, plan: Plan, terms: Sequence[Term]) -> None:
        self.plan, self.terms = plan, terms
        self.groups: dict[Key, Solutions] = {}
        self.of: dict[Key, dict[str, tuple[TermGains, NDArray[np.int64], NDArray[np.int64]]]] = {}

    def models(self, active: Term) -> dd_copy.Models:
        """What the active term is solved with: models with all gains so far."""

        def made(block: Block) -> list[NDArray[Any]]:
            models = dd_copy.rest(self.plan, block)
            solutions = self.groups.get(block.key)
            if solutions is not None:
                when = dd_gains.time_index(solutions.axis, block.times_s)
                n_corr = block.data.shape[-1]
                models = [
                    dd_gains.corrupt(
                        model,
                        dd_gains.jones(solutions, when, block.antenna1, number, n_corr),
                        dd_gains.jones(solutions, when, block.antenna2, number, n_corr),
                    )
                    for number, model in enumerate(models)
                ]
            return models if active.direction_dependent else [sum(models[1:], models[0])]

        return made

    def change(self, before: dd_copy.Change | None) -> dd_copy.Change | None:
        """As ``before``, and without what a failed direction-independent solution serves."""
        alone = [term.name for term in self.terms if not term.direction_dependent]
        found = [one[name][0] for one in self.of.values() for name in alone if name in one]
        if not any(np.any(one.flags) for one in found):
            return before

        def changed(block: Block) -> Block:
            block = before(block) if before else block
            solutions = self.groups[block.key]
            when = dd_gains.time_index(solutions.axis, block.times_s)
            bad = dd_gains.failed(solutions, when, block.antenna1, block.antenna2, [])
            return replace(block, weight=np.where(bad[:, :, None], 0, block.weight))

        return changed

    def take(self, term: Term, factors: Mapping[Key, Solutions]) -> None:
        """Multiply a term by what its turn found."""
        for key, one in factors.items():
            fresh = one.terms[0]
            known = self.of.setdefault(key, {})
            if term.name in known:
                fresh = _multiplied(known[term.name][0], fresh)
            known[term.name] = (fresh, one.time_bins[0], one.freq_bins[0])
            present = [known[item.name] for item in self.terms if item.name in known]
            self.groups[key] = Solutions(
                one.axis, *(tuple(column) for column in zip(*present, strict=True))
            )


def _multiplied(before: TermGains, factor: TermGains) -> TermGains:
    flags = before.flags | factor.flags
    hands = [0, -1] if factor.gains.shape[-1] == 4 else slice(None)
    gains = before.gains.copy()
    gains[..., hands] *= factor.gains[..., hands]
    gains[..., hands] = np.where(flags[..., None], 1, gains[..., hands])
    # d/dg = d/dfactor / g
    power = np.abs(before.gains) ** 2
    information = np.divide(
        factor.information, power, out=np.zeros_like(factor.information), where=power > 0
    )
    same = before.iterations.shape == factor.iterations.shape
    return replace(
        factor,
        gains=gains,
        flags=flags,
        information=information,
        iterations=before.iterations + factor.iterations if same else factor.iterations,
    )


def together(runs: Sequence[quartical.Solved], last: quartical.Solved) -> quartical.Solved:
    """The runs of all turns as one, whose gains are where ``last`` says."""
    first = {(one.ddid, one.field, one.time_chunk): one.before for one in runs[0].chi2}
    chi2 = (
        replace(one, before=first.get((one.ddid, one.field, one.time_chunk), one.before))
        for one in last.chi2
    )
    return quartical.together(runs, last, chi2)
