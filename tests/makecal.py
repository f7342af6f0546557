"""Corrupts a small MS by delays, bandpass and gains of known size: ``V = J_p J_q^* S + noise`` by formula."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from casacore.tables import table


def corrupt(
    path: Path,
    *,
    fluxes_jy: Mapping[int, float],
    sigma_jy: float,
    seed: int = 0,
    delay_ns: float = 5.0,
    ripple: float = 0.2,
    phase_step_deg: float = 15.0,
    amplitude_rms: float = 0.1,
) -> dict[tuple[int, int], np.ndarray]:
    """Replace DATA by points of ``fluxes_jy`` (by field) seen through delays, bandpass and gains.

    Every spw has its own. Gains drift: their phase turns by a random ``phase_step_deg`` from scan to scan.

    Returns
    -------
    dict of ndarray, shape (antenna, chan, hand)
        J of each (scan, spw).
    """
    rng = np.random.default_rng(seed)
    with table(f"{path}/SPECTRAL_WINDOW", ack=False) as sub:
        freqs = [sub.getcell("CHAN_FREQ", row) for row in range(sub.nrows())]
    with table(f"{path}/ANTENNA", ack=False) as sub:
        n_ant = sub.nrows()
    with table(str(path), readonly=False, ack=False) as main:
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        ddid, scan, field = (main.getcol(n) for n in ("DATA_DESC_ID", "SCAN_NUMBER", "FIELD_ID"))
        truth: dict[tuple[int, int], np.ndarray] = {}
        for spw, freq in enumerate(freqs):
            tau = rng.uniform(-delay_ns, delay_ns, (n_ant, 1, 2)) * 1e-9
            turn = rng.uniform(0, 2 * np.pi, (2, n_ant, 1, 2))
            x = np.linspace(0, 1, freq.size)[None, :, None]
            bandpass = 1 + ripple * np.sin(2 * np.pi * 1.5 * x + turn[0])
            bandpass = bandpass * np.exp(1j * ripple * np.sin(2 * np.pi * x + turn[1]))
            fixed = bandpass * np.exp(2j * np.pi * tau * (freq - freq.mean())[None, :, None])
            gain = 1 + amplitude_rms * rng.normal(size=(n_ant, 1, 2))
            phase = rng.uniform(-np.pi, np.pi, (n_ant, 1, 2))
            for number in np.unique(scan):
                phase = phase + np.radians(phase_step_deg) * rng.normal(size=phase.shape)
                truth[int(number), spw] = fixed * gain * np.exp(1j * phase)
        for (number, spw), jones in truth.items():
            rows = np.flatnonzero((scan == number) & (ddid == spw))
            data = jones[one[rows]] * jones[two[rows]].conj()
            data = data * np.array([fluxes_jy[int(f)] for f in field[rows]])[:, None, None]
            noise = rng.normal(0, sigma_jy, (2, *data.shape))
            main.selectrows(rows).putcol(
                "DATA", (data + noise[0] + 1j * noise[1]).astype(np.complex64)
            )
    return truth


def noise_left(
    path: Path, truth: Mapping[tuple[int, int], np.ndarray], fluxes_jy: Mapping[int, float]
) -> dict[int, float]:
    """Robust-free rms [Jy] of (CORRECTED_DATA - flux) times the true gains, each part, by field.

    Taken back to the data as observed, so that with perfect solutions it is the noise that was put in.
    """
    with table(str(path), ack=False) as main:
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        ddid, scan, field = (main.getcol(n) for n in ("DATA_DESC_ID", "SCAN_NUMBER", "FIELD_ID"))
        sums: dict[int, list[float]] = {}
        for (number, spw), jones in truth.items():
            rows = np.flatnonzero((scan == number) & (ddid == spw))
            corrected = main.selectrows(rows).getcol("CORRECTED_DATA")
            number_of = int(field[rows[0]])
            left = (corrected - fluxes_jy[number_of]) * jones[one[rows]] * jones[two[rows]].conj()
            total = sums.setdefault(number_of, [0.0, 0.0])
            total[0] += float((np.abs(left) ** 2).sum()) / 2
            total[1] += left.size
    return {number: float(np.sqrt(total / count)) for number, (total, count) in sums.items()}
