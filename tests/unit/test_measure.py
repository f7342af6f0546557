import math

import numpy as np
import pytest
from astropy.coordinates import FK5
from astropy.wcs import WCS

from makeimage import make_image
from peelkit.core.measure import flux_held, measure, near_field, plain_rms, refined_peak, robust_rms
from peelkit.io.image import Beam, Image

CELL = 0.5
BEAM = Beam(3.0, 2.0, 30.0)


def gaussian(shape, x, y, beam=BEAM, cell=CELL):
    """Beam of unit peak at pixel (x, y); position angle from north (y) through east (-x)."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    pa = math.radians(beam.pa_deg)
    along = -(columns - x) * math.sin(pa) + (rows - y) * math.cos(pa)
    across = (columns - x) * math.cos(pa) + (rows - y) * math.sin(pa)
    scale = 4 * math.log(2) * cell**2
    return np.exp(-scale * ((along / beam.major_arcsec) ** 2 + (across / beam.minor_arcsec) ** 2))


def image_of(data):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = [202.784, 30.509]
    wcs.wcs.crpix = [data.shape[1] / 2 + 1, data.shape[0] / 2 + 1]
    wcs.wcs.cdelt = [-CELL / 3600, CELL / 3600]
    wcs.wcs.cunit = ["deg", "deg"]
    return Image(None, data, wcs, FK5(), BEAM, "Jy/beam", data.shape, 3e9)


def test_robust_rms_is_the_scaled_median_absolute_deviation():
    # Median 3, absolute deviations 2 1 0 1 97, of which the median is 1.
    assert robust_rms(np.array([1.0, 2.0, 3.0, 4.0, 100.0])) == pytest.approx(1.4826)


def test_robust_rms_of_gaussian_noise_is_its_sigma_although_sources_are_in_it():
    noise = np.random.default_rng(1).normal(0, 2e-5, 40_000)
    # The MAD of n samples scatters by 1.17/sqrt(n): 0.6 %; three of these.
    assert robust_rms(noise) == pytest.approx(2e-5, rel=0.018)
    noise[:200] = 1.0
    assert robust_rms(noise) == pytest.approx(2e-5, rel=0.025)
    assert plain_rms(noise) > 0.05


def test_blank_pixels_do_not_count_and_nothing_at_all_gives_nan():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    assert plain_rms(values) == 1.0
    assert robust_rms(values) == pytest.approx(1.4826)
    assert math.isnan(robust_rms(np.array([np.nan])))
    assert math.isnan(plain_rms(np.array([])))


def test_refined_peak_is_exact_for_a_parabola_and_near_for_a_beam():
    rows, columns = np.mgrid[0:21, 0:21]
    data = 5.0 - (columns - 10.3) ** 2 - (rows - 8.8) ** 2
    x, y, value = refined_peak(data)
    assert (x, y) == pytest.approx((10.3, 8.8))
    assert value == data[9, 10]
    x, y, _ = refined_peak(gaussian((41, 41), 20.3, 19.8, Beam(3.0, 3.0, 0.0)))
    # A parabola through a Gaussian of 6 pixels is off by some per cent of the offset.
    assert (x, y) == pytest.approx((20.3, 19.8), abs=0.02)


def test_refined_peak_at_the_edge_stays_on_the_pixel():
    data = np.zeros((5, 5))
    data[0, 4] = 1.0
    assert refined_peak(data) == (4.0, 0.0, 1.0)


def test_near_field_is_a_ring_of_one_to_ten_beams():
    mask = np.zeros((101, 101), dtype=bool)
    mask[50, 50] = True
    ring = near_field(mask, make_image(mask, beam=(4, 4, 0)))
    line = np.flatnonzero(ring[50, 50:])
    assert (line.min(), line.max()) == (5, 40)
    empty = np.zeros((5, 5), dtype=bool)
    assert not near_field(empty, make_image(empty)).any()
    # As far on the sky along pixels of twice the length.
    ring = near_field(mask, make_image(mask, beam=(4, 4, 0), cells=(2, 1)))
    assert np.flatnonzero(ring[50, 50:]).tolist() == list(range(3, 21))
    assert np.flatnonzero(ring[50:, 50]).tolist() == list(range(5, 41))


def test_measure_recovers_peak_flux_and_noise_of_a_known_image():
    rng = np.random.default_rng(2)
    data = rng.normal(0, 1e-3, (200, 200)) + 2.0 * gaussian((200, 200), 120, 80)
    data[:10] = np.nan
    rows, columns = np.mgrid[0:200, 0:200]
    mask = np.hypot(columns - 120, rows - 80) < 16
    figures = measure(image_of(data), mask)
    assert figures.peak_jy_beam == pytest.approx(2.0, abs=4e-3)
    assert (figures.peak_x, figures.peak_y) == pytest.approx((120, 80), abs=0.02)
    # A point source of 2 Jy; white noise over 800 pixels of a beam of 27 pixels: 1 mJy.
    assert figures.flux_jy == pytest.approx(2.0, abs=4e-3)
    assert figures.rms_jy_beam == pytest.approx(1e-3, rel=0.02)
    assert figures.rms_plain_jy_beam == pytest.approx(1e-3, rel=0.02)
    assert figures.rms_near_jy_beam == pytest.approx(1e-3, rel=0.03)
    assert figures.minimum_jy_beam < -3e-3
    assert figures.dynamic_range == figures.peak_jy_beam / figures.rms_jy_beam


def test_measure_without_a_mask_has_the_image_peak_and_no_flux():
    figures = measure(image_of(gaussian((50, 50), 20, 25)), np.zeros((50, 50), dtype=bool))
    assert (figures.peak_x, figures.peak_y, figures.peak_jy_beam) == pytest.approx((20, 25, 1))
    assert math.isnan(figures.flux_jy)
    assert math.isnan(figures.rms_near_jy_beam)


def test_flux_that_was_artefacts_is_not_missed() -> None:
    # A source of 2 Jy; errors scatter 0.1 Jy/beam with both signs, of which the mask has the positive half.
    shape = (120, 120)
    source = 2 * gaussian(shape, 60, 60)
    ripple = 0.1 * np.sin(np.arange(-60, 60) / 3)[:, None] * np.sin(np.arange(-60, 60) / 4)
    before, after = image_of(0.9 * source + ripple), image_of(source)
    mask = before.data > 0.05
    outside = np.array([image.data[mask].sum() / image.beam_pixels for image in (before, after)])
    assert outside[0] > 1.2 * outside[1]
    everything, others = flux_held(before, after, mask)
    # Decorrelation took a tenth; what is above the deepest hole says so.
    assert everything.after_jy / everything.before_jy == pytest.approx(1 / 0.9, abs=0.05)
    assert everything.within(0.95, 2.0)
    assert others.before_jy == 0 and others.within(0.95, 2.0)


def test_flux_that_a_round_takes_is_missed() -> None:
    rng = np.random.default_rng(2)
    shape = (120, 120)
    noise = rng.normal(0, 1e-3, shape)
    bright, faint = gaussian(shape, 40, 60), 0.1 * gaussian(shape, 90, 60)
    mask = (bright + faint) > 0.01
    before = image_of(bright + faint + noise)
    # The scale falls by 7 %.
    everything, _ = flux_held(before, image_of(0.93 * (bright + faint) + noise), mask)
    assert not everything.within(0.95, 2.0) and everything.within(0.9, 2.0)
    # The bright source keeps its flux, the faint one loses a quarter.
    everything, others = flux_held(before, image_of(bright + 0.75 * faint + noise), mask)
    assert everything.within(0.95, 2.0)
    assert others.after_jy / others.before_jy == pytest.approx(0.75, abs=0.02)
    assert not others.within(0.95, 2.0)
