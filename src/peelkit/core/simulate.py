"""``peelkit simulate``: a small VLA-like MS with bright sources off axis, and its truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import simulate_array as array
from peelkit.core import simulate_beam as beam
from peelkit.core import simulate_sky as sky
from peelkit.core.simulate_plan import (
    Plan,
    SimulateOptions,
    make_plan,
    random_streams,
    sefd_jy,
    squint_offset,
)
from peelkit.core.simulate_truth import default_truth, make_truth, results_of, truth_text
from peelkit.core.simulate_vis import antenna_voltages, visibilities
from peelkit.errors import OptionError
from peelkit.io import ms, newms
from peelkit.outcome import Outcome
from peelkit.progress import Progress

COMMAND = "simulate"

__all__ = ["COMMAND", "SimulateOptions", "make_plan", "simulate"]


def simulate(out: Path, options: SimulateOptions, progress: Progress) -> Outcome:
    """Make an MS and its truth file.

    Raises
    ------
    OptionError
        If an option makes no sense.
    DataError
        If the MS or the truth file exists and may not be replaced, or there is no room.
    """
    plan = make_plan(options)
    newms.refuse_other(out, overwrite=options.overwrite)
    truth_path = options.truth or default_truth(out)
    if truth_path.absolute() == out.absolute():
        raise OptionError(f"--truth {truth_path}: is the MS itself; give another name.")
    newms.refuse_file(truth_path, overwrite=options.overwrite)
    n_row = plan.time_s.size * len(plan.spw_freq_hz) * plan.pairs[0].size
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
        results=results_of(out, truth_path, plan, options, truth, n_row),
        inputs={},
        writes=(str(out), str(truth_path)),
        parameters={"sefd": sefd_jy(options)},
    )


def _blocks(
    plan: Plan, options: SimulateOptions, progress: Progress
) -> Iterator[dict[str, NDArray[Any]]]:
    """Rows of one integration after the other."""
    noise = random_streams(options.seed)["noise"]
    cosines = [sky.cosines(plan.sources, field) for field in plan.fields]
    one, two = plan.pairs
    n_spw, n_base, n_corr = len(plan.spw_freq_hz), one.size, options.correlations
    count = n_spw * n_base
    weight = 1 / plan.noise_jy**2 if plan.noise_jy else 1.0
    for index, moment in enumerate(plan.time_s):
        field = int(plan.field_id[index])
        place = plan.fields[field]
        antenna_uvw = array.antenna_uvw(plan.position_m, moment, place.ra_rad, place.dec_rad)
        data = observe(plan, options, index, antenna_uvw, cosines[field])
        if "noise" not in options.without:
            drawn = noise.standard_normal((*data.shape, 2), dtype=np.float32)
            data += np.float32(plan.noise_jy) * drawn.view(np.complex64)[..., 0]
        yield {
            "TIME": np.full(count, moment), "TIME_CENTROID": np.full(count, moment),
            "INTERVAL": np.full(count, options.integration),
            "EXPOSURE": np.full(count, options.integration),
            "ANTENNA1": np.tile(one, n_spw), "ANTENNA2": np.tile(two, n_spw),
            "UVW": np.tile(antenna_uvw[one] - antenna_uvw[two], (n_spw, 1)),
            "DATA": data, "FLAG": np.zeros(data.shape, dtype=bool),
            "FLAG_ROW": np.zeros(count, dtype=bool),
            "SCAN_NUMBER": np.full(count, plan.scan[index]), "FIELD_ID": np.full(count, field),
            "DATA_DESC_ID": np.repeat(np.arange(n_spw), n_base),
            "STATE_ID": np.zeros(count, dtype=int),
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
    n_spw, n_base = len(plan.spw_freq_hz), one.size
    data = np.zeros((n_spw, n_base, options.channels, options.correlations), dtype=np.complex64)
    shapes = sky.shapes(plan.sources)
    pointing = plan.errors.pointing_arcsec[index] * sky.ARCSEC
    for spw, freq in enumerate(plan.spw_freq_hz):
        gains = plan.errors.gains(index, freq, plan.reference_hz)
        offset = squint_offset(plan, options, index, freq)
        flux = sky.spectra(plan.sources, freq, plan.reference_hz)
        for hand, (corr, sign) in enumerate(zip(hands, (1, -1), strict=True)):
            centre = pointing[None] + sign * offset[:, None]
            patterns = antenna_voltages(lm, centre, freq)
            seen = visibilities(antenna_uvw, (one, two), freq, lm, flux, shapes, patterns)
            data[spw, :, :, corr] = gains[one, hand] * gains[two, hand].conj() * seen
    return data.reshape(n_spw * n_base, options.channels, options.correlations)


def _layout(plan: Plan, options: SimulateOptions) -> newms.Layout:
    half = options.integration / 2
    return newms.Layout(
        telescope=beam.TELESCOPE,
        antenna_names=plan.antenna_names,
        stations=plan.stations,
        position_m=plan.position_m,
        dish_m=array.DISH_M,
        fields=[(field.name, field.ra_rad, field.dec_rad) for field in plan.fields],
        spws=plan.spw_freq_hz,
        channel_width_hz=plan.channel_width_hz,
        correlations=("RR", "LL") if options.correlations == 2 else ("RR", "RL", "LR", "LL"),
        time_range_s=(float(plan.time_s[0]) - half, float(plan.time_s[-1]) + half),
    )
