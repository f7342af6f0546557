"""Position, spectrum and size of a compact source, from sums over the data: pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core.compact import ARCSEC_RAD, GAUSSIAN_K, Compact
from peelkit.core.compact_sums import Sums
from peelkit.io.ms import MsInfo

Floats = NDArray[np.float64]

# The peak is looked for so far about the brightest component [1 / longest baseline]: about beams.
SEARCH_BEAMS = 1.5
SEARCH_STEPS = 25

# Below this S/N per antenna and integration the phases are not solved: they would follow the noise.
LEAST_SNR = 5.0

# Antenna amplitudes may be off by this much [natural log], one sigma.
AMPLITUDE_PRIOR = 0.1
# No amplitude is better known than this: sources around it, delays, pointing.
AMPLITUDE_FLOOR = 0.02

# A source is a point if its size takes less than this off the longest baselines, or is not significant.
POINT_DROP = 0.05
SIGNIFICANT = 3.0
# It is no Gaussian if its size takes more off, or amplitudes scatter more about it [natural log].
GAUSSIAN_DROP = 0.6
LARGEST_SCATTER = 0.15

# Amplitudes that a size is fitted to.
MAX_CELLS = 50_000

MAX_ORDER = 4
# Channels so many robust sigma off the spectrum are left out.
BAD_CHANNEL = 5.0


def offset_place(source: Compact, east: float, north: float) -> Compact:
    """The source moved by direction cosines to the east and north of where it is."""
    basis = source.basis
    place = basis[2] * math.sqrt(max(0.0, 1 - east**2 - north**2)) + basis[0] * east
    place = place + basis[1] * north
    return replace(
        source,
        ra_deg=math.degrees(math.atan2(place[1], place[0])) % 360,
        dec_deg=math.degrees(math.asin(max(-1.0, min(1.0, float(place[2]))))),
    )


def fit_offset(sums: Sums, *, search: bool) -> tuple[float, float, float]:
    """Where the coherent sum is largest, about the place of the sums.

    Antenna phase errors average out; none are solved, since they would follow the position.

    Parameters
    ----------
    sums : Sums
        Of a pass over the data.
    search : bool
        Look around first, on a grid; else go uphill from where it is.

    Returns
    -------
    east, north : float
        Direction cosines.
    error : float
        Of either, from the scatter of the time bins, or of the antennas if larger [rad].
    """
    used = sums.weight > 0
    weight, raw = sums.weight[used], sums.raw[used]
    uv = sums.uv[used] / weight[:, None]
    longest = float(np.quantile(np.linalg.norm(uv, axis=1), 0.99))
    place = np.zeros(2)
    if search:
        steps = np.linspace(-SEARCH_BEAMS, SEARCH_BEAMS, SEARCH_STEPS) / longest
        rows = np.exp(-2j * np.pi * np.outer(steps, uv[:, 0])) * raw
        columns = np.exp(-2j * np.pi * np.outer(steps, uv[:, 1]))
        grid = (rows @ columns.T).real
        east, north = np.unravel_index(int(grid.argmax()), grid.shape)
        place = np.array([steps[east], steps[north]])
    slope = 2 * np.pi * uv
    for _ in range(20):
        turned = raw * np.exp(-1j * (slope @ place))
        curvature = (slope * turned.real[:, None]).T @ slope
        step = np.linalg.solve(
            curvature + 1e-9 * np.trace(curvature) * np.eye(2), slope.T @ turned.imag
        )
        size = float(np.linalg.norm(step)) * longest
        place = place + step * min(1.0, 0.3 / size if size > 0 else 1.0)
        if size < 1e-6:
            break
    if not np.linalg.norm(place) * longest < 3 * SEARCH_BEAMS:
        return 0.0, 0.0, SEARCH_BEAMS / longest
    inverse = np.linalg.inv(curvature)
    score = slope * turned.imag[:, None]
    _, bins, one, two = np.nonzero(used)
    spread = max(
        _spread(inverse, score, [bins], sums.n_bins),
        # Errors that stay with an antenna; each baseline has two.
        _spread(inverse, score, [one, two], sums.n_antennas) / 2,
    )
    return float(place[0]), float(place[1]), math.sqrt(spread)


def _spread(inverse: Floats, score: Floats, groups: list[NDArray[np.intp]], count: int) -> float:
    """Variance of a coordinate, if errors are common to a group and differ between groups."""
    sums = np.zeros((count, 2))
    for group in groups:
        np.add.at(sums, group, score)
    return max(0.0, float(np.trace(inverse @ (sums.T @ sums) @ inverse)) / 2)


@dataclass(frozen=True)
class Spectrum:
    """Flux at a reference [Jy], coefficients of the log-polynomial, and rms of the channels about it."""

    flux_jy: float
    coefficients: tuple[float, ...]
    rms: float


def fit_spectrum(info: MsInfo, sums: Sums, reference_hz: float) -> Spectrum | None:
    """Log-polynomial through the flux of all channels; None if it is nowhere positive.

    The order, up to `MAX_ORDER` and the number of spws, is that of least BIC.
    """
    spws = sorted(sums.spectrum)
    freq = np.concatenate([info.spws[spw].freq_hz for spw in spws])
    square, raw, aligned = np.concatenate([sums.spectrum[spw] for spw in spws], axis=1)
    known = square > 0
    flux = np.where(known, aligned, 0) / np.where(known, square, 1)
    total = float((np.maximum(flux, 0) ** 2 * square).sum())
    snr = math.sqrt(2 * total / max(sums.noise_scale, 1e-300) / max(1, sums.n_solved))
    if snr < LEAST_SNR:
        flux = np.where(known, raw, 0) / np.where(known, square, 1)
    keep = known & (flux > 0)
    if not keep.any():
        return None
    log_f, log_s = np.log(freq[keep] / reference_hz), np.log(flux[keep])
    error = np.sqrt(sums.noise_scale / square[keep]) / flux[keep]
    weight = 1 / np.maximum(error, 1e-3) ** 2
    return log_polynomial(log_f, log_s, weight, most=len(spws))


def log_polynomial(log_f: Floats, log_s: Floats, weight: Floats, *, most: int) -> Spectrum:
    """Polynomial of least BIC through log fluxes, of an order up to ``most`` and `MAX_ORDER`.

    Parameters
    ----------
    log_f, log_s : ndarray, shape (chan,)
        Natural logarithms of frequency over the reference, and of flux.
    weight : ndarray, shape (chan,)
        1/variance of ``log_s``, up to a factor.
    most : int
        Highest order: no more than there are spws, for what is between them is not known.
    """
    best: tuple[float, Floats] | None = None
    for order in range(0 if log_f.size < 2 else 1, min(MAX_ORDER, most) + 1):
        if log_f.size <= order + 1 and order > 0:
            break
        fitted, rms, used = _robust_polynomial(log_f, log_s, weight, order)
        bic = used * 2 * math.log(max(rms, 1e-6)) + (order + 1) * math.log(used)
        if best is None or bic < best[0]:
            best = (bic, np.array([rms, *fitted]))
    if best is None:
        best = (0.0, np.array([0.0, float(np.average(log_s, weights=weight))]))
    rms, constant, *rest = (float(value) for value in best[1])
    return Spectrum(math.exp(constant), tuple(rest), rms)


def _robust_polynomial(
    x: Floats, y: Floats, weight: Floats, order: int
) -> tuple[Floats, float, int]:
    """Coefficients, rms about them, and how many points were used; outliers are left out."""
    keep = np.ones(x.size, dtype=bool)
    for _ in range(5):
        fitted = np.asarray(
            np.polynomial.polynomial.polyfit(x[keep], y[keep], order, w=np.sqrt(weight[keep])),
            dtype=np.float64,
        )
        left = y - np.polynomial.polynomial.polyval(x, fitted)
        sigma = 1.4826 * float(np.median(np.abs(left[keep])))
        new = np.abs(left) <= max(BAD_CHANNEL * sigma, 1e-3)
        if np.count_nonzero(new) <= order + 1 or np.array_equal(new, keep):
            break
        keep = new
    rms = math.sqrt(float(np.average(left[keep] ** 2, weights=weight[keep])))
    return fitted, rms, int(np.count_nonzero(keep))


@dataclass(frozen=True)
class Size:
    """A Gaussian's full widths [arcsec] and position angle [deg], and how well it fits.

    Parameters
    ----------
    drop : float
        Share of the flux that the size takes off the longest baselines.
    significance : float
        Of the drop, in sigma.
    scatter : float
        Of the log amplitudes about the fit, beyond the noise.
    """

    major_arcsec: float
    minor_arcsec: float
    pa_deg: float
    drop: float
    significance: float
    scatter: float


def fit_size(sums: Sums) -> Size:
    """Fit ``ln A_pq = o_spw + a_p + a_q - K (theta u)^2`` to amplitudes that know no antenna phases."""
    used = _some(sums.weight > 0)
    weight = sums.weight[used]
    amplitude = np.maximum(np.abs(sums.aligned[used]) / weight, 1e-3)
    spw, _, one, two = np.nonzero(used)
    uv = sums.uv[used] / weight[:, None]
    variance = sums.noise_scale / weight / amplitude**2
    sigma2 = variance + AMPLITUDE_FLOOR**2
    log = np.log(amplitude)
    scale = float(np.linalg.norm(uv, axis=1).max())
    scaled = uv / scale
    n_par = 3 + sums.n_spw + sums.n_antennas
    design = np.zeros((log.size, n_par))
    rows = np.arange(log.size)
    design[:, 0], design[:, 1] = -(scaled[:, 0] ** 2), -2 * scaled[:, 0] * scaled[:, 1]
    design[:, 2] = -(scaled[:, 1] ** 2)
    design[rows, 3 + spw] = 1
    np.add.at(design, (rows, 3 + sums.n_spw + one), 1)
    np.add.at(design, (rows, 3 + sums.n_spw + two), 1)
    prior = np.full(n_par, 1e-12)
    prior[3 + sums.n_spw :] = 1 / AMPLITUDE_PRIOR**2
    robust = np.ones(log.size)
    for _ in range(5):
        both = robust / sigma2
        normal = (design * both[:, None]).T @ design + np.diag(prior)
        # A spw or antenna without data.
        normal[np.diag_indices(n_par)] += 1e-12 * np.trace(normal)
        inverse = np.linalg.inv(normal)
        found = inverse @ (design.T @ (both * log))
        left = log - design @ found
        centre = 1.4826 * float(np.median(np.abs(left / np.sqrt(sigma2))))
        robust = 1 / np.maximum(1, np.abs(left) / np.sqrt(sigma2) / (3 * max(centre, 1.0)))
    chi2 = max(1.0, float(np.average(left**2 / sigma2)))
    share = np.minimum(1.0, 1 / sigma2)
    # Plain means: the robust weights would hide what is no Gaussian.
    excess = float(np.average(left**2, weights=share) - np.average(variance, weights=share))
    form = np.array([[found[0], found[1]], [found[1], found[2]]]) / scale**2
    long = np.linalg.norm(scaled, axis=1)
    far = design[long >= np.quantile(long, 0.95), :3]
    # The direction in which the form is largest decides.
    exponents = -far @ found[:3]
    worst = far[int(exponents.argmax())]
    sigma = math.sqrt(float(worst @ inverse[:3, :3] @ worst) * chi2)
    values, vectors = np.linalg.eigh(form / GAUSSIAN_K)
    minor, major = np.sqrt(np.maximum(values, 0.0)) / ARCSEC_RAD
    east, north = vectors[:, 1]
    largest = float(exponents.max())
    return Size(
        major_arcsec=float(major),
        minor_arcsec=float(minor),
        pa_deg=math.degrees(math.atan2(east, north)) % 180,
        drop=1 - math.exp(-max(0.0, largest)),
        significance=max(0.0, largest) / sigma if sigma > 0 else math.inf,
        scatter=math.sqrt(max(0.0, excess)),
    )


def _some(used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At most `MAX_CELLS` of the cells, by chance: enough for a few numbers, and little memory."""
    cells = np.flatnonzero(used)
    if cells.size <= MAX_CELLS:
        return used
    chosen = np.zeros(used.size, dtype=bool)
    chosen[np.random.default_rng(1).choice(cells, MAX_CELLS, replace=False)] = True
    return chosen.reshape(used.shape)


def judge(size: Size) -> tuple[str, str]:
    """``point``, ``gaussian`` or ``clean``, and why, in words."""
    fits = f"amplitudes scatter {100 * size.scatter:.1f} % about it"
    drop = f"{100 * size.drop:.0f} %"
    if size.scatter > LARGEST_SCATTER:
        return "clean", (
            f"extended: amplitudes scatter {100 * size.scatter:.0f} % about a point or Gaussian"
        )
    if size.drop < POINT_DROP or size.significance < SIGNIFICANT:
        how = f"its size takes {drop} off the longest baselines, {size.significance:.1f} sigma"
        return "point", f"unresolved: {how}; {fits}"
    if size.drop > GAUSSIAN_DROP:
        return "clean", f"extended: {drop} of the flux is missing on the longest baselines"
    return "gaussian", (
        f"resolved: {size.major_arcsec:.2g} by {size.minor_arcsec:.2g} arcsec; {drop} of the flux is "
        f"missing on the longest baselines; {fits}"
    )
