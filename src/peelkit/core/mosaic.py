"""Several pointings imaged as one: which belong together, where the image goes, which sees what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.coordinates import Angle
from numpy.typing import NDArray

from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import grid_of
from peelkit.errors import OptionError
from peelkit.io import ms
from peelkit.io.image import Image
from peelkit.io.survey import Survey

# Pointings of a mosaic have a neighbour within so many half-power widths. Half to three quarters is
# usual; beyond 1.5 two fields share next to nothing (each sees the other's middle at 0.2 % of its power).
NEIGHBOUR_BEAMS = 1.5

# A mosaic's image reaches so many half-power widths beyond the outer pointings: there a Gaussian beam is
# down to engines.casa.MOSAIC_PB_LIMIT, sqrt(ln 10 / (4 ln 2)).
REACH_BEAMS = 0.91

# Fields named in an error message.
LISTED = 12


@dataclass(frozen=True)
class Centre:
    """Middle of several pointings.

    Parameters
    ----------
    phasecenter : str
        In CASA's words and the frame of the fields.
    reach_rad : float
        Largest offset of a pointing from it along right ascension or declination [rad].
    """

    phasecenter: str
    reach_rad: float


def check_fields(info: ms.MsInfo, found: Survey, beam_rad: float) -> list[int]:
    """Fields to image together: the only one, or those of a mosaic.

    Parameters
    ----------
    beam_rad : float
        Half-power width of the primary beam [rad].

    Raises
    ------
    OptionError
        If there are several that form no mosaic.
    """
    fields = found.fields()
    reason = why_no_mosaic(info, found, fields, beam_rad) if len(fields) > 1 else None
    if reason is not None:
        listing = ", ".join(f"{number}={info.fields[number].name}" for number in fields[:LISTED])
        raise OptionError(
            f"{info.path}: several fields ({listing}{', ...' if len(fields) > LISTED else ''}), which are "
            f"no mosaic ({reason}); choose one with --field."
        )
    return fields


def why_no_mosaic(
    info: ms.MsInfo, found: Survey, fields: Sequence[int], beam_rad: float
) -> str | None:
    """Say why ``fields`` cannot be imaged as one mosaic; None if they can.

    They can if they have one frame and the same spws, and if steps of at most `NEIGHBOUR_BEAMS` lead
    from each to every other.
    """
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    frames = sorted({info.fields[field].frame for field in fields})
    if len(frames) > 1:
        return f"their frames are {' and '.join(frames)}"
    first = found.spws(fields[0])
    for field in fields[1:]:
        if found.spws(field) != first:
            return f"{info.fields[fields[0]].name} and {info.fields[field].name} have other spws"
    tree = cKDTree(_unit_vectors(info, fields))
    near = tree.sparse_distance_matrix(tree, 2 * math.sin(NEIGHBOUR_BEAMS * beam_rad / 2))
    # Fields at one place have no entry: distance 0.
    near = near.tocsr()
    links = [tree.query_ball_point(point, 1e-9) for point in tree.data]
    for number, same in enumerate(links):
        near[number, [other for other in same if other != number]] = 1e-9
    count, group = connected_components(near, directed=False)
    if count > 1:
        alone = fields[int(np.flatnonzero(group != group[0])[0])]
        return (
            f"{info.fields[alone].name} is more than {NEIGHBOUR_BEAMS:g} primary beams of "
            f"{math.degrees(beam_rad) * 60:.3g}' from {info.fields[fields[0]].name} and its neighbours"
        )
    return None


def _unit_vectors(info: ms.MsInfo, fields: Sequence[int]) -> NDArray[np.float64]:
    ra = np.array([info.fields[field].ra_rad for field in fields])
    dec = np.array([info.fields[field].dec_rad for field in fields])
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def centre(info: ms.MsInfo, fields: Sequence[int]) -> Centre:
    """Middle of the pointings: the mean of their directions."""
    vectors = _unit_vectors(info, fields)
    mean = vectors.mean(axis=0)
    ra, dec = math.atan2(mean[1], mean[0]), math.atan2(mean[2], math.hypot(mean[0], mean[1]))
    east = np.array([-math.sin(ra), math.cos(ra), 0.0])
    north = np.array([-math.sin(dec) * math.cos(ra), -math.sin(dec) * math.sin(ra), math.cos(dec)])
    reach = max(np.abs(vectors @ east).max(), np.abs(vectors @ north).max())
    hours = Angle(ra % (2 * math.pi), "rad").to_string(unit="hourangle", sep="hms", precision=5)
    degrees = Angle(dec, "rad").to_string(unit="deg", sep="dms", precision=4, alwayssign=True)
    return Centre(f"{info.fields[fields[0]].frame} {hours} {degrees}", float(reach))


def sensitivity_shares(
    info: ms.MsInfo,
    found: Survey,
    fields: Sequence[int],
    image: Image,
    ys: NDArray[np.intp],
    xs: NDArray[np.intp],
) -> NDArray[np.float64]:
    """What each field contributes to the joint image's sensitivity towards some pixels.

    ``q_f = w_f A_f^2 / sum_g w_g A_g^2`` with the sum of weights w of a field and its primary beam A.
    The joint image adds up fields in this way, so that a source of S/N ``P / sigma`` in it has
    ``P / sigma sqrt(q_f)`` in the data of field f alone. ``1 / max q_f`` is the effective number of fields
    that see the source.

    Returns
    -------
    ndarray, shape (field, pixel)
        Adding up to 1 over the fields, or 0 where no field sees anything.
    """
    beam = Beam.of(info)
    grid = grid_of(image)
    spots = grid.direction_cosines(xs, ys)
    freq = float(np.mean([info.spws[spw].centre_hz for spw in found.spws()]))
    powers = np.zeros((len(fields), len(xs)))
    for number, field in enumerate(fields):
        toward = grid.basis @ grid.field_basis(info.fields[field])[2]
        chord = np.linalg.norm(spots - toward, axis=1)
        gain = beam.power(freq, 2 * np.arcsin(np.minimum(1.0, chord / 2)))
        weight = sum(float(v.weight_sum.sum()) for v in found.visits if v.field == field)
        powers[number] = weight * gain**2
    total = powers.sum(axis=0)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


def field_snrs(
    info: ms.MsInfo,
    found: Survey,
    fields: Sequence[int],
    image: Image,
    mask: NDArray[np.bool_],
    rms: float,
) -> NDArray[np.float64]:
    """S/N that the brightest source in ``mask`` (of all, if that is empty) has in the data of each field alone, shape (field,).

    ``max over pixels of P / rms sqrt(q_f)``, with P the joint (flat-noise) image and q_f of
    `sensitivity_shares`. A field that sees nothing of the sources has about 0.
    """
    ys, xs = np.nonzero(mask & np.isfinite(image.data))
    if ys.size == 0:
        top = np.unravel_index(int(np.nanargmax(image.data)), image.data.shape)
        ys, xs = np.array([top[0]]), np.array([top[1]])
    shares = sensitivity_shares(info, found, fields, image, ys, xs)
    seen = np.maximum(image.data[ys, xs], 0) / rms * np.sqrt(shares)
    return np.asarray(seen.max(axis=1))
