"""Which column is calibrated, and what may be replaced: by what the columns hold, not by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from casacore.tables import makearrcoldesc, table

from makems import MsRecipe, make_ms
from peelkit.core import commit, datacolumn
from peelkit.core.datacolumn import Holds
from peelkit.errors import DataError
from peelkit.io import journal, ms, origin
from peelkit.selection import Selection

SMALL = MsRecipe(n_antenna=5, n_scan=2, n_time=3, n_field=2, n_chan=(2, 2), seed=1)


def add(path: Path, name: str, values: object = None, *, rows: object = None) -> None:
    """A column with ``values``, or some function of DATA, in ``rows``; others stay without any."""
    with table(str(path), readonly=False, ack=False) as main:
        if name not in main.colnames():
            main.addcols(
                makearrcoldesc(name, 0j, valuetype="complex", ndim=2),
                {"TYPE": "TiledShapeStMan", "NAME": name, "SPEC": {"DEFAULTTILESHAPE": [2, 2, 9]}},
            )
        for row in range(main.nrows()) if rows is None else rows:
            data = main.getcell("DATA", row)
            made = values(data) if callable(values) else np.full_like(data, values)
            main.putcell(name, row, made)


def twice(data: np.ndarray) -> np.ndarray:
    return 2 * data


def rows_of(path: Path, column: str, value: int) -> list[int]:
    with table(str(path), ack=False) as main:
        return np.flatnonzero(main.getcol(column) == value).tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_ms(tmp_path / "a.ms", SMALL)
    return tmp_path / "a.ms"


def chosen(path: Path, word: str = "auto", **selection: str) -> datacolumn.Chosen:
    info = ms.read_info(path)
    return datacolumn.choose(info, ms.select_rows(info, Selection(**selection)), word)


@pytest.mark.parametrize(
    ("values", "column", "why"),
    [
        (twice, "CORRECTED_DATA", "calibrated data, which are taken"),
        (lambda data: data, "DATA", "has the same as DATA"),
        (lambda data: data * (1 + 1e-7), "DATA", "has the same as DATA"),
        (lambda data: np.where(np.abs(data) > 1, np.nan, data), "DATA", "has the same as DATA"),
        (0, "DATA", "no values but zeros"),
    ],
)
def test_auto_takes_corrected_data_only_where_it_is_calibrated(path, values, column, why) -> None:
    add(path, "CORRECTED_DATA", values)
    found = chosen(path)
    assert found.column == column
    assert why in found.why
    # Named, it is taken without a question.
    assert chosen(path, "corrected") == datacolumn.Chosen("CORRECTED_DATA")
    assert chosen(path, "data") == datacolumn.Chosen("DATA")


def test_one_calibrated_row_among_identical_ones_tells(path: Path) -> None:
    add(path, "CORRECTED_DATA", lambda data: data)
    add(path, "CORRECTED_DATA", twice, rows=[rows_of(path, "FIELD_ID", 1)[-1]])
    assert chosen(path).column == "CORRECTED_DATA"
    assert chosen(path, field="0").column == "DATA"
    assert "field 0,1" in chosen(path).why or "field 0" in chosen(path).why


@pytest.mark.parametrize("empty", [None, 0], ids=["no values", "zeros"])
def test_data_calibrated_in_one_spw_and_lacking_in_another_are_refused(path, empty) -> None:
    add(path, "CORRECTED_DATA", twice, rows=rows_of(path, "DATA_DESC_ID", 0))
    if empty is not None:
        add(path, "CORRECTED_DATA", empty, rows=rows_of(path, "DATA_DESC_ID", 1))
    with pytest.raises(DataError, match="none for field 0 in spw 1 and 1 more; leave"):
        chosen(path)
    assert chosen(path, spw="0").column == "CORRECTED_DATA"
    assert chosen(path, spw="1").column == "DATA"


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        (1, Holds.DEFAULT), (0, Holds.NOTHING), (twice, Holds.MODEL),
        (lambda data: np.where(data == data[0, 0], 2, 1), Holds.MODEL),
    ],
)  # fmt: skip
def test_what_a_model_column_holds(path: Path, values: object, holds: Holds) -> None:
    add(path, "MODEL_DATA", values)
    info = ms.read_info(path)
    assert set(datacolumn.contents(info, ms.every_row(info), "MODEL_DATA").values()) == {holds}


def refused(path: Path, column: str, **selection: str) -> str:
    info = ms.read_info(path)
    try:
        rows = ms.select_rows(info, Selection(**selection))
        datacolumn.refuse_replacing(info, rows, column, overwrite=False)
    except DataError as error:
        return str(error)
    return ""


def test_only_what_would_be_missed_needs_overwrite(path: Path) -> None:
    add(path, "CORRECTED_DATA", lambda data: data)
    add(path, "MODEL_DATA", 1)
    assert refused(path, "DATA") == ""
    add(path, "CORRECTED_DATA", twice)
    # What a step goes on from is no obstacle: undo puts it back.
    assert refused(path, "CORRECTED_DATA") == ""
    assert "CORRECTED_DATA holds calibrated data, and would be made of DATA" in refused(
        path, "DATA"
    )
    add(path, "MODEL_DATA", twice, rows=rows_of(path, "FIELD_ID", 0))
    assert "MODEL_DATA holds a model; replace with --overwrite" in refused(path, "CORRECTED_DATA")
    # The calibrator's model is none of the target's.
    assert refused(path, "CORRECTED_DATA", field="1") == ""


def self_calibrate(path: Path, column: str, factor: complex, field: str = "") -> None:
    """What the end of a self-calibration does: data of a copy into CORRECTED_DATA, as one step."""
    info = ms.read_info(path)
    rows = ms.select_rows(info, Selection(field=field))
    work = path.with_name("work.ms")
    ms.copy_rows(path, work, rows, data_column=column)
    with ms.opened(work, write=True) as copy:
        ms.add_column(copy, "CORRECTED_DATA")
        copy_info = ms.read_info(work)
        for _, chunk in ms.chunks(copy, copy_info, ms.every_row(copy_info)):
            ms.put(copy, "CORRECTED_DATA", chunk, factor * ms.get(copy, "DATA", chunk))
    with commit.recorded_step(path, "selfcal") as step:
        commit.write_back(
            info, [commit.Part(work, rows, column)], step,
            columns={"CORRECTED_DATA": "DATA"}, flags=False, self_calibrated=True,
        )  # fmt: skip
    table(str(work), ack=False).close()
    import shutil

    shutil.rmtree(work)


def column_of(path: Path, name: str, field: int) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return main.getcol(name)[main.getcol("FIELD_ID") == field]


def test_a_second_run_begins_from_what_the_first_was_made_of(path: Path) -> None:
    add(path, "CORRECTED_DATA", twice)
    self_calibrate(path, "CORRECTED_DATA", 1j)
    found = chosen(path)
    assert found.column == "CORRECTED_DATA_BEFORE_1"
    assert "was self-calibrated by peelkit; this begins anew from" in found.why
    assert "what peelkit self-calibrated from CORRECTED_DATA as it was" in refused(
        path, found.column
    )
    # Again and again: never from a result.
    self_calibrate(path, found.column, 1j)
    assert chosen(path).column == "CORRECTED_DATA_BEFORE_1"
    assert np.array_equal(
        column_of(path, "CORRECTED_DATA", 0), 1j * column_of(path, "CORRECTED_DATA_BEFORE_1", 0)
    )
    # Undone, it is the archive's again.
    journal.put_back_columns(path)
    journal.put_back_columns(path)
    assert chosen(path).column == "CORRECTED_DATA"
    assert np.array_equal(column_of(path, "CORRECTED_DATA", 0), 2 * column_of(path, "DATA", 0))


def test_fields_are_told_apart(path: Path) -> None:
    add(path, "CORRECTED_DATA", twice)
    self_calibrate(path, "CORRECTED_DATA", 1j, field="0")
    assert chosen(path, field="0").column == "CORRECTED_DATA_BEFORE_1"
    assert chosen(path, field="1").column == "CORRECTED_DATA"
    # Field 1 is in the kept column as it is now.
    assert chosen(path).column == "CORRECTED_DATA_BEFORE_1"
    add(path, "CORRECTED_DATA", lambda data: 3 * data, rows=rows_of(path, "FIELD_ID", 1))
    with pytest.raises(
        DataError, match="of fields 0 was self-calibrated by peelkit, of others not"
    ):
        chosen(path)


def test_another_program_has_written_since(path: Path) -> None:
    self_calibrate(path, "DATA", 1j)
    assert chosen(path).column == "DATA"
    assert "begins anew" in chosen(path).why
    add(path, "CORRECTED_DATA", lambda data: 3 * data)
    assert origin.read(path, [0, 1]) == {}
    assert "calibrated data, which are taken" in chosen(path).why


def test_what_was_forgotten_is_not_guessed(path: Path) -> None:
    add(path, "CORRECTED_DATA", twice)
    self_calibrate(path, "CORRECTED_DATA", 1j)
    journal.forget(path)
    with pytest.raises(DataError, match="what it was made of is not kept any more; give --datac"):
        chosen(path)
    # The name is used again, for something else.
    self_calibrate(path, "CORRECTED_DATA", 1j, field="1")
    with pytest.raises(DataError, match="what it was made of is not kept any more; give --datac"):
        chosen(path, field="0")
