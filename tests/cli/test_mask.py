"""The mask command on a simulated field: known sources, noise, and artefacts of a bright one."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.coordinates import Angle, SkyCoord
from astropy.io import fits
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from peelkit.cli.main import cli
from peelkit.cli.mask import sexagesimal
from peelkit.core.measure import robust_rms
from peelkit.io.image import is_casa_image, read_image
from peelkit.io.region import read_regions, region_mask

SIZE, CELL, FWHM, RMS = 320, 0.5, 6.0, 1e-3  # pixels, arcsec, pixels, Jy/beam
BEAM_PIXELS = math.pi * FWHM**2 / (4 * math.log(2))
BRIGHT = (190.0, 130.0, 10.0)
SECOND = (60.0, 250.0, 2.0)
FAINT = [(40.0, 60.0, 0.05), (270.0, 270.0, 0.15), (90.0, 130.0, 0.03)]
TRUE = [BRIGHT, SECOND, *FAINT]


def gaussian(x, y, peak):
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    return peak * np.exp(-4 * math.log(2) * ((columns - x) ** 2 + (rows - y) ** 2) / FWHM**2)


def noise(seed=1):
    white = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    smooth = gaussian_filter(white, FWHM / 2.355 / math.sqrt(2), mode="wrap")
    return RMS * smooth / smooth.std()


def ripples(x, y, peak):
    """Antisymmetric artefacts around (x, y), as phase errors make them, that fade outwards."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    dx, dy = columns - x, rows - y
    return peak * np.sin(dx / 3 + dy / 5) * np.exp(-np.hypot(dx, dy) / 25)


def antipodes(offset, level):
    """One artefact of each sign opposite to each other about the bright source."""
    return gaussian(BRIGHT[0] + offset[0], BRIGHT[1] + offset[1], level) - gaussian(
        BRIGHT[0] - offset[0], BRIGHT[1] - offset[1], level
    )


# Far enough out that the ripples do not hide it.
FAKE = (60.0, 55.0)


def write(path, data, *, axes=4, crval=(202.784, 30.509), cell=CELL, unit="Jy/beam", beam=True):
    header = fits.Header()
    for axis, kind in ((1, "RA---SIN"), (2, "DEC--SIN")):
        header[f"CTYPE{axis}"] = kind
        header[f"CRVAL{axis}"] = crval[axis - 1]
        header[f"CRPIX{axis}"] = SIZE / 2 + 1
        header[f"CDELT{axis}"] = (-cell if axis == 1 else cell) / 3600
        header[f"CUNIT{axis}"] = "deg"
    if axes == 4:
        header["CTYPE3"], header["CRVAL3"], header["CRPIX3"], header["CDELT3"] = "STOKES", 1, 1, 1
        header["CTYPE4"], header["CRVAL4"], header["CRPIX4"] = "FREQ", 3e9, 1
        header["CDELT4"], header["CUNIT4"] = 2e9, "Hz"
        data = data[None, None]
    header["RADESYS"], header["EQUINOX"] = "FK5", 2000.0
    if unit:
        header["BUNIT"] = unit
    if beam:
        header["BMAJ"] = header["BMIN"] = FWHM * CELL / 3600
        header["BPA"] = 0.0
    fits.writeto(path, data.astype(np.float32), header)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mask")
    data = sum(gaussian(*source) for source in TRUE) + noise()
    data += ripples(*BRIGHT[:2], 0.05) + antipodes(FAKE, 0.04)
    write(path / "field.fits", data)
    write(path / "noise.fits", noise(), axes=2)
    fits_to_casa(path / "field.fits", path / "field.image")
    return path


def fits_to_casa(source, target):
    """CASA image of a FITS file, with beam and unit as CASA has them."""
    from casacore.images import image
    from casacore.tables import table

    opened = image(str(source))
    opened.saveas(str(target))
    del opened
    axis = {"value": FWHM * CELL, "unit": "arcsec"}
    beam = {"major": axis, "minor": axis, "positionangle": {"value": 0.0, "unit": "deg"}}
    with table(str(target), readonly=False, ack=False) as casa:
        casa.putkeyword("units", "Jy/beam")
        casa.putkeyword(
            "imageinfo", {"imagetype": "Intensity", "objectname": "", "restoringbeam": beam}
        )


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.mask.fits"


def run(*words, code=0):
    result = CliRunner().invoke(cli, ["mask", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    if code:
        assert len(result.stderr.strip().splitlines()) == 1 or code in (2, 5), result.stderr
    return result


def results(*words):
    return json.loads(run(*words, "--json").stdout)["results"]


def refused(*words, code=3):
    return run(*words, code=code).stderr


def at(island):
    return island["x_pixel"], island["y_pixel"]


def island_at(found, x, y):
    return next(one for one in found["islands"] if math.hypot(at(one)[0] - x, at(one)[1] - y) < 3)


def crtf(path, image, shapes):
    """Circles of (x, y, radius [arcsec]) pixels of an image."""
    lines = ["#CRTFv0 CASA Region Text Format version 0"]
    for x, y, radius in shapes:
        sky = read_image(image).sky(x, y)
        lines.append(
            f"circle [[{sky.ra.deg:.8f}deg, {sky.dec.deg:.8f}deg], {radius}arcsec] coord=ICRS"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


# --- what is found ------------------------------------------------------------------------------


def test_islands_fluxes_and_noise_are_the_true_ones(folder, out):
    found = results(folder / "field.fits", out)
    # The ripples are a part of the global rms; the sources are not.
    true_rms = robust_rms(noise() + ripples(*BRIGHT[:2], 0.05))
    assert found["rms_jy_beam"] == pytest.approx(true_rms, rel=0.05)
    assert found["noise_min_jy_beam"] == pytest.approx(RMS, rel=0.15)
    # Around the bright source it is the artefacts' level, not the source's.
    assert 2 * RMS < found["noise_max_jy_beam"] < 0.05
    assert found["n_islands"] == len(found["islands"])
    peaks = [one["peak_jy_beam"] for one in found["islands"]]
    assert peaks == sorted(peaks, reverse=True)
    image = read_image(folder / "field.fits")
    for x, y, flux in TRUE:
        one = island_at(found, x, y)
        assert one["flux_jy"] == pytest.approx(flux, rel=0.06, abs=4 * RMS)
        assert one["peak_jy_beam"] == pytest.approx(flux, rel=0.02, abs=3 * RMS)
        sky = image.sky(x, y)
        assert one["ra_deg"] == pytest.approx(sky.ra.deg, abs=0.3 / 3600)
        assert one["dec_deg"] == pytest.approx(sky.dec.deg, abs=0.3 / 3600)
        assert not one["artefact"]
    mask = read_image(out)
    assert (
        found["masked_pixels"] == mask.data.sum() == sum(one["pixels"] for one in found["islands"])
    )
    assert set(np.unique(mask.data)) == {0, 1}


def test_the_bright_source_with_artefacts_is_marked_and_gets_the_regions(folder, out):
    found = results(folder / "field.fits", out)
    assert [at(one) for one in found["islands"] if one["bright"]] == [
        pytest.approx(BRIGHT[:2], abs=0.1)
    ]
    assert island_at(found, *SECOND[:2])["rms_ratio"] < 1.5  # 2 Jy, and quiet around it
    image = read_image(folder / "field.fits")
    for name in ("out.mask.crtf", "out.mask.reg"):
        (region,) = read_regions(out.with_name(name), image)
        assert region.label == "BRIGHT_1"
        inside = region_mask(region, image)
        labels = read_image(out).data.astype(bool)
        source = labels & (gaussian(*BRIGHT) > 0.01)
        assert np.all(inside[source])  # every masked pixel of the source ...
        assert inside.sum() < 4 * source.sum() + 100  # ... and not the neighbourhood


def test_regions_of_all_label_by_flux_and_number(folder, out, tmp_path):
    found = results(
        folder / "field.fits", out, "--regions-of", "all", "--regions", tmp_path / "my.reg",
        "--artefact-ratio", 0,
    )  # fmt: skip
    regions = read_regions(tmp_path / "my.reg", read_image(folder / "field.fits"))
    assert [region.label for region in regions][:3] == ["BRIGHT_1", "BRIGHT_2", "BRIGHT_3"]
    fluxes = [one["flux_jy"] for label in ("BRIGHT_1", "BRIGHT_2", "BRIGHT_3")
              for one in found["islands"] if one["label"] == label]  # fmt: skip
    assert fluxes == pytest.approx([10, 2, 0.15], rel=0.1)
    assert len(regions) == found["n_islands"]
    assert not out.with_suffix(".crtf").exists()
    assert found["regions"] == [str(tmp_path / "my.reg")]


def test_mirror_negatives_are_marked_and_left_out_on_demand(folder, out, tmp_path):
    found = results(folder / "field.fits", out)
    fake = island_at(found, BRIGHT[0] + FAKE[0], BRIGHT[1] + FAKE[1])
    assert fake["artefact"]
    assert fake["artefact_of"] == 1
    assert "mirror negative" in fake["artefact_reason"]
    assert found["negative_islands"] >= 1
    clean = results(folder / "field.fits", tmp_path / "b.mask.fits", "--drop-artefacts")
    assert fake["number"] in [one["number"] for one in clean["dropped"]]
    assert not any(one["artefact"] for one in clean["islands"])
    assert clean["n_islands"] == len(TRUE)
    mask = read_image(tmp_path / "b.mask.fits").data
    assert mask[round(BRIGHT[1] + FAKE[1]), round(BRIGHT[0] + FAKE[0])] == 0


def test_sidelobes_are_known_by_a_psf_beside_the_image(tmp_path):
    # Symmetric artefacts on the lobes of the PSF: amplitude errors of 5 % on lobes of 40 %.
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] - SIZE // 2
    distance = np.hypot(columns, rows)
    lobes = 0.4 * np.cos(3 * np.arctan2(rows, columns)) ** 8 * np.exp(-(((distance - 60) / 4) ** 2))
    grain = 0.02 * gaussian_filter(np.random.default_rng(5).normal(size=(SIZE, SIZE)), 2.5) / 0.11
    psf = gaussian(SIZE // 2, SIZE // 2, 1.0) + lobes + (grain + grain[::-1, ::-1]) * (distance > 9)
    shifted = np.roll(psf, (-30, 20), axis=(0, 1))
    x, y = SIZE // 2 + 20, SIZE // 2 - 30
    source = gaussian(x, y, 10.0) + gaussian(300, 300, 0.3)
    write(tmp_path / "a.image.fits", source + 0.5 * (shifted - gaussian(x, y, 1.0)) + noise())
    with_none = results(tmp_path / "a.image.fits", tmp_path / "a.mask.fits", "--noise-box", 20)
    assert with_none["n_islands"] > 3
    assert not any(one["artefact"] for one in with_none["islands"])
    write(tmp_path / "a.psf.fits", psf)
    found = results(tmp_path / "a.image.fits", tmp_path / "b.mask.fits", "--noise-box", 20)
    # All but the two sources, and the reason is told.
    assert [one["artefact"] for one in found["islands"]].count(False) == 2
    assert not island_at(found, 300, 300)["artefact"]
    assert all(
        "sidelobes of island 1" in one["artefact_reason"]
        for one in found["islands"]
        if one["artefact"]
    )
    record = json.loads((tmp_path / "b.mask.fits.peelkit.json").read_text())
    assert record["inputs"]["psf"].endswith("a.psf.fits")


# --- choosing islands ---------------------------------------------------------------------------


def test_drop_and_extract_use_the_numbers_of_the_first_run(folder, tmp_path):
    first = results(folder / "field.fits", tmp_path / "1.mask.fits")
    second = island_at(first, *SECOND[:2])
    faint = island_at(first, *FAINT[2][:2])
    again = results(
        folder / "field.fits",
        tmp_path / "2.mask.fits",
        "--drop",
        second["number"],
        "--drop",
        faint["number"],
    )
    gone = {second["number"], faint["number"]}
    assert [one["number"] for one in again["islands"]] == [
        one["number"] for one in first["islands"] if one["number"] not in gone
    ]
    assert {one["number"] for one in again["dropped"]} == gone
    assert read_image(tmp_path / "2.mask.fits").data[250, 60] == 0
    only = results(folder / "field.fits", tmp_path / "3.mask.fits", "--extract", second["number"])
    assert [one["number"] for one in only["islands"]] == [second["number"]]
    assert only["islands"][0] | {"label": None} == second | {"label": None}


def test_islands_are_found_by_position_in_any_spelling(folder, tmp_path):
    sky = read_image(folder / "field.fits").sky(*SECOND[:2])
    # Without the equinox that the position carries along from the image's frame.
    b1950 = SkyCoord(sky.ra, sky.dec, frame="icrs").transform_to("fk4")
    hours = sky.ra.to_string(unit="hour", sep=":", precision=2)
    spellings = [
        f"{hours} +{sky.dec.to_string(sep=':', precision=1)}",
        f"{sky.ra.to_string(unit='hour', precision=2)} {sky.dec.to_string(precision=1)}",
        f"{sky.ra.deg:.5f}d {sky.dec.deg:.5f}d",
        f"{sky.ra.deg:.5f} {sky.dec.deg:.5f}",
        f"B1950 {b1950.ra.deg:.5f}deg {b1950.dec.deg:.5f}deg",
        "60,250",
        "62.5, 254",
    ]
    for number, text in enumerate(spellings):
        found = results(folder / "field.fits", tmp_path / f"{number}.fits", "--extract", text)
        assert [at(one) for one in found["islands"]] == [pytest.approx(SECOND[:2], abs=0.1)], text


def test_islands_that_are_not_there_are_refused(folder, out):
    image = folder / "field.fits"
    assert "--drop '99': no such island; there are 1 to" in refused(image, out, "--drop", "99")
    assert "--drop '0'" in refused(image, out, "--drop", "0")
    message = refused(image, out, "--extract", "20,20")
    assert "no island there; the nearest is island" in message
    assert "arcsec away" in message
    assert "outside" in refused(image, out, "--extract", "500,20")
    assert "outside" in refused(image, out, "--extract", "12:29:06.7 +02:03:08")
    for text in ("x", "1.5", "12:29 +02", "north south", "400d 95d"):
        assert "use an island number" in refused(image, out, "--drop", text, code=2)
    assert not out.exists()


# --- regions and masks in -----------------------------------------------------------------------


def test_include_and_exclude_regions_and_masks(folder, tmp_path):
    image = folder / "field.fits"
    plain = results(image, tmp_path / "0.mask.fits")
    blank = crtf(tmp_path / "in.crtf", image, [(150, 290, 4)])
    away = crtf(tmp_path / "away.crtf", image, [(*SECOND[:2], 15), (*FAINT[0][:2], 15)])
    more = results(image, tmp_path / "1.mask.fits", "--include", blank, "--exclude", away)
    mask = read_image(tmp_path / "1.mask.fits").data.astype(bool)
    assert mask[290, 150]
    assert (
        mask.sum()
        - (
            read_image(tmp_path / "0.mask.fits")
            .data.astype(bool)[290 - 10 : 290 + 11, 140:161]
            .sum()
        )
        == more["masked_pixels"]
    )
    assert not mask[250, 60]
    assert not mask[60, 40]
    assert more["n_islands"] == plain["n_islands"] - 2 + 1
    # Masks: what the one run made is taken out of, or added to, the other.
    back = results(image, tmp_path / "2.mask.fits", "--subtract", tmp_path / "1.mask.fits")
    assert sorted(at(one) for one in back["islands"]) == [
        pytest.approx(FAINT[0][:2], abs=0.3), pytest.approx(SECOND[:2], abs=0.3)
    ]  # fmt: skip
    both = results(
        image, tmp_path / "3.mask.fits", "--threshold", 1000, "--merge", tmp_path / "2.mask.fits",
        "--merge", tmp_path / "1.mask.fits",
    )  # fmt: skip
    assert both["masked_pixels"] == back["masked_pixels"] + more["masked_pixels"]


def test_masks_and_regions_that_do_not_match_are_refused(folder, out, tmp_path):
    image = folder / "field.fits"
    ones = np.zeros((SIZE, SIZE))
    ones[100:110, 100:110] = 1
    shifted = write(tmp_path / "shifted.fits", ones, crval=(202.784, 30.51), unit="", beam=False)
    message = refused(image, out, "--merge", shifted)
    assert "shifted.fits: does not match" in message
    assert "7.2 pixels off" in message
    coarse = write(tmp_path / "coarse.fits", ones, cell=0.6, unit="", beam=False)
    assert "cell 0.6 and not 0.5 arcsec" in refused(image, out, "--subtract", coarse)
    small = write(tmp_path / "small.fits", ones[:100, :200], unit="", beam=False)
    assert "200x100 pixels, not 320x320" in refused(image, out, "--merge", small)
    assert "a mask has 0 and 1" in refused(image, out, "--merge", folder / "noise.fits")
    far = tmp_path / "far.crtf"
    far.write_text("circle [[12h00m00s, 30d00m00s], 3arcsec] coord=ICRS, label='far'\n")
    assert "region 1 (far)" in refused(image, out, "--include", far)
    assert not out.exists()


def test_a_mask_nearly_on_the_same_pixels_is_accepted(folder, out, tmp_path):
    ones = np.zeros((SIZE, SIZE))
    ones[100:110, 20:30] = 1
    near = write(
        tmp_path / "near.fits", ones, crval=(202.784, 30.509 + 0.02 * CELL / 3600), beam=False
    )
    found = results(folder / "field.fits", out, "--merge", near)
    assert read_image(out).data[105, 25] == 1
    assert found["masked_pixels"] == read_image(out).data.sum()


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["field.fits", "field.image"])
@pytest.mark.parametrize("name", ["m.fits", "m.mask"])
def test_casa_and_fits_in_and_out_keep_the_axes(folder, tmp_path, source, name):
    image, product = read_image(folder / source), tmp_path / name
    found = results(folder / source, product)
    mask = read_image(product)
    assert is_casa_image(product) == (name == "m.mask")
    assert mask.shape == image.shape == (1, 1, SIZE, SIZE)
    assert mask.unit == ""
    assert mask.freq_hz == pytest.approx(3e9)
    assert mask.frame.name == image.frame.name
    for x, y in ((0, 0), (319, 10), (160, 300)):
        assert mask.pixel(image.sky(x, y)) == pytest.approx((x, y), abs=1e-3)
    assert mask.data.sum() == found["masked_pixels"]
    assert (tmp_path / f"{name}.peelkit.json").exists()
    left = {item.name for item in tmp_path.iterdir()}
    assert left == {name, f"{name}.peelkit.json", "m.crtf", "m.reg"}


def test_dilate_fill_holes_and_min_size(folder, tmp_path):
    image = folder / "field.fits"
    one = results(image, tmp_path / "1.fits")
    grown = results(image, tmp_path / "2.fits", "--dilate", 2, "--fill-holes")
    assert grown["n_islands"] <= one["n_islands"]
    assert grown["masked_pixels"] > one["masked_pixels"]
    first, second = (read_image(tmp_path / name).data.astype(bool) for name in ("1.fits", "2.fits"))
    assert np.all(second[first])
    large = results(image, tmp_path / "3.fits", "--min-size", 2)
    assert [one["number"] for one in large["islands"]] == list(range(1, large["n_islands"] + 1))
    assert min(one["beams"] for one in large["islands"]) >= 2
    assert large["n_islands"] < one["n_islands"]


# --- what people see, and what is kept ----------------------------------------------------------


def test_the_table_has_positions_fluxes_and_marks(folder, out):
    text = run(folder / "field.fits", out).stdout
    lines = text.splitlines()
    row = next(line for line in lines if line.strip().startswith("1 "))
    sky = read_image(folder / "field.fits").sky(*BRIGHT[:2])
    ra, dec = row.split()[1:3]
    assert Angle(ra).deg == pytest.approx(sky.ra.deg, abs=0.1 / 3600)
    assert Angle(dec).deg == pytest.approx(sky.dec.deg, abs=0.1 / 3600)
    assert row.rstrip().endswith("BRIGHT_1")
    assert any("artefact: mirror negative about island 1" in line for line in lines)
    assert "peak (mJy/beam)" in text
    assert "threshold 8 sigma = " in text
    assert "mJy" in lines[-2]


def test_sexagesimal_never_has_sixty_seconds():
    assert sexagesimal(12 + 29 / 60 + 59.9999 / 3600, "hms", 3) == "12h30m00.000s"
    assert sexagesimal(23.99999999, "hms", 2) == "00h00m00.00s"
    assert sexagesimal(2.0523861, "dms", 2) == "02d03m08.59s"


def test_the_sidecar_has_the_names_of_the_contract(folder, out):
    run(folder / "field.fits", out)
    record = json.loads(out.with_name("out.mask.fits.peelkit.json").read_text())
    assert record["command"] == "mask"
    assert {"rms_jy_beam", "threshold_jy_beam", "n_islands", "masked_pixels", "islands"} <= set(
        record["results"]
    )
    assert {
        "ra_deg", "dec_deg", "peak_jy_beam", "flux_jy", "pixels", "bright", "artefact"
    } <= set(record["results"]["islands"][0])  # fmt: skip
    assert record["parameters"]["threshold"] == 8
    assert str(out) in record["writes"]


def test_an_empty_mask_is_refused_and_leaves_nothing(folder, tmp_path):
    out = tmp_path / "e.mask"
    message = refused(folder / "noise.fits", out)
    assert "empty mask: nothing above 8 sigma" in message
    assert "mJy/beam" in message
    assert "lower --threshold" in message
    everywhere = crtf(tmp_path / "all.crtf", folder / "field.fits", [(160, 160, 300)])
    assert "check --exclude" in refused(folder / "field.fits", out, "--exclude", everywhere)
    assert "all of" in refused(folder / "field.fits", out, "--extract", "1", "--drop", "1")
    assert [item.name for item in tmp_path.iterdir()] == ["all.crtf"]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_blank_images_are_refused(tmp_path, value):
    write(tmp_path / "b.fits", np.full((SIZE, SIZE), value))
    assert "b.fits: every pixel is blank or zero" in refused(
        tmp_path / "b.fits", tmp_path / "m.fits"
    )


def test_images_that_will_not_do_are_refused(folder, tmp_path, out):
    write(tmp_path / "nobeam.fits", noise(), beam=False)
    assert "nobeam.fits: no restoring beam" in refused(tmp_path / "nobeam.fits", out)
    write(tmp_path / "model.fits", noise(), unit="Jy/pixel")
    assert "'Jy/pixel', where Jy/beam" in refused(tmp_path / "model.fits", out)
    assert "no such image" in refused(tmp_path / "none.fits", out)
    assert "b.psf" in refused(folder / "field.fits", out, "--psf", tmp_path / "b.psf")


def test_products_are_replaced_only_with_overwrite(folder, out):
    run(folder / "field.fits", out)
    before = out.read_bytes()
    assert "exists; give another name or --overwrite" in refused(folder / "field.fits", out)
    out.unlink()
    message = refused(folder / "field.fits", out)  # the regions are still there
    assert "out.mask.crtf: exists" in message
    assert not out.exists()
    run(folder / "field.fits", out, "--overwrite")
    assert out.read_bytes() == before
    # Without a bright source, regions of an older run would mislead.
    result = run(folder / "field.fits", out, "--overwrite", "--bright-flux", 50)
    assert "no source worth peeling: island 1" in result.stderr
    assert not out.with_suffix(".crtf").exists()


def test_regions_that_were_asked_for_and_are_not_there_end_with_5(folder, out, tmp_path):
    # The next command of a chain reads that file.
    mine = tmp_path / "mine.crtf"
    words = (folder / "field.fits", out, "--regions", mine, "--bright-flux", 50)
    result = run(*words, code=5)
    assert f"{mine}: no source worth peeling: island 1" in result.stderr
    assert not mine.exists() and out.exists()
    record = json.loads((tmp_path / "out.mask.fits.peelkit.json").read_text())
    assert record["refusal"] and record["results"]["regions"] == []


def test_overwrite_never_removes_what_is_no_image(folder, tmp_path):
    victim = tmp_path / "data"
    victim.mkdir()
    (victim / "precious").write_text("x")
    for name in ("data", "."):
        message = refused(
            folder / "field.fits", tmp_path / name, "--overwrite", "--regions-of", "none"
        )
        assert "is no image, so not replaced" in message
    assert (victim / "precious").read_text() == "x"
    same = folder / "field.fits"
    assert "read and written" in refused(same, same, "--overwrite", code=2)


@pytest.mark.parametrize(
    "words",
    [
        ("--threshold", "-3"),
        ("--threshold", "x"),
        ("--threshold", "nan"),
        ("--bright-flux", "inf"),
        ("--dilate", "-1"),
        ("--regions-of", "some"),
        ("--regions", "x.txt"),
        ("--regions", "x.reg", "--regions-of", "none"),
    ],
)
def test_usage_errors_exit_with_2(folder, out, words):
    run(folder / "field.fits", out, *words, code=2)
    assert not out.exists()


def test_help_loads_neither_numpy_nor_astropy():
    code = (
        "import sys, peelkit.cli.mask\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'astropy', 'rich', 'casacore')))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
