"""``peelkit simulate``: a small MS with bright sources off axis, or a lecture's example, and its truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import simulate_array as array
from peelkit.core import simulate_examples as examples
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate_plan import (
    Plan,
    SimulateOptions,
    make_plan,
    random_streams,
    squint_offset,
)
from peelkit.core.simulate_processes import correlate
from peelkit.core.simulate_truth import default_truth, make_truth, results_of, truth_text
from peelkit.core.simulate_vis import antenna_voltages, visibilities
from peelkit.errors import OptionError
from peelkit.io import ms, newms
from peelkit.outcome import Outcome
from peelkit.progress import Progress

COMMAND = "simulate"

preset = examples.preset

__all__ = ["COMMAND", "SimulateOptions", "make_plan", "preset", "simulate"]


def simulate(out: Path, options: SimulateOptions, progress: Progress) -> Outcome:
    """Make an MS and its truth file.

    Raises
    ------
    OptionError
        If an option makes no sense.
    DataError
        If the MS or the truth file exists and may not be replaced, or there is no room.
    """
    plan = examples.make_plan(options) if options.example else make_plan(options)
    newms.refuse_other(out, overwrite=options.overwrite)
    truth_path = options.truth or default_truth(out)
    if truth_path.absolute() == out.absolute():
        raise OptionError(f"--truth {truth_path}: is the MS itself; give another name.")
    newms.refuse_file(truth_path, overwrite=options.overwrite)
    n_row = plan.n_row
    newms.require_space(out, n_row * (200 + 9 * options.channels * options.correlations))
    truth = make_truth(plan, options)
    progress.stage("simulating", plan.time_s.size)
    newms.write(out, _layout(plan, options), _blocks(plan, options, progress))
    sidecar.write_text(truth_path, truth_text(truth))
    ms.add_history(
        out,
        command=COMMAND,
        message=f"peelkit simulate: made this MS; its truth is {truth_path.name}",
        parameters={**vars(options), "truth": truth_path.name},
    )
    return Outcome(
        results=results_of(out, truth_path, plan, options, truth),
        inputs={},
        writes=(str(out), str(truth_path)),
        parameters={"sefd": truth["sefd_jy"]},
    )


def _blocks(
    plan: Plan, options: SimulateOptions, progress: Progress
) -> Iterator[dict[str, NDArray[Any]]]:
    """Rows of one integration after the other."""
    noise = random_streams(options.seed)["noise"]
    cosines = [sky.cosines(plan.sources, field, plan.centre) for field in plan.fields]
    one, two = plan.pairs
    n_base, n_corr = one.size, options.correlations
    weight = options.weights_scale * (1 / plan.noise_jy**2 if plan.noise_jy else 1.0)
    for index, moment in enumerate(plan.time_s):
        field = int(plan.field_id[index])
        place = plan.fields[field]
        run = int(plan.run[index])
        spws = plan.run_spws[run]
        count = len(spws) * n_base
        antenna_uvw = array.antenna_uvw(
            plan.position_m, moment, place.ra_rad, place.dec_rad, plan.instrument.site
        )
        data = observe(plan, options, index, antenna_uvw, cosines[field])
        if "noise" not in options.without:
            drawn = noise.standard_normal((*data.shape, 2), dtype=np.float32)
            white = drawn.view(np.complex64)[..., 0]
            data += np.float32(plan.noise_jy) * correlate(white, options.noise_correlation)
        yield {
            "TIME": np.full(count, moment), "TIME_CENTROID": np.full(count, moment),
            "INTERVAL": np.full(count, plan.integration_s),
            "EXPOSURE": np.full(count, plan.integration_s),
            "ANTENNA1": np.tile(one, len(spws)), "ANTENNA2": np.tile(two, len(spws)),
            "UVW": np.tile(antenna_uvw[one] - antenna_uvw[two], (len(spws), 1)),
            "DATA": data, "FLAG": np.zeros(data.shape, dtype=bool),
            "FLAG_ROW": np.zeros(count, dtype=bool),
            "SCAN_NUMBER": np.full(count, plan.scan[index]), "FIELD_ID": np.full(count, field),
            "DATA_DESC_ID": np.repeat(spws, n_base),
            "OBSERVATION_ID": np.full(count, run), "STATE_ID": np.zeros(count, dtype=int),
            "WEIGHT": np.full((count, n_corr), weight),
            "SIGMA": np.full((count, n_corr), 1 / math.sqrt(weight)),
        }  # fmt: skip
        progress.advance()


def observe(
    plan: Plan,
    options: SimulateOptions,
    index: int,
    antenna_uvw: NDArray[np.float64],
    lm: NDArray[np.float64],
) -> NDArray[np.complex64]:
    """Visibilities of one integration without noise, shape (spw and baseline, chan, corr) [Jy]."""
    one, two = plan.pairs
    hands = (0, 1) if options.correlations == 2 else (0, 3)
    spws = plan.run_spws[int(plan.run[index])]
    n_spw, n_base = len(spws), one.size
    data = np.zeros((n_spw, n_base, options.channels, options.correlations), dtype=np.complex64)
    shapes = sky.shapes(plan.sources)
    pointing = plan.errors.pointing_arcsec[index] * sky.ARCSEC
    feed_q = np.zeros(len(plan.sources))
    if plan.instrument.is_linear:
        place = plan.fields[int(plan.field_id[index])]
        angle = array.parallactic_angle(
            float(plan.time_s[index]), place.ra_rad, place.dec_rad, plan.instrument.site
        )
        feed_q = sky.feed_q(plan.sources, angle)
    for number, spw in enumerate(spws):
        freq = plan.spw_freq_hz[spw]
        gains = plan.errors.gains(index, freq, plan.reference_hz)
        offset = squint_offset(plan, options, index, freq)
        flux = sky.spectra(plan.sources, freq, plan.reference_hz)
        for hand, (corr, sign) in enumerate(zip(hands, (1, -1), strict=True)):
            centre = pointing[None] + sign * offset[:, None]
            patterns = antenna_voltages(lm, centre, freq, plan.instrument.dish)
            received = flux * (1 + sign * feed_q)[:, None]
            seen = visibilities(antenna_uvw, (one, two), freq, lm, received, shapes, patterns)
            data[number, :, :, corr] = gains[one, hand] * gains[two, hand].conj() * seen
    return data.reshape(n_spw * n_base, options.channels, options.correlations)


def _layout(plan: Plan, options: SimulateOptions) -> newms.Layout:
    half = plan.integration_s / 2
    times = [plan.time_s[plan.run == run] for run in range(len(plan.run_spws))]
    return newms.Layout(
        telescope=plan.instrument.telescope,
        antenna_names=plan.antenna_names,
        stations=plan.stations,
        position_m=plan.position_m,
        dish_m=plan.instrument.dish_m,
        fields=[(field.name, field.ra_rad, field.dec_rad) for field in plan.fields],
        spws=plan.spw_freq_hz,
        channel_width_hz=plan.channel_width_hz,
        correlations=plan.instrument.correlations(options.correlations),
        frame=plan.frame,
        time_range_s=[(float(time[0]) - half, float(time[-1]) + half) for time in times],
    )
