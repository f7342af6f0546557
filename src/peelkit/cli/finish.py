"""How every command ends: sidecar, then the result on stdout, then the verdict."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit import __version__, sidecar
from peelkit.cli.state import RunState
from peelkit.errors import DataError, GateError

if TYPE_CHECKING:
    from peelkit.cli.console import TextTable
    from peelkit.outcome import Outcome

log = logging.getLogger(__name__)


def check_sidecar(ctx: click.Context, beside: Path, default: Path) -> None:
    """Refuse a place of the sidecar that cannot be written, before any work.

    Parameters
    ----------
    beside : Path
        What it is of; where that is not there, the work says so.
    default : Path
        Where the sidecar goes without --sidecar.
    """
    given = ctx.ensure_object(RunState).sidecar
    if given is None and beside.exists() and not os.access(default.parent, os.W_OK):
        raise DataError(
            f"{default.parent}: not writable, so the sidecar cannot go beside {beside.name}; give --sidecar PATH."
        )


def finish(
    ctx: click.Context,
    outcome: Outcome,
    *,
    default_sidecar: Path | None,
    tables: Callable[[dict[str, Any]], Sequence[TextTable]],
) -> None:
    """End a command.

    Parameters
    ----------
    ctx : click.Context
        Of the command.
    outcome : Outcome
        What the work found.
    default_sidecar : Path or None
        Where the sidecar goes without --sidecar; None for no sidecar then.
    tables : callable
        Makes the tables for people from the results.

    Raises
    ------
    GateError
        If the outcome is a refusal; the sidecar is written before, since a no is a result.
    """
    state = ctx.ensure_object(RunState)
    record: dict[str, Any] = {
        "schema": sidecar.SCHEMA,
        "command": ctx.command.name,
        "peelkit": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(state.started)),
        "seconds": round(time.time() - state.started, 3),
        "inputs": outcome.inputs,
        "parameters": {**ctx.params, **outcome.parameters},
        "reads": outcome.reads,
        "writes": outcome.writes,
        "engine": outcome.engine,
        "warnings": outcome.warnings,
        "refusal": outcome.refusal,
        "results": outcome.results,
    }
    path = state.sidecar or default_sidecar
    if path is not None and str(path) != "-":
        record = sidecar.write(path, record)
    else:
        record = sidecar.clean(record)
    for warning in outcome.warnings:
        log.warning("%s", warning)
    if state.json or str(path) == "-":
        click.echo(sidecar.dumps(record), nl=False)
    else:
        from peelkit.cli.console import show

        show(tables(record["results"]))
        if path is not None:
            log.info("details in %s", path)
    if outcome.refusal:
        raise GateError(outcome.refusal)
