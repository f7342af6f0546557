"""Gain tables of an earlier run: found by folder, sidecar or path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from peelkit import sidecar
from peelkit.errors import DataError
from peelkit.io import caltable
from peelkit.io.caltable import CalTable

# What a calibration leaves in its folder, for --pre, --flux-from and --apply.
RECORD = "calibration.json"
VERSION = "peelkit.calibration/1"


@dataclass(frozen=True)
class Table:
    """A gain table, and how it is applied.

    Parameters
    ----------
    path : Path
        CASA's table.
    kind : str
        ``K``, ``B``, ``G`` or ``T``.
    calmode : str
        ``p``, ``a``, ``ap``; empty for K and B.
    spwmap : tuple of int
        Spw of the table for each spw of the MS that was solved; empty for its own.
    interp : str
        How it was applied in time; empty for the usual.
    given : bool
        Named by path, so that nothing is known but what is in it.
    """

    path: Path
    kind: str
    calmode: str = ""
    spwmap: tuple[int, ...] = ()
    interp: str = ""
    given: bool = False

    @classmethod
    def of(cls, item: Mapping[str, Any], folder: Path = Path()) -> Self:
        """From its record in JSON; a path that is not absolute is in ``folder``."""
        return cls(
            folder / item["path"],
            item["kind"],
            item["calmode"],
            tuple(item["spwmap"]),
            item["interp"],
            item["given"],
        )


@dataclass(frozen=True)
class Earlier:
    """Tables of an earlier run.

    Parameters
    ----------
    tables : tuple of Table
        In the order in which they are applied.
    field : str
        Source that was solved; empty if it is not known.
    fluxes_jy : dict of float
        Flux density of that source in each spw, where it is known; empty for rounds, whose source has
        none that is known beforehand; None if nothing is known of the run.
    parang : bool
        Whether they were solved in the frame of the sky; None if it is not known.
    """

    tables: tuple[Table, ...]
    field: str = ""
    fluxes_jy: Mapping[int, float] | None = None
    parang: bool | None = None


def write_record(
    folder: Path,
    *,
    tables: Sequence[Table],
    field: str,
    fluxes_jy: Mapping[int, float],
    parang: bool = False,
) -> None:
    """Leave in the folder of a calibration which of its tables are to be applied, and how."""
    record = {
        "schema": VERSION,
        "field": field,
        "parang": parang,
        "fluxes_jy": {str(spw): flux for spw, flux in fluxes_jy.items()},
        # Of this folder by name, so that it can be moved; of others where they are.
        "tables": [
            {
                **asdict(item),
                "path": item.path.name
                if item.path.resolve().parent == folder.resolve()
                else str(item.path.absolute()),
            }
            for item in tables
        ],
    }
    sidecar.write_text(folder / RECORD, json.dumps(sidecar.clean(record), indent=1) + "\n")


def find(text: str) -> Earlier:
    """Tables that ``text`` names: a calibration's folder, a sidecar of selfcal, or paths with commas.

    Raises
    ------
    DataError
        If there is no such thing, or no table in it.
    """
    path = Path(text)
    if (path / RECORD).exists():
        return _from_record(path)
    if path.suffix == ".json":
        return _from_sidecar(path)
    if path.is_dir() and not (path / "table.dat").exists():
        raise DataError(
            f"{path}: no {RECORD} of a calibration in it; name the sidecar of selfcal, or the tables "
            "themselves with commas between them."
        )
    found = [Path(piece.strip()) for piece in text.split(",") if piece.strip()]
    if not found:
        raise DataError("no gain table named; give a folder, a sidecar, or tables with commas.")
    tables = []
    for item in found:
        read = caltable.read_cal_table(item)
        tables.append(Table(item, read.kind, calmode_of(read), given=True))
    frames = {record.parang for record in map(beside, found)}
    return Earlier(tuple(tables), parang=frames.pop() if len(frames) == 1 else None)


def beside(table: Path) -> Earlier:
    """What the folder of a table that was named by path says of the run that it is from, if anything."""
    empty = Earlier(())
    if not (table.parent / RECORD).exists():
        return empty
    record = _from_record(table.parent)
    return record if any(t.path.resolve() == table.resolve() for t in record.tables) else empty


def calmode_of(table: CalTable) -> str:
    """Whether a G or T table has phases, amplitudes or both, from its values."""
    if table.kind not in "GT":
        return ""
    good = np.concatenate([part.values[~part.failed] for part in table.parts] or [np.ones(0)])
    phases = bool(np.any(np.abs(np.angle(good)) > 1e-5))
    amplitudes = bool(np.any(np.abs(np.abs(good) - 1) > 1e-5))
    return ("a" if amplitudes else "") + ("p" if phases or not amplitudes else "")


def _from_record(folder: Path) -> Earlier:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["schema"] != VERSION:
            raise DataError(
                f"{path}: schema {record['schema']!r} is not {VERSION!r}; calibrate again."
            )
        tables = tuple(Table.of(item, folder) for item in record["tables"])
        earlier = Earlier(
            tables,
            record["field"],
            {int(k): float(v) for k, v in record["fluxes_jy"].items()},
            record.get("parang"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the calibration again.") from error
    _check_there(tables, path)
    return earlier


def _from_sidecar(path: Path) -> Earlier:
    whole = sidecar.read(path, "selfcal")
    results = whole["results"]
    if results.get("mode") == "apply":
        applied = ",".join(str(t["caltable"]) for t in results["tables"])
        raise DataError(
            f"{path}: is of an --apply, which made no tables of its own; name those that it applied: "
            f"{applied}."
        )
    if results.get("mode") == "each-field":
        folders = ", ".join(item["folder"] for item in results["fields"] if item["written"])
        raise DataError(
            f"{path}: has the solutions of several fields; name the folder of one: {folders}."
        )
    # Of a calibration it is a result, of rounds a parameter.
    parang = results.get("parang", whole["parameters"].get("parang"))
    # As `write_record` has them: rounds scale to no known flux.
    fluxes_jy: dict[int, float] = {}
    if results.get("mode") == "calibrator":
        tables = tuple(map(Table.of, results["tables"]))
        fluxes_jy = {int(item["spw"]): float(item["flux_jy"]) for item in results["flux"]}
    else:
        tables = tuple(
            Table(Path(name), "", "", tuple(spwmap or ()), str(interp))
            for name, spwmap, interp in zip(
                results["gaintables"], results["spwmap"], results["interp"], strict=True
            )
        )
    if not tables:
        raise DataError(f"{path}: names no gain tables; no round of that selfcal was accepted.")
    _check_there(tables, path)
    full = []
    for item in tables:
        read = caltable.read_cal_table(item.path)
        full.append(replace(item, kind=read.kind, calmode=item.calmode or calmode_of(read)))
    return Earlier(tuple(full), fluxes_jy=fluxes_jy, parang=parang)


def _check_there(tables: Sequence[Table], named_by: Path) -> None:
    for item in tables:
        if not item.path.exists():
            raise DataError(
                f"{item.path}: this gain table, which {named_by} names, is gone; run that again."
            )
