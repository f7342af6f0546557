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

import numpy as np

from peelkit import memory
from peelkit.core import (
    commit,
    dd_auto,
    dd_balance,
    dd_classes,
    dd_delay,
    dd_freedom,
    dd_gains,
    dd_inject,
    dd_known,
    dd_own,
    dd_results,
    dd_subtract,
    dd_terms,
    plots_dd,
    plots_intervals,
)
from peelkit.core import dry_run as rehearsal
from peelkit.core.dd_data import blocks
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_measure import gate
from peelkit.core.dd_noise import scales
from peelkit.core.dd_plan import Plan, settle
from peelkit.core.ddsolve_options import DdOptions
from peelkit.engines import casa as casa_engine
from peelkit.engines import quartical
from peelkit.errors import DataError
from peelkit.io import journal, ms
from peelkit.outcome import Outcome
from peelkit.parallel import Aside
from peelkit.progress import Progress
from peelkit.selection import Selection
from peelkit.spread import HERE, Machines, Spread, opened

log = logging.getLogger(__name__)

COMMAND = "ddsolve"

# Solves, at most, each on data without the gains that the rest of the sky showed after the one before.
MOST_PASSES = 4

# A folder that peelkit made, and one of a run that has not ended.
MARKER, RUNNING = "ddsolve.log", "running"


class _RefusedError(Exception):
    """Ends the recorded step, so that the MS is put back; the reason is in the results."""


def ddsolve(
    path: Path,
    selection: Selection,
    options: DdOptions,
    progress: Progress | None = None,
    *,
    machines: Machines = HERE,
    dry_run: bool = False,
) -> Outcome:
    """Solve direction-dependent gains on the MS at ``path``, and subtract the directions.

    On ``machines`` parts of the data are solved and blocks computed; the MS is written here. With
    ``dry_run`` only check, and tell what it would cost.

    Returns
    -------
    Outcome
        With a refusal if nothing could be solved, or the residual is worse than before; the MS is
        then as it was.
    """
    progress = progress or Progress()
    with opened(HERE if dry_run else machines) as spread:
        spread.see([path])
        return _ddsolve(path, selection, options, progress, spread, dry_run=dry_run)


def _ddsolve(
    path: Path,
    selection: Selection,
    options: DdOptions,
    progress: Progress,
    spread: Spread,
    *,
    dry_run: bool = False,
) -> Outcome:
    dd_terms.check(options.terms)
    dd_inject.parse(options.inject)
    extra = quartical.parse_extra(options.quartical)
    quartical.version()
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if dry_run:
        rehearsal.refuse_unfinished(path)
    elif commit.recover(path) is not None:
        info = ms.read_info(path)
    plan = settle(info, selection, options, progress)
    dd_own.check(plan)
    _check_folder(plan.folder, overwrite=options.overwrite)
    if dry_run:
        columns = len(_columns(plan))
        return rehearsal.ddsolve(plan, auto=dd_auto.wanted(options.terms), columns=columns)
    _make_folder(plan.folder)
    # Where they write: a machine may have the data, and not this.
    spread.see([plan.folder])
    progress.stage("noise, and S/N of each direction")
    noise, plan, weak = gate(plan, progress)
    warnings = [*weak, *dd_own.left_out(plan)]
    scale = scales(noise, solved=False)
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
        plan = dd_delay.with_start(plan, scale, extra, progress)
        warnings += dd_delay.words(plan)
        settled, before = plan, scale
        for number in range(MOST_PASSES):
            plan, chosen = _with_intervals(settled, before, extra, progress, spread)
            if chosen is not None:
                scale = dict(chosen.scale)
            groups, runs = dd_classes.solve(plan, scale, extra, progress, chosen, spread=spread)
            if not options.balance:
                break
            groups, balanced = dd_balance.balance(plan, groups, scale, progress)
            if plan.by_field or balanced.is_small or number == MOST_PASSES - 1:
                break
            log.info("gains of the rest of the sky: solving again without them")
            settled = replace(settled, known=dd_known.of(groups))
        warnings += weight_words(scale)
        if options.plots and chosen is not None:
            plots.begin(plots_intervals.intervals, plan, chosen, plan.folder)
        if options.plots:
            plots.begin(plots_dd.direction_gains, plan, groups, plan.folder)
        if options.inject:
            injected = dd_inject.inject(plan, groups, chosen, scale, extra, progress, spread=spread)
            warnings += dd_inject.words(injected)
        progress.stage("subtracting", total=plan.rows.rows.size)
        judged, writes = _apply(plan, groups, scale, progress, spread)
        refusal = judged.refusal
        if refusal:
            writes = ()
    results = dd_results.results(plan, groups, judged, noise, scale, runs, balanced, chosen)
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
            "memory_gib": memory.limit_gib(),
            "out": str(plan.folder),
            "refant": plan.rows.info.antennas[plan.refant].name,
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


def weight_words(scale: dict[int, float]) -> list[str]:
    """What to tell of weights that were not believed."""
    return [
        f"data description {ddid}: the weights promise {math.sqrt(factor):.3g} times the noise that the data show; "
        "they are scaled for the solve"
        for ddid, factor in scale.items()
        if factor != 1.0
    ]


# ---------------------------------------------------------------- before the solve


def _with_intervals(
    plan: Plan,
    scale: dict[int, float],
    extra: dict[str, str],
    progress: Progress,
    spread: Spread,
) -> tuple[Plan, dd_auto.Choice | None]:
    """The plan with intervals in place of ``auto``, and how they were chosen."""
    if plan.by_field:
        return dd_classes.with_intervals(plan, scale, extra, progress, spread=spread)
    if not dd_auto.wanted(plan.options.terms):
        return plan, None
    if not plan.peeled:
        terms = tuple(dd_terms.longest(term) for term in plan.options.terms)
        return replace(plan, options=replace(plan.options, terms=terms)), None
    chosen = dd_auto.choose(plan, scale, extra, progress, spread=spread)
    n_chan, n_time = dd_auto.sizes(plan.rows)
    directions = []
    for d in plan.directions:
        if d.label in chosen.by_direction:
            # The gate measured the longest; information adds up.
            time, freq = chosen.by_direction[d.label]
            share = (time or n_time) * (freq or n_chan) / (n_time * n_chan)
            share *= float(np.mean([chosen.scale[ddid] / scale[ddid] for ddid in scale]))
            d = replace(d, snr_per_solution=d.snr_per_solution * math.sqrt(share))
        directions.append(d)
    log.info("intervals: %s", ", ".join(f"{t.name} {t.time} {t.freq}" for t in chosen.terms))
    options = replace(plan.options, terms=chosen.terms)
    return replace(plan, options=options, directions=tuple(directions)), chosen


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that may not be replaced."""
    if folder.exists() and any(folder.iterdir()):
        unfinished = (folder / RUNNING).exists()
        if not (folder / MARKER).exists():
            raise DataError(
                f"{folder}: not a folder of peelkit ddsolve (no {MARKER}), so it is not deleted; give "
                "another --out."
            )
        if not (overwrite or unfinished):
            raise DataError(f"{folder}: exists; give another --out, or --overwrite to replace it.")


def _make_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
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
    plan: Plan,
    groups: dict[Key, Solutions],
    scale: dict[int, float],
    progress: Progress,
    spread: Spread,
) -> tuple[dd_results.Judgement, tuple[str, ...]]:
    """Subtract, judge, and write into the MS in one step that is put back if the answer is no."""
    info, options = plan.rows.info, plan.options
    columns = _columns(plan)
    judged = dd_results.Judgement(refinements=dd_subtract.refinements(plan))
    work = dd_subtract.Work(plan, groups, scale, plan.data_column, columns)
    if not columns:
        with ms.opened(info.path) as main:
            for done in dd_subtract.done(work, main, spread):
                judged.merge(done.judged)
                progress.advance(done.rows.size)
        dd_results.judge(plan, groups, judged)
        return judged, ()
    flags = options.flag and _new_flags(plan, groups) > 0
    try:
        if flags:
            with casa_engine.Casa(plan.folder / "casa.log") as casa:
                _write(work, judged, casa, progress, spread)
        else:
            _write(work, judged, None, progress, spread)
    except _RefusedError:
        pass
    return judged, (*columns, *(("FLAG",) if flags else ()))


def _columns(plan: Plan) -> list[str]:
    """Columns that are written."""
    return [
        *([] if plan.options.keep else [plan.options.column]),
        *(["CORRECTED_DATA"] if plan.options.corrected else []),
        *dd_own.columns(plan).values(),
    ]


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
    work: dd_subtract.Work,
    judged: dd_results.Judgement,
    casa: casa_engine.Casa | None,
    progress: Progress,
    spread: Spread,
) -> None:
    plan, columns = work.plan, list(work.columns)
    info = plan.rows.info
    path = info.path
    with commit.recorded_step(path, COMMAND, casa=casa) as step:
        for name in columns:
            step = journal.new_column(path, step, name)
        if plan.rows.rows.size < info.n_rows:
            _fill(plan, step, columns)
        with ms.opened(path, write=True) as main:
            source = step.replaced.get(plan.data_column, plan.data_column)
            here = replace(work, source=source)
            for done in dd_subtract.done(here, main, spread):
                for name, values in done.values.items():
                    ms.put(main, name, done.rows, values)
                if casa is not None and done.failed.any():
                    flag = ms.get(main, "FLAG", done.rows)
                    ms.put(main, "FLAG", done.rows, flag | done.failed[:, :, None])
                judged.merge(done.judged)
                progress.advance(done.rows.size)
        dd_results.judge(plan, work.groups, judged)
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
    rest = ms.other_rows(info, plan.rows.rows)
    with ms.opened(info.path, write=True) as main:
        for name in columns:
            source = step.replaced.get(name, step.replaced.get(plan.data_column, plan.data_column))
            for _, chunk in ms.chunks(main, info, rest):
                ms.put(main, name, chunk, ms.get(main, source, chunk))
