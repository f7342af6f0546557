"""The simulated sky: bright sources, faint ones, and the fields that look at them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import OptionError

ARCSEC = math.radians(1 / 3600)
ARCMIN = math.radians(1 / 60)

# Where the (mosaic) centre is.
CENTRE_RA, CENTRE_DEC = math.radians(150.0), math.radians(30.0)

# The bright source without --bright: Jy, and arcmin in the middle of S band; in other bands as deep
# in the beam.
DEFAULT_BRIGHT = (9.5, 6.4, 4.8)
DEFAULT_BRIGHT_HZ = 3e9

# Faint sources: this share lies near a bright one, so many beam widths away; the others within so
# many beam widths of a pointing centre.
NEAR_SHARE = 0.16
NEAR_WIDTHS = (0.035, 0.14)
FIELD_WIDTHS = 0.75
# Faint sources are so many synthesised beams apart, as long as there is room.
APART_BEAMS = 4.0
FAINT_INDEX, FAINT_INDEX_SCATTER = -0.7, 0.2

BRIGHT_FORM = re.compile(r"^([^@]+)@([^,@]+),([^,@]+)$")
GAUSSIAN_FORM = re.compile(r"^gaussian:([0-9.eE+-]+)(?:arcsec)?$")


@dataclass(frozen=True)
class Source:
    """A point or Gaussian.

    Parameters
    ----------
    name : str
        BRIGHT_1, or BRIGHT_1A ... for its components; FAINT_1 ...
    east, north : float
        Direction cosines about the centre.
    flux_jy : float
        At the reference frequency, without any beam.
    spectral_index : float
        S proportional to f^index.
    major_arcsec, minor_arcsec, pa_deg : float
        Full widths at half maximum, position angle from north through east; 0 for a point.
    bright : int
        Number of the bright source that this is a part of; 0 for a faint one.
    line : tuple of float or None
        Channel of a spectral line and its full width at half maximum [channels], Gaussian; ``flux_jy``
        is at the peak. None for continuum.
    polarised, evpa_deg : float
        Linearly polarised fraction and position angle of the electric vector, from north through east.
    """

    name: str
    east: float
    north: float
    flux_jy: float
    spectral_index: float
    major_arcsec: float = 0.0
    minor_arcsec: float = 0.0
    pa_deg: float = 0.0
    bright: int = 0
    line: tuple[float, float] | None = None
    polarised: float = 0.0
    evpa_deg: float = 0.0


@dataclass(frozen=True)
class Place:
    """A direction [rad], ICRS."""

    name: str
    ra_rad: float
    dec_rad: float


CENTRE = Place("", CENTRE_RA, CENTRE_DEC)


def sky_place(east: float, north: float, name: str = "", centre: Place = CENTRE) -> Place:
    """Direction at direction cosines about the centre (orthographic projection, as in images)."""
    up = math.sqrt(1 - east**2 - north**2)
    sin_d, cos_d = math.sin(centre.dec_rad), math.cos(centre.dec_rad)
    sine = sin_d * up + cos_d * north
    ra = centre.ra_rad + math.atan2(east, cos_d * up - sin_d * north)
    return Place(name, ra % (2 * math.pi), math.asin(sine))


def cosines(sources: list[Source], field: Place, centre: Place = CENTRE) -> NDArray[np.float64]:
    """Direction cosines (l, m) of sources about a field's centre, shape (source, 2)."""
    found = np.empty((len(sources), 2))
    for row, source in enumerate(sources):
        place = sky_place(source.east, source.north, centre=centre)
        turn = place.ra_rad - field.ra_rad
        found[row, 0] = math.cos(place.dec_rad) * math.sin(turn)
        found[row, 1] = math.sin(place.dec_rad) * math.cos(field.dec_rad) - math.cos(
            place.dec_rad
        ) * math.sin(field.dec_rad) * math.cos(turn)
    return found


# ---------------------------------------------------------------- fields


def mosaic(n_field: int, spacing: float) -> list[tuple[float, float]]:
    """Centres of a hexagonal mosaic, row by row there and back.

    Parameters
    ----------
    n_field : int
        How many: those nearest to the middle.
    spacing : float
        Distance of neighbours, as a direction cosine.

    Returns
    -------
    list of tuple of float
        East and north of the mosaic's centre; their mean is 0.
    """
    reach = math.isqrt(n_field) + 3
    points = [
        (column + 0.5 * (row % 2), row * math.sqrt(0.75), row)
        for row in range(-reach, reach + 1)
        for column in range(-reach, reach + 1)
    ]
    # The middle of a triangle of fields for a mosaic of many; the field itself for one.
    middle = (0.0, 0.0) if n_field in (1, 7, 19) else (0.5, 0.5 / math.sqrt(3))
    points.sort(key=lambda p: (round(math.hypot(p[0] - middle[0], p[1] - middle[1]), 6), p))
    chosen = points[:n_field]
    mean = [sum(point[axis] for point in chosen) / n_field for axis in (0, 1)]
    chosen.sort(key=lambda p: (p[2], p[0] if p[2] % 2 else -p[0]))
    return [((x - mean[0]) * spacing, (y - mean[1]) * spacing) for x, y, _ in chosen]


# ---------------------------------------------------------------- bright sources


def parse_bright(
    texts: tuple[str, ...], beam_width: float, reference_hz: float
) -> list[tuple[float, float, float]]:
    """Flux [Jy] and direction cosines east and north of each --bright, or of the default.

    Raises
    ------
    OptionError
        If one is not FLUX@DX,DY, or lies far outside the beam.
    """
    if not texts:
        flux, east, north = DEFAULT_BRIGHT
        scale = ARCMIN * DEFAULT_BRIGHT_HZ / reference_hz
        return [(flux, east * scale, north * scale)]
    found = []
    for text in texts:
        match = BRIGHT_FORM.match(text.replace(" ", ""))
        try:
            flux, east, north = (
                (float(piece) for piece in match.groups()) if match else [math.nan] * 3
            )
        except ValueError:
            flux = east = north = math.nan
        if math.isnan(flux + east + north):
            raise OptionError(
                f"--bright {text!r}: give FLUX@DX,DY in Jy and arcmin east and north of the "
                "centre, such as 9.5@6.4,-4.8."
            )
        if not (math.isfinite(flux) and flux > 0):
            raise OptionError(f"--bright {text!r}: the flux must be a positive number of Jy.")
        if not math.hypot(east, north) * ARCMIN < 10 * beam_width:
            raise OptionError(
                f"--bright {text!r}: more than ten beam widths from the centre; the width is "
                f"{beam_width / ARCMIN:.1f} arcmin here."
            )
        found.append((flux, east * ARCMIN, north * ARCMIN))
    return found


def parse_shape(text: str) -> tuple[str, float]:
    """Shape and size [arcsec] of --bright-shape.

    Raises
    ------
    OptionError
        If it is none.
    """
    if text in ("point", "double"):
        return text, 0.0
    match = GAUSSIAN_FORM.match(text.replace(" ", ""))
    size = math.nan
    if match:
        try:
            size = float(match.group(1))
        except ValueError:
            size = math.nan
    if not (math.isfinite(size) and size > 0):
        raise OptionError(
            f"--bright-shape {text!r}: give point, double, or gaussian: and a width in arcsec, such "
            "as gaussian:5."
        )
    return "gaussian", size


def bright_sources(
    places: list[tuple[float, float, float]],
    shape: tuple[str, float],
    spectral_index: float,
    resolution_arcsec: float,
) -> list[Source]:
    """Components of the bright sources.

    A double is two Gaussian lobes, six synthesised beams apart at position angle 60 deg, with 45 and
    40 % of the flux, and a point between them, in which its flat core is.
    """
    found = []
    for number, (flux, east, north) in enumerate(places, 1):
        name = f"BRIGHT_{number}"
        if shape[0] != "double":
            size = shape[1]
            found.append(
                Source(name, east, north, flux, spectral_index, size, size, 0.0, bright=number)
            )
            continue
        angle = math.radians(60.0)
        reach = 3 * resolution_arcsec * ARCSEC
        step_east, step_north = reach * math.sin(angle), reach * math.cos(angle)
        lobe = (1.5 * resolution_arcsec, 0.8 * resolution_arcsec, 60.0)
        found += [
            Source(f"{name}A", east, north, 0.15 * flux, 0.0, bright=number),
            Source(f"{name}B", east + step_east, north + step_north, 0.45 * flux, spectral_index,
                   *lobe, bright=number),
            Source(f"{name}C", east - step_east, north - step_north, 0.40 * flux, spectral_index,
                   *lobe, bright=number),
        ]  # fmt: skip
    return found


# ---------------------------------------------------------------- faint sources


def faint_sources(
    count: int,
    flux_range_jy: tuple[float, float],
    *,
    fields: list[tuple[float, float]],
    bright: list[tuple[float, float, float]],
    beam_width: float,
    resolution_arcsec: float,
    rng: np.random.Generator,
) -> list[Source]:
    """Points with fluxes uniform in their logarithm, some of them close to a bright source.

    Parameters
    ----------
    count : int
        How many.
    flux_range_jy : tuple of float
        Least and greatest flux density.
    fields, bright : list of tuple
        Where the fields and the bright sources (flux first) are, as direction cosines.
    beam_width : float
        Full width at half power [rad].
    resolution_arcsec : float
        Width of the synthesised beam.
    rng : numpy.random.Generator
        Of the sky.
    """
    low, high = flux_range_jy
    fluxes = np.exp(rng.uniform(math.log(low), math.log(high), count))
    indices = rng.normal(FAINT_INDEX, FAINT_INDEX_SCATTER, count)
    n_near = round(NEAR_SHARE * count) if bright else 0
    apart = APART_BEAMS * resolution_arcsec * ARCSEC
    taken = [(east, north) for _, east, north in bright]
    found = []
    for number in range(count):
        for _ in range(200):
            if number < n_near:
                _, east, north = bright[number % len(bright)]
                inner, outer = (width * beam_width for width in NEAR_WIDTHS)
            else:
                east, north = fields[int(rng.integers(len(fields)))]
                inner, outer = 0.0, FIELD_WIDTHS * beam_width
            radius = math.sqrt(rng.uniform(inner**2, outer**2))
            angle = rng.uniform(0.0, 2 * math.pi)
            place = (east + radius * math.sin(angle), north + radius * math.cos(angle))
            if all(math.dist(place, other) > apart for other in taken):
                break
        taken.append(place)
        found.append(
            Source(f"FAINT_{number + 1}", *place, float(fluxes[number]), float(indices[number]))
        )
    return found


def spectra(
    sources: list[Source], freq_hz: NDArray[np.float64], reference_hz: float
) -> NDArray[np.float64]:
    """Stokes I without any beam, shape (source, chan) [Jy]."""
    flux = np.array([source.flux_jy for source in sources])
    index = np.array([source.spectral_index for source in sources])
    found = flux[:, None] * (freq_hz / reference_hz) ** index[:, None]
    channel = np.arange(freq_hz.size)
    for row, source in enumerate(sources):
        if source.line is not None:
            middle, width = source.line
            found[row] *= np.exp(-4 * math.log(2) * ((channel - middle) / width) ** 2)
    return np.asarray(found)


def feed_q(sources: list[Source], parallactic_angle: float) -> NDArray[np.float64]:
    """Stokes Q over I in the frame of linear feeds, shape (source,): ``p cos 2 (EVPA - angle)``.

    XX is I (1 + q) and YY is I (1 - q), with X along the antenna's up direction. The sum of both does
    not turn with the parallactic angle; their ratio does (seed 002, 2.4.2).
    """
    fraction = np.array([source.polarised for source in sources])
    evpa = np.radians([source.evpa_deg for source in sources])
    return np.asarray(fraction * np.cos(2 * (evpa - parallactic_angle)))


def shapes(sources: list[Source]) -> NDArray[np.float64]:
    """Major and minor axis and position angle [rad], shape (source, 3)."""
    rows = [
        (s.major_arcsec * ARCSEC, s.minor_arcsec * ARCSEC, math.radians(s.pa_deg)) for s in sources
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 3)
