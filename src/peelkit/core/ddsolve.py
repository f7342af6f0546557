"""The work of ``peelkit ddsolve``: gate, solve, judge, subtract.

``D = G ( sum_s dE_s M_s dE_s^H ) G^H`` (VLASS memo 23, eq. 1; seed 000): QuartiCal solves the
direction-independent terms and those of each direction together, on a copy of the data; the gains are
applied here.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import commit, dd_apply, dd_gains, dd_results, dd_terms, plots_dd
from peelkit.core.dd_data import Rows, blocks
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_measure import gate, weight_words
from peelkit.core.dd_plan import Plan, settle
from peelkit.core.ddsolve_options import DdOptions
from peelkit.engines import casa as casa_engine
from peelkit.engines import quartical
from peelkit.errors import DataError, OptionError
from peelkit.io import journal, ms, solvecopy
from peelkit.io.gains import read_gains
from peelkit.outcome import Outcome
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
    extra = quartical.parse_extra(options.quartical)
    quartical.version()
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if commit.recover(path) is not None:
        info = ms.read_info(path)
    plan = settle(info, selection, options, progress)
    _make_folder(plan.folder, overwrite=options.overwrite)
    progress.stage("noise, and S/N of each direction")
    noise, plan, weak = gate(plan, progress)
    warnings = [*weight_words(noise), *weak]
    refusal = None
    runs: list[quartical.Solved] = []
    groups: dict[Key, Solutions] = {}
    judged: dd_results.Judgement | None = None
    writes: tuple[str, ...] = ()
    if not plan.used:
        reasons = "; ".join(f"{d.label}: {d.reason}" for d in plan.directions)
        refusal = f"{path}: no direction to peel or subtract ({reasons}); the MS is as it was."
    else:
        scale = {ddid: one.weight_scale for ddid, one in noise.items()}
        groups, runs = _solve(plan, scale, extra, progress)
        progress.stage("subtracting", total=plan.rows.rows.size)
        judged, writes = _apply(plan, groups, scale, progress)
        refusal = judged.refusal
        if refusal:
            writes = ()
    results = dd_results.results(plan, groups, judged, noise, runs)
    if groups and options.plots:
        progress.stage("plots")
        results["plots"] = [
            str(item) for item in plots_dd.direction_gains(plan, groups, plan.folder)
        ]
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


# ---------------------------------------------------------------- the solve


def _solve(
    plan: Plan, scale: dict[int, float], extra: dict[str, str], progress: Progress
) -> tuple[dict[Key, Solutions], list[quartical.Solved]]:
    info, options = plan.rows.info, plan.options
    across = "scan" in options.combine
    used = plan.used
    pinned = (0, *(n for n, name in enumerate(used, start=1) if name not in plan.peeled))
    choices = [term for term in options.terms if plan.peeled or not term.direction_dependent]
    names = [antenna.name for antenna in info.antennas]
    ddid_of_row = _ddid_of_rows(plan.rows)
    groups: dict[Key, Solutions] = {}
    runs = []
    for number, family in enumerate(solvecopy.families(info, plan.rows.ddids)):
        inside = np.isin(ddid_of_row, family.ddids)
        copy = plan.folder / f"work{number}.ms"
        progress.stage("copying the data for the solve")
        solvecopy.make_solve_copy(
            info, copy, plan.rows.rows[inside], family,
            data_column=plan.data_column, models=(plan.all_column, *used.values()),
            scans=plan.rows.scans[inside], combine_fields=plan.rows.combine_fields,
            weight_scale=scale,
        )  # fmt: skip
        integration = float(np.median([plan.rows.integration_s[d] for d in family.ddids]))
        terms = dd_terms.build(
            choices, integration_s=integration, width_hz=family.width_hz, n_chan=family.n_chan,
            pinned=pinned, across_scans=across,
        )  # fmt: skip
        if not terms:
            raise OptionError(
                "no term to solve: every direction is subtracted as it is, and --g is none."
            )
        threads = options.threads or len(os.sched_getaffinity(0))
        chunk = time_chunk(plan, family, terms, threads)
        full = any(term.type in quartical.FULL_TYPES for term in terms)
        n_corr = len(family.correlations)
        with ms.opened(copy) as main:
            spectrum = ms.has_cells(main, "WEIGHT_SPECTRUM")
        job = quartical.Job(
            copy,
            dd_terms.recipe(plan.all_column, list(used.values())),
            terms,
            names.index(plan.refant),
            dd_terms.iterations(terms, rounds=options.rounds, each=options.iterations),
            weight_column="WEIGHT_SPECTRUM" if spectrum else "WEIGHT",
            time_chunk=chunk,
            uv_range_m=plan.uv_range_m,
            threads=threads,
            select_corr=(0, 3) if n_corr == 4 and not full else (),
            extra=extra,
        )
        log.info("recipe %s, terms %s", job.recipe, " ".join(term.name for term in terms))
        progress.stage("solving (QuartiCal)")
        run = quartical.solve(job, plan.folder / f"quartical{number}")
        runs.append(run)
        groups |= _read_groups(plan, family, terms, run, chunk)
        shutil.rmtree(copy)
    return groups, runs


def _ddid_of_rows(rows: Rows) -> Any:
    pieces = []
    with ms.opened(rows.info.path) as main:
        for start, count in ms.row_ranges(rows.rows.size, 8):
            pieces.append(ms.get(main, "DATA_DESC_ID", rows.rows[start : start + count]))
    return np.concatenate(pieces)


def time_chunk(
    plan: Plan, family: solvecopy.Family, terms: list[quartical.Term], threads: int
) -> int:
    """Integrations at a time that fit the memory; 0 for all."""
    axes = [axis for (_, ddid), axis in plan.rows.axes.items() if ddid in family.ddids]
    longest = max(axis.times_s.size for axis in axes)
    rows_per_time = plan.rows.rows.size / sum(axis.times_s.size for axis in plan.rows.axes.values())
    per_sample = quartical.SAMPLE_BYTES + quartical.DIRECTION_BYTES * max(0, len(plan.used) - 2)
    per_time = rows_per_time * family.n_chan * len(family.correlations) * per_sample
    budget = max(plan.options.memory_gib * 2**30 - quartical.BASE_BYTES, 0.1 * 2**30) / threads
    fits = int(budget / per_time)
    if fits >= longest:
        return 0
    # Whole intervals of every term, where that is possible.
    step = math.lcm(*(term.time_interval for term in terms if term.time_interval))
    return max(step, fits // step * step)


def _read_groups(
    plan: Plan,
    family: solvecopy.Family,
    terms: list[quartical.Term],
    run: quartical.Solved,
    chunk: int,
) -> dict[Key, Solutions]:
    found: dict[Key, list[Any]] = {}
    for term in terms:
        for gains in read_gains(run.gains, term.name):
            field = -1 if plan.rows.combine_fields else gains.field
            found.setdefault((field, family.ddids[gains.ddid]), []).append(gains)
    intervals = [(term.time_interval, term.freq_interval, term.across_scans) for term in terms]
    return {
        key: dd_gains.assemble(
            plan.rows.axes[key], gains, intervals, n_chan=family.n_chan, chunk=chunk
        )
        for key, gains in found.items()
    }


# ---------------------------------------------------------------- after the solve


def _apply(
    plan: Plan, groups: dict[Key, Solutions], scale: dict[int, float], progress: Progress
) -> tuple[dd_results.Judgement, tuple[str, ...]]:
    """Subtract, judge, and write into the MS in one step that is put back if the answer is no."""
    info, options = plan.rows.info, plan.options
    columns = [
        *([] if options.keep else [options.column]),
        *(["CORRECTED_DATA"] if options.corrected else []),
    ]
    judged = dd_results.Judgement()
    if not columns:
        with ms.opened(info.path) as main:
            for block in blocks(plan.rows, plan.data_column, plan.models, main):
                _one(plan, groups, block, scale, judged)
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
) -> dd_apply.Peeled:
    block = replace(block, weight=block.weight * np.float32(scale[block.description.id]))
    done = dd_apply.peel(
        block,
        groups,
        all_column=plan.all_column,
        directions=plan.used,
        subtract=plan.subtracted,
        gains_needed=plan.peeled,
    )
    judged.add(block, done)
    return done


def _new_flags(plan: Plan, groups: dict[Key, Solutions]) -> int:
    """Unflagged samples that a failed solution would serve."""
    count = 0
    used = [n for n, name in enumerate(plan.used, start=1) if name in plan.peeled]
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, (), main):
            solutions = groups[block.key]
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
                done = _one(plan, groups, block, scale, judged)
                for name in columns:
                    values = done.corrected if name == "CORRECTED_DATA" else done.peeled
                    ms.put(main, name, block.rows, values)
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
