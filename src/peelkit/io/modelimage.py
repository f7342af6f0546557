"""Model images: their planes along frequency, and how tclean made them."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io.image import (
    Image,
    as_image,
    freq_unit_hz,
    frequency_axis,
    is_casa_image,
    load_image,
)
from peelkit.io.leapseconds import casa_images
from peelkit.io.ms import opened


def read_planes(path: Path, stokes: str = "") -> list[Image]:
    """Read the Stokes I planes (or ``stokes``) of an image along frequency, each with its own frequency.

    Raises
    ------
    DataError
        If it is no image, or the frequencies of its planes are not known.
    """
    data, header, frame = load_image(path)
    number = frequency_axis(header, data.ndim)
    axis = data.ndim - number if number else None
    if axis is None or data.shape[axis] == 1:
        return [as_image(path, data, header, frame, stokes=stokes)]
    count = data.shape[axis]
    freqs = _casa_freqs(path, count) if is_casa_image(path) else _fits_freqs(header, count)
    if freqs is None or not np.all(freqs > 0) or np.unique(freqs).size < count:
        raise DataError(f"{path}: the frequencies of its {count} planes are not known.")
    return [
        replace(
            as_image(path, np.take(data, [number], axis=axis), header, frame, stokes=stokes),
            freq_hz=float(freq),
            shape=data.shape,
        )
        for number, freq in enumerate(freqs)
    ]


def _casa_freqs(path: Path, count: int) -> NDArray[np.float64] | None:
    CasaImage = casa_images()  # noqa: N806

    for key, entry in CasaImage(str(path)).coordinates().dict().items():
        if not key.startswith("spectral"):
            continue
        pixels = np.arange(count, dtype=np.float64)
        if "tabular" in entry:
            table = entry["tabular"]
            return np.interp(pixels, table["pixelvalues"], table["worldvalues"])
        axis = {
            name: float(np.atleast_1d(entry["wcs"][name])[0])
            for name in ("crval", "crpix", "cdelt")
        }
        return axis["crval"] + (pixels - axis["crpix"]) * axis["cdelt"]
    return None


def _fits_freqs(header: fits.Header, count: int) -> NDArray[np.float64] | None:
    number = frequency_axis(header, header.get("NAXIS", 0))
    if number is None:
        return None
    steps = np.arange(count) + 1 - float(header.get(f"CRPIX{number}", 1))
    freqs = float(header[f"CRVAL{number}"]) + steps * float(header.get(f"CDELT{number}", 0))
    return np.asarray(freqs * freq_unit_hz(header, number))


def tclean_arguments(path: Path) -> dict[str, Any]:
    """Arguments with which tclean last worked on a CASA image, from its history; empty if unknown."""
    if not (is_casa_image(path) and (path / "logtable" / "table.dat").exists()):
        return {}
    with opened(path / "logtable") as log:
        lines = log.getcol("MESSAGE") if log.nrows() else []
    found: dict[str, Any] = {}
    task = ""
    for line in lines:
        key, equals, value = (piece.strip() for piece in str(line).partition("="))
        if key == "taskname":
            task = value
        elif task == "tclean" and equals and key.isidentifier():
            try:
                found[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                found[key] = value
    return found


def blank_pixels(path: Path, drop: NDArray[np.bool_]) -> None:
    """Set the pixels ``drop``, shape (ny, nx), of a CASA image to 0 in all planes."""
    with opened(path, write=True) as main:
        planes = main.getcell("map", 0)
        planes[..., drop] = 0
        main.putcell("map", 0, planes)
