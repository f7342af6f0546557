"""Where field and sun stand, against casacore's measures and numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.coordinates import FK5
from casacore.measures import measures
from casacore.quanta import quantity

from peelkit.core import horizon

VLA = (-1601185.4, -5041977.5, 3554875.9)
ALMA = (2225142.2, -5440307.4, -2481029.9)
START = 58000.0 * 86400.0


def frame_of(position: tuple[float, float, float], time_s: float) -> measures:
    machine = measures()
    machine.do_frame(machine.epoch("UTC", quantity(time_s, "s")))
    machine.do_frame(machine.position("ITRF", *(quantity(x, "m") for x in position)))
    return machine


@pytest.mark.parametrize("position", [VLA, ALMA])
@pytest.mark.parametrize("dec_deg", [-40.0, 2.0, 60.0])
@pytest.mark.parametrize("hours", [0.0, 5.0, 13.0])
def test_parallactic_angles_are_those_of_measures(position, dec_deg: float, hours: float) -> None:
    time_s = START + 3600 * hours
    ra, dec = 1.0, math.radians(dec_deg)
    where = horizon.site(position)
    assert where is not None
    found, _ = horizon.parallactic_range_deg(where, np.array([time_s]), ra, dec, FK5())
    machine = frame_of(position, time_s)
    seen = machine.measure(
        machine.direction("J2000", quantity(ra, "rad"), quantity(dec, "rad")), "APP"
    )
    zenith = machine.direction("AZELGEO", quantity(0, "deg"), quantity(90, "deg"))
    expected = machine.posangle(seen, zenith).get_value("deg")
    # Nutation, aberration and UT1 are left out: some 20", more near the zenith.
    assert (found - expected + 180) % 360 - 180 == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("hours", [0.0, 4.0, 8.0, 12.0, 16.0, 20.0])
def test_the_suns_elevation_is_that_of_measures(hours: float) -> None:
    time_s = START + 3600 * hours
    where = horizon.site(VLA)
    assert where is not None
    found = horizon.sun_elevation_deg(where, np.array([time_s]))[0]
    machine = frame_of(VLA, time_s)
    seen = machine.measure(machine.direction("SUN"), "AZELGEO")
    assert found == pytest.approx(math.degrees(seen["m1"]["value"]), abs=0.05)


def test_the_formula_of_the_lecture_by_hand() -> None:
    # On the meridian 0 south of the zenith, 180 north of it; a source on the equator seen from the pole
    # has 0 always; from the equator, one on the equator has 90 when it sets.
    angle = horizon.parallactic_angle_rad
    assert angle(0.6, np.array([0.0]), 0.1)[0] == pytest.approx(0.0)
    assert abs(angle(0.6, np.array([0.0]), 1.0)[0]) == pytest.approx(math.pi)
    assert angle(0.0, np.array([math.pi / 2]), 0.0)[0] == pytest.approx(math.pi / 2)
    # l = 30 deg, h = 90 deg, d = 0: tan chi = cos 30 / sin 30.
    assert math.degrees(angle(math.radians(30), np.array([math.pi / 2]), 0.0)[0]) == pytest.approx(
        60.0
    )


def test_a_range_goes_through_180_deg_and_not_round_the_circle() -> None:
    where = horizon.Site(math.radians(34.0), 0.0)
    times = START + np.arange(0, 86400.0, 600.0)
    dec = math.radians(60.0)
    up = np.array(
        [
            time
            for time in times
            if horizon.parallactic_range_deg(where, np.array([time]), 1.0, dec, FK5())[0] ** 2
            > 120**2
        ]
    )
    low, high = horizon.parallactic_range_deg(where, up, 1.0, dec, FK5())
    assert 110 < low < 180 < high < 250


def test_noon_is_when_the_sun_is_highest() -> None:
    where = horizon.site(VLA)
    assert where is not None
    times = START + np.arange(0, 86400.0, 300.0)
    highest = times[np.argmax(horizon.sun_elevation_deg(where, times))]
    # The equation of time is below 17 minutes.
    assert horizon.solar_hour(where, np.array([highest]))[0] == pytest.approx(12.0, abs=0.35)


def test_a_position_off_the_earth_has_no_site() -> None:
    assert horizon.site((0.0, 0.0, 0.0)) is None


def test_months() -> None:
    assert horizon.months(np.array([51544.0 * 86400, 51544.0 * 86400 + 40 * 86400])) == [1, 2]
