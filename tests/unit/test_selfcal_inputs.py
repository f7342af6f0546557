"""What a self-calibration starts from: weights of its column, executions and spws that have what it needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import linechannels, selfcal, selfcal_plan, selfcal_rounds
from peelkit.core.selfcal_session import SelfcalOptions
from peelkit.core.workspace import Workspace, make_copy
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.survey import survey
from peelkit.progress import Progress
from peelkit.selection import Selection

SMALL = {"n_antenna": 5, "n_scan": 2, "n_time": 2, "seed": 1}


def column(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol(name))


@pytest.mark.parametrize("data_column", ["DATA", "CORRECTED_DATA"])
def test_sigma_of_the_copy_is_that_of_its_column(tmp_path: Path, data_column: str) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL))
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "CORRECTED_DATA")
        main.putcol("CORRECTED_DATA", main.getcol("DATA"))
        # As applycal with calwt leaves it: WEIGHT is of CORRECTED_DATA, SIGMA of DATA.
        weight = main.getcol("WEIGHT") * np.linspace(0, 2, main.nrows(), dtype=np.float32)[:, None]
        main.putcol("WEIGHT", weight)
        sigma = main.getcol("SIGMA")
    info = ms.read_info(path)
    (tmp_path / "x").mkdir()
    workspace = Workspace(tmp_path / "x", "mark")
    make_copy(workspace, info, ms.every_row(info), data_column)
    assert np.array_equal(column(workspace.ms, "WEIGHT"), weight)
    found = column(workspace.ms, "SIGMA")
    if data_column == "DATA":
        assert np.array_equal(found, sigma)
    else:
        good = weight > 0
        assert found[good] == pytest.approx(weight[good] ** -0.5, rel=1e-6)
        assert not good[0].any() and (found[~good] == -1).all()


def test_weights_of_a_round_that_was_taken_back_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL, weight_spectrum=True))
    before = {name: column(path, name) for name in ("DATA", "WEIGHT", "WEIGHT_SPECTRUM")}
    with ms.opened(path, write=True) as main:
        for name in ("CORRECTED_DATA", "MODEL_DATA"):
            ms.add_column(main, name)
            main.putcol(name, 2 * main.getcol("DATA"))
        for name in ("WEIGHT", "WEIGHT_SPECTRUM"):
            main.putcol(name, 3 * main.getcol(name))
    session = SimpleNamespace(work=ms.read_info(path), options=SimpleNamespace(calwt=True))
    selfcal_rounds.reset_corrected(session)
    assert np.array_equal(column(path, "CORRECTED_DATA"), before["DATA"])
    for name in ("WEIGHT", "WEIGHT_SPECTRUM"):
        assert column(path, name) == pytest.approx(before[name], rel=1e-5)


def test_an_execution_without_a_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "two.ms"
    make_ms(path, MsRecipe(**SMALL, n_chan=(4, 4), executions=2))
    info = ms.read_info(path)
    whole = survey(info, Selection())
    assert len(whole.observations) == 2
    first = survey(info, Selection(spw=str(whole.spws_of(whole.observations[0])[0])))
    with pytest.raises(DataError, match="no line was found in execution 1"):
        selfcal._require_lines(info, Selection(), first, Progress())
    selfcal._require_lines(info, Selection(), whole, Progress())


def test_spws_without_a_line_get_no_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(**SMALL, n_chan=(4, 4)))
    info = ms.read_info(path)
    line = SimpleNamespace(spw=0, selection="0:1~2", hand_ratio=1.0)
    monkeypatch.setattr(linechannels, "find_lines", lambda *_: [line])
    options = SelfcalOptions(line=True, gaintypes=("delay_and_offset",))
    with pytest.raises(OptionError, match=r"delay_and_offset: is solved .* others \(1\)"):
        selfcal._line(info, Selection(), options, "DATA")
    narrowed, *_ = selfcal._line(info, Selection(spw="0"), options, "DATA")
    assert narrowed.spw == "0:1~2"


@pytest.mark.parametrize(
    ("model", "word"), [((Path("m"),), "--mask"), ((), "nothing to calibrate on")]
)
def test_an_empty_mask_is_refused_with_the_remedy(model: tuple[Path, ...], word: str) -> None:
    session = SimpleNamespace(
        mask=np.zeros((4, 4), bool), info=SimpleNamespace(path=Path("a.ms")),
        options=SimpleNamespace(model=model, mask_threshold=4.5),
    )  # fmt: skip
    told = selfcal_plan.gate(session)
    assert told is not None and "no source stands out" in told and word in told
