"""Images against the sky that was put in: the truth file of ``peelkit simulate``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core.measure import Mask, robust_rms
from peelkit.errors import DataError
from peelkit.io.image import Beam, Image, read_image

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

SCHEMA = "peelkit.truth/1"

# Sources are compared from this S/N, if no other source is within so many beams that is brighter
# than this share of it.
LEAST_SNR = 10.0
BLEND_BEAMS = 2.0
BLEND_SHARE = 0.05

# The pattern of a source is fitted within this radius [its own half widths].
FIT_RADIUS = 1.0

# Around a bright source the noise is measured between these radii [beams].
LOCAL_INNER = 2.0
LOCAL_OUTER = 15.0


@dataclass(frozen=True)
class TrueSource:
    """One source of the truth: ICRS position, flux [Jy] at the reference frequency, Gaussian size."""

    name: str
    ra_deg: float
    dec_deg: float
    flux_jy: float
    spectral_index: float
    major_arcsec: float
    minor_arcsec: float
    pa_deg: float
    bright: bool
    apparent_flux_jy: tuple[float, ...]


@dataclass(frozen=True)
class Truth:
    """What was put in; ``reference_hz`` is where fluxes are given."""

    path: Path
    reference_hz: float
    n_fields: int
    sources: tuple[TrueSource, ...]


@dataclass(frozen=True)
class Compared:
    """One source: what it should be and what the image has [Jy], ratio, its error, and S/N."""

    name: str
    ra_deg: float
    dec_deg: float
    true_jy: float
    flux_jy: float
    ratio: float
    ratio_error: float
    snr: float


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises
    ------
    DataError
        If it is not one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; give the truth file of peelkit simulate."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}).") from error
    version = record.get("schema") if isinstance(record, dict) else None
    if version != SCHEMA:
        raise DataError(
            f"{path}: schema {version!r} is not {SCHEMA!r}; give the truth file of peelkit simulate."
        )
    try:
        sources = tuple(
            TrueSource(
                name=str(item["name"]),
                ra_deg=float(item["ra_deg"]),
                dec_deg=float(item["dec_deg"]),
                flux_jy=float(item["flux_jy"]),
                spectral_index=float(item["spectral_index"]),
                major_arcsec=float(item["major_arcsec"]),
                minor_arcsec=float(item.get("minor_arcsec", item["major_arcsec"])),
                pa_deg=float(item.get("pa_deg", 0.0)),
                bright=bool(item["bright"]),
                apparent_flux_jy=tuple(float(value) for value in item["apparent_flux_jy"]),
            )
            for item in record["sources"]
        )
        return Truth(path, float(record["reference_hz"]), len(record["fields"]), sources)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: malformed truth file ({error!r}); simulate it again.") from error


def pb_beside(path: Path) -> Path | None:
    """Primary beam that tclean made beside an image: x.pb of x.image, x.pb.tt0 of x.image.tt0."""
    for one in (path, path.resolve()):
        head, found, tail = one.name.rpartition(".image")
        if found and "pbcor" not in tail:
            beside = one.with_name(f"{head}.pb{tail}")
            if beside.exists():
                return beside
    return None


def true_fluxes(
    truth: Truth, image: Image, positions: SkyCoord, pb: Path | None
) -> NDArray[np.float64]:
    """Flux that each source should have in the image [Jy]; NaN where the primary beam is blank.

    Without ``pb`` it is the apparent flux of a single field, through its nominal primary beam; of a
    mosaic, or with ``pb``, the flux times the primary beam image, as in tclean's images that are not
    corrected for it (those whose name has ``pbcor`` have the flux itself).

    Raises
    ------
    DataError
        If the truth is of a mosaic and no primary beam is there.
    """
    ratio = (image.freq_hz or truth.reference_hz) / truth.reference_hz
    spectrum = np.array([ratio**source.spectral_index for source in truth.sources])
    flux = np.array([source.flux_jy for source in truth.sources]) * spectrum
    if pb is None and "pbcor" in image.path.name:
        return flux
    if pb is None and truth.n_fields == 1:
        return np.array([source.apparent_flux_jy[0] for source in truth.sources]) * spectrum
    where = pb or pb_beside(image.path)
    if where is None:
        raise DataError(
            f"{image.path}: a mosaic of {truth.n_fields} fields, and no primary beam beside it "
            "(x.pb of x.image); give it with --pb."
        )
    beam = read_image(where)
    return flux * np.array([_value(beam.data, *beam.pixel(position)) for position in positions])


def _value(data: NDArray[Any], x: float, y: float) -> float:
    """Value at the nearest pixel; NaN outside."""
    ny, nx = data.shape
    if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        return math.nan
    return float(data[round(y), round(x)])


def against_truth(
    truth: Truth,
    image: Image,
    noise: NDArray[Any],
    *,
    exclude: Mask,
    real: Mask,
    pb: Path | None = None,
) -> dict[str, Any]:
    """Compare an image with what was put in.

    The pattern that a source of the true flux, size and position makes is fitted to the image: the
    ratio is its amplitude. So the positions are the truth's own, and no source is lost to the
    finder, nor gained by its noise.

    Parameters
    ----------
    truth : Truth
        What was put in.
    image : Image
        Restored image [Jy/beam].
    noise : ndarray of float, shape (ny, nx)
        Local noise [Jy/beam].
    exclude : ndarray of bool, shape (ny, nx)
        Sources here are not compared: the peeled ones.
    real : ndarray of bool, shape (ny, nx)
        Real sources, left out of the noise around the bright ones.
    pb : Path, optional
        Primary beam image.
    """
    from astropy.coordinates import SkyCoord

    assert image.beam is not None
    positions = SkyCoord(
        [source.ra_deg for source in truth.sources],
        [source.dec_deg for source in truth.sources],
        unit="deg",
    )
    flux = true_fluxes(truth, image, positions, pb)
    xs, ys = np.array([image.pixel(position) for position in positions]).reshape(-1, 2).T
    shapes = [_shape(source, image.beam) for source in truth.sources]
    peaks = flux * np.array([_dilution(shape, image.beam) for shape in shapes])
    compared: list[Compared] = []
    for number, source in enumerate(truth.sources):
        x, y = float(xs[number]), float(ys[number])
        sigma = _value(noise, x, y)
        if source.bright or not peaks[number] >= LEAST_SNR * sigma or exclude[round(y), round(x)]:
            continue
        apart = image.apart(xs - x, ys - y) * image.cell_arcsec
        near = (apart < BLEND_BEAMS * image.beam.major_arcsec) & (np.arange(len(peaks)) != number)
        if np.any(peaks[near] > BLEND_SHARE * peaks[number]):
            continue
        fitted = _fit(image, x, y, shapes[number], float(peaks[number]))
        if fitted is None:
            continue
        ratio, spread = fitted
        compared.append(
            Compared(
                name=source.name,
                ra_deg=source.ra_deg,
                dec_deg=source.dec_deg,
                true_jy=float(flux[number]),
                flux_jy=ratio * float(flux[number]),
                ratio=ratio,
                ratio_error=spread * sigma,
                snr=float(peaks[number] / sigma),
            )
        )
    ratios = np.array([item.ratio for item in compared])
    scatter = robust_rms(ratios) if ratios.size > 1 else math.nan
    # In quadrature, since the errors of faint sources are larger.
    expected = (
        math.sqrt(float(np.mean([item.ratio_error**2 for item in compared])))
        if compared
        else math.nan
    )
    # max() would make 0 of NaN.
    beyond = math.sqrt(max(scatter**2 - expected**2, 0.0)) if ratios.size > 1 else math.nan
    return {
        "ratio_median": float(np.median(ratios)) if compared else None,
        "ratio_scatter": scatter,
        "ratio_noise": expected,
        "ratio_scatter_beyond_noise": beyond,
        "sources_compared": len(compared),
        "bright": [
            _bright(image, source.name, float(xs[n]), float(ys[n]), float(peaks[n]), real)
            for n, source in enumerate(truth.sources)
            if source.bright and math.isfinite(_value(image.data, float(xs[n]), float(ys[n])))
        ],
        "sources": [asdict(item) for item in compared],
    }


Shape = NDArray[np.float64]  # covariance (east, north) [arcsec^2], of a Gaussian


def _covariance(major: float, minor: float, pa_deg: float) -> Shape:
    """Covariance of a Gaussian of these full widths; position angle from north through east."""
    angle = math.radians(pa_deg)
    turn = np.array([[math.sin(angle), math.cos(angle)], [math.cos(angle), -math.sin(angle)]])
    widths = np.square([major, minor]) / (8 * math.log(2))
    return np.asarray(turn @ np.diag(widths) @ turn.T)


def _shape(source: TrueSource, beam: Beam) -> Shape:
    """The source as the beam shows it."""
    return _covariance(beam.major_arcsec, beam.minor_arcsec, beam.pa_deg) + _covariance(
        source.major_arcsec, source.minor_arcsec, source.pa_deg
    )


def _dilution(shape: Shape, beam: Beam) -> float:
    """Peak of a source [Jy/beam] over its flux [Jy]."""
    own = _covariance(beam.major_arcsec, beam.minor_arcsec, beam.pa_deg)
    return math.sqrt(float(np.linalg.det(own) / np.linalg.det(shape)))


def _fit(image: Image, x: float, y: float, shape: Shape, peak: float) -> tuple[float, float] | None:
    """Amplitude of a pattern at pixel (x, y), in units of ``peak``; its error over the noise.

    The noise of neighbouring pixels is correlated as the beam is; None if a pixel is blank.
    """
    assert image.beam is not None
    half_width = math.sqrt(2 * math.log(2) * float(np.linalg.eigvalsh(shape)[-1]))
    wide, high = image.stretch
    reach = math.ceil(FIT_RADIUS * half_width / (image.cell_arcsec * min(wide, high))) + 1
    ny, nx = image.data.shape
    rows, columns = np.mgrid[
        round(y) - reach : round(y) + reach + 1, round(x) - reach : round(x) + reach + 1
    ]
    # East is to the left in all images that are read here.
    offset = (
        np.stack([-(columns - x).ravel() * wide, (rows - y).ravel() * high], axis=1)
        * image.cell_arcsec
    )
    inside = np.linalg.norm(offset, axis=1) <= FIT_RADIUS * half_width
    rows, columns, offset = rows.ravel()[inside], columns.ravel()[inside], offset[inside]
    if rows.min() < 0 or columns.min() < 0 or rows.max() >= ny or columns.max() >= nx:
        return None
    data = np.asarray(image.data[rows, columns], dtype=np.float64)
    if not np.isfinite(data).all():
        return None
    pattern = peak * np.exp(-0.5 * np.einsum("ni,ij,nj->n", offset, np.linalg.inv(shape), offset))
    power = float(pattern @ pattern)
    own = np.linalg.inv(_covariance(
        image.beam.major_arcsec, image.beam.minor_arcsec, image.beam.pa_deg
    ))  # fmt: skip
    between = offset[:, None] - offset[None]
    correlation = np.exp(-0.5 * np.einsum("mni,ij,mnj->mn", between, own, between))
    variance = float(pattern @ correlation @ pattern) / power**2
    return float(data @ pattern) / power, math.sqrt(variance)


def _bright(image: Image, name: str, x: float, y: float, peak: float, real: Mask) -> dict[str, Any]:
    """What is left at a bright source: the largest value, up or down, within one beam."""
    assert image.beam is not None
    rows, columns = np.ogrid[0 : image.data.shape[0], 0 : image.data.shape[1]]
    apart = image.apart(columns - x, rows - y) * image.cell_arcsec / image.beam.major_arcsec
    near = image.data[(apart <= 1) & np.isfinite(image.data)]
    around = image.data[(apart > LOCAL_INNER) & (apart <= LOCAL_OUTER) & ~real]
    return {
        "name": name,
        "true_jy_beam": peak,
        "left_jy_beam": float(near[np.argmax(np.abs(near))]),
        "rms_local_jy_beam": robust_rms(around),
    }
