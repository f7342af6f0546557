"""``peelkit predict-region`` with shapes, refined models, and models of single directions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import makecoldesc, table

from makemodel import CELL, DEC_DEG, RA_DEG, SIZE, write_model
from makems import MsRecipe, make_ms
from peelkit import sidecar

CENTRE = {"centre": (RA_DEG, DEC_DEG), "specsys": "LSRK"}
# In arcsec east and north of the phase centre, and Jy.
NORTH, SOUTH, FAR = (-80, 160, 2.0), (100, -60, 1.5), (20, 20, 0.3)


def pixel(east: float, north: float) -> tuple[int, int]:
    return SIZE // 2 + round(north / CELL), SIZE // 2 - round(east / CELL)


def plane(*components: tuple[float, float, float]) -> np.ndarray:
    image = np.zeros((SIZE, SIZE))
    for east, north, flux in components:
        image[pixel(east, north)] += flux
    return image


def scattered(source: tuple[float, float, float]) -> list[tuple[float, float, float]]:
    """As CLEAN finds a point whose phases are wrong."""
    east, north, flux = source
    return [
        (east + 4, north, 0.5 * flux), (east - 6, north + 4, 0.4 * flux), (east, north - 8, 0.2 * flux)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    recipe = MsRecipe(
        n_antenna=12, n_scan=2, n_time=6, n_chan=(3, 2), frame="ICRS", flux_jy=0.0, phase_rms_deg=5.0,
        sources=tuple((flux, east, north) for east, north, flux in (NORTH, SOUTH, FAR)), seed=4,
    )  # fmt: skip
    make_ms(folder / "a.ms", recipe)
    write_model(
        folder / "x.model.fits", [plane(*scattered(NORTH), *scattered(SOUTH), FAR)], **CENTRE
    )
    write_model(folder / "empty.model.fits", [plane()], **CENTRE)
    # Of the peeled sky: the rest, a leftover of the source, and a faint neighbour in its region.
    near, neighbour = (NORTH[0] + 2, NORTH[1], -0.01), (NORTH[0] - 20, NORTH[1], 0.02)
    write_model(folder / "rest.model.fits", [plane(FAR, near, neighbour)], **CENTRE)
    write_model(folder / "south.model", [plane(SOUTH, FAR)], **CENTRE)
    write_model(folder / "south.image", [plane(SOUTH)], **CENTRE, BUNIT="Jy/beam")
    lines = ["# Region file format: DS9 version 4.1", "image"]
    for label, (east, north, _) in (("NORTH", NORTH), ("SOUTH", SOUTH)):
        y, x = pixel(east, north)
        lines.append(f"circle({x + 1},{y + 1},15) # text={{{label}}}")
    (folder / "two.reg").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def ready(source: Path, copy_ms, tmp_path: Path) -> Path:
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    return copy_ms(source / "a.ms")


def column(path: Path, name: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [np.asarray(main.getcell(name, row)) for row in range(main.nrows())]


def stacked(path: Path, name: str) -> np.ndarray:
    return np.concatenate([cell.ravel() for cell in column(path, name)])


def run(invoke, path: Path, model: str, *words: object) -> dict:
    base = ("predict-region", path, "--model", model, "--regions", "two.reg", "--json")
    return json.loads(invoke(*base, *words).stdout)["results"]


def off_arcsec(entry: dict, place: tuple[float, float, float]) -> float:
    east = (entry["ra_deg"] - RA_DEG) * np.cos(np.radians(entry["dec_deg"])) * 3600
    return float(np.hypot(east - place[0], (entry["dec_deg"] - DEC_DEG) * 3600 - place[1]))


def refined(path: Path, place: tuple[float, float, float], **changes: object) -> dict:
    model = {
        "shape": "point", "ra_deg": RA_DEG + place[0] / 3600 / np.cos(np.radians(DEC_DEG)),
        "dec_deg": DEC_DEG + place[1] / 3600, "flux_jy": place[2], "reference_hz": 3e9,
        "spectrum": [-0.5], "major_arcsec": 0.0, "minor_arcsec": 0.0, "pa_deg": 0.0,
    } | changes  # fmt: skip
    return {"label": path, "refined": model}


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch):
    """A sidecar of ddsolve with these directions; its other results are not looked at."""

    def give(*directions: dict, **own: str) -> str:
        record = {"results": {"directions": list(directions), "own_data": own}}

        def read(path: Path, *commands: str) -> dict:
            assert path == Path("solve.json") and commands == ("ddsolve",)
            return record

        monkeypatch.setattr(sidecar, "read", read)
        return "solve.json"

    return give


def test_scattered_components_become_points_where_the_sources_are(invoke, ready: Path) -> None:
    found = run(invoke, ready, "x.model.fits", "--all-column", "--rest-column", "REST")
    for entry, place in zip(found["directions"], (NORTH, SOUTH), strict=True):
        assert entry["shape"] == "point" and entry["components"] == 1, entry["fit"]["reason"]
        # 3 km of baselines at 3 GHz: a beam of 7 arcsec.
        assert off_arcsec(entry, place) < 0.35
        assert entry["flux_jy"] == pytest.approx(place[2], rel=0.02)
        assert entry["model"]["flux_jy"] == pytest.approx(entry["flux_jy"], rel=1e-6)
        assert entry["fit"]["amplitude_scatter"] < 0.1 and entry["fit"]["drop"] < 0.05
        assert entry["fit"]["position_error_arcsec"] < 0.3
    assert (found["rest"]["flux_jy"], found["rest"]["components"]) == (pytest.approx(0.3), 1)
    assert found["flux_jy"] == pytest.approx(3.8, rel=0.02) and found["components"] == 3
    assert found["closure"] < 1e-5
    assert np.ptp(np.abs(stacked(ready, "NORTH"))) < 0.1
    parts = sum(stacked(ready, name) for name in ("NORTH", "SOUTH", "REST"))
    assert np.abs(stacked(ready, "ALL_SKY_MODEL") - parts).max() < 1e-5


def test_one_direction_may_have_a_shape_of_its_own(invoke, ready: Path) -> None:
    found = run(invoke, ready, "x.model.fits", "--shape", "point", "--shape", "SOUTH=clean")
    north, south = found["directions"]
    assert (north["shape"], south["shape"]) == ("point", "clean")
    assert south["components"] == 3 and south["model"] is None and south["fit"]["drop"] is None
    text = invoke(
        "predict-region", ready, "--model", "x.model.fits", "--regions", "two.reg", "--overwrite"
    ).stdout
    assert "NORTH: point; unresolved" in text and " index " in text


def test_a_refined_point_is_taken_as_it_is_and_its_neighbour_stays_in_the_rest(
    invoke, ready: Path, solved
) -> None:
    sides = solved(refined("NORTH", NORTH), {"label": "SOUTH", "refined": None})
    words = ("--refine", sides, "--direction-model", "SOUTH=south.image")
    found = run(invoke, ready, "rest.model.fits", *words, "--all-column", "--rest-column", "REST")
    north, south = found["directions"]
    assert north["shape"] == "point" and north["model"]["spectrum"] == [-0.5]
    assert off_arcsec(north, NORTH) < 0.05 and north["fit"]["reason"] == "refined, from solve.json"
    # Of its own image, only what is in its region.
    assert (south["shape"], south["flux_jy"]) == ("clean", pytest.approx(1.5))
    assert (found["rest"]["flux_jy"], found["rest"]["components"]) == (pytest.approx(0.32), 2)
    assert found["closure"] < 1e-5
    with table(str(ready), ack=False) as main:
        spw = main.getcol("DATA_DESC_ID")
    freq = 3e9 + 1e7 * np.arange(3)
    cell = column(ready, "NORTH")[int(np.flatnonzero(spw == 0)[0])]
    assert np.abs(cell[:, 0]) == pytest.approx(2.0 * (freq / 3e9) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_what_its_own_data_show_to_be_a_point_becomes_one(
    invoke, ready: Path, solved, alone: bool
) -> None:
    run(invoke, ready, "x.model.fits")
    with table(str(ready), readonly=False, ack=False) as main:
        description = main.getcoldesc("DATA")
        main.addcols(makecoldesc("SOUTH_DATA", description))
        rng = np.random.default_rng(3)
        for row in range(main.nrows()):
            cell = main.getcell("SOUTH", row)
            if not alone:
                # A double: as much again where the other source is.
                cell = cell + 0.75 * main.getcell("NORTH", row)
            cell = cell + rng.normal(0, 0.02, (*cell.shape, 2)) @ np.array([1, 1j])
            main.putcell("SOUTH_DATA", row, cell.astype(np.complex64))
    sides = solved(refined("NORTH", NORTH), {"label": "SOUTH"}, SOUTH="SOUTH_DATA")
    words = ("--refine", sides, "--direction-model", "SOUTH=south.image", "--overwrite")
    _, south = run(invoke, ready, "rest.model.fits", *words)["directions"]
    if not alone:
        assert south["shape"] == "clean" and south["fit"]["reason"].startswith("model beside")
        return
    assert south["shape"] == "point"
    assert south["fit"]["reason"].startswith("in SOUTH_DATA: unresolved")
    assert off_arcsec(south, SOUTH) < 0.35
    assert south["flux_jy"] == pytest.approx(SOUTH[2], rel=0.02)


def test_the_rest_may_be_empty_once_all_is_peeled(invoke, ready: Path, solved) -> None:
    sides = solved(
        refined("NORTH", NORTH), refined("SOUTH", SOUTH, shape="gaussian", major_arcsec=3.0)
    )
    found = run(invoke, ready, "empty.model.fits", "--refine", sides, "--all-column")
    assert [one["shape"] for one in found["directions"]] == ["point", "gaussian"]
    assert (found["rest"]["flux_jy"], found["rest"]["components"]) == (0.0, 0)
    assert found["flux_jy"] == pytest.approx(3.5) and found["closure"] < 1e-5


CASES = [
    (("--shape", "round"), 2, "--shape 'round': 'round' is not one of auto, clean, point, gaussian"),
    (("--shape", "WEST=point"), 2, "no region is called 'WEST', only NORTH, SOUTH"),
    (("--direction-model", "SOUTH"), 2, "--direction-model 'SOUTH': give LABEL=IMAGE"),
    (("--direction-model", "WEST=a.image"), 2, "--direction-model WEST: no region is called so"),
    (("--direction-model", "SOUTH=absent.image"), 3, "absent.image: no such image"),
    (("--datacolumn", "corrected"), 3, "no column CORRECTED_DATA; use --datacolumn data"),
    (("--shape", "point", "--predictor", "tclean"), 2, "--predictor tclean predicts pixels of one"),
    (("--refine", "absent.json"), 3, "absent.json: no such sidecar"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "message"), CASES, ids=[" ".join(c[0]) for c in CASES])
def test_bad_shapes(invoke, ready: Path, words, code: int, message: str) -> None:
    base = ("predict-region", ready, "--model", "x.model.fits", "--regions", "two.reg")
    found = invoke(*base, *words, code=code)
    assert message in " ".join(found.stderr.split())
    with table(str(ready), ack=False) as main:
        assert "NORTH" not in main.colnames()


def test_a_direction_without_refined_model_needs_its_image(invoke, ready: Path, solved) -> None:
    sides = solved(refined("NORTH", NORTH), {"label": "SOUTH"})
    base = ("predict-region", ready, "--regions", "two.reg", "--refine", sides)
    found = invoke(*base, "--model", "rest.model.fits", code=3)
    assert "SOUTH has no refined model; give an image of it with --direction-model" in " ".join(
        found.stderr.split()
    )
    both = ("--direction-model", "NORTH=south.image")
    found = invoke(*base, "--model", "rest.model.fits", *both, code=2)
    assert "has a refined point of it; leave one out" in " ".join(found.stderr.split())
    found = invoke(*base, "--model", "rest.model.fits", "--shape", "NORTH=clean", code=2)
    assert "the model of NORTH is given; leave one out" in " ".join(found.stderr.split())


def test_what_is_outside_the_regions_is_left_out_when_asked(ready: Path, invoke) -> None:
    words = (
        "predict-region", ready, "--model", "x.model.fits", "--regions", "two.reg", "--shape",
        "clean", "--all-column", "ALL", "--rest-column", "REST", "--overwrite", "--json",
    )  # fmt: skip
    # Without a restored image nobody knows what stands out: auto is all.
    for kept in ("auto", "all"):
        results = json.loads(invoke(*words, "--rest", kept).stdout)["results"]
        assert results["rest"]["flux_jy"] == pytest.approx(0.3, rel=0.01)
    left = json.loads(invoke(*words, "--rest", "none").stdout)
    assert left["results"]["rest"] == {"flux_jy": 0.0, "components": 0, "trials": []}
    assert left["results"]["closure"] < 1e-5
    with table(str(ready), ack=False) as main:
        assert not main.getcol("REST").any()
        parts = main.getcol("NORTH") + main.getcol("SOUTH")
        np.testing.assert_allclose(main.getcol("ALL"), parts, atol=1e-5)


def test_of_the_rest_only_what_the_data_confirm_is_predicted(
    ready: Path, invoke, tmp_path: Path, rng
) -> None:
    """FAR is in the data, WRONG is an artefact of the image that CLEAN took for a source."""
    wrong = (-150, -120, 0.2)
    write_model(
        tmp_path / "seen.model.fits",
        [plane(*scattered(NORTH), *scattered(SOUTH), FAR, wrong)], **CENTRE,
    )  # fmt: skip
    beam = 8.0
    ys, xs = np.indices((SIZE, SIZE))
    image = 0.005 * rng.normal(size=(SIZE, SIZE))
    for east, north, flux in (NORTH, SOUTH, FAR, wrong):
        y, x = pixel(east, north)
        radius = np.hypot(ys - y, xs - x) * CELL
        image += flux * np.exp(-4 * np.log(2) * (radius / beam) ** 2)
    write_model(
        tmp_path / "seen.image.fits", [image], **CENTRE, BUNIT="Jy/beam", BMAJ=beam / 3600,
        BMIN=beam / 3600, BPA=0.0,
    )  # fmt: skip
    found = run(invoke, ready, "seen.model.fits", "--all-column", "--rest-column", "REST")
    assert found["rest"]["components"] == 1, found["rest"]
    assert found["rest"]["flux_jy"] == pytest.approx(FAR[2], rel=0.01)
    # None of it, FAR, both: the second leaves least.
    none, far, both = (trial["chi2"] for trial in found["rest"]["trials"])
    assert far < 0.7 * none and far < 0.7 * both
    said = invoke(
        "predict-region", ready, "--model", "seen.model.fits", "--regions", "two.reg", "--overwrite",
        "--all-column", "--rest-column", "REST",
    )  # fmt: skip
    words = " ".join(said.stderr.split())
    assert "1 of 2 components outside the regions (200 of 500 mJy) are left out" in words
    whole = run(
        invoke, ready, "seen.model.fits", "--all-column", "--rest-column", "REST", "--overwrite",
        "--rest", "all",
    )  # fmt: skip
    assert whole["rest"]["components"] == 2 and whole["rest"]["trials"] == []
