"""Makes Measurement Sets of gigabytes in seconds: tiled columns, and one block of values over and over."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from casacore.tables import default_ms, makearrcoldesc, maketabdesc

from makems import LONGITUDE, MsRecipe, _subtables, antenna_positions, baseline_uvw

# Rows are written in pieces of this many integrations at most, and this many bytes of a column.
PIECE_BYTES = 64 * 2**20


def make_big_ms(
    path: Path, recipe: MsRecipe, *, extra: tuple[str, ...] = (), tile_rows: int = 64
) -> int:
    """Write an MS with a point of ``flux_jy`` at each field's centre, and noise; returns its rows.

    Parameters
    ----------
    path : Path
        The MS.
    recipe : MsRecipe
        Of it `n_antenna`, `n_scan`, `n_time`, `n_chan`, `n_corr`, `n_field` and what the subtables say.
    extra : tuple of str
        Columns beside DATA, which hold the model: the flux in the parallel hands.
    """
    rng = np.random.default_rng(recipe.seed)
    positions = antenna_positions(recipe, rng)
    ra, dec = 2.0, math.radians(recipe.dec_deg)
    start = 5.0e9
    gmst0 = ((start / 86400.0 - 51544.5) * 1.00273790935 + 0.7790572732640) % 1.0
    start += ((ra - LONGITUDE) / (2 * math.pi) - gmst0) % 1.0 * 86164.09 - 600.0
    one, two = np.triu_indices(recipe.n_antenna, 1)
    n_base, n_spw = one.size, len(recipe.n_chan)
    assert len(set(recipe.n_chan)) == 1, "spws of one shape"
    n_chan, n_corr = recipe.n_chan[0], recipe.n_corr
    names = ("DATA", *extra)
    tiled = ("FLAG", "WEIGHT", "SIGMA", "UVW", *names)
    managers = {
        f"*{number}": {
            "NAME": f"Tiled{name}",
            "TYPE": "TiledColumnStMan" if name == "UVW" else "TiledShapeStMan",
            "COLUMNS": [name],
            "SPEC": {
                "DEFAULTTILESHAPE": {
                    "UVW": [3, 4096], "WEIGHT": [n_corr, 4096], "SIGMA": [n_corr, 4096],
                }.get(name, [n_corr, n_chan, max(tile_rows, 65536 // n_chan // n_corr)])
            },
        }
        for number, name in enumerate(tiled, start=1)
    }  # fmt: skip
    cells = [makearrcoldesc(name, 0j, valuetype="complex", ndim=2) for name in names]
    main = default_ms(str(path), maketabdesc(cells), managers)
    n_times = recipe.n_scan * recipe.n_time
    n_row = n_times * n_spw * n_base
    main.addrows(n_row)
    hands = [0, n_corr - 1] if n_corr > 1 else [0]
    step = max(1, PIECE_BYTES // (n_spw * n_base * (n_chan * n_corr * 8 + 100)))
    step = min(step, recipe.n_time)
    while recipe.n_time % step:
        step -= 1
    shape = (step * n_spw * n_base, n_chan, n_corr)
    model = np.zeros(shape, dtype=np.complex64)
    model[:, :, hands] = recipe.flux_jy
    # The same noise over and over has no other mean or scatter.
    data = model + recipe.sigma_jy * (
        rng.standard_normal(shape, dtype=np.float32) + 1j * rng.standard_normal(shape, dtype=np.float32)
    )  # fmt: skip
    fixed = {
        "DATA": data.astype(np.complex64), "FLAG": np.zeros(shape, dtype=bool),
        **dict.fromkeys(extra, model),
        "WEIGHT": np.full((shape[0], n_corr), recipe.sigma_jy**-2, dtype=np.float32),
        "SIGMA": np.full((shape[0], n_corr), recipe.sigma_jy, dtype=np.float32),
        "INTERVAL": np.full(shape[0], recipe.integration_s),
        "EXPOSURE": np.full(shape[0], recipe.integration_s),
        "ANTENNA1": np.tile(one, step * n_spw), "ANTENNA2": np.tile(two, step * n_spw),
        "DATA_DESC_ID": np.tile(np.repeat(np.arange(n_spw), n_base), step),
        "STATE_ID": np.full(shape[0], -1),
    }  # fmt: skip
    for piece in range(n_times // step):
        number = piece * step // recipe.n_time
        begin = start + number * (recipe.n_time * recipe.integration_s + recipe.scan_gap_s)
        moments = begin + (piece * step % recipe.n_time + np.arange(step)) * recipe.integration_s
        antenna_uvw = np.stack([baseline_uvw(positions, moment, ra, dec) for moment in moments])
        uvw = antenna_uvw[:, one] - antenna_uvw[:, two]
        times = np.repeat(moments, n_spw * n_base)
        values = {
            **fixed, "TIME": times, "TIME_CENTROID": times,
            "UVW": np.repeat(uvw[:, None], n_spw, axis=1).reshape(-1, 3),
            "SCAN_NUMBER": np.full(shape[0], 1 + number),
            "FIELD_ID": np.full(shape[0], number % recipe.n_field),
        }  # fmt: skip
        for name, column in values.items():
            main.putcol(name, column, piece * shape[0], shape[0])
    main.close()
    _subtables(path, replace(recipe, executions=1), positions, ra, dec)
    return n_row
