"""``peelkit snr-estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState

if TYPE_CHECKING:
    from peelkit.selection import Selection


@click.command(
    "snr-estimate", short_help="Is self-calibration possible, and with which solution intervals?"
)
@options.ms_argument
@click.option("--image", type=options.IMAGE, help="First image, CASA or FITS; made if not given.")
@click.option(
    "--peak", type=options.NUMBER, help="Peak of the first image [Jy/beam], instead of --image."
)
@click.option("--rms", type=options.NUMBER, help="Noise of the first image [Jy/beam], with --peak.")
@options.datacolumn("Column that the first image is made of.")
@options.selection_options("field", "spw", "scan")
@options.snr_thresholds
@click.option(
    "--modelcolumn",
    default="MODEL_DATA",
    show_default=True,
    help="Column with a model, used for the signal of each antenna where it exists.",
)
@options.imaging_options
@options.memory
@options.common
@click.pass_context
def snr_estimate(
    ctx: click.Context,
    ms: Path,
    image: Path | None,
    peak: float | None,
    rms: float | None,
    datacolumn: str,
    selection: Selection,
    phase_snr: float,
    amplitude_snr: float,
    modelcolumn: str,
    **imaging: Any,
) -> None:
    """Estimate the S/N per antenna that gain solutions on MS would have.

    From the first image (given, or made in a scratch folder) and the unflagged data: for each solution
    interval and each way of combining, the S/N, and whether phases (S/N 3) and amplitudes (S/N 10) can
    be solved. Recommends a ladder of intervals, which 'peelkit selfcal --from' follows. Exit status 5
    if nothing is possible. Changes nothing in MS.

    \b
    Examples:
      peelkit snr-estimate 3C273.ms
      peelkit snr-estimate target.ms --peak 0.012 --rms 20e-6 --field 3 --json
      peelkit snr-estimate mosaic.ms --image first.image.tt0
    """
    from peelkit.core import snr_estimate as work

    state = ctx.ensure_object(RunState)
    chosen = work.SnrOptions(
        image=image,
        peak=peak,
        rms=rms,
        phase_snr=phase_snr,
        amplitude_snr=amplitude_snr,
        model_column=modelcolumn,
        datacolumn=datacolumn,
        choices=options.imaging_choices(imaging),
    )
    with state.progress() as progress:
        outcome = work.estimate(ms, selection, chosen, progress)
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(ms, work.COMMAND), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""
    yes = {True: "yes", False: "no"}
    rows = [
        [
            row["solint"],
            f"{row['solint_s']:g}",
            row["combine"] or "-",
            row["gaintype"],
            f"{row['snr']:.1f}",
            f"{row['phase_error_deg']:.3g}",
            f"{row['amplitude_error_percent']:.3g}",
            _percent(row["decorrelation"]),
            yes[row["phase_ok"]],
            yes[row["amplitude_ok"]],
        ]
        for row in results["rows"]
    ]
    image_snr = results["image_snr"]
    physics = results["physics"]
    notes = [
        f"{results['n_antenna']} antennas, {results['on_source_s']:.0f} s on source in "
        f"{results['n_scans']} scans, {results['integration_s']:g} s integrations; "
        f"image peak {results['image_peak_jy_beam']:.4g} Jy/beam, rms "
        f"{results['image_rms_jy_beam']:.3g} Jy/beam, S/N {image_snr:.0f}"
        f" (worth a try from {physics['rule_of_thumb_image_snr']:.0f}).",
    ]
    weak = [
        row for row in results["antennas"] if row["snr_inf"] < 0.5 * _median(results["antennas"])
    ]
    if weak:
        names = ", ".join(f"{row['antenna']} ({row['snr_inf']:.0f})" for row in weak[:6])
        notes.append(f"Antennas with less than half the typical S/N: {names}.")
    limit = physics["gain_transfer_dynamic_range"]
    if limit:
        beyond = "above" if image_snr > limit else "below"
        notes.append(
            f"Dynamic range {image_snr:.0f} is {beyond} what gain transfer alone reaches here "
            f"(about {limit:.0f}:1)."
        )
    if physics["effective_baseline_m"]:
        low, high = physics["effective_baseline_m"]
        notes.append(
            f"{physics['frequency_hz'] / 1e9:.3g} GHz: the {physics['atmosphere']} dominates; the "
            f"shortest interval follows it on baselines up to {low:.0f} to {high:.0f} m "
            f"(longest: {physics['longest_baseline_m']:.0f} m)."
        )
    notes += physics["notes"]
    main = TextTable(
        [
            "solint",
            "[s]",
            "combine",
            "gaintype",
            "S/N",
            "phase err [deg]",
            "amp err [%]",
            "decorr [%]",
            "phase",
            "amplitude",
        ],
        rows,
        title="S/N per antenna and solution",
    )
    found = [main]
    if len(results["fields"]) > 1:
        found.append(
            TextTable(
                ["field", "name", "on source [s]", "peak [Jy/beam]", "S/N inf", "feasible"],
                [
                    [str(f["field"]), f["name"], f"{f['on_source_s']:.0f}", f"{f['peak_jy_beam']:.3g}",
                     f"{f['snr_inf']:.1f}", yes[f["feasible"]]]
                    for f in results["fields"]
                ],
                title="Fields",
            )
        )  # fmt: skip
    if len(results["spws"]) > 1:
        found.append(
            TextTable(
                ["spw", "[GHz]", "share", "S/N inf, G"],
                [
                    [str(s["spw"]), f"{s['frequency_hz'] / 1e9:.4g}", f"{s['sensitivity_share']:.2f}",
                     f"{s['snr_inf']:.1f}"]
                    for s in results["spws"]
                ],
                title="Spectral windows",
            )
        )  # fmt: skip
    if results["ladder"]:
        found.append(
            TextTable(
                ["solint", "calmode", "combine", "gaintype", "minsnr", "S/N", "decorr [%]"],
                [
                    [r["solint"], r["calmode"], r["combine"] or "-", r["gaintype"], f"{r['minsnr']:g}",
                     f"{r['snr']:.1f}", _percent(r["decorrelation"])]
                    for r in results["ladder"]
                ],
                title="Recommended rounds",
                notes=[*notes, f"minblperant {results['minblperant']}, for amplitudes {results['minblperant_amplitude']}."],
            )
        )  # fmt: skip
    else:
        found.append(TextTable([], [], notes=notes))
    return found


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2g}"


def _median(rows: list[dict[str, Any]]) -> float:
    values = sorted(row["snr_inf"] for row in rows)
    return values[len(values) // 2] if values else 0.0
