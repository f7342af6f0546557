"""A round is judged by what it did to the image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelkit.core.measure import Figures, Held
from peelkit.core.verdict import Limits, State, judge
from peelkit.io.image import Beam

FIGURES = Figures(
    peak_jy_beam=1.0, minimum_jy_beam=-0.01, rms_jy_beam=0.005, rms_plain_jy_beam=0.006,
    rms_near_jy_beam=0.008, flux_jy=1.2, peak_x=100.0, peak_y=100.0,
)  # fmt: skip
BEFORE = State(FIGURES, Beam(3.0, 2.5, 20.0), 0.5)
BETTER = replace(BEFORE, figures=replace(FIGURES, rms_jy_beam=0.004, rms_near_jy_beam=0.006))


def changed(**figures: float) -> State:
    return replace(BETTER, figures=replace(BETTER.figures, **figures))


NONE = Held(0.0, 0.0, 0.0)
SAME = (Held(1.2, 1.2, 0.0), NONE)


def verdict(
    after: State,
    failed: float = 0.0,
    moved: float = 0.0,
    *,
    held: tuple[Held, Held] = SAME,
    calmode: str = "p",
    least_gain: float = 1.0,
    **limits: float,
):
    return judge(
        BEFORE,
        after,
        BEFORE,
        held=held,
        calmode=calmode,
        moved_arcsec=moved,
        failed_fraction=failed,
        limits=Limits(**limits),
        least_gain=least_gain,
    )


def test_a_better_image_is_accepted_and_says_so() -> None:
    found = verdict(BETTER)
    assert found.accepted and found.reason == "S/N 200 to 250"


@pytest.mark.parametrize(
    ("after", "failed", "word"),
    [
        (changed(rms_jy_beam=0.0051), 0.0, "S/N fell"),
        # Lower noise bought with lower flux: S/N decides, not the noise.
        (changed(peak_jy_beam=0.7, rms_jy_beam=0.0045), 0.0, "S/N fell"),
        (changed(rms_near_jy_beam=0.0085), 0.0, "near the source"),
        (replace(BETTER, beam=Beam(3.2, 2.5, 20.0)), 0.0, "beam area changed by \\+6"),
        (replace(BETTER, beam=Beam(2.8, 2.5, 20.0)), 0.0, "beam area changed by -6"),
        (BETTER, 0.3, "30 % of the solutions failed"),
    ],
)
def test_what_must_not_happen_is_named(after: State, failed: float, word: str) -> None:
    import re

    found = verdict(after, failed)
    assert not found.accepted
    assert re.search(word, found.reason), found.reason


def test_a_shift_of_three_times_the_uncertainty_is_the_limit() -> None:
    # Uncertainty 3" / (2 x 25) = 0.06": S/N 200, but positions are no better than 25.
    assert verdict(BETTER, moved=0.179).accepted
    found = verdict(BETTER, moved=0.181)
    assert not found.accepted and "moved by 0.181" in found.reason


def test_what_the_image_must_gain_depends_on_the_baselines_left_out() -> None:
    # S/N 200 to 199: within its uncertainty where the gains are proven.
    fallen = changed(rms_jy_beam=0.005 * 200 / 199)
    assert not verdict(fallen).accepted
    assert verdict(fallen, least_gain=0.99).accepted
    assert not verdict(changed(rms_jy_beam=0.0051), least_gain=0.99).accepted
    # S/N 200 to 204 does not tell where these fit no better.
    found = verdict(changed(rms_jy_beam=0.005 * 200 / 204), least_gain=1.03)
    assert not found.accepted and "rose from 200 to 204, less than the 3 %" in found.reason


def test_limits_are_the_callers() -> None:
    fallen = (Held(1.2, 1.1, 0.0), NONE)
    assert verdict(BETTER, held=fallen, flux_low=0.9).accepted
    generous = Limits(failed=0.5)
    assert judge(
        BEFORE, BETTER, BEFORE, held=SAME, calmode="p", moved_arcsec=0.0, failed_fraction=0.3,
        limits=generous,
    ).accepted  # fmt: skip


def test_no_near_field_is_no_objection() -> None:
    assert verdict(changed(rms_near_jy_beam=float("nan"))).accepted


@pytest.mark.parametrize(
    ("held", "accepted"),
    [
        # Flux in the mask is no matter: artefacts have some, and it goes with them.
        (SAME, True),
        ((Held(1.2, 1.1, 0.0), NONE), False),
        ((Held(1.2, 2.5, 0.0), NONE), False),
        # 0.95 x 1.2 = 1.14; artefacts make three times 0.02 Jy uncertain.
        ((Held(1.2, 1.1, 0.02), NONE), True),
        ((Held(1.2, 1.07, 0.02), NONE), False),
        # The brightest source holds its own, and the others pay.
        ((Held(1.2, 1.2, 0.0), Held(0.1, 0.07, 0.005)), False),
        ((Held(1.2, 1.2, 0.0), Held(0.1, 0.085, 0.005)), True),
        # Nothing is above the artefacts: nothing is known of the flux.
        ((NONE, NONE), True),
    ],
)
def test_a_flux_is_held_to_what_was_known_of_it(held: tuple[Held, Held], accepted: bool) -> None:
    found = verdict(BETTER, held=held)
    assert found.accepted is accepted
    if not accepted:
        assert "flux" in found.reason and "--flux-range" in found.reason


def test_amplitudes_may_raise_the_flux_no_more_than_lower_it() -> None:
    # 1.2 Jy to 1.3 Jy: a factor 1.083, above 1 / 0.95.
    for calmode, accepted in (("p", True), ("a", False), ("ap", False)):
        found = verdict(BETTER, held=(Held(1.2, 1.3, 0.0), NONE), calmode=calmode)
        assert found.accepted is accepted
