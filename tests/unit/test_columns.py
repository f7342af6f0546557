"""Sums of columns: what may be written, what the sum is, and what the audit counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit import memory
from peelkit.core import columns
from peelkit.core.columns import Audit, Groups, Term
from peelkit.errors import OptionError
from peelkit.io import ms

HANDS = np.array([0, 3])
NO_FLAGS = np.zeros((4, 5, 4), dtype=bool)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("MODEL_DATA", [(1, "MODEL_DATA")]),
        ("A+B-C", [(1, "A"), (1, "B"), (-1, "C")]),
        (" ALL - B_1 - B_1 ", [(1, "ALL"), (-1, "B_1"), (-1, "B_1")]),
    ],
)
def test_sums_and_differences_are_read(text: str, terms: list[tuple[int, str]]) -> None:
    assert columns.parse_expression(text) == tuple(Term(*term) for term in terms)


@pytest.mark.parametrize(
    "text", ["", "A+", "-A", "A*B", "A B", "2*A", "A+1", "(A+B)", "A--B", "A+B;", "A,B", "Ä"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--expression"):
        columns.parse_expression(text)


@pytest.mark.parametrize("name", ["DATA", "data", "FLAG", "WEIGHT", "CORRECTED_DATA", "UVW"])
def test_the_columns_of_the_ms_definition_are_not_written(name: str) -> None:
    with pytest.raises(OptionError, match="belongs to the MS"):
        columns.check_target(name)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "_A", "MODEL_DATA_BEFORE_3"])
def test_names_that_casa_or_undo_cannot_take_are_not_written(name: str) -> None:
    with pytest.raises(OptionError, match="column"):
        columns.check_target(name)


@pytest.mark.parametrize("name", ["MODEL_DATA", "ALL_SKY_MODEL", "b1"])
def test_other_names_are_written(name: str) -> None:
    columns.check_target(name)


def test_a_sum_is_rounded_once() -> None:
    # 2^25 + 1 - 2^25 is 0 in single precision, step by step.
    big, one = np.full((1, 1, 1), 2.0**25, np.complex64), np.ones((1, 1, 1), np.complex64)
    total = columns.evaluate(columns.parse_expression("A+B-A"), [big, one, big])
    assert total.dtype == np.complex64
    assert total[0, 0, 0] == 1


def groups(of_row: list[int]) -> Groups:
    numbers, counts = np.unique(of_row, return_counts=True)
    return Groups(numbers, np.zeros_like(numbers), np.array(of_row, dtype=np.int32), counts)


def model(rng: np.random.Generator) -> np.ndarray:
    """Shape (row 4, chan 5, corr 4); nothing is exactly 0 or 1."""
    values = rng.uniform(2, 3, (4, 5, 4)) + 1j * rng.uniform(2, 3, (4, 5, 4))
    return values.astype(np.complex64)


def run(values: np.ndarray, flags: np.ndarray = NO_FLAGS) -> Audit:
    audit = Audit(groups([0, 0, 1, 1]))
    audit.add(values, [values], audit.groups.of_row, HANDS, lambda: flags)
    return audit


def test_a_good_model_has_nothing_to_count(rng: np.random.Generator) -> None:
    values = model(rng)
    audit = run(values)
    assert audit.samples.tolist() == [20, 20]
    for counted in (audit.zeros, audit.nans, audit.default_rows, audit.default_samples):
        assert counted.tolist() == [0, 0]
    assert audit.nonzero.tolist() == [True, True]
    assert audit.max_jy[1] == np.abs(values[2:][:, :, HANDS]).max()


def test_zeros_count_where_they_are_not_flagged_and_in_parallel_hands(
    rng: np.random.Generator,
) -> None:
    values = model(rng)
    values[:, :, 1:3] = 0  # cross hands are zero in most models
    values[0, :, 0] = 0
    values[2:] = 0
    flags = NO_FLAGS.copy()
    flags[0, :2] = True
    flags[3] = True
    audit = run(values, flags)
    assert audit.zeros.tolist() == [3, 10]
    assert audit.nonzero.tolist() == [True, False]


def test_casas_default_is_one_and_zero_in_the_cross_hands(rng: np.random.Generator) -> None:
    values = model(rng)
    values[0] = [1, 0, 0, 1]
    values[1, :2] = [1, 0, 0, 1]
    values[2] = 1  # cross hands too: no default
    values[3, :, 0] = 1  # one hand only
    audit = run(values)
    assert audit.default_rows.tolist() == [1, 0]
    assert audit.default_samples.tolist() == [7, 0]


def test_the_default_is_found_in_each_column_of_a_sum(rng: np.random.Generator) -> None:
    one, two = model(rng), model(rng)
    two[3] = [1, 0, 0, 1]
    audit = Audit(groups([0, 0, 1, 1]))
    audit.add(one + two, [one, two], audit.groups.of_row, HANDS, lambda: NO_FLAGS)
    assert audit.default_rows.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1j * np.nan])
def test_values_that_are_no_numbers_count_in_all_hands(
    bad: complex, rng: np.random.Generator
) -> None:
    values = model(rng)
    values[1, 2, 1] = bad
    values[3, :, 3] = bad
    audit = run(values)
    assert audit.nans.tolist() == [1, 5]
    assert np.isfinite(audit.max_jy).all()


def test_data_descriptions_of_one_shape_go_together_and_others_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_scan=1, n_time=3, n_chan=(4, 2, 4)))
    info = ms.read_info(path)
    rows = np.arange(info.n_rows)[7:]
    with ms.opened(path) as main:
        ddids = main.getcol("DATA_DESC_ID")
        found = list(columns.shape_chunks(main, info, rows))
    assert [chunk.shape for chunk in found] == [(4, 2), (2, 2)]
    assert set(ddids[found[0].rows].tolist()) == {0, 2}
    for chunk in found:
        assert np.array_equal(rows[chunk.index], chunk.rows)
    assert np.array_equal(np.sort(np.concatenate([chunk.rows for chunk in found])), rows)


def test_chunks_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_scan=1, n_time=3))
    info = ms.read_info(path)
    row_bytes = 8 * columns.CHUNK_SAMPLE_BYTES + columns.CHUNK_ROW_BYTES
    monkeypatch.setattr(memory, "chunk_bytes", lambda: 7 * row_bytes)
    with ms.opened(path) as main:
        sizes = [c.rows.size for c in columns.shape_chunks(main, info, np.arange(info.n_rows))]
    assert max(sizes) == 7
    assert sum(sizes) == info.n_rows


def test_rows_are_counted_by_field_and_spw(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=4, n_scan=3, n_time=2, n_chan=(2, 3), n_field=2))
    info = ms.read_info(path)
    found = Groups.of(info, np.arange(info.n_rows))
    # Fields 0, 1, 0 in three scans of two integrations of six baselines.
    assert list(zip(found.fields, found.spws, found.rows, strict=True)) == [
        (0, 0, 24), (0, 1, 24), (1, 0, 12), (1, 1, 12)
    ]  # fmt: skip
    with ms.opened(path) as main:
        field, ddid = main.getcol("FIELD_ID"), main.getcol("DATA_DESC_ID")
    assert np.array_equal(found.fields[found.of_row], field)
    assert np.array_equal(found.spws[found.of_row], ddid)
