"""What is left of a peeled source is found by its sidelobes, and the verdict says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import ICRS
from astropy.wcs import WCS

from peelkit.core.ghost import Ghost, ghost, sidelobes
from peelkit.core.peel_verdict import judge
from peelkit.core.psf import find_psf
from peelkit.io.image import Beam, Image

SIZE, AT = 256, (100, 141)
RMS = 1e-4


@pytest.fixture(scope="module")
def sampled() -> np.ndarray:
    """Gridded weights of 27 antennas along three arms, for half an hour."""
    rng = np.random.default_rng(5)
    arms = np.radians([5.0, 125.0, 245.0])
    along = np.geomspace(4.0, 45.0, 9)
    east = np.concatenate([along * np.sin(arm) for arm in arms]) + rng.normal(0, 0.5, 27)
    north = np.concatenate([along * np.cos(arm) for arm in arms]) + rng.normal(0, 0.5, 27)
    weights = np.zeros((SIZE, SIZE))
    for turn in np.radians(np.linspace(0, 8, 20)):
        u = east * np.cos(turn) - 0.7 * north * np.sin(turn)
        v = east * np.sin(turn) + 0.7 * north * np.cos(turn)
        du = np.rint(u[:, None] - u).astype(int)[~np.eye(27, dtype=bool)]
        dv = np.rint(v[:, None] - v).astype(int)[~np.eye(27, dtype=bool)]
        np.add.at(weights, (dv % SIZE, du % SIZE), 1.0)
    return weights


@pytest.fixture(scope="module")
def psf(sampled: np.ndarray) -> np.ndarray:
    found = np.fft.fftshift(np.fft.ifft2(sampled).real)
    return found / found.max()


def noise(sampled: np.ndarray, seed: int) -> np.ndarray:
    """Dirty image of noise alone."""
    white = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    found = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(sampled)).real
    return RMS * found / found.std()


def picture(data: np.ndarray) -> Image:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ("RA---SIN", "DEC--SIN"), (30.0, 20.0)
    wcs.wcs.cdelt, wcs.wcs.crpix = (-1 / 3600, 1 / 3600), (SIZE / 2 + 1, SIZE / 2 + 1)
    return Image(
        Path("x.image"), data, wcs, ICRS(), Beam(3.0, 3.0, 0.0), "Jy/beam", data.shape, 3e9
    )


def shifted(psf: np.ndarray) -> np.ndarray:
    return np.roll(psf, (AT[1] - SIZE // 2, AT[0] - SIZE // 2), (0, 1))


def look(image: Image, psf: np.ndarray | None, sources: np.ndarray) -> Ghost:
    fitted = None if psf is None else sidelobes(image, psf, sources=sources, radius_arcsec=60.0)
    found = ghost(image, fitted, AT)
    assert found is not None
    return found


def test_sidelobes_tell_the_flux_without_the_main_lobe(sampled, psf) -> None:
    none = np.zeros((SIZE, SIZE), dtype=bool)
    sigmas = []
    for seed in range(6):
        empty = look(picture(noise(sampled, seed)), psf, none)
        assert abs(empty.sidelobes_snr) < 4
        sigmas.append(empty.sigma_jy)
        data = noise(sampled, seed) + 20 * RMS * shifted(psf)
        # The main lobe is not looked at: a source that the model has hides it.
        data[AT[1] - 3 : AT[1] + 4, AT[0] - 3 : AT[0] + 4] = 0.0
        found = look(picture(data), psf, none)
        assert found.sidelobes_jy == pytest.approx(20 * RMS, abs=4 * found.sigma_jy)
        assert found.sidelobes_snr > 5
        assert found.left_jy_beam == 0.0
    # Noise of a dirty image is as correlated as the PSF: the fit is no better than a beam of it.
    assert np.mean(sigmas) < 3 * RMS


def test_other_sources_do_not_pass_for_sidelobes(sampled, psf) -> None:
    data = noise(sampled, 9)
    sources = np.zeros((SIZE, SIZE), dtype=bool)
    sources[150:160, 80:90] = True
    data[sources] = 0.1
    found = look(picture(data), psf, sources)
    assert abs(found.sidelobes_snr) < 4
    assert look(picture(data), None, sources).sidelobes_jy is None


def test_a_place_outside_the_image_has_nothing(sampled) -> None:
    image = picture(noise(sampled, 1))
    assert ghost(image, None, (SIZE, 3)) is None and ghost(image, None, (3, -1)) is None


def test_the_psf_of_an_image_is_beside_it(tmp_path) -> None:
    (tmp_path / "a.image.b.psf.tt0").touch()
    assert find_psf(tmp_path / "a.image.b.image.tt0") == tmp_path / "a.image.b.psf.tt0"
    assert find_psf(tmp_path / "a.image.b.image") is None
    assert find_psf(tmp_path / "a.fits") is None


def entry(rms: float, left: float = 0.0, snr: float | None = 0.0) -> dict:
    return {
        "path": f"{rms}.image",
        "rms_global_jy_beam": rms,
        "rms_thermal_jy_beam": 0.5,
        "regions": [
            {
                "label": "B1", "rms_local_jy_beam": rms, "ghost_left_jy_beam": left,
                "ghost_sidelobes_jy": left, "ghost_sidelobes_snr": snr,
            }
        ],
    }  # fmt: skip


PAIR = {"sources_compared": 40, "flux_ratio_median": 1.0, "flux_ratio_scatter": 0.05}
SOLVE = {
    "chi2": {"direction_independent": 5.0, "solved": 1.01, "noise": 0.808},
    "injected": [{"flux_jy": 0.005, "suppression": 0.02, "sigma": 0.01}],
    "intervals": {
        "chosen": [{"direction": "B1", "integrations": 8, "channels": 1}],
        "candidates": [
            {
                "term": "G",
                "direction": None,
                "integrations": 8,
                "channels": 1,
                "chi2_held_out": 9.0,
            },
            {
                "term": "dE",
                "direction": "B1",
                "integrations": 8,
                "channels": 1,
                "chi2_held_out": 1.05,
            },
            {
                "term": "dE",
                "direction": "B1",
                "integrations": 1,
                "channels": 1,
                "chi2_held_out": 7.0,
            },
        ],
    },
}


def test_a_good_peeling_is_clean() -> None:
    found = judge(entry(2.0), entry(1.0), PAIR, SOLVE, fell=0.5)
    assert (found.verdict, found.reasons) == ("clean", ())
    assert found.record["held_out"] == [
        {"direction": "B1", "chi2_held_out": 1.05, "chi2_fitted": 1.01}
    ]
    assert found.record["local_rms_over_thermal"] == 2.0
    assert found.record["chi2_over_noise"] == pytest.approx(1.25)
    assert found.record["fluxes_settled"] and found.record["finished"]
    given = judge(
        entry(2.0), entry(1.0), PAIR, SOLVE | {"intervals": None, "injected": None}, fell=0.5
    )
    assert given.verdict == "clean" and given.record["held_out"] == given.record["injected"] == []


@pytest.mark.parametrize(
    ("after", "pair", "solve", "words"),
    [
        (entry(1.0, left=-6.0), PAIR, SOLVE, "B1: -6e+03 mJy/beam are left at its place, -6 times"),
        (entry(1.0, left=0.01, snr=6.0), PAIR, SOLVE, "of a point of 10 mJy, 6 sigma"),
        (entry(1.0), PAIR | {"flux_ratio_median": 0.9}, SOLVE, "0.9 times the flux they had before (40"),
        (entry(1.0), PAIR, SOLVE | {"chi2": {"direction_independent": 5.0, "solved": 0.8}}, None),
        (
            entry(1.0), PAIR,
            SOLVE | {"chi2": {"direction_independent": 50.0, "solved": 14.0, "noise": 1.03}},
            "the solve leaves 13.6 times the chi-squared of the noise",
        ),
        (
            entry(1.0), PAIR,
            SOLVE | {"injected": [{"flux_jy": 0.005, "suppression": 0.15, "sigma": 0.01}]},
            "an injected source of 5 mJy lost 15 %",
        ),
        (
            entry(1.0), PAIR,
            SOLVE | {"intervals": {**SOLVE["intervals"], "chosen": [{"direction": "B1", "integrations": 1, "channels": 1}]}},
            "have chi-squared 7, those in it 1.01",
        ),
    ],
    ids=["left", "sidelobes", "fluxes", "fitted noise", "wrong models", "injected", "held out"],
)  # fmt: skip
def test_what_is_to_be_said_against_it(after, pair, solve, words) -> None:
    found = judge(entry(2.0), after, pair, solve, fell=0.5)
    assert found.verdict == ("better" if words else "clean")
    assert len(found.reasons) == bool(words)
    assert words is None or words in found.reasons[0]
    # Another round may mend wrong models, and brings fluxes that change to rest.
    unfinished = words is not None and ("the flux they had" in words or "of the noise" in words)
    assert found.record["finished"] != unfinished


def test_a_few_fluxes_say_nothing() -> None:
    wide = {"sources_compared": 4, "flux_ratio_median": 0.9, "flux_ratio_scatter": 0.2}
    assert judge(entry(2.0), entry(1.0), wide, SOLVE, fell=0.5).verdict == "clean"
    few = {"sources_compared": 2, "flux_ratio_median": 0.5, "flux_ratio_scatter": 0.0}
    assert judge(entry(2.0), entry(1.0), few, SOLVE, fell=0.5).record["fluxes_settled"] is None


def test_worse_is_worse() -> None:
    assert judge(entry(2.0), entry(2.01), PAIR, SOLVE, fell=-0.005).verdict == "worse"
    risen = judge(entry(2.0), entry(2.2), PAIR, SOLVE, fell=0.3)
    assert risen.verdict == "worse" and "global rms rose by 10 %" in risen.reasons[0]
