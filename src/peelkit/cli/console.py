"""What people see: tables on stdout, progress and messages on stderr. The only importer of rich."""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peelkit.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NUMERIC = set("0123456789+-.")

# Longer cells are prose, and may be broken between words into lines of at least so many characters.
PROSE, LEAST_PROSE = 32, 24

# Blanks at which nothing is broken: between a number and its unit, and in a position.
TOGETHER = re.compile(r"(?<=\d) (?=[^\W\d]|[%\"']|\d{3}\b)|(?<=[\ds]) (?=[+-]\d)")

# Characters between columns.
GAP = 2


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
    """Print tables to stdout: with lines on a terminal, plain and greppable in a pipe.

    Nothing is ever cut. On a terminal that is too narrow for a table its rows go one under the other.
    """
    from rich.console import Console

    tables = list(tables)
    terminal = sys.stdout.isatty()
    # In a pipe a table is as wide as its content: nothing is cut or folded.
    console = Console(width=None if terminal else 400, soft_wrap=not terminal, highlight=False)
    for number, table in enumerate(tables):
        if number:
            console.print()
        if table.title:
            console.print(table.title, style="bold", markup=False)
        widths = _widths(table, console.width) if terminal else [None] * len(table.columns)
        if widths is None:
            _show_records(console, table)
        elif table.columns:
            console.print(_rich_table(table, widths))
        for note in table.notes:
            for line in _lines(note, console.width) if terminal else [note]:
                console.print(line, markup=False, soft_wrap=terminal or None)


def _widths(table: TextTable, room: int) -> list[int | None] | None:
    """Width of each column on a terminal of ``room`` characters; None if they do not fit side by side.

    A cell of up to `PROSE` characters, such as a number with its unit or a position, stays on one line; longer ones and
    headings are broken between words.
    """
    from rich.cells import cell_len

    def longest(texts: Iterable[str]) -> int:
        return max((cell_len(text) for text in texts), default=0)

    widths, full, wordy = [], [], []
    for index, heading in enumerate(table.columns):
        cells = [line for row in table.rows for line in row[index].split("\n")]
        prose = [cell for cell in cells if cell_len(cell) > PROSE]
        words = [line for cell in prose for line in _lines(cell, 1)]
        whole = [cell for cell in cells if cell_len(cell) <= PROSE]
        least = LEAST_PROSE if prose else 0
        widths.append(max(least, longest(heading.split()), longest(whole), longest(words)))
        full.append(max(cell_len(heading), longest(cells)))
        wordy.append(bool(prose))
    spare = room - sum(widths) - GAP * (len(widths) - 1)
    if spare < 0:
        return None
    while spare > 0 and widths != full:
        # The narrowest of those that want more.
        narrow = min(
            (i for i in range(len(widths)) if widths[i] < full[i]), key=lambda i: widths[i]
        )
        widths[narrow] += 1
        spare -= 1
    return list(widths)


def _show_records(console: Console, table: TextTable) -> None:
    """Print a table as one block of lines for each row."""
    from rich.cells import cell_len
    from rich.text import Text

    left = max(cell_len(heading) for heading in table.columns) + GAP
    for number, row in enumerate(table.rows):
        if number:
            console.print()
        for heading, cell in zip(table.columns, row, strict=True):
            if not cell:
                continue
            label = Text.assemble((heading, "bold"), " " * (left - cell_len(heading)))
            lines, indent = _lines(cell, max(1, console.width - left)), left
            if max(map(cell_len, lines)) > console.width - left:
                # Beside its heading it would not fit.
                console.print(label)
                lines, indent = _lines(cell, max(1, console.width - GAP)), GAP
                label = Text(" " * GAP)
            for line in lines:
                console.print(label.append(line), soft_wrap=True)
                label = Text(" " * indent)


def _lines(text: str, width: int) -> list[str]:
    """Break prose between words; a long path, a number and its unit, and a position stay in one piece."""
    import textwrap

    hard = "\N{NO-BREAK SPACE}"
    glued = TOGETHER.sub(hard, text).split("\n")
    wrap = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
    return [part.replace(hard, " ") for line in glued for part in wrap(line, width) or [""]]


def _rich_table(table: TextTable, widths: Sequence[int | None]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if sys.stdout.isatty():
        # With the line between them, columns are `GAP` apart.
        padding = (0, GAP - 1, 0, 0)
        result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=padding)
    else:
        result = Table(box=None, pad_edge=False)
    for index, heading in enumerate(table.columns):
        cells = [row[index] for row in table.rows if row[index]]
        right = bool(cells) and all(cell[0] in NUMERIC for cell in cells)
        # Text, not str: rich would take [mJy/beam] for markup.
        justify: Literal["right", "left"] = "right" if right else "left"
        result.add_column(Text(heading), justify=justify, width=widths[index], overflow="fold")
    for row in table.rows:
        cells = [
            cell if width is None else "\n".join(_lines(cell, width))
            for cell, width in zip(row, widths, strict=True)
        ]
        result.add_row(*(Text(cell) for cell in cells))
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
