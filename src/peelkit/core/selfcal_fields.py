"""``peelkit selfcal --each-field``: every field calibrated by itself, here or on workers, and written in one step."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar, spread
from peelkit.core import commit
from peelkit.core import dry_run as rehearsal
from peelkit.core import selfcal as one
from peelkit.core.selfcal_session import SelfcalOptions
from peelkit.core.workspace import Workspace, check_folder, inputs, open_workspace
from peelkit.engines import casa as engine
from peelkit.errors import OptionError, PeelkitError
from peelkit.io import ms, rownumbers
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

# Stage of a folder whose field is done, and not written into the MS yet.
FINISHED = "finished"


@dataclass(frozen=True)
class Task:
    """All that a worker needs, but for the field.

    Parameters
    ----------
    ms : Path
        The MS; paths here and in ``options`` are absolute, since workers run elsewhere.
    selection : Selection
        Spw, scan and uvrange.
    options : SelfcalOptions
        For each field; ``out`` is the folder of all.
    """

    ms: Path
    selection: Selection
    options: SelfcalOptions


@dataclass(frozen=True)
class FieldRun:
    """What became of one field.

    Parameters
    ----------
    field : int
        Its id.
    folder : Path
        With its images, tables and plots, and the working copy until it is written into the MS.
    results : dict or None
        As of `selfcal`; None where it failed.
    warnings : list of str
        Of this field.
    reason : str
        Why no round helped, or what failed; empty if it gained.
    columns, flags
        What the MS shall have of the copy, see `selfcal.Calibrated`.
    engine : dict or None
        Of its CASA.
    parameters : dict
        How it was imaged, and the like.
    seconds : float
        It took.
    """

    field: int
    folder: Path
    results: Mapping[str, Any] | None
    warnings: Sequence[str]
    reason: str
    columns: Mapping[str, str]
    flags: bool
    engine: Mapping[str, Any] | None
    parameters: Mapping[str, Any]
    seconds: float

    @property
    def gained(self) -> bool:
        """A round helped: there is something to write."""
        return bool(self.columns)

    @property
    def status(self) -> str:
        """One word for the sidecar."""
        if self.gained:
            return "gained"
        return "failed" if self.results is None else "no gain"


def field_folder(out: Path, number: int, name: str) -> Path:
    """Folder of one field: its id, which is unique, and its name as far as that makes a file name."""
    return out / f"{number}_{re.sub(r'[^A-Za-z0-9+.-]', '_', name)}"


def calibrate_field(field: int, task: Task) -> FieldRun:
    """Self-calibrate one field on a copy of its rows, in a folder of its own; the MS stays as it is.

    Done again after a worker died, it goes on where that was; done already, it is read from its folder.
    What the user can mend is in `FieldRun.reason`, so that one field does not stop the others.
    """
    started = time.time()
    info = ms.read_info(task.ms)
    assert task.options.out is not None
    folder = field_folder(task.options.out, field, info.fields[field].name)
    selection = replace(task.selection, field=str(field))
    # What is in the folder is of this run, whose own folder was free: left-overs of a worker go.
    options = replace(task.options, out=folder, overwrite=True)
    try:
        options = one.with_data(info, selection, options)
        workspace, _ = open_workspace(folder, one.mark(info, selection, options), overwrite=True)
        rows = one.selected_rows(info, selection)
        data = one.data_mark(info, rows, info.data_column(options.datacolumn))
        if (found := _finished(workspace, data)) is not None:
            return found
        done = one.calibrate(info, selection, options, Progress(), write=False)
    except PeelkitError as error:
        reason = str(error).splitlines()[0]
        return FieldRun(field, folder, None, (), reason, {}, False, None, {}, time.time() - started)
    outcome = done.outcome
    reason = (outcome.refusal or "").removeprefix(f"{task.ms}: ").removesuffix(one.UNTOUCHED)
    run = FieldRun(
        field, folder, outcome.results, outcome.warnings, reason, done.columns, done.flags,
        outcome.engine, outcome.parameters, time.time() - started,
    )  # fmt: skip
    done.workspace.state = {"stage": FINISHED, "run": vars(run), "data": data}
    done.workspace.save()
    if not run.gained:
        done.workspace.drop_copy()
    return run


def _finished(workspace: Workspace, data: str) -> FieldRun | None:
    """What an earlier start of the same run found of the same data, if its copy is still there."""
    if workspace.state.get("stage") != FINISHED or workspace.state.get("data") != data:
        return None
    record = workspace.state["run"]
    run = FieldRun(**{**record, "folder": Path(record["folder"])})
    return run if workspace.ms.exists() or not run.gained else None


def selfcal_each_field(
    path: Path,
    selection: Selection,
    options: SelfcalOptions,
    machines: spread.Machines = spread.HERE,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Self-calibrate each selected field of the MS at ``path`` by itself.

    Parameters
    ----------
    path : Path
        The MS, written at the end in one step, with the fields that gained.
    selection : Selection
        Fields, spw, scan, and uvrange for the solves.
    options : SelfcalOptions
        For each field.
    machines : Machines
        Where fields are calibrated.
    dry_run : bool
        Only check, and tell what it would cost.

    Returns
    -------
    Outcome
        With a refusal if no field gained; the MS is then as it was.
    """
    progress = progress or Progress()
    if options.model:
        raise OptionError("--model is of one field; leave it out, or --each-field.")
    info = one.open_ms(path, selection, options, dry_run=dry_run)
    selection = info.by_id(selection)
    options = one.with_data(info, selection, options)
    with ms.opened(info.path) as main:
        counts = rownumbers.counts_by_field(
            main, one.selected_rows(info, selection), len(info.data_descriptions)
        )
    fields = list(counts)
    folder = (options.out or path.with_name(f"{path.stem}.selfcal")).absolute()
    # Not that of the same fields as one mosaic.
    identity = f"{one.mark(info, selection, options)}-fields"
    if dry_run:
        check_folder(folder, identity, overwrite=options.overwrite)
        return _rehearsed(info, selection, replace(options, out=folder), counts, machines, progress)
    task = Task(path.absolute(), selection, absolute(replace(options, out=folder)))
    runs: list[FieldRun] = []
    progress.stage(f"self-calibrating {len(fields)} fields", total=len(fields))
    with spread.opened(machines) as workers:
        # Where no scheduler answers no folder is left.
        outer, _ = open_workspace(
            folder, identity, overwrite=options.overwrite,
            needed=[info.path, *inputs(asdict(options))],
        )  # fmt: skip
        workers.see([task.ms, folder])
        for run in workers.run(calibrate_field, fields, shared=task):
            runs.append(run)
            name = info.fields[run.field].name
            log.info("field %d %s: %s", run.field, name, run.reason or _gain(run))
            progress.advance()
    gained = [run for run in runs if run.gained]
    refusal = None
    if gained:
        _commit(info, selection, options, gained, outer, progress)
    else:
        reasons = "; ".join(f"{run.field}: {run.reason}" for run in runs)
        refusal = f"{path}: no field gained ({reasons}){one.UNTOUCHED}"
    for run in runs:
        Workspace(run.folder, "").close()
    outer.close()
    columns = dict.fromkeys(name for run in gained for name in run.columns)
    return Outcome(
        results={
            "mode": "each-field",
            "fields": [_record(info, run) for run in runs],
            "gained": len(gained),
        },
        inputs={"ms": str(path)},
        reads=(info.data_column(options.datacolumn), "FLAG", "WEIGHT"),
        writes=(*columns, *(("FLAG",) if any(run.flags for run in gained) else ())),
        parameters={"out": str(folder), "field": ",".join(map(str, fields))},
        engine=_engines(runs),
        warnings=_warnings(runs),
        refusal=refusal,
    )


def _rehearsed(
    info: ms.MsInfo,
    selection: Selection,
    options: SelfcalOptions,
    counts: Mapping[int, NDArray[np.int64]],
    machines: spread.Machines,
    progress: Progress,
) -> Outcome:
    """What it would cost; a scheduler is not asked how many workers it has."""
    largest = max(counts, key=lambda number: int(counts[number].sum()))
    alone = replace(selection, field=str(largest))
    imaging = one.settled_imaging(info, alone, options, progress)
    assert options.out is not None
    return rehearsal.selfcal_fields(
        info, counts, one.selected_rows(info, alone), imaging, one.planned(options, options.out),
        machines.workers,
    )  # fmt: skip


def absolute(options: SelfcalOptions) -> SelfcalOptions:
    """The same with absolute paths."""
    return replace(
        options,
        **{
            name: value.absolute()
            for name in ("out", "mask", "leave_out", "flag_list")
            if (value := getattr(options, name)) is not None
        },
    )


def _commit(
    info: ms.MsInfo,
    selection: Selection,
    options: SelfcalOptions,
    gained: Sequence[FieldRun],
    outer: Workspace,
    progress: Progress,
) -> None:
    """Write the fields that gained into the MS; `undo` takes all back at once."""
    every = ",".join(str(run.field) for run in gained)
    rows = one.selected_rows(info, replace(selection, field=every))
    with ms.opened(info.path) as main:
        field = rownumbers.column(main, "FIELD_ID", rows)
    column = info.data_column(options.datacolumn)
    parts = [
        commit.Part(Workspace(run.folder, "").ms, rows[field == run.field], column)
        for run in gained
    ]
    columns = {name: filler for run in gained for name, filler in run.columns.items()}
    flags = any(run.flags for run in gained)

    def write(casa: engine.Casa | None) -> None:
        with commit.recorded_step(info.path, one.COMMAND, casa=casa) as step:
            commit.write_back(
                info, parts, step,
                columns=columns, flags=flags, self_calibrated=True, progress=progress,
            )  # fmt: skip
            ms.add_history(
                info.path,
                command=one.COMMAND,
                message=f"peelkit selfcal --each-field: gain tables in {outer.folder}",
                parameters={
                    "field": every,
                    "spw": selection.spw,
                    "gaintable": [
                        table for run in gained for table in (run.results or {})["gaintables"]
                    ],
                },
            )

    if flags:
        with engine.Casa(outer.log) as casa:
            write(casa)
    else:
        write(None)


def _gain(run: FieldRun) -> str:
    assert run.results is not None
    first, final = run.results["first"], run.results["final"]
    return f"dynamic range {first['dynamic_range']:.0f} to {final['dynamic_range']:.0f}"


def _record(info: ms.MsInfo, run: FieldRun) -> dict[str, Any]:
    return {
        "field": run.field,
        "name": info.fields[run.field].name,
        "status": run.status,
        "reason": run.reason or None,
        "written": run.gained,
        "folder": str(run.folder),
        "seconds": round(run.seconds, 1),
        "parameters": sidecar.clean(dict(run.parameters)),
        "results": run.results,
    }


def _warnings(runs: Sequence[FieldRun]) -> tuple[str, ...]:
    """Warnings with the fields that they are of, each once."""
    fields: dict[str, list[str]] = {}
    for run in runs:
        for text in run.warnings:
            fields.setdefault(text, []).append(str(run.field))
    return tuple(
        f"field{'s' * (len(of) > 1)} {','.join(of)}: {text}" for text, of in fields.items()
    )


def _engines(runs: Sequence[FieldRun]) -> dict[str, Any] | None:
    """CASA of all fields: its calls added up; each has its log in its folder."""
    found = [run.engine for run in runs if run.engine is not None]
    if not found:
        return None
    calls: dict[str, int] = {}
    for item in found:
        for name, count in item["calls"].items():
            calls[name] = calls.get(name, 0) + count
    return {**found[0], "calls": calls}


__all__ = ["FieldRun", "Task", "calibrate_field", "selfcal_each_field"]
