"""``peelkit image-residual``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.dry_run import dry_run_option, show_estimate
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState
from peelkit.errors import OptionError

if TYPE_CHECKING:
    from peelkit.selection import Selection

# What --like settles.
SETTLED = (
    "field", "spw", "scan", "imsize", "cell", "robust", "nterms", "scales", "gridder", "niter",
    "imaging_uvrange",
)  # fmt: skip


@click.command("image-residual", short_help="Image a column as another image was made.")
@options.ms_argument
@click.argument("out", type=options.PATH)
@click.option(
    "--column",
    default="PEELED_DATA",
    show_default=True,
    help="Column to image; any that holds visibilities.",
)
@click.option(
    "--like",
    type=options.IMAGE,
    metavar="IMAGE",
    help="Image of selfcal or image-residual whose grid, weights, mask and depth are used again.",
)
@click.option(
    "--begin-with",
    type=options.IMAGE,
    metavar="IMAGE",
    help="Earlier image of the same sources, made --like the same: cleaning begins with its model and mask, which "
    "saves most of the work. Artefacts in that model may stay: not for another round of peeling.",
)
@click.option(
    "--around",
    metavar="REGIONS[:NAME]",
    default="",
    help="Image only a small field about a region, twice as wide as it, in the manner of --like; NAME is "
    "its label or number. The region is the mask. Not for mosaics.",
)
@click.option(
    "--mask",
    type=options.PATH,
    help="Cleaning mask (CASA, FITS) or regions (.crtf, .reg) in place of that of IMAGE, or of one that is made.",
)
@click.option(
    "--grow-mask/--no-grow-mask",
    default=None,
    help="Open the mask to what stands out only now, and clean that too [default: yes, unless --mask is given].",
)
@click.option(
    "--mask-threshold",
    type=options.Range(min=2),
    default=4.5,
    show_default=True,
    help="Sigma that the mask opens to.",
)
@click.option(
    "--restore",
    is_flag=True,
    help="Put the peeled sources of --from back, each as one point of its flux, in OUT.restored.image.",
)
@options.from_option("Sidecar of 'peelkit predict-region', for --restore.")
@click.option(
    "--nsigma",
    type=options.Range(min=0, min_open=True),
    help="Depth of cleaning in the mask, in units of the noise [default: that of IMAGE, or 3].",
)
@options.selection_options("field", "spw", "scan")
@options.imaging_options
@click.option("--uvrange", "imaging_uvrange", help="Baselines to image, as in CASA: '>1klambda'.")
@options.overwrite
@dry_run_option
@options.memory
@options.common
@click.pass_context
def image_residual(
    ctx: click.Context, ms: Path, out: Path, selection: Selection, **values: Any
) -> None:
    """Image a column of MS; OUT is the name of the image, to which CASA adds .image and so on.

    With --like everything is as in IMAGE, so that the two compare: pixels, weights, data selection, mask
    and depth. Where a source was peeled the mask holds only noise, which cleaning to 3 sigma leaves alone
    (if IMAGE was cleaned deeper, as one of high dynamic range is, there is a warning).

    The imager is that of IMAGE too; with another --imager there is a warning that says how the beams compare.

    Without --like the settings are chosen and the mask is made as selfcal does for its first image: so
    this also makes a first image of any column, of one field or of a mosaic.

    With --around a small field about one region is imaged, such as the data of that source alone (ddsolve
    --own-data): its image is a new model for predict-region.

    MS is not changed: no model is written, and the column is read in place. The noise is compared
    with that of IMAGE in the same mask; if it is higher there is a warning, and 'peelkit stats' has the
    details. The next image can be made --like this one.

    \b
    Examples:
      peelkit image-residual target.ms peeled --like target.selfcal/final.image
      peelkit image-residual target.ms peeled --like target.selfcal/final.image \\
          --restore --from target.ms.predict-region.peelkit.json
      peelkit image-residual target.ms source --column BRIGHT_1_DATA --around bright.crtf:BRIGHT_1 \\
          --like target.selfcal/final.image
      peelkit image-residual target.ms first --column DATA --field 2 --imsize 1024
      peelkit image-residual target.ms first --column DATA --field 2 --imager wsclean
    """
    from peelkit.core import image_residual as work

    state = ctx.ensure_object(RunState)
    if values["like"] is not None:
        for name in SETTLED:
            if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
                word = {"imaging_uvrange": "uvrange"}.get(name, name)
                raise OptionError(f"--{word}: --like settles this; leave one of them out.")
    if values["restore"] != (values["plan"] is not None):
        raise OptionError(
            "--restore and --from go together: --from names the sidecar of predict-region that has the "
            "sources to restore."
        )
    if values["begin_with"] is not None and values["like"] is None:
        raise OptionError("--begin-with needs --like: an image of the same pixels.")
    if values["around"]:
        if values["like"] is None:
            raise OptionError(
                "--around needs --like: an image to take cell, weights and depth from."
            )
        for name in ("mask", "grow_mask", "begin_with"):
            if values[name]:
                word = name.replace("_", "-")
                raise OptionError(f"--{word}: with --around the region is the mask; leave it out.")
    chosen = work.ImageOptions(
        column=values["column"],
        like=values["like"],
        mask=values["mask"],
        grow_mask=values["grow_mask"],
        mask_threshold=values["mask_threshold"],
        nsigma=values["nsigma"],
        choices=options.imaging_choices(values),
        begin_with=values["begin_with"],
        around=values["around"],
        imager=values["imager"]
        if values["like"] and ctx.get_parameter_source("imager") is ParameterSource.COMMANDLINE
        else None,
        restore=values["plan"],
        overwrite=values["overwrite"],
    )
    with state.progress() as progress:
        outcome = work.image_residual(
            ms, out, selection, chosen, progress, dry_run=values["dry_run"]
        )
    if values["dry_run"]:
        show_estimate(ctx, outcome)
        return
    product = Path(outcome.results["image"])
    finish(ctx, outcome, default_sidecar=sidecar.image_sidecar(product), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""
    from peelkit.core.averaging import ONLY_BLOCKS

    like = results["like"]
    rows = [_row(like["image"], like, None)] if like else []
    reference = results["dynamic_range_reference_peak"]
    rows.append(_row(results["image"], results, reference))
    notes = []
    if like:
        ratio = results["rms_ratio"]
        notes.append(
            f"Both in the same mask; the noise is {ratio:.3g} times that of {like['image']}."
            if ratio is not None
            else "Both in the same mask."
        )
    pixels, added, islands = (
        results[f"mask_{name}"] for name in ("pixels", "pixels_added", "islands_added")
    )
    grown = f", {added} of them new ({islands} new islands)" if added else ""
    depth = f", cleaned to {results['nsigma']:g} sigma" if pixels else ", not cleaned"
    notes.append(f"Mask: {pixels} pixels{grown}{depth}.")
    imaged, count = results["rows_imaged"], results["rows"]
    loss = results["imaging"]["smearing"]
    if imaged == count:
        notes.append(f"Imaged: {count:,} rows as they are.")
    elif loss <= ONLY_BLOCKS:
        notes.append(
            f"Imaged: {imaged:,} of {count:,} rows as they are; of the others nothing can be used."
        )
    else:
        notes.append(
            f"Imaged: {count:,} rows as {imaged:,} averages, in which the image's edge loses {100 * loss:.2g} % at "
            "most (--smearing)."
        )
    if results["imaging"]["gridder"] == "mosaic":
        notes.append("A mosaic of even noise: fluxes are those of the sky times .pb.")
    if results["restored"]:
        names = [
            s["label"] for s in results["restored"]["sources"] if s["peak_jy_beam"] is not None
        ]
        if names:
            notes.append(f"Restored in {results['restored']['image']}: {', '.join(names)}")
    notes.append(f"Image: {results['image']}")
    columns = [
        "image", "peak [mJy/beam]", "minimum", "rms [uJy/beam]", "dyn. range",
        *(["with the other's peak"] if like else []), 'beam ["]',
    ]  # fmt: skip
    if not like:
        rows = [[*row[:5], row[6]] for row in rows]
    return [TextTable(columns, rows, notes=notes)]


def _row(name: str, figures: dict[str, Any], reference: float | None) -> list[str]:
    beam = figures["beam"]

    def shown(value: float | None, scale: float = 1.0, form: str = ".4g") -> str:
        return "-" if value is None else f"{scale * value:{form}}"

    return [
        name,
        shown(figures["peak_jy_beam"], 1e3, ".5g"),
        shown(figures["minimum_jy_beam"], 1e3, ".4g"),
        shown(figures["rms_jy_beam"], 1e6, ".4g"),
        shown(figures["dynamic_range"], 1.0, ".0f"),
        shown(reference, 1.0, ".0f"),
        f"{beam['major_arcsec']:.3g} x {beam['minor_arcsec']:.3g}, {beam['pa_deg']:.0f} deg",
    ]
