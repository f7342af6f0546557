"""Options of ``peelkit selfcal`` for what is done to the data before the first image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from peelkit.cli import options

F = TypeVar("F", bound=Callable[..., Any])


def prepare_options(function: F) -> F:
    """--weights, --statwt-fitspw and --flag-list."""
    function = click.option(
        "--flag-list",
        type=options.PATH,
        help="List of flags to apply first, in the format of CASA's flagdata (mode='list'), such as a reviewed "
        "flag_proposals.txt.",
    )(function)
    function = click.option(
        "--statwt-fitspw",
        default="",
        help="Spws and channels whose scatter statwt takes, such as 0:5~20; leave lines out.",
    )(function)
    return click.option(
        "--weights",
        type=click.Choice(["keep", "statwt", "initweights"]),
        default="keep",
        show_default=True,
        help="Weights to calibrate and image with: as they are, from the scatter, or from bandwidth and time; "
        "new ones are written into MS with the result.",
    )(function)


def prepared_notes(prepared: dict[str, Any]) -> list[str]:
    """Say what was done before the first image."""
    notes = []
    flags, weights = prepared["flags"], prepared["weights"]
    if flags is not None:
        notes.append(f"{flags['list']} flagged {flags['flagged']} of {flags['unflagged']} samples.")
    if weights is not None:
        ratios = [
            f"{_ratio(before)} to {_ratio(after)} in spw {before['spw']}"
            for before, after in zip(weights["before"], weights["after"], strict=False)
        ]
        more = f" and {len(ratios) - 4} more spws" if len(ratios) > 4 else ""
        notes.append(
            f"Weights by {weights['how']}: weight times variance {', '.join(ratios[:4])}{more}; "
            f"{weights['flagged']} of {weights['unflagged']} samples flagged by it."
        )
        notes += [f"{line[0].upper()}{line[1:]}." for line in weights["warnings"]]
    return notes


def flag_notes(proposals: list[dict[str, str]]) -> list[str]:
    """Name what is proposed to flag."""
    if not proposals:
        return []
    shown = [
        f"{item['antenna'] or 'all antennas'}{' in part' if item['timerange'] else ''} ({item['reason']})"
        for item in proposals[:4]
    ]
    more = f" and {len(proposals) - 4} more" if len(proposals) > 4 else ""
    return [
        f"Proposed to flag, in flag_proposals.txt: {'; '.join(shown)}{more}. Nothing of it was flagged; "
        "review it, and apply it with --flag-list."
    ]


def _ratio(entry: dict[str, Any]) -> str:
    return f"{entry['ratio']:.3g}" if entry["ratio"] is not None else "-"
