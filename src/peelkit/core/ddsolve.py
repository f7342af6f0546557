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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peelkit import sidecar
from peelkit.core import commit, dd_apply, dd_gains, dd_gate, dd_results, dd_terms, plots_dd
from peelkit.core.dd_data import Rows, blocks, gather
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_gate import Direction, Information, Noise
from peelkit.core.ddsolve_options import DdOptions
from peelkit.core.selfcal import choose_refants
from peelkit.engines import casa as casa_engine
from peelkit.engines import quartical
from peelkit.errors import DataError, OptionError
from peelkit.io import journal, ms, solvecopy
from peelkit.io.gains import read_gains
from peelkit.io.survey import survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

COMMAND = "ddsolve"

# Columns that a result must not go to.
PROTECTED = frozenset({"DATA", "FLAG", "WEIGHT", "SIGMA", "UVW", "MODEL_DATA"})

# A folder that peelkit made, and one of a run that has not ended.
MARKER, RUNNING = "ddsolve.log", "running"


class _RefusedError(Exception):
    """Ends the recorded step, so that the MS is put back; the reason is in the results."""


@dataclass(frozen=True)
class Plan:
    """What is solved, settled before any work."""

    options: DdOptions
    rows: Rows
    data_column: str
    all_column: str
    directions: tuple[Direction, ...]
    refant: str
    folder: Path
    uv_range_m: tuple[float, float]

    @property
    def used(self) -> dict[str, str]:
        """Label to column of the directions of the solve: all that are not skipped."""
        return {d.label: d.column for d in self.directions if d.decision != dd_gate.SKIP}

    @property
    def peeled(self) -> list[str]:
        """Labels with gains of their own."""
        return [d.label for d in self.directions if d.decision == dd_gate.PEEL]

    @property
    def subtracted(self) -> list[str]:
        """Labels that the output column does not have any more."""
        if self.options.keep:
            return []
        return [name for name in self.used if name in (self.options.subtract or self.used)]

    @property
    def models(self) -> tuple[str, ...]:
        """Model columns that are read."""
        return (self.all_column, *(d.column for d in self.directions))


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
    plan, warnings = _settle(info, selection, options, progress)
    _make_folder(plan.folder, overwrite=options.overwrite)
    progress.stage("noise, and S/N of each direction")
    noise, plan, information = _gate(plan, progress)
    warnings += _weight_words(noise)
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
    results = dd_results.results(plan, groups, judged, noise, runs, information)
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


def _settle(
    info: ms.MsInfo, selection: Selection, options: DdOptions, progress: Progress
) -> tuple[Plan, list[str]]:
    warnings: list[str] = []
    uv_range = dd_terms.uv_range_m(selection.uvrange)
    all_column, directions = _directions(info, options)
    labels = {d.label for d in directions}
    for label in (*options.subtract, *options.decisions):
        if label not in labels:
            raise OptionError(
                f"{label!r}: no such direction; there are {', '.join(sorted(labels))}."
            )
    if options.subtract and options.keep:
        raise OptionError("--subtract and --keep exclude each other; give one.")
    if options.column.upper() in PROTECTED or options.column in {d.column for d in directions}:
        raise OptionError(
            f"--column {options.column}: an input; name another column, such as PEELED_DATA."
        )
    if options.column == all_column:
        raise OptionError(f"--column {options.column}: the all-sky model; name another column.")
    word = options.datacolumn
    if word == "auto":
        word = "corrected" if "CORRECTED_DATA" in info.columns else "data"
    data_column = info.data_column(word)
    if options.corrected and options.column == "CORRECTED_DATA":
        raise OptionError("--corrected writes CORRECTED_DATA; name another --column.")
    if options.column == data_column:
        raise OptionError(
            f"--column {options.column}: the data that are solved; name another column, or "
            "--datacolumn data."
        )
    targets = [
        *([] if options.keep else [options.column]),
        *(["CORRECTED_DATA"] if options.corrected else []),
    ]
    present = [name for name in targets if name in info.columns]
    if present and not options.overwrite:
        raise DataError(
            f"{info.path}: {' and '.join(present)} exist and would be replaced; allow it with --overwrite "
            "('peelkit undo' puts them back)."
        )
    rows = ms.select_rows(info, replace(selection, uvrange=""))
    gathered = gather(info, rows, combine_fields="field" in options.combine)
    found = survey(info, replace(selection, uvrange=""), progress)
    refant = choose_refants(info, found, options.refant)[0]
    folder = options.out or info.path.with_name(f"{info.path.stem}.ddsolve")
    plan = Plan(
        options, gathered, data_column, all_column, tuple(directions), refant, folder, uv_range
    )
    return plan, warnings


def _directions(info: ms.MsInfo, options: DdOptions) -> tuple[str, list[Direction]]:
    if options.plan is not None:
        if options.all_column or options.peel:
            raise OptionError("--from brings the columns; leave --all and --peel out.")
        record = sidecar.read(options.plan, "predict-region")["results"]
        all_column = record.get("all_column") or ""
        if not all_column:
            raise DataError(
                f"{options.plan}: no all-sky column was written; run predict-region with --all-column."
            )
        directions = [
            Direction(d["label"], d["column"], d["ra_deg"], d["dec_deg"], d["flux_jy"])
            for d in record["directions"]
        ]
    else:
        if not options.all_column or not options.peel:
            raise OptionError(
                "name the model columns: --all COLUMN and --peel COLUMN, or --from the sidecar of "
                "predict-region."
            )
        all_column = options.all_column
        if len(set(options.peel)) < len(options.peel) or all_column in options.peel:
            raise OptionError("--peel: a column is given twice; each direction needs its own.")
        directions = [Direction(name, name) for name in options.peel]
    for name in (all_column, *(d.column for d in directions)):
        info.require(name, "make it with 'peelkit predict-region' or 'peelkit add-model-col'.")
    return all_column, directions


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


def _gate(
    plan: Plan, progress: Progress
) -> tuple[dict[int, Noise], Plan, dict[str, dict[Key, Information]]]:
    """Measure noise and S/N in one pass over the data, and decide on each direction."""
    info = plan.rows.info
    choice = next(term for term in plan.options.terms if term.name == "dE")
    across = "scan" in plan.options.combine
    bins: dict[Key, tuple[Any, Any]] = {}
    for key, axis in plan.rows.axes.items():
        spw = info.spws[info.data_descriptions[key[1]].spw]
        width = float(np.median(np.abs(spw.width_hz)))
        n_chan = spw.freq_hz.size
        time = dd_terms.time_integrations(choice.time, plan.rows.integration_s[key[1]])
        freq = dd_terms.freq_channels(choice.freq, width, n_chan)
        bins[key] = (
            dd_gains.time_bins(axis, time, across_scans=across),
            dd_gains.freq_bins(n_chan, freq, 0),
        )
    n_antenna = len(info.antennas)
    information = {
        d.label: {
            key: Information.empty(t_bins, f_bins, n_antenna)
            for key, (t_bins, f_bins) in bins.items()
        }
        for d in plan.directions
    }
    total = dict.fromkeys(information, 0.0)
    noise = {ddid: Noise() for ddid in plan.rows.ddids}
    rng = np.random.default_rng(0)
    bad = dict.fromkeys(plan.models, 0)
    with ms.opened(info.path) as main:
        for block in blocks(plan.rows, plan.data_column, plan.models, main):
            hands = block.hands
            weight = block.weight[..., hands]
            for name, model in block.models.items():
                bad[name] += int(np.count_nonzero(~np.isfinite(model) & ~block.flag))
            residual = (block.data - block.models[plan.all_column])[..., hands]
            # Fields of one group are kept apart: their baselines see other phase centres.
            baseline = (
                (block.scans * n_antenna + block.antenna1) * n_antenna + block.antenna2
            ).astype(np.int64)
            noise[block.description.id].values.append(
                dd_gate.scatter(residual, weight, baseline, block.times_s, rng)
            )
            t_bins, f_bins = bins[block.key]
            when = t_bins[dd_gains.time_index(plan.rows.axes[block.key], block.times_s)]
            for d in plan.directions:
                power = (weight * np.abs(block.models[d.column][..., hands]) ** 2).mean(axis=-1)
                information[d.label][block.key].add(
                    power.astype(np.float64), when, f_bins, (block.antenna1, block.antenna2)
                )
                total[d.label] += float(power.sum()) * hands.size
            progress.advance(block.rows.size)
    _refuse_bad(plan, bad, total)
    scale = {ddid: one.weight_scale for ddid, one in noise.items()}
    directions = []
    for d in plan.directions:
        pieces = [
            math.sqrt(scale[ddid]) * one.snr for (_, ddid), one in information[d.label].items()
        ]
        values = np.concatenate(pieces)
        snr = float(np.median(values)) if values.size else 0.0
        mean_scale = float(np.mean(list(scale.values())))
        whole = math.sqrt(total[d.label] * mean_scale)
        decision, reason = dd_gate.decide(snr, whole, min_snr=plan.options.min_snr)
        if d.label in plan.options.decisions:
            decision, reason = plan.options.decisions[d.label], "as asked for with --decide"
        directions.append(
            replace(d, snr_per_solution=snr, snr_total=whole, decision=decision, reason=reason)
        )
    return noise, replace(plan, directions=tuple(directions)), information


def _refuse_bad(plan: Plan, bad: dict[str, int], total: dict[str, float]) -> None:
    path = plan.rows.info.path
    for name, count in bad.items():
        if count:
            raise DataError(
                f"{path}: {name} has {count} values that are no numbers; predict it again."
            )
    columns = {d.label: d.column for d in plan.directions}
    for label, power in total.items():
        if power == 0:
            raise DataError(
                f"{path}: {columns[label]} is zero everywhere in the selected data; predict it again."
            )


def _weight_words(noise: dict[int, Noise]) -> list[str]:
    words = []
    for ddid, one in noise.items():
        if one.weight_scale != 1.0:
            words.append(
                f"data description {ddid}: the weights promise {1 / one.ratio:.3g} times the noise that the "
                "data show; scaled for the solve by what the data show"
            )
    return words


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
