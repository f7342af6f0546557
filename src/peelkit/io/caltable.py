"""CASA's calibration tables: read, and copied with changes; an existing one is never changed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io.ms import opened

# First word of a table's subtype, and the type of term that it is here.
KINDS = {"G": "G", "T": "T", "B": "B", "K": "K"}


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
    observation: NDArray[np.int64]
    gain: NDArray[np.complex128]
    failed: NDArray[np.bool_]
    snr: NDArray[np.float64]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Solutions that did not fail."""
        return ~self.failed

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Solutions without data: they have no S/N, as those below minsnr have."""
        return self.failed & ~(self.snr > 0)

    @property
    def spws(self) -> dict[int, list[int]]:
        """By execution, the spws that solutions are filed under."""
        return {
            int(one): sorted({int(spw) for spw in self.spw[self.observation == one]})
            for one in np.unique(self.observation)
        }


def read_gain_table(path: Path) -> GainTable:
    """Read a table of gaincal (G, T, K), or a bandpass (B)."""
    with opened(path) as cal:

        def column(name: str) -> NDArray[Any]:
            return np.asarray(cal.getcol(name))

        def middle(name: str) -> NDArray[Any]:
            try:
                whole = column(name)
            except RuntimeError:
                # Spws differ in their channels.
                cells = [cal.getcell(name, row) for row in range(cal.nrows())]
                return np.array([cell[cell.shape[0] // 2] for cell in cells])
            return np.asarray(whole[:, whole.shape[1] // 2])

        return GainTable(
            time_s=column("TIME"),
            antenna=column("ANTENNA1"),
            refant=column("ANTENNA2"),
            spw=column("SPECTRAL_WINDOW_ID"),
            scan=column("SCAN_NUMBER"),
            observation=column("OBSERVATION_ID"),
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


@dataclass(frozen=True)
class CalPart:
    """Solutions of one spw.

    Parameters
    ----------
    spw : int
        Id in the table.
    time_s : ndarray, shape (row,)
        Midpoints [MJD s].
    antenna, field, scan, observation : ndarray of int, shape (row,)
        Ids in the MS that was solved.
    values : ndarray, shape (row, chan, pol)
        Gains (complex), or delays [ns] for K.
    failed : ndarray of bool, shape of values
        No data, or below minsnr.
    snr : ndarray, shape of values
        S/N.
    """

    spw: int
    time_s: NDArray[np.float64]
    antenna: NDArray[np.int64]
    field: NDArray[np.int64]
    scan: NDArray[np.int64]
    observation: NDArray[np.int64]
    values: NDArray[Any]
    failed: NDArray[np.bool_]
    snr: NDArray[np.float64]


@dataclass(frozen=True)
class CalTable:
    """A calibration table of any of the types G, T, B and K.

    Parameters
    ----------
    path : Path
        Where it is.
    kind : str
        ``G``, ``T``, ``B`` or ``K``.
    antennas : tuple of str
        Names, in the order of the ids.
    freq_hz : tuple of ndarray
        Channel centres of each spw of the MS that was solved [Hz]; of a table without channels the
        centre only.
    bands_hz : tuple of (float, float)
        Lower and upper edge of what was solved in each spw [Hz].
    parts : tuple of CalPart
        One for each spw that was solved.
    """

    path: Path
    kind: str
    antennas: tuple[str, ...]
    freq_hz: tuple[NDArray[np.float64], ...]
    bands_hz: tuple[tuple[float, float], ...]
    parts: tuple[CalPart, ...]

    @property
    def spws(self) -> list[int]:
        """Spws with solutions that did not fail."""
        return [part.spw for part in self.parts if not part.failed.all()]

    @property
    def observations(self) -> dict[int, list[int]]:
        """By spw, the executions that it has solutions of which did not fail."""
        result = {}
        for part in self.parts:
            good = ~part.failed.all(axis=(1, 2))
            result[part.spw] = sorted({int(one) for one in part.observation[good]})
        return result

    @property
    def spans_s(self) -> dict[int, tuple[float, float]]:
        """By execution, the first and last moment of its solutions [MJD s]."""
        time = np.concatenate([part.time_s for part in self.parts])
        observation = np.concatenate([part.observation for part in self.parts])
        return {
            int(one): (float(mine.min()), float(mine.max()))
            for one in np.unique(observation)
            for mine in [time[observation == one]]
        }

    def counts(
        self, antennas: NDArray[Any] | list[int], *, polarisations: int = 2
    ) -> tuple[int, int]:
        """Solutions tried and failed, of the antennas that have data.

        Parameters
        ----------
        polarisations : int
            That the data have. CASA's tables of G, B and K have two always; of data of one hand the other
            is empty, and flagged as what failed is.
        """
        tried = failed = 0
        for part in self.parts:
            here = np.isin(part.antenna, antennas)
            # What has no data has no S/N; what is below minsnr has one.
            lost = (part.failed & (part.snr > 0))[here].sum(axis=(0, 1))
            made = (~part.failed)[here].sum(axis=(0, 1))
            best = np.argsort(-made, kind="stable")[:polarisations]
            tried += int((made + lost)[best].sum())
            failed += int(lost[best].sum())
        return tried, failed


def read_cal_table(path: Path) -> CalTable:
    """Read a table of gaincal or bandpass.

    Raises
    ------
    DataError
        If it is not there, or is another kind of table.
    """
    if not path.exists():
        raise DataError(f"{path}: no such calibration table.")
    with opened(path) as cal:
        info = cal.info()
        kind = KINDS.get(str(info["subType"]).split(" ")[0], "")
        if info["type"] != "Calibration" or not kind:
            what = f"{info['type']} {info['subType']}".strip() or "no calibration"
            raise DataError(
                f"{path}: a table of {what}; only CASA's tables of types G, T, B and K can be used."
            )
        spw_of = np.asarray(cal.getcol("SPECTRAL_WINDOW_ID"))
        column = "FPARAM" if kind == "K" else "CPARAM"
        parts = []
        for spw in np.unique(spw_of):
            # Cells of one spw have one shape.
            mine = cal.selectrows(np.flatnonzero(spw_of == spw))
            parts.append(
                CalPart(
                    spw=int(spw),
                    time_s=np.asarray(mine.getcol("TIME")),
                    antenna=np.asarray(mine.getcol("ANTENNA1")),
                    field=np.asarray(mine.getcol("FIELD_ID")),
                    scan=np.asarray(mine.getcol("SCAN_NUMBER")),
                    observation=np.asarray(mine.getcol("OBSERVATION_ID")),
                    values=np.asarray(mine.getcol(column)),
                    failed=np.asarray(mine.getcol("FLAG")),
                    snr=np.asarray(mine.getcol("SNR")),
                )
            )
            mine.close()
    with opened(path / "ANTENNA") as sub:
        antennas = tuple(str(name) for name in sub.getcol("NAME"))
    with opened(path / "SPECTRAL_WINDOW") as sub:
        freq = tuple(
            np.asarray(sub.getcell("CHAN_FREQ", row), dtype=np.float64)
            for row in range(sub.nrows())
        )
        half = [np.abs(sub.getcell("CHAN_WIDTH", row)) / 2 for row in range(sub.nrows())]
    bands = tuple(
        (float((one - wide).min()), float((one + wide).max()))
        for one, wide in zip(freq, half, strict=True)
    )
    return CalTable(path, kind, antennas, freq, bands, tuple(parts))


def copy_scaled(source: Path, target: Path, factors: Mapping[int, float]) -> None:
    """Copy a G or T table with the gains of each spw multiplied by its factor."""
    _copy(source, target)
    with opened(target, write=True) as cal:
        spws = cal.getcol("SPECTRAL_WINDOW_ID")
        factor = np.array([factors.get(int(spw), 1.0) for spw in spws])
        cal.putcol("CPARAM", (cal.getcol("CPARAM") * factor[:, None, None]).astype(np.complex64))


def copy_for_antennas(source: Path, target: Path, ids: Mapping[int, int], ms: Path) -> None:
    """Copy a table for an MS that numbers the antennas otherwise; CASA goes by number only.

    Parameters
    ----------
    ids : mapping of int
        Id in the table to that in the MS; rows of antennas that are not in it are left out.
    ms : Path
        The MS, whose list of antennas the copy gets.
    """
    _copy(source, target)
    with opened(target, write=True) as cal:
        antenna = np.asarray(cal.getcol("ANTENNA1"))
        gone = np.flatnonzero(~np.isin(antenna, list(ids)))
        if gone.size:
            cal.removerows([int(row) for row in gone])
        for name in ("ANTENNA1", "ANTENNA2"):
            # A reference antenna that is not in the MS is only a label; -1 is CASA's for none.
            renumbered = [ids.get(int(old), -1) for old in cal.getcol(name)]
            cal.putcol(name, np.array(renumbered, dtype=np.int32))
    with opened(ms / "ANTENNA") as own, opened(target / "ANTENNA", write=True) as sub:
        sub.removerows(list(range(sub.nrows())))
        own.copyrows(sub)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
