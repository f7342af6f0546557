"""Tables on a real terminal: whatever its width, each number, unit and position is there in one piece."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

WIDTHS = (40, 80, 100, 132)
RULE = re.compile(r"\x1b\[[0-9;]*m|─+")
MARKS = (
    "artefact: a negative as strong is opposite to it, 12.5 mJy/beam at 10h00m25.421s +30d03m59.85s"
)
# A table of many columns, with prose; one of few; and notes with a long path.
WORST = f"""
from peelkit.cli.console import TextTable, show
heads = ["island", "RA", "Dec", "peak [mJy/beam]", "flux (mJy)", "rms near/global", "rms", "marks"]
rows = [["1", "10h00m25.421s", "+30d03m59.85s", "3390", "3400.1", "1.88", "2.344e+04 uJy/beam", "BRIGHT_1"],
        ["2", "10h00m25.421s", "-30d03m59.85s", "33", "34.1", "", "23.44 mJy/beam", {MARKS!r}]]
notes = ["rms 2.08 mJy/beam, local noise 1.234 to 3.456 mJy/beam; threshold 8 sigma = 16.64 mJy/beam.",
         "Written: /a/long/path/" + "x" * 150 + "/first.image."]
show([TextTable(heads, rows, title="Islands (ICRS)", notes=notes), TextTable(["", "estimate"], [["rows", "12 345"]])])
"""


def on_terminal(command: list[str], width: int, **environment: str) -> str:
    """What a command prints on a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")
    }
    with subprocess.Popen(
        command,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**kept, "TERM": "xterm-256color", **environment},
    ) as child:
        os.close(slave)
        pieces = []
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            pieces.append(piece)
            if not piece:
                break
        _, errors = child.communicate()
    os.close(master)
    assert child.returncode == 0, errors.decode()
    return b"".join(pieces).decode().replace("\r\n", "\n")


def in_pipe(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def words(text: str) -> set[str]:
    return set(RULE.sub(" ", text).split())


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_at_any_width(width: int) -> None:
    command = [sys.executable, "-c", WORST]
    shown = on_terminal(command, width)
    assert words(in_pipe(command)) <= words(shown)
    plain = RULE.sub("", shown)
    for piece in ("2.344e+04 uJy/beam", "12.5 mJy/beam", "10h00m25.421s +30d03m59.85s", "12 345"):
        assert piece in plain
    longest = max(len(line) for line in plain.splitlines() if "/a/long/path/" not in line)
    assert longest <= width


def test_a_command_prints_all_that_it_prints_in_a_pipe(tmp_path: Path) -> None:
    write_field(tmp_path / "field.fits")
    command = [sys.executable, "-m", "peelkit", "mask", str(tmp_path / "field.fits")]
    command += [str(tmp_path / "field.mask.fits"), "--overwrite"]
    # A heading without anything under it is not repeated for each row.
    whole = words(in_pipe(command)) - {"marks"}
    assert any("h" in word and "m" in word and word.endswith("s") for word in whole)
    for width in (80, 100, 132):
        assert whole <= words(on_terminal(command, width))


def test_no_color_has_none_and_a_pipe_has_lines_of_one_row() -> None:
    command = [sys.executable, "-c", WORST]
    assert "\x1b[1m" in on_terminal(command, 132)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(command, 132, NO_COLOR="1"))
    piped = in_pipe(command)
    assert "\x1b" not in piped
    row = next(line for line in piped.splitlines() if line.lstrip().startswith("2 "))
    assert MARKS in row


def write_field(path: Path) -> None:
    """An image with two sources and noise."""
    rng = np.random.default_rng(1)
    y, x = np.indices((128, 128))
    data = rng.normal(0, 1e-3, (128, 128))
    for flux, x0, y0 in ((1.2345, 40, 60), (0.3, 90, 30)):
        data += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 8)
    header = fits.Header()
    for key, value in {
        "BUNIT": "Jy/beam", "CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRVAL1": 150.0, "CRVAL2": 30.0,
        "CRPIX1": 65, "CRPIX2": 65, "CDELT1": -2 / 3600, "CDELT2": 2 / 3600, "RADESYS": "ICRS",
        "BMAJ": 9.42 / 3600, "BMIN": 9.42 / 3600, "BPA": 0.0,
    }.items():  # fmt: skip
        header[key] = value
    fits.PrimaryHDU(data.astype("f4"), header).writeto(path)
