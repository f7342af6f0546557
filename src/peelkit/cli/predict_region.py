"""``peelkit predict-region``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.dry_run import dry_run_option, show_estimate
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.mask import sexagesimal
from peelkit.cli.state import RunState

if TYPE_CHECKING:
    from peelkit.spread import Machines


@click.command("predict-region", short_help="Model of each bright source, in a column of its own.")
@click.argument("ms", metavar="MS", type=options.PATH)
@click.option(
    "--model",
    "models",
    metavar="IMAGE",
    type=options.PATH,
    multiple=True,
    callback=options.all_terms,
    help="Model image in Jy/pixel, CASA or FITS. Give it again for each Taylor term, in order; one "
    "cube is taken as models of sub-bands, linear in frequency between them.",
)
@click.option(
    "--image",
    metavar="IMAGE",
    type=options.IMAGE,
    help="Restored image with its models beside it, in place of --model: x.model of x.image, and so "
    "on; and x.pb of a mosaic.",
)
@click.option(
    "--regions",
    metavar="FILE",
    type=options.PATH,
    required=True,
    help="CRTF or DS9 file: one region for each source.",
)
@click.option(
    "--prefix",
    metavar="NAME",
    help="Columns are NAME_1, NAME_2, ...  [default: the regions' labels in capitals, BRIGHT_<n> "
    "without]",
)
@click.option("--rest-column", metavar="COLUMN", help="Column for the model outside the regions.")
@click.option(
    "--all-column",
    metavar="[COLUMN]",
    is_flag=False,
    flag_value="ALL_SKY_MODEL",
    help="Column for the whole model, the sum of the others; ALL_SKY_MODEL if no name follows.",
)
@options.selection_options("field", "spw", "scan")
@click.option(
    "--predictor",
    type=click.Choice(["ducc", "tclean"]),
    default="ducc",
    show_default=True,
    help="ducc: exact, with w terms. tclean: with the gridder that made the model, for beams that "
    "only CASA has.",
)
@click.option(
    "--pb",
    metavar="IMAGE",
    type=options.IMAGE,
    help="Primary beam of a mosaic, which its model is the sky times.  [default: x.pb of x.model, if "
    "tclean made it as a mosaic]",
)
@click.option(
    "--shape",
    metavar="[LABEL=]KIND",
    multiple=True,
    help="What sources are: auto, point, gaussian, or clean for the model's own pixels; of one region "
    "with its label before. May be given again.  [default: auto]",
)
@click.option(
    "--datacolumn",
    type=click.Choice(["auto", "data", "corrected"]),
    default="auto",
    show_default=True,
    help="Data that points and Gaussians are fitted to; auto: CORRECTED_DATA if it is calibrated (differs from DATA), else DATA.",
)
@click.option(
    "--refine",
    metavar="SIDECAR",
    type=options.PATH,
    help="Sidecar of an earlier ddsolve: its refined points and Gaussians are taken as they are. The "
    "model is then that of the peeled image.",
)
@click.option(
    "--direction-model",
    "direction_models",
    metavar="LABEL=IMAGE",
    multiple=True,
    help="Restored image of one direction alone, with its models beside it, on any grid. May be given "
    "again.",
)
@click.option(
    "--rest",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Model outside the regions; auto: as far as the data confirm it. In an image full of artefacts some of it is "
    "components of those, which a solve would take for sources.",
)
@options.overwrite
@options.machines
@dry_run_option
@options.memory
@options.common
@click.pass_context
def predict_region(
    ctx: click.Context, ms: Path, selection: Any, machines: Machines, dry_run: bool, **chosen: Any
) -> None:
    """Predict the model within each region into its own column of MS.

    CLEAN scatters the components of a bright source in data with phase errors, and no gain mends that. So
    a source that is compact by its amplitudes, which know no phases, is predicted as one point or
    Gaussian with its own spectrum, fitted to the data without all else in the model; the components in
    its region go. Of an extended source they stay.

    Each region alone masks the model, all Taylor terms alike. Fields may have any phase centre; in a
    mosaic each sees the sky through its own primary beam, and compact sources beyond the known beam, in its
    sidelobes, with the flux that the field's data have. Regions that are outside the image, without
    flux, or that overlap are errors. Rows that are not selected get 0.

    Columns are complete and in one step, which undo takes back. The closure is the largest difference
    between the whole model, predicted in one piece, and the sum of the columns.

    With --workers or --dask-address other processes compute visibilities; this one reads and writes the
    MS, which they need not see. What they give is the same to 1e-6; one that dies is replaced.

    \b
    Examples:
      peelkit predict-region x.ms --image x.selfcal/final.image --regions x.mask.crtf --all-column
      peelkit predict-region x.ms --model x.model.tt0 --model x.model.tt1 --regions bright.reg
      peelkit predict-region x.ms --image mosaic.image --regions bright.crtf --rest-column REST
      peelkit predict-region x.ms --image x.image --regions two.reg --shape point --shape LOBES=clean
      peelkit predict-region x.ms --image x.image --regions bright.reg --dask-address tcp://head:8786
      peelkit predict-region x.ms --image peeled.image.tt0 --regions two.reg --refine solve.json \\
        --direction-model LOBES=lobes.image.tt0 --all-column --overwrite
    """
    from peelkit.core import predict_region as work

    state = ctx.ensure_object(RunState)
    asked = work.PredictOptions(**chosen)
    if not dry_run:
        check_sidecar(ctx, ms, work.default_sidecar(ms))
    with state.progress() as progress:
        outcome = work.predict_region(
            ms, selection, asked, progress, machines=machines, dry_run=dry_run
        )
    if dry_run:
        show_estimate(ctx, outcome)
        return
    finish(ctx, outcome, default_sidecar=work.default_sidecar(ms), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people: one direction a row, then the rest and the whole."""
    total = results["flux_jy"]

    def share(flux: float) -> str:
        return f"{100 * flux / total:.1f} %" if total > 0 else "-"

    rows = [
        [
            entry["label"],
            entry["column"],
            sexagesimal(entry["ra_deg"] / 15, "hms", 3),
            ("-" if entry["dec_deg"] < 0 else "+") + sexagesimal(abs(entry["dec_deg"]), "dms", 2),
            milli(entry["flux_jy"]),
            entry["shape"],
            index(entry["model"]),
            str(entry["components"]),
            share(entry["flux_jy"]),
        ]
        for entry in results["directions"]
    ]
    rest = results["rest"]
    rows.append(
        ["(rest)", results["rest_column"] or "-", "", "", milli(rest["flux_jy"]), "", "",
         str(rest["components"]), share(rest["flux_jy"])]
    )  # fmt: skip
    rows.append(
        ["(all)", results["all_column"] or "-", "", "", milli(total), "", "",
         str(results["components"]), ""]
    )  # fmt: skip
    notes = [note(entry) for entry in results["directions"]]
    if results["closure"] is not None:
        notes.append(
            f"Closure: the columns add up to the whole model within {results['closure']:.1g} of its "
            "largest visibility."
        )
    if results["pb"]:
        notes.append(f"Fluxes are of the sky: the model over {results['pb']}.")
    heads = [
        "direction",
        "column",
        "RA",
        "Dec",
        "flux (mJy)",
        "shape",
        "index",
        "components",
        "share",
    ]
    return [TextTable(heads, rows, title="Predicted (ICRS)", notes=notes)]


def index(model: dict[str, Any] | None) -> str:
    """Spectral index at the reference frequency; - where it is not known."""
    return f"{model['spectrum'][0]:+.2f}" if model and model["spectrum"] else "-"


def note(entry: dict[str, Any]) -> str:
    """What was chosen for a direction, and how well it fits."""
    fit = entry["fit"]
    text = f"{entry['label']}: {entry['shape']}; {fit['reason']}"
    if entry["model"] and fit["spectrum_rms"] is not None:
        # As many channels as terms, or data without noise.
        if fit["spectrum_rms"] > 1e-6:
            text += f"; spectrum to {100 * fit['spectrum_rms']:.1g} %"
        text += f"; place to {fit['position_error_arcsec']:.1g} arcsec"
    return f"{text}."


def milli(value: float) -> str:
    """Jy in mJy, to four digits."""
    value *= 1e3
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
