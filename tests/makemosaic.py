"""Makes small mosaics by formula: several pointings on one sky, each through its own primary beam.

``V_pq = g_p conj(g_q) sum_s I_s P(theta_s) exp(2 pi i b_pq.(s - s_0) f / c) + noise``, where s_0 is the
field's phase centre and theta_s the source's distance from it. Nothing of peelkit is used.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from casacore.tables import table
from scipy.special import j1

from makems import C, MsRecipe, baseline_uvw, channel_freq, make_ms

CENTRE_RA = 2.0

# Directions from the middle [arcsec east, north] that pointings and sources are given in.
Offset = tuple[float, float]


def vla_power(freq_hz: float | np.ndarray, theta_rad: float) -> np.ndarray:
    """Power beam of a uniformly lit aperture of 24.5 m, ``|2 J1(x) / x|^2``, x = pi D f sin(theta) / c.

    This is the beam that CASA has for telescope VLA at 2 to 4 GHz; here out to the first null.
    """
    x = np.pi * 24.5 * np.asarray(freq_hz) / C * np.sin(theta_rad)
    return np.where(x < 3.83, (2 * j1(np.maximum(x, 1e-9)) / np.maximum(x, 1e-9)) ** 2, 0.0)


def direction(recipe: MsRecipe, offset: Offset) -> tuple[float, float]:
    """Right ascension and declination [rad] of a tangent-plane offset from the middle."""
    l, m = (math.radians(value / 3600) for value in offset)  # noqa: E741
    n = math.sqrt(1 - l * l - m * m)
    dec0 = math.radians(recipe.dec_deg)
    dec = math.asin(m * math.cos(dec0) + n * math.sin(dec0))
    return CENTRE_RA + math.atan2(l, n * math.cos(dec0) - m * math.sin(dec0)), dec


def make_mosaic(
    path: Path,
    recipe: MsRecipe,
    pointings: list[Offset],
    sources: list[tuple[float, float, float]],
) -> dict[str, np.ndarray]:
    """Write the MS: scan k looks at pointing k modulo their number; returns the gains that corrupt it.

    ``sources`` are (flux [Jy], arcsec east, arcsec north) of the middle; the recipe's own point is none
    if its flux is 0.
    """
    assert recipe.n_field == len(pointings) and recipe.n_corr == 2
    truth = make_ms(path, recipe)
    fields = [direction(recipe, pointing) for pointing in pointings]
    rng = np.random.default_rng(recipe.seed + 100)
    with table(f"{path}/ANTENNA", ack=False) as sub:
        positions = sub.getcol("POSITION")
    with table(f"{path}/FIELD", readonly=False, ack=False) as sub:
        for column in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            for number, place in enumerate(fields):
                sub.putcell(column, number, np.array([place]))
    with table(str(path), readonly=False, ack=False) as main:
        n_base = recipe.n_antenna * (recipe.n_antenna - 1) // 2
        n_spw = len(recipe.n_chan)
        for block in range(main.nrows() // n_base):
            start = block * n_base
            moment = main.getcell("TIME", start)
            field, spw = main.getcell("FIELD_ID", start), block % n_spw
            one, two = (main.getcol(f"ANTENNA{k}", start, n_base) for k in (1, 2))
            ra0, dec0 = fields[field]
            antenna_uvw = baseline_uvw(positions, moment, ra0, dec0)
            uvw = antenna_uvw[one] - antenna_uvw[two]
            freq = channel_freq(recipe, spw)
            model = np.zeros((n_base, freq.size), dtype=complex)
            for flux, *offset in sources:
                ra, dec = direction(recipe, (offset[0], offset[1]))
                l = math.cos(dec) * math.sin(ra - ra0)  # noqa: E741
                m = math.sin(dec) * math.cos(dec0) - math.cos(dec) * math.sin(dec0) * math.cos(
                    ra - ra0
                )
                n = math.sqrt(1 - l * l - m * m)
                beam = vla_power(freq, math.acos(min(1.0, n)))
                path_m = uvw @ np.array([l, m, n - 1])
                model += flux * beam * np.exp(2j * np.pi * np.outer(path_m, freq) / C)
            g = truth["gains"][block // n_spw]
            data = model[:, :, None] * (g[one] * g[two].conj())[:, None, :]
            noise = rng.normal(0, recipe.sigma_jy, (2, *data.shape)) if recipe.sigma_jy else [0, 0]
            data = data + noise[0] + 1j * noise[1]
            main.putcol("UVW", uvw, start, n_base)
            main.putcol("DATA", data.astype(np.complex64), start, n_base)
    return truth
