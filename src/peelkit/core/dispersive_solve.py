"""Solve for delays and TEC of antennas, and write them as a CASA table that applycal takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core.dispersive import KINDS, Design
from peelkit.core.dispersive_data import Band, Interval, band, intervals, sums
from peelkit.core.dispersive_fit import Fit, fit
from peelkit.core.dispersive_search import LEAST_SNR
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.caltable_write import Bandpass, write_bandpass
from peelkit.progress import Progress
from peelkit.selection import Selection

# Degrees of freedom of a phase over frequency need so many channels at least: with fewer a peak of the
# search cannot be told from its neighbours.
LEAST_CHANNELS = 4


@dataclass(frozen=True)
class Report:
    """What was solved.

    Parameters
    ----------
    kind : str
        Of `peelkit.core.dispersive.KINDS`.
    table, record : Path
        The CASA table (``B Jones``), and its parameters as JSON.
    solutions, failed : int
        Of all intervals, antennas and hands; of one spw, since all spws have the same.
    minsnr : float
        What was demanded: `LEAST_SNR` at least.
    fits : tuple of Fit
        One for each interval.
    """

    kind: str
    table: Path
    record: Path
    solutions: int
    failed: int
    minsnr: float
    fits: tuple[Fit, ...]


def solve_term(
    work: ms.MsInfo,
    *,
    kind: str,
    out: Path,
    solint_s: float | None,
    refants: list[int],
    minsnr: float = LEAST_SNR,
    combine: str = "",
    selection: Selection | None = None,
    column: str = "DATA",
    progress: Progress | None = None,
) -> Report:
    """Solve for delays or TEC, against MODEL_DATA, over all selected spws together.

    Parameters
    ----------
    work : MsInfo
        The MS; it is only read.
    kind : str
        Of `peelkit.core.dispersive.KINDS`.
    out : Path
        Table to write; the parameters go to ``<out>.json``.
    solint_s : float or None
        Length of an interval [s]; None is one for each scan.
    refants : list of int
        Antennas to refer to, the first with data in each interval.
    minsnr : float
        Least S/N of an antenna and hand. `LEAST_SNR` if that is more: in noise a search finds more than
        a solve from a start does.
    combine : str
        ``scan`` and ``field`` as gaincal means them; ``spw`` is always so.
    selection : Selection, optional
        Field, spw with channels, scan, antenna, uvrange to solve on.
    column : str
        Where earlier tables have been applied, if there are any.

    Raises
    ------
    OptionError
        If there is no such kind.
    DataError
        If there are too few channels.
    """
    if kind not in KINDS:
        raise OptionError(f"gaintype {kind!r}: use one of {', '.join(KINDS)}.")
    selection = selection or Selection()
    work.require("MODEL_DATA", "predict a model into it first.")
    work.require(column, "apply the earlier tables first.")
    rows = ms.select_rows(work, selection)
    with ms.opened(work.path) as main:
        ddids = {description.id for description, chunk in ms.chunks(main, work, rows) if chunk.size}
    layout = band(work, ddids, work.channels(selection))
    _check_channels(work, kind, layout)
    design = Design.of(kind, layout.freq_hz, layout.hands)
    least = max(minsnr, LEAST_SNR)
    tables: list[Bandpass] = []
    fits: list[Fit] = []
    found = intervals(work, rows, solint_s=solint_s, combine=combine.split(","))
    for interval in found:
        cross = sums(work, interval, layout, column=column, uvrange=selection.uvrange)
        one = fit(cross, design, refants, minsnr=least, n_antenna=len(work.antennas))
        tables += _filed(one, interval, layout, design)
        fits.append(one)
        if progress is not None:
            progress.advance(interval.rows.size)
    record = out.with_name(f"{out.name}.json")
    live = np.array([item.snr > 0 for item in fits]).any(axis=0)
    write_bandpass(out, work.path, tables)
    sidecar.write_text(
        record, json.dumps(sidecar.clean(_record(work, design, found, fits, least)), indent=1)
    )
    return Report(
        kind, out, record, int(live.sum()) * len(fits),
        int(sum((item.failed & live).sum() for item in fits)), least, tuple(fits),
    )  # fmt: skip


def _check_channels(work: ms.MsInfo, kind: str, layout: Band) -> None:
    count = np.unique(layout.freq_hz[layout.used]).size
    if count < LEAST_CHANNELS:
        raise DataError(
            f"{work.path}: gaintype {kind} needs {LEAST_CHANNELS} channels or more, and {count} are selected; "
            "use G or T."
        )


def _filed(one: Fit, interval: Interval, layout: Band, design: Design) -> list[Bandpass]:
    """Gains of an interval, one entry for each spw."""
    gain = np.exp(1j * design.phases(one.x))
    return [
        Bandpass(
            interval.time_s, interval.length_s, interval.field, spw, interval.scan,
            interval.observation, one.reference, gain[:, layout.slices[ddid]], one.failed, one.snr,
        )
        for ddid, spw in layout.spws.items()
    ]  # fmt: skip


def _record(
    work: ms.MsInfo, design: Design, found: list[Interval], fits: list[Fit], least: float
) -> dict[str, Any]:
    """Parameters with their units, for the JSON beside the table."""
    return {
        "kind": design.kind,
        "phase_rad": "offset + 2 pi delay (frequency - reference) - 8.44797245e9 Hz tec / frequency",
        "reference_frequency_hz": design.centre_hz,
        "minsnr": least,
        "antennas": [antenna.name for antenna in work.antennas],
        "intervals": [
            {
                "time_mjd_s": interval.time_s,
                "interval_s": interval.length_s,
                "field": interval.field,
                "scan": interval.scan,
                "reference": work.antennas[one.reference].name if one.reference >= 0 else None,
                **_parameters(design, one),
                "snr": one.snr.tolist(),
                "failed": one.failed.tolist(),
            }
            for interval, one in zip(found, fits, strict=True)
        ],
    }


def _parameters(design: Design, one: Fit) -> dict[str, Any]:
    scales = {"tec": ("tec_tecu", 1.0), "delay": ("delay_ns", 1.0), "offset": ("offset_deg", 180 / math.pi)}  # fmt: skip
    result: dict[str, Any] = {}
    for part in KINDS[design.kind]:
        name, scale = scales[part]
        which = design.which(part)
        values = scale * one.x[:, which]
        errors = scale * one.error[:, which]
        if part == "offset":
            values = (values + 180.0) % 360.0 - 180.0
        lost: NDArray[np.bool_] = np.all(one.failed, axis=1, keepdims=True)
        for key, array in ((name, values), (f"{name}_error", errors)):
            # TEC has no hand.
            shown: NDArray[Any] = np.where(lost, np.nan, array)
            result[key] = (shown[:, 0] if part == "tec" else shown).tolist()
    return result
