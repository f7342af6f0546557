"""Small panels side by side, one for each antenna, in a single Axes.

Matplotlib lays out and draws an Axes for each of 27 antennas in 4 s of CPU, nearly all of it ticks; all
panels in one take 0.3 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Share of a panel's place that is inside its frame.
WIDTH, HEIGHT = 0.94, 0.84

# Length of the tick marks, in panels.
TICK = 0.02

# Ticks of an axis, at most.
MOST_TICKS = 5


@dataclass(frozen=True)
class Panels:
    """Places of panels that share their axes: left to right, then down.

    Parameters
    ----------
    columns, count : int
        Panels in a row, and in all.
    x, y : tuple of float
        Ends of the axes.
    """

    columns: int
    count: int
    x: tuple[float, float]
    y: tuple[float, float]

    def figure(
        self,
        titles: Sequence[str],
        *,
        rest: float,
        edges: Sequence[float],
        xlabel: str,
        ylabel: str,
        right: float = 0.2,
    ) -> tuple[Any, Any]:
        """Empty figure and its Axes with frames, ticks and titles (`draw`), so that panels are always as large.

        Parameters
        ----------
        xlabel, ylabel : str
            Of all panels.
        right : float
            Space beside the panels [inch].
        """
        from matplotlib.figure import Figure

        width, height = 11.0, 1.5 * self.rows + 0.9
        figure = Figure(figsize=(width, height))
        axis = figure.add_axes(
            (0.8 / width, 0.65 / height, (width - 0.8 - right) / width, 1.5 * self.rows / height)
        )
        self.draw(axis, titles, rest=rest, edges=edges)
        figure.supxlabel(xlabel, fontsize=10)
        figure.supylabel(ylabel, fontsize=10)
        return figure, axis

    @property
    def rows(self) -> int:
        """Rows of panels."""
        return max(1, math.ceil(self.count / self.columns))

    def place(
        self, panel: NDArray[Any] | int, x: NDArray[Any] | float, y: NDArray[Any] | float
    ) -> tuple[Any, Any]:
        """Where in the Axes a point of a panel is: a panel's place is 1 by 1, the lowest row at 0."""
        row, column = np.divmod(panel, self.columns)
        across = (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (np.asarray(y) - self.y[0]) / (self.y[1] - self.y[0])
        return column + WIDTH * across, self.rows - 1 - row + HEIGHT * up

    def draw(
        self, axis: Any, titles: Sequence[str], *, rest: float, edges: Sequence[float]
    ) -> None:
        """Frames, ticks and titles.

        Parameters
        ----------
        titles : sequence of str
            One for each panel.
        rest : float
            Where a line goes across each panel.
        edges : sequence of float
            Where dotted lines go up each panel.
        """
        (left, right), (low, high) = self.x, self.y
        corners = [(left, low), (right, low), (right, high), (left, high), (left, low)]
        self._lines(axis, [corners], colors="k", lw=0.8)
        self._lines(axis, [[(left, rest), (right, rest)]], colors="0.8", lw=0.8, zorder=0)
        self._lines(
            axis, [[(edge, low), (edge, high)] for edge in edges],
            colors="0.85", lw=0.8, linestyles=":", zorder=0,
        )  # fmt: skip
        # Numbers below the lowest panel of each column, and at the left panels.
        lowest = range(max(0, self.count - self.columns), self.count)
        for value, label in _ticks(self.x):
            self._lines(axis, [[(value, low)] * 2], (0, -2 * TICK), colors="k", lw=0.8)
            for panel in lowest:
                axis.annotate(
                    label, self.place(panel, value, low), (0, -6), textcoords="offset points",
                    fontsize=8, ha="center", va="top",
                )  # fmt: skip
        for value, label in _ticks(self.y):
            self._lines(axis, [[(left, value)] * 2], (-TICK, 0), colors="k", lw=0.8)
            for panel in range(0, self.count, self.columns):
                axis.annotate(
                    label, self.place(panel, left, value), (-5, 0), textcoords="offset points",
                    fontsize=8, ha="right", va="center",
                )  # fmt: skip
        for panel, title in enumerate(titles):
            x, y = self.place(panel, (left + right) / 2, high)
            axis.text(x, y + 0.015, title, fontsize=9, ha="center", va="bottom")
        axis.set_xlim(0, self.columns - 1 + WIDTH)
        axis.set_ylim(0, self.rows)
        axis.set_axis_off()

    def _lines(
        self,
        axis: Any,
        lines: Sequence[Sequence[tuple[float, float]]],
        step: tuple[float, float] = (0, 0),
        **keywords: Any,
    ) -> None:
        """Draw the same lines in every panel, the last point of each moved by ``step`` panels."""
        from matplotlib.collections import LineCollection

        every = []
        for line in lines:
            for panel in range(self.count):
                points = np.array([self.place(panel, *point) for point in line])
                points[-1] += step
                every.append(points)
        axis.add_collection(LineCollection(every, clip_on=False, **keywords))


def _ticks(ends: tuple[float, float]) -> list[tuple[float, str]]:
    """Round values between the ends of an axis, and how they are written."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    values = MaxNLocator(MOST_TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
    values = [float(one) for one in values if ends[0] <= one <= ends[1]]
    formatter = ScalarFormatter(useOffset=False)
    formatter.create_dummy_axis()
    return list(zip(values, formatter.format_ticks(values), strict=True))
