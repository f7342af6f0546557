"""Plots of delays and bandpasses, each antenna by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.panels import Panels
from peelkit.core.plots import COLUMNS, HANDS, new_figure, save
from peelkit.io.caltable import CalTable

# Share of outlying values that may lie beyond an axis; they are drawn at its edge.
OUTLYING = 0.5


def delays(table: CalTable, path: Path) -> Path:
    """Delay of each antenna [ns]: each solution a point, polarisations side by side."""
    from matplotlib.ticker import FixedLocator

    flat = _columns(table)
    antennas, place = np.unique(flat["antenna"], return_inverse=True)
    figure = new_figure(figsize=(max(6.0, 0.32 * antennas.size + 1.5), 3.8))
    axis = figure.subplots()
    axis.axhline(0, color="0.8", lw=0.8, zorder=0)
    hands = np.unique(flat["hand"])
    for hand in hands:
        some = flat["hand"] == hand
        x = place[some] + (0.3 * hand / max(1, hands.size - 1) - 0.15 if hands.size > 1 else 0)
        axis.plot(
            x, flat["value"][some].real, "o", ms=4, color=HANDS[int(hand) % 2],
            label=f"polarisation {int(hand) + 1}",
        )  # fmt: skip
    axis.xaxis.set_major_locator(FixedLocator(range(antennas.size)))
    axis.set_xticklabels([table.antennas[int(a)] for a in antennas], rotation=90, fontsize=8)
    axis.set_xlabel("antenna")
    axis.set_ylabel("delay [ns]")
    axis.grid(axis="y", color="0.92", lw=0.6)
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return save(figure, path)


def bandpass(table: CalTable, stem: Path) -> list[Path]:
    """Amplitude and phase against frequency for each antenna.

    Returns
    -------
    list of Path
        ``<stem>.amplitude.png`` and ``<stem>.phase.png``.
    """
    flat = _columns(table)
    amplitude = np.abs(flat["value"])
    least, most = (float(np.percentile(amplitude, share)) for share in (OUTLYING, 100 - OUTLYING))
    pad = 0.1 * (most - least) or 0.1
    phase = np.degrees(np.angle(flat["value"]))
    reach = max(5.0, min(180.0, 1.15 * float(np.percentile(np.abs(phase), 100 - OUTLYING))))
    return [
        _panels(
            table, flat, amplitude, (max(0.0, least - pad), most + pad), float(np.median(amplitude)),
            "amplitude", Path(f"{stem}.amplitude.png"),
        ),
        _panels(table, flat, phase, (-reach, reach), 0.0, "phase [deg]", Path(f"{stem}.phase.png")),
    ]  # fmt: skip


def _columns(table: CalTable) -> dict[str, NDArray[Any]]:
    """All good solutions as columns: antenna, hand, freq [Hz], value."""
    pieces: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("antenna", "hand", "freq", "value")
    }
    for part in table.parts:
        row, chan, hand = np.nonzero(~part.failed)
        for name, values in (
            ("antenna", part.antenna[row]), ("hand", hand),
            ("freq", table.freq_hz[part.spw][chan]), ("value", part.values[~part.failed]),
        ):  # fmt: skip
            pieces[name].append(values)
    return {name: np.concatenate(values) for name, values in pieces.items()}


def _panels(
    table: CalTable,
    flat: dict[str, NDArray[Any]],
    y: NDArray[Any],
    ends: tuple[float, float],
    rest: float,
    label: str,
    path: Path,
) -> Path:
    antennas, panel = np.unique(flat["antenna"], return_inverse=True)
    # Narrow bands need MHz from their middle: ticks such as 1.41342 GHz would run into each other.
    middle = (flat["freq"].min() + flat["freq"].max()) / 2
    wide = np.ptp(flat["freq"]) > 0.02 * middle
    x = flat["freq"] / 1e9 if wide else (flat["freq"] - middle) / 1e6
    margin = 0.03 * float(np.ptp(x)) or 0.05
    shown = Panels(COLUMNS, antennas.size, (float(x.min()) - margin, float(x.max()) + margin), ends)
    width, height = 11.0, 1.5 * shown.rows + 0.9
    figure = new_figure(figsize=(width, height), layout=None)
    axis = figure.add_axes((0.8 / width, 0.65 / height, 10.1 / width, 1.5 * shown.rows / height))
    shown.draw(axis, [table.antennas[int(a)] for a in antennas], rest=rest, edges=[])
    hands = np.unique(flat["hand"])
    for hand in hands:
        some = flat["hand"] == hand
        axis.scatter(
            *shown.place(panel[some], x[some], np.clip(y[some], *ends)), s=4, lw=0,
            color=HANDS[int(hand) % 2], label=f"polarisation {int(hand) + 1}",
        )  # fmt: skip
    if hands.size > 1:
        figure.legend(loc="upper right", ncols=2, fontsize=8, frameon=False, markerscale=2)
    figure.supxlabel(
        "frequency [GHz]" if wide else f"frequency - {middle / 1e9:.6g} GHz [MHz]", fontsize=10
    )
    figure.supylabel(label, fontsize=10)
    return save(figure, path)
