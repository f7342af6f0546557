"""CASA's gain tables: read, never written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io.ms import opened


@dataclass(frozen=True)
class GainTable:
    """Solutions of one gaincal.

    Parameters
    ----------
    time_s : ndarray, shape (row,)
        Midpoints [MJD s].
    antenna, refant, spw, scan, observation : ndarray of int, shape (row,)
        Ids; ``refant`` is the one that the row is referred to.
    gain : ndarray of complex, shape (row, pol)
        Solutions, 1 where they failed.
    failed : ndarray of bool, shape (row, pol)
        Failed solutions (no data, or below minsnr).
    snr : ndarray, shape (row, pol)
        S/N of the solutions.
    """

    time_s: NDArray[np.float64]
    antenna: NDArray[np.int64]
    refant: NDArray[np.int64]
    spw: NDArray[np.int64]
    scan: NDArray[np.int64]
    observation: NDArray[np.int64]
    gain: NDArray[np.complex128]
    failed: NDArray[np.bool_]
    snr: NDArray[np.float64]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Solutions that did not fail."""
        return ~self.failed

    @property
    def spws(self) -> dict[int, list[int]]:
        """By execution, the spws that solutions are filed under."""
        return {
            int(one): sorted({int(spw) for spw in self.spw[self.observation == one]})
            for one in np.unique(self.observation)
        }


def read_gain_table(path: Path) -> GainTable:
    """Read a G or T table."""
    with opened(path) as cal:

        def column(name: str) -> NDArray[Any]:
            return np.asarray(cal.getcol(name))

        return GainTable(
            time_s=column("TIME"),
            antenna=column("ANTENNA1"),
            refant=column("ANTENNA2"),
            spw=column("SPECTRAL_WINDOW_ID"),
            scan=column("SCAN_NUMBER"),
            observation=column("OBSERVATION_ID"),
            gain=column("CPARAM")[:, 0, :],
            failed=column("FLAG")[:, 0, :],
            snr=column("SNR")[:, 0, :],
        )
