"""Plots of self-calibration: gains, S/N per antenna, the rounds, images before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import Mask
from peelkit.core.panels import Panels
from peelkit.io.caltable import GainTable
from peelkit.io.image import Image

# Okabe and Ito's colours: told apart by everybody.
HANDS = ("#0072B2", "#D55E00")
GOOD, BAD = "#009E73", "#CC79A7"
COLUMNS = 5
# Of spws.
MARKERS = ("o", "s", "^", "v", "D", "x")


def gains(
    table: GainTable, names: Sequence[str], stem: Path, *, calmode: str, rest: float = 1.0
) -> list[Path]:
    """Phase (and amplitude) against time for each antenna, and S/N per antenna.

    Parameters
    ----------
    rest : float
        Amplitude that is marked: 1 in self-calibration.

    Returns
    -------
    list of Path
        ``<stem>.phase.png``, ``<stem>.amplitude.png`` if amplitudes were solved, ``<stem>.snr.png``.
    """
    made = []
    good = np.where(table.ok, table.gain, np.nan)
    if calmode in ("p", "ap"):
        made.append(
            _per_antenna(
                table, np.degrees(np.angle(good)), names,
                Path(f"{stem}.phase.png"), "phase [deg]", rest=0.0,
            )
        )  # fmt: skip
    if calmode in ("a", "ap"):
        made.append(
            _per_antenna(
                table,
                np.abs(good),
                names,
                Path(f"{stem}.amplitude.png"),
                "amplitude",
                rest=rest,
            )
        )
    # CASA gives delays (K) none.
    if np.any(table.snr > 0):
        made.append(_snr(table, names, Path(f"{stem}.snr.png")))
    return made


def file_label(label: str) -> str:
    """A label as a part of a file's name."""
    return re.sub(r"[^\w.+-]+", "_", label)


def save(figure: Any, path: Path) -> Path:
    """Write a figure; returns where."""
    figure.savefig(path, dpi=110)
    return path


def new_figure(*, layout: Literal["constrained"] | None = "constrained", **keywords: Any) -> Any:
    """Empty figure; layout None leaves it to the caller, as for Panels."""
    from matplotlib.figure import Figure

    # A Figure of its own, without pyplot: no global state, no display.
    return Figure(layout=layout, **keywords)


def _per_antenna(
    table: GainTable,
    values: NDArray[Any],
    names: Sequence[str],
    path: Path,
    label: str,
    *,
    rest: float,
) -> Path:
    from matplotlib.lines import Line2D

    antennas = [a for a in np.unique(table.antenna) if table.ok[table.antenna == a].any()]
    minutes, breaks = compressed_minutes(table.time_s)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Phases are about 0, amplitudes are not.
    if rest == 0:
        top = max(1.0, min(180.0, 1.15 * max(abs(low), abs(high))))
        low, high = -top, top
    else:
        pad = max(0.02 * rest, 0.1 * (high - low))
        low, high = min(low, rest) - pad, max(high, rest) + pad
    margin = 0.05 * float(np.ptp(minutes)) or 0.05
    shown = Panels(
        COLUMNS, len(antennas), (float(minutes.min()) - margin, float(minutes.max()) + margin), (low, high)
    )  # fmt: skip
    gaps = ", gaps between scans cut at dotted lines" if breaks else ""
    figure, axis = shown.figure(
        [names[int(a)] for a in antennas], rest=rest, edges=breaks, xlabel=f"time [min]{gaps}", ylabel=label
    )  # fmt: skip
    spws = np.unique(table.spw)
    # One marker a solution; many solutions want small ones.
    size = 3.5 if np.unique(table.time_s).size < 40 else 2.0
    for panel, antenna in enumerate(antennas):
        for number, spw in enumerate(spws):
            mine = (table.antenna == antenna) & (table.spw == spw)
            for hand in range(values.shape[1]):
                axis.plot(
                    *shown.place(panel, minutes[mine], values[mine, hand]), color=HANDS[hand % 2],
                    ls="none", marker=MARKERS[number % len(MARKERS)], ms=size, mew=0.6, clip_on=False,
                    # What lies below is seen through.
                    mfc="none" if hand else None,
                )  # fmt: skip
    keys = [
        Line2D([], [], color=HANDS[hand], ls="none", marker="o", ms=4, mfc="none" if hand else None,
               label=f"polarisation {hand + 1}")
        for hand in range(values.shape[1]) if values.shape[1] > 1
    ]  # fmt: skip
    if 1 < spws.size <= len(MARKERS):
        keys += [
            Line2D([], [], color="0.3", ls="none", marker=marker, ms=4, label=f"spw {spw}")
            for marker, spw in zip(MARKERS, spws, strict=False)
        ]
    upper = 1 - 0.02 / figure.get_size_inches()[1]
    if keys:
        figure.legend(
            handles=keys, loc="upper right", bbox_to_anchor=(1, upper), ncols=len(keys),
            fontsize=8, frameon=False, borderaxespad=0, handletextpad=0.2,
        )  # fmt: skip
    without = [names[int(a)] for a in np.unique(table.antenna) if a not in antennas]
    if without:
        figure.text(0.01, upper, f"without solutions: {', '.join(without)}", fontsize=8, va="top")
    return save(figure, path)


def model_check(check: dict[str, Any], path: Path) -> Path:
    """Amplitude of the corrected data along the model, and of the model, against baseline length."""
    bins = check["bins"]
    edges = [item["uv_m"][0] for item in bins] + [bins[-1]["uv_m"][1]]
    figure = new_figure(figsize=(7, 5.5))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.stairs(
        [item["model_jy"] for item in bins], edges, baseline=None, color=HANDS[0], lw=2, label="model, rms",
    )  # fmt: skip
    middles = [sum(item["uv_m"]) / 2 for item in bins]
    errors = [item["error"] * item["model_jy"] for item in bins]
    above.errorbar(
        middles, [item["data_jy"] for item in bins], errors, fmt="o", color=HANDS[1], ms=4,
        label="corrected data, along the model",
    )  # fmt: skip
    above.set_ylabel("amplitude [Jy]")
    above.set_ylim(
        0, 1.1 * max(max(item["model_jy"], item["data_jy"] * (1 + item["error"])) for item in bins)
    )
    above.legend(frameon=False, fontsize=9)
    below.axhline(0.0, color="0.8", lw=0.8)
    # As a difference: a good model is off by parts in ten thousand.
    excess = [100 * (item["ratio"] - 1) for item in bins]
    below.errorbar(
        middles, excess, [100 * item["error"] for item in bins], fmt="o", color="0.2", ms=4
    )
    if check["lacking_below_m"] is not None:
        below.axvspan(0, check["lacking_below_m"], color=BAD, alpha=0.15, lw=0)
        below.text(
            check["lacking_below_m"], 0.98, " the model lacks flux", va="top", fontsize=9,
            transform=below.get_xaxis_transform(),
        )  # fmt: skip
    below.set_ylabel("data - model [%]")
    below.set_xlabel("projected baseline [m]")
    below.set_xlim(left=0)
    return save(figure, path)


def compressed_minutes(time_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Minutes since the start with long gaps cut out, and where they were cut."""
    moments = np.unique(time_s)
    steps = np.diff(moments)
    if steps.size == 0:
        return np.zeros_like(time_s), []
    usual = float(np.median(steps))
    long = steps > max(5 * usual, 120.0)
    if not long.any():
        return (time_s - moments[0]) / 60, []
    kept = np.where(long, 3 * usual if usual < 120 else 60.0, steps)
    shown = np.concatenate([[0.0], np.cumsum(kept)]) / 60
    breaks = [float((shown[i] + shown[i + 1]) / 2) for i in np.flatnonzero(long)]
    return shown[np.searchsorted(moments, time_s)], breaks


def _snr(table: GainTable, names: Sequence[str], path: Path) -> Path:
    from matplotlib.ticker import FixedLocator, LogFormatter

    antennas = [int(a) for a in np.unique(table.antenna) if table.ok[table.antenna == a].any()]
    figure = new_figure(figsize=(max(6.0, 0.32 * len(antennas) + 1.5), 3.6))
    axis = figure.subplots()
    dots: dict[str, Any] = {}
    for place, antenna in enumerate(antennas):
        mine = table.antenna == antenna
        for hand in range(table.snr.shape[1]):
            good = table.snr[mine, hand][table.ok[mine, hand]]
            if good.size:
                x = place + (0.15 if hand else -0.15) * (table.snr.shape[1] > 1)
                axis.plot([x, x], [good.min(), good.max()], color=HANDS[hand % 2], lw=1)
                (dots[f"polarisation {hand + 1}"],) = axis.plot(
                    x, np.median(good), "o", ms=4, color=HANDS[hand % 2]
                )
    tried = ~table.empty
    failed = (table.failed & tried).sum() / max(1, tried.sum())
    axis.set_yscale("log")
    for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        set_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    if len(dots) > 1:
        figure.legend(
            dots.values(),
            dots.keys(),
            loc="outside lower right",
            ncols=2,
            fontsize=8,
            frameon=False,
        )
    axis.xaxis.set_major_locator(FixedLocator(range(len(antennas))))
    axis.set_xticklabels([names[a] for a in antennas], rotation=90, fontsize=8)
    axis.set_ylabel("S/N of the solutions")
    axis.set_xlabel("antenna")
    axis.set_title(
        f"S/N per antenna: median (dot) and range, per polarisation; {100 * failed:.0f} % failed",
        fontsize=10,
    )
    axis.grid(axis="y", which="both", color="0.92", lw=0.6)
    return save(figure, path)


def rounds(first: dict[str, Any], done: Sequence[dict[str, Any]], path: Path) -> Path:
    """Dynamic range and rms round by round: accepted filled, rejected open."""
    shown = [item for item in done if item["image"]]
    figure = new_figure(figsize=(max(6.0, 0.9 * len(shown) + 2.5), 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True)
    labels = ["first", *(f"{item['solint']}\n{item['calmode']}" for item in shown)]
    for axis, key, factor, label in (
        (upper, "dynamic_range", 1.0, "dynamic range"),
        (lower, "rms_jy_beam", 1e3, "rms [mJy/beam]"),
    ):
        values = [first[key] * factor, *(item[key] * factor for item in shown)]
        kept = [0, *(i + 1 for i, item in enumerate(shown) if item["accepted"])]
        axis.plot(kept, [values[i] for i in kept], "-", color=GOOD, lw=1.2, zorder=1)
        axis.plot(kept, [values[i] for i in kept], "o", color=GOOD, label="accepted", zorder=2)
        rejected = [i for i in range(len(values)) if i not in kept]
        if rejected:
            axis.plot(
                rejected,
                [values[i] for i in rejected],
                "o",
                mfc="white",
                color=BAD,
                label="rejected",
            )
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.12 * max(values))
        axis.grid(axis="y", color="0.92", lw=0.6)
    lower.set_xticks(range(len(labels)), labels, fontsize=8)
    lower.set_xlabel("solution interval and mode")
    upper.legend(frameon=False, fontsize=8, loc="lower right")
    return save(figure, path)


def images(shown: Sequence[Image], titles: Sequence[str], mask: Mask, path: Path) -> Path:
    """Whole images side by side on one colour scale, a few times the first one's noise."""
    from peelkit.core.measure import robust_rms
    from peelkit.core.plots_images import before_after

    rms = robust_rms(shown[0].data[~mask])
    ny, nx = shown[0].data.shape
    labels = [
        f"{title}\nrms {1e3 * robust_rms(image.data[~mask]):.3g} mJy/beam"
        for title, image in zip(titles, shown, strict=True)
    ]
    before_after(
        shown, labels, path, centre=(nx / 2, ny / 2), half_width_pixels=max(nx, ny) // 2, rms=rms
    )
    return path
