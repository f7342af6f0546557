"""Measurement Sets: metadata once, columns in row chunks, locks respected.

Nothing else opens an MS. Tables are open only inside short ``with`` blocks, because an engine in
another process waits for ever on a lock that is held here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import getpass
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import makearrcoldesc, makecoldesc, maketabdesc, table
from numpy.typing import NDArray

from peelkit import __version__, memory
from peelkit.errors import DataError
from peelkit.io import rownumbers
from peelkit.io.phasecentre import Track, read_ephemeris
from peelkit.selection import Selection, antenna_words, parse_ids, parse_spw

# How long another process may keep its lock before we give up.
LOCK_WAIT_S = 10

FREQUENCY_FRAMES = ("REST", "LSRK", "LSRD", "BARY", "GEO", "TOPO", "GALACTO", "LGROUP", "CMB")

STOKES = {
    1: "I", 2: "Q", 3: "U", 4: "V",
    5: "RR", 6: "RL", 7: "LR", 8: "LL",
    9: "XX", 10: "XY", 11: "YX", 12: "YY",
}  # fmt: skip
PARALLEL_HANDS = frozenset({"I", "RR", "LL", "XX", "YY"})


@dataclass(frozen=True)
class Antenna:
    """One row of ANTENNA: ITRF position [m], dish diameter [m], and mount, such as ALT-AZ."""

    id: int
    name: str
    position_m: tuple[float, float, float]
    diameter_m: float
    mount: str = ""


@dataclass(frozen=True)
class Field:
    """One row of FIELD: phase centre [rad] in ``frame``, CASA's name for it.

    Of one that moves, which has a ``track``, it is that in the middle of its data; `at` tells it at other times.
    With ``icrf`` it is of JPL's ephemerides, which are in ICRF and which CASA calls J2000: 0.02 arcsec apart.
    """

    id: int
    name: str
    ra_rad: float
    dec_rad: float
    frame: str
    track: Track | None = dataclasses.field(default=None, compare=False)
    icrf: bool = False

    def at(self, time_s: float) -> Field:
        """The field as it is at a time [MJD s]."""
        if self.track is None:
            return self
        ra, dec = self.track.direction(time_s)
        return replace(self, ra_rad=ra, dec_rad=dec, track=None)

    def views(
        self, time_s: NDArray[np.float64]
    ) -> Iterator[tuple[Field, slice | NDArray[np.intp]]]:
        """The field at each of some times, shape (row,), with the rows for which it is so."""
        if self.track is None:
            yield self, slice(None)
            return
        for moment in np.unique(time_s):
            yield self.at(float(moment)), np.flatnonzero(time_s == moment)


@dataclass(frozen=True)
class Spw:
    """One row of SPECTRAL_WINDOW: channel centres and widths [Hz], in ``frame``; and its baseband, "" if not told."""

    id: int
    name: str
    freq_hz: NDArray[np.float64]
    width_hz: NDArray[np.float64]
    frame: str
    baseband: str = ""

    @property
    def bandwidth_hz(self) -> float:
        """Sum of the channel widths [Hz]."""
        return float(np.abs(self.width_hz).sum())

    @property
    def centre_hz(self) -> float:
        """Middle of the band [Hz]."""
        return float((self.freq_hz.min() + self.freq_hz.max()) / 2)


@dataclass(frozen=True)
class DataDescription:
    """One row of DATA_DESCRIPTION: spw id and the names of the correlations."""

    id: int
    spw: int
    correlations: tuple[str, ...]


@dataclass(frozen=True)
class MsInfo:
    """The metadata of an MS, read once."""

    path: Path
    n_rows: int
    columns: frozenset[str]
    antennas: tuple[Antenna, ...]
    fields: tuple[Field, ...]
    spws: tuple[Spw, ...]
    data_descriptions: tuple[DataDescription, ...]
    scans: tuple[int, ...]
    telescope: str

    def data_column(self, datacolumn: str = "data") -> str:
        """Column that CASA's word ``data`` or ``corrected`` names; another word is a column's name.

        Raises
        ------
        DataError
            If it does not exist; tclean would image DATA in place of a missing CORRECTED_DATA.
        """
        if datacolumn == "corrected":
            self.require("CORRECTED_DATA", "use --datacolumn data.")
            return "CORRECTED_DATA"
        if datacolumn != "data":
            self.require(datacolumn, "use --datacolumn data.")
            return datacolumn
        if "DATA" not in self.columns:
            raise DataError(
                f"{self.path}: no DATA column (data columns: {_listing(self.columns)})."
            )
        return "DATA"

    def require(self, column: str, remedy: str) -> None:
        """Raise `DataError` unless ``column`` exists."""
        if column not in self.columns:
            raise DataError(f"{self.path}: no column {column}; {remedy}")

    def field_ids(self, selection: Selection) -> list[int]:
        """Ids of the selected fields."""
        return parse_ids(selection.field, [field.name for field in self.fields], kind="field")

    def channels(self, selection: Selection) -> dict[int, list[tuple[int, int]]]:
        """Selected spws and their channel ranges."""
        return parse_spw(
            selection.spw, [len(spw.freq_hz) for spw in self.spws], [s.name for s in self.spws]
        )

    def by_id(self, selection: Selection) -> Selection:
        """The same with ids in place of names, which engines read in their own way."""

        def plain(text: str) -> bool:
            return not text or bool(re.fullmatch(r"[\d~;:,<>*\s]+", text))

        field, spw = selection.field, selection.spw
        if not plain(field):
            field = ",".join(map(str, self.field_ids(selection)))
        if not plain(spw):
            pieces = []
            for number, ranges in self.channels(selection).items():
                whole = ranges == [(0, len(self.spws[number].freq_hz) - 1)]
                words = ";".join(f"{low}~{high}" for low, high in ranges)
                pieces.append(str(number) if whole else f"{number}:{words}")
            spw = ",".join(pieces)
        return replace(selection, field=field, spw=spw)

    def antenna_words(self, ids: Sequence[int]) -> list[str]:
        """What engines call antennas."""
        return antenna_words(ids, [antenna.name for antenna in self.antennas])

    @property
    def antenna_labels(self) -> list[str]:
        """`antenna_words` of all antennas: each has one of its own."""
        return self.antenna_words(range(len(self.antennas)))

    def parts_of_spws(self, selection: Selection) -> bool:
        """Whether of some selected spw not all channels are selected."""
        return any(
            ranges != [(0, len(self.spws[number].freq_hz) - 1)]
            for number, ranges in self.channels(selection).items()
        )

    def n_hands(self, spws: Collection[int]) -> int:
        """Most parallel hands that the data of any of ``spws`` have; 0 without spws."""
        return max(
            (parallel_hands(d.correlations).size for d in self.data_descriptions if d.spw in spws),
            default=0,
        )

    def scan_numbers(self, selection: Selection) -> list[int]:
        """Selected scans."""
        return parse_ids(selection.scan, [""] * len(self.scans), kind="scan", ids=self.scans)


def channel_mask(ranges: Sequence[tuple[int, int]], n_chan: int) -> NDArray[np.bool_]:
    """Which channels are in the inclusive ``ranges``, shape (chan,)."""
    inside = np.zeros(n_chan, dtype=bool)
    for first, last in ranges:
        inside[first : last + 1] = True
    return inside


def _listing(names: frozenset[str]) -> str:
    return (
        ", ".join(sorted(name for name in names if name.endswith("DATA")))
        or "none that ends in DATA"
    )


# Basebands in names of spws: EVLA_S#A0C0#2, ALMA_RB_06#BB_1#SW-01#FULL_RES.
_BASEBAND = re.compile(r"#((?:[AB]\d?[CD]\d?|BB_\d+))(?:#|$)")


def _baseband(spws: Any, row: int) -> str:
    """Baseband of a spw: by its name, else by ALMA's column BBC_NO (which EVLA's MSs fill with 1 or 0)."""
    match = _BASEBAND.search(str(spws.getcell("NAME", row)))
    if match:
        return match.group(1)
    if "BBC_NO" in spws.colnames():
        number = int(spws.getcell("BBC_NO", row))
        return f"BB_{number}" if number > 0 else ""
    return ""


def read_info(path: Path) -> MsInfo:
    """Read the metadata of the MS at ``path``.

    Raises
    ------
    DataError
        If it is missing, is not an MS, or is a Multi-MS.
    """
    if not path.exists():
        raise DataError(f"{path}: no such Measurement Set.")
    with opened(path) as main:
        keywords = set(main.keywordnames())
        missing = {"ANTENNA", "FIELD", "SPECTRAL_WINDOW", "DATA_DESCRIPTION"} - keywords
        if missing or "ANTENNA1" not in main.colnames():
            raise DataError(
                f"{path}: a table, but not a Measurement Set (no ANTENNA1 or subtables)."
            )
        if _is_concatenated(path) or any(map(_is_concatenated, map(Path, main.partnames()))):
            # Its columns cannot be added, renamed or removed, which all results and `undo` rest on.
            raise DataError(
                f"{path}: is a Multi-MS, several MSs concatenated; make a plain one first, in CASA: split(vis='{path}', "
                f"outputvis='{path.stem}.plain.ms', datacolumn='all', keepmms=False)."
            )
        columns = frozenset(main.colnames())
        n_rows = main.nrows()
        # Of an MS that refers to another they are the other's.
        folder = subtable(main, "ANTENNA").parent
        scans = distinct(main, "SCAN_NUMBER")
    with opened(folder / "ANTENNA") as sub:
        antennas = tuple(
            Antenna(
                number,
                str(name),
                (float(position[0]), float(position[1]), float(position[2])),
                float(size),
                str(mount),
            )
            for number, (name, position, size, mount) in enumerate(
                zip(
                    sub.getcol("NAME"),
                    sub.getcol("POSITION"),
                    sub.getcol("DISH_DIAMETER"),
                    sub.getcol("MOUNT"),
                    strict=True,
                )
            )
        )
    with opened(folder / "FIELD") as sub:
        fields = tuple(_field(sub, folder / "FIELD", row) for row in range(sub.nrows()))
    if any(field.track for field in fields):
        fields = _placed(path, fields)
    with opened(folder / "SPECTRAL_WINDOW") as sub:
        spws = tuple(
            Spw(
                row,
                str(sub.getcell("NAME", row)),
                np.asarray(sub.getcell("CHAN_FREQ", row), dtype=np.float64),
                np.asarray(sub.getcell("CHAN_WIDTH", row), dtype=np.float64),
                FREQUENCY_FRAMES[int(sub.getcell("MEAS_FREQ_REF", row)) % 64]
                if int(sub.getcell("MEAS_FREQ_REF", row)) < len(FREQUENCY_FRAMES)
                else "TOPO",
                _baseband(sub, row),
            )
            for row in range(sub.nrows())
        )
    with opened(folder / "POLARIZATION") as sub:
        polarizations = [
            tuple(STOKES.get(int(code), str(code)) for code in sub.getcell("CORR_TYPE", row))
            for row in range(sub.nrows())
        ]
    with opened(folder / "DATA_DESCRIPTION") as sub:
        descriptions = tuple(
            DataDescription(number, int(spw), polarizations[int(pol)])
            for number, (spw, pol) in enumerate(
                zip(sub.getcol("SPECTRAL_WINDOW_ID"), sub.getcol("POLARIZATION_ID"), strict=True)
            )
        )
    telescope = ""
    with opened(folder / "OBSERVATION") as sub:
        if sub.nrows():
            telescope = str(sub.getcell("TELESCOPE_NAME", 0))
    return MsInfo(path, n_rows, columns, antennas, fields, spws, descriptions, scans, telescope)


def _is_concatenated(path: Path) -> bool:
    """Whether a table is made of others; table.info says so of plain copies of such, too."""
    # The kind of a table is the first thing in its file; casacore tells it to C++ only.
    with (path / "table.dat").open("rb") as stream:
        return b"ConcatTable" in stream.read(64)


def subtable(main: table, name: str) -> Path:
    """Folder of a subtable."""
    return Path(str(main.getkeyword(name)).removeprefix("Table: "))


def distinct(main: table, column: str) -> tuple[int, ...]:
    """Values of a column of ids, ascending."""
    found: set[int] = set()
    for start, count in row_ranges(main.nrows(), 8):
        found.update(np.unique(main.getcol(column, start, count)).tolist())
    return tuple(sorted(found))


def _field(sub: table, folder: Path, row: int) -> Field:
    polynomial = np.asarray(sub.getcell("PHASE_DIR", row), dtype=np.float64)
    names = sub.colnames()
    order = int(sub.getcell("NUM_POLY", row)) if "NUM_POLY" in names else 0
    polynomial = polynomial[: order + 1]
    ra, dec = (float(value) for value in polynomial[0])
    measure = sub.getcolkeywords("PHASE_DIR").get("MEASINFO", {})
    frame = str(measure.get("Ref", "J2000"))
    if "VarRefCol" in measure:
        code = sub.getcell(measure["VarRefCol"], row)
        codes = {
            int(number): str(name)
            for number, name in zip(
                measure.get("TabRefCodes", []), measure.get("TabRefTypes", []), strict=True
            )
        }
        frame = code if isinstance(code, str) else codes.get(int(code), frame)
    number = int(sub.getcell("EPHEMERIS_ID", row)) if "EPHEMERIS_ID" in names else -1
    track, icrf = None, False
    if number >= 0 or polynomial[1:].any():
        track = Track(polynomial, float(sub.getcell("TIME", row)))
    if track and number >= 0:
        found = read_ephemeris(folder, number)
        other = np.asarray(sub.getcell("REFERENCE_DIR", row), dtype=np.float64)
        if other.shape != polynomial.shape or order or np.abs(other - polynomial).max() > 1e-12:
            # CASA's imager takes the offset from REFERENCE_DIR, other parts of CASA from PHASE_DIR or its polynomial alone.
            found = (
                "its offsets from its ephemeris differ in PHASE_DIR and REFERENCE_DIR, or change with time; "
                "make them alike, with NUM_POLY 0, in its FIELD table."
            )
        if isinstance(found, str):
            track = replace(track, problem=found)
        else:
            track, frame, icrf = replace(track, ephemeris=found), found.frame, found.icrf
    return Field(row, str(sub.getcell("NAME", row)), ra % (2 * np.pi), dec, frame, track, icrf)


def _placed(path: Path, fields: Sequence[Field]) -> tuple[Field, ...]:
    """Fields with those that move where they are in the middle of their data."""
    spans: dict[int, tuple[float, float]] = {}
    with opened(path) as main:
        for start, count in row_ranges(main.nrows(), 16):
            numbers = main.getcol("FIELD_ID", start, count)
            for one in (field.id for field in fields if field.track):
                times = main.getcol("TIME", start, count)[numbers == one]
                if times.size:
                    low, high = spans.get(one, (np.inf, -np.inf))
                    spans[one] = min(low, float(times.min())), max(high, float(times.max()))
    placed = []
    for field in fields:
        if field.track and field.id in spans:
            first, last = spans[field.id]
            track = field.track.during(first, last)
            ra, dec = field.ra_rad, field.dec_rad
            if not track.problem:
                ra, dec = track.direction((first + last) / 2)
            field = replace(field, ra_rad=ra, dec_rad=dec, track=track)
        placed.append(field)
    return tuple(placed)


# ---------------------------------------------------------------- opening and locking


@contextlib.contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[table]:
    """Open a table, with the write lock if it is to be written; closed at the end of the block.

    Raises
    ------
    DataError
        If it is not a table, cannot be written, or another process holds its lock.
    """
    handle = _open_for_writing(path) if write else _open(path, "usernoread", readonly=True)
    try:
        yield handle
    finally:
        handle.close()


def _open(path: Path, lock: str, *, readonly: bool) -> table:
    try:
        return table(str(path), readonly=readonly, ack=False, lockoptions={"option": lock})
    except RuntimeError as error:
        if (
            not readonly
            and (path / "table.dat").exists()
            and not os.access(path / "table.dat", os.W_OK)
        ):
            raise DataError(f"{path}: cannot be written; check its permissions.") from error
        if (path / "table.dat").exists():
            reason = str(error).splitlines()[0]
            raise DataError(f"{path}: this table cannot be opened ({reason}).") from error
        raise DataError(f"{path}: not a Measurement Set (no casacore table there).") from error


def _open_for_writing(path: Path) -> table:
    # A permanent lock is refused at once if another process has one; a selection of rows of a
    # user-locked table would give the lock back.
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        holder = lock_holder(path)
        if holder is None:
            return _open(path, "permanent", readonly=False)
        if time.monotonic() > deadline:
            raise DataError(f"{path}: locked by {holder}; close it there and run this again.")
        time.sleep(0.2)


def lock_holder(path: Path) -> str | None:
    """Process that holds a lock on the table at ``path``, as ``name (pid N)``; None if none does."""
    # casacore's lock is a POSIX lock on the first byte of table.lock.
    lock_file = path / "table.lock"
    try:
        descriptor = os.open(lock_file, os.O_RDWR)
    except OSError:
        return None
    try:
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, pid = struct.unpack(
            "hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, request)
        )
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if kind == fcntl.F_UNLCK:
        return None
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "another process"
    return f"{name} (pid {pid})"


def refuse_if_locked(path: Path) -> None:
    """Raise `DataError` if another process keeps a lock on the MS or one of its subtables.

    Called before an engine is started on it: engines wait for ever, without a word.
    """
    for folder in (path, *(item for item in path.iterdir() if (item / "table.lock").exists())):
        deadline = time.monotonic() + LOCK_WAIT_S
        while (holder := lock_holder(folder)) is not None:
            if time.monotonic() > deadline:
                raise DataError(f"{folder}: locked by {holder}; close it there and run this again.")
            time.sleep(0.5)


# ---------------------------------------------------------------- rows and columns


def select_rows(info: MsInfo, selection: Selection) -> NDArray[np.int64]:
    """Row numbers of the selected fields, spws, scans and antennas, ascending; see `peelkit.io.rownumbers`.

    Raises
    ------
    DataError
        If nothing is selected.
    """
    fields = info.field_ids(selection)
    lost = [field for field in info.fields if field.track and field.track.problem]
    spws = set(info.channels(selection))
    scans = info.scan_numbers(selection)
    ddids = [item.id for item in info.data_descriptions if item.spw in spws]
    selected = np.zeros(info.n_rows, dtype=bool)
    with opened(info.path) as main:
        for start, count in row_ranges(info.n_rows, 64):
            keep = np.isin(main.getcol("FIELD_ID", start, count), fields)
            keep &= np.isin(main.getcol("DATA_DESC_ID", start, count), ddids)
            keep &= np.isin(main.getcol("SCAN_NUMBER", start, count), scans)
            if selection.antenna:
                names = [antenna.name for antenna in info.antennas]
                chosen = parse_ids(selection.antenna, names, kind="antenna")
                keep &= np.isin(main.getcol("ANTENNA1", start, count), chosen)
                keep &= np.isin(main.getcol("ANTENNA2", start, count), chosen)
            selected[start : start + count] = keep
            for field in lost:
                if np.any(main.getcol("FIELD_ID", start, count)[keep] == field.id):
                    raise DataError(
                        f"{info.path}: field {field.id} ({field.name}): "
                        f"{field.track.problem if field.track else ''}"
                    )
    if not selected.any():
        raise DataError(
            f"{info.path}: no rows for field={selection.field!r} spw={selection.spw!r} "
            f"scan={selection.scan!r}; see the fields and scans with listobs."
        )
    return rownumbers.where(selected)


def every_row(info: MsInfo) -> NDArray[np.int64]:
    """Numbers of all rows."""
    return rownumbers.every(info.n_rows)


def other_rows(info: MsInfo, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the rows that are not among ``rows``."""
    return rownumbers.others(info.n_rows, rows)


def row_ranges(n_rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Start and count of consecutive chunks of rows of about `peelkit.memory.chunk_bytes`."""
    step = max(1, min(n_rows, memory.ROW_WINDOW, memory.chunk_bytes() // max(1, row_bytes)))
    for start in range(0, n_rows, step):
        yield start, min(step, n_rows - start)


def chunks(
    main: table, info: MsInfo, rows: NDArray[np.int64], *, bytes_per_sample: int = 24
) -> Iterator[tuple[DataDescription, NDArray[np.int64]]]:
    """Split ``rows``, ascending, by data description into chunks of bounded memory.

    Cells of one chunk have one shape, so that its columns can be read as arrays. The data descriptions
    come one after the other within each of `peelkit.io.rownumbers.windows`.
    """
    for _, window, ddids in rownumbers.windows(main, rows):
        for description in info.data_descriptions:
            mine = window[ddids == description.id]
            n_chan = len(info.spws[description.spw].freq_hz)
            row_bytes = n_chan * len(description.correlations) * bytes_per_sample + 200
            for start, count in row_ranges(mine.size, row_bytes):
                yield description, mine[start : start + count]


def _one_after_another(rows: NDArray[np.int64]) -> bool:
    """Whether rows can be read as one range; rows sorted by field may begin and end as one does."""
    if not rows.size or rows[-1] - rows[0] + 1 != rows.size:
        return False
    return bool((rows[1:] > rows[:-1]).all())


def get(main: table, column: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Cells of ``column`` at ``rows``, shape (row, ...).

    Raises
    ------
    DataError
        If the column has no values in some of them: it was made, and not filled.
    """
    try:
        if _one_after_another(rows):
            return np.asarray(main.getcol(column, int(rows[0]), int(rows.size)))
        return np.asarray(main.selectrows(rows).getcol(column))
    except RuntimeError as error:
        empty = [int(row) for row in rows if not main.iscelldefined(column, int(row))]
        if not empty:
            raise
        # Of a selection both are the MS's own, not those of a table without a name.
        named = (
            subtable(main, "ANTENNA").parent if "ANTENNA" in main.keywordnames() else main.name()
        )
        first = main.rownumbers()[empty[0]]
        raise DataError(
            f"{named}: {column} has no values in {len(empty)} rows (the first is {first}); "
            "fill it, or leave these rows out."
        ) from error


def part(main: table, rows: NDArray[np.int64]) -> table:
    """A table of ``rows`` only, numbered from 0: cheaper than `get` where several columns are read."""
    return main.selectrows(rows)


def put(main: table, column: str, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Write ``values``, shape (row, ...), to ``column`` at ``rows``."""
    if _one_after_another(rows):
        main.putcol(column, values, int(rows[0]), int(rows.size))
    else:
        main.selectrows(rows).putcol(column, values)


def append(main: table, block: Mapping[str, NDArray[Any]]) -> int:
    """Add rows with the values of ``block`` by column, shape (row, ...), TIME among them; returns how many."""
    start, count = main.nrows(), len(block["TIME"])
    if count:
        main.addrows(count)
        for name, values in block.items():
            main.putcol(name, values, start, count)
    return count


def has_cells(main: table, column: str, row: int = 0) -> bool:
    """Tell whether ``column`` exists and has values (WEIGHT_SPECTRUM is often empty)."""
    return column in main.colnames() and main.nrows() > row and main.iscelldefined(column, row)


def add_column(main: table, name: str, like: str = "DATA") -> None:
    """Add an empty column of the type and storage of ``like``."""
    description = makecoldesc(
        name, {**main.getcoldesc(like), "comment": f"made by peelkit {__version__}"}
    )
    storage = main.getdminfo(like)
    if not str(storage["TYPE"]).startswith("Tiled"):
        # A compressed or standard manager need not take a second column; a tiled one always does.
        storage = {"TYPE": "TiledShapeStMan", "SPEC": {"DEFAULTTILESHAPE": [4, 64, 256]}}
        if description["desc"].get("ndim", 2) == 1:
            storage["SPEC"] = {"DEFAULTTILESHAPE": [4, 4096]}
    storage["NAME"] = f"Tiled_{name}_{time.time_ns()}"
    storage.pop("SEQNR", None)
    main.addcols(maketabdesc(description), storage)


def copy_rows(
    source: Path,
    target: Path,
    rows: NDArray[np.int64],
    *,
    data_column: str,
    also: Sequence[str] = (),
) -> None:
    """Copy ``rows`` of an MS to a new one, with ``data_column`` as its DATA.

    Other data and model columns stay behind, but for those of ``also``; subtables, and with them all
    ids, are kept whole.
    """
    with opened(source) as main:
        names = [
            name
            for name in main.colnames()
            if name == data_column
            or name in also
            or (not _is_data_like(main, name) and name != "FLAG_CATEGORY")
        ]
        # CASA insists on FLAG_CATEGORY; it has no cells and costs nothing.
        names += [name for name in ("FLAG_CATEGORY",) if name in main.colnames()]
        # The backslash lets a column have the name of a word of TaQL, such as ALL.
        wanted = ",".join(rf"\{name}" for name in names)
        # A selection has 8 bytes for each row, several times over: rows go over in windows.
        for start in range(0, rows.size, memory.ROW_WINDOW):
            selected = main.selectrows(rows[start : start + memory.ROW_WINDOW]).select(wanted)
            if start == 0:
                selected.copy(str(target), deep=True).close()
            else:
                with opened(target, write=True) as copy:
                    selected.copyrows(copy)
            selected.close()
    with opened(target, write=True) as main:
        if data_column != "DATA":
            main.renamecol(data_column, "DATA")
        theirs = subtable(main, "FIELD")
    with opened(source) as main:
        # A table in the folder of another does not come along with it.
        for ephemeris in subtable(main, "FIELD").glob("EPHEM*_*.tab"):
            if not (theirs / ephemeris.name).exists():
                shutil.copytree(ephemeris, theirs / ephemeris.name)


# What an MS must have for each row, but for data.
NEEDED = (
    "ANTENNA1", "ANTENNA2", "ARRAY_ID", "DATA_DESC_ID", "EXPOSURE", "FEED1", "FEED2", "FIELD_ID", "FLAG",
    "FLAG_CATEGORY", "FLAG_ROW", "INTERVAL", "OBSERVATION_ID", "PROCESSOR_ID", "SCAN_NUMBER", "SIGMA", "STATE_ID",
    "TIME", "TIME_CENTROID", "UVW", "WEIGHT",
)  # fmt: skip


# Subtables that say what the data are; POINTING, which can be larger than they, says where dishes looked.
SAYING = (
    "ANTENNA", "DATA_DESCRIPTION", "DOPPLER", "FEED", "FIELD", "OBSERVATION", "POLARIZATION", "PROCESSOR", "SOURCE",
    "SPECTRAL_WINDOW", "STATE",
)  # fmt: skip


def empty_copy(source: Path, target: Path, *, data_column: str) -> None:
    """Make an MS of no rows with the ids of another; DATA is of the kind of its ``data_column``.

    Of the main columns there are those that an MS must have, DATA and WEIGHT_SPECTRUM; of the subtables `SAYING`.
    """
    with opened(source) as main:
        folders = {name: subtable(main, name) for name in SAYING if name in main.keywordnames()}
        names = [name for name in NEEDED if name in main.colnames()]
        chosen = ",".join([*(rf"\{name}" for name in names), rf"\{data_column} as DATA"])
        selected = main.select(chosen)
        # Its subtables have no rows either.
        selected.copy(str(target), deep=True, copynorows=True).close()
        selected.close()
    for name, folder in folders.items():
        shutil.rmtree(target / name)
        # With what is in its folder: an ephemeris is a table in that of FIELD.
        shutil.copytree(folder, target / name)
    spectrum = makearrcoldesc("WEIGHT_SPECTRUM", 0.0, valuetype="float", ndim=2)
    tiles = {"TYPE": "TiledShapeStMan", "NAME": "TiledWeightSpectrum"}
    with opened(target, write=True) as main:
        main.addcols(maketabdesc(spectrum), {**tiles, "SPEC": {"DEFAULTTILESHAPE": [4, 64, 256]}})


def refer_to_rows(source: Path, target: Path, rows: NDArray[np.int64], *, data_column: str) -> None:
    """Make an MS that refers to ``rows`` of another, with ``data_column`` as its only data, DATA.

    It costs no space, and tclean makes the identical image of it (measured, tests/integration/
    test_image_residual.py). Only for reading: what is written to it is written to ``source``.
    """
    with opened(source) as main:
        names = [name for name in main.colnames() if not _is_data_like(main, name)]
        chosen = [rf"\{name}" for name in names] + [rf"\{data_column} as DATA"]
        selected = main.selectrows(rows).select(",".join(chosen))
        selected.copy(str(target)).close()
        selected.close()


def _is_data_like(main: table, name: str) -> bool:
    description = main.getcoldesc(name)
    return str(description["valueType"]).lower() in ("complex", "dcomplex")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # Of a container or a batch job: a number that has no name.
        return str(os.getuid())


def add_history(path: Path, *, command: str, message: str, parameters: Mapping[str, Any]) -> None:
    """Add one row to HISTORY, with each parameter as ``name=value``."""
    with opened(path / "HISTORY", write=True) as sub:
        row = sub.nrows()
        sub.addrows(1)
        values: dict[str, Any] = {
            "TIME": 86400.0 * (40587.0 + time.time() / 86400.0),  # Unix epoch is MJD 40587
            "OBSERVATION_ID": -1,
            "MESSAGE": message,
            "PRIORITY": "NORMAL",
            "ORIGIN": f"peelkit {__version__}",
            "OBJECT_ID": 0,
            "APPLICATION": "peelkit",
            "CLI_COMMAND": [f"peelkit {command} ({_user()})"],
            "APP_PARAMS": [
                f"{key}={json.dumps(value, default=str)}" for key, value in parameters.items()
            ],
        }
        for column, value in values.items():
            if column in sub.colnames():
                sub.putcell(column, row, value)


def parallel_hands(correlations: Sequence[str]) -> NDArray[np.intp]:
    """Indices of the correlations that carry Stokes I."""
    return np.array(
        [i for i, name in enumerate(correlations) if name in PARALLEL_HANDS], dtype=np.intp
    )
