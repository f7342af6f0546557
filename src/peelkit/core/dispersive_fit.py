"""Delays and TEC of all antennas of an interval together: search, Newton's method, errors. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dispersive import Cross, Design, inverse, solve
from peelkit.core.dispersive_search import LEAST_SNR, search, turned

# Fraction of the likelihood's gain, and steps, at which Newton's method ends.
CONVERGED = 1e-9
STEPS = 50


@dataclass(frozen=True)
class Fit:
    """The antennas of one interval.

    Parameters
    ----------
    x, error : ndarray, shape (antenna, parameter)
        Parameters (`UNITS`), 0 for the reference; and their standard errors, NaN where failed.
    snr : ndarray, shape (antenna, hand)
        Amplitude of all data of the antenna with its phases taken out, over the noise of that sum; of
        one phase it is 1 / its error, as gaincal's S/N is.
    failed : ndarray of bool, shape (antenna, hand)
        Without data, or below the least S/N.
    reference : int
        Antenna that the others are referred to; -1 if none has data.
    likelihood : float
        ``F`` reached.
    """

    x: NDArray[np.float64]
    error: NDArray[np.float64]
    snr: NDArray[np.float64]
    failed: NDArray[np.bool_]
    reference: int
    likelihood: float


def fit(cross: Cross, design: Design, refants: list[int], *, minsnr: float, n_antenna: int) -> Fit:
    """Fit the antennas of one interval.

    Parameters
    ----------
    refants : list of int
        Antennas to refer to: the first with data.
    minsnr : float
        Least S/N; `LEAST_SNR` if that is more.
    """
    n_hand = cross.model.shape[1]
    information = np.zeros((n_antenna, n_hand))
    np.add.at(information, cross.antenna1, cross.model)
    np.add.at(information, cross.antenna2, cross.model)
    live = information.sum(axis=1) > 0
    if not live.any():
        nothing = np.zeros((n_antenna, len(design.names)))
        none = np.zeros((n_antenna, n_hand))
        return Fit(nothing, nothing * math.nan, none, none == 0, -1, 0.0)
    usable = [antenna for antenna in refants if live[antenna]]
    reference = usable[0] if usable else int(np.argmax(information.sum(axis=1)))
    least = max(minsnr, LEAST_SNR)
    best: Fit | None = None
    # From the reference antenna's baselines, as a fringe search; where these are too faint, from all
    # baselines as they are: data that made an image are not incoherent.
    for known in (np.arange(n_antenna) == reference, live):
        found = _refined(cross, design, search(cross, design, known & live, reference, live), reference, least)  # fmt: skip
        while design.needs_turns:
            again = turned(cross, design, found.x, reference)
            better = _refined(cross, design, again, reference, least)
            if better.likelihood <= found.likelihood * (1 + CONVERGED):
                break
            found = better
        if best is None or found.likelihood > best.likelihood:
            best = found
        if not best.failed[live].any():
            break
    assert best is not None
    return best


def _refined(
    cross: Cross, design: Design, x: NDArray[np.float64], reference: int, least: float
) -> Fit:
    """Newton's method for all antennas together, then S/N and errors."""
    n_antenna, n_par = x.shape
    free = np.flatnonzero(np.arange(n_antenna) != reference)
    places = (free[:, None] * n_par + np.arange(n_par)).ravel()
    x = x.copy()
    damping = 1e-3
    value, slope, bend, limit = _derivatives(cross, design, x)
    for _ in range(STEPS):
        step = np.zeros(x.size)
        matrix = bend[np.ix_(places, places)]
        matrix = matrix + damping * np.diag(limit.ravel()[places])
        step[places] = solve(matrix, slope.ravel()[places])
        trial = x + step.reshape(x.shape)
        there = _derivatives(cross, design, trial)
        if there[0] > value:
            gained = there[0] - value
            x, (value, slope, bend, limit) = trial, there
            damping = max(damping / 10, 1e-9)
            if gained < CONVERGED * abs(value):
                break
        elif damping > 1e3:
            break
        else:
            damping *= 10
    return _judged(cross, design, x, reference, least, value, bend, places)


def _derivatives(
    cross: Cross, design: Design, x: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """``F``, its gradient, minus its second derivatives, and the diagonal they would have without noise."""
    n_antenna, n_par = x.shape
    left = _residual_products(cross, design, x)
    columns = design.columns.reshape(n_par, -1)
    flat = left.reshape(left.shape[0], -1)
    one, two = cross.antenna1, cross.antenna2
    slopes = flat.imag @ columns.T
    pairs = (columns[:, None] * columns[None]).reshape(n_par * n_par, -1)
    bends = (flat.real @ pairs.T).reshape(-1, n_par, n_par)
    limits = np.abs(flat) @ (columns**2).T
    slope, limit = np.zeros((n_antenna, n_par)), np.zeros((n_antenna, n_par))
    bend = np.zeros((n_antenna, n_antenna, n_par, n_par))
    np.add.at(slope, one, slopes)
    np.add.at(slope, two, -slopes)
    np.add.at(limit, one, limits)
    np.add.at(limit, two, limits)
    np.add.at(bend, (one, one), bends)
    np.add.at(bend, (two, two), bends)
    np.add.at(bend, (one, two), -bends)
    np.add.at(bend, (two, one), -bends)
    size = n_antenna * n_par
    return float(flat.real.sum()), slope, bend.transpose(0, 2, 1, 3).reshape(size, size), limit


def _residual_products(
    cross: Cross, design: Design, x: NDArray[np.float64]
) -> NDArray[np.complex128]:
    phasor = np.exp(1j * design.phases(x))
    return np.asarray(
        cross.product * phasor[cross.antenna1].conj() * phasor[cross.antenna2], dtype=np.complex128
    )


def _judged(
    cross: Cross,
    design: Design,
    x: NDArray[np.float64],
    reference: int,
    least: float,
    value: float,
    bend: NDArray[np.float64],
    places: NDArray[np.int64],
) -> Fit:
    """S/N of each antenna and hand, and the errors of its parameters."""
    n_antenna, n_hand = x.shape[0], cross.model.shape[1]
    height = _residual_products(cross, design, x).real.sum(axis=1)
    # The noise is what is left of the data; an amplitude for each baseline, because unit gains leave
    # the amplitudes of uncalibrated data in it.
    amplitude = np.maximum(height, 0) / np.where(cross.model > 0, cross.model, 1.0)
    left = float((cross.data - amplitude**2 * cross.model).sum())
    free = 2 * cross.samples.sum() - np.count_nonzero(cross.samples)
    noise = math.sqrt(max(left, 0.0) / max(free, 1.0))
    signal, power = np.zeros((n_antenna, n_hand)), np.zeros((n_antenna, n_hand))
    for antennas in (cross.antenna1, cross.antenna2):
        np.add.at(signal, antennas, height)
        np.add.at(power, antennas, cross.model)
    known = power > 0
    # Data without noise, which tests have, are as good as single precision.
    snr = signal / np.where(known, np.sqrt(np.where(known, power, 1.0)) * max(noise, 1e-6), 1.0)
    failed = ~known | (snr < least)
    error = np.zeros(x.size)
    variance = np.diag(inverse(bend[np.ix_(places, places)]))
    # A curvature of the wrong sign is no maximum.
    error[places] = np.sqrt(np.where(variance > 0, variance, np.nan)) * noise
    errors = error.reshape(x.shape)
    errors[failed.all(axis=1)] = np.nan
    return Fit(x, errors, np.where(known, snr, 0.0), failed, reference, value)
