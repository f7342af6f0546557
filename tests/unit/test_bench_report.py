"""The benchmark's report: what a file of results says is in its tables, whatever part of it is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import report
import summary

MIB = 2**20
PUBLISHED = {"tclean 1": 20, "gaincal": 1, "applycal": 1, "tclean 2": 20, "copy ALL_SKY_MODEL": 1,
             "mask BRIGHT_1": 1, "predict BRIGHT_1": 4, "copy BRIGHT_1": 1, "quartical": 20,
             "copy PEELED": 1, "tclean 3": 10}  # fmt: skip
# Two rounds; all of the second is a group of its own.
PEELKIT = [("selfcal", 20), ("undo", 1), ("predict-region", 2), ("ddsolve", 5), ("image-residual", 8), ("stats", 2),
           ("predict-region", 2), ("ddsolve", 5), ("image-residual", 8), ("stats", 2), ("stats", 3)]  # fmt: skip


def stage(name: str, wall_s: float, scale: float = 1.0) -> dict[str, Any]:
    return {
        "name": name, "wall_s": wall_s * scale, "cpu_s": 1.5 * wall_s * scale, "peak_bytes": int(100 * MIB * scale),
        "peak_rss_bytes": 150 * MIB, "largest_process_bytes": 90 * MIB, "read_bytes": 2_000_000,
        "written_bytes": 1_000_000, "disk_read_bytes": 0, "disk_written_bytes": 0, "status": 0,
    }  # fmt: skip


def chain(variant: str, kind: str, *, axis: str = "rows", size: int = 1) -> dict[str, Any]:
    listed = list(PUBLISHED.items()) if variant == "published" else PEELKIT
    stages = [stage(name, seconds, size**0.5) for name, seconds in listed]
    total = sum(one["wall_s"] for one in stages) + 3  # the start
    noise = {"published": 2e-4, "peelkit": 1.1e-4}.get(variant, 1.2e-4)
    images = {"first": 5e-3, "selfcal": 2e-3, "peeled": noise, "best": 1e-4}
    return {
        "dataset": f"{kind}-1", "kind": kind, "axis": axis, "size": size, "variant": variant, "load_1min": 0.1,
        "shape": {"fields": 1, "rows": 1000, "channels": 32, "correlations": 2, "visibilities": 200_000,
                  "column_bytes": 3_200_000},
        "rounds": 2, "stages": stages, "whole": {**stage("whole", total), "peak_bytes": int(300 * MIB * size)},
        "quality": [{"image": name, "rms_local_jy_beam": rms, "rms_global_jy_beam": rms,
                     "dynamic_range": 4 / rms, "over_best": rms / 1e-4} for name, rms in images.items()],
        "date": "2026-01-02", "commit": "abc1234",
    }  # fmt: skip


def results() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("field", "mosaic"):
        for variant in ("published", "peelkit"):
            for repeat in (1, 2):
                found[f"chain/{kind}-1/{variant}/{repeat}"] = chain(variant, kind)
            for size in (2, 4):
                key = f"scale/{kind}-rows{size}/{variant}"
                found[key] = chain(variant, kind, axis="rows", size=size)
    found["chain/field-1/peelkit-wsclean/1"] = chain("peelkit-wsclean", "field")
    found["chain/mosaic-1/published/3"] = {"failed": "exit status 1; see there"}
    found["limit/copy"] = {
        "column_bytes": 100_000_000, "median": {"cp cached": {"wall_s": 0.5}, "peelkit cached": {"wall_s": 4.0}},
        "rate_of_copy_over_cp_cached": 0.8, "rate_of_work_over_cp_cached": 0.5,
        "rate_of_command_over_cp_cached": 0.125,
    }  # fmt: skip
    found["limit/predict/field-1"] = {
        "dataset": "field-1", "median": {"ducc0": {"wall_s": 1.0}, "tclean": {"wall_s": 24.0}},
        "tclean_over_peelkit_wall": 12.0,
    }  # fmt: skip
    found["limit/solve/field-1"] = {
        "dataset": "field-1", "terms": {"G": ["phase"]}, "solve_s": 9.0, "quartical_s": 10.0,
        "solve_over_quartical": 0.9, "command_over_quartical": 1.4,
    }  # fmt: skip
    walls = [
        {"fields": n, "wall_s": 5.0 + 2.0 * n, "cpu_s": 3.0 * n, "peak_bytes": MIB, "status": 0}
        for n in (1, 2, 4)
    ]
    workers = [{**walls[0], "workers": n, "wall_s": 20.0 / n**0.8} for n in (1, 2)]
    found["limit/fields"] = {"dataset": "mosaic-1", "fields": walls, "workers": workers}
    for one in found.values():
        one |= {"date": "2026-01-02", "commit": "abc1234"}
    return {
        "machine": {"cores": 2, "memory_bytes": 8 * 2**30, "python": "3.12", "versions": {"casatasks": "6.7"}},
        "measurements": found,
        "absent": {"peelkit-wsclean, mosaic": "peelkit images mosaics with tclean only"},
        "left_out": ["scale/field-rows8/published"],
    }  # fmt: skip


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_has_the_medians_and_ratios_of_a_stored_file(tmp_path: Path) -> None:
    stored = tmp_path / "results.json"
    stored.write_text(json.dumps(results()))
    report.write(json.loads(stored.read_text()), tmp_path)
    text = (tmp_path / "README.md").read_text()
    for name in ("stages.png", "time.png", "memory.png"):
        assert (tmp_path / name).stat().st_size > 5000
        assert f"({name})" in text
    # 42 s of imaging and solving beside selfcal's 20 s.
    assert cells(text, "image, self-calibrate")[:4] == [
        "image, self-calibrate",
        "42",
        "20",
        "0.476",
    ]
    # 80 + 3 s in all; peelkit 58 + 3 s in two rounds, 41 + 3 s in one, the last comparison among them.
    assert cells(text, "**all**")[1:4] == ["83", "61", "0.735"]
    assert cells(text, "**one round")[1:4] == ["83", "44", "0.53"]
    assert cells(text, "all: each run")[1:3] == ["83, 83", "61 (2), 61 (2)"]
    assert cells(text, "One field, whole chain, peelkit, tclean")[1:] == [
        "at most 0.8",
        "0.735 (one round: 0.53)",
    ]
    assert "0.8 (all the command does: 0.5; with its start: 0.125)" in text
    assert cells(text, "ddsolve, field-1: solve")[2] == "0.9 (whole command: 1.4)"
    assert cells(text, "ddsolve, field:")[1:] == ["at least 3", "4"]
    assert cells(text, "Predict, field-1")[2] == "12 (without the start -; CPU -)"
    assert cells(text, "ddsolve against fields")[2] == "5 s + 2 s a field, to 0 %"
    assert cells(text, "ddsolve: wall")[2] == "1.74"
    assert "exit status 1; see there" in text
    assert "peelkit images mosaics with tclean only" in text
    assert "scale/field-rows8/published" in text
    assert "busy" not in text


@pytest.mark.parametrize(
    "kept", [(), ("chain/field-1/peelkit",), ("limit/copy",), ("chain/field-1", "scale/field")]
)
def test_a_run_that_was_stopped_has_a_report_too(tmp_path: Path, kept: tuple[str, ...]) -> None:
    content = results()
    every = content["measurements"]
    content["measurements"] = {key: every[key] for key in every if kept and key.startswith(kept)}
    report.write(content, tmp_path)
    assert "not run" in (tmp_path / "README.md").read_text()


def test_slopes_and_fits_are_those_of_the_formula() -> None:
    # t = 3 n^1.5; t = 5 + 2 n
    assert summary.slope([1, 2, 4], [3 * n**1.5 for n in (1, 2, 4)]) == pytest.approx(1.5)
    assert summary.line([1, 2, 4], [7, 9, 13]) == pytest.approx((5, 2, 0))
    assert summary.slope([1, 2], [3, 4]) is None
