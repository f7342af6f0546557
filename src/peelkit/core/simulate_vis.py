"""Visibilities of a simulated sky, by direct sum.

``V_pq = G_p conj(G_q) sum_s E_p E_q I_s shape_s(u, v) exp(2 pi i (u l + v m + w (n - 1)))`` for each
parallel hand, with real voltage patterns E. Point sources factor into antennas, so that each channel
is one matrix product; extended ones need their shape on each baseline.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from peelkit.core.simulate_array import SPEED_OF_LIGHT
from peelkit.core.simulate_beam import VLA_DISH, Dish, voltage

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]


def antenna_voltages(lm: Floats, centre: Floats, freq_hz: Floats, dish: Dish = VLA_DISH) -> Floats:
    """Voltage pattern of each antenna at each source, shape (chan, antenna, source).

    Parameters
    ----------
    lm : ndarray, shape (source, 2)
        Direction cosines east and north of the pointing centre.
    centre : ndarray, shape (chan, antenna, 2)
        Where the beams point.
    freq_hz : ndarray, shape (chan,)
        Frequency [Hz].
    dish : Dish
        Aperture of every antenna.
    """
    radius = np.hypot(
        lm[None, None, :, 0] - centre[:, :, None, 0], lm[None, None, :, 1] - centre[:, :, None, 1]
    )
    return voltage(radius, freq_hz[:, None, None], dish)


def antenna_phases(uvw_m: Floats, lm: Floats, freq_hz: Floats) -> Complex:
    """Fringe of each antenna on each source, shape (chan, antenna, source)."""
    n_minus_1 = np.sqrt(1 - (lm**2).sum(axis=1)) - 1
    path_m = uvw_m @ np.column_stack([lm, n_minus_1]).T
    return np.asarray(np.exp((2j * np.pi / SPEED_OF_LIGHT) * freq_hz[:, None, None] * path_m))


def gaussian_taper(uv_m: Floats, freq_hz: Floats, shape: Floats) -> Floats:
    """Visibility of a Gaussian of unit flux at its own centre, shape (baseline, chan).

    Parameters
    ----------
    uv_m : ndarray, shape (baseline, 2)
        Baselines [m].
    freq_hz : ndarray, shape (chan,)
        Frequency [Hz].
    shape : ndarray, shape (3,)
        Full widths at half maximum of the axes [rad], and position angle of the major axis [rad],
        from north through east.
    """
    major, minor, angle = shape
    sin_a, cos_a = math.sin(angle), math.cos(angle)
    along = (uv_m[:, 0] * sin_a + uv_m[:, 1] * cos_a) * major
    across = (uv_m[:, 0] * cos_a - uv_m[:, 1] * sin_a) * minor
    metres2 = along**2 + across**2
    scale = -(math.pi**2) / (4 * math.log(2)) * (freq_hz / SPEED_OF_LIGHT) ** 2
    return np.asarray(np.exp(metres2[:, None] * scale))


def visibilities(
    uvw_m: Floats,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp]],
    freq_hz: Floats,
    lm: Floats,
    flux_jy: Floats,
    shapes: Floats,
    patterns: Floats,
) -> Complex:
    """Visibilities of one hand at one time, before gains and noise, shape (baseline, chan) [Jy].

    Parameters
    ----------
    uvw_m : ndarray, shape (antenna, 3)
        Of the antennas, about any common point.
    pairs : tuple of ndarray, shape (baseline,)
        First and second antenna of each baseline.
    freq_hz : ndarray, shape (chan,)
        Frequency [Hz].
    lm : ndarray, shape (source, 2)
        Direction cosines about the phase centre.
    flux_jy : ndarray, shape (source, chan)
        Flux densities without any beam.
    shapes : ndarray, shape (source, 3)
        As for `gaussian_taper`; a point has major axis 0.
    patterns : ndarray, shape (chan, antenna, source)
        Of `antenna_voltages`.
    """
    one, two = pairs
    seen = patterns * antenna_phases(uvw_m, lm, freq_hz)
    point = shapes[:, 0] == 0
    left = seen[:, :, point] * flux_jy.T[:, None, point]
    products = left @ seen[:, :, point].conj().swapaxes(1, 2)
    total = products[:, one, two].T
    for source in np.flatnonzero(~point):
        taper = gaussian_taper(uvw_m[one, :2] - uvw_m[two, :2], freq_hz, shapes[source])
        fringe = (seen[:, one, source] * seen[:, two, source].conj()).T
        total = total + flux_jy[source] * taper * fringe
    return np.asarray(total)
