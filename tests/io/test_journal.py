"""Steps that changed an MS can be put back, also after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import commit, undo
from peelkit.io import journal, ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "a.ms"
    make_ms(target, MsRecipe(n_antenna=5, n_scan=1, n_time=2, seed=3))
    with ms.opened(target, write=True) as main:
        ms.add_column(main, "CORRECTED_DATA")
        main.putcol("CORRECTED_DATA", 7 * main.getcol("DATA"))
    return target


def columns(path: Path) -> dict[str, np.ndarray]:
    with table(str(path), ack=False) as main:
        return {
            n: main.getcol(n)
            for n in ("DATA", "CORRECTED_DATA", "FLAG", "MODEL_DATA")
            if n in main.colnames()
        }


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def change(path: Path, step: journal.Step, value: float) -> journal.Step:
    for name in ("CORRECTED_DATA", "MODEL_DATA"):
        step = journal.new_column(path, step, name)
        with ms.opened(path, write=True) as main:
            main.putcol(name, value * main.getcol("DATA"))
    return step


def test_a_finished_step_is_put_back(path: Path) -> None:
    before = columns(path)
    step = journal.begin(path, "selfcal")
    step = change(path, step, 2.0)
    journal.finish(path, step)
    assert np.array_equal(columns(path)["CORRECTED_DATA"], 2 * before["DATA"])
    assert [(s.id, s.command, s.finished) for s in journal.steps(path)] == [(1, "selfcal", True)]
    journal.put_back_columns(path)
    assert same(columns(path), before)
    assert journal.steps(path) == []
    with table(str(path), ack=False) as main:
        assert not [name for name in main.colnames() if "BEFORE" in name]


def test_steps_nest(path: Path) -> None:
    states = [columns(path)]
    for value in (2.0, 3.0):
        journal.finish(path, change(path, journal.begin(path, "selfcal"), value))
        states.append(columns(path))
    for state in (states[1], states[0]):
        journal.put_back_columns(path)
        assert same(columns(path), state)


@pytest.mark.parametrize("killed_in", ["begin", "rename", "add"])
def test_a_killed_step_is_recovered_by_the_next_command(
    path: Path, killed_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = columns(path)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    step = journal.begin(path, "selfcal")
    if killed_in == "rename":
        # After the old column was renamed, before the new one was made.
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(ms, "add_column", die)
            journal.new_column(path, step, "CORRECTED_DATA")
    elif killed_in == "add":
        change(path, step, 5.0)
    assert journal.unfinished(path) is not None
    recovered = commit.recover(path)
    assert recovered is not None and recovered.command == "selfcal"
    assert same(columns(path), before)
    assert commit.recover(path) is None


def test_forgetting_drops_the_kept_columns_only(path: Path) -> None:
    journal.finish(path, change(path, journal.begin(path, "selfcal"), 2.0))
    after = columns(path)
    assert journal.forget(path) == 1
    assert same(columns(path), after)
    assert journal.steps(path) == []


def test_history_needs_no_name_of_the_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    ms.add_history(path, command="x", message="y", parameters={})
    with table(f"{path}/HISTORY", ack=False) as sub:
        assert f"({os.getuid()})" in str(sub.getcell("CLI_COMMAND", sub.nrows() - 1))


def test_undo_without_the_flag_version_puts_the_columns_back_and_says_so(path: Path) -> None:
    before = columns(path)
    step = change(path, journal.begin(path, "selfcal", flag_version=True), 3.0)
    journal.finish(path, step)
    assert not same(columns(path), before)
    outcome = undo.undo(path)
    assert same(columns(path), before) and journal.steps(path) == []
    assert "peelkit_1_selfcal is not in a.ms.flagversions any more" in outcome.warnings[0]
