"""``peelkit selfcal`` on a source that is known (--term), and elsewhere (--apply)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from peelkit import sidecar
from peelkit.cli.console import TextTable
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.state import RunState
from peelkit.errors import OptionError

if TYPE_CHECKING:
    from peelkit.selection import Selection

F = TypeVar("F", bound=Callable[..., Any])

# Options of these two modes only.
OWN = ("term", "apply_to", "pre", "flux_from", "standard", "apply_tables")

# Options of selfcal that mean the same here.
SHARED = {
    "ms", "out", "field", "spw", "scan", "uvrange", "datacolumn", "applymode", "interp", "calwt",
    "memory_gib", "overwrite",
}  # fmt: skip
WITH_TERM = SHARED | {
    "model", "term", "solint", "calmode", "combine", "refant", "minsnr", "minblperant", "solnorm",
    "plots", "apply_to", "pre", "flux_from", "standard", "parang",
}  # fmt: skip
WITH_APPLY = (SHARED - {"uvrange"}) | {"spwmap", "apply_tables", "parang"}


def calibrator_options(function: F) -> F:
    """Options for calibrating on a known source, and for applying solutions to another MS."""
    for option in reversed(
        [
            click.option(
                "--term",
                type=click.Choice(["K", "B", "G", "T"]),
                multiple=True,
                help="Calibrate on a known source (--model): K delays, B bandpass, G gains, T gains of both "
                "polarisations; each is solved with those before it applied. --solint, --calmode, --combine: once for "
                "G and T, or once for each term. No imaging, no rounds.",
            ),
            click.option(
                "--apply-to",
                default="",
                metavar="FIELD",
                help="Other fields that get the solutions of --term too, as in CASA.",
            ),
            click.option(
                "--pre",
                multiple=True,
                metavar="OUT",
                help="Folder (or tables, with commas) of an earlier --term: its terms are applied first, but for "
                "those that this run solves itself.",
            ),
            click.option(
                "--flux-from",
                default="",
                metavar="OUT",
                help="Folder (or G table) of the flux calibrator: the flux of --model point:1Jy is found from the "
                "gains of both.",
            ),
            click.option(
                "--standard",
                default="Perley-Butler 2017",
                show_default=True,
                help="Flux scale of --model 3C286 and the like, as setjy calls it.",
            ),
            click.option(
                "--apply",
                "apply_tables",
                default="",
                metavar="CALTABLES",
                help="Only apply: the tables of another run, by folder, sidecar or name (with commas); "
                "antennas are matched by name, spws by frequency.",
            ),
        ]
    ):
        function = option(function)
    return function


def asked(ctx: click.Context, values: dict[str, Any]) -> bool:
    """Whether this is one of the two modes; if not, their options must not be given.

    Raises
    ------
    OptionError
        If options do not go together.
    """
    from peelkit.core.calibrate_plan import is_calibrator

    known = [
        str(item) for item in values["model"] if is_calibrator(str(item)) and not item.exists()
    ]
    if values["term"] and values["apply_tables"]:
        raise OptionError("--term and --apply exclude each other; give one.")
    if values["term"]:
        if len(values["model"]) == 1 and not known:
            raise OptionError(
                f"--model {values['model'][0]}: no calibrator that is known here; give point:1.0Jy (with its unit), 3C48, "
                "3C138, 3C147, 3C286, or standard (by the field's position)."
            )
        if len(values["model"]) != 1:
            raise OptionError(
                "--term calibrates on a source that is known: give one --model, such as point:1.0Jy, 3C286 or "
                "standard."
            )
        _refuse(ctx, set(ctx.params) - WITH_TERM, "--term")
        return True
    if values["apply_tables"]:
        _refuse(ctx, set(ctx.params) - WITH_APPLY, "--apply")
        return True
    if known:
        raise OptionError(
            f"--model {known[0]}: is a calibrator's; name the terms to solve, such as --term K --term B --term G."
        )
    for name in OWN:
        if _given(ctx, name):
            raise OptionError(f"--{name.replace('_', '-')}: goes with --term only.")
    return False


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _refuse(ctx: click.Context, names: set[str], mode: str) -> None:
    words = {option.name: option.opts[0] for option in ctx.command.params}
    for name in sorted(names):
        if _given(ctx, name):
            raise OptionError(f"{words.get(name, name)}: does not go with {mode}; leave it out.")


def run(ctx: click.Context, path: Path, selection: Selection, values: dict[str, Any]) -> None:
    """Calibrate on a known source, or apply elsewhere."""
    state = ctx.ensure_object(RunState)
    check_sidecar(ctx, path, sidecar.ms_sidecar(path, "selfcal"))
    if values["apply_tables"]:
        from peelkit.core.calibrate_elsewhere import ApplyOptions, apply_elsewhere

        applying = ApplyOptions(
            tables=values["apply_tables"],
            out=values["out"],
            datacolumn=values["datacolumn"],
            applymode=values["applymode"],
            interp=values["interp"] or "",
            spwmap=values["spwmap"],
            calwt=values["calwt"],
            parang=values["parang"] if _given(ctx, "parang") else None,
            overwrite=values["overwrite"],
        )
        with state.progress() as progress:
            outcome = apply_elsewhere(path, selection, applying, progress)
    else:
        from peelkit.core.calibrate import calibrate
        from peelkit.core.calibrate_plan import CalibrateOptions

        asked_for = CalibrateOptions(
            model=str(values["model"][0]),
            terms=values["term"],
            out=values["out"],
            standard=values["standard"],
            solints=() if values["solint"] == ("auto",) else values["solint"],
            calmodes=values["calmode"],
            combines=values["combine"],
            apply_to=values["apply_to"],
            pre=values["pre"],
            flux_from=values["flux_from"],
            refant=values["refant"],
            minsnr=values["minsnr"],
            minblperant=values["minblperant"],
            # The amplitudes of a calibrator carry the flux scale: normalised only if asked.
            solnorm=bool(values["solnorm"]),
            datacolumn="data" if values["datacolumn"] == "auto" else values["datacolumn"],
            applymode=values["applymode"],
            interp=values["interp"] or "",
            calwt=values["calwt"],
            parang=values["parang"],
            plots=values["plots"],
            overwrite=values["overwrite"],
        )
        with state.progress() as progress:
            outcome = calibrate(path, selection, asked_for, progress)
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(path, "selfcal"), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""
    made = []
    if results["terms"]:
        made.append(_terms(results))
    if results["flux"]:
        made.append(_flux(results))
    if results.get("check"):
        made.append(_check(results))
    made.append(_applied(results))
    return made


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else f"{value:{form}}"


def _terms(results: dict[str, Any]) -> TextTable:
    rows = []
    notes = []
    for item in results["terms"]:
        unit = "delay_ns" if item["term"] == "K" else "amplitude"
        rows.append(
            [
                item["name"],
                " ".join(filter(None, [item["solint"], item["calmode"]])),
                item["combine"] or "-",
                f"{item['solutions_failed']}/{item['solutions']}",
                _number(item["snr_median"], ".0f"),
                *(_number(item[f"{unit}_{word}"]) for word in ("min", "median", "max")),
                "ns" if item["term"] == "K" else "",
                item["caltable"],
            ]
        )
        if item["helper"]:
            helper = item["helper"]
            notes.append(
                f"For {item['name']} only, phases every {helper['solint']} were solved first "
                f"({helper['solutions_failed']}/{helper['solutions']} failed), so that its long interval does "
                "not average them away."
            )
    columns = [
        "term", "solint", "combine", "failed", "S/N", "least", "median", "most", "", "table",
    ]  # fmt: skip
    return TextTable(columns, rows, title=f"{results['field']}: {results['model']}", notes=notes)


def _flux(results: dict[str, Any]) -> TextTable:
    rows = [
        [
            item["field"],
            str(item["spw"]),
            _number(item["flux_jy"], ".5g"),
            _number(item.get("flux_error_jy"), ".2g"),
            _number(item["scatter_percent"], ".2g"),
            item["source"],
        ]
        for item in results["flux"]
    ]
    columns = ["field", "spw", "flux [Jy]", "error", "scatter over antennas [%]", "from"]
    return TextTable(columns, rows)


def _check(results: dict[str, Any]) -> TextTable:
    rows = [
        [
            str(item["spw"]),
            _number(item["amplitude_ratio"], ".5f"),
            _number(item["phase_deg"], ".3f"),
            _number(item["residual_rms_jy"]),
            _number(item["spectrum_scatter_percent"], ".3g"),
            _number(item["spectrum_noise_percent"], ".3g"),
        ]
        for item in results["check"]
    ]
    columns = [
        "spw", "corrected/model", "phase [deg]", "rms a visibility [Jy]", "scatter over channels [%]",
        "noise in a channel [%]",
    ]  # fmt: skip
    notes = [
        "A bandpass of the same data takes their noise along: the scatter is then below the noise."
    ]
    return TextTable(
        columns, rows, title="The calibrator, corrected",
        notes=notes if any(item["term"] == "B" for item in results["terms"]) else [],
    )  # fmt: skip


def _applied(results: dict[str, Any]) -> TextTable:
    rows = []
    for item in results["applied"]:
        for name, interp, spwmap in zip(
            item["gaintables"], item["interp"], item["spwmap"], strict=True
        ):
            shown = ",".join(map(str, spwmap)) if spwmap else "-"
            rows.append([item["field"], name, interp, shown])
    notes = [f"Plots: {', '.join(results['plots'])}"] if results["plots"] else []
    if results.get("parang") is False:
        notes.append(f"Parallactic angle not applied: {results['parang_reason']}.")
    elif results["parang"]:
        notes.append(f"Parallactic angle applied: {results['parang_reason']}.")
    notes += [
        f"{name}: executions have spws of the same frequencies; they were told apart by time."
        for name in results["matched_by_time"]
    ]
    return TextTable(["applied to", "table", "interp", "spwmap"], rows, notes=notes)
