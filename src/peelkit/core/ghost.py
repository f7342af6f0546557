"""What is left of a peeled source: at its place, and as sidelobes of the synthesised beam around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import Mask, robust_rms
from peelkit.errors import DataError
from peelkit.io.image import Image, read_image

# Sidelobes begin so many beams from the source: nearer is its main lobe.
MAIN_LOBE_BEAMS = 1.5
# A place counts for the scatter if so much of the sidelobes' power is on its valid pixels.
LEAST_POWER = 0.5


@dataclass(frozen=True)
class Ghost:
    """What is left of a source.

    Parameters
    ----------
    left_jy_beam : float
        Brightness at its place [Jy/beam].
    sidelobes_jy : float or None
        Flux of a point source there whose sidelobes match the image around, without its main lobe [Jy]:
        ``sum(image psf) / sum(psf^2)``. None without a PSF.
    sigma_jy : float or None
        Robust scatter of the same sum over the rest of the image [Jy].
    """

    left_jy_beam: float
    sidelobes_jy: float | None = None
    sigma_jy: float | None = None

    @property
    def sidelobes_snr(self) -> float | None:
        """How significant the sidelobes are."""
        if self.sidelobes_jy is None or not self.sigma_jy:
            return None
        return self.sidelobes_jy / self.sigma_jy


def psf_of(image: Path) -> Path | None:
    """PSF that tclean left beside an image (``x.psf.tt0`` of ``x.image.tt0``); None if there is none."""
    stem, found, term = image.name.rpartition(".image")
    path = image.with_name(f"{stem}.psf{term}")
    return path if found and path.exists() else None


def read_psf(image: Image) -> NDArray[np.float64] | None:
    """PSF of an image on its pixels, peak 1; None if there is none that fits."""
    path = psf_of(image.path)
    if path is None:
        return None
    try:
        psf = np.nan_to_num(read_image(path).data).astype(np.float64)
    except DataError:
        return None
    return psf if psf.shape == image.data.shape and psf.max() > 0 else None


def ghost(
    image: Image,
    psf: NDArray[np.float64] | None,
    at: tuple[float, float],
    *,
    sources: Mask,
    radius_arcsec: float,
) -> Ghost:
    """Look for what is left of a source.

    Parameters
    ----------
    image : Image
        After peeling.
    psf : ndarray or None, shape of the image
        From `read_psf`.
    at : (float, float)
        Place of the source, x and y [pixel].
    sources : ndarray of bool
        Pixels of other sources, and of what was peeled.
    radius_arcsec : float
        Sidelobes are compared out to here.
    """
    from scipy.signal import fftconvolve

    assert image.beam is not None
    x, y = (round(value) for value in at)
    ny, nx = image.data.shape
    if not (0 <= x < nx and 0 <= y < ny):
        raise ValueError("the place is outside the image")
    left = float(image.data[y, x])
    if psf is None:
        return Ghost(left)
    cell = image.cell_arcsec
    reach = min(round(radius_arcsec / cell), nx // 2 - 1, ny // 2 - 1)
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(psf)), psf.shape))
    reach = min(reach, row, column, ny - 1 - row, nx - 1 - column)
    kernel = psf[row - reach : row + reach + 1, column - reach : column + reach + 1].copy()
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(rows, columns) * cell
    kernel[distance < MAIN_LOBE_BEAMS * image.beam.major_arcsec] = 0.0
    kernel[distance > radius_arcsec] = 0.0
    power = float(np.sum(kernel**2))
    if power <= 0:
        return Ghost(left)
    valid = np.isfinite(image.data) & ~sources
    flipped = kernel[::-1, ::-1]
    overlap = fftconvolve(np.where(valid, image.data, 0.0), flipped, mode="same")
    seen = fftconvolve(valid.astype(float), flipped**2, mode="same")
    usable = seen > LEAST_POWER * power
    if not usable[y, x]:
        return Ghost(left)
    fitted = np.divide(overlap, seen, out=np.full_like(overlap, np.nan), where=usable)
    # Another source's ghost, or this one's, does not belong to the scatter.
    return Ghost(left, float(fitted[y, x]), robust_rms(fitted))
