"""--dry-run: the option, and how its estimate is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from peelkit.cli.console import TextTable
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState
from peelkit.errors import OptionError

if TYPE_CHECKING:
    from peelkit.outcome import Outcome

F = TypeVar("F", bound=Callable[..., Any])


def dry_run_option(function: F) -> F:
    """--dry-run, as the argument ``dry_run``."""
    return click.option(
        "--dry-run",
        is_flag=True,
        callback=_check,
        help="Check options and data, and tell what the command would cost: rows, bytes, disk, memory and time by "
        "stage (within a factor of two). Nothing is written.",
    )(function)


def _check(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    if value and ctx.ensure_object(RunState).sidecar is not None:
        raise OptionError("--sidecar: --dry-run writes nothing; take --json for the figures.")
    return value


def show_estimate(ctx: click.Context, outcome: Outcome) -> None:
    """End a command that was only to be estimated."""
    if ctx.ensure_object(RunState).sidecar is not None:
        raise OptionError("--sidecar: --dry-run writes nothing; take --json for the figures.")
    finish(ctx, outcome, default_sidecar=None, tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """The estimate for people: the data, then the stages."""
    data = [
        ("rows", f"{results['rows']:,}"),
        ("channels", f"{results['channels']:,} in {results['spws']} spw"),
        ("visibilities", f"{results['visibilities']:,} ({results['samples']:,} with correlations)"),
        ("fields", f"{results['fields']:,}"),
        ("read", size(results["read_bytes"])),
        ("written", size(results["written_bytes"])),
        ("disk", f"{size(results['disk_bytes'])}, {size(results['disk_free_bytes'])} free"),
        ("memory", f"{size(results['memory_bytes'])} at most, of {size(results['memory_limit_bytes'])}"),
        ("time", f"{duration(results['seconds'])} ({duration(results['cpu_s'])} CPU)"),
    ]  # fmt: skip
    stages = [
        [
            one["name"], duration(one["seconds"]), duration(one["cpu_s"]), size(one["read_bytes"]),
            size(one["written_bytes"]),
        ]
        for one in results["stages"]
    ]  # fmt: skip
    notes = [f"Assumed: {'; '.join(results['assumed'])}."] if results["assumed"] else []
    notes.append("Expect a factor of two; nothing was written.")
    return [
        TextTable(["", "estimate"], [list(row) for row in data], title="Dry run"),
        TextTable(["stage", "time", "CPU", "read", "written"], stages, title="Stages", notes=notes),
    ]


def size(count: float) -> str:
    """Bytes for people: 1.5 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.0f} kB" if count else "-"


def duration(seconds: float) -> str:
    """A time for people: 1.5 h."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 360000 else f"{seconds / 86400:.3g} d"
