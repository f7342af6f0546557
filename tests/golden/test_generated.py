"""Man pages and completions are those of the command tree; run ``make docs`` when this fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from peelkit.cli.main import cli

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import make_completions  # noqa: E402
import make_man  # noqa: E402


@pytest.mark.parametrize(
    ("folder", "module"), [("man", make_man), ("completions", make_completions)]
)
def test_what_is_committed_is_what_is_generated(folder: str, module) -> None:
    fresh = module.generate()
    assert {path.name for path in (ROOT / folder).iterdir()} == set(fresh)
    for name, text in fresh.items():
        assert (ROOT / folder / name).read_text() == text, f"{folder}/{name}: run make docs"


def test_every_page_has_exit_status_and_every_command_examples() -> None:
    for name, text in make_man.generate().items():
        assert ".SH EXIT STATUS" in text and "\\fB130\\fR" in text, name
        assert ".SH EXAMPLES" in text, name
        assert "\x08" not in text, name


def test_every_command_and_option_has_help() -> None:
    for name, command in cli.commands.items():
        assert command.help and command.short_help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_the_bash_completion_works() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    peelkit = shutil.which("peelkit", path=str(Path(sys.executable).parent))
    assert peelkit is not None
    script = (
        f"PATH={Path(peelkit).parent}:$PATH; source {ROOT}/completions/peelkit.bash; "
        "COMP_WORDS=(peelkit sn); COMP_CWORD=1; _peelkit_completion peelkit; echo ${COMPREPLY[@]}"
    )
    run = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["snr-estimate"]


def test_the_readme_names_every_command_and_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    for name in cli.commands:
        assert f"`peelkit {name}" in text
    from peelkit.cli.main import EXIT_STATUS

    for code in EXIT_STATUS:
        assert f"| {code} |" in text


def test_no_host_and_no_path_of_a_machine_in_any_file() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".sh", ".1", "") and path.is_file():
            text = path.read_text("utf-8", errors="replace")
            for word in ("pypi" + ".org", "file" + "://", "/home" + "/", "/root" + "/"):
                assert word not in text, f"{name}: {word}"
