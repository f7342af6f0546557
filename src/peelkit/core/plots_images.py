"""Plots of images: cutouts on one colour scale, flux against flux. The only maker of such plots."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peelkit.errors import DataError, OptionError

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from peelkit.core.catalogue import Match
    from peelkit.core.measure import Mask
    from peelkit.io.image import Image

SUFFIXES = (".png", ".pdf", ".svg")

# Colours of Okabe and Ito, which the colour-blind can tell apart; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

# Blue below zero, white at zero, red above.
COLOUR_MAP = "RdBu_r"
BLANK = "#c8c8c8"

# The colour scale ends at this many sigma of the noisiest image, and is linear up to this many of
# the quietest: the artefacts of the one are seen, and what is left in the other.
SCALE_SIGMA = 10.0
LINEAR_SIGMA = 2.0

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.8,
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
}


@dataclass(frozen=True)
class CutoutRow:
    """One row of cutouts: one place in every image.

    Parameters
    ----------
    label : str
        Name of the place.
    centre : SkyCoord
        Its position.
    half_width_arcsec : float
        Half the side of the cutout [arcsec].
    rms_jy_beam : tuple of float
        Noise there in each image [Jy/beam]; sets the colour scale.
    titles : tuple of str
        Above each cutout.
    outlines : tuple of (ndarray of bool or None)
        The region in each image, shape of its data; drawn as a line.
    """

    label: str
    centre: SkyCoord
    half_width_arcsec: float
    rms_jy_beam: tuple[float, ...]
    titles: tuple[str, ...]
    outlines: tuple[Mask | None, ...]


@dataclass(frozen=True)
class FluxSeries:
    """The sources that one image (``after``) has in common with another (``before``)."""

    before: str
    after: str
    matches: tuple[Match, ...]


def check_suffix(path: Path) -> None:
    """Refuse what matplotlib would not know how to write.

    Raises
    ------
    OptionError
        If the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(
            f"--plot {path}: suffix {path.suffix or '(none)'!r} is none of {', '.join(SUFFIXES)}; "
            "give a file name that ends in one of them."
        )


def unit_for(value: float) -> tuple[float, str]:
    """Factor and prefix (``Jy``, ``mJy``, ``uJy``, ``nJy``) that make ``value`` [Jy] readable."""
    size = abs(value)
    for factor, name in ((1.0, "Jy"), (1e3, "mJy"), (1e6, "uJy")):
        if size * factor >= 1.0 or not math.isfinite(size) or size == 0:
            return factor, name
    return 1e9, "nJy"


def before_after(
    images: Sequence[Image],
    titles: Sequence[str],
    path: Path,
    *,
    centre: tuple[float, float] | None,
    half_width_pixels: int,
    rms: float,
) -> None:
    """Show one place in several images side by side, on one colour scale.

    Parameters
    ----------
    images : sequence of Image
        On any grids; the place is the same on the sky.
    titles : sequence of str
        One for each image.
    path : Path
        The plot: png, pdf or svg by its suffix. Replaced if it exists.
    centre : tuple of float or None
        Pixel (x, y) of the first image; its peak if None.
    half_width_pixels : int
        Half the side of the cutout [pixels of the first image].
    rms : float
        Noise that sets the colour scale [Jy/beam]: that of the noisiest image, so that its
        artefacts are seen.
    """
    first = images[0]
    if centre is None:
        y, x = np.unravel_index(int(np.nanargmax(first.data)), first.data.shape)
        centre = (float(x), float(y))
    row = CutoutRow(
        label="",
        centre=first.sky(*centre),
        half_width_arcsec=half_width_pixels * first.cell_arcsec,
        rms_jy_beam=(rms,) * len(images),
        titles=tuple(titles),
        outlines=(None,) * len(images),
    )
    cutouts(images, [row], path)


def cutouts(images: Sequence[Image], rows: Sequence[CutoutRow], path: Path) -> None:
    """Plot cutouts: a row for each place, a column for each image, one colour scale a row.

    Parameters
    ----------
    images : sequence of Image
        The columns.
    rows : sequence of CutoutRow
        The rows.
    path : Path
        The plot: png, pdf or svg by its suffix. Replaced if it exists.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        side = 2.9 if len(images) <= 4 else 2.3
        figure = Figure(
            figsize=(side * len(images) + 1.5, (side + 0.45) * len(rows) + 0.35),
            layout="constrained",
        )
        grid = figure.subplots(len(rows), len(images), squeeze=False)
        for number, row in enumerate(rows):
            _cutout_row(figure, list(grid[number]), images, row, last=number == len(rows) - 1)
        _save(figure, path)


def _cutout_row(
    figure: Figure, axes: list[Axes], images: Sequence[Image], row: CutoutRow, *, last: bool
) -> None:
    from matplotlib.colors import AsinhNorm

    linear, limit = colour_scale(row.rms_jy_beam, images)
    factor, unit = unit_for(limit / 3)
    norm = AsinhNorm(linear_width=linear * factor, vmin=-limit * factor, vmax=limit * factor)
    for column, (axis, image) in enumerate(zip(axes, images, strict=True)):
        shown = _cutout(axis, image, row, row.outlines[column], factor, norm)
        axis.set_title(row.titles[column])
        if last:
            axis.set_xlabel("East offset [arcsec]")
        if column == 0:
            name = f"{row.label}\n" if row.label else ""
            axis.set_ylabel(f"{name}North offset [arcsec]")
        else:
            axis.tick_params(labelleft=False)
    bar = figure.colorbar(shown, ax=axes, shrink=0.9, aspect=24, pad=0.015, extend="both")
    bar.set_ticks(_ticks(linear * factor, limit * factor))
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}".replace("-", "\N{MINUS SIGN}"))
    bar.ax.minorticks_off()
    dashed = "; dashed: the region" if any(one is not None for one in row.outlines) else ""
    bar.set_label(f"{unit_label(unit)}/beam (asinh scale{dashed})")


def unit_label(unit: str) -> str:
    """Write micro as a plot does."""
    return unit.replace("uJy", "\N{MICRO SIGN}Jy")


def colour_scale(rms: Sequence[float], images: Sequence[Image]) -> tuple[float, float]:
    """Width of the linear part, and end, of a colour scale centred on zero [Jy/beam]."""
    known = [value for value in rms if math.isfinite(value) and value > 0]
    if not known:
        top = max((float(np.nanmax(np.abs(image.data))) for image in images), default=1.0)
        return (top or 1.0) / 10, top or 1.0
    return LINEAR_SIGMA * min(known), SCALE_SIGMA * max(known)


def _ticks(linear: float, limit: float) -> list[float]:
    """Round values, evenly spread on the asinh scale, mirrored about zero."""
    # Each at least this far above the last, as a share of the half scale, to stay legible.
    apart = 0.17 * math.asinh(limit / linear)
    positive: list[float] = []
    exponent = math.floor(math.log10(linear)) - 1
    for power in range(exponent, math.ceil(math.log10(limit)) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**power
            before = math.asinh(positive[-1] / linear) if positive else 0.0
            if value <= limit and math.asinh(value / linear) - before >= apart:
                positive.append(value)
    return [-value for value in reversed(positive)] + [0.0, *positive]


def _cutout(
    axis: Axes, image: Image, row: CutoutRow, outline: Mask | None, factor: float, norm: Any
) -> Any:
    """Draw one cutout in offsets from the centre of its row [arcsec]; east is left."""
    from matplotlib import colormaps
    from matplotlib.patches import Ellipse

    x, y = image.pixel(row.centre)
    step_x, step_y = _steps(image)
    half = row.half_width_arcsec
    ny, nx = image.data.shape
    reach_x, reach_y = half / abs(step_x) + 1, half / abs(step_y) + 1
    x0, x1 = max(0, math.floor(x - reach_x)), min(nx, math.ceil(x + reach_x) + 1)
    y0, y1 = max(0, math.floor(y - reach_y)), min(ny, math.ceil(y + reach_y) + 1)
    axis.set_facecolor(BLANK)
    axis.set_xlim(half, -half)
    axis.set_ylim(-half, half)
    axis.set_aspect("equal")
    axis.locator_params(nbins=5)
    if x1 <= x0 or y1 <= y0:  # nothing of the image here
        x0, x1, y0, y1 = 0, 1, 0, 1
    colours = colormaps[COLOUR_MAP].copy()
    colours.set_bad(BLANK)
    extent = (
        (x0 - 0.5 - x) * step_x,
        (x1 - 0.5 - x) * step_x,
        (y0 - 0.5 - y) * step_y,
        (y1 - 0.5 - y) * step_y,
    )
    shown = axis.imshow(
        np.ma.masked_invalid(image.data[y0:y1, x0:x1] * factor),
        origin="lower",
        extent=extent,
        cmap=colours,
        norm=norm,
        interpolation="nearest",
        aspect="equal",
    )
    axis.set_xlim(half, -half)
    axis.set_ylim(-half, half)
    if outline is not None and outline[y0:y1, x0:x1].any():
        east = (np.arange(x0, x1) - x) * step_x
        north = (np.arange(y0, y1) - y) * step_y
        if len(east) > 1 and len(north) > 1:
            axis.contour(
                east, north, outline[y0:y1, x0:x1].astype(float), levels=[0.5],
                colors="black", linewidths=0.8, linestyles="dashed",
            )  # fmt: skip
    if image.beam is not None:
        beam = image.beam
        # The angle runs from north through east, in axes whose x is east.
        inset = 0.08 * half + beam.major_arcsec / 2
        axis.add_patch(
            Ellipse(
                (half - inset, inset - half),
                width=beam.major_arcsec,
                height=beam.minor_arcsec,
                angle=90.0 - beam.pa_deg,
                facecolor="black",
                edgecolor="white",
                linewidth=0.8,
            )
        )
    return shown


def _steps(image: Image) -> tuple[float, float]:
    """Offset on the sky of one pixel in x (east) and in y (north) [arcsec]."""
    matrix = np.asarray(image.wcs.pixel_scale_matrix) * 3600.0  # degrees, as FITS has it
    wide, high = (side * image.cell_arcsec for side in image.stretch)
    step_x = math.copysign(wide, matrix[0, 0] or -1.0)
    step_y = math.copysign(high, matrix[1, 1] or 1.0)
    return step_x, step_y


def flux_against_flux(series: Sequence[FluxSeries], path: Path) -> None:
    """Plot integrated fluxes (left) and peaks (right) of the other sources, after against before.

    Series with the same image before share their panels; others get panels of their own, one pair
    below the other, as Figures 5 and 6 of VLASS memo 23 do. Below each are the ratios.

    Parameters
    ----------
    series : sequence of FluxSeries
        One for each pair of images; those without a source are left out.
    path : Path
        The plot: png, pdf or svg by its suffix. Replaced if it exists.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels: dict[str, list[FluxSeries]] = {}
    for item in series:
        if item.matches:
            panels.setdefault(item.before, []).append(item)
    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 0.4 + 4.8 * len(panels)), layout="constrained")
        parts = np.atleast_1d(figure.subfigures(len(panels), 1, hspace=0.03))
        for part, (before, drawn) in zip(parts, panels.items(), strict=True):
            axes = part.subplots(2, 2, sharex="col", gridspec_kw={"height_ratios": (2.4, 1)})
            _flux_column(axes[:, 0], drawn, before, peak=False)
            _flux_column(axes[:, 1], drawn, before, peak=True)
        _save(figure, path)


def _flux_column(axes: Any, drawn: Sequence[FluxSeries], before: str, *, peak: bool) -> None:
    top, bottom = axes
    values = [_flux_arrays(item.matches, peak=peak) for item in drawn]
    everything = np.concatenate([np.concatenate([v[0], v[2]]) for v in values])
    factor, unit = unit_for(float(np.median(everything)))
    low, high = float(everything.min()) * factor / 1.5, float(everything.max()) * factor * 1.5
    deviations = [np.abs(v[2] / v[0] - 1) for v in values]
    for number, (item, (x, x_error, y, y_error)) in enumerate(zip(drawn, values, strict=True)):
        ratio = y / x
        error = ratio * np.hypot(x_error / x, y_error / y)
        median = float(np.median(ratio))
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 4.5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
            "linestyle": "none",
            "elinewidth": 0.8,
            "zorder": 3,
        }
        # A bar may not reach below zero on a logarithmic axis.
        below_x, below_y = np.minimum(x_error, 0.9 * x), np.minimum(y_error, 0.9 * y)
        top.errorbar(
            x * factor,
            y * factor,
            xerr=np.array([below_x, x_error]) * factor,
            yerr=np.array([below_y, y_error]) * factor,
            label=f"{item.after}: median ratio {median:.3f}, {len(x)} source{'s' * (len(x) > 1)}",
            **style,
        )
        bottom.errorbar(x * factor, ratio, yerr=error, **style)
        bottom.axhline(median, color=style["color"], linewidth=1.0, linestyle="dashed", zorder=2)
    top.plot([low, high], [low, high], color="0.35", linewidth=0.9, zorder=1, label="equal")
    bottom.axhline(1.0, color="0.35", linewidth=0.9, zorder=1)
    kind = "Peak" if peak else "Integrated flux"
    per = unit_label(unit) + ("/beam" if peak else "")
    top.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    image = f" in {drawn[0].after}" if len(drawn) == 1 else ""
    top.set_ylabel(f"{kind}{image} [{per}]")
    # Above the axes, where no point can be.
    top.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, frameon=False,
        handletextpad=0.4, labelspacing=0.3,
    )  # fmt: skip
    # The ratios themselves are seen; long bars of faint sources may leave the panel.
    reach = max(0.1, 1.3 * float(np.max(np.concatenate(deviations))))
    bottom.set(ylim=(max(0.0, 1 - reach), 1 + reach), ylabel="Ratio")
    bottom.set_xlabel(f"{kind} in {before} [{per}]")
    for axis in (top.xaxis, top.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        if high / low < 60:  # few powers of ten: ticks between them are needed
            axis.set_minor_formatter(
                lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""
            )
        else:
            axis.set_minor_formatter("")
    for axis in (top, bottom):
        axis.grid(True, color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)


def _flux_arrays(matches: Sequence[Match], *, peak: bool) -> tuple[Any, Any, Any, Any]:
    """Give reference, its error, image, its error [Jy or Jy/beam], each of shape (source,)."""
    kind, unit = ("peak", "jy_beam") if peak else ("flux", "jy")
    one, two, three, four = (
        np.array([getattr(match, f"{kind}{which}_{unit}") for match in matches], dtype=float)
        for which in ("_reference", "_reference_error", "", "_error")
    )
    return one, two, three, four


def _save(figure: Figure, path: Path) -> None:
    """Write a figure beside its name and then rename it, so that it is whole or absent."""
    check_suffix(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=path.suffix.lower()[1:])
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)
