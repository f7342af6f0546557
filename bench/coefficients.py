"""Measures what the stages of the long commands cost, for the constants of ``peelkit.core.cost``.

    python bench/coefficients.py [--out FOLDER] [--json FILE] [SIZE ...]

Each SIZE is ANTENNAS,SCANS,INTEGRATIONS,CHANNELS,CORRELATIONS,FIELDS; the defaults are two that differ in the
number of visibilities by a factor of 8. The data are one point at each field's centre, with noise. Every
command runs in this process; the CPU time of it and of its children is taken where a stage begins. Beside it
stands what ``--dry-run`` expected.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from click.testing import CliRunner

from bigms import make_big_ms
from makems import MsRecipe
from peelkit.cli.main import cli
from peelkit.cli.state import RunState
from peelkit.progress import Progress

SIZES = ("27,4,15,16,2,1", "27,4,60,32,2,1")
TICK = os.sysconf("SC_CLK_TCK")


class Timed(Progress):
    """Takes the time where stages begin."""

    def __init__(self) -> None:
        self.marks = [("start", tree_cpu_s(), time.monotonic())]

    def stage(self, text: str, total: float | None = None) -> None:
        """Note when it begins."""
        self.marks.append((text, tree_cpu_s(), time.monotonic()))

    def stages(self) -> list[tuple[str, float, float]]:
        """Name, CPU and wall time [s] of each."""
        ends = [*self.marks[1:], ("end", tree_cpu_s(), time.monotonic())]
        return [
            (name, end[1] - cpu, end[2] - wall)
            for (name, cpu, wall), end in zip(self.marks, ends, strict=True)
        ]


def tree_cpu_s() -> float:
    """CPU time [s] of this process, and of all that it has started."""
    parents, used = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
            used[int(entry.name)] = sum(map(int, words[11:15]))
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sum(used[pid] for pid in found if pid in used) / TICK


def run(*arguments: object) -> list[tuple[str, float, float]]:
    """Run a command; its stages."""
    timed = Timed()

    @contextlib.contextmanager
    def progress(_state: RunState) -> Iterator[Progress]:
        yield timed

    kept, RunState.progress = RunState.progress, progress  # type: ignore[method-assign]
    try:
        result = CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=False)
    finally:
        RunState.progress = kept  # type: ignore[method-assign]
    if result.exit_code:
        raise SystemExit(f"{arguments}: exit {result.exit_code}\n{result.output}")
    return timed.stages()


def expected(*arguments: object) -> dict[str, Any] | None:
    """What --dry-run says of a command; None if it has none."""
    asked = [str(one) for one in (*arguments, "--dry-run", "--json")]
    result = CliRunner().invoke(cli, asked, catch_exceptions=False)
    return json.loads(result.stdout)["results"] if result.exit_code == 0 else None


def measure(size: str, folder: Path) -> dict[str, Any]:
    """All commands on data of one size."""
    n_antenna, n_scan, n_time, n_chan, n_corr, n_field = map(int, size.split(","))
    recipe = MsRecipe(
        n_antenna=n_antenna, n_scan=n_scan, n_time=n_time, n_chan=(n_chan,), n_corr=n_corr,
        n_field=n_field, integration_s=10.0, chan_width_hz=2e6, phase_rms_deg=0.0,
    )  # fmt: skip
    data = folder / "data.ms"
    shutil.rmtree(data, ignore_errors=True)
    rows = make_big_ms(data, recipe, extra=("ALL",))
    regions = folder / "source.crtf"
    regions.write_text(
        '#CRTFv0\ncircle [[7h38m21.9742s, +30d00m00.0s], 20arcsec], coord=J2000, label="SRC"\n'
    )
    image = folder / "first"
    grid = ("--imsize", 512, "--cell", "3arcsec", "--nterms", 1)
    field = ("--field", 0)
    commands: list[tuple[object, ...]] = [
        ("add-model-col", data, "COPY", "--expression", "ALL", "--allow", "one"),
        ("image-residual", data, image, "--column", "DATA", *grid, *field, "--overwrite"),
        ("predict-region", data, "--image", f"{image}.image", "--regions", regions, "--all-column", "--shape", "clean"),
        ("predict-region", data, "--image", f"{image}.image", "--regions", regions, "--all-column", "--overwrite"),
        ("ddsolve", data, "--all", "ALL_SKY_MODEL", "--peel", "SRC", "--out", folder / "dd"),
        ("selfcal", data, "--solint", "inf", "--calmode", "p", *grid, *field, "--out", folder / "sc", "--no-plots"),
    ]  # fmt: skip
    found = []
    for command in commands:
        before = expected(*command)
        stages = run(*command)
        found.append(
            {"command": " ".join(map(str, command[:1])), "expected": before, "stages": stages}
        )
        whole = sum(cpu for _, cpu, _ in stages), sum(wall for *_, wall in stages)
        told = f"; expected {before['cpu_s']:.1f} s CPU" if before else ""
        print(f"{command[0]}: {whole[0]:.1f} s CPU, {whole[1]:.1f} s{told}", file=sys.stderr)
        for name, cpu, wall in stages:
            print(f"    {name:40s} {cpu:8.2f} {wall:8.2f}", file=sys.stderr)
    samples = rows * n_chan * n_corr
    return {"size": size, "rows": rows, "samples": samples, "commands": found}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Folder for the data, which are deleted.")
    parser.add_argument("--json", type=Path, help="Write the figures here too.")
    parser.add_argument("sizes", nargs="*", default=SIZES)
    asked = parser.parse_args()
    everything = []
    for size in asked.sizes:
        folder = Path(tempfile.mkdtemp(dir=asked.out))
        try:
            print(size, file=sys.stderr)
            everything.append(measure(size, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        asked.json.write_text(json.dumps(everything, indent=1, default=str))


if __name__ == "__main__":
    main()
