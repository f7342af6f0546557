"""Which islands are bright sources worth peeling, and which are only their artefacts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from peelkit.core.islands import Island, Labels, Mask, beam_major_pixels
from peelkit.core.measure import NEAR_BEAMS, beams_away, between, robust_rms
from peelkit.io.image import Image

# An island is a source's artefact only if it is weaker than this share of it. Errors that make
# sidelobes of a third of the peak leave no image to make a mask of.
MOST_SHARE = 1 / 3
# The mirror negative is at least this share of the island's peak. Pure phase errors make it the
# same; noise, and some amplitude error, may take a part.
MIRROR_SHARE = 0.7
# Artefact sidelobes are taken to reach so many times what the rms around the source tells.
PEAK_TO_RMS = 3.0
# Below this excess over the noise nothing around a source is put down to its sidelobes.
LEAST_EXCESS = 0.3
# Where artefacts fill the image, the rms near a source is hardly higher than elsewhere. They are then
# known by this correlation with their mirror image, and by negatives of so many times the rms, which
# noise has not in any image.
FILLING_RATIO = 2.0
FILLING_PARITY = 0.3
FILLING_NEGATIVE = 6.0
# Errors of all kinds together have no parity. They are known by a negative near the source of so many times
# the rms there: noise, whatever its level, has 3.5 on the thousand beams near a source; and the artefacts of
# another source, that far from it, are as noise is.
NEAR_NEGATIVE = 5.0
# Near a source in an image that its artefacts fill [beams from its mask]: they fall off with distance.
INNER_BEAMS = (1.0, 4.0)
# So many of the brightest sources are considered as the makers of artefacts.
MOST_MAKERS = 20


@dataclass(frozen=True)
class Surroundings:
    """What is around an island: from 1 to 10 beams away, outside all islands.

    Parameters
    ----------
    rms_jy_beam : float
        Robust rms [Jy/beam]; NaN without pixels.
    inner_rms_jy_beam : float
        The same out to `INNER_BEAMS` only, where artefacts of a bright source are strongest [Jy/beam].
    parity : float
        Correlation of the image with its point mirror image about the peak: -1 for antisymmetric
        (phase) errors, 1 for symmetric (amplitude) errors, 0 for noise. 0 if it is not known.
    beams : float
        Number of beams that this is measured on.
    lowest_jy_beam : float
        The deepest negative [Jy/beam].
    """

    rms_jy_beam: float
    inner_rms_jy_beam: float
    parity: float
    beams: float
    lowest_jy_beam: float

    @property
    def highest_rms(self) -> float:
        """The larger rms [Jy/beam]: where artefacts fill the image, only the inner one stands out."""
        known = [rms for rms in (self.rms_jy_beam, self.inner_rms_jy_beam) if math.isfinite(rms)]
        return max(known, default=math.nan)


@dataclass(frozen=True)
class Verdict:
    """What an island is taken for.

    Parameters
    ----------
    bright : bool
        Bright, with artefacts around it.
    rms_ratio : float
        Rms around it over the global rms: `Surroundings.highest_rms`; NaN if not measured (only strong ones are).
    parity : float
        Of its `Surroundings`; NaN if not measured.
    artefact_of : int
        Number of the source that it is an artefact of; 0 for none.
    reason : str
        Why; empty if it is none.
    """

    bright: bool = False
    rms_ratio: float = math.nan
    parity: float = math.nan
    artefact_of: int = 0
    reason: str = ""

    @property
    def artefact(self) -> bool:
        """Whether it looks like an artefact."""
        return self.artefact_of > 0


def surroundings(image: Image, island: Island, labels: Labels, box: Any = None) -> Surroundings:
    """Measure the near field of an island; ``box`` is its pair of slices, if that is known."""
    data = np.asarray(image.data, dtype=np.float64)
    major = beam_major_pixels(image)
    rows, columns = box or ndimage.find_objects(labels)[island.number - 1]
    margin = math.ceil(NEAR_BEAMS[1] * major / min(image.stretch)) + 1
    top, left = max(0, rows.start - margin), max(0, columns.start - margin)
    window = (slice(top, rows.stop + margin), slice(left, columns.stop + margin))
    away = beams_away(labels[window] == island.number, image)
    empty = (labels[window] == 0) & np.isfinite(data[window])
    near, inner = (between(away, beams) & empty for beams in (NEAR_BEAMS, INNER_BEAMS))
    values = data[window][near]
    y, x = np.nonzero(near)
    other_y = np.rint(2 * (island.y - top) - y).astype(int)
    other_x = np.rint(2 * (island.x - left) - x).astype(int)
    inside = (other_y >= 0) & (other_y < near.shape[0]) & (other_x >= 0) & (other_x < near.shape[1])
    inside[inside] = near[other_y[inside], other_x[inside]]
    beams = float(inside.sum() / image.beam_pixels)
    parity = 0.0
    if beams >= 10:
        here, there = values[inside], data[window][other_y[inside], other_x[inside]]
        # Clipped, so that one strong sidelobe does not decide.
        limit = 5 * robust_rms(here)
        here, there = np.clip(here, -limit, limit), np.clip(there, -limit, limit)
        power = float(np.mean(here**2))
        parity = float(np.mean(here * there)) / power if power > 0 else 0.0
    inner_rms = robust_rms(data[window][inner])
    lowest = float(values.min()) if values.size else 0.0
    return Surroundings(robust_rms(values), inner_rms, parity, beams, lowest)


def classify(
    image: Image,
    islands: Sequence[Island],
    labels: Labels,
    *,
    global_rms: float,
    quiet_rms: float,
    bright_flux_jy: float,
    artefact_ratio: float,
    psf: Image | None = None,
) -> list[Verdict]:
    """Tell bright sources and artefacts from the rest.

    *Bright* is a source above ``bright_flux_jy`` (peak or flux) around which the robust rms is
    ``artefact_ratio`` times the global one or more: peeling it gains something. Or artefacts fill the
    image, so that the global rms is theirs. Then either what is around the source correlates with its
    mirror image, and the image has negatives that no noise makes; or there are such negatives near it, and
    the rms there is ``artefact_ratio`` times that of the quietest parts of the image.

    *Artefact*, mirror negative: a gain phase error phi on a baseline changes a source's fringe
    ``cos(w)`` to ``cos(w + phi) ~ cos(w) - phi sin(w)``, and the sine's transform is antisymmetric
    about the source. So an island is marked if, point mirrored about a source three times as bright
    or more, there is a negative of `MIRROR_SHARE` of its peak within half a beam. No source makes
    that.

    *Artefact*, sidelobe pattern (needs the PSF): gain amplitude errors, and flux that was not
    cleaned, repeat the PSF around the source; errors of single antennas repeat parts of it, with
    the same envelope. With B(x) the largest |PSF| within a beam of the offset x, an island passes
    for a sidelobe if::

        peak <= 3 * epsilon * B(x) * source peak
        epsilon = min(1, sqrt(excess) * rms around source / (rms of PSF there * source peak))

    epsilon is the calibration error that the image itself shows: what is around the source in
    units of its sidelobes. Only the part of the rms that is not noise counts (excess): what is
    above the global rms, ``1 - (global / local)**2``, or what the parity of the surroundings shows
    (noise has none), whichever is more. Where there is no such excess, nothing is marked: a faint
    source may well be on a sidelobe of a well calibrated one.

    The brightest island is never an artefact, and artefacts make no artefacts.

    Parameters
    ----------
    image : Image
        In Jy/beam, with a beam.
    islands : sequence of Island
        In the order of their numbers, that is by descending peak.
    labels : ndarray of int, shape (ny, nx)
        Their numbers on the pixels.
    global_rms : float
        Robust rms outside all islands [Jy/beam].
    quiet_rms : float
        Noise of the quietest parts of the image [Jy/beam].
    bright_flux_jy, artefact_ratio : float
        See above.
    psf : Image, optional
        With the pixels of the image; its own size may differ.

    Returns
    -------
    list of Verdict
        One for each island.
    """
    verdicts: list[Verdict] = []
    makers: list[tuple[Island, Surroundings | None]] = []
    boxes = ndimage.find_objects(labels)
    lobes = _Lobes(psf, image) if psf is not None else None
    deep = float(np.nanmin(image.data)) < -FILLING_NEGATIVE * global_rms
    for island in islands:
        source, reason = 0, ""
        for maker, around in makers:
            if island.peak_jy_beam > MOST_SHARE * maker.peak_jy_beam:
                continue
            if _has_mirror(image, island, maker):
                source, reason = maker.number, f"mirror negative about island {maker.number}"
            elif lobes and around and _on_lobes(island, maker, around, lobes, global_rms):
                source, reason = maker.number, f"on the sidelobes of island {maker.number}"
            if source:
                break
        # Artefacts are weaker than their maker, so no later island needs a weak one's surroundings.
        strong = max(island.peak_jy_beam, island.flux_jy) >= bright_flux_jy
        around = None
        maker_now = not source and len(makers) < MOST_MAKERS and island.peak_jy_beam > 0
        if strong or (lobes and maker_now):
            around = surroundings(image, island, labels, boxes[island.number - 1])
        if maker_now:
            makers.append((island, around))
        ratio = parity = math.nan
        if strong and around:
            ratio, parity = around.highest_rms / global_rms, around.parity
        fills = (
            around is not None
            and ratio < FILLING_RATIO
            and (
                (deep and _significant_parity(around) >= FILLING_PARITY)
                or (
                    around.lowest_jy_beam < -NEAR_NEGATIVE * around.highest_rms
                    and around.highest_rms >= artefact_ratio * quiet_rms
                )
            )
        )
        bright = strong and not source and (ratio >= artefact_ratio or fills)
        verdicts.append(Verdict(bool(bright), ratio, parity, source, reason))
    return verdicts


def _has_mirror(image: Image, island: Island, maker: Island) -> bool:
    """Whether a negative as strong is at the point mirror image about ``maker``."""
    radius = max(1.0, 0.5 * beam_major_pixels(image))
    x, y = 2 * maker.x - island.x, 2 * maker.y - island.y
    patch = _patch(np.asarray(image.data), x, y, radius, image)
    lowest = float(np.min(patch)) if patch.size else 0.0
    return -lowest >= MIRROR_SHARE * island.peak_jy_beam


def _patch(data: NDArray[Any], x: float, y: float, radius: float, image: Image) -> NDArray[Any]:
    """Finite values within ``radius`` [cell] of pixel (x, y); the pixels are those of ``image``."""
    wide, high = image.stretch
    y0, y1 = max(0, math.ceil(y - radius / high)), math.floor(y + radius / high) + 1
    x0, x1 = max(0, math.ceil(x - radius / wide)), math.floor(x + radius / wide) + 1
    if y1 <= y0 or x1 <= x0:
        return np.empty(0)
    box = data[y0:y1, x0:x1]
    rows, columns = np.mgrid[y0 : y0 + box.shape[0], x0 : x0 + box.shape[1]]
    return np.asarray(box[(image.apart(columns - x, rows - y) <= radius) & np.isfinite(box)])


class _Lobes:
    """The sidelobes of a PSF."""

    def __init__(self, psf: Image, image: Image) -> None:
        self._data = np.abs(np.nan_to_num(np.asarray(psf.data, dtype=np.float64)))
        y, x = np.unravel_index(int(np.argmax(self._data)), self._data.shape)
        self._x, self._y = float(x), float(y)
        self._data /= self._data[y, x]
        self._radius, self._image = beam_major_pixels(image), image
        rows, columns = np.ogrid[: self._data.shape[0], : self._data.shape[1]]
        beams = image.apart(columns - x, rows - y) / self._radius
        self._data[beams <= NEAR_BEAMS[0]] = 0  # the main lobe is the source itself
        ring = (beams > NEAR_BEAMS[0]) & (beams <= NEAR_BEAMS[1])
        # As the rms of the image is made, so that a few strong lobes do not decide.
        self.rms = robust_rms(np.concatenate([self._data[ring], -self._data[ring]]))

    def near(self, x: float, y: float) -> float:
        """Return the largest ``|PSF|`` within a beam of this offset from its peak; 0 outside it."""
        patch = _patch(self._data, self._x + x, self._y + y, self._radius, self._image)
        return float(patch.max()) if patch.size else 0.0


def _on_lobes(
    island: Island, maker: Island, around: Surroundings, lobes: _Lobes, global_rms: float
) -> bool:
    offset = island.x - maker.x, island.y - maker.y
    if not lobes.rms > 0 or not around.rms_jy_beam > 0:
        return False
    excess = max(1 - (global_rms / around.rms_jy_beam) ** 2, _significant_parity(around))
    if excess < LEAST_EXCESS:
        return False
    error = math.sqrt(excess) * around.rms_jy_beam / (lobes.rms * maker.peak_jy_beam)
    allowed = PEAK_TO_RMS * min(1.0, error) * lobes.near(*offset) * maker.peak_jy_beam
    return island.peak_jy_beam <= allowed


def _significant_parity(around: Surroundings) -> float:
    """Size of the parity, where noise does not make it; that scatters by 1 / sqrt(beams)."""
    size = abs(around.parity)
    return size if size * math.sqrt(around.beams) > 4 else 0.0


def sources_mask(labels: Labels, numbers: Sequence[int]) -> Mask:
    """Pixels of the islands with these numbers."""
    keep = np.zeros(int(labels.max()) + 1, dtype=bool)
    keep[list(numbers)] = True
    keep[0] = False
    return np.asarray(keep[labels])
