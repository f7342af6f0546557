"""QuartiCal's solutions on disk (zarr, version 2), read without xarray."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
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


def write_gains(folder: Path, groups: Sequence[TermGains], term: str) -> None:
    """Put groups in place of those of ``term`` below QuartiCal's gain directory, as it writes them.

    What they do not say, such as names of antennas, is that of the first group that was there.
    """
    old = _groups(folder, term)[0]
    fresh = folder / f"{term}.written"
    shutil.rmtree(fresh, ignore_errors=True)
    with _zarr(old, "r") as model:
        names = {name: model[name][:] for name in ("antenna", "direction", "correlation")}
        words = dict(model.attrs)
        dims = {name: dict(array.attrs) for name, array in model.arrays()}
    for number, one in enumerate(groups):
        _write(fresh / f"{term}_{number}", {**names, **_arrays(one)}, words, dims, one)
    shutil.rmtree(folder / term)
    fresh.rename(folder / term)


def _arrays(one: TermGains) -> dict[str, NDArray[Any]]:
    values: dict[str, NDArray[Any]] = {
        "gains": one.gains,
        "gain_flags": one.flags.astype(np.int8),
        "gain_time": one.time_s,
        "gain_freq": one.freq_hz,
        "conv_perc": one.converged,
        "conv_iter": one.iterations,
        "time_chunk": np.arange(one.converged.shape[0]),
        "freq_chunk": np.arange(one.converged.shape[1]),
    }
    if one.params is not None:
        # One solution for some channels.
        first = np.arange(one.params.shape[1]) * one.gains.shape[1] // one.params.shape[1]
        values |= {
            "params": one.params,
            "param_flags": one.flags[:, first].astype(np.int8),
            "param_time": one.time_s,
            "param_freq": one.freq_hz[first],
            "param_name": np.array(one.param_names),
        }
    elif np.any(one.information):
        values["jhj"] = one.information.astype(np.complex128)
    return values


def _write(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    words: Mapping[str, Any],
    dims: Mapping[str, Mapping[str, Any]],
    one: TermGains,
) -> None:
    """One group, version 2, each array in one chunk as it is: zarr itself takes 30 ms for a group."""
    path.mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}', "utf-8")
    chunks: dict[str, list[int]] = {}
    for name, values in arrays.items():
        folder = path / name
        folder.mkdir()
        shape = list(values.shape)
        header = {
            "zarr_format": 2, "shape": shape, "chunks": shape, "dtype": values.dtype.str,
            "compressor": None, "fill_value": None, "order": "C", "filters": None,
        }  # fmt: skip
        (folder / ".zarray").write_text(json.dumps(header), "utf-8")
        told = dims.get(name, {})
        (folder / ".zattrs").write_text(json.dumps(told), "utf-8")
        (folder / ".".join("0" * len(shape))).write_bytes(np.ascontiguousarray(values).tobytes())
        along = told.get("_ARRAY_DIMENSIONS", ())
        chunks |= {dim: [n] for dim, n in zip(along, shape, strict=False)}
    (path / ".zattrs").write_text(
        json.dumps(
            {
                **words,
                "FIELD_ID": one.field,
                "FIELD_NAME": "",
                "DATA_DESC_ID": one.ddid,
                "GAIN_SPEC": [[n] for n in one.gains.shape],
                "__daskms_zarr_attr__": {"chunks": chunks},
            }
        ),
        "utf-8",
    )


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
