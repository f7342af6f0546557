"""Sums over intervals of time and frequency, as the steps of a direction-dependent solve need them. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def squared(values: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.floating[Any]]:
    """``|values|^2``, without the root that np.abs takes."""
    return np.asarray(values.real**2 + values.imag**2)


def summed(values: NDArray[Any], bins: NDArray[np.int64], axis: int = 0) -> NDArray[Any]:
    """Sums over bins along an axis; they are ascending and have no gaps."""
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    if starts.size == bins.size:
        return values
    return np.asarray(np.add.reduceat(values, starts, axis=axis))


def add_at(
    sums: NDArray[np.float64],
    when: NDArray[np.int64],
    cell: NDArray[np.int64],
    values: NDArray[np.floating[Any]],
) -> None:
    """Add the values of rows at their intervals and cells; np.add.at takes ten times as long.

    Parameters
    ----------
    sums : ndarray, shape (time, ...)
        Is added to.
    when, cell : ndarray of int, shape (row,)
        Interval, near that of the other rows; place in all further dimensions, which count as one.
    values : ndarray, shape (row,)
        To be added.
    """
    first, n_time = int(when.min()), int(np.ptp(when)) + 1
    shape = sums.shape[1:]
    size = math.prod(shape)
    found = np.bincount((when - first) * size + cell, values, n_time * size)
    sums[first : first + n_time] += found.reshape(n_time, *shape)
