"""Wall time, CPU time, memory and bytes of a command and of all that it starts, stage by stage.

A command may say where its stages begin and end (`stage` in Python; `SHELL_STAGE` in a shell): it writes a line
into one pipe and waits for an answer from another, and in between a sample is taken. So the stages' boundaries
are exact, while what happens within a stage is sampled 20 times a second from /proc. The process that measures
is outside of what it measures; it takes about 1 % of a core.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TICK_S = 0.05
# Shares of pages (PSS) take long to count: only where the sum of resident pages is a new record, and so often.
PSS_RISE, PSS_TICKS = 1.02, 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MARKS, ANSWERS = "BENCH_MARKS", "BENCH_ANSWERS"

# A shell script of this name in front of PATH makes each call of the program a stage, named by its first word that
# is no option.
SHELL_STAGE = """#!/bin/sh
name=
for word in "$@"; do case $word in -*) ;; *) name=$word; break ;; esac; done
echo "begin $name" > "$BENCH_MARKS"; read -r _ < "$BENCH_ANSWERS"
status=0
{program} "$@" || status=$?
echo "end $status" > "$BENCH_MARKS"; read -r _ < "$BENCH_ANSWERS"
exit $status
"""


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Make what is done inside a stage of the command that this process is; nothing if it is not measured."""
    if MARKS not in os.environ:
        yield
        return
    _tell(f"begin {name}")
    try:
        yield
    except BaseException:
        _tell("end 1")
        raise
    _tell("end 0")


def _tell(line: str) -> None:
    with Path(os.environ[MARKS]).open("w") as marks:
        marks.write(line + "\n")
    with Path(os.environ[ANSWERS]).open() as answers:
        answers.readline()


@dataclass(frozen=True)
class Stage:
    """What a stage took.

    Parameters
    ----------
    cpu_s : float
        User and system time of all processes, those that ended included.
    peak_bytes : int
        Largest sum over the processes, pages that several share counted once (PSS).
    peak_rss_bytes : int
        The same, shared pages counted for each.
    largest_process_bytes : int
        Largest high-water mark (VmHWM) of a single process.
    read_bytes, written_bytes : int
        Of all read and write calls, also those that the page cache or a pipe served.
    disk_read_bytes, disk_written_bytes : int
        Fetched from, and sent to the storage layer.
    status : int or None
        Exit status; None if it did not end by itself.
    """

    name: str
    wall_s: float
    cpu_s: float
    peak_bytes: int
    peak_rss_bytes: int
    largest_process_bytes: int
    read_bytes: int
    written_bytes: int
    disk_read_bytes: int
    disk_written_bytes: int
    status: int | None

    def as_json(self) -> dict[str, Any]:
        """Rounded, for the file of results."""
        return {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }


@dataclass
class _Peaks:
    """Largest values since a stage began."""

    pss: int = 0
    rss: int = 0
    process: int = 0
    pss_at_rss: int = 0


@dataclass
class _Tree:
    """A process and its descendants; sums go on counting what ended."""

    root: int
    known: dict[int, int] = field(default_factory=dict)  # process: its parent now
    ever: set[int] = field(default_factory=set)
    last: dict[int, tuple[int, ...]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=lambda: [0] * 5)
    sums: tuple[int, ...] = (0,) * 5
    ticks: int = 0

    def look(self, peaks: Sequence[_Peaks], *, pss: bool = False) -> None:
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


def measure(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> tuple[Stage, list[Stage]]:
    """Run a command; what it took as a whole, and each of the stages that it told of.

    Parameters
    ----------
    log : Path
        Where its stdout and stderr go.
    timeout_s : float, optional
        After so long it is killed with all that it started; its status is then None.
    """
    os.sync()  # the writes of what was before are not this command's
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as output:
        pipes = [Path(scratch, name) for name in ("marks", "answers")]
        for pipe in pipes:
            os.mkfifo(pipe)
        # Open at both ends here, so that nobody waits for the other to open it.
        marks, answers = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        named = {MARKS: str(pipes[0]), ANSWERS: str(pipes[1])}
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env={**(os.environ if env is None else env), **named},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            return _follow(process, marks, answers, timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(marks)
            os.close(answers)


def _follow(
    process: subprocess.Popen[bytes], marks: int, answers: int, timeout_s: float | None
) -> tuple[Stage, list[Stage]]:
    """Sample until it ends."""
    start = time.monotonic()
    tree, whole = _Tree(process.pid), _Peaks()
    stages: list[Stage] = []
    begun: tuple[str, float, tuple[int, ...], _Peaks] | None = None
    ended = os.pidfd_open(process.pid)

    def close(status: int | None, now: float) -> None:
        nonlocal begun
        if begun is not None:
            name, since, sums, peaks = begun
            stages.append(_stage(name, now - since, sums, tree.sums, peaks, status))
            begun = None

    in_time = True
    try:
        while True:
            ready, _, _ = select.select([marks, ended], [], [], TICK_S)
            now = time.monotonic()
            in_time = timeout_s is None or now - start < timeout_s
            tree.look([whole] if begun is None else [whole, begun[3]], pss=marks in ready)
            if marks in ready:
                word, _, rest = os.read(marks, 4096).decode().strip().partition(" ")
                close(int(rest) if word == "end" else None, now)
                if word == "begin":
                    # High-water marks start anew, where the kernel allows it.
                    for one in tree.known:
                        with contextlib.suppress(OSError):
                            Path(f"/proc/{one}/clear_refs").write_text("5")
                    begun = (rest, time.monotonic(), tree.sums, _Peaks())
                    tree.look([begun[3]], pss=True)
                os.write(answers, b"\n")
            elif ended in ready or not in_time:
                break
    finally:
        os.close(ended)
        if process.poll() is None:
            for one in list(tree.known):
                with contextlib.suppress(OSError):
                    os.kill(one, 9)
    status = process.wait() if in_time else None
    close(None, now)
    return _stage("whole", now - start, (0,) * 5, tree.sums, whole, status), stages


def _stage(
    name: str,
    wall_s: float,
    before: Sequence[int],
    after: Sequence[int],
    peaks: _Peaks,
    status: int | None,
) -> Stage:
    cpu, *moved = (new - old for old, new in zip(before, after, strict=True))
    # A sample of shares is now and then missed; no share is larger than the whole.
    return Stage(
        name,
        wall_s,
        cpu / TICKS_PER_S,
        peaks.pss or peaks.rss,
        peaks.rss,
        peaks.process,
        *moved,
        status=status,
    )
