"""Figures of an image: rms, peak, flux, and where it is measured. Pure functions on arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io.image import Image

Mask = NDArray[np.bool_]

# The standard deviation of a Gaussian is this many median absolute deviations.
MAD_TO_SIGMA = 1.4826

# Near-field noise is measured between these distances from the mask [beams]: outside the source's
# own wings, within the first sidelobes (auto_selfcal's near field, science of features.md 1.3).
NEAR_BEAMS = (1.0, 10.0)

# A flux that both images believe changed if it did by so many times its uncertainty.
HELD_SIGMA = 3.0

# A source whose flux is so many times its peak [Jy/beam] is judged by its flux.
EXTENDED = 2.0


def robust_rms(values: NDArray[Any]) -> float:
    """Robust rms, ``1.4826 * median(|x - median(x)|)``, of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return math.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(finite - np.median(finite))))


def plain_rms(values: NDArray[Any]) -> float:
    """Plain standard deviation of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.std(finite)) if finite.size else math.nan


def beams_away(mask: Mask, image: Image) -> NDArray[np.float64]:
    """Distance from the nearest masked pixel [beams of the image]; infinite if none is masked.

    ``mask`` may be a part of the image. An image without a beam is taken to have one of a pixel.
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return np.full(mask.shape, np.inf)
    major = image.beam.major_arcsec / image.cell_arcsec if image.beam else 1.0
    return np.asarray(distance_transform_edt(~mask, sampling=image.stretch[::-1]) / major)


def between(away: NDArray[np.float64], beams: tuple[float, float]) -> Mask:
    """Pixels of the ring between two distances [beams], of `beams_away`."""
    return np.asarray((away > beams[0]) & (away <= beams[1]))


def near_field(mask: Mask, image: Image) -> Mask:
    """Pixels of the near field: `NEAR_BEAMS` away from the nearest masked pixel."""
    return between(beams_away(mask, image), NEAR_BEAMS)


def refined_peak(data: NDArray[Any]) -> tuple[float, float, float]:
    """Position (x, y) [pixel] and value of the maximum, refined by a parabola along each axis.

    Raises
    ------
    ValueError
        If no pixel is finite.
    """
    y, x = np.unravel_index(int(np.nanargmax(data)), data.shape)
    position = []
    for axis, index in ((1, int(x)), (0, int(y))):
        offset = 0.0
        if 0 < index < data.shape[axis] - 1:
            line = (
                data[int(y), index - 1 : index + 2] if axis else data[index - 1 : index + 2, int(x)]
            )
            low, top, high = (float(value) for value in line)
            curvature = low - 2 * top + high
            if math.isfinite(curvature) and curvature < 0:
                offset = 0.5 * (low - high) / curvature
        position.append(index + offset)
    return position[0], position[1], float(data[y, x])


@dataclass(frozen=True)
class Figures:
    """What one image measures, with a mask that says where its sources are.

    ``rms_near_jy_beam`` is the robust rms of the near field; ``flux_jy`` the integral of the mask,
    ``peak_island_flux_jy`` that of its part that holds the peak, ``mask_beams`` its area. NaN where there is
    nothing to measure.
    """

    peak_jy_beam: float
    minimum_jy_beam: float
    rms_jy_beam: float
    rms_plain_jy_beam: float
    rms_near_jy_beam: float
    flux_jy: float
    peak_x: float
    peak_y: float
    peak_island_flux_jy: float = math.nan
    mask_beams: float = math.nan

    @property
    def signal_jy(self) -> float:
        """What a baseline sees of the sources, rms over all [Jy]: the peak, or of extended ones more.

        With all flux F spread evenly over a mask of n beams it would be ``F / sqrt(n)`` (Parseval); where it is
        not even, more. Noise adds nothing to it on average.
        """
        spread = self.flux_jy / math.sqrt(self.mask_beams) if self.mask_beams > 1 else math.nan
        return max(self.peak_jy_beam, spread) if spread > 0 else self.peak_jy_beam

    @property
    def flux_snr(self) -> float:
        """Integrated flux [Jy] over robust rms [Jy/beam]: what counts for extended emission (seed 002, tip 6)."""
        return self.flux_jy / self.rms_jy_beam if self.rms_jy_beam > 0 else math.nan

    @property
    def extended(self) -> bool:
        """The brightest source has `EXTENDED` times the flux of its peak, or more."""
        return self.peak_island_flux_jy >= EXTENDED * self.peak_jy_beam

    @property
    def dynamic_range(self) -> float:
        """Peak over robust rms."""
        return self.peak_jy_beam / self.rms_jy_beam if self.rms_jy_beam > 0 else math.nan

    @property
    def dynamic_range_near(self) -> float:
        """Peak over the robust rms of the near field."""
        return self.peak_jy_beam / self.rms_near_jy_beam if self.rms_near_jy_beam > 0 else math.nan


def shift_pixels(one: NDArray[Any], two: NDArray[Any], mask: Mask) -> tuple[float, float]:
    """How far (x, y) [pixel] the sources in ``mask`` moved from ``one`` to ``two``, same shape.

    The maximum of their cross-correlation: it follows all of the emission, where the highest pixel of
    an extended source may change although nothing has moved.
    """
    planes = [np.fft.rfft2(np.where(mask, np.nan_to_num(plane), 0.0)) for plane in (one, two)]
    correlation = np.fft.fftshift(np.fft.irfft2(np.conj(planes[0]) * planes[1], s=one.shape))
    x, y, _ = refined_peak(correlation)
    return x - one.shape[1] // 2, y - one.shape[0] // 2


def measure(image: Image, mask: Mask) -> Figures:
    """Measure ``image`` with the sources in ``mask`` (shape of the data, True on sources)."""
    data = image.data
    outside = data[~mask]
    x, y, peak = refined_peak(np.where(mask, data, np.nan) if mask.any() else data)
    inside = data[mask]
    return Figures(
        peak_jy_beam=peak,
        minimum_jy_beam=float(np.nanmin(data)),
        rms_jy_beam=robust_rms(outside),
        rms_plain_jy_beam=plain_rms(outside),
        rms_near_jy_beam=robust_rms(data[near_field(mask, image)]),
        flux_jy=float(np.nansum(inside) / image.beam_pixels) if mask.any() else math.nan,
        peak_x=x,
        peak_y=y,
        peak_island_flux_jy=_island_flux(data, mask, x, y) / image.beam_pixels
        if mask.any()
        else math.nan,
        mask_beams=float(np.isfinite(inside).sum() / image.beam_pixels) if mask.any() else math.nan,
    )


@dataclass(frozen=True)
class Held:
    """Flux of the same pixels before and after a round [Jy], and its uncertainty from the artefacts before."""

    before_jy: float
    after_jy: float
    sigma_jy: float

    def within(self, low: float, high: float) -> bool:
        """Whether the flux kept to a range of factors, as far as artefacts let us know; yes if there is none."""
        margin = HELD_SIGMA * self.sigma_jy
        if not self.before_jy > 0:
            return True
        return low * self.before_jy - margin <= self.after_jy <= high * self.before_jy + margin


def flux_held(before: Image, after: Image, mask: Mask) -> tuple[Held, Held]:
    """Flux that both images believe: of all sources in ``mask``, and of all but the brightest.

    The errors that a round takes away scatter flux with both signs: what is no higher than the deepest
    hole of either image may be theirs, and a mask that was drawn on such an image has their positive
    half (simulated: 4.7 Jy in the mask of 3.2 Jy).
    """
    from scipy.ndimage import label

    floor = max(-float(np.nanmin(image.data)) for image in (before, after))
    believed = mask & (before.data > floor) & (after.data > floor)
    parts, _ = label(mask)
    inside = np.where(mask, before.data, -np.inf)
    brightest = parts == parts[np.unravel_index(int(np.nanargmax(inside)), mask.shape)]
    away = before.data[near_field(mask, before)]
    rms = plain_rms(away if away.size else before.data[~mask])
    found = []
    for where in (believed, believed & ~brightest):
        beams = int(where.sum()) / before.beam_pixels
        one, two = (float(i.data[where].sum()) / i.beam_pixels for i in (before, after))
        found.append(Held(one, two, math.sqrt(beams) * rms if beams else 0.0))
    return found[0], found[1]


def _island_flux(data: NDArray[Any], mask: Mask, x: float, y: float) -> float:
    """Sum of the connected part of the mask that holds a pixel."""
    from scipy.ndimage import label

    parts, _ = label(mask)
    here = parts[round(y), round(x)]
    return float(np.nansum(data[parts == here])) if here else math.nan
