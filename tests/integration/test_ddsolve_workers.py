"""ddsolve on several processes: the same gains and the same columns, also when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, make_truth
from peelkit.core import dd_alternate, dd_cells, dd_layout, dd_parts, dd_solve
from peelkit.core.dd_copy import Shape
from peelkit.core.dd_plan import settle
from peelkit.core.dd_terms import TermChoice
from peelkit.core.ddsolve_options import DdOptions
from peelkit.io import ms, solvecopy
from peelkit.io.gains import read_gains
from peelkit.progress import Progress
from peelkit.selection import Selection

pytestmark = [pytest.mark.quartical, pytest.mark.slow]

ONE = (Bright(5.0, 300.0, 200.0),)
SOLVE = ("--all", "ALL", "--peel", "B1", "--g-time", "60s", "--de-time", "inf", "--de-freq", "spw",
         "--no-plots", "--inject", "60mJy@-14,-9", "--json")  # fmt: skip

real_part = dd_solve._part


def dying_part(part: dd_parts.Part, work: dd_solve.Work) -> dd_parts.Result:
    """The first worker that comes here dies halfway, with a part's folder begun."""
    dd_cells.CHUNK_VISIBILITIES = 1  # as in the test's own process
    flag = work.plan.folder / "died"
    if not flag.exists():
        flag.touch()
        dd_parts.Folder(work.plan, f"{work.name}_part{part.number}")
        os.kill(os.getpid(), signal.SIGKILL)
    return real_part(part, work)


def columns(path: Path, *names: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcol(name) for name in names]


def test_workers_give_the_gains_of_one_process_and_one_that_dies_is_survived(
    tmp_path, invoke, monkeypatch
) -> None:
    path = tmp_path / "one.ms"
    make_truth(path, ONE, replace(RECIPE, n_field=2, n_scan=4, n_time=6), seed=4)
    # A chunk for each scan and spw, so that there are parts enough: two for each spw.
    monkeypatch.setattr(dd_cells, "CHUNK_VISIBILITIES", 1)
    monkeypatch.setattr(dd_parts, "MOST_CHUNKS", 2)
    found = {}
    for name, workers in (("here", ()), ("two", ("--workers", 2))):
        target = tmp_path / f"{name}.ms"
        shutil.copytree(path, target)
        if workers:
            monkeypatch.setattr(dd_solve, "_part", dying_part)
        found[name] = json.loads(invoke("ddsolve", target, *SOLVE, *workers).stdout)["results"]
    assert (tmp_path / "two.ddsolve" / "died").exists()
    for one, other in zip(
        columns(tmp_path / "here.ms", "PEELED_DATA", "FLAG"),
        columns(tmp_path / "two.ms", "PEELED_DATA", "FLAG"), strict=True,
    ):  # fmt: skip
        # Rounding of visibilities of 5 Jy.
        np.testing.assert_allclose(one, other, atol=5e-6)
    for name in ("chi2", "flags"):
        assert found["here"][name] == pytest.approx(found["two"][name], rel=1e-6)
    # Which chunks there are does not depend on who solved them: a scan of a spw each.
    chunks = [{(c["ddid"], c["time_chunk"]) for c in found[name]["chunks"]} for name in found]
    assert chunks[0] == chunks[1] == {(ddid, n) for ddid in (0, 1) for n in range(4)}
    here, two = (found[name]["injected"][0]["recovered_fraction"] for name in ("here", "two"))
    assert here == pytest.approx(two, abs=1e-4)
    for one, other in zip(
        *(read_gains(Path(found[name]["solutions"][0]), "dE") for name in found), strict=True
    ):
        assert (one.field, one.ddid) == (other.field, other.ddid)
        # An iteration ends where gains change by less than 1e-6: the last bit of a datum decides on one more.
        np.testing.assert_allclose(one.gains, other.gains, atol=5e-6)
        np.testing.assert_array_equal(one.time_s, other.time_s)


def test_terms_in_turns_leave_noise_here_and_on_a_single_worker(
    tmp_path, invoke, monkeypatch
) -> None:
    path = tmp_path / "one.ms"
    make_truth(path, ONE, replace(RECIPE, n_scan=2, n_time=6), seed=4)
    monkeypatch.setattr(dd_alternate, "worthwhile", lambda *_: True)
    found = {}
    for name, workers in (("here", ()), ("one_worker", ("--workers", 1))):
        out = tmp_path / name
        words = ("--out", out, "--overwrite", *workers)
        found[name] = json.loads(invoke("ddsolve", path, *SOLVE, *words).stdout)["results"]
        assert {term.name for term in (out / "quartical0" / "gains").iterdir()} == {"G", "dE"}
        assert found[name]["chi2"]["solved"] == pytest.approx(1.0, abs=0.05)
    assert (tmp_path / "one_worker" / "quartical0_part0").exists()
    assert not (tmp_path / "here" / "quartical0_part0").exists()
    assert found["here"]["chi2"] == pytest.approx(found["one_worker"]["chi2"], rel=1e-6)


@pytest.mark.parametrize(("time", "fits"), [("1int", 4), ("2int", 5), ("inf", 5), ("inf", 100)])
def test_parts_are_of_the_chunks_that_one_process_has(tmp_path, monkeypatch, time, fits) -> None:
    path = tmp_path / "one.ms"
    make_truth(path, ONE, replace(RECIPE, n_scan=4, n_time=6))
    terms = (TermChoice("dE", "diag_complex", time, "spw"),)
    options = DdOptions(all_column="ALL", peel=("B1",), terms=terms, out=tmp_path / "run")
    plan = settle(ms.read_info(path), Selection(), options, Progress())
    # Integrations that the memory holds; a scan has six.
    monkeypatch.setattr(dd_layout, "_that_fit", lambda *_: fits)

    def shape_of(plan, ddids) -> Shape:
        (family,) = solvecopy.families(plan.rows.info, ddids)
        return dd_layout.shape(plan, family, dd_solve._terms(plan, family), 2, threads=1)

    def chunks(shape: Shape, ddid: int) -> list[tuple[tuple[int, int], ...]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for unit in shape.cells[ddid].units:
            found.setdefault(unit.chunk, []).append((unit.key[0], unit.index.size))
        return [tuple(one) for one in found.values()]

    whole = shape_of(plan, [0, 1])
    parts = dd_parts.split(plan, whole, 3)
    assert np.array_equal(np.sort(np.concatenate([one.rows for one in parts])), plan.rows.rows)
    for ddid in (0, 1):
        mine = [
            chunk
            for part in parts
            if ddid in part.ddids
            for chunk in chunks(shape_of(part.of(plan), part.ddids), ddid)
        ]
        assert mine == chunks(whole, ddid)
        # No scan is in two parts.
        times = [part.axes[key] for part in parts for key in part.axes if key[1] == ddid]
        assert sum(np.unique(axis.scans).size for axis in times) == 4
