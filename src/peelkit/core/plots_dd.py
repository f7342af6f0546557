"""Plots of direction-dependent gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_fields import towards
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.plots import COLUMNS, compressed_minutes, new_figure, save
from peelkit.io.gains import TermGains

if TYPE_CHECKING:
    from peelkit.core.dd_plan import Plan

MARKERS = ("o", "x")

# Colours of intervals in the plots: from early to late, from low to high.
COLOURS = "viridis"


def direction_gains(plan: Plan, groups: Mapping[Key, Solutions], folder: Path) -> list[Path]:
    """Amplitude and phase of dE against time and against frequency, for each antenna.

    Returns
    -------
    list of Path
        ``dE.<label>.<amplitude|phase>.<time|freq>.png`` for each direction that was solved.
    """
    names = [antenna.name for antenna in plan.rows.info.antennas]
    made = []
    for label in plan.peeled:
        table = _table(towards(plan, groups, label))
        for quantity in ("amplitude", "phase"):
            for against in ("time", "freq"):
                path = folder / f"dE.{label}.{quantity}.{against}.png"
                made.append(_panels(table, names, quantity, against, label, path))
    return made


def _table(terms: Sequence[TermGains]) -> dict[str, NDArray[Any]]:
    """All good dE solutions of one direction as columns: time, freq, antenna, hand, gain."""
    pieces: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("time", "freq", "antenna", "hand", "gain")
    }
    for term in terms:
        gains = term.gains[:, :, :, 0]
        hands = [0, gains.shape[-1] - 1] if gains.shape[-1] > 1 else [0]
        gains = gains[..., hands]
        good = ~term.flags[:, :, :, 0, None] & np.ones(gains.shape, dtype=bool)
        t, f, a, h = np.nonzero(good)
        for name, values in (
            ("time", term.time_s[t]), ("freq", term.freq_hz[f]), ("antenna", a), ("hand", h),
            ("gain", gains[good]),
        ):  # fmt: skip
            pieces[name].append(values)
    return {name: np.concatenate(values) for name, values in pieces.items()}


def _panels(
    table: Mapping[str, NDArray[Any]],
    names: list[str],
    quantity: str,
    against: str,
    label: str,
    path: Path,
) -> Path:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    antennas = np.unique(table["antenna"])
    rows = max(1, math.ceil(len(antennas) / COLUMNS))
    figure = new_figure(figsize=(11, 1.5 * rows + 1.0))
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    minutes, breaks = compressed_minutes(table["time"])
    ghz = table["freq"] / 1e9
    x, colour = (minutes, ghz) if against == "time" else (ghz, minutes)
    if quantity == "amplitude":
        y, rest = np.abs(table["gain"]), 1.0
        # A few wild values must not flatten the rest; they are drawn at the edge.
        least, most = (float(np.percentile(y, share)) for share in (0.5, 99.5))
        pad = max(0.05, 0.1 * (most - least))
        low, high = max(0.0, min(least, 1.0) - pad), max(most, 1.0) + pad
    else:
        y, rest = np.angle(table["gain"], deg=True), 0.0
        reach = max(5.0, min(180.0, 1.15 * float(np.percentile(np.abs(y), 99.5))))
        low, high = -reach, reach
    scale = Normalize(float(colour.min()), float(colour.max()) or 1.0)
    for axis, antenna in zip(axes.flat, antennas, strict=False):
        mine = table["antenna"] == antenna
        axis.axhline(rest, color="0.8", lw=0.8, zorder=0)
        if against == "time":
            for edge in breaks:
                axis.axvline(edge, color="0.85", lw=0.8, ls=":", zorder=0)
        for hand in np.unique(table["hand"]):
            some = mine & (table["hand"] == hand)
            axis.scatter(
                x[some], np.clip(y[some], low, high), c=colour[some], cmap=COLOURS, norm=scale,
                s=5 if hand == 0 else 7, lw=0 if hand == 0 else 0.6, marker=MARKERS[int(hand) % 2],
            )  # fmt: skip
        axis.set_title(names[int(antenna)], fontsize=9, pad=2)
        axis.tick_params(labelsize=8)
        axis.set_ylim(low, high)
    for axis in axes.flat[len(antennas) :]:
        axis.set_visible(False)
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=axes, fraction=0.02, pad=0.01, aspect=40
    )
    bar.set_label("frequency [GHz]" if against == "time" else "time [min]", fontsize=9)
    gaps = ", gaps cut at dotted lines" if breaks and against == "time" else ""
    figure.supxlabel("frequency [GHz]" if against == "freq" else f"time [min]{gaps}", fontsize=10)
    figure.supylabel("amplitude" if quantity == "amplitude" else "phase [deg]", fontsize=10)
    hands = "dots and crosses: the two polarisations" if np.any(table["hand"] > 0) else ""
    figure.suptitle(f"dE towards {label}" + (f" ({hands})" if hands else ""), fontsize=10)
    return save(figure, path)
