"""Several pointings imaged and self-calibrated as one: against a sky seen through known beams."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from casacore.tables import table

from makemosaic import direction, make_mosaic, vla_power
from makems import MsRecipe
from peelkit.core import imaging, mosaic
from peelkit.errors import OptionError
from peelkit.io import ms
from peelkit.io.image import Image, read_image
from peelkit.io.survey import Survey, survey
from peelkit.selection import Selection

# At 3 GHz the beam is 14.5' wide. Field 1 sees the sources at a few per cent of their flux only.
POINTINGS = [(-250.0, -150.0), (900.0, 500.0), (250.0, -150.0), (0.0, 280.0)]
SOURCES = [(1.0, -96.0, -64.0), (0.3, 80.0, 152.0)]
RECIPE = MsRecipe(
    n_antenna=12, n_scan=16, n_time=1, integration_s=30.0, n_chan=(1,), chan_width_hz=20e6, n_field=4, flux_jy=0.0,
    sigma_jy=0.02, scan_gap_s=20.0, radius_m=400.0, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mosaic") / "m.ms"
    make_mosaic(path, RECIPE, POINTINGS, SOURCES)
    return path


def read(path: Path) -> tuple[ms.MsInfo, Survey]:
    info = ms.read_info(path)
    return info, survey(info, Selection())


def test_pointings_with_neighbours_are_a_mosaic_and_others_are_named(
    sky: Path, tmp_path: Path
) -> None:
    info, found = read(sky)
    beam = imaging.field_of_view_rad(info, found, [0])
    assert math.degrees(beam) * 60 == pytest.approx(15.6, abs=0.2)  # 1.13 lambda / 25 m
    assert mosaic.check_fields(info, found, beam) == [0, 1, 2, 3]
    # Field 1 is 15.5' from its nearest neighbour: a tenth of a beam less than one step.
    with pytest.raises(
        OptionError, match=r"0=field0, .*no mosaic \(field1 is more than 1.5 primary"
    ):
        mosaic.check_fields(info, found, beam / 1.7)
    far = tmp_path / "far.ms"
    make_mosaic(far, RECIPE, [*POINTINGS[1:], (9000.0, 0.0)], SOURCES)
    with pytest.raises(OptionError, match="choose one with --field"):
        mosaic.check_fields(*read(far), beam)


def test_a_mosaics_image_lies_about_the_middle_of_its_pointings_and_covers_their_beams(
    sky: Path,
) -> None:
    info, found = read(sky)
    choices = imaging.Choices(cell_arcsec=8.0)
    settled, warnings = imaging.choose(info, found, choices, spws=[0], fields=[0, 1, 2, 3])
    assert settled.gridder == "mosaic" and settled.nterms == 1 and warnings == []
    frame, ra, dec = settled.phasecenter.split()
    assert frame == "J2000"
    middle = SkyCoord(ra, dec, frame="fk5")
    mean = np.mean(POINTINGS, axis=0)
    truth = SkyCoord(*direction(RECIPE, tuple(mean)), unit="rad", frame="fk5")
    assert middle.separation(truth).to_value("arcsec") < 0.1
    # Half a side: 675" east of the middle is the last pointing, and 0.91 of 15.6' beyond its beam.
    assert settled.imsize * 8 / 2 == pytest.approx(675 + 0.91 * 15.6 * 60, rel=0.03)
    with pytest.raises(OptionError, match="--gridder standard: 4 fields need the mosaic gridder"):
        imaging.choose(
            info, found, imaging.Choices(gridder="standard"), spws=[0], fields=[0, 1, 2, 3]
        )
    single, _ = imaging.choose(info, found, choices, spws=[0], fields=[0])
    assert single.gridder != "mosaic" and single.phasecenter == ""


def test_fields_share_the_sensitivity_as_the_squares_of_their_beams(
    sky: Path, tmp_path: Path
) -> None:
    info, found = read(sky)
    image = blank_image(tmp_path / "blank.fits", RECIPE)
    flux, east, north = SOURCES[0]
    x, y = image.pixel(SkyCoord(*direction(RECIPE, (east, north)), unit="rad", frame="fk5"))
    shares = mosaic.sensitivity_shares(
        info, found, [0, 1, 2, 3], image, np.array([round(y)]), np.array([round(x)])
    )[:, 0]
    offsets = [math.radians(math.hypot(east - e, north - n) / 3600) for e, n in POINTINGS]
    powers = np.array([float(vla_power(3e9, offset)) for offset in offsets])
    # All fields were observed as long as each other.
    assert shares == pytest.approx(powers**2 / (powers**2).sum(), abs=1e-3)
    image.data[round(y), round(x)] = flux
    mask = image.data > 0
    own = mosaic.field_snrs(info, found, [0, 1, 2, 3], image, mask, rms=0.01)
    assert own == pytest.approx(100 * np.sqrt(shares))
    assert np.sum(own**2) == pytest.approx(100**2)


def blank_image(path: Path, recipe: MsRecipe) -> Image:
    header = fits.Header({"RADESYS": "FK5", "EQUINOX": 2000.0, "BUNIT": "Jy/beam"})
    centre = np.degrees(direction(recipe, (0.0, 0.0)))
    for axis, kind, sign in ((1, "RA---SIN", -1), (2, "DEC--SIN", 1)):
        header[f"CTYPE{axis}"] = kind
        header[f"CRVAL{axis}"] = centre[axis - 1]
        header[f"CRPIX{axis}"] = 101  # sources lie on whole pixels of 8"
        header[f"CDELT{axis}"] = sign * 8 / 3600
        header[f"CUNIT{axis}"] = "deg"
    fits.PrimaryHDU(np.zeros((200, 200), dtype=np.float32), header).writeto(path)
    return read_image(path)


@pytest.mark.casa
@pytest.mark.slow
def test_a_mosaic_is_calibrated_jointly_also_where_a_field_sees_nothing(
    invoke, tmp_path: Path
) -> None:
    path = tmp_path / "m.ms"
    # Phases change from cycle to cycle, so that field 1 has those of its neighbours in time.
    errors = MsRecipe(**{**vars(RECIPE), "phase_rms_deg": 30.0, "gain_step": 4})
    truth = make_mosaic(path, errors, POINTINGS, SOURCES)
    with table(str(path), ack=False) as main:
        data, flag = main.getcol("DATA"), main.getcol("FLAG")
    out = invoke(
        "selfcal", path, "--imsize", 270, "--cell", "8arcsec", "--no-plots",
        "--solint", "inf",
    )  # fmt: skip
    assert "4 fields form a mosaic" in out.stderr
    found = json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]
    assert found["rounds"][0]["accepted"]
    # Field 1 has not the S/N to be solved for.
    assert found["rounds"][0]["fields"] == [0, 2, 3]
    folder = tmp_path / "m.selfcal"
    # Convolution functions take most of the time of so few data: once for each image.
    log = (folder / "casa.log").read_text()
    assert (
        log.count("SimplePBConv::findConvFunction")
        + log.count("SimplePBConvFunc::findConvFunction")
        == 2
    )
    assert log.count("Begin Task: tclean") > 3
    image, pb = read_image(folder / "final.image"), read_image(folder / "final.pb")
    assert np.isnan(image.data[0, 0]) and found["final"]["rms_jy_beam"] > 0
    for flux, east, north in SOURCES:
        place = SkyCoord(*direction(RECIPE, (east, north)), unit="rad", frame="fk5")
        x, y = (round(value) for value in image.pixel(place))
        peak = float(image.data[y - 2 : y + 3, x - 2 : x + 3].max())
        # 0.76 of it before; noise is 1 %, and pixels of a quarter of the beam take up to 3 %.
        assert peak / pb.data[y, x] == pytest.approx(flux, rel=0.04)
    with table(str(path), ack=False) as main:
        assert np.array_equal(main.getcol("DATA"), data)
        assert np.array_equal(main.getcol("FLAG"), flag)
        corrected = main.getcol("CORRECTED_DATA")
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        field = main.getcol("FIELD_ID")
        residual = corrected - main.getcol("MODEL_DATA")
    gains = truth["gains"][np.arange(one.size) // 66]  # 66 baselines an integration
    row = np.arange(one.size)
    applied = (corrected / data)[:, 0] * gains[row, one] * gains[row, two].conj()
    errors_deg = np.degrees(np.angle(applied))
    for number in range(4):
        # 42 deg on a baseline before; the solutions' own error is 1 / S/N, some 2 deg a baseline.
        assert np.std(errors_deg[field == number]) < 6
        # Noise of 0.02 Jy, and up to 3 % of the 1 Jy that the fields see; in field 1, which sees
        # 2 %, noise alone.
        assert np.std(residual[field == number].real) < (0.023 if number == 1 else 0.037)
    # The same mosaic of the same data is the same image.
    invoke(
        "image-residual", path, "again", "--like", folder / "final.image", "--column",
        "CORRECTED_DATA", "--no-grow-mask",
    )  # fmt: skip
    again = json.loads(Path("again.image.peelkit.json").read_text())["results"]
    assert again["rms_ratio"] == pytest.approx(1.0, abs=0.01)
    assert again["imaging"]["phasecenter"].startswith("J2000 ")
    assert again["pb"] == "again.pb"
