"""What phase solutions say of the positions before them, and which antennas have none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peelkit.core.solutions import lost_antennas, position_snr
from peelkit.io.caltable import GainTable


def phases(rng: np.random.Generator, rms_rad: float, noise_rad: float, n_ant: int) -> GainTable:
    """Forty intervals of two hands; the reference antenna has phase 0."""
    n_time = 40
    time, antenna = (index.ravel() for index in np.indices((n_time, n_ant)))
    true = rng.normal(0, rms_rad, (n_time, n_ant, 2))
    found = true - true[:, :1] + rng.normal(0, noise_rad, true.shape)
    none = np.zeros_like(antenna)
    return GainTable(
        time_s=5e9 + 30.0 * time, antenna=antenna, refant=none, spw=none, scan=none + 1, observation=none,
        gain=np.exp(1j * found).reshape(-1, 2), failed=np.zeros((time.size, 2), dtype=bool),
        snr=np.full((time.size, 2), 1 / noise_rad),
    )  # fmt: skip


@pytest.mark.parametrize(("rms_deg", "n_ant"), [(40.0, 12), (15.0, 36), (20.0, 27)])
def test_position_snr_follows_from_phase_rms_and_antennas(rms_deg: float, n_ant: int) -> None:
    rms = math.radians(rms_deg)
    found = position_snr(phases(np.random.default_rng(1), rms, 0.1, n_ant))
    # About the mean of n antennas the rms is sqrt(1 - 1/n) of itself.
    assert found == pytest.approx(math.sqrt(n_ant / (1 - 1 / n_ant)) / rms, rel=0.07)


def test_noise_alone_says_nothing_against_positions() -> None:
    assert position_snr(phases(np.random.default_rng(2), 0.0, 0.2, 20)) > 50


def test_antennas_most_of_whose_solutions_fail_are_lost_if_enough_others_are_left() -> None:
    good, bad = (20, 1), (20, 19)
    # 2 of 7: 29 % of all solutions fail, of the others 5 %.
    assert lost_antennas({**dict.fromkeys(range(5), good), 5: bad, 6: bad}) == [5, 6]
    assert lost_antennas(dict.fromkeys(range(7), good)) == []
    # Half of them is not most, and 10 of 20 may still be of use.
    assert lost_antennas({**dict.fromkeys(range(6), good), 6: (20, 10)}) == []
    # A source that most antennas cannot be solved on: none is left out, and the round fails.
    assert lost_antennas({**dict.fromkeys(range(4), good), **dict.fromkeys(range(4, 8), bad)}) == []
    # Three antennas would be left.
    assert lost_antennas({**dict.fromkeys(range(3), good), 3: bad}) == []
    # One solution each of a source at the limit: chance alone says which antennas fail.
    assert (
        lost_antennas({**dict.fromkeys(range(13), (1, 0)), **dict.fromkeys(range(13, 20), (1, 1))})
        == []
    )
    assert lost_antennas({}) == []
