"""Pieces worked on in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peelkit.parallel import MOST, Aside, in_order


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order(threads: int) -> None:
    def late(n: int) -> int:
        time.sleep(0.01 * (n % 3 == 0))
        return n * n

    assert list(in_order(late, range(20), threads=threads)) == [n * n for n in range(20)]


def test_only_some_items_are_alive() -> None:
    taken: list[int] = []
    done = 0

    def items() -> Iterator[int]:
        for n in range(30):
            taken.append(n)
            yield n

    for _ in in_order(lambda n: n, items(), threads=100):
        done += 1
        assert len(taken) - done <= MOST
    assert done == 30


def test_what_a_piece_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 / n, [1, 0, 2], threads=2))


def test_work_aside_is_done_by_another_thread_and_waited_for() -> None:
    aside, gate = Aside(), threading.Event()
    threads: list[int] = []

    def work(name: str) -> list[Path]:
        gate.wait(5)
        threads.append(threading.get_ident())
        return [Path(name)]

    aside.begin(work, "a")
    aside.begin(work, "b")
    assert not threads
    gate.set()
    assert aside.files() == [Path("b"), Path("a")]
    assert threading.get_ident() not in threads
    aside = Aside()
    aside.begin(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        aside.files()
