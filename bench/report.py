"""bench/README.md from the results: tables of medians and ratios, and what was not run.

python bench/report.py [RESULTS.json]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report_limits
from datasets import AXES, SELFCAL_NOTE
from report_plots import plot_all
from summary import (
    COUNTS,
    FURTHER,
    GROUPS,
    OTHER,
    PEAKS,
    Run,
    median,
    of_groups,
    ratio,
    runs_of,
    scaling,
    slope,
)
from tables import number, table

VARIANTS = {
    "published": "published",
    "peelkit": "peelkit, tclean",
    "peelkit-wsclean": "peelkit, WSClean",
}
KINDS = {"field": "One field", "mosaic": "Mosaic of 12 fields"}
GROUP_NAMES = (*GROUPS, FURTHER, OTHER)
MB, MIB = 1e6, 2**20
# Whole wall time over the published recipe's: what is aimed at.
AIMS = {("field", "peelkit"): 0.8, ("field", "peelkit-wsclean"): 0.25, ("mosaic", "peelkit"): 0.5}


def write(content: dict[str, Any], folder: Path) -> None:
    """Write README.md and the plots into a folder."""
    measured = {key: one for key, one in content["measurements"].items() if "failed" not in one}
    plots = plot_all(measured, folder)
    # Written into results.json by hand: what disturbed a run.
    remarks = "\n".join(f"**{remark}**" for remark in content.get("remarks", []))
    parts = [_head(content), remarks, _summary(measured)]
    for kind in dict.fromkeys(one.kind for one in runs_of(measured, "chain")):
        parts.append(_chains(measured, kind))
    if "stages.png" in plots:
        parts.append("![Wall time of the stages](stages.png)")
    parts.append(report_limits.text(measured))
    parts.append(_growth(measured, plots))
    parts.append(_missing(content))
    text = "\n\n".join(part for part in parts if part)
    (folder / "README.md").write_text(text + "\n")


def _head(content: dict[str, Any]) -> str:
    machine, measured = content["machine"], content["measurements"]
    dates = sorted({one["date"] for one in measured.values()})
    commits = sorted({one["commit"] for one in measured.values()})
    versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
    loads = [one["load_1min"] for one in measured.values() if "load_1min" in one]
    busy = ""
    if loads and max(loads) > machine["cores"]:
        busy = (
            f"\n**The machine was busy** (load up to {max(loads):.1f} before a run, on {machine['cores']} cores): "
            "wall times and their ratios are hints only; CPU times say more.\n"
        )
    return f"""# Benchmark

Made by `make bench` (`python bench/run.py`); all figures are in `results.json`. {machine["cores"]} cores,
{machine["memory_bytes"] / 2**30:.0f} GiB of memory, Python {machine["python"]}, {versions}; {", ".join(dates)}, commit
{", ".join(commits)}.
{busy}
"Published" is the recipe of VLASS memo 23 in one process with the same engines on fresh copies of the same data
(`bench/published.py`): tclean, gaincal and applycal (phases, 30 s), tclean, copy of the model column, each bright
source predicted by tclean, QuartiCal with the memo's terms and intervals, tclean. Its mask is given to it, from the
truth: 30" about each source above eight times the thermal noise; the memo's image for that and the inspection by eye
are not counted. peelkit is `peelkit recipe peel` with its
defaults{SELFCAL_NOTE}. Both have the same regions, image size,
cell, robust and Taylor terms, and run in turn; page cache warm, QuartiCal compiled before, `sync` before each run.
Wall and CPU times are medians of the repeats, of two the mean; CPU counts all processes. Memory is the largest sum
over all processes (shared pages once), looked at 20 times a second; in the published recipe CASA waits, with some
0.4 GiB, while QuartiCal solves. Bytes are those of all
read and write calls, the page cache's and pipes' too. A visibility is of one row and channel, a sample of one
correlation of it."""


def _summary(measured: dict[str, dict[str, Any]]) -> str:
    """What was aimed at, and what it is."""
    rows = []
    runs = runs_of(measured, "chain")
    for (kind, variant), aim in AIMS.items():
        mine = [one for one in runs if (one.kind, one.variant) == (kind, variant)]
        theirs = [one for one in runs if (one.kind, one.variant) == (kind, "published")]
        wall = ratio(_whole(mine), _whole(theirs))
        first = ratio(median(one.first_s for one in mine), _whole(theirs))
        what = f"{KINDS[kind]}, whole chain, {VARIANTS[variant]}"
        told = f"{number(wall)} (one round: {number(first)})" if mine and theirs else "not run"
        rows.append([f"{what}: wall time / published", f"at most {aim}", told])
    rows += report_limits.summary(measured, runs)
    return "## In short\n\n" + table(["what", "aim", "measured"], rows)


def _whole(runs: Sequence[Run]) -> float | None:
    return median(one.whole["wall_s"] for one in runs)


def _chains(measured: dict[str, dict[str, Any]], kind: str) -> str:
    """Stages and quality of the chains on data of size 1."""
    runs = [one for one in runs_of(measured, "chain") if one.kind == kind]
    by_variant = {
        variant: [one for one in runs if one.variant == variant]
        for variant in VARIANTS
        if any(one.variant == variant for one in runs)
    }
    shape = runs[0].shape
    lines = [
        f"## {KINDS.get(kind, kind)}",
        f"{shape['fields']} field{'s' * (shape['fields'] > 1)}, {shape['rows']} rows of "
        f"{shape['visibilities'] / shape['rows']:g} channels ({shape['channels']} in all spws) and "
        f"{shape['correlations']} correlations: {shape['visibilities'] * shape['correlations'] / 1e6:.2f} million "
        f"samples, {shape['column_bytes'] / MB:.1f} MB a column.",
        _wall_table(by_variant),
        _spent_table(by_variant),
        "Images of the last run: local rms around the bright source, global rms, dynamic range (brightest peak over "
        "local rms), and local rms over that of the best possible image: the same faint sources in the same noise, "
        "without the bright source and without errors.",
        _quality_table(by_variant),
    ]
    return "\n\n".join(lines)


def _wall_table(by_variant: dict[str, list[Run]]) -> str:
    others = [variant for variant in by_variant if variant != "published"]
    theirs = by_variant.get("published", [])
    head = ["wall time [s]"]
    head += ["published"] if theirs else []
    for variant in others:
        head += [VARIANTS[variant], "ratio"]
    rows = []
    for group in GROUP_NAMES:
        reference = of_groups(theirs, group, "wall_s")
        row = [group, *([number(reference)] if theirs else [])]
        for variant in others:
            value = of_groups(by_variant[variant], group, "wall_s")
            # The one's is CASA's start, the others start in every stage.
            row += [number(value), "-" if group == OTHER else number(ratio(value, reference))]
        rows.append(row)
    for name, of in (
        ("one round, and the last comparison", lambda one: one.first_s),
        ("all", lambda one: one.whole["wall_s"]),
    ):
        reference = median(map(of, theirs))
        row = [f"**{name}**", *([number(reference)] if theirs else [])]
        for variant in others:
            value = median(map(of, by_variant[variant]))
            row += [number(value), number(ratio(value, reference))]
        rows.append(row)
    each = ["all: each run (its rounds)", *([_each(theirs)] if theirs else [])]
    for variant in others:
        each += [_each(by_variant[variant], rounds=True), ""]
    return table(head, [*rows, each])


def _each(runs: Sequence[Run], *, rounds: bool = False) -> str:
    return ", ".join(number(one.whole["wall_s"]) + f" ({one.rounds})" * rounds for one in runs)


def _spent_table(by_variant: dict[str, list[Run]]) -> str:
    head = [
        "CPU [s] / peak memory (of the largest process) [MiB] / read, written [MB]",
        *(VARIANTS[variant] for variant in by_variant),
    ]
    rows = []
    for group in GROUP_NAMES:
        row = [group]
        for runs in by_variant.values():
            row.append(_spent({key: of_groups(runs, group, key) for key in (*COUNTS, *PEAKS)}))
        rows.append(row)
    row = ["**all**"]
    for runs in by_variant.values():
        row.append(
            _spent({key: median(one.whole[key] for one in runs) for key in (*COUNTS, *PEAKS)})
        )
    return table(head, [*rows, row])


def _spent(figures: dict[str, float | None]) -> str:
    if figures["cpu_s"] is None:
        return "-"
    peak, largest = (figures[key] for key in PEAKS)
    memory = "-" if peak is None or largest is None else f"{peak / MIB:.0f} ({largest / MIB:.0f})"
    read, written = ((figures[key] or 0) / MB for key in ("read_bytes", "written_bytes"))
    return f"{number(figures['cpu_s'])} / {memory} / {number(read)}, {number(written)}"


def _quality_table(by_variant: dict[str, list[Run]]) -> str:
    rows = []
    for variant, runs in by_variant.items():
        for one in runs[-1].quality:
            rows.append(
                [
                    VARIANTS[variant], one["image"], number(1e6 * one["rms_local_jy_beam"]),
                    number(1e6 * one["rms_global_jy_beam"]), number(one["dynamic_range"]), number(one["over_best"]),
                ]
            )  # fmt: skip
    head = [
        "chain",
        "image",
        "local rms [uJy/beam]",
        "global rms [uJy/beam]",
        "dynamic range",
        "over the best",
    ]
    return table(head, rows)


def _growth(measured: dict[str, dict[str, Any]], plots: list[str]) -> str:
    """Wall time and memory against size."""
    rows, memory = [], []
    for kind in KINDS:
        for axis in AXES:
            if not any(key.startswith(f"scale/{kind}-{axis}") for key in measured):
                continue
            for variant, name in VARIANTS.items():
                points = scaling(measured, kind, axis, variant)
                if not points:
                    continue
                sizes = [point[0] for point in points]
                wall, peak = [point[1] for point in points], [point[2] for point in points]
                told = [", ".join(f"{n}: {number(v)}" for n, v in zip(sizes, wall, strict=True)),
                        ", ".join(f"{n}: {v / MIB:.0f}" for n, v in zip(sizes, peak, strict=True))]  # fmt: skip
                rows.append([f"{kind}, {axis}", name, told[0], number(slope(sizes, wall)),
                             told[1], number(slope(sizes, peak))])  # fmt: skip
                for size, _, _, groups in points:
                    memory.append([f"{kind}, {axis} {size}", name,
                                   *(f"{groups[g] / MIB:.0f}" if g in groups else "-" for g in GROUPS)])  # fmt: skip
    if not rows:
        return ""
    head = [
        "data",
        "chain",
        "wall time [s] at size",
        "exponent",
        "peak memory [MiB] at size",
        "exponent",
    ]
    parts = [
        "## Growth with size",
        "One round of peeling; sizes beyond 1 were run once. The exponent is that of a power law through all sizes: a cost "
        "that is there at any size makes it small.",
        table(head, rows),
    ]
    parts += [f"![{name}]({name})" for name in ("time.png", "memory.png") if name in plots]
    parts += [
        "Peak memory of the stages [MiB]:",
        table(["data and size", "chain", *GROUPS], memory),
    ]
    return "\n\n".join(parts)


def _missing(content: dict[str, Any]) -> str:
    lines = [f"- {what}: {why}." for what, why in content.get("absent", {}).items()]
    every = content["measurements"].items()
    lines += [f"- {key} failed: {one['failed']}." for key, one in every if "failed" in one]
    left = content.get("left_out", [])
    if left:
        lines.append(f"- No time for: {', '.join(left)}.")
    return "## Not run\n\n" + "\n".join(lines) if lines else ""


if __name__ == "__main__":
    results = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("results.json"))
    write(json.loads(results.read_text()), results.parent)
