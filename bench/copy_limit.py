"""Copying a column against its limit, ``cp`` of the column's bytes.

    python bench/copy_limit.py MS OUTDIR [REPEATS]

``peelkit add-model-col MS COL --expression DATA`` (another column of the same bytes as MODEL_DATA) beside ``cp``
of the file that holds that column, in turn, with all in the page cache; with and without the data being on the
disk at the end (``sync -f``). Rates are of the column's bytes, written once. ``command`` is the whole of the
command, Python's start included; ``work`` what it counts itself; ``copy`` only reading, auditing and writing.
``run(ms, out)`` gives the same figures.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peelkit.io import ms as tables

COLUMN = "COPY_LIMIT"


def column_file(path: Path, column: str) -> Path:
    """The file with a tiled column's values."""
    with tables.opened(path) as main:
        number = main.getdminfo(column)["SEQNR"]
    return max(path.glob(f"table.f{number}_TSM*"), key=lambda one: one.stat().st_size)


def timed(words: list[str], sync: Path | None) -> dict[str, float]:
    """Wall and CPU seconds of a command, and of ``sync -f`` after it if asked for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    if sync is not None:
        subprocess.run(["sync", "-f", str(sync)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.monotonic() - start, "cpu_s": used}


# The command, and how long the copying itself took, as JSON on stderr's last line.
SCRIPT = """
import json, sys, time
from peelkit.core import columns
from peelkit.cli.main import cli
own = columns.copy_column
def copy_column(*given, **named):
    start = time.monotonic()
    try:
        return own(*given, **named)
    finally:
        open(sys.argv.pop(), "w").write(json.dumps(time.monotonic() - start))
columns.copy_column = copy_column
cli(sys.argv[1:-1], standalone_mode=True)
"""


def run(ms: Path, out: Path, *, repeats: int = 5, column: str = "DATA") -> dict[str, Any]:
    """Figures of one MS, which is left as it was; ``out`` is a new folder on the same disk.

    Parameters
    ----------
    ms : Path
        The MS.
    out : Path
        For the copies of ``cp``.
    repeats : int
        How often.
    column : str
        What is copied.
    """
    out.mkdir(parents=True)
    source = column_file(ms, column)
    size = source.stat().st_size
    source.read_bytes()  # into the page cache
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for synced in (False, True):
            name = "synced" if synced else "cached"
            target = out / "cp.bin"
            subprocess.run(["sync", "-f", str(out)], check=True)
            figures = timed(
                ["cp", "--reflink=never", str(source), str(target)], out if synced else None
            )
            target.unlink()
            runs.setdefault(f"cp {name}", []).append(figures)
            subprocess.run(["sync", "-f", str(out)], check=True)
            sidecar, clock = out / "copy.json", out / "clock.json"
            figures = timed(
                [
                    sys.executable, "-c", SCRIPT, "-q", "add-model-col", str(ms), COLUMN,
                    "--expression", column, "--sidecar", str(sidecar), str(clock),
                ],
                out if synced else None,
            )  # fmt: skip
            figures["work_s"] = json.loads(sidecar.read_text())["seconds"]
            figures["copy_s"] = json.loads(clock.read_text())
            runs.setdefault(f"peelkit {name}", []).append(figures)
            subprocess.run(
                [sys.executable, "-m", "peelkit", "-q", "undo", str(ms)],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
    median = {
        name: {key: statistics.median(one[key] for one in values) for key in values[0]}
        for name, values in runs.items()
    }
    result: dict[str, Any] = {"ms": str(ms), "column_bytes": size, "median": median, "runs": runs}
    for name in ("cached", "synced"):
        cp = median[f"cp {name}"]["wall_s"]
        result[f"rate_of_command_over_cp_{name}"] = cp / median[f"peelkit {name}"]["wall_s"]
    for key in ("work", "copy"):
        result[f"rate_of_{key}_over_cp_cached"] = (
            median["cp cached"]["wall_s"] / median["peelkit cached"][f"{key}_s"]
        )
    (out / "copy_limit.json").write_text(json.dumps(result, indent=1))
    return result


def main() -> None:
    """Print the table."""
    path, out, *more = sys.argv[1:]
    found = run(Path(path), Path(out), repeats=int(more[0]) if more else 5)
    print(f"column {found['column_bytes'] / 1e6:.0f} MB")
    for name, figures in found["median"].items():
        print(f"{name:16s} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    for key, value in found.items():
        if key.startswith("rate_"):
            print(f"{key} {value:.2f}")


if __name__ == "__main__":
    main()
