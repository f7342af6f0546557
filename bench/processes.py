"""A process and its descendants, seen through /proc: sums of CPU time and bytes, peaks of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Shares of pages (PSS) take long to count: only where the sum of resident pages is a new record, and so often.
PSS_RISE, PSS_TICKS = 1.02, 20


@dataclass
class Peaks:
    """Largest values since a stage began."""

    pss: int = 0
    rss: int = 0
    process: int = 0
    pss_at_rss: int = 0


@dataclass
class Tree:
    """A process and its descendants; sums go on counting what ended."""

    root: int
    known: dict[int, int] = field(default_factory=dict)  # process: its parent now
    ever: set[int] = field(default_factory=set)
    last: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=lambda: [0] * 5)
    sums: tuple[int, ...] = (0,) * 5
    ticks: int = 0

    def look(self, peaks: Sequence[Peaks], *, pss: bool = False) -> None:
        """Take a sample: `sums` (ticks of CPU; bytes read, written, fetched, sent) and the peaks."""
        self._find()
        now: dict[int, tuple[int, ...]] = {}
        rss = 0
        for process in list(self.known):
            try:
                parent, *counts = _counts(process)
                resident, mark = _memory(process)
            except (OSError, ValueError, IndexError):
                # Its parent waited for it and has its counts, unless that had ended and init took its place.
                gone = self.last.get(process)
                if gone is not None and self.known[process] not in self.ever:
                    self.lost = [a + b for a, b in zip(self.lost, gone, strict=True)]
                del self.known[process]
                continue
            now[process] = tuple(counts)
            if process != self.root:
                self.known[process] = parent
            rss += resident
            for one in peaks:
                one.process = max(one.process, mark)
        self.last = now
        found = [sum(column) for column in zip(*now.values(), strict=True)] or [0] * 5
        self.sums = tuple(
            max(before, new + lost)
            for before, new, lost in zip(self.sums, found, self.lost, strict=True)
        )
        self.ticks += 1
        due = pss or self.ticks % PSS_TICKS == 0
        if due or any(rss > PSS_RISE * one.pss_at_rss for one in peaks):
            shared = sum(_pss(process) for process in now)
            for one in peaks:
                one.pss, one.pss_at_rss = max(one.pss, shared), max(one.pss_at_rss, rss)
        for one in peaks:
            one.rss = max(one.rss, rss)

    def _find(self) -> None:
        """Add the descendants that are new."""
        seen, waiting = set(), [*self.known, self.root]
        while waiting:
            process = waiting.pop()
            if process in seen:
                continue
            seen.add(process)
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{process}/task").iterdir():
                    for child in (thread / "children").read_text().split():
                        self.known.setdefault(int(child), process)
                        waiting.append(int(child))
        self.known.setdefault(self.root, self.root)
        self.ever.update(self.known)


def _counts(process: int) -> tuple[int, ...]:
    """Parent; CPU ticks; bytes read and written by calls, fetched and sent to storage; ended children included."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    values = dict(line.split(": ") for line in lines)
    names = ("rchar", "wchar", "read_bytes", "write_bytes")
    return int(words[1]), sum(map(int, words[11:15])), *(int(values[name]) for name in names)


def _memory(process: int) -> tuple[int, int]:
    """Resident bytes now, and at most so far; 0 of a process that has just ended."""
    found = {"VmRSS": 0, "VmHWM": 0}
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = 1024 * int(rest.split()[0])
    return found["VmRSS"], found["VmHWM"]


def _pss(process: int) -> int:
    """Resident bytes, shared ones divided by those who share them; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(
        (1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0
    )
