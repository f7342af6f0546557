"""Sources that their own artefacts, or the weights, hide in the first image."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import imagers, imaging
from peelkit.io import ms
from peelkit.io.image import read_image
from peelkit.io.survey import survey
from peelkit.selection import Selection

pytestmark = pytest.mark.casa

SIZE = ("--imsize", 320)


def disc_ms(path: Path, **changes: object) -> dict[str, np.ndarray]:
    """20 antennas of 345 GHz, one scan; half of the baselines flagged at any time."""
    recipe = MsRecipe(
        **{
            "n_antenna": 20, "n_scan": 1, "n_time": 10, "n_chan": (1,), "freq_hz": 345e9,
            "chan_width_hz": 1e9, "telescope": "ALMA", "radius_m": 250.0, "dec_deg": 24.0,
            "flux_jy": 0.0, "sigma_jy": 0.05, "same_hands": True, "linear_feeds": True, "seed": 1,
            **changes,
        }
    )  # fmt: skip
    truth = make_ms(path, recipe)
    with table(str(path), readonly=False, ack=False) as main:
        flag = main.getcol("FLAG")
        flag[np.random.default_rng(101).random(len(flag)) < 0.5] = True
        main.putcol("FLAG", flag)
        main.putcol("FLAG_ROW", flag.all(axis=(1, 2)))
    return truth


def crescent() -> tuple[tuple[float, float, float], ...]:
    """1 Jy over some 40 beams of 0.36": half a ring with a radius of 5 beams."""
    rng = np.random.default_rng(5)
    angle = rng.vonmises(math.pi / 3, 1.0, 160)
    radius = 0.36 * (5.0 + 0.8 * rng.normal(size=160))
    return tuple(
        (1 / 160, float(r * math.cos(a)), float(r * math.sin(a)))
        for r, a in zip(radius, angle, strict=True)
    )


def result(path: Path, command: str) -> dict:
    return json.loads(Path(f"{path}.{command}.peelkit.json").read_text())["results"]


def test_a_crescent_that_its_own_artefacts_hide_is_calibrated(invoke, tmp_path: Path) -> None:
    path = tmp_path / "crescent.ms"
    truth = disc_ms(path, sources=crescent(), phase_rms_deg=35.0)["gains"]
    # As dirty as it is, nothing of it is 9 times the local noise.
    info = ms.read_info(path)
    found = survey(info, Selection())
    settled, _ = imaging.choose(info, found, imaging.Choices(imsize=320), spws=found.spws())
    with imagers.opened("tclean", tmp_path / "casa.log") as imager:
        target = imaging.Target(path, "0", "")
        dirty = imaging.dirty_image(imager, target, tmp_path / "dirty", settled)
    psf = read_image(settled.psf(tmp_path / "dirty"))
    assert not imaging.dirty_mask(dirty.image, psf, 9.0).any()
    invoke("snr-estimate", path, *SIZE)
    invoke("selfcal", path, *SIZE, "--no-plots", "--rounds", 3)
    done = result(path, "selfcal")
    assert 8 < done["first"]["dynamic_range"] < 12
    assert done["final"]["dynamic_range"] > 1.8 * done["first"]["dynamic_range"]
    # Of 1 Jy, errors of 35 deg leave exp(-0.37) = 0.69, of which the first mask holds a part.
    assert done["first"]["flux_jy"] < done["final"]["flux_jy"] < 1.05
    with table(str(path), ack=False) as main:
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        times = np.unique(main.getcol("TIME"), return_inverse=True)[1]
        good = ~main.getcol("FLAG")[:, 0, 0]
        turned = main.getcol("CORRECTED_DATA")[:, 0, 0] / main.getcol("DATA")[:, 0, 0]
    gain = truth[times, one, 0] * truth[times, two, 0].conj()
    # What is left of the errors; self-calibration cannot know where the source is, so not all may go.
    before, left = (np.median(np.abs(np.angle(each))[good]) for each in (gain, turned * gain))
    assert np.degrees(before) > 20
    assert left < 0.8 * before


def test_natural_weights_are_tried_where_robust_shows_nothing(invoke, tmp_path: Path) -> None:
    # 8.1 times the noise with robust 0.5, 9.2 with natural weights.
    path = tmp_path / "faint.ms"
    disc_ms(path, sources=((0.0056, 0.0, 0.0),), n_scan=2)
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("FLAG", np.zeros_like(main.getcol("FLAG")))
        main.putcol("FLAG_ROW", np.zeros(main.nrows(), dtype=bool))
    out = invoke("snr-estimate", path, *SIZE, "--json", "--phase-snr", 1)
    assert "natural weights" in out.stderr
    out = invoke("snr-estimate", path, *SIZE, "--robust", 0.5, "--phase-snr", 1, code=5)
    assert "no source stands out" in out.stderr
    # selfcal says the same, and images all with these weights; so faint a source has no solutions that help.
    out = invoke(
        "selfcal", path, *SIZE, "--no-plots", "--phase-snr", 1, "--solint", "inf", "--combine",
        "scan", code=5,
    )  # fmt: skip
    assert "natural weights" in out.stderr
    record = json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())
    assert record["parameters"]["robust"] == 2.0
    assert record["results"]["rounds"]
