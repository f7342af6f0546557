"""Applying a calibration, and writing the result into the user's MS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import commit
from peelkit.core.calibrate_match import time_interp
from peelkit.core.calibrate_solve import Job
from peelkit.core.calibrate_tables import Table
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.io.caltable import read_cal_table
from peelkit.progress import Progress
from peelkit.selection import Selection

COMMAND = "selfcal"


def apply(job: Job, tables: Sequence[Table], others: Sequence[int]) -> list[dict[str, Any]]:
    """Apply to the calibrator (nearest solutions) and to other fields (gains linear in time).

    Unless the user names an interpolation, which is for all.
    """
    records = []
    solved_in = [
        {one for each in read_cal_table(item.path).observations.values() for one in each}
        for item in tables
    ]
    for fields, gains in ((job.fields, "nearest"), (others, "linear")):
        if not fields:
            continue
        observed = observations(job.work, fields)
        interp = []
        for item, executions in zip(tables, solved_in, strict=True):
            usual = gains if item.kind in ("G", "T") else "nearest"
            one = time_interp(item.kind, job.options.interp, usual)
            # Executions apart from each other keep to their own solutions, where they have any.
            if len(executions) > 1 and observed <= executions and "perobs" not in one:
                one = f"{one}perobs"
            interp.append(one)
        arguments = {
            "gaintable": [str(item.path.absolute()) for item in tables],
            "spwmap": [list(item.spwmap) for item in tables],
            "interp": interp,
        }
        engine.apply_gains(
            job.casa, job.work.path,
            field=",".join(map(str, fields)),
            calwt=job.options.calwt,
            applymode=job.options.applymode,
            parang=job.options.parang,
            **arguments,
        )  # fmt: skip
        arguments["gaintables"] = [str(item.path) for item in tables]
        del arguments["gaintable"]
        records += [{"field": job.work.fields[field].name, **arguments} for field in fields]
    return records


def observations(work: ms.MsInfo, fields: Sequence[int]) -> set[int]:
    """Executions (OBSERVATION_ID) in which fields were observed."""
    found: set[int] = set()
    rows = ms.select_rows(work, Selection(field=",".join(map(str, fields))))
    with ms.opened(work.path) as main:
        for _, chunk in ms.chunks(main, work, rows):
            found |= set(ms.get(main, "OBSERVATION_ID", chunk).tolist())
    return found


def write(
    job: Job,
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    tables: Sequence[Table],
    progress: Progress,
) -> tuple[str, ...]:
    """Write the result into the user's MS, in one step."""
    options = job.options
    columns = commit.applied_columns(info, calwt=options.calwt)
    columns["MODEL_DATA"] = "model"
    flags = options.applymode == "calflag"
    with commit.recorded_step(info.path, COMMAND, casa=job.casa if flags else None) as step:
        commit.write_back(
            info, [commit.Part(job.work.path, rows, info.data_column(options.datacolumn))], step,
            columns=columns, flags=flags, progress=progress,
        )  # fmt: skip
        ms.add_history(
            info.path,
            command=COMMAND,
            message=f"peelkit selfcal: calibrated on {options.model}, tables in {job.workspace.folder}",
            parameters={
                "field": job.field,
                "model": options.model,
                "term": options.terms,
                "apply_to": options.apply_to,
                "gaintable": [str(item.path) for item in tables],
                "applymode": options.applymode,
            },
        )
    return (*columns, *(("FLAG",) if flags else ()))
