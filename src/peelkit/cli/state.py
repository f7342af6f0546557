"""What the common options of one run come to."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peelkit.progress import Progress


@dataclass
class RunState:
    """The common options, gathered by their callbacks, and when the run began."""

    verbosity: int = 0
    json: bool = False
    sidecar: Path | None = None
    started: float = field(default_factory=time.time)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress for the work: bars on a terminal unless silenced, else nothing."""
        if self.verbosity == 0 and sys.stderr.isatty():
            from peelkit.cli.console import RichProgress

            with RichProgress() as bars:
                yield bars
        else:
            yield Progress()
