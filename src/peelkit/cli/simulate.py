"""``peelkit simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from peelkit import sidecar
from peelkit.cli import options
from peelkit.cli.console import TextTable
from peelkit.cli.finish import finish
from peelkit.cli.state import RunState

POSITIVE = options.Range(min=0, min_open=True)
NOT_NEGATIVE = options.Range(min=0)
COUNT = click.IntRange(min=1)


@click.command(
    "simulate",
    short_help="Make a small VLA-like MS with a bright source off axis, or a lecture's example.",
)
@click.argument("out", metavar="OUT", type=options.PATH)
@click.option(
    "--example",
    type=click.Choice(["mira", "maser", "30dor"]),
    help="ALMA data like those of an example of self-calibration in Brogan, Hunter and Fomalont (2018): "
    "a star on long baselines, its polarised maser line, or a weak mosaic. It has its own array, fields, "
    "sky and defaults; --antennas, --channels, --integrations, --integration, --scans, --*-rms, --sefd, "
    "--seed and --without change it.",
)
@click.option(
    "--config",
    type=click.Choice(list("ABCD")),
    default="C",
    show_default=True,
    help="Configuration of the VLA; A is the largest.",
)
@click.option(
    "--band",
    type=click.Choice(list("LSCX")),
    default="S",
    show_default=True,
    help="Receiver: L 1-2, S 2-4, C 4-8, X 8-12 GHz. It sets the SEFD too.",
)
@click.option(
    "--spws",
    metavar="N",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Spectral windows, spread over the band.",
)
@click.option(
    "--channels", metavar="N", type=COUNT, default=8, show_default=True, help="Channels of a spw."
)
@click.option(
    "--integrations",
    metavar="N",
    type=COUNT,
    default=60,
    show_default=True,
    help="Integrations of a scan.",
)
@click.option(
    "--integration",
    metavar="S",
    type=POSITIVE,
    default=10.0,
    show_default=True,
    help="Length of an integration, in s.",
)
@click.option(
    "--scans",
    metavar="N",
    type=COUNT,
    default=1,
    show_default=True,
    help="Scans on each field; a mosaic goes through all its fields so many times.",
)
@click.option(
    "--fields",
    metavar="N",
    type=click.IntRange(1, 500),
    default=1,
    show_default=True,
    help="Fields of a hexagonal mosaic, half a primary beam apart.",
)
@click.option(
    "--antennas",
    metavar="N",
    type=click.IntRange(2, 27),
    default=27,
    show_default=True,
    help="Antennas; fewer than 27 are spread over the arms.",
)
@click.option(
    "--correlations",
    type=click.Choice(["2", "4"]),
    default="2",
    show_default=True,
    help="2: RR and LL; 4: RL and LR too, which hold noise only.",
)
@click.option(
    "--bright",
    metavar="FLUX@DX,DY",
    multiple=True,
    help="Bright source: flux in Jy without the primary beam, at band centre, and arcmin east and "
    "north of the (mosaic) centre. May be given again.  [default: 9.5@6.4,4.8 in S band, and as deep "
    "in the beam of other bands]",
)
@click.option(
    "--bright-shape",
    metavar="SHAPE",
    default="point",
    show_default=True,
    help="Of bright sources: point, double (two lobes and a core, six synthesised beams long), or "
    "gaussian:5 with its width in arcsec.",
)
@click.option(
    "--spectral-index",
    metavar="ALPHA",
    type=options.NUMBER,
    default=-0.7,
    show_default=True,
    help="Of bright sources.",
)
@click.option(
    "--faint",
    metavar="N",
    type=click.IntRange(min=0),
    default=45,
    show_default=True,
    help="Faint point sources, about a sixth of them near a bright one.",
)
@click.option(
    "--faint-flux",
    metavar="LOW HIGH",
    type=options.NUMBER,
    nargs=2,
    default=(0.001, 0.03),
    show_default=True,
    help="Their least and greatest flux in Jy, without the primary beam.",
)
@click.option(
    "--phase-rms",
    metavar="DEG",
    type=NOT_NEGATIVE,
    help="Phase errors of an antenna, in deg; they drift within 3 minutes.  [default: 20; 0 with --errors]",
)
@click.option(
    "--delay-rms",
    metavar="NS",
    type=NOT_NEGATIVE,
    default=0.1,
    show_default=True,
    help="Delay errors, in ns; they drift within 15 minutes.",
)
@click.option(
    "--amplitude-rms",
    metavar="FRACTION",
    type=NOT_NEGATIVE,
    default=0.05,
    show_default=True,
    help="Amplitude errors; they drift within 15 minutes.",
)
@click.option(
    "--pointing-rms",
    metavar="ARCSEC",
    type=NOT_NEGATIVE,
    default=12.0,
    show_default=True,
    help="Pointing errors along each axis, in arcsec; they drift within 15 minutes.",
)
@click.option(
    "--errors",
    metavar="KIND[:KEY=VALUE,...]",
    multiple=True,
    help="Errors of the gains, beside the drifts of the options above: smooth, walk (of Ornstein and Uhlenbeck), "
    "kolmogorov (turbulence in the wind), steps, bad-antennas, scintillation (of the ionosphere), jitter (anew "
    "in each integration), elevation (gains that fall towards the horizon, each antenna's by its own share). Keys: phase, "
    "the rms in deg; amplitude, that of its logarithm; time, the time scale in s. May be given again: they add up.",
)
@click.option(
    "--beam",
    type=click.Choice(["airy", "gaussian"]),
    default="airy",
    show_default=True,
    help="Shape of the primary beam.",
)
@click.option(
    "--squint/--no-squint",
    default=True,
    show_default=True,
    help="The beams of R and L lie 6 % of their width apart, and turn with the sky.",
)
@click.option(
    "--sefd",
    metavar="JY",
    type=NOT_NEGATIVE,
    help="System equivalent flux density, in Jy; 0 for no noise.  [default: 420, 370, 310, 250 in L, "
    "S, C, X; 2900 in an --example]",
)
@click.option(
    "--noise-correlation",
    metavar="SHARE",
    type=options.Range(min=0, max=1, max_open=True),
    default=0.0,
    show_default=True,
    help="Correlation of the noise of neighbouring channels.",
)
@click.option(
    "--weights-scale",
    metavar="FACTOR",
    type=POSITIVE,
    default=1.0,
    show_default=True,
    help="WEIGHT in the MS is so many times what the noise is worth.",
)
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of all random numbers.",
)
@click.option(
    "--without",
    metavar="PART",
    type=click.Choice(["bright", "faint", "errors", "noise"]),
    multiple=True,
    help="Leave out bright or faint sources, errors (of gains and pointing), or noise; all else stays "
    "the same, noise too. May be given again.",
)
@click.option(
    "--truth",
    metavar="FILE",
    type=options.PATH,
    help="Write here what was put in, as JSON: sources, gains, noise.  [default: OUT.truth.json]",
)
@options.overwrite
@options.memory
@options.common
@click.pass_context
def simulate(ctx: click.Context, out: Path, **chosen: Any) -> None:
    """Make the Measurement Set OUT, with bright sources off axis among faint ones.

    The sky is seen by VLA antennas, through primary beams with squint that point wrongly, with gains
    and delays that drift, and with thermal noise. All of it is by formula and seeded; the truth is
    written beside OUT, to compare with. Positions are ICRS, frequencies topocentric
    (LSRK in --example maser).

    With --without bright --without errors and the same seed, the image shows how good a peeled one
    can be: the same faint sources, in the same noise.

    With --example the array is ALMA's, in band 6, with linear feeds. Its phase errors are what
    referencing to a calibrator between the scans leaves of a turbulent screen in the wind, and slow ones;
    amplitudes drift within 5 minutes.

    \b
    Examples:
      peelkit simulate sim.ms
      peelkit simulate best.ms --without bright --without errors
      peelkit simulate mosaic.ms --fields 12 --integrations 5 --integration 3 --scans 2
      peelkit simulate mira.ms --example mira
      peelkit simulate rough.ms --errors walk:phase=20,time=240 --errors jitter:phase=5
      peelkit simulate two.ms --bright 9.5@6.4,4.8 --bright 2@-5,7 --bright-shape double --seed 7
    """
    from peelkit.core import simulate as work

    state = ctx.ensure_object(RunState)
    chosen["correlations"] = int(chosen["correlations"])
    example = chosen.pop("example")
    if example is None:
        if chosen["phase_rms"] is None:
            chosen["phase_rms"] = 0.0 if chosen["errors"] else work.SimulateOptions.phase_rms
        asked = work.SimulateOptions(**chosen)
    else:
        given = [
            name
            for name in chosen
            if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
        ]
        asked = work.preset(example, {name: chosen[name] for name in given})
    with state.progress() as progress:
        outcome = work.simulate(out, asked, progress)
    finish(ctx, outcome, default_sidecar=sidecar.ms_sidecar(out, work.COMMAND), tables=tables)


def tables(results: dict[str, Any]) -> list[TextTable]:
    """Tables for people: what was made, then the bright sources."""
    low, high = (value / 1e9 for value in results["frequency_hz"])
    fields, noise = results["fields"], results["rms_thermal_jy_beam"]

    def counted(number: int, word: str) -> str:
        return f"{number} {word}{'s' if number > 1 else ''}"

    array = f"VLA {results['config']} configuration"
    if results["example"]:
        array = f"{results['telescope']} (example {results['example']}), {results['longest_baseline_m']:.4g} m"
    wrong, runs = results["errors"], results["executions"]
    rows = [
        ["array", f"{array}, {results['antennas']} antennas, "
         f"resolution about {results['resolution_arcsec']:.2g}\""],
        ["band", f"{results['band']}, {low:g} to {high:g} GHz, {counted(results['spws'], 'spw')} x "
         f"{counted(results['channels'], 'channel')} of {results['channel_width_hz'] / 1e6:.6g} MHz, "
         f"{results['correlations']} correlations"],
        ["time", f"{counted(results['integrations'], 'integration')} of {results['integration_s']:g} s in "
         f"{counted(results['scans'], 'scan')}"
         + (f" and {runs} executions" if runs > 1 else "") + f", {results['rows']} rows"],
        ["errors", f"phases {wrong['phase_rms_deg']:.3g} deg, delays {wrong['delay_rms_ns']:.2g} ns, "
         f"amplitudes {100 * wrong['amplitude_rms']:.2g} %, pointing "
         f"{wrong['pointing_rms_arcsec']:.2g}\" (rms)"],
        ["fields", f"{fields}, primary beam {results['primary_beam_arcmin']:.1f}' wide"],
        ["faint sources", f"{results['faint']}, {results['faint_flux_jy'] * 1e3:.4g} mJy in all"],
        ["thermal noise", f"{noise * 1e6:.3g} uJy/beam"
         + (" in a field" if fields > 1 else "") + ", natural weights" if noise else "none"],
    ]  # fmt: skip
    if results["without"]:
        rows.append(["left out", ", ".join(results["without"])])
    found = [TextTable(["part", "made"], rows, title=f"{results['ms']} (seed {results['seed']})")]
    if results["bright"]:
        found.append(_bright(results))
    found[-1] = TextTable(
        found[-1].columns, found[-1].rows, found[-1].title, [f"Truth: {results['truth']}."]
    )
    return found


def _bright(results: dict[str, Any]) -> TextTable:
    from peelkit.cli.mask import sexagesimal

    mosaic = results["fields"] > 1
    heads = ["source", "RA", "Dec", "from centre (arcmin)", "flux (Jy)", "through beam (Jy)"]
    rows = []
    for source in results["bright"]:
        sign = "-" if source["dec_deg"] < 0 else "+"
        seen = f"{source['apparent_flux_jy']:.3g}"
        if mosaic:
            seen = f"{source['apparent_flux_min_jy']:.3g} to {seen} ({source['field']})"
        rows.append(
            [
                source["name"],
                sexagesimal(source["ra_deg"] / 15, "hms", 3),
                sign + sexagesimal(abs(source["dec_deg"]), "dms", 2),
                f"{source['distance_arcmin']:.2f}",
                f"{source['flux_jy']:.4g}",
                seen,
            ]
        )
    title = f"Bright sources (ICRS; fluxes at {results['reference_hz'] / 1e9:g} GHz)"
    return TextTable(heads, rows, title=title)
