"""Plots of how intervals were chosen: chi-squared of data held out of the solve, for each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peelkit.core import dd_auto, dd_terms
from peelkit.core.plots import BAD, file_label, new_figure, save
from peelkit.core.plots_dd import COLOURS

if TYPE_CHECKING:
    from peelkit.core.dd_auto import Candidate, Choice
    from peelkit.core.dd_plan import Plan


def intervals(plan: Plan, chosen: Choice, folder: Path) -> list[Path]:
    """Excess of chi-squared above the best against the time interval, for dE and for G.

    Returns
    -------
    list of Path
        ``intervals.<label>.png`` for each direction that was solved.
    """
    made = []
    for label in chosen.by_direction:
        found = [one for one in chosen.candidates if one.direction == label]
        if len(found) > 1:
            path = folder / f"intervals.{file_label(label)}.png"
            made.append(_plot(plan, chosen, label, found, path))
    return made


def _plot(plan: Plan, chosen: Choice, label: str, found: Sequence[Candidate], path: Path) -> Path:
    shared = [one for one in chosen.candidates if one.term == "G"]
    figure = new_figure(figsize=(10.5 if shared else 6.5, 4.6))
    axes = figure.subplots(1, 2 if shared else 1, sharey=True, squeeze=False)[0]
    _panel(axes[0], plan, found, chosen.by_direction[label], f"dE towards {label}")
    if shared:
        text = next(term.time for term in chosen.terms if term.name == "G")
        integration = plan.rows.integration_s[plan.rows.ddids[0]]
        g_time = dd_terms.time_integrations(text, integration)
        _panel(axes[1], plan, shared, (g_time, 0), "G, with dE as chosen")
    figure.supylabel("chi-squared of data held out, above the best", fontsize=10)
    figure.supxlabel("time interval", fontsize=10)
    return save(figure, path)


def _panel(
    axis: Any, plan: Plan, found: Sequence[Candidate], winner: tuple[int, int], title: str
) -> None:
    from matplotlib import colormaps

    integration = plan.rows.integration_s[plan.rows.ddids[0]]
    n_time = dd_auto.sizes(plan.rows)[1]
    best = min(one.score for one in found)
    free = dd_auto.COST * best
    freqs = sorted({one.freq for one in found}, key=lambda n: n or np.inf)
    colours = colormaps[COLOURS](np.linspace(0.0, 0.85, len(freqs)))
    axis.axhspan(0, free, color="0.92", zorder=0)
    for freq, colour in zip(freqs, colours, strict=True):
        line = sorted(
            (one for one in found if one.freq == freq), key=lambda one: one.time or n_time
        )
        axis.errorbar(
            [one.time or n_time for one in line], [one.excess for one in line],
            yerr=[one.sigma for one in line], fmt="o-", ms=4, lw=1.2, elinewidth=0.8,
            color=colour, label=_channels(freq) if len(freqs) > 1 else None,
        )  # fmt: skip
    mark = next(one for one in found if (one.time, one.freq) == winner)
    axis.plot(
        mark.time or n_time, mark.excess, "o", ms=12, mfc="none", mew=1.8, color=BAD, zorder=5,
        label="chosen", clip_on=False,
    )  # fmt: skip
    axis.set_xscale("log")
    # Straight where nothing is lost, logarithmic above it.
    axis.set_yscale("symlog", linthresh=free, linscale=0.6)
    # Room for the legend; the panels have one scale.
    top = 30 * max(free, *(one.excess for one in found))
    axis.set_ylim(-0.15 * free, max(top, axis.get_ylim()[1]))
    _ticks(axis, {one.time for one in found}, integration, n_time)
    axis.set_title(f"{title}: best {best:.4g}, grey within {100 * dd_auto.COST:.0f} %", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="0.93", lw=0.6)
    axis.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)


def _ticks(axis: Any, times: set[int], integration_s: float, n_time: int) -> None:
    from matplotlib.ticker import NullLocator

    places = sorted(one or n_time for one in times)
    names = [
        f"{place * integration_s:.4g} s" + ("\n(scan)" if place == n_time and 0 in times else "")
        for place in places
    ]
    axis.set_xticks(places, names)
    axis.xaxis.set_minor_locator(NullLocator())


def _channels(freq: int) -> str:
    return "spw" if freq == 0 else f"{freq} channel" + ("s" if freq > 1 else "")
