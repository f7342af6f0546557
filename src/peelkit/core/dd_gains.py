"""Direction-dependent gains on visibilities: which solution serves which sample, and applying it.

QuartiCal only solves. Its gains are applied here, so that each direction can be subtracted, kept or
scored by itself, on any rows of the user's MS, in bounded memory, and written atomically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io.gains import TermGains

Key = tuple[int, int]


@dataclass(frozen=True)
class TimeAxis:
    """Integrations of one field and data description of a solve.

    Parameters
    ----------
    times_s : ndarray, shape (time,)
        Unique TIMEs, ascending [MJD s].
    scans : ndarray of int, shape (time,)
        Number of the scan of each, ascending with time.
    """

    times_s: NDArray[np.float64]
    scans: NDArray[np.int64]


@dataclass(frozen=True)
class Solutions:
    """All terms of one field (or of all of them together) and data description.

    Parameters
    ----------
    axis : TimeAxis
        Of the data that were solved.
    terms : tuple of TermGains
        From left to right.
    time_bins : tuple of ndarray of int, shape (time,)
        Interval of each integration, for each term.
    freq_bins : tuple of ndarray of int, shape (chan,)
        Interval of each channel, for each term.
    """

    axis: TimeAxis
    terms: tuple[TermGains, ...]
    time_bins: tuple[NDArray[np.int64], ...]
    freq_bins: tuple[NDArray[np.int64], ...]


def time_bins(
    axis: TimeAxis, interval: int, *, across_scans: bool = False, chunk: int = 0
) -> NDArray[np.int64]:
    """Interval of each integration, as QuartiCal makes them.

    Intervals count integrations; they end with the scan (unless ``across_scans``) and with the chunk
    of ``chunk`` integrations (0: no chunks). 0 is the longest possible (gain.py, _make_time_bins).
    """
    count = axis.times_s.size
    index = np.arange(count)
    starts = np.zeros(count, dtype=bool)
    starts[:1] = True
    if chunk:
        starts |= index % chunk == 0
    if not across_scans:
        starts[1:] |= np.diff(axis.scans) != 0
    # Integrations since the last forced start.
    since = index - np.maximum.accumulate(np.where(starts, index, 0))
    if interval:
        starts |= since % interval == 0
    bins: NDArray[np.int64] = np.cumsum(starts) - 1
    return bins


def freq_bins(n_chan: int, interval: int, n_solution: int) -> NDArray[np.int64]:
    """Interval of each channel; parametrised terms have a gain for each channel."""
    if n_solution == n_chan:
        return np.arange(n_chan)
    return np.arange(n_chan) // (interval or n_chan)


def assemble(
    axis: TimeAxis,
    terms: Sequence[TermGains],
    intervals: Sequence[tuple[int, int, bool]],
    *,
    n_chan: int,
    chunk: int,
) -> Solutions:
    """Put the terms of one group together.

    Parameters
    ----------
    intervals : sequence of (int, int, bool)
        For each term: integrations, channels, across scans.

    Raises
    ------
    AssertionError
        If QuartiCal's solutions are not where this module expects them.
    """
    t_bins, f_bins = [], []
    for term, (time, freq, across) in zip(terms, intervals, strict=True):
        bins = time_bins(axis, time, across_scans=across, chunk=chunk)
        if bins[-1] + 1 != term.gains.shape[0]:
            raise AssertionError(
                f"{term.term}: {term.gains.shape[0]} solutions in time where {bins[-1] + 1} are expected"
            )
        channels = freq_bins(n_chan, freq, term.gains.shape[1])
        if channels[-1] + 1 != term.gains.shape[1]:
            raise AssertionError(
                f"{term.term}: {term.gains.shape[1]} solutions in frequency where {channels[-1] + 1} are expected"
            )
        t_bins.append(bins)
        f_bins.append(channels)
    return Solutions(axis, tuple(terms), tuple(t_bins), tuple(f_bins))


def time_index(axis: TimeAxis, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integration of each row."""
    return np.searchsorted(axis.times_s, times_s)


def jones(
    solutions: Solutions,
    when: NDArray[np.int64],
    antenna: NDArray[np.int64],
    direction: int,
    n_corr: int,
    *,
    independent_only: bool = False,
) -> NDArray[np.complex128]:
    """Jones matrices, the product of all terms, of rows.

    Parameters
    ----------
    when : ndarray of int, shape (row,)
        Integrations, from `time_index`.
    antenna : ndarray of int, shape (row,)
        Antennas.
    direction : int
        0 is what is in no direction of its own.
    n_corr : int
        Correlations of the data.
    independent_only : bool
        Leave the direction-dependent terms out.

    Returns
    -------
    ndarray of complex, shape (row, chan, hand) or (row, chan, 2, 2)
        Diagonals, with one entry for each parallel hand, unless a term is a full matrix.
    """
    moments, moment = np.unique(when, return_inverse=True)
    antennas = np.arange(solutions.terms[0].gains.shape[2])
    if moments.size * antennas.size < when.size:
        # Once for each integration and antenna, not for each of its baselines.
        table = jones(
            solutions, np.repeat(moments, antennas.size), np.tile(antennas, moments.size),
            direction, n_corr, independent_only=independent_only,
        )  # fmt: skip
        return table.take(moment * antennas.size + antenna, axis=0)
    total: NDArray[np.complex128] | None = None
    for term, t_bins, f_bins in zip(
        solutions.terms, solutions.time_bins, solutions.freq_bins, strict=True
    ):
        n_direction = term.gains.shape[3]
        if independent_only and n_direction > 1:
            continue
        which = direction if n_direction > 1 else 0
        values = term.gains[t_bins[when][:, None], f_bins[None, :], antenna[:, None], which]
        values = _hands(values, n_corr)
        total = values if total is None else _product(total, values)
    assert total is not None
    return total


def _hands(values: NDArray[np.complex128], n_corr: int) -> NDArray[np.complex128]:
    """Diagonals (..., hand); matrices (..., 2, 2) if something is off the diagonal."""
    if values.shape[-1] == 4:
        if not np.any(values[..., 1:3]):
            return values[..., [0, 3]]
        return values.reshape(*values.shape[:-1], 2, 2)
    if n_corr == 4 and values.shape[-1] == 1:
        return np.repeat(values, 2, axis=-1)
    return values


def _is_matrix(values: NDArray[Any]) -> bool:
    return values.ndim == 4


def _product(one: NDArray[np.complex128], two: NDArray[np.complex128]) -> NDArray[np.complex128]:
    if not _is_matrix(one) and not _is_matrix(two):
        return one * two
    return _matrix(one) @ _matrix(two)


def _matrix(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    if _is_matrix(values):
        return values
    result = np.zeros((*values.shape, 2), dtype=values.dtype)
    result[..., 0, 0] = values[..., 0]
    result[..., 1, 1] = values[..., -1]
    return result


def corrupt(
    vis: NDArray[np.complexfloating[Any, Any]],
    one: NDArray[np.complex128],
    two: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    """``J_p V J_q^H``, shape of ``vis`` (row, chan, corr)."""
    n_corr = vis.shape[-1]
    if _is_matrix(one) or _is_matrix(two):
        matrix = vis.reshape(*vis.shape[:-1], 2, 2)
        result: NDArray[np.complex128] = (
            _matrix(one) @ matrix @ np.conj(np.swapaxes(_matrix(two), -1, -2))
        )
        return result.reshape(vis.shape)
    if n_corr == 4:
        return vis * one[..., [0, 0, 1, 1]] * np.conj(two[..., [0, 1, 0, 1]])
    return vis * one * np.conj(two)


def correct(
    vis: NDArray[np.complexfloating[Any, Any]],
    one: NDArray[np.complex128],
    two: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    """``J_p^-1 V J_q^-H``; 0 where a gain is 0."""
    return corrupt(vis, _inverse(one), _inverse(two))


def _inverse(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    if _is_matrix(values):
        determinant = (
            values[..., 0, 0] * values[..., 1, 1] - values[..., 0, 1] * values[..., 1, 0]
        )[..., None, None]
        adjugate = np.empty_like(values)
        adjugate[..., 0, 0], adjugate[..., 1, 1] = values[..., 1, 1], values[..., 0, 0]
        adjugate[..., 0, 1], adjugate[..., 1, 0] = -values[..., 0, 1], -values[..., 1, 0]
        return np.divide(adjugate, determinant, out=np.zeros_like(adjugate), where=determinant != 0)
    return np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)


def failed(
    solutions: Solutions,
    when: NDArray[np.int64],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
    directions: Sequence[int],
) -> NDArray[np.bool_]:
    """Samples that a failed solution would serve, shape (row, chan).

    Direction-independent terms count always, direction-dependent ones in ``directions``.
    """
    result: NDArray[np.bool_] | None = None
    for term, t_bins, f_bins in zip(
        solutions.terms, solutions.time_bins, solutions.freq_bins, strict=True
    ):
        which = list(directions) if term.flags.shape[3] > 1 else [0]
        if not which:
            continue
        bad: NDArray[np.bool_] = np.any(term.flags[..., which], axis=-1)
        index = t_bins[when][:, None], f_bins[None, :]
        here = bad[(*index, antenna1[:, None])] | bad[(*index, antenna2[:, None])]
        result = here if result is None else result | here
    assert result is not None
    return result
