"""Who self-calibrated CORRECTED_DATA, and from what: kept with the column, field by field.

Without it a second self-calibration would take the result of the first for calibrated data, and stack gains on
gains. Another program may write the column since: a digest of some of its rows tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms

COLUMN, KEYWORD = "CORRECTED_DATA", "PEELKIT_SELFCAL"

# Rows of each field that the digest is of, spread over all.
DIGEST_ROWS = 32


def write(
    path: Path,
    came_from: Mapping[int, str | None],
    *,
    earlier: str | None,
    steps: Mapping[str, str],
) -> None:
    """Record what the data of some fields in a new CORRECTED_DATA were made of.

    Parameters
    ----------
    came_from : mapping of int
        Field to the column that was self-calibrated; None for data that peelkit calibrated otherwise.
    earlier : str, optional
        Column that the new one replaced: it tells about the other fields.
    steps : mapping of str
        Columns that the step replaced, to the names under which they are kept.
    """
    with ms.opened(path, write=True) as main:
        found = _read(main, earlier) if earlier in main.colnames() else {}
        fields = [field for field, source in came_from.items() if source is not None]
        digests = digests_of(main, COLUMN, fields)
        entries = {field: entry for field, entry in found.items() if field not in came_from}
        for field in fields:
            source = str(came_from[field])
            entries[field] = {"from": steps.get(source, source), "digest": digests[field]}
        _write(main, entries)


def read(path: Path, fields: Iterable[int]) -> dict[int, str | None]:
    """Fields whose CORRECTED_DATA is as peelkit self-calibrated it, and the column that it was made of.

    That is None where ``undo --forget`` dropped it.
    """
    with ms.opened(path) as main:
        if COLUMN not in main.colnames():
            return {}
        entries = {f: entry for f, entry in _read(main, COLUMN).items() if f in set(fields)}
        digests = digests_of(main, COLUMN, entries)
        present = set(main.colnames())
    return {
        field: entry["from"] if entry["from"] in present else None
        for field, entry in entries.items()
        if entry["digest"] == digests[field]
    }


def forget(main: Any, dropped: Iterable[str]) -> None:
    """What some columns were is not known any more: names may be used again."""
    if COLUMN in main.colnames() and (entries := _read(main, COLUMN)):
        gone = set(dropped)
        for entry in entries.values():
            entry["from"] = None if entry["from"] in gone else entry["from"]
        _write(main, entries)


def _read(main: Any, column: str | None) -> dict[int, dict[str, Any]]:
    if KEYWORD not in main.colkeywordnames(column):
        return {}
    return {
        int(field): entry
        for field, entry in json.loads(main.getcolkeyword(column, KEYWORD)).items()
    }


def _write(main: Any, entries: Mapping[int, Mapping[str, Any]]) -> None:
    if entries:
        main.putcolkeyword(COLUMN, KEYWORD, json.dumps(entries))
        main.flush()


def digests_of(main: Any, column: str, fields: Iterable[int]) -> dict[int, str]:
    """Digest of some rows of each field: columns that differ in them have another."""
    wanted = set(fields)
    if not wanted:
        return {}
    rows: dict[int, list[NDArray[np.int64]]] = {field: [] for field in wanted}
    for start, count in ms.row_ranges(main.nrows(), 4):
        numbers = main.getcol("FIELD_ID", start, count)
        for field in wanted:
            rows[field].append(start + np.flatnonzero(numbers == field))
    found = {}
    for field, parts in rows.items():
        every = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        some = every[np.unique(np.linspace(0, every.size - 1, DIGEST_ROWS).astype(int))]
        total = hashlib.blake2b(digest_size=8)
        for row in some if every.size else ():
            if main.iscelldefined(column, int(row)):
                total.update(np.ascontiguousarray(main.getcell(column, int(row))).tobytes())
        found[field] = total.hexdigest()
    return found
