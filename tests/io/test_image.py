"""Images as other programs write them: where their beam, unit and frequency stand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits

from peelkit.errors import DataError
from peelkit.io.image import brightness_unit, read_image, read_restored, write_like
from peelkit.io.modelimage import read_planes

PEAK = 0.25  # Jy/beam


def save(path, *, factor=1.0, axes=4, planes=1, beams=None, **cards):
    """A source of PEAK Jy/beam at pixel (40, 30) of noise, in units of 1/factor Jy."""
    y, x = np.mgrid[0:64, 0:64]
    data = PEAK * np.exp(-4 * np.log(2) * ((x - 40) ** 2 + (y - 30) ** 2) / 25)
    data += 1e-3 * np.random.default_rng(1).normal(size=data.shape)
    header = fits.Header()
    for axis, (kind, value, step) in enumerate(
        (
            ("RA---SIN", 150.0, -1 / 3600),
            ("DEC--SIN", 30.0, 1 / 3600),
            ("STOKES", 1.0, 1.0),
            ("FREQ", 3e9, 1e9),
        )[:axes],
        1,
    ):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = kind, value
        header[f"CRPIX{axis}"], header[f"CDELT{axis}"] = (33 if axis < 3 else 1), step
    header["RADESYS"], header["BUNIT"] = "ICRS", "Jy/beam"
    for key, value in cards.items():
        for one in value if isinstance(value, list) else [value]:
            header[key] = one
    shape = (1, planes, 64, 64) if axes == 4 else (64, 64)
    hdus = [fits.PrimaryHDU(np.broadcast_to(data * factor, shape).astype("f4"), header)]
    if beams is not None:
        hdus[0].header["CASAMBM"] = True
        hdus.append(beams)
    fits.HDUList(hdus).writeto(path)
    return path


def table_of_beams(values, unit):
    columns = [
        fits.Column(name, "1E", unit=unit if name != "BPA" else "deg", array=array)
        for name, array in zip(("BMAJ", "BMIN", "BPA"), np.transpose(values), strict=True)
    ]
    columns += [fits.Column("POL", "1J", array=np.arange(len(values)))]
    return fits.BinTableHDU.from_columns(columns, name="BEAMS")


IN_HISTORY = [
    "AIPS   CLEAN BMAJ=  9.0000E-03 BMIN=  9.0000E-03 BPA=   0.00",
    "AIPS   CLEAN NITER=     1000 PRODUCT=1   / NORMAL",
    "AIPS   CLEAN BMAJ=  1.6667E-03 BMIN=  1.3889E-03 BPA=  20.00",
]


@pytest.mark.parametrize(
    "words",
    [
        {"BMAJ": 6 / 3600, "BMIN": 5 / 3600, "BPA": 20.0},
        {"beams": table_of_beams([(6, 5, 20)], "arcsec")},
        {"beams": table_of_beams([(6, 5, 20), (7, 7, 0)], "arcsec"), "planes": 2},
        {"beams": table_of_beams([(0, 0, 0), (6 / 3600, 5 / 3600, 20)], "deg"), "planes": 2},
        # The last time that it was cleaned.
        {"HISTORY": IN_HISTORY},
    ],
    ids=["header", "table of one plane", "table of two", "first plane blank", "AIPS"],
)
def test_the_beam_is_found_wherever_it_stands_and_written_into_the_header(tmp_path, words):
    image = read_restored(save(tmp_path / "x.fits", **words))
    assert image.beam.major_arcsec == pytest.approx(6, rel=1e-4)
    assert image.beam.minor_arcsec == pytest.approx(5, rel=1e-4)
    assert image.beam.pa_deg == 20
    write_like(tmp_path / "y.fits", image.data, image)
    again = fits.getheader(tmp_path / "y.fits")
    assert again["BMAJ"] * 3600 == pytest.approx(6, rel=1e-4) and "CASAMBM" not in again


def test_an_image_without_a_beam_is_refused(tmp_path):
    with pytest.raises(DataError, match="no restoring beam"):
        read_restored(save(tmp_path / "x.fits", HISTORY="AIPS   CLEAN NITER=     1000"))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("Jy/beam", ("Jy/beam", 1)),
        ("JY/BEAM", ("Jy/beam", 1)),
        ("Jy beam-1", ("Jy/beam", 1)),
        ("beam-1 Jy", ("Jy/beam", 1)),
        ("beam^-1 Jy", ("Jy/beam", 1)),
        ("Jy/bm", ("Jy/beam", 1)),
        ("mJy/beam", ("Jy/beam", 1e-3)),
        ("uJy/beam", ("Jy/beam", 1e-6)),
        ("\N{MICRO SIGN}Jy/beam", ("Jy/beam", 1e-6)),
        ("MJy/beam", ("Jy/beam", 1e6)),
        ("Jy/PIXEL", ("Jy/pixel", 1)),
        ("JY/PIXEL", ("Jy/pixel", 1)),
        ("mJy/pix", ("Jy/pixel", 1e-3)),
        # Milli or mega? Nobody knows.
        ("MJY/BEAM", ("MJY/BEAM", 1)),
        ("K", ("K", 1)),
        ("Jy/sr", ("Jy/sr", 1)),
        ("", ("", 1)),
    ],
)
def test_units_of_flux_are_janskys_however_they_are_spelt(text, known):
    name, factor = brightness_unit(text)
    assert name == known[0] and factor == pytest.approx(known[1])


BEAM = {"BMAJ": 5 / 3600, "BMIN": 5 / 3600}


@pytest.mark.parametrize("axes", [2, 4])
@pytest.mark.parametrize(("unit", "factor"), [("Jy/beam", 1), ("mJy/beam", 1e3), ("uJy/beam", 1e6)])
def test_every_unit_and_number_of_axes_measures_the_same(invoke, tmp_path, axes, unit, factor):
    save(tmp_path / "x.fits", factor=factor, axes=axes, BUNIT=unit, **BEAM)
    record = json.loads(invoke("stats", "x.fits", "--json").stdout)["results"]["images"][0]
    assert record["peak_jy_beam"] == pytest.approx(PEAK, rel=0.01)
    assert record["rms_global_jy_beam"] == pytest.approx(1e-3, rel=0.05)
    found = json.loads(invoke("mask", "x.fits", "x.mask", "--json").stdout)["results"]
    assert found["islands"][0]["flux_jy"] == pytest.approx(PEAK, rel=0.03)
    # What is written of it says Jy/beam, and has the values for that.
    image = read_image(tmp_path / "x.fits")
    write_like(tmp_path / "y.fits", image.data, image)
    assert read_image(tmp_path / "y.fits").data.max() == pytest.approx(PEAK, rel=0.01)


@pytest.mark.parametrize("command", ["mask x.fits x.mask", "stats x.fits"])
def test_another_unit_is_refused_by_name(invoke, tmp_path, command):
    save(tmp_path / "x.fits", BUNIT="K", **BEAM)
    said = invoke(*command.split(), code=3).stderr
    assert "x.fits: unit 'K', where Jy/beam" in said


@pytest.mark.parametrize(("unit", "step"), [("Hz", 1.0), ("MHz", 1e6), ("GHz", 1e9)])
def test_frequencies_are_in_hertz(tmp_path, unit, step):
    cards = {"CUNIT4": unit, "CRVAL4": 3e9 / step, "CDELT4": 1e9 / step}
    (plane,) = read_planes(save(tmp_path / "x.fits", **cards))
    assert plane.freq_hz == pytest.approx(3e9)
