"""Sources that no model has, through ddsolve: kept by long intervals, eaten by short ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import RECIPE, Bright, make_truth
from makems import channel_freq, sky_visibility
from peelkit.core import dd_data, dd_inject
from peelkit.io import ms
from peelkit.progress import Progress

pytestmark = [pytest.mark.quartical, pytest.mark.slow]

# Wide channels: away from the bright source, phases turn within a spw and a scan, but not in a channel.
WIDE = replace(RECIPE, n_field=2, chan_width_hz=100e6, radius_m=6000.0)
BRIGHT = Bright(5.0, 300.0, 200.0)
SOURCES = ("--inject", "60mJy@-14,-9", "--inject", "0.04Jy@12.5,-6")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inject") / "one.ms"
    make_truth(path, (BRIGHT,), WIDE)
    return path


def injected(one: Path, invoke, *options: str) -> dict:
    out = invoke("ddsolve", one, "--all", "ALL", "--peel", "B1", "--g", "none", "--no-balance", *options, *SOURCES,
                 "--keep", "--no-plots", "--json")  # fmt: skip
    return json.loads(out.stdout)


def test_long_intervals_keep_what_short_ones_eat(one, invoke) -> None:
    with table(str(one), ack=False) as main:
        before = main.getcol("DATA").tobytes(), main.colnames()
    long = injected(one, invoke, "--de-time", "inf", "--de-freq", "spw")
    short = injected(one, invoke, "--de-time", "1int", "--de-freq", "1chan", "--overwrite")
    with table(str(one), ack=False) as main:
        assert (main.getcol("DATA").tobytes(), main.colnames()) == before
    assert [source["flux_jy"] for source in long["results"]["injected"]] == [0.06, 0.04]
    for kept, eaten in zip(long["results"]["injected"], short["results"]["injected"], strict=True):
        assert kept["recovered_fraction"] == pytest.approx(1.0, abs=0.05)
        # Of a source that does not change in an interval, dE has 2 / (n - 1) of 10 antennas.
        assert eaten["suppression"] == pytest.approx(2 / 9, abs=0.03)
        assert abs(kept["suppression"]) < 0.05
        assert kept["sigma"] < 0.02 and kept["separation_arcsec"] is None
    assert not any("injected" in words for words in long["warnings"])
    assert sum("an injected source of" in words for words in short["warnings"]) == 2
    # 10 antennas x 2 hands x 2, for each scan (one of each field) and spw; each sample is two numbers.
    (wide,), (free,) = long["results"]["directions"], short["results"]["directions"]
    assert wide["parameters"] == 10 * 2 * 2 * 2 * 2
    assert wide["visibilities"] == 45 * 2 * 12 * 8 * 2 * 2
    assert free["freedom"] == pytest.approx(2 / 9)
    assert any("22 % as many numbers as the data" in words for words in short["warnings"])


def test_injected_sources_are_where_they_were_asked_for_in_every_field(one) -> None:
    info = ms.read_info(one)
    directions = [SimpleNamespace(ra_deg=None, dec_deg=None)]
    with ms.opened(one) as main:
        plan = SimpleNamespace(
            rows=SimpleNamespace(info=info, rows=np.arange(info.n_rows)), directions=directions
        )
        asked = dd_inject.parse(["5mJy@3,-2"])
        vectors = dd_inject._vectors(plan, asked)
        sky = dd_inject.Sky(info, False, np.array([0.005]), vectors)
        fields, ddids = main.getcol("FIELD_ID"), main.getcol("DATA_DESC_ID")
        for field in (0, 1):
            rows = np.flatnonzero((fields == field) & (ddids == 1))
            found = sky.visibilities(main, rows, info.data_descriptions[1])[0]
            # By angles of the sphere, about this field's centre.
            ra, dec = (np.radians(value) for value in dd_inject._degrees(vectors[0]))
            centre, step = info.fields[field], 0.0
            step = ra - centre.ra_rad
            east = np.cos(dec) * np.sin(step)
            north = np.sin(dec) * np.cos(centre.dec_rad) - np.cos(dec) * np.sin(
                centre.dec_rad
            ) * np.cos(step)
            recipe = replace(
                WIDE,
                flux_jy=0.0,
                sources=((0.005, np.degrees(east) * 3600, np.degrees(north) * 3600),),
            )
            expected = sky_visibility(recipe, ms.get(main, "UVW", rows), channel_freq(WIDE, 1))
            np.testing.assert_allclose(found, expected, atol=1e-7)
            if field == 0:
                assert np.degrees([east, north]) * 60 == pytest.approx([3.0, -2.0])


@pytest.mark.parametrize("left", [(1.0, 1.0), (0.0, 0.0), (0.7, 1.0)])
def test_a_peeling_that_eats_a_source_is_found(one, monkeypatch, left) -> None:
    info = ms.read_info(one)
    selected = dd_data.gather(info, np.arange(info.n_rows), combine_fields=False)
    plan = SimpleNamespace(
        rows=selected, data_column="DATA", models=(), directions=[SimpleNamespace(ra_deg=None)]
    )
    # A beam apart: each leaks into a sum over the other.
    asked = dd_inject.parse(["5mJy@3,-2", "5mJy@3.1,-2"])
    sky = dd_inject.Sky.of(plan, np.full(2, 0.005), dd_inject._vectors(plan, asked))

    def having(sky, groups, block):
        with ms.opened(one) as main:
            seen = sky.visibilities(main, block.rows, block.description)
        return replace(block, data=block.data + np.einsum("s,src->rc", left, seen)[..., None]), seen

    def peel(plan, block, groups):
        return SimpleNamespace(peeled=block.data, failed=np.zeros(block.data.shape[:2], dtype=bool))

    monkeypatch.setattr(dd_inject, "_having", having)
    monkeypatch.setattr(dd_inject, "_peel", peel)
    found, sigma = dd_inject._measure(plan, sky, {}, {}, {0: 1.0, 1: 1.0}, Progress())
    np.testing.assert_allclose(found, left, atol=1e-4)
    assert (sigma > 0.0).all()


def test_the_first_direction_is_where_offsets_start(one) -> None:
    info = ms.read_info(one)
    near = SimpleNamespace(ra_deg=120.0, dec_deg=-20.0)
    far = SimpleNamespace(ra_deg=120.0, dec_deg=-21.0)
    plan = SimpleNamespace(rows=SimpleNamespace(info=info), directions=[near, far])
    (vector,) = dd_inject._vectors(plan, dd_inject.parse(["1@0,-50"]))
    ra, dec = dd_inject._degrees(vector)
    assert (ra, dec) == pytest.approx((120.0, -20 - 50 / 60), abs=1e-4)
    assert dd_inject._separation_arcsec(plan, vector) == pytest.approx(600, abs=0.5)


def test_workers_find_the_data_of_a_relative_path_and_get_no_rows(one, monkeypatch) -> None:
    monkeypatch.chdir(one.parent)
    info = ms.read_info(Path(one.name))
    selected = dd_data.gather(info, np.arange(info.n_rows), combine_fields=False)
    sky = dd_inject.Sky.of(SimpleNamespace(rows=selected), np.ones(1), np.zeros((1, 3)))
    monkeypatch.chdir("/")
    assert sky.info.path.exists() and not hasattr(sky, "plan")
