"""``peelkit mask``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState


@click.command("mask", short_help="Mask of an image's sources, and regions of the bright ones.")
@click.argument("image", metavar="IMAGE", type=options.IMAGE)
@click.argument("out", metavar="OUT", type=options.PATH)
@click.option(
    "--threshold",
    metavar="SIGMA",
    type=options.Range(min=1),
    default=8.0,
    show_default=True,
    help="Threshold, in units of the local noise.",
)
@click.option(
    "--noise-box",
    metavar="BEAMS",
    type=options.Range(min=3),
    default=15.0,
    show_default=True,
    help="Side of the boxes in which the local noise is measured, in beams; at most a third of the "
    "image.",
)
@click.option(
    "--min-size",
    metavar="BEAMS",
    type=options.Range(min=0),
    default=0.1,
    show_default=True,
    help="Least size of an island, in beams. A point source has ln(peak / threshold) beams above "
    "the threshold.",
)
@click.option(
    "--dilate",
    metavar="PIXELS",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Grow the islands by so many pixels.",
)
@click.option("--fill-holes", is_flag=True, help="Fill what an island encloses.")
@click.option(
    "--include",
    metavar="REGIONS",
    type=options.PATH,
    multiple=True,
    help="CRTF or DS9 file: add all of these regions to the mask. May be given again.",
)
@click.option(
    "--exclude",
    metavar="REGIONS",
    type=options.PATH,
    multiple=True,
    help="CRTF or DS9 file: take these regions out of the mask. May be given again.",
)
@click.option(
    "--merge",
    metavar="MASK",
    type=options.PATH,
    multiple=True,
    help="Mask image with the pixels of IMAGE: add it. May be given again.",
)
@click.option(
    "--subtract",
    metavar="MASK",
    type=options.PATH,
    multiple=True,
    help="Mask image with the pixels of IMAGE: take it out. May be given again.",
)
@click.option(
    "--extract",
    metavar="ISLAND",
    multiple=True,
    help="Keep only this island: its number in the list, a position '12:29:06.7 +02:03:08' or "
    "'187.278deg 2.052deg' (ICRS; 'B1950 ...' for others), or a pixel x,y. May be given again.",
)
@click.option(
    "--drop",
    metavar="ISLAND",
    multiple=True,
    help="Leave out this island, named as for --extract. May be given again.",
)
@click.option(
    "--drop-artefacts", is_flag=True, help="Leave out the islands that look like artefacts."
)
@click.option(
    "--bright-flux",
    metavar="JY",
    type=options.Range(min=0),
    default=0.1,
    show_default=True,
    help="Least peak or flux of a source to peel, in Jy.",
)
@click.option(
    "--artefact-ratio",
    metavar="RATIO",
    type=options.Range(min=0),
    default=2.0,
    show_default=True,
    help="Least ratio of the rms around a source to peel to the global rms.",
)
@click.option(
    "--psf",
    type=options.IMAGE,
    metavar="IMAGE",
    help="PSF, to know sidelobes by.  [default: x.psf of x.image, if it is there]",
)
@click.option(
    "--regions",
    type=options.PATH,
    metavar="FILE",
    help="Write the regions here: .crtf for CASA's format, .reg for DS9's; exit status 5 if there are "
    "none.  [default: both, with the name of OUT]",
)
@click.option(
    "--regions-of",
    type=click.Choice(["bright", "all", "none"]),
    default="bright",
    show_default=True,
    help="Islands that get a region: BRIGHT_1, BRIGHT_2, ... by flux; others ISLAND_<number>.",
)
@options.overwrite
@options.common
@click.pass_context
def mask(ctx: click.Context, image: Path, out: Path, **chosen: Any) -> None:
    """Make the mask OUT of the sources in IMAGE; list them; write regions of those to peel.

    IMAGE is a restored image of one plane, CASA or FITS. OUT is a FITS file if its name ends in
    .fits, else a CASA image; 1 on sources and 0 elsewhere, with IMAGE's own axes. The noise is
    local, and from what is not a source, so that bright sources do not raise it.

    To peel, a source has to be bright and to have artefacts around it: a higher rms than elsewhere, or,
    where artefacts fill the image, negatives that no noise makes. An island looks like an
    artefact if a negative as strong is opposite to it about a brighter source, or if it is on the
    sidelobes of one and no stronger than the errors around that one make them.

    Islands are numbered by descending peak before any is left out, so that the numbers of one run
    serve --drop and --extract of the next.

    \b
    Examples:
      peelkit mask first.image first.mask
      peelkit mask first.image first.mask --drop 3 --drop '12:29:10.2 +02:04:00' --overwrite
      peelkit mask field.fits field.mask.fits --threshold 6 --exclude lobes.reg --drop-artefacts
    """
    from peelkit.core import mask as work

    state = ctx.ensure_object(RunState)
    asked = work.MaskOptions(**chosen)
    with state.progress() as progress:
        outcome = work.make_mask(image, out, asked, progress)
    finish(ctx, outcome, default_sidecar=work.default_sidecar(out), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people: the islands of the mask, then those left out."""
    low, high = _milli(results["noise_min_jy_beam"]), _milli(results["noise_max_jy_beam"])
    count = results["n_islands"]
    notes = [
        f"rms {_milli(results['rms_jy_beam'])} mJy/beam, local noise {low} to {high}; threshold "
        f"{results['threshold_sigma']:g} sigma = {_milli(results['threshold_jy_beam'])} mJy/beam "
        "(median).",
        f"{count} island{'s' if count > 1 else ''}, {results['masked_pixels']} pixels, "
        f"{_milli(results['flux_jy'])} mJy. Above the threshold in the negative image: "
        f"{results['negative_islands']}.",
    ]
    written = [results["mask"], *results["regions"]]
    notes.append(f"Written: {', '.join(written)}.")
    found = [_table(results["islands"], "Islands (ICRS)", notes)]
    if results["dropped"]:
        found.append(_table(results["dropped"], "Left out", []))
    return found


def _table(islands: list[dict[str, Any]], title: str, notes: list[str]) -> TextTable:
    rows = []
    for island in islands:
        marks = [island["label"] or ("bright" if island["bright"] else "")]
        if island["artefact"]:
            marks.append(f"artefact: {island['artefact_reason']}")
        rows.append(
            [
                str(island["number"]),
                sexagesimal(island["ra_deg"] / 15, "hms", 3),
                ("-" if island["dec_deg"] < 0 else "+")
                + sexagesimal(abs(island["dec_deg"]), "dms", 2),
                _milli(island["peak_jy_beam"]),
                _milli(island["flux_jy"]),
                _milli(island["local_rms_jy_beam"]),
                f"{island['beams']:.1f}",
                "-" if island["rms_ratio"] is None else f"{island['rms_ratio']:.2f}",
                "; ".join(mark for mark in marks if mark),
            ]
        )
    heads = ["island", "RA", "Dec", "peak (mJy/beam)", "flux (mJy)", "noise (mJy/beam)",
             "size (beams)", "rms near/global", "marks"]  # fmt: skip
    return TextTable(heads, rows, title=title, notes=notes)


def sexagesimal(value: float, units: str, decimals: int) -> str:
    """Write hours or degrees, not negative, as ``12h29m06.700s``; never with 60 seconds."""
    scale = 10**decimals
    ticks = round(value * 3600 * scale)
    minutes, ticks = divmod(ticks, 60 * scale)
    whole, minutes = divmod(minutes, 60)
    if units[0] == "h":
        whole %= 24
    seconds, fraction = divmod(ticks, scale)
    text = f"{whole:02d}{units[0]}{minutes:02d}{units[1]}{seconds:02d}"
    return f"{text}.{fraction:0{decimals}d}{units[2]}"


def _milli(value: float | None) -> str:
    """Jy in mJy, to four digits; '-' for unknown."""
    if value is None:
        return "-"
    value *= 1e3
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:#.4g}".rstrip(".")
