"""The solves of a mosaic, one for each class of fields (`peelkit.core.dd_fields`), put together."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_auto, dd_copy, dd_solve, dd_terms
from peelkit.core.dd_gains import Key, Solutions, TimeAxis
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.errors import OptionError
from peelkit.io.gains import TermGains
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

log = logging.getLogger(__name__)

# The term of data that nothing is solved on: 1.
UNIT = "unit"


def with_intervals(
    plan: Plan,
    scale: dict[int, float],
    extra: dict[str, str],
    progress: Progress,
    *,
    spread: Spread = IN_PROCESS,
) -> tuple[Plan, dd_auto.Choice | None]:
    """The plan and its classes with intervals in place of ``auto``, and how they were chosen.

    They are chosen on the class with the most data among those whose fields have solutions of their
    own. A class that is too faint for them, or that borrows, has the longest.
    """
    if not dd_auto.wanted(plan.options.terms):
        return plan, None
    chosen: dd_auto.Choice | None = None
    longest = tuple(dd_terms.longest(term) for term in plan.options.terms)
    terms = longest
    own = [one for one in plan.classes if _own(one)]
    if own:
        most = max(own, key=lambda one: one.rows.rows.size)
        chosen = dd_auto.choose(most, scale, extra, progress, spread=spread)
        terms = chosen.terms
        log.info("intervals: %s", ", ".join(f"{t.name} {t.time} {t.freq}" for t in terms))
    fresh = {}
    for one in plan.classes:
        bright = chosen is not None and _own(one) and _bright_enough(one, chosen)
        wanted = {term.name: term for term in (terms if bright else longest)}
        kept = tuple(
            term if term.type == dd_terms.NONE else wanted[term.name] for term in one.options.terms
        )
        fresh[id(one)] = replace(one, options=replace(one.options, terms=kept))
    by_field = {number: fresh[id(one)] for number, one in plan.by_field.items()}
    return replace(plan, options=replace(plan.options, terms=terms), by_field=by_field), chosen


def _own(plan: Plan) -> bool:
    """Whether some direction has solutions of the fields' own."""
    return bool(plan.peeled) and not plan.rows.combine_fields


def _bright_enough(plan: Plan, chosen: dd_auto.Choice) -> bool:
    """Whether the intervals chosen on other fields leave S/N enough; information adds up."""
    n_chan, n_time = dd_auto.sizes(plan.rows)
    dependent = next(term for term in chosen.terms if term.direction_dependent)
    ddid = plan.rows.ddids[0]
    spw = plan.rows.info.spws[plan.rows.info.data_descriptions[ddid].spw]
    width = float(np.median(np.abs(spw.width_hz)))
    time = dd_terms.time_integrations(dependent.time, plan.rows.integration_s[ddid]) or n_time
    freq = dd_terms.freq_channels(dependent.freq, width, n_chan) or n_chan
    share = min(1.0, time / n_time) * min(1.0, freq / n_chan)
    least = min(d.snr_per_solution for d in plan.directions if d.label in plan.peeled)
    return least * math.sqrt(share) >= plan.options.min_snr


def solve(
    plan: Plan,
    scale: dict[int, float],
    extra: dict[str, str],
    progress: Progress,
    chosen: dd_auto.Choice | None,
    *,
    name: str = "quartical",
    change: dd_copy.Change | None = None,
    spread: Spread = IN_PROCESS,
) -> tuple[dict[Key, Solutions], list[quartical.Solved]]:
    """Solve every class; the key of all solutions is (field, data description).

    ``name``, ``change`` and ``spread`` are those of `peelkit.core.dd_solve.solve`.

    Raises
    ------
    OptionError
        If no class has a term to solve.
    """
    if not plan.by_field:
        groups, runs = dd_solve.solve(
            plan, scale, extra, progress, name=name, change=change, spread=spread
        )
        return _lengthened(plan, groups, chosen), runs
    if not any(solves(one) for one in plan.classes):
        raise OptionError(
            "no term to solve: every direction is subtracted as it is in all fields, and --g is none or too "
            "weak in them."
        )
    result: dict[Key, Solutions] = {}
    every: list[quartical.Solved] = []
    for number, one in enumerate(plan.classes):
        fields = [n for n, other in plan.by_field.items() if other is one]
        words = ", ".join(f"{d.label} {d.decision}" for d in one.directions)
        log.info("class %d: %d fields: %s", number, len(fields), words)
        if solves(one):
            groups, runs = dd_solve.solve(
                one, scale, extra, progress, name=f"{name}{number}_", change=change, spread=spread
            )
            every += runs
            groups = _lengthened(one, groups, chosen)
        else:
            groups = _unit(one)
        for n, ddid in plan.rows.axes:
            # Fields that are solved together share the solutions, and their time axis.
            if n in fields:
                result[(n, ddid)] = groups[one.rows.key(n, ddid)]
    return {key: result[key] for key in plan.rows.axes}, every


def solves(plan: Plan) -> bool:
    """Whether a class has a term to solve."""
    return any(
        term.type != dd_terms.NONE and (plan.peeled or not term.direction_dependent)
        for term in plan.options.terms
    )


def _lengthened(
    plan: Plan, groups: Mapping[Key, Solutions], chosen: dd_auto.Choice | None
) -> dict[Key, Solutions]:
    """Each direction with its own intervals, where they are those that were chosen."""
    if chosen is None or not plan.peeled or not chosen.is_of(plan):
        return dict(groups)
    return dd_auto.lengthened(groups, plan, chosen.by_direction)


def _unit(plan: Plan) -> dict[Key, Solutions]:
    """Gains of 1 on all data of a plan."""
    info = plan.rows.info
    groups = {}
    for key, axis in plan.rows.axes.items():
        description = info.data_descriptions[key[1]]
        freq = info.spws[description.spw].freq_hz
        n_corr = len(description.correlations)
        groups[key] = _ones(key, axis, len(info.antennas), freq, min(n_corr, 2))
    return groups


def _ones(
    key: Key, axis: TimeAxis, n_antenna: int, freq_hz: NDArray[np.float64], n_hand: int
) -> Solutions:
    shape = (1, 1, n_antenna, 1)
    term = TermGains(
        term=UNIT,
        type="diag_complex",
        field=key[0],
        ddid=key[1],
        gains=np.ones((*shape, n_hand), dtype=np.complex128),
        flags=np.zeros(shape, dtype=bool),
        information=np.zeros((*shape, n_hand)),
        time_s=np.array([axis.times_s.mean()]),
        freq_hz=np.array([freq_hz.mean()]),
        converged=np.ones((1, 1)),
        iterations=np.zeros((1, 1), dtype=np.int64),
        params=None,
        param_names=(),
    )
    t_bins = np.zeros(axis.times_s.size, dtype=np.int64)
    f_bins = np.zeros(freq_hz.size, dtype=np.int64)
    return Solutions(axis, (term,), (t_bins,), (f_bins,))
