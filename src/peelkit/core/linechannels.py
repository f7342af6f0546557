"""Channels in which a spectral line stands above the continuum, found in the visibilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.usable import usable_weights

# A channel with line has so many sigma more power than those without.
FOUND_SIGMA = 5.0

# Fewer channels have no level to stand above.
LEAST_CHANNELS = 8

# Channels are kept as free of line up to here, in sigma, while the level is found.
CLIP_SIGMA = 3.0


@dataclass(frozen=True)
class Line:
    """Channels of one spw with line.

    Parameters
    ----------
    spw : int
        Which.
    ranges : tuple of (int, int)
        First and last channel of each run.
    sigma : float
        Of its strongest channel.
    hand_ratio : float
        Line power in the first parallel hand over that in the second; 1 with one hand.
    """

    spw: int
    ranges: tuple[tuple[int, int], ...]
    sigma: float
    hand_ratio: float

    @property
    def selection(self) -> str:
        """In CASA's words: ``0:20~22;25~25``."""
        return f"{self.spw}:" + ";".join(f"{first}~{last}" for first, last in self.ranges)


def find_lines(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    channels: dict[int, list[tuple[int, int]]],
) -> list[Line]:
    """Find the channels with line in each spw.

    By the power ``sum w |V|^2 / sum w`` of the cross-correlations, which no phase error takes away: of
    the channels that stand above the others by `FOUND_SIGMA`, the strongest that together have the
    highest S/N (seed 002, tip 10: an average of all the strongest channels, not the peak alone).

    Parameters
    ----------
    rows : ndarray of int
        Rows to look at.
    column : str
        Data column.
    channels : dict
        Ranges of each spw to look in.

    Raises
    ------
    DataError
        If no spw has one.
    """
    power: dict[int, NDArray[np.float64]] = {}
    weights: dict[int, NDArray[np.float64]] = {}
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows):
            spw = description.spw
            if spw not in channels or len(info.spws[spw].freq_hz) < LEAST_CHANNELS:
                continue
            hands = ms.parallel_hands(description.correlations)
            data = ms.get(main, column, chunk)[:, :, hands]
            weight = usable_weights(main, chunk, hands)
            weight = np.where(np.isfinite(data), weight, 0.0)
            squared = np.where(weight > 0, np.abs(data) ** 2, 0.0)
            shape = (data.shape[1], data.shape[2])
            power[spw] = power.get(spw, np.zeros(shape)) + (weight * squared).sum(axis=0)
            weights[spw] = weights.get(spw, np.zeros(shape)) + weight.sum(axis=0)
    found = [
        line
        for spw in sorted(power)
        if (line := _line(spw, power[spw], weights[spw], channels[spw])) is not None
    ]
    if not found:
        few = "" if power else f" (spws of fewer than {LEAST_CHANNELS} channels are not looked at)"
        raise DataError(
            f"{info.path}: no channel stands {FOUND_SIGMA:g} sigma above the others{few}; name the channels with "
            "--spw, such as 0:20~25."
        )
    return found


def _line(
    spw: int,
    power: NDArray[np.float64],
    weight: NDArray[np.float64],
    ranges: list[tuple[int, int]],
) -> Line | None:
    total = weight.sum(axis=1)
    usable = ms.channel_mask(ranges, total.size) & (total > 0)
    if usable.sum() < LEAST_CHANNELS:
        return None
    spectrum = np.divide(power.sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    level, scatter = _level(spectrum[usable])
    excess = np.where(usable, spectrum - level, 0.0)
    candidates = np.flatnonzero(excess > FOUND_SIGMA * scatter)
    if candidates.size == 0:
        return None
    # Signals add up, noise by the root of their number: the best set is the strongest so many.
    order = candidates[np.argsort(-excess[candidates], kind="stable")]
    together = np.cumsum(np.sqrt(excess[order])) / np.sqrt(np.arange(1, order.size + 1))
    chosen = np.sort(order[: int(np.argmax(together)) + 1])
    breaks = np.flatnonzero(np.diff(chosen) > 1)
    starts, ends = [0, *(breaks + 1)], [*breaks, chosen.size - 1]
    runs = tuple((int(chosen[s]), int(chosen[e])) for s, e in zip(starts, ends, strict=True))
    return Line(
        spw, runs, float(excess[order[0]] / scatter), _hand_ratio(power, weight, usable, chosen)
    )


def _level(spectrum: NDArray[np.float64]) -> tuple[float, float]:
    """Level of the channels without line, and their scatter: clipped from above, beginning at the lower half."""
    kept = np.sort(spectrum)[: max(spectrum.size // 2, 4)]
    for _ in range(20):
        level, scatter = float(np.median(kept)), float(np.std(kept))
        more = spectrum[spectrum < level + CLIP_SIGMA * max(scatter, 1e-12 * abs(level))]
        if more.size == kept.size:
            break
        kept = more if more.size >= 4 else kept
    return level, max(scatter, 1e-9 * abs(level), 1e-300)


def _hand_ratio(
    power: NDArray[np.float64],
    weight: NDArray[np.float64],
    usable: NDArray[np.bool_],
    chosen: NDArray[np.intp],
) -> float:
    if power.shape[1] < 2:
        return 1.0
    excess = []
    for hand in (0, 1):
        one = np.divide(
            power[:, hand], weight[:, hand], out=np.zeros(len(power)), where=weight[:, hand] > 0
        )
        excess.append(float((one[chosen] - _level(one[usable])[0]).mean()))
    return excess[0] / excess[1] if min(excess) > 0 else math.inf
