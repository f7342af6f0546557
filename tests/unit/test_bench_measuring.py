"""The benchmark's measuring: memory, CPU and bytes of what is several processes away."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import measuring

GRANDCHILD = """
import sys, time
held = bytearray(200_000_000)
held[::4096] = b"x" * len(held[::4096])
with open(sys.argv[1], "wb") as out:
    for _ in range(50):
        out.write(bytes(1_000_000))
start = time.process_time()
while time.process_time() < start + 0.5:
    pass
time.sleep(0.15)
"""
CHILD = """
import subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True)
"""
STAGED = """
import subprocess, sys
from measuring import stage
with stage("idle"):
    pass
with stage("work"):
    subprocess.run([sys.executable, *sys.argv[1:]], check=True)
with stage("late"):
    held = bytearray(60_000_000)
    held[::4096] = b"x" * len(held[::4096])
"""


def scripts(folder: Path) -> list[Path]:
    paths = [folder / name for name in ("grandchild.py", "child.py", "staged.py")]
    for path, text in zip(paths, (GRANDCHILD, CHILD, STAGED), strict=True):
        path.write_text(text)
    return paths


def of_the_work(one: measuring.Stage) -> None:
    # Beside what was asked for, Pythons start: about 10 MB and 0.05 s each.
    assert 200e6 < one.peak_bytes < 260e6
    assert 200e6 < one.peak_rss_bytes < 300e6
    assert 200e6 < one.largest_process_bytes < 250e6
    assert 0.5 <= one.cpu_s < 1.5
    assert one.wall_s > 0.6
    assert 50e6 <= one.written_bytes < 51e6
    assert one.read_bytes < 20e6


def test_a_grandchilds_memory_cpu_and_bytes_are_the_commands(tmp_path: Path) -> None:
    grandchild, child, _ = scripts(tmp_path)
    whole, stages = measuring.measure(
        [sys.executable, child, child, grandchild, tmp_path / "out"],
        cwd=tmp_path,
        log=tmp_path / "log",
    )
    assert (whole.status, stages) == (0, []), (tmp_path / "log").read_text()
    of_the_work(whole)


def test_stages_are_told_apart(tmp_path: Path) -> None:
    scripts(tmp_path)
    # From a shell, through the stand-in that makes each call of a program a stage.
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin/tool"
    stand_in.write_text(measuring.SHELL_STAGE.replace("{program}", f"'{sys.executable}'"))
    stand_in.chmod(0o755)
    bench = Path(measuring.__file__).parent
    whole, stages = measuring.measure(
        ["sh", "-c", f"PYTHONPATH={bench} {sys.executable} staged.py child.py grandchild.py out; bin/tool -c pass; "
         "bin/tool -c 'exit(4)'"],
        cwd=tmp_path,
        log=tmp_path / "log",
    )  # fmt: skip
    names = [(one.name, one.status) for one in stages]
    assert names == [("idle", 0), ("work", 0), ("late", 0), ("pass", 0), ("exit(4)", 4)]
    assert whole.status == 4
    idle, work, late, *_ = stages
    of_the_work(work)
    for one in (idle, late):
        assert one.written_bytes < 1e6
        assert one.cpu_s < 0.3
    assert idle.peak_bytes < 30e6
    # Its own 60 MB, and nothing of the 200 MB of the stage before.
    assert 60e6 < late.peak_bytes < 100e6
    assert 60e6 < late.largest_process_bytes < 100e6
    assert sum(one.wall_s for one in stages) <= whole.wall_s


def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    whole, _ = measuring.measure(
        ["sh", "-c", "sleep 71.5 & sleep 71.5"],
        cwd=tmp_path,
        log=tmp_path / "log",
        timeout_s=0.4,
    )
    assert whole.status is None
    assert time.monotonic() - start < 10
    # A killed process is there until the system has buried it.
    while runs(b"sleep\x0071.5") and time.monotonic() - start < 10:
        time.sleep(0.05)
    assert not runs(b"sleep\x0071.5")


def runs(command: bytes) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # others come and go
            if command in path.read_bytes():
                return True
    return False
