"""The process that has QuartiCal in it: one for all solves, and nothing is left of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from peelkit.engines import quartical
from peelkit.errors import EngineError

pytestmark = [pytest.mark.quartical, pytest.mark.slow]


def job(path: Path, **extra: str) -> quartical.Job:
    terms = [quartical.Term("G", "diag_complex", 1, 0)]
    return quartical.Job(path, "MODEL_DATA", terms, 0, [5], extra=extra)


def test_failures_are_told_and_the_process_goes_on(tmp_path: Path) -> None:
    with quartical.ready():
        process = quartical._worker
        assert process is not None
        with pytest.raises(EngineError, match=r"failed \(exit code 1\)(.|\n)*none.ms"):
            quartical.solve(job(tmp_path / "none.ms"), tmp_path / "one")
        # What it prints before it has a log is in the run's own folder, and told too.
        with pytest.raises(EngineError, match="nonsense"):
            quartical.solve(job(tmp_path / "none.ms", **{"solver.nonsense": "1"}), tmp_path / "two")
        assert "nonsense" in (tmp_path / "two" / "stderr.txt").read_text()
        assert quartical._worker is process and process.poll() is None
    assert quartical._worker is None and process.poll() is not None


def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    with quartical.ready():
        assert quartical._worker is not None
        quartical._worker.kill()
        with pytest.raises(EngineError, match="SIGKILL"):
            quartical.solve(job(tmp_path / "none.ms"), tmp_path / "one")


def test_nothing_goes_on_after_the_block(tmp_path: Path) -> None:
    with quartical.ready():
        assert quartical._worker is not None
        number = quartical._worker.pid
    deadline = time.monotonic() + 5
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.killpg(number, 0)
