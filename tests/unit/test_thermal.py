"""The thermal noise of weighted visibilities: closed forms, and limits that must hold."""

import math

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import thermal
from peelkit.engines.casa import Imaging
from peelkit.io import ms
from peelkit.selection import Selection

SIGMA = 0.05
EVERYTHING = Selection()


def total(sums):
    return sum(one.first.sum() for one in sums.values())


def noise(info, imaging, weighting, selection=EVERYTHING):
    sums, _ = thermal.weigh(info, imaging, selection, weighting=weighting)
    return thermal.rms(info, sums, imaging, selection)


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    path = tmp_path_factory.mktemp("thermal") / "x.ms"
    recipe = MsRecipe(n_antenna=8, n_time=6, n_chan=(4, 3), sigma_jy=SIGMA, weight_spectrum=True)
    make_ms(path, recipe)
    return ms.read_info(path)


IMAGING = Imaging(imsize=256, cell_arcsec=1.5)


def test_natural_weights_are_the_closed_form(info):
    rows = 3 * 6 * 28
    # Two hands of sigma: Stokes I has sigma / sqrt 2, in each of the rows and seven channels.
    one = SIGMA / math.sqrt(2)
    assert noise(info, IMAGING, thermal.NATURAL) == pytest.approx(
        one / math.sqrt(rows * 7), rel=1e-5
    )
    first = Selection(spw="0:1~2")
    assert noise(info, IMAGING, thermal.NATURAL, first) == pytest.approx(
        one / math.sqrt(rows * 2), rel=1e-5
    )


def test_flags_of_one_hand_rows_and_autocorrelations_are_left_out(tmp_path):
    path = tmp_path / "flagged.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=1, n_time=4, n_chan=(2,), sigma_jy=SIGMA))
    with ms.opened(path, write=True) as main:
        flag = main.getcol("FLAG")
        flag[:10, :, 0] = True
        main.putcol("FLAG", flag)
        main.putcell("FLAG_ROW", 20, True)
        main.putcell("ANTENNA2", 30, main.getcell("ANTENNA1", 30))
    found = noise(ms.read_info(path), IMAGING, thermal.NATURAL)
    assert found == pytest.approx(SIGMA / math.sqrt(2 * 2 * (60 - 12)), rel=1e-5)


def test_hands_of_unequal_weight():
    weight = np.array([[[1.0, 4.0]], [[2.0, 0.0]]])
    mean, variance = thermal.stokes_i(weight, np.zeros(weight.shape, dtype=bool))
    assert mean.ravel().tolist() == [2.5, 0.0]
    assert variance.ravel().tolist() == [(1 + 1 / 4) / 4, 0.0]


def test_briggs_lies_between_natural_and_uniform(info):
    def briggs(robust):
        return noise(info, Imaging(imsize=256, cell_arcsec=1.5, robust=robust), thermal.BRIGGS)

    natural, uniform = (noise(info, IMAGING, name) for name in (thermal.NATURAL, thermal.UNIFORM))
    assert uniform > 1.05 * natural
    assert briggs(2.0) == pytest.approx(natural, rel=2e-3)
    assert briggs(-2.0) == pytest.approx(uniform, rel=2e-3)
    assert natural < briggs(0.5) < uniform


def test_uniform_weights_give_every_cell_the_same(info):
    sums, density = thermal.weigh(info, IMAGING, EVERYTHING, weighting=thermal.UNIFORM)
    # A cell and its Hermitian counterpart, of which only the points of one are added up.
    assert total(sums) == pytest.approx(np.count_nonzero(density.values) / 2, rel=0.02)
    assert density.values.sum() == pytest.approx(2 * 3 * 6 * 28 * 7 / SIGMA**2, rel=1e-5)


def test_the_first_taylor_term_of_a_line_is_its_least_squares_fit(rng):
    x = np.linspace(-0.1, 0.3, 9)
    sigma = rng.uniform(1, 2, 9)
    design = np.stack([np.ones(9), x], axis=1)
    covariance = np.linalg.inv(design.T @ (design / sigma[:, None] ** 2))
    weight = sigma**-2
    found = thermal.taylor_rms(weight, weight, x, 2)
    assert found == pytest.approx(math.sqrt(covariance[0, 0]))
    assert thermal.taylor_rms(weight, weight, x, 1) == pytest.approx(weight.sum() ** -0.5)
    # One channel has no slope.
    assert thermal.taylor_rms(weight[:1], weight[:1], x[:1], 2) == pytest.approx(sigma[0])


def test_weights_that_promise_too_much_noise_are_mended_and_reported(tmp_path, rng):
    path = tmp_path / "x.ms"
    make_ms(path, MsRecipe(n_antenna=8, n_time=12, sigma_jy=SIGMA))
    with ms.opened(path, write=True) as main:
        main.putcol("WEIGHT", main.getcol("WEIGHT") / 100)
    info = ms.read_info(path)
    check = thermal.WeightCheck(info, "DATA")
    thermal.weigh(info, IMAGING, EVERYTHING, check=check)
    assert check.noise[0].ratio == pytest.approx(0.1, rel=0.05)
    assert check.scale(0) == pytest.approx(0.01, rel=0.1)
    assert len(check.notes()) == 1 and "so they are too low" in check.notes()[0]
