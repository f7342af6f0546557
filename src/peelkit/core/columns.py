"""Sums and differences of data columns, copied in chunks and looked at on the way."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError, OptionError
from peelkit.io import journal, ms, rownumbers
from peelkit.io.virtual import RealModel
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

# Columns of the MS definition (version 2) that a command of the user's does not write.
_STANDARD = (
    "ANTENNA1 ANTENNA2 ANTENNA3 ARRAY_ID BASELINE_REF CORRECTED_DATA DATA DATA_DESC_ID EXPOSURE "
    "FEED1 FEED2 FEED3 FIELD_ID FLAG FLAG_CATEGORY FLAG_ROW FLOAT_DATA IMAGING_WEIGHT INTERVAL "
    "LAG_DATA OBSERVATION_ID PHASE_ID PROCESSOR_ID PULSAR_BIN PULSAR_GATE_ID SCAN_NUMBER SIGMA "
    "SIGMA_SPECTRUM STATE_ID TIME TIME_CENTROID TIME_EXTRA_PREC UVW UVW2 VIDEO_POINT WEIGHT "
    "WEIGHT_SPECTRUM"
)
STANDARD = frozenset(_STANDARD.split())
# Under this name the journal keeps a replaced column.
KEPT = re.compile(r".*_BEFORE_\d+$")

# Workers get larger ones: each opens the MS anew.
SPREAD_SAMPLE_BYTES = 24

# Bytes of a sample that chunks are reckoned with: chunks of some 5 MB stay in the cache of a
# processor, and are copied half again as fast as those of 64 MB.
CHUNK_SAMPLE_BYTES = 96
# And of a row beside its samples.
CHUNK_ROW_BYTES = 200


@dataclass(frozen=True)
class Term:
    """One column of a sum, with its sign."""

    sign: int
    column: str


def parse_expression(text: str) -> tuple[Term, ...]:
    """Read ``A``, or a sum or difference such as ``A+B-C``.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    name = r"[A-Za-z][A-Za-z0-9_]*"
    if not re.fullmatch(rf"\s*{name}\s*(?:[+-]\s*{name}\s*)*", text):
        raise OptionError(
            f"--expression {text!r}: use column names joined by + and -, such as MODEL_DATA or "
            "ALL-B1-B2."
        )
    found = re.findall(rf"([+-]?)\s*({name})", text)
    return tuple(Term(-1 if sign == "-" else 1, column) for sign, column in found)


def check_target(name: str) -> None:
    """Refuse a name that CASA or the MS definition has another use for.

    Raises
    ------
    OptionError
        If it is not a name of a column of the user's.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise OptionError(
            f"column {name!r}: use letters, digits and _, with a letter first, such as "
            "ALL_SKY_MODEL."
        )
    if name.upper() in STANDARD or KEPT.match(name):
        what = "is where undo keeps a column" if KEPT.match(name) else "belongs to the MS itself"
        raise OptionError(f"column {name}: {what}; choose another name, such as ALL_SKY_MODEL.")


def check_operands(
    info: ms.MsInfo, terms: Sequence[Term], rows: NDArray[np.int64], made: Mapping[str, RealModel]
) -> None:
    """Check that the columns are there, complex, and of DATA's shape.

    Raises
    ------
    DataError
        If not; it lists the columns that would do.
    """
    info.require("DATA", "its shape and storage are what the new column gets.")
    with ms.opened(info.path) as main:
        first = rownumbers.first_of_each(main, rows)
        usable = [
            name for name in sorted(info.columns) if not _why_not(main, name, first, info)
        ] + [name for name in made if name not in info.columns]
        for term in terms:
            name = term.column
            if name in made:
                continue
            reason = "no such column" if name not in info.columns else _why_not(
                main, name, first, info
            )  # fmt: skip
            if reason:
                there = ", ".join(one for one in usable if not KEPT.match(one))
                hint = (
                    " Predict it with selfcal or tclean (savemodel='modelcolumn')."
                    if name == "MODEL_DATA" and name not in info.columns
                    else ""
                )
                raise DataError(
                    f"{info.path}: {name}: {reason}; columns that can be copied: {there}.{hint}"
                )


def _why_not(main: Any, name: str, first: Sequence[int], info: ms.MsInfo) -> str | None:
    """Why a column cannot be copied, from the first row of each data description."""
    kind = str(main.getcoldesc(name)["valueType"]).lower()
    if kind not in ("complex", "dcomplex"):
        return f"its values are of type {kind}, not complex"
    for row in first:
        if not main.iscelldefined(name, row):
            return f"row {row} has no value"
        if name == "DATA":
            continue
        own, data = (np.shape(main.getcell(one, row)) for one in (name, "DATA"))
        if own != data:
            return f"row {row} has shape {own}, DATA {data}"
    return None


@dataclass(frozen=True)
class Groups:
    """Rows by field and spectral window: what figures are kept for.

    Parameters
    ----------
    fields, spws : ndarray of int, shape (group,)
        Their ids.
    of_row : ndarray of int, shape (row,)
        Group of each row that was given.
    rows : ndarray of int, shape (group,)
        How many rows each has.
    """

    fields: NDArray[np.int64]
    spws: NDArray[np.int64]
    of_row: NDArray[np.int32]
    rows: NDArray[np.int64]

    @property
    def without_rows(self) -> Groups:
        """Fields and spws only."""
        return replace(self, of_row=self.of_row[:0])

    @classmethod
    def of(cls, info: ms.MsInfo, rows: NDArray[np.int64]) -> Groups:
        """Find the groups that have some of ``rows``."""
        n_spw = len(info.spws)
        spw_of = np.array([item.spw for item in info.data_descriptions])
        n_key = len(info.fields) * n_spw
        # Most MSs have fewer groups than 2 bytes can tell: a VLASS tile has 189 x 16.
        group: NDArray[Any] = np.empty(rows.size, dtype=np.uint16 if n_key < 2**16 else np.int32)
        counts = np.zeros(n_key, dtype=np.int64)
        with ms.opened(info.path) as main:
            for start, window, ddids in rownumbers.windows(main, rows):
                key = ms.get(main, "FIELD_ID", window) * n_spw + spw_of[ddids]
                counts += np.bincount(key, minlength=n_key)
                group[start : start + window.size] = key
        there = np.flatnonzero(counts)
        number = np.zeros(counts.size, dtype=group.dtype)
        number[there] = np.arange(there.size)
        for start, count in ms.row_ranges(rows.size, 8):
            group[start : start + count] = number[group[start : start + count]]
        return cls(there // n_spw, there % n_spw, group, counts[there])


class Audit:
    """Figures of a column that grow chunk by chunk, each of shape (group,).

    Attributes
    ----------
    samples : ndarray of int
        Of the parallel hands, flagged ones too.
    zeros : ndarray of int
        Those that are exactly 0 and not flagged (tclean writes 0 where the data are flagged).
    nonzero : ndarray of bool
        Whether any unflagged one is not 0.
    nans : ndarray of int
        Samples of any hand that are NaN or infinite.
    default_rows : ndarray of int
        Rows that have CASA's default model in all channels: 1 in the parallel hands, 0 in the others.
    default_samples : ndarray of int
        Channels of rows that have it.
    max_jy : ndarray of float
        Largest amplitude of the parallel hands [Jy].
    """

    def __init__(self, groups: Groups) -> None:
        size = groups.fields.size
        self.groups = groups
        self.samples = np.zeros(size, dtype=np.int64)
        self.zeros = np.zeros(size, dtype=np.int64)
        self.nonzero = np.zeros(size, dtype=bool)
        self.nans = np.zeros(size, dtype=np.int64)
        self.default_rows = np.zeros(size, dtype=np.int64)
        self.default_samples = np.zeros(size, dtype=np.int64)
        self.max_jy = np.zeros(size)
        self._buffer = np.empty(0, dtype=np.float32)

    def merge(self, other: Audit) -> None:
        """Take in the figures of other chunks of the same groups."""
        for name in ("samples", "zeros", "nans", "default_rows", "default_samples"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.nonzero |= other.nonzero
        np.maximum(self.max_jy, other.max_jy, out=self.max_jy)

    def _amplitude(self, values: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Amplitudes, in memory that is used again."""
        if self._buffer.size < values.size or self._buffer.dtype != values.real.dtype:
            self._buffer = np.empty(values.size, dtype=values.real.dtype)
        out = self._buffer[: values.size].reshape(values.shape)
        return np.abs(values, out=out)

    def add(
        self,
        values: NDArray[Any],
        operands: Sequence[NDArray[Any]],
        group: NDArray[np.integer[Any]],
        hands: NDArray[np.intp],
        read_flags: Callable[[], NDArray[np.bool_]],
    ) -> None:
        """Take in a chunk.

        Parameters
        ----------
        values : ndarray of complex, shape (row, chan, corr)
            The sum.
        operands : sequence of ndarray
            The columns it is the sum of: the default model is looked for in each.
        group : ndarray of int, shape (row,)
            Number of the group of each row.
        hands : ndarray of int
            Indices of the parallel hands.
        read_flags : callable
            Gives the flags, shape (row, chan, corr); called only if there are zeros.
        """
        size = self.samples.size
        n_row, n_chan, n_corr = values.shape
        # Of all hands, hand by hand from there: twice as fast as of the parallel ones, which lie apart.
        amplitude = self._amplitude(values)
        numbers = values.reshape(n_row, -1).view(values.real.dtype)
        if not (math.isfinite(numbers.max()) and math.isfinite(numbers.min())):
            bad = ~np.isfinite(values)
            self.nans += _sums(group, bad.sum(axis=(1, 2)), size)
            np.copyto(amplitude, 0, where=~np.isfinite(amplitude))
        one, other = amplitude[:, :, hands[0]], amplitude[:, :, hands[-1]]
        largest = np.maximum(one, other).max(axis=1)
        # One figure for each run of rows of a group: most are long.
        edges = np.append(0, 1 + np.flatnonzero(np.diff(group)))
        np.maximum.at(self.max_jy, group[edges], np.maximum.reduceat(largest, edges))
        self.samples += np.bincount(group, minlength=size) * n_chan * hands.size
        if np.minimum(one, other).min() > 0:
            self.nonzero[group[edges]] = True
        else:
            amplitude = np.abs(values[:, :, _as_slice(hands)])
            used = ~read_flags()[:, :, _as_slice(hands)]
            self.zeros += _sums(group, ((amplitude == 0) & used).sum(axis=(1, 2)), size)
            some = ((amplitude != 0) & used).any(axis=(1, 2))
            self.nonzero[group[some]] = True
        for operand in operands:
            self._add_default(operand, group, hands, n_corr)

    def _add_default(
        self,
        operand: NDArray[Any],
        group: NDArray[np.integer[Any]],
        hands: NDArray[np.intp],
        n_corr: int,
    ) -> None:
        # Real parts first: half as many numbers.
        first = operand[:, :, hands[0]]
        if not (first.real == 1).any():
            return
        default = first == 1
        for corr in range(n_corr):
            if corr != hands[0]:
                default &= operand[:, :, corr] == (1 if corr in hands else 0)
        size = self.samples.size
        self.default_samples += _sums(group, default.sum(axis=1), size)
        self.default_rows += _sums(group, default.all(axis=1), size)


def _sums(group: NDArray[np.integer[Any]], values: NDArray[Any], size: int) -> NDArray[np.int64]:
    return np.bincount(group, weights=values, minlength=size).astype(np.int64)


def _as_slice(hands: NDArray[np.intp]) -> slice:
    """Indices of the parallel hands as a slice, which costs no copy: they are 0, 0 and 1, or 0 and 3."""
    step = int(hands[1] - hands[0]) if hands.size > 1 else 1
    return slice(int(hands[0]), int(hands[-1]) + 1, step)


def evaluate(terms: Sequence[Term], operands: Sequence[NDArray[Any]]) -> NDArray[np.complex64]:
    """Sum of the operands with their signs, rounded once."""
    if len(terms) == 1:
        return np.asarray(operands[0], dtype=np.complex64)
    total = np.zeros(operands[0].shape, dtype=np.complex128)
    for term, values in zip(terms, operands, strict=True):
        total += term.sign * values.astype(np.complex128)
    return total.astype(np.complex64)


class Reader:
    """Reads operands: columns of the MS's main table, or models that were made real elsewhere.

    Parameters
    ----------
    main : table
        The open main table.
    stack : ExitStack
        Closes what this opens.
    made : dict of RealModel
        By the name of the column that they stand for.
    names : dict of str
        Columns that the step has renamed, by the name that the expression has for them.
    """

    def __init__(
        self,
        main: Any,
        stack: ExitStack,
        made: Mapping[str, RealModel],
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._main = main
        self._names = names or {}
        self._buffers: dict[str, NDArray[np.complex64]] = {}
        self._made = {
            name: (model, stack.enter_context(ms.opened(model.path)))
            for name, model in made.items()
        }

    def get(self, column: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Cells of ``column`` at ``rows``, shape (row, chan, corr); valid until the next call for it."""
        if column in self._made:
            model, opened = self._made[column]
            return model.get(opened, rows)
        return self._read(self._names.get(column, column), rows)

    def _read(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        kind = str(self._main.getcoldesc(name)["valueType"])
        if kind != "complex" or rows[-1] - rows[0] + 1 != rows.size:
            return ms.get(self._main, name, rows)
        try:
            # New memory for each chunk would cost as much as reading it.
            shape = np.shape(self._main.getcell(name, int(rows[0])))
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape[0] < rows.size or buffer.shape[1:] != shape:
                buffer = self._buffers[name] = np.empty((rows.size, *shape), dtype=np.complex64)
            self._main.getcolnp(name, buffer[: rows.size], int(rows[0]), int(rows.size))
        except RuntimeError:
            return ms.get(self._main, name, rows)  # which says what is wrong with them
        return buffer[: rows.size]


@dataclass(frozen=True)
class Chunk:
    """Rows whose cells have one shape and one set of correlations; their indices in what was given."""

    rows: NDArray[np.int64]
    index: NDArray[np.int64]
    hands: NDArray[np.intp]
    shape: tuple[int, int]


def shape_chunks(
    main: Any,
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    sample_bytes: int = CHUNK_SAMPLE_BYTES,
) -> Iterator[Chunk]:
    """Split ``rows`` into chunks of bounded memory whose cells have one shape.

    Data descriptions of equal shape go together: where they alternate from integration to
    integration, as they mostly do, their rows are then contiguous in the file.
    """
    kinds: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for item in info.data_descriptions:
        kinds.setdefault((info.spws[item.spw].freq_hz.size, item.correlations), []).append(item.id)
    for begin, window, ddids in rownumbers.windows(main, rows):
        for (n_chan, correlations), ids in kinds.items():
            inside = np.flatnonzero(np.isin(ddids, ids))
            mine, index = window[inside], begin + inside
            row_bytes = n_chan * len(correlations) * sample_bytes + CHUNK_ROW_BYTES
            for start, count in ms.row_ranges(mine.size, row_bytes):
                part = slice(start, start + count)
                yield Chunk(
                    mine[part], index[part], ms.parallel_hands(correlations),
                    (n_chan, len(correlations)),
                )  # fmt: skip


def copy_column(
    info: ms.MsInfo,
    step: journal.Step,
    name: str,
    terms: Sequence[Term],
    rows: NDArray[np.int64],
    *,
    groups: Groups,
    made: Mapping[str, RealModel],
    progress: Progress,
    spread: Spread = IN_PROCESS,
) -> Audit:
    """Write the sum of ``terms`` to the new column ``name`` at ``rows``.

    Other rows keep what a replaced column of that name had; in a column that was not there before
    they get 0, since a column without values in some rows cannot be read by anybody.

    With workers in ``spread`` these read the operands, sum and audit them; this process writes.

    Returns
    -------
    Audit
        Of what was written.
    """
    step = journal.new_column(info.path, step, name)
    progress.stage(f"writing {name}", total=info.n_rows)
    audit = Audit(groups)
    with ExitStack() as stack:
        main = stack.enter_context(ms.opened(info.path, write=True))
        if not spread.several:
            reader = Reader(main, stack, made, step.replaced)
            for chunk in shape_chunks(main, info, rows):
                group = groups.of_row[chunk.index]
                values = _sum(main, reader, terms, chunk.rows, group, chunk.hands, audit)
                ms.put(main, name, chunk.rows, values)
                progress.advance(chunk.rows.size)
        else:
            shared = _Shared(
                info.path.absolute(), tuple(terms), made, step.replaced, groups.without_rows
            )
            waiting: deque[NDArray[np.int64]] = deque()

            def items() -> Iterator[_Item]:
                for chunk in shape_chunks(main, info, rows, SPREAD_SAMPLE_BYTES):
                    waiting.append(chunk.rows)
                    yield _Item(chunk.rows, groups.of_row[chunk.index], chunk.hands)

            for values, figures in spread.run(_read_and_sum, items(), shared=shared):
                done = waiting.popleft()
                ms.put(main, name, done, values)
                audit.merge(figures)
                progress.advance(done.size)
        if rows.size < info.n_rows:
            for chunk in shape_chunks(main, info, ms.other_rows(info, rows)):
                if name in step.replaced:
                    values = ms.get(main, step.replaced[name], chunk.rows)
                else:
                    values = np.zeros((chunk.rows.size, *chunk.shape), dtype=np.complex64)
                ms.put(main, name, chunk.rows, values)
                progress.advance(chunk.rows.size)
    return audit


def _sum(
    main: Any,
    reader: Reader,
    terms: Sequence[Term],
    rows: NDArray[np.int64],
    group: NDArray[np.integer[Any]],
    hands: NDArray[np.intp],
    audit: Audit,
) -> NDArray[np.complex64]:
    """Read the operands at some rows, audit their sum, and give it."""
    operands = [reader.get(term.column, rows) for term in terms]
    values = evaluate(terms, operands)
    audit.add(values, operands, group, hands, lambda: read_flags(main, rows))
    return values


@dataclass(frozen=True)
class _Shared:
    """What every worker needs of the step."""

    path: Path
    terms: tuple[Term, ...]
    made: Mapping[str, RealModel]
    names: Mapping[str, str]
    groups: Groups


@dataclass(frozen=True)
class _Item:
    """Rows of one shape, their groups, and the indices of the parallel hands."""

    rows: NDArray[np.int64]
    group: NDArray[np.integer[Any]]
    hands: NDArray[np.intp]


def _read_and_sum(item: _Item, shared: _Shared) -> tuple[NDArray[np.complex64], Audit]:
    """Work of a worker: it reads columns that nobody writes, without a lock, from the shared folder."""
    audit = Audit(shared.groups)
    with ExitStack() as stack:
        main = stack.enter_context(ms.opened(shared.path))
        reader = Reader(main, stack, shared.made, shared.names)
        values = _sum(main, reader, shared.terms, item.rows, item.group, item.hands, audit)
        # Not the reader's buffer, which goes with it.
        return values.copy(), audit


def read_flags(main: Any, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flags at ``rows``, shape (row, chan, corr), with those of whole rows."""
    return np.asarray(
        ms.get(main, "FLAG", rows) | ms.get(main, "FLAG_ROW", rows)[:, None, None], dtype=bool
    )
