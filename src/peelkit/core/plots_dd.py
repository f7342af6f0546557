"""Plots of direction-dependent gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_fields import towards
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.panels import Panels
from peelkit.core.plots import COLUMNS, compressed_minutes, file_label, save
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
        ``dE.<label>.<amplitude|phase>.<time|freq>.png`` for each direction that has a good solution.
    """
    names = plan.rows.info.antenna_labels
    made = []
    for label in plan.peeled:
        table = _table(towards(plan, groups, label))
        if not table["gain"].size:
            continue
        for quantity in ("amplitude", "phase"):
            for against in ("time", "freq"):
                path = folder / f"dE.{file_label(label)}.{quantity}.{against}.png"
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

    antennas, panel = np.unique(table["antenna"], return_inverse=True)
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
    margin = 0.05 * float(np.ptp(x)) or 0.05
    shown = Panels(
        COLUMNS, antennas.size, (float(x.min()) - margin, float(x.max()) + margin), (low, high)
    )
    edges = breaks if against == "time" else []
    gaps = ", gaps cut at dotted lines" if edges else ""
    figure, axis = shown.figure(
        [names[int(antenna)] for antenna in antennas], rest=rest, edges=edges, right=1.0,
        xlabel="frequency [GHz]" if against == "freq" else f"time [min]{gaps}",
        ylabel="amplitude" if quantity == "amplitude" else "phase [deg]",
    )  # fmt: skip
    width, height = figure.get_size_inches()
    scale = Normalize(float(colour.min()), float(colour.max()) or 1.0)
    inside = (y >= low) & (y <= high)
    drawn = [
        (inside & (table["hand"] == hand), MARKERS[int(hand) % 2], 5 if hand == 0 else 7)
        for hand in np.unique(table["hand"])
    ]
    drawn += [(y > high, "^", 16), (y < low, "v", 16)]
    for some, marker, size in drawn:
        if some.any():
            axis.scatter(
                *shown.place(panel[some], x[some], np.clip(y[some], low, high)),
                c=colour[some], cmap=COLOURS, norm=scale, clip_on=False,
                s=size, lw=0.6 if marker == "x" else 0, marker=marker,
            )  # fmt: skip
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS),
        cax=figure.add_axes((10.15 / width, 0.15, 0.2 / width, 0.7)),
    )
    bar.set_label("frequency [GHz]" if against == "time" else "time [min]", fontsize=9)
    words = ["dots and crosses: the two polarisations"] if np.any(table["hand"] > 0) else []
    words += [] if inside.all() else [f"triangles: {np.count_nonzero(~inside)} beyond the axis"]
    figure.suptitle(
        f"dE towards {label}" + (f" ({'; '.join(words)})" if words else ""),
        fontsize=10,
        y=1 - 0.08 / height,
    )
    return save(figure, path)
