"""Pieces of work on Dask's workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peelkit import memory
from peelkit.errors import DataError, EngineError, OptionError
from peelkit.spread import AHEAD, HERE, Machines, opened


def square(item: int, shared: int) -> int:
    return item * item + shared


def slower_first(item: int, _: object) -> int:
    time.sleep(0.2 * (item == 0))
    return item


def refuse(item: int, _: object) -> int:
    raise DataError(f"{item}: will not do.")


def die_once(item: Path, _: object) -> int:
    """Kill the worker the first time."""
    if not item.exists():
        item.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(_: int, __: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("address", ["head", "head:8786", "tcp://head", "tcp://:"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with (
        pytest.raises(OptionError, match=f"--dask-address {address}: .* such as tcp://head:8786"),
        opened(Machines(dask_address=address)),
    ):
        pass


def test_here_items_are_worked_on_one_after_another() -> None:
    with opened(HERE) as spread:
        assert not spread.several
        assert list(spread.run(square, [1, 2, 3], shared=10)) == [11, 14, 19]


def test_workers_give_the_same_in_the_same_order_and_take_items_as_they_need_them() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(12):
            taken.append(n)
            yield n

    with opened(Machines(workers=2)) as spread:
        assert list(spread.run(square, items(), shared=1)) == [n * n + 1 for n in range(12)]
        taken.clear()
        results = spread.run(slower_first, items())
        assert next(results) == 0
        assert len(taken) <= AHEAD * spread.count
        assert list(results) == list(range(1, 12))
        with pytest.raises(DataError, match="1: will not do"):
            list(spread.run(refuse, [1]))


def test_a_worker_that_dies_is_survived_and_one_that_always_dies_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(Machines(workers=2)) as spread:
        pids = list(spread.run(die_once, [tmp_path / f"{n}" for n in range(3)]))
        assert all(pid != os.getpid() for pid in pids)
        monkeypatch.setattr("peelkit.spread.WORKERS_S", 20)
        # Dask does not start one again that dies while it begins, which this may.
        with pytest.raises(
            EngineError, match=r"died over the same piece|none has come back"
        ) as told:
            list(spread.run(die, [0]))
        # Else the others go on.
        if "same piece" in str(told.value):
            assert list(spread.run(square, [3], shared=0)) == [9]


def test_an_address_without_a_scheduler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peelkit.spread.ANSWER_S", 1)
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x:1"):
        with (
            pytest.raises(EngineError, match="no scheduler answers at"),
            opened(Machines(0, address)),
        ):
            pass


def test_workers_of_a_scheduler_elsewhere_do_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    # All of them import what is sent around.
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    quiet = {
        "cwd": tmp_path, "env": here, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
    }  # fmt: skip
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--port", address.rpartition(":")[2], "--no-dashboard"], **quiet
    )
    workers: list[subprocess.Popen[bytes]] = []
    try:
        monkeypatch.setattr("peelkit.spread.ANSWER_S", 30)
        monkeypatch.setattr("peelkit.spread.WORKERS_S", 1)
        with pytest.raises(EngineError, match="has no workers"), opened(Machines(0, address)):
            pass
        monkeypatch.setattr("peelkit.spread.WORKERS_S", 60)

        def join() -> None:
            words = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard"]
            workers.append(subprocess.Popen(words, **quiet))

        join()
        with opened(Machines(0, address)) as spread:
            assert spread.count == 1
            # Of a queue: they come when they come.
            join()
            deadline = time.monotonic() + 60
            while spread.count < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert spread.count == 2
            assert list(spread.run(square, range(5), shared=0)) == [0, 1, 4, 9, 16]
            spread.see([tmp_path])
            with pytest.raises(EngineError, match="does not find"):
                spread.see([tmp_path / "not there"])
            results = spread.run(square, range(1000), shared=0)
            next(results)
            scheduler.kill()
            with pytest.raises(EngineError, match="is gone"):
                list(results)
    finally:
        for process in [*workers, scheduler]:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def chunk(_: int, __: object) -> int:
    return memory.chunk_bytes()


def test_workers_here_share_the_limit_of_memory_of_the_command() -> None:
    with memory.limited(1.0, processes=3), opened(Machines(workers=1)) as spread:
        # One is enough for others than this process to do the work.
        assert spread.several and spread.count == 1
        assert list(spread.run(chunk, [0])) == [memory.chunk_bytes()]
        assert memory.chunk_bytes() < memory.chunk_bytes(2.0)


def test_a_worker_with_several_threads_is_refused() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as two,
        pytest.raises(EngineError, match=r"has 2 threads.*--nthreads 1"),
        opened(Machines(0, two.scheduler_address)),
    ):
        pass
