"""The lecture's three examples of self-calibration, simulated: S/N at each round beside the lecture's.

    python bench/lecture.py OUT.json [FOLDER [RUN ...]]

Simulates each example (``peelkit simulate --example``), runs ``peelkit selfcal`` on it as Brogan, Hunter and
Fomalont (2018, section 2.4) did and as it chooses by itself, prints a table, and writes OUT.json and OUT.png. A
FOLDER is kept, and what is in it is not made again. A RUN is one of those below, such as "maser T"; all if
none is named. About fifteen minutes on two quiet cores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core.plots import HANDS, new_figure, save
from peelkit.io.caltable import read_gain_table

PEELKIT = [sys.executable, "-m", "peelkit", "-q"]
SMALL = "--imsize 512 --no-plots"
LADDER = "--solint inf --solint 12s --solint 300s --calmode p --calmode p --calmode ap"
MOSAIC = "--imsize 240 --cell 0.4arcsec --no-plots"

# Name of a run: example, options of selfcal, and the lecture's S/N: of the first image and after each round
# (None where the lecture has no number); for the mosaic in units of the first image's.
RUNS: dict[str, tuple[str, str, list[float | None]]] = {
    "mira": ("mira", f"{SMALL} {LADDER} --gaintype T", [161, 598, None, 1130]),
    "mira auto": ("mira", SMALL, []),
    "maser T": ("maser", f"{SMALL} --spw 0:21 {LADDER} --gaintype T", [183, None, None, 1667]),
    "maser G": ("maser", f"{SMALL} --spw 0:21 {LADDER} --gaintype G", [183, None, None, 3756]),
    "maser G IQ": (
        # The mask of the first image holds sidelobes too, which go with the errors.
        "maser", f"{SMALL} --spw 0:21 {LADDER} --gaintype G --stokes IQ --flux-range 0.9 2",
        [183, None, None, 4072],
    ),
    "30dor": (
        "30dor",
        f"{MOSAIC} --minsnr 2 --solint inf --solint 300s --solint 190s --solint inf "
        "--calmode p --calmode p --calmode p --calmode ap --gaintype T "
        "--combine spw,field --combine spw,field --combine spw,field --combine spw,field,scan",
        [1, 1.28, 1.28, 1.35, None],
    ),
    "30dor auto": ("30dor", MOSAIC, []),
}  # fmt: skip
# Channel 40 without, and with the solutions of channel 21: the lecture's S/N.
OTHER_CHANNEL = {"none": 188, "maser T": 395, "maser G": 226, "maser G IQ": 381}
# The lecture's flux over noise of the mosaic, in units of the first image's.
LECTURE_FLUX = [1, 1.34, 1.37, 1.50, None]


def run(folder: Path, *words: object, codes: tuple[int, ...] = (0,)) -> int:
    """Run peelkit in a folder."""
    done = subprocess.run(
        [*PEELKIT, *map(str, words)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in codes:
        raise SystemExit(
            f"peelkit {' '.join(map(str, words))}: exit status {done.returncode}\n{done.stderr}"
        )
    return done.returncode


def results(path: Path) -> dict[str, Any]:
    """Results of a sidecar."""
    found: dict[str, Any] = json.loads(path.read_text())["results"]
    return found


def figures(item: dict[str, Any], what: str) -> dict[str, Any]:
    """What is kept of an image: S/N of the peak and of the flux, rms."""
    flux = item.get("flux_jy")
    return {
        "what": what,
        "snr": item["dynamic_range"],
        "flux_snr": None if flux is None else flux / item["rms_jy_beam"],
        "peak_jy_beam": item["peak_jy_beam"],
        "rms_jy_beam": item["rms_jy_beam"],
        "flux_jy": flux,
    }


def phase_error(truth: dict[str, Any], table: Path, length_s: float) -> tuple[float, float]:
    """Rms of the true phases at the times of the solutions, and of true minus solved [deg].

    Both about the mean of the antennas, which means nothing; the truth is the mean gain of an interval.
    """
    gains = truth["gains"]
    times, run = np.array(gains["times_s"]), np.array(gains["observation_id"])
    true = np.array(gains["amplitude"]) * np.exp(1j * np.radians(gains["phase_deg"]))
    found = read_gain_table(table)
    before, after = [], []
    for execution, time in sorted(
        set(zip(found.observation.tolist(), found.time_s.tolist(), strict=True))
    ):
        rows = (found.observation == execution) & (found.time_s == time) & found.ok.all(axis=1)
        rows &= found.spw == found.spw[(found.observation == execution)].min()
        inside = (run == execution) & (np.abs(times - time) <= length_s / 2 + 1)
        if rows.sum() < 3 or not inside.any():
            continue
        solved = found.gain[rows]
        wanted = true[inside].mean(axis=0)[found.antenna[rows]]
        if solved.shape[1] == 1:
            wanted = wanted.mean(axis=1, keepdims=True)
        for kept, values in ((before, wanted), (after, wanted * solved.conj())):
            turned = values / np.abs(values)
            turned *= np.exp(-1j * np.angle(turned.sum(axis=0)))
            kept.append(np.angle(turned, deg=True).ravel())
    rms = [float(np.sqrt((np.concatenate(kept) ** 2).mean())) for kept in (before, after)]
    return rms[0], rms[1]


def one_run(folder: Path, name: str) -> dict[str, Any]:
    """Self-calibrate in one way; every image's figures, and each round's verdict."""
    example, words, lecture = RUNS[name]
    stem = name.replace(" ", "_")
    record, copy = folder / f"{stem}.json", f"run_{stem}.ms"
    if not (folder / f"{example}.ms").exists():
        run(folder, "simulate", f"{example}.ms", "--example", example)
    command = f"selfcal {example}.ms {words}"
    if not record.exists():
        shutil.rmtree(folder / copy, ignore_errors=True)
        shutil.copytree(folder / f"{example}.ms", folder / copy)
        # 5: no round helped, which is a result.
        run(folder, "selfcal", copy, *words.split(), "--out", f"{stem}.selfcal", "--sidecar",
            record.name, "--overwrite", codes=(0, 5))  # fmt: skip
        shutil.rmtree(folder / copy)
    found = results(record)
    rounds = []
    for item in found["rounds"]:
        made = figures(item, f"{item['solint']} {item['calmode']}") if item["image"] else {
            "what": f"{item['solint']} {item['calmode']}"
        }  # fmt: skip
        kept = (
            "accepted",
            "reason",
            "combine",
            "gaintype",
            "solutions",
            "solutions_failed",
            "fields",
        )
        made |= {key: item.get(key) for key in kept}
        if item["calmode"] == "p" and item.get("caltable"):
            truth = json.loads((folder / f"{example}.ms.truth.json").read_text())
            made["true_phase_deg"], made["phase_error_deg"] = phase_error(
                truth, folder / item["caltable"], item["solint_s"]
            )
        rounds.append(made)
    return {
        "command": command,
        "lecture_snr": lecture,
        "first": figures(found["first"], "first image"),
        "rounds": rounds,
        "final": figures(found["final"], "final image"),
    }


def other_channel(folder: Path, done: dict[str, Any]) -> dict[str, Any]:
    """S/N of channel 40 without and with the solutions of channel 21."""
    found = {}
    for name, lecture in OTHER_CHANNEL.items():
        if name != "none" and name not in done:
            continue
        stem = f"ch40_{name.replace(' ', '_')}"
        if not (folder / f"{stem}.json").exists():
            ms, column = "maser.ms", "DATA"
            if name != "none":
                ms, column = f"{stem}.ms", "CORRECTED_DATA"
                shutil.rmtree(folder / ms, ignore_errors=True)
                shutil.copytree(folder / "maser.ms", folder / ms)
                record = folder / f"{name.replace(' ', '_')}.json"
                run(folder, "selfcal", ms, "--apply", record.name)
            run(folder, "image-residual", ms, stem, "--column", column, "--spw", "0:40", "--imsize", 512,
                "--overwrite", "--sidecar", f"{stem}.json")  # fmt: skip
            if name != "none":
                shutil.rmtree(folder / ms)
        found[name] = {
            **figures(results(folder / f"{stem}.json"), "channel 40"),
            "lecture_snr": lecture,
        }
    return found


def table(done: dict[str, Any]) -> str:
    """Text for people."""
    lines = []
    for name, item in done.items():
        if name == "channel 40":
            lines.append("channel 40 with the solutions of channel 21")
            lines += [
                f"  {key:<12} S/N {one['snr']:7.0f}   lecture {one['lecture_snr']}"
                for key, one in item.items()
            ]
            continue
        lines.append(f"{name}: peelkit {item['command']}")
        images = [item["first"], *item["rounds"]]
        for number, one in enumerate(images):
            lecture = item["lecture_snr"]
            told = lecture[number] if number < len(lecture) else None
            unit = "x" if name.startswith("30dor") else ""
            shown = "-" if one.get("snr") is None else f"{one['snr']:.4g}"
            gain = "-" if one.get("snr") is None else f"{one['snr'] / item['first']['snr']:.2f}"
            verdict = "" if number == 0 else ("accepted" if one["accepted"] else "rejected")
            failed = f"{one['solutions_failed']}/{one['solutions']}" if number else ""
            if "phase_error_deg" in one:
                verdict += (
                    f", phases {one['true_phase_deg']:.1f} +- {one['phase_error_deg']:.1f} deg,"
                )
            lines.append(
                f"  {one['what']:<12} S/N {shown:>6} x{gain:<5} lecture {unit}{told or '-':<6} {failed:>9} {verdict}"
                f" {'' if number == 0 else one['reason']}"
            )
    return "\n".join(lines)


def plot(done: dict[str, Any], path: Path) -> None:
    """S/N at each round: filled what was simulated, open the lecture's; a panel for each example."""
    figure = new_figure(figsize=(11, 4.2))
    axes = figure.subplots(1, 3)
    colours = (HANDS[0], HANDS[1], "#009E73", "#CC79A7")
    for axis, example in zip(axes, ("mira", "maser", "30dor"), strict=True):
        runs = {name: one for name, one in done.items() if name.split()[0] == example}
        relative = example == "30dor"
        for colour, (name, item) in zip(colours, runs.items(), strict=False):
            images = [item["first"], *item["rounds"]]
            scale = item["first"]["snr"] if relative else 1.0
            x = [n for n, one in enumerate(images) if one.get("snr")]
            axis.plot(x, [images[n]["snr"] / scale for n in x], "o-", color=colour, label=name)
            rejected = [n for n in x if n and not images[n]["accepted"]]
            axis.plot(rejected, [images[n]["snr"] / scale for n in rejected], "x", color="k", ms=11)
            told = [(n, value) for n, value in enumerate(item["lecture_snr"]) if value]
            if told:
                axis.plot(*zip(*told, strict=True), "o--", mfc="white", color=colour, alpha=0.6)
            if not name.endswith("auto"):
                axis.set_xticks(
                    range(len(images)), [one["what"].replace(" ", "\n") for one in images]
                )
        axis.set_title(example)
        axis.set_ylabel("peak S/N over that of the first image" if relative else "peak S/N")
        if not relative:
            axis.set_yscale("log")
            ticks = [150, 300, 600, 1200, 2400, 4800]
            axis.set_yticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
        axis.plot([], [], "o--", mfc="white", color="0.5", label="lecture")
        axis.plot([], [], "x", color="k", label="rejected")
        axis.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    """Run, print, keep."""
    target = Path(sys.argv[1])
    wanted = sys.argv[3:] or list(RUNS)
    has_stokes = (
        "--stokes"
        in subprocess.run(
            [*PEELKIT, "selfcal", "--help"], capture_output=True, text=True, check=True
        ).stdout
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch)
        done: dict[str, Any] = {}
        for name, (_, words, _) in RUNS.items():
            if name in wanted and (has_stokes or "--stokes" not in words):
                done[name] = one_run(folder, name)
        if any(name.startswith("maser") for name in done):
            done["channel 40"] = other_channel(folder, done)
    sys.stdout.write(table(done) + "\n")
    target.write_text(json.dumps(done, indent=1) + "\n")
    plot(done, target.with_suffix(".png"))


if __name__ == "__main__":
    main()
