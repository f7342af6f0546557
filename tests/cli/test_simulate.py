"""``peelkit simulate`` as it is called: products, refusals, tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from peelkit.io import ms

SMALL = ("--antennas", 5, "--integrations", 2, "--spws", 1, "--channels", 2, "--faint", 3)


def test_it_makes_an_ms_its_truth_and_its_sidecar(invoke) -> None:
    result = invoke("simulate", "sim.ms", *SMALL)
    info = ms.read_info(Path("sim.ms"))
    assert (info.n_rows, len(info.antennas), info.telescope) == (20, 5, "EVLA")
    assert info.fields[0].frame == "ICRS" and info.spws[0].frame == "TOPO"
    truth = json.loads(Path("sim.ms.truth.json").read_text())
    record = json.loads(Path("sim.ms.simulate.peelkit.json").read_text())
    assert truth["schema"] == "peelkit.truth/1"
    assert record["results"]["rows"] == 20
    assert record["results"]["bright"][0]["flux_jy"] == 9.5
    assert record["results"]["bright"][0]["distance_arcmin"] == pytest.approx(8.0, abs=1e-3)
    assert record["writes"] == ["sim.ms", "sim.ms.truth.json"]
    with ms.opened(Path("sim.ms/HISTORY")) as sub:
        assert "peelkit simulate" in sub.getcell("MESSAGE", 0)
    assert "BRIGHT_1" in result.stdout and "20 rows" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 110
    assert sorted(path.name for path in Path().iterdir()) == [
        "sim.ms", "sim.ms.simulate.peelkit.json", "sim.ms.truth.json",
    ]  # fmt: skip


def test_an_example_of_the_lecture_says_what_it_is(invoke) -> None:
    small = ("--antennas", 5, "--integrations", 1, "--scans", 2)
    result = invoke("simulate", "dor.ms", "--example", "30dor", *small)
    assert "ALMA (example 30dor)" in result.stdout and "4 executions" in result.stdout
    record = json.loads(Path("dor.ms.simulate.peelkit.json").read_text())["results"]
    assert record["example"] == "30dor" and record["config"] is None
    assert record["rows"] == 4 * 2 * 23 * 2 * 10 and record["executions"] == 4
    # 40 deg were asked for; five antennas and four executions of two scans scatter.
    assert record["errors"]["phase_rms_deg"] == pytest.approx(40, rel=0.3)
    result = invoke("simulate", "x.ms", "--example", "mira", "--fields", 3, code=2)
    assert "--fields: --example mira settles this" in result.stderr


def test_json_on_stdout_is_the_sidecar(invoke) -> None:
    result = invoke(
        "simulate", "sim.ms", *SMALL, "--fields", 3, "--json", "--truth", "t/truth.json"
    )
    record = json.loads(result.stdout)
    assert record["results"]["fields"] == 3 and record["results"]["truth"] == "t/truth.json"
    assert len(json.loads(Path("t/truth.json").read_text())["fields"]) == 3
    assert record == json.loads(Path("sim.ms.simulate.peelkit.json").read_text())


def test_what_exists_is_replaced_only_when_asked(invoke) -> None:
    invoke("simulate", "sim.ms", *SMALL)
    Path("sim.ms.flagversions").mkdir()
    before = Path("sim.ms.truth.json").read_text()
    result = invoke("simulate", "sim.ms", *SMALL, "--seed", 2, code=3)
    assert "sim.ms: exists; give --overwrite" in result.stderr
    assert Path("sim.ms.truth.json").read_text() == before
    invoke("simulate", "sim.ms", *SMALL, "--seed", 2, "--overwrite", "--antennas", 4)
    assert ms.read_info(Path("sim.ms")).n_rows == 12
    assert json.loads(Path("sim.ms.truth.json").read_text())["seed"] == 2
    # Flag versions of another MS are not restored into this one.
    assert not Path("sim.ms.flagversions").exists()


def test_a_folder_that_is_no_ms_is_never_replaced(invoke) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter").write_text("1")
    result = invoke("simulate", "thesis", *SMALL, "--overwrite", code=3)
    assert "thesis: exists, and is not a Measurement Set" in result.stderr
    assert Path("thesis/chapter").read_text() == "1"
    invoke("simulate", ".", *SMALL, "--overwrite", code=3)


def test_a_run_that_fails_leaves_the_old_ms_and_nothing_else(
    invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peelkit.core import simulate as work

    invoke("simulate", "sim.ms", *SMALL)
    before = sorted(path.name for path in Path().iterdir())

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "observe", broken)
    invoke("simulate", "sim.ms", *SMALL, "--overwrite", "--antennas", 4, code=130)
    assert sorted(path.name for path in Path().iterdir()) == before
    assert ms.read_info(Path("sim.ms")).n_rows == 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bright", "9@a,b"), "--bright '9@a,b': give FLUX@DX,DY"),
        (("--bright", "9"), "--bright '9': give FLUX@DX,DY"),
        (("--bright", "nan@1,1"), "give FLUX@DX,DY"),
        (("--bright", "-9@1,1"), "the flux must be a positive number"),
        (("--bright", "9@500,0"), "more than ten beam widths"),
        (("--bright-shape", "ring"), "--bright-shape 'ring': give point, double"),
        (("--bright-shape", "gaussian:-1"), "gaussian:5"),
        (("--faint-flux", 3, 1), "--faint-flux 3 1: give the least flux"),
        (("--sefd", "nan"), "'--sefd': nan is no number"),
        (("--integrations", 100000), "the field sets before"),
        (("--truth", "sim.ms"), "is the MS itself"),
        (("--without", "gains"), "'gains' is not one of"),
        (("--antennas", 28), "28 is not in the range"),
        (("--integration", 0), "0.0 is not in the range"),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(invoke, arguments, words) -> None:
    result = invoke("simulate", "sim.ms", *SMALL, *arguments, code=2)
    assert words in result.stderr
    assert not Path("sim.ms").exists()


def test_places_that_cannot_be_written_are_named(invoke, monkeypatch) -> None:
    from peelkit.io import newms

    result = invoke("simulate", "absent/sim.ms", *SMALL, code=3)
    assert "the folder absent does not exist" in result.stderr
    Path("t.json").write_text("{}")
    result = invoke("simulate", "sim.ms", *SMALL, "--truth", "t.json", code=3)
    assert "t.json: exists; give --overwrite" in result.stderr
    monkeypatch.setattr(newms.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    result = invoke("simulate", "sim.ms", *SMALL, code=3)
    assert "0.0 GB are free" in result.stderr
    assert not Path("sim.ms").exists()
