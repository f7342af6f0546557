"""Weak sources that are left out of the model: if they are real, self-calibration raises their S/N.

"Not including such emission in the model is an excellent way to check the reality of weak emission. If it
is real emission, then its S/N should improve, while emission due to calibration artifacts and sidelobes
should diminish" (Brogan, Hunter & Fomalont, section 2.3.4, seed 002).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from peelkit.core import selfcal_session as state
from peelkit.core.selfcal_session import Session
from peelkit.io.image import read_image
from peelkit.io.region import read_regions, region_mask

# A change of S/N within the noise of the peak says nothing.
NOISE_SNR = 1.0

# What ends below this is not there.
DETECTED_SNR = 4.0

# An artefact loses at least this share of its peak with its cause.
ARTEFACT_LOSS = 0.3

# A source above this share of the image's peak is not weak: a model without it is wrong, and the solves with it.
WEAK = 0.03


def check(session: Session) -> list[dict[str, Any]]:
    """S/N of each region that was left out, before and after; and what that says."""
    path: Path | None = session.options.leave_out
    if path is None:
        return []
    images = [
        read_image(session.imaging.image(session.name(name)))
        for name in ("first", session.best.imagename)
    ]
    noise = [
        state.state_of(session, name).figures.rms_jy_beam
        for name in ("first", session.best.imagename)
    ]
    found = []
    for number, region in enumerate(read_regions(path, images[0]), start=1):
        inside = region_mask(region, images[0])
        peaks = [float(np.nanmax(np.where(inside, image.data, -np.inf))) for image in images]
        before, after = (peak / rms for peak, rms in zip(peaks, noise, strict=True))
        found.append(
            {
                "label": region.label or str(number),
                "peak_first_jy_beam": peaks[0],
                "peak_final_jy_beam": peaks[1],
                "snr_first": before,
                "snr_final": after,
                "verdict": verdict(before, after, peaks[1] / peaks[0])
                if session.best.tables
                else "no round helped",
            }
        )
    return found


def warnings(session: Session, found: list[dict[str, Any]]) -> list[str]:
    """Sources that are too strong to be left out."""
    top = state.state_of(session, session.best.imagename).figures.peak_jy_beam
    return [
        f"--leave-out {item['label']}: with {100 * item['peak_final_jy_beam'] / top:.0f} % of the peak it is not weak: a "
        "model without it is wrong, and so are gains that are solved with it; undo, and leave out weak sources only"
        for item in found
        if item["verdict"] != "artefact" and item["peak_final_jy_beam"] > WEAK * top
    ]


def verdict(before: float, after: float, peak_ratio: float) -> str:
    """``real``, ``artefact`` or ``unclear``, of the S/N of a source that no solve knew of.

    ``peak_ratio`` is its peak after over that before: an artefact fades, where a real source may lose S/N
    to the noise that a model without it makes.
    """
    if not (math.isfinite(before) and math.isfinite(after)):
        return "unclear"
    if after >= DETECTED_SNR and after >= before + NOISE_SNR:
        return "real"
    if after <= before - NOISE_SNR and peak_ratio < 1 - ARTEFACT_LOSS:
        return "artefact"
    return "unclear"
