"""Cross-validation of a round's gains against those that they replace."""

from __future__ import annotations

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
    old = (
        crossval.Way(np.zeros(len(cells), dtype=np.int64), "")
        if before is None
        else _way(session, before, cells, 1, solnorm=solved.how.solnorm)
    )
    return crossval.compare(sums, old, new)


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
    """Data against model in cells of interval (of each rung), spw and hand.

    Returns
    -------
    Sums or None
        None without data.
    ndarray of int, shape (cell, 2 + number of rungs)
        Spw and hand, and the interval of each rung.
    """
    info = session.work
    rows = ms.every_row(info)
    with ms.opened(info.path) as main:
        if len(fields) < len(session.fields):
            rows = rows[np.isin(main.getcol("FIELD_ID"), fields)]
    numbers = np.stack([_intervals(session, rows, rung) for rung in rungs])
    n_antenna = len(info.antennas)
    cells: dict[tuple[int, ...], int] = {}
    spws = session.found.spws()
    # What does not fit into memory is not looked at: some of the longer intervals say as much as all.
    pairs = np.unique(numbers[0][rows].astype(np.int64) * 2**31 + numbers[-1][rows])
    most = SHARE * memory.limit_gib() * memory.GIB / memory.processes()
    room = int(most / (CELL_BYTES * n_antenna**2))
    hands = info.n_hands(spws)
    step = max(1, -(-pairs.size * len(spws) * hands // max(1, room)))
    rows = rows[numbers[-1][rows] % step == 0]
    channels = info.channels(session.selection)
    changed = bool(base.tables) or session.options.parang
    column = "CORRECTED_DATA" if changed else info.data_column("data")
    blocks: list[tuple[NDArray[np.complex128], NDArray[np.float64]]] = []
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=40):
            if description.spw not in channels:
                continue
            which = ms.parallel_hands(description.correlations)
            inside = ms.channel_mask(
                channels[description.spw], len(info.spws[description.spw].freq_hz)
            )
            data, model = (
                ms.get(main, name, chunk)[:, inside][:, :, which] for name in (column, "MODEL_DATA")
            )
            weight = usable_weights(main, chunk, which, inside)
            weight = np.where(np.isfinite(data), weight, 0)
            data = np.where(weight > 0, data, 0)
            cross = (weight * data * np.conj(model)).sum(axis=1)
            power = (weight * np.abs(model) ** 2).sum(axis=1)
            one, two = ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
            intervals = numbers[:, chunk]
            kinds, of_row = np.unique(intervals, axis=1, return_inverse=True)
            of_row = of_row.reshape(-1)
            for hand in range(which.size):
                index = np.array(
                    [
                        cells.setdefault((description.spw, hand, *kind), len(cells))
                        for kind in kinds.T.tolist()
                    ]
                )
                while len(blocks) < len(cells):
                    blocks.append(
                        (
                            np.zeros((n_antenna, n_antenna), dtype=np.complex128),
                            np.zeros((n_antenna, n_antenna)),
                        )
                    )
                for kind, cell in enumerate(index):
                    mine = of_row == kind
                    np.add.at(blocks[cell][0], (one[mine], two[mine]), cross[mine, hand])
                    np.add.at(blocks[cell][1], (one[mine], two[mine]), power[mine, hand])
    if not blocks:
        return None, np.zeros((0, 2 + len(rungs)), dtype=np.int64)
    cross_all = np.stack([block[0] for block in blocks])
    power_all = np.stack([block[1] for block in blocks])
    cross_all = cross_all + np.conj(np.swapaxes(cross_all, 1, 2))
    power_all = power_all + np.swapaxes(power_all, 1, 2)
    return crossval.Sums(cross_all, power_all), np.array(list(cells))


def _way(
    session: Session, rung: snr.Rung, cells: NDArray[np.int64], number: int, *, solnorm: bool
) -> crossval.Way:
    """Which cells a rung solves together."""
    groups = spwmaps.groups(session.info, session.found, rung.combine)
    # Executions have intervals of their own, so that a spw in groups of several may take the first.
    spw = np.array(
        [next((i for i, group in enumerate(groups) if one in group), -1) for one in cells[:, 0]]
    )
    hand = np.zeros_like(spw) if rung.gaintype == "T" else cells[:, 1]
    keys = np.stack([spw, hand, cells[:, 2 + number]])
    own, which = np.unique(keys, axis=1, return_inverse=True)
    normalise = None
    if solnorm and rung.calmode != "p":
        normalise = np.unique(own[0], return_inverse=True)[1].reshape(-1)
    return crossval.Way(which.reshape(-1), rung.calmode, normalise)
