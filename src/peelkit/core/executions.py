"""Several executions of one project, each imaged by itself: do they agree? Seed 002, tip 14."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np

from peelkit.core import imaging
from peelkit.core import selfcal_session as state
from peelkit.core.first_image import FIRST_NSIGMA
from peelkit.core.measure import measure, shift_pixels
from peelkit.core.selfcal_session import Session
from peelkit.core.verdict import State, position_uncertainty_arcsec
from peelkit.io.image import read_image

log = logging.getLogger(__name__)

# Executions whose sources lie further apart than this many times the uncertainty, or one whose S/N is
# below this fraction of the best's, are named.
SHIFT_SIGMA = 3.0
WORSE = 0.5


def compare(session: Session) -> list[dict[str, Any]]:
    """Image each execution as the first image was, in its mask; where sources are, and how well.

    "Make individual images for each dataset first to assess whether there are any significant
    differences in image quality and/or in source position" (Brogan, Hunter & Fomalont).

    Returns
    -------
    list of dict
        One for each execution; none if there is only one, or nothing in the mask.
    """
    observations = session.found.observations
    wanted = session.options.check_executions
    if wanted is None:
        # A mosaic costs an image of all fields each time.
        wanted = len(session.fields) == 1
    if len(observations) < 2 or not session.mask.any():
        return []
    if not wanted:
        log.info(
            "%d executions: --check-executions images each first, to compare positions and S/N",
            len(observations),
        )
        return []
    first = read_image(session.imaging.image(session.name("first")))
    whole = state.state_of(session, "first")
    found = []
    seen_as = state.target(session, "corrected" if session.options.parang else "data")
    for observation in observations:
        name = session.name(f"execution{observation}")
        spws = ",".join(_channels(session, spw) for spw in session.found.spws_of(observation))
        target = replace(seen_as, spw=spws, observation=str(observation))
        imaging.remove_products(name)
        cleaned = imaging.clean_in_mask(
            session.imager, target, name, session.imaging, session.mask,
            nsigma=FIRST_NSIGMA, like=first,
        )  # fmt: skip
        image = cleaned.image
        # Executions of a mosaic may have different fields.
        seen = session.mask & np.isfinite(image.data)
        if not seen.any():
            found.append(_nothing(observation, str(session.imaging.image(name))))
            continue
        figures = measure(image, seen)
        beam = image.beam or whole.beam
        x, y = shift_pixels(first.data, image.data, seen)
        found.append(
            {
                "observation": observation,
                "peak_jy_beam": figures.peak_jy_beam,
                "rms_jy_beam": figures.rms_jy_beam,
                "dynamic_range": figures.dynamic_range,
                "flux_jy": figures.flux_jy,
                "shift_arcsec": [-x * image.cell_arcsec, y * image.cell_arcsec],
                "position_uncertainty_arcsec": position_uncertainty_arcsec(
                    State(figures, beam, image.cell_arcsec), session.options.limits.transfer_snr
                ),
                "image": str(session.imaging.image(name)),
            }
        )
    return found


def _nothing(observation: int, image: str) -> dict[str, Any]:
    """The record of an execution that does not see the sources."""
    keys = (
        "peak_jy_beam", "rms_jy_beam", "dynamic_range", "flux_jy", "shift_arcsec",
        "position_uncertainty_arcsec",
    )  # fmt: skip
    return {"observation": observation, **dict.fromkeys(keys), "image": image}


def _channels(session: Session, spw: int) -> str:
    ranges = session.info.channels(session.selection).get(spw, [])
    return f"{spw}:" + ";".join(f"{first}~{last}" for first, last in ranges)


def warnings(found: list[dict[str, Any]]) -> list[str]:
    """What to reconcile before a joint self-calibration."""
    result: list[str] = []
    found = [item for item in found if item["dynamic_range"] is not None]
    if not found:
        return result
    best = max(found, key=lambda item: item["dynamic_range"])
    for item in found:
        if item is best:
            continue
        away = math.dist(item["shift_arcsec"], best["shift_arcsec"])
        sigma = math.hypot(item["position_uncertainty_arcsec"], best["position_uncertainty_arcsec"])
        if away > SHIFT_SIGMA * sigma:
            result.append(
                f'execution {item["observation"]}: its sources lie {away:.2g}" from those of execution '
                f"{best['observation']} ({away / sigma:.1f} sigma); the better image as --model brings all to "
                f"its positions: {best['image'].replace('.image', '.model')}"
            )
        if item["dynamic_range"] < WORSE * best["dynamic_range"]:
            result.append(
                f"execution {item['observation']}: S/N {item['dynamic_range']:.0f}, that of execution "
                f"{best['observation']} is {best['dynamic_range']:.0f}; the better alone may make the better first model"
            )
    return result
