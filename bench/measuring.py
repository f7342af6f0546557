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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import Peaks, Tree

TICK_S = 0.05
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
    tree, whole = Tree(process.pid), Peaks()
    stages: list[Stage] = []
    begun: tuple[str, float, tuple[int, ...], Peaks] | None = None
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
                    begun = (rest, time.monotonic(), tree.sums, Peaks())
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
    peaks: Peaks,
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
