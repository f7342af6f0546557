"""The work of ``peelkit undo``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peelkit.core import commit
from peelkit.errors import DataError
from peelkit.io import journal, ms
from peelkit.outcome import Outcome

COMMAND = "undo"


def list_steps(path: Path) -> Outcome:
    """Steps recorded in the MS."""
    ms.read_info(path)
    return _outcome(path, undone=[], left=journal.steps(path))


def undo(path: Path, *, to: str | None = None) -> Outcome:
    """Put back what the last step replaced, or all steps down to and including ``to``.

    Parameters
    ----------
    path : Path
        The MS.
    to : str, optional
        Number of a step, or the name of a command (its last step).

    Raises
    ------
    DataError
        If there is no such step.
    """
    ms.read_info(path)
    ms.refuse_if_locked(path)
    entries = journal.steps(path)
    if not entries:
        raise DataError(f"{path}: no step of peelkit is recorded here; there is nothing to undo.")
    target = entries[-1].id
    if to is not None:
        found = [step.id for step in entries if to in (str(step.id), step.command)]
        if not found:
            listing = ", ".join(f"{step.id} ({step.command})" for step in entries)
            raise DataError(f"{path}: no step {to!r}; recorded are {listing}.")
        target = found[-1]
    undone = []
    writes: set[str] = set()
    warnings: list[str] = []
    for step in reversed([step for step in entries if step.id >= target]):
        if commit.put_back(path, step):
            writes.add("FLAG")
        elif step.flag_version and step.finished:
            warnings.append(
                f"{path}: the flags stay as they are: flag version {step.flag_version} is not in "
                f"{path.name}.flagversions any more"
            )
        undone.append(step)
        writes |= {*step.created, *step.replaced}
    ms.add_history(
        path,
        command=COMMAND,
        message=f"peelkit undo: put back step {', '.join(str(step.id) for step in undone)}",
        parameters={"to": to},
    )
    return _outcome(
        path,
        undone=undone,
        left=journal.steps(path),
        writes=tuple(sorted(writes)),
        warnings=warnings,
    )


def forget(path: Path) -> Outcome:
    """Drop the kept columns: frees disk space, and nothing can be undone any more."""
    ms.read_info(path)
    commit.recover(path)
    before = journal.steps(path)
    dropped = [name for step in before for name in step.replaced.values()]
    journal.forget(path)
    return _outcome(path, undone=[], left=[], writes=tuple(dropped))


def _outcome(
    path: Path,
    *,
    undone: list[journal.Step],
    left: list[journal.Step],
    writes: tuple[str, ...] = (),
    warnings: Sequence[str] = (),
) -> Outcome:
    def rows(steps: list[journal.Step]) -> list[dict[str, Any]]:
        return [asdict(step) for step in steps]

    return Outcome(
        results={"undone": rows(undone), "steps": rows(left)},
        inputs={"ms": str(path)},
        writes=writes,
        warnings=tuple(warnings),
    )
