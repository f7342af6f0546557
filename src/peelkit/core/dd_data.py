"""The data of a direction-dependent solve: rows and their groups, and chunks of all columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_gains import Key, TimeAxis
from peelkit.core.dd_gate import unique_times
from peelkit.io import ms
from peelkit.io.usable import sample_weights


@dataclass(frozen=True)
class Rows:
    """The selected rows.

    Parameters
    ----------
    info : MsInfo
        The MS.
    rows : ndarray of int
        Row numbers, ascending.
    scans : ndarray of int, shape (row,)
        Scan of each, counted by the time it begins.
    axes : dict
        (field, data description) to its integrations; field is -1 where all are solved together.
    integration_s : dict of int
        Data description to the median INTERVAL [s].
    combine_fields : bool
        Fields are solved together.
    """

    info: ms.MsInfo
    rows: NDArray[np.int64]
    scans: NDArray[np.int64]
    axes: dict[Key, TimeAxis]
    integration_s: dict[int, float]
    combine_fields: bool

    def key(self, field: int, ddid: int) -> Key:
        """Group of a field and data description."""
        return (-1 if self.combine_fields else field, ddid)

    @property
    def ddids(self) -> list[int]:
        """Data descriptions that have rows."""
        return sorted({ddid for _, ddid in self.axes})


def gather(info: ms.MsInfo, rows: NDArray[np.int64], *, combine_fields: bool) -> Rows:
    """Read the times and scans of ``rows``."""
    columns = ("TIME", "SCAN_NUMBER", "OBSERVATION_ID", "FIELD_ID", "DATA_DESC_ID", "INTERVAL")
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
    with ms.opened(info.path) as main:
        for start, count in ms.row_ranges(rows.size, 64):
            chunk = rows[start : start + count]
            for name in columns:
                pieces[name].append(ms.get(main, name, chunk))
    times, scan, observation, field, ddid, interval = (
        np.concatenate(pieces[name]) for name in columns
    )
    # A scan number may come back in another execution.
    label = observation.astype(np.int64) * (int(scan.max()) + 1) + scan
    unique, inverse = np.unique(label, return_inverse=True)
    begins = np.full(unique.size, np.inf)
    np.minimum.at(begins, inverse, times)
    rank = np.empty(unique.size, dtype=np.int64)
    rank[np.argsort(begins, kind="stable")] = np.arange(unique.size)
    scans = rank[inverse]
    axes: dict[Key, TimeAxis] = {}
    integration: dict[int, float] = {}
    for number in np.unique(ddid):
        mine = ddid == number
        integration[int(number)] = float(np.median(interval[mine]))
        for one in [-1] if combine_fields else np.unique(field[mine]):
            here = mine if one == -1 else mine & (field == one)
            axes[(int(one), int(number))] = unique_times(times[here], scans[here])
    return Rows(info, rows, scans, axes, integration, combine_fields)


@dataclass(frozen=True)
class Block:
    """Some rows of one field and data description, with what is needed of them.

    Parameters
    ----------
    key : Key
        Their group.
    field : int
        Field that the rows are of, also where several are solved together.
    description : DataDescription
        Spw and correlations.
    rows : ndarray of int, shape (row,)
        In the MS.
    scans, antenna1, antenna2 : ndarray of int, shape (row,)
        Scan counted by time, and antennas.
    times_s : ndarray, shape (row,)
        TIME.
    data : ndarray of complex64, shape (row, chan, corr)
        With 0 where it is no number.
    models : dict of ndarray
        By column, shape of ``data``.
    flag : ndarray of bool, shape of ``data``
        Flagged, by FLAG or FLAG_ROW, or no number, or an autocorrelation.
    weight : ndarray, shape of ``data``
        0 where flagged.
    """

    key: Key
    field: int
    description: ms.DataDescription
    rows: NDArray[np.int64]
    scans: NDArray[np.int64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    times_s: NDArray[np.float64]
    data: NDArray[np.complex64]
    models: dict[str, NDArray[np.complex64]]
    flag: NDArray[np.bool_]
    weight: NDArray[np.float32]

    @property
    def hands(self) -> NDArray[np.intp]:
        """Correlations that carry Stokes I."""
        return ms.parallel_hands(self.description.correlations)


@dataclass(frozen=True)
class Place:
    """Rows of a block, before it is read: its fields are as those of `Block`."""

    key: Key
    field: int
    description: ms.DataDescription
    rows: NDArray[np.int64]
    scans: NDArray[np.int64]


def places(selected: Rows, n_model: int, main: Any) -> Iterator[Place]:
    """Blocks of bounded memory that the rows are worked on in; ``main`` is the opened MS."""
    position = np.full(int(selected.rows[-1]) + 1, -1, dtype=np.int64)
    position[selected.rows] = np.arange(selected.rows.size)
    for description, chunk in ms.chunks(
        main, selected.info, selected.rows, bytes_per_sample=bytes_per_sample(n_model)
    ):
        fields = ms.get(main, "FIELD_ID", chunk)
        for field in np.unique(fields):
            rows = chunk[fields == field]
            key = selected.key(int(field), description.id)
            yield Place(key, int(field), description, rows, selected.scans[position[rows]])


def blocks(selected: Rows, data_column: str, models: Sequence[str], main: Any) -> Iterator[Block]:
    """Blocks of bounded memory; ``main`` is the opened MS."""
    for place in places(selected, len(models), main):
        yield read(main, place, data_column, models)


def bytes_per_sample(n_model: int) -> int:
    """Memory of a block and of what is computed from it, for each row x channel x correlation."""
    return 120 + 40 * n_model


def read(main: Any, place: Place, data_column: str, models: Sequence[str]) -> Block:
    """The block at a place."""
    rows = place.rows
    here, every = ms.part(main, rows), np.arange(rows.size)
    data = ms.get(here, data_column, every)
    antenna1 = ms.get(here, "ANTENNA1", every).astype(np.int64)
    antenna2 = ms.get(here, "ANTENNA2", every).astype(np.int64)
    flag = ms.get(here, "FLAG", every) | ms.get(here, "FLAG_ROW", every)[:, None, None]
    flag |= (antenna1 == antenna2)[:, None, None]
    finite = np.isfinite(data)
    flag |= ~finite
    return Block(
        place.key,
        place.field,
        place.description,
        rows,
        place.scans,
        antenna1,
        antenna2,
        ms.get(here, "TIME", every),
        data if finite.all() else np.where(finite, data, 0),
        {name: ms.get(here, name, every) for name in models},
        flag,
        np.where(flag, 0, sample_weights(here, every)),
    )


def in_uv_range(main: Any, block: Block, uv_range_m: tuple[float, float]) -> NDArray[np.bool_]:
    """Rows of a block, of the opened MS ``main``, in a range of baselines [m]; 0 is no limit."""
    low, high = uv_range_m
    if not (low or high):
        return np.ones(block.rows.size, dtype=bool)
    uvw = ms.get(main, "UVW", block.rows)
    length = np.hypot(uvw[:, 0], uvw[:, 1])
    return np.asarray((length >= low) & ((length <= high) | (high == 0)))
