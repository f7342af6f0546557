"""The report's part on limits: copies, prediction, solving, growth with fields, workers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from summary import Run, line, median, ratio
from tables import number, table

MB = 1e6


def copy_figures(record: dict[str, Any]) -> dict[str, float]:
    """Rates [MB/s] of column and file, without (``_fsync`` with) waiting for the disk; shares of cp's rate.

    The start of the command, measured on a small column, is taken off; ``whole`` has it in.
    """

    def of(name: str) -> float:
        return statistics.median(one[name] for one in record["runs"])

    size = record["bytes"] / MB
    found = {"start_s": of("start_s")}
    for end in ("", "_fsync"):
        net = max(1e-3, of(f"column{end}_s") - of("start_s"))
        found |= {f"column{end}": size / net, f"cp{end}": size / of(f"cp{end}_s")}
        found[f"share{end}"] = found[f"column{end}"] / found[f"cp{end}"]
        found[f"whole{end}"] = size / of(f"column{end}_s")
    return found


def solve_rates(runs: Sequence[Run], kind: str) -> dict[str, float]:
    """Visibilities a second, for each correlation, of the first solve of each variant."""
    found: dict[str, float] = {}
    for variant in dict.fromkeys(one.variant for one in runs):
        same = [
            one
            for one in runs
            if (one.variant, one.kind) == (variant, kind) and one.solve["wall_s"]
        ]
        rate = median(one.solve["visibilities"] / one.solve["wall_s"] for one in same)
        if rate is not None:
            found[variant] = rate
    return found


def field_fit(record: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of no field and of each further one, and the largest deviation as a fraction."""
    counts = sorted({one["fields"] for one in record["fields"]})
    walls = [
        statistics.median(one["wall_s"] for one in record["fields"] if one["fields"] == count)
        for count in counts
    ]
    return line(counts, walls)


def worker_gain(record: dict[str, Any]) -> float | None:
    """Wall time with one worker over that with two."""
    one, two = (
        median(run["wall_s"] for run in record["workers"] if run["workers"] == count)
        for count in (1, 2)
    )
    return ratio(one, two)


def summary(measured: dict[str, dict[str, Any]], runs: Sequence[Run]) -> list[list[str]]:
    """Rows of the first table: what, aim, measured."""
    rows = []
    for key, record in measured.items():
        where = key.rpartition("/")[2]
        if key.startswith("limit/predict/"):
            told = ratio(1.0, ratio(1.0, record.get("tclean_over_peelkit_wall")))
            rows.append(
                [f"Predict, {where}: tclean's wall time / peelkit's", "at least 10", number(told)]
            )
        if key.startswith("limit/solve/"):
            rows.append([f"ddsolve, {where}: wall time / QuartiCal alone", "at most 1.3",
                         number(_first(record, "over_quartical"))])  # fmt: skip
    if "limit/copy" in measured:
        share = copy_figures(measured["limit/copy"])
        rows.append(["Copy of a column: rate / cp's", "at least 0.7",
                     f"{number(share['share'])} (with fsync {number(share['share_fsync'])})"])  # fmt: skip
    for kind in dict.fromkeys(one.kind for one in runs):
        rates = solve_rates(runs, kind)
        told = ratio(rates.get("peelkit"), rates.get("published"))
        rows.append(
            [f"ddsolve, {kind}: visibilities a second / published", "at least 3", number(told)]
        )
    if "limit/fields" in measured:
        record = measured["limit/fields"]
        start, each, off = field_fit(record)
        rows.append(["ddsolve against fields", "linear",
                     f"{number(start)} s + {number(each)} s a field, to {100 * off:.0f} %"])  # fmt: skip
        gain = worker_gain(record)
        told = "not run: no --workers" if gain is None else number(gain)
        rows.append(["ddsolve: wall time of one worker / of two", "at least 1.7", told])
    return rows


def _first(record: dict[str, Any], word: str) -> float | None:
    """First number whose key has this in it."""
    numbers = ((k, v) for k, v in record.items() if isinstance(v, int | float))
    return next((float(v) for k, v in numbers if word in k), None)


def text(measured: dict[str, dict[str, Any]]) -> str:
    """All of it."""
    parts = []
    if "limit/copy" in measured:
        parts.append(_copy(measured["limit/copy"]))
    for name, title in (("predict", "Prediction"), ("solve", "Solving")):
        parts += [
            _helper(measured[key], f"{title}, {key.rpartition('/')[2]}")
            for key in measured
            if key.startswith(f"limit/{name}/")
        ]
    if "limit/fields" in measured:
        parts.append(_fields(measured["limit/fields"]))
    return "\n\n".join(["## Against limits", *parts]) if parts else ""


def _copy(record: dict[str, Any]) -> str:
    found = copy_figures(record)
    rows = [
        ["no", *(number(found[key]) for key in ("column", "cp", "share", "whole"))],
        ["yes", *(number(found[f"{key}_fsync"]) for key in ("column", "cp", "share", "whole"))],
    ]
    head = ["fsync", "add-model-col [MB/s]", "cp [MB/s]", "ratio", "with the start [MB/s]"]
    peak = max(one["column_peak_bytes"] for one in record["runs"]) / 2**20
    return (
        f"### Copy of a column\n\n{record['bytes'] / MB:.0f} MB, median of {len(record['runs'])}; the start of the "
        f"command ({number(found['start_s'])} s, measured on a small MS) is taken off. It audits what it copies; "
        f"peak memory {peak:.0f} MiB.\n\n{table(head, rows)}"
    )


def _helper(record: dict[str, Any], title: str) -> str:
    """Figures of predict_limit and solve_limit: medians of each contender, and the ratios."""
    medians: dict[str, dict[str, float]] = record.get("median", {})
    parts = [f"### {title}"]
    if medians:
        keys = list(dict.fromkeys(key for one in medians.values() for key in one))
        rows = [[name, *(number(one.get(key)) for key in keys)] for name, one in medians.items()]
        parts.append(table(["", *keys], rows))
    told = [
        f"{key} {number(value)}"
        for key, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    parts.append(", ".join(told) + ".")
    return "\n\n".join(parts)


def _fields(record: dict[str, Any]) -> str:
    start, each, off = field_fit(record)
    counts = sorted({one["fields"] for one in record["fields"]})
    rows = []
    for count in counts:
        same = [one for one in record["fields"] if one["fields"] == count]
        rows.append([str(count), number(median(one["wall_s"] for one in same)), number(start + each * count),
                     number(median(one["cpu_s"] for one in same)),
                     f"{max(one['peak_bytes'] for one in same) / 2**20:.0f}"])  # fmt: skip
    head = ["fields", "wall time [s]", "fit [s]", "CPU [s]", "peak memory [MiB]"]
    said = (
        f"### ddsolve against fields\n\nFixed intervals. Fit: {number(start)} s + {number(each)} s a field; largest "
        f"deviation {100 * off:.0f} %.\n\n{table(head, rows)}"
    )
    gain = worker_gain(record)
    if gain is not None:
        said += f"\n\nWith two workers all fields take 1/{number(gain)} of the wall time with one."
    return said
