"""Visibilities of a cell of time and frequency, in as few numbers as a solve can tell apart. Pure.

Where no gain changes within a cell, what a baseline and hand contribute to chi-squared is

    sum w |D - sum_d a_d M_d|^2 = a^H R a - 2 Re a^H b + c,   a_d = g_p,d conj(g_q,d),
    R_de = sum w conj(M_d) M_e,   b_d = sum w conj(M_d) D,   c = sum w |D|^2.

With ``R = L L^H`` and ``L y = b`` that is ``|y - L^H a|^2 + c - |y|^2``: as many samples of weight 1 as there
are directions, y with the models in the rows of L^H, have the same chi-squared for all gains, but for a
constant, and so the same gradient and curvature in every iteration of a solver. Unlike a mean of the
visibilities this loses nothing to smearing, however far from the phase centre a source is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What is left of a model's power without those before it; below it is rounding of double precision.
LEAST_SHARE = 1e-11

# A sample that says nothing in one hand: not 0, which QuartiCal takes for a flag of all hands.
NOTHING = 1e-30

# Samples (row x channel x hand) that are multiplied at a time: they stay in the processor's cache.
PIECE = 1 << 16


@dataclass(frozen=True)
class Normal:
    """Sums over cells.

    Parameters
    ----------
    power : ndarray of complex, shape (cell, freq, hand, direction, direction)
        R; the upper half is left 0.
    cross : ndarray of complex, shape (cell, freq, hand, direction)
        b.
    weight : ndarray, shape (cell, freq, hand)
        Sum of the weights.
    constant : float
        c of all cells together.
    samples : int
        Visibilities that have been counted.
    """

    power: NDArray[np.complex128]
    cross: NDArray[np.complex128]
    weight: NDArray[np.float64]
    constant: float = 0.0
    samples: int = 0

    @classmethod
    def empty(cls, n_cell: int, n_freq: int, n_hand: int, n_direction: int) -> Normal:
        """Nothing counted."""
        shape = (n_cell, n_freq, n_hand, n_direction)
        return cls(
            np.zeros((*shape, n_direction), dtype=complex),
            np.zeros(shape, dtype=complex),
            np.zeros(shape[:3]),
        )

    def with_rows(
        self,
        cell: NDArray[np.int64],
        data: NDArray[np.complex64],
        models: Sequence[NDArray[Any]],
        weight: NDArray[Any],
        f_starts: NDArray[np.int64],
    ) -> Normal:
        """Count rows.

        Parameters
        ----------
        cell : ndarray of int, shape (row,)
            Of each row.
        data, weight : ndarray, shape (row, chan, hand)
            Weights are 0 for what is flagged, in all hands alike.
        models : sequence of ndarray, shape of ``data``
            One for each direction.
        f_starts : ndarray of int, shape (freq,)
            First channel of each cell in frequency.
        """
        order = np.argsort(cell, kind="stable")
        step = max(1, PIECE // max(1, data.shape[1] * data.shape[2]))
        constant = self.constant
        for start in range(0, order.size, step):
            rows = order[start : start + step]
            here = cell[rows]
            firsts = np.flatnonzero(np.diff(here, prepend=-1))
            which = here[firsts]

            def total(
                values: NDArray[Any], firsts: NDArray[np.intp] = firsts
            ) -> NDArray[np.complex128]:
                if f_starts.size < values.shape[1]:
                    values = np.add.reduceat(values, f_starts, axis=1)
                if firsts.size < values.shape[0]:
                    values = np.add.reduceat(values, firsts, axis=0)
                return values

            root = np.sqrt(weight[rows], dtype=np.float64)
            seen = [root * model[rows] for model in models]
            vis = root * data[rows]
            constant += float(np.vdot(vis, vis).real)
            self.weight[which] += total(root * root).real
            for d, one in enumerate(seen):
                against = np.conj(one)
                self.cross[which, ..., d] += total(against * vis)
                self.power[which, ..., d, d] += total(one.real**2 + one.imag**2)
                for e in range(d):
                    self.power[which, ..., d, e] += total(against * seen[e])
        return Normal(
            self.power,
            self.cross,
            self.weight,
            constant,
            self.samples + int(np.count_nonzero(weight)),
        )


# Types of gains whose solvers know of the data by their chi-squared alone; those of phases and delays divide
# each visibility by its model (phase/kernel.py of QuartiCal 0.2.7), so that samples must be alike.
BY_CHI2 = frozenset({"diag_complex", "amplitude"})


def few(types: Sequence[str], n_direction: int) -> bool:
    """Whether gains of these types are the same from few samples."""
    return BY_CHI2.issuperset(types) or (n_direction == 1 and set(types) <= {*BY_CHI2, "phase"})


def samples(normal: Normal) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """The few samples that stand for the cells: of weight 1, or of all weights where there is one direction.

    Returns
    -------
    data : ndarray of complex64, shape (cell, freq x direction, hand)
        y.
    models : ndarray of complex64, shape (direction, cell, freq x direction, hand)
        Rows of L^H.
    flag : ndarray of bool, shape of ``data``
        What says nothing: cells without data, or a model that is a multiple of those before it.
    """
    power, cross = normal.power, normal.cross
    n_cell, n_freq, n_hand, n = cross.shape
    lower = np.zeros_like(power)
    vis = np.zeros_like(cross)
    good = np.zeros(cross.shape, dtype=bool)
    for k in range(n):
        before = lower[..., k, :k]
        left = power[..., k, k].real - np.sum(np.abs(before) ** 2, axis=-1)
        ok = left > LEAST_SHARE * power[..., k, k].real
        good[..., k] = ok
        root = np.sqrt(np.where(ok, left, 1.0))
        for i in range(k, n):
            value = power[..., i, k] - np.sum(lower[..., i, :k] * np.conj(before), axis=-1)
            lower[..., i, k] = np.where(ok, value / root, 0)
        value = cross[..., k] - np.sum(before * vis[..., :k], axis=-1)
        vis[..., k] = np.where(ok, value / root, 0)
    if n == 1:
        # Of the same weight as the visibilities, for solvers that divide by the model: those of phases.
        root = np.sqrt(normal.weight)[..., None]
        vis = np.divide(vis, root, out=vis, where=good)
        lower = np.divide(lower, root[..., None], out=lower, where=good[..., None])
    # (cell, freq, hand, sample) to (cell, freq x sample, hand).
    shape = (n_cell, n_freq * n, n_hand)
    flag = np.broadcast_to(~good.any(axis=2, keepdims=True), good.shape)
    vis = np.where(good, vis, NOTHING)
    upper = np.conj(lower)
    return (
        np.moveaxis(vis, 3, 2).reshape(shape).astype(np.complex64),
        np.stack([np.moveaxis(upper[..., d, :], 3, 2).reshape(shape) for d in range(n)]).astype(
            np.complex64
        ),
        np.moveaxis(flag, 3, 2).reshape(shape),
    )
