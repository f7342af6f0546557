"""Better models of compact sources, from the gains that were solved towards them.

dE multiplies the model: a phase gradient that all antennas share is a wrong position, and a mean amplitude
that changes with frequency is a wrong spectrum. Both go into the model of the next round, so that longer
intervals do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from astropy.coordinates import ICRS
from numpy.typing import NDArray

from peelkit.core.compact import Compact
from peelkit.core.compact_shape import log_polynomial, offset_place
from peelkit.core.dd_apply import Peeled
from peelkit.core.dd_data import Block
from peelkit.core.skymodel import field_basis
from peelkit.io import ms
from peelkit.io.survey import C_M_S


@dataclass
class Refinement:
    """Sums over the data of one direction.

    Parameters
    ----------
    model : Compact
        That was solved with.
    spws : int
        Spectral windows of the solve.
    normal, right : ndarray, shape (2, 2) and (2,)
        Of the shift of position, east and north [rad].
    amplitude, weight : dict
        Frequency [Hz] to ``sum w |m|^2 |dE_p dE_q|`` and ``sum w |m|^2``.
    """

    model: Compact
    spws: int
    normal: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))
    right: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    amplitude: dict[float, float] = field(default_factory=dict)
    weight: dict[float, float] = field(default_factory=dict)

    def add(
        self, info: ms.MsInfo, uvw_m: NDArray[np.float64], block: Block, done: Peeled, label: str
    ) -> None:
        """Count a block, whose rows have the baselines ``uvw_m``.

        ``dE_p dE_q^*`` is what the direction contributed over its model with the gains of the array only.
        """
        hands = block.hands
        plain = done.unsolved[label][..., hands]
        solved = done.contributions[label][..., hands]
        weight = np.where(done.failed[..., None], 0, block.weight[..., hands])
        power = weight * np.abs(plain) ** 2
        ratio = np.divide(solved, plain, out=np.ones_like(solved), where=plain != 0)
        size = np.abs(ratio)
        # The sine, so that single wild phases do not pull.
        phase = np.divide(ratio.imag, size, out=np.zeros_like(size), where=size > 0)
        freq = info.spws[block.description.spw].freq_hz
        # Of one that moves the axes hardly turn; the phase that its place makes is in the models.
        middle = info.fields[block.field].at(float(block.times_s.mean()))
        toward = field_basis(middle, ICRS(), "ICRS")
        baseline = uvw_m @ toward @ self.model.basis[:2].T
        waves = 2 * math.pi / C_M_S * baseline[:, None, :] * freq[None, :, None]
        per_cell, turned = power.sum(axis=-1), (power * phase).sum(axis=-1)
        self.normal += np.einsum("rc,rci,rcj->ij", per_cell, waves, waves)
        self.right += np.einsum("rc,rci->i", turned, waves)
        for name, values in (
            ("amplitude", (power * size).sum(axis=(0, 2))),
            ("weight", per_cell.sum(axis=0)),
        ):
            mine = getattr(self, name)
            for hz, value in zip(freq, values, strict=True):
                mine[float(hz)] = mine.get(float(hz), 0.0) + float(value)

    def merge(self, other: Refinement) -> None:
        """Add other data."""
        self.normal += other.normal
        self.right += other.right
        for mine, theirs in ((self.amplitude, other.amplitude), (self.weight, other.weight)):
            for hz, value in theirs.items():
                mine[hz] = mine.get(hz, 0.0) + value

    @property
    def shift_rad(self) -> tuple[float, float]:
        """From the model's position to the refined one, direction cosines east and north; 0 without data."""
        if np.linalg.matrix_rank(self.normal) < 2:
            return 0.0, 0.0
        east, north = np.linalg.solve(self.normal, self.right)
        return float(east), float(north)

    def refined(self) -> Compact:
        """The model with its position and spectrum mended."""
        moved = offset_place(self.model, *self.shift_rad)
        freq = np.array([hz for hz, value in sorted(self.weight.items()) if value > 0])
        if freq.size == 0:
            return moved
        weight = np.array([self.weight[hz] for hz in freq])
        size = np.array([self.amplitude[hz] for hz in freq]) / weight
        spectrum = log_polynomial(
            np.log(freq / self.model.reference_hz), np.log(self.model.flux(freq) * size), weight,
            most=self.spws,
        )  # fmt: skip
        return replace(moved, flux_jy=spectrum.flux_jy, spectrum=spectrum.coefficients)
