"""The data of a direction-dependent solve: rows and their groups, and chunks of all columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_gains
from peelkit.core.dd_gains import Key, TimeAxis
from peelkit.core.dd_gate import unique_times
from peelkit.io import ms, rownumbers
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
    """Read the times and scans of ``rows``, in windows: 4 bytes for each row are all that is kept."""
    tally = _Tally({}, [], {}, {})
    scans: NDArray[Any] = np.empty(rows.size, dtype=np.int32)
    with ms.opened(info.path) as main:
        for start, window, ddids in rownumbers.windows(main, rows):
            scans[start : start + window.size] = tally.add(
                main, window, ddids, combine_fields=combine_fields
            )
    # Counted by time.
    rank = np.empty(len(tally.begins), dtype=np.int32)
    rank[np.argsort(tally.begins, kind="stable")] = np.arange(len(tally.begins))
    for start, count in ms.row_ranges(rows.size, 8):
        scans[start : start + count] = rank[scans[start : start + count]]
    axes = {}
    for key in sorted(tally.times, key=lambda key: (key[1], key[0])):
        times, labels = (np.concatenate(values) for values in zip(*tally.times[key], strict=True))
        axes[key] = unique_times(times, rank[labels])
    integration = {ddid: _median(counts) for ddid, counts in sorted(tally.intervals.items())}
    return Rows(info, rows, scans, axes, integration, combine_fields)


@dataclass
class _Tally:
    """What `gather` has found so far.

    Parameters
    ----------
    labels : dict
        Number of each scan (OBSERVATION_ID, SCAN_NUMBER), in the order in which they were met: a scan
        number may come back in another execution.
    begins : list of float
        When each begins [s].
    times : dict of list
        Group to the integrations of each window, and the numbers of their scans.
    intervals : dict of dict
        Data description to how many rows have which INTERVAL [s].
    """

    labels: dict[tuple[int, int], int]
    begins: list[float]
    times: dict[Key, list[tuple[NDArray[np.float64], NDArray[np.int64]]]]
    intervals: dict[int, dict[float, int]]

    def add(
        self,
        main: Any,
        window: NDArray[np.int64],
        ddids: NDArray[np.int32],
        *,
        combine_fields: bool,
    ) -> NDArray[np.int64]:
        """Take in some rows; the numbers of their scans."""
        times, scan, observation, field, interval = (
            rownumbers.column(main, name, window)
            for name in ("TIME", "SCAN_NUMBER", "OBSERVATION_ID", "FIELD_ID", "INTERVAL")
        )
        both = observation.astype(np.int64) * 2**32 + scan
        found, first, inverse = np.unique(both, return_index=True, return_inverse=True)
        numbers = np.empty(found.size, dtype=np.int64)
        for place in np.argsort(first):
            name = int(observation[first[place]]), int(scan[first[place]])
            numbers[place] = self.labels.setdefault(name, len(self.labels))
        self.begins += [math.inf] * (len(self.labels) - len(self.begins))
        begins = np.array(self.begins)
        np.minimum.at(begins, numbers[inverse], times)
        self.begins = begins.tolist()
        for ddid in np.unique(ddids).tolist():
            counts = self.intervals.setdefault(ddid, {})
            for value, count in zip(
                *np.unique(interval[ddids == ddid], return_counts=True), strict=True
            ):
                counts[float(value)] = counts.get(float(value), 0) + int(count)
        if combine_fields:
            field = np.full_like(field, -1)
        # The first row of each integration of each group, as they are in the MS.
        order = np.lexsort((times, field, ddids))
        keys = np.stack([ddids[order], field[order]])
        other = np.any(np.diff(keys, axis=1) != 0, axis=0)
        fresh = np.flatnonzero(np.append(True, other | (np.diff(times[order]) != 0)))
        row = order[fresh]
        edges = [
            0,
            *(1 + np.flatnonzero(np.any(np.diff(keys[:, fresh], axis=1) != 0, axis=0))),
            row.size,
        ]
        for start, end in itertools.pairwise(edges):
            here = row[start:end]
            key = int(field[here[0]]), int(ddids[here[0]])
            self.times.setdefault(key, []).append((times[here], numbers[inverse[here]]))
        return numbers[inverse]


def _median(counts: dict[float, int]) -> float:
    """Median of values of which there are so many."""
    values = np.array(sorted(counts))
    last = np.cumsum([counts[value] for value in values.tolist()])
    middle = np.array([(last[-1] - 1) // 2, last[-1] // 2])
    return float(values[np.searchsorted(last, middle, side="right")].mean())


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

    @property
    def series(self) -> NDArray[np.int64]:
        """One number for each baseline and scan, shape (row,)."""
        most = int(self.antenna2.max(initial=0)) + 1
        return (
            self.scans * (int(self.antenna1.max(initial=0)) + 1) + self.antenna1
        ) * most + self.antenna2


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
    for description, chunk in ms.chunks(
        main, selected.info, selected.rows, bytes_per_sample=bytes_per_sample(n_model)
    ):
        fields = ms.get(main, "FIELD_ID", chunk)
        for field in np.unique(fields):
            rows = chunk[fields == field]
            key = selected.key(int(field), description.id)
            scans = selected.scans[np.searchsorted(selected.rows, rows)]
            yield Place(key, int(field), description, rows, scans)


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


def integrations(
    selected: Rows, main: Any, ddids: Sequence[int]
) -> Iterator[tuple[NDArray[np.intp], int, Key, NDArray[np.int64]]]:
    """Rows of some data descriptions by window and field, and their places on the time axes.

    Yields
    ------
    ndarray of int, shape (row,)
        Indices into ``selected.rows``, ascending.
    int
        FIELD_ID of all of them.
    Key
        Their group.
    ndarray of int, shape (row,)
        Integration of each on the group's axis.
    """
    for start, window, ddid_of in rownumbers.windows(main, selected.rows):
        mine = np.flatnonzero(np.isin(ddid_of, ddids))
        if not mine.size:
            continue
        field_of, times = (
            rownumbers.column(main, name, window[mine]) for name in ("FIELD_ID", "TIME")
        )
        both = field_of.astype(np.int64) * 2**32 + ddid_of[mine]
        order = np.argsort(both, kind="stable")
        found, first = np.unique(both[order], return_index=True)
        for pair, here in zip(found.tolist(), np.split(order, first[1:]), strict=True):
            field, ddid = divmod(pair, 2**32)
            key = selected.key(field, ddid)
            when = dd_gains.time_index(selected.axes[key], times[here])
            yield start + mine[here], field, key, when


def in_uv_range(main: Any, block: Block, uv_range_m: tuple[float, float]) -> NDArray[np.bool_]:
    """Rows of a block, of the opened MS ``main``, in a range of baselines [m]; 0 is no limit."""
    low, high = uv_range_m
    if not (low or high):
        return np.ones(block.rows.size, dtype=bool)
    uvw = ms.get(main, "UVW", block.rows)
    length = np.hypot(uvw[:, 0], uvw[:, 1])
    return np.asarray((length >= low) & ((length <= high) | (high == 0)))
