"""``peelkit ddsolve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.dry_run import dry_run_option, show_estimate
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.state import RunState
from peelkit.errors import OptionError

if TYPE_CHECKING:
    from peelkit.selection import Selection
    from peelkit.spread import Machines

DIAGONAL = ("diag_complex", "phase", "amplitude", "complex")
DELAYS = ("delay", "delay_and_offset", "delay_and_tec", "delay_tec_and_offset", "tec_and_offset")
OTHERS = ("leakage", "rotation", "rotation_measure", "crosshand_phase")

# Rows of the table of fields; a mosaic may have thousands.
MOST_FIELD_ROWS = 40

TIME_HELP = "Its time interval: auto (chosen from the data), 10s, 0.5min, 3int (integrations), or inf (a scan)."
FREQ_HELP = "Its frequency interval: auto, 64MHz, 8chan, or spw."


def _term(name: str, types: tuple[str, ...], default: tuple[str, str, str], what: str) -> Any:
    def decorate(function: Any) -> Any:
        kind, time, freq = default
        for option in reversed(
            [
                click.option(
                    f"--{name}", f"{name}_type", type=click.Choice(types), default=kind,
                    show_default=True, help=what,
                ),
                click.option(
                    f"--{name}-time", metavar="INTERVAL", default=time, show_default=True,
                    help=TIME_HELP,
                ),
                click.option(
                    f"--{name}-freq", metavar="INTERVAL", default=freq, show_default=True,
                    help=FREQ_HELP,
                ),
            ]
        ):  # fmt: skip
            function = option(function)
        return function

    return decorate


def _decisions(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    words = ("peel", "subtract", "skip")
    found = {}
    for value in values:
        label, equals, word = value.partition("=")
        if not equals or word not in words:
            raise click.BadParameter(f"{value!r}: use LABEL=peel, LABEL=subtract or LABEL=skip.")
        found[label] = word
    return found


@click.command("ddsolve", short_help="Solve gains towards bright sources, and subtract them.")
@options.ms_argument
@options.from_option("Sidecar of 'peelkit predict-region': brings the columns of all directions.")
@click.option("--all", "all_column", metavar="COLUMN", default="", help="Model of the whole sky.")
@click.option(
    "--peel", metavar="COLUMN", multiple=True,
    help="Model of one bright source; once for each.",
)  # fmt: skip
@click.option(
    "--datacolumn", type=click.Choice(["auto", "data", "corrected"]), default="auto",
    show_default=True, help="Data to solve; auto: CORRECTED_DATA if it is calibrated (differs from DATA), else DATA.",
)  # fmt: skip
@_term("g", (*DIAGONAL, "none"), ("diag_complex", "auto", "spw"), "Direction-independent gain G.")
@_term(
    "k", (*DELAYS, "none"), ("none", "10s", "spw"),
    "Direction-independent delay K. Delays of more than a quarter turn over a spw get a start value from the "
    "data (not tec_and_offset, nor spws of less than 4 channels).",
)  # fmt: skip
@_term(
    "de", (*DIAGONAL, *DELAYS, *OTHERS), ("diag_complex", "auto", "auto"),
    "Gain dE of each direction.",
)  # fmt: skip
@click.option(
    "--combine", default="",
    help="Solve across: field, scan, or field,scan. Fields keep their own models.",
)  # fmt: skip
@click.option(
    "--refant", default="",
    help="Reference antenna by name or id; chosen if not given: central, little flagged.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(min=1), default=2, show_default=True,
    help="Rounds through all terms, at least; three times as many, and again, until they converge or chi-squared settles.",
)  # fmt: skip
@click.option(
    "--iterations", type=click.IntRange(min=1), default=25, show_default=True,
    help="Iterations of each term in a round, at most.",
)  # fmt: skip
@click.option(
    "--min-snr", type=options.Range(min=0), default=3.0, show_default=True,
    help="Least S/N of a dE solution; a weaker direction is subtracted without gains of its own.",
)  # fmt: skip
@click.option(
    "--decide", "decisions", metavar="LABEL=WORD", multiple=True, callback=_decisions,
    help="Overrule the gate for a direction: peel, subtract or skip.",
)  # fmt: skip
@click.option(
    "--subtract", metavar="LABEL", multiple=True,
    help="Direction to subtract, once for each.  [default: all]",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Solve only; subtract nothing, write no column.")
@click.option(
    "--column", default="PEELED_DATA", show_default=True,
    help="Column for the data without the directions, direction-independent gains taken out.",
)  # fmt: skip
@click.option(
    "--corrected", is_flag=True,
    help="Write CORRECTED_DATA too: direction-independent gains taken out, nothing subtracted.",
)  # fmt: skip
@click.option(
    "--own-data", metavar="LABEL", multiple=True,
    help="Write the data of this direction alone, all gains taken out, to its column with _DATA added; "
    "once for each, or all. Their image is a better model of an extended source.",
)  # fmt: skip
@click.option(
    "--balance/--no-balance", default=True, show_default=True,
    help="Let the rest of the sky decide how a gain is shared between G and dE.",
)  # fmt: skip
@click.option(
    "--inject", metavar="FLUX@DX,DY", multiple=True,
    help="Test that peeling eats no other flux: solve once more with this point source in the data, such as "
    "5mJy@0.5,-2 (arcmin east and north of the first direction of --from, or else of the phase centre), and "
    "measure what is left of it; nothing of that is kept. May be given again.",
)  # fmt: skip
@click.option(
    "--flag/--no-flag", default=True, show_default=True,
    help="Flag the data that failed solutions serve; the flags are saved first.",
)  # fmt: skip
@options.selection_options("field", "spw", "scan", "uvrange")
@click.option(
    "--threads", type=click.IntRange(min=0), default=0,
    help="Pieces solved at a time.  [default: one for each core]",
)  # fmt: skip
@click.option(
    "--quartical", metavar="KEY=VALUE", multiple=True,
    help="Option of QuartiCal, such as solver.robust=true. May be given again.",
)  # fmt: skip
@click.option(
    "--out",
    type=options.PATH,
    help="Folder for solutions, logs and plots.  [default: <MS>.ddsolve]",
)
@click.option(
    "--plots/--no-plots", default=True, show_default=True,
    help="Plot dE against time and frequency into the folder.",
)  # fmt: skip
@options.machines
@options.overwrite
@dry_run_option
@options.memory
@options.common
@click.pass_context
def ddsolve(
    ctx: click.Context, ms: Path, selection: Selection, machines: Machines, **values: Any
) -> None:
    """Solve direction-dependent gains towards bright sources in MS, and subtract these sources.

    The direction-independent gains G and K and the gains dE of each direction are solved together
    with QuartiCal (recipe ALL~B1~B2:B1:B2), on a copy of the selected data. Every direction is
    subtracted with its gains; the result, with G and K taken out, goes to a column of its own. DATA is
    never written.

    Before the solve each direction passes a gate: by the S/N of its solutions it is peeled, subtracted
    as it is in the model, or left alone. Afterwards chi-squared and the solutions are judged. Exit
    status 5 if nothing could be solved or the residual is worse than before: MS is then as it was.

    In a mosaic the gate decides for every field and direction. A direction that is too faint in every
    single field, but not in all fields of its kind together, borrows: these are solved together.

    \b
    Examples:
      peelkit ddsolve target.ms --from target.ms.predict-region.peelkit.json
      peelkit ddsolve target.ms --all ALL_SKY_MODEL --peel BRIGHT_1 --peel BRIGHT_2
      peelkit ddsolve target.ms --all ALL_SKY_MODEL --peel BRIGHT_1 --de-time inf --de-freq 64MHz \\
          --k delay_and_offset --g none --refant ea10
      peelkit ddsolve mosaic.ms --from mosaic.ms.predict-region.peelkit.json --workers 8
      peelkit ddsolve target.ms --from target.ms.predict-region.peelkit.json --own-data BRIGHT_1
    """
    if values["dry_run"]:
        _ddsolve(ctx, ms, selection, machines, values)
        return
    from peelkit.core import dd_engine

    # Before the imports of the work itself, so that both go on at the same time.
    with dd_engine.ready():
        _ddsolve(ctx, ms, selection, machines, values)


def _ddsolve(
    ctx: click.Context, ms: Path, selection: Selection, machines: Machines, values: dict[str, Any]
) -> None:
    from peelkit.core import ddsolve as work
    from peelkit.core.dd_terms import TermChoice
    from peelkit.core.ddsolve_options import DdOptions

    state = ctx.ensure_object(RunState)
    dry_run = values.pop("dry_run")
    terms = tuple(
        TermChoice(
            name, *(values.pop(f"{name.lower()}_{part}") for part in ("type", "time", "freq"))
        )
        for name in ("G", "K", "dE")
    )
    combine = frozenset(filter(None, values.pop("combine").replace(" ", "").split(",")))
    if combine - {"field", "scan"}:
        raise OptionError(f"--combine {','.join(sorted(combine))}: use field, scan or field,scan.")
    chosen = DdOptions(terms=terms, combine=combine, **values)
    if not dry_run:
        check_sidecar(ctx, ms, sidecar.ms_sidecar(ms, work.COMMAND))
    with state.progress() as progress:
        outcome = work.ddsolve(ms, selection, chosen, progress, machines=machines, dry_run=dry_run)
    if dry_run:
        show_estimate(ctx, outcome)
        return
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(ms, work.COMMAND), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people: terms, directions, then fields of a mosaic."""
    rows = [
        [
            d["label"],
            _number(d["flux_jy"], ".4g"),
            _number(d["snr_per_solution"], ".0f"),
            d["decision"] + ("" if d["subtracted"] or d["decision"] == "skip" else ", kept"),
            _number(d["chi2_before"], ".4g"),
            _number(d["chi2_after"], ".4g"),
            _percent(d["left_fraction"]),
            _percent(d["flagged_fraction"]),
            _number(d["amplitude_median"], ".3g"),
            _number(d["phase_rms_deg"], ".3g"),
        ]
        for d in results["directions"]
    ]
    heads = ["direction", "flux [Jy]", "S/N", "done", "chi2 before", "after", "left", "failed", "|dE|",
             "phase rms [deg]"]  # fmt: skip
    notes = [
        f"{d['label']}: {d['reason']}." for d in results["directions"] if d["decision"] != "peel"
    ]
    chi2 = results["chi2"]
    if chi2["solved"] is not None:
        notes.append(
            f"chi-squared (1 is noise): {chi2['model_only']:.4g} with the models as they are, "
            f"{chi2['direction_independent']:.4g} with G and K, {chi2['solved']:.4g} with dE too."
        )
    start = results["delay_start"]
    if start and start["used"]:
        notes.append(
            f"K: delays of up to {start['largest_turns']:.2g} turns over a spw were found before the solve."
        )
    notes += _freedom_notes(results["directions"])
    notes += _weight_notes(results["weights"])
    flags = results["flags"]
    if flags:
        notes.append(
            f"Flags: {flags['flagged_before']} of {flags['samples']} samples before, "
            f"{flags['flagged_by_failed_solutions']} more by failed solutions."
        )
    if results["output_column"] and chi2["solved"] is not None:
        notes.append(
            f"{results['datacolumn']} without "
            f"{', '.join(d['label'] for d in results['directions'] if d['subtracted'])} is in "
            f"{results['output_column']}."
        )
    notes += [f"{label} alone is in {column}." for label, column in results["own_data"].items()]
    if results["plots"]:
        notes.append(f"Plots: {Path(results['plots'][0]).parent}/dE.*.png")
    found = [TextTable(heads, rows, title="Directions", notes=notes)]
    if results["terms"]:
        found.insert(0, TextTable(
            ["term", "type", "time", "freq", "solutions", "failed", "converged"],
            [
                [t["name"], t["type"], t["time"], t["freq"], str(t["solutions"]),
                 _percent(t["flagged_fraction"]), _percent(t["converged_fraction"])]
                for t in results["terms"]
            ],
            title=f"Terms (reference antenna {results['refant']})",
        ))  # fmt: skip
    if results["injected"]:
        found.append(_injected(results["injected"]))
    if len({one["field_id"] for one in results["fields"]}) > 1:
        found.append(_field_table(results["fields"]))
    return found


def _injected(sources: list[dict[str, Any]]) -> TextTable:
    return TextTable(
        ["flux [mJy]", "RA [deg]", "Dec [deg]", "from direction [arcsec]", "recovered", "suppressed",
         "sigma"],
        [
            [_number(1e3 * one["flux_jy"], ".4g"), _number(one["ra_deg"], ".5f"),
             _number(one["dec_deg"], "+.5f"), _number(one["separation_arcsec"], ".1f"),
             _percent(one["recovered_fraction"], ".1f"), _percent(one["suppression"], ".1f"),
             _percent(one["sigma"], ".1f")]
            for one in sources
        ],
        title="Injected sources, after a second solve with them in the data",
    )  # fmt: skip


def _freedom_notes(directions: list[dict[str, Any]]) -> list[str]:
    return [
        f"{d['label']}: {d['parameters']} real numbers solved from {d['visibilities']}, "
        f"{_percent(d['freedom'])}."
        for d in directions
        if d["freedom"] is not None
    ]


def _field_table(fields: list[dict[str, Any]]) -> TextTable:
    rows = [
        [
            one["field"],
            one["direction"],
            _number(one["snr_per_solution"], ".1f"),
            _number(one["snr_total"], ".0f"),
            one["decision"],
            _number(one["chi2_before"], ".4g"),
            _number(one["chi2_after"], ".4g"),
            _percent(one["left_fraction"]),
        ]
        for one in fields[:MOST_FIELD_ROWS]
    ]
    heads = ["field", "direction", "S/N", "S/N total", "done", "chi2 before", "after", "left"]
    notes = []
    if len(fields) > len(rows):
        counts: dict[tuple[str, str], int] = {}
        for one in fields:
            key = one["direction"], one["decision"]
            counts[key] = counts.get(key, 0) + 1
        notes = [f"{len(fields) - len(rows)} more rows are in the sidecar. In all fields:"]
        notes += [f"{label}: {word} in {n}" for (label, word), n in sorted(counts.items())]
    return TextTable(heads, rows, title="Fields", notes=notes)


def _weight_notes(weights: list[dict[str, Any]]) -> list[str]:
    known = [one for one in weights if one["noise_over_promise"] is not None]
    if not known:
        return ["Weights: as they are in the MS; too few integrations in a row to compare them."]
    scaled = [f"{one['ddid']} by {one['scale']:.3g}" for one in known if one["scale"] != 1]
    used = f"scaled (data description {', '.join(scaled)})" if scaled else "as they are in the MS"
    noise = [one["noise_over_promise"] for one in known]
    kinds = ", ".join(dict.fromkeys(one["noise_from"] for one in known))
    low, high = f"{min(noise):.3g}", f"{max(noise):.3g}"
    between = low if low == high else f"{low} to {high}"
    return [
        f"Weights: {used}. The noise of what is left is {between} times what they promise, by differences in {kinds}."
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _percent(value: float | None, form: str = ".2g") -> str:
    if value is None:
        return "-"
    if abs(value) < 1e-6:
        return "0 %"
    # Of two digits 100 would be 1e+02.
    return f"{100 * value:.0f} %" if value >= 0.995 else f"{100 * value:{form}} %"
