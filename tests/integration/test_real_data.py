"""The real data that casadata ships, from an empty folder, as a new user would."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import casadata
import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import table
from click.testing import CliRunner

from peelkit.cli.main import cli

pytestmark = [pytest.mark.casa, pytest.mark.slow]

MOSAIC = Path(__file__).parents[3] / "shared" / "data" / "antennae_mosaic.tar.xz"


@pytest.fixture(scope="session")
def uvfits(tmp_path_factory: pytest.TempPathFactory):
    """Import one of casadata's UVFITS files, once."""
    folder = tmp_path_factory.mktemp("uvfits")

    def get(name: str) -> Path:
        path = folder / f"{name}.ms"
        if not path.exists():
            source = Path(casadata.datapath) / "demo" / f"{name}.fits"
            result = CliRunner().invoke(cli, ["import-uvfits", str(source), str(path)])
            assert result.exit_code == 0, result.output
        return path

    return get


def test_3c273_reaches_the_dynamic_range_of_a_hand_written_script(
    invoke, uvfits, tmp_path: Path
) -> None:
    path = tmp_path / "3C273.ms"
    shutil.copytree(uvfits("3C273XC1"), path)
    before = json.loads(invoke("snr-estimate", "3C273.ms", "--json").stdout)["results"]
    told = invoke("selfcal", "3C273.ms", "--solint", "auto")
    record = json.loads(Path("3C273.ms.selfcal.peelkit.json").read_text())
    first, final = record["results"]["first"], record["results"]["final"]
    # One first image, one noise: in the estimate, while it runs, and in the table. What the final mask has
    # besides is told in a line of its own.
    rms = first["own_mask"]["rms_jy_beam"]
    assert before["image_rms_jy_beam"] == pytest.approx(rms, rel=1e-3)
    assert f"rms {rms:.3g} Jy/beam" in told.stderr
    row = next(line for line in told.stdout.splitlines() if "first image" in line)
    assert f"{1e3 * rms:.4g}" in row
    both = f"both with the final mask: rms {1e3 * first['rms_jy_beam']:.4g} to"
    assert both in told.stdout
    # By hand: 1.20 mJy/beam, 24 900, from a first image of 2.3 mJy/beam.
    assert final["rms_jy_beam"] <= 1.25e-3
    assert final["dynamic_range"] >= 24000
    assert final["peak_jy_beam"] == pytest.approx(29.9, abs=0.05)
    assert final["flux_jy"] == pytest.approx(first["flux_jy"], rel=0.005)
    assert final["dynamic_range"] > first["dynamic_range"]
    # Stokes V of the same data has 1.3 mJy/beam: far below that, noise would have been cleaned away.
    assert final["rms_jy_beam"] > 1.0e-3
    assert not list(tmp_path.glob("casa-*.log"))
    image = final["image"]
    invoke("mask", image, "jet.mask")
    stats = invoke("stats", record["results"]["first"]["image"], image)
    assert "29.9" in stats.stdout


def test_antennas_that_are_counted_from_0_are_the_same_antennas(
    invoke, uvfits, tmp_path: Path
) -> None:
    # CASA's importuvfits takes one off each number, and fails on antenna -1.
    with fits.open(Path(casadata.datapath) / "demo/3C273XC1.fits", memmap=False) as hdus:
        hdus[0].data["BASELINE"] = hdus[0].data.par("BASELINE") - 257
        hdus["AIPS AN"].data["NOSTA"] -= 1
        hdus.writeto("zero.fits", output_verify="ignore")
    was = (tmp_path / "zero.fits").read_bytes()
    result = invoke("import-uvfits", "zero.fits", "zero.ms")
    assert "antenna 0 is antenna 1 here" in result.stderr
    assert (tmp_path / "zero.fits").read_bytes() == was
    for part, columns in (
        ("", ("ANTENNA1", "ANTENNA2", "DATA", "UVW", "FLAG")),
        ("/ANTENNA", ("NAME", "STATION", "POSITION")),
    ):
        with (
            table(f"{uvfits('3C273XC1')}{part}", ack=False) as one,
            table(f"zero.ms{part}", ack=False) as other,
        ):
            for column in columns:
                assert np.array_equal(one.getcol(column), other.getcol(column)), column


@pytest.mark.parametrize("field", ["0", "1445*", "2"])
def test_ngc5921_is_refused_before_its_calibration(
    invoke, uvfits, tmp_path: Path, field: str
) -> None:
    # Its phases are raw: no calibration helps what an image shows, and saying so is the right answer.
    path = tmp_path / "NGC5921.ms"
    shutil.copytree(uvfits("NGC5921"), path)
    several = invoke("snr-estimate", path, code=2)
    assert "1331+30500002_0" in several.stderr and "--field" in several.stderr
    # Of 3C 286, 15 Jy, 0.19 Jy stand 9 times above the rms: that is found, and a round tried in vain.
    invoke("snr-estimate", path, "--field", field, code=0 if field == "0" else 5)
    found = invoke("selfcal", path, "--field", field, code=5)
    why = {"0": "of the solutions failed", "1445*": "below 3; self-calibration is not possible"}
    assert why.get(field, "nothing to calibrate on") in found.stderr


def test_a_field_of_an_alma_mosaic(invoke, tmp_path: Path) -> None:
    if not MOSAIC.exists():
        pytest.skip("the ALMA mosaic is not beside the checkout")
    with tarfile.open(MOSAIC) as archive:
        archive.extractall(tmp_path, filter="data")
    path = next(tmp_path.glob("*.ms"))
    invoke("snr-estimate", path, "--field", "8")
    invoke("selfcal", path, "--field", "8")
    found = json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]
    # A weak extended source, 14 antennas: like the lecture's 30 Dor mosaic, S/N gains 20 to 35 %.
    assert found["final"]["dynamic_range"] > 1.15 * found["first"]["dynamic_range"]
    # Phases give back what they took: 11 % in the same mask.
    assert 0.95 < found["final"]["flux_jy"] / found["first"]["flux_jy"] < 1.2
