"""What one self-calibration is made of: options, the best state so far, its images and records."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import averaging, image_record, imagers, imaging, reuse, snr
from peelkit.core.first_image import FIRST_NSIGMA
from peelkit.core.imaging import Cleaned, Target
from peelkit.core.measure import Held, flux_held, measure, shift_pixels
from peelkit.core.verdict import Limits, State, Verdict
from peelkit.core.workspace import Workspace
from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import Image, read_image
from peelkit.io.survey import Survey
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SelfcalOptions:
    """What the user asked for. Names and defaults are CASA's where it has them."""

    out: Path | None = None
    solints: tuple[str, ...] = ("auto",)
    calmodes: tuple[str, ...] = ()
    combines: tuple[str, ...] = ()
    gaintypes: tuple[str, ...] = ()
    plan: tuple[Mapping[str, Any], ...] | None = None
    refant: str = ""
    minsnr: float | None = None
    minblperant: int | None = None
    solnorm: bool | None = None
    datacolumn: str = "auto"
    applymode: str = "calonly"
    interp: str = ""
    spwmap: tuple[int, ...] = ()
    calwt: bool = False
    parang: bool = False
    rounds: int = 12
    fallback: bool = True
    line: bool = False
    check_executions: bool | None = None
    leave_out: Path | None = None
    phase_snr: float = 3.0
    amplitude_snr: float = 10.0
    mask: Path | None = None
    mask_threshold: float = 4.5
    nsigma: float | None = None
    model: tuple[Path, ...] = ()
    limits: Limits = Limits()
    choices: imaging.Choices = imaging.Choices()
    plots: bool = True
    overwrite: bool = False
    weights: str = "keep"
    statwt_fitspw: str = ""
    flag_list: Path | None = None


@dataclass
class Best:
    """The best state so far: its gain tables (phase, then amplitude), image and mask."""

    tables: list[str] = field(default_factory=list)
    table_spwmaps: list[list[int]] = field(default_factory=list)
    table_modes: list[str] = field(default_factory=list)
    imagename: str = "first"
    nsigma: float = FIRST_NSIGMA


@dataclass
class Session:
    """One run: what is constant, and the state that rounds change."""

    info: ms.MsInfo
    work: ms.MsInfo
    rows: NDArray[np.int64]
    workspace: Workspace
    options: SelfcalOptions
    selection: Selection
    found: Survey
    fields: list[int]
    imaging: engine.Imaging
    casa: engine.Casa
    imager: imagers.Imager
    refants: list[int]
    progress: Progress
    best: Best = field(default_factory=Best)
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))
    # Regions that stay out of every mask and model, and so out of the solves.
    left_out: NDArray[np.bool_] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    # Figures of the first image outside the mask that it had, as rounds have theirs.
    first: dict[str, Any] = field(default_factory=dict)
    # Each execution imaged by itself, if there are several.
    executions: list[dict[str, Any]] = field(default_factory=list)
    applied: list[str] | None = None
    # What the averages were made of: a column, and the tables applied to it.
    averaged: tuple[str, ...] | None = None
    psf_mark: str | None = None
    # The run goes on where it was killed, perhaps while the best image was cleaned on: its residual may be another model's.
    doubted: bool = False

    def mark(self, target: Target) -> str:
        """`reuse.mark` of what is imaged. Gains change it only with the weights: no round sets flags."""
        if self.psf_mark is None or self.options.calwt:
            self.psf_mark = reuse.mark_of(target.ms)
        return self.psf_mark

    @property
    def field(self) -> str:
        """The fields in CASA's words: one, or those of the mosaic."""
        return ",".join(map(str, self.fields))

    @property
    def field_names(self) -> str:
        """The field's name, or the ids of a mosaic's, whose names often are all the same."""
        if len(self.fields) == 1:
            return self.info.fields[self.fields[0]].name
        return self.field

    def name(self, imagename: str) -> Path:
        """An image name in the workspace."""
        return self.workspace.path(imagename)


def target(session: Session, column: str) -> Target:
    """A column of the working copy as it is now, averaged for imaging.

    Parameters
    ----------
    column : str
        ``data`` or ``corrected``.
    """
    if not session.applied and not session.options.parang:
        column = "data"  # as which CORRECTED_DATA begins; the imager then goes on
    there = Target(session.work.path, session.field, session.selection.spw, datacolumn=column)
    if session.imaging.smearing == 0:
        return there
    work, path = session.work, session.workspace.averaged
    state = (column, *(session.applied or ()))
    if session.averaged != state:
        imagers.forget(session.imager)
        shutil.rmtree(path, ignore_errors=True)
        averaging.write(work, ms.every_row(work), work.data_column(column), path, session.imaging)
        session.averaged = state
    return replace(there, ms=path, datacolumn="data")


def average_less(session: Session) -> bool:
    """Average less from now on if the best image is so good that averages limit it; whether they do."""
    if session.options.choices.smearing is not None or session.imaging.smearing == 0:
        return False
    image = read_image(session.imaging.image(session.name(session.best.imagename)))
    rms = measure(image, session.mask).rms_jy_beam
    needed = averaging.bearable(session.info, image, session.imaging, session.fields, rms)
    if needed >= session.imaging.smearing:
        return False
    session.imaging = replace(session.imaging, smearing=needed / 2)
    session.averaged = session.psf_mark = None
    log.info(
        "averages would limit the image: sources at its edge now lose %.1g at most", needed / 2
    )
    return True


def clean(
    session: Session,
    imagename: str,
    tables: list[str],
    *,
    nsigma: float,
    like: Image,
    model_of: str | None = None,
) -> None:
    """Image the corrected data, to which ``tables`` were applied, in the present mask.

    Parameters
    ----------
    model_of : str, optional
        Image whose model cleaning begins with.
    """
    started = time.time()
    data = target(session, "corrected")
    name, mark = session.name(imagename), session.mark(data)
    imaging.remove_products(name)
    if model_of is not None:
        reuse.take_model(session.imager, session.name(model_of), name, session.imaging)
    first = session.name("first")
    psf_there = _mark_of(session, "first") == mark and reuse.take_psf(
        session.imager, first, name, session.imaging
    )
    imaging.clean_in_mask(
        session.imager, data, name, session.imaging, session.mask,
        nsigma=nsigma, like=like, psf_there=psf_there,
    )  # fmt: skip
    record_image(session, imagename, tables, nsigma=nsigma, started=started, mark=mark)


def clean_on(session: Session, mask: NDArray[np.bool_], *, nsigma: float) -> None:
    """Clean the best image on, in a mask that opened; its gains are applied."""
    started = time.time()
    data = target(session, "corrected")
    best, mark = session.best, session.mark(data)
    name = session.name(best.imagename)
    before = Cleaned(name, read_image(session.imaging.image(name)), session.mask)
    imaging.clean_on(
        session.imager, data, before, session.imaging, mask,
        cleaned_to=best.nsigma, nsigma=nsigma,
        same_weights=_mark_of(session, best.imagename) == mark and not session.doubted,
    )  # fmt: skip
    session.doubted = False
    record_image(session, best.imagename, best.tables, nsigma=nsigma, started=started, mark=mark)
    session.mask, best.nsigma = mask, nsigma


def _mark_of(session: Session, imagename: str) -> str | None:
    return image_record.read(session.imaging.image(session.name(imagename))).mark


def record_image(
    session: Session,
    imagename: str,
    tables: list[str],
    *,
    nsigma: float,
    started: float,
    mark: str | None,
) -> None:
    """Leave a sidecar beside an image, from which the same can be made of another column."""
    image_record.write(
        session.name(imagename),
        session.imaging,
        ms=session.info.path,
        selection=replace(session.selection, field=session.field),
        column="CORRECTED_DATA" if tables else session.info.data_column(session.options.datacolumn),
        nsigma=nsigma,
        engine=session.imager.engine(),
        started=started,
        mark=mark,
    )


def link_final(session: Session) -> None:
    """Give the products of the best image names that scripts can know beforehand: final.image."""
    best, final = session.name(session.best.imagename), session.name("final")
    imaging.remove_products(final)
    for path in imaging.products(best):
        kind = path.name.removeprefix(best.name)
        if not kind.endswith(".peelkit.json"):
            final.with_name(f"{final.name}{kind}").symlink_to(path.name)
    record_image(
        session, "final", session.best.tables, nsigma=session.best.nsigma, started=time.time(),
        mark=_mark_of(session, session.best.imagename),
    )  # fmt: skip


def save(session: Session, stage: str) -> None:
    """Record where the run is, so that it can be resumed."""
    np.save(session.workspace.path("mask.npy"), session.mask)
    session.workspace.state = {
        "stage": stage,
        "first": session.first,
        "rounds": session.rounds,
        "executions": session.executions,
        "best": asdict(session.best),
        "smearing": session.imaging.smearing,
        "robust": session.imaging.robust,
        "data": session.workspace.state.get("data"),
    }
    session.workspace.save()


def restore(session: Session) -> None:
    """Go back to where an interrupted run was."""
    state = session.workspace.state
    session.first = dict(state.get("first", {}))  # not in those of older runs
    session.rounds = list(state["rounds"])
    session.executions = list(state["executions"])
    session.best = Best(**state["best"])
    session.imaging = replace(session.imaging, smearing=state["smearing"], robust=state["robust"])
    session.mask = np.load(session.workspace.path("mask.npy"))
    session.doubted = True


def state_of(session: Session, imagename: str) -> State:
    """Figures of one of the images, with the present mask."""
    image = read_image(session.imaging.image(session.name(imagename)))
    if image.beam is None:
        raise DataError(f"{image.path}: no beam was fitted; is there enough unflagged data?")
    return State(measure(image, session.mask), image.beam, image.cell_arcsec)


def shift_arcsec(session: Session, imagename: str) -> float:
    """How far the sources moved since the first image [arcsec]."""
    one, two = (
        read_image(session.imaging.image(session.name(name))) for name in ("first", imagename)
    )
    return math.hypot(*shift_pixels(one.data, two.data, session.mask)) * one.cell_arcsec


def held(session: Session, imagename: str) -> tuple[Held, Held]:
    """Flux that an image and the best so far both believe: of all sources, and of all but the brightest."""
    before, after = (
        read_image(session.imaging.image(session.name(name)))
        for name in (session.best.imagename, imagename)
    )
    return flux_held(before, after, session.mask)


def round_record(
    rung: snr.Rung,
    before: State,
    after: State,
    verdict: Verdict,
    tried: int,
    failed: int,
    caltable: Path | None,
    image: Path | None,
    suspicious: list[str],
) -> dict[str, Any]:
    """One round for the sidecar."""
    return {
        "solint": rung.solint,
        "solint_s": rung.solint_s,
        "calmode": rung.calmode,
        "combine": rung.combine,
        "gaintype": rung.gaintype,
        "minsnr": rung.minsnr,
        "snr": rung.snr,
        **figures_record(after),
        "before": figures_record(before),
        "gain": verdict.gain if math.isfinite(verdict.gain) else 1.0,
        "solutions": tried,
        "solutions_failed": failed,
        "accepted": verdict.accepted,
        "reason": verdict.reason,
        "caltable": str(caltable) if caltable else None,
        "image": str(image) if image else None,
        "suspicious": suspicious,
    }


def figures_record(state: State) -> dict[str, Any]:
    """Figures of an image for the sidecar."""
    figures = state.figures
    return {
        "peak_jy_beam": figures.peak_jy_beam,
        "minimum_jy_beam": figures.minimum_jy_beam,
        "rms_jy_beam": figures.rms_jy_beam,
        "rms_plain_jy_beam": figures.rms_plain_jy_beam,
        "rms_near_jy_beam": figures.rms_near_jy_beam,
        "dynamic_range": figures.dynamic_range,
        "flux_jy": figures.flux_jy,
        "flux_snr": figures.flux_snr,
        "beam": asdict(state.beam),
    }
