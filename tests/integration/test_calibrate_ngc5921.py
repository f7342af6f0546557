"""NGC 5921 from UVFITS to an image, and its gains beside those of CASA run by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import casadata
import numpy as np
import pytest

from peelkit.engines.casa import Casa
from peelkit.io.caltable import CalTable, read_cal_table
from peelkit.io.image import read_image

pytestmark = [pytest.mark.casa, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "calibrate-ngc5921.sh"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the example as a user would; gives the folder of its products."""
    folder = tmp_path_factory.mktemp("ngc5921")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", str(EXAMPLE), str(folder / "demo")], check=True, env={**os.environ, "PATH": path}
    )
    return folder / "demo" / "out"


@pytest.fixture(scope="module")
def by_hand(example: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Calibrate the same data with CASA's tasks, as its guide to NGC 5921 does; tables and fluxscale's answer."""
    folder = tmp_path_factory.mktemp("hand")
    ms = folder / "n.ms"
    refant = json.loads((example / "flux.json").read_text())["parameters"]["refant"]
    common = {"vis": str(ms), "refant": refant, "minblperant": 4, "minsnr": 3.0}
    table = {name: str(folder / name) for name in ("K", "P", "B", "G", "F")}
    with Casa(folder / "casa.log") as casa:
        fits = Path(casadata.datapath) / "demo" / "NGC5921.fits"
        casa.run("importuvfits", fitsfile=str(fits), vis=str(ms))
        casa.run(
            "setjy", vis=str(ms), field="0", standard="Perley-Butler 2017", model="3C286_L.im", usescratch=True,
        )  # fmt: skip
        casa.run(
            "gaincal",
            caltable=table["K"],
            field="0",
            spw="0:6~56",
            solint="inf",
            gaintype="K",
            **common,
        )
        casa.run(
            "gaincal", caltable=table["P"], field="0", spw="0:6~56", solint="int", calmode="p",
            gaintable=[table["K"]], **common,
        )  # fmt: skip
        casa.run(
            "bandpass", caltable=table["B"], field="0", solint="inf", combine="scan",
            gaintable=[table["K"], table["P"]], **common,
        )  # fmt: skip
        for field, append in (("0", False), ("1", True)):
            casa.run(
                "gaincal", caltable=table["G"], field=field, spw="0:6~56", solint="inf", append=append,
                gaintable=[table["K"], table["B"]], **common,
            )  # fmt: skip
        flux = casa.run(
            "fluxscale", vis=str(ms), caltable=table["G"], fluxtable=table["F"], reference="0",
            transfer="1",
        )  # fmt: skip
    return folder, flux


def of_field(table: CalTable, field: int | None) -> np.ndarray:
    part = table.parts[0]
    mine = part.field == field if field is not None else np.ones(part.field.size, bool)
    order = np.lexsort((part.antenna[mine], part.time_s[mine]))
    return np.where(part.failed, np.nan, part.values)[mine][order]


def difference(own: Path, theirs: Path, field: int | None = None) -> float:
    """Largest difference of two tables, over the median amplitude of one."""
    one, two = (of_field(read_cal_table(path), field) for path in (own, theirs))
    assert one.shape == two.shape and np.array_equal(np.isnan(one), np.isnan(two))
    return float(np.nanmax(np.abs(one - two)) / np.nanmedian(np.abs(two)))


def test_gains_of_every_term_are_those_of_casa_by_hand(example: Path, by_hand) -> None:
    folder, _ = by_hand
    # The same solver on the same data: what differs would be a parameter that is not what it should be.
    for own, theirs, field in (
        ("flux.cal/K.cal", "K", None), ("flux.cal/B.cal", "B", None), ("flux.cal/G.cal", "G", 0),
        ("gain.cal/G.cal", "G", 1), ("gain.cal/G.flux.cal", "F", 1),
    ):  # fmt: skip
        apart = difference(example / own, folder / theirs, field)
        print(f"{own}: {100 * apart:.4f} % from CASA's")
        assert apart < 0.01, own


def test_the_flux_of_the_gain_calibrator_is_that_of_fluxscale(example: Path, by_hand) -> None:
    _, flux = by_hand
    casa = flux["1"]["0"]["fluxd"][0]
    own = json.loads((example / "gain.json").read_text())["results"]["flux"][0]
    print(f"peelkit {own['flux_jy']:.4f} +- {own['flux_error_jy']:.4f} Jy, fluxscale {casa:.4f} Jy")
    assert own["flux_jy"] == pytest.approx(casa, rel=0.01)
    # CASA's guide to these data finds 2.5 Jy.
    assert own["flux_jy"] == pytest.approx(2.5, rel=0.03)


def test_the_target_is_calibrated_and_imaged(example: Path) -> None:
    for name in ("flux", "gain"):
        check = json.loads((example / f"{name}.json").read_text())["results"]["check"][0]
        assert check["amplitude_ratio"] == pytest.approx(1, abs=2e-3)
        assert abs(check["phase_deg"]) < 0.1
    image = read_image(example / "target.image")
    record = json.loads((example / "target.image.peelkit.json").read_text())["results"]
    # 17 minutes of 27 antennas of 1995 (some 60 K) in 39 channels of 24 kHz: 0.6 mJy/beam by the radiometer
    # equation; uncalibrated data of 0.2 on the scale of 1 would give no image at all.
    assert record["rms_jy_beam"] < 1.0e-3
    assert record["dynamic_range"] > 80
    # The galaxy fills the middle: several beams of more than 10 sigma at the phase centre.
    y, x = (size // 2 for size in image.data.shape)
    middle = np.asarray(image.data)[y - 12 : y + 12, x - 12 : x + 12]
    assert np.mean(middle > 5 * record["rms_jy_beam"]) > 0.3


def test_started_again_the_recipe_has_nothing_to_do(example: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    fits = str(Path(casadata.datapath) / "demo" / "NGC5921.fits")
    said = subprocess.run(
        ["sh", "calibrate.sh", fits, "1331*", "1445*", "N5921*", "out"], cwd=example.parent, check=True,
        env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.count("done before") == 4
