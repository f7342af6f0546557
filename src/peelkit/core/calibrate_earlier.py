"""What a calibration takes from earlier ones: their tables, and their flux scale."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peelkit.core import calibrate_flux as fluxscale
from peelkit.core.calibrate_plan import CalibrateOptions
from peelkit.core.calibrate_solve import Job, Solved
from peelkit.core.calibrate_tables import Earlier, Table, find, match_spws
from peelkit.errors import DataError, OptionError
from peelkit.io import caltable, ms
from peelkit.selection import Selection

log = logging.getLogger(__name__)


def keep_apart(folder: Path, tables: Sequence[Table], reference: Earlier | None) -> None:
    """Refuse to replace the folder that the earlier tables are in."""
    used = [*tables, *(reference.tables if reference else ())]
    if any(item.path.resolve().parent == folder.resolve() for item in used):
        raise OptionError(
            f"--out {folder}: has the tables that --pre or --flux-from name; give another."
        )


def tables_before(
    info: ms.MsInfo, selection: Selection, options: CalibrateOptions, kinds: list[str]
) -> Earlier:
    """Tables of --pre. Of a run's, those that this run solves for itself are left out.

    Gains go with the source that they were solved on: G or T of another are not applied where this one
    gets its own.
    """
    gains = {"G", "T"}
    own = set(kinds) | (gains if gains & set(kinds) else set())
    kept: list[Table] = []
    spws = list(info.channels(selection))
    for text in options.pre:
        for item in find(text).tables:
            if item.given:
                spwmap, _ = match_spws(caltable.read_cal_table(item.path), info, spws)
                kept.append(replace(item, spwmap=tuple(spwmap)))
            elif item.kind not in own:
                kept.append(item)
            else:
                log.info("%s: left out, since this run solves %s", item.path, item.kind)
    return Earlier(tuple(kept))


def bootstrap(
    job: Job, solved: list[Solved], reference: Earlier, fluxes: Mapping[int, float], name: str
) -> tuple[dict[int, float], list[dict[str, Any]]]:
    """True over assumed flux of each spw, from the gains of this source and of the reference."""
    theirs = [item for item in reference.tables if item.kind in "GT" and "a" in item.calmode]
    own = [item for item in solved if "a" in item.term.calmode]
    kinds = {item.term.kind for item in own}
    if not theirs or {item.kind for item in theirs} != kinds:
        raise DataError(
            f"{job.options.flux_from}: has no amplitude gains of type {' or '.join(sorted(kinds))} to "
            "compare with; solve the same terms on the flux calibrator first."
        )
    bandpass = [str(item.path.resolve()) for item in reference.tables if item.kind == "B"]
    here = [str(item.path.resolve()) for item in job.earlier if item.kind == "B"]
    if all(item.given for item in theirs):
        here = bandpass  # nothing is known of what a table given by path was solved with
    if bandpass != here:
        raise DataError(
            f"{job.options.flux_from}: its gains have another bandpass "
            f"({', '.join(bandpass) or 'none'}) than these ({', '.join(here) or 'none'}); give its "
            "folder as --pre too."
        )
    contents = [caltable.read_cal_table(item.path) for item in theirs]
    scale: dict[int, float] = {}
    records = []
    for spw in sorted(fluxes):
        found = fluxscale.transfer(own[-1].content, contents, spw)
        if found is None:
            raise DataError(
                f"{job.options.flux_from}: no antenna has gains of both sources in spw {spw}; solve the "
                "same spws on both."
            )
        scale[spw] = found.factor
        records.append(
            {
                "field": name,
                "spw": spw,
                "flux_jy": fluxes[spw] * found.factor,
                "flux_error_jy": fluxes[spw] * found.factor * found.error,
                "scatter_percent": 100 * found.scatter,
                "ratios": found.ratios,
                "source": f"gains of {reference.field or job.options.flux_from}",
            }
        )
    return scale, records


def scaled(item: Solved, scale: Mapping[int, float]) -> Table:
    """Table on the flux scale: gains of an assumed flux are too large by the root of true over it."""
    if "a" not in item.term.calmode:
        return item.table
    target = item.table.path.with_name(f"{item.term.name}.flux.cal")
    caltable.copy_scaled(
        item.table.path, target, {spw: factor**-0.5 for spw, factor in scale.items()}
    )
    item.record["caltable_flux_scaled"] = str(target)
    return replace(item.table, path=target)
