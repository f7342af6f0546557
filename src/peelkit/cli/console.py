"""What people see: tables on stdout, progress and messages on stderr. The only importer of rich."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peelkit.progress import Progress

if TYPE_CHECKING:
    from rich.table import Table

NUMERIC = set("0123456789+-.")


@dataclass(frozen=True)
class TextTable:
    """A table for people.

    Parameters
    ----------
    columns : sequence of str
        Headings, with units.
    rows : sequence of sequences of str
        Cells, already formatted.
    title : str
        One line above the table.
    notes : sequence of str
        Lines below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def show(tables: Iterable[TextTable]) -> None:
    """Print tables to stdout: with lines on a terminal, plain and greppable in a pipe."""
    from rich.console import Console

    tables = list(tables)
    # In a pipe a table is as wide as its content: nothing is cut or folded.
    width = None if sys.stdout.isatty() else 400
    console = Console(width=width, soft_wrap=not sys.stdout.isatty(), highlight=False)
    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(table.title, style="bold", markup=False)
        if table.columns:
            console.print(_rich_table(table))
        for note in table.notes:
            console.print(note, markup=False)


def _rich_table(table: TextTable) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for index, heading in enumerate(table.columns):
        cells = [row[index] for row in table.rows if row[index]]
        right = bool(cells) and all(cell[0] in NUMERIC for cell in cells)
        # Text, not str: rich would take [mJy/beam] for markup.
        result.add_column(Text(heading), justify="right" if right else "left")
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


class RichProgress(Progress):
    """A bar on stderr; on a terminal only."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichBars

        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> RichProgress:
        """Show the bar."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._bars.stop()

    def stage(self, text: str, total: float | None = None) -> None:
        """Begin a stage, in place of the one before."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(text, total=total)

    def advance(self, steps: float = 1) -> None:
        """Count steps as done."""
        if self._task is not None:
            self._bars.advance(self._task, steps)


class Messages(logging.Handler):
    """Log lines as the user sees them: ``peelkit: warning: ...`` on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        # sys.stderr is looked up each time: rich replaces it while a bar is shown.
        print(f"peelkit: {level}{self.format(record)}", file=sys.stderr, flush=True)


def configure_logging(verbosity: int) -> None:
    """Send peelkit's log lines to stderr.

    Parameters
    ----------
    verbosity : int
        -1 errors only, 0 what is done and warnings, 1 the engines' own lines too.
    """
    logger = logging.getLogger("peelkit")
    logger.handlers = [Messages()]
    logger.propagate = False
    logger.setLevel({-1: logging.ERROR, 0: logging.INFO}.get(verbosity, logging.DEBUG))
