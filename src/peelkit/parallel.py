"""Work on pieces of data in threads: numpy lets go of the interpreter in its loops."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

# Threads at most: each has a block of data, and the interpreter is one.
MOST = 4

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use: OMP_NUM_THREADS of them at most, which Dask sets for its workers."""
    there = len(os.sched_getaffinity(0))
    words = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(there, int(words)) if words.isdigit() and int(words) else there


class Aside:
    """Work that nothing waits for until its files are asked for, one thing after another in a thread.

    What it raises is raised then.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._begun: list[Future[list[Path]]] = []

    def begin(self, function: Callable[..., list[Path]], *arguments: object) -> None:
        """Do ``function(*arguments)``, which makes files."""
        self._begun.append(self._pool.submit(function, *arguments))

    def files(self) -> list[Path]:
        """Wait for all; the files that they made, last work first."""
        self._pool.shutdown()
        return [path for one in reversed(self._begun) for path in one.result()]


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 0
) -> Iterator[Result]:
    """Results of ``function`` in the order of ``items``, some of which are worked on at the same time.

    Items are taken by the caller's thread, and only one more than there are threads are alive, so that
    memory is bounded where they are blocks of data. What ``function`` raises is raised here.

    Parameters
    ----------
    threads : int
        0 is one for each core; `MOST` at most.
    """
    count = min(threads or cores(), MOST)
    if count < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
