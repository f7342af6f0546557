"""Imports QuartiCal once, and forks for every solve. Run as a script, by `peelkit.engines.quartical`.

Each line on stdin is a JSON list: QuartiCal's configuration file, a file for what it prints, and a folder to
work in. The answer, a line on stdout, is its exit code, below 0 for a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path


def serve() -> list[str] | None:
    """Fork for every request; the request in the fork, None in the server after the last one."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What is printed on import must not become an answer.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(2):
        os.dup2(nothing, number)
    # No garbage is looked for in what is imported, now or in the forks.
    gc.disable()
    # If it cannot be imported, the fork says so where its words are read.
    with contextlib.suppress(Exception):
        import quartical.executor  # noqa: F401
    gc.freeze()
    for line in iter(requests.readline, ""):
        child = os.fork()
        if child == 0:
            gc.enable()
            return [str(one) for one in json.loads(line)]
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()
    return None


def main() -> None:
    """Serve, and solve in the forks."""
    # This folder has a quartical.py that is not QuartiCal.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    request = serve()
    if request is None:
        return
    settings, output, folder = request
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(stream, number)
    os.chdir(folder)
    sys.argv = ["goquartical", settings]
    from quartical import executor

    if not _turns_feeds(Path(settings)):
        # A quarter of what a small solve takes (0.2.7): they are read for each antenna.
        executor.assign_parangle_data = lambda _, groups: groups
        executor.make_parangle_xds_list = lambda _, groups: [None] * len(groups)
    executor.execute()


def _turns_feeds(settings: Path) -> bool:
    """Whether a configuration needs the angles of feeds."""
    sections = json.loads(settings.read_text("utf-8")).values()
    return any(
        section.get("apply_p_jones")
        or section.get("apply_p_jones_inv")
        or section.get("type") in ("parallactic_angle", "feed_flip")
        for section in sections
    )


if __name__ == "__main__":
    main()
