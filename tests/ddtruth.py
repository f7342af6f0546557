"""Data with known direction-dependent errors, by formula: for the tests of ddsolve.

``V_pq = sum_d J_p,d M_d J_q,d^H + noise`` with one Jones diagonal per direction, antenna, hand and scan;
direction 0 is the rest of the sky, without errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from casacore.tables import makearrcoldesc, maketabdesc, table

from makems import MsRecipe, channel_freq, make_ms, sky_visibility

RECIPE = MsRecipe(
    n_antenna=10, n_scan=2, n_time=12, n_chan=(4, 4), n_corr=2, flux_jy=0.3, sigma_jy=0.05, seed=5
)


@dataclass(frozen=True)
class Bright:
    """A bright source: flux [Jy], offsets [arcsec], rms of its phases [rad] and amplitudes."""

    flux_jy: float
    east: float
    north: float
    phase_rms: float = 0.5
    amplitude_rms: float = 0.1


def add_model(main: table, name: str, values: np.ndarray) -> None:
    """Write a new column of DATA's shape."""
    main.addcols(maketabdesc([makearrcoldesc(name, 0j, valuetype="complex", ndim=2)]))
    main.putcol(name, values.astype(np.complex64))


def make_truth(
    path: Path,
    brights: tuple[Bright, ...],
    recipe: MsRecipe = RECIPE,
    *,
    seed: int = 1,
    beams: tuple[float, ...] = (),
    constant: bool = False,
) -> dict[str, np.ndarray]:
    """Write the MS with columns ALL, B1, B2, ...; returns its noise, its rest and the Jones diagonals.

    ``noise`` and ``rest`` have the shape of DATA; ``jones`` (direction, scan, antenna, hand). ``beams`` is
    the factor on all bright sources in each field; with ``constant`` all scans have the same gains.
    """
    make_ms(path, recipe)
    rng = np.random.default_rng(seed)
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA").astype(complex)
        uvw, ddid = main.getcol("UVW"), main.getcol("DATA_DESC_ID")
        scan = main.getcol("SCAN_NUMBER") - 1
        one, two = main.getcol("ANTENNA1"), main.getcol("ANTENNA2")
        hands = [0, -1] if recipe.n_corr > 1 else [0]
        beam = np.array(beams or (1.0,) * recipe.n_field)[main.getcol("FIELD_ID")]

        def predicted(recipe_of: MsRecipe) -> np.ndarray:
            values = np.zeros(data.shape, dtype=complex)
            for spw in range(len(recipe.n_chan)):
                rows = ddid == spw
                sky = sky_visibility(recipe_of, uvw[rows], channel_freq(recipe, spw))
                block = values[rows]
                block[:, :, hands] = sky[:, :, None]
                values[rows] = block
            return values

        rest = predicted(recipe)
        noise = data - rest
        everything = rest.copy()
        jones = []
        for number, bright in enumerate(brights, start=1):
            model = predicted(
                replace(recipe, flux_jy=0.0, sources=((bright.flux_jy, bright.east, bright.north),))
            )
            model *= beam[:, None, None]
            shape = (1 if constant else recipe.n_scan, recipe.n_antenna, len(hands))
            gain = (1 + bright.amplitude_rms * rng.normal(size=shape)) * np.exp(
                1j * bright.phase_rms * rng.normal(size=shape)
            )
            gain = np.broadcast_to(gain, (recipe.n_scan, *gain.shape[1:]))
            jones.append(gain)
            for hand, corr in enumerate(hands):
                factor = gain[scan, one, hand] * gain[scan, two, hand].conj()
                data[:, :, corr] += model[:, :, corr] * factor[:, None]
            everything += model
            add_model(main, f"B{number}", model)
        add_model(main, "ALL", everything)
        main.putcol("DATA", data.astype(np.complex64))
    return {"noise": noise, "rest": rest, "jones": np.array(jones)}


def add_delays(
    path: Path, recipe: MsRecipe, turns: np.ndarray, *, descending: bool = False
) -> None:
    """Turn DATA by delays of antennas, shape (scan, antenna, hand) in turns of phase over a spw.

    ``g = exp(2 pi i turns (f - f_mid) / bandwidth)``, with the middle of the outermost channels. With
    ``descending`` the channels of all columns are put the other way round afterwards.
    """
    with table(str(path), readonly=False, ack=False) as main:
        data, ddid = main.getcol("DATA").astype(complex), main.getcol("DATA_DESC_ID")
        scan, one, two = (main.getcol(name) for name in ("SCAN_NUMBER", "ANTENNA1", "ANTENNA2"))
        apart = turns[scan - 1, one] - turns[scan - 1, two]
        for spw, n_chan in enumerate(recipe.n_chan):
            rows = ddid == spw
            place = (np.arange(n_chan) - (n_chan - 1) / 2) / n_chan
            block = data[rows]
            hands = [0, -1] if recipe.n_corr > 1 else [0]
            block[..., hands] *= np.exp(2j * np.pi * apart[rows][:, None] * place[:, None])
            data[rows] = block
        main.putcol("DATA", data.astype(np.complex64))
        if descending:
            for name in ("DATA", "ALL", "B1", "B2"):
                if name in main.colnames():
                    main.putcol(name, np.ascontiguousarray(main.getcol(name)[:, ::-1]))
    if descending:
        with table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as sub:
            for spw in range(len(recipe.n_chan)):
                for name, sign in (("CHAN_FREQ", 1), ("CHAN_WIDTH", -1)):
                    cell = sign * sub.getcell(name, spw)[::-1]
                    sub.putcell(name, spw, np.ascontiguousarray(cell))
