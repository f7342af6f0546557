"""The table of bench/cases.py for docs/peeling.md: summary, then every case."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from tables import number, table

BEGIN, END = "<!-- begin: bench/cases.py -->", "<!-- end: bench/cases.py -->"
VERDICTS = ("good", "fair", "refused", "wrong", "failed", "not run")


def write(document: Path, results: list[dict[str, Any]], seeds: tuple[int, ...]) -> None:
    """Put the tables between the markers of a document: of these seeds, and of the code that was run last."""
    text = document.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{document}: no place for the table ({BEGIN} and {END})")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    document.write_text(f"{before}{BEGIN}\n\n{tables(results, seeds)}\n\n{END}{after}")


def tables(results: list[dict[str, Any]], seeds: tuple[int, ...]) -> str:
    """All that is told."""
    chosen = [one for one in results if one["seed"] in seeds]
    peel = newest([one for one in chosen if one.get("chain") == "peel"])
    selfcal = newest([one for one in chosen if one.get("chain") == "selfcal"])
    parts = []
    if peel:
        parts += [_summary(peel), _by_regime(peel), _every(peel)]
    if selfcal:
        parts += [_selfcal(selfcal)]
    named = ", ".join(str(seed) for seed in seeds)
    return "\n\n".join(parts) or f"No results of seeds {named} yet."


def newest(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the code that came last in the file; of cases that were run twice the later one."""
    if not results:
        return []
    last = results[-1]["code"]
    return list({one["case"]: one for one in results if one["code"] == last}.values())


def _worst(one: dict[str, Any]) -> float | None:
    return max(one.get("rms_over") or [], default=None)


def _about(results: list[dict[str, Any]]) -> str:
    commits = ", ".join(sorted({one["commit"] for one in results}))
    seeds = ", ".join(sorted({str(one["seed"]) for one in results}))
    return f"{len(results)} cases, seeds {seeds}, commit {commits}"


def _summary(results: list[dict[str, Any]]) -> str:
    counted = Counter(one["verdict"] for one in results)
    said = ", ".join(f"{counted[name]} {name}" for name in VERDICTS if counted[name])
    share = 100 * counted["good"] / len(results)
    over = [value for one in results if one.get("status") == 0 and (value := _worst(one))]
    middle = f"; median of the local rms {statistics.median(over):.2f}" if over else ""
    return f"{_about(results)}: {said} ({share:.0f} % good{middle})."


def _by_regime(results: list[dict[str, Any]]) -> str:
    rows = []
    for regime in dict.fromkeys(one["regime"] for one in results):
        mine = [one for one in results if one["regime"] == regime]
        counted = Counter(one["verdict"] for one in mine)
        over = [value for one in mine if one.get("status") == 0 and (value := _worst(one))]
        off = [abs(one["flux_twin"][0] - 1) for one in mine
               if one.get("status") == 0 and one.get("flux_twin")]  # fmt: skip
        rows.append([
            regime, *(str(counted[name]) for name in VERDICTS),
            number(statistics.median(over) if over else None), number(max(over, default=None)),
            f"{100 * max(off):.1f} %" if off else "-",
        ])  # fmt: skip
    head = ["regime", *VERDICTS, "median rms", "largest rms", "largest change of flux"]
    return table(head, rows)


def _every(results: list[dict[str, Any]]) -> str:
    rows = []
    for one in results:
        flux, twin = one.get("flux_truth"), one.get("flux_twin")
        rows.append([
            one["regime"], one["generator"], f"{one['config']}{', central' if one['central'] else ''}",
            f"{one['snr']:g}", str(one["seed"]), str(one.get("status", "-")), one["verdict"],
            " ".join(f"{value:.2f}" for value in one.get("rms_over") or []) or "-",
            f"{flux[0]:.3f} ({flux[1]:.3f})" if flux else "-",
            f"{twin[0]:.3f} ({twin[1]:.3f})" if twin else "-",
            str(one.get("compared", "-")), number(one.get("chi2")),
        ])  # fmt: skip
    head = ["regime", "generator", "array", "S/N", "seed", "exit", "verdict", "local rms", "flux / truth",
            "flux / error-free", "n", "chi2"]  # fmt: skip
    return table(head, rows)


def _selfcal(results: list[dict[str, Any]]) -> str:
    rounds = [one for result in results for one in result.get("rounds") or []]
    rows = []
    for name, nearer in (
        ("nearer to the truth", True),
        ("further from it", False),
        ("neither", None),
    ):
        mine = [one for one in rounds if one["nearer"] is nearer]
        accepted = sum(one["accepted"] for one in mine)
        share = f"{100 * accepted / len(mine):.1f} %" if mine else "-"
        rows.append([name, str(len(mine)), str(accepted), share])
    head = table(["rounds that bring gains", "rounds", "accepted", "share"], rows)
    return f"Self-calibration alone, {_about(results)}:\n\n{head}"
