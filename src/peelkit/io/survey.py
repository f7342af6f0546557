"""What an MS holds that can be used: unflagged times, antennas, weights, baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.usable import sample_weights
from peelkit.progress import Progress
from peelkit.selection import Selection

C_M_S = 299792458.0


@dataclass(frozen=True)
class Visit:
    """One field in one scan and spw of one execution, unflagged cross-correlations only.

    Parameters
    ----------
    field, spw, scan, observation : int
        Which; executions (OBSERVATION_ID) number their scans alike.
    times_s, exposures_s : ndarray, shape (time,)
        Midpoints [MJD s] and exposure [s] of the integrations with any unflagged data.
    integration_s : float
        Median INTERVAL [s].
    weight_sum : ndarray, shape (antenna,)
        Sum of weight x unflagged samples of the parallel hands over each antenna's baselines.
    """

    field: int
    spw: int
    scan: int
    observation: int
    times_s: NDArray[np.float64]
    exposures_s: NDArray[np.float64]
    integration_s: float
    weight_sum: NDArray[np.float64]

    @property
    def on_source_s(self) -> float:
        """Time with data [s]."""
        return float(self.exposures_s.sum())

    @property
    def length_s(self) -> float:
        """From the beginning of the first to the end of the last integration [s]."""
        return float(self.times_s[-1] - self.times_s[0]) + self.integration_s


@dataclass(frozen=True)
class Survey:
    """The usable data of a selection.

    Parameters
    ----------
    visits : tuple of Visit
        Those with any unflagged data.
    antenna_unflagged : ndarray, shape (antenna,)
        Unflagged fraction of each antenna's selected data; 0 where it has none.
    max_uv_lambda, max_w_lambda : float
        Longest baseline and w [wavelengths].
    max_uv_m : float
        Longest baseline [m].
    unflagged : float
        Unflagged fraction of the selected cross-correlations.
    weight_min, weight_max : float
        Of the weights of unflagged parallel hands, over all samples; zeros excluded.
    zero_weights : float
        Fraction of unflagged samples whose weight is zero.
    execution_of : dict of int
        By OBSERVATION_ID, the execution that `Visit.observation` names: the lowest of the ids whose times
        overlap. Ids that run side by side (one for each field of a mosaic, in MSs that were put together)
        are no executions.
    """

    visits: tuple[Visit, ...]
    antenna_unflagged: NDArray[np.float64]
    max_uv_lambda: float
    max_w_lambda: float
    max_uv_m: float
    unflagged: float
    weight_min: float
    weight_max: float
    zero_weights: float
    execution_of: Mapping[int, int]

    @property
    def antennas(self) -> NDArray[np.intp]:
        """Ids of the antennas with unflagged data of non-zero weight."""
        total = sum(
            (visit.weight_sum for visit in self.visits), np.zeros_like(self.antenna_unflagged)
        )
        return np.flatnonzero(total > 0)

    @property
    def integration_s(self) -> float:
        """Median integration time [s]."""
        return float(np.median([visit.integration_s for visit in self.visits]))

    def on_source_s(self, field: int | None = None) -> float:
        """Time on source [s], of one field or all: spws observe together, so the longest counts."""
        return sum(self._on_source_s(field).values())

    def execution_s(self, field: int | None = None) -> float:
        """Median time on source of one execution [s]: solutions never span two."""
        return float(np.median(list(self._on_source_s(field).values())))

    def _on_source_s(self, field: int | None) -> dict[int, float]:
        """By execution."""
        totals: dict[tuple[int, int, int], dict[int, float]] = {}
        for visit in self.visits:
            if field is None or visit.field == field:
                per_spw = totals.setdefault((visit.field, visit.observation, visit.scan), {})
                per_spw[visit.spw] = per_spw.get(visit.spw, 0.0) + visit.on_source_s
        result: dict[int, float] = {}
        for (_, observation, _), per_spw in totals.items():
            result[observation] = result.get(observation, 0.0) + max(per_spw.values())
        return result

    @property
    def observations(self) -> list[int]:
        """Executions with data."""
        return sorted({visit.observation for visit in self.visits})

    def spws_of(self, observation: int) -> list[int]:
        """Spws with data in one execution."""
        return sorted({visit.spw for visit in self.visits if visit.observation == observation})

    def fields(self) -> list[int]:
        """Fields with data."""
        return sorted({visit.field for visit in self.visits})

    def spws(self, field: int | None = None) -> list[int]:
        """Spws with data."""
        return sorted({visit.spw for visit in self.visits if field is None or visit.field == field})


class _Tally:
    """Running sums of one (field, spw, scan, execution)."""

    def __init__(self, n_antenna: int) -> None:
        self.times: dict[float, float] = {}
        self.intervals: list[float] = []
        self.weight = np.zeros(n_antenna)


def survey(
    info: ms.MsInfo,
    selection: Selection,
    progress: Progress | None = None,
    *,
    weights: bool = True,
) -> Survey:
    """Read flags, weights and times of the selection, in bounded memory.

    Without ``weights`` all count 1: they will be derived anew.

    Raises
    ------
    DataError
        If nothing is selected, or all of it is flagged or without weight.
    """
    progress = progress or Progress()
    rows = ms.select_rows(info, selection)
    channels = info.channels(selection)
    tallies: dict[tuple[int, int, int, int], _Tally] = {}
    n_antenna = len(info.antennas)
    good = np.zeros(n_antenna)
    every = np.zeros(n_antenna)
    uv_lambda = w_lambda = uv_m = 0.0
    low, high, zeros, samples = np.inf, 0.0, 0.0, 0.0
    progress.stage("reading flags and weights", total=rows.size)
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=12):
            spw = info.spws[description.spw]
            inside = ms.channel_mask(channels[description.spw], len(spw.freq_hz))
            piece = _read_chunk(main, description, chunk, inside, weights=weights)
            cross = piece["antenna1"] != piece["antenna2"]
            for name in ("antenna1", "antenna2"):
                every += np.bincount(piece[name][cross], minlength=n_antenna) * inside.sum()
                good += np.bincount(
                    piece[name][cross], weights=piece["unflagged"][cross], minlength=n_antenna
                )
            used = cross & (piece["unflagged"] > 0)
            zero = used & (piece["weight"] <= 0)
            samples += piece["unflagged"][used].sum()
            zeros += piece["unflagged"][zero].sum()
            used &= piece["weight"] > 0
            if used.any():
                low = min(low, piece["weight_low"][used].min())
                high = max(high, piece["weight_high"][used].max())
                uvw = piece["uvw"][used]
                uv = float(np.hypot(uvw[:, 0], uvw[:, 1]).max())
                per_m = spw.freq_hz[inside].max() / C_M_S
                uv_m = max(uv_m, uv)
                uv_lambda = max(uv_lambda, uv * per_m)
                w_lambda = max(w_lambda, float(np.abs(uvw[:, 2]).max()) * per_m)
                _tally(tallies, description.spw, piece, used, n_antenna)
            progress.advance(chunk.size)
    if not tallies:
        here = f"field {selection.field or 'any'}, spw {selection.spw or 'any'}"
        if samples:
            raise DataError(
                f"{info.path}: no weight of {here} is a positive number; 'peelkit selfcal --weights initweights' (or "
                "statwt) derives weights, as do CASA's tasks of these names."
            )
        raise DataError(
            f"{info.path}: no usable data for {here}: all flagged; restore flags first, or choose other data."
        )
    execution_of = _executions(tallies)
    visits = tuple(
        Visit(
            *key[:3],
            execution_of[key[3]],
            times_s=np.array(sorted(tally.times)),
            exposures_s=np.array([tally.times[moment] for moment in sorted(tally.times)]),
            integration_s=float(np.median(tally.intervals)),
            weight_sum=tally.weight,
        )
        for key, tally in sorted(tallies.items())
    )
    fraction = np.divide(good, every, out=np.zeros_like(good), where=every > 0)
    return Survey(
        visits=visits,
        antenna_unflagged=fraction,
        max_uv_lambda=uv_lambda,
        max_w_lambda=w_lambda,
        max_uv_m=uv_m,
        unflagged=float(good.sum() / every.sum()),
        weight_min=float(low),
        weight_max=float(high),
        zero_weights=float(zeros / samples) if samples else 0.0,
        execution_of=execution_of,
    )


def _executions(tallies: Mapping[tuple[int, int, int, int], _Tally]) -> dict[int, int]:
    """Join the OBSERVATION_IDs whose times overlap; each gets the lowest id of its group."""
    spans: dict[int, tuple[float, float]] = {}
    for (_, _, _, observation), tally in tallies.items():
        low, high = spans.get(observation, (np.inf, -np.inf))
        spans[observation] = (min(low, min(tally.times)), max(high, max(tally.times)))
    groups: list[tuple[float, list[int]]] = []
    for observation, (low, high) in sorted(spans.items(), key=lambda item: item[1]):
        if groups and low < groups[-1][0]:
            groups[-1] = (max(high, groups[-1][0]), [*groups[-1][1], observation])
        else:
            groups.append((high, [observation]))
    return {one: min(group) for _, group in groups for one in group}


def _read_chunk(
    main: Any,
    description: ms.DataDescription,
    rows: NDArray[np.int64],
    inside: NDArray[np.bool_],
    *,
    weights: bool,
) -> dict[str, NDArray[Any]]:
    """Per row: ids, time, unflagged channels (mean over parallel hands), weight of all these."""
    hands = ms.parallel_hands(description.correlations)
    flag = ms.get(main, "FLAG", rows)[:, inside][:, :, hands]
    open_rows = ~ms.get(main, "FLAG_ROW", rows)
    unflagged = (~flag & open_rows[:, None, None]).astype(np.float32)
    weight = sample_weights(main, rows, hands, inside) if weights else np.ones((1, 1, 1))
    positive = np.where((unflagged > 0) & (weight > 0), weight, np.nan)
    none = np.isnan(positive).all(axis=(1, 2))
    positive[none] = 0.0
    exposure = ms.get(main, "EXPOSURE", rows)
    interval = ms.get(main, "INTERVAL", rows)
    return {
        "antenna1": ms.get(main, "ANTENNA1", rows),
        "antenna2": ms.get(main, "ANTENNA2", rows),
        "field": ms.get(main, "FIELD_ID", rows),
        "scan": ms.get(main, "SCAN_NUMBER", rows),
        "observation": ms.get(main, "OBSERVATION_ID", rows),
        "time": ms.get(main, "TIME", rows),
        "interval": interval,
        "exposure": np.where(exposure > 0, exposure, interval),
        "uvw": ms.get(main, "UVW", rows),
        "unflagged": unflagged.mean(axis=2).sum(axis=1),
        "weight": np.nansum(positive, axis=(1, 2)),
        "weight_low": np.nanmin(positive, axis=(1, 2)),
        "weight_high": np.nanmax(positive, axis=(1, 2)),
    }


def _tally(
    tallies: dict[tuple[int, int, int, int], _Tally],
    spw: int,
    piece: dict[str, NDArray[Any]],
    used: NDArray[np.bool_],
    n_antenna: int,
) -> None:
    keys = ("field", "scan", "observation")
    groups = np.unique(np.stack([piece[key][used] for key in keys]), axis=1)
    for group in groups.T:
        mine = used.copy()
        for key, value in zip(keys, group, strict=True):
            mine &= piece[key] == value
        field, scan, observation = (int(value) for value in group)
        tally = tallies.setdefault((field, spw, scan, observation), _Tally(n_antenna))
        times, first = np.unique(piece["time"][mine], return_index=True)
        for moment, exposure in zip(times, piece["exposure"][mine][first], strict=True):
            tally.times[float(moment)] = float(exposure)
        tally.intervals.append(float(np.median(piece["interval"][mine])))
        for name in ("antenna1", "antenna2"):
            tally.weight += np.bincount(
                piece[name][mine], weights=piece["weight"][mine], minlength=n_antenna
            )
