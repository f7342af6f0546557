"""What the parts could do at best, beside what they do: copies, prediction, solving; growth with fields and workers."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import PEELKIT, Dataset, Prepared, prepare, run_peelkit
from measuring import Stage, measure

# Size of the copied column: of a field so many times longer and finer than at size 1; 690 MB, or 260 MB.
COPY_ROWS, COPY_ROWS_QUICK, COPY_CHANNELS = 8, 3, 16
FIELD_COUNTS = (1, 2, 4, 8, 12)
# So that the cost of choosing intervals, which depends on the data, is not in it.
FIXED_TERMS = ("--de-time", "inf", "--de-freq", "spw", "--g-time", "inf", "--no-plots")


def column_copy(work: Path, *, repeats: int, factor: int = COPY_ROWS) -> dict[str, Any]:
    """Copy of a column by add-model-col, and of the same bytes by cp; page cache warm, without and with fsync.

    The start of the command is measured on one row, and told beside. ``share_of_cp`` are rates: bytes of a column
    over the time without the start.
    """
    folder = work / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _simulate_copy(folder, factor)
    source = max((folder / "big.ms").glob("table.f*_TSM*"), key=lambda path: path.stat().st_size)
    size = source.stat().st_size
    runs: list[dict[str, float]] = []
    for _ in range(repeats):
        one: dict[str, float] = {}
        for name, ms in (("start", "small.ms"), ("column", "big.ms")):
            _warm(folder / ms)
            words = (
                "add-model-col",
                ms,
                "COPIED",
                "--expression",
                "DATA",
                "--sidecar",
                "copy.json",
            )
            allowed = [word for finding in ("zero", "one", "flux") for word in ("--allow", finding)]
            stage, synced = _command(folder, *words, *allowed)
            one |= {f"{name}_s": stage.wall_s, f"{name}_fsync_s": stage.wall_s + synced}
            one |= {f"{name}_cpu_s": stage.cpu_s, f"{name}_peak_bytes": stage.peak_bytes}
            run_peelkit(folder, "undo", ms)
        _warm(source)
        stage, synced = _timed(["cp", source, folder / "copied"], folder)
        one |= {"cp_s": stage.wall_s, "cp_fsync_s": stage.wall_s + synced}
        (folder / "copied").unlink()
        runs.append(one)
    shutil.rmtree(folder)
    return {"bytes": size, "runs": runs}


def _simulate_copy(folder: Path, factor: int) -> None:
    """One MS with a large column, and one with next to none."""
    base = ["--config", "D", "--spws", "4", "--faint", "0", "--integration", "10"]
    run_peelkit(folder, "simulate", "big.ms", *base, "--integrations", str(30 * factor),
                "--channels", str(8 * COPY_CHANNELS))  # fmt: skip
    run_peelkit(folder, "simulate", "small.ms", *base, "--integrations", "1", "--antennas", "4")


def _warm(path: Path) -> None:
    """Read all of it, so that it is in the page cache."""
    for one in [path] if path.is_file() else path.rglob("*"):
        if one.is_file():
            with one.open("rb") as stream:
                while stream.read(1 << 24):
                    pass


def _timed(command: list[Any], folder: Path, codes: tuple[int, ...] = (0,)) -> tuple[Stage, float]:
    """Measure a command, and the time until all is on disk."""
    whole, _ = measure(command, cwd=folder, log=folder / "log")
    if whole.status not in codes:
        raise SystemExit(
            f"{' '.join(map(str, command))}: exit status {whole.status}; see {folder}/log"
        )
    start = time.monotonic()
    os.sync()
    return whole, time.monotonic() - start


def _command(folder: Path, *words: object) -> tuple[Stage, float]:
    return _timed([*PEELKIT, *words], folder)


def by_helper(module: str, data: Prepared, work: Path) -> dict[str, Any]:
    """Figures of ``predict_limit`` or ``solve_limit``: their ``run`` on a copy of the data."""
    folder = work / module
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(data.ms, folder / "sim.ms")
    run: Callable[..., dict[str, Any]] = importlib.import_module(module).run
    found = run(folder / "sim.ms", folder / "out")
    shutil.rmtree(folder)
    found.pop("ms", None)
    return {**found, "dataset": data.dataset.name}


def has_helper(module: str) -> bool:
    """Whether that file is there."""
    return Path(__file__).with_name(f"{module}.py").exists()


def fields_and_workers(data: Prepared, work: Path, *, repeats: int) -> dict[str, Any]:
    """Solve of 1, 2, 4, ... fields of a mosaic; and of all with one and two workers, where ddsolve has --workers."""
    folder = work / "fields"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(data.ms, folder / "sim.ms")
    like = ("--imsize", data.imaging["imsize"], "--cell", f"{data.imaging['cell_arcsec']}arcsec",
            "--nterms", data.imaging["nterms"])  # fmt: skip
    run_peelkit(
        folder,
        "image-residual",
        "sim.ms",
        "first",
        "--column",
        "DATA",
        *like,
        "--sidecar",
        "first.json",
    )
    image = json.loads((folder / "first.json").read_text())["results"]["image"]
    run_peelkit(folder, "predict-region", "sim.ms", "--image", image, "--regions", data.regions,
                "--all-column", "--sidecar", "predict.json")  # fmt: skip
    # Those that see the source best come first: all of them are then solved, and none is left out by the gate.
    truth = json.loads((data.folder / "sim.ms.truth.json").read_text())
    flux = next(one["apparent_flux_jy"] for one in truth["sources"] if one["bright"])
    order = sorted(range(len(flux)), key=lambda number: -flux[number])
    fields: list[dict[str, Any]] = []
    total = data.shape["fields"]
    for _ in range(repeats):
        for count in (one for one in FIELD_COUNTS if one <= total):
            names = ",".join(map(str, sorted(order[:count])))
            fields.append({"fields": count, **_solve(folder, "--field", names)})
    workers: list[dict[str, Any]] = []
    said = subprocess.run(
        [*PEELKIT, "ddsolve", "--help"], capture_output=True, text=True, check=True
    )
    if "--workers" in said.stdout:
        for _ in range(repeats):
            for count in (1, 2):
                workers.append({"workers": count, **_solve(folder, "--workers", str(count))})
    shutil.rmtree(folder)
    rows = data.shape["visibilities"] / total
    return {
        "dataset": data.dataset.name,
        "visibilities_a_field": rows,
        "fields": fields,
        "workers": workers,
    }


def _solve(folder: Path, *more: str) -> dict[str, Any]:
    """One solve, taken back. Exit status 5, the residual is no better, is a solve too."""
    words = ("ddsolve", "sim.ms", "--from", "predict.json", "--out", "solutions", "--overwrite")
    command = [*PEELKIT, *words, "--sidecar", "solve.json", *FIXED_TERMS, *more]
    stage, _ = _timed(command, folder, codes=(0, 5))
    if stage.status == 0:
        run_peelkit(folder, "undo", "sim.ms")
    return {key: stage.as_json()[key] for key in ("wall_s", "cpu_s", "peak_bytes", "status")}


def _main() -> None:
    """Try the limits by hand: ``python bench/limits.py WORK KIND``."""
    work, kind = Path(sys.argv[1]).absolute(), sys.argv[2]
    data = prepare(Dataset(kind), work)
    found = {"copy": column_copy(work, repeats=1, factor=1),
             "fields": fields_and_workers(data, work, repeats=1)}  # fmt: skip
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    _main()
