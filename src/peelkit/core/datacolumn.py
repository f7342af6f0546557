"""Which column has the data to calibrate, and what those columns hold that a step would replace.

An MS of an archive or a pipeline has the calibrated data in CORRECTED_DATA, and a MODEL_DATA that may be CASA's
default; one of CASA's simulator has a CORRECTED_DATA of zeros. So columns are told apart by what is in them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io import mending, ms, origin, rownumbers

log = logging.getLogger(__name__)

AUTO = "auto"
CORRECTED, MODEL = "CORRECTED_DATA", "MODEL_DATA"

# Relative; less is rounding, or a storage that compresses.
DIFFERENT = 1e-5


class Holds(StrEnum):
    """What a column holds in the rows of one field and spw."""

    NOTHING = "no values but zeros"
    SAME = "identical to DATA"
    CALIBRATED = "calibrated data"
    DEFAULT = "CASA's default model"
    MODEL = "a model"


# By field and spw.
Contents = Mapping[tuple[int, int], Holds]


def contents(info: ms.MsInfo, rows: NDArray[np.int64], column: str) -> Contents:
    """Tell what CORRECTED_DATA or MODEL_DATA holds in ``rows``.

    No more is read than tells: one calibrated visibility is enough for its field and spw.
    """
    told: dict[tuple[int, int], Holds] = {}
    last = Holds.CALIBRATED if column == CORRECTED else Holds.MODEL
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows):
            fields = ms.get(main, "FIELD_ID", chunk)
            for field in np.unique(fields).tolist():
                key = (field, description.spw)
                if told.get(key) == last:
                    continue
                found = _holds(main, column, chunk[fields == field], description)
                if found != Holds.NOTHING or key not in told:
                    told[key] = found
    return told


def _holds(
    main: ms.table, column: str, rows: NDArray[np.int64], description: ms.DataDescription
) -> Holds:
    try:
        values = ms.get(main, column, rows)
    except DataError:
        rows = mending.rows_with_values(main, column, rows)
        if not rows.size:
            return Holds.NOTHING
        values = ms.get(main, column, rows)
    if values.ndim != 3:
        # No visibilities; whatever it is, it is somebody's.
        return Holds.MODEL
    good = np.isfinite(values) & (values != 0)
    if not good.any():
        return Holds.NOTHING
    if column == CORRECTED:
        data = ms.get(main, "DATA", rows)
        # What DATA lacks may be a mark of bad data; it is no calibration.
        good &= np.isfinite(data)
        apart = np.abs(values[good] - data[good]) > DIFFERENT * np.abs(data[good])
        return Holds.CALIBRATED if apart.any() else Holds.SAME
    hands = ms.parallel_hands(description.correlations)
    crossed = np.ones(values.shape[2], dtype=bool)
    crossed[hands] = False
    # CASA fills the parallel hands with 1, some versions all.
    one = (values == 1) | ((values == 0) & crossed)
    return Holds.DEFAULT if one[np.isfinite(values)].all() else Holds.MODEL


@dataclass(frozen=True)
class Chosen:
    """The column that holds the data to calibrate, and why it was chosen: empty if the user did."""

    column: str
    why: str = ""


def choose(info: ms.MsInfo, rows: NDArray[np.int64], word: str) -> Chosen:
    """Column with the data to self-calibrate.

    ``auto`` takes CORRECTED_DATA if it is calibrated, that is if it differs from DATA, else DATA. What peelkit
    self-calibrated before is begun anew, from what that was made of: gains are not stacked on gains unasked.

    Parameters
    ----------
    word : str
        ``auto``, CASA's ``data`` or ``corrected``, or a column.

    Raises
    ------
    DataError
        If the column is not there, or the fields and spws do not agree.
    """
    if word != AUTO:
        return Chosen(info.data_column(word))
    info.data_column("data")
    if CORRECTED not in info.columns:
        return Chosen("DATA")
    before = origin.read(info.path, _fields(info, rows))
    if not before:
        return _calibrated(info, rows)
    of = _field_of(info, rows)
    others = rows[~np.isin(of, list(before))]
    sources = set(before.values())
    if others.size and not _as_before(info, before, np.unique(of)):
        sources.add(_calibrated(info, others).column)
    if len(sources) > 1:
        raise DataError(
            f"{info.path}: CORRECTED_DATA of fields {','.join(map(str, sorted(before)))} was self-calibrated by "
            "peelkit, of others not; choose one kind with --field, or name the column with --datacolumn."
        )
    source = sources.pop()
    if source is None:
        raise DataError(
            f"{info.path}: CORRECTED_DATA was self-calibrated by peelkit, and what it was made of is not kept any "
            "more; give --datacolumn corrected to go on from it, or --datacolumn data for the raw data."
        )
    return Chosen(
        source,
        f"CORRECTED_DATA was self-calibrated by peelkit; this begins anew from what it was made of, {_plain(source)} "
        "(--datacolumn corrected goes on from it)",
    )


def _as_before(
    info: ms.MsInfo, before: Mapping[int, str | None], fields: NDArray[np.int64]
) -> bool:
    """Whether the fields that were not self-calibrated are still as in the column that the others were made of."""
    source = next(iter(before.values()))
    others = [int(field) for field in fields if int(field) not in before]
    with ms.opened(info.path) as main:
        return source is not None and (
            origin.digests_of(main, source, others) == origin.digests_of(main, CORRECTED, others)
        )


def choose_calibrated(info: ms.MsInfo, rows: NDArray[np.int64], word: str) -> str:
    """Column with the best data there are: ``auto`` takes CORRECTED_DATA if it is calibrated, by whomever."""
    if word != AUTO:
        return info.data_column(word)
    return _calibrated(info, rows).column if CORRECTED in info.columns else info.data_column("data")


def _calibrated(info: ms.MsInfo, rows: NDArray[np.int64]) -> Chosen:
    found = contents(info, rows, CORRECTED)
    if Holds.CALIBRATED not in found.values():
        held = Holds.SAME if Holds.SAME in found.values() else Holds.NOTHING
        return Chosen("DATA", f"CORRECTED_DATA has {_short(held)}: the data are those of DATA")
    empty = sorted(key for key, held in found.items() if held is Holds.NOTHING)
    if empty:
        field, spw = empty[0]
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise DataError(
            f"{info.path}: CORRECTED_DATA has calibrated data, but none for field {field} in spw {spw}{more}; leave "
            "these out with --field and --spw, or give --datacolumn data."
        )
    same = sorted({field for (field, _), held in found.items() if held is Holds.SAME})
    note = f"; that of field {','.join(map(str, same))} is in part as DATA" if same else ""
    return Chosen(
        CORRECTED,
        f"CORRECTED_DATA has calibrated data, which are taken (it differs from DATA{note})",
    )


def _short(held: Holds) -> str:
    return "the same as DATA" if held is Holds.SAME else held.value


def _plain(source: str) -> str:
    if source.startswith(f"{CORRECTED}_BEFORE_"):
        return f"CORRECTED_DATA as it was before ({source})"
    return source


def _field_of(info: ms.MsInfo, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    with ms.opened(info.path) as main:
        return rownumbers.column(main, "FIELD_ID", rows)


def _fields(info: ms.MsInfo, rows: NDArray[np.int64]) -> list[int]:
    return [int(field) for field in np.unique(_field_of(info, rows))]


def refuse_replacing(
    info: ms.MsInfo, rows: NDArray[np.int64], column: str, *, overwrite: bool, model: bool = True
) -> None:
    """Refuse to replace what would be missed.

    That is no CORRECTED_DATA that is as DATA, or that the step goes on from, and no default MODEL_DATA: `undo`
    puts these back too.

    Parameters
    ----------
    rows : ndarray of int, shape (row,)
        That the step writes.
    column : str
        That is calibrated.
    model : bool
        Whether MODEL_DATA is written.

    Raises
    ------
    DataError
        Unless ``overwrite``.
    """
    if overwrite:
        return
    reasons = []
    if CORRECTED in info.columns:
        before = origin.read(info.path, _fields(info, rows))
        if before:
            source = next(iter(before.values()))
            reasons.append(
                "CORRECTED_DATA is what peelkit self-calibrated"
                + (f" from {_plain(source)}" if source else "")
            )
        elif column != CORRECTED and (Holds.CALIBRATED in contents(info, rows, CORRECTED).values()):
            reasons.append("CORRECTED_DATA holds calibrated data, and would be made of DATA")
    if model and MODEL in info.columns and Holds.MODEL in contents(info, rows, MODEL).values():
        reasons.append("MODEL_DATA holds a model")
    if reasons:
        raise DataError(
            f"{info.path}: {'; '.join(reasons)}; replace with --overwrite ('peelkit undo' puts back what was there)."
        )
