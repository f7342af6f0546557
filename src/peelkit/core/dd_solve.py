"""Runs of QuartiCal, one for each kind of data description: on a copy of the data, gains read back."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core import (
    dd_alternate,
    dd_cells,
    dd_copy,
    dd_known,
    dd_layout,
    dd_parts,
    dd_terms,
)
from peelkit.core.dd_cells import Unit
from peelkit.core.dd_copy import Change, Left, Models, Shape
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.engines.quartical import Term
from peelkit.errors import DataError, OptionError
from peelkit.io import newms, solvecopy
from peelkit.io.gains import TermGains, read_gains, write_gains
from peelkit.parallel import cores
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

log = logging.getLogger(__name__)

# A solve is done when this share of its chunks has converged, or when three times the rounds bring
# chi-squared down by less than the second share; so many rounds are the most.
CONVERGED, SETTLED, MOST_ROUNDS = 0.99, 0.01, 50

# A solve that leaves so much chi-squared is lost, by a wrong model or start: more rounds do not find the way.
LOST = 100.0


@dataclass(frozen=True)
class Work:
    """One family of data descriptions, or a part of it, and how it is solved.

    Parameters
    ----------
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    extra : dict of str
        Further options of QuartiCal.
    name : str
        Of the folder of its run.
    recipe : tuple of int
        Iterations of each term in turn.
    turns : bool
        One term at a time (`peelkit.core.dd_alternate`).
    change : callable, optional
        Makes of each block of data what is solved.
    """

    plan: Plan
    family: solvecopy.Family
    terms: tuple[Term, ...]
    scale: Mapping[int, float]
    extra: Mapping[str, str]
    name: str
    recipe: tuple[int, ...]
    turns: bool = False
    change: Change | None = None

    def done(self, progress: Progress) -> tuple[dict[Key, Solutions], quartical.Solved]:
        """Solve it."""
        return _in_turns(self, progress) if self.turns else one_run(self, progress)


def solve(
    plan: Plan,
    scale: Mapping[int, float],
    extra: Mapping[str, str],
    progress: Progress,
    *,
    name: str = "quartical",
    change: Change | None = None,
    spread: Spread = IN_PROCESS,
) -> tuple[dict[Key, Solutions], list[quartical.Solved]]:
    """Solve the terms of ``plan`` on its rows; K is the whole delay, with its start value.

    Parameters
    ----------
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    extra : dict of str
        Further options of QuartiCal.
    name : str
        Of the folders of the runs: ``<name>0``, ``<name>1``, ...
    change : callable, optional
        Makes of each block of data what is solved.
    spread : Spread, optional
        Where parts are solved.

    Returns
    -------
    dict
        Solutions by field and data description.
    list of Solved
        The runs, one for each family of data descriptions.
    """
    groups: dict[Key, Solutions] = {}
    runs = []
    for number, family in enumerate(solvecopy.families(plan.rows.info, plan.rows.ddids)):
        _check(family)
        terms = _terms(plan, family)
        # What the user asks of the solver may go from one turn to the next, as robust weights do.
        free = not any(key.startswith("solver.") for key in extra)
        work = Work(
            plan, family, tuple(terms), scale, _of_terms(extra, terms), f"{name}{number}", (), False, change,
        )  # fmt: skip
        found, run = _settled(work, progress, spread, free=free)
        for key in found:
            if plan.delay_start is not None:
                found[key], _ = plan.delay_start.put_into(found[key], key[1])
        # QuartiCal knows neither fields nor times: the files are what others apply.
        for place, term in enumerate(terms):
            write_gains(run.gains, [found[key].terms[place] for key in found], term.name)
        groups |= {key: dd_known.in_front(plan.known, key, one) for key, one in found.items()}
        runs.append(run)
    return groups, runs


def _settled(
    work: Work, progress: Progress, spread: Spread, *, free: bool
) -> tuple[dict[Key, Solutions], quartical.Solved]:
    """Solve with ever more rounds through the terms, until they converge or chi-squared settles.

    Directions, and terms that share a part of the errors, trade with each other slowly: of two sources of 6 and
    3 Jy chi-squared was 5.8 after 2 rounds, 3.8 after 6, 2.2 after 12.
    """
    rounds = work.plan.options.rounds
    seconds, before = 0.0, math.inf
    while True:
        recipe = dd_terms.iterations(work.terms, rounds=rounds, each=work.plan.options.iterations)
        turns = free and dd_alternate.worthwhile(work.plan, work.family, work.terms, recipe)
        work = replace(work, recipe=tuple(recipe), turns=turns)
        if spread.several:
            found, run = _in_parts(work, progress, spread)
        else:
            found, run = work.done(progress)
        seconds += run.seconds
        after = float(np.mean([one.after for one in run.chi2])) if run.chi2 else math.nan
        converged = all(
            float(np.mean(term.converged)) >= CONVERGED
            for solutions in found.values()
            for term in solutions.terms
        )
        going_on = after < (1 - SETTLED) * before and after / 2 < LOST and rounds < MOST_ROUNDS
        if converged or not going_on:
            return found, replace(run, seconds=seconds)
        log.info("chi-squared %.4g after %d rounds, not converged: more", after / 2, rounds)
        before, rounds = after, 3 * rounds


def _of_terms(extra: Mapping[str, str], terms: Sequence[Term]) -> dict[str, str]:
    """Without what is of a term that this solve has not: QuartiCal refuses that."""
    absent = dd_terms.NAMES - {term.name for term in terms}
    return {key: value for key, value in extra.items() if key.partition(".")[0] not in absent}


def _in_parts(
    work: Work, progress: Progress, spread: Spread
) -> tuple[dict[Key, Solutions], quartical.Solved]:
    """Solve parts of the data on the workers."""
    plan = work.plan
    # A worker is one thread, and lays out its own copy in the same way.
    shape = dd_layout.shape(
        plan, work.family, work.terms, 1 + len(plan.used), threads=plan.options.threads or 1
    )
    parts = dd_parts.split(plan, shape, spread.count)
    progress.stage("solving (QuartiCal, on the workers)", total=len(parts))
    results = []
    for one in spread.run(_part, parts, shared=replace(work, plan=plan.light)):
        results.append(one)
        progress.advance()
    run = dd_parts.as_one([one.run for one in results], plan.folder / work.name)
    return dd_parts.together(results, plan.rows.axes), run


def _part(part: dd_parts.Part, work: Work) -> dd_parts.Result:
    """On a worker: solve a part in a folder of its own."""
    quartical.keep()
    folder = dd_parts.Folder(work.plan, f"{work.name}_part{part.number}")
    plan = replace(part.of(work.plan), folder=folder.made)
    family = replace(work.family, ddids=part.ddids)
    groups, run = replace(work, plan=plan, family=family, name="quartical").done(Progress())
    return dd_parts.Result(groups, folder.finish(run))


def _terms(plan: Plan, family: solvecopy.Family) -> list[Term]:
    """Terms in QuartiCal's words."""
    used = plan.used
    pinned = (0, *(n for n, name in enumerate(used, start=1) if name not in plan.peeled))
    integration = float(np.median([plan.rows.integration_s[d] for d in family.ddids]))
    terms = dd_terms.build(
        [term for term in plan.options.terms if plan.peeled or not term.direction_dependent],
        integration_s=integration, width_hz=family.width_hz, n_chan=family.n_chan,
        pinned=pinned, across_scans="scan" in plan.options.combine,
    )  # fmt: skip
    if not terms:
        raise OptionError(
            "no term to solve: every direction is subtracted as it is, and --g is none."
        )
    return terms


def one_run(
    work: Work, progress: Progress, *, models: Models | None = None, n_direction: int = 0
) -> tuple[dict[Key, Solutions], quartical.Solved]:
    """Solve all terms of some work together.

    Parameters
    ----------
    models : callable, optional
        Makes the models of ``n_direction`` directions of each block, in place of the plan's.
    """
    plan, family, terms = work.plan, work.family, work.terms
    n_direction = n_direction or 1 + len(plan.used)
    threads = plan.options.threads or cores()
    shape = dd_layout.shape(plan, family, terms, n_direction, threads=threads)
    copy, folder = plan.folder / f"{work.name}.ms", plan.folder / work.name
    plan.folder.mkdir(parents=True, exist_ok=True)
    progress.stage("copying the data for the solve")
    left = dd_copy.make(plan, family, copy, shape, work.scale, change=work.change, models=models)
    job = quartical.Job(
        copy,
        ":".join(dd_copy.names(n_direction)),
        [dd_layout.in_copy(term, shape) for term in terms],
        plan.refant,
        work.recipe,
        weight_column="WEIGHT_SPECTRUM" if shape.weighted else "WEIGHT",
        threads=threads,
        extra=dict(work.extra),
    )
    log.info(
        "terms %s, %d directions, %s samples for a cell of %d integrations and %d channels",
        " ".join(term.name for term in terms), n_direction, n_direction if shape.few else "all",
        next(iter(shape.cells.values())).length, shape.f_length,
    )  # fmt: skip
    progress.stage("solving (QuartiCal)")
    run = quartical.solve(job, folder)
    groups = _read(plan, family, terms, run, shape)
    shutil.rmtree(copy)
    return groups, replace(run, chi2=_chi2(family, run, shape, left))


def _in_turns(work: Work, progress: Progress) -> tuple[dict[Key, Solutions], quartical.Solved]:
    """Solve the terms one at a time (`peelkit.core.dd_alternate`)."""
    so_far = dd_alternate.Turns(work.plan, work.terms)
    runs: list[quartical.Solved] = []
    latest: dict[str, quartical.Solved] = {}
    for turn, (number, count) in enumerate(dd_alternate.turns(work.terms, work.recipe)):
        term = work.terms[number]
        # What the user says of another term is not for this one.
        mine = {
            k: v
            for k, v in work.extra.items()
            if k.partition(".")[0] in ("dask", "input_ms", term.name)
        }
        one = replace(
            work, terms=(term,), extra=mine, name=f"{work.name}_{turn}", recipe=(count,),
            change=so_far.change(work.change),
        )  # fmt: skip
        found, run = one_run(
            one, progress, models=so_far.models(term),
            n_direction=0 if term.direction_dependent else 1,
        )  # fmt: skip
        so_far.take(term, found)
        runs.append(run)
        latest[term.name] = run
    folder = work.plan.folder / work.name / "gains"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    for term in work.terms:
        (latest[term.name].gains / term.name).rename(folder / term.name)
    return so_far.groups, replace(dd_alternate.together(runs, runs[-1]), gains=folder)


def _check(family: solvecopy.Family) -> None:
    unknown = [name for name in family.correlations if name not in newms.CORR_TYPES]
    if unknown:
        raise DataError(
            f"correlation {unknown[0]}: QuartiCal solves {', '.join(newms.CORR_TYPES)}; select other spws."
        )


# ---------------------------------------------------------------- what came out


def _read(
    plan: Plan,
    family: solvecopy.Family,
    terms: Sequence[Term],
    run: quartical.Solved,
    shape: Shape,
) -> dict[Key, Solutions]:
    """Solutions of each group, from those of the parts of the copy."""
    found = {
        (term.name, gains.field, family.ddids[gains.ddid]): gains
        for term in terms
        for gains in read_gains(run.gains, term.name)
    }
    groups = {}
    for ddid, cells in shape.cells.items():
        freq_hz = plan.rows.info.spws[plan.rows.info.data_descriptions[ddid].spw].freq_hz
        for key in cells.of:
            axis = plan.rows.axes[key]
            gains, t_bins, f_bins = [], [], []
            for term in terms:
                one = _of_group(term, key, cells.units, found)
                when = dd_cells.bins(cells.units, key, term.time_interval)
                channel = np.arange(freq_hz.size)
                if one.gains.shape[1] != freq_hz.size:
                    channel = channel // (term.freq_interval or freq_hz.size)
                if (when[-1] + 1, channel[-1] + 1) != one.gains.shape[:2]:
                    raise AssertionError(
                        f"{term.name}: {one.gains.shape[:2]} solutions in time and frequency where "
                        f"{(int(when[-1]) + 1, int(channel[-1]) + 1)} are expected"
                    )
                gains.append(
                    replace(
                        one,
                        field=key[0],
                        ddid=ddid,
                        time_s=_means(axis.times_s, when),
                        freq_hz=_means(freq_hz, channel),
                    )
                )
                t_bins.append(when)
                f_bins.append(channel)
            groups[key] = Solutions(axis, tuple(gains), tuple(t_bins), tuple(f_bins))
    return groups


def _of_group(
    term: Term, key: Key, units: Sequence[Unit], found: Mapping[tuple[str, int, int], TermGains]
) -> TermGains:
    """Solutions of one term in the units of a group, one unit after the other."""
    begins: dict[int, int] = {}
    pieces: dict[int, list[NDArray[np.int64]]] = {}
    for unit in units:
        begin = begins.get(unit.chunk, 0)
        begins[unit.chunk] = begin + dd_cells.solutions(unit.index.size, term.time_interval)
        if unit.key == key:
            pieces.setdefault(unit.chunk, []).append(np.arange(begin, begins[unit.chunk]))
    ones = [(found[term.name, c, key[1]], np.concatenate(n)) for c, n in pieces.items()]
    first = ones[0][0]
    params = [one.params[n] for one, n in ones if one.params is not None]
    return replace(
        first,
        gains=np.concatenate([one.gains[n] for one, n in ones]),
        flags=np.concatenate([one.flags[n] for one, n in ones]),
        information=np.concatenate([one.information[n] for one, n in ones]),
        converged=np.concatenate([one.converged for one, _ in ones]),
        iterations=np.concatenate([one.iterations for one, _ in ones]),
        params=np.concatenate(params) if params else None,
    )


def _means(values: NDArray[np.float64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    offset = values[0]
    return np.asarray(offset + np.bincount(bins, values - offset) / np.bincount(bins))


def _chi2(
    family: solvecopy.Family, run: quartical.Solved, shape: Shape, left: Left
) -> tuple[quartical.ChunkChi2, ...]:
    """Chi-squared of the chunks as of the data themselves; the field is -1 where there are several."""
    found = []
    for one in run.chi2:
        ddid = family.ddids[one.ddid]
        fields = {unit.key[0] for unit in shape.cells[ddid].units if unit.chunk == one.field}
        found.append(
            quartical.ChunkChi2(
                fields.pop() if len(fields) == 1 else -1,
                ddid,
                one.field,
                left.mean(one.field, ddid, one.before),
                left.mean(one.field, ddid, one.after),
            )
        )
    return tuple(found)
