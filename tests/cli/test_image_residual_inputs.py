"""What `peelkit image-residual` refuses before it starts CASA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.core import image_record
from peelkit.core.image_place import check_free, claimed
from peelkit.core.image_residual import new_islands, restoring_beam
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.io import journal, ms
from peelkit.io.image import Image, read_image
from peelkit.selection import Selection

SETTLED = [
    ("--field", "0"), ("--spw", "0"), ("--scan", "1"), ("--imsize", "128"), ("--cell", "1arcsec"),
    ("--robust", "0"), ("--nterms", "2"), ("--scales", "0,5"), ("--gridder", "wproject"),
    ("--niter", "10"), ("--uvrange", ">1klambda"),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ms") / "good.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_scan=2, n_time=2, n_field=2, seed=1))
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "ZERO_DATA")
        main.putcol("ZERO_DATA", np.zeros_like(main.getcol("DATA")))
    return path


@pytest.mark.parametrize(("option", "value"), SETTLED)
def test_what_like_settles_cannot_be_given_too(invoke, good: Path, option: str, value: str) -> None:
    found = invoke("image-residual", good, "out", "--like", "x.image", option, value, code=2)
    assert f"{option}: --like settles this" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--restore"], 2, "--restore and --from go together"),
        (["--from", "x.json"], 2, "--restore and --from go together"),
        (["--around", "x.crtf"], 2, "--around needs --like"),
        (["--begin-with", "x.image"], 2, "--begin-with needs --like"),
        (
            ["--like", "x.image", "--around", "x.crtf", "--begin-with", "y"],
            2,
            "the region is the mask",
        ),
        (["--around", "x.crtf", "--like", "x.image", "--mask", "m"], 2, "the region is the mask"),
        (["--like", "absent.image"], 3, "absent.image: no such image"),
        ([], 3, "no column PEELED_DATA; give the one to image with --column"),
        (["--column", "UVW", "--field", "0"], 3, "column UVW holds no visibilities"),
        (["--column", "ZERO_DATA", "--field", "0"], 3, "all visibilities in ZERO_DATA are zero"),
        (["--column", "DATA"], 2, "several fields (0=field0, 1=field1), which are no mosaic"),
        (["--column", "DATA", "--uvrange", "1"], 2, "uvrange '1'"),
        (["--column", "DATA", "--field", "0~1", "--gridder", "standard"], 2, "no mosaic"),
    ],
)
def test_bad_inputs_get_one_line(
    invoke, good, arguments: list[str], code: int, message: str
) -> None:
    found = invoke("image-residual", good, "out", *arguments, code=code)
    assert message in found.stderr.replace("\n", " ")
    assert "Traceback" not in found.stderr
    assert not [*Path().glob("out.*"), *Path().glob(".out*")]


def test_out_is_a_name_without_image(invoke, good: Path) -> None:
    found = invoke("image-residual", good, "out.image", "--column", "DATA", code=2)
    assert "the name without .image" in found.stderr


def test_an_image_without_sidecar_cannot_be_repeated(invoke, good: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.image").mkdir()
    found = invoke("image-residual", good, "out", "--like", "foreign.image", code=3)
    assert "has no sidecar foreign.image.peelkit.json" in found.stderr


def test_an_ms_that_a_killed_step_left_is_refused(invoke, copy_ms, good: Path) -> None:
    path = copy_ms(good)
    journal.begin(path, "ddsolve")
    found = invoke("image-residual", path, "out", "--column", "DATA", code=3)
    assert "ddsolve was interrupted" in found.stderr


def test_products_of_others_are_kept_and_those_of_a_killed_run_replaced(tmp_path: Path) -> None:
    out = tmp_path / "target"
    for name in ("target.image", "target.ms", "target.image.pbcor.fits", "target.notes"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"target\.image: exists"):
        check_free(out, overwrite=False)
    check_free(out, overwrite=True)
    # They come back if the new ones do not come out, and go if they do.
    with pytest.raises(RuntimeError), claimed(out):
        assert not (tmp_path / "target.image").exists()
        (tmp_path / "target.psf").mkdir()
        raise RuntimeError
    assert (tmp_path / "target.image").exists() and not (tmp_path / "target.psf").exists()
    assert not [item for item in tmp_path.iterdir() if item.name.startswith(".")]
    with claimed(out):
        (tmp_path / "target.psf").mkdir()
    # Only what tclean makes of an imagename is its own: the MS beside it is not.
    assert {item.name for item in tmp_path.iterdir()} == {
        "target.ms", "target.image.pbcor.fits", "target.notes", "target.psf"
    }  # fmt: skip
    # What a run leaves that did not finish may be replaced.
    (tmp_path / "target.psf").rmdir()
    with pytest.raises(RuntimeError), claimed(out):
        (tmp_path / "target.image").mkdir()
        raise RuntimeError
    check_free(out, overwrite=False)
    with claimed(out):
        assert not (tmp_path / "target.image").exists()


def test_a_record_gives_back_what_it_was_made_of(tmp_path: Path) -> None:
    imaging = Imaging(
        imsize=320, cell_arcsec=0.41, robust=-0.5, nterms=2, scales=(0, 5), gridder="mosaic",
        uvrange=">1klambda", niter=77, stokes="RR", phasecenter="J2000 12h00m00s +01d00m00s",
    )  # fmt: skip
    selection = Selection(field="0,1", spw="0:1~2", scan="3")
    name = tmp_path / "x"
    for item in ("x.image.tt0", "x.cleanmask"):
        (tmp_path / item).mkdir()
    path = image_record.write(
        name, imaging, ms=Path("a.ms"), selection=selection, column="DATA", nsigma=2.5,
        engine={"name": "casatasks"}, started=0.0,
    )  # fmt: skip
    assert path.name == "x.image.tt0.peelkit.json"
    found = json.loads(path.read_text())
    assert found["command"] == "image"
    assert found["results"]["models"] == [str(tmp_path / f"x.model.tt{k}") for k in (0, 1)]
    assert found["results"]["pb"] == str(tmp_path / "x.pb.tt0")
    # The folder may have moved since: what belongs to the image is beside it.
    moved = tmp_path.rename(tmp_path.with_name(tmp_path.name + "-moved"))
    record = image_record.read(moved / "x.image.tt0")
    assert record.imaging == imaging and record.selection == selection
    assert record.nsigma == 2.5 and record.mask == moved / "x.cleanmask"
    (moved / "x.cleanmask").rmdir()
    with pytest.raises(DataError, match="mask"):
        image_record.read(moved / "x.image.tt0")
    moved.rename(tmp_path)


def test_new_islands_are_those_without_an_old_pixel() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:3, 1:3] = mask[6:8, 6:8] = mask[1, 7] = True
    added = np.zeros_like(mask)
    added[2, 1:3] = True  # an edge of the first
    added[6:8, 6:8] = added[1, 7] = True
    assert new_islands(mask, added) == 2


def test_the_restoring_beam_is_half_at_half_its_axes(make_image) -> None:
    image = make_image(major_arcsec=8.0, minor_arcsec=4.0, pa_deg=90.0, cell_arcsec=1.0)
    beam = restoring_beam(image, 20.0, 16.0)
    assert beam[16, 20] == 1.0
    # At 90 deg the major axis lies east-west, that is along x.
    assert beam[16, 24] == pytest.approx(0.5) and beam[18, 20] == pytest.approx(0.5)
    tilted = make_image(major_arcsec=8.0, minor_arcsec=4.0, pa_deg=45.0, cell_arcsec=1.0)
    # From north through east: towards smaller x, larger y.
    slanted = restoring_beam(tilted, 20.0, 16.0)
    assert slanted[19, 17] > slanted[19, 23]


@pytest.fixture
def make_image(tmp_path: Path):
    """A FITS image with a beam and nothing in it."""
    from astropy.io import fits

    def make(
        *, major_arcsec: float, minor_arcsec: float, pa_deg: float, cell_arcsec: float
    ) -> Image:
        header = fits.Header()
        for axis, kind, sign in ((1, "RA---SIN", -1), (2, "DEC--SIN", 1)):
            header[f"CTYPE{axis}"] = kind
            header[f"CRVAL{axis}"] = 30.0
            header[f"CRPIX{axis}"] = 21
            header[f"CDELT{axis}"] = sign * cell_arcsec / 3600
            header[f"CUNIT{axis}"] = "deg"
        header["BMAJ"], header["BMIN"] = major_arcsec / 3600, minor_arcsec / 3600
        header["BPA"], header["BUNIT"] = pa_deg, "Jy/beam"
        path = tmp_path / f"{pa_deg}.fits"
        fits.PrimaryHDU(np.zeros((40, 40), dtype=np.float32), header).writeto(path)
        return read_image(path)

    return make


def test_a_product_of_out_is_no_input(invoke, good: Path) -> None:
    Path("x.cleanmask").mkdir()
    words = (
        "image-residual",
        good,
        "x",
        "--column",
        "DATA",
        "--field",
        "0",
        "--mask",
        "x.cleanmask",
    )
    refused = invoke(*words, "--overwrite", code=2).stderr
    assert "x.cleanmask: is a product of x, which is replaced; give another OUT" in refused
    assert Path("x.cleanmask").exists()
