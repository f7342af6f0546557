"""``peelkit predict-region`` as a user calls it, on models whose visibilities are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makemodel import CELL, DEC_DEG, RA_DEG, SIZE, write_model
from makems import MsRecipe, make_ms

C = 299792458.0
CENTRE = (RA_DEG, DEC_DEG)
# Pixel, flux [Jy]: two sources to peel, and two of the rest.
NORTH, SOUTH, REST = (300, 400, 2.0), (120, 100, 1.5), ((256, 256, 0.7), (260, 300, -0.1))


def plane() -> np.ndarray:
    image = np.zeros((SIZE, SIZE))
    for x, y, flux in (NORTH, SOUTH, *REST):
        image[y, x] = flux
    image[NORTH[1], NORTH[0] + 1] = 0.2
    return image


def circle(x: float, y: float, radius_arcsec: float, label: str = "") -> str:
    """DS9 region in pixels, which DS9 counts from 1."""
    text = f"circle({x + 1},{y + 1},{radius_arcsec / CELL})"
    return f"{text} # text={{{label}}}" if label else text


def regions(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["# Region file format: DS9 version 4.1", "image", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MS of two fields and spws, models, and region files."""
    folder = tmp_path_factory.mktemp("source")
    recipe = MsRecipe(
        n_antenna=7, n_scan=4, n_time=2, n_field=2, n_chan=(3, 2), frame="ICRS", seed=5,
        field_step_rad=0.001,
    )  # fmt: skip
    make_ms(folder / "a.ms", recipe)
    one = {"centre": CENTRE, "specsys": "LSRK"}
    write_model(folder / "x.model.fits", [plane()], **one)
    write_model(folder / "x.model.tt1.fits", [-0.7 * plane()], **one)
    write_model(folder / "empty.model.fits", [plane() * 0], **one)
    write_model(folder / "flat.pb.fits", [np.ones((SIZE, SIZE))], **one)
    write_model(folder / "small.pb.fits", [np.ones((64, 64))], **one)
    write_model(folder / "x.image.fits", [plane()], **one, BUNIT="Jy/beam")
    write_model(folder / "tan.model.fits", [plane()], **one, CTYPE1="RA---TAN", CTYPE2="DEC--TAN")
    freqs = (2.9e9, 3.0e9, 3.1e9)
    write_model(folder / "cube.model.fits", [plane()] * 3, freqs=freqs, **one)
    regions(
        folder / "two.reg", circle(*NORTH[:2], 10, "3C 1"), circle(*SOUTH[:2], 10, "south lobe")
    )
    regions(folder / "plain.reg", circle(*NORTH[:2], 10), circle(*SOUTH[:2], 10))
    regions(folder / "all.reg", "box(257,257,512,512,0)")
    regions(folder / "void.reg", circle(*NORTH[:2], 10), circle(400, 50, 10, "VOID"))
    regions(folder / "minus.reg", circle(*REST[1][:2], 6, "HOLE"))
    regions(
        folder / "over.reg", circle(*NORTH[:2], 10, "A"), circle(NORTH[0] + 4, NORTH[1], 10, "B")
    )
    regions(folder / "same.reg", circle(*NORTH[:2], 10, "a b"), circle(*SOUTH[:2], 10, "A-B"))
    regions(folder / "away.reg", circle(900, 900, 10, "AWAY"))
    regions(folder / "twice.reg", circle(*NORTH[:2], 10, "A"), circle(*NORTH[:2], 10, "A"))
    regions(folder / "data.reg", circle(*NORTH[:2], 10, "data"))
    return folder


@pytest.fixture
def ready(source: Path, copy_ms, tmp_path: Path) -> Path:
    """The MS, to be changed; images and regions beside it."""
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    return copy_ms(source / "a.ms")


def cells(path: Path, name: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [np.asarray(main.getcell(name, row)) for row in range(main.nrows())]


def stacked(path: Path, name: str) -> np.ndarray:
    return np.concatenate([cell.ravel() for cell in cells(path, name)])


def names(path: Path) -> set[str]:
    with table(str(path), ack=False) as main:
        return set(main.colnames())


def run(invoke, *words: object, **how) -> dict:
    return json.loads(invoke("predict-region", *words, "--json", **how).stdout)


# The MSs have no such sources: nothing to fit.
ONE_FIELD = ("--field", 0, "--model", "x.model.fits", "--shape", "clean")


def test_each_region_has_its_source_alone_and_the_columns_add_up(invoke, ready: Path) -> None:
    record = run(
        invoke, ready, *ONE_FIELD, "--regions", "two.reg", "--rest-column", "REST", "--all-column"
    )
    found = record["results"]
    # 3C 1 begins with a digit, which no column name may.
    assert [(one["label"], one["column"]) for one in found["directions"]] == [
        ("3C 1", "BRIGHT_3C_1"),
        ("south lobe", "SOUTH_LOBE"),
    ]
    north, south = found["directions"]
    assert north["flux_jy"] == pytest.approx(2.2) and north["components"] == 2
    assert south["flux_jy"] == pytest.approx(1.5) and south["components"] == 1
    assert found["flux_jy"] == pytest.approx(4.3)
    rest = found["rest"]
    assert (rest["flux_jy"], rest["components"], rest["trials"]) == (pytest.approx(0.6), 2, [])
    assert found["all_column"] == "ALL_SKY_MODEL" and found["closure"] < 1e-5
    # Positions: the southern one by hand, 272 arcsec east and 312 arcsec south; small-field formula.
    assert (south["ra_deg"] - RA_DEG) * np.cos(np.radians(DEC_DEG)) * 3600 == pytest.approx(
        272, abs=0.5
    )
    assert (south["dec_deg"] - DEC_DEG) * 3600 == pytest.approx(-312, abs=0.5)
    # A single point: its visibilities all have its flux, in the field that was selected.
    with table(str(ready), ack=False) as main:
        fields = main.getcol("FIELD_ID")
    amplitude = np.array([np.abs(cell).mean() for cell in cells(ready, "SOUTH_LOBE")])
    assert amplitude[fields == 0] == pytest.approx(1.5, abs=1e-5)
    assert not amplitude[fields == 1].any()
    parts = [stacked(ready, name) for name in ("BRIGHT_3C_1", "SOUTH_LOBE", "REST")]
    whole = stacked(ready, "ALL_SKY_MODEL")
    assert np.abs(whole - sum(parts)).max() < 1e-6 * np.abs(whole).max()
    assert north["flux_share"] == pytest.approx(2.2 / 4.3)


def test_without_the_rest_as_a_column_the_sum_is_the_same(invoke, ready: Path) -> None:
    base = (ready, *ONE_FIELD, "--regions", "plain.reg")
    run(invoke, *base, "--all-column", "ONE", "--rest-column", "REST")
    run(invoke, *base, "--all-column", "TWO", "--prefix", "P")
    assert np.array_equal(stacked(ready, "ONE"), stacked(ready, "TWO"))
    assert {"BRIGHT_1", "BRIGHT_2", "P_1", "P_2"} <= names(ready)


def test_regions_that_are_called_alike_are_told_apart_by_a_prefix(invoke, ready: Path) -> None:
    regions(Path("alike.reg"), circle(*NORTH[:2], 10, "bright"), circle(*SOUTH[:2], 10, "bright"))
    found = run(
        invoke, ready, *ONE_FIELD, "--regions", "alike.reg", "--prefix", "P", "--all-column"
    )
    assert [one["label"] for one in found["results"]["directions"]] == ["bright", "bright_2"]
    assert [one["flux_jy"] for one in found["results"]["directions"]] == pytest.approx([2.2, 1.5])
    with table(str(ready), ack=False) as main:
        mine = main.getcol("FIELD_ID") == 0
    north, south = (
        np.array([np.abs(cell).mean() for cell in cells(ready, name)])[mine]
        for name in ("P_1", "P_2")
    )
    assert south == pytest.approx(1.5, abs=1e-5) and not np.allclose(north, south, rtol=0.1)


def test_everything_in_one_region_leaves_a_rest_of_zero_and_says_so(invoke, ready: Path) -> None:
    found = invoke(
        "predict-region", ready, *ONE_FIELD, "--regions", "all.reg", "--rest-column", "REST"
    )
    assert "REST is zero" in found.stderr
    assert not stacked(ready, "REST").any()


def test_taylor_terms_are_masked_alike(invoke, ready: Path) -> None:
    terms = (*ONE_FIELD, "--model", "x.model.tt1.fits")
    run(invoke, ready, *terms, "--regions", "two.reg")
    with table(str(ready), ack=False) as main:
        spw = main.getcol("DATA_DESC_ID")
        field = main.getcol("FIELD_ID")
    for row in (int(np.flatnonzero((spw == 1) & (field == 0))[0]), 0):
        freq = 3e9 + 1e7 * ((3 + np.arange(2)) if spw[row] else np.arange(3))
        truth = 1.5 * (1 - 0.7 * (freq - 3e9) / 3e9)
        # The model's frequencies are LSRK, 1e-4 off at most.
        assert np.abs(cells(ready, "SOUTH_LOBE")[row][:, 0]) == pytest.approx(truth, rel=2e-4)


def test_a_cube_of_sub_bands_is_one_model(invoke, ready: Path) -> None:
    record = run(
        invoke,
        ready,
        "--field",
        0,
        "--model",
        "cube.model.fits",
        "--regions",
        "two.reg",
        "--shape",
        "clean",
    )
    assert record["results"]["model_kind"] == "subbands"
    assert record["results"]["directions"][1]["flux_jy"] == pytest.approx(1.5)
    assert np.abs(cells(ready, "SOUTH_LOBE")[0]) == pytest.approx(1.5, abs=1e-5)


def test_a_mosaics_model_is_divided_by_its_beam_and_seen_through_each_fields(
    invoke, ready: Path
) -> None:
    words = (
        ready, "--model", "x.model.fits", "--pb", "flat.pb.fits", "--regions", "two.reg",
        "--shape", "clean",
    )  # fmt: skip
    record = run(invoke, *words, "--all-column")
    assert record["results"]["beam"] == {"telescope": "VLA", "diameter_m": 25.0, "known": True}
    assert record["results"]["closure"] < 1e-5
    with table(str(ready), ack=False) as main:
        fields = main.getcol("FIELD_ID")
    amplitude = np.array([np.abs(cell).mean() for cell in cells(ready, "SOUTH_LOBE")])
    # 414 arcsec off the first field, and 326 off the second, 179 to the east of it: an aperture of
    # 24.5 m has (2 J1(x) / x)^2 = 0.534 at x = 1.545 and 0.678 at 1.217, at 3 GHz; less at 3.05.
    assert amplitude[fields == 0].mean() / 1.5 == pytest.approx(0.534, abs=0.01)
    assert amplitude[fields == 1].mean() / 1.5 == pytest.approx(0.678, abs=0.01)


def test_what_is_replaced_comes_back_with_undo_and_stays_where_not_selected(
    invoke, ready: Path
) -> None:
    base = (ready, *ONE_FIELD, "--regions", "two.reg")
    before = names(ready)
    run(invoke, *base, "--scan", 1)
    with table(str(ready), ack=False) as main:
        scans = main.getcol("SCAN_NUMBER")
        history = table(f"{ready}/HISTORY", ack=False).getcol("MESSAGE")
    assert "predicted BRIGHT_3C_1, SOUTH_LOBE" in history[-1]
    first = cells(ready, "SOUTH_LOBE")
    assert all(bool(cell.any()) == (scan == 1) for cell, scan in zip(first, scans, strict=True))
    run(invoke, *base, "--scan", 3, "--overwrite")
    second = cells(ready, "SOUTH_LOBE")
    for old, new, scan in zip(first, second, scans, strict=True):
        assert np.array_equal(old, new) != (scan == 3)
    invoke("undo", ready)
    assert all(np.array_equal(a, b) for a, b in zip(first, cells(ready, "SOUTH_LOBE"), strict=True))
    invoke("undo", ready)
    assert names(ready) == before


def test_an_interrupted_run_leaves_the_ms_as_it_was(
    invoke, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peelkit.core import predict_region as work

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = names(ready)
    monkeypatch.setattr(work, "predict_columns", stop)
    invoke("predict-region", ready, *ONE_FIELD, "--regions", "two.reg", code=130)
    assert names(ready) == before


def test_the_table_names_columns_and_positions(invoke, ready: Path) -> None:
    found = invoke(
        "predict-region", ready, *ONE_FIELD, "--regions", "two.reg", "--rest-column", "REST"
    )
    lines = found.stdout.splitlines()
    south = next(line for line in lines if line.startswith("south lobe"))
    assert "SOUTH_LOBE" in south and "1500" in south and "34.9 %" in south
    assert any(line.startswith("(rest)") and "REST" in line for line in lines)
    assert "Closure" in found.stdout
    assert max(len(line) for line in lines) <= 110


M = "--field 0 --model x.model.fits"
CASES = [
    ("", 2, "Missing option '--regions'"),
    ("--regions two.reg", 2, "--model, or the image that it is beside with --image"),
    (f"{M} --image x.image.fits --regions two.reg", 2, "--model, or the image"),
    ("--field 0 --image absent.image --regions two.reg", 3, "absent.image: no such image"),
    ("--field 0 --image x.image.fits --regions two.reg", 3, "its model is not known; use --model"),
    ("--field 0 --model absent.model --regions two.reg", 3, "absent.model: no such image"),
    ("--field 0 --model empty.model.fits --regions two.reg", 3, "the model is empty"),
    ("--field 0 --model x.image.fits --regions two.reg", 3, "'Jy/beam' is not Jy/pixel"),
    ("--field 0 --model tan.model.fits --regions two.reg", 3, "projection TAN/TAN is not SIN"),
    (f"{M} --model cube.model.fits --regions two.reg", 3, "a cube of models stands alone"),
    ("--model x.model.fits --regions two.reg", 3, "2 phase centres, and it is not known whether"),
    (f"{M} --pb absent.pb --regions two.reg", 3, "absent.pb: no such image"),
    (f"{M} --pb small.pb.fits --regions two.reg", 3, "small.pb.fits: its size does not match"),
    (f"{M} --regions absent.reg", 3, "absent.reg: no such region file"),
    (f"{M} --regions away.reg", 3, "region 1 (AWAY): pixel 900.0,900.0 is outside"),
    (f"{M} --regions void.reg", 3, "region 2 (VOID): the model has no flux in it; the nearest is at"),
    (f"{M} --regions minus.reg", 3, "region 1 (HOLE): the model's flux in it is -100 mJy"),
    (f"{M} --regions over.reg", 3, "region 2 (B): overlaps region 1 (A) by"),
    (f"{M} --regions twice.reg", 3, "region 2 (A): the same as region 1 (A)"),
    (f"{M} --regions same.reg", 3, "its column would be A_B, as that of region 1 (a b)"),
    (f"{M} --regions data.reg", 2, "column DATA: belongs to the MS itself"),
    (f"{M} --regions two.reg --prefix 1", 2, "column '1_1': use letters"),
    (f"{M} --regions two.reg --rest-column UVW", 2, "column UVW: belongs to the MS itself"),
    (f"{M} --regions two.reg --rest-column SOUTH_LOBE", 2, "column SOUTH_LOBE: named twice"),
    (f"{M} --regions two.reg --all-column DATA", 2, "column DATA: belongs to the MS itself"),
    (f"{M} --regions two.reg --spw 0:1~2", 2, "channels cannot be selected"),
    (f"{M} --regions two.reg --scan 2", 3, "no rows for field='0'"),
    (f"{M} --regions two.reg --predictor tclean", 3, "not made by tclean"),
    (f"{M} --regions two.reg --predictor wsclean", 2, "is not one of 'ducc', 'tclean'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "message"), CASES, ids=[case[0] for case in CASES])
def test_bad_input(invoke, ready: Path, line: str, code: int, message: str) -> None:
    before = names(ready)
    found = invoke("predict-region", ready, *line.split(), code=code)
    text = " ".join(found.stderr.split())
    assert message in text, text
    assert len([row for row in found.stderr.splitlines() if row.startswith("Error: ")]) == 1
    assert found.stdout == "" and names(ready) == before
    assert not list(ready.parent.glob("*.json"))


def test_columns_that_exist_are_replaced_only_with_overwrite(invoke, ready: Path) -> None:
    base = ("predict-region", ready, *ONE_FIELD, "--regions", "two.reg")
    invoke(*base)
    found = invoke(*base, code=3)
    assert "BRIGHT_3C_1, SOUTH_LOBE exist already; use --overwrite" in found.stderr
    invoke(*base, "--overwrite")


def test_a_column_of_another_type_is_not_replaced(invoke, ready: Path) -> None:
    with table(str(ready), readonly=False, ack=False) as main:
        main.renamecol("TIME_CENTROID", "SOUTH_LOBE")
    found = invoke(
        "predict-region", ready, *ONE_FIELD, "--regions", "two.reg", "--overwrite", code=3
    )
    assert "column SOUTH_LOBE has values of type double, not visibilities" in found.stderr
