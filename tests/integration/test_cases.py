"""A small part of the matrix of bench/cases.py: the chain with its defaults on data of a generator that peelkit does not know."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

import cases

pytestmark = pytest.mark.casa

# Phases that walk by 6 deg from one integration to the next, constant errors of amplitudes and pointing; S/N 30.
SMALL = cases.Case("walk", "independent", 1, "D", False, 30.0, small=True)


@pytest.mark.quartical
@pytest.mark.slow
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


@pytest.mark.parametrize("generator", cases.GENERATORS)
def test_a_twin_is_the_same_sky_in_the_same_noise_without_errors_and_bright_source(
    tmp_path: Path, generator: str
) -> None:
    case = cases.Case("weights", generator, 3, "D", True, 30.0, small=True)
    truths, noise = [], []
    for name, twin in (("sim", False), ("twin", True)):
        cases.simulate(case, tmp_path, name, twin=twin)
        truths.append(json.loads((tmp_path / f"{name}.ms.truth.json").read_text()))
        with table(str(tmp_path / f"{name}.ms"), ack=False) as main:
            noise.append((main.getcol("DATA"), main.getcol("WEIGHT")))
    bright = [source["name"] for source in cases.bright_of(case, truths[0])]
    assert bright == ["BRIGHT_1", "BRIGHT_2"]
    rest = [{s["name"]: s for s in truth["sources"] if s["name"] not in bright} for truth in truths]
    assert rest[0] == rest[1] and len(rest[0]) == 9
    # The source in the middle stays; of the bright ones nothing is left.
    middle = next(s for s in rest[0].values() if s["name"] in ("CENTRAL", "BRIGHT_3"))
    assert middle["apparent_flux_jy"][0] == pytest.approx(0.25 * case.apparent_jy, rel=1e-4)
    assert all(source["flux_jy"] < 1e-10 for source in cases.bright_of(case, truths[1]))
    gains = [np.array(truth["gains"]["phase_deg"]) for truth in truths]
    assert gains[0].std() > 5 and np.ptp(gains[1]) == 0
    # S/N as asked for (the beam is about a Gaussian); weights of the same wrong scale.
    apparent = cases.bright_of(case, truths[0])[0]["apparent_flux_jy"][0]
    assert apparent / truths[0]["noise_jy"] == pytest.approx(30, rel=0.1)
    for _, weight in noise:
        assert weight == pytest.approx(1e-3 / truths[0]["noise_jy"] ** 2, rel=1e-5)
    # Second differences in channel of the twin are the noise.
    twin = noise[1][0]
    rough = (twin[:, :-2] - 2 * twin[:, 1:-1] + twin[:, 2:]).real / np.sqrt(6)
    assert rough.std() == pytest.approx(truths[0]["noise_jy"], rel=0.05)


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
