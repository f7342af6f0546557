"""Delays of antennas from the cross-spectra of their baselines: a fringe search. Pure.

``sum w V conj(M)`` of a baseline turns with ``delay_p - delay_q`` over the channels, wherever the sources of
the model are. The power of its Fourier transform has its peak there whatever the phase is, so that bins of
time and baselines are stacked as powers (Schwab & Cotton 1983, AJ 88, 688): first those to the reference
antenna, then those to every antenna whose delay is known by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Least S/N of a peak that is believed. Noise alone reached 2.9 in 4000 searches of 4 and of 64 channels.
LEAST_SNR = 5.0

# Least channels: with fewer a peak cannot be told from its neighbours.
LEAST_CHANNELS = 4

# Lags for each channel, so that a parabola through three of them has its top at the peak.
PADDING = 8

# Lags within this many resolution elements (1 / bandwidth) of a peak are its own.
OWN_LAGS = 1.5

# A peak is none if another lag has more than this share of its power: a spike of any height, or channels
# flagged in a regular pattern. With three quarters of the band flagged the peak itself still has 0.6.
AMBIGUOUS = 0.8

# Rounds of the stack; antennas come in through those of the round before.
ROUNDS = 4


@dataclass(frozen=True)
class Spectra:
    """Sums of one spw over a scan, in bins of time.

    Parameters
    ----------
    cross : ndarray of complex, shape (bin, antenna, antenna, chan, hand)
        ``sum w V conj(M)`` of antenna1 and antenna2; the other order is 0.
    power : ndarray, shape (bin, antenna, antenna, hand)
        ``sum w |M|^2`` of the same, over all channels.
    """

    cross: NDArray[np.complex64]
    power: NDArray[np.float64]

    @classmethod
    def empty(cls, n_bin: int, n_antenna: int, n_chan: int, n_hand: int) -> Spectra:
        """Nothing yet."""
        square = (n_bin, n_antenna, n_antenna)
        return cls(
            np.zeros((*square, n_chan, n_hand), dtype=np.complex64), np.zeros((*square, n_hand))
        )

    def add(
        self,
        bins: NDArray[np.int64],
        antenna1: NDArray[np.int64],
        antenna2: NDArray[np.int64],
        product: NDArray[np.complex128],
        power: NDArray[np.float64],
    ) -> None:
        """Add rows: ``w V conj(M)`` (row, chan, hand), and ``w |M|^2`` (row, hand)."""
        if not bins.size:
            return
        n = self.cross.shape[1]
        place = (bins * n + antenna1) * n + antenna2
        order = np.argsort(place, kind="stable")
        where, first = np.unique(place[order], return_index=True)
        for total, rows in ((self.cross, product), (self.power, power)):
            flat = total.reshape(-1, *total.shape[3:])
            flat[where] += np.add.reduceat(rows[order], first, axis=0)


@dataclass(frozen=True)
class Delays:
    """What a search found; shapes (antenna, hand).

    Parameters
    ----------
    delay_s : ndarray
        With respect to the reference antenna [s]; 0 where it is not believed.
    snr : ndarray
        Of the peak, by `peak`; infinite for the antenna that the search began with, 0 without data.
    believed, live : ndarray of bool
        Of `LEAST_SNR` at least; with data.
    """

    delay_s: NDArray[np.float64]
    snr: NDArray[np.float64]
    believed: NDArray[np.bool_]
    live: NDArray[np.bool_]

    def common(self) -> Delays:
        """The mean of the hands that are believed for both: what is left to each is least."""
        count = self.believed.sum(axis=1, keepdims=True)
        mean = self.delay_s.sum(axis=1, keepdims=True) / np.maximum(count, 1)
        n_hand = self.delay_s.shape[1]
        both = np.repeat(self.believed.any(axis=1, keepdims=True), n_hand, axis=1)
        return Delays(np.repeat(mean, n_hand, axis=1), self.snr, both, self.live)


def search(spectra: Spectra, width_hz: float, reference: int) -> Delays:
    """Search the delay of each antenna and hand.

    Parameters
    ----------
    spectra : Spectra
        Of one scan and spw.
    width_hz : float
        From one channel to the next [Hz]; negative where frequencies descend.
    reference : int
        Antenna whose delay is 0. Where it has no data or leads nowhere, the search begins with the
        antenna that has the most information.
    """
    n_antenna, n_hand = spectra.power.shape[1], spectra.power.shape[3]
    turns, snr = np.zeros((n_antenna, n_hand)), np.zeros((n_antenna, n_hand))
    believed = np.zeros((n_antenna, n_hand), dtype=bool)
    live = np.zeros((n_antenna, n_hand), dtype=bool)
    for hand in range(n_hand):
        information = spectra.power[..., hand].sum(axis=0)
        per_antenna = (information + information.T).sum(axis=1)
        live[:, hand] = per_antenna > 0
        found = _from(spectra, hand, reference, live[:, hand])
        if not found[2][live[:, hand]].all():
            other = _from(spectra, hand, int(np.argmax(per_antenna)), live[:, hand])
            found = other if other[2].sum() > found[2].sum() else found
        turns[:, hand], snr[:, hand], believed[:, hand] = found
        turns[:, hand] = _wrapped(turns[:, hand] - turns[reference, hand])
    # Only what differs from another antenna's is known: one alone knows nothing.
    believed &= believed.sum(axis=0) > 1
    return Delays(np.where(believed, turns, 0.0) / width_hz, snr, believed, live)


def _from(
    spectra: Spectra, hand: int, seed: int, live: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Turns per channel, S/N and whether it is believed of each antenna, beginning with ``seed``."""
    turns, snr = np.zeros(live.size), np.zeros(live.size)
    believed = np.zeros(live.size, dtype=bool)
    if not live[seed]:
        return turns, snr, believed
    believed[seed] = True
    for number in range(ROUNDS):
        known = believed.copy()
        for antenna in np.flatnonzero(live):
            if antenna == seed:
                continue
            others = np.flatnonzero(known & (np.arange(live.size) != antenna))
            power, count = stack(spectra, hand, int(antenna), others, turns)
            turns[antenna], snr[antenna] = peak(power, count, spectra.cross.shape[3])
            believed[antenna] = snr[antenna] >= LEAST_SNR
        turns[~believed] = 0.0
        if number and np.array_equal(believed, known):
            break
    snr[seed] = math.inf
    return turns, snr, believed


def stack(
    spectra: Spectra,
    hand: int,
    antenna: int,
    others: NDArray[np.int64],
    turns: NDArray[np.float64],
) -> tuple[NDArray[np.float64], int]:
    """Power at each lag of the baselines from an antenna to others, whose delays are taken out.

    Parameters
    ----------
    others : ndarray of int
        Antennas whose delays are known.
    turns : ndarray, shape (antenna,)
        Delays in turns per channel.

    Returns
    -------
    ndarray, shape (lag,)
        Sum of ``|F|^2`` in units of what noise has in the mean.
    int
        Spectra in the sum.
    """
    cross, power = spectra.cross[..., hand], spectra.power[..., hand]
    n_chan = cross.shape[-1]
    n_lag = PADDING * 2 ** math.ceil(math.log2(n_chan))
    weight = power[:, antenna, others] + power[:, others, antenna]
    used = weight > 0
    # Whichever of the two comes first in the MS: V_qp is the conjugate of V_pq.
    values = cross[:, antenna, others] + np.conj(cross[:, others, antenna])
    values = values * np.exp(2j * np.pi * turns[others][:, None] * np.arange(n_chan))
    transform = np.fft.fft(values[used], n_lag, axis=-1)
    # A weight is 1 / sigma^2 of one real component.
    total = np.sum(np.abs(transform) ** 2 / (2 * weight[used][:, None]), axis=0)
    return total, int(used.sum())


def peak(power: NDArray[np.float64], count: int, n_chan: int) -> tuple[float, float]:
    """Place of the highest peak, in turns per channel, and its S/N.

    The S/N is the root of what it has above the highest of the other lags, in units of the scatter of
    ``count`` stacked powers; for one of them that is the S/N of an amplitude. Against the other lags and
    not against the noise, because a spike in one channel is as high everywhere; 0 if another lag is as high
    but for `AMBIGUOUS`.
    """
    if not count:
        return 0.0, 0.0
    n_lag = power.size
    top = int(np.argmax(power))
    before, here, after = power[top - 1], power[top], power[(top + 1) % n_lag]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    turns = (top + shift) / n_lag
    away = np.abs((np.arange(n_lag) - top + n_lag // 2) % n_lag - n_lag // 2)
    highest = power[away >= OWN_LAGS * n_lag / n_chan].max()
    excess = here - highest if highest < AMBIGUOUS * here else 0.0
    snr = math.sqrt(excess / math.sqrt(count))
    return float(_wrapped(np.array(turns))), snr


def _wrapped(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between -1/2 and 1/2 per channel: whole turns are none."""
    return np.asarray((turns + 0.5) % 1.0 - 0.5)
