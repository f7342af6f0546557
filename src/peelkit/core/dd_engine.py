"""QuartiCal's process, started before what ddsolve itself imports: this module imports nothing heavy."""

from __future__ import annotations

from contextlib import AbstractContextManager

from peelkit.engines import quartical


def ready() -> AbstractContextManager[None]:
    """QuartiCal is imported while other things are done, and ended with the block."""
    return quartical.ready()
