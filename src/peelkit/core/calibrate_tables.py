"""Gain tables of an earlier run: found by folder, sidecar or path, and fitted to an MS."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from peelkit import sidecar
from peelkit.errors import DataError
from peelkit.io import caltable, ms
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
        Flux density of that source in each spw, where it is known.
    """

    tables: tuple[Table, ...]
    field: str = ""
    fluxes_jy: Mapping[int, float] | None = None


def write_record(
    folder: Path, *, tables: Sequence[Table], field: str, fluxes_jy: Mapping[int, float]
) -> None:
    """Leave in the folder of a calibration which of its tables are to be applied, and how."""
    record = {
        "schema": VERSION,
        "field": field,
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
    return Earlier(tuple(tables))


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
        tables = tuple(
            Table(
                folder / item["path"],
                item["kind"],
                item["calmode"],
                tuple(item["spwmap"]),
                item["interp"],
                item["given"],
            )
            for item in record["tables"]
        )
        earlier = Earlier(
            tables, record["field"], {int(k): float(v) for k, v in record["fluxes_jy"].items()}
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the calibration again.") from error
    _check_there(tables, path)
    return earlier


def _from_sidecar(path: Path) -> Earlier:
    results = sidecar.read(path, "selfcal")["results"]
    if "tables" in results:  # of a calibration
        tables = tuple(
            Table(
                Path(t["path"]),
                t["kind"],
                t["calmode"],
                tuple(t["spwmap"]),
                t["interp"],
                t["given"],
            )
            for t in results["tables"]
        )
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
    return Earlier(tuple(full))


def _check_there(tables: Sequence[Table], named_by: Path) -> None:
    for item in tables:
        if not item.path.exists():
            raise DataError(
                f"{item.path}: this gain table, which {named_by} names, is gone; run that again."
            )


def antenna_ids(table: CalTable, info: ms.MsInfo, used: Sequence[int]) -> dict[int, int]:
    """Id in the MS of each antenna of the table, by name.

    Raises
    ------
    DataError
        If an antenna of the MS that has data is not in the table.
    """
    ids = {antenna.name: antenna.id for antenna in info.antennas}
    missing = [info.antennas[a].name for a in used if info.antennas[a].name not in table.antennas]
    if missing:
        raise DataError(
            f"{table.path}: has no antenna {', '.join(missing[:6])}"
            f"{f' and {len(missing) - 6} more' if len(missing) > 6 else ''} of {info.path} (its own are "
            f"{', '.join(table.antennas[:6])}...); flag them there, or use tables of the same array."
        )
    return {number: ids[name] for number, name in enumerate(table.antennas) if name in ids}


def match_spws(
    table: CalTable, info: ms.MsInfo, spws: Sequence[int], spwmap: Sequence[int] = ()
) -> tuple[list[int], dict[int, float]]:
    """Spw of the table for each spw of the MS: that which covers most of it, else the nearest.

    Parameters
    ----------
    spws : sequence of int
        Spws of the MS that are calibrated.
    spwmap : sequence of int
        How the table's own MS was mapped, such as all spws to the one of a combined solve.

    Returns
    -------
    list of int
        CASA's spwmap.
    dict of float
        For each of ``spws`` its centre frequency over that of the spw it is likest in the MS that was
        solved.

    Raises
    ------
    DataError
        If the table has no solutions, or is a bandpass of other frequencies.
    """
    solved = table.spws
    if not solved:
        raise DataError(f"{table.path}: all its solutions failed; nothing can be applied.")
    sources = list(range(len(table.freq_hz))) if spwmap else solved
    result = list(range(len(info.spws)))
    # CASA wants an entry for every spw, and it must be one of the table's.
    result = [min(number, len(table.freq_hz) - 1) for number in result]
    ratios = {}
    for spw in spws:
        own = _band(info.spws[spw])
        # In the MS that was solved; of which the solutions may be filed under another spw.
        best = _likest(own, table, sources)
        if table.kind == "B" and _overlap(own, table.bands_hz[best]) == 0:
            raise DataError(
                f"{table.path}: its bandpass has nothing at the {sum(own) / 2e9:.5g} GHz of spw {spw} of "
                f"{info.path}; leave this table out, or this spw (--spw)."
            )
        taken = int(spwmap[best]) if best < len(spwmap) else best
        if taken not in solved:
            taken = _likest(own, table, solved)
        result[spw] = taken
        ratios[spw] = sum(own) / sum(table.bands_hz[best])
    return result, ratios


Band = tuple[float, float]


def _band(spw: ms.Spw) -> Band:
    half = np.abs(spw.width_hz) / 2
    return float((spw.freq_hz - half).min()), float((spw.freq_hz + half).max())


def _overlap(one: Band, two: Band) -> float:
    return max(0.0, min(one[1], two[1]) - max(one[0], two[0]))


def _likest(own: Band, table: CalTable, among: Sequence[int]) -> int:
    """Spw of the table with the largest overlap [Hz]; of several, or none, that of the nearest centre."""
    return max(
        among,
        key=lambda spw: (
            _overlap(own, table.bands_hz[spw]),
            -abs(sum(own) - sum(table.bands_hz[spw])),
        ),
    )
