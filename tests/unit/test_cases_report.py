"""Tables of the matrix of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

import cases_report


def result(name: str, **changes: object) -> dict:
    return {
        "case": name, "chain": "peel", "regime": "walk", "generator": "independent", "config": "C", "central": True,
        "snr": 30.0, "seed": 11, "code": "b", "commit": "1234567", "status": 0, "verdict": "good", "rms_over": [1.05, 1.21],
        "flux_truth": [1.012, 0.03], "flux_twin": [0.991, 0.01], "compared": 20, "chi2": 1.01, **changes,
    }  # fmt: skip


def test_the_table_counts_verdicts_of_the_newest_code_and_of_its_seeds() -> None:
    results = [
        result("old", code="a", verdict="wrong"),
        result("tuned", seed=1, verdict="wrong"),
        result("one"),
        result("two", verdict="wrong", rms_over=[3.5], regime="steps"),
        result("three", verdict="refused", status=5, rms_over=[9.9]),
        result("three", verdict="refused", status=5, rms_over=[9.9]),
    ]
    text = cases_report.tables(results, (11, 12, 13))
    assert (
        "3 cases, seeds 11, commit 1234567: 1 good, 1 refused, 1 wrong (33 % good; median of the local rms 2.35)"
        in text
    )
    assert "1.05 1.21" in text and "0.991 (0.010)" in text and "C, central" in text
    # What was refused makes no claim.
    (walk,) = [
        line
        for line in text.splitlines()
        if line.startswith("| walk") and "independent" not in line
    ]
    assert "9.9" not in walk and "0.9 %" in walk


def test_shares_of_rounds_of_selfcal_that_were_right_to_accept() -> None:
    rounds = [{"nearer": True, "accepted": True}] * 3 + [{"nearer": True, "accepted": False}]
    rounds += [{"nearer": False, "accepted": False}, {"nearer": None, "accepted": True}]
    text = cases_report.tables([result("one", chain="selfcal", rounds=rounds)], (11,))
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["nearer to the truth", "4", "3", "75.0 %"] in lines
    assert ["further from it", "1", "0", "0.0 %"] in lines


def test_the_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "d.md"
    path.write_text(f"before\n{cases_report.BEGIN}\nold\n{cases_report.END}\nafter\n")
    cases_report.write(path, [], (11,))
    assert path.read_text() == (
        f"before\n{cases_report.BEGIN}\n\nNo results of seeds 11 yet.\n\n{cases_report.END}\nafter\n"
    )
    path.write_text("none")
    with pytest.raises(SystemExit, match="no place"):
        cases_report.write(path, [], (11,))
