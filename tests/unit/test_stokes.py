"""Stokes planes and correlations against hand-worked numbers; the parallactic angle."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.core.stokes import check, held_by, to_correlations
from peelkit.errors import OptionError

PLANES = {name: np.full((2, 3), value) for name, value in zip("IQUV", (10.0, 3.0, 2.0, 1.0), strict=True)}  # fmt: skip


@pytest.mark.parametrize(
    ("correlations", "expected"),
    [
        (("XX", "XY", "YX", "YY"), (13, 2 + 1j, 2 - 1j, 7)),
        (("RR", "RL", "LR", "LL"), (11, 3 + 2j, 3 - 2j, 9)),
        (("YY", "XX"), (7, 13)),
    ],
)
def test_correlations_are_sums_of_stokes_planes(correlations, expected) -> None:
    cells = to_correlations(PLANES, correlations)
    assert cells.shape == (2, 3, len(correlations))
    assert cells[1, 2] == pytest.approx(expected)


def test_planes_that_are_not_there_are_zero() -> None:
    cells = to_correlations({"I": PLANES["I"]}, ("XX", "XY", "YX", "YY"))
    assert cells[0, 0] == pytest.approx([10, 0, 0, 10])


def test_two_planes_are_made_of_parallel_hands_only() -> None:
    # Four circular correlations hold Q, but CASA makes IQ of XX and YY.
    with pytest.raises(OptionError, match="use I or IV or IQUV"):
        check("IQ", ("RR", "RL", "LR", "LL"))
    check("IV", ("RR", "RL", "LR", "LL"))


def test_what_the_correlations_do_not_hold_is_refused() -> None:
    assert held_by(("XX", "YY")) == {"I", "Q"}
    assert held_by(("RR", "RL", "LR", "LL")) == set("IQUV")
    check("IQ", ("XX", "YY"))
    check("I", ("XX",))
    with pytest.raises(OptionError, match="--stokes IV: XX,YY do not hold V; use I or IQ"):
        check("IV", ("XX", "YY"))
    with pytest.raises(OptionError, match="do not hold Q and U; use I or IV"):
        check("IQUV", ("RR", "LL"))
