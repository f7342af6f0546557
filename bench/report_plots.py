"""Plots of the benchmark: stages side by side, time and memory against size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import AXES, SIZES
from peelkit.core.plots import new_figure, save
from summary import FURTHER, GROUPS, OTHER, of_groups, runs_of, scaling, slope

# Colour-blind safe (Okabe and Ito).
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#999999")
OF_VARIANT = {
    "published": ("#D55E00", "s"),
    "peelkit": ("#0072B2", "o"),
    "peelkit-wsclean": ("#009E73", "^"),
}
NAMES = {
    "published": "published\nrecipe",
    "peelkit": "peelkit\ntclean",
    "peelkit-wsclean": "peelkit\nWSClean",
}
GIB = 2**30
# Places in a point of `summary.scaling`.
TIME, MEMORY = 1, 2


def plot_all(measurements: dict[str, dict[str, Any]], folder: Path) -> list[str]:
    """Draw what there are measurements for; names of the files."""
    made = []
    if runs_of(measurements, "chain"):
        _stages(measurements, folder / "stages.png")
        made.append("stages.png")
    if runs_of(measurements, "scale"):
        for which, name, label in (
            (TIME, "time.png", "wall time of one round [s]"),
            (MEMORY, "memory.png", "peak memory [GiB]"),
        ):
            _against_size(measurements, folder / name, which, label)
            made.append(name)
    return made


def _stages(measurements: dict[str, dict[str, Any]], path: Path) -> None:
    """Stacked wall times of the chains at size 1; one panel for each kind of data."""
    runs = runs_of(measurements, "chain")
    kinds = list(dict.fromkeys(one.kind for one in runs))
    figure = new_figure(figsize=(1.5 + 4 * len(kinds), 4.6))
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    drawn: dict[str, Any] = {}
    for axis, kind in zip(axes, kinds, strict=True):
        variants = [v for v in NAMES if any((one.kind, one.variant) == (kind, v) for one in runs)]
        for place, variant in enumerate(variants):
            same = [one for one in runs if (one.kind, one.variant) == (kind, variant)]
            bottom = 0.0
            for colour, group in zip(COLOURS, (*GROUPS, FURTHER, OTHER), strict=True):
                height = of_groups(same, group, "wall_s") or 0.0
                if height:
                    drawn[group] = axis.bar(place, height, 0.6, bottom=bottom, color=colour)
                bottom += height
            axis.text(place, bottom, f"{bottom:.0f} s", ha="center", va="bottom")
        axis.set_xticks(range(len(variants)), [NAMES[v] for v in variants])
        axis.set_xlim(-0.6, len(variants) - 0.4)
        axis.margins(y=0.08)
        axis.set_title({"field": "one field", "mosaic": "mosaic of 12 fields"}.get(kind, kind))
        axis.set_ylabel("wall time, medians of the stages [s]")
    order = [group for group in (*GROUPS, FURTHER, OTHER) if group in drawn]
    figure.legend(
        [drawn[group] for group in order], order, loc="outside lower center", ncols=3, fontsize=8
    )
    save(figure, path)


def _against_size(
    measurements: dict[str, dict[str, Any]], path: Path, which: int, label: str
) -> None:
    """Against size, one panel for each kind and axis: times log-log with the exponents, memory from zero."""
    scaled = runs_of(measurements, "scale")
    panels = [
        (kind, axis)
        for kind in dict.fromkeys(one.kind for one in scaled)
        for axis in AXES
        if any((one.kind, one.axis) == (kind, axis) for one in scaled)
    ]
    columns = min(3, len(panels))
    figure = new_figure(figsize=(1 + 3.2 * columns, 3.4 * -(-len(panels) // columns)))
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False, sharey=True).ravel()
    for axis in grid[len(panels) :]:
        axis.set_visible(False)
    largest = 1
    for place, (axis, (kind, grows)) in enumerate(zip(grid, panels, strict=False)):
        for variant, (colour, marker) in OF_VARIANT.items():
            points = scaling(measurements, kind, grows, variant)
            if not points:
                continue
            sizes = [point[0] for point in points]
            values = [point[which] / (1 if which == TIME else GIB) for point in points]
            largest = max(largest, *sizes)
            power = slope(sizes, values) if which == TIME else None
            name = NAMES[variant].replace("\n", " ")
            axis.plot(sizes, values, marker=marker, color=colour,
                      label=name if power is None else f"{name}: size$^{{{power:.2f}}}$")  # fmt: skip
        axis.set_title(f"{kind}: {grows}")
        axis.set_xscale("log")
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.minorticks_off()
        axis.set_xlabel(f"size ({grows})")
        if place % columns == 0:
            axis.set_ylabel(label)
        axis.legend(fontsize=7, loc="best" if which == TIME else "lower right")
    for axis in grid[: len(panels)]:
        axis.set_xlim(0.85, 1.18 * largest)
        if which == TIME:
            axis.set_yscale("log")
            _plain_ticks(axis)
    if which == MEMORY:
        # All share the axis.
        grid[0].set_ylim(0, 1.05 * grid[0].get_ylim()[1])
    save(figure, path)


def _plain_ticks(axis: Any) -> None:
    """Numbers such as 0.5, 1, 2, 5 on a logarithmic axis."""
    low, high = axis.get_ylim()
    steps = [m * 10.0**e for e in range(-3, 5) for m in (1, 1.5, 2, 3, 5, 7)]
    shown = [step for step in steps if low <= step <= high]
    axis.set_yticks(shown, [f"{step:g}" for step in shown])
