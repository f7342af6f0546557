"""ddsolve of a mosaic: a bright source that is as bright in every field as its beam lets it be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, make_truth
from peelkit.cli.ddsolve import _field_table
from peelkit.core.dd_measure import gate
from peelkit.core.dd_plan import Plan, settle
from peelkit.core.dd_terms import TermChoice
from peelkit.core.ddsolve_options import DdOptions
from peelkit.io import ms
from peelkit.progress import Progress
from peelkit.selection import Selection

pytestmark = [pytest.mark.quartical, pytest.mark.slow]

ONE = (Bright(5.0, 300.0, 200.0),)
# Each field twice, six integrations at a time: S/N 294 per Jy for a solution of a scan and spw, 416 for
# one of both scans.
FOUR = replace(RECIPE, n_field=4, n_scan=8, n_time=6)
SOLVE = ("--all", "ALL", "--peel", "B1", "--min-snr", "30", "--no-plots", "--json")


def columns(path: Path, *names: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcol(name) for name in names]


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(values) ** 2) / 2))


def field_of(path: Path) -> np.ndarray:
    return columns(path, "FIELD_ID")[0]


def share(model: np.ndarray, values: np.ndarray) -> float:
    """How much of the model is in the values."""
    return float(np.real(np.vdot(model, values)) / np.vdot(model, model).real)


def test_each_field_gets_what_its_data_allow(tmp_path, invoke) -> None:
    path = tmp_path / "four.ms"
    truth = make_truth(path, ONE, FOUR, seed=4, beams=(1.0, 0.5, 0.006, 0.0))
    out = invoke("ddsolve", path, *SOLVE, "--g-time", "60s", "--de-time", "inf", "--de-freq", "spw")
    result = json.loads(out.stdout)["results"]
    fields = result["fields"]
    assert [one["decision"] for one in fields] == ["peel", "peel", "subtract", "skip"]
    assert [one["field_id"] for one in fields] == [0, 1, 2, 3]
    assert result["directions"][0]["decision"] == "peel"
    assert "peel in 2, subtract in 1, skip in 1" in result["directions"][0]["reason"]
    assert len(result["groups"]) == 8  # four fields, two spws
    peeled, data, b1 = columns(path, "PEELED_DATA", "DATA", "B1")
    field = field_of(path)
    left = peeled - truth["rest"] - truth["noise"]
    for number in (0, 1):
        mine = field == number
        assert rms(peeled[mine] - truth["rest"][mine]) == pytest.approx(RECIPE.sigma_jy, rel=0.04)
        assert abs(share(b1[mine], peeled[mine] - truth["rest"][mine])) < 0.01
        assert fields[number]["chi2_after"] == pytest.approx(1.0, abs=0.06)
        assert fields[number]["chi2_before"] > 100 and abs(fields[number]["left_fraction"]) < 0.01
    # Subtracted as it is: what the phases of 0.5 rad took from it is over-subtracted.
    mine = field == 2
    true_noise = truth["noise"][mine]
    assert -0.5 < share(b1[mine], left[mine]) < 0.2
    assert rms(peeled[mine] - truth["rest"][mine]) < 1.1 * rms(true_noise)
    # Skipped: G alone, on data that have no errors; QuartiCal knows of no direction there.
    mine = field == 3
    assert rms(peeled[mine] - data[mine]) < 0.25 * RECIPE.sigma_jy
    assert fields[3]["chi2_before"] is None and fields[3]["snr_total"] == 0


def test_fields_too_faint_alone_borrow_from_each_other(tmp_path, invoke) -> None:
    # 0.08 Jy: S/N 24 for a solution of one scan, 47 for one of two fields and their scans together.
    path = tmp_path / "borrow.ms"
    truth = make_truth(path, ONE, FOUR, seed=4, beams=(1.0, 0.016, 0.016, 0.0), constant=True)
    out = invoke("ddsolve", path, *SOLVE, "--g", "none", "--no-balance", "--inject", "60mJy@-14,-9")
    result = json.loads(out.stdout)["results"]
    # Most of it is in fields that have one solution for two scans at least.
    assert result["injected"][0]["recovered_fraction"] == pytest.approx(1.0, abs=0.1)
    fields = result["fields"]
    assert [one["decision"] for one in fields] == ["peel", "borrow", "borrow", "skip"]
    assert "with all 2 fields of its kind" in fields[1]["reason"]
    peeled, data, b1 = columns(path, "PEELED_DATA", "DATA", "B1")
    field = field_of(path)
    left = peeled - truth["rest"] - truth["noise"]
    # What would be left of it without gains.
    plain = data - b1 - truth["rest"] - truth["noise"]
    for number in (1, 2):
        mine = field == number
        # One part in 47 for each antenna; without gains 0.7 of it are left.
        assert rms(left[mine]) < 1.5 * np.sqrt(2) / 47 * rms(b1[mine])
        assert rms(plain[mine]) > 10 * rms(left[mine])
        assert fields[number]["chi2_after"] == pytest.approx(1.0, abs=0.05)
    assert rms(left[field == 0]) < 0.2 * RECIPE.sigma_jy
    # Nothing is solved in the field without it: not a bit of the data is changed.
    np.testing.assert_array_equal(peeled[field == 3], data[field == 3])


def gated(path: Path, tmp_path: Path, **options: Any) -> Plan:
    """The plan after the gate; nothing is solved."""
    terms = (
        TermChoice("G", "diag_complex", "60s", "spw"),
        TermChoice("dE", "diag_complex", "inf", "spw"),
    )
    chosen = DdOptions(all_column="ALL", peel=("B1",), terms=terms, min_snr=30.0, out=tmp_path / "out",
                       **options)  # fmt: skip
    plan = settle(ms.read_info(path), Selection(), chosen, Progress())
    return gate(plan, Progress())[1]


@pytest.fixture(scope="module")
def fading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dd") / "fading.ms"
    make_truth(path, ONE, FOUR, seed=4, beams=(1.0, 0.5, 0.016, 0.0))
    return path


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        # Both scans of the third field together are enough.
        ({}, ["peel", "peel", "borrow", "skip"]),
        ({"B1": "peel"}, ["peel", "peel", "peel", "skip"]),
        ({"B1": "subtract"}, ["subtract", "subtract", "subtract", "skip"]),
    ],
    ids=str,
)
def test_what_the_user_decides_holds_in_all_fields_that_have_the_source(
    fading, tmp_path, asked, words
) -> None:
    plan = gated(fading, tmp_path, decisions=asked)
    assert [one.decision for one in plan.fields] == words
    assert len(plan.classes) == len(set(words))
    for number, word in enumerate(words):
        here = plan.at((number, 0))
        assert here.directions[0].decision == word
        assert here.rows.combine_fields == (word == "borrow")
    assert sum(one.rows.rows.size for one in plan.classes) == plan.rows.rows.size
    assert plan.peeled == ([] if "subtract" in words else ["B1"])


def test_fields_that_agree_or_are_combined_are_one_plan(fading, tmp_path) -> None:
    agree = gated(fading, tmp_path, decisions={"B1": "skip"})
    assert not agree.by_field and agree.classes == [agree]
    assert [one.decision for one in agree.fields] == ["skip"] * 4
    combined = gated(fading, tmp_path, combine=frozenset({"field"}))
    assert not combined.by_field and combined.fields == ()
    assert combined.directions[0].decision == "peel"


def test_a_long_mosaic_is_a_short_table() -> None:
    one = {"field": "f", "direction": "B1", "snr_per_solution": 5.0, "snr_total": 9.0, "decision": "peel",
           "chi2_before": 2.0, "chi2_after": 1.0, "left_fraction": 0.0}  # fmt: skip
    shown = _field_table([{**one, "field_id": n} for n in range(90)])
    assert len(shown.rows) == 40
    assert shown.notes == ["50 more rows are in the sidecar. In all fields:", "B1: peel in 90"]


def test_a_field_may_lack_one_of_two_sources(tmp_path, invoke) -> None:
    path = tmp_path / "two.ms"
    half = replace(FOUR, n_field=2, n_scan=4)
    two = (*ONE, Bright(5.0, -400.0, 100.0))
    truth = make_truth(path, two, half, seed=4, beams=(1.0, 0.8))
    with table(str(path), readonly=False, ack=False) as main:
        # B2 is not there in the second field.
        b2, data, field = (main.getcol(name) for name in ("B2", "DATA", "FIELD_ID"))
        scan, one, other = (main.getcol(n) for n in ("SCAN_NUMBER", "ANTENNA1", "ANTENNA2"))
        gain = truth["jones"][1][scan - 1]
        rows = np.arange(scan.size)
        factor = gain[rows, one] * gain[rows, other].conj()
        away = field == 1
        main.putcol("DATA", np.where(away[:, None, None], data - b2 * factor[:, None], data))
        main.putcol(
            "ALL", np.where(away[:, None, None], main.getcol("ALL") - b2, main.getcol("ALL"))
        )
        main.putcol("B2", np.where(away[:, None, None], 0, b2))
    out = invoke("ddsolve", path, "--all", "ALL", "--peel", "B1", "--peel", "B2", "--de-freq", "spw",
                 "--g-time", "60s", "--no-plots", "--json")  # fmt: skip
    result = json.loads(out.stdout)["results"]
    decided = {(one["field_id"], one["direction"]): one["decision"] for one in result["fields"]}
    assert decided[0, "B1"] == decided[0, "B2"] == decided[1, "B1"] == "peel"
    assert decided[1, "B2"] == "skip"
    b1, b2 = result["directions"]
    # Ten antennas, two hands, two spws, two numbers; B1 in four scans, B2 in two.
    assert result["intervals"]["chosen"][0]["integrations"] == 0
    assert b1["parameters"] == 2 * b2["parameters"] == 10 * 2 * 2 * 2 * 4
    (peeled,) = columns(path, "PEELED_DATA")
    assert rms(peeled - truth["rest"]) == pytest.approx(RECIPE.sigma_jy, rel=0.05)
