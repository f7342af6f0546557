"""Row numbers, looked at in windows: the same as of all rows at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit import memory
from peelkit.core.dd_data import gather, integrations
from peelkit.core.dispersive_data import intervals
from peelkit.io import ms, rownumbers

RECIPE = MsRecipe(
    n_antenna=5, n_scan=4, n_time=5, n_chan=(2, 3), n_field=2, integration_s=10.0, scan_gap_s=40.0
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "small.ms"
    make_ms(path, RECIPE)
    return path


@pytest.fixture(params=[7, 2**20])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(memory, "ROW_WINDOW", request.param)
    return int(request.param)


def some_rows(n_rows: int) -> np.ndarray:
    chosen = np.random.default_rng(3).random(n_rows) < 0.6
    return rownumbers.where(chosen)


def test_numbers_are_those_of_what_is_selected_and_take_4_bytes(window: int) -> None:
    selected = np.random.default_rng(1).random(1000) < 0.3
    found = rownumbers.where(selected)
    assert found.itemsize == 4
    assert np.array_equal(found, np.flatnonzero(selected))
    assert np.array_equal(rownumbers.others(1000, found), np.flatnonzero(~selected))
    assert np.array_equal(rownumbers.every(5), [0, 1, 2, 3, 4])
    # Numbers beyond the reach of 4 bytes have 8.
    assert rownumbers.kind(2**31) is np.int64


def test_windows_hold_every_row_once_with_its_data_description(small: Path, window: int) -> None:
    info = ms.read_info(small)
    rows = some_rows(info.n_rows)
    with ms.opened(small) as main:
        found = list(rownumbers.windows(main, rows))
        ddids = main.getcol("DATA_DESC_ID")
    assert np.array_equal(np.concatenate([mine for _, mine, _ in found]), rows)
    assert np.array_equal(np.concatenate([ids for *_, ids in found]), ddids[rows])
    assert all(np.array_equal(rows[start : start + mine.size], mine) for start, mine, _ in found)
    assert all(mine[-1] - mine[0] < window for _, mine, _ in found)


def test_times_and_samples_are_those_of_all_rows(small: Path, window: int) -> None:
    info = ms.read_info(small)
    rows = some_rows(info.n_rows)
    with ms.opened(small) as main:
        times, ddids = main.getcol("TIME")[rows], main.getcol("DATA_DESC_ID")[rows]
        assert np.array_equal(rownumbers.times(main, rows), np.unique(times))
        chosen = np.unique(times)[::3]
        assert np.array_equal(rownumbers.at_times(main, rows, chosen), rows[np.isin(times, chosen)])
        sample = rownumbers.sample(main, rows, 2, 9)
        assert rownumbers.first_of_each(main, rows) == [
            int(rows[np.argmax(ddids == ddid)]) for ddid in (0, 1)
        ]
    for ddid, found in sample.items():
        mine = rows[ddids == ddid]
        assert np.array_equal(found, mine[np.linspace(0, mine.size - 1, 9).astype(int)])


@pytest.mark.parametrize("combine_fields", [False, True])
def test_axes_and_scans_are_those_of_all_rows(
    small: Path, window: int, combine_fields: bool
) -> None:
    info = ms.read_info(small)
    rows = some_rows(info.n_rows)
    found = gather(info, rows, combine_fields=combine_fields)
    with ms.opened(small) as main:
        time, scan, field, ddid = (
            main.getcol(name)[rows] for name in ("TIME", "SCAN_NUMBER", "FIELD_ID", "DATA_DESC_ID")
        )
    # Scans follow each other in time, and are numbered from 1.
    assert np.array_equal(found.scans, scan - 1)
    keys = {(-1 if combine_fields else f, d) for f, d in zip(field, ddid, strict=True)}
    assert set(found.axes) == keys
    for (one, two), axis in found.axes.items():
        mine = (ddid == two) & ((field == one) | combine_fields)
        unique, first = np.unique(time[mine], return_index=True)
        assert np.array_equal(axis.times_s, unique)
        assert np.array_equal(axis.scans, (scan - 1)[mine][first])
    assert found.integration_s == {0: 10.0, 1: 10.0}


@pytest.mark.parametrize("combine_fields", [False, True])
def test_every_row_of_a_data_description_is_at_its_time_and_field_once(
    small: Path, window: int, combine_fields: bool
) -> None:
    info = ms.read_info(small)
    selected = gather(info, some_rows(info.n_rows), combine_fields=combine_fields)
    seen = []
    with ms.opened(small) as main:
        time, fields, ddids = (main.getcol(n) for n in ("TIME", "FIELD_ID", "DATA_DESC_ID"))
        for places, field, key, when in integrations(selected, main, [1]):
            rows = selected.rows[places]
            assert key == (-1 if combine_fields else field, 1)
            assert (fields[rows] == field).all() and (ddids[rows] == 1).all()
            assert np.array_equal(selected.axes[key].times_s[when], time[rows])
            seen.append(places)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.flatnonzero(ddids[selected.rows] == 1))


@pytest.mark.parametrize("solint_s", [None, 10.0, 25.0])
@pytest.mark.parametrize("combine", [(), ("scan",), ("scan", "field")])
def test_intervals_begin_with_their_scan_or_field_and_hold_every_row_once(
    small: Path, window: int, solint_s: float | None, combine: tuple[str, ...]
) -> None:
    info = ms.read_info(small)
    rows = some_rows(info.n_rows)
    found = intervals(info, rows, solint_s=solint_s, combine=combine)
    assert np.array_equal(np.sort(np.concatenate([one.rows for one in found])), rows)
    with ms.opened(small) as main:
        time, scan, field = (main.getcol(name) for name in ("TIME", "SCAN_NUMBER", "FIELD_ID"))
    label = np.zeros(info.n_rows, dtype=int)
    if "scan" not in combine:
        label += 100 * scan
    if "field" not in combine:
        label += field
    expected = set()
    for one in np.unique(label[rows]):
        mine = rows[label[rows] == one]
        bins = (
            np.zeros(mine.size, dtype=int)
            if solint_s is None
            else np.floor((time[mine] - time[mine].min()) / solint_s + 0.01).astype(int)
        )
        expected |= {tuple(mine[bins == number]) for number in np.unique(bins)}
    assert {tuple(one.rows) for one in found} == expected
    for one in found:
        assert one.time_s == pytest.approx((time[one.rows].min() + time[one.rows].max()) / 2)
        assert one.length_s == pytest.approx(np.ptp(time[one.rows]) + 10.0)
        assert one.field == field[one.rows[0]]
    assert [one.time_s for one in found] == sorted(one.time_s for one in found)


def test_the_pieces_get_smaller_with_the_limit_and_never_larger_than_64_mib() -> None:
    assert memory.chunk_bytes() == 64 * 2**20
    assert memory.chunk_bytes(16.0) == 64 * 2**20
    assert memory.chunk_bytes(0.5) == pytest.approx(8 * 2**20)
    with memory.limited(0.5):
        assert memory.chunk_bytes() == memory.chunk_bytes(0.5)
    with memory.limited(1.0, processes=2):
        assert memory.chunk_bytes() == memory.chunk_bytes(1.0) == pytest.approx(8 * 2**20)
    assert memory.limit_gib() == 2.0
    assert memory.chunk_bytes() == 64 * 2**20
