"""Start values of the delays K: taken out of the data before a solve, and put into K after it.

QuartiCal's delays start from 0 and end in a wrong turn where the phase goes round more than half a turn over
a spw. Its own ``initial_estimate`` transforms the visibilities as they are, which is the delay of a source
at the phase centre only, and fails with one channel. So the delays are searched here, against the model
(`peelkit.core.dd_fringe`). A diagonal gain of an antenna multiplies all that it sees, bright sources and
the rest: dividing it out of the data is exact, and QuartiCal solves what remains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_fringe, dd_gains
from peelkit.core.dd_data import Block, Rows, blocks, in_uv_range
from peelkit.core.dd_fringe import Delays, Spectra
from peelkit.core.dd_gains import Solutions
from peelkit.engines.quartical import FULL_TYPES
from peelkit.io import ms
from peelkit.io.gains import TermGains
from peelkit.progress import Progress

if TYPE_CHECKING:
    from peelkit.core.dd_plan import Plan

# Below this a delay needs no start: QuartiCal finds it from 0 [turns over the spw].
NEEDED_TURNS = 0.25

# Phases of an array drift within a scan. Visibilities are summed over bins of this length [s], and not more
# than so many of them; then only powers are.
COHERENT_S, MOST_BINS = 60.0, 32

# Sums that are held at a time [bytes].
MOST_BYTES = 256e6


@dataclass(frozen=True)
class SpwStart:
    """Start delays of one data description.

    Parameters
    ----------
    freq_hz : ndarray, shape (chan,)
        Frequencies.
    begins_s : ndarray, shape (scan,)
        First TIME of each scan, ascending; only one where the solve goes on over the ends of scans.
    delay_s : ndarray, shape (scan, antenna, hand)
        Delays [s].
    """

    freq_hz: NDArray[np.float64]
    begins_s: NDArray[np.float64]
    delay_s: NDArray[np.float64]

    def scan(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of the scan that each time is in, shape of ``times_s``."""
        return np.maximum(np.searchsorted(self.begins_s, times_s, side="right") - 1, 0)

    def gains(self, delay_s: NDArray[np.float64]) -> NDArray[np.complex128]:
        """``exp(2 pi i tau (f - f_mid))`` of delays (..., hand), shape (..., chan, hand).

        About the middle of the outermost channels, as QuartiCal's delays are (delay/kernel.py).
        """
        offset = self.freq_hz - (self.freq_hz.min() + self.freq_hz.max()) / 2
        return np.exp(2j * np.pi * offset[:, None] * delay_s[..., None, :])

    def vis(
        self,
        data: NDArray[Any],
        times_s: NDArray[np.float64],
        antenna1: NDArray[np.int64],
        antenna2: NDArray[np.int64],
    ) -> NDArray[np.complex64]:
        """Visibilities (row, chan, corr) without the delays."""
        scan = self.scan(times_s)
        one, two = (self.gains(self.delay_s[scan, n]) for n in (antenna1, antenna2))
        return dd_gains.correct(data, one, two).astype(np.complex64)


@dataclass(frozen=True)
class DelayStart:
    """Start values of K on all data of a plan.

    Parameters
    ----------
    spws : dict of int
        By data description; empty where no start is needed, or nothing is believed.
    largest_turns : float
        Largest delay that is believed, in turns over its spw; NaN without any.
    least_snr : float
        Least S/N of the antennas that have data; NaN without any.
    believed, doubtful : frozenset of str
        Antennas whose delays are all believed; those with data and a delay that is not.
    """

    spws: Mapping[int, SpwStart] = field(default_factory=dict)
    largest_turns: float = math.nan
    least_snr: float = math.nan
    believed: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()

    def without(self, block: Block) -> Block:
        """A block whose data have the start delays taken out."""
        spw = self.spws.get(block.description.id)
        if spw is None:
            return block
        data = spw.vis(block.data, block.times_s, block.antenna1, block.antenna2)
        return replace(block, data=data)

    def put_into(self, solutions: Solutions, ddid: int) -> tuple[Solutions, TermGains | None]:
        """Solutions with the start in their K, and that K; None if there is nothing to put in.

        Raises
        ------
        AssertionError
            If a solution of K serves several scans with starts of their own.
        """
        spw = self.spws.get(ddid)
        names = [term.term for term in solutions.terms]
        if spw is None or "K" not in names:
            return solutions, None
        number = names.index("K")
        t_bins = solutions.time_bins[number]
        scan = spw.scan(solutions.axis.times_s)
        first = np.unique(t_bins, return_index=True)[1]
        if not np.array_equal(scan, scan[first][t_bins]):
            raise AssertionError("a solution of K serves scans with different start delays")
        fresh = _multiplied(solutions.terms[number], spw, spw.delay_s[scan[first]])
        terms = (*solutions.terms[:number], fresh, *solutions.terms[number + 1 :])
        return replace(solutions, terms=terms), fresh


def _multiplied(term: TermGains, spw: SpwStart, delay_s: NDArray[np.float64]) -> TermGains:
    """K with delays (time, antenna, hand) more. Failed solutions, which are 1, then have the start."""
    gains = term.gains.copy()
    hands = [0, -1] if gains.shape[-1] > 1 else [0]
    delay_s = delay_s[..., : len(hands)]
    start = np.moveaxis(spw.gains(delay_s), 2, 1)[:, :, :, None]
    gains[..., hands] *= start
    params = term.params
    if params is not None:
        params = params.copy()
        places = [n for n, name in enumerate(term.param_names) if name.startswith("delay_")]
        params[..., places] += delay_s[:, None, :, None, : len(places)]
    return replace(term, gains=gains, params=params)


# ---------------------------------------------------------------- the search


def with_start(
    plan: Plan, scale: Mapping[int, float], extra: Mapping[str, str], progress: Progress
) -> Plan:
    """The plan, and those of its classes, with the start values of K.

    Parameters
    ----------
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    extra : dict of str
        Options of QuartiCal, which may make K one for both hands.
    """
    if not plan.by_field:
        return replace(plan, delay_start=find(plan, scale, extra, progress))
    fresh = {
        id(one): replace(one, delay_start=find(one, scale, extra, progress)) for one in plan.classes
    }
    return replace(plan, by_field={n: fresh[id(one)] for n, one in plan.by_field.items()})


def find(
    plan: Plan, scale: Mapping[int, float], extra: Mapping[str, str], progress: Progress
) -> DelayStart | None:
    """Search the start values of a plan in one pass over its data; None without a K that has a delay."""
    types = {term.name: term.type for term in plan.options.terms}
    if not types.get("K", "").startswith("delay"):
        return None
    # A full G stands to the left of K: only a delay that both hands have can be moved past it.
    common = types.get("G") in FULL_TYPES or extra.get("K.scalar", "").lower() == "true"
    found: dict[int, list[tuple[float, Delays]]] = {}
    progress.stage("searching delays", total=plan.rows.rows.size)
    for ddid, begins_s, delays in search(plan, scale, progress):
        found.setdefault(ddid, []).append((begins_s, delays.common() if common else delays))
    return _settled(plan, found)


def search(
    plan: Plan, scale: Mapping[int, float], progress: Progress
) -> Iterator[tuple[int, float, Delays]]:
    """Data description, first TIME and delays of each scan, or of all scans if K goes on over their ends."""
    reference = plan.refant
    for scans in _batches(plan):
        mine = np.isin(plan.rows.scans, np.concatenate(scans))
        part = replace(plan.rows, rows=plan.rows.rows[mine], scans=plan.rows.scans[mine])
        sums = _Sums(plan, scans)
        with ms.opened(part.info.path) as main:
            for block in blocks(part, plan.data_column, (plan.all_column,), main):
                # The others have what the model may not have, and the solve does not see them.
                inside = in_uv_range(main, block, plan.uv_range_m)
                sums.add(block, scale[block.description.id], inside)
                progress.advance(block.rows.size)
        for (ddid, _), one in sums.spectra.items():
            width_hz = float(np.median(np.diff(_freq_hz(plan.rows, ddid))))
            yield ddid, one.times_s[0], dd_fringe.search(one.spectra, width_hz, reference)


@dataclass
class _Scan:
    """Spectra of one data description over a scan, with its integrations [MJD s]."""

    times_s: NDArray[np.float64]
    spectra: Spectra


class _Sums:
    """Spectra of some scans: by data description, and number of the scan among them."""

    def __init__(self, plan: Plan, scans: Sequence[NDArray[np.int64]]) -> None:
        self.all_column = plan.all_column
        self.number = {int(scan): n for n, unit in enumerate(scans) for scan in unit}
        self.spectra: dict[tuple[int, int], _Scan] = {}
        for ddid in _searched(plan.rows):
            for n, unit in enumerate(scans):
                times_s = _times_s(plan.rows, ddid, unit)
                if times_s.size:
                    empty = Spectra.empty(_bins(plan.rows, ddid, unit), *_shape(plan.rows, ddid))
                    self.spectra[ddid, n] = _Scan(times_s, empty)

    def add(self, block: Block, scale: float, inside: NDArray[np.bool_]) -> None:
        """Count the rows of a block that are ``inside`` the range of baselines."""
        ddid, hands = block.description.id, block.hands
        model = block.models[self.all_column][..., hands].astype(np.complex128)
        weight = np.where(inside[:, None, None], block.weight[..., hands], 0) * scale
        product = weight * block.data[..., hands] * np.conj(model)
        power = (weight * np.abs(model) ** 2).sum(axis=1)
        which = np.array([self.number[int(scan)] for scan in block.scans])
        for n in np.unique(which):
            one = self.spectra.get((ddid, int(n)))
            if one is None:
                continue
            here = which == n
            when = np.searchsorted(one.times_s, block.times_s[here])
            bins = when * one.spectra.cross.shape[0] // one.times_s.size
            one.spectra.add(
                bins, block.antenna1[here], block.antenna2[here], product[here], power[here]
            )


def _freq_hz(rows: Rows, ddid: int) -> NDArray[np.float64]:
    return rows.info.spws[rows.info.data_descriptions[ddid].spw].freq_hz


def _searched(rows: Rows) -> list[int]:
    """Data descriptions with channels enough."""
    return [d for d in rows.ddids if _freq_hz(rows, d).size >= dd_fringe.LEAST_CHANNELS]


def _shape(rows: Rows, ddid: int) -> tuple[int, int, int]:
    """Antennas, channels, hands."""
    hands = ms.parallel_hands(rows.info.data_descriptions[ddid].correlations).size
    return len(rows.info.antennas), _freq_hz(rows, ddid).size, hands


def _times_s(rows: Rows, ddid: int, scans: NDArray[np.int64]) -> NDArray[np.float64]:
    """Integrations of all fields in some scans, ascending."""
    pieces = [
        axis.times_s[np.isin(axis.scans, scans)] for (_, d), axis in rows.axes.items() if d == ddid
    ]
    return np.unique(np.concatenate(pieces))


def _bins(rows: Rows, ddid: int, scans: NDArray[np.int64]) -> int:
    """Bins of time; fewer where they would not fit."""
    n_time = _times_s(rows, ddid, scans).size
    wanted = min(MOST_BINS, math.ceil(n_time * rows.integration_s[ddid] / COHERENT_S))
    fits = int(MOST_BYTES / (_bin_bytes(rows, ddid) * len(_searched(rows))))
    return max(1, min(wanted, n_time, fits))


def _bin_bytes(rows: Rows, ddid: int) -> int:
    n_antenna, n_chan, n_hand = _shape(rows, ddid)
    return 8 * n_antenna**2 * n_chan * n_hand


def _batches(plan: Plan) -> Iterator[list[NDArray[np.int64]]]:
    """Scans, or all of them together, in batches whose sums fit."""
    scans = np.unique(plan.rows.scans)
    across = "scan" in plan.options.combine
    batch: list[NDArray[np.int64]] = []
    held = 0
    for unit in [scans] if across else np.split(scans, scans.size):
        ddids = _searched(plan.rows)
        size = sum(_bin_bytes(plan.rows, d) * _bins(plan.rows, d, unit) for d in ddids)
        if batch and held + size > MOST_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(unit)
        held += size
    if batch and _searched(plan.rows):
        yield batch


def _settled(plan: Plan, found: Mapping[int, Sequence[tuple[float, Delays]]]) -> DelayStart:
    """Start values from the searches of all scans; without any where none is needed."""
    names = np.array(plan.rows.info.antenna_labels)
    spws: dict[int, SpwStart] = {}
    turns, snr = [math.nan], [np.empty(0)]
    live, doubtful = (np.zeros(names.size, dtype=bool) for _ in range(2))
    for ddid, ones in found.items():
        freq_hz = _freq_hz(plan.rows, ddid)
        ones = sorted(ones, key=lambda one: one[0])
        begins_s = np.array([begins for begins, _ in ones])
        spws[ddid] = SpwStart(freq_hz, begins_s, np.array([one.delay_s for _, one in ones]))
        width_hz = float(np.median(np.abs(np.diff(freq_hz))))
        for _, one in ones:
            if one.believed.any():
                turns.append(float(np.max(np.abs(one.delay_s))) * width_hz * freq_hz.size)
            snr.append(one.snr[one.live & np.isfinite(one.snr)])
            live |= one.live.any(axis=1)
            doubtful |= (one.live & ~one.believed).any(axis=1)
    believed = live & ~doubtful
    largest = float(np.fmax.reduce(turns))
    return DelayStart(
        spws if largest >= NEEDED_TURNS else {},
        largest,
        float(np.fmin.reduce(np.concatenate([[math.nan], *snr]))),
        frozenset(names[believed].tolist()),
        frozenset(names[doubtful].tolist()),
    )


# ---------------------------------------------------------------- what is told


def record(plan: Plan) -> dict[str, Any] | None:
    """Figures for the sidecar; None without a K that has a delay."""
    starts = _starts(plan)
    if not starts:
        return None
    doubtful = frozenset().union(*(one.doubtful for one in starts))
    believed = frozenset().union(*(one.believed for one in starts)) - doubtful
    return {
        "used": any(one.spws for one in starts),
        "largest_turns": _finite(np.fmax.reduce([one.largest_turns for one in starts])),
        "antennas": len(believed),
        "not_believed": sorted(doubtful),
        "least_snr": _finite(np.fmin.reduce([one.least_snr for one in starts])),
    }


def words(plan: Plan) -> list[str]:
    """What to tell of antennas that are solved without a start."""
    doubtful = sorted(frozenset().union(*(one.doubtful for one in _starts(plan) if one.spws)))
    if not doubtful:
        return []
    return [
        f"K: {', '.join(doubtful)}: no start value for the delay in all or some scans (S/N below "
        f"{dd_fringe.LEAST_SNR:g}), while others turn by whole turns: it may be wrong; flag these antennas, or "
        "calibrate the delays before"
    ]


def _starts(plan: Plan) -> list[DelayStart]:
    return [one.delay_start for one in plan.classes if one.delay_start is not None]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
