"""Progress as the work sees it: stages with a total, advanced step by step.

The work calls these methods; the command line shows them as bars on a terminal.
The base class shows nothing.
"""


class Progress:
    """Progress that nobody watches."""

    def stage(self, text: str, total: float | None = None) -> None:
        """Begin a stage; ``total`` counts its steps, None if it cannot be known."""

    def advance(self, steps: float = 1) -> None:
        """Count ``steps`` of the present stage as done."""
