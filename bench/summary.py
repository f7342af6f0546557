"""Medians, groups of stages, slopes: what the report and the plots are made of."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# What the stages of both chains are for; by the first word of their names.
GROUPS: dict[str, tuple[str, ...]] = {
    "image, self-calibrate": ("selfcal", "tclean1", "gaincal", "applycal", "tclean2"),
    "predict, copy columns": ("predict-region", "predict", "copy", "mask"),
    "solve, subtract": ("ddsolve", "quartical"),
    "image what is left": ("image-residual", "tclean3"),
    "judge, keep books": ("stats", "undo"),
}
FURTHER, OTHER = "further rounds", "start, shell"
COUNTS = ("wall_s", "cpu_s", "read_bytes", "written_bytes")
PEAKS = ("peak_bytes", "largest_process_bytes")


def group_of(name: str) -> str:
    """Group of a stage."""
    word = name.replace("tclean ", "tclean").partition(" ")[0]
    return next((group for group, words in GROUPS.items() if word in words), OTHER)


@dataclass(frozen=True)
class Run:
    """A run of a chain, its stages in groups.

    Parameters
    ----------
    groups : dict
        Figures of each group: sums of `COUNTS`, largest of `PEAKS`. The stages of a second and later round of peeling
        are a group of their own.
    first_s, first_bytes : float
        Wall time [s] and peak memory of one round: without the later ones, but with the comparison at the end.
    """

    variant: str
    dataset: str
    kind: str
    axis: str
    size: int
    shape: dict[str, int]
    whole: dict[str, Any]
    rounds: int
    groups: dict[str, dict[str, float]]
    first_s: float
    first_bytes: float
    solve: dict[str, float]
    quality: list[dict[str, Any]] = field(default_factory=list)


def run_of(record: dict[str, Any]) -> Run:
    """Group the stages of a measurement."""
    groups: dict[str, dict[str, float]] = {}
    rounds = 0
    solve_s = 0.0
    last = len(record["stages"]) - 1
    for place, stage in enumerate(record["stages"]):
        rounds += stage["name"] == "predict-region"
        # A chain of one round ends with the comparison of all images, too.
        at_end = place == last and stage["name"] == "stats"
        group = FURTHER if rounds > 1 and not at_end else group_of(stage["name"])
        _add(groups.setdefault(group, {}), stage)
        if stage["name"] in ("ddsolve", "quartical") and not solve_s:
            solve_s = stage["wall_s"]
    told = {key: sum(one[key] for one in record["stages"]) for key in COUNTS}
    rest = {key: max(0.0, record["whole"][key] - told[key]) for key in COUNTS}
    groups[OTHER] = {**groups.get(OTHER, {}), **rest}
    return Run(
        **{key: record[key] for key in ("variant", "dataset", "kind", "axis", "size", "shape", "whole", "rounds")},
        groups=groups,
        first_s=sum(one["wall_s"] for name, one in groups.items() if name != FURTHER),
        first_bytes=max(one.get("peak_bytes", 0.0) for name, one in groups.items() if name != FURTHER),
        solve={"wall_s": solve_s, "visibilities": record["shape"]["visibilities"]},
        quality=record.get("quality", []),
    )  # fmt: skip


def _add(total: dict[str, float], stage: dict[str, Any]) -> None:
    for key in COUNTS:
        total[key] = total.get(key, 0.0) + stage[key]
    for key in PEAKS:
        total[key] = max(total.get(key, 0.0), stage[key])


def runs_of(measurements: dict[str, dict[str, Any]], what: str) -> list[Run]:
    """All runs of chains (``chain``) or for scaling (``scale``)."""
    return [run_of(one) for key, one in measurements.items() if key.startswith(f"{what}/")]


def median(values: Iterable[float]) -> float | None:
    """Median; None of nothing."""
    found = list(values)
    return statistics.median(found) if found else None


def of_groups(runs: Sequence[Run], group: str, key: str) -> float | None:
    """Median of a figure of a group over runs; None if no run has it."""
    return median(one.groups[group][key] for one in runs if key in one.groups.get(group, {}))


def ratio(value: float | None, reference: float | None) -> float | None:
    """Their ratio, if both are known."""
    return value / reference if value is not None and reference else None


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Exponent of a power law through values at sizes, by least squares of logarithms; None of fewer than three."""
    if len(set(sizes)) < 3:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares of ``y = a + b x``: a, b, and the largest deviation as a fraction of y."""
    b, a = np.polyfit(x, y, 1)
    fitted = a + b * np.asarray(x)
    return float(a), float(b), float(np.abs(fitted / np.asarray(y) - 1).max())


def scaling(
    measurements: dict[str, dict[str, Any]], kind: str, axis: str, variant: str
) -> list[tuple[int, float, float, dict[str, float]]]:
    """Size, wall time of one round [s], peak memory [byte], and peaks of the groups; size 1 from the chains."""
    found = []
    same = [
        one for one in runs_of(measurements, "chain") if (one.kind, one.variant) == (kind, variant)
    ]
    if same:
        found.append(_scaling_point(1, same))
    grown = [
        one
        for one in runs_of(measurements, "scale")
        if (one.kind, one.axis, one.variant) == (kind, axis, variant)
    ]
    found += [_scaling_point(one.size, [one]) for one in sorted(grown, key=lambda one: one.size)]
    return found


def _scaling_point(size: int, runs: list[Run]) -> tuple[int, float, float, dict[str, float]]:
    peaks = {group: of_groups(runs, group, "peak_bytes") for group in GROUPS}
    return (
        size,
        statistics.median(one.first_s for one in runs),
        statistics.median(one.first_bytes for one in runs),
        {group: value for group, value in peaks.items() if value is not None},
    )
