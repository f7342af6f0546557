"""Options that several commands share: one definition per concept."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from peelkit.cli.state import RunState
from peelkit.errors import OptionError
from peelkit.memory import DEFAULT_GIB as DEFAULT_MEMORY_GIB
from peelkit.memory import LEAST_GIB as LEAST_MEMORY_GIB
from peelkit.products import product, taylor_terms

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _Image(click.Path):
    """An image to read; ``x.image`` and ``x`` name ``x.image.tt0`` too, where that is what there is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return product(Path(os.fsdecode(super().convert(value, param, ctx))))


IMAGE = _Image()


def all_terms(
    ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Each model with all its Taylor terms, where they are named by ``x.model``."""
    return tuple(term for path in value for term in taylor_terms(path))


class _Finite(click.types.FloatParamType):
    """A number, but neither nan nor inf: click takes both, and nan for within every range."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no number; give a finite one.", param, ctx)
        return found


class Range(click.FloatRange, _Finite):
    """A finite number in a range."""

    name = "number"


NUMBER = _Finite()


def _set_verbosity(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        state = ctx.ensure_object(RunState)
        state.verbosity = 1 if param.name == "verbose" else -1
    if not ctx.resilient_parsing:
        from peelkit.cli.console import configure_logging

        configure_logging(ctx.ensure_object(RunState).verbosity)


def verbosity(function: F) -> F:
    """-v and -q, on the group and on each command."""
    function = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_verbosity,
        help="Errors only on stderr.",
    )(function)
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbosity,
        help="Show the engines' own log lines.",
    )(function)


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(RunState).json = True


def _set_sidecar(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(RunState).sidecar = value


def common(function: F) -> F:
    """What every command takes: --json, --sidecar, -v, -q."""
    function = verbosity(function)
    function = click.option(
        "--sidecar",
        type=PATH,
        expose_value=False,
        callback=_set_sidecar,
        help="Write the JSON sidecar here instead of beside the product.",
    )(function)
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Print the sidecar's JSON on stdout instead of a table.",
    )(function)


def memory(function: F) -> F:
    """--memory GIB: the limit (`peelkit.memory.limited`) under which the command runs."""

    @functools.wraps(function)
    def wrapper(*args: Any, memory_gib: float, **kwargs: Any) -> Any:
        from peelkit import memory as limit

        # Workers here, if there are any, share it.
        machines = kwargs.get("machines")
        workers = machines.workers if machines is not None else kwargs.get("workers") or 0
        # As the message gives it, so that what it asks for will do.
        least = round((1 + workers) * limit.LEAST_PROCESS_GIB, 1)
        if memory_gib < least:
            raise OptionError(
                f"--workers {workers}: with this process they take {least:.1f} GiB at least, more than --memory "
                f"{memory_gib:g}; give --memory {least:.1f}, or fewer workers."
            )
        with limit.limited(memory_gib, processes=1 + workers):
            return function(*args, **kwargs)

    option = click.option(
        "--memory",
        "memory_gib",
        metavar="GIB",
        type=Range(min=LEAST_MEMORY_GIB),
        default=DEFAULT_MEMORY_GIB,
        show_default=True,
        help="Memory to take at most, in GiB, in all processes together: data are worked on in pieces that fit.",
    )
    return option(wrapper)  # type: ignore[return-value]


ms_argument = click.argument("ms", type=PATH)

overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace products that exist; without it that is an error."
)


def datacolumn(help_text: str) -> Callable[[F], F]:
    """--datacolumn, in CASA's words."""
    return click.option(
        "--datacolumn",
        type=click.Choice(["auto", "data", "corrected"]),
        default="auto",
        show_default=True,
        help=f"{help_text} auto: CORRECTED_DATA if it is calibrated (differs from DATA), else DATA.",
    )


def selection_options(*words: str) -> Callable[[F], F]:
    """Give CASA's selection options ``words``, packed into one `Selection` argument."""
    help_texts = {
        "field": "Field by id or name, as in CASA: 0, 0~3, 3C273.",
        "spw": "Spectral windows and channels, as in CASA: 0~3, 0:5~60.",
        "scan": "Scans, as in CASA: 1~4.",
        "antenna": "Antennas by name or id.",
        "uvrange": "Baseline range for the solve, as in CASA: '>1klambda', '100~500m'.",
    }

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            from peelkit.selection import Selection

            chosen = {word: kwargs.pop(word) for word in words}
            return function(*args, selection=Selection(**chosen), **kwargs)

        for word in reversed(words):
            wrapper = click.option(f"--{word}", default="", help=help_texts[word])(wrapper)
        return wrapper  # type: ignore[return-value]

    return decorate


def from_option(help_text: str) -> Callable[[F], F]:
    """--from SIDECAR, as the argument ``plan``."""
    return click.option("--from", "plan", type=PATH, metavar="SIDECAR", help=help_text)


def snr_thresholds(function: F) -> F:
    """--phase-snr and --amplitude-snr."""
    function = click.option(
        "--amplitude-snr",
        type=Range(min=1),
        default=10.0,
        show_default=True,
        help="S/N per solution from which amplitudes are solved.",
    )(function)
    return click.option(
        "--phase-snr",
        type=Range(min=1),
        default=3.0,
        show_default=True,
        help="S/N per solution from which phases are solved.",
    )(function)


def imaging_options(function: F) -> F:
    """Give the imaging options, in CASA's words; `imaging_choices` packs them."""
    for option in reversed(
        [
            click.option(
                "--imsize",
                type=click.IntRange(min=64),
                help="Pixels a side; chosen from the primary beam if not given.",
            ),
            click.option(
                "--cell", help="Pixel size, such as 0.5arcsec; a fifth of the beam if not given."
            ),
            click.option(
                "--robust",
                type=Range(-2, 2),
                help="Of Briggs weighting [default: 0.5; in snr-estimate and selfcal natural, 2, where only that "
                "shows a source].",
            ),
            click.option(
                "--smearing",
                type=Range(0, 0.1),
                help="Data are averaged in time for imaging, each baseline as long as sources at the image's edge "
                "lose this fraction of their flux at most; 0 images them as they are [default: 0.001, less where "
                "bright sources off axis are seen well enough to suffer].",
            ),
            click.option(
                "--nterms",
                type=click.IntRange(1, 4),
                help="Taylor terms of the spectrum; 2 from 10 % bandwidth if not given.",
            ),
            click.option(
                "--scales",
                default="",
                help="Scales of multi-scale clean in pixels, such as 0,5,12.",
            ),
            click.option(
                "--gridder",
                type=click.Choice(["standard", "wproject", "mosaic"]),
                help="Chosen from the fields and the w term if not given.",
            ),
            click.option(
                "--imager",
                type=click.Choice(["tclean", "wsclean"]),
                default="tclean",
                show_default=True,
                help="Program that makes the images. WSClean (apt install wsclean): one field, Stokes I, whole spws. "
                "With PEELKIT_CASA_PROCESSES=N in the environment tclean grids in N processes (casampi).",
            ),
            click.option(
                "--niter",
                type=click.IntRange(min=1),
                default=20000,
                show_default=True,
                help="Clean components at most.",
            ),
        ]
    ):
        function = option(function)
    return function


def imaging_choices(values: dict[str, Any]) -> Any:
    """Pack what `imaging_options` gave into a `peelkit.core.imaging.Choices`."""
    from peelkit.core.imaging import Choices
    from peelkit.selection import parse_angle_arcsec

    scales = values["scales"].replace(" ", "")
    if scales and not all(piece.isdigit() for piece in scales.split(",")):
        raise click.BadParameter(
            f"{values['scales']!r} is not a list of pixels, such as 0,5,12.", param_hint="--scales"
        )
    return Choices(
        imsize=values["imsize"],
        cell_arcsec=parse_angle_arcsec(values["cell"]) if values["cell"] else None,
        robust=values["robust"],
        nterms=values["nterms"],
        scales=tuple(int(piece) for piece in scales.split(",")) if scales else (),
        gridder=values["gridder"],
        niter=values["niter"],
        imager=values["imager"],
        uvrange=values.get("imaging_uvrange") or "",
        smearing=values["smearing"],
    )


def machines(function: F) -> F:
    """--workers and --dask-address, packed into one `peelkit.spread.Machines` argument."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from peelkit.spread import Machines

        workers, address = kwargs.pop("workers"), kwargs.pop("dask_address")
        if workers and address:
            raise click.UsageError(
                "--workers starts workers here; with --dask-address there are some."
            )
        return function(*args, machines=Machines(workers or 0, address), **kwargs)

    wrapper = click.option(
        "--dask-address",
        default="",
        metavar="ADDRESS",
        help="Spread the work over the workers of this Dask scheduler, such as tcp://head:8786; they need "
        "the same folders and the same peelkit.",
    )(wrapper)
    return click.option(  # type: ignore[return-value]
        "--workers",
        type=click.IntRange(min=1),
        default=None,
        help="Spread the work over this many processes on this machine, each with one thread.",
    )(wrapper)
