"""Are the weights true, and on request: make them so, with CASA's statwt or initweights.

"First ensure that your data have proper visibility weights ... If accurate visibility weights are not
available, or suspect for any reason, the CASA task statwt can be used" (seed 002, tip 1).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.scatter import Scatter, measure_scatter

log = logging.getLogger(__name__)

KEEP, STATWT, INITWEIGHTS = "keep", "statwt", "initweights"

# Weights whose scale is off by more than this promise another S/N than the data have.
SCALE_LIMIT = 2.0

# An antenna whose weights are off by more than this, against the others', is named; if its figure is that
# certain.
ANTENNA_LIMIT = 1.5
ANTENNA_SIGMA = 5.0

# Samples that a weight of statwt rests on: it is then good to 1 / sqrt(64) = 12 %.
SAMPLES = 64

# A weight this many times the typical one of its baseline is chance: of 64 samples it never is.
OUTLIER = 5.0

# statwt that flags more of the good data than this has not understood them.
MOST_FLAGGED = 0.1


@dataclass(frozen=True)
class SpwWeights:
    """Weights of one spw against the scatter of its data.

    Parameters
    ----------
    spw : int
        Which.
    ratio : float
        Weight times variance: 1 for true weights, above if they promise too much.
    antennas : dict of str to float
        The same for each antenna, by name, on its baselines with a typical one.
    off : list of str
        Antennas whose weights differ from the others' by more than `ANTENNA_LIMIT`.
    """

    spw: int
    ratio: float
    antennas: dict[str, float]
    off: list[str]


def judge(scatter: Scatter, names: Sequence[str]) -> SpwWeights:
    """Compare one spw's scatter with its weights."""
    ratio = scatter.antenna_ratio()
    count = scatter.antenna_count()
    found = np.flatnonzero(np.isfinite(ratio))
    typical = float(np.median(ratio[found])) if found.size else math.nan
    off = []
    for antenna in found:
        far = abs(math.log(ratio[antenna] / typical))
        # A variance from n real samples is good to sqrt(2 / n).
        if far > max(math.log(ANTENNA_LIMIT), ANTENNA_SIGMA * math.sqrt(2 / count[antenna])):
            off.append(names[int(antenna)])
    return SpwWeights(
        scatter.spw, scatter.ratio, {names[int(a)]: float(ratio[a]) for a in found}, off
    )


def check(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    *,
    column: str,
    channels: dict[int, list[tuple[int, int]]],
) -> list[SpwWeights]:
    """Weights of the unflagged data against their scatter, spw by spw."""
    names = info.antenna_labels
    return [
        judge(each, names) for each in measure_scatter(info, rows, column=column, channels=channels)
    ]


def warnings(found: Sequence[SpwWeights]) -> list[str]:
    """What is wrong with the weights, one line each, with the remedy."""
    lines = []
    scales = {
        each.spw: each.ratio
        for each in found
        if each.ratio > 0 and abs(math.log(each.ratio)) > math.log(SCALE_LIMIT)
    }
    if scales:
        listing = ", ".join(f"{ratio:.2g} in spw {spw}" for spw, ratio in list(scales.items())[:6])
        more = f" and {len(scales) - 6} more spws" if len(scales) > 6 else ""
        lines.append(
            f"weight times variance of the data is {listing}{more}, not 1: relative weights may be right, "
            "but S/N and chi-squared from them are not; 'selfcal --weights statwt' derives weights from the scatter"
        )
    off: dict[str, float] = {}
    for each in found:
        typical = float(np.median(list(each.antennas.values()))) if each.antennas else math.nan
        for name in each.off:
            factor = each.antennas[name] / typical
            if abs(math.log(factor)) > abs(math.log(off.get(name, 1.0))):
                off[name] = factor
    if off:
        listing = ", ".join(
            f"{name} ({factor:.2g} times)" for name, factor in list(off.items())[:6]
        )
        more = f" and {len(off) - 6} more" if len(off) > 6 else ""
        lines.append(
            f"the noise of some antennas is not what their weights say, against the others: {listing}{more}; "
            "'selfcal --weights statwt' derives weights from the scatter"
        )
    return lines


def statwt_timebin_s(
    info: ms.MsInfo, channels: dict[int, list[tuple[int, int]]], integration_s: float
) -> float:
    """Time over which statwt takes its scatter [s]: `SAMPLES` samples of the narrowest spw.

    Its own default, one integration, flags all data of one channel (measured: FLAG 0 to 1).
    """
    fewest = min(
        sum(last - first + 1 for first, last in ranges) for ranges in channels.values() if ranges
    )
    return integration_s * max(1, math.ceil(SAMPLES / fewest))


def reweigh(
    work: ms.MsInfo,
    how: str,
    casa: engine.Casa,
    *,
    integration_s: float,
    column: str = "DATA",
    fitspw: str = "",
    channels: dict[int, list[tuple[int, int]]] | None = None,
) -> dict[str, Any]:
    """Replace the weights of a working copy.

    Parameters
    ----------
    work : MsInfo
        The copy, whose CORRECTED_DATA, if it has one, is its DATA; WEIGHT, SIGMA and (where it is filled)
        WEIGHT_SPECTRUM change, and FLAG where statwt flags.
    how : str
        `STATWT` or `INITWEIGHTS`; with `KEEP` nothing is done.
    integration_s : float
        Of the data [s].
    fitspw : str
        Spws and channels that statwt takes the scatter of, CASA's syntax; leave lines out.
    channels : dict, optional
        The same, as ranges for each spw; all if not given.

    Returns
    -------
    dict
        Of ``how``, ``timebin_s``, ``unflagged`` (samples before), ``flagged`` (new flags), ``capped`` (weights
        far too high by chance), ``warnings``, and ``before`` and ``after``: weight times variance for each spw.

    Raises
    ------
    DataError
        If statwt would flag more than `MOST_FLAGGED` of the unflagged data.
    """
    rows = ms.every_row(work)
    every = {n: [(0, spw.freq_hz.size - 1)] for n, spw in enumerate(work.spws)}
    looked = {**every, **(channels or {})}
    before = check(work, rows, column=column, channels=looked)
    report: dict[str, Any] = {
        "how": how,
        "timebin_s": None,
        "flagged": 0,
        "capped": 0,
        "unflagged": unflagged(work),
        "warnings": [],
        "before": [asdict(each) for each in before],
        "after": [asdict(each) for each in before],
    }
    if how == KEEP:
        return report
    if how == STATWT:
        present = {each.spw for each in before}
        used = {spw: ranges for spw, ranges in looked.items() if spw in present} or looked
        report["timebin_s"] = statwt_timebin_s(work, used, integration_s)
        engine.derive_weights(
            casa, work.path, timebin_s=report["timebin_s"], fitspw=fitspw,
            corrected="CORRECTED_DATA" in work.columns,
        )  # fmt: skip
    else:
        with ms.opened(work.path) as main:
            spectrum = ms.has_cells(main, "WEIGHT_SPECTRUM")
        engine.nominal_weights(casa, work.path, spectrum=spectrum)
    report["capped"] = _mend(work, derived=how == STATWT)
    report["flagged"] = report["unflagged"] - unflagged(work)
    if report["flagged"] > MOST_FLAGGED * report["unflagged"]:
        share = report["flagged"] / max(report["unflagged"], 1)
        raise DataError(
            f"{work.path}: {how} would flag {100 * share:.0f} % of the unflagged data; keep the weights with "
            "--weights keep, or take initweights."
        )
    report["after"] = [
        asdict(each)
        for each in check(ms.read_info(work.path), rows, column=column, channels=looked)
    ]
    return report


def unflagged(work: ms.MsInfo) -> int:
    """Samples that neither FLAG nor FLAG_ROW takes away."""
    total = 0
    with ms.opened(work.path) as main:
        for _, chunk in ms.chunks(main, work, ms.every_row(work), bytes_per_sample=2):
            flag = ms.get(main, "FLAG", chunk) | ms.get(main, "FLAG_ROW", chunk)[:, None, None]
            total += int((~flag).sum())
    return total


def _mend(work: ms.MsInfo, *, derived: bool) -> int:
    """Make SIGMA follow, and with ``derived`` weights mend what statwt leaves; returns how many were capped.

    statwt means zero for data that were flagged before, of which it has no scatter, and sigma -1; but without
    a WEIGHT_SPECTRUM it leaves chance values there, NaN among them (measured). A bin of few samples, as at
    the end of a scan, may have hardly any scatter by chance, and a weight hundreds of times too high: that
    becomes the typical weight of its baseline.
    """
    typical = _typical(work) if derived else None
    capped = 0
    with ms.opened(work.path, write=True) as main:
        spectrum = ms.has_cells(main, "WEIGHT_SPECTRUM")
        for description, chunk in ms.chunks(main, work, ms.every_row(work)):
            weight, good = _weight(main, chunk, derived=derived)
            new = np.where(good, weight, 0)
            if typical is not None:
                usual = typical[description.id][
                    ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
                ]
                over = good & (weight > OUTLIER * usual)
                new = np.where(over, usual, new)
                capped += int(over.sum())
            ms.put(main, "WEIGHT", chunk, new.astype(np.float32))
            sigma = np.where(good, np.where(good, new, 1) ** -0.5, -1)
            ms.put(main, "SIGMA", chunk, sigma.astype(np.float32))
            if spectrum:
                values = ms.get(main, "WEIGHT_SPECTRUM", chunk)
                factor = np.divide(new, weight, out=np.ones_like(weight), where=good)
                wrong = ~np.isfinite(values) | (values < 0)
                values = np.where(wrong, 0, values * factor[:, None])
                ms.put(main, "WEIGHT_SPECTRUM", chunk, values.astype(np.float32))
    return capped


def _weight(
    main: Any, chunk: NDArray[np.int64], *, derived: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """WEIGHT, shape (row, corr), and where it means something."""
    weight = ms.get(main, "WEIGHT", chunk).astype(np.float64)
    good = np.isfinite(weight) & (weight > 0)
    if derived:
        flagged = ms.get(main, "FLAG_ROW", chunk)[:, None] | ms.get(main, "FLAG", chunk).all(axis=1)
        good &= ~flagged
    return weight, good


def _typical(work: ms.MsInfo) -> dict[int, NDArray[np.float64]]:
    """Typical weight of each baseline, shape (antenna, antenna, corr), by data description."""
    sums: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    with ms.opened(work.path) as main:
        for description, chunk in ms.chunks(main, work, ms.every_row(work)):
            weight, good = _weight(main, chunk, derived=True)
            shape = (len(work.antennas), len(work.antennas), weight.shape[1])
            total, count = sums.setdefault(description.id, (np.zeros(shape), np.zeros(shape)))
            at = (ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk))
            np.add.at(total, at, np.log(np.where(good, weight, 1)))
            np.add.at(count, at, good)
    return {number: _product(total, count) for number, (total, count) in sums.items()}


def _product(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights as products of the antennas': ``mean_p + mean_q - mean`` of the logarithms.

    A baseline's own mean would not do: with short scans it rests on two or three weights of statwt.

    Parameters
    ----------
    total, count : ndarray, shape (antenna, antenna, corr)
        Sums of logarithms of weights, and their numbers, for antenna 1 and antenna 2.
    """
    total, count = total + total.swapaxes(0, 1), count + count.swapaxes(0, 1)
    every = count.sum(axis=(0, 1))
    mean = np.divide(total.sum(axis=(0, 1)), every, out=np.zeros_like(every), where=every > 0)
    number = count.sum(axis=1)
    own = np.divide(total.sum(axis=1), number, out=np.zeros_like(number), where=number > 0)
    return np.exp(own[:, None] + own[None, :] - mean)


def columns(path: Path) -> list[str]:
    """Columns that `reweigh` changes and the result takes over."""
    with ms.opened(path) as main:
        spectrum = ["WEIGHT_SPECTRUM"] if ms.has_cells(main, "WEIGHT_SPECTRUM") else []
    return ["WEIGHT", "SIGMA", *spectrum]
