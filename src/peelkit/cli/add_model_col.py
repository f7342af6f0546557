"""``peelkit add-model-col``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.dry_run import dry_run_option, show_estimate
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.state import RunState

if TYPE_CHECKING:
    from peelkit.selection import Selection
    from peelkit.spread import Machines

# Lines of the table; the sidecar has them all.
MOST_LINES = 20


@click.command(
    "add-model-col", short_help="Copy the model, or a sum of columns, to a named column; audit it."
)
@click.argument("ms", metavar="MS", type=options.PATH)
@click.argument("column", metavar="COLUMN")
@click.option(
    "--expression",
    metavar="COLUMNS",
    default="MODEL_DATA",
    show_default=True,
    help="What to copy: a column, or a sum and difference of columns such as 'ALL-B1+B2'.",
)
@options.selection_options("field", "spw", "scan")
@click.option(
    "--model-image",
    metavar="MODEL",
    type=options.PATH,
    multiple=True,
    help="Model image in Jy/pixel that the column was predicted from: amplitudes far from what it "
    "gives are an error. Give it again for each Taylor term, in order.",
)
@click.option(
    "--flux",
    "flux_jy",
    metavar="JY",
    type=options.Range(min=0, min_open=True),
    help="Total flux of the model in Jy, to compare amplitudes with, in place of --model-image.",
)
@click.option(
    "--allow",
    metavar="FINDING",
    type=click.Choice(["zero", "nan", "one", "unpredicted", "flux"]),
    multiple=True,
    help="Accept this finding of the audit: zero, nan, one, unpredicted or flux. May be given again.",
)
@options.overwrite
@options.machines
@dry_run_option
@options.memory
@options.common
@click.pass_context
def add_model_col(
    ctx: click.Context,
    ms: Path,
    column: str,
    selection: Selection,
    machines: Machines,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Copy MODEL_DATA of MS, or a sum or difference of columns, to COLUMN, and audit what was copied.

    COLUMN gets the shape and storage of DATA; a virtual model is made real first. Rows that are not
    selected keep what a replaced COLUMN had there, and get 0 in a new one.

    For each field and spectral window the audit looks for what ruins a solve unseen: nothing but
    zeros (zero); NaN or infinite values (nan); nothing but CASA's default model, 1 in the parallel
    hands (one); rows or channels that were never predicted, 1 or unflagged 0 (unpredicted); with
    --model-image or --flux, amplitudes above 1.05 times the sum of the model's components, or on the
    shortest 10 % of baselines far from the image's own: by a factor of 2 if it is centred on the
    field, else above twice or below a thousandth of it (flux). Each is an error, and the MS stays
    as it was, unless you --allow it.

    With --workers or --dask-address other processes read, sum and audit the columns, in the same folder,
    and this one writes. One disk is read and written no faster by that: it is for folders that several
    machines share, and sums of many columns.

    The sidecar is MS.add-model-col.COLUMN.peelkit.json.

    \b
    Examples:
      peelkit add-model-col target.ms ALL_SKY_MODEL
      peelkit add-model-col target.ms ALL_SKY_MODEL --model-image first.model --overwrite
      peelkit add-model-col target.ms REST_MODEL --expression ALL_SKY_MODEL-B1-B2
      peelkit add-model-col target.ms REST_MODEL --expression ALL-B1-B2 --dask-address tcp://head:8786
    """
    from peelkit.core import add_model_col as work

    state = ctx.ensure_object(RunState)
    asked = work.Options(selection=selection, **chosen)
    if not dry_run:
        check_sidecar(ctx, ms, work.default_sidecar(ms, column))
    with state.progress() as progress:
        outcome = work.add_model_col(
            ms, column, asked, progress, machines=machines, dry_run=dry_run
        )
    if dry_run:
        show_estimate(ctx, outcome)
        return
    finish(ctx, outcome, default_sidecar=work.default_sidecar(ms, column), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """What was copied, by field and spectral window."""
    groups = results["groups"]
    compared = any(group["expected_amplitude_short_jy"] is not None for group in groups)
    heads = ["field", "spw", "rows", "max (Jy)", "short (Jy)"]
    heads += ["expected (Jy)"] if compared else []
    heads += ["zero (%)", "NaN", "default rows"]
    rows = []
    for group in groups[:MOST_LINES]:
        row = [
            f"{group['field']} {group['field_name']}".strip(),
            str(group["spw"]),
            str(group["rows"]),
            _number(group["max_amplitude_jy"]),
            _number(group["rms_amplitude_short_jy"]),
        ]
        row += [_number(group["expected_amplitude_short_jy"])] if compared else []
        row += [
            _number(100 * group["zero_fraction"]),
            str(group["nan_count"]),
            str(group["one_rows"]),
        ]
        rows.append(row)
    notes = []
    if len(groups) > MOST_LINES:
        notes.append(f"{len(groups) - MOST_LINES} more in the sidecar.")
    notes.append(
        "max: largest amplitude; short: rms amplitude on the shortest 10 % of baselines"
        + ("; expected: what the model gives there." if compared else ".")
    )
    if results["rows_outside"]:
        kept = "keep what they had" if results["replaced"] else "are 0"
        notes.append(f"{results['rows_outside']} rows that were not selected {kept}.")
    if results["virtual_fields"]:
        notes.append("The virtual model was made real.")
    title = f"{results['column']} = {results['expression']}"
    return [TextTable(heads, rows, title=title, notes=notes)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
