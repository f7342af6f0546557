"""The steps that changed an MS, kept in it, so that each can be put back.

A step that replaces a column renames the old one aside (no copying) and makes a new one. The list
of steps is a keyword of the MS's main table: it moves with the MS. A step is marked as unfinished
until it is done; the next peelkit command on the MS puts an unfinished one back.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from casacore.tables import table

from peelkit.errors import DataError
from peelkit.io import ms, origin

log = logging.getLogger(__name__)

KEYWORD = "PEELKIT_STEPS"


@dataclass(frozen=True)
class Step:
    """One change of an MS.

    Parameters
    ----------
    id : int
        Counts from 1.
    command : str
        The subcommand.
    when : str
        UTC, ISO 8601.
    replaced : dict of str
        Column to the name under which the old one is kept.
    created : tuple of str
        Columns that were not there before.
    flag_version : str or None
        CASA flag version saved before the step.
    finished : bool
        False while the step runs, and after it was killed.
    """

    id: int
    command: str
    when: str
    replaced: dict[str, str] = field(default_factory=dict)
    created: tuple[str, ...] = ()
    flag_version: str | None = None
    finished: bool = False


def steps(path: Path) -> list[Step]:
    """Steps recorded in the MS, oldest first."""
    with ms.opened(path) as main:
        return _read(main)


def _read(main: table) -> list[Step]:
    if KEYWORD not in main.keywordnames():
        return []
    try:
        return [
            Step(**{**entry, "created": tuple(entry["created"])})
            for entry in json.loads(main.getkeyword(KEYWORD))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{main.name()}: its list of steps ({KEYWORD}) cannot be read; was it made by a newer peelkit?"
        ) from error


def _write(main: table, entries: list[Step]) -> None:
    if entries:
        main.putkeyword(KEYWORD, json.dumps([asdict(entry) for entry in entries]))
    elif KEYWORD in main.keywordnames():
        main.removekeyword(KEYWORD)
    main.flush()


def begin(path: Path, command: str, *, flag_version: bool = False) -> Step:
    """Record that a step starts. The flags are saved by the caller, under ``step.flag_version``."""
    with ms.opened(path, write=True) as main:
        entries = _read(main)
        number = entries[-1].id + 1 if entries else 1
        step = Step(
            number,
            command,
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            flag_version=f"peelkit_{number}_{command}" if flag_version else None,
        )
        _write(main, [*entries, step])
    return step


def new_column(path: Path, step: Step, name: str, *, like: str = "DATA") -> Step:
    """Make an empty column ``name``; an old one of that name is kept aside. Returns the new step."""
    with ms.opened(path, write=True) as main:
        if name in step.created or name in step.replaced:
            return step
        if name in main.colnames():
            step = replace(step, replaced={**step.replaced, name: f"{name}_BEFORE_{step.id}"})
            # The journal first: killed between the two, undo finds nothing to rename and goes on.
            _write(main, [*_read(main)[:-1], step])
            main.renamecol(name, step.replaced[name])
            like = step.replaced[name] if like == name else like
        else:
            step = replace(step, created=(*step.created, name))
            _write(main, [*_read(main)[:-1], step])
        ms.add_column(main, name, like)
        main.flush()
    return step


def finish(path: Path, step: Step) -> None:
    """Record that the step is done."""
    with ms.opened(path, write=True) as main:
        _write(main, [*_read(main)[:-1], replace(step, finished=True)])


def put_back_columns(path: Path) -> Step:
    """Put back the columns of the last step and forget it. Its flags are the caller's to restore."""
    with ms.opened(path, write=True) as main:
        entries = _read(main)
        step = entries[-1]
        present = set(main.colnames())
        for name in step.created:
            if name in present:
                main.removecols(name)
        for name, kept in step.replaced.items():
            if kept in present:
                if name in present:
                    main.removecols(name)
                main.renamecol(kept, name)
        _write(main, entries[:-1])
    return step


def forget(path: Path) -> int:
    """Drop all kept columns, which frees their disk space; returns how many were dropped."""
    with ms.opened(path, write=True) as main:
        entries = _read(main)
        present = set(main.colnames())
        kept = [name for step in entries for name in step.replaced.values() if name in present]
        for name in kept:
            main.removecols(name)
        origin.forget(main, kept)
        _write(main, [])
    return len(kept)


def unfinished(path: Path) -> Step | None:
    """Give the last step if it was killed, else None."""
    entries = steps(path)
    return entries[-1] if entries and not entries[-1].finished else None
