"""QuartiCal's solutions on disk (zarr, version 2), read without xarray."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError


@dataclass(frozen=True)
class TermGains:
    """The gains of one term for one field and spw.

    Parameters
    ----------
    term, type : str
        Name, and QuartiCal's type.
    field, ddid : int
        As in the MS that was solved.
    gains : ndarray of complex, shape (time, freq, antenna, direction, corr)
        1 where flagged, times the start of a delay. Parametrised types (delays) have one for each
        channel.
    flags : ndarray of bool, shape (time, freq, antenna, direction)
        Solutions that failed.
    information : ndarray, shape of gains
        Sum of ``w |dV/dg|^2``: for diag_complex and complex the S/N of a solution is
        ``|g| sqrt(information)``. Zeros where QuartiCal gives none of that shape.
    time_s, freq_hz : ndarray
        Mean of each interval.
    converged : ndarray, shape (time chunk, freq chunk)
        Fraction of the solutions that converged.
    iterations : ndarray, shape (time chunk, freq chunk)
        Iterations spent.
    params : ndarray or None, shape (time, freq, antenna, direction, parameter)
        Of a parametrised term.
    param_names : tuple of str
        Such as ``delay_XX``.
    """

    term: str
    type: str
    field: int
    ddid: int
    gains: NDArray[np.complex128]
    flags: NDArray[np.bool_]
    information: NDArray[np.float64]
    time_s: NDArray[np.float64]
    freq_hz: NDArray[np.float64]
    converged: NDArray[np.float64]
    iterations: NDArray[np.int64]
    params: NDArray[np.float64] | None
    param_names: tuple[str, ...]


def read_gains(folder: Path, term: str) -> list[TermGains]:
    """Solutions of ``term`` below QuartiCal's gain directory.

    Raises
    ------
    DataError
        If there are none.
    """
    groups = _groups(folder, term)
    if not groups:
        raise DataError(f"{folder / term}: no solutions; run ddsolve again.")
    return [_read(path) for path in groups]


def write_gains(folder: Path, changed: TermGains) -> None:
    """Replace gains and parameters of one term, field and spw below QuartiCal's gain directory."""
    for path in _groups(folder, changed.term):
        with _zarr(path, "r+") as group:
            if (group.attrs["FIELD_ID"], group.attrs["DATA_DESC_ID"]) == (
                changed.field,
                changed.ddid,
            ):
                group["gains"][:] = changed.gains
                if changed.params is not None:
                    group["params"][:] = changed.params


def _groups(folder: Path, term: str) -> list[Path]:
    return sorted((folder / term).glob(f"{term}_*"), key=lambda path: int(path.name.split("_")[-1]))


@contextmanager
def _zarr(path: Path, mode: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr 2 warns about what zarr 3 will do
        import zarr

        yield zarr.open(str(path), mode=mode)


def _read(path: Path) -> TermGains:
    with _zarr(path, "r") as group:
        attrs = dict(group.attrs)
        gains = np.asarray(group["gains"][:], dtype=np.complex128)
        information = np.asarray(group["jhj"][:]).real if "jhj" in group else np.zeros(0)
        return TermGains(
            term=str(attrs["NAME"]),
            type=str(attrs["TYPE"]),
            field=int(attrs["FIELD_ID"]),
            ddid=int(attrs["DATA_DESC_ID"]),
            gains=gains,
            flags=np.asarray(group["gain_flags"][:]) != 0,
            information=information if information.shape == gains.shape else np.zeros(gains.shape),
            time_s=np.asarray(group["gain_time"][:], dtype=np.float64),
            freq_hz=np.asarray(group["gain_freq"][:], dtype=np.float64),
            converged=np.asarray(group["conv_perc"][:], dtype=np.float64),
            iterations=np.asarray(group["conv_iter"][:], dtype=np.int64),
            params=np.asarray(group["params"][:]) if "params" in group else None,
            param_names=tuple(str(name) for name in group["param_name"][:])
            if "param_name" in group
            else (),
        )
