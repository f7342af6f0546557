"""``peelkit selfcal``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peelkit import sidecar
from peelkit.cli import options, selfcal_calibrate
from peelkit.cli.console import TextTable
from peelkit.cli.dry_run import dry_run_option, show_estimate
from peelkit.cli.finish import check_sidecar, finish
from peelkit.cli.selfcal_fields import each_field_option, field_tables
from peelkit.cli.selfcal_prepare import flag_notes, prepare_options, prepared_notes
from peelkit.cli.state import RunState
from peelkit.errors import OptionError

if TYPE_CHECKING:
    from peelkit.selection import Selection
    from peelkit.spread import Machines


# Kinds of peelkit.core.dispersive; named as in QuartiCal.
FITTED = (
    "delay", "delay_and_offset", "tec", "tec_and_offset", "delay_and_tec", "delay_tec_and_offset",
)  # fmt: skip


def _many(name: str, kind: Any, help_text: str, **keywords: Any) -> Any:
    return click.option(f"--{name}", name, type=kind, multiple=True, help=help_text, **keywords)


@click.command("selfcal", short_help="Self-calibrate: image, solve, measure, accept or go back.")
@options.ms_argument
@click.option(
    "--out",
    type=options.PATH,
    help="Folder for gain tables, images and plots [default: <MS>.selfcal].",
)
@_many(
    "solint",
    str,
    "Solution interval: inf (per scan), int, 3int, or a time such as 30s. Several make a ladder; auto chooses.",
    default=("auto",),
    show_default=True,
)
@_many(
    "calmode",
    click.Choice(["p", "a", "ap"]),
    "Phases, amplitudes or both: once, or once for each solint [default: p].",
)
@_many(
    "combine",
    str,
    "Data to combine in a solve: spw, baseband, scan, field, or spw,scan; once, or once for each solint.",
)
@_many(
    "gaintype",
    click.Choice(["G", "T", "K", *FITTED]),
    "G for each polarisation, T for both together, K for CASA's delay of each spw; the others are fitted over "
    "all spws together (see below); once, or once for each solint [default: G].",
)
@options.from_option("Follow the ladder in the sidecar of 'peelkit snr-estimate'.")
@click.option(
    "--refant",
    default="",
    help="Reference antennas in order of preference; chosen if not given: central, little flagged.",
)
@click.option(
    "--minsnr",
    type=options.Range(min=0, min_open=True),
    help="S/N below which a solution is dropped [default: 3, or 2 in a large array with phases well above it].",
)
@click.option(
    "--minblperant",
    type=click.IntRange(min=3),
    help="Baselines that an antenna needs [default: 4, for amplitudes 6].",
)
@click.option(
    "--fallback/--no-fallback",
    default=None,
    help="Combine more data where over 5 % of the solutions fail: each spw, baseband, all spws, both "
    "polarisations [default: yes, unless --combine or --gaintype is given].",
)
@click.option(
    "--solnorm/--no-solnorm",
    default=None,
    help="Keep the mean amplitude of the solutions at 1, and with it the flux scale [default: yes; where the "
    "model lacks flux on short baselines, leaving these out is tried too, and the better kept].",
)
@options.selection_options("field", "spw", "scan", "uvrange")
@options.datacolumn("Column to calibrate.")
@click.option(
    "--applymode",
    type=click.Choice(["calonly", "calflag"]),
    default="calonly",
    show_default=True,
    help="calflag also flags the data of failed solutions in MS.",
)
@click.option(
    "--interp",
    type=click.Choice(
        ["linear", "linearPD", "linearperobs", "linearPDperobs", "nearest", "nearestperobs"]
    ),
    help="Interpolation of the solutions in time; chosen by frequency and executions if not given.",
)
@click.option(
    "--spwmap",
    default="",
    help="Spw whose solutions each spw gets, such as 0,0,0,0; by itself where spws are combined.",
)
@click.option(
    "--calwt/--no-calwt",
    default=False,
    show_default=True,
    help="Scale the weights by the gains too.",
)
@click.option(
    "--stokes",
    type=click.Choice(["I", "IQ", "IV", "IQUV"]),
    default="I",
    show_default=True,
    help="Planes to image and to solve against: IQ for linear feeds with XX and YY, IV for circular feeds with "
    "RR and LL, IQUV for four correlations.",
)
@click.option(
    "--parang/--no-parang",
    default=False,
    show_default=True,
    help="Correct for the parallactic angle in all solves and images; four correlations only.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=12, show_default=True, help="Rounds at most."
)
@options.snr_thresholds
@click.option(
    "--line",
    is_flag=True,
    help="Find the channels with a spectral line (above the continuum), solve and image these, apply to all.",
)
@click.option(
    "--check-executions/--no-check-executions",
    default=None,
    help="Image each of several executions by itself first, and compare positions and S/N [default: yes, for one field].",
)
@click.option(
    "--leave-out",
    type=options.PATH,
    help="Regions (.crtf, .reg) of weak sources that stay out of the model; if real, their S/N rises.",
)
@click.option(
    "--mask",
    type=options.PATH,
    help="Cleaning mask (CASA, FITS) or regions (.crtf, .reg) for all rounds; made if not given.",
)
@click.option(
    "--mask-threshold",
    type=options.Range(min=2),
    default=4.5,
    show_default=True,
    help="Sigma that the mask opens to; it starts at twice as much.",
)
@click.option(
    "--nsigma",
    type=options.Range(min=0, min_open=True),
    help="Depth of cleaning in the mask [default: 3, or 1 above a dynamic range of 5000].",
)
@click.option(
    "--model",
    type=options.PATH,
    multiple=True,
    callback=options.all_terms,
    help="Model image [Jy/pixel] for the first round, once for each Taylor term; with --term a calibrator: "
    "point:1.0Jy, point:1Jy,alpha=-0.7@3GHz, 3C48, 3C138, 3C147, 3C286 or standard (by its position).",
)
@click.option(
    "--flux-range",
    type=options.NUMBER,
    nargs=2,
    default=(0.95, 2.0),
    show_default=True,
    help="Change that a round may make of the flux that stands above the artefacts of both images; the upper end "
    "is for phases, amplitudes may raise it by no more than they may lower it.",
)
@click.option(
    "--max-beam-change",
    type=options.Range(min=0),
    default=0.05,
    show_default=True,
    help="Change of the beam's area, as a fraction.",
)
@click.option(
    "--max-failed",
    type=options.Range(0, 1),
    default=0.25,
    show_default=True,
    help="Failed solutions, as a fraction; antennas that fail in most are named, and do not count.",
)
@options.imaging_options
@click.option("--imaging-uvrange", help="Baselines to image; the solve has --uvrange.")
@click.option(
    "--plots/--no-plots",
    default=True,
    show_default=True,
    help="Plot gains, rounds and images into the folder.",
)
@prepare_options
@selfcal_calibrate.calibrator_options
@each_field_option
@options.machines
@options.overwrite
@dry_run_option
@options.memory
@options.common
@click.pass_context
def selfcal(
    ctx: click.Context, ms: Path, selection: Selection, machines: Machines, **values: Any
) -> None:
    """Self-calibrate MS, and measure after each round whether it helped.

    A round images, predicts the clean model, solves for gains on the original data, applies them,
    images again and compares: the S/N over the image and near the source may not fall, flux, beam and
    position must hold, few solutions may fail. What does not help is taken back.

    One field, or several that form a mosaic: these are imaged as one, fields with the S/N for it are
    solved one by one (--combine field: those that see a fair share of the source are solved together), and
    every field gets the solutions nearest in time.

    --gaintype delay, delay_and_offset, tec, tec_and_offset, delay_and_tec and delay_tec_and_offset fit the
    phase offset + 2 pi delay (frequency - reference) - 8.448e9 Hz TEC [TECU] / frequency to all channels of all
    spws together, in rounds with calmode p: for phases that turn over the band (low frequencies, wide bands).
    Delay and offset are of each polarisation, TEC is of both. The solutions are a bandpass table, their
    parameters are in a JSON beside it; phase rounds (G, T) that follow build on them.

    A source that is polarised is not the same in XX and YY: --gaintype G with a model of Stokes I takes the
    difference for gains. --stokes IQ (or IV, IQUV) models it, --gaintype T leaves it. Without --parang Q and
    U are those of the feeds' frame; they turn with the parallactic angle.

    With --each-field every selected field is calibrated by itself, in <out>/<id>_<name>, with --workers several
    at a time; those that gained are written in one step at the end, and exit status 5 is for none.

    CORRECTED_DATA is where it starts if that is calibrated (differs from DATA), else DATA. A second run begins
    anew from what the first was made of; --datacolumn corrected goes on from its result.

    All work is done on a copy of the selected data. At the end CORRECTED_DATA and MODEL_DATA are
    written ('peelkit undo' puts back what was there); the best image is final.image in the folder, with
    a sidecar that 'peelkit image-residual --like' reads. An interrupted run goes on where it was if it
    is started again. Exit status 5 if no round helped: MS is then as it was.

    With --term a source whose model is known is calibrated instead: delays, bandpass and gains in the order
    given, once, without images; applied to it (nearest solution) and to --apply-to (linear in time). The
    defaults are then --solint inf, --calmode ap, all scans together for B, --minsnr 3, --minblperant 4,
    --no-solnorm, --out <MS>.<field>.cal. With --apply solutions of another run are put on MS.

    \b
    Examples:
      peelkit selfcal 3C273.ms
      peelkit selfcal 3C273.ms --from 3C273.ms.snr-estimate.peelkit.json
      peelkit selfcal target.ms --field 2 --solint inf --solint 30s --solint inf \\
          --calmode p --calmode p --calmode ap --refant ea10
      peelkit selfcal target.ms --weights statwt --statwt-fitspw 0:5~20
      peelkit selfcal target.ms --flag-list reviewed.txt
      peelkit selfcal day.ms --field 3C286 --model 3C286 --term K --term B --term G --out flux.cal
      peelkit selfcal day.ms --field J1445 --model point:1Jy --term G --pre flux.cal --flux-from flux.cal \\
          --apply-to target --out gain.cal --overwrite
      peelkit selfcal target.ms --field 2 --imager wsclean
      peelkit selfcal line.ms --apply continuum.ms.selfcal.peelkit.json
      peelkit selfcal low.ms --solint 60s --solint 60s --gaintype tec_and_offset --gaintype G
      peelkit selfcal survey.ms --each-field --field 3~40 --workers 4
      peelkit selfcal maser.ms --stokes IQ --solint inf --solint 60s --gaintype T --gaintype G
    """
    values["spwmap"] = _spwmap(values["spwmap"])
    dry_run = values.pop("dry_run")
    if selfcal_calibrate.asked(ctx, values):
        selfcal_calibrate.run(ctx, ms, selection, values)
        return
    if machines.several and not values["each_field"]:
        raise OptionError(
            "--workers and --dask-address: spread fields; they go with --each-field, or leave them out."
        )
    from peelkit.core import selfcal as work
    from peelkit.core.verdict import Limits

    state = ctx.ensure_object(RunState)
    if values["plan"] is not None and values["solint"] != ("auto",):
        raise OptionError("--from and --solint exclude each other; give one.")
    if len(values["solint"]) > 1 and "auto" in values["solint"]:
        raise OptionError("--solint auto stands alone; name all intervals, or none.")
    low, high = values["flux_range"]
    if not 0 < low <= 1 <= high:
        raise OptionError(f"--flux-range {low:g} {high:g}: must enclose 1, such as 0.95 2.")
    plan = None
    if values["plan"] is not None:
        record = sidecar.read(values["plan"], "snr-estimate")
        plan = tuple(record["results"]["ladder"])
        if not plan:
            raise OptionError(
                f"{values['plan']}: its ladder is empty; self-calibration was not possible."
            )
    chosen = work.SelfcalOptions(
        out=values["out"],
        solints=values["solint"],
        calmodes=values["calmode"],
        combines=values["combine"],
        gaintypes=values["gaintype"],
        plan=plan,
        refant=values["refant"],
        minsnr=values["minsnr"],
        minblperant=values["minblperant"],
        solnorm=values["solnorm"],
        datacolumn=values["datacolumn"],
        applymode=values["applymode"],
        interp=values["interp"] or "",
        spwmap=values["spwmap"],
        calwt=values["calwt"],
        fallback=not (values["combine"] or values["gaintype"])
        if values["fallback"] is None
        else values["fallback"],
        line=values["line"],
        leave_out=values["leave_out"],
        check_executions=values["check_executions"],
        parang=values["parang"],
        rounds=values["rounds"],
        phase_snr=values["phase_snr"],
        amplitude_snr=values["amplitude_snr"],
        mask=values["mask"],
        mask_threshold=values["mask_threshold"],
        nsigma=values["nsigma"],
        model=values["model"],
        limits=Limits(low, high, values["max_beam_change"], values["max_failed"]),
        choices=replace(options.imaging_choices(values), stokes=values["stokes"]),
        plots=values["plots"],
        overwrite=values["overwrite"],
        weights=values["weights"],
        statwt_fitspw=values["statwt_fitspw"],
        flag_list=values["flag_list"],
    )
    show = tables
    if not dry_run:
        check_sidecar(ctx, ms, sidecar.ms_sidecar(ms, work.COMMAND))
    with state.progress() as progress:
        if values["each_field"]:
            from peelkit.core.selfcal_fields import selfcal_each_field

            show = field_tables
            outcome = selfcal_each_field(ms, selection, chosen, machines, progress, dry_run=dry_run)
        else:
            outcome = work.selfcal(ms, selection, chosen, progress, dry_run=dry_run)
    if dry_run:
        show_estimate(ctx, outcome)
        return
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(ms, work.COMMAND), tables=show)


def _spwmap(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    pieces = text.replace(" ", "").strip("[]").split(",")
    if not all(piece.isdigit() for piece in pieces):
        raise click.BadParameter(
            f"{text!r} is not a list of spw ids, such as 0,0,0,0.", param_hint="--spwmap"
        )
    return tuple(int(piece) for piece in pieces)


def _ranges(ranges: list[list[int]]) -> str:
    return ", ".join(
        f"{first}" if first == last else f"{first} to {last}" for first, last in ranges
    )


def _ways(number: int, item: dict[str, Any]) -> list[str]:
    """What an amplitude round found of the model's flux, and the ways it tried."""
    check = item.get("model_check")
    if not check or check["lacking_below_m"] is None:
        return []
    tried = "; ".join(
        f"{'solnorm' if way['solnorm'] else way['uvrange']}: {way['reason']}"
        for way in item["ways"]
    )
    kept = "solnorm" if item["solnorm"] else item["uvrange"]
    return [
        f"Round {number}: the model lacks flux on baselines below {check['lacking_below_m']:.0f} m; "
        f"{tried}; {kept} is better."
        if len(item["ways"]) > 1
        else f"Round {number}: the model lacks flux on baselines below {check['lacking_below_m']:.0f} m."
    ]


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people."""

    def figures(item: dict[str, Any]) -> list[str]:
        return [
            f"{item['peak_jy_beam']:.5g}",
            f"{1e3 * item['rms_jy_beam']:.4g}",
            f"{item['dynamic_range']:.0f}",
            f"{item['flux_jy']:.5g}" if item["flux_jy"] is not None else "-",
        ]

    rows = [["", "first image", "", "", *figures(results["first"]["own_mask"]), "", ""]]
    for number, item in enumerate(results["rounds"], start=1):
        shown = figures(item) if item["image"] else ["-", "-", "-", "-"]
        snr = item["snr"]
        rows.append(
            [
                str(number),
                f"{item['solint']} {item['calmode']}",
                " ".join(filter(None, [item["gaintype"], item["combine"]])),
                f"{snr:.0f}" if snr is not None else "-",
                *shown,
                f"{item['solutions_failed']}/{item['solutions']}",
                ("accepted: " if item["accepted"] else "rejected: ") + item["reason"],
            ]
        )
    notes = [
        "Each image is measured with the mask that it had then. A verdict compares with the best image so far, cleaned "
        "again in the mask of that round.",
        "S/N: of a solution, as the noise of the image before lets expect; artefacts count as noise. What gaincal found "
        "is in the plots.",
    ]
    for line in results["line_channels"]:
        notes.append(
            f"Spw {line['spw']}: line in channels {_ranges(line['ranges'])}, {line['sigma']:.0f} sigma."
        )
    for number, item in enumerate(results["rounds"], start=1):
        if item.get("fell_back"):
            kept = " ".join(filter(None, (item["gaintype"], item["combine"] or "per spw")))
            mapped = f", spwmap {item['spwmap']}" if item["spwmap"] else ""
            notes.append(f"Round {number}: {'; '.join(item['fell_back'])}; kept {kept}{mapped}.")
        notes += _ways(number, item)
        notes += [f"Round {number}: {line}." for line in item["suspicious"]]
    for item in results["left_out"]:
        notes.append(
            f"Left out, {item['label']}: S/N {item['snr_first']:.1f} to {item['snr_final']:.1f}: {item['verdict']}."
        )
    notes += prepared_notes(results["prepared"]) + flag_notes(results["flag_proposals"])
    first, final = results["first"], results["final"]
    if results["gaintables"]:
        notes.append(
            f"Before and after, both with the final mask: rms {1e3 * first['rms_jy_beam']:.4g} to "
            f"{1e3 * final['rms_jy_beam']:.4g} mJy/beam, dynamic range {first['dynamic_range']:.0f} to "
            f"{final['dynamic_range']:.0f}, flux {first['flux_jy']:.5g} to {final['flux_jy']:.5g} Jy."
        )
        notes.append(f"Gain tables: {', '.join(results['gaintables'])}")
    notes.append(f"Image: {final['image']}")
    if results["plots"]:
        notes.append(f"Plots: {', '.join(results['plots'])}")
    columns = [
        "round",
        "solint",
        "solve",
        "S/N",
        "peak [Jy/beam]",
        "rms [mJy/beam]",
        "dyn. range",
        "flux [Jy]",
        "failed",
        "verdict",
    ]
    return [TextTable(columns, rows, notes=notes)]
