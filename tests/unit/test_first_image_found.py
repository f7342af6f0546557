"""What stands out of a first image: noise of real uv coverages never does, extended sources do."""

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import ICRS
from astropy.wcs import WCS
from scipy.ndimage import label

from peelkit.core.first_image import _pairs, _with_strongest, degrees, standing_out
from peelkit.core.imaging import Cleaned, dirty_mask
from peelkit.core.measure import measure, robust_rms
from peelkit.io.image import Beam, Image

SIZE, FWHM = 192, 5.0
SIGMA = 9.0


def image_of(data: np.ndarray, fwhm: float = FWHM) -> Image:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 20.0], [SIZE / 2 + 1, SIZE / 2 + 1]
    wcs.wcs.cdelt, wcs.wcs.cunit = [-1 / 3600, 1 / 3600], ["deg", "deg"]
    beam = Beam(fwhm, fwhm, 0.0)
    return Image(Path("sim.image"), data, wcs, ICRS(), beam, "Jy/beam", data.shape, None)


def counts(n_antenna: int, n_time: int, concentrated: float, seed: int) -> np.ndarray:
    """Visibilities in each cell of the uv plane, with their conjugates, of an array that turns."""
    rng = np.random.default_rng(seed)
    radius = rng.random(n_antenna) ** concentrated
    angle = rng.uniform(0, 2 * math.pi, n_antenna)
    positions = 0.2 * SIZE * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    one, two = np.triu_indices(n_antenna, 1)
    grid = np.zeros((SIZE, SIZE))
    for turn in np.linspace(0, 1.0, n_time):
        u, v = (positions[one] - positions[two]).T
        x, y = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
        for sign in (1, -1):
            cells = np.rint(sign * np.stack([y, x])).astype(int) % SIZE
            np.add.at(grid, tuple(cells), 1)
    return grid


def dirty_pair(grid: np.ndarray, sky: np.ndarray, seed: int) -> tuple[Image, Image]:
    """Dirty image (natural weights) of a sky, with noise of 1 per beam, and the PSF."""
    rng = np.random.default_rng(seed)
    psf = np.fft.fftshift(np.fft.ifft2(grid).real)
    white = np.fft.fft2(rng.normal(size=grid.shape))
    noise = np.fft.ifft2(np.sqrt(grid) * white).real
    signal = np.fft.ifft2(np.fft.fft2(sky) * grid).real / psf.max()
    psf /= psf.max()
    # Of the circle that has the area of the main lobe above a half.
    inside = label(psf > 0.5)[0]
    fwhm = 2 * math.sqrt((inside == inside[SIZE // 2, SIZE // 2]).sum() / math.pi)
    return image_of(signal + noise / np.std(noise), fwhm), image_of(psf, fwhm)


ARRAYS = [(20, 10, 0.8), (20, 10, 2.0), (6, 20, 1.0), (27, 1, 0.5), (5, 3, 1.0)]


def accepted(image: Image, psf: Image, *, times: float = 1.0) -> bool:
    """What `first_image` decides without cleaning, at ``times`` its limits."""
    if dirty_mask(image, psf, times * SIGMA).any():
        return True
    empty = np.zeros(image.data.shape, dtype=bool)
    trial = _with_strongest(Cleaned(Path("x"), image, empty), psf, ~empty, SIGMA / 2)
    return bool(standing_out(image, trial, psf, times * SIGMA).any())


@pytest.mark.parametrize("array", ARRAYS)
def test_noise_alone_never_stands_out(array: tuple[int, int, float]) -> None:
    nothing = np.zeros((SIZE, SIZE))
    grids = [counts(*array, seed) for seed in range(5)]
    # At three quarters of the limits: there is room for what noise maps are off by.
    for seed in range(25):
        image, psf = dirty_pair(grids[seed % 5], nothing, seed)
        assert not accepted(image, psf, times=0.75), seed


def test_an_extended_source_stands_out_by_its_flux_over_its_area() -> None:
    rows, columns = np.indices((SIZE, SIZE))
    away = np.hypot(columns - SIZE / 2, rows - SIZE / 2)
    image, psf = dirty_pair(counts(20, 30, 0.8, 1), np.zeros((SIZE, SIZE)), 2)
    disc = away < 12
    # 4 sigma all over 16 beams: 4 sqrt(16) = 16 times the noise of the sum, and no pixel above 9.
    image = image_of(image.data + 4.0 * disc)
    assert not dirty_mask(image, psf, SIGMA).any()
    found = standing_out(image, disc, psf, SIGMA)
    assert np.array_equal(found, disc)
    assert np.max(image.data) < SIGMA
    # An island of noise beside it does not come along.
    beside = np.hypot(columns - 20, rows - 20) < 5
    assert np.array_equal(standing_out(image, disc | beside, psf, SIGMA), disc)
    assert not standing_out(image, beside, psf, SIGMA).any()


def test_an_arc_in_pieces_stands_out_as_a_whole() -> None:
    rows, columns = np.indices((SIZE, SIZE))
    image, psf = dirty_pair(counts(20, 30, 0.8, 1), np.zeros((SIZE, SIZE)), 3)
    pieces = np.zeros((SIZE, SIZE), dtype=bool)
    for x in (40, 70, 100, 130):
        pieces |= np.hypot(columns - x, rows - 90) < 6
    # Each 3.5 sqrt(4) = 7 times its noise, the four together 14.
    image = image_of(image.data + 3.5 * pieces)
    assert np.array_equal(standing_out(image, pieces, psf, SIGMA), pieces)
    assert not standing_out(image, pieces & (columns < 55), psf, SIGMA).any()


def test_noise_of_a_flux_counts_how_the_psf_correlates_pixels() -> None:
    psf = np.zeros((SIZE, SIZE))
    psf[90, 80], psf[90, 81], psf[90, 79] = 2.0, 1.0, 1.0
    # Two neighbours: each with itself 1, with the other 0.5, both ways round.
    assert _pairs(np.ones((1, 2), dtype=bool), image_of(psf)) == pytest.approx(3.0)
    assert _pairs(np.ones((2, 1), dtype=bool), image_of(psf)) == pytest.approx(2.0)
    # As simulated noise has it, over a square of 12 pixels.
    grid = counts(20, 30, 0.8, 1)
    sums, square = [], np.ones((12, 12), dtype=bool)
    for seed in range(40):
        image, response = dirty_pair(grid, np.zeros((SIZE, SIZE)), seed)
        sums += [image.data[y : y + 12, x : x + 12].sum() for y in (10, 100) for x in (10, 60, 140)]
    assert np.std(sums) == pytest.approx(math.sqrt(_pairs(square, response)), rel=0.15)


def test_degrees_of_freedom_are_the_cells_with_data() -> None:
    # 6 baselines at one time: each a cell, and its conjugate.
    grid = counts(4, 1, 0.5, 3)
    assert np.count_nonzero(grid) == 12
    _, psf = dirty_pair(grid, np.zeros((SIZE, SIZE)), 1)
    assert degrees(psf) == pytest.approx(12.0)


def test_the_signal_of_an_extended_source_is_its_flux_over_the_root_of_its_beams() -> None:
    data = np.random.default_rng(1).normal(0, 1e-3, (SIZE, SIZE))
    disc = np.zeros((SIZE, SIZE), dtype=bool)
    disc[50:90, 50:90] = True
    beams = 1600 / image_of(data).beam_pixels
    figures = measure(image_of(data + 0.1 * disc), disc)
    # All of it on every baseline that does not resolve it would be more: 0.1 Jy/beam times beams.
    assert figures.signal_jy == pytest.approx(0.1 * math.sqrt(beams), rel=0.01)
    assert figures.mask_beams == pytest.approx(beams)
    # Noise in a mask is no signal: the peak is all that is left.
    figures = measure(image_of(data), disc)
    assert figures.signal_jy == figures.peak_jy_beam
    assert robust_rms(data) == pytest.approx(1e-3, rel=0.02)
