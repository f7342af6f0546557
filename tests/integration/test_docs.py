"""Every command that README.md and docs/*.md print: the chains run as they stand, all others parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from peelkit.cli.main import cli
from peelkit.cli.state import RunState
from peelkit.errors import PeelkitError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of peelkit in blocks, and inline ones that name what they work on."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [line for line in lines if re.match(r"(\w+=\S+ )*peelkit ", line)]
    inline = re.findall(r"`(peelkit [^`]*)`", page.read_text().replace("\n", " "))
    return found + [line for line in inline if re.search(r"\.(ms|image|uvfits)\b", line)]


COMMANDS = [(page.name, line) for page in PAGES for line in commands(page)]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 40
    assert {name for name, _ in COMMANDS} >= {"README.md", "selfcal.md", "scaling.md"}


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_line_is_one_that_peelkit_takes(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("peelkit") + 1 :]
    if ">" in words:
        words = words[: words.index(">")]
    group = click.Context(cli, info_name="peelkit")
    command = cli.get_command(group, words[0])
    assert command is not None, line
    try:
        command.make_context(words[0], words[1:], parent=group, obj=RunState())
    except (click.UsageError, PeelkitError) as error:
        pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_of_the_pages_can_be_read(page: Path) -> None:
    for text in blocks(page, "sh"):
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")


def run(script: str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e"], input=script, cwd=folder, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"


def blocks_with(*words: str) -> list[str]:
    found = [text for text in blocks(PAGES[0], "sh") if any(word in text for word in words)]
    assert len(found) == len(words)
    return found


SMALL = "-q simulate target.ms --config D --antennas 14 --integrations 12 --channels 4 --faint 6"


@pytest.mark.casa
@pytest.mark.quartical
@pytest.mark.slow
def test_the_commands_of_peeling_run_as_printed_on_a_wide_band(tmp_path: Path) -> None:
    first, second, own = blocks_with("out/bright.mask", "--refine", "--own-data")
    (tmp_path / "out").mkdir()
    run(f"peelkit {SMALL} --spws 2 --bright 5@4,2 --pointing-rms 40", tmp_path)
    run(first, tmp_path)
    # The names are those without .tt0.
    assert (tmp_path / "out/selfcal/final.image.tt0").exists()
    assert not (tmp_path / "out/selfcal/final.image").exists()
    run(second, tmp_path)
    run(own, tmp_path)


@pytest.mark.casa
@pytest.mark.slow
def test_the_commands_of_self_calibration_run_as_printed_on_a_narrow_band(tmp_path: Path) -> None:
    (chain,) = blocks_with("snr-estimate")
    run(f"peelkit {SMALL} --spws 1 --bright 1@0.1,0.1", tmp_path)
    run(chain, tmp_path)
    assert (tmp_path / "target.selfcal/final.image").exists()
    assert (tmp_path / "stats.png").exists()
