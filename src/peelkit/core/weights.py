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
WAYS = (KEEP, STATWT, INITWEIGHTS)

# Weights whose scale is off by more than this promise another S/N than the data have.
SCALE_LIMIT = 2.0

# An antenna whose weights are off by more than this, against the others', is named; if its figure is that
# certain.
ANTENNA_LIMIT = 1.5
ANTENNA_SIGMA = 5.0

# Samples that a weight of statwt rests on: it is then good to 1 / sqrt(64) = 12 %.
SAMPLES = 64

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
    names = [antenna.name for antenna in info.antennas]
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
        Of ``how``, ``timebin_s``, ``flagged`` (new flags), ``unflagged`` (samples before), ``warnings``, and
        ``before`` and ``after``: weight times variance for each spw.

    Raises
    ------
    DataError
        If statwt would flag more than `MOST_FLAGGED` of the unflagged data.
    """
    rows = np.arange(work.n_rows)
    every = {n: [(0, spw.freq_hz.size - 1)] for n, spw in enumerate(work.spws)}
    looked = {**every, **(channels or {})}
    before = check(work, rows, column=column, channels=looked)
    report: dict[str, Any] = {
        "how": how,
        "timebin_s": None,
        "flagged": 0,
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
    _mend(work, idle_too=how == STATWT)
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
        for _, chunk in ms.chunks(main, work, np.arange(work.n_rows), bytes_per_sample=2):
            flag = ms.get(main, "FLAG", chunk) | ms.get(main, "FLAG_ROW", chunk)[:, None, None]
            total += int((~flag).sum())
    return total


def _mend(work: ms.MsInfo, *, idle_too: bool) -> None:
    """Give what is no number, and with ``idle_too`` all that is flagged, the weight zero; SIGMA follows.

    statwt means zero for data that were flagged before, of which it has no scatter, and sigma -1; but
    without a WEIGHT_SPECTRUM it leaves chance values there, NaN among them (measured).
    """
    with ms.opened(work.path, write=True) as main:
        spectrum = ms.has_cells(main, "WEIGHT_SPECTRUM")
        for _, chunk in ms.chunks(main, work, np.arange(work.n_rows)):
            flag = ms.get(main, "FLAG", chunk)
            row_flag = ms.get(main, "FLAG_ROW", chunk)
            # FLAG_ROW is not peelkit's to change: what statwt flagged is in FLAG.
            idle = (flag.all(axis=1) | row_flag[:, None]) & idle_too
            weight = ms.get(main, "WEIGHT", chunk)
            good = ~idle & np.isfinite(weight) & (weight > 0)
            weight = np.where(good, weight, 0).astype(weight.dtype)
            sigma = np.where(good, np.where(good, weight, 1) ** -0.5, -1).astype(weight.dtype)
            ms.put(main, "WEIGHT", chunk, weight)
            ms.put(main, "SIGMA", chunk, sigma)
            if spectrum:
                values = ms.get(main, "WEIGHT_SPECTRUM", chunk)
                wrong = ~np.isfinite(values) | (values < 0)
                ms.put(
                    main, "WEIGHT_SPECTRUM", chunk, np.where(wrong, 0, values).astype(values.dtype)
                )


def columns(path: Path) -> list[str]:
    """Columns that `reweigh` changes and the result takes over."""
    with ms.opened(path) as main:
        spectrum = ["WEIGHT_SPECTRUM"] if ms.has_cells(main, "WEIGHT_SPECTRUM") else []
    return ["WEIGHT", "SIGMA", *spectrum]
