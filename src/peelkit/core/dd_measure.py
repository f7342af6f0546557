"""One pass over the data before a solve: their noise, and the S/N of every solution to come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_fields, dd_gains, dd_gate, dd_terms
from peelkit.core.dd_bins import squared
from peelkit.core.dd_data import Block, blocks
from peelkit.core.dd_gains import Key
from peelkit.core.dd_gate import Information
from peelkit.core.dd_noise import Noise, scales
from peelkit.core.dd_plan import Plan
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.progress import Progress


def gate(plan: Plan, progress: Progress) -> tuple[dict[int, Noise], Plan, list[str]]:
    """Measure noise and S/N in one pass over the data, and decide on each direction.

    Returns
    -------
    dict of int
        Noise by data description.
    Plan
        With the decisions.
    list of str
        Warnings of direction-independent terms whose solutions are too weak.
    """
    info = plan.rows.info
    dependent = next(term for term in plan.options.terms if term.direction_dependent)
    meters = {d.label: Meter.of(plan, d.column, dependent) for d in plan.directions}
    independent = {
        term.name: Meter.of(plan, plan.all_column, term)
        for term in plan.options.terms
        if not term.direction_dependent and term.type != dd_terms.NONE
    }
    noise = {ddid: Noise() for ddid in plan.rows.ddids}
    rng = np.random.default_rng(0)
    bad = dict.fromkeys(plan.models, 0)
    with ms.opened(info.path) as main:
        for block in blocks(plan.rows, plan.data_column, plan.models, main):
            hands = block.hands
            weight = block.weight[..., hands]
            for name, model in block.models.items():
                bad[name] += int(np.count_nonzero(~np.isfinite(model) & ~block.flag))
            residual = (block.data - block.models[plan.all_column])[..., hands]
            noise[block.description.id].add(residual, weight, block.series, block.times_s, rng)
            for meter in (*meters.values(), *independent.values()):
                meter.add(block, plan.rows.axes[block.key])
            progress.advance(block.rows.size)
    _refuse_bad(plan, bad, {label: meter.total for label, meter in meters.items()})
    scale = scales(noise, solved=False)
    directions = []
    for d in plan.directions:
        meter = meters[d.label]
        snr = meter.snr(scale)
        whole = math.sqrt(meter.total * float(np.mean(list(scale.values()))))
        decision, reason = dd_gate.decide(snr, whole, min_snr=plan.options.min_snr)
        if d.label in plan.options.decisions:
            decision, reason = plan.options.decisions[d.label], dd_gate.ASKED
        directions.append(
            replace(d, snr_per_solution=snr, snr_total=whole, decision=decision, reason=reason)
        )
    warnings = [
        f"{name}: S/N {meter.snr(scale):.1f} per solution, below {plan.options.min_snr:g}: use a longer "
        f"--{name.lower()}-time, or --{name.lower()} none"
        for name, meter in independent.items()
        if meter.snr(scale) < plan.options.min_snr
    ]
    plan = replace(plan, directions=tuple(directions))
    plan = dd_fields.decide(plan, meters, list(independent.values()), scale)
    return noise, plan, warnings


@dataclass
class Meter:
    """Information that the data have on the gains of one term, for the sky in one column.

    ``total`` and ``by_field`` are ``sum w |M|^2`` of all data, and of each field's.
    """

    column: str
    bins: dict[Key, tuple[NDArray[np.int64], NDArray[np.int64]]]
    information: dict[Key, Information]
    total: float = 0.0
    by_field: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, column: str, choice: dd_terms.TermChoice) -> Meter:
        """Nothing measured yet."""
        info = plan.rows.info
        bins = {}
        for key, axis in plan.rows.axes.items():
            spw = info.spws[info.data_descriptions[key[1]].spw]
            width, n_chan = float(np.median(np.abs(spw.width_hz))), spw.freq_hz.size
            # The longest is what an interval that is still to be chosen can be.
            choice = dd_terms.longest(choice)
            time = dd_terms.time_integrations(choice.time, plan.rows.integration_s[key[1]])
            freq = dd_terms.freq_channels(choice.freq, width, n_chan)
            across = "scan" in plan.options.combine
            bins[key] = (
                dd_gains.time_bins(axis, time, across_scans=across),
                dd_gains.freq_bins(n_chan, freq, 0),
            )
        empty = {key: Information.empty(*both, len(info.antennas)) for key, both in bins.items()}
        return cls(column, bins, empty)

    def add(self, block: Block, axis: dd_gains.TimeAxis) -> None:
        """Count a block."""
        hands = block.hands
        model = block.models[self.column][..., hands]
        power = (block.weight[..., hands] * squared(model)).mean(axis=-1).astype(np.float64)
        t_bins, f_bins = self.bins[block.key]
        when = t_bins[dd_gains.time_index(axis, block.times_s)]
        self.information[block.key].add(power, when, f_bins, (block.antenna1, block.antenna2))
        here = float(power.sum()) * hands.size
        self.total += here
        self.by_field[block.key[0]] = self.by_field.get(block.key[0], 0.0) + here

    def snr(self, scale: Mapping[int, float], number: int | None = None) -> float:
        """Median S/N of a solution, in all fields or one; 0 without data."""
        pieces = [
            math.sqrt(scale[ddid]) * one.snr
            for (here, ddid), one in self.information.items()
            if number in (None, here)
        ]
        values = np.concatenate(pieces)
        return float(np.median(values)) if values.size else 0.0


def _refuse_bad(plan: Plan, bad: dict[str, int], total: dict[str, float]) -> None:
    path = plan.rows.info.path
    for name, count in bad.items():
        if count:
            raise DataError(
                f"{path}: {name} has {count} values that are no numbers; predict it again."
            )
    columns = {d.label: d.column for d in plan.directions}
    for label, power in total.items():
        if power == 0:
            raise DataError(
                f"{path}: {columns[label]} is zero everywhere in the selected data; predict it again."
            )
