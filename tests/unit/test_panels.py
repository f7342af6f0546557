"""Places of small panels in one Axes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from peelkit.core.panels import HEIGHT, WIDTH, Panels, _ticks


def test_panels_go_from_left_to_right_then_down() -> None:
    panels = Panels(2, 3, (0.0, 10.0), (-1.0, 1.0))
    assert panels.rows == 2
    x, y = panels.place(np.array([0, 1, 2]), np.array([0.0, 10.0, 5.0]), np.array([-1.0, 1.0, 0.0]))
    assert np.allclose(x, [0, 1 + WIDTH, WIDTH / 2])
    assert np.allclose(y, [1, 1 + HEIGHT, HEIGHT / 2])


def test_every_panel_has_frame_title_and_marks() -> None:
    panels = Panels(2, 3, (0.0, 10.0), (-1.0, 1.0))
    axis = Figure().add_axes((0, 0, 1, 1))
    panels.draw(axis, ["a", "b", "c"], rest=0.0, edges=[4.0])
    assert {text.get_text() for text in axis.texts} >= {"a", "b", "c"}
    assert all(len(lines.get_segments()) == 3 for lines in axis.collections)
    frame, rest, edge, *_ = (lines.get_segments() for lines in axis.collections)
    assert np.allclose(frame[2][:2], [[0, 0], [WIDTH, 0]])
    assert np.allclose(rest[1][:, 1], 1 + HEIGHT / 2)
    assert np.allclose(edge[1][:, 0], 1 + 0.4 * WIDTH)


def test_ticks_are_round_and_inside() -> None:
    values = [value for value, _ in _ticks((0.83, 1.19))]
    assert np.allclose(values, [0.9, 1.0, 1.1])
