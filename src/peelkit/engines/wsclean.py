"""WSClean: the one module that knows its spelling. It is looked for on PATH and run as a child process.

Measured with 3.1.0, Debian's package:

- Its dirty and residual images are the sum over the visibilities to 1e-4 only with ``-no-small-inversion``:
  without it a point 8' off the axis left an rms of 2.3 times the thermal noise.
- Without ``-reorder`` it writes MODEL_DATA into the MS when it cleans. With it the model is in files of its
  own, beside the MS unless ``-temp-dir`` says where.
- ``-auto-threshold`` counts with the noise of the residual as it was before a major cycle, and what comes down to
  that ends the cleaning: where sidelobes are the most of that "noise" it ends too early, by a factor of seven in
  rms with ``-mgain 0.8`` and 1.02 with 0.6 (14 VLA antennas, 8 integrations). So the gain of a cycle follows
  the sidelobes: `peelkit.core.wsclean_images`.
- It honours FLAG, not FLAG_ROW; it cannot select by OBSERVATION_ID.
- It images at the MS's own frequencies: sources are where they are, not off by the Doppler shift as in tclean.
- Its Briggs weights are CASA's with ``-padding 1``: the PSFs agree to 1e-3 rms, beams to 1e-4. Else the cells of the
  uv plane are of the padded image, 1.2 times as wide (beams of few data differ by 3 %). The w-gridder needs no
  padding. Its fit of the beam is not CASA's: see `peelkit.core.restoring`.
- Several pointings: it grids them as one only with primary beams, which are EveryBeam's (LOFAR, MWA, SKA...) or
  IDG's; the package is built without both, and neither has the VLA's or ALMA's dishes in 3.1. So no mosaics.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peelkit.engines._child import end_group, last_words
from peelkit.engines.casa import Imaging
from peelkit.errors import EngineError

log = logging.getLogger(__name__)

PROGRAM = "wsclean"

# Has -reuse-psf, -reuse-dirty and the w-gridder; what is written here was measured with 3.1.
OLDEST = (3, 0)

# At most; at the smallest gain of a cycle they bring a peak down to 1e-5.
MAJOR_CYCLES = 60

# Relative error of a gridded image: below the noise at any dynamic range that is met.
ACCURACY = 1e-5

# The child becomes WSClean when it is sure to die with us. (preexec_fn is unsafe beside threads.)
LAUNCH = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"  # PR_SET_PDEATHSIG, SIGKILL
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])\n"
)


def find() -> str:
    """Path of the program.

    Raises
    ------
    EngineError
        If it is not on PATH.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise EngineError(
            f"--imager wsclean: no {PROGRAM} on PATH; 'apt install wsclean' brings it on Debian and Ubuntu, or use "
            "--imager tclean."
        )
    return found


@dataclass(frozen=True)
class Products:
    """FITS files of one run.

    Parameters
    ----------
    psf, dirty : Path
        Of the whole band.
    residual : Path
        What was not cleaned; `dirty` if nothing was.
    models : list of Path
        One for each sub-band [Jy/pixel]; none if nothing was cleaned.
    noise_jy : float
        Noise that it cleaned down to ``nsigma`` of [Jy/beam], which is of a residual before the last; 0 if unknown.
    """

    psf: Path
    dirty: Path
    residual: Path
    models: list[Path]
    noise_jy: float = 0.0


class Wsclean:
    """Runs of WSClean; use it in a ``with`` block, at whose end all its files are gone but for the log.

    Parameters
    ----------
    log_path : Path
        Where its log goes, appended. Reordered visibilities and FITS files are in a folder beside it.
    threads : int
        Cores to use.
    memory_gib : float
        That it may take: more visibilities are read in pieces.

    Attributes
    ----------
    noise_jy : dict of str
        Noise that the residual of an image had when it was cleaned last, or is expected to have [Jy/beam].
    """

    def __init__(self, log_path: Path, *, threads: int, memory_gib: float = 2.0) -> None:
        self.log_path = log_path.absolute()
        self.threads = threads
        self.memory_gib = memory_gib
        self.noise_jy: dict[str, float] = {}
        self.version = ""
        self.calls = 0
        self.argv: list[str] = []
        self._program = ""
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        """Find the program, and make the folder for its files."""
        self._program = find()
        self.version = _version(self._program)
        prefix = f".{self.log_path.name}.scratch-"
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            # Of a killed run.
            for left in self.log_path.parent.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
            self._scratch = Path(tempfile.mkdtemp(dir=self.log_path.parent, prefix=prefix))
            self.log_path.touch()
        except OSError as error:
            raise EngineError(
                f"{self.log_path}: WSClean's log cannot be written ({error.strerror})."
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Delete its files."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """Folder for files of this run."""
        assert self._scratch is not None
        return self._scratch

    def engine(self) -> dict[str, Any]:
        """What the sidecar says of the engine; the arguments are those of the last run."""
        return {
            "name": PROGRAM,
            "version": self.version,
            "log": str(self.log_path),
            "calls": {PROGRAM: self.calls},
            "argv": list(self.argv),
        }

    def run(self, arguments: Sequence[str], *, product: Sequence[Path]) -> str:
        """Run once.

        Parameters
        ----------
        arguments : sequence of str
            Without the program's name and what is the same in all runs.
        product : sequence of Path
            Files that must be there afterwards.

        Returns
        -------
        str
            What it said.

        Raises
        ------
        EngineError
            If it fails, or a product is not there.
        """
        self.argv = [
            self._program, "-j", str(self.threads), "-abs-mem", f"{self.memory_gib:g}",
            "-temp-dir", str(self.scratch), *arguments,
        ]  # fmt: skip
        self.calls += 1
        started, shown = time.monotonic(), self.log_path.stat().st_size
        # It asks for this: its own threads call BLAS.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with self.log_path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{' '.join(self.argv)}\n")
            stream.flush()
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                cwd=self.scratch,
                start_new_session=True,  # a terminal's Ctrl-C reaches us only
            )
            try:
                code = _wait(process)
            except BaseException:
                # An image that nobody waits for any more; nothing of it is kept.
                end_group(process)
                raise
        said = self._said(shown)
        for line in filter(str.strip, said.splitlines()):
            log.debug("wsclean: %s", line.rstrip())
        log.debug("%s took %.1f s", PROGRAM, time.monotonic() - started)
        if code != 0:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise EngineError(f"WSClean failed ({how}). {last_words(self.log_path, since=shown)}")
        for path in product:
            if not path.exists():
                raise EngineError(
                    f"WSClean made no {path.name}. {last_words(self.log_path, since=shown)}"
                )
        return said

    def _said(self, start: int) -> str:
        """Return the log from a place in it on."""
        with self.log_path.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            return stream.read()


def _version(program: str) -> str:
    """Its version, such as ``3.1.0``.

    Raises
    ------
    EngineError
        If it does not say, is too old, or has no w-gridder.
    """
    try:
        said = subprocess.run(
            [program, "-version"],
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{program}: cannot be started ({error}).") from error
    found = re.search(r"WSClean version (\d+)\.(\d+)\S*", said)
    if found is None:
        raise EngineError(
            f"{program}: does not say its version as WSClean does; is another program called so?"
        )
    version = found[0].split()[-1]
    if (int(found[1]), int(found[2])) < OLDEST:
        raise EngineError(
            f"{program}: version {version} is older than {'.'.join(map(str, OLDEST))}; install a newer one."
        )
    if "WGridder is available" not in said:
        raise EngineError(
            f"{program}: built without its w-gridder; install Debian's package wsclean."
        )
    return version


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        # Short waits: a signal is then handled at once, whichever thread it reached.
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue


def clean(
    wsclean: Wsclean,
    ms: Path,
    name: str,
    imaging: Imaging,
    *,
    field: int,
    spws: Sequence[int],
    datacolumn: str,
    mask: Path | None,
    nsigma: float,
    threshold_jy: float = 0.0,
    cycle_gain: float = 0.8,
    sub_bands: int = 1,
    shift: tuple[str, str] | None = None,
    keep_psf: bool = False,
    keep_dirty: bool = False,
) -> Products:
    """Make an image; without a mask the dirty one.

    Parameters
    ----------
    name : str
        Of the image, for the files in the scratch folder.
    datacolumn : str
        Column of ``ms``, which is not written.
    mask : Path or None
        FITS file of the same pixels.
    nsigma : float
        Depth of cleaning, over the noise of the residual.
    threshold_jy : float
        Depth of cleaning in its place [Jy/beam], if it is not 0.
    cycle_gain : float
        Share that the peak comes down by from one major cycle to the next.
    sub_bands : int
        Images over the band, cleaned together; their components lie on a polynomial of ``imaging.nterms``.
    shift : tuple of str, optional
        J2000 right ascension and declination of the middle of the image, such as ``12h01m52.4s``.
    keep_psf, keep_dirty : bool
        Those of an earlier image of this name hold, of the same weights, and of the same data.
    """
    kept = wsclean.scratch / f"{name}-kept"
    now = wsclean.scratch / f"{name}-now"
    before = _products(kept, sub_bands, cleaned=False)
    keep_psf = keep_psf and before.psf.exists()
    keep_dirty = keep_dirty and keep_psf and before.dirty.exists()
    if keep_dirty and mask is None:
        return before
    found = _products(now, sub_bands, cleaned=mask is not None)
    arguments = [
        "-name", str(now), "-reorder", "-no-update-model-required", "-data-column", datacolumn,
        "-field", str(field), "-spws", ",".join(map(str, spws)),
        "-size", str(imaging.imsize), str(imaging.imsize), "-scale", f"{imaging.cell_arcsec!r}asec",
        "-pol", imaging.stokes, "-weight", "briggs", f"{imaging.robust!r}",
        "-use-wgridder", "-wgridder-accuracy", f"{ACCURACY:g}", "-no-small-inversion",
        "-padding", "1",
    ]  # fmt: skip
    if shift is not None:
        arguments += ["-shift", *shift]
    if sub_bands > 1:
        arguments += ["-channels-out", str(sub_bands), "-join-channels"]
        arguments += ["-fit-spectral-pol", str(min(imaging.nterms, sub_bands))]
    if keep_psf:
        arguments += ["-reuse-psf", str(kept)]
    if keep_dirty:
        arguments += ["-reuse-dirty", str(kept)]
    if mask is None:
        arguments += ["-niter", "0", "-make-psf"]
    else:
        arguments += ["-niter", str(imaging.niter), "-nmiter", str(MAJOR_CYCLES)]
        arguments += ["-mgain", f"{cycle_gain:.3g}", "-fits-mask", str(mask)]
        if threshold_jy > 0:
            arguments += ["-threshold", f"{threshold_jy:.6g}"]
        else:
            arguments += ["-auto-threshold", f"{nsigma!r}"]
        if imaging.scales:
            arguments += ["-multiscale", "-multiscale-scales", ",".join(map(str, imaging.scales))]
    said = wsclean.run(
        [*arguments, str(ms.absolute())],
        product=[found.psf, found.dirty, found.residual, *found.models],
    )
    for path in wsclean.scratch.glob(f"{glob.escape(name)}-now-*"):
        # What it read it wrote again, without the date.
        again = (keep_psf and path.name.endswith("-psf.fits")) or (
            keep_dirty and path.name.endswith("-dirty.fits")
        )
        if again or path.name.endswith("-image.fits"):
            path.unlink()
        elif path.name.endswith(("-psf.fits", "-dirty.fits")):
            path.replace(path.with_name(path.name.replace(f"{name}-now-", f"{name}-kept-", 1)))
    last = _products(kept, sub_bands, cleaned=False)
    return Products(
        psf=last.psf,
        dirty=last.dirty,
        residual=found.residual if mask is not None else last.dirty,
        models=found.models,
        noise_jy=_last_noise(said),
    )


def take_psf(wsclean: Wsclean, source: str, name: str) -> bool:
    """Let an image have the PSF of another of this run; whether there was one."""
    prefix = f"{source}-kept-"
    there = list(wsclean.scratch.glob(f"{glob.escape(prefix)}*psf.fits"))
    for path in there:
        shutil.copyfile(path, path.with_name(f"{name}-kept-{path.name.removeprefix(prefix)}"))
    return bool(there)


def _last_noise(said: str) -> float:
    found = re.findall(r"standard deviation of background noise: ([-+.\de]+) (\S*)Jy", said)
    if not found:
        return 0.0
    value, prefix = found[-1]
    return float(value) * {"": 1.0, "m": 1e-3, "µ": 1e-6, "u": 1e-6, "n": 1e-9}.get(prefix, 0.0)


def _products(prefix: Path, sub_bands: int, *, cleaned: bool) -> Products:
    whole = f"{prefix}-MFS" if sub_bands > 1 else str(prefix)
    models = [f"{prefix}-{band:04d}-model.fits" for band in range(sub_bands)]
    if sub_bands == 1:
        models = [f"{prefix}-model.fits"]
    return Products(
        psf=Path(f"{whole}-psf.fits"),
        dirty=Path(f"{whole}-dirty.fits"),
        residual=Path(f"{whole}-residual.fits" if cleaned else f"{whole}-dirty.fits"),
        models=[Path(model) for model in models] if cleaned else [],
    )
