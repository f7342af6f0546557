"""Numbers of selected rows: small, ascending, and looked at in windows.

They, and what commands keep for each row beside them, are all that grows with the number of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from casacore.tables import table
from numpy.typing import NDArray

from peelkit import memory


def kind(n_rows: int) -> type[np.signedinteger[Any]]:
    """Type that the numbers of so many rows fit in: 4 bytes each, nearly always."""
    # The edge of the last window is a number too.
    return np.int32 if n_rows < 2**31 - memory.ROW_WINDOW else np.int64


def every(n_rows: int) -> NDArray[np.int64]:
    """All, from 0."""
    rows: NDArray[Any] = np.arange(n_rows, dtype=kind(n_rows))
    return rows


def where(selected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Those that are ``selected``, shape (row,)."""
    found: NDArray[Any] = np.empty(np.count_nonzero(selected), dtype=kind(selected.size))
    end = 0
    for start in range(0, selected.size, memory.ROW_WINDOW):
        some = np.flatnonzero(selected[start : start + memory.ROW_WINDOW])
        found[end : end + some.size] = some + start
        end += some.size
    return found


def others(n_rows: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of ``n_rows`` that are not among ``rows``."""
    left = np.ones(n_rows, dtype=bool)
    left[rows] = False
    return where(left)


def windows(
    main: table, rows: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
    """Pieces of ``rows``, ascending, within windows of the table; with their data descriptions.

    Yields
    ------
    int
        Index of the first in what was given.
    ndarray of int, shape (row,)
        Their numbers.
    ndarray of int, shape (row,)
        DATA_DESC_ID of each.
    """
    # Edges of another type would make a copy of the rows.
    edges = np.arange(0, main.nrows() + memory.ROW_WINDOW, memory.ROW_WINDOW, dtype=rows.dtype)
    for start, end in itertools.pairwise(np.searchsorted(rows, edges).tolist()):
        if end > start:
            mine = rows[start:end]
            yield start, mine, column(main, "DATA_DESC_ID", mine)


def counts_by_field(
    main: table, rows: NDArray[np.int64], n_ddid: int
) -> dict[int, NDArray[np.int64]]:
    """How many of ``rows`` each field has of each data description, shape (data description,); fields ascending."""
    found: dict[int, NDArray[np.int64]] = {}
    for _, window, ddids in windows(main, rows):
        fields = column(main, "FIELD_ID", window)
        for number in np.unique(fields).tolist():
            count = np.bincount(ddids[fields == number], minlength=n_ddid)
            found[number] = found.get(number, 0) + count
    return dict(sorted(found.items()))


def first_of_each(main: table, rows: NDArray[np.int64]) -> list[int]:
    """First of ``rows`` of each data description that they have."""
    found: dict[int, int] = {}
    for _, window, ddids in windows(main, rows):
        for ddid in np.unique(ddids).tolist():
            if ddid not in found:
                found[ddid] = int(window[np.argmax(ddids == ddid)])
    return [found[ddid] for ddid in sorted(found)]


def counts(main: table, rows: NDArray[np.int64], n_ddid: int) -> NDArray[np.int64]:
    """How many of ``rows`` each data description has, shape (data description,)."""
    total = np.zeros(n_ddid, dtype=np.int64)
    for _, _, ddids in windows(main, rows):
        total += np.bincount(ddids, minlength=n_ddid)
    return total


def sample(
    main: table, rows: NDArray[np.int64], n_ddid: int, most: int
) -> dict[int, NDArray[np.int64]]:
    """At most so many of ``rows`` of each data description, evenly spread."""
    total = counts(main, rows, n_ddid)
    wanted = {
        int(ddid): np.unique(np.linspace(0, total[ddid] - 1, most).astype(np.int64))
        for ddid in np.flatnonzero(total)
    }
    pieces: dict[int, list[NDArray[np.int64]]] = {ddid: [] for ddid in wanted}
    seen = np.zeros(n_ddid, dtype=np.int64)
    for _, window, ddids in windows(main, rows):
        for ddid in np.unique(ddids).tolist():
            mine = window[ddids == ddid]
            places = wanted[ddid] - seen[ddid]
            pieces[ddid].append(mine[places[(places >= 0) & (places < mine.size)]])
            seen[ddid] += mine.size
    return {ddid: np.concatenate(found) for ddid, found in pieces.items()}


def times(main: table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """TIMEs [MJD s] that ``rows`` have, each once, ascending."""
    found = [np.empty(0)]
    for _, window, _ in windows(main, rows):
        found.append(np.unique(column(main, "TIME", window)))
    return np.unique(np.concatenate(found))


def at_times(
    main: table, rows: NDArray[np.int64], chosen: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Those of ``rows`` whose TIME is one of ``chosen``."""
    found = [rows[:0]]
    for _, window, _ in windows(main, rows):
        found.append(window[np.isin(column(main, "TIME", window), chosen)])
    return np.concatenate(found)


def series(columns: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """Number rows by what they have in several columns of ids, none below 0: from 0, shape (row,)."""
    found: NDArray[Any] | int = 0
    for values in columns:
        wide = values.astype(np.int64)
        # Renumbered each time, so that large ids do not overflow.
        found = np.unique(found * (wide.max(initial=0) + 1) + wide, return_inverse=True)[1]
    return np.asarray(found)


def column(main: table, name: str, window: NDArray[np.int64]) -> NDArray[Any]:
    """Cells of a scalar column at the rows of a window: read in one piece, and picked from it."""
    first = int(window[0])
    values = np.asarray(main.getcol(name, first, int(window[-1]) + 1 - first))
    return values if values.shape[0] == window.size else values[window - first]
