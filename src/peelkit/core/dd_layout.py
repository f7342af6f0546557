"""How the copy of a solve is laid out: cells, the units that no interval goes over the end of, and chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from peelkit import memory
from peelkit.core import dd_cells, dd_compress, dd_copy
from peelkit.core.dd_cells import Unit
from peelkit.core.dd_copy import Shape
from peelkit.core.dd_gains import Key, TimeAxis
from peelkit.core.dd_plan import Plan
from peelkit.engines import quartical
from peelkit.engines.quartical import Term
from peelkit.io import solvecopy

# What the chunks that are solved at a time may take at least, whatever the limit [GiB].
LEAST_GIB = 0.1

Axes = Mapping[Key, TimeAxis]


def shape(
    plan: Plan,
    family: solvecopy.Family,
    terms: Sequence[Term],
    n_direction: int,
    *,
    threads: int,
) -> Shape:
    """Layout of the copy of a family, in a process that solves ``threads`` chunks at a time.

    Parts for workers are cut by it too (`peelkit.core.dd_parts.split`), so that they are of whole chunks.
    """
    full = any(term.type in quartical.FULL_TYPES for term in terms)
    axes = {d: {k: a for k, a in plan.rows.axes.items() if k[1] == d} for d in family.ddids}
    t_length = dd_cells.common([term.time_interval for term in terms])
    f_length = dd_cells.common([_f_interval(term, family.n_chan) for term in terms])
    share = _share(list(axes.values()), terms, t_length)
    n_freq = math.ceil(family.n_chan / f_length) if f_length else 1
    few = dd_compress.few([term.type for term in terms], n_direction)
    few &= share * n_freq * n_direction < dd_copy.WORTH * family.n_chan
    if not few:
        f_length = t_length = 1
        share = 1.0
    found = Shape({}, f_length, n_direction, few, full)
    n_corr = len(dd_copy.correlations(family, full=full))
    n_antenna = len(plan.rows.info.antennas)
    samples = n_antenna * (n_antenna - 1) / 2 * found.channels(family.n_chan) * n_corr * share
    fits = _that_fit(samples, n_direction, threads)
    most = min(fits, dd_cells.chunk_integrations(n_antenna, family.n_chan, n_corr))
    cells = {}
    for ddid, group in axes.items():
        units = dd_cells.chunked(_fitting(group, terms, t_length, fits), most)
        cells[ddid] = dd_cells.cells(units, group, t_length)
    return replace(found, cells=cells)


def _across(terms: Sequence[Term]) -> bool:
    return any(term.across_scans for term in terms)


def _share(groups: Sequence[Axes], terms: Sequence[Term], t_length: int) -> float:
    """Cells in time for each integration."""
    times = sum(axis.times_s.size for group in groups for axis in group.values())
    units = [
        unit for group in groups for unit in dd_cells.split(group, across_scans=_across(terms))
    ]
    return sum(dd_cells.solutions(unit.index.size, t_length) for unit in units) / times


def _that_fit(samples: float, n_direction: int, threads: int) -> int:
    """Integrations, of so many samples of the copy each, that fit this process's share of the memory."""
    room = memory.limit_gib() / memory.processes() * memory.GIB - quartical.BASE_BYTES
    budget = max(room, LEAST_GIB * memory.GIB) / threads
    return max(1, int(budget / (samples * quartical.sample_bytes(n_direction))))


def _fitting(axes: Axes, terms: Sequence[Term], t_length: int, most: int) -> list[Unit]:
    """Units of ``most`` integrations: longer ones are cut, at ends of intervals where there are any."""
    step = math.lcm(*(term.time_interval for term in terms if term.time_interval))
    # A whole unit that is one cell takes little, however long it is.
    longest = max(step, most // step * step) if t_length else 0
    return dd_cells.split(axes, across_scans=_across(terms), most=longest)


def _f_interval(term: Term, n_chan: int) -> int:
    return 0 if term.freq_interval >= n_chan else term.freq_interval


def in_copy(term: Term, found: Shape) -> Term:
    """The term with intervals in the integrations and channels of the copy."""
    length = next(iter(found.cells.values())).length
    time = term.time_interval // length if length and term.time_interval else 0
    freq = term.freq_interval // (found.f_length or 1) * found.each
    return replace(term, time_interval=time, freq_interval=freq)
