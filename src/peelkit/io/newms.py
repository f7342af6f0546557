"""Writes a new Measurement Set: subtables at once, rows block by block."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import default_ms, makearrcoldesc, maketabdesc, table
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io import ms

# Codes of the MS definition.
CORR_TYPES = {"RR": 5, "RL": 6, "LR": 7, "LL": 8, "XX": 9, "XY": 10, "YX": 11, "YY": 12}
FRAMES = {"LSRK": 1, "TOPO": 5}

# Of the tiles of DATA: one that is read row by row or channel by channel costs few of them.
TILE_BYTES = 2**19


@dataclass(frozen=True)
class Layout:
    """What the subtables say.

    Parameters
    ----------
    telescope : str
        Name that imagers know the primary beam by.
    antenna_names, stations : sequence of str
        One each for an antenna.
    position_m : ndarray, shape (antenna, 3)
        ITRF.
    dish_m : float
        Diameter.
    fields : sequence of tuple
        Name, right ascension and declination [rad] in ICRS.
    spws : sequence of ndarray
        Channel centres [Hz].
    channel_width_hz : float
        The same everywhere.
    correlations : sequence of str
        Of RR, RL, LR, LL, or of XX, XY, YX, YY.
    time_range_s : sequence of tuple
        Begin and end of each execution, MJD.
    frame : str
        Of the frequencies: TOPO or LSRK.
    """

    telescope: str
    antenna_names: Sequence[str]
    stations: Sequence[str]
    position_m: NDArray[np.float64]
    dish_m: float
    fields: Sequence[tuple[str, float, float]]
    spws: Sequence[NDArray[np.float64]]
    channel_width_hz: float
    correlations: Sequence[str]
    time_range_s: Sequence[tuple[float, float]]
    frame: str = "TOPO"


def refuse_other(path: Path, *, overwrite: bool) -> None:
    """Raise `DataError` unless an MS can be made at ``path``."""
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"{path}: cannot be written; check the permissions of {path.parent}.")
    if not os.path.lexists(path):
        return
    if not (path / "table.dat").exists() or not (path / "ANTENNA" / "table.dat").exists():
        raise DataError(f"{path}: exists, and is not a Measurement Set; choose another name.")
    if not overwrite:
        raise DataError(f"{path}: exists; give --overwrite to replace it, or another name.")
    ms.refuse_if_locked(path)


def refuse_file(path: Path, *, overwrite: bool) -> None:
    """Raise `DataError` unless a text file can be written at ``path``."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; choose another name.")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists; give --overwrite to replace it, or another name.")


def require_space(path: Path, n_bytes: int) -> None:
    """Raise `DataError` unless the file system has so much free space."""
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise DataError(
            f"{path}: needs {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; ask for fewer "
            "integrations or channels."
        )


def write(
    path: Path,
    layout: Layout,
    blocks: Iterable[Mapping[str, NDArray[Any]]],
    *,
    models: Sequence[str] = (),
    spectrum: bool = False,
) -> int:
    """Write an MS, in place of one that is there; returns the number of rows.

    It is made under another name beside it: a run that is killed leaves nothing, or the old one.

    Parameters
    ----------
    path : Path
        The MS.
    layout : Layout
        What the subtables say.
    blocks : iterable of mappings
        Consecutive rows by column; the first axis is the row, the others as in the MS.
    models : sequence of str
        Further columns like DATA.
    spectrum : bool
        There is WEIGHT_SPECTRUM too.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / "new.ms"
        n_row = 0
        columns = [
            makearrcoldesc(name, 0j, valuetype="complex", ndim=2) for name in ("DATA", *models)
        ]
        if spectrum:
            columns.append(makearrcoldesc("WEIGHT_SPECTRUM", 0.0, valuetype="float", ndim=2))
        also = (*models, *(["WEIGHT_SPECTRUM"] if spectrum else []))
        main = default_ms(str(made), maketabdesc(columns), _storage(layout, also))
        try:
            for block in blocks:
                n_row += ms.append(main, block)
        finally:
            main.close()
        _subtables(made, layout)
        if path.exists():
            # Flag versions of another MS must not be restored into this one.
            flags = path.with_name(f"{path.name}.flagversions")
            path.rename(Path(folder) / "old.ms")
            shutil.rmtree(flags, ignore_errors=True)
        made.rename(path)
    return n_row


def _storage(layout: Layout, also: Sequence[str]) -> dict[str, Any]:
    """Storage managers: all that is read in bulk is tiled, so that a chunk of rows is few reads."""
    n_chan, n_corr = len(layout.spws[0]), len(layout.correlations)
    tiles = {
        "DATA": ("TiledShapeStMan", [n_corr, n_chan]),
        "FLAG": ("TiledShapeStMan", [n_corr, n_chan]),
        "WEIGHT": ("TiledShapeStMan", [n_corr]),
        "SIGMA": ("TiledShapeStMan", [n_corr]),
        "UVW": ("TiledColumnStMan", [3]),
        **{name: ("TiledShapeStMan", [n_corr, n_chan]) for name in also},
    }
    rows = max(1, TILE_BYTES // (8 * n_chan * n_corr))
    return {
        f"*{number}": {
            "NAME": f"Tiled{name}",
            "TYPE": kind,
            "COLUMNS": [name],
            "SPEC": {"DEFAULTTILESHAPE": [*cell, rows]},
        }
        for number, (name, (kind, cell)) in enumerate(tiles.items(), 1)
    }


def _subtables(path: Path, layout: Layout) -> None:
    n_ant, n_spw = len(layout.antenna_names), len(layout.spws)
    hands = [layout.correlations[0][0], layout.correlations[-1][0]]
    _fill(path, "ANTENNA", {
        "NAME": layout.antenna_names, "STATION": layout.stations, "TYPE": ["GROUND-BASED"] * n_ant,
        "MOUNT": ["ALT-AZ"] * n_ant, "POSITION": layout.position_m,
        "DISH_DIAMETER": [layout.dish_m] * n_ant, "OFFSET": np.zeros((n_ant, 3)),
    })  # fmt: skip
    _fill(path, "FEED", {
        "ANTENNA_ID": range(n_ant), "SPECTRAL_WINDOW_ID": [-1] * n_ant, "FEED_ID": [0] * n_ant,
        "NUM_RECEPTORS": [2] * n_ant, "POLARIZATION_TYPE": [hands] * n_ant,
        "POL_RESPONSE": [np.eye(2, dtype=complex)] * n_ant,
        "RECEPTOR_ANGLE": np.zeros((n_ant, 2)), "BEAM_OFFSET": np.zeros((n_ant, 2, 2)),
        "POSITION": np.zeros((n_ant, 3)), "BEAM_ID": [-1] * n_ant, "TIME": [0.0] * n_ant,
        "INTERVAL": [1e30] * n_ant,
    })  # fmt: skip
    widths = [np.full(len(freq), layout.channel_width_hz) for freq in layout.spws]
    _fill(path, "SPECTRAL_WINDOW", {
        "NAME": [f"spw{number}" for number in range(n_spw)],
        "NUM_CHAN": [len(freq) for freq in layout.spws], "CHAN_FREQ": layout.spws,
        "CHAN_WIDTH": widths, "EFFECTIVE_BW": widths, "RESOLUTION": widths,
        "REF_FREQUENCY": [float(freq[0]) for freq in layout.spws],
        "TOTAL_BANDWIDTH": [float(width.sum()) for width in widths],
        "MEAS_FREQ_REF": [FRAMES[layout.frame]] * n_spw, "NET_SIDEBAND": [1] * n_spw, "IF_CONV_CHAIN": [0] * n_spw,
        "FREQ_GROUP": [0] * n_spw, "FREQ_GROUP_NAME": [""] * n_spw,
    })  # fmt: skip
    _fill(path, "POLARIZATION", {
        "NUM_CORR": [len(layout.correlations)],
        "CORR_TYPE": [np.array([CORR_TYPES[name] for name in layout.correlations])],
        "CORR_PRODUCT": [
            np.array([[hands.index(hand) for hand in name] for name in layout.correlations])
        ],
    })  # fmt: skip
    _fill(
        path,
        "DATA_DESCRIPTION",
        {"SPECTRAL_WINDOW_ID": range(n_spw), "POLARIZATION_ID": [0] * n_spw},
    )
    directions = [np.array([[ra, dec]]) for _, ra, dec in layout.fields]
    n_field = len(directions)
    _fill(path, "FIELD", {
        "NAME": [name for name, _, _ in layout.fields], "PHASE_DIR": directions,
        "DELAY_DIR": directions, "REFERENCE_DIR": directions, "SOURCE_ID": [-1] * n_field,
        "TIME": [layout.time_range_s[0][0]] * n_field, "NUM_POLY": [0] * n_field,
    })  # fmt: skip
    with ms.opened(path / "FIELD", write=True) as sub:
        for column in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            measure = sub.getcolkeyword(column, "MEASINFO")
            sub.putcolkeyword(column, "MEASINFO", {**measure, "Ref": "ICRS"})
    n_run = len(layout.time_range_s)
    _fill(path, "OBSERVATION", {
        "TELESCOPE_NAME": [layout.telescope] * n_run, "OBSERVER": ["peelkit simulate"] * n_run,
        "PROJECT": ["simulation"] * n_run,
        "TIME_RANGE": [np.array(limits) for limits in layout.time_range_s],
    })  # fmt: skip
    _fill(path, "STATE", {"OBS_MODE": ["OBSERVE_TARGET#UNSPECIFIED"], "SIG": [True]})


def _fill(path: Path, name: str, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
    with table(f"{path}/{name}", readonly=False, ack=False) as sub:
        sub.addrows(len(next(iter(columns.values()))))
        for column, values in columns.items():
            for row, value in enumerate(values):
                sub.putcell(column, row, value)
