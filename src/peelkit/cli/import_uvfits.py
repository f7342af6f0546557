"""``peelkit import-uvfits``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState


@click.command("import-uvfits", short_help="Make a Measurement Set of a UVFITS file.")
@click.argument("fitsfile", type=options.PATH)
@click.argument("out", type=options.PATH)
@options.overwrite
@options.common
@click.pass_context
def import_uvfits(ctx: click.Context, fitsfile: Path, out: Path, overwrite: bool) -> None:
    """Make the Measurement Set OUT of the UVFITS file FITSFILE, with CASA's importuvfits.

    What is in it is listed: fields and their scans, spectral windows, antennas.

    \b
    Examples:
      peelkit import-uvfits NGC5921.fits NGC5921.ms
      peelkit selfcal NGC5921.ms --field '1331*' --model 3C286 --term B --term G
    """
    from peelkit.core import import_uvfits as work

    state = ctx.ensure_object(RunState)
    with state.progress() as progress:
        outcome = work.import_uvfits(fitsfile, out, overwrite=overwrite, progress=progress)
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(out, work.COMMAND), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""
    fields = [
        [
            str(item["id"]),
            item["name"],
            ",".join(map(str, item["scans"])) or "-",
            f"{item['on_source_s'] / 60:.1f}",
        ]
        for item in results["fields"]
    ]
    spws = [
        [
            str(item["id"]),
            str(item["channels"]),
            f"{item['centre_hz'] / 1e9:.6g}",
            f"{item['bandwidth_hz'] / 1e6:.6g}",
            item["frame"],
        ]
        for item in results["spws"]
    ]
    notes = [
        f"{len(results['antennas'])} antennas: {', '.join(results['antennas'])}",
        f"{', '.join(results['correlations'])}; integrations of {results['integration_s']:g} s, "
        f"{results['rows']} rows, {100 * results['unflagged_fraction']:.1f} % not flagged",
    ]
    title = f"{results['ms']} ({results['telescope'] or 'telescope not named'})"
    return [
        TextTable(["field", "name", "scans", "time [min]"], fields, title=title),
        TextTable(["spw", "channels", "centre [GHz]", "width [MHz]", "frame"], spws, notes=notes),
    ]
