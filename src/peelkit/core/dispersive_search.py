"""Where the delays and TEC of antennas are, from a grid: the start of `peelkit.core.dispersive_fit`. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.dispersive import TEC_RAD_HZ, Cross, Design

# Searched on both sides of 0: residual delays after an observatory's own model, and differences of TEC
# between stations of one array, are well below (fringes of VLBI are not what this is for).
MAX_DELAY_S = 200e-9
MAX_TEC_TECU = 5.0

# S/N of an antenna below which its fit is not believed: of n independent places searched, noise has one
# above it with n exp(-S/N^2 / 2), that is 4e-4 for 100 places (`minsnr` raises it).
LEAST_SNR = 5.0

# Whole turns of phase tried on both sides where there is no offset.
TURNS = 6

# So many of them, the best, are followed to their peak.
BEST_TURNS = 6

# Rounds of the search; antennas come in through those of the round before.
ROUNDS = 4

# Complex numbers of one block of the search's grid.
BLOCK = 4_000_000


def _others(
    cross: Cross, phasor: NDArray[np.complex128], antenna: int, known: NDArray[np.bool_]
) -> tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sum over baselines from an antenna to known ones, whose gains are taken out.

    Returns the sum (chan, hand), and ``sum w |M|^2``, ``sum w |V|^2`` and samples (hand,) of it.
    """
    first = (cross.antenna1 == antenna) & known[cross.antenna2]
    second = (cross.antenna2 == antenna) & known[cross.antenna1]
    total = (cross.product[first] * phasor[cross.antenna2[first]]).sum(axis=0)
    total = total + np.conj(cross.product[second] * phasor[cross.antenna1[second]].conj()).sum(
        axis=0
    )
    used = first | second
    return total, *(v[used].sum(axis=0) for v in (cross.model, cross.data, cross.samples))


def turned(
    cross: Cross, design: Design, x: NDArray[np.float64], reference: int
) -> NDArray[np.float64]:
    """Parameters, where a delay without an offset is whole turns of phase away if that is better."""
    everyone = np.ones(x.shape[0], dtype=bool)
    phasor = np.exp(1j * design.phases(x))
    sums = np.array([_others(cross, phasor, a, everyone)[0] for a in range(x.shape[0])])
    found = Grids.of(design).whole_turns(sums, x)
    found[reference] = x[reference]
    return found


def search(
    cross: Cross, design: Design, known: NDArray[np.bool_], reference: int, live: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Parameters of all antennas from a grid, each against those that are known by then."""
    x = np.zeros((live.size, len(design.names)))
    grids = Grids.of(design)
    for number in range(ROUNDS):
        phasor = np.exp(1j * design.phases(x))
        antennas = [int(a) for a in np.flatnonzero(live) if a != reference]
        sums = [_others(cross, phasor, a, known & (np.arange(live.size) != a)) for a in antennas]
        if not antennas:
            return x
        found, height = grids.search(np.array([item[0] for item in sums]))
        now = known.copy()
        now[reference] = True
        for row, antenna in enumerate(antennas):
            _, model, data, samples = sums[row]
            amplitude = np.sum(height[row] ** 2 / np.maximum(model, 1e-300))
            # What is left of the data once a point of this amplitude is taken out: the noise.
            noise = max(data.sum() - amplitude, 1e-3 * data.sum()) / max(2 * samples.sum(), 1.0)
            snr = math.sqrt(amplitude / noise) if noise > 0 else 0.0
            now[antenna] = snr >= LEAST_SNR
            x[antenna] = found[row] if now[antenna] else 0.0
        if number and np.array_equal(now, known):
            break
        known = now
    return x


@dataclass(frozen=True)
class Grids:
    """Places to search: delays [ns] and TEC [TECU], and the phases they make."""

    design: Design
    delays: NDArray[np.float64]
    tecs: NDArray[np.float64]

    @classmethod
    def of(cls, design: Design) -> Grids:
        """As fine as the band needs, as wide as the channels allow."""
        freq = np.unique(design.freq_hz)
        span = float(np.ptp(freq)) or 1.0
        offset = "offset" in design.names
        delays = tecs = np.zeros(1)
        if "delay" in design.names and freq.size > 1:
            widest = min(MAX_DELAY_S, 0.5 / float(np.diff(freq).min()))
            # Ten places for each resolution element 1 / span: half a step from the peak 0.4 % is lost, less
            # than what tells two lobes of separated spws apart (4 places: 5 %, and the wrong lobe was taken).
            count = math.ceil(widest * span * 10)
            delays = np.linspace(-widest, widest, 2 * count + 1) * 1e9
        if "tec" in design.names:
            slope = abs(TEC_RAD_HZ) / freq
            # Phase across the band (with an offset or delay it is all that counts), or of the whole.
            turn = float(np.ptp(slope)) if offset or "delay" in design.names else float(slope.max())
            step_rad = float(np.abs(np.diff(slope)).max()) if freq.size > 1 else 1.0
            widest = min(MAX_TEC_TECU, np.pi / max(step_rad, 1e-30))
            count = math.ceil(2 * widest * turn)
            tecs = np.linspace(-widest, widest, 2 * count + 1)
        return cls(design, delays, tecs)

    def search(
        self, sums: NDArray[np.complex128]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Best place of each antenna for ``sums`` (antenna, chan, hand).

        Returns
        -------
        ndarray, shape (antenna, parameter)
            Parameters.
        ndarray, shape (antenna, hand)
            Height of the coherent sum there.
        """
        design = self.design
        n_antenna, n_chan, n_hand = sums.shape
        coherent = "offset" not in design.names and "delay" not in design.names
        flat = sums.transpose(0, 2, 1).reshape(-1, n_chan).astype(np.complex64)
        best = np.full(n_antenna, -np.inf)
        place = np.zeros((n_antenna, 1 + n_hand))
        freq = design.freq_hz - float(design.freq_hz.mean())
        block = max(1, BLOCK // n_chan)
        for start in range(0, self.delays.size, block):
            delays = self.delays[start : start + block]
            turn = np.exp(-2e-9j * np.pi * np.outer(freq, delays)).astype(np.complex64)
            for tec in self.tecs:
                here = flat * np.exp(-1j * TEC_RAD_HZ * tec / design.freq_hz).astype(np.complex64)
                response = (here @ turn).reshape(n_antenna, n_hand, -1)
                height = response.real if coherent else np.abs(response)
                top = height.argmax(axis=2)
                score = np.take_along_axis(height, top[..., None], axis=2)[..., 0].sum(axis=1)
                better = score > best
                best[better] = score[better]
                place[better, 0] = tec
                place[better, 1:] = delays[top[better]]
        x = np.zeros((n_antenna, len(design.names)))
        for k, (name, hand) in enumerate(zip(design.names, design.hands, strict=True)):
            if name == "tec":
                x[:, k] = place[:, 0]
            elif name == "delay":
                x[:, k] = place[:, 1 + (hand or 0)]
        if design.needs_turns:
            x = self.whole_turns(sums, x)
        left = (sums * np.exp(-1j * design.phases(x))).sum(axis=1)
        for k, (name, hand) in enumerate(zip(design.names, design.hands, strict=True)):
            if name == "offset":
                x[:, k] = np.angle(left[:, hand])
        return x, np.abs(left)

    def whole_turns(
        self, sums: NDArray[np.complex128], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Without an offset a delay must have the right phase too: the best of those whole turns apart.

        With an offset the place is settled first; the offset, and turns more of it, are then put into the
        parameters by least squares.
        """
        design = self.design
        n_par, n_chan, n_hand = design.columns.shape
        free = Design.of("delay_and_offset", design.freq_hz, n_hand).columns[-n_hand:]
        both = np.concatenate([design.columns, free])
        flat = (sums * np.exp(-1j * design.phases(x))).sum(axis=1)
        start = np.concatenate([x, np.angle(flat)], axis=1)
        wide = polished(sums, both, start)
        share = np.linalg.pinv(design.columns.reshape(n_par, -1).T)
        unit = np.zeros((n_chan, n_hand, n_hand))
        unit[:, np.arange(n_hand), np.arange(n_hand)] = 1.0
        into = share @ unit.reshape(-1, n_hand)
        starts, heights = [], []
        for turns in itertools.product(range(-TURNS, TURNS + 1), repeat=n_hand):
            offset = wide[:, n_par:] + 2 * np.pi * np.array(turns)
            starts.append(wide[:, :n_par] + offset @ into.T)
            heights.append((sums * np.exp(-1j * design.phases(starts[-1]))).real.sum(axis=(1, 2)))
        best, height = x, np.full(x.shape[0], -np.inf)
        for choice in np.argsort(-np.array(heights), axis=0)[:BEST_TURNS]:
            start = np.array(starts)[choice, np.arange(x.shape[0])]
            trial = polished(sums, design.columns, start)
            here = (sums * np.exp(-1j * design.phases(trial))).real.sum(axis=(1, 2))
            best = np.where((here > height)[:, None], trial, best)
            height = np.maximum(here, height)
        return best


def polished(
    sums: NDArray[np.complex128],
    columns: NDArray[np.float64],
    x: NDArray[np.float64],
    steps: int = 8,
) -> NDArray[np.float64]:
    """Newton's method for ``Re sum(sums exp(-i phi))`` of each antenna alone, from ``x``."""
    n_par = columns.shape[0]
    flat = columns.reshape(n_par, -1)
    pairs = (flat[:, None] * flat[None]).reshape(n_par * n_par, -1)
    data = sums.reshape(sums.shape[0], -1)
    left = data * np.exp(-1j * (x @ flat))
    for _ in range(steps):
        bend = (np.maximum(left.real, 0.0) @ pairs.T).reshape(-1, n_par, n_par)
        slope = left.imag @ flat.T
        # Scaled to a unit diagonal; what nothing constrains gets no step.
        scale = np.sqrt(np.maximum(np.einsum("akk->ak", bend), 1e-300))
        unit = bend / scale[:, :, None] / scale[:, None] + 1e-9 * np.eye(n_par)
        step = np.linalg.solve(unit, (slope / scale)[..., None])[..., 0] / scale
        trial = x + step
        there = data * np.exp(-1j * (trial @ flat))
        better = there.real.sum(axis=1) > left.real.sum(axis=1)
        if not better.any():
            break
        x = np.where(better[:, None], trial, x)
        left = np.where(better[:, None], there, left)
    return x
