"""CASA: the one module that knows its spelling. Its tasks run in a child process.

One child serves all calls of a command. A task is believed only when it returned and its product
is there; otherwise `EngineError` with the last lines of its log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from peelkit.engines import casa_mpi
from peelkit.engines._casa_worker import FORGET
from peelkit.engines._child import end_group, last_words
from peelkit.errors import EngineError

log = logging.getLogger(__name__)

# Lines of CASA's log that mean nothing to a user: an old leap-second table (CASA runs on), empty
# models in a first image, and what the tasks say on entry and exit.
NOISE = (
    "dUTC(Double)",
    "Leap second table",
    "Until the table is updated",
    "times and coordinates derived from UTC",
    "Restoring with an empty model image",
    "useweightimage",
)

# Tasks that write into the MS: on Ctrl-C they may finish first.
WRITING = {"applycal", "flagmanager", "delmod", "clearcal", "importuvfits", "setjy"}
GRACE_S = 60.0


class Casa:
    """A child process that runs CASA tasks; use it in a ``with`` block.

    Parameters
    ----------
    log_path : Path
        Where CASA's log goes, appended.
    processes : int
        How many grid for tclean: `peelkit.engines.casa_mpi`.

    Examples
    --------
    >>> with Casa(Path("x.casa.log")) as casa:  # doctest: +SKIP
    ...     casa.run("listobs", vis="x.ms")
    """

    def __init__(self, log_path: Path, processes: int = 1) -> None:
        self.log_path = log_path.absolute()
        self.processes = processes
        self.version = ""
        self.data = ""
        self.calls: dict[str, int] = {}
        # What is deleted in the end.
        self.leftovers: set[Path] = set()
        self._process: subprocess.Popen[str] | None = None
        self._replies: IO[str] | None = None
        self._work: tempfile.TemporaryDirectory[str] | None = None
        self._shown = 0

    def __enter__(self) -> Self:
        """Start the child; it imports CASA while the caller goes on."""
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            log_file = self.log_path.open("a", encoding="utf-8")
        except OSError as error:
            raise EngineError(
                f"{self.log_path}: CASA's log cannot be written ({error})."
            ) from error
        self._shown = self.log_path.stat().st_size
        # Tasks leave *.last files and the like in the folder they run in.
        self._work = tempfile.TemporaryDirectory(prefix="peelkit-casa-")
        replies = Path(self._work.name) / "replies"
        os.mkfifo(replies)
        worker = Path(__file__).with_name("_casa_worker.py")
        python = os.environ.get("PEELKIT_CASA_PYTHON", sys.executable)
        words = [python, "-W", "ignore", worker, replies, self.log_path, self.processes]
        # By default CASA's threads spin while they wait for each other: beside other work on the same cores an
        # image of a mosaic took 112 s, with this 59 s; alone 21.1 and 21.5 s.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        if self.processes > 1:
            words = [*casa_mpi.command(self.processes), *words]
            environment = {**casa_mpi.environment(self.processes), **environment}
        try:
            with log_file:
                self._process = subprocess.Popen(
                    [str(word) for word in words],
                    stdin=subprocess.PIPE,
                    stdout=log_file,
                    stderr=log_file,
                    env=environment,
                    cwd=self._work.name,
                    text=True,
                    start_new_session=True,  # a terminal's Ctrl-C reaches us only
                )
        except OSError as error:
            self._work.cleanup()
            raise EngineError(f"{words[0]}: CASA's Python cannot be started ({error}).") from error
        # Opening it waits for nobody.
        read_end = os.open(replies, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(read_end, True)
        self._replies = os.fdopen(read_end, encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child, whatever it is doing."""
        process = self._process
        if process is not None:
            if process.stdin is not None:
                # What a dead child did not take is written once more here.
                with contextlib.suppress(OSError):
                    process.stdin.close()
            if kind is None:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    self._kill()
            else:
                self._kill()
        if self._replies is not None:
            self._replies.close()
        if self._work is not None:
            self._work.cleanup()
        for path in self.leftovers:
            shutil.rmtree(path, ignore_errors=True)

    def _kill(self) -> None:
        if self._process is not None:
            end_group(self._process)

    def engine(self) -> dict[str, Any]:
        """What the sidecar says of the engine."""
        return {
            "name": "casatasks",
            "version": self.version,
            "data": self.data,
            "processes": self.processes,
            "log": str(self.log_path),
            "calls": dict(self.calls),
        }

    def run(
        self,
        task: str,
        *,
        product: Path | Sequence[Path] = (),
        goes_on: bool = False,
        **arguments: Any,
    ) -> Any:
        """Run one task.

        Parameters
        ----------
        task : str
            Name in casatasks.
        product : Path or sequence of Path
            Files or folders that must exist afterwards.
        goes_on : bool
            This tclean is of the same data and weights as the last task, which was one too: it goes on with
            its imager, if its image is the same.
        **arguments
            The task's own, paths as absolute strings.

        Returns
        -------
        object
            What the task returned, as plain JSON values.

        Raises
        ------
        EngineError
            If the task fails, the child dies, or a product is not there.
        """
        self.greet()
        self.calls[task] = self.calls.get(task, 0) + 1
        started = time.monotonic()
        reply = self._ask({"task": task, "goes_on": goes_on, "arguments": arguments})
        self._show_log()
        log.debug("%s took %.1f s", task, time.monotonic() - started)
        for path in [product] if isinstance(product, Path) else product:
            if not path.exists():
                raise EngineError(f"CASA's {task} made no {path.name}. {self._last_words()}")
        return reply.get("result")

    def forget(self) -> None:
        """Let the imager of the last tclean go, whose MS is to be deleted.

        It holds the tables open: NFS keeps the files of such, and the folder cannot be removed.
        """
        if "tclean" in self.calls:
            # A dead child holds nothing.
            with contextlib.suppress(EngineError):
                self._ask({"task": FORGET, "goes_on": False, "arguments": {}})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        # A child that is dead takes nothing; its last words follow.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._reply(request["task"])

    def greet(self) -> None:
        """Wait until the child has imported CASA; then `version` and `data` are known."""
        if not self.version:
            hello = self._reply("start")
            self.version, self.data = hello["version"], hello["data"]
            log.debug("casatasks %s, data in %s", self.version, self.data)

    def _reply(self, task: str) -> dict[str, Any]:
        try:
            line = self._wait()
        except KeyboardInterrupt:
            if task in WRITING:
                log.warning(
                    "letting %s finish its writing; interrupt again to stop it at once", task
                )
                self._wait(GRACE_S)
            raise
        if not line:
            assert self._process is not None
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise EngineError(f"CASA's child died in {task} ({how}). {self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        if not reply["ok"]:
            self._show_log()
            message = " ".join(str(reply["error"]).split())
            raise EngineError(
                f"CASA's {task} failed: {message or reply['kind']}. {self._last_words()}"
            )
        return reply

    def _wait(self, seconds: float | None = None) -> str:
        assert self._replies is not None
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            # Short waits: a signal is then handled at once, whichever thread it reached.
            ready, _, _ = select.select([self._replies], [], [], 0.2)
            if ready:
                return self._replies.readline()
            # A child that dies before it opens its end leaves nothing to read.
            if self._process is not None and self._process.poll() is not None:
                return self._replies.readline()
            if deadline is not None and time.monotonic() > deadline:
                return ""

    def _show_log(self) -> None:
        """Pass the new lines of CASA's log on, for -v."""
        if not log.isEnabledFor(logging.DEBUG):
            return
        with self.log_path.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(self._shown)
            for line in stream:
                if line.strip() and not any(noise in line for noise in NOISE):
                    log.debug("casa: %s", line.rstrip())
            self._shown = stream.tell()

    def _last_words(self) -> str:
        return last_words(self.log_path, noise=NOISE)


# ---------------------------------------------------------------- the tasks, thinly


def save_flags(casa: Casa, ms: Path, version: str) -> None:
    """Save the flags of ``ms`` as a CASA flag version."""
    casa.run(
        "flagmanager",
        vis=str(ms.absolute()),
        mode="save",
        versionname=version,
        comment="saved by peelkit",
        product=flag_version_path(ms, version),
    )


def restore_flags(casa: Casa, ms: Path, version: str) -> None:
    """Restore the flags that `save_flags` saved."""
    if not flag_version_path(ms, version).exists():
        raise EngineError(
            f"{ms}: flag version {version} is not there any more; it was deleted from "
            f"{ms.name}.flagversions."
        )
    casa.run("flagmanager", vis=str(ms.absolute()), mode="restore", versionname=version)


def delete_flags(casa: Casa, ms: Path, version: str) -> None:
    """Delete a flag version."""
    casa.run("flagmanager", vis=str(ms.absolute()), mode="delete", versionname=version)


def flag_version_path(ms: Path, version: str) -> Path:
    """Where CASA keeps a flag version."""
    return ms.with_name(f"{ms.name}.flagversions") / f"flags.{version}"


def delete_virtual_model(casa: Casa, ms: Path) -> None:
    """Drop a virtual model, which CASA would prefer over MODEL_DATA."""
    casa.run("delmod", vis=str(ms.absolute()), otf=True, scr=False)


def make_model_real(casa: Casa, ms: Path, out: Path) -> None:
    """Copy ``ms`` to ``out`` with its model, also a virtual one, as DATA; MODEL_DATA must be there.

    Only mstransform will do: uvsub cannot read the models that tclean saves. It sorts the rows.
    """
    casa.run(
        "mstransform",
        product=out,
        vis=str(ms.absolute()),
        outputvis=str(out.absolute()),
        datacolumn="model",
        keepflags=True,
        reindex=False,
    )


def solve_gains(casa: Casa, ms: Path, caltable: Path, **arguments: Any) -> dict[str, Any]:
    """Run gaincal; returns its statistics of solutions."""
    result = casa.run(
        "gaincal",
        product=caltable,
        vis=str(ms.absolute()),
        caltable=str(caltable.absolute()),
        **arguments,
    )
    return dict(result or {})


def solve_bandpass(casa: Casa, ms: Path, caltable: Path, **arguments: Any) -> None:
    """Run bandpass, which returns nothing: its table says what failed."""
    casa.run(
        "bandpass",
        product=caltable,
        vis=str(ms.absolute()),
        caltable=str(caltable.absolute()),
        bandtype="B",
        **arguments,
    )


# Where CASA's data folder has the flux standards and the model images of the VLA's calibrators.
CALIBRATOR_MODELS = Path("nrao") / "VLA" / "CalModels"


def calibrator_images(casa: Casa) -> frozenset[str] | None:
    """Names of the calibrators' model images, such as ``3C286_L.im``; None without CASA's full data."""
    casa.greet()
    folder = Path(casa.data) / CALIBRATOR_MODELS
    return frozenset(item.name for item in folder.iterdir()) if folder.is_dir() else None


def set_standard_model(
    casa: Casa, ms: Path, *, field: int, spws: Sequence[int], standard: str, model: str
) -> dict[int, float]:
    """Run setjy into MODEL_DATA; returns Stokes I [Jy] of each spw.

    A source that the standard does not know gets 1 Jy from setjy, and the model is then not written
    (measured: fluxd exactly 1.0, MODEL_DATA as it was).
    """
    result = casa.run(
        "setjy",
        vis=str(ms.absolute()),
        field=str(field),
        spw=",".join(map(str, spws)),
        standard=standard,
        model=model,
        usescratch=True,
    )
    found = dict(result or {}).get(str(field), {})
    return {spw: float(found[str(spw)]["fluxd"][0]) for spw in spws if str(spw) in found}


def remove_table(path: Path) -> None:
    """Delete a caltable of an interrupted round; gaincal would append to nothing else."""
    shutil.rmtree(path, ignore_errors=True)


def apply_gains(casa: Casa, ms: Path, **arguments: Any) -> None:
    """Run applycal; flags are never backed up here, since peelkit does it by name."""
    casa.run("applycal", vis=str(ms.absolute()), flagbackup=False, **arguments)


def derive_weights(casa: Casa, ms: Path, *, timebin_s: float, fitspw: str, corrected: bool) -> None:
    """Run statwt: WEIGHT and, if it is filled, WEIGHT_SPECTRUM from the scatter.

    With a CORRECTED_DATA statwt must be told to take it: of DATA it would then change SIGMA only
    (measured), since WEIGHT is for CORRECTED_DATA. SIGMA is left to the caller: of CORRECTED_DATA it
    does not change it. Flags are never backed up here, since peelkit does it by name.
    """
    casa.run(
        "statwt",
        vis=str(ms.absolute()),
        datacolumn="corrected" if corrected else "data",
        timebin=f"{timebin_s:g}s",
        fitspw=fitspw,
        flagbackup=False,
    )


def nominal_weights(casa: Casa, ms: Path, *, spectrum: bool) -> None:
    """Run initweights: weights from bandwidth and integration time.

    Without ``spectrum`` a WEIGHT_SPECTRUM would keep the old weights, and be preferred to WEIGHT.
    """
    casa.run("initweights", vis=str(ms.absolute()), wtmode="nyq", dowtsp=spectrum)


def flag_by_list(casa: Casa, ms: Path, path: Path, *, action: str = "apply") -> dict[str, Any]:
    """Run flagdata with a list of commands; with ``action='calculate'`` nothing is written."""
    result = casa.run(
        "flagdata",
        vis=str(ms.absolute()),
        mode="list",
        inpfile=[str(path.absolute())],
        action=action,
        flagbackup=False,
    )
    return dict(result or {})


# Beyond this power a mosaic is blank: no field has weight to speak of there, and CASA's primary beams,
# which the model is divided by, are good to a few per cent of the peak only. At CASA's own 0.2 a bright
# source on the rim, whose sidelobes cover the mosaic, could not be modelled.
MOSAIC_PB_LIMIT = 0.1

# mosweight weights each field by itself; with it the beam is larger and the noise higher (ALMA mosaic of
# 23 fields: beam area +8 %, rms +19 %), for depth that varies less. usepointing: the POINTING table is
# often empty or wrong. wprojplanes and conjbeams change nothing with this gridder (measured).
MOSAIC_ARGUMENTS = {"mosweight": False, "usepointing": False}


# A source half way to the edge then loses 2.5e-4 on the baselines that lose most: less than gains are known to.
SMEARING = 0.001


@dataclass(frozen=True)
class Imaging:
    """How images are made, in CASA's words.

    Parameters
    ----------
    imsize : int
        Pixels along each side.
    cell_arcsec : float
        Pixel size [arcsec].
    robust : float
        Of Briggs weighting.
    nterms : int
        Taylor terms of the spectrum; more than one means mtmfs.
    scales : tuple of int
        Scales [pixel] of multi-scale clean; empty for a point-like sky.
    gridder : str
        ``standard``, ``wproject``, or ``mosaic`` for several pointings: `image` and `models` are then
        flat-noise, that is the sky times `pb`, and blank where `pb` is below `MOSAIC_PB_LIMIT`.
    uvrange : str
        Baselines to image, CASA's syntax.
    niter : int
        At most so many clean components.
    stokes : str
        ``I``, or the only parallel hand there is; or several planes, such as ``IQ``.
    phasecenter : str
        Middle of the image, such as ``J2000 12h01m52.4s -18d52m03s``; empty for that of the field.
    imager : str
        ``tclean``, or ``wsclean`` (`peelkit.core.imagers`), whose gridder is called ``wgridder``.
    smearing : float
        Data are averaged first as far as sources at the edge of the image lose this fraction of their flux
        (`peelkit.core.averaging`); 0 images them as they are.
    """

    imsize: int
    cell_arcsec: float
    robust: float = 0.5
    nterms: int = 1
    scales: tuple[int, ...] = ()
    gridder: str = "standard"
    uvrange: str = ""
    niter: int = 20000
    stokes: str = "I"
    phasecenter: str = ""
    imager: str = "tclean"
    smearing: float = SMEARING

    @property
    def is_mosaic(self) -> bool:
        """Each field is gridded with its primary beam."""
        return self.gridder == "mosaic"

    @property
    def polarised(self) -> str:
        """The planes beside I, such as ``QUV``."""
        return self.stokes[1:] if self.stokes.startswith("I") else ""

    @property
    def suffix(self) -> str:
        """``.tt0`` for images with Taylor terms."""
        return ".tt0" if self.nterms > 1 else ""

    def image(self, imagename: Path) -> Path:
        """Restored image that tclean makes of ``imagename``."""
        return imagename.with_name(f"{imagename.name}.image{self.suffix}")

    def psf(self, imagename: Path) -> Path:
        """Point spread function of ``imagename``."""
        return imagename.with_name(f"{imagename.name}.psf{self.suffix}")

    def residual(self, imagename: Path) -> Path:
        """What was not cleaned."""
        return imagename.with_name(f"{imagename.name}.residual{self.suffix}")

    def pb(self, imagename: Path) -> Path:
        """Primary beam of ``imagename``, of all pointings together; 1 at its peak."""
        return imagename.with_name(f"{imagename.name}.pb{self.suffix}")

    def models(self, imagename: Path) -> list[Path]:
        """Model images, one for each Taylor term."""
        if self.nterms == 1:
            return [imagename.with_name(f"{imagename.name}.model")]
        return [imagename.with_name(f"{imagename.name}.model.tt{k}") for k in range(self.nterms)]


def clean(
    casa: Casa,
    ms: Path,
    imagename: Path,
    imaging: Imaging,
    *,
    field: str,
    spw: str,
    datacolumn: str,
    mask: Path | None,
    nsigma: float,
    observation: str = "",
    resume: bool = False,
    model_changed: bool = False,
    psf_there: bool = False,
) -> dict[str, Any]:
    """Run tclean; without a mask it makes the dirty image. A model that is there is what it begins with.

    Parameters
    ----------
    resume : bool
        Go on with the same data, weights and model, in another mask.
    model_changed : bool
        With ``resume``: but for the model, so that the residual is made anew.
    psf_there : bool
        The PSF and the sums of weights of ``imagename`` are there, of the same data and weights.
    """
    if mask:
        # tclean refuses another mask while its own copy of the first is there.
        shutil.rmtree(imagename.with_name(f"{imagename.name}.mask"), ignore_errors=True)
    if imaging.nterms > 1:
        deconvolver = "mtmfs"
    else:
        deconvolver = "multiscale" if imaging.scales else "hogbom"
    arguments: dict[str, Any] = {
        "vis": str(ms.absolute()),
        "imagename": str(imagename.absolute()),
        "field": field,
        "spw": spw,
        "observation": observation,
        "uvrange": imaging.uvrange,
        # It images no autocorrelations, but counts them in the density of Briggs weights (6.7.0: VLA data of 1995 got a
        # beam 20 % larger).
        "antenna": "*&*",
        "datacolumn": datacolumn,
        "imsize": [imaging.imsize, imaging.imsize],
        "cell": f"{imaging.cell_arcsec!r}arcsec",
        "stokes": imaging.stokes,
        "specmode": "mfs",
        "gridder": imaging.gridder,
        "phasecenter": imaging.phasecenter,
        "wprojplanes": -1 if imaging.gridder == "wproject" else 1,
        # One field is not blanked: sources beyond the main lobe matter most here.
        "pblimit": MOSAIC_PB_LIMIT if imaging.is_mosaic else -0.1,
        **(MOSAIC_ARGUMENTS if imaging.is_mosaic else {}),
        "deconvolver": deconvolver,
        "scales": list(imaging.scales),
        "nterms": imaging.nterms,
        "weighting": "briggs",
        "robust": imaging.robust,
        # Twice CASA's gain: the same rms on 3C273 in 40 % of the time.
        "gain": 0.2,
        "cyclefactor": 1.5,
        "usemask": "user",
        "savemodel": "none",
        "parallel": casa.processes > 1,
    }
    products = [imaging.image(imagename), imaging.psf(imagename)]
    if casa.processes > 1 and not resume:
        psf_there = casa_mpi.make_psf(
            lambda: casa.run("tclean", **arguments, niter=0, restoration=False),
            imagename,
            imaging.models(imagename),
        )
    result = casa.run(
        "tclean",
        product=[*products, *imaging.models(imagename)] if mask else products,
        goes_on=resume,
        **arguments,
        niter=imaging.niter if mask else 0,
        nsigma=nsigma if mask else 0.0,
        mask=str(mask.absolute()) if mask else "",
        calcpsf=not (resume or psf_there),
        calcres=not resume or model_changed,
    )
    if casa.processes > 1:
        # The next call on this image wants it.
        casa.leftovers.add(imagename.with_name(f"{imagename.name}.gridwt_temp"))
    return dict(result or {})


def predict(casa: Casa, ms: Path, imagename: Path, arguments: Mapping[str, Any]) -> None:
    """Predict the models of ``imagename`` that are on disk into MODEL_DATA of ``ms``.

    ``arguments`` are tclean's own for gridder, size and beam. It makes no image, and changes no other
    column; flagged samples get 0.
    """
    casa.run(
        "tclean",
        **{
            **arguments,
            "vis": str(ms.absolute()),
            "imagename": str(imagename.absolute()),
            "datacolumn": "data",
            "niter": 0,
            "calcpsf": False,
            "calcres": False,
            "restoration": False,
            "savemodel": "modelcolumn",
        },
    )


def import_uvfits(casa: Casa, fitsfile: Path, ms: Path) -> None:
    """Run importuvfits."""
    casa.run("importuvfits", product=ms, fitsfile=str(fitsfile.absolute()), vis=str(ms.absolute()))
