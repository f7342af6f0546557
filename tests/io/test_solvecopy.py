"""Copies for the solve: hidden data come back, and a copy is taken only for what it is a copy of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import dd_heldout
from peelkit.io import ms, solvecopy


def test_held_out_data_are_flagged_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_time=4))
    rng = np.random.default_rng(0)
    with table(str(path), readonly=False, ack=False) as main:
        before = rng.random(main.getcol("FLAG").shape) < 0.3
        main.putcol("FLAG", before)
        names = set(main.colnames())
    rows = np.arange(before.shape[0]) + 1000
    hidden = dd_heldout.held_out(rows, before.shape[1])
    dd_heldout.hide(path, rows)
    with table(str(path), ack=False) as main:
        np.testing.assert_array_equal(main.getcol("FLAG"), before | hidden[:, :, None])
    dd_heldout.unhide(path)
    with table(str(path), ack=False) as main:
        np.testing.assert_array_equal(main.getcol("FLAG"), before)
        assert set(main.colnames()) == names


def test_a_copy_is_taken_for_the_same_data_only(tmp_path: Path) -> None:
    path = tmp_path / "x.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_time=4))
    info = ms.read_info(path)
    rows, scans = np.arange(20), np.zeros(20, dtype=int)
    words = solvecopy.mark(info, rows, scans, "DATA", {0: 1.0})
    assert words == solvecopy.mark(info, rows.copy(), scans.copy(), "DATA", {0: 1.0})
    others = [
        solvecopy.mark(info, rows + 1, scans, "DATA", {0: 1.0}),
        solvecopy.mark(info, rows, scans + 1, "DATA", {0: 1.0}),
        solvecopy.mark(info, rows, scans, "CORRECTED_DATA", {0: 1.0}),
        solvecopy.mark(info, rows, scans, "DATA", {0: 1.5}),
    ]
    assert words not in others
    copy, target = tmp_path / "probe0.ms", tmp_path / "quartical0.ms"
    copy.mkdir()
    (copy / "table.dat").write_text("x")
    assert not solvecopy.take(tmp_path, words, target)
    solvecopy.leave(copy, words)
    assert not any(solvecopy.take(tmp_path, other, target) for other in others)
    assert solvecopy.take(tmp_path, words, target)
    assert [item.name for item in target.iterdir()] == ["table.dat"] and not copy.exists()
    solvecopy.drop(tmp_path)
    assert target.exists()
    solvecopy.leave(target, words)
    solvecopy.drop(tmp_path)
    assert not target.exists() and path.exists()
