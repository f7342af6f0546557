"""What the S/N of a source says that was left out of the model."""

from __future__ import annotations

import math

import pytest

from peelkit.core.selfcal_holdout import verdict


@pytest.mark.parametrize(
    ("before", "after", "peak_ratio", "expected"),
    [
        # Its S/N rises as the noise falls.
        (6.0, 9.0, 1.1, "real"),
        # It fades with the errors that made it.
        (8.0, 3.0, 0.4, "artefact"),
        # A strong source whose absence from the model makes noise: its peak holds.
        (37.7, 35.4, 0.98, "unclear"),
        # Within the noise.
        (6.0, 6.5, 1.0, "unclear"),
        # Below detection.
        (1.0, 3.0, 2.0, "unclear"),
        (math.nan, 5.0, 1.0, "unclear"),
    ],
)
def test_real_sources_rise_and_artefacts_fade(
    before: float, after: float, peak_ratio: float, expected: str
) -> None:
    assert verdict(before, after, peak_ratio) == expected
