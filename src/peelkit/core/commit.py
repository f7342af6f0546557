"""Writing the result of self-calibration into the user's MS, in one step that can be undone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import journal, mending, ms, origin, rownumbers
from peelkit.progress import Progress

log = logging.getLogger(__name__)


def recover(path: Path) -> journal.Step | None:
    """Put back a step that was killed; returns it."""
    step = journal.unfinished(path)
    if step is None:
        return None
    put_back(path, step)
    log.warning("%s: put back what an interrupted %s had begun to write", path, step.command)
    return step


def put_back(path: Path, step: journal.Step) -> bool:
    """Put back what the last step on an MS replaced; whether flags were among it.

    Where its flag version is not there, no flags are: a step that was killed before they were saved had not
    changed them.
    """
    version = step.flag_version
    if not version or not engine.flag_version_path(path, version).exists():
        journal.put_back_columns(path)
        return False
    with engine.Casa(path.with_name(f"{path.name}.undo.casa.log")) as casa:
        engine.restore_flags(casa, path, version)
        # Deleted last: while it is there, all can begin anew.
        journal.put_back_columns(path)
        engine.delete_flags(casa, path, version)
    return True


@contextlib.contextmanager
def recorded_step(
    path: Path, command: str, *, casa: engine.Casa | None = None
) -> Iterator[journal.Step]:
    """A step on an MS: begun, and finished only if the block does; else everything is put back.

    With ``casa`` the flags are saved first, as a CASA flag version; a step without it may not change
    them.
    """
    ms.refuse_if_locked(path)
    step = journal.begin(path, command, flag_version=casa is not None)
    try:
        if step.flag_version and casa is not None:
            engine.save_flags(casa, path, step.flag_version)
        yield step
        journal.finish(path, journal.steps(path)[-1])
    except BaseException:
        put_back(path, step)
        raise


def applied_columns(info: ms.MsInfo, *, calwt: bool) -> dict[str, str]:
    """Columns that applying gains writes, and what rows that were not selected get in a new one.

    Parameters
    ----------
    calwt : bool
        Whether the weights were calibrated too.
    """
    columns = {"CORRECTED_DATA": "DATA"}
    if calwt:
        columns["WEIGHT"] = "WEIGHT"
        with ms.opened(info.path) as main:
            if ms.has_cells(main, "WEIGHT_SPECTRUM"):
                columns["WEIGHT_SPECTRUM"] = "WEIGHT_SPECTRUM"
    return columns


@dataclass(frozen=True)
class Part:
    """A working copy, which rows of the MS it is of, ascending, shape (row of the copy,), and of which column."""

    work: Path
    rows: NDArray[np.int64]
    column: str = "DATA"


def write_back(
    info: ms.MsInfo,
    parts: Sequence[Part],
    step: journal.Step,
    *,
    columns: Mapping[str, str],
    flags: bool,
    self_calibrated: bool = False,
    progress: Progress | None = None,
) -> None:
    """Copy result columns of working copies into the MS.

    Rows that were not selected keep what the replaced column had; in a new column they get the
    value that ``columns`` names. What was no number, and so was flagged in the copies, is none in
    CORRECTED_DATA either, unless the flags are written too.

    Parameters
    ----------
    info : MsInfo
        The user's MS.
    parts : sequence of Part
        Copies of rows of it, no row in two.
    step : Step
        Under which the columns are replaced.
    columns : dict of str
        Column to the filler of rows that were not selected: a column of the MS, or ``model`` for
        CASA's default model (1 in the parallel hands).
    flags : bool
        Copy FLAG as well, in place.
    self_calibrated : bool
        Whether the gains are of self-calibration: another begins anew from the columns of ``parts``.
    """
    progress = progress or Progress()
    every = ms.every_row(info)
    # The part of each row of the MS; parts are few, rows are not.
    owner = np.full(info.n_rows, -1, dtype=np.int16)
    for number, part in enumerate(parts):
        owner[part.rows] = number
    progress.stage("writing the result into the MS", total=info.n_rows * len(columns))
    for name, filler in columns.items():
        like = "DATA" if name in ("CORRECTED_DATA", "MODEL_DATA") else name
        step = journal.new_column(info.path, step, name, like=like)
        source = step.replaced.get(name, filler)
        with ms.opened(info.path, write=True) as main, _Copies() as copies:
            for description, chunk in ms.chunks(main, info, every):
                of = owner[chunk]
                # Old values are read only where they stay: cells may be without.
                values = np.zeros_like(ms.get(main, like if like != name else source, chunk[:1]))
                values = np.repeat(values, chunk.size, axis=0)
                if (of < 0).any():
                    values[of < 0] = _filler(main, source, filler, chunk[of < 0], description)
                for number in np.unique(of[of >= 0]):
                    inside = of == number
                    copy = copies.opened(parts[number].work)
                    place = _position(parts[number].rows, chunk[inside])
                    found = ms.get(copy, name, place)
                    if name == "CORRECTED_DATA" and not flags:
                        column = parts[number].column
                        read = ms.get(main, step.replaced.get(column, column), chunk[inside])
                        found[~np.isfinite(read)] = np.nan
                    values[inside] = found
                ms.put(main, name, chunk, values)
                progress.advance(chunk.size)
    with ms.opened(info.path) as main:
        fields = {
            int(field): part.column if self_calibrated else None
            for part in parts
            for field in np.unique(rownumbers.column(main, "FIELD_ID", part.rows))
        }
    origin.write(
        info.path, fields, earlier=step.replaced.get("CORRECTED_DATA"), steps=step.replaced
    )
    if flags:
        with ms.opened(info.path, write=True) as main:
            for part in parts:
                with ms.opened(part.work) as copy:
                    for _, chunk in ms.chunks(main, info, part.rows):
                        place = _position(part.rows, chunk)
                        ms.put(main, "FLAG", chunk, ms.get(copy, "FLAG", place))


class _Copies:
    """Tables that stay open from one chunk to the next; only the latest, since each takes many file descriptors."""

    MOST = 8

    def __init__(self) -> None:
        self._open: dict[Path, tuple[Any, contextlib.ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def opened(self, path: Path) -> Any:
        """The table at ``path``, for reading."""
        if path not in self._open:
            if len(self._open) >= self.MOST:
                self._close_oldest()
            stack = contextlib.ExitStack()
            self._open[path] = stack.enter_context(ms.opened(path)), stack
        return self._open[path][0]

    def _close_oldest(self) -> None:
        _, stack = self._open.pop(next(iter(self._open)))
        stack.close()


def _position(rows: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in a copy of ``rows`` (ascending) of some of them."""
    return np.searchsorted(rows, some)


def _filler(
    main: Any, source: str, instead: str, chunk: NDArray[np.int64], description: ms.DataDescription
) -> NDArray[Any]:
    """Values of ``source``, and of ``instead`` in rows where it has none."""
    if source == "model":
        values = np.zeros_like(ms.get(main, "DATA", chunk))
        values[:, :, ms.parallel_hands(description.correlations)] = 1
        return values
    try:
        return ms.get(main, source, chunk)
    except DataError:
        if source == instead:
            raise
    there = mending.rows_with_values(main, source, chunk)
    values = _filler(main, instead, instead, chunk, description)
    if there.size:
        values[np.isin(chunk, there)] = ms.get(main, source, there)
    return values
