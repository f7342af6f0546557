"""Gains of the array that are known before a solve: out of the data, and in front of what is solved.

The rest of the sky shows gains that change with frequency (`peelkit.core.dd_balance`), which the terms of a
solve do not have. Where it is bright the solve goes wrong without them: so it is done again on data without
the gains that it found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from peelkit.core import dd_balance, dd_gains
from peelkit.core.dd_bins import squared
from peelkit.core.dd_data import Block
from peelkit.core.dd_gains import Key, Solutions


def of(groups: Mapping[Key, Solutions]) -> dict[Key, Solutions]:
    """The gains that balancing found, of the groups that have some."""
    found = {}
    for key, one in groups.items():
        numbers = [n for n, term in enumerate(one.terms) if term.term == dd_balance.NAME]
        if numbers:
            found[key] = Solutions(
                one.axis,
                tuple(one.terms[n] for n in numbers),
                tuple(one.time_bins[n] for n in numbers),
                tuple(one.freq_bins[n] for n in numbers),
            )
    return found


def without(known: Mapping[Key, Solutions], block: Block) -> Block:
    """A block whose data have known gains taken out; weights are those of the data that are left."""
    gains = known.get(block.key)
    if gains is None:
        return block
    n_corr = block.data.shape[-1]
    when = dd_gains.time_index(gains.axis, block.times_s)
    one, two = (
        dd_gains.jones(gains, when, antenna, 0, n_corr)
        for antenna in (block.antenna1, block.antenna2)
    )
    size = dd_gains.corrupt(np.ones(block.data.shape, dtype=np.complex64), one, two)
    data = dd_gains.correct(block.data, one, two).astype(np.complex64)
    weight = np.where(data == 0, 0, block.weight * squared(size)).astype(np.float32)
    return replace(block, data=data, weight=weight)


def in_front(known: Mapping[Key, Solutions], key: Key, solutions: Solutions) -> Solutions:
    """Solutions of data without known gains as those of the data with them."""
    gains = known.get(key)
    if gains is None:
        return solutions
    # What was solved may be a part of the data.
    when = dd_gains.time_index(gains.axis, solutions.axis.times_s)
    return Solutions(
        solutions.axis,
        (*gains.terms, *solutions.terms),
        (*(bins[when] for bins in gains.time_bins), *solutions.time_bins),
        (*gains.freq_bins, *solutions.freq_bins),
    )
