"""The child that runs casatasks: one JSON request a line on stdin, one JSON reply a line.

Standard library and casatasks only; nothing of peelkit is imported, so that python-casacore and
casatools never meet in one process. Usage: ``_casa_worker.py FIFO LOG``.
"""

import contextlib
import importlib.abc
import importlib.util
import json
import math
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

# How often processes look for commands and replies under MPI, and for all else [s].
POLL_S, WATCH_S = 0.002, 0.1

# Of larger images no imager is kept, which has 16 bytes a pixel.
KEPT_PIXELS = 4096**2
# The request to let the imager go that is kept.
FORGET = "forget"


def find_data(config: Any) -> tuple[str, list[str]]:
    """Folder with CASA's measures data: the user's own, else casadata's, else python-casacore's."""
    import importlib.util

    def usable(folder: str) -> bool:
        return bool(folder) and os.path.exists(os.path.join(folder, "geodetic", "IERSeop2000"))

    own = os.path.expanduser(config.measurespath or "")
    if usable(own):
        return own, [os.path.expanduser(path) for path in config.datapath] or [own]
    candidates = []
    with contextlib.suppress(ImportError):
        import casadata

        candidates.append(casadata.datapath)
    # find_spec does not import casacore.
    spec = importlib.util.find_spec("casacore")
    if spec and spec.origin:
        candidates.append(os.path.join(os.path.dirname(spec.origin), "data"))
    for folder in candidates:
        if usable(folder):
            return folder, [folder]
    raise RuntimeError(
        "CASA's measures data are nowhere: not in ~/.casa/data, casadata or python-casacore; "
        "install casadata"
    )


class Later(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has each task of casatasks imported when it is called.

    The package imports all of its 120 tasks, with scipy and matplotlib, and took 2.2 s to start; so it takes 0.5 s.
    """

    def find_spec(self, name: str, path: Any, _target: Any = None) -> Any:
        package, _, task = name.rpartition(".")
        if package != "casatasks" or task == "private" or task.startswith("_"):
            return None
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, _spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        package, _, task = module.__name__.rpartition(".")

        def call(*given: Any, **named: Any) -> Any:
            sys.meta_path.remove(self)
            try:
                del sys.modules[module.__name__]
                real = getattr(importlib.import_module(module.__name__), task)
            finally:
                sys.meta_path.insert(0, self)
            # The import has put the module there.
            setattr(sys.modules[package], task, real)
            return real(*given, **named)

        setattr(module, task, call)


def start(log: str, processes: int) -> tuple[Any, str]:
    """Import casatasks with its data found and its log where we want it; process 0 alone returns."""
    # casaconfig parses sys.argv when it is imported.
    sys.argv = sys.argv[:1]
    import casaconfig.config as config

    data, datapath = find_data(config)
    config.measurespath = data
    config.datapath = datapath
    # An engine call is not the time for downloads.
    config.measures_auto_update = config.data_auto_update = False
    config.logfile = log
    config.log2term = False
    config.nogui = config.agg = True
    config.casaconfig_verbose = 0
    if processes > 1:
        join(processes)
    sys.meta_path.insert(0, Later())
    # Under MPI all but process 0 serve in here until that ends, and never return.
    import casatasks

    if processes > 1:
        from casatasks.private.imagerhelpers import parallel_imager_helper as helper

        # It looks each second whether all have done their part.
        helper.time = types.SimpleNamespace(sleep=lambda _seconds: time.sleep(POLL_S))
    return casatasks, data


def join(processes: int) -> None:
    """Be one of those that mpirun started, ``processes`` that serve and process 0."""
    try:
        from casampi.MPIEnvironment import MPIEnvironment
    except ImportError as error:
        raise RuntimeError(
            f"PEELKIT_CASA_PROCESSES={processes} needs casampi in CASA's Python ({error}): 'pip install casampi', or "
            "unset it"
        ) from error
    if MPIEnvironment.mpi_world_size != processes + 1:
        raise RuntimeError(
            f"mpirun started {MPIEnvironment.mpi_world_size} processes that know of each other instead of "
            f"{processes + 1}; casampi needs Open MPI's mpirun"
        )
    # They look for word from each other each 0.1 to 5 s. With that, and the second above, each tclean took 24 s whatever
    # its data.
    for name in list(vars(MPIEnvironment)):
        if name.startswith("mpi_") and name.endswith(("_sleep_time", "_heartbeat")):
            setattr(MPIEnvironment, name, WATCH_S)
        if name.startswith(("mpi_command_", "mpi_push_command_")) and name.endswith("_sleep_time"):
            setattr(MPIEnvironment, name, POLL_S)


def keep_imagers() -> Callable[[], None]:
    """Let each tclean leave its imager to the next, if that is of the same image; returns what forgets it.

    A new one makes all convolution functions anew: for a mosaic of 1000 visibilities they took 9 of 10 s. What is in
    the image and the MS by then it reads again; only weights must be the same.
    """
    from casatasks.private import task_tclean

    kept: dict[str, Any] = {}

    def forget() -> None:
        if kept:
            kept.pop("tool").done()
            kept.clear()

    class Keeping(task_tclean.PySynthesisImager):
        def initializeImagers(self) -> None:  # noqa: N802
            same = [
                self.allselpars,
                self.allimpars,
                self.allgridpars,
                self.allnormpars,
                self.weightpars,
            ]
            same += [os.stat(one["msname"]).st_ino for one in self.allselpars.values()]
            self.key = json.dumps(same, sort_keys=True, default=str)
            self.again = kept.get("key") == self.key
            if self.again:
                self.SItool = kept.pop("tool")
                kept.clear()
            else:
                forget()
                super().initializeImagers()

        def setWeighting(self) -> None:  # noqa: N802
            if not self.again:
                super().setWeighting()

        def deleteImagers(self) -> None:  # noqa: N802
            pixels = math.prod(self.allimpars["0"]["imsize"])
            if self.SItool is None or self.NF > 1 or pixels > KEPT_PIXELS or sys.exc_info()[0]:
                super().deleteImagers()
                return
            # Not the normalizers': one that had nothing to do dies of it (6.7.0).
            self.SItool.unlockimages(0)
            kept.update(key=self.key, tool=self.SItool)
            self.SItool = None

    task_tclean.PySynthesisImager = Keeping
    return forget


def plain(value: Any) -> Any:
    """Give what JSON has no word for in plain values."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def main() -> None:
    """Answer requests until stdin ends."""
    fifo, log, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Ctrl-C is the parent's to handle: it decides whether a task may end at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the parent
    try:
        casatasks, data = start(log, processes)
        # In several processes tclean has another imager.
        forget = keep_imagers()
        hello = {"ok": True, "version": casatasks.version_string(), "data": data}
    except BaseException as error:
        hello = failure(error)
    with open(fifo, "w", encoding="utf-8") as replies:

        def reply(record: dict[str, Any]) -> None:
            replies.write(json.dumps(record, default=plain) + "\n")
            replies.flush()

        reply(hello)
        if not hello["ok"]:
            return
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if not request["goes_on"]:
                    forget()
                result = None
                if request["task"] != FORGET:
                    result = getattr(casatasks, request["task"])(**request["arguments"])
                reply({"ok": True, "result": result})
            except BaseException as error:
                traceback.print_exc()
                reply(failure(error))


def failure(error: BaseException) -> dict[str, Any]:
    """Reply that a task, or the start, failed."""
    return {"ok": False, "error": str(error), "kind": type(error).__name__}


if __name__ == "__main__":
    main()
