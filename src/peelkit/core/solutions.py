"""Are the gain solutions believable? Pure functions on a gain table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
