"""What phase solutions say of the positions before them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from peelkit.core.solutions import position_snr
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
