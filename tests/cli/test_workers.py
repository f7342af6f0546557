"""``predict-region`` and ``add-model-col`` over workers: the same columns, and what happens when some die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makemodel import RA_DEG, SIZE, write_model
from makems import MsRecipe, make_ms
from peelkit.core import columns, predict_blocks
from peelkit.io import journal, ms

pytestmark = pytest.mark.slow

# Six spws are six blocks at least, with three fields in each.
RECIPE = MsRecipe(
    n_antenna=7, n_scan=6, n_time=2, n_field=3, n_chan=(3, 5, 3, 4, 8, 3), frame="ICRS", seed=5,
    field_step_rad=0.001, n_corr=4, telescope="EVLA",
)  # fmt: skip
PREDICT = (
    "--model", "x.model.fits", "--pb", "x.pb.fits", "--regions", "two.reg", "--shape", "clean",
    "--rest-column", "REST", "--all-column",
)  # fmt: skip
COLUMNS = ("A", "B", "REST", "ALL_SKY_MODEL")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MS of three fields and six spws, a mosaic's model and beam, and regions."""
    folder = tmp_path_factory.mktemp("source")
    make_ms(folder / "a.ms", RECIPE)
    plane = np.zeros((SIZE, SIZE))
    # Two sources, and so many components beside them that they go on a grid.
    plane[400, 300], plane[100, 120] = 2.0, 1.5
    plane[200:230, 240:270] = 0.01
    # Not LSRK, whose Doppler shift may differ between processes: what is looked at here is the spreading.
    one = {"centre": (RA_DEG, 30.0), "specsys": "TOPOCENT"}
    write_model(folder / "x.model.fits", [plane], **one)
    write_model(folder / "x.pb.fits", [np.full((SIZE, SIZE), 0.8)], **one)
    lines = ("circle(301,401,5) # text={A}", "circle(121,101,5) # text={B}")
    (folder / "two.reg").write_text(
        "\n".join(["# Region file format: DS9 version 4.1", "image", *lines]) + "\n"
    )
    return folder


@pytest.fixture
def ready(source: Path, copy_ms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The MS, to be changed; blocks are small, so that there are many."""
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(predict_blocks, "BLOCK_CHUNKS", 1 / 2500)
    monkeypatch.setattr(columns, "SPREAD_SAMPLE_BYTES", 20_000)
    monkeypatch.setattr("peelkit.spread.WORKERS_S", 3)
    return copy_ms(source / "a.ms")


def cells(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.concatenate([main.getcell(name, row).ravel() for row in range(main.nrows())])


def contents(path: Path) -> dict[str, np.ndarray]:
    return {name: cells(path, name) for name in COLUMNS}


def same(here: np.ndarray, there: np.ndarray) -> bool:
    """Equal to the accuracy of a prediction, `peelkit.engines.ducc.EPSILON`.

    Workers here share the limit of memory, so that blocks are smaller: some are summed that are gridded else.
    """
    return bool(np.abs(here - there).max() <= 1e-6 * np.abs(here).max())


class Cluster:
    """A scheduler and two workers, as a user starts them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
        self._folder = folder
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start("scheduler", "--port", port, "--no-dashboard")
        self.workers = [
            self._start("worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
            for _ in range(2)
        ]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words], cwd=self._folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def end(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    monkey = pytest.MonkeyPatch()
    monkey.setattr("peelkit.spread.ANSWER_S", 60)
    one = Cluster(tmp_path)
    # Both have to be there before one is killed.
    from distributed import Client

    with Client(one.address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield one
    one.end()
    monkey.undo()


def killing(monkeypatch: pytest.MonkeyPatch, *processes: subprocess.Popen[bytes]) -> None:
    """Kill processes when the first block of results is written."""
    put = ms.put
    left = list(processes)

    def put_and_kill(*given: object) -> None:
        put(*given)  # type: ignore[arg-type]
        while left:
            process = left.pop()
            process.kill()
            process.wait()

    monkeypatch.setattr(ms, "put", put_and_kill)


def test_workers_predict_the_same_columns(invoke, ready: Path) -> None:
    invoke("predict-region", ready, *PREDICT)
    here = contents(ready)
    assert np.abs(here["ALL_SKY_MODEL"]).max() > 1
    invoke("predict-region", ready, *PREDICT, "--overwrite", "--workers", 2)
    there = contents(ready)
    for name in COLUMNS:
        assert same(here[name], there[name]), name
    found = invoke(
        "predict-region", ready, *PREDICT, "--overwrite", "--workers", 2, "--predictor", "tclean",
        code=2,
    )  # fmt: skip
    assert "go with --predictor ducc only" in found.stderr


def test_more_workers_than_the_memory_holds_are_refused(invoke, ready: Path) -> None:
    words = ("predict-region", ready, *PREDICT, "--workers", 8, "--memory")
    refused = invoke(*words, 0.5, code=2).stderr
    assert (
        "--workers 8: with this process they take 0.9 GiB at least, more than --memory 0.5"
        in refused
    )
    assert "give --memory 0.9, or fewer workers" in refused
    told = [
        json.loads(invoke(*words[:-3], *more, "--dry-run", "--json").stdout)["results"][
            "memory_bytes"
        ]
        for more in ((), ("--workers", 2), ("--workers", 8))
    ]
    assert told[2] - told[1] == pytest.approx(3 * (told[1] - told[0]), rel=0.05)
    assert told[2] - told[0] > 0.8 * 2**30


def test_workers_sum_the_same_column_and_find_the_same_in_it(invoke, ready: Path) -> None:
    with table(str(ready), readonly=False, ack=False) as main:
        ms.add_column(main, "A")
        for row in range(main.nrows()):
            main.putcell("A", row, main.getcell("DATA", row) * np.exp(1j * (row + 1)))
    words = ("add-model-col", ready, "SUM", "--expression", "DATA-A", "--field", "0,2", "--json")
    here = invoke(*words).stdout
    first = cells(ready, "SUM")
    there = invoke(*words, "--overwrite", "--workers", 2).stdout
    assert np.array_equal(first, cells(ready, "SUM")) and np.abs(first).max() > 0
    one, other = (json.loads(text)["results"] for text in (here, there))
    for name in ("groups", "findings", "zero_fraction", "max_amplitude_jy", "rows"):
        assert one[name] == other[name], name


def test_a_worker_that_is_killed_is_survived(
    invoke, ready: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("predict-region", ready, *PREDICT)
    here = contents(ready)
    killing(monkeypatch, cluster.workers[0])
    words = ("--overwrite", "--dask-address", cluster.address)
    invoke("predict-region", ready, *PREDICT, *words)
    assert cluster.workers[0].poll() is not None and cluster.workers[1].poll() is None
    for name, values in contents(ready).items():
        assert same(here[name], values), name


@pytest.mark.parametrize("command", ["predict-region", "add-model-col"])
@pytest.mark.parametrize("who", ["scheduler", "workers"])
def test_without_scheduler_or_workers_the_ms_is_as_it_was(
    invoke, ready: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, who: str, command: str
) -> None:
    killing(monkeypatch, *([cluster.scheduler] if who == "scheduler" else cluster.workers))
    with table(str(ready), ack=False) as main:
        before = set(main.colnames())
    words = PREDICT if command == "predict-region" else ("COPY", "--expression", "DATA")
    found = invoke(command, ready, *words, "--dask-address", cluster.address, code=4)
    message = "is gone" if who == "scheduler" else "has had no workers"
    assert message in " ".join(found.stderr.split()) and "Traceback" not in found.stderr
    with table(str(ready), ack=False) as main:
        assert set(main.colnames()) == before
    assert journal.steps(ready) == []
