"""Writing CASA gain tables that applycal takes: bandpasses (``B Jones``) of our own making."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from casacore.tables import makearrcoldesc, makescacoldesc, maketabdesc, table
from numpy.typing import NDArray

from peelkit.io.ms import opened

# What gaincal and bandpass of casatasks 6.7 put into a table; applycal reads ids by these subtables.
SUBTABLES = ("OBSERVATION", "ANTENNA", "FIELD", "SPECTRAL_WINDOW", "HISTORY")
IDS = ("FIELD_ID", "SPECTRAL_WINDOW_ID", "ANTENNA1", "ANTENNA2", "SCAN_NUMBER", "OBSERVATION_ID")
TIMES = ("TIME", "INTERVAL")


@dataclass(frozen=True)
class Bandpass:
    """Gains of all antennas for one interval and spw.

    Parameters
    ----------
    time_s, interval_s : float
        Midpoint [MJD s] and length [s].
    field, spw, scan, observation, reference : int
        Ids; ``reference`` is the antenna that the phases are referred to.
    gain : ndarray of complex, shape (antenna, chan, hand)
        Of all channels of the spw.
    failed : ndarray of bool, shape (antenna, hand)
        Flagged in the table; their gain is written as 1.
    snr : ndarray, shape (antenna, hand)
        S/N.
    """

    time_s: float
    interval_s: float
    field: int
    spw: int
    scan: int
    observation: int
    reference: int
    gain: NDArray[np.complex128]
    failed: NDArray[np.bool_]
    snr: NDArray[np.float64]


def write_bandpass(path: Path, ms: Path, solutions: Sequence[Bandpass]) -> None:
    """Write a ``B Jones`` table for ``ms`` at ``path``; what is there is replaced."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    count = sum(item.gain.shape[0] for item in solutions)
    with table(str(temporary), _columns(), nrow=count, ack=False) as cal:
        cal.putinfo({"type": "Calibration", "subType": "B Jones", "readme": ""})
        cal.putkeywords(
            {
                "ParType": "Complex", "MSName": ms.name, "VisCal": "B Jones",
                "PolBasis": "unknown", "CASA_Version": "made by peelkit",
            }
        )  # fmt: skip
        row = 0
        for item in solutions:
            row = _put(cal, row, item)
    _subtables(temporary, ms)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def _columns() -> dict[str, dict[str, object]]:
    columns = [makescacoldesc(name, 0) for name in IDS]
    columns += [makescacoldesc(name, 0.0) for name in TIMES]
    for name, value, kind in (
        ("CPARAM", 0j, "complex"),
        ("PARAMERR", 0.0, "float"),
        ("FLAG", False, "boolean"),
        ("SNR", 0.0, "float"),
        ("WEIGHT", 0.0, "float"),
    ):
        columns.append(makearrcoldesc(name, value, valuetype=kind, ndim=-1))
    description: dict[str, dict[str, object]] = maketabdesc(columns)
    for name in TIMES:
        description[name]["keywords"] = {"QuantumUnits": ["s"]}
    description["TIME"]["keywords"] = {
        "QuantumUnits": ["s"],
        "MEASINFO": {"type": "epoch", "Ref": "UTC"},
    }
    return description


def _put(cal: table, row: int, item: Bandpass) -> int:
    n_antenna, n_chan, n_hand = item.gain.shape
    # CASA's bandpasses have two polarisations, also of data that have one (measured); the second is flagged.
    shape = (n_antenna, n_chan, max(2, n_hand))
    gain, snr = np.ones(shape, dtype=np.complex64), np.zeros(shape, dtype=np.float32)
    flag = np.ones(shape, dtype=bool)
    gain[..., :n_hand] = np.where(item.failed[:, None], 1.0, item.gain)
    flag[..., :n_hand] = item.failed[:, None]
    snr[..., :n_hand] = item.snr[:, None]
    error = np.where(flag, 0.0, 1.0 / np.where(snr > 0, snr, 1.0)).astype(np.float32)
    scalars = {
        "TIME": item.time_s, "INTERVAL": item.interval_s, "FIELD_ID": item.field,
        "SPECTRAL_WINDOW_ID": item.spw, "SCAN_NUMBER": item.scan,
        "OBSERVATION_ID": item.observation, "ANTENNA2": item.reference,
    }  # fmt: skip
    for name, value in scalars.items():
        cal.putcol(name, np.full(n_antenna, value), row, n_antenna)
    cal.putcol("ANTENNA1", np.arange(n_antenna), row, n_antenna)
    for name, values in (("CPARAM", gain), ("FLAG", flag), ("SNR", snr), ("PARAMERR", error)):
        cal.putcol(name, values, row, n_antenna)
    return row + n_antenna


def _subtables(path: Path, ms: Path) -> None:
    for name in SUBTABLES:
        with opened(ms / name) as source:
            copy = source.copy(str(path / name), deep=True)
            copy.close()
    with opened(path, write=True) as cal:
        for name in SUBTABLES:
            cal.putkeyword(name, f"Table: {(path / name).absolute()}")
