"""``peelkit stats``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.state import RunState

UNITS = ((1.0, "Jy"), (1e3, "mJy"), (1e6, "uJy"), (1e9, "nJy"))
ANGLES = ((1.0, "arcsec"), (1e3, "mas"), (1e6, "uas"))


class AngleType(click.ParamType):
    """An angle on the sky, in arcseconds if it has no unit."""

    name = "angle"
    _factors = {"": 1.0, "arcsec": 1.0, '"': 1.0, "arcmin": 60.0, "'": 60.0, "deg": 3600.0}  # noqa: RUF012

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Arcseconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?\d+)?)\s*(\D*?)\s*", value)
        if not match or match.group(2) not in self._factors or float(match.group(1)) <= 0:
            self.fail(f"{value!r}: use a positive angle such as 90arcsec, 2.5arcmin or 0.1deg.")
        return float(match.group(1)) * self._factors[match.group(2)]


@click.command("stats", short_help="Noise, dynamic range and fluxes of images, side by side.")
@click.argument("images", metavar="IMAGE...", type=options.IMAGE, nargs=-1, required=True)
@click.option(
    "--reference",
    type=options.IMAGE,
    help="Image to compare with: its peak for the dynamic range, its sources for the fluxes.  "
    "[default: the first IMAGE]",
)
@click.option(
    "--regions",
    type=options.PATH,
    help="CRTF or DS9 regions of the bright sources: local figures around each; their fluxes are "
    "not compared.  [default: the reference's brightest source]",
)
@click.option(
    "--mask",
    type=options.PATH,
    help="Mask image (1 on sources): left out of every rms, and what the flux is the integral of.  "
    "[default: the sources found in any IMAGE]",
)
@click.option(
    "--radius",
    "radius_arcsec",
    type=AngleType(),
    help="Radius of the circle for the local rms: 90arcsec, 2.5arcmin; a bare number is in "
    "arcsec.  [default: 30 beams]",
)
@click.option(
    "--threshold",
    type=options.Range(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Threshold of the source finder, in sigma of the local noise.",
)
@click.option(
    "--match-radius",
    "match_radius_arcsec",
    type=AngleType(),
    help="Largest distance of a source from its counterpart in the reference, as --radius.  "
    "[default: half a beam]",
)
@click.option(
    "--names",
    metavar="NAME,...",
    help="What to call the images in tables and plots, such as first,self-calibrated,peeled.  "
    "[default: their file names]",
)
@click.option(
    "--truth",
    metavar="JSON",
    type=options.PATH,
    help="Truth file of peelkit simulate: compare fluxes with those that were put in, and tell what is "
    "left of the bright sources.",
)
@click.option(
    "--pb",
    metavar="IMAGE",
    type=options.IMAGE,
    help="Primary beam image, for --truth: an image of a mosaic is the sky times this.  [default: x.pb "
    "of x.image, if the truth has several fields]",
)
@click.option(
    "--ms",
    metavar="MS",
    type=options.PATH,
    help="The MS that the images were made of: tell the thermal noise that its weights promise for each "
    "image of selfcal or image-residual, whose sidecar says how it was weighted.",
)
@click.option(
    "--ddsolve",
    "solve",
    metavar="JSON",
    type=options.PATH,
    help="Sidecar of the ddsolve between the last IMAGE but one and the last: judge the peeling. Exit 5 if the "
    "last is the worse.",
)
@click.option("--csv", type=options.PATH, help="Write the figures to this CSV file too.")
@click.option(
    "--plot",
    type=options.PATH,
    help="Plot cutouts of each region to this png, pdf or svg file, and the fluxes of the other "
    "sources, each image against the one before it (or --reference), to the file beside it whose name "
    "ends in -flux.",
)
@options.overwrite
@options.memory
@options.common
@click.pass_context
def stats(ctx: click.Context, images: tuple[Path, ...], names: str | None, **chosen: Any) -> None:
    """Measure images: noise, dynamic range, fluxes; several side by side.

    rms is robust (1.4826 times the median absolute deviation) outside the sources of all the
    images, so on the same pixels in images of one grid; the plain standard deviation is given
    beside it. The local rms, in a circle around each region, keeps the artefacts and leaves out
    only the regions and what the best of the images shows to be sources. Dynamic range is peak over
    rms, also with the peak of the reference, since a peeled source is no longer there. Fluxes of
    the other sources are measured over the same patch of sky in both images. Images may be CASA or
    FITS, on different grids.

    With --ms every rms is also told in units of the thermal noise ("x thermal"): that of an image
    with its weights, and nothing wrong. It is what the weights of MS promise, with its flags as they are
    now; where the scatter between integrations says otherwise there is a note.

    With the PSF beside an image (x.psf of x.image), what is left of each bright source is looked for: its
    ghost, at its place and in the sidelobes of the synthesised beam around it. With --ddsolve this, the rms
    before and after, the score of data held out of the solve, sources that it injected, and the
    fluxes of the others make a verdict: clean, better (with what is to be said against it), or worse.

    The sidecar goes beside the first IMAGE: IMAGE.stats.peelkit.json, and for a comparison
    REFERENCE-LAST.stats.peelkit.json.

    \b
    Examples:
      peelkit stats first.image
      peelkit stats first.image selfcal.image peeled.image --regions bright.crtf \\
          --names first,self-calibrated,peeled --plot stats.png
      peelkit stats first.image final.image peeled.image --regions bright.crtf --ms target.ms
      peelkit stats final.image peeled.image --regions bright.crtf --ddsolve sim.ms.ddsolve.peelkit.json
      peelkit stats peeled.image --truth sim.ms.truth.json
      peelkit stats peeled.fits --reference first.fits --radius 2.5arcmin --csv stats.csv --json
    """
    from peelkit.core import stats as work

    state = ctx.ensure_object(RunState)
    called = tuple(name.strip() for name in names.split(",")) if names else ()
    asked = work.StatsOptions(names=called, **chosen)
    default = work.default_sidecar(images, asked.reference)
    check_sidecar(ctx, images[0], default)
    with state.progress() as progress:
        outcome = work.stats(images, asked, progress)
    finish(ctx, outcome, default_sidecar=default, tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people: noise, then fluxes, then regions if some were given."""
    entries = list(results["images"])
    reference = results["reference"]
    if reference and reference["path"] not in [entry["path"] for entry in entries]:
        entries.insert(0, reference)
    entries = [
        # The reference is not compared with itself.
        entry | {"sources_compared": None}
        if reference and entry["path"] == reference["path"]
        else entry
        for entry in entries
    ]
    names = [entry["name"] for entry in entries]
    if reference:
        names = [
            f"{name} (ref.)" if entry["path"] == reference["path"] else name
            for name, entry in zip(names, entries, strict=True)
        ]
    radius = results["local_radius_arcsec"]
    everywhere = results["places"] == ["brightest"]
    columns = [
        ("global rms", "Jy/beam", "rms_global_jy_beam"),
        ("peak", "Jy/beam", "peak_jy_beam"),
        ("minimum", "Jy/beam", "minimum_jy_beam"),
        ("DR", "", "dynamic_range"),
    ]
    notes = ["DR: peak / global rms."]
    if everywhere:
        columns[1:1] = [("local rms", "Jy/beam", "rms_local_jy_beam")]
        columns.append(("local DR", "", "dynamic_range_local"))
        peak = "the reference's peak" if reference else "the peak"
        notes = [
            f"DR: peak / global rms; local DR: {peak} / local rms.",
            f"local rms: within {radius:.4g} arcsec of the brightest source.",
        ]
    elif reference:
        columns.append(("DR (ref. peak)", "", "dynamic_range_reference_peak"))
        notes = ["DR: peak / global rms, and with the reference's peak."]
    columns += [
        ("thermal rms", "Jy/beam", "rms_thermal_jy_beam"),
        ("x thermal", "", "rms_global_over_thermal"),
    ]
    if everywhere:
        columns.append(("local x thermal", "", "rms_local_over_thermal"))
    if any(entry["rms_thermal_jy_beam"] for entry in entries):
        notes.append("thermal rms: what the weights of the MS promise; x thermal: rms / that.")
    found = [_table(names, entries, columns, title="Noise and dynamic range", notes=notes)]
    if not everywhere:
        found.append(_region_table(names, entries, results))
    found.append(
        _table(
            names,
            entries,
            [
                ("beam", "", "beam"),
                ("flux", "Jy", "flux_jy"),
                ("shift", "arcsec", "peak_shift_arcsec"),
                ("sources", "", "sources_found"),
                ("compared", "", "sources_compared"),
                ("flux ratio", "", "flux_ratio_median"),
                ("scatter", "", "flux_ratio_scatter"),
                ("from noise", "", "flux_ratio_noise"),
            ],
            title="Fluxes and positions",
            notes=_flux_notes(results),
        )
    )
    if results["truth"]:
        found += _truth_tables(names, entries)
    if results["peeling"]:
        found += _verdict_tables(results)
    return found


def _verdict_tables(results: dict[str, Any]) -> list[TextTable]:
    """What --ddsolve makes of it."""
    peeling = results["peeling"]
    fell = peeling["local_rms_fell_by"]
    row = [
        peeling["verdict"],
        "-" if fell is None else f"{-100 * fell:+.3g} %",
        f"{100 * peeling['rms_global_rose_by']:+.3g} %",
        _cell(peeling["chi2_before"], 1),
        _cell(peeling["chi2_after"], 1),
        ", ".join(_cell(one["chi2_held_out"], 1) for one in peeling["held_out"]) or "-",
    ]
    left = _table(
        results["places"],
        results["images"][-1]["regions"],
        [
            ("left", "Jy/beam", "ghost_left_jy_beam"),
            ("local rms", "Jy/beam", "rms_local_jy_beam"),
            ("by sidelobes", "Jy", "ghost_sidelobes_jy"),
            ("sigma", "Jy", "ghost_sigma_jy"),
        ],
        title="Left of what was peeled",
        notes=["left: at its place; by sidelobes: flux of a point there whose sidelobes fit."],
    )
    return [
        TextTable(["region", *left.columns[1:]], left.rows, title=left.title, notes=left.notes),
        TextTable(
            ["verdict", "local rms", "global rms", "chi2 before", "after", "held out"],
            [row],
            title="Peeling",
            notes=[f"{reason}." for reason in peeling["reasons"]],
        ),
    ]


def _flux_notes(results: dict[str, Any]) -> list[str]:
    notes = []
    if results["reference"]:
        notes.append("shift: of the peak, from the reference's.")
        notes.append(
            "Flux ratio: median over sources in both, image / reference; from noise: the scatter of "
            "noise alone."
        )
    counts = [entry["sources_compared"] for entry in results["images"]]
    if any(count in (1, 2) for count in counts):
        notes.append("A ratio of one or two sources says little: they may be artefacts.")
    for pair in results["pairs"]:
        if pair["before"] != results["reference"]["path"] and pair["sources_compared"]:
            scatter = pair["flux_ratio_scatter"]
            spread = "" if scatter is None else f", scatter {_cell(scatter, 1)}"
            notes.append(
                f"{pair['after_name']} / {pair['before_name']}: flux ratio "
                f"{_cell(pair['flux_ratio_median'], 1)}{spread}, {pair['sources_compared']} compared."
            )
    return notes + [f"Note: {note}" for note in results["notes"]]


def _region_table(
    names: Sequence[str], entries: Sequence[dict[str, Any]], results: dict[str, Any]
) -> TextTable:
    rows, heads = [], []
    for number, label in enumerate(results["places"]):
        for name, entry in zip(names, entries, strict=True):
            heads.append((label, name))
            region, thermal = entry["regions"][number], entry["rms_thermal_jy_beam"]
            local = region["rms_local_jy_beam"]
            over = local / thermal if thermal and local is not None else None
            rows.append(region | {"rms_local_over_thermal": over})
    inner = _table(
        [name for _, name in heads],
        rows,
        [
            ("local rms", "Jy/beam", "rms_local_jy_beam"),
            ("x thermal", "", "rms_local_over_thermal"),
            ("peak", "Jy/beam", "peak_jy_beam"),
            ("minimum", "Jy/beam", "minimum_jy_beam"),
            ("local DR", "", "dynamic_range_reference_peak"),
            ("flux", "Jy", "flux_jy"),
        ],
        title="Around each region",
        notes=[],
    )
    peak = "the reference's peak there" if results["reference"] else "the peak there"
    radius = results["local_radius_arcsec"]
    return TextTable(
        ["region", *inner.columns],
        [[label, *row] for (label, _), row in zip(heads, inner.rows, strict=True)],
        title=inner.title,
        notes=[f"local rms: within {radius:.4g} arcsec; local DR: {peak} / local rms."],
    )


def _truth_tables(names: Sequence[str], entries: Sequence[dict[str, Any]]) -> list[TextTable]:
    """Fluxes against those put in; what is left of the bright sources."""
    fluxes = _table(
        names,
        [entry["truth"] for entry in entries],
        [
            ("compared", "", "sources_compared"),
            ("flux / true", "", "ratio_median"),
            ("scatter", "", "ratio_scatter"),
            ("from noise", "", "ratio_noise"),
            ("beyond noise", "", "ratio_scatter_beyond_noise"),
        ],
        title="Against the truth",
        notes=["Sources from 10 sigma that are not bright, blended, or in a region."],
    )
    left = [
        (item["name"], name, item)
        for number in range(max(len(entry["truth"]["bright"]) for entry in entries))
        for name, entry in zip(names, entries, strict=True)
        for item in entry["truth"]["bright"][number : number + 1]
    ]
    if not left:
        return [fluxes]
    inner = _table(
        [name for _, name, _ in left],
        [item | {"ratio": _over(item)} for _, _, item in left],
        [
            ("true", "Jy/beam", "true_jy_beam"),
            ("largest", "Jy/beam", "left_jy_beam"),
            ("local rms", "Jy/beam", "rms_local_jy_beam"),
            ("largest / local rms", "", "ratio"),
        ],
        title="Bright sources",
        notes=[],
    )
    return [
        fluxes,
        TextTable(
            ["source", *inner.columns],
            [[label, *row] for (label, _, _), row in zip(left, inner.rows, strict=True)],
            title=inner.title,
            notes=["largest: value, up or down, within a beam of the source's place."],
        ),
    ]


def _over(item: dict[str, Any]) -> float | None:
    rms = item["rms_local_jy_beam"]
    return item["left_jy_beam"] / rms if rms else None


def _table(
    names: Sequence[str],
    entries: Sequence[dict[str, Any]],
    columns: Sequence[tuple[str, str, str]],
    *,
    title: str,
    notes: Sequence[str],
) -> TextTable:
    """One row an entry; ``columns`` are (heading, unit, key). Each column has one unit of flux."""
    heads, cells = ["image"], [list(names)]
    for heading, unit, key in columns:
        values = [entry[key] for entry in entries]
        if all(value is None for value in values):
            continue
        if key == "beam":
            heads.append("beam (arcsec)")
            cells.append(
                [f"{beam['major_arcsec']:.3g}x{beam['minor_arcsec']:.3g}" for beam in values]
            )
            continue
        factor = 1.0
        if unit.startswith("Jy"):
            factor, prefix = _unit(values, UNITS)
            unit = unit.replace("Jy", prefix)
        elif unit == "arcsec":
            factor, unit = _unit(values, ANGLES)
        # Brackets would be taken for rich's markup.
        heads.append(f"{heading} ({unit})" if unit else heading)
        cells.append([_cell(value, factor) for value in values])
    rows = [list(row) for row in zip(*cells, strict=True)]
    return TextTable(heads, rows, title=title, notes=notes)


def _unit(values: Sequence[float | None], units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """Choose the unit of a column: the largest in which the middle of its values is at least 1."""
    sizes = sorted(abs(value) for value in values if value)
    middle = sizes[len(sizes) // 2] if sizes else 0.0
    for factor, name in units:
        if middle == 0 or middle * factor >= 1:
            return factor, name
    return units[-1]


def _cell(value: float | int | None, factor: float) -> str:
    """Four significant digits, without an exponent where that is readable; '-' for unknown."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    value = value * factor
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if 0 < abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:#.4g}".rstrip(".") if value else "0"
