"""A small part of the matrix of bench/cases.py: the chain with its defaults on data of a generator that peelkit does not know."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cases

pytestmark = [pytest.mark.casa, pytest.mark.quartical, pytest.mark.slow]

# Phases that walk by 6 deg from one integration to the next, constant errors of amplitudes and pointing; S/N 30.
SMALL = cases.Case("walk", "independent", 1, "D", False, 30.0, small=True)


def test_the_chain_with_its_defaults_comes_to_the_noise_and_keeps_the_other_sources(
    tmp_path: Path,
) -> None:
    found = cases.run_case(SMALL, tmp_path, keep=True)
    said = json.dumps(found)
    assert found["status"] == 0, said
    assert max(found["rms_over"]) < cases.GOOD_RMS, said
    assert found["compared"] >= 3, said
    assert found["flux_twin"][0] == pytest.approx(1, abs=cases.WRONG_FLUX), said
    assert found["verdict"] == "good" and found["rounds"] >= 1
    # The same data, for self-calibration alone: what was accepted brought the gains nearer to the truth.
    import gains_truth

    folder = tmp_path / SMALL.name
    truth = json.loads((folder / "sim.ms.truth.json").read_text())
    rounds = gains_truth.judge_rounds(folder, folder / "out/selfcal.json", truth)
    kept = [one for one in rounds if one["accepted"]]
    assert kept[-1]["after"] < 0.35 * kept[0]["before"], rounds
    assert not [one for one in kept if one["nearer"] is False], rounds


def test_what_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run_case(case: cases.Case, work: Path, *, keep: bool) -> dict:
        ran.append(case.name)
        if len(ran) == 2:
            raise RuntimeError("broken")
        return {"verdict": "good", "status": 0}

    monkeypatch.setattr(cases, "run_case", run_case)
    words = [
        "cases.py",
        "--only",
        "^walk-.*-s[12]$",
        "--seeds",
        "1,2",
        "--results",
        str(tmp_path / "r.jsonl"),
    ]
    monkeypatch.setattr(sys, "argv", words)
    cases.main()
    assert len(ran) == 4 and "not run" in capsys.readouterr().out
    cases.main()
    # Only the one that could not be run.
    assert ran[4:] == [ran[1]]
    monkeypatch.setattr(cases, "code_version", lambda: "another")
    cases.main()
    assert len(ran) == 9
