"""The thermal noise that stats tells, against tclean's images of nothing but noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from casacore.tables import table
from click.testing import Result

from peelkit.core import image_record, thermal
from peelkit.io import ms

pytestmark = [pytest.mark.casa, pytest.mark.slow]

# 27 antennas: with 14 the rms of one image scatters by 2.5 % from seed to seed.
NOISE = (
    "--config", "D", "--spws", 2, "--channels", 4,
    "--without", "bright", "--without", "faint", "--without", "errors",
)  # fmt: skip


def measured(
    invoke: Callable[..., Result], path: Path, images: list[Path]
) -> list[dict[str, float]]:
    said = invoke("-q", "stats", *images, "--ms", path, "--json", "--sidecar", "-").stdout
    found: list[dict[str, float]] = json.loads(said)["results"]["images"]
    return found


def test_one_field_with_and_without_taylor_terms(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "n.ms"
    invoke("-q", "simulate", path, *NOISE, "--integrations", 20)
    images = []
    for name, *words in (
        ("briggs", "--robust", 0.5, "--nterms", 1),
        ("natural", "--robust", 2, "--nterms", 1),
        # Most weight at one end of the band: the spectrum costs half of the sensitivity.
        ("lopsided", "--robust", 0.5, "--nterms", 2, "--spw", "0,1:0"),
    ):
        out = tmp_path / name
        invoke("-q", "image-residual", path, out, "--column", "DATA", "--imsize", 360, *words)
        images.append(out.with_name(f"{name}.image" + (".tt0" if words[3] == 2 else "")))
    found = measured(invoke, path, images)
    for one in found:
        assert one["rms_global_over_thermal"] == pytest.approx(1, abs=0.03), one["name"]
        assert one["rms_global_over_thermal"] == pytest.approx(
            one["rms_global_jy_beam"] / one["rms_thermal_jy_beam"]
        )
        assert one["rms_local_over_thermal"] == pytest.approx(1, abs=0.1)
    briggs, natural, lopsided = (one["rms_thermal_jy_beam"] for one in found)
    assert natural < briggs and lopsided > 1.3 * briggs
    # Exactly tclean's weights: it adds up those of both hands.
    info = ms.read_info(path)
    for image in images[:2]:
        record = image_record.read(image)
        sums, _ = thermal.weigh(info, record.imaging, record.selection)
        with table(str(image.with_suffix(".sumwt")), ack=False) as product:
            sumwt = float(product.getcell("map", 0).ravel()[0])
        assert 2 * sum(one.first.sum() for one in sums.values()) == pytest.approx(sumwt, rel=1e-3)


def test_a_mosaic_with_and_without_taylor_terms(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "m.ms"
    invoke("-q", "simulate", path, *NOISE, "--integrations", 10, "--fields", 3)
    images = []
    for nterms, suffix in ((1, ""), (2, ".tt0")):
        out = tmp_path / f"m{nterms}"
        invoke(
            "-q",
            "image-residual",
            path,
            out,
            "--column",
            "DATA",
            "--imsize",
            500,
            "--nterms",
            nterms,
        )
        images.append(out.with_name(f"{out.name}.image{suffix}"))
    plain, taylor = measured(invoke, path, images)
    assert plain["rms_global_over_thermal"] == pytest.approx(1, abs=0.05)
    assert taylor["rms_global_over_thermal"] == pytest.approx(1, abs=0.05)


def test_an_image_of_unknown_making_has_no_thermal_noise(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "n.ms"
    invoke("-q", "simulate", path, *NOISE, "--integrations", 5)
    out = tmp_path / "x"
    invoke("-q", "image-residual", path, out, "--column", "DATA", "--imsize", 200, "--nterms", 1)
    image = tmp_path / "x.image"
    without = json.loads(invoke("-q", "stats", image, "--json", "--sidecar", "-").stdout)
    assert without["results"]["images"][0]["rms_thermal_jy_beam"] is None
    (tmp_path / "x.image.peelkit.json").unlink()
    found = json.loads(
        invoke("-q", "stats", image, "--ms", path, "--json", "--sidecar", "-").stdout
    )["results"]
    assert found["images"][0]["rms_thermal_jy_beam"] is None
    assert found["images"][0]["rms_global_over_thermal"] is None
    assert any("no thermal noise" in note and "has no sidecar" in note for note in found["notes"])
