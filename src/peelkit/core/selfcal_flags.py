"""Proposals to flag at the end of a self-calibration: from its last tables and its calibrated data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import decorrelation
from peelkit.core import flag_proposals as flags
from peelkit.core import selfcal_rounds as rounds
from peelkit.core.selfcal_session import Session
from peelkit.io import ms
from peelkit.io.caltable import read_gain_table

log = logging.getLogger(__name__)


def propose(session: Session) -> list[dict[str, Any]]:
    """Write ``flag_proposals.txt`` into the folder; returns the proposals for the sidecar.

    From the tables of the best state and, if the last round was rejected, from its table too; and from the
    calibrated data, in intervals of the shortest solution. Without any proposal there is no file.
    """
    names = session.info.antenna_labels
    used = session.found.antennas.tolist()
    spw = session.selection.spw
    best = session.best
    found: list[flags.Proposal] = []
    tables = dict(zip(best.tables, best.table_modes, strict=True))
    if session.rounds and session.rounds[-1]["caltable"]:
        tables[Path(session.rounds[-1]["caltable"]).name] = session.rounds[-1]["calmode"]
    for name, mode in tables.items():
        path = session.workspace.path(name)
        if path.exists():
            table = read_gain_table(path)
            found += flags.proposals(table, names, calmode=mode, antennas=used, spw=spw)
    if best.tables:
        found += _of_data(session, names)
    # Two tables may say the same; the first word stands.
    unique = {(item.antenna, item.timerange, item.spw): item for item in reversed(found)}
    kept = [
        item
        for item in dict.fromkeys(found)
        if unique[item.antenna, item.timerange, item.spw] is item
    ]
    path = session.workspace.path(flags.FILE)
    path.unlink(missing_ok=True)
    if kept:
        flags.write_list(path, kept)
        log.info("%d proposals to flag are in %s; nothing of it was flagged", len(kept), path)
    return [item.record() for item in kept]


def _of_data(session: Session, names: list[str]) -> list[flags.Proposal]:
    rounds.apply_tables(session, session.best)
    solint = min(
        (item["solint_s"] for item in session.rounds if item["accepted"]),
        default=session.found.integration_s,
    )
    starts, ends = decorrelation.intervals(session.found, solint)
    ratio = decorrelation.amplitude_over_model(session.work, ms.every_row(session.work), starts)
    half = float(np.median(ends - starts)) / 2
    return flags.decorrelated((starts + ends) / 2, half, ratio, names, spw=session.selection.spw)
