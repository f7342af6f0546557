"""Applying a calibration, and writing the result into the user's MS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import commit
from peelkit.core.calibrate_solve import Job
from peelkit.core.calibrate_tables import Table
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.progress import Progress
from peelkit.selection import Selection

COMMAND = "selfcal"


def apply(job: Job, tables: Sequence[Table], others: Sequence[int]) -> list[dict[str, Any]]:
    """Apply to the calibrator (nearest solutions) and to other fields (linear in time)."""
    records = []
    solved_in = observations(job.work, job.fields)
    for fields, gains in ((job.fields, "nearest"), (others, job.options.interp or "linear")):
        if not fields:
            continue
        # Executions apart from each other keep to their own gains, where they have any.
        if len(solved_in) > 1 and observations(job.work, fields) <= solved_in:
            gains = gains if "perobs" in gains else f"{gains}perobs"
        interp = [(gains if item.kind in "GT" else "nearest") for item in tables]
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
    columns = commit_columns(info, options.datacolumn, calwt=options.calwt)
    columns["MODEL_DATA"] = "model"
    flags = options.applymode == "calflag"
    with commit.recorded_step(info.path, COMMAND, casa=job.casa if flags else None) as step:
        commit.write_back(
            info, job.work, rows, step, columns=columns, flags=flags, progress=progress
        )
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


def commit_columns(info: ms.MsInfo, datacolumn: str, *, calwt: bool) -> dict[str, str]:
    """Columns that applying writes, and what rows that were not selected get in a new one."""
    columns = {"CORRECTED_DATA": "DATA" if datacolumn == "data" else "CORRECTED_DATA"}
    if calwt:
        columns["WEIGHT"] = "WEIGHT"
        with ms.opened(info.path) as main:
            if ms.has_cells(main, "WEIGHT_SPECTRUM"):
                columns["WEIGHT_SPECTRUM"] = "WEIGHT_SPECTRUM"
    return columns
