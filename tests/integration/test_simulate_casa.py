"""What CASA makes of a simulated MS: fluxes, positions and noise as the truth file says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from peelkit.core.measure import robust_rms
from peelkit.core.simulate import SimulateOptions, preset, simulate
from peelkit.engines.casa import Casa
from peelkit.io.image import Image, read_image
from peelkit.progress import Progress

pytestmark = pytest.mark.casa

CELL = 1.4  # arcsec; the beam is 7


def fitted_peak(image: Image, source: dict) -> tuple[float, float, float]:
    """Peak of a parabola through the logarithm of 3 x 3 pixels, and its offset in pixels."""
    place = SkyCoord(source["ra_deg"] * units.deg, source["dec_deg"] * units.deg)
    x, y = (float(value) for value in image.pixel(place))
    column, row = round(x), round(y)
    dy, dx = (grid.ravel() for grid in np.mgrid[-1:2, -1:2])
    values = np.log(image.data[row - 1 : row + 2, column - 1 : column + 2].ravel())
    terms = np.stack([np.ones(9), dx, dy, dx**2, dy**2, dx * dy], axis=1)
    c = np.linalg.lstsq(terms, values, rcond=None)[0]
    step = -np.linalg.solve([[2 * c[3], c[5]], [c[5], 2 * c[4]]], c[1:3])
    peak = math.exp(c[0] + 0.5 * c[1:3] @ step)
    return peak, column + step[0] - x, row + step[1] - y


def image_of(
    folder: Path, ms: Path, name: str, imsize: int, cell: float = CELL, **arguments: object
) -> Image:
    product = folder / f"{name}.image"
    with Casa(folder / "casa.log") as casa:
        casa.run(
            "tclean", product=product, vis=str(ms), imagename=str(folder / name),
            imsize=[imsize, imsize], cell=f"{cell}arcsec", weighting="natural", stokes="I",
            pblimit=-0.1, **arguments,
        )  # fmt: skip
    return read_image(product)


@pytest.mark.slow
def test_an_image_without_errors_has_the_fluxes_and_the_noise_of_the_truth(tmp_path: Path) -> None:
    ms = tmp_path / "faint.ms"
    # One spw at the reference frequency: the image is at the truth's frequency. Without the bright
    # source, since the standard gridder is good to 1e-3 of it.
    options = SimulateOptions(
        spws=1, integrations=20, faint=8, faint_flux=(6e-3, 3e-2), without=("bright", "errors")
    )
    simulate(ms, options, Progress())
    truth = json.loads((tmp_path / "faint.ms.truth.json").read_text())
    rms = truth["rms_thermal_jy_beam"]
    regions = tmp_path / "mask.crtf"
    lines = [
        f"circle[[{source['ra_deg']!r}deg, {source['dec_deg']!r}deg], 10arcsec]"
        for source in truth["sources"]
    ]
    regions.write_text("\n".join(["#CRTFv0", *lines]) + "\n")
    image = image_of(tmp_path, ms, "faint", 960, mask=str(regions), niter=2000, threshold=2 * rms)
    # 5 %: 9e5 pixels are about 2e4 beams, and what the sources leave in their sidelobes.
    assert robust_rms(image.data) == pytest.approx(rms, rel=0.05)
    for source in truth["sources"]:
        (apparent,) = source["apparent_flux_jy"]
        if apparent > 20 * rms:
            peak, dx, dy = fitted_peak(image, source)
            # 4 sigma, and 1 % for the parabola in place of the beam.
            assert peak == pytest.approx(apparent, abs=4 * rms + 0.01 * apparent)
            # 4 sigma of a position, beam / (2.35 S/N), and the shift of LSRK (1e-4 of 10 arcmin)
            # and of the w term that the standard gridder leaves.
            allowed = 4 * 5.0 / (2.35 * apparent / rms) + 0.15
            assert math.hypot(dx, dy) < allowed


@pytest.mark.slow
def test_the_bright_source_is_where_the_truth_has_it_in_every_field(tmp_path: Path) -> None:
    ms = tmp_path / "mosaic.ms"
    options = SimulateOptions(
        spws=1, channels=2, integrations=2, fields=3, faint=0, bright=("5@3,-2",), squint=False,
        without=("errors",),
    )  # fmt: skip
    simulate(ms, options, Progress())
    truth = json.loads((tmp_path / "mosaic.ms.truth.json").read_text())
    (source,) = truth["sources"]
    for field in range(3):
        image = image_of(tmp_path, ms, f"field{field}", 800, field=str(field), niter=0)
        peak, dx, dy = fitted_peak(image, source)
        # A dirty beam's middle is no exact Gaussian: 1 %.
        assert peak == pytest.approx(source["apparent_flux_jy"][field], rel=0.01)
        assert math.hypot(dx, dy) < 0.1


def test_casa_solves_and_applies_gains_on_it(tmp_path: Path) -> None:
    ms = tmp_path / "gains.ms"
    # A lone source at the phase centre: with a flat model, the phases that gaincal finds are those
    # of the truth, but for the reference antenna's.
    options = SimulateOptions(
        spws=1, channels=4, integrations=4, antennas=9, faint=0, bright=("20@0,0",),
        spectral_index=0.0, delay_rms=0.0, amplitude_rms=0.0, pointing_rms=0.0, squint=False,
    )  # fmt: skip
    simulate(ms, options, Progress())
    truth = json.loads((tmp_path / "gains.ms.truth.json").read_text())
    from casacore.tables import table

    with Casa(tmp_path / "casa.log") as casa:
        casa.run("gaincal", product=tmp_path / "g", vis=str(ms), caltable=str(tmp_path / "g"),
                 solint="int", calmode="p", refant="ea01", smodel=[20, 0, 0, 0])  # fmt: skip
        casa.run("applycal", vis=str(ms), gaintable=[str(tmp_path / "g")], flagbackup=False)
    with table(str(tmp_path / "g"), ack=False) as sub:
        found = np.angle(sub.getcol("CPARAM")[:, 0, :], deg=True).reshape(4, 9, 2)
    phase = np.array(truth["gains"]["phase_deg"])
    wrong = found - (phase - phase[:, :1])
    # Noise: 36 mJy on 20 Jy, 0.04 deg for an antenna and its reference.
    assert np.abs((wrong + 180) % 360 - 180).max() < 0.3
    with table(str(ms), ack=False) as main:
        corrected = main.getcol("CORRECTED_DATA")
        assert not main.getcol("FLAG").any()
    # To the noise, for each of the real and imaginary parts.
    assert np.abs(corrected - 20).std() < 2 * truth["noise_jy"]
    assert np.abs(corrected.mean() - 20) < 0.02


def test_an_example_without_errors_has_the_flux_and_the_noise_of_its_truth(tmp_path: Path) -> None:
    ms = tmp_path / "mira.ms"
    simulate(ms, preset("mira", {"without": ("errors",), "scans": 2, "channels": 1}), Progress())
    truth = json.loads((tmp_path / "mira.ms.truth.json").read_text())
    rms = truth["rms_thermal_jy_beam"]
    regions = tmp_path / "mask.crtf"
    lines = [
        f"circle[[{source['ra_deg']!r}deg, {source['dec_deg']!r}deg], 0.05arcsec]"
        for source in truth["sources"]
    ]
    regions.write_text("\n".join(["#CRTFv0", *lines]) + "\n")
    image = image_of(
        tmp_path, ms, "mira", 384, cell=0.004, mask=str(regions), niter=20000, threshold=0.5 * rms
    )
    # 384 pixels are about 3e3 beams: 4 sigma of the rms are 5 %. With two scans the beam has high sidelobes: it is
    # cleaned below the noise, so that what is left in the mask adds no sidelobes.
    assert robust_rms(image.data) == pytest.approx(rms, rel=0.1)
    model = read_image(tmp_path / "mira.model").data
    for source in truth["sources"]:
        place = SkyCoord(source["ra_deg"] * units.deg, source["dec_deg"] * units.deg)
        x, y = (round(float(value)) for value in image.pixel(place))
        found = model[y - 12 : y + 13, x - 12 : x + 13].sum()
        # 3 % for what the small mask cuts off, 6 rms for the noise in about four beams.
        assert found == pytest.approx(source["flux_jy"], abs=6 * rms + 0.03 * source["flux_jy"])


def test_a_channel_of_the_maser_has_its_flux_though_two_executions_share_the_spw(
    tmp_path: Path,
) -> None:
    ms = tmp_path / "maser.ms"
    options = preset("maser", {"without": ("errors",), "scans": 1, "antennas": 12})
    simulate(ms, options, Progress())
    truth = json.loads((tmp_path / "maser.ms.truth.json").read_text())
    image = image_of(tmp_path, ms, "ch21", 128, cell=0.004, spw="0:21", niter=0)
    # A point at the phase centre: its peak in the dirty image. Of a topocentric spw tclean takes the
    # channel and its neighbour, which has 0.735 of the flux: the peak would be 52 Jy.
    noise = truth["noise_jy"] / math.sqrt(66 * 52 * 2)
    assert image.data.max() == pytest.approx(60.0, abs=5 * noise)
