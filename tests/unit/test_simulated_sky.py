"""What is simulated, against sums that share no code with it: plain loops, astropy, quadrature."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from casacore.tables import table
from scipy.special import j0

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate import SimulateOptions, simulate
from peelkit.core.simulate_errors import drift
from peelkit.core.simulate_vis import gaussian_taper
from peelkit.progress import Progress

C = 299792458.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)
SMALL = {
    "antennas": 6, "integrations": 3, "spws": 2, "channels": 3, "faint": 4,
    "faint_flux": (0.2, 0.8),
}  # fmt: skip
ALL_OFF = {"without": ("errors", "noise"), "squint": False}


class Made:
    """A simulated MS, read whole."""

    def __init__(self, path: Path, **options: object) -> None:
        simulate(path, SimulateOptions(**{**SMALL, **options}), Progress())
        self.truth = json.loads(path.with_name(f"{path.name}.truth.json").read_text())
        with table(str(path), ack=False) as main:
            for name in ("DATA", "UVW", "TIME", "ANTENNA1", "ANTENNA2", "FIELD_ID", "WEIGHT",
                         "SIGMA", "DATA_DESC_ID", "FLAG", "SCAN_NUMBER"):  # fmt: skip
                setattr(self, name.lower(), main.getcol(name))
            self.columns = set(main.colnames())
        with table(f"{path}/SPECTRAL_WINDOW", ack=False) as sub:
            self.freq = sub.getcol("CHAN_FREQ")
        with table(f"{path}/FIELD", ack=False) as sub:
            self.centre = sub.getcol("PHASE_DIR")[:, 0]

    def lm(self, field: int) -> np.ndarray:
        """Direction cosines of the sources by astropy's offsets, shape (source, 2)."""
        centre = SkyCoord(*self.centre[field] * units.rad)
        found = []
        for source in self.truth["sources"]:
            place = SkyCoord(source["ra_deg"] * units.deg, source["dec_deg"] * units.deg)
            distance = centre.separation(place).rad
            angle = centre.position_angle(place).rad
            found.append((math.sin(distance) * math.sin(angle),
                          math.sin(distance) * math.cos(angle)))  # fmt: skip
        return np.array(found)


def aperture(sine: float, freq_hz: float) -> float:
    """Voltage pattern of a blocked disc by quadrature of its Hankel transform."""
    radius, inner = beam.APERTURE_M / 2, beam.BLOCKAGE_M / 2
    k = 2 * math.pi * freq_hz / C * sine
    r = inner + (radius - inner) * (NODES + 1) / 2
    value = (WEIGHTS * j0(k * r) * r).sum() * (radius - inner) / 2
    return value / ((radius**2 - inner**2) / 2)


def expected(made: Made, row: int, hand: int) -> np.ndarray:
    """One visibility by the written-out formula, with the errors that the truth file gives."""
    gains, truth = made.truth["gains"], made.truth
    when = int(np.argmin(np.abs(np.array(gains["times_s"]) - made.time[row])))
    freqs, reference = made.freq[made.data_desc_id[row]], truth["reference_hz"]
    u, v, w = made.uvw[row]
    arcsec = math.radians(1 / 3600)
    squint = np.array(gains["squint_arcsec"][when]) * (1 if hand == 0 else -1) * arcsec
    total = np.zeros(freqs.size, dtype=complex)
    lm = made.lm(made.field_id[row])
    for chan, freq in enumerate(freqs):
        for source, (east, north) in zip(truth["sources"], lm, strict=True):
            value = source["flux_jy"] * (freq / reference) ** source["spectral_index"]
            for antenna in (made.antenna1[row], made.antenna2[row]):
                off = np.array(gains["pointing_arcsec"][when][antenna]) * arcsec
                off = off + squint * reference / freq
                value *= aperture(math.hypot(east - off[0], north - off[1]), freq)
            up = math.sqrt(1 - east**2 - north**2) - 1
            total[chan] += value * np.exp(2j * np.pi * freq / C * (u * east + v * north + w * up))
        for antenna, sign in ((made.antenna1[row], 1), (made.antenna2[row], -1)):
            phase = math.radians(gains["phase_deg"][when][antenna][hand])
            delay = 1e-9 * gains["delay_ns"][when][antenna][hand]
            phase += 2 * math.pi * delay * (freq - reference)
            total[chan] *= gains["amplitude"][when][antenna][hand] * np.exp(1j * sign * phase)
    return total


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Perfect antennas, no noise."""
    return Made(tmp_path_factory.mktemp("sim") / "plain.ms", **ALL_OFF)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All errors, no noise, four correlations, three fields."""
    return Made(
        tmp_path_factory.mktemp("sim") / "wrong.ms", without=("noise",), correlations=4, fields=3,
        scans=2, pointing_rms=60.0, delay_rms=1.0,
    )  # fmt: skip


# ---------------------------------------------------------------- visibilities


def test_visibilities_are_the_direct_sum_through_the_beam(plain: Made) -> None:
    scale = np.abs(plain.data).max()
    for row in range(0, len(plain.time), 7):
        for hand in (0, 1):
            # DATA is single precision: 6e-8 of a value, and the sum is as exact as the double's.
            error = np.abs(plain.data[row, :, hand] - expected(plain, row, hand))
            assert error.max() < 1e-6 * scale


def test_gains_delays_and_pointing_of_the_truth_make_the_data(wrong: Made) -> None:
    scale = np.abs(wrong.data).max()
    assert set(wrong.field_id) == {0, 1, 2}
    for row in range(0, len(wrong.time), 43):
        for hand, corr in ((0, 0), (1, 3)):
            error = np.abs(wrong.data[row, :, corr] - expected(wrong, row, hand))
            assert error.max() < 1e-6 * scale
    assert not wrong.data[:, :, 1:3].any()  # the cross hands hold noise only


def test_a_gaussian_is_the_sum_of_the_points_that_fill_it() -> None:
    # Truth: a grid of points under a Gaussian of 20" x 10" at position angle 30 deg.
    major, minor, angle = 20 * sky.ARCSEC, 10 * sky.ARCSEC, math.radians(30)
    side = np.linspace(-45, 45, 181) * sky.ARCSEC
    east, north = np.meshgrid(side, side)
    along = east * math.sin(angle) + north * math.cos(angle)
    across = east * math.cos(angle) - north * math.sin(angle)
    weight = np.exp(-4 * math.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
    weight /= weight.sum()
    uv = np.array([[300.0, 0.0], [0.0, 500.0], [400.0, 700.0], [-400.0, 700.0]])
    freq = np.array([2e9, 3.5e9])
    found = gaussian_taper(uv, freq, np.array([major, minor, angle]))
    for row, (u, v) in enumerate(uv):
        for chan, f in enumerate(freq):
            points = (weight * np.exp(2j * np.pi * f / C * (u * east + v * north))).sum()
            assert found[row, chan] == pytest.approx(points.real, abs=1e-6)
    assert found.min() > 0.05 and found.max() < 0.95  # they are resolved, and not away


def test_extended_sources_are_points_times_their_taper(tmp_path: Path) -> None:
    one = {**ALL_OFF, "faint": 0, "bright": ("2@3,-2",)}
    point = Made(tmp_path / "p.ms", **one)
    gaussian = Made(tmp_path / "g.ms", **one, bright_shape="gaussian:6")
    length = np.hypot(*gaussian.uvw[:, :2].T)
    freq = gaussian.freq[gaussian.data_desc_id]
    sigma = 6 * sky.ARCSEC / math.sqrt(8 * math.log(2))
    taper = np.exp(-2 * (math.pi * sigma * length[:, None] * freq / C) ** 2)
    assert np.allclose(gaussian.data, point.data * taper[..., None], atol=1e-6)
    double = Made(tmp_path / "d.ms", **one, bright_shape="double")
    assert sum(source["flux_jy"] for source in double.truth["sources"]) == pytest.approx(2.0)
    assert [source["name"] for source in double.truth["sources"]] == [
        "BRIGHT_1A", "BRIGHT_1B", "BRIGHT_1C",
    ]  # fmt: skip


# ---------------------------------------------------------------- noise and weights


def test_noise_is_what_the_radiometer_equation_says(tmp_path: Path) -> None:
    made = Made(
        tmp_path / "n.ms", without=("bright", "faint", "errors"), integrations=20, antennas=12,
        correlations=4, sefd=500.0, integration=2.0,
    )  # fmt: skip
    sigma = 500.0 / (0.93 * math.sqrt(2 * (128e6 / 3) * 2.0))
    assert made.truth["noise_jy"] == pytest.approx(sigma)
    values = made.data.reshape(-1, 4)
    for corr in range(4):
        for part in (values[:, corr].real, values[:, corr].imag):
            # The rms of n values scatters by 1 / sqrt(2 n): 4 of these.
            assert part.std() == pytest.approx(sigma, rel=4 / math.sqrt(2 * part.size))
            assert abs(part.mean()) < 4 * sigma / math.sqrt(part.size)
    assert np.allclose(made.weight, 1 / sigma**2) and np.allclose(made.sigma, sigma)
    assert made.weight.shape == (len(made.time), 4)
    # A naturally weighted image of Stokes I averages both parallel hands of all rows.
    parallel = values.reshape(-1, 3, 4)[:, :, [0, 3]].size
    assert made.truth["rms_thermal_jy_beam"] == pytest.approx(sigma / math.sqrt(parallel))


def test_no_sefd_is_no_noise_and_unit_weights(tmp_path: Path) -> None:
    made = Made(tmp_path / "n.ms", without=("bright", "faint"), sefd=0.0)
    assert not made.data.any()
    assert np.all(made.weight == 1) and made.truth["rms_thermal_jy_beam"] == 0


# ---------------------------------------------------------------- seeds


def test_the_same_seed_makes_the_same_data_and_another_does_not(tmp_path: Path) -> None:
    one, same = (Made(tmp_path / name, seed=5) for name in ("a.ms", "b.ms"))
    other = Made(tmp_path / "c.ms", seed=6)
    assert np.array_equal(one.data, same.data) and one.truth == same.truth
    assert not np.allclose(one.data, other.data, rtol=0.1)
    assert one.truth["gains"]["phase_deg"] != other.truth["gains"]["phase_deg"]


def test_what_is_left_out_leaves_all_else_as_it_was(tmp_path: Path) -> None:
    whole = Made(tmp_path / "whole.ms")
    parts = {
        name: Made(tmp_path / f"{name}.ms", without=(name,))
        for name in ("bright", "faint", "errors", "noise")
    }
    # The sky is a sum, and the noise is added last.
    quiet = {
        name: Made(tmp_path / f"quiet_{name}.ms", without=(name, "noise"))
        for name in ("bright", "faint")
    }
    sky_only = quiet["bright"].data + quiet["faint"].data
    assert np.allclose(parts["noise"].data, sky_only, atol=1e-5)
    noise = whole.data - parts["noise"].data
    assert noise.std() > 1e-3
    for name in ("bright", "faint"):
        assert np.allclose(parts[name].data, quiet[name].data + noise, atol=1e-5)
        assert parts[name].truth["gains"] == whole.truth["gains"]
    no_errors = Made(tmp_path / "quiet_errors.ms", without=("errors", "noise"))
    assert np.allclose(parts["errors"].data, no_errors.data + noise, atol=1e-5)
    assert parts["errors"].truth["sources"] == whole.truth["sources"]
    names = {source["name"] for source in whole.truth["sources"]}
    assert {source["name"] for source in parts["bright"].truth["sources"]} == names - {"BRIGHT_1"}
    assert np.allclose(parts["noise"].weight, whole.weight)


# ---------------------------------------------------------------- beams and fields


def test_the_beam_is_a_blocked_aperture_that_scales_with_frequency() -> None:
    for freq in (1.5e9, 3e9):
        for arcmin in (0.0, 3.0, 8.0, 20.0):
            sine = math.sin(math.radians(arcmin / 60))
            assert beam.voltage(np.array(sine), np.array(freq)) == pytest.approx(
                aperture(sine, freq), abs=1e-9
            )
    # A plain disc has 1.03 wavelengths over the diameter; the blockage makes it 1 % narrower.
    width = beam.half_power_width(3e9)
    assert width == pytest.approx(1.02 * C / 3e9 / 25.0, rel=0.01)
    assert beam.half_power_width(1.5e9) == pytest.approx(2 * width, rel=1e-5)


def test_the_beam_is_close_to_that_of_casa() -> None:
    # tclean 6.7, TELESCOPE_NAME EVLA, gridder standard, 3 GHz: .pb at multiples of 86.1 arcsec.
    casa = [0.974, 0.898, 0.781, 0.637, 0.482, 0.334, 0.207]
    sine = np.sin(np.radians(np.arange(1, 8) * 86.1 / 3600))
    assert beam.TELESCOPE == "EVLA"
    assert np.allclose(beam.power(sine, np.array(3e9)), casa, rtol=0.04)


def test_squint_makes_a_source_brighter_in_the_hand_whose_beam_is_nearer(tmp_path: Path) -> None:
    alone = {"without": ("errors", "noise"), "faint": 0}
    first = Made(tmp_path / "first.ms", **alone)
    # Turn the source to where the R beam points: by the truth's own squint direction.
    east, north = np.array(first.truth["gains"]["squint_arcsec"][0])
    size = math.hypot(east, north)
    width = math.degrees(beam.half_power_width(3e9)) * 3600
    assert 2 * size == pytest.approx(0.06 * width, rel=0.01)
    place = f"1@{5 * east / size:.6f},{5 * north / size:.6f}"
    towards = Made(tmp_path / "r.ms", **alone, bright=(place,))
    none = Made(tmp_path / "n.ms", **alone, bright=(place,), squint=False)
    right, left, both = (
        np.abs(made.data[..., hand]).mean()
        for made, hand in ((towards, 0), (towards, 1), (none, 0))
    )
    assert right > 1.05 * both and left < 0.95 * both
    assert np.array_equal(none.data[..., 0], none.data[..., 1])


def test_each_field_sees_the_bright_source_through_its_own_beam(tmp_path: Path) -> None:
    made = Made(
        tmp_path / "m.ms",
        fields=12,
        scans=2,
        integrations=2,
        spws=1,
        channels=1,
        faint=0,
        **ALL_OFF,
    )
    source = made.truth["sources"][0]
    assert len(source["apparent_flux_jy"]) == 12
    for field, apparent in enumerate(source["apparent_flux_jy"]):
        # A lone point: every visibility has its apparent flux; one channel at the reference.
        seen = np.abs(made.data[made.field_id == field])
        assert np.allclose(seen, apparent, rtol=1e-5)
        assert len(set(made.scan_number[made.field_id == field])) == 2
    assert max(source["apparent_flux_jy"]) > 0.8 * source["flux_jy"]
    centres = SkyCoord(*made.centre.T * units.rad)
    nearest = [sorted(centres.separation(place).arcmin)[1] for place in centres]
    half = math.degrees(beam.half_power_width(3e9)) * 30
    assert np.allclose(nearest, half, rtol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 7, 12, 19, 40])
def test_a_mosaic_is_hexagonal_about_its_middle(count: int) -> None:
    points = np.array(sky.mosaic(count, 2.0))
    assert points.shape == (count, 2)
    assert np.allclose(points.mean(axis=0), 0)
    distance = np.hypot(*(points[:, None] - points[None]).T) + 99 * np.eye(count)
    if count > 1:
        assert np.allclose(distance.min(axis=0), 2.0)


def test_faint_sources_lie_apart_and_some_close_to_the_bright_one(tmp_path: Path) -> None:
    made = Made(tmp_path / "f.ms", faint=45, faint_flux=(1e-3, 3e-2), antennas=27, integrations=1)
    bright, *faint = made.truth["sources"]
    assert [bright["name"], bright["bright"]] == ["BRIGHT_1", True] and len(faint) == 45
    places = SkyCoord([s["ra_deg"] for s in made.truth["sources"]],
                      [s["dec_deg"] for s in made.truth["sources"]], unit="deg")  # fmt: skip
    distance = places[0].separation(places[1:]).arcmin
    assert 5 <= (distance < 2.0).sum() <= 15
    assert all(sorted(place.separation(places).arcsec)[1] > 20 for place in places)
    flux = np.array([source["flux_jy"] for source in faint])
    assert flux.min() >= 1e-3 and flux.max() <= 3e-2
    # Uniform in the logarithm: half of them below the geometric mean.
    assert 12 <= (flux < math.sqrt(3e-5)).sum() <= 33


# ---------------------------------------------------------------- array, time, errors


def test_pads_lie_where_the_vla_has_them() -> None:
    # Of CASA's list of pads: distance and azimuth from the centre of the Y.
    real = {("W", 18): (1946.0, 236.0), ("E", 8): (484.1, 115.0), ("N", 4): (134.8, 355.0),
            ("E", 1): (80.0, 174.9), ("W", 64): (17157.4, 236.0), ("N", 72): (18935.6, 355.0)}  # fmt: skip
    for pad, (distance, azimuth) in real.items():
        (position,) = array.positions([pad])
        offset = position - np.array(array.CENTRE_M)
        east = offset @ [-math.sin(array.LONGITUDE), math.cos(array.LONGITUDE), 0]
        length = np.linalg.norm(offset)
        assert length == pytest.approx(distance, rel=0.003)
        assert east == pytest.approx(distance * math.sin(math.radians(azimuth)), abs=0.004 * length)
    sizes = {
        config: array.longest_baseline(array.positions(array.pads(config, 27))) for config in "ABCD"
    }
    assert sizes["A"] / sizes["B"] == pytest.approx(3.285, rel=1e-3)
    assert sizes["C"] == pytest.approx(3.4e3, rel=0.02)
    for count in (2, 5, 9, 14, 26, 27):
        assert len(set(array.pads("C", count))) == count


def test_the_observation_starts_an_hour_before_transit(plain: Made) -> None:
    hour = array.sidereal_angle(plain.time.min()) + array.LONGITUDE - plain.centre[0, 0]
    hours = math.remainder(hour, 2 * math.pi) * 12 / math.pi
    assert hours == pytest.approx(-1.0, abs=0.01)


def test_rows_are_in_order_of_time_spw_and_baseline(plain: Made) -> None:
    key = [plain.time, plain.data_desc_id, plain.antenna1, plain.antenna2]
    assert np.array_equal(np.lexsort(key[::-1]), np.arange(plain.time.size))
    assert plain.time.size == 3 * 2 * 15
    assert not plain.flag.any()
    assert {"DATA", "FLAG_CATEGORY"} <= plain.columns
    assert not {"MODEL_DATA", "CORRECTED_DATA", "WEIGHT_SPECTRUM"} & plain.columns


def test_drifts_have_unit_variance_and_their_correlation_time() -> None:
    time = np.arange(0, 600, 20.0)
    found = drift(time, (2000,), 100.0, np.random.default_rng(3))
    # 2000 independent ones: the variance of one time scatters by sqrt(2 / 2000) = 3 %.
    assert np.allclose(found.var(axis=1), 1.0, atol=0.13)
    for lag in (1, 5, 10):
        product = (found[:-lag] * found[lag:]).mean()
        assert product == pytest.approx(math.exp(-0.5 * (20.0 * lag / 100.0) ** 2), abs=0.05)


def test_a_drift_does_not_depend_on_how_it_is_sampled() -> None:
    fine = drift(np.arange(0, 100, 5.0), (3,), 50.0, np.random.default_rng(1))
    coarse = drift(np.arange(0, 100, 10.0), (3,), 50.0, np.random.default_rng(1))
    assert np.allclose(fine[::2], coarse)


def test_spws_fill_the_band_and_do_not_overlap() -> None:
    band = array.BANDS["S"]
    for count in (1, 4, 16, 20):
        freq = array.spectral_windows(band, count, 8)
        width = array.channel_width(band, count, 8)
        assert width == pytest.approx(min(16e6, 2e9 / count / 8))
        edges = [(f[0] - width / 2, f[-1] + width / 2) for f in freq]
        assert edges[0][0] >= 2e9 - 1 and edges[-1][1] <= 4e9 + 1
        assert all(a[1] <= b[0] + 1 for a, b in itertools.pairwise(edges))
