"""Which round comes next."""

from __future__ import annotations

import pytest

from peelkit.core.ladder import Done, explicit_rungs, next_auto
from peelkit.core.snr import Rung
from peelkit.errors import OptionError


def rung(seconds: float, calmode: str = "p") -> Rung:
    return Rung(f"{seconds:g}s", seconds, calmode, "", "G", 3.0, 50.0)


PHASES = [rung(80), rung(40), rung(10)]
AMPLITUDES = [rung(80, "ap"), rung(40, "ap")]


def walk(outcomes: dict[tuple[str, float], tuple[bool, float]]) -> list[tuple[str, float]]:
    """All rounds that follow, with the outcome (accepted, gain) of each kind."""
    done: list[Done] = []
    while (following := next_auto(PHASES, AMPLITUDES, done)) is not None:
        key = (following.calmode, following.solint_s)
        done.append(Done(following, *outcomes.get(key, (True, 1.2))))
        assert len(done) < 20
    return [(item.rung.calmode, item.rung.solint_s) for item in done]


def test_phases_go_from_long_to_short_then_amplitudes() -> None:
    found = walk({("p", 10): (True, 1.001), ("ap", 40): (True, 1.001)})
    assert found == [("p", 80), ("p", 40), ("p", 10), ("ap", 80), ("ap", 40)]


def test_the_shortest_interval_is_repeated_while_it_helps_but_not_for_ever() -> None:
    assert walk({}).count(("p", 10)) == 3


def test_two_rejected_phase_rounds_end_the_phases() -> None:
    long = [rung(80), rung(40), rung(20), rung(10)]
    done = [Done(rung(80), True, 1.5), Done(rung(40), False, 0.9), Done(rung(20), False, 0.9)]
    following = next_auto(long, AMPLITUDES, done)
    assert following is not None and following.calmode == "ap"


def test_no_amplitudes_without_good_phases() -> None:
    assert walk({("p", 80): (False, 0.9), ("p", 40): (False, 0.9)}) == [("p", 80), ("p", 40)]


def test_a_rejected_amplitude_round_is_the_last() -> None:
    assert walk({("p", 10): (True, 1.0), ("ap", 80): (False, 0.9)})[-1] == ("ap", 80)


def test_nothing_possible_is_nothing_done() -> None:
    assert next_auto([], [], []) is None


def explicit(solints: list[str], **options: list[str]) -> list[Rung]:
    words = {"calmodes": [], "combines": [], "gaintypes": [], **options}
    return explicit_rungs(solints, **words, minsnr=None, scan_s=80.0, integration_s=10.0)


def test_options_once_or_once_a_round() -> None:
    found = explicit(["inf", "int", "inf"], calmodes=["p", "p", "ap"], gaintypes=["T"])
    assert [(r.solint_s, r.calmode, r.gaintype) for r in found] == [
        (80.0, "p", "T"), (10.0, "p", "T"), (80.0, "ap", "T"),
    ]  # fmt: skip


def test_a_wrong_number_of_options_is_refused() -> None:
    with pytest.raises(OptionError, match="calmode given 2 times for 3 rounds"):
        explicit(["inf", "int", "inf"], calmodes=["p", "ap"])


def test_phases_after_amplitudes_are_refused() -> None:
    with pytest.raises(OptionError, match="phase rounds first"):
        explicit(["inf", "int"], calmodes=["ap", "p"])
