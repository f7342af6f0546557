"""The work of ``peelkit selfcal --apply``: solutions of one MS put on another.

The line data of the same observation, the original data of an averaged copy, another pipeline's MS: the
antennas are matched by name, the spws by frequency.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import commit, datacolumn
from peelkit.core.calibrate_match import (
    Match,
    antenna_ids,
    correspond,
    match_spws,
    spans_of,
    time_interp,
)
from peelkit.core.calibrate_tables import Earlier, Table, find
from peelkit.core.calibrate_write import COMMAND
from peelkit.core.workspace import (
    Workspace,
    fingerprint,
    inputs,
    keep_inputs,
    make_copy,
    open_workspace,
)
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import caltable, ms
from peelkit.io.survey import Survey, survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

# From this difference of frequency on phases are scaled with it: a path of 300 deg is then 15 deg off.
SCALED_FROM = 0.05

# Data further from the next solution than this are named [s].
FAR_S = 3600.0


@dataclass(frozen=True)
class ApplyOptions:
    """What the user asked for; CASA's names and defaults where it has them."""

    tables: str
    out: Path | None = None
    datacolumn: str = "auto"
    applymode: str = "calonly"
    interp: str = ""
    spwmap: tuple[int, ...] = ()
    calwt: bool = False
    parang: bool | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Fitted:
    """A table as it is applied to this MS."""

    table: Table
    content: caltable.CalTable
    path: Path
    spwmap: list[int]
    interp: str
    ratios: dict[int, float]
    renumbered: bool
    by_time: bool

    def record(self) -> dict[str, Any]:
        """For the sidecar."""
        return {
            "caltable": str(self.table.path),
            "term": self.content.kind,
            "spwmap": self.spwmap,
            "interp": self.interp,
            "frequency_ratio": {str(spw): ratio for spw, ratio in self.ratios.items()},
            "antennas_renumbered": self.renumbered,
            "matched_by_time": self.by_time,
        }


def apply_elsewhere(
    path: Path, selection: Selection, options: ApplyOptions, progress: Progress | None = None
) -> Outcome:
    """Apply gain tables to the MS at ``path``: CORRECTED_DATA of the selected rows is written.

    Raises
    ------
    DataError, OptionError
        If the tables are not there or do not fit the MS.
    """
    progress = progress or Progress()
    info = ms.read_info(path)
    ms.refuse_if_locked(path)
    if commit.recover(path) is not None:
        info = ms.read_info(path)
    earlier = find(options.tables)
    # Tables solved on sources of known flux are for the raw data.
    known = options.datacolumn == datacolumn.AUTO and earlier.fluxes_jy
    rows = ms.select_rows(info, selection)
    chosen = datacolumn.choose(info, rows, "data" if known else options.datacolumn)
    column = chosen.column
    datacolumn.refuse_replacing(info, rows, column, overwrite=options.overwrite, model=False)
    if chosen.why:
        log.info("%s: %s", path, chosen.why)
    tables = earlier.tables
    parang, why = _parang(info, earlier, options)
    found = survey(info, selection, progress)
    folder = options.out or path.with_name(f"{path.stem}.applied")
    keep_inputs(folder, [item.path for item in tables])
    contents = [caltable.read_cal_table(item.path) for item in tables]
    # All that can be refused is refused before anything is made.
    mapped = [
        (
            antenna_ids(content, info, found.antennas.tolist()),
            _match(item, content, info, found, options.spwmap),
        )
        for item, content in zip(tables, contents, strict=True)
    ]
    parameters = {**asdict(options), **asdict(selection), "overwrite": None}
    workspace, _ = open_workspace(
        folder, fingerprint(info, parameters), overwrite=options.overwrite,
        needed=[path, *inputs(parameters)],
    )  # fmt: skip
    with workspace.closed_if_refused():
        fitted = [
            _fit(item, content, ids, match, info, found, options, workspace)
            for item, content, (ids, match) in zip(tables, contents, mapped, strict=True)
        ]
        warnings = _warnings(fitted, found, info)
        progress.stage("copying the selected data")
        work, left = make_copy(workspace, info, rows, column, found.execution_of)
        warnings += left
        fields = info.field_ids(selection)
        with engine.Casa(workspace.log) as casa:
            progress.stage("applying")
            engine.apply_gains(
                casa, work.path,
                field=",".join(map(str, fields)),
                gaintable=[str(item.path.absolute()) for item in fitted],
                spwmap=[item.spwmap for item in fitted],
                interp=[item.interp for item in fitted],
                calwt=options.calwt,
                applymode=options.applymode,
                parang=parang,
            )  # fmt: skip
            columns = commit.applied_columns(info, calwt=options.calwt)
            flags = options.applymode == "calflag"
            with commit.recorded_step(path, COMMAND, casa=casa if flags else None) as step:
                commit.write_back(
                    info, [commit.Part(work.path, rows, column)], step,
                    columns=columns, flags=flags, self_calibrated=not earlier.fluxes_jy,
                    progress=progress,
                )  # fmt: skip
                ms.add_history(
                    path,
                    command=COMMAND,
                    message="peelkit selfcal --apply: solutions of another run",
                    parameters={
                        "field": selection.field,
                        "spw": selection.spw,
                        "gaintable": [str(item.table.path) for item in fitted],
                        "spwmap": [item.spwmap for item in fitted],
                        "interp": [item.interp for item in fitted],
                        "applymode": options.applymode,
                    },
                )
            made_by = casa.engine()
    workspace.close()
    return Outcome(
        results={
            "mode": "apply",
            "terms": [],
            "applied": [
                {
                    "field": info.fields[field].name,
                    "gaintables": [str(item.table.path) for item in fitted],
                    "spwmap": [item.spwmap for item in fitted],
                    "interp": [item.interp for item in fitted],
                }
                for field in found.fields()
            ],
            "flux": [],
            "tables": [item.record() for item in fitted],
            "matched_by_time": [str(item.table.path) for item in fitted if item.by_time],
            "parang": parang,
            "parang_reason": why,
            "plots": [],
        },
        inputs={"ms": str(path), "apply": options.tables},
        reads=(column, "FLAG", "WEIGHT"),
        writes=(*columns, *(("FLAG",) if flags else ())),
        parameters={"out": str(folder)},
        engine=made_by,
        warnings=tuple(warnings),
    )


def _match(
    table: Table,
    content: caltable.CalTable,
    info: ms.MsInfo,
    found: Survey,
    spwmap: Sequence[int],
) -> Match:
    """Spws of a table for those of the MS: the user's ``spwmap`` if there is one, else by frequency."""
    spws = found.spws()
    if not spwmap:
        return match_spws(content, info, spws, table.spwmap, spans_of(found))
    own = _own_spwmap(spwmap, content, info, spws)
    ratios = {spw: info.spws[spw].centre_hz / (sum(content.bands_hz[own[spw]]) / 2) for spw in spws}
    return Match(own, ratios, by_time=False)


def _fit(
    table: Table,
    content: caltable.CalTable,
    ids: dict[int, int],
    match: Match,
    info: ms.MsInfo,
    found: Survey,
    options: ApplyOptions,
    workspace: Workspace,
) -> Fitted:
    """A table with the antennas ``ids`` and the spws ``match`` of the MS."""
    spwmap, ratios, by_time = match
    path = table.path
    renumbered = any(old != new for old, new in ids.items())
    if renumbered:
        path = workspace.path(f"renumbered-{table.path.name}")
        caltable.copy_for_antennas(table.path, path, ids, info.path)
        log.info(
            "%s: antennas matched by name, with other numbers than in %s", table.path, info.path
        )
    interp = _interp(table, content, options, ratios, together=correspond(content, found))
    return Fitted(table, content, path, spwmap, interp, ratios, renumbered, by_time)


def _own_spwmap(
    spwmap: Sequence[int], content: caltable.CalTable, info: ms.MsInfo, spws: Sequence[int]
) -> list[int]:
    if len(spwmap) < len(info.spws) or any(spwmap[spw] not in content.spws for spw in spws):
        raise DataError(
            f"spwmap {','.join(map(str, spwmap))}: {info.path} has {len(info.spws)} spws, and "
            f"{content.path} has solutions of spw {','.join(map(str, content.spws))}; name one for each."
        )
    return list(spwmap)


def _interp(
    table: Table,
    content: caltable.CalTable,
    options: ApplyOptions,
    ratios: dict[int, float],
    *,
    together: bool,
) -> str:
    """Interpolation in time: the user's, else as the table was applied where it was solved.

    Else nearest for delays and bandpasses, linear for gains; phases of another frequency are scaled.

    Parameters
    ----------
    together : bool
        Whether the executions are those of the table, each of which keeps to its own solutions then.
    """
    if options.interp:
        return time_interp(content.kind, options.interp, "")
    usual = "linear" if content.kind in ("G", "T") else "nearest"
    chosen = time_interp(content.kind, table.interp, usual).removesuffix("perobs")
    far = any(abs(ratio - 1) > SCALED_FROM for ratio in ratios.values())
    if far and "p" in table.calmode and content.kind in ("G", "T"):
        chosen = "linearPD"
    return f"{chosen}perobs" if together else chosen


def _parang(info: ms.MsInfo, earlier: Earlier, options: ApplyOptions) -> tuple[bool, str]:
    """Whether to correct for the parallactic angle, as in the run that solved the tables; and why."""
    known, asked = earlier.parang, options.parang
    if known is not None and asked is not None and known != asked:
        raise OptionError(
            f"--{'' if asked else 'no-'}parang: {options.tables} was solved {'with' if known else 'without'} "
            "it; leave this option out."
        )
    chosen = bool(known if known is not None else asked)
    hands = max(len(item.correlations) for item in info.data_descriptions)
    if chosen and hands < 4:
        raise DataError(
            f"{info.path}: has no cross hands, and {options.tables} was solved with --parang, which needs all "
            "four correlations; solve without it."
        )
    if known is not None:
        return chosen, f"as in the run that solved {options.tables}"
    if asked is not None:
        return chosen, "as asked for"
    return chosen, "nothing is known of how these tables were solved (--parang applies it)"


def _warnings(fitted: Sequence[Fitted], found: Survey, info: ms.MsInfo) -> list[str]:
    said = []
    hands = info.n_hands(found.spws())
    for item in fitted:
        name = item.table.path
        if item.interp.startswith("linearPD"):
            far = max(item.ratios.values(), key=lambda ratio: abs(ratio - 1))
            said.append(
                f"{name}: solved at another frequency (ratio {far:.4g}): its phases are scaled with "
                "frequency (interp linearPD), which is right for a path delay without turns of 2 pi, not "
                "for the phases of electronics (--interp linear leaves them)"
            )
        times = np.concatenate([part.time_s for part in item.content.parts])
        moments = np.concatenate([visit.times_s for visit in found.visits])
        gap = max(times.min() - moments.min(), moments.max() - times.max())
        if item.content.kind in "GT" and gap > FAR_S:
            said.append(
                f"{name}: some data are {gap / 3600:.1f} h from its first or last solution, which they get"
            )
        every = range(len(item.content.antennas))
        _, failed = item.content.counts(list(every), polarisations=hands)
        if failed:
            said.append(
                f"{name}: {failed} of its solutions failed; what they "
                "belong to is left uncalibrated, or flagged with --applymode calflag"
            )
    return said
