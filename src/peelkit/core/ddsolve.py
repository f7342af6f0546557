"""The work of ``peelkit ddsolve``: gate, solve, judge, subtract.

``D = G ( sum_s dE_s M_s dE_s^H ) G^H`` (VLASS memo 23, eq. 1; seed 000): QuartiCal solves the
direction-independent terms and those of each direction together, on a copy of the data; the gains are
applied here.
"""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import (
    commit,
    dd_apply,
    dd_auto,
    dd_balance,
    dd_classes,
    dd_delay,
    dd_fields,
    dd_freedom,
    dd_gains,
    dd_inject,
    dd_own,
    dd_results,
    dd_terms,
    plots_dd,
    plots_intervals,
)
from peelkit.core.dd_data import blocks
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_measure import gate, weight_words
from peelkit.core.dd_plan import Plan, settle
from peelkit.core.dd_refine import Refinement
from peelkit.core.ddsolve_options import DdOptions
from peelkit.engines import casa as casa_engine
from peelkit.engines import quartical
from peelkit.errors import DataError
from peelkit.io import journal, ms
from peelkit.outcome import Outcome
from peelkit.parallel import Aside
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

COMMAND = "ddsolve"

# A folder that peelkit made, and one of a run that has not ended.
MARKER, RUNNING = "ddsolve.log", "running"


class _RefusedError(Exception):
    """Ends the recorded step, so that the MS is put back; the reason is in the results."""


def ddsolve(
    path: Path, selection: Selection, options: DdOptions, progress: Progress | None = None
) -> Outcome:
    """Solve direction-dependent gains on the MS at ``path``, and subtract the directions.

    Returns
    -------
    Outcome
        With a refusal if nothing could be solved, or the residual is worse than before; the MS is
        then as it was.
    """
    progress = progress or Progress()
    dd_terms.check(options.terms)
    dd_inject.parse(options.inject)
    extra = quartical.parse_extra(options.quartical)
    quartical.version()
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if commit.recover(path) is not None:
        info = ms.read_info(path)
    plan = settle(info, selection, options, progress)
    dd_own.check(plan)
    _make_folder(plan.folder, overwrite=options.overwrite)
    progress.stage("noise, and S/N of each direction")
    noise, plan, weak = gate(plan, progress)
    warnings = [*weight_words(noise), *weak, *dd_own.left_out(plan)]
    refusal = None
    runs: list[quartical.Solved] = []
    groups: dict[Key, Solutions] = {}
    judged: dd_results.Judgement | None = None
    balanced: dd_balance.Balance | None = None
    chosen: dd_auto.Choice | None = None
    injected: list[dd_inject.Recovered] | None = None
    writes: tuple[str, ...] = ()
    plots = Aside()
    if not plan.used:
        reasons = "; ".join(f"{d.label}: {d.reason}" for d in plan.directions)
        refusal = f"{path}: no direction to peel or subtract ({reasons}); the MS is as it was."
    else:
        scale = {ddid: one.weight_scale for ddid, one in noise.items()}
        plan = dd_delay.with_start(plan, scale, extra, progress)
        warnings += dd_delay.words(plan)
        plan, chosen = _with_intervals(plan, scale, extra, progress)
        if options.plots and chosen is not None:
            # While QuartiCal has the cores, but for the seconds that it needs to begin.
            plots.begin(plots_intervals.intervals, plan, chosen, plan.folder)
        groups, runs = dd_classes.solve(plan, scale, extra, progress, chosen)
        if options.balance:
            groups, balanced = dd_balance.balance(plan, groups, scale, progress)
        if options.plots:
            plots.begin(plots_dd.direction_gains, plan, groups, plan.folder)
        if options.inject:
            injected = dd_inject.inject(plan, groups, chosen, scale, extra, progress)
            warnings += dd_inject.words(injected)
        progress.stage("subtracting", total=plan.rows.rows.size)
        judged, writes = _apply(plan, groups, scale, progress)
        refusal = judged.refusal
        if refusal:
            writes = ()
    results = dd_results.results(plan, groups, judged, noise, runs, balanced, chosen)
    results["injected"] = dd_inject.records(injected)
    results["delay_start"] = dd_delay.record(plan)
    warnings += dd_freedom.record(results, plan, groups, chosen)
    if groups and options.plots:
        progress.stage("plots")
        results["plots"] = [str(item) for item in plots.files()]
    (plan.folder / RUNNING).unlink(missing_ok=True)
    return Outcome(
        results=results,
        inputs={"ms": str(path), **({"plan": str(options.plan)} if options.plan else {})},
        reads=(plan.data_column, *plan.models, "FLAG", "WEIGHT"),
        writes=writes,
        parameters={
            **asdict(options),
            **asdict(selection),
            "combine": sorted(options.combine),
            "out": str(plan.folder),
            "refant": plan.refant,
            "datacolumn": plan.data_column,
        },
        engine={
            "name": "quartical",
            "version": quartical.version(),
            "log": str(runs[-1].log) if runs else None,
            "argv": [list(run.argv) for run in runs],
            "seconds": [round(run.seconds, 2) for run in runs],
        },
        warnings=tuple(warnings + (judged.warnings if judged else [])),
        refusal=refusal,
    )


# ---------------------------------------------------------------- before the solve


def _with_intervals(
    plan: Plan, scale: dict[int, float], extra: dict[str, str], progress: Progress
) -> tuple[Plan, dd_auto.Choice | None]:
    """The plan with intervals in place of ``auto``, and how they were chosen."""
    if plan.by_field:
        return dd_classes.with_intervals(plan, scale, extra, progress)
    if not dd_auto.wanted(plan.options.terms):
        return plan, None
    if not plan.peeled:
        terms = tuple(dd_terms.longest(term) for term in plan.options.terms)
        return replace(plan, options=replace(plan.options, terms=terms)), None
    chosen = dd_auto.choose(plan, scale, extra, progress)
    n_chan, n_time = dd_auto.sizes(plan.rows)
    directions = []
    for d in plan.directions:
        if d.label in chosen.by_direction:
            # The gate measured the longest; information adds up.
            time, freq = chosen.by_direction[d.label]
            share = (time or n_time) * (freq or n_chan) / (n_time * n_chan)
            d = replace(d, snr_per_solution=d.snr_per_solution * math.sqrt(share))
        directions.append(d)
    log.info("intervals: %s", ", ".join(f"{t.name} {t.time} {t.freq}" for t in chosen.terms))
    options = replace(plan.options, terms=chosen.terms)
    return replace(plan, options=options, directions=tuple(directions)), chosen


def _make_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and any(folder.iterdir()):
        unfinished = (folder / RUNNING).exists()
        if not (folder / MARKER).exists():
            raise DataError(
                f"{folder}: not a folder of peelkit ddsolve (no {MARKER}), so it is not deleted; give "
                "another --out."
            )
        if not (overwrite or unfinished):
            raise DataError(f"{folder}: exists; give another --out, or --overwrite to replace it.")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
        (folder / RUNNING).touch()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}); give another place with --out."
        ) from error


# ---------------------------------------------------------------- after the solve


def _apply(
    plan: Plan, groups: dict[Key, Solutions], scale: dict[int, float], progress: Progress
) -> tuple[dd_results.Judgement, tuple[str, ...]]:
    """Subtract, judge, and write into the MS in one step that is put back if the answer is no."""
    info, options = plan.rows.info, plan.options
    columns = [
        *([] if options.keep else [options.column]),
        *(["CORRECTED_DATA"] if options.corrected else []),
        *dd_own.columns(plan).values(),
    ]
    spws = len(plan.rows.ddids)
    judged = dd_results.Judgement(
        refinements={
            d.label: Refinement(d.model, spws)
            for d in plan.directions
            if d.model is not None and d.label in plan.peeled
        }
    )
    if not columns:
        with ms.opened(info.path) as main:
            for block in blocks(plan.rows, plan.data_column, plan.models, main):
                _one(plan, groups, block, scale, judged, main)
                progress.advance(block.rows.size)
        dd_results.judge(plan, groups, judged)
        return judged, ()
    flags = options.flag and _new_flags(plan, groups) > 0
    try:
        if flags:
            with casa_engine.Casa(plan.folder / "casa.log") as casa:
                _write(plan, groups, columns, scale, judged, casa, progress)
        else:
            _write(plan, groups, columns, scale, judged, None, progress)
    except _RefusedError:
        pass
    return judged, (*columns, *(("FLAG",) if flags else ()))


def _one(
    plan: Plan,
    groups: dict[Key, Solutions],
    block: Any,
    scale: dict[int, float],
    judged: dd_results.Judgement,
    main: Any,
) -> dd_apply.Peeled:
    block = replace(block, weight=block.weight * np.float32(scale[block.description.id]))
    here = plan.at(block.key)
    done = dd_apply.peel(
        block,
        groups,
        all_column=plan.all_column,
        directions=here.used,
        subtract=here.subtracted,
        gains_needed=here.peeled,
        own=dd_own.columns(here),
    )
    dd_fields.complete(plan, done.sums)
    judged.add(block, done)
    for label, refinement in judged.refinements.items():
        if label in here.peeled:
            refinement.add(plan.rows.info, main, block, done, label)
    return done


def _new_flags(plan: Plan, groups: dict[Key, Solutions]) -> int:
    """Unflagged samples that a failed solution would serve."""
    count = 0
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, (), main):
            solutions, here = groups[block.key], plan.at(block.key)
            used = [n for n, name in enumerate(here.used, start=1) if name in here.peeled]
            when = dd_gains.time_index(solutions.axis, block.times_s)
            bad = dd_gains.failed(solutions, when, block.antenna1, block.antenna2, used)
            count += int(np.count_nonzero(bad[:, :, None] & ~block.flag))
    return count


def _write(
    plan: Plan,
    groups: dict[Key, Solutions],
    columns: list[str],
    scale: dict[int, float],
    judged: dd_results.Judgement,
    casa: casa_engine.Casa | None,
    progress: Progress,
) -> None:
    info = plan.rows.info
    path = info.path
    with commit.recorded_step(path, COMMAND, casa=casa) as step:
        for name in columns:
            step = journal.new_column(path, step, name)
        if plan.rows.rows.size < info.n_rows:
            _fill(plan, step, columns)
        with ms.opened(path, write=True) as main:
            source = step.replaced.get(plan.data_column, plan.data_column)
            for block in blocks(plan.rows, source, plan.models, main):
                done = _one(plan, groups, block, scale, judged, main)
                values = dd_own.outputs(plan, done)
                for name in columns:
                    ms.put(main, name, block.rows, values[name])
                if casa is not None:
                    flag = ms.get(main, "FLAG", block.rows)
                    ms.put(main, "FLAG", block.rows, flag | done.failed[:, :, None])
                progress.advance(block.rows.size)
        dd_results.judge(plan, groups, judged)
        if judged.refusal:
            raise _RefusedError
        ms.add_history(
            path,
            command=COMMAND,
            message=f"peelkit ddsolve: solutions in {plan.folder}",
            parameters={
                "recipe": dd_terms.recipe(plan.all_column, list(plan.used.values())),
                "terms": [asdict(term) for term in plan.options.terms],
                "datacolumn": plan.data_column,
                "subtracted": plan.subtracted,
            },
        )


def _fill(plan: Plan, step: journal.Step, columns: list[str]) -> None:
    """Give rows that were not selected what they had, or the data."""
    info = plan.rows.info
    rest = np.setdiff1d(np.arange(info.n_rows), plan.rows.rows)
    with ms.opened(info.path, write=True) as main:
        for name in columns:
            source = step.replaced.get(name, step.replaced.get(plan.data_column, plan.data_column))
            for _, chunk in ms.chunks(main, info, rest):
                ms.put(main, name, chunk, ms.get(main, source, chunk))
