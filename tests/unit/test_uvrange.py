"""CASA's uvrange: by formula."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.core.uvrange import in_range


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("", [True] * 4),
        (">100m", [False, False, True, True]),
        ("<0.5km", [True, True, True, False]),
        ("100~500", [False, True, True, False]),
        (">2.5klambda", [False, False, True, True]),
        ("> 2.5 klambda", [False, False, True, True]),
        ("<0.002Mlambda", [True, True, False, False]),
        ("<60m, >1km", [True, False, False, True]),
    ],
)
def test_uvrange_is_casa_s(text: str, taken: list[bool]) -> None:
    lengths = np.array([50.0, 100.0, 300.0, 2000.0])
    assert in_range(text, lengths, 10.0).tolist() == taken


def test_wavelengths_are_those_of_each_channel() -> None:
    length, per_m = np.array([[100.0], [1000.0]]), np.array([1.0, 2.0])
    assert in_range("", length, per_m).all()
    assert in_range(">500m", length, per_m).tolist() == [[False, False], [True, True]]
    assert in_range("<0.15klambda", length, per_m).tolist() == [[True, False], [False, False]]
    pieces = in_range("0.15~1.5klambda,<50m", length, per_m)
    assert pieces.tolist() == [[False, True], [True, False]]
