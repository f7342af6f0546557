"""Before a direction-dependent solve: how strong each direction is, and what to do with it.

The information that data have on a gain is ``sum w |M|^2`` over the samples that it serves, with ``M``
the model of its direction and ``w = 1/sigma^2`` of one real component; its S/N is the root of that
(QuartiCal's own jhj, checked in research/engines.md section 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.compact import Compact
from peelkit.core.dd_bins import add_at, summed
from peelkit.core.dd_gains import TimeAxis

PEEL, BORROW, SUBTRACT, SKIP = "peel", "borrow", "subtract", "skip"

# With solutions of their own: of each field, or of fields that are solved together.
OWN = (PEEL, BORROW)

# Reason of what the user decided.
ASKED = "as asked for with --decide"

# Least total S/N of a source that is subtracted at all.
DETECTED = 5.0


@dataclass
class Information:
    """Information on the gains of one direction in one group, shape (time, freq, antenna)."""

    values: NDArray[np.float64]

    @classmethod
    def empty(
        cls, t_bins: NDArray[np.int64], f_bins: NDArray[np.int64], n_antenna: int
    ) -> Information:
        """Nothing yet."""
        return cls(np.zeros((int(t_bins[-1]) + 1, int(f_bins[-1]) + 1, n_antenna)))

    def add(
        self,
        power: NDArray[np.float64],
        when: NDArray[np.int64],
        f_bins: NDArray[np.int64],
        antennas: Sequence[NDArray[np.int64]],
    ) -> None:
        """Add ``w |M|^2``, shape (row, chan), mean over the hands; ``when`` is the interval of a row."""
        binned = summed(power, f_bins, axis=1)
        for antenna in antennas:
            for chan in range(self.values.shape[1]):
                add_at(self.values[:, chan], when, antenna, binned[:, chan])

    @property
    def snr(self) -> NDArray[np.float64]:
        """S/N of each solution that has data."""
        return np.sqrt(self.values[self.values > 0])


@dataclass(frozen=True)
class Direction:
    """One bright source and what becomes of it.

    Parameters
    ----------
    label, column : str
        Name, and the column with its model.
    ra_deg, dec_deg, flux_jy : float or None
        ICRS, and model flux, if a sidecar said them.
    model : Compact or None
        The point or Gaussian that was predicted, if a sidecar said so.
    snr_per_solution : float
        Median over its dE solutions.
    snr_total : float
        Of the source in all data together.
    decision : str
        ``peel``, ``borrow`` (with the gains of several fields together), ``subtract`` (without gains of
        its own) or ``skip``; the strongest where fields differ.
    reason : str
        Why.
    """

    label: str
    column: str
    ra_deg: float | None = None
    dec_deg: float | None = None
    flux_jy: float | None = None
    model: Compact | None = None
    snr_per_solution: float = math.nan
    snr_total: float = math.nan
    decision: str = PEEL
    reason: str = ""


@dataclass(frozen=True)
class FieldDecision:
    """What becomes of a direction in one field.

    Parameters
    ----------
    field : int
        FIELD_ID.
    direction : str
        Label.
    snr_per_solution, snr_total : float
        Median over its dE solutions of this field alone, and of the source in the field's data.
    decision, reason : str
        As in `Direction`.
    """

    field: int
    direction: str
    snr_per_solution: float
    snr_total: float
    decision: str
    reason: str


def decide(snr: float, total: float, *, min_snr: float) -> tuple[str, str]:
    """What to do with a direction, and why.

    Parameters
    ----------
    snr, total : float
        Median S/N of a solution, and S/N of the source in all data.
    min_snr : float
        Least S/N of a solution.
    """
    if not total > DETECTED:
        return SKIP, f"S/N {total:.1f} in all data, below {DETECTED:g}: nothing to subtract"
    if snr >= min_snr:
        return PEEL, f"S/N {snr:.1f} per solution, at least {min_snr:g}"
    return (
        SUBTRACT,
        f"S/N {snr:.1f} per solution, below {min_snr:g}: subtracted as it is in the model; longer "
        "--de-time or --de-freq would solve it",
    )


def unique_times(times_s: NDArray[np.float64], scans: NDArray[np.int64]) -> TimeAxis:
    """Time axis of a group; scans are numbered by time, as those of a solve are filed."""
    unique, first = np.unique(times_s, return_index=True)
    return TimeAxis(unique, np.asarray(scans)[first])
