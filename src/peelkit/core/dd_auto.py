"""Intervals of G and dE, chosen by how well they predict data that the solve has not seen.

One solve at the shortest intervals that the S/N allows, with a part of the data held out, gives the whole
gain E(t, f) towards each direction. Each candidate is the nearest ``G(t_G) dE(t, f)`` with longer
intervals to that, weighted with the information of each solution, and is scored on what was held out:
too long an interval misses what changes, too short a one carries noise (cross-validation; science.md,
conclusion 3). The longest that costs nothing wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_apply, dd_solve, dd_terms
from peelkit.core.dd_bins import squared, summed
from peelkit.core.dd_data import Rows, blocks, gather
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_heldout import HELD_OUT, Score, hide
from peelkit.core.dd_measure import Meter
from peelkit.core.dd_noise import Noise, scales
from peelkit.core.dd_plan import Plan, check_intervals
from peelkit.core.dd_terms import TermChoice
from peelkit.errors import OptionError
from peelkit.io import ms
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

# Least S/N of the solutions that candidates are made from.
BASE_SNR = 4.0

# Least complex visibilities for each complex gain of those solutions, all directions counted: with fewer a
# solve of several directions trades one for another (simulated: 10 antennas, 2 directions, each
# integration and channel for itself, chi-squared 15 of what was held out).
BASE_EQUATIONS = 4.5

# An interval costs nothing if its score is above the best by no more than this share of the noise's, or by
# this many times the scatter of the difference; but it does cost something above the second share: what a
# few integrations alone need makes the scatter as large as the difference. Shares of the noise, not of the
# best: where models are wrong the best is far above the noise, and errors of gains are small beside it.
COST, SIGMAS, MOST_COST = 0.01, 2.0, 0.03

# Samples (row x channel) that the choice is made on: more would not change it.
MOST_SAMPLES = 800_000

# Solves with ever longer intervals, at most, until the noise that is left allows them.
PROBES = 3

# Alternations between G and dE.
ALTERNATIONS = 8

# The type of dE whose means over longer intervals are of its type: not phases, delays or full matrices.
LENGTHENED = "diag_complex"


@dataclass(frozen=True)
class Candidate:
    """Intervals that were tried.

    Parameters
    ----------
    term : str
        ``dE`` or ``G``.
    direction : str
        Label; empty for G.
    time, freq : int
        Integrations and channels; 0 for a scan, and the spw.
    score : float
        Chi-squared of the data held out, 1 for noise.
    excess, sigma : float
        Above the best, and the scatter of that difference.
    parameters : int
        Real numbers that would be solved.
    """

    term: str
    direction: str
    time: int
    freq: int
    score: float
    excess: float = math.nan
    sigma: float = math.nan
    parameters: int = 0


@dataclass(frozen=True)
class Choice:
    """Intervals that were chosen, and why.

    Parameters
    ----------
    terms : tuple of TermChoice
        With intervals in place of ``auto``.
    by_direction : dict of str
        Label to (integrations, channels) of its dE.
    candidates : tuple of Candidate
        All that were tried.
    base : tuple of int
        Integrations and channels of the solve that they are made from.
    samples : int
        Cells (row, channel) that were held out.
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2, by what the first solve left.
    """

    terms: tuple[TermChoice, ...]
    by_direction: dict[str, tuple[int, int]]
    candidates: tuple[Candidate, ...]
    base: tuple[int, int]
    samples: int
    scale: Mapping[int, float]

    @property
    def shortest(self) -> tuple[int, int]:
        """Of dE's intervals: those of the solve."""
        return least(self.by_direction)

    def is_of(self, plan: Plan) -> bool:
        """Whether a class is solved with the dE that was chosen; one too faint for that has the longest intervals."""
        return next(term for term in plan.options.terms if term.direction_dependent) in self.terms


def wanted(terms: Sequence[TermChoice]) -> bool:
    """Whether an interval is to be chosen."""
    return any(
        dd_terms.AUTO in (term.time, term.freq) for term in terms if term.type != dd_terms.NONE
    )


def choose(
    plan: Plan,
    scale: Mapping[int, float],
    extra: dict[str, str],
    progress: Progress,
    *,
    spread: Spread = IN_PROCESS,
) -> Choice:
    """Choose the intervals that are ``auto``."""
    dependent = next(term for term in plan.options.terms if term.direction_dependent)
    part = replace(plan, rows=sample(plan.rows))
    shared = next((term for term in plan.options.terms if term.name == "G"), None)
    base = base_intervals(part, dependent, shared, scale)
    for _ in range(PROBES):
        first = replace(
            dependent,
            type="diag_complex",
            time=f"{base[0]}int" if base[0] else "inf",
            freq=f"{base[1]}chan" if base[1] else "spw",
        )
        probe = replace(part, options=replace(plan.options, terms=(first,), rounds=1))
        groups, _ = dd_solve.solve(
            probe, scale, extra, progress, name="probe", change=hide, spread=spread
        )
        progress.stage("choosing intervals")
        scale = scales(left(probe, groups), solved=True)
        # With weights that promised too much the solutions were of noise.
        longer = base_intervals(part, dependent, shared, scale)
        if cells(longer, part) <= cells(base, part):
            break
        base = longer
    tables = {key: Table.of(one) for key, one in groups.items()}
    return _decide(plan, part, tables, Score(part, scale, tables), base, scale)


def cells(interval: tuple[int, int], plan: Plan) -> int:
    """Integrations times channels of an interval, of which 0 is all."""
    n_chan, n_time = sizes(plan.rows)
    return (interval[0] or n_time) * (interval[1] or n_chan)


def left(plan: Plan, groups: Mapping[Key, Solutions]) -> dict[int, Noise]:
    """Noise of what a solve with a part of the data held out leaves of the rest."""
    noise = {ddid: Noise() for ddid in plan.rows.ddids}
    samples = 0
    with ms.opened(plan.rows.info.path) as main:
        for block in map(hide, blocks(plan.rows, plan.data_column, plan.models, main)):
            done = dd_apply.peel(
                block, groups, all_column=plan.all_column, directions=plan.used, subtract=(),
                gains_needed=plan.peeled,
            )  # fmt: skip
            weight = np.where(done.failed[..., None], 0, block.weight)[..., block.hands]
            samples += int(np.count_nonzero(weight))
            noise[block.description.id].add(
                done.residual[..., block.hands], weight, block.series, block.times_s,
                np.random.default_rng(int(block.rows[0])),
            )  # fmt: skip
    solved = sum(
        2
        * int(np.count_nonzero(~one.terms[-1].flags[..., 1:]))
        * min(2, one.terms[-1].gains.shape[-1])
        for one in groups.values()
    )
    for one in noise.values():
        one.freedom = min(0.9, solved / max(1, 2 * samples))
    return noise


def sample(rows: Rows) -> Rows:
    """Part of the rows: whole scans, evenly through the observation, `MOST_SAMPLES` at most.

    A single scan that is longer is cut: its first integrations are kept.
    """
    info = rows.info
    ddid = rows.ddids[0]
    n_chan = info.spws[info.data_descriptions[ddid].spw].freq_hz.size
    most = max(1, MOST_SAMPLES // n_chan)
    if rows.rows.size <= most:
        return rows
    scans, counts = np.unique(rows.scans, return_counts=True)
    n_scan = max(1, int(most / counts.mean()))
    kept = scans[np.unique(np.linspace(0, scans.size - 1, n_scan).round().astype(int))]
    chosen = rows.rows[np.isin(rows.scans, kept)]
    if chosen.size > 2 * most:
        with ms.opened(info.path) as main:
            times = ms.get(main, "TIME", chosen)
        chosen = chosen[times <= np.quantile(times, most / chosen.size)]
    return gather(info, chosen, combine_fields=rows.combine_fields)


def base_intervals(
    plan: Plan, dependent: TermChoice, shared: TermChoice | None, scale: Mapping[int, float]
) -> tuple[int, int]:
    """Shortest intervals whose solutions towards the brightest direction have `BASE_SNR`.

    Integrations and channels; 0 for a scan, and the spw. What the user fixed of dE stays; its time is
    parted where G's is to be chosen, which may be shorter.
    """
    n_chan, n_time = sizes(plan.rows)
    ddid = plan.rows.ddids[0]
    fixed_t = fixed_time(plan, dependent)
    if fixed_t is None:
        times = lengths(n_time)
    elif shared is None or shared.type == dd_terms.NONE or shared.time != dd_terms.AUTO:
        times = [fixed_t]
    else:
        times = [t for t in range(1, fixed_t + 1) if fixed_t % t == 0] or lengths(n_time)
    freqs = lengths(n_chan) if dependent.freq == dd_terms.AUTO else None
    brightest = max(
        (d for d in plan.directions if d.label in plan.peeled), key=lambda d: d.snr_total
    )
    spw = plan.rows.info.spws[plan.rows.info.data_descriptions[ddid].spw]
    width = float(np.median(np.abs(spw.width_hz)))
    fixed_f = dd_terms.freq_channels(dependent.freq, width, n_chan) if not freqs else 0
    one_cell = TermChoice("dE", "diag_complex", "1int", "1chan")
    meter = Meter.of(plan, brightest.column, one_cell)
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, (brightest.column,), main):
            meter.add(block, plan.rows.axes[block.key])
    snr = meter.snr(dict(scale))
    pairs = [(t, f) for t in times for f in (freqs if freqs else [fixed_f])]
    n_antenna = len(plan.rows.info.antennas)
    equations = (1 - HELD_OUT) * (n_antenna - 1) / 2 / max(1, len(plan.peeled))
    return shortest(pairs, (n_time, n_chan), snr=snr, equations=equations)


def fixed_time(plan: Plan, term: TermChoice) -> int | None:
    """Integrations of a time interval that the user gave, 0 for a scan; None of ``auto``."""
    if term.time == dd_terms.AUTO:
        return None
    return dd_terms.time_integrations(term.time, plan.rows.integration_s[plan.rows.ddids[0]])


def shortest(
    pairs: Sequence[tuple[int, int]], longest: tuple[int, int], *, snr: float, equations: float
) -> tuple[int, int]:
    """Smallest of some intervals (integrations, channels; 0: all) with `BASE_SNR` and `BASE_EQUATIONS`.

    Of those of one size less time and more channels: over a band, fringes of several directions differ
    more than over a minute, which keeps the solve from trading one for another.

    Parameters
    ----------
    longest : (int, int)
        All integrations and channels.
    snr, equations : float
        S/N, and equations per unknown, of one integration and channel.
    """
    n_time, n_chan = longest

    def order(pair: tuple[int, int]) -> tuple[int, int]:
        time, freq = pair[0] or n_time, pair[1] or n_chan
        return time * freq, time

    ordered = sorted(pairs, key=order)
    for pair in ordered:
        cells = (pair[0] or n_time) * (pair[1] or n_chan)
        # Information adds up: S/N grows with the root of what is put together.
        if snr * math.sqrt(cells) >= BASE_SNR and cells * equations >= BASE_EQUATIONS:
            return pair
    return ordered[-1]


def sizes(rows: Rows) -> tuple[int, int]:
    """Channels of the widest spw, and integrations of the longest scan."""
    info = rows.info
    n_chan = max(info.spws[info.data_descriptions[d].spw].freq_hz.size for d in rows.ddids)
    n_time = max(
        int(np.unique(axis.scans, return_counts=True)[1].max()) for axis in rows.axes.values()
    )
    return n_chan, n_time


def lengths(n: int) -> list[int]:
    """1, 2, 4 ... below ``n``, and 0 for all of it."""
    found = [2**k for k in range(0, max(1, n).bit_length()) if 2**k < n]
    return [*found, 0]


@dataclass(frozen=True)
class Table:
    """Gains towards all directions in one group at the base intervals.

    Parameters
    ----------
    gains : ndarray of complex, shape (time, freq, antenna, direction, hand)
        As solved; directions from 1.
    weight : ndarray, shape of gains
        Information of each; 0 where the solution failed.
    t_bins, f_bins : ndarray of int
        Base interval of each integration, and channel.
    scans : ndarray of int, shape (time,)
        Scan of each base interval.
    """

    gains: NDArray[np.complex128]
    weight: NDArray[np.float64]
    t_bins: NDArray[np.int64]
    f_bins: NDArray[np.int64]
    scans: NDArray[np.int64]

    @classmethod
    def of(cls, solutions: Solutions) -> Table:
        """Of the last term."""
        term = solutions.terms[-1]
        hands = [0, -1] if term.gains.shape[-1] > 1 else [0]
        gains = term.gains[:, :, :, 1:][..., hands]
        weight = term.information[:, :, :, 1:][..., hands]
        if not np.any(weight):
            weight = np.ones(gains.shape)
        weight = np.where(term.flags[:, :, :, 1:, None], 0.0, weight)
        gains = aligned(gains, weight)
        t_bins = solutions.time_bins[-1]
        first = np.unique(t_bins, return_index=True)[1]
        return cls(gains, weight, t_bins, solutions.freq_bins[-1], solutions.axis.scans[first])

    def longer(self, time: int, freq: int, base: tuple[int, int]) -> tuple[Bins, Bins]:
        """Longer bin of each base bin in time, which end with the scan, and in frequency; 0 is all."""
        count = np.arange(self.scans.size)
        starts = np.ones(self.scans.size, dtype=bool)
        starts[1:] = np.diff(self.scans) != 0
        since = count - np.maximum.accumulate(np.where(starts, count, 0))
        if time and base[0]:
            starts |= since % max(1, time // base[0]) == 0
        n_freq = self.gains.shape[1]
        step = max(1, freq // base[1]) if freq and base[1] else n_freq
        return np.cumsum(starts) - 1, np.arange(n_freq) // step


Bins = NDArray[np.int64]


def aligned(gains: NDArray[np.complex128], weight: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Turn the gains of all antennas together, interval by interval, so that means make sense.

    A phase that all antennas have in common drops out of every visibility: each solution has one of its
    own. Shape (time, freq, antenna, direction, hand); one antenna's phase first, then the mean's.
    """
    best = int(np.argmax(weight.sum(axis=(0, 1, 3, 4))))
    pattern = np.exp(1j * np.angle(gains[:, :, best : best + 1]))
    for _ in range(ALTERNATIONS):
        turned = gains * np.conj(pattern)
        mean = (weight * turned).sum(axis=(0, 1), keepdims=True)
        overlap = (weight * gains * np.conj(mean)).sum(axis=2, keepdims=True)
        pattern = np.exp(1j * np.angle(overlap))
    return np.asarray(gains * np.conj(pattern))


def nearest(
    table: Table,
    direction: int,
    dependent: tuple[Bins, Bins],
    shared: Bins | None,
    *,
    phase_only: bool = False,
) -> NDArray[np.complex128]:
    """``G(t) dE(t, f)`` nearest to the gains towards a direction, by weighted alternating least squares.

    Parameters
    ----------
    direction : int
        From 0.
    dependent : tuple of ndarray of int
        Bins of dE in time and frequency.
    shared : ndarray of int or None
        Bins of G in time, which is one for all channels; None without G.
    phase_only : bool
        G has amplitude 1.

    Returns
    -------
    ndarray of complex, shape (time, freq, antenna, hand)
        At the base intervals.
    """
    gains, weight = table.gains[:, :, :, direction], table.weight[:, :, :, direction]
    t_bins, f_bins = dependent
    # Channels of one interval count together: what follows is done on their sums.
    total = summed(weight * gains, f_bins, axis=1)
    weight = summed(weight, f_bins, axis=1)
    slow = _ratio(summed(total, t_bins), summed(weight, t_bins))
    if shared is None:
        return np.asarray(slow[t_bins[:, None], f_bins[None, :]])
    for _ in range(ALTERNATIONS):
        here = slow[t_bins]
        fast = _ratio(
            summed((total * np.conj(here)).sum(axis=1), shared),
            summed((weight * squared(here)).sum(axis=1), shared),
        )
        if phase_only:
            fast = fast / np.abs(fast)
        every = fast[shared][:, None]
        slow = _ratio(
            summed(total * np.conj(every), t_bins), summed(weight * squared(every), t_bins)
        )
    return np.asarray(slow[t_bins[:, None], f_bins[None, :]] * fast[shared][:, None])


def _ratio(top: NDArray[np.complex128], bottom: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Ratio of sums; 1 without weight."""
    ratio = np.ones(top.shape, dtype=np.complex128)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    # A sum of zeros is a gain of 0, which nothing can be divided by.
    ratio[ratio == 0] = 1
    return ratio


def _pick(
    sums: NDArray[np.float64], samples: int, parameters: Sequence[int]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fewest parameters whose score is as good as the best; also scores, excesses and their scatter."""
    score = sums.sum(axis=1) / (2 * max(1, samples))
    best = int(np.argmin(score))
    difference = (sums - sums[best]) / (2 * max(1, samples))
    sigma = np.sqrt(sums.shape[1]) * difference.std(axis=1)
    excess = score - score[best]
    noise = min(1.0, float(score[best]))
    allowed = np.clip(SIGMAS * sigma, COST * noise, MOST_COST * noise)
    free = np.flatnonzero(excess <= allowed)
    return int(min(free, key=lambda n: (parameters[int(n)], score[n]))), score, excess, sigma


def _decide(
    plan: Plan,
    part: Plan,
    tables: Mapping[Key, Table],
    score: Score,
    base: tuple[int, int],
    scale: Mapping[int, float],
) -> Choice:
    by_name = {term.name: term for term in plan.options.terms}
    dependent, shared = by_name["dE"], by_name.get("G")
    with_g = shared is not None and shared.type != dd_terms.NONE
    phase_only = with_g and shared is not None and shared.type == "phase"
    n_chan, n_time = sizes(part.rows)
    fixed = fixed_time(part, dependent)
    times = _multiples(base[0], n_time) if fixed is None else [fixed]
    freqs = _multiples(base[1], n_chan) if dependent.freq == dd_terms.AUTO else [base[1]]
    pairs = [(t, f) for t in times for f in freqs]
    # With the G that there will be: of unknown interval it takes what is fastest, and an amplitude follows no phase.
    bins_of_g: dict[Key, Bins | None] = dict.fromkeys(tables)
    if with_g and shared is not None and shared.type != "amplitude":
        of_g = fixed_time(part, shared)
        bins_of_g = {
            key: np.arange(one.scans.size) if of_g is None else one.longer(of_g, 0, base)[0]
            for key, one in tables.items()
        }
    found: list[Candidate] = []
    by_direction: dict[str, tuple[int, int]] = {}
    chosen: dict[str, dict[Key, tuple[Bins, Bins]]] = {}
    for number, label in enumerate(part.used):
        if label not in part.peeled:
            continue
        bins = [{key: one.longer(t, f, base) for key, one in tables.items()} for t, f in pairs]
        tried = [
            {
                key: nearest(one, number, pair[key], bins_of_g[key], phase_only=phase_only)
                for key, one in tables.items()
            }
            for pair in bins
        ]
        parameters = [_parameters(tables, pair) for pair in bins]
        sums = score.of(label, tried)
        winner, value, excess, sigma = _pick(sums, score.samples, parameters)
        by_direction[label] = pairs[winner]
        chosen[label] = bins[winner]
        found += [
            Candidate("dE", label, *pair, float(v), float(e), float(s), count)
            for pair, v, e, s, count in zip(pairs, value, excess, sigma, parameters, strict=True)
        ]
    terms = dict(by_name)
    of_solve = least(by_direction)
    if dependent.type != LENGTHENED:
        by_direction = dict.fromkeys(by_direction, of_solve)
    terms["dE"] = _with_intervals(dependent, *of_solve)
    if with_g and shared is not None and shared.time == dd_terms.AUTO:
        brightest = max(
            (d for d in part.directions if d.label in by_direction), key=lambda d: d.snr_total
        )
        number = list(part.used).index(brightest.label)
        lasts = [n for n in _multiples(base[0], n_time) if _apart(part, shared, n)] or [0]
        tried, parameters = [], []
        for t in lasts:
            bins_g = {key: one.longer(t, 0, base) for key, one in tables.items()}
            tried.append(
                {
                    key: nearest(
                        one,
                        number,
                        chosen[brightest.label][key],
                        bins_g[key][0],
                        phase_only=phase_only,
                    )
                    for key, one in tables.items()
                }
            )
            parameters.append(_parameters(tables, bins_g))
        sums = score.of(brightest.label, tried)
        winner, value, excess, sigma = _pick(sums, score.samples, parameters)
        found += [
            Candidate("G", "", t, 0, float(v), float(e), float(s), count)
            for t, v, e, s, count in zip(lasts, value, excess, sigma, parameters, strict=True)
        ]
        terms["G"] = _with_intervals(shared, lasts[winner], 0)
    elif with_g and shared is not None:
        terms["G"] = _with_intervals(shared, 0, 0)
    settled = tuple(terms[term.name] for term in plan.options.terms)
    return Choice(settled, by_direction, tuple(found), base, score.samples, scale)


def _multiples(base: int, n: int) -> list[int]:
    """The base (0 is all of ``n``), twice, four times ... it, below ``n``, and 0: what base intervals add up to."""
    return [base * k for k in lengths(-(-n // base)) if base * k < n] if base else [0]


def _apart(plan: Plan, shared: TermChoice, time: int) -> bool:
    """Whether G with this interval and K have phases of their own, so that both can be solved."""
    others = [term for term in plan.options.terms if term.name != "G"]
    try:
        check_intervals(plan.rows, [_with_intervals(shared, time, 0), *others])
    except OptionError:
        return False
    return True


def least(by_direction: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Shortest intervals of all directions: of the solve, since QuartiCal has one for all."""
    times, freqs = zip(*by_direction.values(), strict=True)
    return min(times, key=lambda n: n or math.inf), min(freqs, key=lambda n: n or math.inf)


def _parameters(tables: Mapping[Key, Table], bins: Mapping[Key, tuple[Bins, Bins]]) -> int:
    """Real numbers in the gains of all antennas and hands that have data."""
    count = 0
    for key, (t_bins, f_bins) in bins.items():
        gains = tables[key].gains
        count += 2 * int(t_bins[-1] + 1) * int(f_bins[-1] + 1) * gains.shape[2] * gains.shape[-1]
    return count


def _with_intervals(term: TermChoice, time: int, freq: int) -> TermChoice:
    """The term with intervals in place of ``auto``."""
    return replace(
        term,
        time=term.time if term.time != dd_terms.AUTO else (f"{time}int" if time else "inf"),
        freq=term.freq if term.freq != dd_terms.AUTO else (f"{freq}chan" if freq else "spw"),
    )


def lengthened(
    groups: Mapping[Key, Solutions], plan: Plan, by_direction: Mapping[str, tuple[int, int]]
) -> dict[Key, Solutions]:
    """Give each direction its own intervals: QuartiCal has one for all, the shortest of them.

    Only where dE's type is `LENGTHENED`; else all have the shortest (`_decide`).
    """
    base = least(by_direction)
    result = {}
    for key, solutions in groups.items():
        table, last = Table.of(solutions), solutions.terms[-1]
        gains = last.gains.copy()
        hands = [0, -1] if gains.shape[-1] > 1 else [0]
        for number, label in enumerate(plan.used):
            if label in by_direction and by_direction[label] != base:
                bins = table.longer(*by_direction[label], base)
                gains[:, :, :, number + 1, hands] = nearest(table, number, bins, None)
        result[key] = replace(solutions, terms=(*solutions.terms[:-1], replace(last, gains=gains)))
    return result
