"""Images of any column, made as another image was: against the truth, and without touching the MS."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit import sidecar
from peelkit.core import averaging
from peelkit.engines import casa as engine
from peelkit.engines.casa import Casa, Imaging
from peelkit.io import ms
from peelkit.io.image import read_image

pytestmark = pytest.mark.casa

IMAGERS = ("tclean", pytest.param("wsclean", marks=pytest.mark.wsclean))
SMALL = ("--imsize", 160, "--cell", "1.5arcsec")
# A bright source off the centre, which will be peeled, and a faint one that its artefacts hide.
BRIGHT, FAINT = (1.0, 45.0, 30.0), (0.03, -40.0, -20.0)


def base_recipe(**changes: object) -> MsRecipe:
    return MsRecipe(
        **{
            "n_antenna": 14, "n_scan": 2, "n_time": 6, "flux_jy": 0.2, "sources": (BRIGHT, FAINT),
            "sigma_jy": 0.02, "seed": 3, **changes,
        }
    )  # fmt: skip


def peeled_ms(path: Path, **changes: object) -> None:
    """DATA with phase errors; CORRECTED_DATA without; PEELED_DATA without the bright source either."""
    true = base_recipe(**changes)
    columns = {}
    for name, recipe in (
        ("DATA", base_recipe(phase_rms_deg=25.0, **changes)),
        ("CORRECTED_DATA", true),
        ("PEELED_DATA", base_recipe(**{**changes, "sources": (FAINT,)})),
    ):
        other = path.with_name(f"{name}.ms")
        make_ms(other, recipe)
        with table(str(other), ack=False) as main:
            columns[name] = main.getcol("DATA")
    path.with_name("DATA.ms").rename(path)
    with ms.opened(path, write=True) as main:
        for name, values in columns.items():
            if name != "DATA":
                ms.add_column(main, name)
            main.putcol(name, values)


def digests(path: Path) -> dict[str, str]:
    """Of all files of an MS, but for the locks that every reader touches."""
    return {
        str(item.relative_to(path)): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in sorted(path.rglob("*"))
        if item.is_file() and item.name != "table.lock"
    }


def results(image: str) -> dict:
    return json.loads(Path(f"{image}.peelkit.json").read_text())["results"]


def near(image: Path, source: tuple[float, float, float]) -> float:
    """Peak within two pixels of where a source is [Jy/beam]."""
    found = read_image(image)
    ny, nx = found.data.shape
    x = round(nx // 2 - source[1] / found.cell_arcsec)
    y = round(ny // 2 + source[2] / found.cell_arcsec)
    return float(found.data[y - 2 : y + 3, x - 2 : x + 3].max())


@pytest.fixture(scope="module")
def peeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peeled") / "a.ms"
    peeled_ms(path)
    return path


def test_a_reference_table_gives_the_identical_image_and_the_ms_is_not_changed(
    peeled: Path, tmp_path: Path
) -> None:
    info = ms.read_info(peeled)
    rows = np.flatnonzero(np.arange(info.n_rows) % 7 != 3)
    before = digests(peeled)
    ms.copy_rows(peeled, tmp_path / "deep.ms", rows, data_column="PEELED_DATA")
    ms.refer_to_rows(peeled, tmp_path / "refer.ms", rows, data_column="PEELED_DATA")
    imaging = Imaging(imsize=128, cell_arcsec=1.5)
    images = []
    with Casa(tmp_path / "casa.log") as casa:
        for kind in ("deep", "refer"):
            engine.clean(
                casa, tmp_path / f"{kind}.ms", tmp_path / kind, imaging,
                field="0", spw="", datacolumn="data", mask=None, nsigma=3.0,
            )  # fmt: skip
            images.append(read_image(imaging.image(tmp_path / kind)).data)
    assert np.array_equal(images[0], images[1])
    assert digests(peeled) == before


@pytest.mark.slow
def test_the_peeled_image_compares_with_selfcals_and_finds_what_was_hidden(
    invoke, copy_ms, peeled: Path
) -> None:
    path = copy_ms(peeled)
    invoke("image-residual", path, "before", "--column", "DATA", *SMALL)
    before = digests(path)
    out = invoke("image-residual", path, "after", "--like", "before.image").stdout
    assert digests(path) == before
    assert not list(Path().glob(".after*"))
    first, last = results("before.image"), results("after.image")
    for key in ("field", "spw", "scan", "nsigma", "imaging"):
        assert last[key] == first[key]
    # The faint source stood below the artefacts of the bright one; it is cleaned now.
    assert last["mask_islands_added"] >= 1 and "new islands" in out
    assert near(Path("after.image"), FAINT) == pytest.approx(0.03, abs=0.004)
    assert abs(near(Path("after.image"), BRIGHT)) < 0.01
    # 14 antennas, 2 hands, 4 channels, 12 integrations: 0.02 / sqrt(8736) Jy, a little more for Briggs.
    assert 2.0e-4 < last["rms_jy_beam"] < 3.0e-4
    assert last["rms_ratio"] < 0.1
    assert last["like"]["image"] == "before.image"
    assert last["dynamic_range_reference_peak"] == pytest.approx(
        last["like"]["peak_jy_beam"] / last["rms_jy_beam"]
    )
    # It can be repeated in turn, and with its mask as it is nothing is new.
    invoke("image-residual", path, "again", "--like", "after.image", "--no-grow-mask")
    again = results("again.image")
    assert again["mask_pixels"] == last["mask_pixels"] and again["mask_pixels_added"] == 0
    # In one go, where the other was cleaned on as its mask opened.
    assert again["rms_ratio"] == pytest.approx(1.0, abs=0.03)
    # A worse column is said to be worse.
    worse = invoke(
        "image-residual",
        path,
        "worse",
        "--like",
        "after.image",
        "--column",
        "DATA",
        "--no-grow-mask",
    )
    assert "made the image worse" in worse.stderr.replace("\n", " ")
    # Finished images are kept.
    refused = invoke("image-residual", path, "after", "--like", "before.image", code=3)
    assert "after.image: exists" in refused.stderr


def major_cycles(log: str) -> int:
    return Path(log).read_text().count("Run Major Cycle")


@pytest.mark.slow
def test_an_image_that_begins_with_another_is_the_same_in_fewer_major_cycles(
    invoke, peeled: Path
) -> None:
    invoke("image-residual", peeled, "before", "--column", "DATA", *SMALL)
    invoke("image-residual", peeled, "anew", "--like", "before.image")
    invoke("image-residual", peeled, "start", "--like", "before.image", "--nsigma", 5)
    invoke(
        "image-residual", peeled, "again", "--like", "before.image", "--begin-with", "start.image"
    )
    anew, again = results("anew.image"), results("again.image")
    assert major_cycles("again.casa.log") < major_cycles("anew.casa.log")
    assert again["rms_jy_beam"] == pytest.approx(anew["rms_jy_beam"], rel=0.02)
    assert near(Path("again.image"), FAINT) == pytest.approx(
        near(Path("anew.image"), FAINT), rel=0.01
    )
    record = json.loads(Path("again.image.peelkit.json").read_text())
    assert record["inputs"]["begin_with"] == "start.image"
    # What the model has and the data have not is cleaned away.
    invoke(
        "image-residual", peeled, "whole", "--like", "before.image", "--column", "CORRECTED_DATA"
    )
    invoke(
        "image-residual", peeled, "without", "--like", "before.image", "--begin-with", "whole.image"
    )
    without = results("without.image")
    assert without["rms_jy_beam"] == pytest.approx(anew["rms_jy_beam"], rel=0.05)
    assert abs(near(Path("without.image"), BRIGHT)) < 0.01
    assert near(Path("without.image"), FAINT) == pytest.approx(
        near(Path("anew.image"), FAINT), rel=0.02
    )
    # Other pixels or channels will not do.
    invoke(
        "image-residual",
        peeled,
        "small",
        "--column",
        "PEELED_DATA",
        "--imsize",
        128,
        "--cell",
        "1.5arcsec",
    )
    refused = invoke(
        "image-residual",
        peeled,
        "no",
        "--like",
        "before.image",
        "--begin-with",
        "small.image",
        code=2,
    )
    assert "--begin-with small.image: does not go with --like before.image" in refused.stderr


@pytest.mark.slow
def test_the_mask_opens_until_nothing_stands_out(invoke, tmp_path: Path) -> None:
    # Each is hidden by what is left of the one before until that is cleaned.
    sources = ((1.0, 45.0, 30.0), (0.06, -40.0, -20.0), (0.008, 20.0, -60.0), (0.003, -60.0, 50.0))
    path = tmp_path / "a.ms"
    make_ms(path, base_recipe(sources=sources, flux_jy=0.0))
    ra, dec = _centre(path)
    ra, dec = ra + sources[0][1] / 3600 / np.cos(np.radians(dec)), dec + sources[0][2] / 3600
    Path("bright.crtf").write_text(f"#CRTFv0\ncircle[[{ra}deg, {dec}deg], 6arcsec] coord=J2000\n")
    invoke("image-residual", path, "first", "--column", "DATA", "--mask", "bright.crtf", *SMALL)
    invoke("image-residual", path, "all", "--column", "DATA", "--like", "first.image")
    # 14 antennas, 2 hands, 4 channels, 12 integrations: 0.02 / sqrt(8736) Jy, a little more for Briggs.
    assert results("all.image")["rms_jy_beam"] < 2.7e-4
    mask = read_image(Path("all.cleanmask"))
    for source in sources:
        assert near(Path("all.cleanmask"), source) == 1
        assert near(Path("all.image"), source) == pytest.approx(source[0], rel=0.05, abs=7e-4)
    assert mask.data.mean() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("imager", IMAGERS)
def test_averaged_data_make_the_same_image(
    invoke, tmp_path: Path, imager: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averaging, "FEWEST", 0)
    # A source at the edge, where averages lose most: 0.3 % of 0.1 Jy is a thousandth of the noise on one visibility.
    edge, faint = (0.1, 100.0, 60.0), (0.03, -40.0, -20.0)
    path = tmp_path / "a.ms"
    make_ms(path, base_recipe(sources=(edge, faint), flux_jy=0.0, integration_s=2.0, n_time=30))
    how = ("--column", "DATA", "--imager", imager, *SMALL)
    invoke("image-residual", path, "whole", "--smearing", 0, *how)
    invoke("image-residual", path, "mean", "--smearing", 0.003, *how)
    images = {}
    for name in ("whole", "mean"):
        found = read_image(Path(f"{name}.image"))
        images[name] = found.data
        assert near(Path(f"{name}.image"), faint) == pytest.approx(0.03, abs=1.5e-3)
    assert results("whole.image")["imaging"]["smearing"] == 0
    assert results("mean.image")["imaging"]["smearing"] == 0.003
    lost = 1 - near(Path("mean.image"), edge) / near(Path("whole.image"), edge)
    assert 0.0002 < lost < 0.003
    one, other = (results(f"{name}.image")["rms_jy_beam"] for name in ("whole", "mean"))
    assert other == pytest.approx(one, rel=0.05)
    assert np.std(images["mean"] - images["whole"]) < 0.3 * one
    assert not list(Path().glob(".*peelkit*"))


@pytest.mark.parametrize("imager", IMAGERS)
def test_autocorrelations_do_not_change_the_image(invoke, tmp_path: Path, imager: str) -> None:
    make_ms(tmp_path / "a.ms", base_recipe())
    info = ms.read_info(tmp_path / "a.ms")
    with ms.opened(info.path, write=True) as main:
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        single = one + 1 == two
        two[single] = one[single]
        uvw, data = main.getcol("UVW"), main.getcol("DATA")
        uvw[single], data[single] = 0, 10
        for name, values in (("ANTENNA2", two), ("UVW", uvw), ("DATA", data)):
            main.putcol(name, values)
    ms.copy_rows(info.path, tmp_path / "b.ms", np.flatnonzero(~single), data_column="DATA")
    images = []
    for name in "ab":
        invoke(
            "image-residual", tmp_path / f"{name}.ms", name, "--column", "DATA", "--imager", imager,
            "--smearing", 0, *SMALL,
        )  # fmt: skip
        images.append(read_image(Path(f"{name}.image")))
    assert images[0].beam.area_arcsec2 == pytest.approx(images[1].beam.area_arcsec2, rel=1e-5)
    assert np.abs(images[0].data - images[1].data).max() < 1e-4 * images[1].data.max()


@pytest.mark.slow
def test_selfcal_leaves_images_that_can_be_made_again(invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.ms"
    make_ms(
        path,
        MsRecipe(
            n_antenna=12, n_scan=2, n_time=4, phase_rms_deg=30.0, sources=((0.1, 30.0, 20.0),), seed=4,
            n_chan=(2, 2),
        ),
    )  # fmt: skip
    invoke("selfcal", path, *SMALL, "--no-plots", "--solint", "inf", "--scan", "1", "--spw", "1")
    folder = tmp_path / "a.selfcal"
    for name in ("first", "final"):
        record = sidecar.read(folder / f"{name}.image.peelkit.json", "image")["results"]
        assert record["scan"] == "1" and record["spw"] == "1" and record["field"] == "0"
        assert record["datacolumn"] == ("DATA" if name == "first" else "CORRECTED_DATA")
        assert all(Path(item).exists() for item in (record["mask"], *record["models"]))
    for name in ("final.model", "final.psf", "final.residual", "final.cleanmask", "final.mask"):
        assert (folder / name).is_symlink() and (folder / name).exists()
    for name, column in (("first", "DATA"), ("final", "CORRECTED_DATA")):
        like = folder / f"{name}.image"
        invoke("image-residual", path, name, "--like", like, "--column", column, "--no-grow-mask")
        assert results(f"{name}.image")["rms_ratio"] == pytest.approx(1.0, abs=0.01)
        # Weights and flags are those of the image: its PSF is taken.
        assert "calcpsf=True" not in Path(f"{name}.casa.log").read_text()
    with table(str(path), readonly=False, ack=False) as main:
        flag = main.getcol("FLAG")
        flag[::7] = True
        main.putcol("FLAG", flag)
    invoke("image-residual", path, "flagged", "--like", like, "--column", "DATA", "--no-grow-mask")
    assert "calcpsf=True" in Path("flagged.casa.log").read_text()


@pytest.mark.slow
def test_restoring_puts_the_source_back_in_an_image_of_its_own(invoke, peeled: Path) -> None:
    centre = _centre(peeled)
    direction = {
        "label": "BRIGHT_1", "column": "B1", "flux_jy": 1.0, "shape": "clean", "components": 1,
        "ra_deg": centre[0] + BRIGHT[1] / 3600 / np.cos(np.radians(centre[1])),
        "dec_deg": centre[1] + BRIGHT[2] / 3600, "peak_jy_pixel": 1.0, "flux_share": 0.8,
    }  # fmt: skip
    outside = {**direction, "label": "FAR", "dec_deg": centre[1] + 1.0}
    _predict_sidecar(Path("p.json"), [direction, outside])
    found = invoke("image-residual", peeled, "out", *SMALL, "--restore", "--from", "p.json")
    assert "FAR lies outside the image" in found.stderr
    restored = results("out.image")["restored"]
    assert [item["peak_jy_beam"] for item in restored["sources"]] == [1.0, None]
    plain, with_it = read_image(Path("out.image")), read_image(Path("out.restored.image"))
    added = with_it.data.astype(float) - plain.data
    # The point is off the pixel grid by at most half a pixel in a beam of five.
    assert 0.93 < added.max() <= 1.0
    assert added.sum() / plain.beam_pixels == pytest.approx(1.0, abs=0.01)
    assert near(Path("out.image"), BRIGHT) < 0.01


def _centre(path: Path) -> tuple[float, float]:
    field = ms.read_info(path).fields[0]
    return np.degrees(field.ra_rad), np.degrees(field.dec_rad)


def _predict_sidecar(path: Path, directions: list[dict]) -> None:
    results = {
        "models": ["x.model"], "model_kind": "taylor", "predictor": "ducc", "pb": None, "beam": None,
        "rows": 1, "flux_jy": 1.0, "components": 1, "directions": directions, "rest_column": None,
        "all_column": None, "rest": {"flux_jy": 0.0, "components": 0}, "closure": None,
    }  # fmt: skip
    record = {
        "schema": sidecar.SCHEMA, "command": "predict-region", "peelkit": "0", "seconds": 0,
        "started": "2026-01-01T00:00:00Z", "inputs": {}, "parameters": {}, "reads": [], "writes": [],
        "engine": None, "results": results,
    }  # fmt: skip
    path.write_text(json.dumps(record))


@pytest.mark.slow
def test_a_sample_that_is_no_number_does_not_blank_the_image(invoke, copy_ms, peeled: Path) -> None:
    path = copy_ms(peeled)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("PEELED_DATA")
        data[5] = np.nan
        main.putcol("PEELED_DATA", data)
    before = digests(path)
    found = invoke("image-residual", path, "out", *SMALL, "--no-grow-mask")
    assert f"{data[5].size} unflagged samples are not numbers" in found.stderr
    assert digests(path) == before
    assert results("out.image")["rms_jy_beam"] < 3e-4


@pytest.mark.slow
def test_a_mask_of_the_users_stays_as_it_is_and_taylor_terms_have_their_names(
    invoke, peeled: Path
) -> None:
    Path("m.reg").write_text("fk5\ncircle(" + ",".join(map(str, _centre(peeled))) + ',12")\n')
    invoke("image-residual", peeled, "out", *SMALL, "--mask", "m.reg", "--nterms", 2)
    found = results("out.image.tt0")
    assert found["mask_pixels_added"] == 0
    assert [Path(item).name for item in found["models"]] == ["out.model.tt0", "out.model.tt1"]
    assert near(Path("out.image.tt0"), (0.2, 0.0, 0.0)) == pytest.approx(0.2, abs=0.01)
    invoke("image-residual", peeled, "again", "--like", "out.image.tt0")
    assert results("again.image.tt0")["rms_ratio"] <= 1.01


@pytest.mark.slow
def test_another_field_is_not_taken_for_the_same(invoke, copy_ms, peeled: Path) -> None:
    invoke("image-residual", peeled, "one", *SMALL, "--no-grow-mask")
    other = copy_ms(peeled)
    with table(f"{other}/FIELD", readonly=False, ack=False) as sub:
        for column in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            sub.putcell(column, 0, sub.getcell(column, 0) + 0.01)
    found = invoke("image-residual", other, "two", "--like", "one.image", code=3)
    assert "another grid than one.image" in found.stderr.replace("\n", " ")
    # What it had begun is replaced by the next run.
    invoke("image-residual", peeled, "two", "--like", "one.image", "--no-grow-mask")
