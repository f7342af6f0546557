"""The truth file of a simulation, and what its sidecar says.

The truth file is JSON with

- ``schema`` peelkit.truth/1, ``seed``, ``without`` (what was left out), ``telescope``, ``example`` (or
  null), ``sefd_jy``;
- ``reference_hz``: where fluxes, delays and apparent fluxes are given;
- ``phase_centre`` {ra_deg, dec_deg, frame}: of the mosaic or the one field;
- ``fields`` [{name, ra_deg, dec_deg}];
- ``sources`` [{name, ra_deg, dec_deg, flux_jy, spectral_index, major_arcsec, minor_arcsec, pa_deg,
  bright, line {channel, width_channels} or null, polarised, evpa_deg, apparent_flux_jy [field]}]: those
  that are in the data. Apparent fluxes are through the nominal beam, without squint and pointing errors;
  a line is a Gaussian in channels, and its flux that of the peak; ``polarised`` is the linearly polarised
  fraction, with EVPA from north through east;
- ``gains`` {antennas, hands, times_s (MJD, UTC), field_id and observation_id [time], phase_deg and delay_ns and
  dispersive_deg and amplitude [time][antenna][hand], pointing_arcsec [time][antenna] (east, north), squint_arcsec [time]
  (east, north; of the R beam at reference_hz, proportional to wavelength; L is opposite)}: a
  visibility is multiplied by g_p conj(g_q), with g = amplitude exp(i (phase + dispersive reference_hz / f +
  2 pi delay (f - reference_hz)));
- ``errors`` [{kind, phase_deg, amplitude, time_s}]: the processes of ``--errors`` that are in the gains;
- ``beam``: airy or gaussian, of the same width at half power;
- ``noise_jy``: of the real and of the imaginary part of each visibility; ``noise_correlation``: of
  neighbouring channels; ``weights_scale``: what WEIGHT is, over 1 / noise_jy^2;
- ``rms_thermal_jy_beam``: of a naturally weighted Stokes I image of one field.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate_plan import Plan, SimulateOptions, squint_offset
from peelkit.core.simulate_processes import parse

TRUTH_SCHEMA = "peelkit.truth/1"


def default_truth(out: Path) -> Path:
    """``<OUT>.truth.json``."""
    return out.with_name(f"{out.name}.truth.json")


def make_truth(plan: Plan, options: SimulateOptions) -> dict[str, Any]:
    """Everything that was put in; the module's docstring says what is where."""
    reference = np.array(plan.reference_hz)
    dish = plan.instrument.dish
    beams = [
        beam.power(np.hypot(*sky.cosines(plan.sources, field, plan.centre).T), reference, dish)
        for field in plan.fields
    ]
    sources = []
    for number, source in enumerate(plan.sources):
        place = sky.sky_place(source.east, source.north, centre=plan.centre)
        sources.append(
            {
                "name": source.name,
                "ra_deg": math.degrees(place.ra_rad),
                "dec_deg": math.degrees(place.dec_rad),
                "flux_jy": source.flux_jy,
                "spectral_index": source.spectral_index,
                "major_arcsec": source.major_arcsec,
                "minor_arcsec": source.minor_arcsec,
                "pa_deg": source.pa_deg,
                "bright": source.bright > 0,
                "line": None
                if source.line is None
                else {"channel": source.line[0], "width_channels": source.line[1]},
                "polarised": source.polarised,
                "evpa_deg": source.evpa_deg,
                "apparent_flux_jy": [float(source.flux_jy * seen[number]) for seen in beams],
            }
        )
    squint = [
        squint_offset(plan, options, index, reference[None])[0] / sky.ARCSEC
        for index in range(plan.time_s.size)
    ]
    noisy = "noise" not in options.without
    return {
        "schema": TRUTH_SCHEMA,
        "seed": options.seed,
        "without": list(options.without),
        "telescope": plan.instrument.telescope,
        "example": options.example or None,
        "sefd_jy": plan.sefd_jy,
        "reference_hz": plan.reference_hz,
        "phase_centre": {
            "ra_deg": math.degrees(plan.centre.ra_rad),
            "dec_deg": math.degrees(plan.centre.dec_rad),
            "frame": "ICRS",
        },
        "fields": [
            {"name": f.name, "ra_deg": math.degrees(f.ra_rad), "dec_deg": math.degrees(f.dec_rad)}
            for f in plan.fields
        ],
        "sources": sources,
        "gains": {
            "antennas": plan.antenna_names,
            "hands": list(plan.instrument.hands),
            "times_s": plan.time_s.tolist(),
            "field_id": plan.field_id.tolist(),
            "observation_id": plan.run.tolist(),
            # Seven decimals: 1e-9 of a visibility, and a third of the size.
            "phase_deg": plan.errors.phase_deg.round(7).tolist(),
            "dispersive_deg": plan.errors.dispersive_deg.round(7).tolist(),
            "delay_ns": plan.errors.delay_ns.round(9).tolist(),
            "amplitude": plan.errors.amplitude.round(9).tolist(),
            "pointing_arcsec": plan.errors.pointing_arcsec.round(7).tolist(),
            "squint_arcsec": np.array(squint).round(7).tolist(),
        },
        "errors": [asdict(process) for process in parse(options.errors)]
        if "errors" not in options.without
        else [],
        "beam": options.beam,
        "noise_jy": plan.noise_jy if noisy else 0.0,
        "noise_correlation": options.noise_correlation if noisy else 0.0,
        "weights_scale": options.weights_scale,
        "rms_thermal_jy_beam": plan.rms_thermal_jy_beam if noisy else 0.0,
    }


def truth_text(truth: dict[str, Any]) -> str:
    """JSON of the truth, with one line for each entry, source and field."""

    def dumps(value: Any) -> str:
        return json.dumps(value, allow_nan=False)

    def lines(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(dumps(item) for item in value) + "\n ]"
        if isinstance(value, dict) and len(value) > 3:
            return (
                "{\n  " + ",\n  ".join(f"{dumps(k)}: {dumps(v)}" for k, v in value.items()) + "\n }"
            )
        return dumps(value)

    return "{\n " + ",\n ".join(f"{dumps(k)}: {lines(v)}" for k, v in truth.items()) + "\n}\n"


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))


def results_of(
    out: Path,
    truth_path: Path,
    plan: Plan,
    options: SimulateOptions,
    truth: dict[str, Any],
) -> dict[str, Any]:
    """Results of the sidecar: what was made, and the bright sources."""
    bright = []
    for number in sorted({source.bright for source in plan.sources} - {0}):
        parts = [i for i, source in enumerate(plan.sources) if source.bright == number]
        flux = sum(plan.sources[i].flux_jy for i in parts)
        apparent = np.sum([truth["sources"][i]["apparent_flux_jy"] for i in parts], axis=0)
        # The components' middle; they are symmetric about it.
        east, north = plan.sources[parts[0]].east, plan.sources[parts[0]].north
        place = sky.sky_place(east, north, centre=plan.centre)
        bright.append(
            {
                "name": f"BRIGHT_{number}",
                "ra_deg": math.degrees(place.ra_rad),
                "dec_deg": math.degrees(place.dec_rad),
                "distance_arcmin": math.degrees(math.asin(math.hypot(east, north))) * 60,
                "components": len(parts),
                "flux_jy": flux,
                "apparent_flux_jy": float(apparent.max()),
                "apparent_flux_min_jy": float(apparent.min()),
                "field": plan.fields[int(apparent.argmax())].name,
            }
        )
    faint = [source.flux_jy for source in plan.sources if not source.bright]
    return {
        "ms": str(out),
        "truth": str(truth_path),
        "seed": options.seed,
        "without": list(options.without),
        "example": options.example or None,
        "telescope": plan.instrument.telescope,
        "config": None if options.example else options.config,
        "band": plan.band,
        "frequency_hz": list(plan.band_hz),
        "reference_hz": plan.reference_hz,
        "spws": len(plan.spw_freq_hz),
        "channels": options.channels,
        "channel_width_hz": plan.channel_width_hz,
        "correlations": options.correlations,
        "antennas": options.antennas,
        "rows": plan.n_row,
        "executions": len(plan.run_spws),
        "integrations": int(plan.time_s.size),
        "integration_s": plan.integration_s,
        "scans": len(set(zip(plan.run.tolist(), plan.scan.tolist(), strict=True))),
        "fields": len(plan.fields),
        "on_source_s": plan.time_s.size * plan.integration_s,
        "longest_baseline_m": array.longest_baseline(plan.position_m),
        "errors": {
            "phase_rms_deg": _rms(plan.errors.phase_deg),
            "delay_rms_ns": _rms(plan.errors.delay_ns),
            "amplitude_rms": _rms(np.log(plan.errors.amplitude)),
            "pointing_rms_arcsec": _rms(plan.errors.pointing_arcsec),
        },
        "primary_beam_arcmin": math.degrees(plan.beam_width) * 60,
        "resolution_arcsec": plan.resolution_arcsec,
        "bright": bright,
        "faint": len(faint),
        "faint_flux_jy": float(sum(faint)),
        "noise_jy": truth["noise_jy"],
        "rms_thermal_jy_beam": truth["rms_thermal_jy_beam"],
    }
