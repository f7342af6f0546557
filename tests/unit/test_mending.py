"""Data and weights that are no numbers, and cells without arrays: left out and told, never met by an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from casacore.tables import makearrcoldesc, table

from makems import MsRecipe, make_ms
from peelkit.core import commit, imaged_ms
from peelkit.core.workspace import Workspace, make_copy
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.survey import survey
from peelkit.selection import Selection

SMALL = {"n_antenna": 5, "n_scan": 1, "n_time": 2, "n_chan": (2, 3), "seed": 1}


def cells(path: Path, row: int, **values: object) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        for name, value in values.items():
            main.putcell(name, row, np.full_like(main.getcell(name, row), value))


def made(path: Path, name: str, rows: list[int]) -> None:
    """Column ``name`` with twice the DATA in ``rows``, and without cells in others."""
    tiles = {"TYPE": "TiledShapeStMan", "NAME": name, "SPEC": {"DEFAULTTILESHAPE": [2, 2, 9]}}
    with table(str(path), readonly=False, ack=False) as main:
        main.addcols(makearrcoldesc(name, 0j, valuetype="complex", ndim=2), tiles)
        for row in rows:
            main.putcell(name, row, 2 * main.getcell("DATA", row))


def rows_of_spw(path: Path, spw: int) -> list[int]:
    with table(str(path), ack=False) as main:
        return np.flatnonzero(main.getcol("DATA_DESC_ID") == spw).tolist()


@pytest.mark.parametrize("spectrum", [False, True])
@pytest.mark.parametrize(("weight", "sigma"), [(np.nan, np.nan), (np.inf, 0.0), (np.nan, 1.0)])
def test_a_weight_that_is_no_number_leaves_its_data_out(tmp_path, spectrum, weight, sigma) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL, weight_spectrum=spectrum))
    bad = {"WEIGHT": weight, "SIGMA": sigma}
    cells(path, 3, **bad, **({"WEIGHT_SPECTRUM": weight} if spectrum else {}))
    info = ms.read_info(path)
    every = ms.every_row(info)
    samples = 2 * len(info.spws[0].freq_hz)
    told = [
        f"{samples} unflagged samples have weights that are not finite numbers; they were left out"
    ]
    assert imaged_ms.audit(info, every, "DATA").warnings() == told
    (tmp_path / "x").mkdir()
    workspace = Workspace(tmp_path / "x", "mark")
    copy, left = make_copy(workspace, info, every, "DATA")
    assert left == told
    with table(str(copy.path), ack=False) as main:
        assert main.getcell("FLAG", 3).all() and not main.getcell("FLAG", 4).any()
        assert np.isfinite(main.getcol("WEIGHT")).all() and np.isfinite(main.getcol("SIGMA")).all()
        assert (main.getcol("SIGMA") != 0).all()
    # The survey takes it for a weight of none.
    assert survey(info, Selection()).zero_weights == pytest.approx(
        samples / sum(2 * 10 * 2 * spw.freq_hz.size for spw in info.spws)
    )


def test_a_sigma_that_is_no_number_is_that_of_the_weight(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL))
    cells(path, 3, WEIGHT=4.0, SIGMA=0.0)
    cells(path, 4, WEIGHT=4.0, SIGMA=np.inf)
    info = ms.read_info(path)
    (tmp_path / "x").mkdir()
    copy, left = make_copy(Workspace(tmp_path / "x", "m"), info, ms.every_row(info), "DATA")
    assert left == []
    with table(str(copy.path), ack=False) as main:
        assert (main.getcol("SIGMA")[[3, 4]] == 0.5).all()
        assert not main.getcol("FLAG", 0, 5).any()


@pytest.mark.parametrize(
    "bad", [{"WEIGHT": 0.0}, {"WEIGHT": 0.0, "SIGMA": np.inf}, {"WEIGHT": np.nan}]
)
def test_weights_that_will_be_derived_need_not_be_there(tmp_path: Path, bad: dict) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL))
    info = ms.read_info(path)
    for row in range(info.n_rows):
        cells(path, row, **bad)
    with pytest.raises(
        DataError, match=r"no weight of .* is a positive number; 'peelkit selfcal --weights"
    ):
        survey(info, Selection())
    assert len(survey(info, Selection(), weights=False).antennas) == 5
    (tmp_path / "x").mkdir()
    workspace = Workspace(tmp_path / "x", "m")
    copy, left = make_copy(workspace, info, ms.every_row(info), "DATA", weights=False)
    assert left == []
    with table(str(copy.path), ack=False) as main:
        assert (main.getcol("WEIGHT") == 1).all() and np.isfinite(main.getcol("SIGMA")).all()
        assert not main.getcol("FLAG", 0, 5).any()


def test_cells_without_arrays_in_rows_that_are_not_selected_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL))
    made(path, "CORRECTED_DATA", rows_of_spw(path, 0))
    info = ms.read_info(path)
    rows = np.array(rows_of_spw(path, 1))
    work = tmp_path / "work.ms"
    ms.copy_rows(path, work, rows, data_column="DATA")
    with ms.opened(work, write=True) as copy:
        ms.add_column(copy, "CORRECTED_DATA")
        copy.putcol("CORRECTED_DATA", 3 * copy.getcol("DATA"))
    for selected, factors in ((rows, {0: 2, 1: 3}), (rows[:-1], {0: 2, 1: 3})):
        part = commit.Part(work, selected)
        with commit.recorded_step(path, "selfcal") as step:
            commit.write_back(info, [part], step, columns={"CORRECTED_DATA": "DATA"}, flags=False)
        with table(str(path), ack=False) as main:
            for row in range(info.n_rows):
                factor = factors[main.getcell("DATA_DESC_ID", row)]
                # Where there was nothing, and nothing is written, it is DATA.
                factor = 1 if row == rows[-1] and selected.size < rows.size else factor
                want = factor * main.getcell("DATA", row)
                assert main.getcell("CORRECTED_DATA", row) == pytest.approx(want, rel=1e-6)
        commit.put_back(path, step)


def test_a_column_without_values_is_named_with_the_ms_and_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL))
    made(path, "CORRECTED_DATA", rows_of_spw(path, 0))
    info = ms.read_info(path)
    rows = np.array(rows_of_spw(path, 1))
    with (
        ms.opened(path) as main,
        pytest.raises(DataError, match=rf"a.ms: CORRECTED_DATA .* \(the first is {rows[0]}\)"),
    ):
        ms.get(ms.part(main, rows), "CORRECTED_DATA", np.arange(rows.size))
    (tmp_path / "x").mkdir()
    with pytest.raises(
        DataError, match=r"a.ms: CORRECTED_DATA has no values in 20 of the selected"
    ):
        make_copy(Workspace(tmp_path / "x", "m"), info, ms.every_row(info), "CORRECTED_DATA")
    assert not (tmp_path / "x" / "work.ms").exists()
