"""Cross-validation of a round's gains against those that they replace."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from peelkit import memory
from peelkit.core import crossval, dispersive_data, selfcal_terms, snr, spwmaps
from peelkit.core.selfcal_session import Best, Session
from peelkit.core.selfcal_solve import Solved
from peelkit.io import ms
from peelkit.io.usable import usable_weights

# Of a pair of antennas in a cell: `crossval.Sums`, and what is made of them.
CELL_BYTES, SHARE = 150, 0.25

# Gains are interpolated between intervals: so many in a row, where not all data fit into memory.
RUN = 8


def judge(session: Session, solved: Solved, base: Best, fields: list[int]) -> crossval.Found | None:
    """What baselines left out of the solves say; None where they cannot be asked.

    Not of delays and TEC, which are fitted over all spws, nor of a solve without the short baselines.
    ``base`` is applied to the data that are solved on.
    """
    if solved.how.uvrange or selfcal_terms.is_over_frequency(solved.rung.gaintype):
        return None
    before = _replaced(session, base)
    if before is not None and selfcal_terms.is_over_frequency(before.gaintype):
        return None
    sums, cells = _sums(session, [solved.rung, *([before] if before else [])], base, fields)
    if sums is None:
        return None
    new = _way(session, solved.rung, cells, 0, solnorm=solved.how.solnorm)
    none = np.zeros(len(cells), dtype=np.int64)
    old = (
        crossval.Way(none, "", none[:1])
        if before is None
        else _way(session, before, cells, 1, solnorm=solved.how.solnorm)
    )
    return crossval.compare(sums, old, new, refant=session.refants[0])


def _replaced(session: Session, base: Best) -> snr.Rung | None:
    """The round whose solutions are in the best state, but not in what this round builds on."""
    names = set(session.best.tables) - set(base.tables)
    for r in reversed(session.rounds):
        if r["accepted"] and r["caltable"] and r["caltable"].rsplit("/", 1)[-1] in names:
            return snr.Rung(
                r["solint"], r["solint_s"], r["calmode"], r["combine"], r["gaintype"], r["minsnr"], r["snr"]
            )  # fmt: skip
    return None


def _intervals(session: Session, rows: NDArray[np.int64], rung: snr.Rung) -> NDArray[np.int32]:
    """Number of the solution interval of each row."""
    number = np.zeros(session.work.n_rows, dtype=np.int32)
    found = dispersive_data.intervals(
        session.work, rows,
        solint_s=None if rung.solint == "inf" else rung.solint_s, combine=rung.combine.split(","),
    )  # fmt: skip
    for index, interval in enumerate(found):
        number[interval.rows] = index
    return number


def _sums(
    session: Session, rungs: list[snr.Rung], base: Best, fields: list[int]
) -> tuple[crossval.Sums | None, NDArray[np.int64]]:
    """Data against model by integration, spw and hand.

    Returns
    -------
    Sums or None
        None without data.
    ndarray of int, shape (cell, 3 + number of rungs)
        Spw, hand and execution, and the interval of each rung.
    """
    info, n_antenna = session.work, len(session.info.antennas)
    rows = ms.every_row(info)
    with ms.opened(info.path) as main:
        if len(fields) < len(session.fields):
            rows = rows[np.isin(main.getcol("FIELD_ID"), fields)]
        times = np.unique(main.getcol("TIME")).size
    numbers = np.stack([_intervals(session, rows, rung) for rung in rungs])
    room = SHARE * memory.limit_gib() * memory.GIB / memory.processes() / CELL_BYTES / n_antenna**2
    spws = session.found.spws()
    step = math.ceil(times * len(spws) * info.n_hands(spws) / max(1.0, room))
    if step > 1:
        longest = numbers[-1][rows]
        run = min(RUN, max(1, (int(longest.max()) + 1) // step))
        rows = rows[longest // run % step == 0]
    changed = bool(base.tables) or session.options.parang
    column = "CORRECTED_DATA" if changed else info.data_column("data")
    channels = info.channels(session.selection)
    cells: dict[tuple[float, ...], int] = {}
    blocks: list[tuple[NDArray[np.complex128], NDArray[np.float64]]] = []
    square = (n_antenna, n_antenna)
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=40):
            if description.spw not in channels:
                continue
            hands = ms.parallel_hands(description.correlations)
            inside = ms.channel_mask(
                channels[description.spw], len(info.spws[description.spw].freq_hz)
            )
            data, model = (
                ms.get(main, name, chunk)[:, inside][:, :, hands] for name in (column, "MODEL_DATA")
            )
            weight = usable_weights(main, chunk, hands, inside)
            weight = np.where(np.isfinite(data), weight, 0)
            cross = (weight * np.where(weight > 0, data, 0) * np.conj(model)).sum(axis=1)
            power = (weight * np.abs(model) ** 2).sum(axis=1)
            one, two, when, execution = (
                ms.get(main, name, chunk)
                for name in ("ANTENNA1", "ANTENNA2", "TIME", "OBSERVATION_ID")
            )
            kinds, of_row = np.unique(
                np.stack([when, execution, *numbers[:, chunk]]), axis=1, return_inverse=True
            )
            order = np.argsort(of_row.reshape(-1), kind="stable")
            ends = np.cumsum(np.bincount(of_row.reshape(-1)))[:-1]
            for kind, mine in zip(kinds.T.tolist(), np.split(order, ends), strict=True):
                for hand in range(hands.size):
                    cell = cells.setdefault((description.spw, hand, *kind), len(cells))
                    if cell == len(blocks):
                        blocks.append((np.zeros(square, dtype=np.complex128), np.zeros(square)))
                    np.add.at(blocks[cell][0], (one[mine], two[mine]), cross[mine, hand])
                    np.add.at(blocks[cell][1], (one[mine], two[mine]), power[mine, hand])
    if not blocks:
        return None, np.zeros((0, 3 + len(rungs)), dtype=np.int64)
    cross, power = (np.stack(part) for part in zip(*blocks, strict=True))
    cross = cross + np.conj(np.swapaxes(cross, 1, 2))
    power = power + np.swapaxes(power, 1, 2)
    keys = np.array(list(cells))
    ids = np.delete(keys, 2, axis=1).astype(np.int64)
    return crossval.Sums(cross, power, keys[:, 2] - keys[:, 2].min()), ids


def _way(
    session: Session, rung: snr.Rung, cells: NDArray[np.int64], number: int, *, solnorm: bool
) -> crossval.Way:
    """Which cells a rung solves together."""
    groups = spwmaps.groups(session.info, session.found, rung.combine)
    # Executions have intervals of their own, so that a spw in groups of several may take the first.
    spw = [next((i for i, group in enumerate(groups) if one in group), -1) for one in cells[:, 0]]
    hand = np.zeros(len(cells), dtype=np.int64) if rung.gaintype == "T" else cells[:, 1]
    keys = np.stack([np.array(spw), hand, cells[:, 2], cells[:, 3 + number]])
    own, which = np.unique(keys, axis=1, return_inverse=True)
    _, series = np.unique(own[:3], axis=1, return_inverse=True)
    normalised = solnorm and rung.calmode != "p"
    return crossval.Way(which.reshape(-1), rung.calmode, series.reshape(-1), normalised)
