"""Sums over the data that a compact source is fitted to: cells of bounded number, whatever the MS."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dd_data import Block
from peelkit.io.survey import C_M_S

# Steps of the phase-only solve; each halves the error.
PHASE_STEPS = 15

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]


@dataclass
class Sums:
    """What one pass over the data adds up for one source, about the place it is guessed at.

    Cells are (spw, time bin, antenna, antenna); data are relative to the guessed flux through the
    primary beam, so that a point is 1 in all of them.

    Parameters
    ----------
    n_spw, n_bins, n_antennas : int
        Number of spws, time bins and antennas.
    """

    n_spw: int
    n_bins: int
    n_antennas: int
    weight: Floats = field(init=False)
    uv: Floats = field(init=False)
    raw: Complex = field(init=False)
    aligned: Complex = field(init=False)
    spectrum: dict[int, Floats] = field(init=False, default_factory=dict)
    noise: float = field(init=False, default=0.0)
    noise_count: int = field(init=False, default=0)
    n_solved: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        shape = (self.n_spw, self.n_bins, self.n_antennas, self.n_antennas)
        self.weight = np.zeros(shape)
        # In wavelengths, along east and north at the source.
        self.uv = np.zeros((*shape, 2))
        self.raw = np.zeros(shape, dtype=np.complex128)
        self.aligned = np.zeros(shape, dtype=np.complex128)

    def add(self, block: Block, residual: Complex, bins: NDArray[np.int64], seen: Seen) -> None:
        """Add a block.

        Parameters
        ----------
        block : Block
            Rows of one field and spw.
        residual : ndarray of complex, shape (row, chan, hand)
            Data of the parallel hands without all other sources [Jy].
        bins : ndarray of int, shape (row,)
            Time bin of each row.
        seen : Seen
            What the guess predicts.
        """
        weight = block.weight[:, :, block.hands].astype(np.float64)
        model = (seen.flux_jy * seen.power)[:, None]  # (chan, 1)
        turned = residual * (seen.fringe.conj())[:, :, None]
        share = weight * model**2
        total = share.sum(axis=1)  # (row, hand)
        mean = _over((weight * model * turned).sum(axis=1), total)
        phasor, solved = _antenna_phases(block, mean, total, self.n_antennas)
        self.n_solved += solved
        spw = np.full(bins.size, block.description.spw)
        cell = np.ravel_multi_index((spw, bins, block.antenna1, block.antenna2), self.weight.shape)
        # Shares of the channels, for the mean baseline in wavelengths.
        freq = share.sum(axis=2) @ seen.freq_hz / np.maximum(share.sum(axis=(1, 2)), 1e-300)
        row_total = total.sum(axis=1)
        np.add.at(self.weight.reshape(-1), cell, row_total)
        np.add.at(self.uv.reshape(-1, 2), cell, (row_total * freq / C_M_S)[:, None] * seen.uv_m)
        np.add.at(self.raw.reshape(-1), cell, (total * mean).sum(axis=1))
        np.add.at(self.aligned.reshape(-1), cell, (total * mean * phasor).sum(axis=1))
        self._add_spectrum(block.description.spw, weight, turned, phasor, seen)

    def _add_spectrum(
        self, spw: int, weight: Floats, turned: Complex, phasor: Complex, seen: Seen
    ) -> None:
        """Per channel: sums of the model's square, and of data times model, raw and aligned."""
        known = (seen.power * seen.taper)[:, :, None]
        aligned = turned * phasor[:, None, :]
        sums = self.spectrum.setdefault(spw, np.zeros((3, seen.freq_hz.size)))
        sums[0] += (weight * known**2).sum(axis=(0, 2))
        sums[1] += (weight * known * turned.real).sum(axis=(0, 2))
        sums[2] += (weight * known * aligned.real).sum(axis=(0, 2))
        used = weight > 0
        self.noise += float((weight * aligned.imag**2)[used].sum())
        self.noise_count += int(np.count_nonzero(used))

    @property
    def noise_scale(self) -> float:
        """Variance of the data over that which the weights promise, from what is not in phase."""
        return self.noise / self.noise_count if self.noise_count else 1.0


@dataclass(frozen=True)
class Seen:
    """What a guess predicts for the rows of a block.

    Parameters
    ----------
    fringe : ndarray of complex, shape (row, chan)
        Of modulus 1.
    power, flux_jy : ndarray, shape (chan,)
        Primary beam (1 without), and guessed flux (1 while unknown).
    taper : ndarray, shape (row, chan)
        Of the guessed size.
    uv_m : ndarray, shape (row, 2)
        Baselines along east and north at the source [m].
    freq_hz : ndarray, shape (chan,)
        Frequencies [Hz].
    """

    fringe: Complex
    power: Floats
    flux_jy: Floats
    taper: Floats
    uv_m: Floats
    freq_hz: Floats


def errors_of_antennas(
    block: Block, data: Complex, model: Complex, n_antennas: int, *, least_snr: float, noise: float
) -> Complex:
    """Phase factor that antennas put on a model, shape (row, hand); 1 where the S/N is too low.

    Parameters
    ----------
    block : Block
        Rows of one field and spw.
    data : ndarray of complex, shape (row, chan, hand)
        Data of the parallel hands [Jy].
    model : ndarray of complex, shape (row, chan)
        Of the whole sky [Jy].
    n_antennas : int
        Of the MS.
    least_snr : float
        Per antenna and integration.
    noise : float
        Variance over that which the weights promise.
    """
    weight = block.weight[:, :, block.hands].astype(np.float64)
    total = (weight * np.abs(model[..., None]) ** 2).sum(axis=1)
    mean = _over((weight * data * model.conj()[..., None]).sum(axis=1), total)
    phasor, solved = _antenna_phases(block, mean, total, n_antennas)
    if 2 * total.sum() / max(1, solved) < least_snr**2 * noise:
        return np.ones_like(phasor)
    return phasor.conj()


def _over(values: Complex, total: Floats) -> Complex:
    """Quotient, 0 where there is nothing."""
    return np.asarray(np.where(total > 0, values, 0) / np.where(total > 0, total, 1.0), complex)


def _antenna_phases(
    block: Block, mean: Complex, weight: Floats, n_antennas: int
) -> tuple[Complex, int]:
    """Factor that takes antenna phases out of each row, shape (row, hand); and how many were solved.

    ``sum_q w M_pq g_q`` points along g_p for unit g: phases of each integration and hand that make the
    source most coherent, as phase self-calibration with a source at this place does.
    """
    times, moment = np.unique(block.times_s, return_inverse=True)
    hands = mean.shape[1]
    # Hands first, so that each hand's part is contiguous.
    matrix = np.zeros((hands, times.size, n_antennas, n_antennas), dtype=np.complex128)
    one, two = block.antenna1, block.antenna2
    for hand in range(hands):
        values = weight[:, hand] * mean[:, hand]
        mine = matrix[hand].reshape(-1)  # a view
        np.add.at(mine, (moment * n_antennas + one) * n_antennas + two, values)
        np.add.at(mine, (moment * n_antennas + two) * n_antennas + one, values.conj())
    gain = np.ones((hands, times.size, n_antennas, 1), dtype=np.complex128)
    for _ in range(PHASE_STEPS):
        new = matrix @ gain
        size = np.abs(new)
        new = np.where(size > 0, new / np.where(size > 0, size, 1), 1)
        # Half a step: whole ones may go to and fro.
        gain = gain + new
        gain /= np.maximum(np.abs(gain), 1e-300)
    phasor = np.stack(
        [gain[hand, moment, one, 0].conj() * gain[hand, moment, two, 0] for hand in range(hands)],
        axis=1,
    )
    return phasor, int(np.count_nonzero(np.abs(matrix).sum(axis=3)))
