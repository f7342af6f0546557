"""The flux scale, carried from one calibrator to another by their gains (pure functions).

The electronics do not know which source they look at: with the right fluxes both calibrators give the
same gain amplitudes, ``< |G_i| / |G_i(fd cal)| > = 1`` (Marvil, "Flux-density Calibration", seed 001). A
source solved against an assumed flux has gains too large by ``sqrt(true / assumed)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import robust_rms
from peelkit.io.caltable import CalTable


@dataclass(frozen=True)
class Transfer:
    """Flux scale of one spw.

    Parameters
    ----------
    spw : int
        Id.
    factor : float
        True over assumed flux density.
    scatter : float
        Of the factor over antennas and polarisations, as a fraction.
    error : float
        Of the factor: the scatter over the root of their number.
    ratios : int
        How many antennas and polarisations there were.
    """

    spw: int
    factor: float
    scatter: float
    error: float
    ratios: int


def amplitudes(table: CalTable, spw: int) -> dict[tuple[str, int], float]:
    """Median gain amplitude over time of each antenna (by name) and polarisation in one spw."""
    result: dict[tuple[str, int], float] = {}
    for part in table.parts:
        if part.spw != spw:
            continue
        amplitude = np.where(part.failed, math.nan, np.abs(part.values))[:, 0, :]
        for antenna in np.unique(part.antenna):
            mine = amplitude[part.antenna == antenna]
            for pol in range(mine.shape[1]):
                good: NDArray[Any] = mine[np.isfinite(mine[:, pol]), pol]
                if good.size:
                    result[table.antennas[int(antenna)], pol] = float(np.median(good))
    return result


def transfer(
    own: CalTable, reference: CalTable, spw: int, spw_there: int | None = None
) -> Transfer | None:
    """Flux scale of one spw; None if no antenna has gains of both sources.

    ``spw_there``: the spw in the reference's table, if it is another.

    The median of ``(|G_i| / |G_i(fd cal)|)^2`` over antennas and polarisations: one antenna that
    pointed badly at one of the two does not count.
    """
    theirs = amplitudes(reference, spw if spw_there is None else spw_there)
    mine = amplitudes(own, spw)
    common = sorted(set(mine) & set(theirs))
    if not common:
        return None
    ratio = np.array([(mine[key] / theirs[key]) ** 2 for key in common])
    factor = float(np.median(ratio))
    scatter = robust_rms(ratio) / factor
    # The median of n values has 1.25 times the error of their mean.
    error = math.sqrt(math.pi / 2) * scatter / math.sqrt(len(common))
    return Transfer(spw, factor, scatter, error, len(common))
