"""What is shared between a gain of the array and one towards a bright source, decided by the rest of the sky.

A bright source fixes only the product of G and its dE. Whatever slow factor moves from one to the other
leaves its residual the same, so that a joint solve stops anywhere along that line (simulated, with the
true models: 65 uJy/beam near the peeled source where 19 are thermal). The sources that have no gain of
their own fix it: X is solved on the peeled data against their model, goes into the direction-independent
gains, and is divided out of every dE, which leaves what was subtracted as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit import memory
from peelkit.core import dd_apply, dd_gains, stefcal
from peelkit.core.dd_bins import add_at, squared, summed
from peelkit.core.dd_data import Block, blocks
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.io import ms
from peelkit.io.gains import TermGains
from peelkit.progress import Progress

NAME = "X"

# Least median S/N of a solution. Shorter intervals fit little better (simulated: rms 1 % lower at 15), and take more
# of what the model of the rest does not have.
LEAST_SNR = 40.0

# What X may be. Farther from 1 the model of the rest is not what is in the data: it may be artefacts that a
# first image was cleaned of (simulated: level 0.56, scatter 0.4 and 41 deg; true ones 1.0, 0.07 and 6 deg).
CREDIBLE_LEVEL = (0.8, 1.25)
MOST_AMPLITUDE_RMS, MOST_PHASE_RMS_DEG = 0.25, 30.0

# Gains that scatter by less than this, or than this many times their noise, change no solve.
SMALL, SMALL_NOISE = 0.01, 1.5

# Sums of all groups are held at once, of so many bytes for a pair of antennas, hand and bin: this share of
# --memory at most, with longer bins if need be.
CELL_BYTES, SHARE = 24, 0.25

# Iterations of the solve.
ITERATIONS = 60


@dataclass(frozen=True)
class Normal:
    """Sums from which X of one group is solved, in bins of time and frequency.

    Parameters
    ----------
    cross : ndarray of complex, shape (time, freq, antenna, antenna, hand)
        ``sum w V conj(M)`` of peeled data V and rest M, for antenna1 and antenna2.
    power : ndarray, shape of cross
        ``sum w |M|^2``.
    t_bins : ndarray of int, shape (integration,)
        Bin of each integration.
    f_bins : ndarray of int, shape (chan,)
        Bin of each channel.
    """

    cross: NDArray[np.complex128]
    power: NDArray[np.float64]
    t_bins: NDArray[np.int64]
    f_bins: NDArray[np.int64]

    def add(
        self,
        vis: NDArray[np.complex64],
        model: NDArray[np.complex64],
        weight: NDArray[np.float32],
        when: NDArray[np.int64],
        antennas: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        """Count rows, shape (row, chan, hand); ``when`` is the time bin of each."""
        cross = summed(weight * vis * np.conj(model), self.f_bins, axis=1)
        power = summed(weight * squared(model), self.f_bins, axis=1)
        cell = antennas[0] * self.cross.shape[2] + antennas[1]
        for chan, hand in np.ndindex(cross.shape[1:]):
            for sums, values in (
                (self.cross.real, cross.real), (self.cross.imag, cross.imag), (self.power, power),
            ):  # fmt: skip
                add_at(sums[:, chan, :, :, hand], when, cell, values[:, chan, hand])

    @property
    def snr(self) -> float:
        """Median S/N of a solution; 0 without data."""
        per_antenna = self.power.sum(axis=3) + self.power.sum(axis=2)
        used = per_antenna[per_antenna > 0]
        return math.sqrt(float(np.median(used))) if used.size else 0.0

    def coarser(self, axis: str) -> Normal:
        """Two bins put together along ``time`` or ``freq``."""
        number = 0 if axis == "time" else 1
        n = self.cross.shape[number]
        starts = np.arange(0, n, 2)
        bins = {"t_bins": self.t_bins, "f_bins": self.f_bins}
        which = "t_bins" if axis == "time" else "f_bins"
        bins[which] = bins[which] // 2
        return Normal(
            np.add.reduceat(self.cross, starts, axis=number),
            np.add.reduceat(self.power, starts, axis=number),
            **bins,
        )

    def settled(self, least_snr: float = LEAST_SNR) -> Normal | None:
        """Bins long enough, first in frequency, then in time; None if the whole is not."""
        normal = self
        while normal.snr < least_snr:
            if normal.cross.shape[1] > 1:
                normal = normal.coarser("freq")
            elif normal.cross.shape[0] > 1:
                normal = normal.coarser("time")
            else:
                return None
        return normal

    def solve(self) -> NDArray[np.complex128]:
        """X, shape (time, freq, antenna, hand); 1 without data."""
        cross = self.cross + np.conj(np.swapaxes(self.cross, 2, 3))
        power = self.power + np.swapaxes(self.power, 2, 3)
        gains = stefcal.solve(
            np.moveaxis(cross, -1, 2), np.moveaxis(power, -1, 2), iterations=ITERATIONS
        )
        return np.moveaxis(gains, 2, -1)


@dataclass(frozen=True)
class Balance:
    """What became of X.

    Parameters
    ----------
    snr : float
        Median S/N of a solution over the groups that have one; NaN if none has.
    groups, solved, rejected : int
        Fields and data descriptions; those where the rest is bright enough and like its model; and those
        where it is bright enough, but X would not be credible.
    amplitude_rms, phase_rms_deg : float
        Scatter of X about 1: what had been on the wrong side.
    scale : float
        Mean amplitude that was taken out of the direction-independent gains of all groups, so that they
        do not change the flux scale.
    """

    snr: float
    groups: int
    solved: int
    rejected: int
    amplitude_rms: float
    phase_rms_deg: float
    scale: float

    @property
    def is_small(self) -> bool:
        """Whether what was moved is so little, or nothing, that a solve without it would be the same."""
        if not self.solved:
            return True
        scatter = max(self.amplitude_rms, math.radians(self.phase_rms_deg))
        return scatter < max(SMALL, SMALL_NOISE / self.snr)


def balance(
    plan: Plan,
    groups: Mapping[Key, Solutions],
    scale: Mapping[int, float],
    progress: Progress,
    *,
    change: Callable[[Block], Block] | None = None,
) -> tuple[dict[Key, Solutions], Balance]:
    """Solve X, and move it from the directions' gains to those of the array.

    Parameters
    ----------
    change : callable, optional
        Makes of each block the data that were solved, if they are not those of the MS.

    Returns
    -------
    dict
        Solutions with a term `NAME` in front, where X could be solved.
    Balance
        For the sidecar.
    """
    sums = _gather(plan, groups, scale, progress, change)
    result = dict(groups)
    snr, amplitude, phase, scales = [], [], [], []
    rejected = 0
    for key, solutions in groups.items():
        normal = sums[key].settled() if key in sums else None
        if normal is None:
            continue
        gains = _referred(normal.solve(), plan)
        if not _credible(gains, normal):
            rejected += 1
            continue
        snr.append(normal.snr)
        gains, moved = _keep_scale(gains, solutions, normal)
        scales.append(moved)
        amplitude.append(float(np.std(np.abs(gains))))
        phase.append(float(np.std(np.angle(gains, deg=True))))
        spw = plan.rows.info.spws[plan.rows.info.data_descriptions[key[1]].spw]
        result[key] = _moved(solutions, gains, normal, spw.freq_hz)
    return result, Balance(
        float(np.median(snr)) if snr else math.nan,
        len(groups),
        len(snr),
        rejected,
        float(np.mean(amplitude)) if snr else math.nan,
        float(np.mean(phase)) if snr else math.nan,
        float(np.mean(scales)) if snr else 1.0,
    )


def _gather(
    plan: Plan,
    groups: Mapping[Key, Solutions],
    scale: Mapping[int, float],
    progress: Progress,
    change: Callable[[Block], Block] | None,
) -> dict[Key, Normal]:
    """One pass over the data; nothing for groups whose gains are full matrices."""
    wanted, n_hands = {}, {}
    for key, one in groups.items():
        description = plan.rows.info.data_descriptions[key[1]]
        n_hand = ms.parallel_hands(description.correlations).size
        if plan.by_field and not plan.at(key).peeled:
            # Nothing is shared with a dE.
            continue
        if _is_diagonal(one) and min(n_hand, 2) == min(one.terms[-1].gains.shape[-1], 2):
            # Bins of the last term: of dE, if there is one.
            wanted[key], n_hands[key] = (one.time_bins[-1], one.freq_bins[-1]), n_hand
    n_antenna = len(plan.rows.info.antennas)
    cell = CELL_BYTES * n_antenna**2 * max(n_hands.values(), default=1)
    most = SHARE * memory.limit_gib() * memory.GIB / cell
    sums = {
        key: _empty(*bins, n_antenna, n_hands[key]) for key, bins in bounded(wanted, most).items()
    }
    progress.stage("balancing the gains", total=plan.rows.rows.size)
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, plan.models, main):
            if block.key in sums:
                block = change(block) if change else block
                solutions, normal = groups[block.key], sums[block.key]
                here = plan.at(block.key)
                done = dd_apply.peel(
                    block, groups, all_column=plan.all_column, directions=here.used,
                    subtract=list(here.used), gains_needed=here.peeled,
                )  # fmt: skip
                hands = block.hands
                rest = block.models[plan.all_column] - sum(
                    block.models[column] for column in here.used.values()
                )
                weight = block.weight[..., hands] * np.float32(scale[block.description.id])
                weight = np.where(done.failed[..., None], 0, weight)
                when = normal.t_bins[dd_gains.time_index(solutions.axis, block.times_s)]
                normal.add(
                    done.peeled[..., hands], rest[..., hands], weight,
                    when, (block.antenna1, block.antenna2),
                )  # fmt: skip
            progress.advance(block.rows.size)
    return sums


def _is_diagonal(solutions: Solutions) -> bool:
    return all(
        term.gains.shape[-1] < 4 or not np.any(term.gains[..., 1:3]) for term in solutions.terms
    )


Bins = tuple[NDArray[np.int64], NDArray[np.int64]]


def bounded(wanted: Mapping[Key, Bins], most: float) -> dict[Key, Bins]:
    """Bins in time and frequency put together, first in frequency, until all groups have ``most`` cells."""
    found = dict(wanted)
    while sum((int(t[-1]) + 1) * (int(f[-1]) + 1) for t, f in found.values()) > most:
        halved = {key: (t, f // 2) if f[-1] else (t // 2, f) for key, (t, f) in found.items()}
        if all(t[-1] == 0 and f[-1] == 0 for t, f in found.values()):
            break
        found = halved
    return found


def _empty(t_bins: NDArray[np.int64], f_bins: NDArray[np.int64], n: int, n_hand: int) -> Normal:
    shape = (int(t_bins[-1]) + 1, int(f_bins[-1]) + 1, n, n, n_hand)
    return Normal(np.zeros(shape, dtype=np.complex128), np.zeros(shape), t_bins, f_bins)


def _credible(gains: NDArray[np.complex128], normal: Normal) -> bool:
    """Whether X is near 1, as what a self-calibration left is."""
    used = (normal.power.sum(axis=3) + normal.power.sum(axis=2)) > 0
    values = gains[used]
    if not values.size:
        return False
    size = np.abs(values)
    low, high = CREDIBLE_LEVEL
    return bool(
        low <= np.median(size) <= high
        and np.std(size) <= MOST_AMPLITUDE_RMS
        and np.std(np.angle(values, deg=True)) <= MOST_PHASE_RMS_DEG
    )


def _referred(gains: NDArray[np.complex128], plan: Plan) -> NDArray[np.complex128]:
    """Phases with respect to the reference antenna."""
    reference = gains[:, :, plan.refant]
    return gains * np.exp(-1j * np.angle(reference))[:, :, None]


def _keep_scale(
    gains: NDArray[np.complex128], solutions: Solutions, normal: Normal
) -> tuple[NDArray[np.complex128], float]:
    """Take the mean amplitude out of X times the gains of the array.

    A model that is too faint or too bright would become a flux scale otherwise.
    """
    size = np.abs(gains)
    used = (normal.power.sum(axis=3) + normal.power.sum(axis=2)) > 0
    logs = np.log(size, out=np.zeros_like(size), where=size > 0)[used]
    level = float(logs.mean()) if logs.size else 0.0
    for term, t_bins in zip(solutions.terms, solutions.time_bins, strict=True):
        if term.gains.shape[3] > 1:
            continue
        alive = ~np.asarray(term.flags.all(axis=(0, 1)))[:, 0]
        here = np.abs(term.gains[:, :, alive, 0])
        here = here[..., [0, -1]] if here.shape[-1] == 4 else here
        # Each solution counts for the integrations that it serves.
        served = np.bincount(t_bins, minlength=here.shape[0])
        values = np.log(np.maximum(here, 1e-6)).mean(axis=(1, 2, 3))
        level += float(np.average(values, weights=served))
    return gains / math.exp(level), math.exp(level)


def _moved(
    solutions: Solutions,
    gains: NDArray[np.complex128],
    normal: Normal,
    freq_hz: NDArray[np.float64],
) -> Solutions:
    """Solutions with X in front, divided out of the gains of the directions."""
    last = solutions.terms[-1]
    terms = list(solutions.terms)
    n_corr = last.gains.shape[-1]
    if last.gains.shape[3] > 1:
        # Bins of X are unions of those of dE.
        t_of = normal.t_bins[_firsts(solutions.time_bins[-1])]
        f_of = normal.f_bins[_firsts(solutions.freq_bins[-1])]
        inverse = np.divide(1.0, gains, out=np.ones_like(gains), where=gains != 0)
        share = _with_correlations(inverse[t_of][:, f_of], n_corr, off_diagonal=1.0)
        fresh = last.gains.copy()
        # A direction without gains of its own is part of the rest: it keeps 1.
        own = np.any(fresh != fresh[:, :, :, :1], axis=(0, 1, 2, 4))
        fresh[:, :, :, own] *= share[:, :, :, None]
        terms[-1] = replace(last, gains=fresh)
    size = (*gains.shape[:3], 1)
    moved = TermGains(
        term=NAME,
        type="diag_complex",
        field=last.field,
        ddid=last.ddid,
        gains=_with_correlations(gains, n_corr, off_diagonal=0.0)[:, :, :, None],
        flags=np.zeros(size, dtype=bool),
        information=np.zeros((*size, n_corr)),
        time_s=np.array(
            [solutions.axis.times_s[normal.t_bins == n].mean() for n in range(size[0])]
        ),
        freq_hz=np.array([freq_hz[normal.f_bins == n].mean() for n in range(size[1])]),
        converged=np.ones((1, 1)),
        iterations=np.full((1, 1), ITERATIONS),
        params=None,
        param_names=(),
    )
    return Solutions(
        solutions.axis,
        (moved, *terms),
        (normal.t_bins, *solutions.time_bins),
        (normal.f_bins, *solutions.freq_bins),
    )


def _firsts(bins: NDArray[np.int64]) -> NDArray[np.int64]:
    """First member of each bin."""
    first: NDArray[np.int64] = np.unique(bins, return_index=True)[1]
    return first


def _with_correlations(
    gains: NDArray[np.complex128], n_corr: int, *, off_diagonal: float
) -> NDArray[np.complex128]:
    """Gains (..., hand) as QuartiCal has them, (..., corr)."""
    if n_corr != 4:
        return gains[..., :n_corr]
    full = np.full((*gains.shape[:-1], 4), off_diagonal, dtype=np.complex128)
    full[..., 0], full[..., 3] = gains[..., 0], gains[..., -1]
    return full
