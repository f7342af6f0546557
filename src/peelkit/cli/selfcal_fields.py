"""``peelkit selfcal --each-field``: its option, and the table of fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from peelkit.cli.console import TextTable

F = TypeVar("F", bound=Callable[..., Any])


def each_field_option(function: F) -> F:
    """--each-field."""
    option: Callable[[F], F] = click.option(
        "--each-field",
        is_flag=True,
        help="Calibrate every selected field by itself, in a folder of its own; without it several are a mosaic.",
    )
    return option(function)


def field_tables(results: dict[str, Any]) -> list[TextTable]:
    """Table of the fields for people."""
    rows = []
    for item in results["fields"]:
        found = item["results"]
        figures = ["-"] * 5
        if found is not None:
            first, final = found["first"], found["final"]
            accepted = sum(one["accepted"] for one in found["rounds"])
            figures = [
                f"{accepted}/{len(found['rounds'])}",
                f"{1e3 * first['rms_jy_beam']:.4g} to {1e3 * final['rms_jy_beam']:.4g}",
                f"{first['dynamic_range']:.0f} to {final['dynamic_range']:.0f}",
                _flux(first),
                _flux(final),
            ]
        rows.append([str(item["field"]), item["name"], *figures, item["status"]])
    columns = [
        "field", "name", "rounds", "rms [mJy/beam]", "dyn. range", "first flux [Jy]", "flux [Jy]", "verdict",
    ]  # fmt: skip
    notes = [
        f"{results['gained']} of {len(rows)} fields gained and were written; details of each round are in the sidecar.",
        "Rounds: accepted of those tried. Rms and dynamic range before and after, in the same mask.",
        *(f"Field {one['field']}: {one['reason']}." for one in results["fields"] if one["reason"]),
    ]
    return [TextTable(columns, rows, notes=notes)]


def _flux(figures: dict[str, Any]) -> str:
    return f"{figures['flux_jy']:.5g}" if figures["flux_jy"] is not None else "-"
