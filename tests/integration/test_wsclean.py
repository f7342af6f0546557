"""Images by WSClean: against tclean's, against the truth, and what it must refuse."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import imagers, imaging, modelcol, thermal
from peelkit.core.first_image import first_image as make_first_image
from peelkit.core.imaging import Target
from peelkit.core.measure import measure
from peelkit.engines import wsclean as engine
from peelkit.engines.casa import Imaging
from peelkit.errors import EngineError
from peelkit.io import frames, ms
from peelkit.io.image import read_image
from peelkit.selection import Selection

pytestmark = pytest.mark.wsclean

SETTLED = Imaging(imsize=256, cell_arcsec=1.5, imager="wsclean", gridder="wgridder")
SIZE = ("--imsize", 256, "--cell", "1.5arcsec")
# On pixels: a component is then one pixel, and what is cleaned is exact.
BRIGHT, FAINT = (1.0, 45.0, 30.0), (0.05, -60.0, -90.0)


def recipe(**changes: object) -> MsRecipe:
    return MsRecipe(
        **{
            "n_antenna": 14, "n_scan": 2, "n_time": 6, "flux_jy": 0.0, "sources": (BRIGHT, FAINT),
            "sigma_jy": 0.02, "seed": 3, **changes,
        }
    )  # fmt: skip


def first_image(path: Path, out: Path, settled: Imaging, **changes: object) -> imaging.Cleaned:
    with imagers.opened(settled.imager, out.with_name("casa.log")) as imager:
        return make_first_image(
            imager, Target(path, "0", ""), out, settled, **{"sigma": 9.0, "nsigma": 3.0, **changes}
        )


def dirty(path: Path, out: Path, settled: Imaging = SETTLED, **target: str) -> np.ndarray:
    with imagers.opened(settled.imager, out.with_name("casa.log")) as imager:
        chosen = Target(path, target.pop("field", "0"), "", **target)
        return imaging.dirty_image(imager, chosen, out, settled).image.data


def circle(place: SkyCoord, label: str) -> str:
    return (
        "#CRTFv0\n"
        f"circle[[{place.ra.deg}deg, {place.dec.deg}deg], 40arcsec], coord=ICRS, label='{label}'\n"
    )


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(item.relative_to(path)): item.read_bytes()
        for item in sorted(path.rglob("*"))
        if item.is_file() and item.name != "table.lock"
    }


@pytest.fixture(scope="module")
def sky_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wsclean") / "a.ms"
    make_ms(path, recipe())
    return path


@pytest.mark.casa
def test_its_image_is_tcleans(sky_ms: Path, tmp_path: Path) -> None:
    settled = SETTLED
    before = contents(sky_ms)
    own = first_image(sky_ms, tmp_path / "w", settled)
    assert contents(sky_ms) == before
    left = {item.name for item in tmp_path.iterdir()}
    assert left == {"w.image", "w.psf", "w.residual", "w.model", "w.cleanmask", "wsclean.log"}
    other = first_image(
        sky_ms, tmp_path / "t", replace(settled, imager="tclean", gridder="standard")
    )
    mask = own.mask | other.mask
    mine, theirs = measure(own.image, mask), measure(other.image, mask)
    # What follows from the PSF, which is the same within the cells of the weights.
    assert own.image.beam.major_arcsec == pytest.approx(other.image.beam.major_arcsec, rel=0.01)
    assert own.image.beam.minor_arcsec == pytest.approx(other.image.beam.minor_arcsec, rel=0.01)
    assert own.image.beam.pa_deg == pytest.approx(other.image.beam.pa_deg, abs=3.0)
    assert mine.peak_jy_beam == pytest.approx(theirs.peak_jy_beam, rel=0.02)
    assert mine.flux_jy == pytest.approx(theirs.flux_jy, rel=0.02)
    # 1e4 beams; the noises correlate.
    assert mine.rms_jy_beam == pytest.approx(theirs.rms_jy_beam, rel=0.05)
    for name in ("image", "psf", "residual", "model"):
        one, two = (read_image(tmp_path / f"{stem}.{name}") for stem in "wt")
        if name in ("image", "model"):  # tclean gives the others no unit
            assert one.unit == two.unit
        assert one.stokes == two.stokes
        assert one.freq_hz == pytest.approx(two.freq_hz, rel=2e-4)  # LSRK
    info = ms.read_info(sky_ms)
    selection = Selection(field="0")
    sums, _ = thermal.weigh(info, settled, selection)
    limit = thermal.rms(info, sums, settled, selection)
    residual = read_image(tmp_path / "w.residual").data
    assert residual[~mask].std() == pytest.approx(limit, rel=0.08)


@pytest.mark.parametrize("frame", ["J2000", "ICRS", "B1950_VLA"])
def test_its_model_predicts_the_data_of_a_source_8_arcmin_off_the_axis(
    tmp_path: Path, frame: str
) -> None:
    # No noise, one source on a pixel: the data are the prediction to the accuracy of the positions.
    path = tmp_path / "far.ms"
    east, north = 432.0, -207.0
    make_ms(
        path,
        recipe(sources=((1.0, east, north),), sigma_jy=0.0, n_time=3, frame=frame, n_antenna=10),
    )
    # 0.9^80 of it is left: there is no noise to stop at.
    settled = replace(SETTLED, imsize=320, cell_arcsec=3.0, niter=80)
    with imagers.opened("wsclean", tmp_path / "casa.log") as imager:
        target, out = Target(path, "0", ""), tmp_path / "far"
        begun = imaging.dirty_image(imager, target, out, settled)
        found = imaging.clean_in_mask(
            imager, target, out, settled, begun.image.data > 0.9,
            nsigma=1.0, resume=True,
        )  # fmt: skip
    assert frames.image_frame(tmp_path / "far.image") == "TOPO"
    assert found.image.frame.name == {"J2000": "fk5", "ICRS": "icrs", "B1950_VLA": "fk4"}[frame]
    model = read_image(settled.models(tmp_path / "far")[0])
    y, x = np.unravel_index(int(np.argmax(model.data)), model.data.shape)
    assert (x, y) == (160 - east / 3, 160 + north / 3)
    assert model.data.sum() == pytest.approx(1.0, abs=2e-3)
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
    info = ms.read_info(path)
    modelcol.predict_model(info, modelcol.read_models([model.path]), rows=np.arange(info.n_rows))
    with table(str(path), ack=False) as main:
        data, predicted = main.getcol("DATA"), main.getcol("MODEL_DATA")
        longest = np.hypot(*main.getcol("UVW")[:, :2].T).max() * 3e9 / 299792458.0
    phase = np.angle(predicted / data)
    # 0.01 arcsec on the longest baseline.
    assert np.abs(phase).max() < 2 * math.pi * longest * math.radians(0.01 / 3600)
    assert np.abs(predicted - data).max() < 5e-3


def test_taylor_terms_are_those_of_the_sky(tmp_path: Path) -> None:
    # 1 Jy in the middle of 2 GHz at 2.6, flux falling by half of it per unit of (nu / nu_0 - 1).
    path = tmp_path / "wide.ms"
    freq = 1.9e9 + 0.2e9 * np.arange(8)
    middle = 2.6e9
    slope = -0.5
    line = tuple((c, 1 + slope * (nu / middle - 1)) for c, nu in enumerate(freq))
    make_ms(
        path,
        recipe(
            n_chan=(8,), freq_hz=1.9e9, chan_width_hz=0.2e9, line=line, sources=(), sigma_jy=0.02
        ),
    )
    settled = replace(SETTLED, nterms=2)
    found = first_image(path, tmp_path / "wide", settled)
    first, second = (
        read_image(item).data[found.mask].sum() for item in settled.models(tmp_path / "wide")
    )
    assert first == pytest.approx(1.0, abs=0.01)
    assert second == pytest.approx(slope, abs=0.05)
    assert found.image.path.name == "wide.image.tt0"
    assert found.image.freq_hz == pytest.approx(middle)
    figures = measure(found.image, found.mask)
    assert figures.peak_jy_beam == pytest.approx(1.0, abs=0.01)
    info = ms.read_info(path)
    selection = Selection(field="0")
    sums, _ = thermal.weigh(info, settled, selection)
    assert figures.rms_jy_beam == pytest.approx(
        thermal.rms(info, sums, settled, selection), rel=0.1
    )
    # What is kept from image to image holds with sub-bands too.
    with imagers.opened("wsclean", tmp_path / "casa.log") as imager:
        target = Target(path, "0", "")
        begun = imaging.dirty_image(imager, target, tmp_path / "again", settled)
        again = imaging.clean_in_mask(
            imager, target, tmp_path / "again", settled, found.mask,
            nsigma=3.0, like=begun.image, resume=True,
        )  # fmt: skip
    assert "-reuse-dirty" in (tmp_path / "wsclean.log").read_text()
    assert np.abs(again.image.data - found.image.data).max() < 1e-3


def test_rows_are_chosen_as_casa_chooses_them(tmp_path: Path) -> None:
    path = tmp_path / "two.ms"
    make_ms(path, recipe(executions=2, n_chan=(4, 4), n_time=3))
    with table(str(path), readonly=False, ack=False) as main:
        bad = np.arange(main.nrows()) % 3 == 0
        # FLAG does not say so.
        main.putcol("FLAG_ROW", bad)
        length = np.hypot(*main.getcol("UVW")[:, :2].T)
        second = main.getcol("OBSERVATION_ID") == 1
        freq = np.where(main.getcol("DATA_DESC_ID") == 0, 3.015e9, 3.055e9)
    for number, (keep, changes, target) in enumerate(
        [
            (~bad, {}, {}),
            (~bad & second, {}, {"observation": "1"}),
            (~bad & (length * freq / 299792458.0 > 5e3), {"uvrange": ">5klambda"}, {}),
            (~bad & (length <= 900), {"uvrange": "0~900m"}, {}),
        ]
    ):
        chosen = tmp_path / f"chosen{number}.ms"
        ms.copy_rows(path, chosen, np.flatnonzero(keep), data_column="DATA")
        with table(str(chosen), readonly=False, ack=False) as main:
            main.putcol("FLAG_ROW", np.zeros(main.nrows(), dtype=bool))
        mine = dirty(path, tmp_path / f"mine{number}", replace(SETTLED, **changes), **target)
        truth = dirty(chosen, tmp_path / f"truth{number}")
        assert np.abs(mine - truth).max() < 1e-6, changes


@pytest.mark.slow
def test_selfcal_finds_the_same_with_it(invoke, tmp_path: Path) -> None:
    path = tmp_path / "s.ms"
    make_ms(path, recipe(phase_rms_deg=30.0, sigma_jy=0.05, n_time=4))
    options = ("--solint", "inf", "--solint", "int", "--imager", "wsclean", *SIZE)
    invoke("selfcal", path, *options)
    record = json.loads((tmp_path / "s.ms.selfcal.peelkit.json").read_text())
    assert record["engine"]["imager"]["name"] == "wsclean"
    assert record["parameters"]["imager"] == "wsclean"
    final = json.loads((tmp_path / "s.selfcal" / "final.image.peelkit.json").read_text())
    assert final["engine"]["name"] == "wsclean"
    assert "-no-update-model-required" in final["engine"]["argv"]
    assert final["results"]["imaging"]["imager"] == "wsclean"
    found = read_image(tmp_path / "s.selfcal" / "final.image")
    info = ms.read_info(path)
    sums, _ = thermal.weigh(info, SETTLED, Selection(field="0"))
    limit = thermal.rms(info, sums, SETTLED, Selection(field="0"))
    figures = record["results"]["final"]
    # tclean's final image has 1.9 times the thermal rms, and 2 % of the peak lost in the phases that are left.
    assert figures["rms_jy_beam"] < 2.3 * limit
    assert float(np.nanmax(found.data)) == pytest.approx(0.98, abs=0.02)
    # What reads images reads these.
    place = found.sky(128 - BRIGHT[1] / 1.5, 128 + BRIGHT[2] / 1.5)
    Path("bright.crtf").write_text(circle(place, "BRIGHT"))
    invoke("predict-region", path, "--image", "s.selfcal/final.image", "--regions", "bright.crtf")
    invoke("image-residual", path, "like", "--column", "CORRECTED_DATA", "--like", "s.selfcal/final.image")  # fmt: skip
    like = json.loads((tmp_path / "like.image.peelkit.json").read_text())
    assert like["engine"]["name"] == "wsclean"
    assert like["results"]["rms_ratio"] == pytest.approx(1.0, abs=0.03)
    invoke("stats", "s.selfcal/final.image", "like.image", "--ms", path)


def test_a_small_field_about_a_region_is_imaged(invoke, sky_ms: Path, tmp_path: Path) -> None:
    invoke("image-residual", sky_ms, "all", "--column", "DATA", "--imager", "wsclean", *SIZE)
    whole = read_image(Path("all.image"))
    place = whole.sky(128 - FAINT[1] / 1.5, 128 + FAINT[2] / 1.5)
    Path("faint.crtf").write_text(circle(place, "FAINT"))
    invoke(
        "image-residual", sky_ms, "small", "--column", "DATA", "--like", "all.image",
        "--around", "faint.crtf",
    )  # fmt: skip
    small = read_image(Path("small.image"))
    assert small.data.shape[0] < 128
    x, y = small.pixel(place)
    assert abs(small.data.shape[1] / 2 - x) < 1.0
    # The sidelobes of the bright source, which is not in it, are a tenth.
    assert small.data[round(y), round(x)] == pytest.approx(FAINT[0], abs=0.1)


def test_another_imager_than_that_of_the_image_it_is_like_is_told(
    invoke, sky_ms: Path, tmp_path: Path
) -> None:
    invoke("image-residual", sky_ms, "w", "--column", "DATA", "--imager", "wsclean", *SIZE)
    path = Path("w.image.peelkit.json")
    record = json.loads(path.read_text())
    # As if tclean had made it.
    record["results"]["imaging"] |= {"imager": "tclean", "gridder": "standard"}
    path.write_text(json.dumps(record))
    said = invoke(
        "image-residual", sky_ms, "x", "--column", "DATA", "--like", "w.image", "--imager", "wsclean"
    ).stderr  # fmt: skip
    assert "w.image is of tclean, this of wsclean: the beam's area differs by" in said


# ---------------------------------------------------------------- what it refuses


def test_without_the_program_the_remedy_is_told_and_nothing_is_made(
    invoke, sky_ms: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for command in (("image-residual", sky_ms, "w", "--column", "DATA"), ("selfcal", sky_ms)):
        said = invoke(*command, "--imager", "wsclean", code=4).stderr
        assert "no wsclean on PATH; 'apt install wsclean'" in said
        assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "wsclean").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "wsclean").chmod(0o755)
    with pytest.raises(EngineError, match="does not say its version"):
        engine.Wsclean(tmp_path / "w.log", threads=1).__enter__()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gridder", "wproject"), "--gridder wproject: is tclean's"),
        (("--spw", "0:1~2"), "a part of the channels of spw 0"),
    ],
)
def test_what_it_cannot_do_is_refused(invoke, sky_ms: Path, options, said: str) -> None:
    command = ("image-residual", sky_ms, "w", "--column", "DATA", "--imager", "wsclean", *SIZE)
    assert said in invoke(*command, *options, code=2).stderr
    assert list(Path().iterdir()) == []


def test_planes_of_polarisation_are_refused(invoke, sky_ms: Path) -> None:
    said = invoke("selfcal", sky_ms, "--imager", "wsclean", "--stokes", "IV", code=2).stderr
    assert "--stokes IV: --imager wsclean is for Stokes I" in said
    assert list(Path().iterdir()) == []


def test_a_mosaic_is_refused(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "m.ms", recipe(n_field=2, field_step_rad=1e-3, n_time=2))
    command = ("m.ms", "--imager", "wsclean")
    said = invoke("selfcal", *command, code=2).stderr
    assert "2 fields need a mosaic" in said
    assert "--imager tclean, or choose one field" in said
    said = invoke("image-residual", *command[:1], "w", "--column", "DATA", *command[1:], code=2)
    assert "2 fields need a mosaic" in said.stderr


def test_a_failure_is_told_with_the_log(tmp_path: Path) -> None:
    with engine.Wsclean(tmp_path / "w.log", threads=1) as wsclean:
        with pytest.raises(EngineError, match=r"(?s)WSClean failed.*w\.log.*nonsense"):
            wsclean.run(["-nonsense"], product=[])
        with pytest.raises(EngineError, match=r"made no x\.fits"):
            wsclean.run(["-version"], product=[tmp_path / "x.fits"])
        scratch = wsclean.scratch
    assert not scratch.exists()


def test_it_dies_with_us(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "wsclean"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -version ]; then echo "WSClean version 3.1.0 WGridder is available"; exit; fi\n'
        f"echo $$ > {tmp_path}/pid\nexec sleep 60\n"
    )
    fake.chmod(0o755)
    script = (
        "from pathlib import Path; from peelkit.engines.wsclean import Wsclean\n"
        f"with Wsclean(Path('{tmp_path}/w.log'), threads=1) as w: w.run([], product=[])\n"
    )
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    for number in (signal.SIGKILL, signal.SIGINT):
        parent = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL
        )
        pid = _eventually(lambda: (tmp_path / "pid").read_text().strip())
        parent.send_signal(number)
        parent.wait(20)
        _eventually(lambda pid=pid: "" if Path(f"/proc/{pid}/cmdline").exists() else "gone")
        (tmp_path / "pid").unlink()
    # The second run took away what the killed one had left, and then its own.
    assert not list(tmp_path.glob(".w.log.scratch-*"))


def _eventually(answer) -> str:
    for _ in range(200):
        try:
            if found := answer():
                return found
        except FileNotFoundError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come")
