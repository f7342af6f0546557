"""Visibilities and weights that are no numbers, left out of a copy: one makes an image blank, or kills CASA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms

PAIRS = (("SIGMA", "WEIGHT"), ("SIGMA_SPECTRUM", "WEIGHT_SPECTRUM"))


@dataclass
class Left:
    """Unflagged samples that were left out: the data, or only the weights, are no finite numbers."""

    data: int = 0
    weights: int = 0

    def count(
        self, data: NDArray[Any], weight: NDArray[Any], flag: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Count in one chunk; gives what is left out, of the shape of ``data``."""
        bad = ~np.isfinite(data)
        self.data += int((bad & ~flag).sum())
        without = np.broadcast_to(~np.isfinite(weight), data.shape)
        self.weights += int((without & ~bad & ~flag).sum())
        return np.asarray(bad | without)

    def warnings(self) -> list[str]:
        """For people."""
        return [
            f"{count} unflagged samples {are}; they were left out"
            for count, are in (
                (self.data, "are not numbers"),
                (self.weights, "have weights that are not finite numbers"),
            )
            if count
        ]


def rows_with_values(main: Any, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of ``rows`` in which ``column`` has a value: it may have been made and not filled."""
    return rows[np.array([main.iscelldefined(column, int(row)) for row in rows], dtype=bool)]


def without_values(info: ms.MsInfo, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of ``rows``, ascending, in which ``column`` has none."""
    with ms.opened(info.path) as main:
        found = main.query(rf"not isdefined(\{column})")
        empty = np.asarray(found.rownumbers(), dtype=np.int64)
        found.close()
    return np.intersect1d(empty, rows, assume_unique=True)


def raw_weights(main: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Weights as they are, numbers or not, shape (row, chan, corr) or (row, 1, corr)."""
    if ms.has_cells(main, "WEIGHT_SPECTRUM", int(rows[0])):
        return ms.get(main, "WEIGHT_SPECTRUM", rows)
    return ms.get(main, "WEIGHT", rows)[:, None]


def mend(main: Any, rows: NDArray[np.int64], left: Left, *, weights: bool = True) -> NDArray[Any]:
    """Flag samples of a copy that are no numbers, with DATA 0, and make its weights and sigmas finite.

    Parameters
    ----------
    left : Left
        Counts them.
    weights : bool
        Whether the weights count; if not, those that are no use become 1: others will be derived.

    Returns
    -------
    ndarray, shape (row, chan, corr)
        DATA as it is now.
    """
    data, flag = ms.get(main, "DATA", rows), ms.get(main, "FLAG", rows)
    raw = raw_weights(main, rows) if weights else np.ones((1, 1, 1))
    bad = left.count(data, raw, flag)
    if bad.any():
        ms.put(main, "FLAG", rows, flag | bad)
        data = np.where(np.isfinite(data), data, 0).astype(data.dtype)
        ms.put(main, "DATA", rows, data)
    for sigma, weight in PAIRS:
        if ms.has_cells(main, weight, int(rows[0])):
            _finite(main, rows, weight, 0.0 if weights else 1.0, positive=not weights)
            if ms.has_cells(main, sigma, int(rows[0])):
                _sigma(main, rows, sigma, weight)
    return data


def _finite(
    main: Any, rows: NDArray[np.int64], name: str, instead: float, *, positive: bool
) -> None:
    values = ms.get(main, name, rows)
    good = np.isfinite(values) & ((values > 0) | (not positive))
    if not good.all():
        ms.put(main, name, rows, np.where(good, values, instead).astype(values.dtype))


def _sigma(main: Any, rows: NDArray[np.int64], sigma: str, weight: str) -> None:
    """CASA solves with 1 / SIGMA^2: where that is no number it is that of the weight."""
    values = ms.get(main, sigma, rows)
    good = np.isfinite(values) & (values != 0)
    if not good.all():
        there = sigma_of(ms.get(main, weight, rows))
        ms.put(main, sigma, rows, np.where(good, values, there).astype(values.dtype))


def sigma_of(weight: NDArray[Any]) -> NDArray[np.float32]:
    """WEIGHT^-1/2, and -1 for a weight of none, as CASA's split has it."""
    good = weight > 0
    return np.where(good, np.where(good, weight, 1) ** -0.5, -1).astype(np.float32)
