"""Predicting model images into columns, exactly, wherever the fields' phase centres are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core.compact import Compact
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import SkyModel, sky_model
from peelkit.core.stokes import to_correlations
from peelkit.engines import ducc
from peelkit.errors import DataError
from peelkit.io import frames, ms
from peelkit.io.image import Image
from peelkit.io.modelimage import read_planes
from peelkit.io.survey import C_M_S
from peelkit.progress import Progress

# Error of the primary beam's interpolation in frequency over a spw, relative to the peak.
BEAM_ACCURACY = 1e-5


# What one column is predicted from: pixels of an image, or one source by formula.
Sky = SkyModel | Compact


def read_models(
    paths: Sequence[Path], *, may_be_empty: bool = False, stokes: str = ""
) -> list[Image]:
    """Model images [Jy/pixel], all on one grid: one for each Taylor term, or the planes of a cube.

    Parameters
    ----------
    paths : sequence of Path
        Which.
    may_be_empty : bool
        Nothing but zeros is a model too: that of a sky whose sources have all been peeled.
    stokes : str
        Which plane; I (or the only one) if empty.

    Raises
    ------
    DataError
        If one is not a model image, they do not match, or all are zero.
    """
    images = [plane for path in paths for plane in read_planes(path, stokes)]
    if len(images) > len(paths) > 1:
        raise DataError(
            f"{images[0].path}: a cube of models stands alone; give one cube, or Taylor terms."
        )
    for image in images:
        if image.unit not in ("Jy/pixel", "Jy/PIXEL", "JY/PIXEL", ""):
            raise DataError(
                f"{image.path}: unit {image.unit!r} is not Jy/pixel; give the .model, not the .image."
            )
        if image.data.shape != images[0].data.shape:
            raise DataError(f"{image.path}: its size does not match {images[0].path}.")
    if not may_be_empty and not any(np.any(np.nan_to_num(image.data)) for image in images):
        raise DataError(f"{images[0].path}: the model is empty; clean deeper or with another mask.")
    return images


def predict_model(
    info: ms.MsInfo,
    models: Sequence[Image],
    *,
    rows: NDArray[np.int64],
    column: str = "MODEL_DATA",
    mask: NDArray[np.bool_] | None = None,
    pb: Image | None = None,
    polarised: Mapping[str, Sequence[Image]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the visibilities of ``models`` to ``column`` at ``rows``, of whatever fields.

    Stokes I goes to both parallel hands, nothing to the cross hands, unless there are polarised models
    (`peelkit.core.stokes`). The column must exist.

    Parameters
    ----------
    info : MsInfo
        The MS.
    models : sequence of Image
        Taylor terms (of one frequency) or sub-bands (of one each) [Jy/pixel].
    rows : ndarray of int
        Which.
    column : str
        To write.
    mask : ndarray of bool, shape (ny, nx), optional
        Only these pixels.
    pb : Image, optional
        Primary beam of a mosaic (tclean's ``.pb``), whose models are the sky times it. Each field
        then sees the sky through its own beam.
    polarised : mapping, optional
        ``Q``, ``U``, ``V`` to their models, on the same grid.
    """
    beam = Beam.of(info) if pb is not None else None
    skies = {"I": sky_model(models, pb)}
    skies |= {name: sky_model(planes, pb) for name, planes in (polarised or {}).items()}
    if mask is not None:
        skies = {name: sky.where(mask) for name, sky in skies.items()}
    if polarised:
        _predict_stokes(info, skies, rows=rows, column=column, beam=beam, progress=progress)
        return
    predict_columns(info, {column: skies["I"]}, rows=rows, beam=beam, progress=progress)


def _predict_stokes(
    info: ms.MsInfo,
    skies: Mapping[str, SkyModel],
    *,
    rows: NDArray[np.int64],
    column: str,
    beam: Beam | None,
    progress: Progress | None,
) -> None:
    """Write the visibilities of Stokes planes to all correlations of a column."""
    progress = progress or Progress()
    predictor = Predictor(info, beam)
    with ms.opened(info.path, write=True) as main:
        for description, chunk in ms.chunks(main, info, rows, bytes_per_sample=64):
            where = Samples.read(main, chunk, description.spw)
            planes = {name: predictor.visibilities(sky, where) for name, sky in skies.items()}
            ms.put(main, column, chunk, to_correlations(planes, description.correlations))
            progress.advance(chunk.size)


def predict_columns(
    info: ms.MsInfo,
    skies: Mapping[str, Sky],
    *,
    rows: NDArray[np.int64],
    beam: Beam | None = None,
    total: str | None = None,
    unwritten: SkyModel | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the visibilities of each sky to its column; those of all, and ``unwritten``, to ``total``."""
    progress = progress or Progress()
    predictor = Predictor(info, beam)
    with ms.opened(info.path, write=True) as main:
        for description, chunk in ms.chunks(main, info, rows):
            where = Samples.read(main, chunk, description.spw)
            hands = ms.parallel_hands(description.correlations)
            shape = (chunk.size, info.spws[description.spw].freq_hz.size)
            both = np.zeros(shape, dtype=np.complex128)
            if total and unwritten is not None:
                both += predictor.visibilities(unwritten, where)
            for name in [*skies, *([total] if total else [])]:
                if name in skies:
                    vis = predictor.visibilities(skies[name], where)
                    both += vis
                else:
                    vis = both
                cells = np.zeros((*shape, len(description.correlations)), dtype=np.complex64)
                cells[:, :, hands] = vis[:, :, None]
                ms.put(main, name, chunk, cells)
            progress.advance(chunk.size)


@dataclass(frozen=True)
class Samples:
    """Where the visibilities of some rows of one spw are: UVW [m], time [s], field."""

    spw: int
    uvw_m: NDArray[np.float64]
    time_s: NDArray[np.float64]
    fields: NDArray[np.int64]

    @classmethod
    def read(cls, main: object, rows: NDArray[np.int64], spw: int) -> Samples:
        """Read them from the main table."""
        return cls(
            spw,
            ms.get(main, "UVW", rows).astype(np.float64),
            ms.get(main, "TIME", rows),
            ms.get(main, "FIELD_ID", rows),
        )


class Predictor:
    """Predicts skies for the rows of an MS, each field about its own phase centre.

    Parameters
    ----------
    info : MsInfo
        The MS.
    beam : Beam or None
        Primary beam that each field sees the sky through; None if the model has it already.
    """

    def __init__(self, info: ms.MsInfo, beam: Beam | None = None) -> None:
        self.info = info
        self.beam = beam

    def visibilities(self, sky: Sky, samples: Samples) -> NDArray[np.complex128]:
        """Visibilities of ``sky`` [Jy], shape (row, chan)."""
        if isinstance(sky, SkyModel):
            return self._of_pixels(sky, samples)
        total = np.zeros(
            (samples.uvw_m.shape[0], self.info.spws[samples.spw].freq_hz.size), complex
        )
        for number in np.unique(samples.fields):
            mine = samples.fields == number
            field, freq = self.info.fields[number], self.info.spws[samples.spw].freq_hz
            seen = sky.apparent.get((int(number), samples.spw))
            if seen is None:
                total[mine] = sky.visibilities(field, samples.uvw_m[mine], freq, self.beam)
            else:
                total[mine] = seen * sky.unit.visibilities(field, samples.uvw_m[mine], freq)
        return total

    def _of_pixels(self, sky: SkyModel, samples: Samples) -> NDArray[np.complex128]:
        """Visibilities of an image's pixels.

        The image may be centred anywhere: u, v, w are turned from the field's directions to those
        at the image's tangent point, exactly, and the phase is put back to the field's centre,
        ``V = exp(2 pi i (w_c - w) f / c) sum I exp(2 pi i (u_c l + v_c m + w_c (n - 1)) f / c)``,
        which is ``sum I exp(2 pi i b.(s - s_field) f / c)`` for unit vectors s of the sources.
        """
        spw = self.info.spws[samples.spw]
        total = np.zeros((samples.uvw_m.shape[0], spw.freq_hz.size), dtype=np.complex128)
        if sky.xs.size == 0:
            return total
        for field in np.unique(samples.fields):
            mine = samples.fields == field
            freq = spw.freq_hz
            if sky.grid.in_lsrk:
                time_s = float(np.mean(samples.time_s[mine]))
                freq = freq * frames.lsrk_over_spw(self.info, spw, field=int(field), time_s=time_s)
            basis = sky.grid.field_basis(self.info.fields[field])
            uvw = samples.uvw_m[mine]
            turned = uvw @ (basis @ sky.grid.basis.T)
            vis = np.zeros((uvw.shape[0], freq.size), dtype=np.complex128)
            for channels in _smooth_parts(sky, freq):
                planes, weights = self._planes(sky, basis, freq[channels])
                vis[:, channels] = ducc.predict(
                    planes,
                    weights,
                    cell_rad=sky.grid.cell_rad,
                    centre_pixel=sky.grid.centre_pixel,
                    uvw_m=turned,
                    freq_hz=freq[channels],
                )
            path_m = turned[:, 2] - uvw[:, 2]
            if np.any(np.abs(path_m) > 1e-9):
                vis *= np.exp(2j * np.pi / C_M_S * np.outer(path_m, freq))
            total[mine] = vis
        return total

    def _planes(
        self, sky: SkyModel, basis: NDArray[np.float64], freq: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Images and their weights in the channels, as the field sees them."""
        if self.beam is None:
            weights = sky.weights(freq)
            return [sky.plane(values) for values in sky.values], weights
        toward = sky.grid.basis @ basis[2]
        chord = np.linalg.norm(sky.grid.direction_cosines(sky.xs, sky.ys) - toward, axis=1)
        offset = 2 * np.arcsin(np.minimum(1.0, chord / 2))
        nodes = chebyshev_nodes(float(freq.min()), float(freq.max()))
        planes = []
        for node, shares in zip(nodes, sky.weights(nodes).T, strict=True):
            planes.append(sky.plane(shares @ sky.values * self.beam.power(float(node), offset)))
        return planes, lagrange_weights(nodes, freq)


def _smooth_parts(sky: SkyModel, freq: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Channels over which the sky is smooth in frequency: between two sub-bands each."""
    if sky.is_taylor:
        return [np.arange(freq.size)]
    between = np.searchsorted(sky.freq_hz, freq)
    return [np.flatnonzero(between == number) for number in np.unique(between)]


def chebyshev_nodes(low: float, high: float) -> NDArray[np.float64]:
    """Frequencies at which the primary beam is evaluated, to `BEAM_ACCURACY` in between.

    Interpolation at n Chebyshev nodes over a relative half width h errs by at most
    ``max|f^(n)| h^n / (2^(n-1) n!)``; a power beam out to its first null changes no faster than
    ``cos(6 ln f)``.
    """
    half = (high - low) / (high + low)
    count = 1
    while (6 * half) ** count / (2 ** (count - 1) * math.factorial(count)) > BEAM_ACCURACY:
        count += 1
    points = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return np.sort((high + low) / 2 + (high - low) / 2 * points)


def lagrange_weights(nodes: NDArray[np.float64], freq: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the value at each node in the polynomial through all, shape (node, chan)."""
    weights = np.ones((nodes.size, freq.size))
    for j, node in enumerate(nodes):
        for other in np.delete(nodes, j):
            weights[j] *= (freq - other) / (node - other)
    return weights
