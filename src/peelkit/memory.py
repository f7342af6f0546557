"""How much memory a command may take: one limit, from which the pieces of data get their size.

The limit is the option ``--memory`` of the command that runs (`limited`); the code that reads data asks
`chunk_bytes`. It belongs to the command and its thread, as the working directory does, so that it is not
handed through every function; a worker in another process begins its own `limited` block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

GIB = 2**30

# Of --memory [GiB].
DEFAULT_GIB = 2.0
LEAST_GIB = 0.5

# An idle peelkit: the interpreter with numpy, casacore, astropy and scipy (measured: 150 to 260 MiB resident).
BASE_BYTES = 320 * 2**20

# No process comes below this, with what it shares counted once (measured: 8 workers and their parent 0.8 GiB).
LEAST_PROCESS_GIB = 0.1

# What is alive for each nominal byte of a chunk. The readers of `peelkit.io.ms.chunks` say how many bytes a
# sample takes, most of them too few: columns, temporaries, and in threads several chunks at a time
# (measured, tests/integration/test_memory.py: up to 12 nominal chunks, in ddsolve).
ALIVE = 24

# Larger pieces are not faster: columns are read as fast in pieces of 5 MB.
MOST_CHUNK_BYTES = 64 * 2**20

# Row numbers and ids are looked at in windows of so many rows, whatever the size of the MS.
ROW_WINDOW = 2**20

_limit_gib: ContextVar[float] = ContextVar("peelkit memory limit [GiB]", default=DEFAULT_GIB)
_processes: ContextVar[int] = ContextVar("processes that share the limit", default=1)


@contextlib.contextmanager
def limited(gib: float, *, processes: int = 1) -> Iterator[None]:
    """Let what runs in this block take about ``gib`` GiB in all of our processes together.

    ``processes`` counts this one, and workers on this machine that work on pieces of the same data.
    """
    tokens = _limit_gib.set(gib), _processes.set(processes)
    try:
        yield
    finally:
        _limit_gib.reset(tokens[0])
        _processes.reset(tokens[1])


def limit_gib() -> float:
    """The limit [GiB]."""
    return _limit_gib.get()


def processes() -> int:
    """Processes on this machine that share it."""
    return _processes.get()


def child_gib() -> float:
    """What the engine of one process may take [GiB]: its share of the limit, without what the process has itself."""
    return max(limit_gib() / processes() - BASE_BYTES / GIB, LEAST_GIB / 4)


def chunk_bytes(gib: float | None = None) -> int:
    """Size of a piece of data [B], as its reader reckons it; of the limit that holds if not given."""
    room = (limit_gib() if gib is None else gib) * GIB / _processes.get() - BASE_BYTES
    return int(min(MOST_CHUNK_BYTES, max(2**20, room / ALIVE)))


__all__ = [
    "BASE_BYTES",
    "DEFAULT_GIB",
    "GIB",
    "LEAST_GIB",
    "LEAST_PROCESS_GIB",
    "ROW_WINDOW",
    "child_gib",
    "chunk_bytes",
    "limit_gib",
    "limited",
    "processes",
]
