"""Error processes by name: their statistics against the formulas that they are said to follow."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_processes as processes
from peelkit.core.simulate import SimulateOptions, simulate
from peelkit.core.simulate_errors import no_errors
from peelkit.errors import OptionError
from peelkit.progress import Progress

C = 299792458.0
TIMES = np.arange(120) * 10.0
N_ANTENNA = 200
SMALL = {"antennas": 5, "integrations": 6, "spws": 1, "channels": 8, "faint": 2, "phase_rms": 0.0}


def setting(times: np.ndarray = TIMES, n_antenna: int = N_ANTENNA) -> processes.Setting:
    place = np.random.default_rng(5).uniform(-1500, 1500, (n_antenna, 2))
    elevation = np.linspace(math.radians(20), math.radians(80), times.size)
    return processes.Setting(times, place, elevation, 3e9)


def drawn(text: str, at: processes.Setting | None = None, seed: int = 3):
    at = at or setting()
    begin = no_errors(at.time_s.size, at.place_m.shape[0])
    return processes.add(begin, processes.parse((text,)), at, np.random.default_rng(seed))


def correlation(values: np.ndarray, lag: int) -> float:
    return float((values[lag:] * values[:-lag]).mean() / (values**2).mean())


def test_smooth_phases_have_their_rms_and_a_gaussian_correlation() -> None:
    found = drawn("smooth:phase=15,time=100,amplitude=0.1")
    assert found.phase_deg.std() == pytest.approx(15, rel=0.05)
    assert np.log(found.amplitude).std() == pytest.approx(0.1, rel=0.05)
    for lag in (5, 10):
        wanted = math.exp(-0.5 * (lag / 10) ** 2)
        assert correlation(np.log(found.amplitude), lag) == pytest.approx(wanted, abs=0.05)
    # A tenth of the variance is each hand's own.
    hands = [found.phase_deg[..., hand].ravel() for hand in (0, 1)]
    assert np.corrcoef(*hands)[0, 1] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("kind", ["walk", "steps"])
def test_a_walk_and_steps_lose_their_memory_exponentially(kind: str) -> None:
    found = drawn(f"{kind}:phase=25,time=200,amplitude=0.2")
    assert found.phase_deg.std() == pytest.approx(25, rel=0.06)
    assert np.log(found.amplitude).std() == pytest.approx(0.2, rel=0.06)
    for lag in (1, 10, 20):
        wanted = math.exp(-lag * 10 / 200)
        assert correlation(found.phase_deg, lag) == pytest.approx(wanted, abs=0.05)
        assert correlation(np.log(found.amplitude), lag) == pytest.approx(wanted, abs=0.05)


def test_steps_stay_where_they_are_between_jumps_at_random_times() -> None:
    phase = drawn("steps:phase=25,time=200").phase_deg
    changed = np.diff(phase, axis=0) != 0
    # Poisson: in 10 s there is a jump with probability 1 - exp(-10 / 200).
    assert changed.mean() == pytest.approx(1 - math.exp(-0.05), rel=0.05)


def test_turbulence_has_a_structure_function_to_the_power_of_five_thirds() -> None:
    rng = np.random.default_rng(1)
    # Far below the thickness of the turbulent layer, 1 km, where it goes over into the 2/3, and above its smallest eddies, 5 m.
    distances = np.array([20.0, 40.0, 80.0, 160.0])
    place = np.concatenate([[[0.0, 0.0]], np.stack([distances, 0 * distances], axis=1)])
    place = np.concatenate([place, rng.uniform(-1500, 1500, (30, 2))])
    structure = np.zeros(distances.size)
    for seed in range(60):
        at = processes.Setting(TIMES[::10], place, np.ones(12), 3e9)
        phase = processes.kolmogorov(at, np.random.default_rng(seed))
        structure += ((phase[:, 1:5] - phase[:, :1]) ** 2).mean(axis=0)
    exponent = np.polyfit(np.log(distances), np.log(structure), 1)[0]
    assert exponent == pytest.approx(5 / 3, abs=0.15)


def test_turbulence_is_a_path_and_has_its_rms_about_the_mean_of_the_antennas() -> None:
    found = drawn("kolmogorov:phase=40")
    assert found.phase_deg.std() == pytest.approx(40, rel=1e-6)
    assert np.abs(found.phase_deg.mean(axis=1)).max() < 1e-9
    # Twice the frequency, twice the phase.
    gains = found.gains(7, np.array([1.5e9, 3e9]), 3e9)
    wanted = np.exp(1j * np.radians(found.phase_deg[7][..., None] * [0.5, 1.0]))
    assert gains == pytest.approx(wanted, abs=1e-9)


def test_turbulence_is_blown_over_the_array() -> None:
    # In the direction of the wind, an antenna sees what the one before it saw.
    at = setting(np.arange(40) * 5.0)
    screen = processes.make_screen(np.random.default_rng(3))
    behind = np.zeros((1, 2)) + screen.wind_m_s * 50.0
    before = screen.phase(at.time_s, np.zeros((1, 2)))
    after = screen.phase(at.time_s, behind)
    assert after[10:, 0] == pytest.approx(before[:-10, 0], abs=1e-6)


def test_bad_antennas_are_few_and_bad() -> None:
    found = drawn("bad-antennas:phase=90,amplitude=0.5,time=60", setting(n_antenna=26))
    rms = found.phase_deg.std(axis=(0, 2))
    assert np.count_nonzero(rms) == 2
    assert rms[rms > 0] == pytest.approx(90, rel=0.35)
    assert np.array_equal(np.log(found.amplitude).std(axis=(0, 2)) > 0, rms > 0)


def test_scintillation_is_the_ionospheres() -> None:
    found = drawn("scintillation:phase=12,amplitude=0.1,time=40")
    assert found.phase_deg.std() == 0
    assert found.dispersive_deg.std() == pytest.approx(12, rel=0.05)
    amplitude = np.log(found.amplitude)
    assert amplitude.std() == pytest.approx(0.1, rel=0.05)
    assert np.corrcoef(found.dispersive_deg.ravel(), amplitude.ravel())[0, 1] == pytest.approx(
        0.5, abs=0.05
    )
    assert np.array_equal(found.dispersive_deg[..., 0], found.dispersive_deg[..., 1])
    assert correlation(found.dispersive_deg, 4) == pytest.approx(math.exp(-1), abs=0.05)
    # Half the frequency, twice the phase.
    gain = found.gains(3, np.array([1.5e9]), 3e9)[0, 0, 0]
    assert np.angle(gain) == pytest.approx(np.radians(2 * found.dispersive_deg[3, 0, 0]))


def test_jitter_is_new_in_each_integration() -> None:
    found = drawn("jitter:phase=6,amplitude=0.05")
    assert found.phase_deg.std() == pytest.approx(6, rel=0.02)
    assert np.log(found.amplitude).std() == pytest.approx(0.05, rel=0.02)
    assert abs(correlation(found.phase_deg, 1)) < 0.02


def test_gains_fall_with_the_square_of_the_zenith_angle() -> None:
    at = setting(n_antenna=4000)
    amplitude = np.log(drawn("elevation:amplitude=0.2", at).amplitude)
    zenith = 90 - np.degrees(at.elevation)
    assert amplitude.std(axis=(1, 2)) == pytest.approx(0.2 * (zenith / 45) ** 2, rel=0.05)
    assert amplitude[3] / amplitude[-1] == pytest.approx((zenith[3] / zenith[-1]) ** 2)


def test_processes_add_up() -> None:
    at, rng = setting(n_antenna=4), np.random.default_rng(2)
    begin = no_errors(at.time_s.size, 4)
    one = processes.add(begin, processes.parse(("walk",)), at, rng)
    both = processes.add(
        one, processes.parse(("jitter:amplitude=0.1",)), at, np.random.default_rng(9)
    )
    jitter = processes.add(
        begin, processes.parse(("jitter:amplitude=0.1",)), at, np.random.default_rng(9)
    )
    assert both.phase_deg == pytest.approx(one.phase_deg + jitter.phase_deg)
    assert both.amplitude == pytest.approx(one.amplitude * jitter.amplitude)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wlak", "no such kind; there are smooth, walk"),
        ("jitter:time=3", "jitter has no 'time'; it has phase, amplitude"),
        ("walk:phase=x", "phase must be a number from 0"),
        ("walk:time=0", "time must be a number above 0"),
        ("walk:phase=nan", "phase must be a number from 0"),
        ("walk:20", "walk has no '20'"),
    ],
)
def test_what_is_no_process_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError, match="--errors") as error:
        processes.parse((text,))
    assert said in str(error.value)


def made(path: Path, **options: object) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray]:
    simulate(path, SimulateOptions(**{**SMALL, **options}), Progress())
    truth = json.loads(path.with_name(f"{path.name}.truth.json").read_text())
    with table(str(path), ack=False) as main:
        return truth, *(main.getcol(name) for name in ("DATA", "WEIGHT", "SIGMA"))


def test_the_truth_has_what_was_put_in(tmp_path: Path) -> None:
    truth, *_ = made(
        tmp_path / "a.ms",
        errors=("walk:time=50", "scintillation"),
        beam="gaussian",
        weights_scale=1e6,
    )
    assert truth["errors"][0] == {"kind": "walk", "phase_deg": 20, "amplitude": 0, "time_s": 50}
    assert truth["beam"] == "gaussian" and truth["weights_scale"] == 1e6
    assert np.array(truth["gains"]["dispersive_deg"]).std() > 3
    truth, *_ = made(tmp_path / "b.ms", errors=("walk",), without=("errors",))
    assert truth["errors"] == [] and np.ptp(truth["gains"]["phase_deg"]) == 0


def test_the_gains_in_the_truth_are_those_in_the_data(tmp_path: Path) -> None:
    options = {"errors": ("walk", "scintillation", "kolmogorov"), "without": ("noise", "faint"),
               "pointing_rms": 0.0}  # fmt: skip
    truth, data, *_ = made(tmp_path / "a.ms", **options)
    _, perfect, *_ = made(tmp_path / "b.ms", **options | {"without": ("noise", "faint", "errors")})
    gains = {
        key: np.array(value)[2]
        for key, value in truth["gains"].items()
        if key.endswith(("_deg", "_ns", "tude"))
    }
    freq = 3e9 + (np.arange(8) - 3.5) * 16e6
    phase = np.radians(
        gains["phase_deg"][..., None] + gains["dispersive_deg"][..., None] * 3e9 / freq
    )
    phase = phase + 2 * math.pi * gains["delay_ns"][..., None] * 1e-9 * (freq - 3e9)
    g = gains["amplitude"][..., None] * np.exp(1j * phase)
    one, two = np.triu_indices(5, 1)
    ratio = (data / perfect)[20:30]
    assert ratio == pytest.approx((g[one] * g[two].conj()).swapaxes(1, 2), rel=1e-4)


def test_weights_of_a_wrong_scale_leave_the_data_alone(tmp_path: Path) -> None:
    _, right, weight, _ = made(tmp_path / "a.ms")
    truth, wrong, scaled, sigma = made(tmp_path / "b.ms", weights_scale=1e-3)
    assert np.array_equal(right, wrong)
    assert weight == pytest.approx(1 / truth["noise_jy"] ** 2)
    assert scaled == pytest.approx(1e-3 * weight) and sigma == pytest.approx(scaled**-0.5)


def test_noise_of_neighbouring_channels_is_correlated_as_asked(tmp_path: Path) -> None:
    options = {"antennas": 20, "integrations": 12}
    _, quiet, *_ = made(tmp_path / "q.ms", **options, without=("noise",))
    truth, data, *_ = made(tmp_path / "a.ms", **options, noise_correlation=0.6)
    noise = (data - quiet) / truth["noise_jy"]
    assert noise.real.std() == pytest.approx(1, rel=0.02)
    assert noise.imag.std(axis=(0, 2)) == pytest.approx(np.ones(8), rel=0.06)
    for lag in (1, 2):
        together = (noise[:, lag:].conj() * noise[:, :-lag]).mean().real / 2
        assert together == pytest.approx(0.6**lag, abs=0.03)
    assert abs((noise[1:].conj() * noise[:-1]).mean()) < 0.03


def test_a_gaussian_beam_has_the_width_of_the_dish_and_no_sidelobes() -> None:
    round_one, smooth = beam.VLA_DISH, beam.Dish(beam.APERTURE_M, beam.BLOCKAGE_M, gaussian=True)
    for freq in (2e9, 4e9):
        width = beam.half_power_width(freq, round_one)
        assert beam.half_power_width(freq, smooth) == pytest.approx(width, rel=1e-3)
        sine = np.array([0.25, 0.5, 1.0]) * width
        wanted = 0.5 ** (4 * np.array([0.0625, 0.25, 1.0]))
        assert beam.power(sine, np.array(freq), smooth) == pytest.approx(wanted, rel=1e-3)


def test_pads_are_where_the_array_has_them() -> None:
    pads = array.pads("C", 27)
    assert np.linalg.norm(array.offsets(pads), axis=1).max() == pytest.approx(1946, rel=1e-6)
