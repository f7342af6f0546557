"""The lecture's examples: screen, feeds, lines and executions, by formula and by plain sums."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_examples as examples
from peelkit.core import simulate_instrument as instrument
from peelkit.core import simulate_screen as screens
from peelkit.core.primary_beam import power_beam
from peelkit.core.simulate import simulate
from peelkit.errors import OptionError
from peelkit.progress import Progress

C = 299792458.0
SMALL = {"antennas": 5, "integrations": 2, "scans": 2, "without": ("noise",)}


class Made:
    """A simulated MS, read whole."""

    def __init__(self, path: Path, name: str, **given: object) -> None:
        simulate(path, examples.preset(name, {**SMALL, **given}), Progress())
        self.truth = json.loads(path.with_name(f"{path.name}.truth.json").read_text())
        with table(str(path), ack=False) as main:
            for column in ("DATA", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "FIELD_ID", "SCAN_NUMBER",
                           "DATA_DESC_ID", "OBSERVATION_ID"):  # fmt: skip
                setattr(self, column.lower(), main.getcol(column))
        self.sub = {}
        for name_of in ("SPECTRAL_WINDOW", "POLARIZATION", "OBSERVATION", "FEED", "ANTENNA"):
            with table(f"{path}/{name_of}", ack=False) as sub:
                self.sub[name_of] = {c: sub.getcol(c) for c in sub.colnames() if sub.iscelldefined(c, 0)}  # fmt: skip


@pytest.fixture(scope="module")
def maser(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("x") / "maser.ms", "maser")


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("x") / "dor.ms", "30dor")


def test_a_maser_visibility_is_the_written_out_sum_with_feeds_that_turn(maser: Made) -> None:
    # All but the truth file is written out here: position angle, line profile, gains.
    truth, gains = maser.truth, maser.truth["gains"]
    freq = maser.sub["SPECTRAL_WINDOW"]["CHAN_FREQ"][0]
    channel = np.arange(freq.size)
    latitude, longitude = math.radians(-23.0229), math.radians(-67.7548)
    ra, dec = (math.radians(truth["phase_centre"][key]) for key in ("ra_deg", "dec_deg"))
    scale = np.abs(maser.data).max()
    for row in range(0, len(maser.time), 7):
        when = int(np.argmin(np.abs(np.array(gains["times_s"]) - maser.time[row])))
        turns = (maser.time[row] / 86400 - 51544.5) * 1.00273790935 + 0.7790572732640
        hour = 2 * math.pi * turns + longitude - ra
        parallactic = math.atan2(
            math.cos(latitude) * math.sin(hour),
            math.sin(latitude) * math.cos(dec)
            - math.cos(latitude) * math.sin(dec) * math.cos(hour),
        )
        for hand, sign in ((0, 1), (1, -1)):
            total = np.zeros(freq.size, dtype=complex)
            for source in truth["sources"]:
                line = source["line"]
                sigma = line["width_channels"] / math.sqrt(8 * math.log(2))
                flux = source["flux_jy"] * np.exp(
                    -((channel - line["channel"]) ** 2) / 2 / sigma**2
                )
                turn = 2 * (math.radians(source["evpa_deg"]) - parallactic)
                flux *= 1 + sign * source["polarised"] * math.cos(turn)
                east = math.radians(source["ra_deg"] - truth["phase_centre"]["ra_deg"]) * math.cos(
                    dec
                )
                north = math.radians(source["dec_deg"] - truth["phase_centre"]["dec_deg"])
                path = maser.uvw[row] @ [east, north, -(east**2 + north**2) / 2]
                total += flux * np.exp(2j * np.pi * freq / C * path)
            for antenna, conjugate in ((maser.antenna1[row], 1), (maser.antenna2[row], -1)):
                phase = math.radians(gains["phase_deg"][when][antenna][hand])
                delay = 1e-9 * gains["delay_ns"][when][antenna][hand]
                phase += 2 * np.pi * delay * (freq - truth["reference_hz"])
                total *= gains["amplitude"][when][antenna][hand] * np.exp(1j * conjugate * phase)
            # Positions of the truth file have 1e-13 deg of rounding: 1e-6 rad of phase at 15 km.
            assert np.abs(maser.data[row, :, hand] - total).max() < 1e-5 * scale


def test_the_sum_of_both_hands_does_not_turn_with_the_sky(tmp_path: Path) -> None:
    made = Made(tmp_path / "m.ms", "maser", without=("noise", "errors"), scans=5)
    short = np.hypot(*made.uvw[:, :2].T) < 1000
    xx, yy = np.abs(made.data[short, 21, 0]), np.abs(made.data[short, 21, 1])
    ratio = xx / yy
    # The field transits at 20 deg from the zenith between the two executions: XX / YY turns.
    assert ratio.max() / ratio.min() > 1.3
    assert np.allclose(0.5 * (xx + yy), 60.0, rtol=1e-3)


def test_executions_have_their_own_spws_observations_and_scans(mosaic: Made, maser: Made) -> None:
    assert mosaic.sub["POLARIZATION"]["CORR_TYPE"].tolist() == [[9, 12]]
    feeds = mosaic.sub["FEED"]["POLARIZATION_TYPE"]
    assert [feeds["array"][:2], feeds["shape"]] == [["X", "Y"], [5, 2]]
    assert mosaic.sub["OBSERVATION"]["TELESCOPE_NAME"] == ["ALMA"] * 4
    assert set(mosaic.sub["ANTENNA"]["DISH_DIAMETER"]) == {12.0}
    for run in range(4):
        rows = mosaic.observation_id == run
        assert set(mosaic.data_desc_id[rows]) == {2 * run, 2 * run + 1}
        assert set(mosaic.scan_number[rows]) == {1, 2}
        low, high = mosaic.sub["OBSERVATION"]["TIME_RANGE"][run]
        assert low < mosaic.time[rows].min() and mosaic.time[rows].max() < high
        # Every scan has all fields, as ALMA observes mosaics.
        assert set(mosaic.field_id[rows & (mosaic.scan_number == 1)]) == set(range(23))
    freq = mosaic.sub["SPECTRAL_WINDOW"]["CHAN_FREQ"]
    assert len(set(freq[:, 0])) == 8
    assert set(maser.observation_id) == {0, 1} and set(maser.data_desc_id) == {0}


def test_the_strong_fields_of_the_mosaic_are_those_of_the_lecture(mosaic: Made) -> None:
    seen = np.sum([source["apparent_flux_jy"] for source in mosaic.truth["sources"]], axis=0)
    # Seed 002, 2.4.3: fields 8, 9, 12, 13, 14, 17 and 18 are strong, 13 the strongest.
    assert set(np.argsort(seen)[-7:]) == {8, 9, 12, 13, 14, 17, 18}
    assert np.argmax(seen) == 13


def test_the_screen_is_kolmogorovs_up_to_the_layer_and_flatter_beyond() -> None:
    screen = screens.make_screen(np.random.default_rng(1))
    assert screen.structure(screens.THICKNESS_M) == pytest.approx(1.0)

    def slope(low: float, high: float) -> float:
        return math.log(screen.structure(high) / screen.structure(low)) / math.log(high / low)

    # Well inside the layer 5/3; beyond, 2/3 rolls off towards the outer scale; then flat.
    assert slope(60, 120) == pytest.approx(5 / 3, abs=0.15)
    assert 0.2 < slope(1500, 2500) < 0.9
    assert abs(slope(30e3, 60e3)) < 0.1


def test_phases_of_the_screen_differ_as_its_structure_function_says_and_move_with_the_wind() -> (
    None
):
    rng = np.random.default_rng(2)
    place = np.array([[0.0, 0.0], [300.0, 0.0]])
    difference = []
    for _ in range(20):
        phase = screens.make_screen(rng).phase(np.arange(0, 6000, 300.0), place)
        difference.append(((phase[:, 0] - phase[:, 1]) ** 2).mean())
    screen = screens.make_screen(rng)
    # 20 screens of about 10 independent times: 2 sigma of their mean square are 20 %.
    assert np.mean(difference) == pytest.approx(screen.structure(300.0), rel=0.25)
    moved = screen.phase(np.array([0.0]), place - 20.0 * screen.wind_m_s)
    assert np.allclose(screen.phase(np.array([20.0]), place), moved)


def test_referencing_takes_away_what_is_slow_and_leaves_no_common_phase() -> None:
    screen = screens.make_screen(np.random.default_rng(3))
    place = instrument.spiral(12, 2000.0, 2.0)
    time = np.arange(10.0, 100.0, 3.0)
    run = np.zeros(time.size, dtype=int)
    rms = []
    for gap in (10.0, 100.0):
        visits = np.arange(0.0, 201.0, gap)
        left = screens.left_over(screen, time, place, [visits], run)
        assert np.allclose(left.mean(axis=1), 0)
        rms.append(math.sqrt((left**2).mean()))
    # Seen every 10 s, what is left is that the calibrator is 50 m aside: about its structure function.
    assert rms[0] < 2 * math.sqrt(screen.structure(screens.CALIBRATOR_OFFSET_M))
    # A visit every 100 s leaves what 1 km of the screen has.
    assert rms[1] > 1.5 * rms[0]


@pytest.mark.parametrize(("count", "longest", "exponent"), [(27, 15.2e3, 2.0), (12, 210.0, 1.5)])
def test_the_array_is_as_long_as_asked_for_and_no_dishes_touch(count, longest, exponent) -> None:
    offset = instrument.spiral(count, longest, exponent)
    length = np.linalg.norm(offset[:, None] - offset[None], axis=2)[np.triu_indices(count, 1)]
    assert length.max() == pytest.approx(longest)
    assert length.min() > 12.0
    itrf = array.on_ground(offset, instrument.ALMA.site)
    assert array.longest_baseline(itrf) == pytest.approx(longest, rel=1e-5)
    # 5 km above the sea: ALMA's own place, and no mirrored one.
    assert np.linalg.norm(itrf.mean(axis=0)) == pytest.approx(6.379e6, rel=1e-3)


def test_errors_have_the_size_that_was_asked_for(tmp_path: Path) -> None:
    options = {"antennas": 20, "integrations": 8, "scans": 6}
    for asked in (10.0, 40.0):
        plan = examples.make_plan(examples.preset("mira", {**options, "phase_rms": asked}))
        # The slow half has few independent values (20 antennas, two executions): 15 %.
        assert np.sqrt((plan.errors.phase_deg**2).mean()) == pytest.approx(asked, rel=0.15)
        # A path: phase and delay go together, but for each hand's own.
        path = plan.errors.phase_deg.mean(axis=2) / 360 / 229.6e9 * 1e9
        drift = plan.errors.delay_ns.mean(axis=2) - path
        assert drift.std() < 0.03


def test_what_an_example_settles_may_not_be_given() -> None:
    with pytest.raises(OptionError, match="--bright: --example mira settles this"):
        examples.preset("mira", {"bright": ("1@0,0",)})
    with pytest.raises(OptionError, match="the lines reach to channel 40"):
        examples.make_plan(examples.preset("maser", {"channels": 32}))
    with pytest.raises(OptionError, match="runs into the next"):
        examples.make_plan(examples.preset("mira", {"scans": 80}))


def test_almas_dishes_have_the_beam_that_mosaics_are_made_with() -> None:
    offset = np.radians(np.arange(0.0, 25.0, 1.0) / 3600)
    ours = beam.power(np.sin(offset), np.array(224.35e9), beam.ALMA_DISH)
    # CASA's formula for the blocked aperture differs by up to 1.1 % of the peak (primary_beam).
    assert np.allclose(ours, power_beam("ALMA", 12.0, 224.35e9, offset), atol=0.012)
    width = math.degrees(beam.half_power_width(224.35e9, beam.ALMA_DISH)) * 3600
    assert width == pytest.approx(1.13 * math.degrees(C / 224.35e9 / 12) * 3600, rel=0.03)
