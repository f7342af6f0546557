"""Makes small Measurement Sets by formula: nothing of peelkit is used, so that tests mean something.

Visibilities are ``V_pq = g_p conj(g_q) sum_s I_s exp(2 pi i (u l + v m + w (n - 1))) + noise``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from casacore.tables import default_ms, default_ms_subtable, makearrcoldesc, maketabdesc, table

C = 299792458.0
LATITUDE, LONGITUDE = math.radians(34.079), math.radians(-107.618)
HANDS = {1: (5,), 2: (5, 8), 4: (5, 6, 7, 8)}
# XX, XY, YX, YY in place of RR, RL, LR, LL.
LINEAR = 4
TEC_RAD_HZ = -8.44797245e9


@dataclass(frozen=True)
class MsRecipe:
    """What the MS holds; see `make_ms`."""

    n_antenna: int = 15
    n_scan: int = 3
    n_time: int = 12
    integration_s: float = 10.0
    scan_gap_s: float = 300.0
    n_chan: tuple[int, ...] = (4,)
    freq_hz: float = 3e9
    chan_width_hz: float = 10e6
    n_corr: int = 2
    n_field: int = 1
    # From one field to the next in right ascension; 0.02 rad are several primary beams at 3 GHz.
    field_step_rad: float = 0.02
    dec_deg: float = 30.0
    frame: str = "J2000"
    telescope: str = "VLA"
    radius_m: float = 1500.0
    flux_jy: float = 1.0
    # More sources: (flux [Jy], l [arcsec east], m [arcsec north]).
    sources: tuple[tuple[float, float, float], ...] = ()
    sigma_jy: float = 0.05
    phase_rms_deg: float = 0.0
    amplitude_rms: float = 0.0
    # Gains change every so many integrations; per scan if None.
    gain_step: int | None = None
    seed: int = 0
    # Scans and spws are shared out among so many executions; each counts its scans from 1.
    executions: int = 1
    spw_names: tuple[str, ...] = ()
    # More flux of the middle source in some channels of each spw: (channel, flux [Jy]).
    line: tuple[tuple[int, float], ...] = ()
    # Noise of each spw over sigma_jy; the weights know.
    spw_noise: tuple[float, ...] = ()
    weight_spectrum: bool = False
    # Gain phases that change over the band, for each antenna: 2 pi delay nu + TEC_RAD_HZ tec / nu.
    delay_ns: tuple[float, ...] = ()
    tec_tecu: tuple[float, ...] = ()
    linear_feeds: bool = False
    # Q, U, V [Jy] of the point at the phase centre, in the frame of the feeds.
    polarised: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flagged_antennas: tuple[int, ...] = ()
    truth: dict[str, object] = field(default_factory=dict)


def antenna_positions(recipe: MsRecipe, rng: np.random.Generator) -> np.ndarray:
    """ITRF positions on a spiral, so that baselines have all lengths and directions."""
    index = np.arange(recipe.n_antenna)
    radius = recipe.radius_m * ((index + 1) / recipe.n_antenna) ** 1.3
    angle = 2.4 * index + rng.uniform(-0.1, 0.1, recipe.n_antenna)
    east, north = radius * np.cos(angle), radius * np.sin(angle)
    up = rng.normal(0, 2.0, recipe.n_antenna)
    centre = 6.3718e6 * np.array(
        [math.cos(LATITUDE) * math.cos(LONGITUDE), math.cos(LATITUDE) * math.sin(LONGITUDE), math.sin(LATITUDE)]
    )  # fmt: skip
    e = np.array([-math.sin(LONGITUDE), math.cos(LONGITUDE), 0])
    u = centre / np.linalg.norm(centre)
    n = np.cross(u, e)
    return centre + east[:, None] * e + north[:, None] * n + up[:, None] * u


def baseline_uvw(positions: np.ndarray, time_s: float, ra: float, dec: float) -> np.ndarray:
    """UVW of each antenna [m] at a time; CASA's sign: a baseline is antenna 1 minus antenna 2."""
    gmst = 2 * math.pi * ((time_s / 86400.0 - 51544.5) * 1.00273790935 + 0.7790572732640)
    hour = gmst - ra
    x, y, z = positions.T
    sin_h, cos_h = math.sin(hour), math.cos(hour)
    sin_d, cos_d = math.sin(dec), math.cos(dec)
    return np.stack(
        [
            sin_h * x + cos_h * y,
            -sin_d * cos_h * x + sin_d * sin_h * y + cos_d * z,
            cos_d * cos_h * x - cos_d * sin_h * y + sin_d * z,
        ],
        axis=1,
    )


def make_ms(path: Path, recipe: MsRecipe) -> dict[str, np.ndarray]:
    """Write the MS; returns the gains that corrupt it, shape (time, antenna, hand)."""
    rng = np.random.default_rng(recipe.seed)
    positions = antenna_positions(recipe, rng)
    ra, dec = 2.0, math.radians(recipe.dec_deg)
    start = 5.0e9
    # Near transit: the field is up, and the beam is round.
    gmst0 = ((start / 86400.0 - 51544.5) * 1.00273790935 + 0.7790572732640) % 1.0
    start += ((ra - LONGITUDE) / (2 * math.pi) - gmst0) % 1.0 * 86164.09 - 600.0
    one, two = np.triu_indices(recipe.n_antenna, 1)
    n_base, n_spw = one.size, len(recipe.n_chan)
    times = np.concatenate(
        [
            start
            + scan * (recipe.n_time * recipe.integration_s + recipe.scan_gap_s)
            + np.arange(recipe.n_time) * recipe.integration_s
            for scan in range(recipe.n_scan)
        ]
    )
    n_row = times.size * n_spw * n_base // recipe.executions
    ms = default_ms(str(path), _data_columns(recipe))
    ms.addrows(n_row)
    gains = _gains(recipe, rng, times.size)
    row = 0
    hands = [0, 1] if recipe.n_corr == 2 else ([0, 3] if recipe.n_corr == 4 else [0])
    for index, moment in enumerate(times):
        scan = index // recipe.n_time
        field_id = scan % recipe.n_field
        antenna_uvw = baseline_uvw(positions, moment, ra, dec)
        # CASA's UVW points from antenna 2 to antenna 1 with the phase convention of its images.
        uvw = antenna_uvw[one] - antenna_uvw[two]
        execution = scan * recipe.executions // recipe.n_scan
        number = 1 + scan - execution * (recipe.n_scan // recipe.executions)
        for spw in range(n_spw):
            if spw * recipe.executions // n_spw != execution and recipe.executions > 1:
                continue
            freq = channel_freq(recipe, spw)
            sigma = recipe.sigma_jy * (recipe.spw_noise[spw] if recipe.spw_noise else 1.0)
            model = sky_visibility(recipe, uvw, freq)
            for channel, flux in recipe.line:
                model[:, channel] += flux
            data = np.zeros((n_base, freq.size, recipe.n_corr), dtype=np.complex64)
            for hand, corr in enumerate(hands):
                g = gains[index, :, hand, None] * band_gains(recipe, freq)
                own = model + hand_sign(corr) * polarised_hand(recipe)
                data[:, :, corr] = own * (g[one] * g[two].conj())
            if recipe.n_corr == 4:
                for corr, (p, q) in ((1, (0, 1)), (2, (1, 0))):
                    band = band_gains(recipe, freq)
                    g, h = (gains[index, :, hand, None] * band for hand in (p, q))
                    data[:, :, corr] = cross_hand(recipe, corr) * g[one] * h[two].conj()
            noise = rng.normal(0, sigma, (2, *data.shape))
            data += noise[0] + 1j * noise[1]
            flag = np.zeros(data.shape, dtype=bool)
            for antenna in recipe.flagged_antennas:
                flag[(one == antenna) | (two == antenna)] = True
            block = {
                "TIME": np.full(n_base, moment), "TIME_CENTROID": np.full(n_base, moment),
                "INTERVAL": np.full(n_base, recipe.integration_s),
                "EXPOSURE": np.full(n_base, recipe.integration_s),
                "ANTENNA1": one, "ANTENNA2": two, "UVW": uvw, "DATA": data, "FLAG": flag,
                "FLAG_ROW": flag.all(axis=(1, 2)),
                "SCAN_NUMBER": np.full(n_base, number), "FIELD_ID": np.full(n_base, field_id),
                "OBSERVATION_ID": np.full(n_base, execution),
                "DATA_DESC_ID": np.full(n_base, spw), "STATE_ID": np.full(n_base, -1),
                "WEIGHT": np.full((n_base, recipe.n_corr), 1 / sigma**2 if sigma else 1.0),
                "SIGMA": np.full((n_base, recipe.n_corr), sigma or 1.0),
            }  # fmt: skip
            if recipe.weight_spectrum:
                block["WEIGHT_SPECTRUM"] = np.full(data.shape, 1 / sigma**2)
            for name, values in block.items():
                ms.putcol(name, values, row, n_base)
            row += n_base
    ms.close()
    _subtables(path, recipe, positions, ra, dec)
    return {"gains": gains, "times": times}


def band_gains(recipe: MsRecipe, freq: np.ndarray) -> np.ndarray:
    """Gains that change over the band, shape (antenna, chan)."""
    phase = np.zeros((recipe.n_antenna, freq.size))
    if recipe.delay_ns:
        phase += 2e-9 * np.pi * np.outer(recipe.delay_ns, freq)
    if recipe.tec_tecu:
        phase += TEC_RAD_HZ * np.outer(recipe.tec_tecu, 1 / freq)
    return np.exp(1j * phase)


def hand_sign(corr: int) -> int:
    """XX = I + Q, YY = I - Q; RR = I + V, LL = I - V."""
    return 1 if corr == 0 else -1


def polarised_hand(recipe: MsRecipe) -> float:
    """What the first parallel hand has more than I."""
    return recipe.polarised[0 if recipe.linear_feeds else 2]


def cross_hand(recipe: MsRecipe, corr: int) -> complex:
    """XY = U + iV, YX = U - iV; RL = Q + iU, LR = Q - iU."""
    real, imaginary = recipe.polarised[1:] if recipe.linear_feeds else recipe.polarised[:2]
    return complex(real, imaginary if corr == 1 else -imaginary)


def channel_freq(recipe: MsRecipe, spw: int) -> np.ndarray:
    """Channel centres of a spw [Hz]."""
    before = sum(recipe.n_chan[:spw])
    return recipe.freq_hz + (before + np.arange(recipe.n_chan[spw])) * recipe.chan_width_hz


def sky_visibility(recipe: MsRecipe, uvw: np.ndarray, freq: np.ndarray) -> np.ndarray:
    """The direct sum, shape (row, chan) [Jy]."""
    total = np.zeros((uvw.shape[0], freq.size), dtype=np.complex128)
    for flux, east, north in ((recipe.flux_jy, 0.0, 0.0), *recipe.sources):
        l, m = math.radians(east / 3600), math.radians(north / 3600)  # noqa: E741
        n = math.sqrt(1 - l * l - m * m) - 1
        path_m = uvw[:, 0] * l + uvw[:, 1] * m + uvw[:, 2] * n
        total += flux * np.exp(2j * np.pi * np.outer(path_m, freq) / C)
    return total


def _gains(recipe: MsRecipe, rng: np.random.Generator, n_time: int) -> np.ndarray:
    step = recipe.gain_step or recipe.n_time
    n_step = math.ceil(n_time / step)
    phase = np.radians(recipe.phase_rms_deg) * rng.normal(size=(n_step, recipe.n_antenna, 2))
    amplitude = 1 + recipe.amplitude_rms * rng.normal(size=(1, recipe.n_antenna, 2))
    gains = amplitude * np.exp(1j * phase)
    return np.repeat(gains, step, axis=0)[:n_time]


def _data_columns(recipe: MsRecipe) -> dict:
    columns = [makearrcoldesc("DATA", 0j, valuetype="complex", ndim=2)]
    if recipe.weight_spectrum:
        columns.append(makearrcoldesc("WEIGHT_SPECTRUM", 0.0, valuetype="float", ndim=2))
    return maketabdesc(columns)


def _subtables(path: Path, recipe: MsRecipe, positions: np.ndarray, ra: float, dec: float) -> None:
    def fill(name: str, n_row: int, columns: dict[str, list]) -> None:
        with table(f"{path}/{name}", readonly=False, ack=False) as sub:
            sub.addrows(n_row)
            for column, values in columns.items():
                for number, value in enumerate(values):
                    sub.putcell(column, number, value)

    n_ant, n_spw = recipe.n_antenna, len(recipe.n_chan)
    fill("ANTENNA", n_ant, {
        "NAME": [f"ea{n + 1:02d}" for n in range(n_ant)], "STATION": [f"W{n}" for n in range(n_ant)],
        "TYPE": ["GROUND-BASED"] * n_ant, "MOUNT": ["ALT-AZ"] * n_ant,
        "POSITION": list(positions), "DISH_DIAMETER": [25.0] * n_ant,
        "OFFSET": [np.zeros(3)] * n_ant,
    })  # fmt: skip
    freqs = [channel_freq(recipe, spw) for spw in range(n_spw)]
    widths = [np.full(f.size, recipe.chan_width_hz) for f in freqs]
    fill("SPECTRAL_WINDOW", n_spw, {
        "NAME": recipe.spw_names or [f"spw{n}" for n in range(n_spw)], "NUM_CHAN": [f.size for f in freqs],
        "CHAN_FREQ": freqs, "CHAN_WIDTH": widths, "EFFECTIVE_BW": widths, "RESOLUTION": widths,
        "REF_FREQUENCY": [f[0] for f in freqs], "TOTAL_BANDWIDTH": [w.sum() for w in widths],
        "MEAS_FREQ_REF": [5] * n_spw, "NET_SIDEBAND": [1] * n_spw, "IF_CONV_CHAIN": [0] * n_spw,
        "FREQ_GROUP": [0] * n_spw, "FREQ_GROUP_NAME": [""] * n_spw,
    })  # fmt: skip
    shift = LINEAR if recipe.linear_feeds else 0
    codes = [code + shift for code in HANDS[recipe.n_corr]]
    product = {
        n + m: pair for n in (5, 9) for m, pair in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)])
    }
    fill("POLARIZATION", 1, {
        "NUM_CORR": [recipe.n_corr], "CORR_TYPE": [np.array(codes)],
        "CORR_PRODUCT": [np.array([product[code] for code in codes])],
    })  # fmt: skip
    fill("DATA_DESCRIPTION", n_spw, {
        "SPECTRAL_WINDOW_ID": list(range(n_spw)), "POLARIZATION_ID": [0] * n_spw,
    })  # fmt: skip
    # Fields lie one beside the other; the visibilities are the same, about each phase centre.
    direction = [np.array([[ra + recipe.field_step_rad * n, dec]]) for n in range(recipe.n_field)]
    fill("FIELD", recipe.n_field, {
        "NAME": [f"field{n}" for n in range(recipe.n_field)], "PHASE_DIR": direction,
        "DELAY_DIR": direction, "REFERENCE_DIR": direction, "SOURCE_ID": [-1] * recipe.n_field,
    })  # fmt: skip
    with table(f"{path}/FIELD", readonly=False, ack=False) as sub:
        for column in ("PHASE_DIR", "DELAY_DIR", "REFERENCE_DIR"):
            measure = sub.getcolkeyword(column, "MEASINFO")
            sub.putcolkeyword(column, "MEASINFO", {**measure, "Ref": recipe.frame})
    fill("OBSERVATION", recipe.executions, {
        "TELESCOPE_NAME": [recipe.telescope] * recipe.executions,
        "TIME_RANGE": [np.array([0.0, 0.0])] * recipe.executions,
    })  # fmt: skip
    feed = {
        "ANTENNA_ID": list(range(n_ant)), "SPECTRAL_WINDOW_ID": [-1] * n_ant,
        "NUM_RECEPTORS": [2] * n_ant, "POLARIZATION_TYPE": [["X", "Y"] if recipe.linear_feeds else ["R", "L"]] * n_ant,
        "POL_RESPONSE": [np.eye(2, dtype=complex)] * n_ant, "RECEPTOR_ANGLE": [np.zeros(2)] * n_ant,
        "BEAM_OFFSET": [np.zeros((2, 2))] * n_ant, "POSITION": [np.zeros(3)] * n_ant,
        "BEAM_ID": [-1] * n_ant, "TIME": [0.0] * n_ant, "INTERVAL": [1e30] * n_ant,
    }  # fmt: skip
    fill("FEED", n_ant, feed)


__all__ = ["MsRecipe", "default_ms_subtable", "make_ms"]
