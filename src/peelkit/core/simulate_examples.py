"""Simulations of the three examples of self-calibration in the lecture (seed 002, section 2.4).

What the lecture says of the data is taken from it: antennas, baselines, executions, scans, integrations,
fields. It does not say how strong the sources are (its figures do), so that fluxes and sizes here are
round numbers of the right kind; how large the errors are was chosen so that the first image has about
the S/N of the lecture's. What self-calibration then makes of it was not tuned (bench/lecture.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate_errors import SLOW_TIME_S, Errors, drift, no_errors
from peelkit.core.simulate_instrument import ALMA, ALMA_BAND_6_SEFD_JY, spiral
from peelkit.core.simulate_plan import (
    MIN_ELEVATION_DEG,
    Plan,
    SimulateOptions,
    check_faint_flux,
    random_streams,
    visibility_noise,
)
from peelkit.core.simulate_screen import left_over, make_screen
from peelkit.errors import OptionError

# Options that an example settles: its array, fields and sky are what it is.
SETTLED = (
    "config", "band", "fields", "correlations", "bright", "bright_shape", "spectral_index", "faint",
    "faint_flux", "squint", "spws", "errors", "beam",
)  # fmt: skip

BAND_6_HZ = (211e9, 275e9)
# Between fields of a scan [s].
SLEW_S = 2.0
# Correlation time of amplitudes [s].
AMPLITUDE_TIME_S = 300.0
# Shares of the phase variance: half the screen's, half slow (antenna positions, drifts of electronics,
# of both hands), and what each hand has for itself, as slow.
SCREEN_SHARE, SLOW_SHARE, OWN_SHARE = 0.5, 0.48, 0.02
# Share of the variance of logarithmic amplitudes that is each hand's own.
OWN_AMPLITUDE_SHARE = 0.3


@dataclass(frozen=True)
class Example:
    """One of the lecture's examples.

    Parameters
    ----------
    title : str
        What it is.
    ra_deg, dec_deg : float
        Centre, ICRS.
    fields : tuple of int
        Fields in each row of a mosaic, from north to south; (1,) for one field.
    field_step_arcsec : float
        Between neighbours.
    longest_m, exponent : float
        Of the array; see `spiral`.
    starts_h : tuple of float
        Hour angle at the start of each execution [h].
    days : tuple of int
        Sidereal days after the first on which it is.
    spw_hz : tuple of float
        Middle of each spw in the first execution.
    spw_width_hz : float
        Of all channels.
    doppler_hz : float
        Shift of the spws from one execution to the next; 0: all have the same spws, in LSRK.
    scan_gap_s : float
        From the end of a scan to the next, in which the phase calibrator is observed.
    sources : tuple of Source
        With offsets in arcsec here.
    options : mapping
        Values of `SimulateOptions`.
    """

    title: str
    ra_deg: float
    dec_deg: float
    fields: tuple[int, ...]
    field_step_arcsec: float
    longest_m: float
    exponent: float
    starts_h: tuple[float, ...]
    days: tuple[int, ...]
    spw_hz: tuple[float, ...]
    spw_width_hz: float
    doppler_hz: float
    scan_gap_s: float
    sources: tuple[sky.Source, ...]
    options: Mapping[str, Any]


EXAMPLES = {
    "mira": Example(
        title="Mira, continuum at 1.3 mm on long baselines, two executions",
        ra_deg=34.8366, dec_deg=-2.9777, fields=(1,), field_step_arcsec=0.0,
        longest_m=15.2e3, exponent=2.0, starts_h=(-1.2, 0.3), days=(0, 0),
        spw_hz=(229.6e9,), spw_width_hz=1.875e9, doppler_hz=7e6, scan_gap_s=21.0,
        sources=(
            sky.Source("MIRA_A", 0.0, 0.0, 0.150, 1.9, 0.026, 0.025, 50.0, bright=1),
            sky.Source("MIRA_B", 0.48, -0.07, 0.009, 1.3, 0.022, 0.022, 0.0),
        ),
        options={
            "antennas": 27, "channels": 4, "integration": 3.02, "integrations": 26, "scans": 16,
            "phase_rms": 16.0, "delay_rms": 0.02, "amplitude_rms": 0.05, "pointing_rms": 0.0,
        },
    ),
    "maser": Example(
        title="Mira, polarised SiO maser line, two executions in one spw",
        ra_deg=34.8366, dec_deg=-2.9777, fields=(1,), field_step_arcsec=0.0,
        longest_m=15.2e3, exponent=2.0, starts_h=(-1.2, 0.3), days=(0, 0),
        spw_hz=(215.59e9,), spw_width_hz=64 * 122.07e3, doppler_hz=0.0, scan_gap_s=21.0,
        sources=(
            sky.Source("MASER_21", 0.0, 0.0, 60.0, 0.0, bright=1, line=(21, 3.0), polarised=0.3, evpa_deg=35.0),
            sky.Source("MASER_40", 0.012, 0.021, 8.0, 0.0, bright=2, line=(40, 3.0), polarised=0.2, evpa_deg=120.0),
            sky.Source("MASER_14", -0.018, 0.010, 3.0, 0.0, line=(14, 4.0), polarised=0.1, evpa_deg=80.0),
            sky.Source("MASER_30", 0.008, -0.020, 2.0, 0.0, line=(30, 4.0), polarised=0.05, evpa_deg=0.0),
        ),
        options={
            "antennas": 27, "channels": 64, "integration": 3.02, "integrations": 26, "scans": 5,
            "phase_rms": 13.0, "delay_rms": 0.02, "amplitude_rms": 0.05, "pointing_rms": 0.0,
        },
    ),
    "30dor": Example(
        title="30 Doradus, a weak mosaic of 23 fields in a compact array, four executions",
        ra_deg=84.7000, dec_deg=-69.0750, fields=(2, 5, 4, 5, 4, 3), field_step_arcsec=13.4,
        longest_m=210.0, exponent=1.5, starts_h=(-2.2, -1.2, -0.2, 0.8), days=(0, 1, 2, 3),
        spw_hz=(217.6e9, 231.1e9), spw_width_hz=1.875e9, doppler_hz=5e6, scan_gap_s=240.0,
        # Offsets from field 13, the strongest. Fluxes are such that, as in the lecture, hardly a solution
        # fails if all strong fields are combined, and many do in field 13 alone.
        sources=(
            sky.Source("CLUMP_1", 0.5, 1.0, 0.024, 3.0, 2.5, 2.0, 30.0, bright=1),
            sky.Source("CLUMP_2", -7.0, -3.0, 0.020, 3.0, 3.0, 2.5, 100.0, bright=2),
            sky.Source("CLUMP_3", 3.0, -4.0, 0.050, 3.0, 6.0, 4.0, 70.0, bright=3),
            sky.Source("CLUMP_4", 9.0, 8.0, 0.016, 3.0, 2.5, 2.5, 0.0, bright=4),
            sky.Source("CLUMP_5", -10.0, 6.0, 0.030, 3.0, 5.0, 3.0, 150.0, bright=5),
            sky.Source("CLUMP_6", 12.0, -6.0, 0.012, 3.0, 2.0, 2.0, 0.0, bright=6),
            sky.Source("CLUMP_7", -4.0, -13.0, 0.018, 3.0, 4.0, 4.0, 0.0, bright=7),
        ),
        options={
            "antennas": 12, "channels": 1, "integration": 15.12, "integrations": 2, "scans": 4,
            "phase_rms": 40.0, "delay_rms": 0.0, "amplitude_rms": 0.05, "pointing_rms": 0.0,
        },
    ),
}  # fmt: skip


def preset(name: str, given: Mapping[str, Any]) -> SimulateOptions:
    """Options of an example, with what the user gave in their place.

    Raises
    ------
    OptionError
        If one is given that the example settles.
    """
    for option in SETTLED:
        if option in given:
            raise OptionError(
                f"--{option.replace('_', '-')}: --example {name} settles this; leave one of them out."
            )
    return SimulateOptions(**{"example": name, **EXAMPLES[name].options, **given})


def make_plan(options: SimulateOptions) -> Plan:
    """Lay the example's observation out, and draw its errors."""
    check_faint_flux(options)
    example = EXAMPLES[options.example]
    last_line = max((s.line[0] for s in example.sources if s.line is not None), default=0)
    if options.channels <= last_line:
        raise OptionError(
            f"--channels {options.channels}: the lines reach to channel {last_line:g}; give more."
        )
    streams = random_streams(options.seed)
    offset_m = spiral(options.antennas, example.longest_m, example.exponent)
    position_m = array.on_ground(offset_m, ALMA.site)
    centre = sky.Place("", math.radians(example.ra_deg), math.radians(example.dec_deg))
    fields = _fields(example, centre)
    time_s, field_id, scan, run, visits = _schedule(example, options, centre)
    spws, run_spws = _spws(example, options.channels)
    reference = float(np.mean(example.spw_hz))
    width = example.spw_width_hz / options.channels
    errors = (
        no_errors(time_s.size, options.antennas)
        if "errors" in options.without
        else _errors(options, time_s, offset_m, visits, run, reference, streams)
    )
    sefd = ALMA_BAND_6_SEFD_JY if options.sefd is None else options.sefd
    return Plan(
        instrument=ALMA,
        centre=centre,
        position_m=position_m,
        stations=[f"A{number + 1:03d}" for number in range(options.antennas)],
        fields=fields,
        spw_freq_hz=spws,
        run_spws=run_spws,
        # After cvel, as in the lecture: tclean takes a channel of one spw and several executions from a
        # topocentric spw together with its neighbour (measured, CASA 6.7: 60 Jy became 52).
        frame="LSRK" if example.doppler_hz == 0 else "TOPO",
        channel_width_hz=width,
        band="6",
        band_hz=BAND_6_HZ,
        reference_hz=reference,
        beam_width=beam.half_power_width(reference, ALMA.dish),
        resolution_arcsec=array.resolution_arcsec(position_m, reference),
        sefd_jy=sefd,
        noise_jy=visibility_noise(sefd, ALMA.efficiency, width, options.integration),
        integration_s=options.integration,
        time_s=time_s,
        field_id=field_id,
        scan=scan,
        run=run,
        sources=_sources(example, options),
        errors=errors,
    )


def _field_offsets(example: Example) -> list[tuple[float, float]]:
    """Offsets of the fields [arcsec] east and north of their mean; each row from west to east."""
    step = example.field_step_arcsec
    points = [
        ((column - (count - 1) / 2) * step, -row * math.sqrt(0.75) * step)
        for row, count in enumerate(example.fields)
        for column in range(count)
    ]
    mean = sum(north for _, north in points) / len(points)
    return [(east, north - mean) for east, north in points]


def _fields(example: Example, centre: sky.Place) -> list[sky.Place]:
    offsets = _field_offsets(example)
    names = [f"P{n:02d}" for n in range(len(offsets))] if len(offsets) > 1 else ["TARGET"]
    return [
        sky.sky_place(east * sky.ARCSEC, north * sky.ARCSEC, name, centre)
        for (east, north), name in zip(offsets, names, strict=True)
    ]


def _sources(example: Example, options: SimulateOptions) -> list[sky.Source]:
    """The sources, with offsets from the centre as direction cosines."""
    east, north = _field_offsets(example)[13] if len(example.fields) > 1 else (0.0, 0.0)
    return [
        sky.Source(**{**vars(source), "east": (source.east + east) * sky.ARCSEC,
                      "north": (source.north + north) * sky.ARCSEC})
        for source in example.sources
        if ("bright" if source.bright else "faint") not in options.without
    ]  # fmt: skip


def _spws(example: Example, n_chan: int) -> tuple[list[NDArray[np.float64]], list[tuple[int, ...]]]:
    """Channel centres [Hz] of all spws, and the spws of each execution."""
    n_run, count = len(example.starts_h), len(example.spw_hz)
    offsets = (np.arange(n_chan) - (n_chan - 1) / 2) * (example.spw_width_hz / n_chan)
    first = [np.asarray(middle + offsets, dtype=np.float64) for middle in example.spw_hz]
    if example.doppler_hz == 0:
        return first, [tuple(range(count))] * n_run
    spws = [np.asarray(freq + run * example.doppler_hz) for run in range(n_run) for freq in first]
    return spws, [tuple(range(run * count, (run + 1) * count)) for run in range(n_run)]


def _schedule(
    example: Example, options: SimulateOptions, centre: sky.Place
) -> tuple[
    NDArray[np.float64], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], list[NDArray[np.float64]]
]:  # fmt: skip
    """Middle, field, scan and execution of each integration; times of the calibrator's visits.

    All fields are in each scan, as ALMA observes a mosaic; scans are numbered from 1 in each execution, as
    ALMA's are.
    """
    n_field, length = sum(example.fields), options.integration
    in_scan = np.arange(n_field * options.integrations)
    since_scan = (in_scan + 0.5) * length + in_scan // options.integrations * SLEW_S
    scan_s = n_field * (options.integrations * length + SLEW_S) - SLEW_S
    cycle_s = scan_s + example.scan_gap_s
    begin = np.arange(options.scans) * cycle_s
    since = (begin[:, None] + since_scan).ravel()
    times: list[NDArray[np.float64]] = []
    visits = []
    for day, hours in zip(example.days, example.starts_h, strict=True):
        start = array.time_at(math.radians(15 * example.starts_h[0]), centre.ra_rad, ALMA.site)
        start += (day * 86400.0 + (hours - example.starts_h[0]) * 3600) / array.SIDEREAL
        ends = [start, start + float(since[-1])]
        lowest = min(array.elevation(end, centre.ra_rad, centre.dec_rad, ALMA.site) for end in ends)
        if (times and start < times[-1][-1]) or math.degrees(lowest) < MIN_ELEVATION_DEG:
            raise OptionError(
                f"--scans {options.scans}: an execution takes {since[-1] / 3600:.1f} hours, and runs "
                "into the next or until the field sets; give fewer scans or integrations."
            )
        times.append(np.asarray(start + since))
        visits.append(start + np.append(begin, cycle_s * options.scans) - example.scan_gap_s / 2)
    n_run = len(times)
    return (
        np.concatenate(times),
        np.tile(in_scan // options.integrations, options.scans * n_run),
        np.tile(np.repeat(np.arange(options.scans) + 1, in_scan.size), n_run),
        np.repeat(np.arange(n_run), since.size),
        visits,
    )


def _errors(
    options: SimulateOptions,
    time_s: NDArray[np.float64],
    offset_m: NDArray[np.float64],
    visits_s: list[NDArray[np.float64]],
    run: NDArray[np.intp],
    reference_hz: float,
    streams: dict[str, np.random.Generator],
) -> Errors:
    """Draw the errors: what phase referencing leaves of the screen, slow phases, amplitudes, delays.

    The rms of all phases is that asked for, at the reference frequency; those of both hands are of paths,
    so that they grow with frequency.
    """
    n_ant = offset_m.shape[0]
    both = (n_ant, 2)
    fast = left_over(
        make_screen(streams["screen"]), time_s - time_s[0], offset_m,
        [visits - time_s[0] for visits in visits_s], run,
    )  # fmt: skip
    fast /= np.sqrt((fast**2).mean())
    slow = drift(time_s, (n_ant, 1), SLOW_TIME_S, streams["phase"])
    own = drift(time_s, both, SLOW_TIME_S, streams["phase"])
    path = math.sqrt(SCREEN_SHARE) * fast[..., None] + math.sqrt(SLOW_SHARE) * slow
    delay_ns = options.delay_rms * drift(time_s, both, SLOW_TIME_S, streams["delay"])
    turns_to_ns = 1e9 / reference_hz
    common = drift(time_s, (n_ant, 1), AMPLITUDE_TIME_S, streams["amplitude"])
    each = drift(time_s, both, AMPLITUDE_TIME_S, streams["amplitude"])
    log_amplitude = (
        math.sqrt(1 - OWN_AMPLITUDE_SHARE) * common + math.sqrt(OWN_AMPLITUDE_SHARE) * each
    )
    return Errors(
        phase_deg=options.phase_rms * (path + math.sqrt(OWN_SHARE) * own),
        delay_ns=delay_ns + options.phase_rms / 360.0 * turns_to_ns * path,
        amplitude=np.exp(options.amplitude_rms * log_amplitude),
        pointing_arcsec=options.pointing_rms
        * drift(time_s, both, SLOW_TIME_S, streams["pointing"]),
        dispersive_deg=np.zeros((time_s.size, *both)),
    )
