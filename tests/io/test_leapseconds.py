"""Nothing of casacore's own log reaches the user's terminal."""

from __future__ import annotations

import subprocess
import sys

COMPLAINS = """
from casacore.measures import measures
machine = measures()
machine.measure(machine.epoch("UTC", "2100-01-01"), "TAI")
"""


def said(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stderr


def test_casacore_does_not_tell_of_leap_seconds() -> None:
    hushed = "from peelkit.io.leapseconds import hush; hush()"
    assert "Leap second table" in said(COMPLAINS)
    assert said(hushed + COMPLAINS) == ""
    # What is said after it is heard.
    assert said(hushed + "\nimport os; os.write(2, b'heard')") == "heard"
