"""QuartiCal: the one module that knows its spelling. It runs as a program, in a child process.

It only solves: gains are written to a folder of their own, no column and no flag of the MS is
touched. What it does with the gains' data on disk is in `peelkit.io.gains`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from peelkit.engines._child import end_group, last_words
from peelkit.errors import EngineError, OptionError

log = logging.getLogger(__name__)

# Gain types of QuartiCal 0.2.7 that a solve can have (gain_schema.yaml).
PHASE_TYPES = ("phase",)
DIAGONAL_TYPES = ("phase", "amplitude", "diag_complex")
DELAY_TYPES = (
    "delay", "delay_and_offset", "delay_and_tec", "delay_tec_and_offset", "tec_and_offset",
)  # fmt: skip
FULL_TYPES = ("complex", "leakage", "rotation", "rotation_measure", "crosshand_phase")
TYPES = (*DIAGONAL_TYPES, *DELAY_TYPES, *FULL_TYPES)

# Memory of a solve beyond its data [bytes].
BASE_BYTES = 0.4e9

_CHISQ = re.compile(
    r"FLD:\s*(\d+)\s+SPW:\s*(\d+)\s+SCN:\s*(\S+)\s+T_CHUNK:\s*(\d+)\s+F_CHUNK:\s*(\d+)\s+"
    r"CHISQ:\s*(\S+)\s*->\s*(\S+)"
)
_NO = "an option that ddsolve sets itself"
# Options that would break what ddsolve does with the result.
RESERVED = {
    "input_ms.path", "input_ms.data_column", "input_ms.group_by", "input_ms.time_chunk",
    "input_ms.freq_chunk", "input_ms.select_corr", "input_ms.select_fields", "input_ms.select_ddids",
    "input_ms.select_uv_range",
    "input_model.recipe", "output.gain_directory", "output.log_directory", "output.overwrite",
    "output.products", "output.columns", "output.flags", "output.subtract_directions",
    "solver.terms", "input_ms.is_bda",
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One Jones term of a solve, in QuartiCal's words.

    Parameters
    ----------
    name : str
        ``G``, ``K``, ``dE``.
    type : str
        One of `TYPES`.
    time_interval, freq_interval : int
        Integrations and channels of a solution; 0 is as many as can be: a scan, and the spw.
    direction_dependent : bool
        Solved for each direction but the pinned ones.
    pinned : tuple of int
        Directions whose gain stays 1.
    across_scans : bool
        Intervals may go on over the end of a scan: how the copy is laid out, which QuartiCal need not know.
    """

    name: str
    type: str
    time_interval: int
    freq_interval: int
    direction_dependent: bool = False
    pinned: tuple[int, ...] = (0,)
    across_scans: bool = False


@dataclass(frozen=True)
class Job:
    """One run of QuartiCal on a copy of data (`peelkit.io.solvecopy`), all correlations and baselines of it.

    Parameters
    ----------
    ms : Path
        The copy; its DATA is solved.
    recipe : str
        ``ALL~B1~B2:B1:B2``.
    terms : sequence of Term
        From left to right; the direction-dependent one last (elsewhere it is not solved right).
    reference_antenna : int
        Row of ANTENNA.
    iterations : sequence of int
        For each term in turn, several rounds one after the other.
    weight_column : str
        Weights, 1/sigma^2 of one real component.
    threads : int
        Chunks at a time.
    extra : dict of str
        Further options by dotted name, as the user gave them.
    """

    ms: Path
    recipe: str
    terms: Sequence[Term]
    reference_antenna: int
    iterations: Sequence[int]
    weight_column: str = "WEIGHT"
    threads: int = 1
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChunkChi2:
    """Mean of ``w |residual|^2`` over a chunk, before and after the solve.

    As QuartiCal logs it, ``field`` is the chunk of the copy; the solve makes of it the field of the data and
    the chunk's number.
    """

    field: int
    ddid: int
    time_chunk: int
    before: float
    after: float


@dataclass(frozen=True)
class Solved:
    """What a run left.

    Parameters
    ----------
    gains : Path
        Folder with one folder for each term.
    log : Path
        QuartiCal's log.
    chi2 : tuple of ChunkChi2
        One for each chunk.
    seconds : float
        Wall time.
    argv : tuple of str
        How to run it by hand.
    """

    gains: Path
    log: Path
    chi2: tuple[ChunkChi2, ...]
    seconds: float
    argv: tuple[str, ...]


def sample_bytes(n_direction: int) -> int:
    """Memory of a solve for each sample (row x channel x correlation) of its copy, beside `BASE_BYTES`."""
    # Measured: 85 B with three directions, 8 B more for each further one.
    return 85 + 8 * max(0, n_direction - 3)


def version() -> str:
    """QuartiCal's version.

    Raises
    ------
    EngineError
        If it is not installed.
    """
    try:
        return metadata.version("quartical")
    except metadata.PackageNotFoundError as error:
        raise EngineError(
            "QuartiCal is not installed in this Python; 'pip install quartical==0.2.7'."
        ) from error


def parse_extra(pairs: Sequence[str]) -> dict[str, str]:
    """Options ``KEY=VALUE`` of the user, such as ``solver.robust=true``.

    Raises
    ------
    OptionError
        If one is malformed, or is set by ddsolve itself.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or "." not in key or not value.strip():
            raise OptionError(
                f"--quartical {pair!r}: use SECTION.OPTION=VALUE, such as solver.robust=true."
            )
        if key in RESERVED:
            raise OptionError(
                f"--quartical {pair!r}: {_NO}; see ddsolve --help for its own option."
            )
        found[key] = value.strip()
    return found


def config(job: Job, gains: Path, logs: Path) -> dict[str, dict[str, Any]]:
    """QuartiCal's configuration of a job, by section. Pure."""
    sections: dict[str, dict[str, Any]] = {
        "input_ms": {
            "path": str(job.ms.absolute()),
            "data_column": "DATA",
            "weight_column": job.weight_column,
            "time_chunk": "0",
            "freq_chunk": "0",
            # The fields of the copy are its chunks.
            "group_by": ["FIELD_ID", "DATA_DESC_ID"],
        },
        "input_model": {"recipe": job.recipe},
        "output": {
            "gain_directory": str(gains.absolute()),
            "log_directory": str(logs.absolute()),
            "log_to_terminal": False,
            "flags": False,
        },
        "solver": {
            "terms": [term.name for term in job.terms],
            "iter_recipe": list(job.iterations),
            "propagate_flags": True,
            "reference_antenna": job.reference_antenna,
            "threads": 1,
        },
        "dask": {"threads": job.threads, "scheduler": "threads"},
    }
    for term in job.terms:
        sections[term.name] = {
            "type": term.type,
            "time_interval": str(term.time_interval),
            "freq_interval": str(term.freq_interval),
            "direction_dependent": term.direction_dependent,
            # The scans of the copy are what no interval goes over the end of.
            "respect_scan_boundaries": True,
        }
        if term.direction_dependent:
            sections[term.name]["pinned_directions"] = list(term.pinned)
    for key, value in job.extra.items():
        section, _, option = key.partition(".")
        try:
            sections.setdefault(section, {})[option] = json.loads(value)
        except ValueError:
            sections.setdefault(section, {})[option] = value
    return sections


def solve(job: Job, folder: Path) -> Solved:
    """Run QuartiCal; its gains, configuration and log stay in ``folder``.

    Raises
    ------
    EngineError
        If it fails, or its gains are not there.
    """
    release = version()
    shutil.rmtree(folder, ignore_errors=True)
    gains, logs = folder / "gains", folder / "logs"
    logs.mkdir(parents=True)
    settings = folder / "quartical.yaml"
    # JSON is YAML.
    settings.write_text(json.dumps(config(job, gains, logs), indent=1), "utf-8")
    errors = folder / "stderr.txt"
    errors.touch()
    started = time.monotonic()
    code = _run(settings, errors, folder)
    seconds = time.monotonic() - started
    log_file = max(logs.glob("*.log.qc"), default=errors)
    text = log_file.read_text("utf-8", "replace")
    if code != 0:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise EngineError(f"QuartiCal {release} failed ({how}). {last_words(log_file, errors)}")
    for term in job.terms:
        if not any((gains / term.name).glob(f"{term.name}_*")):
            raise EngineError(
                f"QuartiCal made no gains for {term.name}. {last_words(log_file, errors)}"
            )
    for line in text.splitlines():
        log.debug("quartical: %s", line)
    return Solved(gains, log_file, parse_chi2(text), seconds, ("goquartical", str(settings)))


def together(runs: Sequence[Solved], last: Solved, chi2: Iterable[ChunkChi2]) -> Solved:
    """Several runs as one that took as long as all: the gains and log of ``last``, with ``chi2``."""
    argv: list[str] = []
    for run in runs:
        argv += ["&&"] * bool(argv) + list(run.argv)
    seconds = math.fsum(run.seconds for run in runs)
    return replace(last, chi2=tuple(chi2), seconds=seconds, argv=tuple(argv))


def parse_chi2(text: str) -> tuple[ChunkChi2, ...]:
    """Chi-squared of each chunk from QuartiCal's log, the only place where it is."""
    # The log wraps and indents its lines.
    flat = re.sub(r"\s+", " ", text)
    return tuple(
        ChunkChi2(int(m[1]), int(m[2]), int(m[4]), float(m[6]), float(m[7]))
        for m in _CHISQ.finditer(flat)
    )


def cache_folder() -> Path:
    """Where numba keeps what it compiled for QuartiCal: 30 to 100 s the first time."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "peelkit" / f"numba-quartical-{version()}"


_worker: subprocess.Popen[str] | None = None


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """Start Python with QuartiCal in it, for all solves of the block; it is ended with the block.

    Importing QuartiCal takes 4 s of CPU. In a process of its own it is imported once, and while the data
    are still looked at. Each solve is a fork of that process.
    """
    global _worker
    if _worker is not None:
        yield
        return
    try:
        version()
    except EngineError:
        # Said where it matters: after all that may be wrong with the options.
        yield
        return
    _worker = _start()
    try:
        yield
    finally:
        process, _worker = _worker, None
        _end(process)


def keep() -> None:
    """Start it if there is none, for all solves of this process: a worker that gets one solve after the other."""
    global _worker
    if _worker is None or _worker.poll() is not None:
        _worker = _start()
        atexit.register(_end, _worker)


def _start() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if "NUMBA_CACHE_DIR" not in os.environ:
        with contextlib.suppress(OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
            environment["NUMBA_CACHE_DIR"] = str(cache_folder())
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("_quartical_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        # A group of its own, so that it ends with all its forks.
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _end(process: subprocess.Popen[str]) -> None:
    end_group(process)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _run(settings: Path, errors: Path, folder: Path) -> int:
    """Run QuartiCal with its configuration in ``settings``; returns its exit code, below 0 for a signal."""
    with ready():
        process = _worker
        assert process is not None and process.stdin is not None and process.stdout is not None
        request = [str(path.absolute()) for path in (settings, errors, folder)]
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        except BaseException:
            # A solve that nobody waits for any more.
            _end(process)
            raise
        return int(answer) if answer else process.wait()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
