"""The solve of ddsolve against QuartiCal alone, with the same terms on the same data.

    python bench/solve_limit.py MS OUT [--all COLUMN] [--peel COLUMN ...]

``peelkit ddsolve`` solves MS (a copy in OUT); then goquartical solves the same rows, models, weights and terms, with the
intervals that ddsolve chose, as a user would give them: at full resolution, with fields apart, all cores.
Prints wall and CPU time of the whole command, of its solve (copy, QuartiCal and reading the gains), of goquartical alone, and the
ratios. Below 1: ddsolve is faster than QuartiCal by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peelkit.engines import quartical

# One cache of compiled kernels for both.
os.environ.setdefault("NUMBA_CACHE_DIR", str(quartical.cache_folder()))

# The solve of ddsolve is timed in the process that does it.
TIMED = """
import json, os, sys, time
from peelkit.core import dd_classes
real, written = dd_classes.solve, sys.argv[1]
def timed(*given, **named):
    def now():
        return time.monotonic(), sum(os.times()[:4])
    begin = now()
    try:
        return real(*given, **named)
    finally:
        with open(written, "w") as file:
            json.dump([b - a for a, b in zip(begin, now())], file)
dd_classes.solve = timed
sys.argv = ["peelkit", *sys.argv[2:]]
from peelkit.cli.main import cli
cli(prog_name="peelkit")
"""


def run(
    ms: Path, out: Path, *, all_column: str = "ALL_SKY_MODEL", peel: Sequence[str] = ("BRIGHT_1",),
    options: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Time both.

    Returns
    -------
    dict
        ``samples``, ``intervals`` of each term, ``command_s``, ``command_cpu_s``, ``solve_s``, ``quartical_s``,
        ``quartical_cpu_s``, and the ratios ``solve_over_quartical`` and ``command_over_quartical``.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy, times = out / "ddsolve.ms", out / "solve.json"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ms, copy)
    models = [word for name in peel for word in ("--peel", name)]
    # QuartiCal compiles its kernels once, for both: a first run of each is not timed.
    command = [sys.executable, "-c", TIMED, str(times), "-q", "ddsolve", str(copy), "--all", all_column, *models,
               "--no-plots", "--json", "--overwrite", "--out", str(out / "ddsolve"), *options]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole, cpu, text = _timed(command)
    record = json.loads(text)
    (solve_s, _) = json.loads(times.read_text())
    terms = {term["name"]: term for term in record["results"]["terms"]}
    alone_command = _goquartical(copy, out, record, terms, all_column, peel)
    _timed(alone_command)
    alone, alone_cpu, _ = _timed(alone_command)
    samples = record["results"]["chi2"]["samples"]
    return {
        "samples": samples,
        "terms": {name: [term["type"], term["time"], term["freq"]] for name, term in terms.items()},
        "command_s": whole,
        "command_cpu_s": cpu,
        "solve_s": solve_s,
        "quartical_s": alone,
        "quartical_cpu_s": alone_cpu,
        "solve_over_quartical": solve_s / alone,
        "command_over_quartical": whole / alone,
    }


def _timed(command: Sequence[str]) -> tuple[float, float, str]:
    before, start = os.times(), time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.monotonic() - start, cpu, done.stdout


def _goquartical(
    ms: Path,
    out: Path,
    record: dict[str, Any],
    terms: dict[str, dict[str, Any]],
    all_column: str,
    peel: Sequence[str],
) -> list[str]:
    """The same solve, by hand."""
    results = record["results"]
    column = results["datacolumn"]
    names = [name for name in ("G", "K", "dE") if name in terms]
    # As peelkit.core.dd_terms.iterations has them: dE first, then two rounds.
    first = [25 if name == "dE" else 0 for name in names]
    recipe = (first if len(names) > 1 else []) + [25] * (2 * len(names))
    words = [
        f"input_ms.path={ms}", f"input_ms.data_column={column}", "input_ms.weight_column=WEIGHT",
        "input_ms.group_by=[FIELD_ID,DATA_DESC_ID]",
        f"input_model.recipe={'~'.join([all_column, *peel])}:{':'.join(peel)}",
        f"output.gain_directory={out / 'gains'}", f"output.log_directory={out / 'logs'}",
        "output.overwrite=True", "output.log_to_terminal=False", "output.flags=False",
        f"solver.terms=[{','.join(names)}]", f"solver.iter_recipe={recipe}".replace(" ", ""),
        f"dask.threads={len(os.sched_getaffinity(0))}",
    ]  # fmt: skip
    for name in names:
        term = terms[name]
        words += [
            f"{name}.type={term['type']}", f"{name}.time_interval={_count(term['time'], 'int')}",
            f"{name}.freq_interval={_count(term['freq'], 'chan')}",
            f"{name}.direction_dependent={name == 'dE'}", f"{name}.respect_scan_boundaries=True",
        ]  # fmt: skip
    return [str(Path(sys.executable).with_name("goquartical")), *words]


def _count(text: str, unit: str) -> int:
    """Of an interval in integrations or channels, as ``auto`` chooses them; 0 is all."""
    if text in ("inf", "spw"):
        return 0
    if not text.endswith(unit):
        raise SystemExit(
            f"{text}: give intervals in {unit}, inf or spw, for QuartiCal takes counts"
        )
    return int(text.removesuffix(unit))


def main() -> None:
    """Print what `run` finds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("ms", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", dest="all_column", default="ALL_SKY_MODEL")
    parser.add_argument("--peel", action="append")
    given, options = parser.parse_known_args()
    found = run(
        given.ms, given.out, all_column=given.all_column, peel=given.peel or ("BRIGHT_1",),
        options=options,
    )  # fmt: skip
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
