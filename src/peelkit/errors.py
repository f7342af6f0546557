"""What can go wrong, each with the exit code that the shell sees."""


class PeelkitError(Exception):
    """A failure that the user can understand and mend: one line, no traceback."""

    exit_code = 1


class OptionError(PeelkitError):
    """The command line makes no sense."""

    exit_code = 2


class DataError(PeelkitError):
    """The Measurement Set, image or file will not do."""

    exit_code = 3


class EngineError(PeelkitError):
    """CASA or another engine failed, or returned without its product."""

    exit_code = 4


class GateError(PeelkitError):
    """It ran, and the answer is no."""

    exit_code = 5
