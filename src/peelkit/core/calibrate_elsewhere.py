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

from peelkit.core import commit
from peelkit.core.calibrate_tables import Table, antenna_ids, find, match_spws
from peelkit.core.calibrate_write import COMMAND, commit_columns
from peelkit.core.workspace import Workspace, fingerprint, make_copy, open_workspace
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
    datacolumn: str = "data"
    applymode: str = "calonly"
    interp: str = ""
    spwmap: tuple[int, ...] = ()
    calwt: bool = False
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

    def record(self) -> dict[str, Any]:
        """For the sidecar."""
        return {
            "caltable": str(self.table.path),
            "term": self.content.kind,
            "spwmap": self.spwmap,
            "interp": self.interp,
            "frequency_ratio": {str(spw): ratio for spw, ratio in self.ratios.items()},
            "antennas_renumbered": self.renumbered,
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
    column = info.data_column(options.datacolumn)
    if "CORRECTED_DATA" in info.columns and not options.overwrite:
        raise DataError(
            f"{path}: CORRECTED_DATA exists; replace the selected rows of it with --overwrite ('peelkit "
            "undo' puts it back)."
        )
    tables = find(options.tables).tables
    found = survey(info, selection, progress)
    rows = ms.select_rows(info, selection)
    folder = options.out or path.with_name(f"{path.stem}.applied")
    if any(item.path.absolute().parent == folder.absolute() for item in tables):
        raise OptionError(f"--out {folder}: has the tables to apply; give another.")
    contents = [caltable.read_cal_table(item.path) for item in tables]
    # All that can be refused is refused before anything is made.
    for content in contents:
        antenna_ids(content, info, found.antennas.tolist())
        match_spws(content, info, found.spws())
        if options.spwmap:
            _own_spwmap(options.spwmap, content, info, found.spws())
    parameters = {**asdict(options), **asdict(selection), "overwrite": None}
    workspace, _ = open_workspace(
        folder, fingerprint(info, parameters), overwrite=options.overwrite
    )
    fitted = [
        _fit(item, content, info, found, options, workspace)
        for item, content in zip(tables, contents, strict=True)
    ]
    warnings = _warnings(fitted, found)
    progress.stage("copying the selected data")
    work, bad = make_copy(workspace, info, rows, column)
    if bad:
        warnings.append(f"{bad} unflagged samples are not numbers; they were left out")
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
            parang=False,
        )  # fmt: skip
        columns = commit_columns(info, options.datacolumn, calwt=options.calwt)
        flags = options.applymode == "calflag"
        with commit.recorded_step(path, COMMAND, casa=casa if flags else None) as step:
            commit.write_back(
                info, work, rows, step, columns=columns, flags=flags, progress=progress
            )
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
            "plots": [],
        },
        inputs={"ms": str(path), "apply": options.tables},
        reads=(column, "FLAG", "WEIGHT"),
        writes=(*columns, *(("FLAG",) if flags else ())),
        parameters={"out": str(folder)},
        engine=made_by,
        warnings=tuple(warnings),
    )


def _fit(
    table: Table,
    content: caltable.CalTable,
    info: ms.MsInfo,
    found: Survey,
    options: ApplyOptions,
    workspace: Workspace,
) -> Fitted:
    """Map spws and antennas of a table to those of the MS."""
    ids = antenna_ids(content, info, found.antennas.tolist())
    spwmap, ratios = match_spws(content, info, found.spws(), table.spwmap)
    if options.spwmap:
        spwmap = _own_spwmap(options.spwmap, content, info, found.spws())
        ratios = {
            spw: info.spws[spw].centre_hz / (sum(content.bands_hz[spwmap[spw]]) / 2)
            for spw in found.spws()
        }
    path = table.path
    renumbered = any(old != new for old, new in ids.items())
    if renumbered:
        path = workspace.path(f"renumbered-{table.path.name}")
        caltable.copy_for_antennas(table.path, path, ids, info.path)
        log.info(
            "%s: antennas matched by name, with other numbers than in %s", table.path, info.path
        )
    return Fitted(table, content, path, spwmap, _interp(table, content, options, ratios), ratios,
                  renumbered)  # fmt: skip


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
) -> str:
    """Nearest for delays and bandpasses, linear for gains; phases of another frequency scaled."""
    if content.kind not in "GT":
        return "nearest"
    if options.interp:
        return options.interp
    if any(abs(ratio - 1) > SCALED_FROM for ratio in ratios.values()) and "p" in table.calmode:
        return "linearPD"
    # As it was applied where it was solved; executions are those of another MS here.
    return (table.interp or "linear").removesuffix("perobs")


def _warnings(fitted: Sequence[Fitted], found: Survey) -> list[str]:
    said = []
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
        failed = sum(int(part.failed.sum()) for part in item.content.parts)
        if failed:
            said.append(
                f"{name}: {failed} of its solutions failed or are of antennas without data; what they "
                "belong to is left uncalibrated, or flagged with --applymode calflag"
            )
    return said
