"""One run of QuartiCal for each kind of data description: on a copy of the data, gains read back."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_gains, dd_terms
from peelkit.core.dd_data import Rows
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.errors import OptionError
from peelkit.io import ms, rownumbers, solvecopy
from peelkit.io.gains import read_gains, write_gains
from peelkit.parallel import cores
from peelkit.progress import Progress

log = logging.getLogger(__name__)

# Changes the copy before it is solved: its path, and the rows of the MS that are in it, in order.
Prepare = Callable[[Path, NDArray[np.int64]], None]

# Undoes that.
Restore = Callable[[Path], None]


def solve(
    plan: Plan,
    scale: dict[int, float],
    extra: dict[str, str],
    progress: Progress,
    *,
    name: str = "quartical",
    prepare: Prepare | None = None,
    restore: Restore | None = None,
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
    prepare : callable, optional
        Changes the copy before the solve.
    restore : callable, optional
        Undoes that after it; the copy is then left for the next solve of the same data.

    Returns
    -------
    dict
        Solutions by field and data description.
    list of Solved
        The runs, one for each family of data descriptions.
    """
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
        copy = plan.folder / f"{name}{number}.ms"
        models = (plan.all_column, *used.values())
        words = solvecopy.mark(
            info, plan.rows.rows[inside], plan.rows.scans[inside], family, plan.data_column, models,
            plan.rows.combine_fields, scale,
        )  # fmt: skip
        if not solvecopy.take(plan.folder, words, copy):
            progress.stage("copying the data for the solve")
            solvecopy.make_solve_copy(
                info, copy, plan.rows.rows[inside], family,
                data_column=plan.data_column, models=models,
                scans=plan.rows.scans[inside], combine_fields=plan.rows.combine_fields,
                weight_scale=scale,
            )  # fmt: skip
        if prepare is not None:
            prepare(copy, plan.rows.rows[inside])
        if plan.delay_start is not None:
            plan.delay_start.take_out(copy, family.ddids)
        integration = float(np.median([plan.rows.integration_s[d] for d in family.ddids]))
        terms = dd_terms.build(
            choices, integration_s=integration, width_hz=family.width_hz, n_chan=family.n_chan,
            pinned=pinned, across_scans=across,
        )  # fmt: skip
        if not terms:
            raise OptionError(
                "no term to solve: every direction is subtracted as it is, and --g is none."
            )
        threads = options.threads or cores()
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
        run = quartical.solve(job, plan.folder / f"{name}{number}")
        runs.append(run)
        groups |= _read_groups(plan, family, terms, run, chunk)
        if restore is None or (plan.delay_start is not None and plan.delay_start.spws):
            # Without the delays the copy is not what the next solve begins with.
            shutil.rmtree(copy)
        else:
            restore(copy)
            solvecopy.leave(copy, words)
    return groups, runs


def _ddid_of_rows(rows: Rows) -> Any:
    found = np.empty(rows.rows.size, dtype=np.int32)
    with ms.opened(rows.info.path) as main:
        for start, window, ddids in rownumbers.windows(main, rows.rows):
            found[start : start + window.size] = ddids
    return found


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
    groups = {}
    for key, ones in found.items():
        groups[key] = dd_gains.assemble(
            plan.rows.axes[key], ones, intervals, n_chan=family.n_chan, chunk=chunk
        )
        if plan.delay_start is not None:
            groups[key], whole = plan.delay_start.put_into(groups[key], key[1])
            if whole is not None:
                # The files are what others apply.
                write_gains(run.gains, whole)
    return groups
