"""What might be flagged, and why: from gain tables and calibrated data. Proposals only; nothing is flagged.

Brogan, Hunter & Fomalont (seed 002): an antenna with much lower S/N than the rest (tip 2), amplitudes more
than 20 % off (tip 5), random variation in time or of the ratio of the hands (tip 8).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core.measure import robust_rms
from peelkit.core.solutions import AMPLITUDE_LIMIT, WEAK_ANTENNA
from peelkit.io.caltable import GainTable

FILE = "flag_proposals.txt"

# Failed solutions of an antenna, as a share; and of the median of the array antenna below which it stands out.
MAX_FAILED, USUAL_FAILED = 0.5, 0.25

# Mean of exp(i change) that random phases do not reach, and that a good array does; from so many steps.
RANDOM_PHASES, STEADY_PHASES, FEWEST_STEPS = 0.5, 0.7, 8

# Amplitude over model, against its usual value, below which an interval is decorrelated; and how
# many of its usual deviations below.
DECORRELATED, DEVIATIONS = 0.7, 5.0


@dataclass(frozen=True)
class Proposal:
    """One line of CASA's flagdata list.

    Parameters
    ----------
    antenna : str
        Name; empty for all.
    timerange : str
        CASA's syntax; empty for all times.
    spw : str
        CASA's syntax; empty for all.
    reason : str
        For people.
    """

    antenna: str
    timerange: str
    spw: str
    reason: str

    @property
    def command(self) -> str:
        """The line, for flagdata with ``mode='list'``."""
        given = {"antenna": self.antenna, "timerange": self.timerange, "spw": self.spw}
        words = [f"{key}='{value}'" for key, value in given.items() if value]
        # A quote would end the string, whatever an antenna is called.
        return " ".join(["mode='manual'", *words, f"reason='{self.reason.replace(chr(39), ' ')}'"])

    def record(self) -> dict[str, str]:
        """For the sidecar."""
        return {**asdict(self), "command": self.command}


@dataclass(frozen=True)
class Grid:
    """Solutions of one spw on a grid.

    Parameters
    ----------
    time_s, scan : ndarray, shape (time,)
        Of the intervals.
    gain : ndarray of complex, shape (time, antenna, pol)
        NaN where it failed, or is not there.
    there : ndarray of bool, shape (time, antenna, pol)
        A solution was tried.
    snr : ndarray, shape (time, antenna, pol)
        NaN as the gain.
    """

    time_s: NDArray[np.float64]
    scan: NDArray[np.int64]
    gain: NDArray[np.complex128]
    there: NDArray[np.bool_]
    snr: NDArray[np.float64]


def grid(table: GainTable, spw: int, n_antenna: int, antennas: Iterable[int]) -> Grid:
    """Put the solutions of one spw, of the antennas that have data, on a grid."""
    mine = (table.spw == spw) & np.isin(table.antenna, list(antennas))
    times, first, place = np.unique(table.time_s[mine], return_index=True, return_inverse=True)
    shape = (times.size, n_antenna, table.gain.shape[1])
    gain, snr = np.full(shape, np.nan, dtype=complex), np.full(shape, np.nan)
    there = np.zeros(shape, dtype=bool)
    at = (place, table.antenna[mine])
    # Without data nothing was tried.
    there[at] = ~table.empty[mine]
    gain[at] = np.where(table.ok[mine], table.gain[mine], np.nan)
    snr[at] = np.where(table.ok[mine], table.snr[mine], np.nan)
    return Grid(times, table.scan[mine][first], gain, there, snr)


def proposals(
    table: GainTable,
    names: Sequence[str],
    *,
    calmode: str,
    antennas: Iterable[int],
    spw: str = "",
    max_failed: float = MAX_FAILED,
) -> list[Proposal]:
    """What the solutions of one table suggest to flag.

    Parameters
    ----------
    table : GainTable
        Of a G or T solve.
    names : sequence of str
        Of all antennas.
    calmode : str
        ``p``, ``a`` or ``ap``.
    antennas : iterable of int
        Those that have data.
    spw : str
        What was solved for, in CASA's words: written where something holds for all spws.
    max_failed : float
        Share of failed solutions from which an antenna is named.
    """
    used = sorted(int(antenna) for antenna in antennas)
    spws = sorted({int(number) for number in table.spw})
    # (antenna, kind, timerange) to the reasons, one for each spw.
    found: dict[tuple[int, str, str], dict[int, str]] = {}
    for number in spws:
        cells = grid(table, number, len(names), used)
        for antenna, kind, when, reason in [
            *_weak(cells, used),
            *_failing(cells, used, max_failed),
            *_random(cells, used),
            *(_amplitudes(cells, used) if calmode != "p" else []),
        ]:
            found.setdefault((antenna, kind, when), {})[number] = reason
    result = []
    for (antenna, _, when), reasons in found.items():
        if len(reasons) == len(spws):
            result.append(Proposal(names[antenna], when, spw, next(iter(reasons.values()))))
        else:
            result += [
                Proposal(names[antenna], when, str(number), reason)
                for number, reason in reasons.items()
            ]
    return result


Finding = tuple[int, str, str, str]


def _weak(cells: Grid, used: Sequence[int]) -> list[Finding]:
    """Antennas of less than half of the array's S/N."""
    median = _nanmedian(cells.snr)
    usual = np.nanmedian(median[used]) if np.isfinite(median[used]).any() else np.nan
    return [
        (a, "snr", "", f"S/N {median[a]:.1f}, median of the array {usual:.1f}")
        for a in used
        if median[a] < WEAK_ANTENNA * usual
    ]


def _failing(cells: Grid, used: Sequence[int], most: float) -> list[Finding]:
    """Antennas that fail where the others do not."""
    good = np.isfinite(cells.gain)
    # Of data of one hand CASA's tables have an empty second one.
    hands = good.any(axis=(0, 1))
    tried = cells.there[:, :, hands].sum(axis=(0, 2))
    failed = (cells.there & ~good)[:, :, hands].sum(axis=(0, 2))
    share = np.divide(failed, tried, out=np.zeros(len(tried)), where=tried > 0)
    if not used or np.median(share[used]) > USUAL_FAILED:
        # All fail: that is the interval, or the weather, and no antenna.
        return []
    return [
        (a, "failed", "", f"{failed[a]} of {tried[a]} solutions failed")
        for a in used
        if share[a] > most
    ]


def _random(cells: Grid, used: Sequence[int]) -> list[Finding]:
    """Antennas whose phases jump at random, in time or between the hands.

    Measured against every other antenna, so that it does not matter which is the reference: a good antenna
    is steady against most others, a bad one against none.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        phasor = cells.gain / np.abs(cells.gain)
    same = cells.scan[1:] == cells.scan[:-1]
    change = (phasor[1:] * phasor[:-1].conj())[same]
    found = _unsteady(change, used, "jumps", "phases jump at random from one interval to the next")
    if phasor.shape[2] == 2:
        ratio = phasor[:, :, :1] * phasor[:, :, 1:].conj()
        known = {finding[0] for finding in found}
        words = "the ratio of the two hands varies at random"
        found += [f for f in _unsteady(ratio, used, "hands", words) if f[0] not in known]
    return found


def _unsteady(
    phasor: NDArray[np.complex128], used: Sequence[int], kind: str, words: str
) -> list[Finding]:
    """Antennas whose ``phasor``, shape (time, antenna, pol), is random against most others'."""
    steady = np.full((phasor.shape[1], phasor.shape[1]), np.nan)
    for one, two in itertools.permutations(used, 2):
        values = phasor[:, one] * phasor[:, two].conj()
        counts = np.isfinite(values).sum(axis=0)
        good = counts >= FEWEST_STEPS
        if good.any():
            steady[one, two] = np.mean(np.abs(np.nansum(values, axis=0)[good] / counts[good]))
    known = [a for a in used if np.isfinite(steady[a]).any()]
    if len(known) < 3:
        return []
    value = {a: float(np.nanmedian(steady[a])) for a in known}
    usual = float(np.median(list(value.values())))
    if usual < STEADY_PHASES:
        # Nothing is steady: the interval is too long for the atmosphere, or the S/N too low.
        return []
    return [
        (a, kind, "", f"{words} (coherence {value[a]:.2f}, median of the array {usual:.2f})")
        for a in known
        if value[a] < RANDOM_PHASES
    ]


def _amplitudes(cells: Grid, used: Sequence[int]) -> list[Finding]:
    """Antennas, and intervals of antennas, with amplitudes more than 20 % off."""
    size = np.abs(cells.gain)
    if not np.isfinite(size[:, used]).any():
        return []
    usual = float(np.nanmedian(size[:, used]))
    median = _nanmedian(size) / usual
    found = []
    for a in used:
        if abs(median[a] - 1) > AMPLITUDE_LIMIT:
            found.append(
                (a, "amplitude", "", f"amplitude {median[a]:.2f} of the median of the array")
            )
            continue
        with np.errstate(invalid="ignore"):
            off = np.asarray((np.abs(size[:, a] / usual - 1) > AMPLITUDE_LIMIT).any(axis=1))
        if not off.any() or off.mean() > 0.5:
            continue
        for first, last in _runs(off):
            worst = size[first : last + 1, a] / usual
            value = worst.flat[np.nanargmax(np.abs(worst - 1))]
            when = timerange(*_ends(cells.time_s, cells.scan, first, last))
            found.append(
                (a, "amplitude", when, f"amplitude {value:.2f} of the median of the array")
            )
    return found


def decorrelated(
    time_s: NDArray[np.float64],
    half_s: float,
    ratio: NDArray[np.float64],
    names: Sequence[str],
    *,
    spw: str = "",
) -> list[Proposal]:
    """Time ranges in which the calibrated data are much weaker than their model.

    Parameters
    ----------
    time_s : ndarray, shape (time,)
        Middles of the intervals [MJD s].
    half_s : float
        Half of their length [s].
    ratio : ndarray, shape (time, antenna)
        Amplitude over model of each antenna's data, averaged with their phases; NaN without data. From
        `decorrelation.amplitude_over_model`.
    """
    result = []
    array = _nanmedian_rows(ratio)
    bad = _low(array)
    for first, last in _runs(bad):
        when = timerange(time_s[first] - half_s, time_s[last] + half_s)
        value = np.nanmin(array[first : last + 1])
        words = (
            f"decorrelated: amplitude {value:.2f} of the model, usually {np.nanmedian(array):.2f}"
        )
        result.append(Proposal("", when, spw, words))
    # Against the array, so that bad weather for all is not told of each antenna.
    with np.errstate(invalid="ignore", divide="ignore"):
        own = ratio / array[:, None]
    for a in range(ratio.shape[1]):
        low = _low(own[:, a]) & ~bad
        if low.mean() > 0.5:
            continue
        for first, last in _runs(low):
            when = timerange(time_s[first] - half_s, time_s[last] + half_s)
            value = np.nanmin(own[first : last + 1, a])
            words = (
                f"amplitude {value:.2f} of that of the array, usually {np.nanmedian(own[:, a]):.2f}"
            )
            result.append(Proposal(names[a], when, spw, words))
    return result


def _low(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a series lies far below its median, in itself and in its own scatter."""
    known = values[np.isfinite(values)]
    if known.size < 3:
        return np.zeros(values.shape, dtype=bool)
    middle, scatter = float(np.median(known)), robust_rms(known)
    with np.errstate(invalid="ignore"):
        return np.asarray(values < min(DECORRELATED * middle, middle - DEVIATIONS * scatter))


def write_list(path: Path, found: Sequence[Proposal]) -> None:
    """Write proposals for CASA's ``flagdata(mode='list', inpfile=...)`` and ``selfcal --flag-list``."""
    lines = [
        "# Proposed by peelkit selfcal; nothing of it has been flagged. Delete what you do not agree with, then:",
        f"#   peelkit selfcal MS --flag-list {path.name}",
        *(proposal.command for proposal in found),
    ]
    sidecar.write_text(path, "\n".join(lines) + "\n")


def timerange(start_s: float, end_s: float) -> str:
    """CASA's time range for an interval [MJD s, UTC], rounded outwards to 0.1 s."""
    ends = np.array([np.floor(start_s * 10), np.ceil(end_s * 10)]) / 10 / 86400.0
    return "~".join(
        str(text).replace("-", "/").replace("T", "/")
        for text in Time(ends, format="mjd", scale="utc", precision=1).isot
    )


def _ends(
    time_s: NDArray[np.float64], scan: NDArray[np.int64], first: int, last: int
) -> tuple[float, float]:
    """Ends [s] of a run of intervals: midway to the neighbours in the scan, else as far out as inwards."""
    before = (
        (time_s[first] - time_s[first - 1]) / 2
        if first and scan[first] == scan[first - 1]
        else None
    )
    after = (
        (time_s[last + 1] - time_s[last]) / 2
        if last + 1 < time_s.size and scan[last + 1] == scan[last]
        else None
    )
    # Alone in its scan: its length is not in the table; a second short of the neighbours' middles.
    if before is None and after is None:
        gaps = np.diff(time_s)
        before = after = float(gaps.min()) / 2 if gaps.size else 1.0
    low = before if before is not None else after
    high = after if after is not None else before
    assert low is not None and high is not None
    return float(time_s[first] - low), float(time_s[last] + high)


def _runs(bad: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(bad.astype(np.int8), prepend=0, append=0))
    return [(int(one), int(two) - 1) for one, two in zip(edges[::2], edges[1::2], strict=True)]


def _nanmedian(values: NDArray[Any]) -> NDArray[np.float64]:
    """Median of each antenna, shape (antenna,), of (time, antenna, pol); NaN without any."""
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    return _nanmedian_rows(flat)


def _nanmedian_rows(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.array(
        [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values]
    )
