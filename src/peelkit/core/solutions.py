"""Are the gain solutions believable? Pure functions on a gain table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from peelkit.io.caltable import GainTable

# Amplitudes further than this from 1 are suspect (seed 002, tip 5).
AMPLITUDE_LIMIT = 0.2

# Phases of an ap solve on top of good phases should stay within "a few degrees" (same tip).
PHASE_LIMIT_DEG = 5.0

# An antenna whose S/N is below this fraction of the array's median is named.
WEAK_ANTENNA = 0.5

# More changes of the reference antenna than in this fraction of the intervals are named (tip 7).
REFANT_CHANGES = 0.1

# An antenna is lost where more than this share of its solutions failed, of so many at least: of one or two it is the
# noise that says so. A round needs so many other antennas at least.
LOST = 0.5
LEAST_TRIED = 4
LEAST_ANTENNAS = 4

# Phases of so few antennas about their mean tell nothing.
MOST_FREE = 2


def refants(table: GainTable) -> list[int]:
    """Reference antenna of each solution interval, in time order."""
    _, first = np.unique(table.time_s, return_index=True)
    return [int(antenna) for antenna in table.refant[first]]


def antenna_snr(table: GainTable, n_antenna: int) -> np.ndarray[Any, Any]:
    """Median S/N of each antenna's good solutions, shape (antenna,); NaN without any."""
    result = np.full(n_antenna, math.nan)
    for antenna in np.unique(table.antenna):
        mine = table.antenna == antenna
        good = table.snr[mine][table.ok[mine]]
        if good.size:
            result[antenna] = np.median(good)
    return result


def position_snr(table: GainTable) -> float:
    """S/N of positions before the phases of ``table`` were taken out: ``sqrt(n) / phase rms``.

    Phases of rms sigma on n antennas tilt like a shift of the sky by about sigma / (2 sqrt(n)) beams: in
    the terms of ``beam / (2 S/N)`` an S/N of sqrt(n) / sigma. The noise of the solutions is taken out. In a
    simulated mosaic of 12 antennas and 40 deg the first image was off by 0.10 beams, and this says 0.09.
    """
    keys = np.stack([table.observation, table.spw, np.round(10 * table.time_s).astype(np.int64)])
    _, which = np.unique(keys, axis=1, return_inverse=True)
    # One group for each interval and hand.
    hands = table.gain.shape[1]
    group = (which[:, None] * hands + np.arange(hands))[table.ok]
    phasor = np.exp(1j * np.angle(table.gain[table.ok]))
    count = np.bincount(group)
    mean = np.bincount(group, phasor.real) + 1j * np.bincount(group, phasor.imag)
    turned = np.angle(phasor * np.conj(mean[group]))
    kept = count[group] > MOST_FREE
    if not kept.any():
        return math.inf
    noise = 1 / np.maximum(table.snr[table.ok][kept], 1.0) ** 2
    variance = float((turned[kept] ** 2).mean() - noise.mean())
    n_antenna = float(np.median(count[count > MOST_FREE]))
    return math.sqrt(n_antenna / variance) if variance > 0 else math.inf


def lost_antennas(counts: Mapping[int, tuple[int, int]]) -> list[int]:
    """Antennas most of whose solutions failed, if the others are enough for a round without them.

    Of few antennas one that is too noisy is a large share: 2 of 7 fail in 29 % of all solutions, whatever the
    rest do. A source too weak to solve for fails on most antennas, and then none is left out; nor if fewer than
    `LEAST_ANTENNAS` would remain, which have no closure in amplitude.

    Parameters
    ----------
    counts : dict of int to tuple
        By antenna: solutions that were tried, and how many of them failed.
    """
    lost = [
        number
        for number, (tried, failed) in counts.items()
        if tried >= LEAST_TRIED and failed > LOST * tried
    ]
    rest = len(counts) - len(lost)
    return sorted(lost) if rest >= max(LEAST_ANTENNAS, len(lost) + 1) else []


def suspicions(table: GainTable, *, calmode: str, names: Sequence[str]) -> list[str]:
    """What looks wrong with the solutions, one line each."""
    found = []
    if not table.ok.any():
        return ["all solutions failed"]
    good = np.where(table.ok, table.gain, np.nan)
    if calmode != "p":
        off = np.abs(np.abs(good) - 1) > AMPLITUDE_LIMIT
        if off.any():
            who = sorted({names[int(antenna)] for antenna in table.antenna[off.any(axis=1)]})
            found.append(
                f"{100 * off.sum() / table.ok.sum():.1f} % of the amplitudes are over "
                f"{100 * AMPLITUDE_LIMIT:.0f} % from 1 ({_listing(who)})"
            )
    if calmode == "ap":
        phase = np.abs(np.degrees(np.angle(good)))
        off = phase > PHASE_LIMIT_DEG
        if off.sum() > 0.05 * table.ok.sum():
            found.append(
                f"{100 * off.sum() / table.ok.sum():.0f} % of the phases of this ap solve are beyond "
                f"{PHASE_LIMIT_DEG:g} deg: the phases before were not refined enough"
            )
    sequence = refants(table)
    changes = sum(one != two for one, two in itertools.pairwise(sequence))
    if changes > max(1, REFANT_CHANGES * len(sequence)):
        found.append(
            f"the reference antenna changed {changes} times in {len(sequence)} intervals: choose another, "
            "or a longer solint"
        )
    snr = antenna_snr(table, len(names))
    weak = [names[int(a)] for a in np.flatnonzero(snr < WEAK_ANTENNA * np.nanmedian(snr))]
    if weak:
        found.append(f"S/N below half the median on {_listing(weak)}")
    return found


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
