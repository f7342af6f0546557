"""The noise that an image would have if there were none but that of the receivers: what the weights promise.

The image is a weighted mean of the visibilities, ``sum u_i Re(V_i exp(...)) / sum u_i``, so that its noise
is ``sqrt(sum u_i^2 sigma_i^2) / sum u_i``, in Jy/beam, the same all over the image. The imaging weights u_i
are those of tclean (its ``sumwt`` is reproduced to 0.1 %, tests/integration/test_thermal.py), the
sigma_i those of the data's weights. Whether these are true is another question: `WeightCheck`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import imagers
from peelkit.core.dd_noise import Noise
from peelkit.core.image_record import ImageRecord
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import grid_of
from peelkit.core.uvrange import in_range
from peelkit.engines.casa import MOSAIC_PB_LIMIT, Imaging
from peelkit.io import ms, rownumbers
from peelkit.io.image import Image, read_image
from peelkit.io.survey import C_M_S
from peelkit.io.usable import sample_weights
from peelkit.selection import Selection

NATURAL, UNIFORM, BRIGGS = "natural", "uniform", "briggs"

# A mosaic's noise is averaged over about so many points along each side of the image.
MOSAIC_POINTS = 64

# The scatter may well be larger than the noise; so many times is worth a note.
NOTED_ABOVE = 5.0

# Rows of each field and spw whose scatter is compared with their weights: the first.
CHECKED_ROWS = 20_000


@dataclass
class Density:
    """Data weights added up in cells of the uv plane, each with its Hermitian counterpart.

    Parameters
    ----------
    n_pixels : int
        Along each side of the image, and of the uv plane.
    cell_rad : float
        Pixel size [rad]; a uv cell is ``1 / (n_pixels cell_rad)`` wide.
    """

    n_pixels: int
    cell_rad: float
    values: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.values = np.zeros(self.n_pixels**2)

    def cells(self, uv: NDArray[np.float64]) -> NDArray[np.int64]:
        """Flat index of the cell of each point ``uv`` [wavelengths], shape (..., 2); -1 outside."""
        half = self.n_pixels // 2
        # CASA cuts off and does not round: a cell begins at its point.
        place = np.floor(uv * (self.n_pixels * self.cell_rad)).astype(np.int64) + half
        inside: NDArray[np.bool_] = np.all((place > 0) & (place < self.n_pixels), axis=-1)
        return np.where(inside, place[..., 1] * self.n_pixels + place[..., 0], -1)

    def add(self, uv: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
        """Add ``weight``, shape (...), at ``uv`` and ``-uv``."""
        for points in (uv, -uv):
            cells = self.cells(points)
            np.add.at(self.values, cells[cells >= 0], weight[cells >= 0])

    def imaging_weights(
        self, uv: NDArray[np.float64], weight: NDArray[np.float64], weighting: str, robust: float
    ) -> NDArray[np.float64]:
        """Imaging weights, as tclean's; 0 outside the uv plane that the pixels can show.

        Natural: w. Uniform: ``w / W``, with W the sum in the cell. Briggs: ``w / (1 + f^2 W)`` with
        ``f^2 = (5 10^-R)^2 sum W / sum W^2`` over the cells (Briggs 1995; CASA's "norm").
        """
        cells = self.cells(uv)
        inside = cells >= 0
        if weighting == NATURAL:
            return np.where(inside, weight, 0.0)
        density = np.where(inside, self.values[cells], 1.0)
        if weighting == UNIFORM:
            divisor = density
        else:
            divisor = 1 + (5 * 10**-robust) ** 2 / self.mean_square * density
        return np.divide(weight, divisor, out=np.zeros_like(weight), where=inside & (density > 0))

    @property
    def mean_square(self) -> float:
        """``sum W^2 / sum W`` over the cells."""
        total = float(self.values.sum())
        return float(self.values @ self.values) / total if total > 0 else 1.0


@dataclass(frozen=True)
class Sums:
    """Sums over the visibilities of one field in one spw, shape (chan,): ``u`` and ``u^2 sigma^2``."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @classmethod
    def empty(cls, n_chan: int) -> Sums:
        """Nothing yet."""
        return cls(np.zeros(n_chan), np.zeros(n_chan))

    def add(self, u: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
        """Add imaging weights and variances [Jy^2] of Stokes I, shape (row, chan)."""
        self.first[:] += u.sum(axis=0)
        self.second[:] += (u**2 * variance).sum(axis=0)


def stokes_i(
    weight: NDArray[np.floating[Any]], flag: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight that tclean gives Stokes I of the parallel hands, and its variance.

    Parameters
    ----------
    weight : ndarray, shape (row, chan, hand)
        ``1/sigma^2`` of one real component [Jy^-2].
    flag : ndarray of bool, same shape
        With one hand flagged there is no Stokes I.

    Returns
    -------
    ndarray, shape (row, chan)
        Mean of the weights; 0 where flagged.
    ndarray, shape (row, chan)
        ``sum 1/w / n^2`` over the n hands [Jy^2]; 0 where flagged.
    """
    good = np.asarray(~np.any(flag, axis=2) & np.all(weight > 0, axis=2))
    safe = np.where(good[..., None], weight, 1.0).astype(np.float64)
    variance = (1 / safe).sum(axis=2) / weight.shape[2] ** 2
    return np.where(good, safe.mean(axis=2), 0.0), np.where(good, variance, 0.0)


def taylor_rms(
    first: NDArray[np.float64], second: NDArray[np.float64], x: NDArray[np.float64], n_terms: int
) -> float:
    """Noise of the image, or of its zeroth Taylor term [Jy/beam].

    The residual of an image with Taylor terms is restored as the principal solution ``H^-1 R``, with the
    residuals ``R_i = sum u x^i n`` and ``H_ij = sum u x^(i+j)``; its covariance is ``H^-1 C H^-1``
    with ``C_ij = sum u^2 sigma^2 x^(i+j)`` (Rau & Cornwell 2011, A&A 532, A71, section 3.2).

    Parameters
    ----------
    first, second : ndarray, shape (sample,)
        Sums of ``u`` and ``u^2 sigma^2`` at each frequency.
    x : ndarray, shape (sample,)
        ``(f - f0) / f0``.
    """
    hessian, spread = _moments(first, x, n_terms), _moments(second, x, n_terms)
    if hessian[0, 0] <= 0:
        return math.nan
    row = _solution(hessian)
    return math.sqrt(float(row @ spread @ row))


def _moments(
    values: NDArray[np.float64], x: NDArray[np.float64], n_terms: int
) -> NDArray[np.float64]:
    """``sum values x^(i+j)``, shape (term, term)."""
    powers = x[:, None] ** np.arange(n_terms)
    return np.asarray((values[:, None] * powers).T @ powers)


def _solution(hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of each Taylor term's residual goes into the image: first row of the inverse."""
    one = np.eye(len(hessian))[0]
    if np.linalg.matrix_rank(hessian / hessian[0, 0], tol=1e-12) < len(hessian):
        # Fewer frequencies than terms: there is no spectrum.
        return np.asarray(one / hessian[0, 0])
    return np.linalg.solve(hessian, one)


@dataclass
class WeightCheck:
    """Scatter of a column between integrations, for each data description, against its weights."""

    info: ms.MsInfo
    column: str
    noise: dict[int, Noise] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        main: Any,
        ddid: int,
        rows: NDArray[np.int64],
        weight: NDArray[np.floating[Any]],
        hands: NDArray[np.intp],
        where: NDArray[np.intp],
    ) -> None:
        """Take up rows, until there are enough; ``weight`` is 0 where flagged, ``where`` the channels."""
        done = self.rows.get(ddid, 0)
        if self.column not in self.info.columns or done >= CHECKED_ROWS:
            return
        rows, weight = rows[:CHECKED_ROWS], weight[:CHECKED_ROWS]
        if not all(ms.has_cells(main, self.column, int(row)) for row in (rows[0], rows[-1])):
            return
        data = ms.get(main, self.column, rows)[:, where][:, :, hands]
        finite = np.isfinite(data)
        ids = ("FIELD_ID", "SCAN_NUMBER", "ANTENNA1", "ANTENNA2")
        series = rownumbers.series(ms.get(main, name, rows) for name in ids)
        self.noise.setdefault(ddid, Noise()).add(
            np.where(finite, data, 0),
            np.where(finite, weight, 0.0),
            series,
            ms.get(main, "TIME", rows),
            np.random.default_rng(ddid),
        )
        self.rows[ddid] = done + rows.size

    def scale(self, ddid: int) -> float:
        """Factor that the variances are too large by, for weights that promise more noise than there is.

        Less noise than promised cannot be; more can be sources that turn quickly, which stay in the column.
        """
        return 1 / self.noise.get(ddid, Noise()).too_much

    def notes(self) -> list[str]:
        """What to tell the user: ratios out of the ordinary."""
        said = []
        for description in self.info.data_descriptions:
            noise = self.noise.get(description.id, Noise())
            ratio = noise.ratio
            if noise.too_much == 1 and not ratio > NOTED_ABOVE:
                continue
            spw = f"{self.info.path.name}: {self.column}, spw {description.spw}"
            if ratio < 1:
                said.append(
                    f"{spw}: the scatter between integrations is {ratio:.3g} of what the weights promise, "
                    "so they are too low; the thermal rms is of the scatter."
                )
            else:
                said.append(
                    f"{spw}: the scatter between integrations is {ratio:.3g} times what the weights "
                    "promise; unless bright sources do that the thermal rms is that much too low."
                )
        return said


@dataclass(frozen=True)
class Thermal:
    """Thermal noise of an image [Jy/beam], and what to say about the weights it was computed from."""

    rms_jy_beam: float
    notes: tuple[str, ...] = ()


def thermal(info: ms.MsInfo, record: ImageRecord) -> Thermal:
    """Thermal noise of an image that was made of an MS; NaN where nothing has weight.

    Flags and weights are as they are now. Memory is bounded by the chunks and the uv plane, which has as
    many cells as the image has pixels.

    Raises
    ------
    DataError
        If what was imaged is not in the MS, or its primary beam is not known (mosaics).
    """
    check = WeightCheck(info, record.column)
    sums, _ = weigh(info, record.imaging, record.selection, check=check)
    corrected = {
        (number, ddid): Sums(one.first, one.second * check.scale(ddid))
        for (number, ddid), one in sums.items()
    }
    image = read_image(record.image) if record.imaging.is_mosaic else None
    return Thermal(
        rms(info, corrected, record.imaging, record.selection, image), tuple(check.notes())
    )


@dataclass(frozen=True)
class _Piece:
    """Rows of one data description: uv [wavelengths], weight and variance of Stokes I, FIELD_ID."""

    ddid: int
    uv: NDArray[np.float64]
    weight: NDArray[np.float64]
    variance: NDArray[np.float64]
    fields: NDArray[np.int64]


def weigh(
    info: ms.MsInfo,
    imaging: Imaging,
    selection: Selection,
    *,
    weighting: str = BRIGGS,
    check: WeightCheck | None = None,
) -> tuple[dict[tuple[int, int], Sums], Density]:
    """Add up the imaging weights of a selection, and what noise they let through.

    Returns
    -------
    dict
        `Sums` by FIELD_ID and DATA_DESC_ID.
    Density
        The uv plane; empty with natural weights.
    """
    rows = ms.select_rows(info, selection)
    density = Density(imaging.imsize, math.radians(imaging.cell_arcsec / 3600))
    if weighting != NATURAL:
        for piece in _pieces(info, rows, imaging, selection, None):
            density.add(piece.uv, piece.weight)
    sums: dict[tuple[int, int], Sums] = {}
    for piece in _pieces(info, rows, imaging, selection, check):
        u = density.imaging_weights(piece.uv, piece.weight, weighting, imaging.robust)
        for number in np.unique(piece.fields):
            mine = piece.fields == number
            key = int(number), piece.ddid
            sums.setdefault(key, Sums.empty(u.shape[1])).add(u[mine], piece.variance[mine])
    return sums, density


def _pieces(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    imaging: Imaging,
    selection: Selection,
    check: WeightCheck | None,
) -> Iterator[_Piece]:
    channels = info.channels(selection)
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=120):
            hands = ms.parallel_hands(description.correlations)
            where = channel_ids(channels[description.spw])
            per_m = info.spws[description.spw].freq_hz[where] / C_M_S
            every = np.arange(chunk.size)
            with ms.part(main, chunk) as here:
                flag = here.getcol("FLAG")[:, where][:, :, hands]
                weight = sample_weights(here, every, hands, where)
                uvw, fields = here.getcol("UVW"), here.getcol("FIELD_ID")
                left_out = here.getcol("FLAG_ROW").astype(bool)
                left_out |= here.getcol("ANTENNA1") == here.getcol("ANTENNA2")
            left_out |= ~in_range(imaging.uvrange, np.hypot(*uvw[:, :2].T), float(per_m.mean()))
            flag |= left_out[:, None, None]
            total, variance = stokes_i(weight, flag)
            if check is not None:
                check.add(main, description.id, chunk, np.where(flag, 0, weight), hands, where)
            yield _Piece(
                description.id,
                uvw[:, None, :2] * per_m[:, None],
                total,
                variance,
                fields,
            )


def channel_ids(ranges: list[tuple[int, int]]) -> NDArray[np.intp]:
    """Channels of inclusive ranges, each once."""
    return np.unique(np.concatenate([np.arange(low, high + 1) for low, high in ranges]))


def rms(
    info: ms.MsInfo,
    sums: dict[tuple[int, int], Sums],
    imaging: Imaging,
    selection: Selection,
    mosaic: Image | None = None,
) -> float:
    """Noise of the image [Jy/beam] from `weigh`'s sums; ``mosaic`` is the image, if it is one."""
    channels = info.channels(selection)
    freqs, widths = {}, {}
    for _, ddid in sums:
        spw = info.data_descriptions[ddid].spw
        where = channel_ids(channels[spw])
        freqs[ddid] = info.spws[spw].freq_hz[where]
        widths[ddid] = np.abs(info.spws[spw].width_hz[where])
    # The reference frequency of tclean is the middle of what is imaged.
    low = min(float((freqs[ddid] - widths[ddid] / 2).min()) for ddid in freqs)
    high = max(float((freqs[ddid] + widths[ddid] / 2).max()) for ddid in freqs)
    middle = (low + high) / 2
    first = np.concatenate([one.first for one in sums.values()])
    second = np.concatenate([one.second for one in sums.values()])
    all_freqs = np.concatenate([freqs[ddid] for _, ddid in sums])
    if mosaic is not None:
        owners = np.concatenate([np.full(one.first.size, key[0]) for key, one in sums.items()])
        return mosaic_rms(
            info, first, second, owners, all_freqs, middle, imaging.nterms, grid=mosaic
        )
    # WSClean's image is the first term's components with the residual of the whole band.
    terms = 1 if imaging.imager == imagers.WSCLEAN else imaging.nterms
    return taylor_rms(first, second, all_freqs / middle - 1, terms)


def mosaic_rms(
    info: ms.MsInfo,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    fields: NDArray[np.int64],
    freqs: NDArray[np.float64],
    middle_hz: float,
    n_terms: int,
    *,
    grid: Image,
) -> float:
    """Noise of a flat-noise mosaic, mean over the image [Jy/beam].

    The fields are added up through their primary beams: ``sum_f A_f D_f / sqrt(W W_max)`` with
    ``W = sum_f A_f^2 sum u``, so that the noise is ``sqrt(sum_f A_f^2 sum u^2 sigma^2 / (W W_max))``: the
    same everywhere as far as the fields have the same weights and beams. With Taylor terms H is that of the
    PSF in the middle of the image, to which the beams contribute once: ``H_ij = sum_f A_f sum u x^(i+j)``
    (measured: tclean's psf.tt1, and the image as a sum of its residuals, to 1e-3).

    Parameters
    ----------
    first, second, fields, freqs : ndarray, shape (sample,)
        `Sums`, FIELD_ID and frequency [Hz] of each field, spw and channel.
    middle_hz : float
        Reference frequency [Hz].
    grid : Image
        The mosaic, for its pixels.
    """
    beam, pixels = Beam.of(info), grid_of(grid)
    ny, nx = pixels.shape
    # A few points across a beam are enough, but W_max should not be missed.
    width = 1.13 * C_M_S / float(freqs.max()) / beam.diameter_m
    step = max(1, min(max(nx, ny) // MOSAIC_POINTS, int(width / abs(pixels.cell_rad[0]) / 10)))
    ys, xs = (axis.ravel() for axis in np.mgrid[0:ny:step, 0:nx:step])
    # The first is the middle, of which the PSF is.
    ys, xs = np.append(ny // 2, ys), np.append(nx // 2, xs)
    spots = pixels.direction_cosines(xs, ys)
    x = freqs / middle_hz - 1
    seen, spread = np.zeros(xs.size), np.zeros((xs.size, n_terms, n_terms))
    hessian = np.zeros((n_terms, n_terms))
    for number in np.unique(fields):
        toward = pixels.basis @ pixels.field_basis(info.fields[number])[2]
        chord = np.linalg.norm(spots - toward, axis=1)
        offset = 2 * np.arcsin(np.minimum(1.0, chord / 2))
        mine = np.flatnonzero(fields == number)
        # The beam changes little within two per cent in frequency.
        bins = np.floor(np.log(freqs[mine] / freqs[mine].min()) / 0.02)
        for one in np.unique(bins):
            some = mine[bins == one]
            gain = beam.power(float(freqs[some].mean()), offset)
            seen += gain**2 * first[some].sum()
            spread += (gain**2)[:, None, None] * _moments(second[some], x[some], n_terms)
            hessian += gain[0] * _moments(first[some], x[some], n_terms)
    if not seen.max() > 0:
        return math.nan
    shown = seen > MOSAIC_PB_LIMIT**2 * seen.max()
    normal = spread[shown] / (seen[shown] * seen.max())[:, None, None]
    row = _solution(hessian) * hessian[0, 0]
    return math.sqrt(float(np.mean(np.einsum("i,pij,j->p", row, normal, row))))
