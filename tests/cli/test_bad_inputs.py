"""What users get wrong: one line that names the thing and the remedy, and the right exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import table

from makems import MsRecipe, make_ms


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with things that are wrong in one way each, and a few that are right."""
    folder = tmp_path_factory.mktemp("library")
    make_ms(folder / "good.ms", MsRecipe(n_antenna=6, n_scan=2, n_time=2, n_field=2, seed=1))
    make_ms(folder / "one.ms", MsRecipe(n_antenna=6, n_scan=1, n_time=2, seed=1))
    for name in ("flagged", "nodata", "zero", "weightless", "busy"):
        shutil.copytree(folder / "one.ms", folder / f"{name}.ms")

    def edit(name: str):
        return table(str(folder / f"{name}.ms"), readonly=False, ack=False)

    with edit("flagged") as main:
        main.putcol("FLAG", np.ones_like(main.getcol("FLAG")))
    with edit("nodata") as main:
        main.removecols("DATA")
    with edit("zero") as main:
        main.putcol("DATA", np.zeros_like(main.getcol("DATA")))
    with edit("weightless") as main:
        main.putcol("WEIGHT", np.zeros_like(main.getcol("WEIGHT")))
    with edit("busy") as main:
        main.renamecol("TIME_CENTROID", "MODEL_DATA")
    (folder / "folder.ms").mkdir()
    (folder / "text.fits").write_text("no FITS file")
    (folder / "broken.json").write_text("{")
    (folder / "old.json").write_text('{"schema": "peelkit.sidecar/0"}')
    image(folder / "image.fits", 128)
    image(folder / "small.fits", 64)
    image(folder / "noise.fits", 128, source=0.0)
    image(folder / "empty.fits", 128, blank=True)
    image(folder / "cube.fits", 128, channels=3)
    (folder / "away.crtf").write_text(
        "#CRTFv0\ncircle [[10h00m00s, -10d00m00s], 5arcsec] coord=J2000, label='AWAY'\n"
    )
    (folder / "nothing.crtf").write_text("#CRTFv0\n")
    (folder / "frame.crtf").write_text("#CRTFv0\ncircle [[10deg, 20deg], 5arcsec] coord=MARS\n")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.tex").write_text("precious")
    return folder


def image(
    path: Path, size: int, *, source: float = 1.0, blank: bool = False, channels: int = 1
) -> None:
    """A FITS image with a Gaussian source of 5 pixels, noise of 1 mJy/beam, and a beam."""
    ys, xs = np.mgrid[:size, :size] - size // 2
    data = source * np.exp(-4 * np.log(2) * (xs**2 + ys**2) / 25.0)
    data = data + 1e-3 * np.random.default_rng(0).normal(size=(size, size))
    if blank:
        data[:] = np.nan
    header = fits.Header()
    for axis, (kind, value, step) in enumerate(
        [
            ("RA---SIN", 150.0, -1 / 3600),
            ("DEC--SIN", 2.0, 1 / 3600),
            ("STOKES", 1, 1),
            ("FREQ", 3e9, 1e6),
        ],
        start=1,
    ):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = kind, value, step
        header[f"CRPIX{axis}"] = size // 2 + 1 if axis < 3 else 1
    header["RADESYS"], header["BUNIT"] = "ICRS", "Jy/beam"
    header["BMAJ"], header["BMIN"], header["BPA"] = 5 / 3600, 5 / 3600, 0.0
    full = np.broadcast_to(data, (channels, 1, size, size)).astype(np.float32)
    fits.PrimaryHDU(full, header).writeto(path)


CASES = [
    # command line, exit code, what the message must say
    ("snr-estimate", 2, "Missing argument"),
    ("frobnicate", 2, "No such command"),
    ("--memory 4 snr-estimate one.ms", 2, "No such option '--memory'; see 'peelkit --help'"),
    ("snr-estimate absent.ms", 3, "absent.ms: no such Measurement Set"),
    ("snr-estimate folder.ms", 3, "folder.ms: not a Measurement Set"),
    ("snr-estimate text.fits", 3, "text.fits: not a Measurement Set"),
    ("snr-estimate nodata.ms", 3, "nodata.ms: no DATA column"),
    ("snr-estimate flagged.ms", 3, "all flagged"),
    ("snr-estimate weightless.ms", 3, "is a positive number"),
    ("snr-estimate good.ms", 2, "choose one with --field"),
    ("snr-estimate good.ms --field 9", 3, "field '9': not in the data, which have 0=field0"),
    ("snr-estimate good.ms --spw 3", 3, "spw '3'"),
    ("snr-estimate good.ms --spw 0:9~12", 3, "channels '9~12' are not within 0~3"),
    ("snr-estimate one.ms --peak 1", 2, "--peak and --rms go together"),
    ("snr-estimate one.ms --peak 1 --rms 0", 2, "rms must be positive"),
    ("snr-estimate one.ms --image absent.fits", 3, "absent.fits: no such image"),
    ("snr-estimate one.ms --image text.fits", 3, "neither a FITS file nor a CASA image"),
    ("snr-estimate one.ms --peak 1 --rms 0.5", 5, "which noise alone can be"),
    ("snr-estimate one.ms --peak 1 --rms 0.01 --sidecar /proc/no/s.json", 3, "cannot be written"),
    ("selfcal good.ms", 2, "several fields (0=field0, 1=field1)"),
    ("selfcal one.ms --solint sometimes", 2, "use inf (per scan), int, 3int"),
    ("selfcal one.ms --solint inf --solint auto", 2, "auto stands alone"),
    ("selfcal one.ms --solint inf --solint int --calmode ap --calmode p", 2, "phase rounds first"),
    ("selfcal one.ms --solint inf --calmode p --calmode ap", 2, "calmode given 2 times for 1"),
    ("selfcal one.ms --solint inf --combine fields", 2, "combine 'fields'"),
    ("selfcal one.ms --refant ea99", 3, "refant 'ea99': not in the data"),
    ("selfcal one.ms --datacolumn corrected", 3, "no column CORRECTED_DATA"),
    ("selfcal busy.ms", 3, "MODEL_DATA holds a model; replace with --overwrite"),
    ("selfcal zero.ms", 3, "all visibilities in DATA are zero"),
    ("selfcal one.ms --out occupied", 3, "occupied: exists"),
    ("selfcal one.ms --out occupied --overwrite", 3, "it is not deleted"),
    ("selfcal one.ms --out /proc/no", 3, "cannot be made"),
    ("selfcal one.ms --from broken.json", 3, "broken.json: not a sidecar"),
    ("selfcal one.ms --from old.json", 3, "peelkit.sidecar/0"),
    ("selfcal one.ms --from absent.json", 3, "absent.json: no such sidecar"),
    ("selfcal one.ms --flux-range 1.1 1.5", 2, "must enclose 1"),
    ("selfcal one.ms --cell big", 2, "use a value such as 0.5arcsec"),
    ("selfcal one.ms --calmode ap", 2, "--calmode goes with --solint"),
    ("selfcal one.ms --uvrange hello", 2, "use a range such as >1klambda"),
    ("selfcal one.ms --interp cubic", 2, "linearPD"),
    ("selfcal one.ms --spwmap 7", 3, "one.ms has 1 spws"),
    ("snr-estimate one.ms --datacolumn corrected", 3, "no column CORRECTED_DATA"),
    ("selfcal one.ms --spwmap a,b", 2, "not a list of spw ids"),
    ("mask out.fits image.fits", 3, "image.fits is there, but stands where the mask is to be written"),
    ("mask out.fits image.fits --overwrite", 3, "image.fits is there, but stands where the mask is to be written"),
    ("mask text.fits image.fits", 3, "text.fits: neither a FITS file nor a CASA image"),
    ("image-residual new one.ms", 3, "new: no such Measurement Set"),
    ("import-uvfits new.ms image.fits", 3, "new.ms: no such file"),
    ("stats one.ms image.fits", 3, "a Measurement Set, not an image"),
    ("selfcal one.ms --imsize 512 256", 2, "--imsize 512 256: images are square"),
    ("selfcal one.ms --imsize [512,256]", 2, "--imsize 512 256: images are square"),
    ("selfcal one.ms --cell 1arcsec 2arcsec", 2, "--cell 1arcsec 2arcsec: images are square"),
    ("selfcal one.ms solint=inf", 2, "solint=inf: write --solint inf"),
    ("selfcal vis=one.ms", 2, "write one.ms"),
    ("selfcal one.ms --overwrite True", 2, "--overwrite takes no value"),
    ("selfcal one.ms --weighting briggs", 2, "--robust"),
    ("selfcal --vis one.ms", 2, "the MS stands first"),
    ("mask absent.fits out.fits", 3, "absent.fits: no such image"),
    ("mask noise.fits out.fits", 3, "--threshold"),
    ("mask empty.fits out.fits", 3, "empty.fits"),
    ("mask cube.fits out.fits", 3, "3 planes along FREQ"),
    ("mask image.fits out.fits --include away.crtf", 3, "AWAY"),
    ("mask image.fits out.fits --include nothing.crtf", 3, "nothing.crtf"),
    ("mask image.fits out.fits --include frame.crtf", 3, "MARS"),
    ("mask image.fits out.fits --merge small.fits", 3, "small.fits"),
    ("mask image.fits image.fits", 2, "read and written"),
    ("mask image.fits out.fits --drop 7", 3, "7"),
    ("stats absent.fits", 3, "absent.fits: no such image"),
    ("stats empty.fits", 3, "empty.fits"),
    ("stats image.fits --plot figure.xyz", 2, "xyz"),
    ("undo one.ms", 3, "nothing to undo"),
    ("undo one.ms --to 3 --list", 2, "exclude each other"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "message"), CASES, ids=[case[0] for case in CASES])
def test_bad_input(
    invoke, library: Path, tmp_path: Path, line: str, code: int, message: str
) -> None:
    words = [str(library / word) if (library / word).exists() else word for word in line.split()]
    before = {
        path: path.stat().st_mtime_ns for path in library.rglob("*") if path.suffix != ".lock"
    }
    found = invoke(*words, code=code)
    text = " ".join(found.stderr.split())
    assert message in text, text
    assert "Traceback" not in text
    # One line says it all; a refusal shows what was found.
    errors = [row for row in found.stderr.splitlines() if row.startswith("Error: ")]
    assert len(errors) == 1
    if code == 2:
        assert found.stderr.splitlines() == errors
    if code not in (2, 5):
        assert found.stdout == ""
    if code != 5:
        # Nothing is written where it fails, but for CASA's log.
        assert [p.name for p in tmp_path.iterdir() if p.suffix != ".log"] == []
        assert (library / "occupied" / "thesis.tex").read_text() == "precious"
        changed = [p for p, when in before.items() if p.is_file() and p.stat().st_mtime_ns != when]
        assert [p for p in changed if "table.lock" not in p.name] == []
    for path in library.glob("*.peelkit.json"):
        path.unlink()


def test_json_of_a_refusal_is_still_whole(invoke, library: Path) -> None:
    found = invoke("snr-estimate", library / "one.ms", "--peak", 1, "--rms", 0.5, "--json", code=5)
    record = json.loads(found.stdout)
    assert record["results"]["feasible"] is False and record["refusal"]


def test_a_missing_engine_is_exit_4_and_names_it(
    invoke, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEELKIT_CASA_PYTHON", "/no/such/python")
    found = invoke("snr-estimate", library / "one.ms", code=4)
    assert "/no/such/python: CASA's Python cannot be started" in found.stderr


def test_the_table_of_bad_inputs_is_long_enough() -> None:
    assert len(CASES) >= 30
