import csv
import json
import math
import os
import re

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from peelkit.cli.main import cli
from peelkit.core.measure import robust_rms
from peelkit.core.plots_images import before_after, colour_scale, unit_for
from peelkit.io.image import read_image

SIZE, CELL = 400, 0.5
BEAM = (3.0, 2.0, 30.0)
RMS = 1e-4
BRIGHT = (230.0, 190.0, 2.0)  # x, y, Jy: the source to be peeled
HOLE = (300.0, 60.0, -0.006)
RADIUS = 40.0  # arcsec, for the local rms


def faint_sources():
    """Thirty sources of 2 to 20 mJy, well apart: x, y, flux [Jy]."""
    rng = np.random.default_rng(11)
    found = []
    while len(found) < 30:
        x, y = rng.uniform(30, SIZE - 30, 2)
        if all(math.hypot(x - a, y - b) > 24 for a, b, _ in [*found, BRIGHT, HOLE]):
            found.append((x, y, 10 ** rng.uniform(-2.7, -1.7)))
    return found


FAINT = faint_sources()


def beam_at(x, y, size=SIZE, cell=CELL, beam=BEAM):
    rows, columns = np.mgrid[0:size, 0:size].astype(float)
    pa = math.radians(beam[2])
    along = -(columns - x) * math.sin(pa) + (rows - y) * math.cos(pa)
    across = (columns - x) * math.cos(pa) + (rows - y) * math.sin(pa)
    scale = 4 * math.log(2) * cell**2
    return np.exp(-scale * ((along / beam[0]) ** 2 + (across / beam[1]) ** 2))


def sky(sources):
    return sum(flux * beam_at(x, y) for x, y, flux in sources)


def noise(seed, rms=RMS, size=SIZE):
    white = np.random.default_rng(seed).normal(size=(size, size))
    smooth = gaussian_filter(white, 2.0, mode="wrap")
    return rms * smooth / smooth.std()


def artefacts(peak):
    """Rings and spokes around the bright source, as bad gains make them."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    r = np.hypot(columns - BRIGHT[0], rows - BRIGHT[1]) * CELL
    angle = np.arctan2(rows - BRIGHT[1], columns - BRIGHT[0])
    return peak * np.cos(5 * angle) * np.cos(r / 2) * np.exp(-r / 30)


def write(path, data, *, cell=CELL, unit="Jy/beam", beam=BEAM, crval=(202.784, 30.509)):
    header = fits.Header()
    for axis, kind in ((1, "RA---SIN"), (2, "DEC--SIN")):
        header[f"CTYPE{axis}"] = kind
        header[f"CRVAL{axis}"] = crval[axis - 1]
        header[f"CRPIX{axis}"] = data.shape[0] / 2 + 1
        header[f"CDELT{axis}"] = (-cell if axis == 1 else cell) / 3600
        header[f"CUNIT{axis}"] = "deg"
    header["RADESYS"], header["EQUINOX"] = "FK5", 2000.0
    if unit:
        header["BUNIT"] = unit
    if beam:
        header["BMAJ"], header["BMIN"], header["BPA"] = beam[0] / 3600, beam[1] / 3600, beam[2]
    fits.writeto(path, data.astype(np.float32), header, overwrite=True)
    return path


def near_bright(x, y):
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    return np.hypot(columns - x, rows - y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """First image with artefacts; peeled: no bright source, the others at 0.95; shifted."""
    path = tmp_path_factory.mktemp("stats")
    first = sky(FAINT) + sky([BRIGHT, HOLE]) + artefacts(0.01) + noise(1)
    write(path / "first.fits", first)
    peeled = 0.95 * sky(FAINT) + 0.7 * sky([HOLE]) + noise(2, 0.5 * RMS)
    write(path / "peeled.fits", peeled)
    dx, dy = 0.6, -0.3  # pixels
    moved = [(x + dx, y + dy, flux) for x, y, flux in [*FAINT, BRIGHT]]
    write(path / "shifted.fits", sky(moved) + noise(3))
    first_image = read_image(path / "first.fits")
    lines = ["#CRTFv0 CASA Region Text Format version 0", "global coord=J2000"]
    for name, (x, y, _) in (("3C286", BRIGHT), ("other", FAINT[0])):
        fk5 = first_image.sky(x, y).fk5
        centre = f"{fk5.ra.deg:.8f}deg, {fk5.dec.deg:.8f}deg"
        lines.append(f'circle[[{centre}], 6arcsec], label="{name}"')
    (path / "bright.crtf").write_text("\n".join(lines) + "\n")
    mask = np.zeros((SIZE, SIZE))
    for x, y, _ in [*FAINT, BRIGHT]:
        mask[near_bright(x, y) < 10] = 1.0
    write(path / "true.mask.fits", mask, unit="", beam=None)
    return path


def run(*words, code=0):
    result = CliRunner().invoke(cli, ["stats", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def record(*words):
    return json.loads(run(*words, "--json", "--sidecar", "-").stdout)


@pytest.fixture(scope="module")
def compared(folder):
    return record(
        folder / "first.fits",
        folder / "peeled.fits",
        "--regions",
        folder / "bright.crtf",
        "--radius",
        f"{RADIUS}arcsec",
    )["results"]


def test_noise_and_dynamic_range_are_those_put_in(compared):
    first, peeled = compared["images"]
    # About 5000 independent beams: the MAD scatters by 1.6 %; artefacts only add to the first.
    assert peeled["rms_global_jy_beam"] == pytest.approx(0.5 * RMS, rel=0.05)
    outside = near_bright(*BRIGHT[:2]) > 12
    for x, y, _ in FAINT:
        outside &= near_bright(x, y) > 8
    truth = robust_rms((artefacts(0.01) + noise(1))[outside])
    assert truth > 3 * RMS
    assert first["rms_global_jy_beam"] == pytest.approx(truth, rel=0.05)
    # The hole is in the plain one only.
    assert 1.2 * peeled["rms_global_jy_beam"] < peeled["rms_plain_jy_beam"] < RMS
    assert first["rms_plain_jy_beam"] > 1.5 * first["rms_global_jy_beam"]
    assert first["peak_jy_beam"] == pytest.approx(2.0, rel=0.01)
    assert first["dynamic_range"] == first["peak_jy_beam"] / first["rms_global_jy_beam"]
    assert first["dynamic_range_reference_peak"] == first["dynamic_range"]
    assert peeled["dynamic_range_reference_peak"] == pytest.approx(
        first["peak_jy_beam"] / peeled["rms_global_jy_beam"]
    )
    assert peeled["dynamic_range"] < 500
    assert first["beam"] == pytest.approx(
        {"major_arcsec": 3.0, "minor_arcsec": 2.0, "pa_deg": 30.0}
    )


def test_local_rms_keeps_the_artefacts_and_leaves_out_the_sources(compared):
    circle = near_bright(*BRIGHT[:2]) * CELL <= RADIUS
    circle &= near_bright(*BRIGHT[:2]) * CELL > 6.0
    for x, y, _ in FAINT:
        circle &= near_bright(x, y) > 8
    empty = [artefacts(0.01) + noise(1), noise(2, 0.5 * RMS)]
    truth = [robust_rms(data[circle]) for data in empty]
    assert truth[0] > 8 * RMS  # the artefacts matter here
    for image, expected in zip(compared["images"], truth, strict=True):
        local = image["regions"][0]
        assert local["label"] == "3C286"
        assert local["rms_local_jy_beam"] == pytest.approx(expected, rel=0.05)
        assert image["rms_local_jy_beam"] == local["rms_local_jy_beam"]
        # Table 1 of the memo: dynamic range times local rms is the reference's peak, in every row.
        assert image["dynamic_range_local"] * local["rms_local_jy_beam"] == pytest.approx(
            2.0, rel=0.01
        )


def test_artefacts_that_pass_for_sources_in_a_bad_image_still_count(folder, tmp_path):
    # Positive only, so that nothing in the bad image itself tells them from sources.
    rings = np.abs(artefacts(0.02))
    write(tmp_path / "bad.fits", sky([*FAINT, BRIGHT]) + rings + noise(31))
    words = ["--regions", folder / "bright.crtf", "--radius", RADIUS]
    bad, _ = record(tmp_path / "bad.fits", folder / "peeled.fits", *words)["results"]["images"]
    alone = record(tmp_path / "bad.fits", *words)["results"]["images"][0]
    circle = near_bright(*BRIGHT[:2]) * CELL <= RADIUS
    circle &= near_bright(*BRIGHT[:2]) * CELL > 6.0
    for x, y, _ in FAINT:
        circle &= near_bright(x, y) > 8
    truth = robust_rms((rings + noise(31))[circle])
    assert bad["rms_local_jy_beam"] == pytest.approx(truth, rel=0.06)
    # What is lost without a better image to tell.
    assert alone["rms_local_jy_beam"] <= bad["rms_local_jy_beam"]


def test_minimum_is_the_hole_that_was_put_in(compared):
    first, peeled = compared["images"]
    assert peeled["minimum_jy_beam"] == pytest.approx(0.7 * HOLE[2], abs=4 * 0.5 * RMS)
    assert first["regions"][0]["minimum_jy_beam"] < -0.005


def test_region_has_its_peak_flux_and_place(compared):
    first, peeled = compared["images"]
    source = first["regions"][0]
    assert source["peak_jy_beam"] == pytest.approx(2.0, rel=0.01)
    assert source["flux_jy"] == pytest.approx(2.0, rel=0.02)
    assert source["peak_shift_arcsec"] is None  # of the reference
    assert source["position_uncertainty_arcsec"] == pytest.approx(
        3.0 / (2 * source["peak_jy_beam"] / source["rms_local_jy_beam"])
    )
    gone = peeled["regions"][0]
    assert gone["peak_jy_beam"] < 5 * RMS
    assert abs(gone["flux_jy"]) < 5 * gone["flux_error_jy"]
    assert gone["peak_shift_arcsec"] is None  # there is no source any more
    assert gone["dynamic_range_reference_peak"] == pytest.approx(
        source["peak_jy_beam"] / gone["rms_local_jy_beam"]
    )
    other = peeled["regions"][1]
    assert other["label"] == "other"
    assert other["flux_jy"] == pytest.approx(0.95 * FAINT[0][2], abs=5 * other["flux_error_jy"])
    assert other["peak_shift_arcsec"] < 4 * other["position_uncertainty_arcsec"]


def test_flux_ratio_of_the_other_sources_is_095(compared):
    first, peeled = compared["images"]
    assert compared["reference"]["path"] == first["path"]
    assert first["sources_compared"] == 0
    assert first["flux_ratio_median"] is None
    # All 30 but the one in the region, and those lost in the artefacts of the first image.
    assert 15 <= peeled["sources_compared"] <= 29
    assert len(peeled["sources"]) == peeled["sources_compared"]
    allowed = 4 * peeled["flux_ratio_noise"] / math.sqrt(peeled["sources_compared"])
    assert peeled["flux_ratio_median"] == pytest.approx(0.95, abs=allowed)
    assert allowed < 0.12
    assert peeled["peak_ratio_median"] == pytest.approx(0.95, abs=0.03)
    assert max(source["flux_reference_jy"] for source in peeled["sources"]) < 0.1


def test_flux_scatter_without_artefacts_is_that_of_the_noise(folder, tmp_path):
    write(tmp_path / "one.fits", sky([*FAINT, BRIGHT]) + noise(21))
    write(tmp_path / "two.fits", 0.95 * sky([*FAINT, BRIGHT]) + noise(22))
    two = record(tmp_path / "one.fits", tmp_path / "two.fits")["results"]["images"][1]
    assert two["sources_compared"] == 31
    # The median of 31 ratios with errors of 5 % on average: 1.1 %; three of these.
    assert two["flux_ratio_median"] == pytest.approx(0.95, abs=0.033)
    assert two["peak_ratio_median"] == pytest.approx(0.95, abs=0.012)
    # The robust scatter of 31 ratios is uncertain by 1.17 / sqrt(31), a fifth; three of these.
    assert two["flux_ratio_scatter"] == pytest.approx(two["flux_ratio_noise"], rel=0.63)
    assert 0.005 < two["flux_ratio_noise"] < 0.1


def test_shift_of_the_peak_is_the_one_put_in(folder):
    first, shifted = record(folder / "first.fits", folder / "shifted.fits")["results"]["images"]
    truth = math.hypot(0.6, 0.3) * CELL
    # The artefacts of 10 mJy pull the 2 Jy peak by up to a beam / (2 S/N): 3 / 400 arcsec.
    assert shifted["peak_shift_arcsec"] == pytest.approx(truth, abs=0.01)
    assert shifted["offset_ra_arcsec"] == pytest.approx(-0.3, abs=0.05)
    assert shifted["offset_dec_arcsec"] == pytest.approx(-0.15, abs=0.05)
    assert first["peak_shift_arcsec"] is None
    assert first["position_uncertainty_arcsec"] == pytest.approx(3.0 / (2 * first["dynamic_range"]))
    bright = read_image(folder / "first.fits").sky(*BRIGHT[:2])
    assert first["peak_ra_deg"] == pytest.approx(bright.ra.deg, abs=0.01 / 3600)
    assert first["regions"][0]["label"] == "brightest"


def test_flux_over_a_mask_is_the_sum_of_its_sources(folder):
    results = record(folder / "shifted.fits", "--mask", folder / "true.mask.fits")["results"]
    (image,) = results["images"]
    truth = 2.0 + sum(flux for _, _, flux in FAINT)
    # Radii of 10 pixels cut 0.1 % of the beam's wings off, at most.
    assert image["flux_jy"] == pytest.approx(truth, abs=4 * image["flux_error_jy"] + 0.002)
    assert image["flux_error_jy"] < 0.005
    assert image["flux_to_rms"] == image["flux_jy"] / image["rms_global_jy_beam"]
    assert image["rms_global_jy_beam"] == pytest.approx(RMS, rel=0.05)


def test_one_image_alone_has_no_comparison_and_no_nan(folder):
    results = record(folder / "first.fits")["results"]
    (image,) = results["images"]
    assert results["reference"] is None
    assert image["dynamic_range"] > 1000
    for key in ("dynamic_range_reference_peak", "flux_ratio_median", "flux_ratio_scatter"):
        assert image[key] is None
    assert image["sources_compared"] == 0


def test_reference_apart_from_the_images_is_not_listed_among_them(folder):
    results = record(folder / "peeled.fits", "--reference", folder / "first.fits")["results"]
    (image,) = results["images"]
    assert image["path"].endswith("peeled.fits")
    assert results["reference"]["path"].endswith("first.fits")
    assert image["dynamic_range_reference_peak"] == pytest.approx(
        2.0 / image["rms_global_jy_beam"], rel=0.01
    )


def test_blank_edges_are_left_out_of_every_image(folder, tmp_path):
    data = fits.getdata(folder / "first.fits").astype(float)
    data[:, :50] = np.nan
    write(tmp_path / "blank.fits", data)
    results = record(tmp_path / "blank.fits", folder / "peeled.fits")["results"]
    assert results["images"][1]["rms_global_jy_beam"] == pytest.approx(0.5 * RMS, rel=0.05)
    assert results["images"][1]["flux_ratio_median"] == pytest.approx(0.95, abs=0.12)
    assert any("20000 pixels left out" in note for note in results["notes"])


def test_another_grid_is_compared_by_sky_position_and_said_so(folder, tmp_path):
    fine = read_image(folder / "first.fits")
    cell, size, crval = 0.6, 300, (202.785, 30.508)
    write(tmp_path / "coarse.fits", np.zeros((size, size)) + 1e-9, cell=cell, crval=crval)
    coarse = read_image(tmp_path / "coarse.fits")
    data = noise(7, size=size)
    for x, y, flux in [*FAINT, BRIGHT]:
        data += flux * beam_at(*coarse.pixel(fine.sky(x, y)), size=size, cell=cell)
    write(tmp_path / "coarse.fits", data, cell=cell, crval=crval)
    results = record(folder / "first.fits", tmp_path / "coarse.fits")["results"]
    other = results["images"][1]
    assert any("other pixels" in note for note in results["notes"])
    assert other["rms_global_jy_beam"] == pytest.approx(RMS, rel=0.06)
    assert other["flux_ratio_median"] == pytest.approx(1.0, abs=0.08)
    assert other["peak_shift_arcsec"] < 0.02
    assert other["sources_compared"] >= 10


def test_an_image_without_the_brightest_source_needs_regions(folder, tmp_path):
    write(tmp_path / "away.fits", noise(9), crval=(203.5, 30.508))
    shown = run(folder / "first.fits", tmp_path / "away.fits", code=3).output
    assert "away.fits: does not show the brightest source of" in " ".join(shown.split())


def test_nothing_in_common_gives_null(folder, tmp_path):
    write(tmp_path / "empty.fits", noise(9))
    results = record(folder / "first.fits", tmp_path / "empty.fits")["results"]
    empty = results["images"][1]
    assert empty["flux_ratio_median"] is None
    assert empty["flux_ratio_scatter"] is None
    assert empty["sources_compared"] == 0
    assert empty["peak_shift_arcsec"] is None
    assert any("no fluxes compared" in note for note in results["notes"])


def test_beams_that_differ_are_said_so(folder, tmp_path):
    write(tmp_path / "broad.fits", sky([BRIGHT]) + noise(9), beam=(3.6, 2.4, 30.0))
    notes = record(folder / "first.fits", tmp_path / "broad.fits")["results"]["notes"]
    assert any("1.44 times the area" in note for note in notes)


def test_products_and_sidecar(folder, tmp_path):
    for name in ("first.fits", "peeled.fits"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    own = tmp_path / "first.fits.peelkit.json"
    own.write_text("of the command that made the image")
    words = [tmp_path / "first.fits", tmp_path / "peeled.fits", "--regions", folder / "bright.crtf"]
    words += ["--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png"]
    shown = run(*words).stdout
    assert "global rms (uJy/beam)" in shown
    assert "first.fits (ref.)" in shown
    assert "3C286" in shown
    assert own.read_text() == "of the command that made the image"
    found = json.loads((tmp_path / "first.fits-peeled.fits.stats.peelkit.json").read_text())
    assert found["command"] == "stats"
    assert found["writes"] == [str(tmp_path / name) for name in ("s.csv", "s.png", "s-flux.png")]
    for name in ("s.png", "s-flux.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert [row["region"] for row in rows] == ["", "3C286", "other"] * 2
    assert float(rows[3]["rms_global_jy_beam"]) == pytest.approx(0.5 * RMS, rel=0.05)
    assert rows[0]["flux_ratio_median"] == ""
    assert float(rows[4]["rms_local_jy_beam"]) == pytest.approx(0.5 * RMS, rel=0.1)

    refused = run(*words, code=3)
    assert "s.csv: exists" in refused.output
    assert "--overwrite" in refused.output
    run(*words, "--overwrite")
    run(tmp_path / "first.fits", "--plot", tmp_path / "one.pdf")
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")
    assert not (tmp_path / "one-flux.pdf").exists()
    assert (tmp_path / "first.fits.stats.peelkit.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "x.jpeg"], "x.jpeg"),
        (["--radius", "wide"], "90arcsec"),
        (["--radius", "-3arcsec"], "90arcsec"),
        (["--match-radius", "0"], "positive"),
        (["--threshold", "0"], "threshold"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(folder, words, message):
    assert message in run(folder / "first.fits", *words, code=2).output


def test_no_image_at_all_is_a_usage_error():
    run(code=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "missing.fits", "no such image"),
        (lambda p: write(p / "a.fits", noise(1), beam=None), "no restoring beam"),
        (lambda p: write(p / "a.fits", noise(1), unit="Jy/pixel"), "'Jy/pixel'"),
        (lambda p: write(p / "a.fits", np.full((50, 50), np.nan)), "every pixel is blank"),
        (lambda p: write(p / "a.fits", np.zeros((50, 50))), "every pixel is 0"),
    ],
)
def test_images_that_will_not_do_are_data_errors(tmp_path, make, message):
    path = make(tmp_path)
    output = run(path, code=3).output
    assert message in output
    assert path.name in output
    assert len(output.strip().splitlines()) == 1


def test_mask_and_regions_that_will_not_do_are_data_errors(folder, tmp_path):
    first = folder / "first.fits"
    empty = write(tmp_path / "empty.mask.fits", np.zeros((SIZE, SIZE)), unit="", beam=None)
    assert "empty mask" in run(first, "--mask", empty, code=3).output
    away = write(tmp_path / "away.mask.fits", np.ones((50, 50)), crval=(10.0, 30.0))
    assert "nothing of this mask" in run(first, "--mask", away, code=3).output
    full = write(tmp_path / "full.mask.fits", np.ones((SIZE, SIZE)))
    assert "no pixel left" in run(first, "--mask", full, code=3).output
    outside = tmp_path / "outside.reg"
    outside.write_text('fk5\ncircle(10.0,30.0,5") # text={far}\n')
    assert "far" in run(first, "--regions", outside, code=3).output


def test_folder_that_cannot_be_written_is_said_before_the_work(folder, tmp_path, monkeypatch):
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    output = run(folder / "first.fits", code=3).output
    assert "--sidecar" in output
    assert len(output.strip().splitlines()) == 1
    run(folder / "first.fits", "--sidecar", tmp_path / "s.json")
    assert (tmp_path / "s.json").exists()


def test_before_after_is_made_from_images_of_any_grid(folder, tmp_path):
    images = [read_image(folder / name) for name in ("first.fits", "peeled.fits")]
    for centre in (None, (5.0, 395.0)):
        before_after(
            images,
            ["before", "after"],
            tmp_path / "b.png",
            centre=centre,
            half_width_pixels=60,
            rms=1e-3,
        )
        assert (tmp_path / "b.png").stat().st_size > 10_000
    assert list(tmp_path.iterdir()) == [tmp_path / "b.png"]


def test_colour_scale_spans_the_worst_and_resolves_the_best(folder):
    images = [read_image(folder / "peeled.fits")]
    linear, limit = colour_scale([1e-3, 1e-4], images)
    assert (linear, limit) == pytest.approx((2e-4, 1e-2))
    linear, limit = colour_scale([math.nan], images)
    assert limit == pytest.approx(float(np.max(np.abs(images[0].data))))
    assert [unit_for(value)[1] for value in (2.0, 0.02, 4e-5, 3e-9)] == ["Jy", "mJy", "uJy", "nJy"]


# ---------------------------------------------------------------- three images, as in the memo


@pytest.fixture(scope="module")
def three(folder):
    """First, self-calibrated, peeled: fluxes of the others go 1, 1, 0.95; artefacts fall."""
    path = folder / "selfcal.fits"
    write(path, sky(FAINT) + sky([BRIGHT]) + artefacts(0.003) + noise(4))
    return [folder / "first.fits", path, folder / "peeled.fits"]


def test_table_1_has_local_noise_falling_and_dr_rising_by_as_much(folder, three):
    words = [*three, "--regions", folder / "bright.crtf", "--radius", RADIUS]
    found = record(*words)["results"]
    local = [image["regions"][0] for image in found["images"]]
    rms = [place["rms_local_jy_beam"] for place in local]
    assert rms[0] > rms[1] > rms[2]
    # The geometric mean over the regions.
    before, after = (
        np.array([place["rms_local_jy_beam"] for place in image["regions"]])
        for image in found["images"][1:]
    )
    fell = 1 - np.exp(np.mean(np.log(after / before)))
    assert found["local_rms_fell_by"] == pytest.approx(fell)
    # By the reference's peak, DR x local rms is the same in every row, as in the memo.
    for place in local:
        constant = place["dynamic_range_reference_peak"] * place["rms_local_jy_beam"]
        assert constant == pytest.approx(local[0]["peak_jy_beam"])
    shown = run(*words, "--names", "first,self-calibrated,peeled").stdout
    assert "first (ref.)" in shown
    assert "BRIGHT" not in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 110


def test_each_image_is_compared_with_the_one_before_or_with_the_reference(three, folder):
    pairs = record(*three, "--names", "a,b,c")["results"]["pairs"]
    assert [(pair["before_name"], pair["after_name"]) for pair in pairs] == [("a", "b"), ("b", "c")]
    # 25 sources at S/N of 10 to 100 and artefacts: a median to 3 %.
    assert pairs[1]["flux_ratio_median"] == pytest.approx(0.95, abs=0.03)
    assert pairs[1]["sources_compared"] >= 20
    pairs = record(*three, "--reference", three[1])["results"]["pairs"]
    assert [(pair["before_name"], pair["after_name"]) for pair in pairs] == [
        ("selfcal.fits", "first.fits"), ("selfcal.fits", "peeled.fits")
    ]  # fmt: skip


@pytest.fixture
def solve(monkeypatch):
    """A sidecar of ddsolve; only what the verdict reads."""
    results = {
        "directions": [], "injected": None, "intervals": None,
        "chi2": {"direction_independent": 5.0, "solved": 1.0, "noise": 1.0},
    }  # fmt: skip

    def read(path, *commands):
        assert commands == ("ddsolve",)
        return {"results": results}

    monkeypatch.setattr("peelkit.sidecar.read", read)
    return "solve.json"


def test_the_verdict_is_on_the_last_two_images_whatever_the_reference(three, solve, tmp_path):
    _, before, after = three
    for reference in (three[0], before, after):
        found = record(*three, "--reference", reference, "--ddsolve", solve)["results"]
        assert (found["peeling"]["before"], found["peeling"]["after"]) == (str(before), str(after))
        assert found["peeling"]["verdict"] in ("clean", "better")
    refused = run(after, before, "--ddsolve", solve, "--sidecar", tmp_path / "no.json", code=5)
    (line,) = [line for line in refused.stderr.splitlines() if "worse than" in line]
    assert str(before) in line and "peelkit undo" in line


def test_plot_of_three_images_has_panels_for_each_pair(three, folder, tmp_path):
    run(*three, "--plot", tmp_path / "a.svg", "--sidecar", tmp_path / "a.json")
    assert (tmp_path / "a-flux.svg").stat().st_size > 20_000
    run(*three, "--reference", three[0], "--plot", tmp_path / "b.svg", "--sidecar", tmp_path / "b")
    # One pair below the other, or both in one panel.
    heights = [
        float(re.search(r'height="([\d.]+)pt"', (tmp_path / f"{one}-flux.svg").read_text())[1])
        for one in "ab"
    ]
    assert heights[0] > 1.5 * heights[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--names", "a,b"], "2 names for 1 images"),
        (["--pb", "x.pb"], "--pb: goes with --truth"),
    ],
)
def test_options_that_go_with_others(folder, words, message):
    assert message in run(folder / "first.fits", *words, code=2).output


def test_two_images_of_one_name_are_refused(folder, three):
    assert "same name" in run(*three, "--names", "a,b,a", code=2).output


def test_all_sources_in_regions_is_what_is_said(folder, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write(tmp_path / f"{name}.fits", sky([BRIGHT]) + noise(seed))
    notes = record(
        tmp_path / "a.fits", tmp_path / "b.fits", "--regions", one_region(tmp_path, BRIGHT)
    )["results"]["notes"]
    assert any("all in the regions" in note for note in notes)


def one_region(folder, source):
    fk5 = read_image(next(folder.glob("*.fits"))).sky(*source[:2]).fk5
    path = folder / "one.crtf"
    path.write_text(
        "#CRTFv0\n"
        f"circle[[{fk5.ra.deg:.8f}deg, {fk5.dec.deg:.8f}deg], 6arcsec], coord=J2000, label='B'\n"
    )
    return path


def test_a_measurement_set_is_not_an_image(tmp_path):
    (tmp_path / "a.ms" / "ANTENNA").mkdir(parents=True)
    shown = run(tmp_path / "a.ms", code=3).output
    assert "a Measurement Set, not an image" in shown


# ---------------------------------------------------------------- against the truth


PB_WIDTH = 120.0  # arcsec, of the primary beam of the images below


def primary_beam():
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    r = np.hypot(columns - SIZE / 2, rows - SIZE / 2) * CELL
    return np.exp(-4 * math.log(2) * (r / PB_WIDTH) ** 2)


def truth_file(path, *, fields=1, scale=1.0, index=0.0, extra=()):
    """FAINT and BRIGHT as `peelkit simulate` writes them; fluxes over ``scale``."""
    image = read_image(next(path.glob("*.fits")))
    sources = []
    for number, (x, y, flux, *size) in enumerate([BRIGHT, *FAINT, *extra]):
        icrs = image.sky(x, y)
        sources.append(
            {
                "name": f"S{number}", "ra_deg": icrs.ra.deg, "dec_deg": icrs.dec.deg,
                "flux_jy": flux / scale, "spectral_index": index,
                "major_arcsec": size[0] if size else 0.0, "bright": number == 0,
                "apparent_flux_jy": [flux / scale] * fields,
            }
        )  # fmt: skip
    record = {"schema": "peelkit.truth/1", "reference_hz": 3e9, "fields": [{}] * fields,
              "sources": sources}  # fmt: skip
    target = path / "truth.json"
    target.write_text(json.dumps(record))
    return target


def against(image, truth, *words):
    return record(image, "--truth", truth, *words)["results"]["images"][0]["truth"]


def test_fluxes_against_the_truth_scatter_as_the_noise(tmp_path):
    image = write(tmp_path / "a.fits", sky([*FAINT, BRIGHT]) + noise(7))
    found = against(image, truth_file(tmp_path))
    assert found["sources_compared"] == len(FAINT)
    # Errors of 0.5 to 5 %: the median of thirty to a percent, its scatter to a third.
    assert found["ratio_median"] == pytest.approx(1, abs=0.01)
    pulls = [(one["ratio"] - 1) / one["ratio_error"] for one in found["sources"]]
    assert 0.6 < np.std(pulls) < 1.4
    assert found["ratio_scatter_beyond_noise"] < 0.02
    # The bright source is not compared: it is left, whole.
    (bright,) = found["bright"]
    assert bright["true_jy_beam"] == pytest.approx(BRIGHT[2])
    assert bright["left_jy_beam"] == pytest.approx(BRIGHT[2], rel=0.01)
    assert bright["rms_local_jy_beam"] == pytest.approx(RMS, rel=0.2)


def test_what_peeling_left_is_found_up_or_down(tmp_path):
    image = write(tmp_path / "a.fits", sky([*FAINT, (*BRIGHT[:2], -0.004)]) + noise(7))
    (bright,) = against(image, truth_file(tmp_path))["bright"]
    assert bright["left_jy_beam"] == pytest.approx(-0.004, abs=3 * RMS)


def test_flux_lost_to_all_sources_is_a_ratio_and_to_some_a_scatter(tmp_path):
    fluxes = [(x, y, flux * (0.9 if n % 2 else 0.7)) for n, (x, y, flux) in enumerate(FAINT)]
    image = write(tmp_path / "a.fits", sky(fluxes) + noise(7))
    found = against(image, truth_file(tmp_path))
    assert found["ratio_median"] == pytest.approx(0.8, abs=0.05)
    # 0.7 and 0.9 by turns: 1.48 times the median deviation of 0.1.
    assert found["ratio_scatter_beyond_noise"] == pytest.approx(0.148, abs=0.03)


def test_resolved_sources_are_compared_by_their_own_shape(tmp_path):
    # A Gaussian of 4 arcsec seen with a round beam of 3: 5 arcsec, and 9/25 of the peak.
    beam = (3.0, 3.0, 0.0)
    wide = 0.02 * 9 / 25 * beam_at(100, 200, beam=(5.0, 5.0, 0.0))
    data = sum(flux * beam_at(x, y, beam=beam) for x, y, flux in FAINT) + wide + noise(3)
    image = write(tmp_path / "a.fits", data, beam=beam)
    truth = truth_file(tmp_path, extra=[(100, 200, 0.02, 4.0)])
    last = against(image, truth)["sources"][-1]
    assert last["true_jy"] == pytest.approx(0.02)
    assert last["ratio"] == pytest.approx(1, abs=3 * last["ratio_error"])


def test_neighbours_within_two_beams_and_faint_ones_are_not_compared(tmp_path):
    x, y, flux = FAINT[0]
    image = write(tmp_path / "a.fits", sky([*FAINT, (x + 9, y, flux)]) + noise(3))  # 1.5 beams
    truth = truth_file(tmp_path, extra=[(x + 9, y, flux), (200, 330, 9 * RMS)])
    names = {one["name"] for one in against(image, truth)["sources"]}
    assert names == {f"S{number}" for number in range(2, 31)}
    # Sources in a region are taken for peeled.
    region = one_region(tmp_path, FAINT[5])
    assert "S6" not in {o["name"] for o in against(image, truth, "--regions", region)["sources"]}


def test_a_mosaic_is_compared_through_its_primary_beam(tmp_path):
    beam = primary_beam()
    seen = [(x, y, flux * beam[round(y), round(x)]) for x, y, flux in FAINT]
    image = write(tmp_path / "x.image.fits", sky(seen) + noise(5, 0.1 * RMS))
    truth = truth_file(tmp_path, fields=7)
    assert "give it with --pb" in run(image, "--truth", truth, code=3).output
    write(tmp_path / "x.pb.fits", beam, unit="", beam=None)
    beside = against(image, truth)
    assert beside["ratio_median"] == pytest.approx(1, abs=0.01)
    assert beside["sources_compared"] >= 25
    (tmp_path / "x.pb.fits").rename(tmp_path / "other.fits")
    assert against(image, truth, "--pb", tmp_path / "other.fits") == beside
    # Corrected for it, the sky itself.
    write(tmp_path / "x.image.pbcor.fits", sky(FAINT) + noise(5, 0.1 * RMS))
    corrected = against(tmp_path / "x.image.pbcor.fits", truth)
    assert corrected["ratio_median"] == pytest.approx(1, abs=0.01)


def test_fluxes_are_scaled_to_the_frequency_of_the_image(tmp_path):
    # At 6 GHz, twice the reference, an index of -1 halves the flux.
    image = write(tmp_path / "a.fits", 0.5 * sky(FAINT) + noise(7))
    with fits.open(image, mode="update") as hdus:
        hdus[0].data = hdus[0].data[None]
        header = hdus[0].header
        header["CTYPE3"], header["CRVAL3"], header["CRPIX3"] = "FREQ", 6e9, 1
        header["CDELT3"], header["CUNIT3"] = 1e9, "Hz"
    assert against(image, truth_file(tmp_path, index=-1.0))["ratio_median"] == pytest.approx(
        1, abs=0.02
    )


def test_the_truth_is_shown_in_narrow_tables(tmp_path):
    image = write(tmp_path / "a.fits", sky([*FAINT, BRIGHT]) + noise(7))
    shown = run(image, "--truth", truth_file(tmp_path)).stdout
    assert "Against the truth" in shown
    assert "largest / local rms" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 110


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ('{"schema": "peelkit.sidecar/1"}', "give the truth file of peelkit simulate"),
        ('{"schema": "peelkit.truth/1", "sources": [{}]}', "malformed truth file"),
    ],
)
def test_what_is_not_a_truth_file_is_refused(folder, tmp_path, text, message):
    path = tmp_path / "t.json"
    if text is not None:
        path.write_text(text)
    assert message in run(folder / "first.fits", "--truth", path, code=3).output
