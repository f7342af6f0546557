"""The plan of a simulated observation: array, fields, times, sky and errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_processes
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate_errors import Errors, make_errors, no_errors
from peelkit.core.simulate_instrument import EVLA, Instrument
from peelkit.errors import OptionError

# Between scans [s]: the antennas move.
SLEW_S = 20.0
MIN_ELEVATION_DEG = 10.0
# Distance of a mosaic's fields, in beam widths.
FIELD_SPACING = 0.5

# One stream of random numbers for each purpose: leaving one out changes no other. New ones go last.
STREAMS = ("sky", "phase", "delay", "amplitude", "pointing", "noise", "screen", "process")


@dataclass(frozen=True)
class SimulateOptions:
    """What the command line asks for.

    Parameters
    ----------
    example : str
        Name in `simulate_examples.EXAMPLES`, or empty: array, fields, sky and spws are then its own.
    config, band : str
        VLA configuration (A to D) and receiver (L, S, C, X).
    spws, channels : int
        Spectral windows, and channels of each.
    integrations, scans, fields : int
        Integrations of a scan, scans on each field, fields.
    integration : float
        Length of an integration [s].
    antennas, correlations : int
        Antennas, and 2 (RR, LL) or 4 correlations.
    bright : tuple of str
        FLUX@DX,DY, Jy and arcmin.
    bright_shape : str
        point, double or gaussian:ARCSEC.
    spectral_index : float
        Of the bright sources.
    faint : int
        Faint sources.
    faint_flux : tuple of float
        Their least and greatest flux density [Jy].
    phase_rms, delay_rms, amplitude_rms, pointing_rms : float
        Errors [deg, ns, fraction, arcsec for each axis].
    errors : tuple of str
        KIND[:phase=DEG,amplitude=FRACTION,time=S], of `simulate_processes.KINDS`.
    beam : str
        airy or gaussian.
    squint : bool
        The R and L beams lie apart.
    sefd : float or None
        System equivalent flux density [Jy]; the band's if None.
    noise_correlation : float
        Of neighbouring channels.
    weights_scale : float
        WEIGHT is so many times what the noise is worth.
    seed : int
        Of all random numbers.
    without : tuple of str
        Parts to leave out: bright, faint, errors, noise.
    truth : Path or None
        Truth file; <OUT>.truth.json if None.
    overwrite : bool
        Replace products that exist.
    """

    example: str = ""
    config: str = "C"
    band: str = "S"
    spws: int = 4
    channels: int = 8
    integrations: int = 60
    integration: float = 10.0
    scans: int = 1
    fields: int = 1
    antennas: int = 27
    correlations: int = 2
    bright: tuple[str, ...] = ()
    bright_shape: str = "point"
    spectral_index: float = -0.7
    faint: int = 45
    faint_flux: tuple[float, float] = (1e-3, 30e-3)
    phase_rms: float = 20.0
    delay_rms: float = 0.1
    amplitude_rms: float = 0.05
    pointing_rms: float = 12.0
    errors: tuple[str, ...] = ()
    beam: str = "airy"
    squint: bool = True
    sefd: float | None = None
    noise_correlation: float = 0.0
    weights_scale: float = 1.0
    seed: int = 1
    without: tuple[str, ...] = ()
    truth: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """Everything but the visibilities.

    Parameters
    ----------
    instrument : Instrument
        The telescope.
    centre : Place
        What sources' offsets are from.
    position_m : ndarray, shape (antenna, 3)
        ITRF.
    stations : list of str
        Pads.
    fields : list of Place
        Phase centres.
    spw_freq_hz : list of ndarray
        Channel centres of each spw.
    run_spws : list of tuple of int
        Spws of each execution.
    frame : str
        Of the frequencies: TOPO or LSRK.
    band : str
        The receiver's name.
    band_hz : tuple of float
        Its limits.
    channel_width_hz, reference_hz, beam_width, resolution_arcsec, sefd_jy, noise_jy : float
        Width of a channel, middle of the band, full width of the primary beam at half power [rad],
        width of the synthesised beam, and noise: of the system, and of a visibility's real and
        imaginary part.
    integration_s : float
        Length of an integration.
    time_s, field_id, scan, run : ndarray, shape (time,)
        Middle of each integration (MJD), its field, scan and execution.
    sources : list of Source
        What is in the data.
    errors : Errors
        At each time.
    """

    instrument: Instrument
    centre: sky.Place
    position_m: NDArray[np.float64]
    stations: list[str]
    fields: list[sky.Place]
    spw_freq_hz: list[NDArray[np.float64]]
    run_spws: list[tuple[int, ...]]
    frame: str
    channel_width_hz: float
    band: str
    band_hz: tuple[float, float]
    reference_hz: float
    beam_width: float
    resolution_arcsec: float
    sefd_jy: float
    noise_jy: float
    integration_s: float
    time_s: NDArray[np.float64]
    field_id: NDArray[np.intp]
    scan: NDArray[np.intp]
    run: NDArray[np.intp]
    sources: list[sky.Source]
    errors: Errors

    @property
    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and second antenna of each baseline."""
        return np.triu_indices(len(self.stations), 1)

    @property
    def antenna_names(self) -> list[str]:
        """As the telescope has them."""
        prefix = self.instrument.antenna_prefix
        return [f"{prefix}{number + 1:02d}" for number in range(len(self.stations))]

    @property
    def n_row(self) -> int:
        """Rows of the MS."""
        n_spw = np.array([len(spws) for spws in self.run_spws])
        return int(n_spw[self.run].sum()) * self.pairs[0].size

    @property
    def rms_thermal_jy_beam(self) -> float:
        """Of a naturally weighted Stokes I image of one field: both parallel hands, all channels."""
        n_chan = self.n_row * self.spw_freq_hz[0].size / len(self.fields)
        return self.noise_jy / math.sqrt(n_chan * 2)


def random_streams(seed: int) -> dict[str, np.random.Generator]:
    """Generators by purpose."""
    seeds = np.random.SeedSequence(seed).spawn(len(STREAMS))
    return {name: np.random.default_rng(one) for name, one in zip(STREAMS, seeds, strict=True)}


def make_plan(options: SimulateOptions) -> Plan:
    """Lay the observation out, and draw the sky and the errors."""
    check_faint_flux(options)
    band = array.BANDS[options.band]
    streams = random_streams(options.seed)
    pads = array.pads(options.config, options.antennas)
    place_m = array.offsets(pads)
    position_m = array.positions(pads)
    processes = simulate_processes.parse(options.errors)
    width = beam.half_power_width(band.centre_hz)
    resolution = array.resolution_arcsec(position_m, band.centre_hz)
    centres = sky.mosaic(options.fields, FIELD_SPACING * width)
    names = [f"P{n + 1:02d}" for n in range(len(centres))] if len(centres) > 1 else ["TARGET"]
    fields = [sky.sky_place(*centre, name) for centre, name in zip(centres, names, strict=True)]
    time_s, field_id, scan = _schedule(options, fields)
    bright = sky.parse_bright(options.bright, width, band.centre_hz)
    sources: list[sky.Source] = []
    shape = sky.parse_shape(options.bright_shape)
    if "bright" not in options.without:
        sources += sky.bright_sources(bright, shape, options.spectral_index, resolution)
    if "faint" not in options.without:
        sources += sky.faint_sources(
            options.faint, options.faint_flux, fields=centres, bright=bright, beam_width=width,
            resolution_arcsec=resolution, rng=streams["sky"],
        )  # fmt: skip
    if "errors" in options.without:
        errors = no_errors(time_s.size, options.antennas)
    else:
        errors = make_errors(
            time_s, options.antennas, phase_rms_deg=options.phase_rms,
            delay_rms_ns=options.delay_rms, amplitude_rms=options.amplitude_rms,
            pointing_rms_arcsec=options.pointing_rms, streams=streams,
        )  # fmt: skip
        elevation = [
            array.elevation(float(moment), fields[field].ra_rad, fields[field].dec_rad)
            for moment, field in zip(time_s, field_id, strict=True)
        ]
        at = simulate_processes.Setting(time_s, place_m, np.array(elevation), band.centre_hz)
        errors = simulate_processes.add(errors, processes, at, streams["process"])
    channel_width = array.channel_width(band, options.spws, options.channels)
    return Plan(
        instrument=replace(EVLA, dish=replace(EVLA.dish, gaussian=options.beam == "gaussian")),
        centre=sky.CENTRE,
        position_m=position_m,
        stations=[f"{arm}{number:02d}" for arm, number in pads],
        fields=fields,
        spw_freq_hz=array.spectral_windows(band, options.spws, options.channels),
        run_spws=[tuple(range(options.spws))],
        frame="TOPO",
        channel_width_hz=channel_width,
        band=options.band,
        band_hz=(band.low_hz, band.high_hz),
        reference_hz=band.centre_hz,
        beam_width=width,
        resolution_arcsec=resolution,
        sefd_jy=sefd_jy(options),
        noise_jy=visibility_noise(
            sefd_jy(options), EVLA.efficiency, channel_width, options.integration
        ),
        integration_s=options.integration,
        time_s=time_s,
        field_id=field_id,
        scan=scan,
        run=np.zeros_like(scan),
        sources=sources,
        errors=errors,
    )


def check_faint_flux(options: SimulateOptions) -> None:
    """Refuse fluxes of faint sources that are none."""
    low, high = options.faint_flux
    if not (0 < low <= high < math.inf):
        raise OptionError(
            f"--faint-flux {low:g} {high:g}: give the least flux, above 0, then the greatest, in Jy."
        )


def visibility_noise(sefd_jy: float, efficiency: float, width_hz: float, time_s: float) -> float:
    """Noise of a visibility's real and of its imaginary part [Jy]: the radiometer equation."""
    return sefd_jy / (efficiency * math.sqrt(2 * width_hz * time_s))


def sefd_jy(options: SimulateOptions) -> float:
    """System equivalent flux density [Jy]."""
    return array.BANDS[options.band].sefd_jy if options.sefd is None else options.sefd


def _schedule(
    options: SimulateOptions, fields: list[sky.Place]
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Middle of each integration, its field and its scan; from an hour before transit.

    A longer observation than two hours is centred on transit.
    """
    n_scan = options.scans * len(fields)
    scan_s = options.integrations * options.integration
    duration = n_scan * (scan_s + SLEW_S) - SLEW_S
    begin_s = min(-3600.0, -duration / 2)
    begin = begin_s * array.SIDEREAL / 86400.0 * 2 * math.pi
    start = array.time_at(begin, sky.CENTRE_RA)
    lowest = min(
        array.elevation(start + moment, sky.CENTRE_RA, sky.CENTRE_DEC) for moment in (0, duration)
    )
    if duration > 86400.0 or math.degrees(lowest) < MIN_ELEVATION_DEG:
        raise OptionError(
            f"--integrations {options.integrations}: the observation takes {duration / 3600:.1f} "
            "hours, and the field sets before; give fewer integrations, scans or fields."
        )
    scan = np.repeat(np.arange(n_scan), options.integrations)
    since = (np.arange(scan.size) + 0.5) * options.integration + scan * SLEW_S
    return start + since, scan % len(fields), scan + 1


def squint_offset(
    plan: Plan, options: SimulateOptions, index: int, freq_hz: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Offset of the R beam at a time, shape (chan, 2); it turns with the parallactic angle."""
    if not options.squint or plan.instrument.is_linear:
        return np.zeros((freq_hz.size, 2))
    field = plan.fields[int(plan.field_id[index])]
    angle = array.parallactic_angle(float(plan.time_s[index]), field.ra_rad, field.dec_rad)
    return beam.squint(freq_hz, angle)
