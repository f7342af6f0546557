"""Every command that README.md and docs/*.md print is one that peelkit takes, and every script can be read."""

from __future__ import annotations

import re
import shlex
import subprocess
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
    group = click.Context(cli, info_name="peelkit", **cli.context_settings)
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
