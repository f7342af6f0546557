"""The data of a fit of delays and TEC: intervals as gaincal makes them, and their sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dispersive import Cross
from peelkit.core.uvrange import in_range
from peelkit.errors import DataError
from peelkit.io import ms, rownumbers
from peelkit.io.survey import C_M_S
from peelkit.io.usable import usable_weights


@dataclass(frozen=True)
class Interval:
    """Rows that are solved together, and how CASA would file the solution."""

    rows: NDArray[np.int64]
    time_s: float
    length_s: float
    field: int
    scan: int
    observation: int


@dataclass(frozen=True)
class Band:
    """All channels of the spws, one after the other.

    Parameters
    ----------
    slices : dict of slice
        By data description: where its channels are.
    spws : dict of int
        By data description.
    hands : int
        Parallel hands.
    freq_hz : ndarray, shape (chan,)
        Of all channels.
    used : ndarray of bool, shape (chan,)
        Those that are solved on.
    """

    slices: dict[int, slice]
    spws: dict[int, int]
    hands: int
    freq_hz: NDArray[np.float64]
    used: NDArray[np.bool_]


def band(
    info: ms.MsInfo, ddids: Collection[int], channels: dict[int, list[tuple[int, int]]]
) -> Band:
    """Lay the spws of ``ddids`` side by side; ``channels`` are solved on, by spw.

    Raises
    ------
    DataError
        If their numbers of parallel hands differ, or there are none.
    """
    slices, spws, freqs, used, hands = {}, {}, [], [], set()
    start = 0
    for item in info.data_descriptions:
        if item.id not in ddids:
            continue
        freq = info.spws[item.spw].freq_hz
        slices[item.id] = slice(start, start + freq.size)
        spws[item.id] = item.spw
        start += freq.size
        freqs.append(freq)
        used.append(ms.channel_mask(channels.get(item.spw, []), freq.size))
        hands.add(ms.parallel_hands(item.correlations).size)
    if len(hands) != 1 or 0 in hands:
        raise DataError(
            f"{info.path}: spws with {' and '.join(map(str, sorted(hands)))} parallel hands cannot be solved "
            "together; choose with --spw."
        )
    return Band(slices, spws, hands.pop(), np.concatenate(freqs), np.concatenate(used))


def intervals(
    info: ms.MsInfo, rows: NDArray[np.int64], *, solint_s: float | None, combine: Sequence[str]
) -> list[Interval]:
    """Split rows into solution intervals, of ``solint_s`` from the beginning of each scan (and field).

    ``None`` is one for each scan. With ``scan`` in ``combine`` they go on over the ends of scans, with
    ``field`` over changes of the field; executions are always apart.
    """
    n_row = rows.size
    number = np.empty(n_row, dtype=np.int32)
    begins: dict[tuple[int, ...], float] = {}
    with ms.opened(info.path) as main:
        for _, window, _ in rownumbers.windows(main, rows):
            for key, mine, read in _runs(main, window, combine):
                begins[key] = min(begins.get(key, math.inf), float(read["TIME"][mine].min()))
        found: dict[tuple[tuple[int, ...], int], _Open] = {}
        for start, window, _ in rownumbers.windows(main, rows):
            for key, mine, read in _runs(main, window, combine):
                time = read["TIME"][mine]
                bins = np.zeros(mine.size, dtype=np.int64)
                if solint_s is not None:
                    # A hundredth: solint equal to the integration time is one integration each.
                    bins = np.floor((time - begins[key]) / solint_s + 0.01).astype(np.int64)
                for one in np.unique(bins).tolist():
                    here = mine[bins == one]
                    interval = found.setdefault((key, one), _Open(len(found), read, int(here[0])))
                    interval.add(read, here)
                    number[start + here] = interval.number
    # Rows of each, without sorting all at once.
    each = [one.rows for one in found.values()]
    ends = np.cumsum([0, *each])
    ordered, place = np.empty_like(rows), ends[:-1].copy()
    for start, count in ms.row_ranges(n_row, 64):
        numbers = number[start : start + count]
        for one in np.unique(numbers).tolist():
            here = rows[start : start + count][numbers == one]
            ordered[place[one] : place[one] + here.size] = here
            place[one] += here.size
    done = [
        found[key].closed(ordered[ends[found[key].number] : ends[found[key].number + 1]])
        for key in sorted(found)
    ]
    return sorted(done, key=lambda item: item.time_s)


class _Open:
    """An interval whose rows are still being read."""

    def __init__(self, number: int, read: Mapping[str, NDArray[Any]], first_row: int) -> None:
        self.number, self.rows = number, 0
        self.first, self.last, self.exposure = math.inf, -math.inf, 0.0
        self.ids = tuple(
            int(read[name][first_row]) for name in ("FIELD_ID", "SCAN_NUMBER", "OBSERVATION_ID")
        )

    def add(self, read: Mapping[str, NDArray[Any]], here: NDArray[np.intp]) -> None:
        self.rows += here.size
        self.first = min(self.first, float(read["TIME"][here].min()))
        self.last = max(self.last, float(read["TIME"][here].max()))
        self.exposure = max(self.exposure, float(read["INTERVAL"][here].max()))

    def closed(self, rows: NDArray[np.int64]) -> Interval:
        length = self.last - self.first + self.exposure
        return Interval(rows, (self.first + self.last) / 2, length, *self.ids)


def _runs(
    main: Any, window: NDArray[np.int64], combine: Sequence[str]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp], dict[str, NDArray[Any]]]]:
    """What is solved together in a window: its name, the places of its rows, and the columns read."""
    names = ("TIME", "INTERVAL", "SCAN_NUMBER", "FIELD_ID", "OBSERVATION_ID")
    read = {name: rownumbers.column(main, name, window) for name in names}
    keys = [read["OBSERVATION_ID"]]
    if "scan" not in combine:
        keys.append(read["SCAN_NUMBER"])
    if "field" not in combine:
        keys.append(read["FIELD_ID"])
    groups, inverse = np.unique(np.stack(keys), axis=1, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    edges = np.searchsorted(inverse.ravel()[order], np.arange(groups.shape[1] + 1))
    for place, (start, end) in enumerate(itertools.pairwise(edges.tolist())):
        yield tuple(groups[:, place].tolist()), order[start:end], read


def sums(
    info: ms.MsInfo, interval: Interval, layout: Band, *, column: str, uvrange: str = ""
) -> Cross:
    """Sums of an interval over time, for each baseline.

    Of ``column`` against MODEL_DATA; flagged samples and rows, autocorrelations, weights of zero and
    baselines outside ``uvrange`` are left out.
    """
    n_antenna = len(info.antennas)
    cross = Cross.empty(n_antenna, layout.freq_hz.size, layout.hands)
    order = np.zeros((n_antenna, n_antenna), dtype=np.int64)
    order[cross.antenna1, cross.antenna2] = np.arange(cross.antenna1.size)
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, interval.rows, bytes_per_sample=64):
            one, two = ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
            apart = one != two
            chunk, one, two = chunk[apart], one[apart], two[apart]
            if not chunk.size:
                continue
            where = layout.slices[description.id]
            hands = ms.parallel_hands(description.correlations)
            data = ms.get(main, column, chunk)[:, :, hands].astype(np.complex128)
            model = ms.get(main, "MODEL_DATA", chunk)[:, :, hands].astype(np.complex128)
            weight = usable_weights(main, chunk, hands).astype(np.float64)
            good = np.isfinite(data) & (weight > 0)
            good &= layout.used[where][None, :, None]
            length = np.hypot(*ms.get(main, "UVW", chunk)[:, :2].T)[:, None]
            good &= in_range(uvrange, length, layout.freq_hz[where] / C_M_S)[:, :, None]
            weight = np.where(good, weight, 0.0)
            data = np.where(good, data, 0.0)
            swap = one > two
            product = weight * data * model.conj()
            product[swap] = product[swap].conj()
            place = order[np.minimum(one, two), np.maximum(one, two)]
            np.add.at(cross.product[:, where], place, product)
            np.add.at(cross.model, place, (weight * np.abs(model) ** 2).sum(axis=1))
            np.add.at(cross.data, place, (weight * np.abs(data) ** 2).sum(axis=1))
            np.add.at(cross.samples, place, good.sum(axis=1))
    return cross
