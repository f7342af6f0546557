"""Calibrating on a known source, against gains that were put in by formula."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table
from click.testing import CliRunner

from makecal import corrupt, noise_left
from makems import MsRecipe, make_ms
from peelkit.cli.main import cli
from peelkit.engines.casa import Casa
from peelkit.io.caltable import read_cal_table

pytestmark = pytest.mark.casa

SIGMA = 0.1


def results(path: str = "x.ms.selfcal.peelkit.json") -> dict:
    return json.loads(Path(path).read_text())["results"]


def column(path: str, name: str) -> np.ndarray:
    with table(path, ack=False) as main:
        return main.getcol(name)


def test_the_practical_demonstration_of_the_lecture_leaves_nothing_but_noise(
    invoke, tmp_path: Path
) -> None:
    # Marvil, seed 001: 27 antennas, 64 channels at 3 GHz, delay, bandpass and gain against 1 Jy.
    path = tmp_path / "x.ms"
    make_ms(path, MsRecipe(n_antenna=27, n_scan=1, n_time=6, n_chan=(64,), chan_width_hz=2e6))
    truth = corrupt(path, fluxes_jy={0: 1.0}, sigma_jy=SIGMA)
    before = column("x.ms", "DATA")
    said = invoke(
        "selfcal", "x.ms", "--model", "point:1.0Jy", "--term", "K", "--term", "B", "--term", "G",
        "--out", "x.cal",
    )  # fmt: skip
    record = results()
    assert [item["term"] for item in record["terms"]] == ["K", "B", "G"]
    assert all(item["solutions_failed"] == 0 for item in record["terms"])
    assert "phases every int" in said.stdout
    # 27 antennas x 64 channels x 2 complex values are fitted to 351 x 64 x 6: 2.6 % of the freedom.
    left = noise_left(path, truth, {0: 1.0})[0]
    freedom = 1 - 27 * 64 / (351 * 64 * 6)
    assert left == pytest.approx(SIGMA * math.sqrt(freedom), rel=0.01)
    # Each term recovers its own part: delays to their noise, sigma_phase / (2 pi rms bandwidth).
    jones = truth[1, 0]
    freq = 3e9 + 2e6 * np.arange(64)
    delays = read_cal_table(Path("x.cal/K.cal"))
    refant = int(np.flatnonzero(np.all(delays.parts[0].values[:, 0] == 0, axis=1))[0])
    phase = np.unwrap(np.angle(jones * jones[refant].conj()), axis=1)
    x = (freq - freq.mean())[None, :, None]
    slope_ns = 1e9 * (phase * x).sum(axis=1) / (x**2).sum() / (2 * math.pi)
    found = delays.parts[0].values[np.argsort(delays.parts[0].antenna), 0].real
    # An antenna has 26 baselines x 6 times x 64 channels; the refant's own noise comes on top. The
    # bandpass's amplitude weighs channels, which shifts the slope of its phases by some 0.1 ns.
    sigma_ns = 1e9 * SIGMA / math.sqrt(26 * 6 * 64) * math.sqrt(2) / (2 * math.pi * 37e6)
    assert np.abs(found - slope_ns).max() < 0.3 + 5 * sigma_ns
    # The corrected spectrum is flat, and DATA is as it was.
    check = record["check"][0]
    assert check["amplitude_ratio"] == pytest.approx(1, abs=1e-3)
    assert check["spectrum_scatter_percent"] < check["spectrum_noise_percent"]
    assert np.array_equal(column("x.ms", "DATA"), before)
    for name in ("K.delays", "B.amplitude", "B.phase", "G.phase", "G.amplitude", "G.snr"):
        assert Path(f"x.cal/{name}.png").stat().st_size > 10_000
    invoke("undo", "x.ms")
    with table("x.ms", ack=False) as main:
        assert not {"CORRECTED_DATA", "MODEL_DATA"} & set(main.colnames())


# Flux calibrator, gain calibrator and target in turn: scans 1 and 4, 2 and 5, 3.
FLUXES = {0: 10.0, 1: 2.5, 2: 0.5}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory):
    """Folder with an MS of three sources in turn, calibrated on two of them; and the truth."""
    folder = tmp_path_factory.mktemp("cal")
    make_ms(folder / "raw.ms", MsRecipe(n_antenna=12, n_scan=5, n_time=6, n_chan=(8, 8), n_field=3))
    truth = corrupt(folder / "raw.ms", fluxes_jy=FLUXES, sigma_jy=SIGMA, phase_step_deg=0.0, seed=3)
    path = folder / "day.ms"
    shutil.copytree(folder / "raw.ms", path)
    flux, gain = str(folder / "flux.cal"), str(folder / "gain.cal")
    for words in (
        ["--field", "0", "--model", "point:10Jy", "--term", "B", "--term", "G", "--out", flux],
        ["--field", "field1", "--model", "point:1Jy", "--term", "G", "--pre", flux, "--flux-from", flux,
         "--apply-to", "field2", "--out", gain, "--overwrite"],
    ):  # fmt: skip
        result = CliRunner().invoke(
            cli, ["selfcal", str(path), *words, "--no-plots"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.stderr
    return folder, truth


def test_the_flux_scale_goes_from_one_calibrator_to_the_other_and_to_the_target(
    day,
) -> None:
    folder, truth = day
    record = results(f"{folder}/day.ms.selfcal.peelkit.json")
    for item in record["flux"]:
        # Noise of one gain: sigma / (S sqrt(11 baselines x 8 channels x 6 times)) = 0.2 %; the flux is its
        # square, over 24 antennas and polarisations. A tenth of a per cent is 3 sigma of 2.5 Jy.
        assert item["flux_jy"] == pytest.approx(2.5, rel=2e-3)
        assert 0 < item["scatter_percent"] < 2
    # Calibrators and target come down to their noise, plus what the noise of the gains makes of them: for
    # the flux calibrator, whose bandpass is its own, a little less.
    left = noise_left(folder / "day.ms", truth, FLUXES)
    assert left[1] == pytest.approx(SIGMA, rel=0.02)
    assert left[2] == pytest.approx(SIGMA, rel=0.02)
    assert left[0] == pytest.approx(SIGMA, rel=0.06)
    assert {item["field"]: item["interp"] for item in record["applied"]} == {
        "field1": ["nearest", "nearest"],
        "field2": ["nearest", "linear"],
    }
    # MODEL_DATA: the calibrators' fluxes, and CASA's default for the target.
    model, field = (column(f"{folder}/day.ms", name) for name in ("MODEL_DATA", "FIELD_ID"))
    assert np.allclose(model[field == 0], 10) and np.allclose(model[field == 2], 1)
    assert np.abs(model[field == 1]).mean() == pytest.approx(2.5, rel=2e-3)


def test_gains_of_one_execution_are_not_mixed_with_those_of_the_next(invoke, day) -> None:
    # Scans 1 and 2 in one execution, 3 to 5 in another, between which all phases jump.
    folder, truth = day
    shutil.copytree(folder / "raw.ms", "two.ms")
    turn = np.exp(1j * np.random.default_rng(8).uniform(-np.pi, np.pi, (12, 1, 1)))
    jumped = {(scan, spw): j * (turn if scan > 2 else 1) for (scan, spw), j in truth.items()}
    with table("two.ms", readonly=False, ack=False) as main:
        later = main.getcol("SCAN_NUMBER") > 2
        pair = turn[main.getcol("ANTENNA1")] * turn[main.getcol("ANTENNA2")].conj()
        data = main.getcol("DATA")
        main.putcol("DATA", np.where(later[:, None, None], data * pair, data).astype(np.complex64))
        main.putcol("OBSERVATION_ID", later.astype(np.int32))
    with table("two.ms/OBSERVATION", readonly=False, ack=False) as sub:
        sub.copyrows(sub, startrowout=1, nrow=1)
    invoke(
        "selfcal", "two.ms", "--field", "field1", "--model", "point:2.5Jy", "--term", "B", "--term", "G",
        "--apply-to", "field2", "--no-plots",
    )  # fmt: skip
    assert results("two.ms.selfcal.peelkit.json")["applied"][1]["interp"] == [
        "nearestperobs",
        "linearperobs",
    ]
    # The target in scan 3 gets the gains of scan 5, not what lies between those of 2 and 5. The noise of
    # the bandpass, of 2 x 6 integrations on 2.5 Jy, goes to the target's 0.5 Jy: a per mille.
    left = noise_left(Path("two.ms"), {k: v for k, v in jumped.items() if k[0] == 3}, FLUXES)
    assert left[2] == pytest.approx(SIGMA, rel=0.02)


def test_undo_takes_one_source_after_the_other_back(invoke, day) -> None:
    shutil.copytree(day[0] / "day.ms", "day.ms")
    field = column("day.ms", "FIELD_ID")
    first = column("day.ms", "CORRECTED_DATA")[field == 0]
    invoke("undo", "day.ms")
    now, data = column("day.ms", "CORRECTED_DATA"), column("day.ms", "DATA")
    assert np.array_equal(now[field == 0], first)
    assert np.array_equal(now[field != 0], data[field != 0])
    invoke("undo", "day.ms")
    with table("day.ms", ack=False) as main:
        assert not any("CORRECTED" in name or "MODEL" in name for name in main.colnames())


def permuted(source: Path, target: Path) -> None:
    """Copy an MS with its spws in the other order, and its antennas numbered backwards."""
    shutil.copytree(source, target)
    with table(f"{target}/SPECTRAL_WINDOW", readonly=False, ack=False) as sub:
        for name in ("NAME", "CHAN_FREQ", "REF_FREQUENCY"):
            cells = [sub.getcell(name, row) for row in (1, 0)]
            for row, cell in enumerate(cells):
                sub.putcell(name, row, cell)
    with table(f"{target}/ANTENNA", readonly=False, ack=False) as sub:
        n_ant = sub.nrows()
        for name in ("NAME", "STATION", "POSITION"):
            cells = [sub.getcell(name, row) for row in range(n_ant)]
            for row, cell in enumerate(reversed(cells)):
                sub.putcell(name, row, cell)
    with table(str(target), readonly=False, ack=False) as main:
        main.putcol("DATA_DESC_ID", 1 - main.getcol("DATA_DESC_ID"))
        for name in ("ANTENNA1", "ANTENNA2"):
            main.putcol(name, n_ant - 1 - main.getcol(name))


def test_solutions_fit_another_ms_whose_spws_and_antennas_are_numbered_otherwise(
    invoke, day
) -> None:
    folder, _ = day
    permuted(folder / "raw.ms", Path("other.ms"))
    said = invoke("selfcal", "other.ms", "--field", "2", "--apply", folder / "gain.cal")
    record = results("other.ms.selfcal.peelkit.json")
    assert record["applied"][0]["spwmap"] == [[1, 0], [1, 0]]
    assert "numbers" in said.stderr
    # The same solutions on the same data: the same result, to single precision.
    field = column("other.ms", "FIELD_ID")
    here, there = (column(path, "CORRECTED_DATA") for path in ("other.ms", f"{folder}/day.ms"))
    assert np.allclose(here[field == 2], there[field == 2], atol=1e-4)
    assert np.array_equal(here[field != 2], column("other.ms", "DATA")[field != 2])
    with table("other.ms", ack=False) as main:
        assert "MODEL_DATA" not in main.colnames()
    invoke("undo", "other.ms")
    with table("other.ms", ack=False) as main:
        assert "CORRECTED_DATA" not in main.colnames()


def test_phases_of_a_path_delay_are_scaled_to_another_frequency(invoke, tmp_path: Path) -> None:
    # The same path errors at 3 and 4.2 GHz: the same random numbers, phases in the ratio of the frequencies.
    ratio = 4.2e9 / 3e9
    common = {"n_antenna": 10, "n_scan": 1, "n_chan": (1,), "chan_width_hz": 1e6, "seed": 5}
    make_ms(tmp_path / "low.ms", MsRecipe(freq_hz=3e9, phase_rms_deg=20, **common))
    make_ms(
        tmp_path / "high.ms",
        MsRecipe(freq_hz=4.2e9, phase_rms_deg=20 * ratio, sigma_jy=1e-4, **common),
    )
    invoke(
        "selfcal", "low.ms", "--model", "point:1Jy", "--term", "G", "--calmode", "p", "--out", "low.cal",
        "--no-plots",
    )  # fmt: skip
    said = invoke("selfcal", "high.ms", "--apply", "low.cal/G.cal")
    assert "ratio 1.4" in said.stderr and "linearPD" in said.stdout
    # What is left is the noise of the solutions, 0.05 / sqrt(9 baselines x 12 times) rad, scaled, of two
    # antennas; of 20 independent ones. Unscaled phases would leave 0.4 x 20 deg x sqrt 2 = 0.2 rad.
    phase = np.angle(column("high.ms", "CORRECTED_DATA")[:, 0, :])
    mean = phase.reshape(12, -1).mean(axis=0)
    expected = ratio * math.sqrt(2) * 0.05 / math.sqrt(9 * 12)
    assert np.std(mean) == pytest.approx(expected, rel=0.35)


def test_tables_of_another_array_are_refused(invoke, day) -> None:
    folder, _ = day
    shutil.copytree(folder / "raw.ms", "array.ms")
    with table("array.ms/ANTENNA", readonly=False, ack=False) as sub:
        sub.putcell("NAME", 3, "pad9")
    refused = invoke("selfcal", "array.ms", "--apply", folder / "gain.cal", code=3)
    assert "no antenna pad9" in refused.stderr
    gone = invoke("selfcal", "array.ms", "--apply", "gone.cal", code=3)
    assert "gone.cal: no such calibration table" in gone.stderr
    other = invoke("selfcal", "array.ms", "--apply", "array.ms/ANTENNA", code=3)
    assert "only CASA's tables of types G, T, B and K" in other.stderr


def test_a_standard_source_has_the_flux_of_the_standard_in_every_spw(
    invoke, tmp_path: Path
) -> None:
    # A point seen from 1.94 to 2.1 GHz: model images of the bands L and S. Perley & Butler (2017), table 6:
    # log S = 1.2481 - 0.4507 x - 0.1798 x^2 + 0.0357 x^3 with x = log10(nu / GHz).
    recipe = MsRecipe(
        n_antenna=6, n_scan=1, n_time=2, n_chan=(2, 2), freq_hz=1.94e9, chan_width_hz=40e6
    )
    make_ms(tmp_path / "x.ms", recipe)
    with table("x.ms/FIELD", readonly=False, ack=False) as sub:
        for name in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            sub.putcell(name, 0, np.radians([[202.7845329, 30.5091550]]))
    invoke("selfcal", "x.ms", "--model", "standard", "--term", "G", "--out", "x.cal", "--no-plots")
    record = results()
    assert record["model"] == "3C286 (Perley-Butler 2017, 3C286_L.im, 3C286_S.im)"
    model, spw = column("x.ms", "MODEL_DATA"), column("x.ms", "DATA_DESC_ID")
    for item in record["flux"]:
        x = np.log10(1.94 + 0.04 * (2 * item["spw"] + np.array([0, 1])))
        expected = 10 ** (1.2481 - 0.4507 * x - 0.1798 * x**2 + 0.0357 * x**3)
        # setjy's flux is that of the reference channel; the source is resolved by less than a per mille here.
        assert item["flux_jy"] == pytest.approx(expected[0], rel=5e-3)
        found = np.abs(model[spw == item["spw"]]).mean(axis=(0, 2))
        assert found == pytest.approx(expected, rel=5e-3)


def test_a_virtual_model_of_setjy_does_not_stand_in_the_way(invoke, tmp_path: Path) -> None:
    # setjy makes one by default; CASA would take its 5 Jy in place of what is asked for here.
    make_ms(tmp_path / "x.ms", MsRecipe(n_antenna=6, n_scan=1, n_time=2, n_chan=(2,)))
    with Casa(tmp_path / "setjy.log") as casa:
        casa.run(
            "setjy", vis=str(tmp_path / "x.ms"), standard="manual", fluxdensity=[5, 0, 0, 0],
            usescratch=False,
        )  # fmt: skip
    said = invoke(
        "selfcal", "x.ms", "--model", "point:1Jy", "--term", "G", "--out", "x.cal", "--no-plots"
    )
    gain = results()["terms"][0]["amplitude_median"]
    assert gain == pytest.approx(1, abs=0.03)
    assert "virtual model" in said.stderr


def test_what_cannot_be_solved_is_said_and_leaves_the_ms(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "x.ms", MsRecipe(n_antenna=6, n_scan=1, n_time=2, n_chan=(1,), flux_jy=0.0))
    common = ("selfcal", "x.ms", "--out", "x.cal", "--model")
    one = invoke(*common, "point:1Jy", "--term", "K", "--term", "G", code=3)
    assert "one channel" in one.stderr
    wrong = invoke(*common, "3C286", "--term", "G", code=3)
    assert "not at the position of 3C286" in wrong.stderr
    unknown = invoke(*common, "standard", "--term", "G", code=3)
    assert "does not know this source" in unknown.stderr
    none = invoke(*common, "point:1Jy", "--term", "G", "--minsnr", "50", code=5)
    assert "all solutions of G failed" in none.stderr
    with table("x.ms", ack=False) as main:
        assert not {"CORRECTED_DATA", "MODEL_DATA"} & set(main.colnames())
