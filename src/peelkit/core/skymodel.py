"""What is predicted: the pixels of a model image that are not zero, and how they change with frequency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame, CartesianRepresentation, SkyCoord
from numpy.typing import NDArray

from peelkit.engines import ducc
from peelkit.errors import DataError
from peelkit.io import frames
from peelkit.io.image import Image
from peelkit.io.ms import Field

# Below this primary beam a mosaic's model is not divided by it: tclean does not predict it either
# (its pblimit), so nothing constrained what is there.
PB_LIMIT = 0.1

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image are.

    Parameters
    ----------
    path : Path
        The image, for messages.
    shape : tuple of int
        (ny, nx).
    cell_rad : tuple of float
        Pixel size along x and y [rad].
    centre_pixel : tuple of float
        Pixel (x, y) of the tangent point, from 0.
    basis : ndarray, shape (3, 3)
        Unit vectors east, north and outwards at the tangent point, one a row, in the image's frame.
    like : Image
        The image, for its frame and coordinates.
    in_lsrk : bool
        Its positions belong to u, v, w in wavelengths at LSRK frequencies, as tclean's do.
    """

    path: Path
    shape: tuple[int, int]
    cell_rad: tuple[float, float]
    centre_pixel: tuple[float, float]
    basis: Vectors
    like: Image
    in_lsrk: bool

    def field_basis(self, field: Field) -> Vectors:
        """Unit vectors east, north and outwards at a field's phase centre, in the image's frame."""
        return field_basis(
            field,
            self.like.frame,
            f"the frame of {self.path}; use --predictor tclean",
        )

    def direction_cosines(self, xs: NDArray[np.int64], ys: NDArray[np.int64]) -> Vectors:
        """(l, m, n) of pixels about the tangent point, shape (pixel, 3)."""
        l = -(xs - self.centre_pixel[0]) * self.cell_rad[0]  # noqa: E741
        m = (ys - self.centre_pixel[1]) * self.cell_rad[1]
        return np.stack([l, m, np.sqrt(np.maximum(0.0, 1 - l**2 - m**2))], axis=1)


def field_basis(field: Field, frame: BaseCoordinateFrame, whose: str) -> Vectors:
    """Unit vectors east, north and outwards at a field's phase centre, in ``frame``.

    Raises
    ------
    DataError
        If the field's frame cannot be turned into it; ``whose`` says which it is, and the remedy.
    """
    own = frames.astropy_frame(field.frame)
    if field.icrf and isinstance(frame, ICRS):
        own = ICRS()
    basis = tangent_basis(field.ra_rad, field.dec_rad)
    if own is not None and own.is_equivalent_frame(frame):
        return basis
    if own is None:
        raise DataError(
            f"field {field.name}: its direction is in {field.frame}, which cannot be turned into {whose}."
        )
    # A little to the north of the centre, so that the directions turn with the frame.
    step = 1e-3
    out, tip = (
        _vector_in(frame, own, vector)
        for vector in (basis[2], basis[2] * math.cos(step) + basis[1] * math.sin(step))
    )
    north = tip - (tip @ out) * out
    north /= np.linalg.norm(north)
    return np.array([np.cross(north, out), north, out])


def tangent_basis(ra_rad: float, dec_rad: float) -> Vectors:
    """Unit vectors east, north and outwards at a direction, one a row."""
    sin_a, cos_a = math.sin(ra_rad), math.cos(ra_rad)
    sin_d, cos_d = math.sin(dec_rad), math.cos(dec_rad)
    return np.array(
        [
            [-sin_a, cos_a, 0.0],
            [-sin_d * cos_a, -sin_d * sin_a, cos_d],
            [cos_d * cos_a, cos_d * sin_a, sin_d],
        ]
    )


def _vector_in(frame, own, vector: Vectors) -> Vectors:  # type: ignore[no-untyped-def]
    place = SkyCoord(own.realize_frame(CartesianRepresentation(*vector))).transform_to(frame)
    sphere = place.represent_as("unitspherical")
    return tangent_basis(sphere.lon.to_value("rad"), sphere.lat.to_value("rad"))[2]


def grid_of(image: Image) -> Grid:
    """Read where the pixels of ``image`` are.

    Raises
    ------
    DataError
        If its projection is not SIN with north up and east to the left.
    """
    wcs = image.wcs.wcs
    kinds = [str(kind)[-3:] for kind in wcs.ctype]
    cell = np.asarray(wcs.cdelt) * [1.0, 1.0]
    matrix = np.asarray(image.wcs.pixel_scale_matrix)
    slant = any(value for _, _, value in wcs.get_pv())
    if kinds != ["SIN", "SIN"] or slant:
        raise DataError(f"{image.path}: projection {'/'.join(kinds)} is not SIN; regrid it to SIN.")
    if abs(matrix[0, 1]) + abs(matrix[1, 0]) > 1e-9 * abs(matrix[0, 0]) or not (
        matrix[0, 0] < 0 < matrix[1, 1]
    ):
        raise DataError(
            f"{image.path}: north is not up with east to the left; regrid it to such an image."
        )
    cell = np.array([-matrix[0, 0], matrix[1, 1]]) * [_rad(wcs.cunit[0]), _rad(wcs.cunit[1])]
    ra, dec = np.asarray(wcs.crval) * [_rad(wcs.cunit[0]), _rad(wcs.cunit[1])]
    return Grid(
        path=image.path,
        shape=(image.data.shape[0], image.data.shape[1]),
        cell_rad=(float(cell[0]), float(cell[1])),
        centre_pixel=(float(wcs.crpix[0]) - 1, float(wcs.crpix[1]) - 1),
        basis=tangent_basis(float(ra), float(dec)),
        like=image,
        in_lsrk=frames.image_frame(image.path) == "LSRK",
    )


def _rad(unit: object) -> float:
    return float(unit.to("rad"))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SkyModel:
    """Clean components, or the pixels of any model image.

    Parameters
    ----------
    grid : Grid
        Of the image.
    ys, xs : ndarray, shape (pixel,)
        Pixels that are not zero in all planes.
    values : ndarray, shape (plane, pixel)
        Taylor terms, or sub-bands [Jy].
    freq_hz : ndarray, shape (plane,)
        Of the planes: all the same for Taylor terms (their reference frequency), ascending for
        sub-bands.
    """

    grid: Grid
    ys: NDArray[np.int64]
    xs: NDArray[np.int64]
    values: NDArray[np.float64]
    freq_hz: NDArray[np.float64]

    @property
    def is_taylor(self) -> bool:
        """Planes are Taylor terms, not sub-bands."""
        return bool(np.all(self.freq_hz == self.freq_hz[0]))

    @property
    def flux_jy(self) -> float:
        """Flux at the reference frequency, or in the middle sub-band [Jy]."""
        return float(self.reference().sum())

    @property
    def reference_hz(self) -> float:
        """Frequency of `reference` [Hz]; 0 if it is not known."""
        return float(self.freq_hz[0 if self.is_taylor else len(self.freq_hz) // 2])

    def reference(self) -> NDArray[np.float64]:
        """Pixels at the reference frequency, or of the middle sub-band [Jy], shape (pixel,)."""
        return np.asarray(self.values[0 if self.is_taylor else len(self.freq_hz) // 2])

    def weights(self, freq_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of each plane in each channel, shape (plane, chan).

        Powers for Taylor terms; linear in frequency between sub-bands, the nearest one beyond.
        """
        if self.is_taylor:
            return ducc.taylor_weights(len(self.freq_hz), freq_hz, float(self.freq_hz[0]))
        unit = np.eye(len(self.freq_hz))
        return np.array([np.interp(freq_hz, self.freq_hz, row) for row in unit])

    def plane(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Image of ``values`` at the pixels, shape (ny, nx)."""
        image = np.zeros(self.grid.shape)
        image[self.ys, self.xs] = values
        return image

    def where(self, keep: NDArray[np.bool_]) -> SkyModel:
        """The part in which ``keep``, shape (ny, nx), is true."""
        inside = keep[self.ys, self.xs]
        return replace(self, ys=self.ys[inside], xs=self.xs[inside], values=self.values[:, inside])


def sky_model(models: Sequence[Image], pb: Image | None = None) -> SkyModel:
    """Gather the pixels of model images.

    Parameters
    ----------
    models : sequence of Image
        Taylor terms, which have one frequency; or sub-bands, which have one each.
    pb : Image, optional
        Primary beam of the mosaic: tclean's mosaic models are the sky times this (normtype
        flatnoise); they are divided by it where it is at least `PB_LIMIT`, and zero elsewhere.

    Raises
    ------
    DataError
        If frequencies are missing or mixed, or the primary beam does not fit.
    """
    first = models[0]
    grid = grid_of(first)
    freqs = np.array([image.freq_hz or 0.0 for image in models])
    if len(models) > 1:
        if not np.all(freqs > 0):
            raise DataError(
                f"{models[int(np.argmin(freqs))].path}: no frequency; several models need theirs."
            )
        if not np.all(freqs == freqs[0]) and len(set(freqs)) < len(freqs):
            raise DataError(
                f"{first.path}: some of the {len(models)} models have the same frequency; give "
                "Taylor terms (all of one frequency) or sub-bands (each of its own)."
            )
    order = np.argsort(freqs, kind="stable")
    cube = np.array([np.nan_to_num(models[index].data) for index in order], dtype=np.float64)
    used = cube.any(axis=0)
    if pb is not None:
        if pb.data.shape != first.data.shape:
            raise DataError(f"{pb.path}: its size does not match {first.path}.")
        beam = np.nan_to_num(pb.data)
        used &= beam >= PB_LIMIT
        cube[:, used] /= beam[used]
    ys, xs = np.nonzero(used)
    return SkyModel(grid, ys, xs, cube[:, ys, xs], freqs[order])
