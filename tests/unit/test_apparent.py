"""A source in the sidelobes of a field's beam has the flux that the field's data show."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makemosaic import direction, make_mosaic
from makems import C, MsRecipe, channel_freq
from peelkit.core.apparent import apparent_fluxes
from peelkit.core.compact import Compact
from peelkit.core.modelcol import Predictor, Samples
from peelkit.core.primary_beam import Beam
from peelkit.io import ms
from peelkit.progress import Progress

RECIPE = MsRecipe(
    n_field=2, n_corr=2, n_chan=(4, 4), flux_jy=0.0, sigma_jy=0.1, telescope="VLA", seed=4,
)  # fmt: skip
BRIGHT, FAINT = (5.0, 300.0, 100.0), (0.05, -1700.0, 60.0)
POINTINGS = [(0.0, 0.0), (-1900.0, 0.0)]
# What the sidelobes of the second field's antennas let through, in its two spws [Jy].
SEEN = (0.12, 0.0)


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("apparent") / "m.ms"
    make_mosaic(path, RECIPE, POINTINGS, [BRIGHT, FAINT])
    ra, dec = direction(RECIPE, BRIGHT[1:])
    ra0, dec0 = direction(RECIPE, POINTINGS[1])
    l = math.cos(dec) * math.sin(ra - ra0)  # noqa: E741
    m = math.sin(dec) * math.cos(dec0) - math.cos(dec) * math.sin(dec0) * math.cos(ra - ra0)
    n = math.sqrt(1 - l * l - m * m)
    with table(str(path), readonly=False, ack=False) as main:
        for row in range(main.nrows()):
            if main.getcell("FIELD_ID", row) != 1:
                continue
            spw = main.getcell("DATA_DESC_ID", row)
            path_m = main.getcell("UVW", row) @ np.array([l, m, n - 1])
            fringe = np.exp(2j * np.pi * path_m * channel_freq(RECIPE, spw) / C)
            cell = main.getcell("DATA", row) + SEEN[spw] * fringe[:, None]
            main.putcell("DATA", row, cell.astype(np.complex64))
    return path


def at(offset: tuple[float, float], flux: float) -> Compact:
    ra, dec = np.degrees(direction(RECIPE, offset))
    return Compact(float(ra), float(dec), flux, 3e9)


def test_flux_beyond_the_beam_is_that_of_the_data(mosaic: Path) -> None:
    info = ms.read_info(mosaic)
    rows = np.arange(info.n_rows)
    beam = Beam.of(info)
    # The second place has nothing.
    sources = {"BRIGHT": at(BRIGHT[1:], 5.0), "NONE": at((200.0, -400.0), 1.0)}
    assert sources["BRIGHT"].power(info.fields[1], info.spws[0].freq_hz, beam).max() == 0
    found = apparent_fluxes(
        info, rows, "DATA", sources, [at(FAINT[1:], FAINT[0])], beam, Progress()
    )
    # Neither the field that sees it through a beam, nor the spw that does not see it.
    assert set(found["BRIGHT"]) == {(1, 0)} and found["NONE"] == {}
    with table(str(mosaic), ack=False) as main:
        mine = (main.getcol("FIELD_ID") == 1) & (main.getcol("DATA_DESC_ID") == 0)
    samples = mine.sum() * 4 * 2
    error = 4 * RECIPE.sigma_jy * math.sqrt(2 / samples)
    assert found["BRIGHT"][1, 0] == pytest.approx(SEEN[0], abs=error)
    assert error < 0.2 * SEEN[0]


def test_what_is_predicted_is_what_is_seen(mosaic: Path) -> None:
    info = ms.read_info(mosaic)
    plain = at(BRIGHT[1:], 5.0)
    seen = replace(plain, apparent={(1, 0): 0.12})
    predictor = Predictor(info, Beam.of(info))
    with ms.opened(mosaic) as main:
        fields, ddids = main.getcol("FIELD_ID"), main.getcol("DATA_DESC_ID")
        for field, spw in ((0, 0), (0, 1), (1, 0), (1, 1)):
            where = Samples.read(main, np.flatnonzero((fields == field) & (ddids == spw)), spw)
            vis = predictor.visibilities(seen, where)
            if (field, spw) == (1, 0):
                np.testing.assert_allclose(np.abs(vis), 0.12)
            else:
                np.testing.assert_array_equal(vis, predictor.visibilities(plain, where))
