"""The generator that shares no code with peelkit, beside `peelkit simulate`: of the same sky they make the same data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

import independent
from peelkit.core import simulate_array as array
from peelkit.core.simulate import SimulateOptions, simulate
from peelkit.progress import Progress

pytestmark = pytest.mark.casa

SHAPE = {"antennas": 8, "integrations": 3, "scans": 2, "spws": 2, "channels": 3, "faint": 6}


def run(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, independent.__file__, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def columns(path: Path, *names: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcol(name) for name in names]


# CASA's zenith has precession and nutation, which `simulate` leaves out: the squint turns by a degree.
@pytest.mark.parametrize(
    ("beam", "squint", "tolerance"),
    [("airy", False, 1e-4), ("gaussian", False, 1e-4), ("airy", True, 5e-3)],
)
def test_the_same_sky_on_the_same_rows_is_the_same_data(
    tmp_path: Path, beam: str, squint: bool, tolerance: float
) -> None:
    without = ("errors", "noise")
    ours, theirs = tmp_path / "ours.ms", tmp_path / "theirs.ms"
    simulate(ours, SimulateOptions(**SHAPE, beam=beam, squint=squint, without=without), Progress())
    shutil.copytree(ours, theirs)
    with table(str(theirs), ack=False, readonly=False) as main:
        main.putcol("DATA", 0 * main.getcol("DATA"))
    given = ["--fill", "--sky", f"{ours}.truth.json", "--without", "errors,noise", f"--beam={beam}"]
    run(theirs, *given, *([] if squint else ["--no-squint"]))
    (one,), (two,) = columns(ours, "DATA"), columns(theirs, "DATA")
    assert np.abs(one).max() > 3
    assert np.abs(one - two).max() < tolerance * np.abs(one).max()
    # What they say of it is the same too.
    said = [
        json.loads((tmp_path / f"{name}.ms.truth.json").read_text()) for name in ("ours", "theirs")
    ]
    fluxes = [[source["apparent_flux_jy"][0] for source in truth["sources"]] for truth in said]
    assert fluxes[0] == pytest.approx(fluxes[1], rel=1e-4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both generators' data of one shape, with noise, and without it."""
    folder = tmp_path_factory.mktemp("made")
    words = ["--integrations=2", "--scans=2", "--spws=1", "--channels=4", "--faint=3", "--noise=0.5",
             "--regime=weights"]  # fmt: skip
    run(folder / "theirs.ms", *words)
    run(folder / "quiet.ms", *words, "--without=noise")
    sefd = 0.5 * 0.93 * np.sqrt(2 * 32e6 * 10)
    options = {"integrations": 2, "scans": 2, "spws": 1, "channels": 4, "faint": 3, "sefd": sefd}
    simulate(folder / "ours.ms", SimulateOptions(**options, weights_scale=1e-3), Progress())
    return folder


def test_uvw_are_the_same_up_to_the_precession(made: Path) -> None:
    uvw, time, one, two = columns(made / "theirs.ms", "UVW", "TIME", "ANTENNA1", "ANTENNA2")
    (place,) = columns(made / "theirs.ms/ANTENNA", "POSITION")
    ra, dec = columns(made / "theirs.ms/FIELD", "PHASE_DIR")[0].ravel()
    mine = np.empty_like(uvw)
    for moment in np.unique(time):
        at = array.antenna_uvw(place, float(moment), float(ra), float(dec))
        rows = time == moment
        mine[rows] = at[one[rows]] - at[two[rows]]
    longest = np.linalg.norm(uvw, axis=1).max()
    assert np.linalg.norm(mine, axis=1) == pytest.approx(
        np.linalg.norm(uvw, axis=1), abs=1e-4 * longest
    )
    # One rotation for all of it (Kabsch), by the 0.3 deg of 22 years.
    left, _, right = np.linalg.svd(mine.T @ uvw)
    turn = left @ right
    assert np.abs(mine @ turn - uvw).max() < 1e-4 * longest
    assert 0.1 < np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 0.4


def test_noise_weights_and_truth_mean_the_same(made: Path) -> None:
    data, weight, sigma = columns(made / "theirs.ms", "DATA", "WEIGHT", "SIGMA")
    (quiet,) = columns(made / "quiet.ms", "DATA")
    noise = (data - quiet) / 0.5
    assert noise.real.std() == pytest.approx(1, rel=0.03)
    assert noise.imag.std() == pytest.approx(1, rel=0.03)
    our_weight, our_sigma = columns(made / "ours.ms", "WEIGHT", "SIGMA")
    assert np.unique(weight) == pytest.approx(np.unique(our_weight), rel=1e-5)
    assert weight[0, 0] == pytest.approx(1e-3 / 0.5**2, rel=1e-5)
    assert np.unique(sigma) == pytest.approx(np.unique(our_sigma), rel=1e-5)
    said = [json.loads((made / f"{name}.ms.truth.json").read_text()) for name in ("ours", "theirs")]
    assert said[0]["noise_jy"] == pytest.approx(said[1]["noise_jy"], rel=1e-6)
    assert said[0]["rms_thermal_jy_beam"] == pytest.approx(said[1]["rms_thermal_jy_beam"], rel=1e-6)
    assert set(said[1]["gains"]) <= set(said[0]["gains"])
    assert len(data) == len(columns(made / "ours.ms", "TIME")[0])
