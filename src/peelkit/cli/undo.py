"""``peelkit undo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import check_sidecar, finish
from peelkit.errors import OptionError


@click.command("undo", short_help="Put back the columns and flags that a step replaced.")
@options.ms_argument
@click.option(
    "--to",
    metavar="STEP",
    help="Undo all steps down to and including this one: a number, or the name of a command.",
)
@click.option("--list", "only_list", is_flag=True, help="List the steps; change nothing.")
@click.option(
    "--forget",
    is_flag=True,
    help="Drop the kept columns to free disk space; nothing can be undone afterwards.",
)
@options.common
@click.pass_context
def undo(ctx: click.Context, ms: Path, to: str | None, only_list: bool, forget: bool) -> None:
    """Put back the columns and flags that the last step on MS replaced.

    A step that replaced a column kept the old one under another name; one that could change flags
    saved them as a CASA flag version. Products beside the MS (images, gain tables) stay.

    \b
    Examples:
      peelkit undo 3C273.ms --list
      peelkit undo 3C273.ms
      peelkit undo 3C273.ms --to 1
    """
    if sum((to is not None, only_list, forget)) > 1:
        raise OptionError("--to, --list and --forget exclude each other; give one.")
    from peelkit.core import undo as work

    default = None if only_list else sidecar.ms_sidecar(ms, work.COMMAND)
    if default is not None:
        check_sidecar(ctx, ms, default)
    if only_list:
        outcome = work.list_steps(ms)
    elif forget:
        outcome = work.forget(ms)
    else:
        outcome = work.undo(ms, to=to)
    finish(ctx, outcome, default_sidecar=default, tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""

    def rows(steps: list[dict[str, Any]], made: str) -> list[list[str]]:
        return [
            [
                str(step["id"]),
                step["command"],
                step["when"],
                ", ".join([*step["replaced"], *(f"{name} ({made})" for name in step["created"])])
                or "-",
                "saved" if step["flag_version"] else "-",
                "yes" if step["finished"] else "interrupted",
            ]
            for step in steps
        ]

    columns = ["step", "command", "when (UTC)", "columns", "flags", "finished"]
    found = []
    if results["undone"]:
        found.append(TextTable(columns, rows(results["undone"], "removed"), title="Put back"))
    if results["steps"]:
        found.append(
            TextTable(columns, rows(results["steps"], "new"), title="Steps that can be undone")
        )
    return found or [TextTable([], [], notes=["No steps of peelkit are recorded in this MS."])]
