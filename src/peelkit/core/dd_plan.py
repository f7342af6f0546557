"""What a direction-dependent solve will do, settled from options, sidecar and MS before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from peelkit import sidecar
from peelkit.core import datacolumn, dd_gate, dd_terms
from peelkit.core.compact import Compact
from peelkit.core.dd_data import Rows, gather
from peelkit.core.dd_delay import DelayStart
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_gate import Direction, FieldDecision
from peelkit.core.ddsolve_options import DdOptions
from peelkit.core.selfcal import choose_refants
from peelkit.errors import DataError, OptionError
from peelkit.io import journal, ms
from peelkit.io.survey import survey
from peelkit.progress import Progress
from peelkit.selection import Selection

# Columns that a result must not go to.
PROTECTED = frozenset({"DATA", "FLAG", "WEIGHT", "SIGMA", "UVW", "MODEL_DATA"})


@dataclass(frozen=True)
class Plan:
    """What is solved, settled before any work.

    Parameters
    ----------
    fields : tuple of FieldDecision
        What becomes of each direction in each field; empty before the gate, and where fields are
        combined.
    by_field : mapping of int to Plan
        Where decisions differ: FIELD_ID to the plan of its class (`peelkit.core.dd_fields`).
    delay_start : DelayStart or None
        Start values of K, if it has a delay; those of its classes where decisions differ.
    known : mapping of Key to Solutions
        Gains of the array that are taken out of the data before they are solved (`peelkit.core.dd_known`).
    """

    options: DdOptions
    rows: Rows
    data_column: str
    all_column: str
    directions: tuple[Direction, ...]
    refant: int
    folder: Path
    uv_range_m: tuple[float, float]
    fields: tuple[FieldDecision, ...] = ()
    by_field: Mapping[int, Plan] = field(default_factory=dict)
    delay_start: DelayStart | None = None
    known: Mapping[Key, Solutions] = field(default_factory=dict)

    def at(self, key: Key) -> Plan:
        """The plan of a group: that of its field, where decisions differ from field to field."""
        return self.by_field.get(key[0], self)

    @property
    def classes(self) -> list[Plan]:
        """One plan for each class of fields."""
        return list({id(one): one for one in self.by_field.values()}.values()) or [self]

    @property
    def light(self) -> Plan:
        """As workers get it: with absolute paths, and without the numbers of all rows."""
        fresh = {id(one): one._light for one in self.classes}
        by_field = {number: fresh[id(one)] for number, one in self.by_field.items()}
        return replace(self._light, by_field=by_field)

    @property
    def _light(self) -> Plan:
        none = np.empty(0, dtype=np.int64)
        info = replace(self.rows.info, path=self.rows.info.path.absolute())
        rows = replace(self.rows, info=info, rows=none, scans=none)
        return replace(self, rows=rows, folder=self.folder.absolute())

    @property
    def used(self) -> dict[str, str]:
        """Label to column of the directions of the solve: all that are not skipped."""
        return {d.label: d.column for d in self.directions if d.decision != dd_gate.SKIP}

    @property
    def peeled(self) -> list[str]:
        """Labels with gains of their own."""
        return [d.label for d in self.directions if d.decision in dd_gate.OWN]

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


def settle(info: ms.MsInfo, selection: Selection, options: DdOptions, progress: Progress) -> Plan:
    """Check options, columns and selection, and read what is needed of the rows.

    Raises
    ------
    OptionError, DataError
        If something is missing, contradictory, or would be replaced without leave.
    """
    uv_range = dd_terms.uv_range_m(selection.uvrange)
    selection = info.by_id(selection)
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
    rows = ms.select_rows(info, replace(selection, uvrange=""))
    data_column = datacolumn.choose_calibrated(info, rows, options.datacolumn)
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
    gathered = gather(info, rows, combine_fields="field" in options.combine)
    check_intervals(gathered, options.terms)
    found = survey(info, replace(selection, uvrange=""), progress)
    refant = choose_refants(info, found, options.refant)[0]
    folder = options.out or info.path.with_name(f"{info.path.stem}.ddsolve")
    return Plan(
        options, gathered, data_column, all_column, tuple(directions), refant, folder, uv_range
    )


def check_intervals(rows: Rows, terms: Sequence[dd_terms.TermChoice]) -> None:
    """`dd_terms.check_intervals` for every data description."""
    for ddid in rows.ddids:
        spw = rows.info.spws[rows.info.data_descriptions[ddid].spw]
        dd_terms.check_intervals(
            terms, integration_s=rows.integration_s[ddid],
            width_hz=float(np.median(np.abs(spw.width_hz))), n_chan=spw.freq_hz.size,
        )  # fmt: skip


def _refuse_older(info: ms.MsInfo, plan: Path, record: Mapping[str, Any], names: list[str]) -> None:
    """Refuse a sidecar whose columns another command has written since, or `undo` put back."""
    begun = datetime.fromisoformat(record["started"])
    done = begun + timedelta(seconds=record["seconds"] + 2)
    last = begun
    for step in journal.steps(info.path):
        again = [name for name in names if name in step.replaced or name in step.created]
        if not again:
            continue
        last = datetime.fromisoformat(step.when)
        if last > done:
            raise DataError(
                f"{plan}: {step.command} wrote {again[0]} again at {step.when}, after this; give the sidecar of that "
                "run, or 'peelkit undo' it."
            )
    # Without a step ('undo --forget') nobody knows.
    if last < begun - timedelta(seconds=2):
        raise DataError(
            f"{plan}: what it wrote was undone since: {', '.join(names)} are of {last.isoformat()}; run predict-region "
            "again."
        )


def _directions(info: ms.MsInfo, options: DdOptions) -> tuple[str, list[Direction]]:
    if options.plan is not None:
        if options.all_column or options.peel:
            raise OptionError("--from brings the columns; leave --all and --peel out.")
        whole = sidecar.read(options.plan, "predict-region")
        record = whole["results"]
        all_column = record.get("all_column") or ""
        if not all_column:
            raise DataError(
                f"{options.plan}: no all-sky column was written; run predict-region with --all-column."
            )
        directions = [
            Direction(
                d["label"],
                d["column"],
                d["ra_deg"],
                d["dec_deg"],
                d["flux_jy"],
                Compact.of_record(d["model"]) if d.get("model") else None,
            )
            for d in record["directions"]
        ]
        _refuse_older(info, options.plan, whole, [all_column, *(d.column for d in directions)])
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
