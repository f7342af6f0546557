"""Noise map, islands and marks on simulated images whose truth is known."""

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import ICRS
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from makeimage import make_image
from peelkit.core.artefacts import classify, surroundings
from peelkit.core.islands import (
    above,
    label_islands,
    measure_islands,
    noise_map,
    shaped,
    threshold_mask,
)
from peelkit.core.mask_regions import ellipse_region, enclosing_ellipses
from peelkit.core.measure import robust_rms
from peelkit.errors import DataError
from peelkit.io.image import Beam, Image

SIZE, CELL, FWHM = 512, 0.5, 6.0  # pixels, arcsec, pixels
BEAM_PIXELS = math.pi * FWHM**2 / (4 * math.log(2))
RMS = 1e-3


def image_of(data, *, beam=True):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 20.0], [data.shape[1] / 2 + 1, data.shape[0] / 2 + 1]
    wcs.wcs.cdelt, wcs.wcs.cunit = [-CELL / 3600, CELL / 3600], ["deg", "deg"]
    shape = Beam(FWHM * CELL, FWHM * CELL, 0.0) if beam else None
    return Image(Path("sim.image"), data, wcs, ICRS(), shape, "Jy/beam", data.shape, None)


def gaussian(x, y, peak, fwhm=FWHM, size=SIZE):
    rows, columns = np.mgrid[0:size, 0:size]
    return peak * np.exp(-4 * math.log(2) * ((columns - x) ** 2 + (rows - y) ** 2) / fwhm**2)


def noise(seed=0, size=SIZE, rms=RMS):
    """Noise that is correlated over the beam, as in an image."""
    white = np.random.default_rng(seed).normal(size=(size, size))
    smooth = gaussian_filter(white, FWHM / 2.355 / math.sqrt(2), mode="wrap")
    return rms * smooth / smooth.std()


# Baselines of a Y of 27 antennas, in cycles across the image.
ARM = np.arange(1, 10) ** 1.7
ANTENNAS = np.concatenate(
    [np.outer(ARM, [math.cos(a), math.sin(a)]) for a in 0.1 + np.arange(3) * 2 * math.pi / 3]
)
ANTENNAS *= 75 / np.abs(ANTENNAS[:, None] - ANTENNAS).max()
FIRST, SECOND = np.triu_indices(27, 1)
U, V = np.rint(ANTENNAS[FIRST] - ANTENNAS[SECOND]).astype(int).T


def dirty(visibilities, size=SIZE):
    """Image of one snapshot with natural weights."""
    grid = np.zeros((size, size), complex)
    np.add.at(grid, (V % size, U % size), visibilities)
    np.add.at(grid, (-V % size, -U % size), np.conj(visibilities))
    return np.fft.fftshift(np.fft.ifft2(grid).real) * size**2 / (2 * len(U))


def gain_errors(peak, x, y, *, phase_deg=0.0, amplitude=0.0, seed=1):
    """What gain errors leave around a source at (x, y), which is cleaned at its true flux."""
    rng = np.random.default_rng(seed)
    phases = np.radians(phase_deg) * rng.normal(size=27)
    gains = (1 + amplitude * rng.normal(size=27)) * np.exp(1j * phases)
    turn = np.exp(-2j * np.pi * (U * (x - SIZE // 2) + V * (y - SIZE // 2)) / SIZE)
    return dirty(peak * turn * (gains[FIRST] * np.conj(gains[SECOND]) - 1))


PSF = dirty(np.ones(len(U), complex))
FAINT = [(60, 60, 0.03), (430, 80, 0.015), (100, 400, 0.2), (450, 450, 0.05), (250, 120, 0.02)]


# --- noise --------------------------------------------------------------------------------------


def test_noise_of_pure_noise_is_recovered():
    found = noise_map(noise(), box_pixels=90)
    # 200 beams a box: 6 % each; the median of all is good to some 2 %.
    assert np.median(found) == pytest.approx(RMS, rel=0.03)
    assert found.min() > 0.8 * RMS
    assert found.max() < 1.2 * RMS


def test_a_30_jy_source_does_not_raise_the_noise_around_it():
    quiet = noise_map(noise(), box_pixels=90)
    loud = noise_map(noise() + gaussian(256, 256, 30.0), box_pixels=90)
    # The source hides some pixels from the statistics, and does nothing else.
    assert np.all(np.abs(loud / quiet - 1) < 0.15)
    assert loud[256, 256] == pytest.approx(RMS, rel=0.15)


def test_a_source_that_fills_its_boxes_does_not_raise_the_noise():
    disc = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - 256)) < 110  # boxes of 90: some are all source
    found = noise_map(noise() + 0.5 * disc, box_pixels=90)
    assert found.max() < 1.3 * RMS


def test_noise_that_grows_outwards_is_followed():
    growth = 1 + 9 * (np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - 256)) / 362) ** 2
    found = noise_map(growth * noise(), box_pixels=60)
    # As after a primary beam correction; boxes of 60 pixels blur the steep part.
    assert np.median(found / (RMS * growth)) == pytest.approx(1, abs=0.05)
    assert np.all(np.abs(found / (RMS * growth) - 1)[30:-30, 30:-30] < 0.35)


def test_noise_is_positive_everywhere_with_blank_borders_and_zeros():
    data = noise() + gaussian(256, 256, 1.0)
    outside = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - 256)) > 200
    for blank in (np.nan, 0.0, np.inf):
        found = noise_map(np.where(outside, blank, data), box_pixels=90)
        assert np.all(np.isfinite(found))
        assert np.all(found > 0.7 * RMS)
        assert np.all(found < 1.4 * RMS)


@pytest.mark.parametrize("size", [8, 20, 33])
def test_an_image_smaller_than_the_box_is_one_box(size):
    data = np.random.default_rng(3).normal(size=(size, size))
    found = noise_map(data, box_pixels=100)
    assert found.shape == (size, size)
    assert np.ptp(found) == 0
    assert found[0, 0] == pytest.approx(1, rel=3 / size)


def test_known_sources_are_left_out():
    data = noise()
    data[100:200, 100:200] *= -50  # both signs: nothing tells that this is no noise
    known = np.zeros(data.shape, bool)
    known[100:200, 100:200] = True
    assert noise_map(data, box_pixels=50).max() > 10 * RMS
    assert noise_map(data, box_pixels=50, exclude=known).max() < 1.4 * RMS


@pytest.mark.parametrize("value", [0.0, np.nan, 3.0])
def test_an_image_without_content_is_refused(value):
    with pytest.raises(DataError, match="every pixel is"):
        noise_map(np.full((50, 50), value), box_pixels=20)


# --- threshold and islands ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def field():
    data = noise(4) + sum(gaussian(*source) for source in FAINT)
    image = image_of(data)
    made = threshold_mask(image, sigma=8)
    return image, made, label_islands(made.mask, data)


def test_islands_are_the_sources_and_nothing_else(field):
    image, made, labels = field
    islands = measure_islands(image, labels, made.noise)
    assert len(islands) == len(FAINT)
    for island, (x, y, peak) in zip(islands, sorted(FAINT, key=lambda s: -s[2]), strict=True):
        # A position is good to FWHM / (2 S/N).
        assert math.hypot(island.x - x, island.y - y) < 3 * FWHM * RMS / (2 * peak) + 0.1
        assert island.peak_jy_beam == pytest.approx(peak, abs=3 * RMS + 0.02 * peak)
        # The flux of a point source is its peak; the margin loses at most 6 %.
        assert abs(island.flux_jy - peak) < 3 * island.flux_error_jy + 0.06 * peak
        # The square root of the beams that it is summed over: the margin alone has some 3 to 10.
        assert 1.5 * RMS < island.flux_error_jy < 4 * RMS
        # ln(peak / threshold) beams, less or more by noise and the pixels of the rim.
        size = math.log(peak / (8 * RMS)) * BEAM_PIXELS
        assert island.pixels == pytest.approx(size, abs=0.35 * BEAM_PIXELS)


def test_an_extended_source_keeps_its_flux():
    wide = 4 * FWHM
    image = image_of(noise(5) + gaussian(256, 256, 0.04, wide))
    made = threshold_mask(image, sigma=8)
    island = measure_islands(image, label_islands(made.mask, image.data), made.noise)[0]
    # 0.64 Jy. The mask alone would lose 8 mJy / 40 mJy = 20 %; the margin wins two thirds back.
    assert island.flux_jy == pytest.approx(0.04 * 16, rel=0.08)


def test_the_threshold_is_in_units_of_the_local_noise():
    data = noise(6) * np.where(np.arange(SIZE) < 256, 1.0, 5.0)
    data += gaussian(128, 256, 0.02) + gaussian(384, 256, 0.02) + gaussian(384, 100, 0.08)
    labels = label_islands(threshold_mask(image_of(data), sigma=8).mask, data)
    assert labels.max() == 2
    assert labels[256, 384] == 0  # 4 sigma there
    assert labels[100, 384] == 1
    assert labels[256, 128] == 2


def test_single_bad_pixels_are_no_islands():
    data = noise(7)
    data[50, 50] = data[200, 300] = 1.0
    assert not threshold_mask(image_of(data), sigma=8).mask.any()
    assert threshold_mask(image_of(data), sigma=8, min_beams=0).mask.sum() == 2


def test_islands_that_touch_at_a_corner_are_one_and_are_numbered_by_peak():
    data = np.zeros((10, 10))
    data[1, 1], data[2, 2], data[6:8, 6], data[9, 0] = 5, 1, 9, 7
    labels = label_islands(data > 0, data)
    assert labels[1, 1] == labels[2, 2] == 3
    assert labels[6, 6] == labels[7, 6] == 1
    assert labels[9, 0] == 2


def test_dilate_grows_by_pixels_and_holes_are_filled():
    ring = np.zeros((31, 31), bool)
    distance = np.hypot(*(np.mgrid[0:31, 0:31] - 15))
    ring[(distance > 5) & (distance < 8)] = True
    assert np.array_equal(shaped(ring, fill_holes=True), distance < 8)
    point = np.zeros((31, 31), bool)
    point[15, 15] = True
    assert np.array_equal(shaped(point, dilate=4), distance <= 4)


def test_blank_pixels_are_never_masked():
    data = noise(8) + gaussian(256, 256, 1.0)
    data[250:260, 256:] = np.nan
    mask = threshold_mask(image_of(data)).mask
    assert mask[256, 252]
    assert not mask[250:260, 256:].any()


def test_an_image_without_beam_is_refused_by_name():
    with pytest.raises(DataError, match=r"sim\.image: no restoring beam"):
        threshold_mask(image_of(noise(), beam=False))
    with pytest.raises(DataError, match=r"sim\.image: every pixel is blank or zero"):
        threshold_mask(image_of(np.zeros((64, 64))))


def test_a_dirty_image_gives_its_peak_and_not_its_sidelobes():
    data = 30 * PSF + noise(9)
    labels = label_islands(threshold_mask(image_of(data), sigma=8).mask, data)
    # A snapshot has sidelobes of 20 to 30 %: those do not pass, although 8 Jy of 1 mJy noise.
    assert labels[SIZE // 2, SIZE // 2] == 1
    assert above(data, np.full(data.shape, RMS), sigma=8).mean() > 0.1
    assert (labels > 0).mean() < 0.01


def test_the_enclosing_ellipse_holds_every_pixel_and_is_tight():
    rows, columns = np.mgrid[0:80, 0:80]
    turn = math.radians(30)
    along = (columns - 40) * math.cos(turn) + (rows - 35) * math.sin(turn)
    across = -(columns - 40) * math.sin(turn) + (rows - 35) * math.cos(turn)
    labels = ((along / 25) ** 2 + (across / 8) ** 2 <= 1).astype(np.int32)
    labels[5, 70] = 2
    big, small = enclosing_ellipses(labels, make_image(labels))
    assert (big.x, big.y) == pytest.approx((40, 35), abs=0.3)
    assert (big.major, big.minor) == pytest.approx((25, 8), abs=0.6)
    assert abs(np.dot(big.along, (math.cos(turn), math.sin(turn)))) > 0.999
    y, x = np.nonzero(labels == 1)
    dx, dy = x - big.x, y - big.y
    one = dx * big.along[0] + dy * big.along[1]
    two = -dx * big.along[1] + dy * big.along[0]
    assert np.max((one / big.major) ** 2 + (two / big.minor) ** 2) <= 1
    assert (small.x, small.y) == (70, 5)
    assert small.major < 0.5


def test_the_enclosing_ellipse_is_that_on_the_sky_whatever_the_pixels():
    # 40 by 10 arcsec at position angle 30 degrees, in pixels of 0.5 by 2.
    image = make_image(np.zeros((60, 240)), cells=(0.5, 2.0))
    rows, columns = np.mgrid[0:60, 0:240]
    east, north = -(columns - 120) * 0.5, (rows - 30) * 2.0
    turn = math.radians(30)
    along = east * math.sin(turn) + north * math.cos(turn)
    across = east * math.cos(turn) - north * math.sin(turn)
    labels = ((along / 40) ** 2 + (across / 10) ** 2 <= 1).astype(np.int32)
    (ellipse,) = enclosing_ellipses(labels, image)
    found = ellipse_region(image, ellipse, "A").shape
    # Half a beam is added on each side.
    assert found.height.value / 2 - 1.5 == pytest.approx(40, abs=1.5)
    assert found.width.value / 2 - 1.5 == pytest.approx(10, abs=1.5)
    assert found.angle.value == pytest.approx(30, abs=2)


# --- bright sources and artefacts ---------------------------------------------------------------

AT = (300, 220)


def judged(data, *, sigma, psf=True, **changes):
    """Islands with their verdicts, and whether each is at the place of a true source."""
    image = image_of(data)
    made = threshold_mask(image, sigma=sigma)
    labels = label_islands(made.mask, data)
    islands = measure_islands(image, labels, made.noise)
    options = {"bright_flux_jy": 0.1, "artefact_ratio": 2.0} | changes
    verdicts = classify(
        image,
        islands,
        labels,
        global_rms=robust_rms(data[labels == 0]),
        quiet_rms=float(np.percentile(made.noise, 5)),
        psf=image_of(PSF) if psf else None,
        **options,
    )
    true = [
        min(math.hypot(one.x - x, one.y - y) for x, y, *_ in [*FAINT, AT]) < FWHM / 2
        for one in islands
    ]
    around = surroundings(image, islands[0], labels)
    return list(zip(islands, verdicts, true, strict=True)), around


def sky(bright):
    return gaussian(*AT, bright) + sum(gaussian(*source) for source in FAINT)


def test_phase_errors_make_mirror_negatives_that_are_marked():
    data = sky(10.0) + gain_errors(10.0, *AT, phase_deg=5) + noise(1)
    found, around = judged(data, sigma=4.5, psf=False)
    fakes = [
        verdict
        for island, verdict, true in found
        # What is opposite to the others is outside the image.
        if not true
        and all(0 <= 2 * c - p < SIZE for c, p in zip(AT, (island.x, island.y), strict=True))
    ]
    assert len(fakes) >= 5
    assert around.parity < -0.9
    assert all(verdict.artefact_of == 1 and "mirror" in verdict.reason for verdict in fakes)
    assert not any(verdict.artefact for _, verdict, true in found if true)


def test_amplitude_errors_lie_on_sidelobes_and_need_the_psf():
    data = sky(10.0) + gain_errors(10.0, *AT, amplitude=0.05) + noise(1)
    found, around = judged(data, sigma=5)
    fakes = [verdict for _, verdict, true in found if not true]
    marked = [verdict for verdict in fakes if verdict.artefact]
    assert len(fakes) >= 4
    assert around.parity > 0.9
    assert len(marked) >= 0.75 * len(fakes)  # the envelope of the PSF is no law
    assert all("sidelobes" in verdict.reason for verdict in marked)
    assert not any(verdict.artefact for _, verdict, true in found if true)
    # They are symmetric: nothing is negative opposite to them.
    without, _ = judged(data, sigma=5, psf=False)
    assert not any(verdict.artefact for _, verdict, _ in without)


def test_real_sources_near_a_well_calibrated_one_are_not_marked():
    near = [(300 + 25 * math.cos(a), 220 + 25 * math.sin(a), 0.02) for a in np.arange(0, 6, 0.8)]
    data = sky(30.0) + sum(gaussian(*source) for source in near) + noise(2)
    found, around = judged(data, sigma=6)
    assert len(found) == 1 + len(FAINT) + len(near)
    assert abs(around.parity) < 0.3
    assert not any(verdict.artefact for _, verdict, _ in found)
    assert not any(verdict.bright for _, verdict, _ in found)  # nothing around to be won


def test_artefacts_that_fill_the_image_are_still_stronger_near_their_source():
    # Phases and amplitudes alike: no symmetry tells. (As in a VLA D image of a source of 4 Jy off axis.)
    away = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - np.array(AT[::-1])[:, None, None]))
    errors = gain_errors(10.0, *AT, phase_deg=3) + gain_errors(10.0, *AT, amplitude=0.05)
    found, around = judged(sky(10.0) + (0.4 + 2 * np.exp(-away / 12)) * errors + noise(3), sigma=8)
    assert around.rms_jy_beam / robust_rms(errors) < 2 and abs(around.parity) < 0.3
    assert [island.number for island, verdict, _ in found if verdict.bright] == [1]


def test_a_source_is_bright_if_it_is_strong_and_has_artefacts_around_it():
    local = np.exp(-np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - np.array(AT[::-1])[:, None, None])) / 30)
    data = sky(10.0) + local * gain_errors(10.0, *AT, phase_deg=3) + noise(3)
    found, around = judged(data, sigma=6)
    assert [island.number for island, verdict, _ in found if verdict.bright] == [1]
    ratio = found[0][1].rms_ratio
    assert ratio == pytest.approx(around.highest_rms / robust_rms(noise(3)), rel=0.15)
    assert ratio > 2
    # The 0.2 Jy source is as strong as asked for, and has none around it.
    other = next(
        verdict for island, verdict, _ in found if math.hypot(island.x - 100, island.y - 400) < 3
    )
    assert other.rms_ratio == pytest.approx(1, abs=0.3)
    assert not other.bright
    # Neither is bright where more is asked for.
    assert not any(v.bright for _, v, _ in judged(data, sigma=6, bright_flux_jy=11)[0])
    assert not any(v.bright for _, v, _ in judged(data, sigma=6, artefact_ratio=ratio + 1)[0])


def test_a_source_whose_artefacts_fill_the_image_is_bright():
    # Everywhere alike: nothing stands out near the source.
    data = sky(10.0) + gain_errors(10.0, *AT, phase_deg=3) + noise(3)
    found, around = judged(data, sigma=6)
    assert found[0][1].rms_ratio < 2 and around.parity < -0.3
    assert [island.number for island, verdict, _ in found if verdict.bright] == [1]
    # Noise around a source has neither parity nor such negatives.
    assert not any(v.bright for _, v, _ in judged(sky(10.0) + noise(3), sigma=6)[0])


def test_two_sources_whose_artefacts_fill_the_image_are_bright_and_a_third_is_not():
    # As self-calibration leaves them: errors of all kinds, so that no symmetry tells, that fade outwards, and
    # close to each source what its model lacks. The rms near them is not twice the global one, which is theirs.
    def artefacts(peak, x, y, seed):
        away = np.hypot(*(np.mgrid[0:SIZE, 0:SIZE] - np.array([y, x])[:, None, None]))
        errors = gain_errors(peak, x, y, phase_deg=2, seed=seed)
        errors += gain_errors(peak, x, y, amplitude=0.035, seed=seed + 1)
        close = gaussian(x + 6, y - 12, 0.008) - gaussian(x + 13, y + 4, 0.04)
        return (0.3 + np.exp(-away / 150)) * errors + peak * close

    second = (100.0, 400.0)
    data = sky(10.0) + gaussian(*second, 8.0) + noise(4)
    third = gaussian(430, 430, 1.0)
    found, around = judged(data + third, sigma=8)
    assert not any(verdict.bright for _, verdict, _ in found)  # well calibrated
    data += artefacts(10.0, *AT, 5) + artefacts(8.0, *second, 9)
    found, around = judged(data + third, sigma=8)
    assert found[0][1].rms_ratio < 2 and found[1][1].rms_ratio < 2
    assert abs(around.parity) < 0.3
    bright = [island for island, verdict, _ in found if verdict.bright]
    assert [(one.x, one.y) for one in bright] == [
        pytest.approx(AT, abs=0.3), pytest.approx(second, abs=0.3)
    ]  # fmt: skip
    # The third, of 1 Jy, is among the artefacts of both and has none of its own.
    assert any(math.hypot(island.x - 430, island.y - 430) < 3 for island, _, _ in found)


def test_the_brightest_island_is_never_an_artefact():
    data = (
        noise(11) + gaussian(256, 256, 0.05) - gaussian(230, 256, 0.05) + gaussian(243, 256, 0.012)
    )
    found, _ = judged(data, sigma=6)
    assert not found[0][1].artefact
