"""Our prediction and primary beams against tclean's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core.primary_beam import power_beam
from peelkit.engines.casa import Casa
from peelkit.io.image import read_image

pytestmark = pytest.mark.casa

SIZE, CELL = 256, 2.0
CENTRE = "J2000 2.0rad 0.5235987755982988rad"


def tclean(casa: Casa, path: Path, imagename: Path, **how: object) -> None:
    casa.run(
        "tclean", vis=str(path), imagename=str(imagename), datacolumn="data", niter=0,
        **{"imsize": [SIZE, SIZE], "cell": f"{CELL}arcsec", "weighting": "natural",
           "pblimit": -0.01, **how},
    )  # fmt: skip


@pytest.fixture(scope="module")
def casa(tmp_path_factory: pytest.TempPathFactory):
    with Casa(tmp_path_factory.mktemp("casa") / "casa.log") as child:
        yield child


def region(path: Path, *pixels: tuple[float, float]) -> Path:
    lines = [f"circle({x + 1},{y + 1},3)" for x, y in pixels]
    path.write_text("\n".join(["# Region file format: DS9 version 4.1", "image", *lines]) + "\n")
    return path


def replace_model(path: Path, plane: np.ndarray) -> None:
    """Write the pixels of a model that tclean made; its history stays."""
    with table(str(path), readonly=False, ack=False) as image:
        image.putcell("map", 0, plane[None, None].astype(np.float32))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(values) ** 2)))


@pytest.mark.parametrize(
    ("telescope", "percent"), [("EVLA", 0.5), ("VLA", 0.1), ("ALMA", 0.1), ("MEERKAT", 0.1)]
)
def test_beams_are_tcleans_down_to_a_fifth_of_the_peak(
    casa: Casa, tmp_path: Path, telescope: str, percent: float
) -> None:
    # tclean looks its beams up in tables of 10 000 steps; EVLA's nearest frequency has another fit.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=4, n_scan=1, n_time=1, n_chan=(1,), telescope=telescope))
    tclean(casa, path, tmp_path / "a", cell="12arcsec")
    pb = read_image(tmp_path / "a.pb")
    ys, xs = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    offset = np.hypot(xs, ys) * np.radians(12 / 3600)
    beam = power_beam(telescope, 25.0, float(pb.freq_hz or 0), offset)
    high = pb.data > 0.2
    assert high.sum() > 500
    assert 100 * np.abs(beam - pb.data)[high].max() < percent


def predict_both(invoke: Callable[..., object], path: Path, words: list[object]) -> dict:
    """Columns DUCC_<n> and CASA_<n>; gives the results of the latter."""
    invoke(
        "predict-region",
        path,
        *words,
        "--prefix",
        "DUCC",
        "--all-column",
        "ALL_DUCC",
        "--shape",
        "clean",
    )
    found = invoke(
        "predict-region", path, *words, "--prefix", "CASA", "--all-column", "ALL_CASA",
        "--predictor", "tclean", "--json",
    )  # fmt: skip
    results: dict = json.loads(found.stdout)["results"]  # type: ignore[attr-defined]
    return results


def column(path: Path, name: str, spw: int) -> np.ndarray:
    with table(str(path), ack=False) as main, main.query(f"DATA_DESC_ID == {spw}") as rows:
        return np.asarray(rows.getcol(name))[:, :, 0]


def test_in_one_field_tclean_and_ducc_predict_the_same(invoke, casa: Casa, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    recipe = MsRecipe(
        n_antenna=10, n_scan=2, n_time=3, n_chan=(3, 2), flagged_antennas=(2,), radius_m=600,
        telescope="EVLA",
    )  # fmt: skip
    make_ms(path, recipe)
    tclean(casa, path, tmp_path / "a")
    plane = np.zeros((SIZE, SIZE))
    plane[128, 128], plane[134, 122], plane[40, 200] = 1.0, 0.5, 0.3
    replace_model(tmp_path / "a.model", plane)
    words = ["--image", tmp_path / "a.image", "--regions",
             region(tmp_path / "r.reg", (128, 128), (122, 134))]  # fmt: skip
    results = predict_both(invoke, path, words)
    for spw in (0, 1):
        ours, theirs = column(path, "DUCC_1", spw), column(path, "CASA_1", spw)
        assert np.abs(ours - theirs).max() < 5e-6
        # tclean takes u and v to a hundredth of a cell of its grid, which is 1.2 times as fine as the
        # image's: a phase error of 2 pi (6 / 307) / 200 at most in each, for 6 pixels off the centre.
        ours, theirs = column(path, "DUCC_2", spw), column(path, "CASA_2", spw)
        assert np.abs(ours - theirs).max() < 0.5 * 2 * 6.2e-4
        # Flagged samples are predicted as well.
        assert np.abs(theirs).min() > 0.49
    assert results["closure"] < 1e-5
    with table(str(path), ack=False) as main:
        assert "MODEL_DATA" not in main.colnames()
    assert not list(tmp_path.glob(".a.ms.predict*"))
    shutil.rmtree(tmp_path / "a.sumwt")
    found = invoke("predict-region", path, *words, "--overwrite", "--predictor", "tclean", code=3)
    assert "no a.sumwt beside it" in found.stderr


def test_samples_beyond_tcleans_grid_are_counted_aloud(invoke, casa: Casa, tmp_path: Path) -> None:
    # Cells of 20 arcsec reach 5.2 klambda; most baselines of 600 m radius at 3 GHz are longer.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_scan=1, n_time=1, radius_m=600, telescope="EVLA"))
    tclean(casa, path, tmp_path / "a", cell="20arcsec", uvrange="<400m")
    plane = np.zeros((SIZE, SIZE))
    plane[128, 128] = 1.0
    replace_model(tmp_path / "a.model", plane)
    found = invoke(
        "predict-region", path, "--image", tmp_path / "a.image", "--prefix", "CASA",
        "--regions", region(tmp_path / "r.reg", (128, 128)), "--predictor", "tclean",
    )  # fmt: skip
    zero = column(path, "CASA_1", 0) == 0
    assert 0.05 < zero.mean() < 0.95
    assert f"predicted 0 for {100 * zero.mean():.2g} % of the samples" in " ".join(
        found.stderr.split()
    )


@pytest.mark.slow
@pytest.mark.parametrize("nterms", [1, 2])
def test_in_a_mosaic_tclean_and_ducc_predict_the_same(
    invoke, casa: Casa, tmp_path: Path, nterms: int
) -> None:
    # What a mosaic's model means: the sky times .pb. The errors of its gridder are 1.6 % here.
    path = tmp_path / "a.ms"
    recipe = MsRecipe(
        n_antenna=10, n_scan=3, n_time=3, n_field=3, n_chan=(3, 2), chan_width_hz=6e7,
        radius_m=600, telescope="EVLA", field_step_rad=0.0012,
    )  # fmt: skip
    make_ms(path, recipe)
    tclean(
        casa, path, tmp_path / "a", gridder="mosaic", pblimit=0.1, imsize=[512, 512], cell="4arcsec",
        phasecenter="J2000 2.0012rad 0.5235987755982988rad", mosweight=False, reffreq="3.1GHz",
        deconvolver="mtmfs" if nterms > 1 else "hogbom", nterms=nterms,
    )  # fmt: skip
    names = [f"a.model.tt{k}" for k in range(nterms)] if nterms > 1 else ["a.model"]
    words: list[object] = ["--regions", region(tmp_path / "r.reg", (290, 240))]
    for name, value in zip(names, (1.0, -0.7), strict=False):
        plane = np.zeros((512, 512))
        plane[240, 290] = value
        replace_model(tmp_path / name, plane)
        words += ["--model", tmp_path / name]
    results = predict_both(invoke, path, words)
    pb = read_image(tmp_path / ("a.pb.tt0" if nterms > 1 else "a.pb"))
    assert results["directions"][0]["flux_jy"] == pytest.approx(1 / pb.data[240, 290], rel=1e-5)
    for spw in (0, 1):
        with table(str(path), ack=False) as main, main.query(f"DATA_DESC_ID == {spw}") as rows:
            fields = rows.getcol("FIELD_ID")
        ours, theirs = column(path, "DUCC_1", spw), column(path, "CASA_1", spw)
        for field in range(3):
            mine = fields == field
            ratio = np.abs(theirs[mine]).mean() / np.abs(ours[mine]).mean()
            assert ratio == pytest.approx(1.0, abs=0.015)
            assert rms(ours[mine] - theirs[mine]) < 0.025 * rms(theirs[mine])
