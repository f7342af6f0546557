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
    antenna, refant, spw, scan : ndarray of int, shape (row,)
        Ids; ``refant`` is the one that the row is referred to.
    gain : ndarray of complex, shape (row, pol)
        Solutions, 1 where they failed. Of a bandpass in its middle channel; of a delay (K) its phase at
        the upper edge of the spw, against the middle.
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
    gain: NDArray[np.complex128]
    failed: NDArray[np.bool_]
    snr: NDArray[np.float64]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Solutions that did not fail."""
        return ~self.failed


def read_gain_table(path: Path) -> GainTable:
    """Read a table of gaincal (G, T, K), or a bandpass (B)."""
    with opened(path) as cal:
        rows = range(cal.nrows())

        def column(name: str) -> NDArray[Any]:
            return np.asarray(cal.getcol(name))

        def middle(name: str) -> NDArray[Any]:
            # Spws may differ in their channels.
            cells = [cal.getcell(name, row) for row in rows]
            return np.array([cell[cell.shape[0] // 2] for cell in cells])

        return GainTable(
            time_s=column("TIME"),
            antenna=column("ANTENNA1"),
            refant=column("ANTENNA2"),
            spw=column("SPECTRAL_WINDOW_ID"),
            scan=column("SCAN_NUMBER"),
            gain=_delay_phasors(path, column("FPARAM")[:, 0, :], column("SPECTRAL_WINDOW_ID"))
            if "FPARAM" in cal.colnames()
            else middle("CPARAM"),
            failed=middle("FLAG"),
            snr=middle("SNR"),
        )


def _delay_phasors(
    path: Path, delay_ns: NDArray[np.float64], spw: NDArray[np.int64]
) -> NDArray[np.complex128]:
    with opened(path / "SPECTRAL_WINDOW") as sub:
        width = np.array(
            [np.abs(sub.getcell("CHAN_WIDTH", row)).sum() for row in range(sub.nrows())]
        )
    return np.asarray(np.exp(1e-9j * np.pi * width[spw][:, None] * delay_ns))
