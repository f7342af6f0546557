"""What is left of a peeled source: at its place, and as sidelobes of the synthesised beam around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import Mask, robust_rms
from peelkit.io.image import Image

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


def sidelobes(
    image: Image, psf: NDArray[np.float64], *, sources: Mask, radius_arcsec: float
) -> NDArray[np.float64] | None:
    """Flux of a point source at each pixel whose sidelobes fit the image best [Jy], shape of the image.

    Parameters
    ----------
    image : Image
        After peeling.
    psf : ndarray, shape (ny, nx)
        With the pixel size of the image.
    sources : ndarray of bool
        Pixels of other sources, and of what was peeled.
    radius_arcsec : float
        Sidelobes are compared out to here.

    Returns
    -------
    ndarray or None
        NaN where too little of the sidelobes is on valid pixels; None if there are none to compare.
    """
    from scipy.signal import fftconvolve

    assert image.beam is not None
    ny, nx = image.data.shape
    cell = image.cell_arcsec
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(psf)), psf.shape))
    reach = min(
        round(radius_arcsec / (cell * min(image.stretch))), nx // 2 - 1, ny // 2 - 1,
        row, column, psf.shape[0] - 1 - row, psf.shape[1] - 1 - column,
    )  # fmt: skip
    kernel = psf[row - reach : row + reach + 1, column - reach : column + reach + 1].copy()
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    distance = image.apart(columns, rows) * cell
    kernel[distance < MAIN_LOBE_BEAMS * image.beam.major_arcsec] = 0.0
    kernel[distance > radius_arcsec] = 0.0
    power = float(np.sum(kernel**2))
    if power <= 0:
        return None
    valid = np.isfinite(image.data) & ~sources
    flipped = kernel[::-1, ::-1]
    overlap = fftconvolve(np.where(valid, image.data, 0.0), flipped, mode="same")
    seen = fftconvolve(valid.astype(float), flipped**2, mode="same")
    usable = seen > LEAST_POWER * power
    return np.asarray(np.divide(overlap, seen, out=np.full_like(overlap, np.nan), where=usable))


def ghost(
    image: Image, fitted: NDArray[np.float64] | None, at: tuple[float, float]
) -> Ghost | None:
    """Look for what is left of a source; None if its place is outside the image.

    Parameters
    ----------
    image : Image
        After peeling.
    fitted : ndarray or None, shape of the image
        From `sidelobes`.
    at : (float, float)
        Place of the source, x and y [pixel].
    """
    x, y = (round(value) for value in at)
    ny, nx = image.data.shape
    if not (0 <= x < nx and 0 <= y < ny):
        return None
    left = float(image.data[y, x])
    if fitted is None or not np.isfinite(fitted[y, x]):
        return Ghost(left)
    return Ghost(left, float(fitted[y, x]), robust_rms(fitted))
