"""The sidecar: strict JSON, checked both ways, written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from peelkit import sidecar
from peelkit.errors import DataError


def record(**changes: object) -> dict[str, object]:
    base = {
        "schema": sidecar.SCHEMA, "command": "something", "peelkit": "0.1.0",
        "started": "2026-11-21T10:00:00Z", "seconds": 1.5, "inputs": {"ms": "a.ms"}, "parameters": {},
        "reads": [], "writes": [], "engine": None, "results": {"x": 1},
    }  # fmt: skip
    return {**base, **changes}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    written = sidecar.write(
        path, record(results={"rms": np.float32(0.5), "n": np.int64(3), "p": tmp_path})
    )
    assert sidecar.read(path, "something") == written
    assert written["results"] == {"rms": 0.5, "n": 3, "p": str(tmp_path)}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_unknown_is_null_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    sidecar.write(path, record(results={"rms": math.nan, "all": np.array([1.0, math.inf])}))
    assert json.loads(path.read_text())["results"] == {"rms": None, "all": [1.0, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a sidecar"),
        ("[]", "schema None"),
        ('{"schema": "peelkit.sidecar/9"}', "peelkit.sidecar/9"),
        ('{"schema": "peelkit.sidecar/1"}', "malformed"),
        ('{"schema": "peelkit.sidecar/1", "x": NaN}', "NaN is not JSON"),
    ],
)
def test_a_bad_sidecar_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        sidecar.read(path)
    assert "bad.json" in str(caught.value)


def test_a_sidecar_of_another_command_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    sidecar.write(path, record())
    with pytest.raises(DataError, match="written by something"):
        sidecar.read(path, "snr-estimate")


def test_results_are_checked_against_the_schema_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="results"):
        sidecar.write(tmp_path / "a.json", record(command="snr-estimate"))
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_a_data_error() -> None:
    with pytest.raises(DataError, match="cannot be written"):
        sidecar.write(Path("/proc/peelkit/a.json"), record())
