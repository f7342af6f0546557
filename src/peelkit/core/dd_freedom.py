"""How many real numbers a solve has, and from how many it solves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from peelkit.core import dd_auto
from peelkit.core.dd_data import blocks, in_uv_range
from peelkit.core.dd_gains import Key, Solutions
from peelkit.io import ms

if TYPE_CHECKING:
    from peelkit.core.dd_plan import Plan

# Gains take up their number's share of the noise. One solution for each integration and channel has
# 2 / (n - 1) of the numbers of n antennas: 8 % of 27, and this much of 14. Sources in no model that do
# not change within an interval lose 2 / (n - 1) however long it is, others less: --inject measures that.
MOST_FREE = 0.15

# Real numbers of a solution, for each parallel hand (what serves both hands counts half).
REALS = {
    "diag_complex": 2.0, "complex": 4.0, "phase": 1.0, "amplitude": 1.0, "leakage": 2.0,
    "delay": 1.0, "delay_and_offset": 2.0, "delay_and_tec": 2.0, "delay_tec_and_offset": 3.0,
    "tec_and_offset": 2.0, "rotation": 0.5, "rotation_measure": 0.5, "crosshand_phase": 0.5,
}  # fmt: skip


def record(
    results: dict[str, Any],
    plan: Plan,
    groups: Mapping[Key, Solutions],
    chosen: dd_auto.Choice | None,
) -> list[str]:
    """Write parameters, visibilities and freedom of each direction into the results.

    Returns
    -------
    list of str
        Warnings of directions above `MOST_FREE`, or of all together where none is by itself.
    """
    visibilities = _visibilities(plan, results["chi2"]["samples"]) if groups else 0
    free = {}
    for entry in results["directions"]:
        label = entry["label"]
        known = bool(groups) and label in plan.peeled
        count = parameters(plan, groups, chosen, label) if known else None
        entry["parameters"] = count
        entry["visibilities"] = visibilities if known else None
        entry["freedom"] = count / visibilities if known and count and visibilities else None
        if entry["freedom"] is not None:
            free[label] = entry["freedom"]
    return words(free)


def words(free: Mapping[str, float]) -> list[str]:
    """What to tell of too much freedom."""
    loud = {label: share for label, share in free.items() if share > MOST_FREE}
    if not loud and sum(free.values()) > MOST_FREE:
        loud = {" and ".join(free): sum(free.values())}
    return [
        f"{label}: the gains are {100 * share:.0f} % as many numbers as the data, and take up that share of "
        "the noise, and more of sources in no model; use longer --de-time or --de-freq, and test with --inject"
        for label, share in loud.items()
    ]


def parameters(
    plan: Plan,
    groups: Mapping[Key, Solutions],
    chosen: dd_auto.Choice | None,
    label: str,
) -> int:
    """Real numbers solved towards a direction: antennas with data x hands x solutions x reals of each."""
    count = 0.0
    # Fields that are solved together share their solutions.
    counted: set[int] = set()
    for key, solutions in groups.items():
        here, term = plan.at(key), solutions.terms[-1]
        if label not in here.peeled or id(term.gains) in counted:
            continue
        counted.add(id(term.gains))
        direction = list(here.used).index(label) + 1
        flags = term.flags[..., direction if term.flags.shape[3] > 1 else 0]
        antennas = int(np.count_nonzero(~flags.all(axis=(0, 1))))
        # Parametrised types have a gain for each channel, but fewer parameters.
        shape = (term.gains if term.params is None else term.params).shape
        intervals = shape[0] * shape[1]
        if _longer(here, chosen, label):
            assert chosen is not None
            time, freq = dd_auto.Table.of(solutions).longer(
                *chosen.by_direction[label], chosen.shortest
            )
            intervals = int(time[-1] + 1) * int(freq[-1] + 1)
        hands = min(2, term.gains.shape[-1])
        count += antennas * hands * intervals * REALS[term.type]
    return round(count)


def _longer(plan: Plan, chosen: dd_auto.Choice | None, label: str) -> bool:
    """Whether a direction has longer intervals than the solve (`dd_auto.lengthened`)."""
    if chosen is None or label not in chosen.by_direction:
        return False
    return chosen.is_of(plan) and chosen.by_direction[label] != chosen.shortest


def _visibilities(plan: Plan, samples: int) -> int:
    """Real numbers in the unflagged parallel hands of ``samples``; fewer where --uvrange cuts."""
    if not any(plan.uv_range_m):
        return 2 * samples
    count = 0
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, (), main):
            inside = in_uv_range(main, block, plan.uv_range_m)
            count += 2 * int(np.count_nonzero(block.weight[inside][..., block.hands]))
    return count
