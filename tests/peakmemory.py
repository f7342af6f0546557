"""Runs a command and watches the memory of it and of all processes that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Peak:
    """Resident memory [B] of one run: of all processes together, and of the largest of each program."""

    total: int
    own: int
    children: dict[str, int]
    seconds: float
    cpu_s: float
    stdout: str
    stderr: str


def run_watched(arguments: Sequence[object], folder: Path, *, code: int = 0) -> Peak:
    """Run ``peelkit`` with ``arguments`` in ``folder`` to its end."""
    out, err = folder / ".stdout", folder / ".stderr"
    began = time.monotonic()
    before = os.times()
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "peelkit", *map(str, arguments)],
            cwd=folder, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        total, own = 0, 0
        children: dict[str, int] = {}
        while process.poll() is None:
            sizes = _tree(process.pid)
            total = max(total, sum(size for _, size in sizes.values()))
            own = max(own, sizes.get(process.pid, ("", 0))[1])
            for pid, (name, size) in sizes.items():
                if pid != process.pid:
                    children[name] = max(children.get(name, 0), size)
            time.sleep(SAMPLE_S)
    after = os.times()
    peak = Peak(
        total, own, children, time.monotonic() - began,
        after.children_user + after.children_system - before.children_user - before.children_system,
        out.read_text(), err.read_text(),
    )  # fmt: skip
    assert process.returncode == code, f"exit {process.returncode}\n{peak.stdout}\n{peak.stderr}"
    return peak


def _tree(root: int) -> dict[int, tuple[str, int]]:
    """Pid to name and resident bytes, of a process and all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, tuple[str, int]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry.name}/stat").read_text()
            name, rest = text.split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        words = rest.split()
        parents[int(entry.name)] = int(words[1])
        sizes[int(entry.name)] = (name, int(words[21]) * PAGE)
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            break
        found |= more
    return {pid: sizes[pid] for pid in found if pid in sizes}
