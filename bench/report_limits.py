"""The report's part on limits: copies, prediction, solving, growth with fields, workers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from summary import Run, line, median, ratio
from tables import number, table

MB = 1e6
EXPLAINED = """Times of whole commands, with Python's start (`wall_s`, `cpu_s`), by their own count (`work_s`), and of reading,
auditing and writing alone (`copy_s`). `cp` copies the file of the column; `ducc0` predicts the same image in memory and
writes nothing; `workers` is `predict-region --workers 2`. QuartiCal alone solves the same rows with the same terms and
intervals; `solve_s` is ddsolve's copy, QuartiCal and reading the gains, `command_s` the whole of it (both run once)."""


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
            wall, cpu = (record.get(f"tclean_over_peelkit_{name}") for name in ("wall", "cpu"))
            own = ratio(*(record["median"].get(who, {}).get(key) for who, key in
                          (("tclean", "wall_s"), ("peelkit", "work_s"))))  # fmt: skip
            told = f"{number(wall)} (without the start {number(own)}; CPU {number(cpu)})"
            rows.append([f"Predict, {where}: tclean's wall time / peelkit's", "at least 10", told])
        if key.startswith("limit/solve/"):
            solve, whole = (
                number(record.get(f"{part}_over_quartical")) for part in ("solve", "command")
            )
            what = f"ddsolve, {where}: solve's wall time / QuartiCal alone, start included"
            rows.append([what, "at most 1.3", f"{solve} (whole command: {whole})"])
    if "limit/copy" in measured:
        record = measured["limit/copy"]
        copy, work, whole = (
            number(record.get(f"rate_of_{part}_over_cp_cached"))
            for part in ("copy", "work", "command")
        )
        told = f"{copy} (all the command does: {work}; with its start: {whole})"
        rows.append(["Copy of a column: rate / cp's", "at least 0.7", told])
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


def text(measured: dict[str, dict[str, Any]]) -> str:
    """All of it."""
    parts = []
    if "limit/copy" in measured:
        parts.append(_helper(measured["limit/copy"], "Copy of a column"))
    for name, title in (("predict", "Prediction"), ("solve", "Solving")):
        parts += [
            _helper(measured[key], f"{title}, {key.rpartition('/')[2]}")
            for key in measured
            if key.startswith(f"limit/{name}/")
        ]
    if "limit/fields" in measured:
        parts.append(_fields(measured["limit/fields"]))
    return "\n\n".join(["## Against limits", EXPLAINED, *parts]) if parts else ""


def _helper(record: dict[str, Any], title: str) -> str:
    """Figures of copy_limit, predict_limit or solve_limit: medians of each contender, and the ratios."""
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
        f"### ddsolve against fields, {record['dataset']}\n\nIntervals as long as a scan. Fit: {number(start)} s + "
        f"{number(each)} s a field; largest deviation {100 * off:.0f} %.\n\n{table(head, rows)}"
    )
    for count in sorted({one["workers"] for one in record["workers"]}):
        same = [one for one in record["workers"] if one["workers"] == count]
        said += (
            f"\n\nAll fields with `--workers {count}`: {number(median(one['wall_s'] for one in same))} s, "
            f"{max(one['peak_bytes'] for one in same) / 2**20:.0f} MiB."
        )
    return said
