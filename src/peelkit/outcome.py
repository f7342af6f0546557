"""What a command's work hands back to the command line."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Everything of a finished run that goes into its sidecar.

    Parameters
    ----------
    results : dict
        The figures that the contract names, for the sidecar's ``results``.
    inputs : dict of str
        Role (``ms``, ``image``, ...) to path of what was read.
    reads, writes : tuple of str
        Columns and files that were read and written.
    parameters : dict
        Parameters as they were used, where they differ from the command line
        (chosen cell size, image size, reference antenna, ...).
    engine : dict or None
        Name, version, log and calls of the engine that ran.
    warnings : tuple of str
        What the user should know although the run finished.
    refusal : str or None
        Set when the answer is no: the reason, in one line. Exit code 5.
    """

    results: dict[str, Any]
    inputs: dict[str, str]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    refusal: str | None = None
