"""``--dry-run``: the same errors as the run, an estimate, and nothing written."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from makemodel import DEC_DEG, RA_DEG, SIZE, write_model
from makemosaic import make_mosaic
from makems import MsRecipe, make_ms

REGION = (
    f'# Region file format: DS9 version 4.1\nicrs\ncircle({RA_DEG},{DEC_DEG},20") # text={{SRC}}\n'
)
# 3 scans x 12 integrations x 21 baselines of 4 channels and 2 correlations.
ROWS = 3 * 12 * 21
GRID = ("--imsize", 128, "--cell", "3arcsec", "--nterms", 1)
COMMANDS = {
    "add-model-col": ("add-model-col", "a.ms", "COPY", "--expression", "DATA"),
    "predict-region": ("predict-region", "a.ms", "--model", "x.model.fits", "--regions", "r.reg"),
    "image-residual": ("image-residual", "a.ms", "out", "--column", "DATA", *GRID),
    "selfcal": ("selfcal", "a.ms", "--solint", "inf", *GRID),
    "ddsolve": ("ddsolve", "a.ms", "--all", "DATA_COPY", "--peel", "MODEL_COPY"),
}


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all files, but for casacore's own lock files."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "table.lock"
    }


@pytest.fixture
def folder(tmp_path: Path, invoke) -> Path:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=7))
    plane = np.zeros((SIZE, SIZE))
    plane[SIZE // 2, SIZE // 2] = 1.0
    write_model(tmp_path / "x.model.fits", [plane], centre=(RA_DEG, DEC_DEG))
    (tmp_path / "r.reg").write_text(REGION)
    return tmp_path


@pytest.mark.parametrize("value", ["nan", "inf", "0.1", "-1"])
def test_memory_is_a_number_that_is_enough(value: str, folder: Path, invoke) -> None:
    result = invoke(*COMMANDS["image-residual"], "--dry-run", "--memory", value, code=2)
    assert "'--memory'" in result.stderr and value in result.stderr


@pytest.mark.parametrize("name", ["image-residual", "selfcal"])
def test_wsclean_has_an_estimate_too(name: str, folder: Path, invoke) -> None:
    results = [
        json.loads(invoke(*COMMANDS[name], "--imager", imager, "--dry-run", "--json").stdout)[
            "results"
        ]
        for imager in ("tclean", "wsclean")
    ]
    assert 0 < results[1]["cpu_s"] < results[0]["cpu_s"]
    assert (name == "selfcal") == any("CASA" in one["name"] for one in results[1]["stages"])


@pytest.mark.parametrize("name", COMMANDS)
def test_an_estimate_has_all_stages_and_nothing_is_written(name: str, folder: Path, invoke) -> None:
    if name == "ddsolve":
        for column in ("DATA_COPY", "MODEL_COPY"):
            invoke("add-model-col", "a.ms", column, "--expression", "DATA")
    before = everything(folder)
    results = json.loads(invoke(*COMMANDS[name], "--dry-run", "--json").stdout)["results"]
    assert everything(folder) == before
    assert results["rows"] == ROWS
    assert results["visibilities"] == ROWS * 4 and results["samples"] == ROWS * 8
    assert results["channels"] == 4 and results["fields"] == 1
    assert results["seconds"] == pytest.approx(sum(one["seconds"] for one in results["stages"]))
    assert results["cpu_s"] > 0 and results["memory_bytes"] < results["memory_limit_bytes"]
    assert results["disk_bytes"] < results["disk_free_bytes"]
    shown = invoke(*COMMANDS[name], "--dry-run").stdout
    for one in results["stages"]:
        assert one["name"] in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add-model-col", "a.ms", "DATA"), 2, "belongs to the MS"),
        (("add-model-col", "a.ms", "COPY", "--expression", "NONE"), 3, "no such column"),
        (("predict-region", "a.ms", "--model", "x.model.fits", "--regions", "r.reg", "--shape", "ring"), 2, "ring"),
        (("predict-region", "a.ms", "--model", "none.fits", "--regions", "r.reg"), 3, "none.fits"),
        (("image-residual", "a.ms", "out", "--column", "NONE"), 3, "NONE"),
        (("selfcal", "a.ms", "--solint", "inf", "--combine", "corr"), 2, "corr"),
        (("selfcal", "a.ms", "--field", "7"), 3, "7"),
        (("selfcal", "a.ms", "--term", "G", "--model", "point:1Jy"), 2, "--dry-run"),
        (("ddsolve", "a.ms", "--all", "NONE", "--peel", "DATA"), 3, "NONE"),
        (("add-model-col", "a.ms", "COPY", "--expression", "DATA", "--sidecar", "x.json"), 2, "--sidecar"),
    ],
)  # fmt: skip
def test_what_the_run_refuses_is_refused(
    arguments: tuple[str, ...], code: int, words: str, folder: Path, invoke
) -> None:
    result = invoke(*arguments, "--dry-run", code=code)
    assert words in result.stderr


def test_a_folder_that_exists_is_refused_as_in_the_run(folder: Path, invoke) -> None:
    (folder / "there").mkdir()
    (folder / "there" / "mine.txt").touch()
    result = invoke(*COMMANDS["selfcal"], "--out", "there", "--dry-run", code=3)
    assert "there" in result.stderr
    assert (folder / "there" / "mine.txt").exists()


def test_too_little_disk_or_memory_is_said(folder: Path, invoke) -> None:
    result = invoke(*COMMANDS["image-residual"], "--imsize", 20000, "--dry-run", "--memory", 1)
    assert "--memory 1" in result.stderr and "--imsize" in result.stderr


def test_a_column_is_written_whole_where_some_rows_are_selected(folder: Path, invoke) -> None:
    words = (*COMMANDS["add-model-col"], "--scan", 1, "--dry-run", "--json")
    results = json.loads(invoke(*words).stdout)["results"]
    assert results["rows"] == ROWS / 3 and results["fields"] == 1
    assert results["written_bytes"] == results["disk_bytes"] == ROWS * 8 * 8


def test_fields_by_themselves_cost_the_sum_in_time_and_disk(tmp_path: Path, invoke) -> None:
    recipe = MsRecipe(n_antenna=7, n_field=3, n_scan=3)
    make_mosaic(tmp_path / "m.ms", recipe, [(0, 0), (300, 0), (0, 300)], [(1, 0, 0)])
    before = everything(tmp_path)

    def estimate(*words: object) -> dict:
        how = ("selfcal", "m.ms", *words, "--solint", "inf", "--dry-run", "--json", *GRID)
        return json.loads(invoke(*how).stdout)["results"]

    every, one = estimate("--each-field"), estimate("--field", 0)
    assert everything(tmp_path) == before
    number = every["fields"]
    assert number > 1 and every["rows"] == number * one["rows"]
    assert 0.5 * number < every["cpu_s"] / one["cpu_s"] <= number
    assert every["seconds"] == pytest.approx(every["cpu_s"], rel=0.05)
    two = estimate("--each-field", "--workers", 2, "--memory", 6)
    assert two["cpu_s"] == pytest.approx(every["cpu_s"])
    assert 0.5 <= two["seconds"] / every["seconds"] < 0.6
    assert (
        two["memory_bytes"] > 1.5 * every["memory_bytes"]
        and two["disk_bytes"] == every["disk_bytes"]
    )
    (tmp_path / "m.selfcal").mkdir()
    (tmp_path / "m.selfcal" / "mine").write_text("")
    refused = invoke("selfcal", "m.ms", "--each-field", "--dry-run", *GRID, code=3)
    assert "m.selfcal" in refused.stderr


def test_a_sidecar_older_than_its_columns_is_refused(folder: Path, invoke) -> None:
    predict = (*COMMANDS["predict-region"], "--all-column")
    invoke(*predict, "--sidecar", "first.json")
    solve = ("ddsolve", "a.ms", "--dry-run", "--json", "--from")
    invoke(*solve, "first.json")
    invoke(*predict, "--overwrite", "--sidecar", "second.json")
    record = json.loads(Path("first.json").read_text())
    # As if it had been made an hour before, not a second.
    made = datetime.fromisoformat(record["started"]) - timedelta(hours=1)
    record["started"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    Path("first.json").write_text(json.dumps(record))
    refused = invoke(*solve, "first.json", code=3).stderr
    assert "predict-region wrote ALL_SKY_MODEL again at" in " ".join(refused.split())
    invoke(*solve, "second.json")
    # Of columns that were put back since, the models are others.
    record = json.loads(Path("second.json").read_text())
    made = datetime.fromisoformat(record["started"]) + timedelta(hours=1)
    record["started"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    Path("second.json").write_text(json.dumps(record))
    refused = invoke(*solve, "second.json", code=3).stderr
    assert "second.json: what it wrote was undone since" in " ".join(refused.split())
