"""What the parts could do at best, beside what they do: copies, prediction, solving; growth with fields and workers.

Each makes its own data, large enough that the work takes longer than the start of a command.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from casacore.tables import makearrcoldesc, maketabdesc, table

import copy_limit
import predict_limit
import solve_limit
from datasets import PEELKIT, Dataset, run_peelkit, shape_of
from measuring import measure

# Channels of the copied column in each of 4 spws, and rows in units of size 1: 690 MB, or 260 MB.
COPY_CHANNELS, COPY_ROWS, COPY_ROWS_QUICK = 128, 8, 3
# Sizes of the others.
ROWS = {"field": 8, "mosaic": 8}
ROWS_QUICK = 2
FIELD_COUNTS = (1, 2, 4, 8, 12)
# So that the cost of choosing intervals, which depends on the data, is not in it.
FIXED_TERMS = ("--de-time", "inf", "--de-freq", "spw", "--g-time", "inf", "--no-plots")
ALL, CHUNK = "ALL_SKY_MODEL", 20000


def column_copy(work: Path, *, repeats: int, factor: int = COPY_ROWS) -> dict[str, Any]:
    """Figures of `copy_limit` on an MS with a large column."""
    folder = _new(work / "copy")
    run_peelkit(folder, "simulate", "sim.ms", "--config", "D", "--spws", "4", "--faint", "0", "--integration",
                "10", "--integrations", 30 * factor, "--channels", COPY_CHANNELS)  # fmt: skip
    found = copy_limit.run(folder / "sim.ms", folder / "out", repeats=repeats)
    shutil.rmtree(folder)
    return _without_paths(found)


def prediction(dataset: Dataset, work: Path, *, repeats: int) -> dict[str, Any]:
    """Figures of `predict_limit`: predict-region, also with two workers, tclean and ducc0 on one model."""
    folder = _new(work / "predict")
    run_peelkit(folder, "simulate", "sim.ms", *dataset.options())
    found = predict_limit.run(folder / "sim.ms", folder / "out", repeats=repeats, workers=2)
    shutil.rmtree(folder)
    return {**_without_paths(found), "dataset": dataset.name}


def solving(dataset: Dataset, work: Path) -> dict[str, Any]:
    """Figures of `solve_limit`: ddsolve, and QuartiCal alone with the terms and intervals that it chose."""
    folder = _new(work / "solve")
    label, _ = _with_models(dataset, folder)
    found = solve_limit.run(folder / "sim.ms", folder / "out", all_column=ALL, peel=[label])
    shutil.rmtree(folder)
    return {**_without_paths(found), "dataset": dataset.name}


def fields_and_workers(dataset: Dataset, work: Path, *, repeats: int) -> dict[str, Any]:
    """Solve of 1, 2, 4, ... fields of a mosaic; and of all of them with one and with two workers."""
    folder = _new(work / "fields")
    label, flux = _with_models(dataset, folder)
    # Those that see the source best come first: all of them are then solved, and none is left out by the gate.
    order = sorted(range(len(flux)), key=lambda number: -flux[number])
    fields: list[dict[str, Any]] = []
    workers: list[dict[str, Any]] = []
    for _ in range(repeats):
        for count in (one for one in FIELD_COUNTS if one <= len(flux)):
            names = ",".join(map(str, sorted(order[:count])))
            fields.append({"fields": count, **_solve(folder, label, "--field", names)})
        for count in (1, 2):
            workers.append({"workers": count, **_solve(folder, label, "--workers", str(count))})
    each = shape_of(folder / "sim.ms")["visibilities"] / len(flux)
    shutil.rmtree(folder)
    about = {"dataset": dataset.name, "visibilities_a_field": each}
    return {**about, "fields": fields, "workers": workers}


def _solve(folder: Path, label: str, *more: str) -> dict[str, Any]:
    """One solve, taken back. Exit status 5, the residual is no better, is a solve too."""
    words = ("ddsolve", "sim.ms", "--all", ALL, "--peel", label, "--out", "solutions")
    options = ("--overwrite", "--sidecar", "solve.json", *FIXED_TERMS, *more)
    stage, _ = measure([*PEELKIT, *words, *options], cwd=folder, log=folder / "log")
    if stage.status not in (0, 5):
        raise SystemExit(f"ddsolve: exit status {stage.status}; see {folder}/log")
    if stage.status == 0:
        run_peelkit(folder, "undo", "sim.ms")
    return {key: stage.as_json()[key] for key in ("wall_s", "cpu_s", "peak_bytes", "status")}


def _new(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _without_paths(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("ms", "runs")}


def _with_models(dataset: Dataset, folder: Path) -> tuple[str, list[float]]:
    """Simulate ``sim.ms`` with true models of the sky and of its bright source, through perfect beams.

    Returns
    -------
    str
        Label and column of the bright source.
    list of float
        Its flux in each field [Jy].
    """
    perfect = ("--without", "errors", "--without", "noise")
    run_peelkit(folder, "simulate", "sim.ms", *dataset.options())
    run_peelkit(folder, "simulate", "all.ms", *dataset.options(), *perfect)
    run_peelkit(folder, "simulate", "bright.ms", *dataset.options(), *perfect, "--without", "faint")
    truth = json.loads((folder / "sim.ms.truth.json").read_text())
    bright = next(one for one in truth["sources"] if one["bright"])
    for name, column in (("all.ms", ALL), ("bright.ms", bright["name"])):
        _take_column(folder / name, folder / "sim.ms", column)
        shutil.rmtree(folder / name)
    return bright["name"], bright["apparent_flux_jy"]


def _take_column(source: Path, target: Path, column: str) -> None:
    """Put DATA of an MS into a new column of another with the same rows."""
    with table(str(source), ack=False) as old, table(str(target), readonly=False, ack=False) as new:
        new.addcols(maketabdesc([makearrcoldesc(column, 0j, valuetype="complex", ndim=2)]))
        for start in range(0, old.nrows(), CHUNK):
            rows = min(CHUNK, old.nrows() - start)
            new.putcol(column, old.getcol("DATA", start, rows), start, rows)


def _main() -> None:
    """Try the limits by hand: ``python bench/limits.py WORK KIND SIZE``."""
    work, dataset = Path(sys.argv[1]).absolute(), Dataset(sys.argv[2], "rows", int(sys.argv[3]))
    found: dict[str, Any] = {"copy": column_copy(work, repeats=1, factor=1)}
    found["predict"] = prediction(dataset, work, repeats=1)
    found["solve"] = solving(dataset, work)
    found["fields"] = fields_and_workers(dataset, work, repeats=1)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    _main()
