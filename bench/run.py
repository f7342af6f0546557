"""The benchmark: peelkit beside the published recipe, on one field and on a mosaic, and beside limits.

    python bench/run.py [--quick] [--minutes N] [--work FOLDER] [--results FILE] [--fresh]

Everything is simulated, run interleaved on fresh copies, and measured stage by stage (wall time, CPU time, peak
memory, bytes). Results are written after each measurement; a run that is stopped goes on where it was. At the end,
or when the minutes are over, bench/README.md and its plots are written (also by ``python bench/report.py``).
All of it takes about three hours on two idle cores, ``--quick`` (size 1, once) about a quarter of an hour. The
most important comes first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import chains
import limits
import report
from datasets import AXES, SIZES, Dataset, Prepared, prepare
from peelkit.errors import PeelkitError

HERE = Path(__file__).parent
REPEATS = 2
# Packages whose versions are told.
PACKAGES = ("casatasks", "quartical", "ducc0", "python-casacore", "numpy")


@dataclass(frozen=True)
class Task:
    """A measurement.

    Parameters
    ----------
    key : str
        Unique; one that is in the results is not repeated.
    like, size : str and float
        Tasks that are alike take a time that grows with the size at least.
    """

    key: str
    like: str
    size: float
    run: Callable[[], dict[str, Any]]


class Results:
    """The file of results; written anew, in one piece, after each measurement."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.content: dict[str, Any] = {"machine": {}, "measurements": {}, "absent": {}}
        if path.exists() and not fresh:
            self.content = json.loads(path.read_text())
        self.content["machine"] = machine()
        self.content["absent"] = {}

    @property
    def measurements(self) -> dict[str, dict[str, Any]]:
        """By key."""
        found: dict[str, dict[str, Any]] = self.content["measurements"]
        return found

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Keep a measurement, with the date and the commit."""
        about = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit()}
        self.measurements[key] = {**value, **about}
        self.write()

    def write(self) -> None:
        """Write the file."""
        waiting = self.path.with_name(f".{self.path.name}")
        waiting.write_text(json.dumps(self.content, indent=1) + "\n")
        waiting.replace(self.path)


def machine() -> dict[str, Any]:
    """Cores, memory, versions; no names."""
    versions = {name: version(name) for name in PACKAGES}
    if chains.shutil.which("wsclean"):
        said = subprocess.run(["wsclean", "--version"], capture_output=True, text=True, check=False)
        versions["wsclean"] = next(
            (line.split()[2] for line in said.stdout.splitlines() if "version" in line), "unknown"
        )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": versions,
    }


def commit() -> str:
    """Short name of the commit, with a plus if the tree is changed."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=HERE, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!.")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def plan(work: Path, results: Results, *, quick: bool, kinds: list[str]) -> Iterator[Task]:
    """All measurements, the most important first."""
    ready: dict[str, Prepared] = {}

    def data(dataset: Dataset) -> Prepared:
        if dataset.name not in ready:
            ready[dataset.name] = prepare(dataset, work)
        return ready[dataset.name]

    def chain(dataset: Dataset, variant: str, rounds: int) -> dict[str, Any]:
        chains.warm_up(work)
        made = data(dataset)
        found = chains.run_chain(made, variant, work, rounds=rounds)
        about = {"dataset": dataset.name, "kind": dataset.kind, "axis": dataset.axis}
        return {**about, "size": dataset.size, "variant": variant, "shape": made.shape, **found}

    for kind in kinds:
        for repeat in range(1 if quick else REPEATS):
            # Turn the order, so that none is always first.
            order = chains.VARIANTS if repeat % 2 == 0 else chains.VARIANTS[::-1]
            for variant in order:
                reason = chains.why_absent(variant, kind)
                if reason is not None:
                    results.content["absent"][f"{variant}, {kind}"] = reason
                    continue
                yield Task(
                    f"chain/{kind}-1/{variant}/{repeat + 1}", f"{variant} {kind}", 1,
                    lambda k=kind, v=variant: chain(Dataset(k), v, chains.ROUNDS),
                )  # fmt: skip
    yield from _limits(work, quick=quick, kinds=kinds)
    if quick:
        return
    # Small sizes of all axes first, in case there is no time for the large ones.
    for size, axis in product(SIZES[1:], AXES):
        for kind in kinds if axis != "fields" else [k for k in kinds if k == "mosaic"]:
            dataset = Dataset(kind, axis, size)
            for variant in chains.VARIANTS:
                if chains.why_absent(variant, kind) is None:
                    yield Task(
                        f"scale/{dataset.name}/{variant}", f"scale {variant} {kind}", size,
                        lambda d=dataset, v=variant: chain(d, v, 1),
                    )  # fmt: skip


def before(results: Results) -> dict[str, float]:
    """Seconds at size 1 of tasks that are alike, from what was measured in an earlier run."""
    found: dict[str, float] = {}
    for key, one in results.measurements.items():
        if "whole" in one:
            like = f"{'scale ' * key.startswith('scale/')}{one['variant']} {one['kind']}"
            found[like] = one["whole"]["wall_s"] / one["size"]
    return found


def _limits(work: Path, *, quick: bool, kinds: list[str]) -> Iterator[Task]:
    """Measurements beside limits."""
    repeats = 1 if quick else 3
    factor = limits.COPY_ROWS_QUICK if quick else limits.COPY_ROWS
    if "tiny" in kinds:
        factor = 1
    yield Task(
        "limit/copy", "copy", 1, lambda: limits.column_copy(work, repeats=repeats, factor=factor)
    )
    for kind in kinds:
        size = limits.ROWS_QUICK if quick else limits.ROWS.get(kind, 1)
        dataset = Dataset(kind, "rows", size)
        yield Task(
            f"limit/predict/{dataset.name}", f"predict {kind}", 1,
            lambda d=dataset: limits.prediction(d, work, repeats=repeats),
        )  # fmt: skip
        yield Task(
            f"limit/solve/{dataset.name}", f"solve {kind}", 1,
            lambda d=dataset: limits.solving(d, work),
        )  # fmt: skip
        if kind == "mosaic":
            yield Task(
                "limit/fields", "fields", 1,
                lambda d=dataset: limits.fields_and_workers(d, work, repeats=1 if quick else 2),
            )  # fmt: skip


def main() -> None:
    """Run what is missing, within the time; report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="size 1 only, each once")
    parser.add_argument("--minutes", type=float, help="begin nothing that would end later")
    parser.add_argument(
        "--work", type=Path, default=HERE / "work", help="data and runs [bench/work]"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--fresh", action="store_true", help="forget the results so far")
    parser.add_argument("--kind", action="append", help="field, mosaic; tiny to try it out")
    given = parser.parse_args()
    started = time.monotonic()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    # Which ends what it runs, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = Results(given.results, fresh=given.fresh)
    took = before(results)
    left: list[str] = []
    try:
        for task in plan(work, results, quick=given.quick, kinds=given.kind or ["field", "mosaic"]):
            if "failed" not in results.measurements.get(task.key, {"failed": "not run"}):
                continue
            spent = (time.monotonic() - started) / 60
            alike = took.get(task.like, took.get(task.like.removeprefix("scale "), 0.0))
            if given.minutes is not None and spent + alike * task.size / 60 >= given.minutes:
                left.append(task.key)
                continue
            begun = time.monotonic()
            sys.stderr.write(f"{spent:6.1f} min  {task.key}\n")
            try:
                found = task.run()
            except (SystemExit, subprocess.CalledProcessError, PeelkitError) as error:
                found = {"failed": str(error)}
            if "failed" in found:
                sys.stderr.write(f"            {found['failed']}\n")
            results.add(task.key, found)
            took[task.like] = (time.monotonic() - begun) / task.size
    except KeyboardInterrupt:
        sys.stderr.write("stopped; started again it goes on\n")
        raise SystemExit(130) from None
    finally:
        # Also of a run that is interrupted.
        results.content["left_out"] = left
        results.write()
        report.write(results.content, given.results.parent)
    minutes = (time.monotonic() - started) / 60
    sys.stderr.write(f"{minutes:6.1f} min  done; {given.results.parent}/README.md\n")


if __name__ == "__main__":
    main()
