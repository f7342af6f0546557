import dataclasses
import math

import numpy as np
import pytest
from astropy.coordinates import FK5, ICRS
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from peelkit.core.catalogue import (
    compare,
    find_sources,
    gaussian_peak,
    match_sources,
    part,
    peak_near,
    regrid_labels,
)
from peelkit.io.image import Beam, Image, grid_difference

RMS = 1e-4
BEAM = Beam(3.0, 2.0, 30.0)


def blank(shape=(300, 300), cell=0.5, frame=None, beam=BEAM, crval=(202.784, 30.509)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = crval
    wcs.wcs.crpix = [shape[1] / 2 + 1, shape[0] / 2 + 1]
    wcs.wcs.cdelt = [-cell / 3600, cell / 3600]
    wcs.wcs.cunit = ["deg", "deg"]
    data = np.zeros(shape)
    return Image("test", data, wcs, frame or FK5(), beam, "Jy/beam", shape, 3e9)


def gaussian(image, x, y, beam=BEAM):
    """Beam of unit peak at pixel (x, y); position angle from north (y) through east (-x)."""
    rows, columns = np.mgrid[0 : image.data.shape[0], 0 : image.data.shape[1]].astype(float)
    pa = math.radians(beam.pa_deg)
    along = -(columns - x) * math.sin(pa) + (rows - y) * math.cos(pa)
    across = (columns - x) * math.cos(pa) + (rows - y) * math.sin(pa)
    scale = 4 * math.log(2) * image.cell_arcsec**2
    return np.exp(-scale * ((along / beam.major_arcsec) ** 2 + (across / beam.minor_arcsec) ** 2))


def noise_of(image, seed, rms=RMS):
    """Noise that is correlated over about a beam, as an interferometer's is."""
    white = np.random.default_rng(seed).normal(size=image.data.shape)
    smooth = gaussian_filter(white, 1.0 / image.cell_arcsec, mode="wrap")
    return rms * smooth / smooth.std()


def with_sources(image, sources, seed=None, rms=RMS):
    data = np.zeros(image.data.shape)
    for x, y, peak in sources:
        data += peak * gaussian(image, x, y)
    if seed is not None:
        data += noise_of(image, seed, rms)
    return dataclasses.replace(image, data=data)


def catalogue(image, sigma=5.0, rms=RMS):
    return find_sources(image, np.full(image.data.shape, rms), sigma=sigma)


FIELD = [(60.2, 60.4, 0.01), (200.0, 90.0, 0.004), (120.5, 220.3, 0.002), (250.1, 250.0, 0.0015)]
NOWHERE = np.zeros((300, 300), dtype=bool)


def test_gaussian_peak_is_exact_for_an_elongated_beam_at_any_angle():
    image = blank((41, 41))
    for pa in (0.0, 30.0, 75.0, -45.0):
        data = 3.0 * gaussian(image, 20.37, 19.81, Beam(4.0, 1.5, pa))
        x, y, value = gaussian_peak(data)
        assert (x, y) == pytest.approx((20.37, 19.81), abs=1e-6)
        assert value == data.max()


def test_gaussian_peak_falls_back_beside_blank_and_negative_pixels():
    data = gaussian(blank((21, 21)), 10.0, 10.0)
    data[11, 11] = np.nan
    assert gaussian_peak(data)[:2] == pytest.approx((10, 10), abs=0.05)
    corner = np.full((4, 4), -1.0)
    corner[0, 0] = 2.0
    assert gaussian_peak(corner) == (0.0, 0.0, 2.0)


def test_peak_near_takes_the_source_and_not_the_flank_of_a_brighter_one():
    image = with_sources(blank(), [(100, 100, 1.0), (130, 100, 10.0)])
    assert peak_near(image, 101, 99, radius_cells=5)[:2] == pytest.approx((100, 100), abs=0.01)
    assert peak_near(image, 124, 100, radius_cells=4) is None
    assert peak_near(image, 900, 100, radius_cells=5) is None


def test_sources_of_a_known_field_are_found_with_position_and_flux():
    found = catalogue(with_sources(blank(), FIELD, seed=3))
    assert len(found.sources) == len(FIELD)
    image = found.image
    for source, (x, y, flux) in zip(found.sources, FIELD, strict=True):
        # beam / (2 S/N) in each coordinate; four of these, and pixels of half an arcsecond.
        allowed = 4 * 3.0 / 0.5 / (2 * flux / RMS)
        assert math.hypot(source.x - x, source.y - y) < allowed
        assert source.peak_jy_beam == pytest.approx(flux, abs=4 * RMS)
        # The wings below 3 sigma are lost: a share 3 / (S/N) of a Gaussian.
        lost = 3 * RMS / flux
        assert source.flux_jy == pytest.approx(flux * (1 - lost), abs=5 * RMS)
        assert source.snr == pytest.approx(flux / RMS, abs=4)
        truth = image.sky(x, y)
        assert image.sky(source.x, source.y).separation(truth).arcsec < allowed * 0.5
        assert source.ra_deg == pytest.approx(truth.ra.deg, abs=2e-4)


def test_noise_alone_has_no_source_and_a_close_pair_is_two():
    assert catalogue(with_sources(blank(), [], seed=4)).sources == ()
    pair = with_sources(blank(), [(150, 150, 0.01), (160, 150, 0.008)], seed=5)
    found = catalogue(pair)
    assert [round(source.x) for source in found.sources] == [150, 160]
    assert set(np.unique(found.labels)) == {0, *(source.label for source in found.sources)}


def test_islands_are_parted_at_deep_saddles_only():
    ridge = np.array([[9.0, 20.0, 8.0, 15.0, 5.0, 0.0, 7.0, 6.0, 8.0]])
    labels = part(ridge, (ridge > 3).astype(int))
    # 15 stands 7 above the saddle of 8; 7 stands one above the saddle of 6.
    assert labels.tolist() == [[1, 1, 1, 2, 2, 0, 3, 3, 3]]
    shallow = np.array([[100.0, 85.0, 95.0]])
    assert part(shallow, np.ones((1, 3), dtype=int)).tolist() == [[1, 1, 1]]


def test_a_maximum_beside_an_equal_minimum_is_an_artefact_not_a_source():
    image = with_sources(blank(), [(150, 150, 1.0), (170, 150, 0.003), (140, 130, -0.004)], seed=6)
    alone = with_sources(blank(), [(150, 150, 1.0), (170, 150, 0.003)], seed=6)
    assert len(catalogue(image).sources) == 1
    assert len(catalogue(alone).sources) == 2
    nothing = catalogue(with_sources(blank(), [(170, 150, 0.003), (140, 130, -0.004)]))
    assert nothing.sources == ()
    assert not nothing.mask.any()


def test_blank_edges_are_no_obstacle():
    image = with_sources(blank(), FIELD, seed=7)
    image.data[:40] = np.nan
    image.data[:, 260:] = np.nan
    noise = np.where(np.isfinite(image.data), RMS, np.nan)
    assert len(find_sources(image, noise, sigma=5).sources) == len(FIELD)


def test_regridded_labels_are_at_the_same_place_on_the_sky():
    coarse = blank((120, 130), cell=1.1, frame=ICRS(), crval=(202.79, 30.51))
    fine = blank()
    labels = np.zeros((300, 300), dtype=int)
    labels[90:111, 80:101] = 7
    moved = regrid_labels(labels, fine, coarse)
    assert moved.shape == (120, 130)
    rows, columns = np.nonzero(moved)
    there = coarse.sky(columns.mean(), rows.mean())
    assert there.separation(fine.sky(90, 100)).arcsec < 0.55  # half a coarse pixel
    assert moved.sum() / 7 == pytest.approx(21 * 21 * (0.5 / 1.1) ** 2, rel=0.1)
    assert grid_difference(fine, coarse)
    assert grid_difference(fine, blank()) is None
    assert regrid_labels(labels, fine, blank()) is labels


def test_matching_is_mutual_and_within_the_radius():
    first = catalogue(with_sources(blank(), FIELD)).sources
    second = catalogue(with_sources(blank(), [(62.2, 60.4, 0.01), *FIELD[2:]])).sources
    pairs = match_sources(first, second, radius_arcsec=1.5)
    assert sorted(pairs) == [(0, 0), (2, 1), (3, 2)]
    # Two pixels of half an arcsecond apart.
    assert sorted(match_sources(first, second, radius_arcsec=0.9)) == [(2, 1), (3, 2)]
    assert match_sources(first, (), radius_arcsec=9) == []


def test_fluxes_scaled_by_095_are_found_to_be_that():
    first = catalogue(with_sources(blank(), FIELD, seed=8))
    second = catalogue(with_sources(blank(), [(x, y, 0.95 * s) for x, y, s in FIELD], seed=9))
    result = compare(first, second, exclude=NOWHERE, match_radius_arcsec=1.5)
    assert len(result.matches) == 4
    for match in result.matches:
        # Independent noise: each ratio within four of its own errors, and these are right.
        assert abs(match.flux_ratio - 0.95) < 4 * match.flux_ratio_error
        assert match.flux_jy == pytest.approx(0.95 * match.flux_reference_jy, rel=0.4)
    bright = max(result.matches, key=lambda match: match.flux_reference_jy)
    assert bright.flux_ratio == pytest.approx(0.95, abs=0.05)
    assert bright.peak_ratio == pytest.approx(0.95, abs=0.05)
    assert bright.flux_reference_jy == pytest.approx(0.01, abs=5 * RMS)
    assert 0.01 < result.flux_ratio_noise < 0.2


def test_with_the_same_noise_the_ratio_is_exact():
    image = with_sources(blank(), FIELD, seed=10)
    scaled = dataclasses.replace(image, data=0.95 * image.data)
    result = compare(
        catalogue(image),
        catalogue(scaled, rms=0.95 * RMS),
        exclude=NOWHERE,
        match_radius_arcsec=1.5,
    )
    assert result.flux_ratio_median == pytest.approx(0.95, abs=1e-9)
    assert result.peak_ratio_median == pytest.approx(0.95, abs=1e-9)
    assert result.flux_ratio_scatter == pytest.approx(0.0, abs=1e-9)


def test_deeper_image_does_not_gain_flux_from_its_larger_segments():
    broad = Beam(9.0, 6.0, 60.0)
    image = blank()
    truth = 0.004 * gaussian(image, 150, 150, broad)
    shallow = dataclasses.replace(image, data=truth + noise_of(image, 11))
    deep = dataclasses.replace(image, data=truth + noise_of(image, 12, RMS / 10))
    result = compare(
        catalogue(shallow), catalogue(deep, rms=RMS / 10), exclude=NOWHERE, match_radius_arcsec=2
    )
    (match,) = result.matches
    # A Gaussian of nine beams: flux = peak * 9; 3 sigma of the deep image loses 0.75 % of it.
    assert match.flux_jy == pytest.approx(0.036, rel=0.02)
    assert abs(match.flux_ratio - 1) < 3 * match.flux_ratio_error
    assert match.flux_ratio_error < 0.03


def test_peeled_sources_are_not_compared_and_none_gives_nan():
    image = with_sources(blank(), FIELD, seed=13)
    peeled = NOWHERE.copy()
    peeled[55:66, 55:66] = True
    found = catalogue(image)
    result = compare(found, found, exclude=peeled, match_radius_arcsec=1.5)
    assert len(result.matches) == 3
    nothing = compare(found, found, exclude=~NOWHERE, match_radius_arcsec=1.5)
    assert nothing.matches == ()
    assert math.isnan(nothing.flux_ratio_median)
    assert math.isnan(nothing.flux_ratio_scatter)
    one = compare(found, found, exclude=~peeled, match_radius_arcsec=1.5)
    assert one.flux_ratio_median == 1.0
    assert math.isnan(one.flux_ratio_scatter)


def test_source_that_is_blank_in_one_image_is_not_compared():
    image = with_sources(blank(), FIELD, seed=14)
    cut = dataclasses.replace(image, data=image.data.copy())
    cut.data[:, 252:] = np.nan
    result = compare(catalogue(image), catalogue(cut), exclude=NOWHERE, match_radius_arcsec=3)
    assert len(result.matches) == 3


def test_shift_of_the_whole_field_is_measured_towards_east_and_north():
    shifted = [(x - 0.8, y + 0.4, s) for x, y, s in FIELD]
    first, second = (catalogue(with_sources(blank(), f)) for f in (FIELD, shifted))
    result = compare(first, second, exclude=NOWHERE, match_radius_arcsec=1.5)
    assert result.offset_ra_arcsec == pytest.approx(0.4, abs=0.01)
    assert result.offset_dec_arcsec == pytest.approx(0.2, abs=0.01)


def test_fluxes_on_another_grid_and_frame_agree():
    fine = with_sources(blank(), FIELD, seed=15)
    other = blank((260, 280), cell=0.6, frame=ICRS(), crval=(202.785, 30.508))
    places = [other.pixel(fine.sky(x, y)) for x, y, _ in FIELD]
    moved = with_sources(
        other, [(x, y, s) for (x, y), (_, _, s) in zip(places, FIELD, strict=True)], seed=16
    )
    result = compare(catalogue(fine), catalogue(moved), exclude=NOWHERE, match_radius_arcsec=1.5)
    assert len(result.matches) == 4
    for match in result.matches:
        assert abs(match.flux_ratio - 1) < 4 * match.flux_ratio_error
    assert abs(result.offset_ra_arcsec) < 0.1
