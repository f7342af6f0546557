"""What protects a calibration's inputs and outputs: fingerprints, replacing an MS, the recipe's quoting."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peelkit.core.calibrate_match import match_spws, time_interp
from peelkit.core.flag_proposals import proposals
from peelkit.core.import_uvfits import put_in_place
from peelkit.core.workspace import Workspace, fingerprint, open_workspace
from peelkit.errors import DataError, OptionError
from peelkit.io.caltable import CalPart, CalTable, GainTable
from peelkit.io.ms import MsInfo, Spw
from peelkit.selection import casa_solint

A, B = (1.0e9, 1.1e9), (1.2e9, 1.3e9)


def info_of(*bands: tuple[float, float]) -> MsInfo:
    spws = tuple(
        Spw(n, "", np.array([(low + high) / 2]), np.array([high - low]), "TOPO")
        for n, (low, high) in enumerate(bands)
    )
    return MsInfo(Path("x.ms"), 0, frozenset(), (), (), spws, (), (), "")


def part(spw: int, execution: int, pols: int = 2) -> CalPart:
    """Two antennas at the 100 s of one execution."""
    one = np.ones((2, 1, pols))
    ids = np.arange(2)
    return CalPart(
        spw, np.full(2, 100.0 * execution), ids, 0 * ids, 1 + 0 * ids, np.full(2, execution),
        one.astype(complex), one < 0, 9 * one,
    )  # fmt: skip


def two_executions() -> CalTable:
    """Spws 0, 1 of one execution; 2, 3 of the next, at the same frequencies."""
    bands = (A, B, A, B)
    freq = tuple(np.array([sum(band) / 2]) for band in bands)
    parts = tuple(part(spw, spw // 2) for spw in range(4))
    return CalTable(Path("x.cal"), "G", ("a0", "a1"), freq, bands, parts)


def test_spws_alike_in_frequency_are_told_apart_by_time() -> None:
    spans = {0: {0: (0.0, 10.0)}, 1: {0: (0.0, 10.0)}, 2: {1: (90.0, 110.0)}, 3: {1: (90.0, 110.0)}}
    same = match_spws(two_executions(), info_of(A, B, A, B), [0, 1, 2, 3], spans=spans)
    assert same == ([0, 1, 2, 3], dict.fromkeys(range(4), 1.0), True)
    # An MS of the second execution only, which is its first: by the clock it is the second's.
    alone = match_spws(two_executions(), info_of(B, A), [0, 1], spans={0: {0: (95.0, 99.0)}, 1: {0: (95.0, 99.0)}})  # fmt: skip
    assert alone.spwmap == [3, 2]
    # Combined solutions are filed by execution too.
    first = replace(two_executions(), parts=(part(0, 0), part(2, 1)))
    together = match_spws(first, info_of(A, B, A, B), [0, 1, 2, 3], (0, 0, 2, 2), spans)
    assert together.spwmap == [0, 0, 2, 2]
    # Without times a spw of the same number comes first.
    assert match_spws(two_executions(), info_of(A, B, A, B), [2, 3]).spwmap[2:] == [2, 3]


def test_one_spw_in_executions_that_the_table_keeps_apart_is_refused() -> None:
    spans = {0: {0: (0.0, 10.0), 1: (90.0, 110.0)}}
    with pytest.raises(DataError, match="spw 0, 2, one for each execution"):
        match_spws(two_executions(), info_of(A), [0], spans=spans)


def test_of_data_of_one_hand_the_empty_second_is_no_failure() -> None:
    table = two_executions()
    for item in table.parts:
        item.failed[:, :, 1] = True
    assert table.counts([0, 1]) == (16, 8)
    assert table.counts([0, 1], polarisations=1) == (8, 0)


def test_an_antenna_that_fails_is_named_with_data_of_one_hand_too() -> None:
    n_time, n_ant = 12, 6
    time, antenna = (x.ravel() for x in np.mgrid[:n_time, :n_ant])
    zero = np.zeros(time.size, dtype=int)
    failed = np.zeros((time.size, 2), dtype=bool)
    failed[:, 1] = True
    failed[antenna == 4, 0] = True
    table = GainTable(
        10.0 * time, antenna, zero, zero, zero, zero, np.ones((time.size, 2), complex), failed,
        np.full((time.size, 2), 10.0),
    )  # fmt: skip
    names = [f"ea{n}" for n in range(n_ant)]
    found = proposals(table, names, calmode="p", antennas=range(n_ant))
    assert [(p.antenna, p.reason) for p in found] == [("ea4", "12 of 12 solutions failed")]


def test_an_interpolation_that_is_named_is_for_every_table() -> None:
    assert time_interp("G", "linearPD", "nearest") == "linearPD"
    # A bandpass and a delay have their frequencies in themselves.
    assert time_interp("B", "linearPDperobs", "nearest") == "linearperobs"
    assert time_interp("K", "", "nearest") == "nearest"


def test_intervals_are_spelled_in_seconds_for_casa() -> None:
    words = ("inf", "INT", "3int", "0.5min", "3int,4ch")
    spelled = [casa_solint(word, integration_s=2.0) for word in words]
    assert spelled == ["inf", "int", "6s", "30s", "6s,4ch"]


def test_a_changed_input_is_another_run(tmp_path: Path) -> None:
    mask, folder = tmp_path / "x.mask", tmp_path / "flux.cal"
    mask.write_text("one")
    folder.mkdir()
    (folder / "calibration.json").write_text("{}")
    parameters = {"choices": {"mask": mask}, "pre": (str(folder),), "out": tmp_path / "out"}
    before = fingerprint(info_of(A), parameters)
    (tmp_path / "out").mkdir()
    assert fingerprint(info_of(A), parameters) == before
    mask.write_text("another")
    second = fingerprint(info_of(A), parameters)
    assert second != before
    (folder / "calibration.json").write_text("{ }")
    assert fingerprint(info_of(A), parameters) != second


def test_what_was_refused_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "mark", {"stage": "copying"})
    workspace.save()
    workspace.ms.mkdir()
    with pytest.raises(DataError), workspace.closed_if_refused():
        raise DataError("no")
    assert not list(tmp_path.iterdir())


def make_dir(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "table.dat").write_text(content)
    return path


def test_a_replaced_ms_is_there_until_the_new_one_is(tmp_path: Path) -> None:
    out, flags = make_dir(tmp_path / "x.ms", "old"), make_dir(tmp_path / "x.ms.flagversions", "f")
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "gone.ms", out)
    assert (out / "table.dat").read_text() == "old" and (flags / "table.dat").exists()
    put_in_place(make_dir(tmp_path / "new.ms", "new"), out)
    assert (out / "table.dat").read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["x.ms"]


def test_a_target_with_a_blank_in_its_name_is_one_word_in_the_recipe(tmp_path: Path) -> None:
    # A stand-in that writes down its words: what the shell makes of them is tested, not peelkit.
    fake = tmp_path / "peelkit"
    fake.write_text('#!/bin/sh\nprintf "<%s>" "$@" >> words; echo >> words\n')
    fake.chmod(0o755)
    recipe = Path(__file__).parents[2] / "src" / "peelkit" / "recipes" / "calibrate.sh"
    subprocess.run(
        ["sh", str(recipe), "x.ms", "3C286", "3C286", "Cas A", "out"], cwd=tmp_path, check=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True,
    )  # fmt: skip
    assert "<--apply-to><Cas A><--out>" in (tmp_path / "words").read_text()


def test_a_folder_with_inputs_of_the_run_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "x.selfcal"
    folder.mkdir()
    for name in ("casa.log", "flag_proposals.txt"):
        (folder / name).write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(folder)
    for needed in (folder / "flag_proposals.txt", link / "flag_proposals.txt"):
        with pytest.raises(OptionError, match=r"flag_proposals\.txt: is in the output folder"):
            open_workspace(folder, "mark", overwrite=True, needed=[tmp_path / "x.ms", needed])
    assert (folder / "flag_proposals.txt").read_text() == "precious"
    open_workspace(folder, "mark", overwrite=True, needed=[tmp_path / "x.ms"])
    assert not (folder / "flag_proposals.txt").exists()
