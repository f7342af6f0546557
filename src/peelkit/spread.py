"""Pieces of work on several processes or machines, by Dask distributed, or one after another here.

Dask is imported only where workers were asked for: it takes a second.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from peelkit import __version__, memory
from peelkit.errors import EngineError, OptionError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long a scheduler may take to answer, and to have a worker [s].
ANSWER_S, WORKERS_S = 15, 60

# How often it is looked whether there still are workers [s].
LOOK_S = 2

# Pieces that are sent out at a time, for each worker: one is worked on while the next one travels.
AHEAD = 2


@dataclass(frozen=True)
class Machines:
    """Where pieces of work are done.

    Parameters
    ----------
    workers : int
        Processes on this machine, of one thread each; 0 is none: all is done in this process.
    dask_address : str
        Dask's scheduler, such as ``tcp://head:8786``, whose workers see the same folders.
    """

    workers: int = 0
    dask_address: str = ""

    @property
    def several(self) -> bool:
        """Other processes do the work."""
        return bool(self.workers or self.dask_address)


HERE = Machines()


class Spread:
    """Does pieces of work, here. `opened` gives one; with `Machines.several` on Dask's workers."""

    @property
    def count(self) -> int:
        """Pieces that are worked on at the same time."""
        return 1

    @property
    def several(self) -> bool:
        """Other processes do the work, one at least; where not, threads of this one may be better."""
        return False

    def run(
        self, function: Callable[..., Result], items: Iterable[Item], *, shared: object = None
    ) -> Iterator[Result]:
        """Results of ``function(item, shared)`` in the order of ``items``.

        Items are taken as they are needed, `AHEAD` for each worker, so that memory is bounded where they
        are blocks of data. What ``function`` raises is raised here.

        Parameters
        ----------
        function : callable
            Of a module (workers import it). A piece is done again elsewhere if its worker dies: it must
            leave nothing that is in the way then, and write into no MS that others write.
        items : iterable
            What is sent to the workers, one each: small, or as much as is computed from it.
        shared : object
            Sent to each worker once.
        """
        for item in items:
            yield function(item, shared)

    def see(self, paths: Sequence[Path]) -> None:
        """Make sure that every worker finds ``paths``.

        Raises
        ------
        EngineError
            If one does not: it is a machine without the shared folder.
        """


# Of who does not say where.
IN_PROCESS = Spread()


class _DaskSpread(Spread):
    """Sends them to the workers of a scheduler."""

    def __init__(self, client: Any, address: str, *, ours: bool) -> None:
        self._client = client
        self._ours = ours
        self._address = address
        self._gone = False
        self._count = 1

    @property
    def count(self) -> int:
        """How many are there now: workers come later, and die."""
        # For a scheduler that is gone nobody waits: what becomes of its pieces tells that it is.
        if self._client.status == "running":
            with suppress(OSError):
                threads = self._client.nthreads(callback_timeout=LOOK_S)
                self._count = max(1, sum(threads.values()))
        return self._count

    @property
    def several(self) -> bool:
        return True

    def run(
        self, function: Callable[..., Result], items: Iterable[Item], *, shared: object = None
    ) -> Iterator[Result]:
        # Not scattered: what only workers have is lost with them; the result of a task is made again.
        to_all = self._client.submit(_same, shared, pure=False)
        command = _Command(memory.limit_gib(), memory.processes(), __version__)
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(
                    self._client.submit(_within, command, function, item, to_all, pure=False)
                )
                if len(waiting) >= AHEAD * self.count:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            if not self._gone:
                self._client.cancel([*waiting, to_all], force=True)

    def _result(self, future: Any) -> Any:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError

        alone_since: float | None = None
        try:
            while True:
                try:
                    return future.result(timeout=LOOK_S)
                except TimeoutError:
                    if future.status == "error":
                        return future.result()  # which raises it
                # A scheduler without workers keeps the work for those that may come.
                if self._client.nthreads():
                    alone_since = None
                    continue
                now = time.monotonic()
                alone_since = now if alone_since is None else alone_since
                if now - alone_since > WORKERS_S:
                    raise self._alone()
        except KilledWorker as error:
            raise EngineError(
                f"Dask: {error.last_worker.address} and other workers died over the same piece of work, "
                f"{error.allowed_failures + 1} times; their logs say why (often memory: give --memory, "
                "or fewer workers on a machine)."
            ) from error
        except (CancelledError, FutureCancelledError, CommClosedError) as error:
            self._gone = True
            raise EngineError(
                f"Dask: the scheduler at {self._address} is gone; nothing more is written. Start it and "
                "its workers again, and run the command anew."
            ) from error

    def _alone(self) -> EngineError:
        if self._ours:
            # Dask starts a worker that died again, unless it dies as it begins: then never more.
            return EngineError(
                f"Dask: all workers that were started here died, and none has come back for {WORKERS_S} s; "
                "often memory: give --memory, or fewer --workers."
            )
        return EngineError(
            f"Dask: the scheduler at {self._address} has had no workers for {WORKERS_S} s; nothing more "
            "is written. Start some, and run the command anew."
        )

    def see(self, paths: Sequence[Path]) -> None:
        wanted = [str(path.absolute()) for path in paths]
        for worker, missing in self._client.run(_missing, wanted).items():
            if missing:
                raise EngineError(
                    f"Dask: worker {worker} does not find {missing[0]}; workers need the same shared "
                    "folders under the same paths."
                )


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


@dataclass(frozen=True)
class _Command:
    """What workers know of the command: its limit of memory [GiB], the processes that share it, and its release."""

    limit_gib: float
    processes: int
    release: str


def _within(
    command: _Command, function: Callable[..., Result], item: object, shared: object
) -> Result:
    """On a worker: ``function(item, shared)`` under the limit of memory of the command."""
    if command.release != __version__:
        # One that came after `_check`.
        raise _other_release("a worker", __version__, command.release)
    with memory.limited(command.limit_gib, processes=command.processes):
        return function(item, shared)


def _other_release(worker: str, release: str, ours: str) -> EngineError:
    return EngineError(
        f"Dask: {worker} has peelkit {release}, this is {ours}; start it with the same Python environment."
    )


def _same(value: object) -> object:
    return value


def _release() -> str:
    return __version__


@contextmanager
def opened(machines: Machines) -> Iterator[Spread]:
    """A `Spread` over ``machines``; workers that it started end with the block.

    Raises
    ------
    OptionError
        If the address is none.
    EngineError
        If no scheduler answers, it has no workers, or they have another peelkit or several threads.
    """
    if not machines.several:
        yield Spread()
        return
    # inproc, of this process, has no port.
    address = r"[a-z]+://\S+:\d+|inproc://\S+"
    if machines.dask_address and not re.fullmatch(address, machines.dask_address):
        raise OptionError(
            f"--dask-address {machines.dask_address}: is no address; give PROTOCOL://HOST:PORT, as "
            "'dask scheduler' prints it, such as tcp://head:8786."
        )
    import dask
    from distributed import Client, LocalCluster

    # Its words about lost workers and closed connections are not for the user; the errors here are.
    for name in [*logging.root.manager.loggerDict]:
        # It gives some of its modules levels of their own.
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": ANSWER_S}))
        if machines.dask_address:
            address = machines.dask_address
            log.info("Dask: connecting to the scheduler at %s", address)
        else:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=machines.workers,
                    threads_per_worker=1,
                    processes=True,
                    # Blocks of data are bounded by --memory; Dask would kill a worker, or pause it.
                    memory_limit=0,
                    # Any free port: 8787, the usual one, may be taken.
                    dashboard_address=":0",
                    silence_logs=logging.CRITICAL,
                )
            )
            address = cluster.scheduler_address
        try:
            client = stack.enter_context(
                Client(address, timeout=ANSWER_S, set_as_default=False, direct_to_workers=True)
            )
        except (OSError, ValueError) as error:
            raise EngineError(
                f"Dask: no scheduler answers at {address}; start one with 'dask scheduler', or leave "
                "--dask-address out."
            ) from error
        _check(client, address)
        if machines.dask_address:
            log.info(
                "Dask at %s, %d threads: %s", address, len(client.nthreads()), client.dashboard_link
            )
        yield _DaskSpread(client, address, ours=not machines.dask_address)


def _check(client: Any, address: str) -> None:
    """See that there are workers, of one thread each, and that they have this peelkit."""
    if not client.nthreads():
        log.info("Dask: waiting for workers at %s, %d s at most", address, WORKERS_S)
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError as error:
        raise EngineError(
            f"Dask: the scheduler at {address} has no workers; start some with 'dask worker {address}'."
        ) from error
    for worker, threads in client.nthreads().items():
        # One process of QuartiCal's, one limit of memory and one working directory belong to a process.
        if threads != 1:
            raise EngineError(
                f"Dask: worker {worker} has {threads} threads, and pieces of work are for one; start it with "
                "--nthreads 1."
            )
    try:
        releases = {"the scheduler": client.run_on_scheduler(_release), **client.run(_release)}
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f"Dask: the scheduler at {address} or a worker has no peelkit of this version ({__version__}): "
            f"{error}; start them with the same Python environment."
        ) from error
    for worker, release in releases.items():
        if release != __version__:
            raise _other_release(worker, release, __version__)
