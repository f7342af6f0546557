"""What the intervals of dE cost: local rms, score of held-out data, and flux suppression against interval.

    python bench/scan_intervals.py OUT.png [FOLDER]

Simulates a field, runs the recipe for its models, and solves once more with each interval, with sources
injected near and far. About fifteen minutes; the figures go to OUT.json. A FOLDER is kept, and what is in it is
not made again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peelkit.core.plots import new_figure, save

PEELKIT = Path(sys.executable).with_name("peelkit")

# VLA C configuration: within a scan of ten minutes the fringes of other sources turn.
SIMULATED = "--seed 1"
INTERVALS = ("1int", "4int", "8int", "16int", "32int", "inf")
SCAN_S = 600.0
INJECTED = ("10mJy@1,0", "10mJy@-6,-4")


def run(folder: Path, *words: object) -> None:
    """Run peelkit in a folder."""
    subprocess.run(
        [PEELKIT, "-q", *map(str, words)], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )


def results(path: Path) -> dict[str, Any]:
    """Results of a sidecar."""
    found: dict[str, Any] = json.loads(path.read_text())["results"]
    return found


def scan(folder: Path) -> list[dict[str, Any]]:
    """Solve with every interval, and with ``auto``; one record each."""
    if not (folder / "sim.ms").exists():
        run(folder, "simulate", "sim.ms", *SIMULATED.split())
    bright = json.loads((folder / "sim.ms.truth.json").read_text())["sources"][0]
    (folder / "bright.reg").write_text(
        "# Region file format: DS9\nicrs\n"
        f'circle({bright["ra_deg"]},{bright["dec_deg"]},120") # text={{BRIGHT_1}}\n'
    )
    text = subprocess.run(
        [PEELKIT, "recipe", "peel"], capture_output=True, text=True, check=True
    ).stdout
    text = text.replace("selfcal_options=''", "selfcal_options='--solint 30s --calmode p'")
    (folder / "peel.sh").write_text(text)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(
        ["sh", "peel.sh", "sim.ms", "bright.reg", "out"],
        cwd=folder,
        check=True,
        env={"PATH": path, "HOME": str(Path.home())},
    )
    # The columns are of the last round that was kept.
    *_, like, peeled = (one["path"] for one in results(folder / "out/stats.json")["images"])
    (number,) = re.findall(r"peeled(\d+)", peeled)
    last = f"out/predict{number}.json"
    found = []
    for interval in ("auto", *INTERVALS):
        words = (
            []
            if interval == "auto"
            else ["--de-time", interval, "--de-freq", "1chan", "--g-time", "1int"]
        )
        out = f"scan.{interval}"
        injected = [word for one in INJECTED for word in ("--inject", one)]
        run(folder, "ddsolve", "sim.ms", "--from", last, "--out", out, "--column", "SCAN", "--overwrite",
            "--no-plots", "--sidecar", f"{out}.json", *words, *injected)  # fmt: skip
        run(
            folder,
            "image-residual",
            "sim.ms",
            f"image.{interval}",
            "--column",
            "SCAN",
            "--like",
            like,
            "--overwrite",
        )
        image = f"image.{interval}.image{''.join(re.findall(r'[.]tt0$', like))}"
        run(
            folder,
            "stats",
            image,
            "--regions",
            "bright.reg",
            "--sidecar",
            f"stats.{interval}.json",
            "--overwrite",
        )
        solved = results(folder / f"{out}.json")
        entry = results(folder / f"stats.{interval}.json")["images"][0]
        found.append(
            {
                "interval": interval,
                "time_s": next(t["time_interval_s"] for t in solved["terms"] if t["name"] == "dE"),
                "rms_local_jy_beam": entry["rms_local_jy_beam"],
                "suppression": [one["suppression"] for one in solved["injected"]],
                "candidates": solved["intervals"]["candidates"] if solved["intervals"] else None,
                "chosen": solved["intervals"]["chosen"] if solved["intervals"] else None,
            }
        )
    return found


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Three panels against the time interval; the choice of ``auto`` is marked."""
    auto, fixed = found[0], found[1:]
    times = [one["time_s"] or SCAN_S for one in fixed]
    chosen = auto["time_s"] or SCAN_S
    channels = auto["chosen"][0]["channels"]
    figure = new_figure(figsize=(7, 8))
    axes = figure.subplots(3, 1, sharex=True)
    axes[0].plot(times, [1e6 * one["rms_local_jy_beam"] for one in fixed], "o-")
    axes[0].plot([chosen], [1e6 * auto["rms_local_jy_beam"]], "*", ms=13, color="C3", label="auto")
    axes[0].set_ylabel("local rms [µJy/beam]")
    axes[0].legend()
    tried = [c for c in auto["candidates"] if c["term"] == "dE" and c["channels"] in (1, channels)]
    tried = [c for c in tried if c["channels"] == min(t["channels"] or 99 for t in tried)]
    axes[1].plot(
        [c["time_interval_s"] or SCAN_S for c in tried], [c["chi2_held_out"] for c in tried], "o-"
    )
    axes[1].set_ylabel("chi-squared of held-out data")
    for number, (label, flux) in enumerate(zip(("near, 1'", "far, 7'"), INJECTED, strict=True)):
        axes[2].plot(
            times,
            [100 * one["suppression"][number] for one in fixed],
            "o-",
            label=f"{label} ({flux.split('@')[0]})",
        )
        axes[2].plot([chosen], [100 * auto["suppression"][number]], "*", ms=13, color="C3")
    axes[2].set_ylabel("suppression of an\nunmodelled source [%]")
    axes[2].legend()
    axes[2].set_xlabel("time interval of dE [s], each channel by itself")
    for axis in axes:
        axis.set_xscale("log")
        axis.axvline(chosen, color="0.8", lw=1, zorder=0)
        axis.set_xticks(times, [f"{time:g}" for time in times])
        axis.minorticks_off()
    save(figure, path)


def main() -> None:
    """Scan, plot, and keep the figures."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        found = scan(Path(sys.argv[2] if len(sys.argv) > 2 else scratch))
    target.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, target)


if __name__ == "__main__":
    main()
