"""Prediction against the direct Fourier sum: every pixel of the model, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from peelkit.engines.ducc import predict

C = 299792458.0
ARCSEC = np.pi / 180 / 3600


def direct_sum(terms, cell, centre, uvw, freq, reference):
    """The definition, in double precision."""
    total = np.zeros((uvw.shape[0], freq.size), dtype=complex)
    for power, plane in enumerate(terms):
        for y, x in zip(*np.nonzero(plane), strict=True):
            l, m = -(x - centre[0]) * cell, (y - centre[1]) * cell  # noqa: E741
            path = uvw @ np.array([l, m, np.sqrt(1 - l * l - m * m) - 1])
            weight = plane[y, x] * ((freq - reference) / reference) ** power
            total += weight * np.exp(2j * np.pi * np.outer(path, freq) / C)
    return total


@pytest.mark.parametrize("size", [(300, 260), (64, 64), (33, 47)])
@pytest.mark.parametrize("n_terms", [1, 2])
def test_prediction_equals_the_direct_sum(rng, size, n_terms: int) -> None:
    planes = []
    for _ in range(n_terms):
        plane = np.zeros(size)
        plane[rng.integers(0, size[0], 15), rng.integers(0, size[1], 15)] = rng.normal(size=15)
        planes.append(plane)
    uvw = rng.normal(size=(200, 3)) * [6000.0, 6000.0, 2000.0]
    freq = np.array([1.40e9, 1.45e9, 1.52e9])
    centre = (size[1] // 2, size[0] // 2)
    cell = 2.0 * ARCSEC  # the edge is 5 arcmin off: w terms matter
    found = predict(
        planes, cell_rad=cell, centre_pixel=centre, uvw_m=uvw, freq_hz=freq, reference_hz=1.45e9
    )
    truth = direct_sum(planes, cell, centre, uvw, freq, 1.45e9)
    error = np.sqrt(np.mean(np.abs(found - truth) ** 2) / np.mean(np.abs(truth) ** 2))
    assert error < 1e-5


def test_an_off_centre_source_has_the_right_sign_of_u_and_v() -> None:
    # A source to the east (falling x) on an eastward baseline: the phase grows.
    plane = np.zeros((64, 64))
    plane[32, 22] = 1.0
    u = 1000.0
    found = predict(
        [plane], cell_rad=ARCSEC, centre_pixel=(32, 32), uvw_m=np.array([[u, 0.0, 0.0]]),
        freq_hz=np.array([C]), reference_hz=C,
    )  # fmt: skip
    assert np.angle(found[0, 0]) == pytest.approx(2 * np.pi * u * 10 * ARCSEC, rel=1e-3)


def test_an_empty_model_predicts_nothing() -> None:
    found = predict(
        [np.zeros((64, 64))], cell_rad=ARCSEC, centre_pixel=(32, 32), uvw_m=np.ones((3, 3)),
        freq_hz=np.array([1e9]), reference_hz=1e9,
    )  # fmt: skip
    assert not found.any()
