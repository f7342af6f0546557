"""The ``peelkit`` entry point, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from peelkit import __version__
from peelkit.cli import habits, options
from peelkit.cli.add_model_col import add_model_col
from peelkit.cli.ddsolve import ddsolve
from peelkit.cli.image_residual import image_residual
from peelkit.cli.import_uvfits import import_uvfits
from peelkit.cli.mask import mask
from peelkit.cli.predict_region import predict_region
from peelkit.cli.recipe import recipe
from peelkit.cli.selfcal import selfcal
from peelkit.cli.simulate import simulate
from peelkit.cli.snr_estimate import snr_estimate
from peelkit.cli.state import RunState
from peelkit.cli.stats import stats
from peelkit.cli.undo import undo
from peelkit.errors import PeelkitError

EXIT_STATUS = {
    0: "done",
    1: "a bug in peelkit: the traceback is kept",
    2: "the command line makes no sense",
    3: "the data will not do: missing column, empty mask, all flagged, wrong frame",
    4: "an engine (CASA, QuartiCal) failed: its last log lines are shown, and where the log is",
    5: "it ran, and the answer is no: S/N too low, round rejected, residual worse",
    130: "interrupted",
}


class Failure(click.ClickException):
    """An error as click shows it: one line on stderr, and its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors of the command line in one line; click's own have four."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "peelkit"
        message = error.format_message().rstrip(".")
        raise Failure(f"{message}; see '{command} --help'.", 2) from error


class PeelkitGroup(click.Group):
    """A group whose commands end with the exit codes of the contract."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the command."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what is typed out of habit is put right."""
        if args[0] == "help" and len(args) <= 2:
            # As git and others have it.
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
            args = [args[1], "--help"]
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, habits.as_meant(command, rest) if command else rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a `PeelkitError` becomes one line and its exit code, a bug keeps its traceback."""
        try:
            with _one_line():
                return super().invoke(ctx)
        except PeelkitError as error:
            raise Failure(str(error), error.exit_code) from error
        except KeyboardInterrupt:
            click.echo("peelkit: interrupted.", err=True)
            ctx.exit(130)


def _terminated(_signum: int, _frame: FrameType | None) -> None:
    # kill and a closing terminal end the children and clean up just as Ctrl-C does.
    raise KeyboardInterrupt


@click.group(
    cls=PeelkitGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 a bug, 2 usage, 3 the data will not do, 4 an engine failed, "
    "5 it ran and the answer is no, 130 interrupted.",
)
@click.version_option(__version__, prog_name="peelkit")
@options.verbosity
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Self-calibrate a Measurement Set, and peel bright sources from it.

    Each command reads and writes an MS or an image and leaves a JSON sidecar, which the next command
    reads with --from.

    \b
    peelkit selfcal 3C273.ms
    peelkit stats 3C273.selfcal/first.image 3C273.selfcal/final.image
    peelkit recipe peel > peel.sh; sh peel.sh target.ms bright.crtf out
    """
    ctx.ensure_object(RunState)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, _terminated)
        signal.signal(signal.SIGHUP, _terminated)
    # Engines and numpy read these once, at import.
    os.environ.setdefault("MPLBACKEND", "agg")


for _command in (
    import_uvfits,
    snr_estimate,
    mask,
    selfcal,
    add_model_col,
    predict_region,
    ddsolve,
    image_residual,
    stats,
    simulate,
    recipe,
    undo,
):
    cli.add_command(_command)
