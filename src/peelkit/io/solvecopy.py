"""The data of a solve as a Measurement Set of their own, in which QuartiCal 0.2.7 does not stumble.

What it stumbles on, all seen by running it: FEED rows that are not one for each antenna; more than
one POLARIZATION row; data description ids that are not spw ids; NaN; FLAG_ROW without FLAG; and
thousands of groups. So the copy is made anew: its fields are parts of the data, and its times are counted
(`peelkit.core.dd_cells`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms, newms

# Column with the model of direction 0: what is in no direction of its own.
REST = "REST"

# Times of a copy: any that a computer's clock and QuartiCal take [MJD s].
FIRST_S, STEP_S = 4.8e9, 10.0


@dataclass(frozen=True)
class Family:
    """Data descriptions that one run of QuartiCal can serve: intervals in channels mean the same.

    Parameters
    ----------
    ddids : tuple of int
        Data descriptions of the MS, in the order of those of the copy (0, 1, ...).
    correlations : tuple of str
        Of all of them.
    n_chan : int
        Of all of them.
    width_hz : float
        Channel width of all of them [Hz].
    """

    ddids: tuple[int, ...]
    correlations: tuple[str, ...]
    n_chan: int
    width_hz: float


def families(info: ms.MsInfo, ddids: Sequence[int]) -> list[Family]:
    """Sort data descriptions into families."""
    found: dict[tuple[tuple[str, ...], int, int], list[int]] = {}
    for ddid in ddids:
        description = info.data_descriptions[ddid]
        spw = info.spws[description.spw]
        width = round(float(np.median(np.abs(spw.width_hz))))
        found.setdefault((description.correlations, spw.freq_hz.size, width), []).append(ddid)
    return [
        Family(tuple(members), correlations, n_chan, float(width))
        for (correlations, n_chan, width), members in found.items()
    ]


@dataclass(frozen=True)
class Part:
    """Rows of one data description of the copy.

    Parameters
    ----------
    ddid : int
        Of the copy.
    cell, unit, chunk : ndarray of int, shape (row,)
        Number in time, and what they are filed under as SCAN_NUMBER and FIELD_ID.
    antenna1, antenna2 : ndarray of int, shape (row,)
        Antennas.
    data, flag : ndarray, shape (row, chan, corr)
        Visibilities and flags.
    models : mapping of str to ndarray
        By column, shape of ``data``.
    weight : ndarray or None, shape of ``data``
        1 everywhere if None.
    """

    ddid: int
    cell: NDArray[np.int64]
    unit: NDArray[np.int64]
    chunk: NDArray[np.int64]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    data: NDArray[np.complex64]
    flag: NDArray[np.bool_]
    models: Mapping[str, NDArray[np.complex64]]
    weight: NDArray[np.float32] | None = None


def write(
    info: ms.MsInfo,
    target: Path,
    parts: Iterable[Part],
    *,
    freq_hz: Sequence[NDArray[np.float64]],
    width_hz: float,
    correlations: Sequence[str],
    models: Sequence[str],
    chunks: int,
    weights: bool = False,
) -> int:
    """Write the copy at ``target``; returns its rows.

    Parameters
    ----------
    parts : iterable of Part
        Those of a data description one after the other, by time.
    freq_hz : sequence of ndarray
        Channels of each data description.
    models : sequence of str
        Columns of all parts.
    chunks : int
        Numbers that rows are filed under as FIELD_ID.
    weights : bool
        The parts have weights.
    """
    layout = newms.Layout(
        telescope=info.telescope,
        antenna_names=info.antenna_labels,
        stations=info.antenna_labels,
        position_m=np.array([antenna.position_m for antenna in info.antennas]),
        dish_m=max(antenna.diameter_m for antenna in info.antennas),
        fields=[(f"part{n}", 0.0, 0.0) for n in range(chunks)],
        spws=freq_hz,
        channel_width_hz=width_hz,
        correlations=correlations,
        time_range_s=[(FIRST_S, FIRST_S)],
    )
    return newms.write(target, layout, _rows(parts), models=models, spectrum=weights)


def _rows(parts: Iterable[Part]) -> Iterator[dict[str, NDArray[Any]]]:
    for part in parts:
        count, _, n_corr = part.data.shape
        time = FIRST_S + STEP_S * part.cell
        ones = np.ones((count, n_corr), dtype=np.float32)
        yield {
            "TIME": time, "TIME_CENTROID": time,
            "INTERVAL": np.full(count, STEP_S), "EXPOSURE": np.full(count, STEP_S),
            "ANTENNA1": part.antenna1, "ANTENNA2": part.antenna2,
            "UVW": np.zeros((count, 3)), "DATA": part.data, "FLAG": part.flag,
            "FLAG_ROW": np.zeros(count, dtype=bool),
            "SCAN_NUMBER": part.unit, "FIELD_ID": part.chunk,
            "DATA_DESC_ID": np.full(count, part.ddid), "WEIGHT": ones, "SIGMA": ones,
            **part.models,
            **({"WEIGHT_SPECTRUM": part.weight} if part.weight is not None else {}),
        }  # fmt: skip
