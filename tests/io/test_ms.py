"""Measurement Sets: metadata, chunks, columns, locks, HISTORY."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit import memory
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.survey import survey
from peelkit.selection import Selection


@pytest.fixture
def two_spws(tmp_path: Path) -> Path:
    """Spws of 4 and 6 channels, four correlations, so that cells differ in shape."""
    path = tmp_path / "two.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_chan=(4, 6), n_corr=4, n_scan=2, n_time=3, seed=5))
    return path


def test_metadata(two_spws: Path) -> None:
    info = ms.read_info(two_spws)
    assert [antenna.name for antenna in info.antennas][:2] == ["ea01", "ea02"]
    assert [len(spw.freq_hz) for spw in info.spws] == [4, 6]
    assert info.data_descriptions[1].correlations == ("RR", "RL", "LR", "LL")
    assert info.scans == (1, 2) and info.telescope == "VLA"
    assert info.fields[0].ra_rad == pytest.approx(2.0)
    assert info.spws[0].frame == "TOPO"


def test_the_most_parallel_hands_of_some_spws(tmp_path: Path) -> None:
    for n_corr, hands in ((1, 1), (2, 2), (4, 2)):
        path = tmp_path / f"{n_corr}.ms"
        make_ms(path, MsRecipe(n_antenna=3, n_scan=1, n_time=1, n_chan=(1, 1), n_corr=n_corr))
        info = ms.read_info(path)
        assert [info.n_hands(spws) for spws in ([], [1], [0, 1])] == [0, hands, hands]


@pytest.mark.parametrize("chunk_bytes", [1, 4000, 10**9])
def test_chunks_cover_every_row_once_and_have_one_shape(
    two_spws: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(memory, "chunk_bytes", lambda: chunk_bytes)
    info = ms.read_info(two_spws)
    seen = []
    with ms.opened(two_spws) as main:
        for description, rows in ms.chunks(main, info, np.arange(info.n_rows)):
            data = ms.get(main, "DATA", rows)
            assert data.shape == (rows.size, len(info.spws[description.spw].freq_hz), 4)
            assert chunk_bytes > 1 or rows.size == 1
            seen.append(rows)
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(info.n_rows))


def test_a_new_column_holds_what_is_put_whatever_the_chunks(
    two_spws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "chunk_bytes", lambda: 3000)
    info = ms.read_info(two_spws)
    with ms.opened(two_spws, write=True) as main:
        ms.add_column(main, "TWICE")
        for _, rows in ms.chunks(main, info, np.arange(info.n_rows)):
            ms.put(main, "TWICE", rows, 2 * ms.get(main, "DATA", rows))
    with table(str(two_spws), ack=False) as main:
        for row in (0, info.n_rows // 2, info.n_rows - 1):
            assert np.array_equal(main.getcell("TWICE", row), 2 * main.getcell("DATA", row))


@pytest.mark.parametrize("window", [2**20, 7])
def test_copied_rows_keep_their_ids_and_values(
    two_spws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(memory, "ROW_WINDOW", window)
    info = ms.read_info(two_spws)
    rows = ms.select_rows(info, Selection(spw="1", scan="2"))
    ms.copy_rows(two_spws, tmp_path / "copy.ms", rows, data_column="DATA")
    copy = ms.read_info(tmp_path / "copy.ms")
    assert copy.n_rows == rows.size == 3 * 15
    with ms.opened(two_spws) as one, ms.opened(copy.path) as two:
        assert set(two.getcol("DATA_DESC_ID")) == {1} and set(two.getcol("SCAN_NUMBER")) == {2}
        assert np.array_equal(ms.get(one, "DATA", rows), two.getcol("DATA"))
    assert len(copy.spws) == 2


def test_another_column_becomes_the_data_of_a_copy(two_spws: Path, tmp_path: Path) -> None:
    info = ms.read_info(two_spws)
    with ms.opened(two_spws, write=True) as main:
        ms.add_column(main, "CORRECTED_DATA")
        for _, rows in ms.chunks(main, info, np.arange(info.n_rows)):
            ms.put(main, "CORRECTED_DATA", rows, 3 * ms.get(main, "DATA", rows))
    rows = ms.select_rows(info, Selection(spw="0"))
    ms.copy_rows(two_spws, tmp_path / "copy.ms", rows, data_column="CORRECTED_DATA")
    with ms.opened(two_spws) as one, ms.opened(tmp_path / "copy.ms") as two:
        assert "CORRECTED_DATA" not in two.colnames()
        assert np.array_equal(3 * ms.get(one, "DATA", rows), two.getcol("DATA"))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(field="nope"), "field 'nope': not in the data, which have 0=field0"),
        (Selection(spw="7"), "spw '7'"),
        (Selection(scan="9"), "scan '9'"),
    ],
)
def test_an_empty_selection_names_what_there_is(
    two_spws: Path, selection: Selection, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ms.select_rows(ms.read_info(two_spws), selection)


def test_not_an_ms(tmp_path: Path) -> None:
    for name in ("absent.ms", "empty.ms"):
        if name == "empty.ms":
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=name):
            ms.read_info(tmp_path / name)


def test_a_table_that_is_no_ms_is_told_from_one(two_spws: Path) -> None:
    with pytest.raises(DataError, match="not a Measurement Set"):
        ms.read_info(two_spws / "ANTENNA")


def test_history_gets_one_row(two_spws: Path) -> None:
    with table(str(two_spws / "HISTORY"), ack=False) as sub:
        before = sub.nrows()
    ms.add_history(two_spws, command="selfcal", message="done", parameters={"solint": "inf"})
    with table(str(two_spws / "HISTORY"), ack=False) as sub:
        assert sub.nrows() == before + 1
        assert sub.getcell("APPLICATION", before) == "peelkit"
        assert "solint" in str(sub.getcell("APP_PARAMS", before))


HOLDER = """
import sys, time
from casacore.tables import table
t = table(sys.argv[1], readonly=False, ack=False, lockoptions="permanent")
t.putcell("SCAN_NUMBER", 0, 1)
print("holding", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(two_spws: Path):
    """The MS, while another process keeps its lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(two_spws)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "holding"
    yield two_spws, process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_of_another_process_is_reported_with_its_pid(
    held, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pid = held
    monkeypatch.setattr(ms, "LOCK_WAIT_S", 1)
    with pytest.raises(DataError, match=f"locked by .*pid {pid}"), ms.opened(path, write=True):
        pass
    with pytest.raises(DataError, match=f"pid {pid}"):
        ms.refuse_if_locked(path)


def test_a_free_ms_is_not_reported_as_locked(two_spws: Path) -> None:
    assert ms.lock_holder(two_spws) is None
    ms.refuse_if_locked(two_spws)


# ---------------------------------------------------------------- the survey


def test_survey_counts_time_antennas_and_scans(two_spws: Path) -> None:
    found = survey(ms.read_info(two_spws), Selection())
    assert found.on_source_s() == pytest.approx(2 * 3 * 10.0)  # two spws at once count once
    assert found.integration_s == 10.0
    assert found.antennas.size == 6
    assert found.fields() == [0] and found.spws() == [0, 1]
    assert found.weight_min == found.weight_max


def edit(path: Path, change: Callable[[table], None]) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        change(main)


def test_flagged_data_do_not_count(two_spws: Path) -> None:
    def flag(main: table) -> None:
        first = main.query("SCAN_NUMBER == 1")
        first.putcol("FLAG_ROW", np.ones(first.nrows(), dtype=bool))
        dead = main.query("ANTENNA1 == 3 || ANTENNA2 == 3")
        for row in range(dead.nrows()):
            dead.putcell("FLAG", row, np.ones_like(dead.getcell("FLAG", row)))

    edit(two_spws, flag)
    found = survey(ms.read_info(two_spws), Selection())
    assert found.on_source_s() == pytest.approx(30.0)
    assert 3 not in found.antennas and found.antennas.size == 5
    assert found.antenna_unflagged[3] == 0


def test_zero_weights_do_not_count_and_are_reported(two_spws: Path) -> None:
    def weigh(main: table) -> None:
        some = main.query("SCAN_NUMBER == 2")
        some.putcol("WEIGHT", np.zeros_like(some.getcol("WEIGHT")))

    edit(two_spws, weigh)
    found = survey(ms.read_info(two_spws), Selection())
    assert found.zero_weights == pytest.approx(0.5)
    assert found.on_source_s() == pytest.approx(30.0)


def test_all_flagged_is_a_data_error(two_spws: Path) -> None:
    edit(two_spws, lambda main: main.putcol("FLAG_ROW", np.ones(main.nrows(), dtype=bool)))
    with pytest.raises(DataError, match="all flagged"):
        survey(ms.read_info(two_spws), Selection())


def test_rows_in_another_order_that_begin_and_end_as_a_range_are_read_in_theirs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "order.ms"
    make_ms(path, MsRecipe())
    with ms.opened(path) as main:
        rows = np.array([0, 2, 1, 3])
        every = ms.get(main, "UVW", np.arange(4))
        assert np.array_equal(ms.get(main, "UVW", rows), every[rows])
