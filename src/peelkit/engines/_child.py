"""What the engines have in common as child processes: how they end, and their last words."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

TAIL_LINES, TAIL_WIDTH = 8, 240

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def last_words(*logs: Path, noise: Sequence[str] = (), since: int = 0) -> str:
    """Where the log is, and its last lines, for the end of an error message.

    Parameters
    ----------
    *logs : Path
        The log, and where it is short what else was said.
    noise : sequence of str
        Lines that have one of these are left out.
    since : int
        Where in the logs the run began [B], if they hold runs before.
    """
    lines = [
        _COLOUR.sub("", line).rstrip()
        for path in dict.fromkeys(logs)
        if path.exists()
        for line in path.read_bytes()[since:].decode("utf-8", "replace").splitlines()
        if line.strip() and not any(word in line for word in noise)
    ]
    tail = "\n".join(f"  {line[:TAIL_WIDTH]}" for line in lines[-TAIL_LINES:])
    return f"Its log is {logs[0]}; the last lines:\n{tail}"


def end_group(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a child that leads a group of its own, with all its children."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
