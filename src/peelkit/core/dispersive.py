"""Delays and TEC of antennas, fitted over all channels of all spws of an interval together. Pure.

The gain of an antenna is ``exp(i phi)``, with

    phi(nu) = offset + 2 pi delay (nu - nu0) + TEC_RAD_HZ TEC / nu,

of which a kind has some (`KINDS`). With ``C_pq = sum w V conj(M)`` over the interval, the likelihood of unit
gains is greatest where ``F = sum Re(C_pq conj(g_p) g_q)`` is, over baselines, channels and hands: no S/N per
channel is needed, and each visibility counts with the model's amplitude. Delays are known up to whole
multiples of 1 / channel width.

QuartiCal, which has these terms, solves each spw alone, counts a visibility in a null of the model like a bright
one, and needs a start; TEC shows over a wide band only. Of one spw (32 channels, 300 to 500 MHz, 10 antennas, S/N
66 an antenna) the gains of QuartiCal 0.2.7 were off by 1.5 deg for delay_and_offset (its initial_estimate on;
82 deg without), as those here (1.5), but by 36 deg for tec_and_offset (42 without), here 0.8 deg.

Found by a search (each antenna in turn over a grid, the others held: Schwab & Cotton 1983, AJ 88, 688), then
by Newton's method for all antennas together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Phase of 1 TECU (1e16 electrons / m^2) at 1 Hz [rad Hz]: -e^2 / (4 pi eps0 m_e c) * 1e16.
TEC_RAD_HZ = -8.44797245e9

# What each kind has. The names are QuartiCal's, and so are the meanings; its gain types have no plain tec.
KINDS = {
    "tec": ("tec",),
    "tec_and_offset": ("tec", "offset"),
    "delay": ("delay",),
    "delay_and_offset": ("delay", "offset"),
    "delay_and_tec": ("tec", "delay"),
    "delay_tec_and_offset": ("tec", "delay", "offset"),
}

UNITS = {"tec": "tecu", "delay": "ns", "offset": "rad"}


@dataclass(frozen=True)
class Design:
    """How phases follow from parameters: ``phi[c, h] = sum_k x[k] columns[k, c, h]``.

    Parameters
    ----------
    kind : str
        Of `KINDS`.
    names : tuple of str
        One for each parameter: ``tec``, ``delay``, ``offset``.
    hands : tuple of (int or None)
        Hand that each parameter belongs to; None for TEC, which both hands see.
    columns : ndarray, shape (parameter, chan, hand)
        Phase [rad] of one unit (`UNITS`).
    freq_hz : ndarray, shape (chan,)
        All channels of all spws.
    centre_hz : float
        ``nu0``: the mean frequency where there is an offset; else 0, so that a delay is one of the path.
    """

    kind: str
    names: tuple[str, ...]
    hands: tuple[int | None, ...]
    columns: NDArray[np.float64]
    freq_hz: NDArray[np.float64]
    centre_hz: float

    @classmethod
    def of(cls, kind: str, freq_hz: NDArray[np.float64], n_hand: int) -> Design:
        """Columns of a kind at the frequencies."""
        parts = KINDS[kind]
        centre = float(freq_hz.mean()) if "offset" in parts else 0.0
        shapes = {
            "tec": TEC_RAD_HZ / freq_hz,
            "delay": 2e-9 * np.pi * (freq_hz - centre),
            "offset": np.ones_like(freq_hz),
        }
        names, hands, columns = [], [], []
        for part in parts:
            for hand in [None] if part == "tec" else range(n_hand):
                column = np.zeros((freq_hz.size, n_hand))
                column[:, slice(None) if hand is None else hand] = (
                    shapes[part][:, None] if hand is None else shapes[part]
                )
                names.append(part)
                hands.append(hand)
                columns.append(column)
        return cls(kind, tuple(names), tuple(hands), np.array(columns), freq_hz, centre)

    @property
    def needs_turns(self) -> bool:
        """Without an offset a delay must have the phase right too, and not just its slope."""
        return "delay" in self.names and "offset" not in self.names

    def phases(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Phases [rad] of parameters (antenna, parameter), shape (antenna, chan, hand)."""
        return np.einsum("ak,kch->ach", x, self.columns)

    def which(self, name: str) -> list[int]:
        """Parameters called ``name``, one for each hand (TEC: one)."""
        return [k for k, own in enumerate(self.names) if own == name]


@dataclass(frozen=True)
class Cross:
    """Sums of one interval over time, for each baseline.

    Parameters
    ----------
    antenna1, antenna2 : ndarray of int, shape (baseline,)
        Ids.
    product : ndarray of complex, shape (baseline, chan, hand)
        ``sum w V conj(M)``, w being 1 / sigma^2 of one real component.
    model, data : ndarray, shape (baseline, hand)
        ``sum w |M|^2`` and ``sum w |V|^2`` over time and channels.
    samples : ndarray, shape (baseline, hand)
        Visibilities in the sums.
    """

    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    product: NDArray[np.complex128]
    model: NDArray[np.float64]
    data: NDArray[np.float64]
    samples: NDArray[np.float64]

    @classmethod
    def empty(cls, n_antenna: int, n_chan: int, n_hand: int) -> Cross:
        """Nothing yet, for all baselines."""
        one, two = np.triu_indices(n_antenna, 1)
        flat = (one.size, n_hand)
        return cls(
            one, two, np.zeros((one.size, n_chan, n_hand), dtype=np.complex128),
            np.zeros(flat), np.zeros(flat), np.zeros(flat),
        )  # fmt: skip


def solve(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve symmetric equations; what nothing constrains (an antenna without data) stays 0."""
    return inverse(matrix) @ right


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a symmetric matrix; directions that nothing constrains get 0."""
    size = np.sqrt(np.abs(np.diag(matrix)))
    scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0.0)
    values, vectors = np.linalg.eigh(matrix * np.outer(scale, scale))
    good = np.abs(values) > 1e-11 * np.abs(values).max(initial=1e-300)
    inverse = np.where(good, 1 / np.where(good, values, 1), 0.0)
    return np.asarray(np.outer(scale, scale) * ((vectors * inverse) @ vectors.T))
