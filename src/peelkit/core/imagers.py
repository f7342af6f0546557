"""Which program makes images: tclean, or WSClean. Callers of `clean` need not know."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from peelkit import memory, parallel
from peelkit.core import wsclean_images
from peelkit.engines import casa as tclean
from peelkit.engines import casa_mpi
from peelkit.engines.casa import Casa, Imaging
from peelkit.engines.wsclean import Wsclean
from peelkit.errors import OptionError
from peelkit.io.ms import MsInfo

log = logging.getLogger(__name__)

TCLEAN, WSCLEAN = "tclean", "wsclean"

Imager = Casa | Wsclean


def check(imaging: Imaging, info: MsInfo, fields: Sequence[int], spw: str) -> None:
    """Refuse what the imager cannot do, before any work: see `casa_mpi.processes`, `wsclean_images.check`."""
    processes(imaging.imager)
    for track, name in ((info.fields[one].track, info.fields[one].name) for one in fields):
        if track and track.moved_arcsec > imaging.cell_arcsec:
            log.warning(
                "field %s moves by %.3g arcsec within its data: the image is at rest on the sky, and what moves with the "
                "field is smeared in it; for a sharp one, select fewer scans",
                name,
                track.moved_arcsec,
            )
    if imaging.imager == WSCLEAN:
        wsclean_images.check(imaging, info, fields, spw)


def processes(imager: str) -> int:
    """How many processes of CASA the imager works in."""
    return casa_mpi.processes() if imager == TCLEAN else 1


def gridder(asked: str | None) -> str:
    """WSClean's gridder; one that was asked for is refused.

    Raises
    ------
    OptionError
        If one was.
    """
    if asked is not None:
        raise OptionError(
            f"--gridder {asked}: is tclean's; --imager wsclean has its own, which does the w term. Leave it out."
        )
    return wsclean_images.GRIDDER


def begins_with_model(imaging: Imaging) -> bool:
    """Whether the imager begins with the model that is there, which WSClean cannot."""
    return imaging.imager == TCLEAN


def switched(imaging: Imaging, imager: str) -> Imaging:
    """The same with another imager."""
    if imager == imaging.imager:
        return imaging
    if imaging.is_mosaic:
        return replace(imaging, imager=imager)
    name = wsclean_images.GRIDDER if imager == WSCLEAN else "wproject"
    return replace(imaging, imager=imager, gridder=name)


@contextmanager
def opened(name: str, casa_log: Path, casa: Casa | None = None) -> Iterator[Imager]:
    """Give the imager ``name``.

    Parameters
    ----------
    casa_log : Path
        Where CASA's log goes; WSClean's is beside it.
    casa : Casa, optional
        A child that runs already, for tclean.
    """
    if name == WSCLEAN:
        log_path = casa_log.with_name(casa_log.name.replace("casa.log", f"{WSCLEAN}.log"))
        # It works while we wait, as other workers and their engines do.
        threads, room = parallel.cores(), memory.child_gib()
        with Wsclean(log_path, threads=threads, memory_gib=room) as wsclean:
            yield wsclean
    elif casa is not None:
        yield casa
    else:
        with Casa(casa_log, processes(name)) as own:
            yield own


def forget(imager: Imager) -> None:
    """Before the MS of the last image is deleted: see `Casa.forget`."""
    if isinstance(imager, Casa):
        imager.forget()


def engines(casa: Casa, imager: Imager) -> dict[str, Any]:
    """What the sidecar says of the engines: CASA, and beside it the imager if it is another."""
    if isinstance(imager, Wsclean):
        return {**casa.engine(), "imager": imager.engine()}
    return casa.engine()


def clean(imager: Imager, path: Path, imagename: Path, imaging: Imaging, **arguments: Any) -> None:
    """Make an image: see `peelkit.engines.casa.clean` and `peelkit.core.wsclean_images.clean`."""
    if isinstance(imager, Wsclean):
        wsclean_images.clean(imager, path, imagename, imaging, **arguments)
    else:
        tclean.clean(imager, path, imagename, imaging, **arguments)
