"""Small fields about a region: which region, and where the image goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from makeimage import make_image
from makems import MsRecipe, make_ms
from peelkit.core import around
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.image import read_image

TWO = """#CRTFv0
ellipse [[30.02deg, 10.01deg], [60arcsec, 20arcsec], 0deg] coord=ICRS, label='NORTH'
circle [[29.9deg, 10.2deg], 5arcsec] coord=ICRS, label='1'
"""


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    path = tmp_path / "two.crtf"
    path.write_text(TWO)
    return path


def test_a_region_is_picked_by_its_label_before_its_number(regions: Path) -> None:
    assert around.pick(f"{regions}:NORTH", make_image())[1].number == 1
    assert around.pick(f"{regions}:2", make_image())[1].number == 2
    assert around.pick(f"{regions}:1", make_image())[1].number == 2  # its label
    with pytest.raises(DataError, match=r"2 regions \(NORTH, 1\); name one, .*two.crtf:NORTH"):
        around.pick(str(regions), make_image())
    with pytest.raises(DataError, match="no region 'WEST'; there are NORTH, 1, numbered from 1"):
        around.pick(f"{regions}:WEST", make_image())
    with pytest.raises(DataError, match="no such region file"):
        around.pick("absent.crtf:1", make_image())


@pytest.mark.parametrize(("label", "side"), [("NORTH", 128), ("2", 64)])
def test_the_field_is_twice_as_wide_as_the_region_and_centred_on_it(
    tmp_path: Path, regions: Path, label: str, side: int
) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=4, n_scan=1, n_time=1))
    header = fits.Header({"RADESYS": "FK5", "EQUINOX": 2000.0, "BUNIT": "Jy/beam"})
    for axis, kind, centre, sign in ((1, "RA---SIN", 30.0, -1), (2, "DEC--SIN", 10.0, 1)):
        header.update({
            f"CTYPE{axis}": kind, f"CRVAL{axis}": centre, f"CRPIX{axis}": 51,
            f"CDELT{axis}": sign * 2 / 3600, f"CUNIT{axis}": "deg",
        })  # fmt: skip
    fits.PrimaryHDU(np.zeros((100, 100), dtype=np.float32), header).writeto(tmp_path / "like.fits")
    info = ms.read_info(tmp_path / "a.ms")
    made = Imaging(imsize=100, cell_arcsec=2.0, robust=0.0, nterms=2)
    found = around.settle(
        f"{regions}:{label}", read_image(tmp_path / "like.fits"), made, info, np.arange(info.n_rows)
    )
    assert (found.imaging.imsize, found.imaging.nterms, found.imaging.robust) == (side, 2, 0.0)
    with pytest.raises(
        DataError, match=r"like\.fits: a mosaic; CASA loses fluxes in a small image"
    ):
        around.settle(
            f"{regions}:{label}", read_image(tmp_path / "like.fits"),
            replace(made, gridder="mosaic"), info, np.arange(info.n_rows),
        )  # fmt: skip
    frame, ra, dec = found.imaging.phasecenter.split()
    assert frame == "J2000"
    place = SkyCoord(ra, dec, frame="fk5")
    truth = found.region.shape.center
    # A box of whole pixels: half a pixel either way.
    assert place.separation(truth.fk5).arcsec < 1.5
    assert found.centre.separation(truth).arcsec < 1.5


def test_a_region_wider_than_the_image_is_refused_before_it_is_imaged(tmp_path: Path) -> None:
    # 60 degrees in cells of 2 arcsec would be an image of 432000 pixels a side.
    (tmp_path / "bare.reg").write_text("fk5\ncircle(150,60,60) # text={A}\n")
    made = Imaging(imsize=512, cell_arcsec=2.0, robust=0.0, nterms=1)
    info = cast(Any, None)  # not looked at
    with pytest.raises(DataError, match=r"\(A\): 120 deg wide, wider than image.fits"):
        around.settle(str(tmp_path / "bare.reg"), make_image(), made, info, np.arange(1))
