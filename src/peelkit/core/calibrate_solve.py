"""Solving the terms of a calibration in sequence, each with the earlier ones applied on the fly."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import spwmaps
from peelkit.core.calibrate_plan import MINBLPERANT, MINSNR, CalibrateOptions, Term
from peelkit.core.calibrate_tables import Table
from peelkit.core.workspace import Workspace
from peelkit.engines import casa as engine
from peelkit.io import ms
from peelkit.io.caltable import CalTable, read_cal_table, read_gain_table
from peelkit.io.survey import Survey
from peelkit.selection import Selection, casa_solint

log = logging.getLogger(__name__)

# Phases that hold the bandpass together are solved on the shortest interval of these at which no more
# than this fraction fails.
HELPER_SOLINTS = ("int", "30s", "60s", "120s", "inf")
HELPER_FAILED = 0.05


@dataclass(frozen=True)
class Solved:
    """A term, its table, and what is in it."""

    term: Term
    table: Table
    content: CalTable
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What every solve of one calibration has in common.

    Parameters
    ----------
    fields : list of int
        Of the calibrator.
    earlier : tuple of Table
        Of earlier runs, applied throughout.
    """

    casa: engine.Casa
    work: ms.MsInfo
    workspace: Workspace
    options: CalibrateOptions
    selection: Selection
    fields: list[int]
    found: Survey
    refants: list[int]
    earlier: tuple[Table, ...] = ()

    @property
    def field(self) -> str:
        """The fields in CASA's words."""
        return ",".join(map(str, self.fields))


def solve_terms(job: Job, terms: Sequence[Term]) -> list[Solved]:
    """Solve all terms; stops after one of which all solutions failed."""
    done: list[Solved] = []
    for term in terms:
        applied = [*job.earlier, *(item.table for item in done)]
        helper: dict[str, Any] | None = None
        if term.kind == "B" and not any("p" in item.calmode for item in applied):
            phases, helper = _phases(job, term, applied)
            applied = [*applied, *phases]
        item = _solve(job, term, applied, helper)
        done.append(item)
        log.info(
            "%s: %d solutions of %s each, %d failed", term.name, item.record["solutions"], term.solint,
            item.record["solutions_failed"],
        )  # fmt: skip
        if item.record["solutions_failed"] == item.record["solutions"]:
            break
    return done


def _phases(
    job: Job, term: Term, applied: list[Table]
) -> tuple[list[Table], dict[str, Any] | None]:
    """Phases on a short interval, so that the long one of a bandpass does not average them away.

    They are used for the bandpass only: what is applied to the data in the end are its own gains.
    """
    path = job.workspace.path(f"phases-for-{term.name}.cal")
    for solint in HELPER_SOLINTS:
        engine.remove_table(path)
        _gaincal(job, Term("G", "phases", solint, "", "p"), path, applied)
        tried, failed = _counts(job, read_cal_table(path))
        if tried and failed <= HELPER_FAILED * tried:
            break
    if failed == tried:
        return [], None  # as will the bandpass, which says so
    log.info("phases every %s hold the data together for %s", solint, term.name)
    record = {
        "term": "G", "solint": solint, "calmode": "p", "solutions": tried, "solutions_failed": failed,
        "caltable": str(path),
    }  # fmt: skip
    return [Table(path, "G", "p")], record


def _solve(job: Job, term: Term, applied: list[Table], helper: dict[str, Any] | None) -> Solved:
    path = job.workspace.path(f"{term.name}.cal")
    engine.remove_table(path)
    spwmap: tuple[int, ...] = ()
    if term.kind == "B":
        engine.solve_bandpass(
            job.casa, job.work.path, path,
            # Of every channel, whatever the range that the others are solved in.
            spw=",".join(map(str, job.work.channels(job.selection))),
            solnorm=job.options.solnorm,
            **_common(job, term, applied),
        )  # fmt: skip
    else:
        _gaincal(job, term, path, applied)
        if "spw" in term.combine:
            solved = read_gain_table(path).spws
            spwmap = tuple(spwmaps.spw_map(job.work, job.found, solved, combine=term.combine))
    content = read_cal_table(path)
    tried, failed = _counts(job, content)
    record = {
        "name": term.name, "term": term.kind, "solint": term.solint, "calmode": term.calmode or None,
        "combine": term.combine, "solutions": tried, "solutions_failed": failed,
        "caltable": str(path), "applied": [str(item.path) for item in applied], "helper": helper,
        **_figures(content),
    }  # fmt: skip
    return Solved(term, Table(path, term.kind, term.calmode, spwmap), content, record)


def _counts(job: Job, table: CalTable) -> tuple[int, int]:
    hands = job.work.n_hands(job.found.spws())
    return table.counts(job.found.antennas, polarisations=hands)


def _gaincal(job: Job, term: Term, path: Path, applied: list[Table]) -> None:
    engine.solve_gains(
        job.casa, job.work.path, path,
        spw=job.selection.spw,
        gaintype=term.kind,
        # A delay has neither; gaincal wants a word.
        calmode=term.calmode or "ap",
        solnorm=job.options.solnorm and "a" in term.calmode,
        **_common(job, term, applied),
    )  # fmt: skip


def _common(job: Job, term: Term, applied: list[Table]) -> dict[str, Any]:
    options = job.options
    return {
        "field": job.field,
        "scan": job.selection.scan,
        "uvrange": job.selection.uvrange,
        "solint": casa_solint(term.solint, integration_s=job.found.integration_s),
        "combine": term.combine,
        "refant": ",".join(job.work.antenna_words(job.refants)),
        "minsnr": MINSNR if options.minsnr is None else options.minsnr,
        "minblperant": options.minblperant or MINBLPERANT,
        "gaintable": [str(item.path.absolute()) for item in applied],
        "spwmap": [list(item.spwmap) for item in applied],
        "interp": ["nearest"] * len(applied),
        "parang": options.parang,
    }


def _figures(table: CalTable) -> dict[str, Any]:
    """Smallest, median and largest good value: delays [ns], else amplitudes; median S/N."""
    good = np.concatenate([part.values[~part.failed].ravel() for part in table.parts])
    snr = np.concatenate([part.snr[~part.failed].ravel() for part in table.parts])
    values = good.real if table.kind == "K" else np.abs(good)
    low, mid, high = (
        (float(f(values)) for f in (np.min, np.median, np.max)) if good.size else [math.nan] * 3
    )
    unit = "delay_ns" if table.kind == "K" else "amplitude"
    return {
        # CASA gives delays none.
        "snr_median": float(np.median(snr)) if snr.size and table.kind != "K" else None,
        f"{unit}_min": low,
        f"{unit}_median": mid,
        f"{unit}_max": high,
    }
