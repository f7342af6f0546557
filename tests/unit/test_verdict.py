"""A round is judged by what it did to the image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peelkit.core.measure import Figures
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


def verdict(after: State, failed: float = 0.0, moved: float = 0.0, **limits: float):
    return judge(
        BEFORE,
        after,
        BEFORE,
        calmode="p",
        moved_arcsec=moved,
        failed_fraction=failed,
        limits=Limits(**limits),
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
        (changed(flux_jy=1.1), 0.0, "flux changed"),
        (changed(flux_jy=2.5), 0.0, "flux changed"),
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


def test_limits_are_the_callers() -> None:
    assert verdict(changed(flux_jy=1.1), flux_low=0.9).accepted
    generous = Limits(failed=0.5)
    assert judge(
        BEFORE, BETTER, BEFORE, calmode="p", moved_arcsec=0.0, failed_fraction=0.3, limits=generous
    ).accepted


def test_no_near_field_is_no_objection() -> None:
    assert verdict(changed(rms_near_jy_beam=float("nan"))).accepted


def test_amplitudes_may_raise_the_flux_no_more_than_lower_it() -> None:
    # 1.2 Jy to 1.3 Jy: a factor 1.083, above 1 / 0.95.
    for calmode, accepted in (("p", True), ("a", False), ("ap", False)):
        found = judge(
            BEFORE,
            changed(flux_jy=1.3),
            BEFORE,
            calmode=calmode,
            moved_arcsec=0.0,
            failed_fraction=0.0,
            limits=Limits(),
        )
        assert found.accepted is accepted
