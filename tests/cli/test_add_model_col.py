"""``peelkit add-model-col`` as a user calls it. Truth: columns that a formula has filled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import makearrcoldesc, maketabdesc, table
from click.testing import Result

from makems import MsRecipe, make_ms, sky_visibility
from peelkit.core import columns
from peelkit.io import journal, ms

Invoke = Callable[..., Result]

RECIPE = MsRecipe(
    n_antenna=7, n_scan=2, n_time=3, n_chan=(3, 2), n_field=2, n_corr=4, flux_jy=0.7,
    sources=((0.2, 20.0, -10.0),), seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two spws of different shape, two fields; MODEL_DATA, A, B, C by formula."""
    path = tmp_path_factory.mktemp("made") / "a.ms"
    make_ms(path, RECIPE)
    with table(str(path), readonly=False, ack=False) as main:
        for name in ("MODEL_DATA", "A", "B", "C"):
            ms.add_column(main, name)
        for row in range(main.nrows()):
            spw = main.getcell("DATA_DESC_ID", row)
            freq = RECIPE.freq_hz + (3 * spw + np.arange(RECIPE.n_chan[spw])) * 10e6
            vis = sky_visibility(RECIPE, main.getcell("UVW", row)[None], freq)[0]
            model = np.zeros((freq.size, 4), dtype=complex)
            model[:, [0, 3]] = vis[:, None]
            main.putcell("MODEL_DATA", row, model)
            for number, name in enumerate("ABC", 2):
                main.putcell(name, row, model * number * np.exp(1j * row))
    return path


@pytest.fixture
def path(made: Path, copy_ms: Callable[[Path], Path]) -> Path:
    return copy_ms(made)


def cells(path: Path, name: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcell(name, row) for row in range(main.nrows())]


def column(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return main.getcol(name)


def names(path: Path) -> set[str]:
    with table(str(path), ack=False) as main:
        return set(main.colnames())


def change(path: Path, name: str, where: str, value: object) -> None:
    """Put ``value`` (broadcast) into the cells that a TaQL condition selects."""
    with table(str(path), readonly=False, ack=False) as main:
        for ddid in (0, 1):
            rows = main.query(f"DATA_DESC_ID=={ddid} && ({where})")
            if rows.nrows():
                old = rows.getcol(name)
                rows.putcol(name, np.broadcast_to(value, old.shape).astype(old.dtype))


def results(path: Path, name: str) -> dict:
    return json.loads(path.with_name(f"{path.name}.add-model-col.{name}.peelkit.json").read_text())[
        "results"
    ]


def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))


def test_the_model_is_copied_bit_by_bit_in_both_shapes(invoke: Invoke, path: Path) -> None:
    result = invoke("add-model-col", path, "ALL_SKY_MODEL")
    assert same(cells(path, "ALL_SKY_MODEL"), cells(path, "MODEL_DATA"))
    assert "ALL_SKY_MODEL = MODEL_DATA" in result.stdout
    found = results(path, "ALL_SKY_MODEL")
    assert [(g["field"], g["spw"], g["rows"]) for g in found["groups"]] == [
        (0, 0, 63), (0, 1, 63), (1, 0, 63), (1, 1, 63)
    ]  # fmt: skip
    assert found["zero_fraction"] == found["nan_count"] == found["one_rows"] == 0
    assert found["findings"] == []
    assert not found["equal_to_data"]
    # The largest amplitude cannot exceed the sum of the sources, nor fall short of the largest.
    assert 0.7 < found["max_amplitude_jy"] <= 0.9
    history = column(path / "HISTORY", "MESSAGE")
    assert any("ALL_SKY_MODEL = MODEL_DATA" in message for message in history)


def test_the_new_column_has_the_storage_of_data(invoke: Invoke, path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        ms.add_column(main, "TILED", "DATA")  # make_ms has another manager
        for row in range(main.nrows()):
            main.putcell("TILED", row, main.getcell("DATA", row))
        main.removecols("DATA")
        main.renamecol("TILED", "DATA")
    invoke("add-model-col", path, "NEW")
    with table(str(path), ack=False) as main:
        data, new = (main.getdminfo(name) for name in ("DATA", "NEW"))
    tiles = [
        [cube["TileShape"].tolist() for cube in info["SPEC"]["HYPERCUBES"].values()]
        for info in (data, new)
    ]
    assert data["TYPE"] == new["TYPE"]
    assert tiles[0] == tiles[1]


def test_a_sum_closes(invoke: Invoke, path: Path) -> None:
    # A + B - C = (2 + 3 - 4) x model x phase: one model, to the rounding of single precision.
    invoke("add-model-col", path, "REST", "--expression", "A+B-C")
    a, b, c, rest = (cells(path, name) for name in ("A", "B", "C", "REST"))
    for row in range(len(a)):
        assert np.abs(rest[row] - (a[row] + b[row] - c[row])).max() < 1e-6 * np.abs(c[row]).max()
    invoke("add-model-col", path, "CLOSE", "--expression", "REST+C-B-A", "--allow", "zero",
           "--allow", "unpredicted")  # fmt: skip
    assert max(np.abs(one).max() for one in cells(path, "CLOSE")) < 1e-6


def test_rows_that_are_not_selected_are_zero_in_a_new_column(invoke: Invoke, path: Path) -> None:
    result = invoke("add-model-col", path, "PART", "--field", "1", "--spw", "1")
    with table(str(path), ack=False) as main:
        inside = (main.getcol("FIELD_ID") == 1) & (main.getcol("DATA_DESC_ID") == 1)
    model, part = cells(path, "MODEL_DATA"), cells(path, "PART")
    for row, chosen in enumerate(inside):
        assert np.array_equal(part[row], model[row] if chosen else np.zeros_like(model[row]))
    assert "189 rows that were not selected are 0" in result.stdout
    # What was not selected is not audited.
    assert [(g["field"], g["spw"]) for g in results(path, "PART")["groups"]] == [(1, 1)]


def test_rows_that_are_not_selected_keep_what_they_had(invoke: Invoke, path: Path) -> None:
    before = cells(path, "A")
    invoke("add-model-col", path, "A", "--scan", "2", "--overwrite")
    scan, after, model = column(path, "SCAN_NUMBER"), cells(path, "A"), cells(path, "MODEL_DATA")
    for row in range(len(after)):
        assert np.array_equal(after[row], model[row] if scan[row] == 2 else before[row])


def test_a_column_may_be_part_of_its_own_sum_and_undo_puts_it_back(
    invoke: Invoke, path: Path
) -> None:
    before = cells(path, "MODEL_DATA")
    invoke("add-model-col", path, "MODEL_DATA", "--expression", "MODEL_DATA+A", "--overwrite")
    after = cells(path, "MODEL_DATA")
    for row, (one, a) in enumerate(zip(before, cells(path, "A"), strict=True)):
        assert np.array_equal(after[row], (one.astype(complex) + a).astype(np.complex64)), row
    assert results(path, "MODEL_DATA")["replaced"]
    invoke("undo", path)
    assert same(cells(path, "MODEL_DATA"), before)


def test_undo_takes_a_new_column_away(invoke: Invoke, path: Path) -> None:
    before = names(path)
    invoke("add-model-col", path, "NEW")
    assert names(path) - before == {"NEW"}
    invoke("undo", path)
    assert names(path) == before


def test_a_crash_in_the_middle_leaves_the_ms_as_it_was(
    invoke: Invoke, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(path)
    add = columns.Audit.add

    def crash(self: columns.Audit, values: np.ndarray, *rest: object) -> None:
        add(self, values, *rest)  # type: ignore[arg-type]
        if values.shape[1] == 2:  # the second shape
            raise MemoryError

    monkeypatch.setattr(columns.Audit, "add", crash)
    with pytest.raises(MemoryError):
        invoke("add-model-col", path, "A", "--overwrite")
    assert names(path) == before
    assert journal.steps(path) == []


def test_a_killed_run_is_put_back_by_the_next(invoke: Invoke, path: Path) -> None:
    old = cells(path, "A")
    step = journal.begin(path, "add-model-col")  # as a kill leaves it: begun, A put aside
    journal.new_column(path, step, "A")
    invoke("add-model-col", path, "NEW", "--expression", "A")
    assert same(cells(path, "NEW"), old)
    assert [step.created for step in journal.steps(path)] == [("NEW",)]


# ---------------------------------------------------------------- what the audit refuses


AUDITED = [
    (
        "zero",
        lambda path: change(path, "MODEL_DATA", "FIELD_ID==1 && DATA_DESC_ID==1", 0),
        "all zero in field 1, spw 1",
    ),
    (
        "nan",
        lambda path: change(path, "MODEL_DATA", "rownumber()==8", np.nan),
        "12 values NaN or infinite in field 0, spw 0",
    ),
    (
        "one",
        lambda path: change(path, "MODEL_DATA", "FIELD_ID==1", [1, 0, 0, 1]),
        "constant 1, as where nothing was predicted, in field 1, spw 0~1",
    ),
    (
        "unpredicted",
        lambda path: change(path, "MODEL_DATA", "FIELD_ID==0 && ANTENNA1==2", [1, 0, 0, 1]),
        "19 % never predicted (1 in the parallel hands) in field 0, spw 0~1",
    ),
    (
        "unpredicted",
        lambda path: change(path, "MODEL_DATA", "FIELD_ID==0 && ANTENNA1==2", 0),
        "19 % never predicted (0 where not flagged) in field 0, spw 0~1",
    ),
]


@pytest.mark.parametrize(("finding", "spoil", "words"), AUDITED)
def test_the_audit_refuses_and_leaves_the_ms_as_it_was(
    invoke: Invoke, path: Path, finding: str, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(path)
    before = names(path)
    result = invoke("add-model-col", path, "NEW", code=3)
    assert words in result.stderr
    assert f"accept it with --allow {finding}." in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert names(path) == before
    assert not list(path.parent.glob("*.peelkit.json"))
    # Accepted knowingly, it is a warning.
    result = invoke("add-model-col", path, "NEW", "--allow", finding)
    assert f"accepted: {words}" in " ".join(result.stderr.split())
    assert [item["name"] for item in results(path, "NEW")["findings"]] == [finding]


def test_zeros_where_the_data_are_flagged_are_no_fault(invoke: Invoke, path: Path) -> None:
    # tclean writes 0 there.
    for name, value in (("MODEL_DATA", 0), ("FLAG", True)):
        change(path, name, "ANTENNA2==4", value)
    invoke("add-model-col", path, "NEW")
    # After unflagging they are: the model has to be predicted again.
    change(path, "FLAG", "ANTENNA2==4", False)
    assert "never predicted" in invoke("add-model-col", path, "NEW2", code=3).stderr


def test_a_model_that_is_the_data_is_a_warning(invoke: Invoke, path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        for row in range(main.nrows()):
            main.putcell("A", row, main.getcell("DATA", row))
    result = invoke("add-model-col", path, "NEW", "--expression", "A")
    assert "same as DATA" in result.stderr
    assert results(path, "NEW")["equal_to_data"]
    assert "same as DATA" not in invoke("add-model-col", path, "D", "--expression", "DATA").stderr


# ---------------------------------------------------------------- amplitudes


def model_image(
    path: Path, scale: float = 1.0, unit: str = "Jy/pixel", north_arcmin: float = 0.0
) -> Path:
    """The sources of `RECIPE` on pixels of 10 arcsec, at field 0."""
    data = np.zeros((64, 64), dtype=np.float32)
    for flux, east, north in ((RECIPE.flux_jy, 0, 0), *RECIPE.sources):
        data[32 + round(north / 10), 32 - round(east / 10)] = scale * flux
    hdu = fits.PrimaryHDU(data)
    hdu.header.update(
        CTYPE1="RA---SIN", CTYPE2="DEC--SIN", CRPIX1=33, CRPIX2=33, CDELT1=-10 / 3600,
        CDELT2=10 / 3600, CRVAL1=np.degrees(2.0), CRVAL2=RECIPE.dec_deg + north_arcmin / 60,
        CUNIT1="deg", CUNIT2="deg", RADESYS="FK5", EQUINOX=2000.0, BUNIT=unit,
    )  # fmt: skip
    hdu.writeto(path)
    return path


def test_amplitudes_are_those_that_the_image_gives(
    invoke: Invoke, path: Path, tmp_path: Path
) -> None:
    image = model_image(tmp_path / "m.fits")
    invoke("add-model-col", path, "NEW", "--field", "0", "--model-image", image)
    found = results(path, "NEW")
    assert found["model_flux_jy"] == pytest.approx(0.9)
    for group in found["groups"]:
        # Gridding errors are 1e-6, CASA's frame shift moves the sources by 1e-4 of their offset.
        assert group["amplitude_ratio"] == pytest.approx(1, abs=1e-3)
        # One term has no spectrum; 1.3 % is the band.
        assert 0.9 <= group["limit_amplitude_jy"] < 0.92


def test_an_image_of_another_flux_is_refused(invoke: Invoke, path: Path, tmp_path: Path) -> None:
    low = model_image(tmp_path / "low.fits", 0.5)
    stderr = invoke("add-model-col", path, "NEW", "--field", "0", "--model-image", low,
                    code=3).stderr  # fmt: skip
    assert "where the model has 0.45" in stderr
    high = model_image(tmp_path / "high.fits", 5)
    stderr = invoke("add-model-col", path, "NEW", "--field", "0", "--model-image", high,
                    code=3).stderr  # fmt: skip
    assert "on the shortest baselines, where the model gives" in stderr
    invoke("add-model-col", path, "NEW", "--field", "0", "--model-image", high, "--allow", "flux")
    # Off centre the primary beam may take away that much.
    aside = model_image(tmp_path / "aside.fits", 5, north_arcmin=1)
    invoke("add-model-col", path, "NEW2", "--field", "0", "--model-image", aside)


def test_a_flux_of_the_wrong_unit_is_refused(invoke: Invoke, path: Path) -> None:
    # 0.9 Jy is the sum of the sources; 900 would be mJy.
    invoke("add-model-col", path, "NEW", "--flux", "0.9")
    stderr = invoke("add-model-col", path, "NEW2", "--flux", "2e3", code=3).stderr
    assert "the model gives 2000 Jy" in stderr
    assert "in field 0~1, spw 0~1" in stderr


# ---------------------------------------------------------------- what users get wrong


BAD = [
    (["a.ms", "NEW", "--expression", "B9"], 3, "B9: no such column; columns that can be copied: A"),
    (["a.ms", "NEW", "--expression", "A+FLAG"], 3, "FLAG: its values are of type boolean"),
    (["a.ms", "NEW", "--expression", "UVW"], 3, "UVW: its values are of type double"),
    (["a.ms", "NEW", "--expression", "A*B"], 2, "names joined by + and -"),
    (["a.ms", "A"], 3, "column A exists; give another name, or --overwrite"),
    (["a.ms", "DATA", "--overwrite"], 2, "column DATA: belongs to the MS itself"),
    (["a.ms", "weight"], 2, "column weight: belongs to the MS itself"),
    (["a.ms", "A-B"], 2, "letters, digits and _"),
    (["a.ms", "NEW", "--spw", "0:1~2"], 2, "select whole spws"),
    (["a.ms", "NEW", "--field", "7"], 3, "field '7': not in the data"),
    (["a.ms", "NEW", "--allow", "all"], 2, "'all' is not one of"),
    (["a.ms", "NEW", "--flux", "0"], 2, "--flux"),
    (["a.ms", "NEW", "--flux", "1", "--model-image", "x"], 2, "give one of them"),
    (["a.ms", "NEW", "--model-image", "none.model"], 3, "none.model"),
    (["none.ms", "NEW"], 3, "none.ms: no such Measurement Set"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD)
def test_bad_input_is_one_line(
    invoke: Invoke, path: Path, arguments: list[str], code: int, words: str
) -> None:
    before = names(path)
    result = invoke("add-model-col", *arguments, code=code)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert names(path) == before


def test_a_restored_image_is_not_a_model(invoke: Invoke, path: Path, tmp_path: Path) -> None:
    image = model_image(tmp_path / "m.fits", unit="Jy/beam")
    assert "give the .model" in invoke("add-model-col", path, "N", "--model-image", image,
                                       code=3).stderr  # fmt: skip


def test_a_missing_model_says_how_to_make_one(invoke: Invoke, path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        main.removecols("MODEL_DATA")
    stderr = invoke("add-model-col", path, "NEW", code=3).stderr
    assert "MODEL_DATA: no such column" in stderr
    assert "savemodel='modelcolumn'" in stderr


def test_a_column_of_another_shape_is_refused(invoke: Invoke, path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        main.addcols(maketabdesc(makearrcoldesc("SMALL", 0j, valuetype="complex", ndim=2)))
        for row in range(main.nrows()):
            main.putcell("SMALL", row, main.getcell("DATA", row)[:1])
    stderr = invoke("add-model-col", path, "NEW", "--expression", "A-SMALL", code=3).stderr
    assert "SMALL: row 0 has shape (1, 4), DATA (3, 4)" in stderr


def test_a_column_without_values_in_some_rows_is_refused(invoke: Invoke, path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        ms.add_column(main, "HALF")
        for row in range(main.nrows() // 2):
            main.putcell("HALF", row, main.getcell("MODEL_DATA", row))
    before = names(path)
    stderr = invoke("add-model-col", path, "NEW", "--expression", "HALF", code=3).stderr
    assert "HALF has no values in" in stderr
    assert names(path) == before


def test_a_place_without_a_sidecar_is_refused_before_the_ms_is_changed(
    invoke: Invoke, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    words = ("add-model-col", path, "COPY")
    assert "give --sidecar PATH" in invoke(*words, code=3).stderr
    with table(str(path), ack=False) as main:
        assert "COPY" not in main.colnames()
    invoke(*words, "--sidecar", tmp_path / "here.json")
