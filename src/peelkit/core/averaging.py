"""Visibilities averaged in time for imaging, baseline by baseline, as far as no source in the image notices.

A gridder adds up what is averaged here anyway, a little further apart in uv; what an imager spends for each
visibility, and for each TIME, it then spends once.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import FK5, SkyCoord
from numpy.typing import NDArray

from peelkit.core import imaging as making
from peelkit.core import mosaic
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.io import frames, ms, rownumbers
from peelkit.io.image import Image
from peelkit.io.survey import C_M_S
from peelkit.io.usable import usable_weights

log = logging.getLogger(__name__)

# The Earth's rotation [rad/s].
EARTH_RAD_S = 7.2921159e-5

# Rows get the TIME of the block of so many seconds that they lie in; UVW stays what it is. Tclean works on one TIME
# after the other, which costs it milliseconds each. It takes from TIME how the array moves along the line of sight
# (within 300 s by 10 m/s at most, 3e-8 of the frequency) and the parallactic angle, on which its beams do not depend.
# In a mosaic it moves its beam for each, which may be more than half of all its time. No two fields may have one
# TIME: it takes where dishes point from the first.
BLOCK_S = 300.0

# Where what sources lose is less than this part of the noise, it does not limit the image.
BEARABLE = 0.5

# What stands out by so many times the noise is a source.
BRIGHT = 5.0

# Few visibilities are imaged as they are: that is quick, and tclean's gridder makes an error for each of them that
# only their number averages out (a point of 1 Jy: 4e-3 Jy over the root of it, 0.1 mJy/beam with 2000).
FEWEST = 200_000

# Of a mosaic they still get the TIME of their block (12 fields of two scans of two integrations: an image in 84 s instead
# of 142, the dirty one to 5e-6 of its peak): no loss at all, so that none are averaged.
ONLY_BLOCKS = 1e-12

# DATA, WEIGHT_SPECTRUM and FLAG of a sample; the rest of a row [B].
SAMPLE_BYTES, ROW_BYTES = 13, 200

# Of each data description, to estimate how many there will be.
SAMPLED_ROWS = 5000

# Rows that differ in one of these are not averaged.
ALIKE = (
    "OBSERVATION_ID", "ARRAY_ID", "SCAN_NUMBER", "FIELD_ID", "STATE_ID", "FEED1", "FEED2", "ANTENNA1", "ANTENNA2",
)  # fmt: skip


def settled(info: ms.MsInfo, rows: NDArray[np.int64], folder: Path, imaging: Imaging) -> Imaging:
    """``imaging``, with a ``smearing`` of 0 where averages are not worth it, or may not fit in ``folder``."""
    if imaging.smearing == 0:
        return imaging
    as_it_is = replace(imaging, smearing=0.0)
    with ms.opened(info.path) as main:
        counts = rownumbers.counts(main, rows, len(info.data_descriptions))
    channels = np.array([info.spws[one.spw].freq_hz.size for one in info.data_descriptions])
    if (counts * channels).sum() < FEWEST:
        return replace(imaging, smearing=ONLY_BLOCKS) if imaging.is_mosaic else as_it_is
    hands = np.array([len(one.correlations) for one in info.data_descriptions])
    needed = int((counts * channels * hands).sum()) * SAMPLE_BYTES + rows.size * ROW_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        log.info(
            "%s is imaged as it is: its averages may take %.0f GB, and %.0f GB are free in %s",
            info.path, needed / 1e9, free / 1e9, folder,
        )  # fmt: skip
        return as_it_is
    return imaging


def share(info: ms.MsInfo, rows: NDArray[np.int64], imaging: Imaging) -> float:
    """Rows that the averages would have, over those of the data: from a sample, as if scans had no end."""
    views, n_ddid = _views(info, imaging), len(info.data_descriptions)
    total = averages = 0.0
    with ms.opened(info.path) as main:
        counts = rownumbers.counts(main, rows, n_ddid)
        for ddid, some in rownumbers.sample(main, rows, n_ddid, SAMPLED_ROWS).items():
            with ms.part(main, some) as here:
                ids, uvw, interval_s = (
                    here.getcol("FIELD_ID"),
                    here.getcol("UVW"),
                    _intervals_s(here),
                )
            spw = info.spws[info.data_descriptions[ddid].spw]
            count = _counts(views, ids, uvw, interval_s, float(spw.freq_hz.max()), imaging.smearing)
            total += counts[ddid]
            averages += counts[ddid] * float((1 / count).mean())
    return averages / total if total else 1.0


def write(
    info: ms.MsInfo, rows: NDArray[np.int64], column: str, target: Path, imaging: Imaging
) -> int:
    """Write an MS with the averages of ``column`` as its DATA; returns how many rows it has.

    Weights add up, in WEIGHT_SPECTRUM; UVW are averaged with them. Samples of which one parallel hand is not to be
    used (`usable_weights`), or is no number, are left out, as tclean leaves them out of Stokes I; rows without any
    are not there. All ids are those of ``info``.

    Parameters
    ----------
    rows : ndarray of int, shape (row,)
        Of ``info``, ascending.
    target : Path
        Where there is nothing yet.
    imaging : Imaging
        Its ``smearing`` is the fraction of their flux that sources at the edge of the image may lose on any
        baseline by being averaged.

    Raises
    ------
    DataError
        If no sample can be used.
    """
    # Before any table is open: astropy keeps what calls it alive for a while, and tables in it open.
    moving = any(field.track for field in info.fields)
    work = _Work(info, column, imaging.smearing, _views(info, imaging), steady=not moving)
    n_row = 0
    ms.empty_copy(info.path, target, data_column=column)
    with ms.opened(info.path) as main, ms.opened(target, write=True) as made:
        for description, chunk in ms.chunks(main, info, rows):
            with ms.part(main, chunk) as here:
                n_row += ms.append(made, _averages(here, work, description))
    if not n_row:
        raise DataError(f"{info.path}: nothing is left to image; is all flagged?")
    return n_row


def bearable(
    info: ms.MsInfo, image: Image, imaging: Imaging, fields: Sequence[int], rms: float
) -> float:
    """Loss at the edge that the sources of an image could bear, and it still be limited by its noise alone.

    Parameters
    ----------
    image : Image
        Restored.
    imaging : Imaging
        How it was made.
    fields : sequence of int
        Of what; in a mosaic the pointing nearest to a source counts.
    rms : float
        Noise [Jy/beam].
    """
    ys, xs = np.nonzero(np.nan_to_num(image.data) > BRIGHT * rms)
    nearest = np.full(ys.size, np.inf)
    views = _views(info, imaging)
    for view in (views[number] for number in fields):
        if view.place is None:
            # As if all were at the edge.
            nearest = np.minimum(nearest, 1.0)
            continue
        x, y = image.pixel(view.place)
        pixel = math.radians(image.cell_arcsec / 3600) / view.edge_rad
        nearest = np.minimum(nearest, ((xs - x) ** 2 + (ys - y) ** 2) * pixel**2)
    worst = float((image.data[ys, xs] * nearest).max(initial=0.0))
    return BEARABLE * rms / worst if worst > 0 else math.inf


def together(
    across_m: NDArray[np.float64],
    interval_s: NDArray[np.float64],
    edge_rad: float,
    wave_m: float,
    loss: float,
) -> NDArray[np.int64]:
    """How many integrations of a baseline may be averaged, at least 1 and at most `BLOCK_S`, shape (row,).

    The fringe of a source at the edge turns by ``x = across omega edge / wave`` in a second. The mean of n samples
    ``dt`` apart keeps ``sin(pi n x dt) / (n sin(pi x dt))`` of it, that is ``1 - (pi x dt)^2 (n^2 - 1) / 6``. (What
    the integrations themselves have lost is in the data: Bridle & Schwab 1999, ASP Conf. 180, 371, eq. 18-42.)

    Parameters
    ----------
    across_m : ndarray, shape (row,)
        Length of the baseline, projected on the equator: what turns with the Earth.
    interval_s : ndarray, shape (row,)
        Time from one integration to the next.
    """
    turn = np.pi * across_m * EARTH_RAD_S * interval_s * edge_rad / wave_m
    most = np.maximum(1.0, BLOCK_S / interval_s)
    with np.errstate(divide="ignore", over="ignore"):
        fit = np.sqrt(1 + 6 * loss / turn**2)
    return np.floor(np.minimum(fit, most)).astype(np.int64)


@dataclass(frozen=True)
class _View:
    """How a field is seen.

    Parameters
    ----------
    edge_rad : float
        Distance from its phase centre to which sources are to keep their flux.
    place : SkyCoord or None
        The phase centre; None if it is not known.
    dec_rad : float
        Its declination; of no meaning if it is not known.
    """

    edge_rad: float
    place: SkyCoord | None = None
    dec_rad: float = 0.0

    def across_m(self, uvw_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Length of baselines projected on the equator, which no rotation of the Earth changes, shape (row,)."""
        length2 = (uvw_m**2).sum(axis=1)
        if self.place is None:
            return np.sqrt(length2)
        along = uvw_m[:, 1] * math.cos(self.dec_rad) + uvw_m[:, 2] * math.sin(self.dec_rad)
        return np.sqrt(np.maximum(0.0, length2 - along**2))


@dataclass(frozen=True)
class _Work:
    """What is averaged, and how.

    Parameters
    ----------
    loss : float
        Of flux at the edge.
    views : list of _View
        By field.
    steady : bool
        No field moves.
    starts : dict
        When each scan of each field began [s].
    """

    info: ms.MsInfo
    column: str
    loss: float
    views: list[_View]
    steady: bool
    starts: dict[tuple[int, ...], float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bins:
    """Rows in the order of their bins.

    Parameters
    ----------
    order : ndarray of int, shape (row,)
        Into the chunk.
    first : ndarray of int, shape (bin,)
        Where each bin begins in that order.
    time_s : ndarray, shape (bin,)
        Middle of its block.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    time_s: NDArray[np.float64]


def _bins(
    ids: dict[str, NDArray[Any]],
    time_s: NDArray[np.float64],
    interval_s: NDArray[np.float64],
    count: NDArray[np.int64],
    starts: dict[tuple[int, ...], float],
    ddid: int,
) -> _Bins:
    """Sort rows into bins of ``count`` integrations, which begin with each scan and each block.

    Parameters
    ----------
    starts : dict
        When each scan of each field began [s]; what is new is added.
    """
    scan = rownumbers.series(ids[name] for name in ALIKE[:4])
    firsts = np.unique(scan, return_index=True)[1]
    begins = [
        starts.setdefault((ddid, *(int(ids[name][row]) for name in ALIKE[:4])), float(time_s[row]))
        for row in firsts
    ]
    begin = np.array(begins)[scan]
    since = time_s - begin
    # A quarter more: times of one integration differ by rounding.
    block = np.floor((since + interval_s / 4) / BLOCK_S)
    within = since - block * BLOCK_S
    # Where nothing may be averaged times count as they are, whatever INTERVAL says.
    slot = np.where(count > 1, np.rint(within / interval_s) // count, np.rint(1000 * within))
    keys = [
        slot.astype(np.int64), count, np.rint(1000 * interval_s).astype(np.int64),
        *(ids[name] for name in ALIKE[::-1]), block.astype(np.int64),
    ]  # fmt: skip
    # Blocks first: the imager reads what it grids together in one piece.
    keys = [key for key in keys if key.size and (key != key[0]).any()]
    order = np.lexsort(keys) if keys else np.arange(time_s.size)
    new = np.zeros(time_s.size, dtype=bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    first = np.flatnonzero(new)
    middle = (begin + (block + 0.5) * BLOCK_S)[order[first]]
    return _Bins(order, first, middle)


def _counts(
    views: list[_View],
    fields: NDArray[Any],
    uvw_m: NDArray[np.float64],
    interval_s: NDArray[np.float64],
    freq_hz: float,
    loss: float,
) -> NDArray[np.int64]:
    """`together` for each row, shape (row,)."""
    count = np.ones(fields.size, dtype=np.int64)
    for number in np.unique(fields).tolist():
        mine, view = fields == number, views[number]
        across = view.across_m(uvw_m[mine])
        count[mine] = together(across, interval_s[mine], view.edge_rad, C_M_S / freq_hz, loss)
    return count


def _intervals_s(here: Any) -> NDArray[np.float64]:
    """INTERVAL of each row; 1 s where it is not filled, so that little is averaged."""
    found = here.getcol("INTERVAL")
    return np.where(found > 0, found, 1.0)


def _averages(here: Any, work: _Work, description: ms.DataDescription) -> dict[str, NDArray[Any]]:
    """Columns of the averages of rows of one data description."""

    def get(name: str) -> NDArray[Any]:
        return np.asarray(here.getcol(name))

    ids = {name: get(name) for name in ALIKE}
    time_s, interval_s, uvw = get("TIME"), _intervals_s(here), get("UVW")
    highest_hz = float(work.info.spws[description.spw].freq_hz.max())
    count = _counts(work.views, ids["FIELD_ID"], uvw, interval_s, highest_hz, work.loss)
    bins = _bins(ids, time_s, interval_s, count, work.starts, description.id)
    order, first = bins.order, bins.first

    def total(values: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(values, first, axis=0)

    data = get(work.column)
    weight = usable_weights(here, np.arange(time_s.size)).astype(np.float32)
    finite = np.isfinite(data)
    hands = ms.parallel_hands(description.correlations)
    used = finite & (weight > 0)
    used[:, :, hands] &= used[:, :, hands].all(axis=2, keepdims=True)
    weight[~used] = 0
    data = np.where(finite, data, 0)[order]
    weight = weight[order]
    data *= weight
    data, weights = total(data), total(weight)
    of_row = weight.sum(axis=(1, 2), dtype=np.float64)
    of_bin = total(of_row)
    kept = of_bin > 0
    mean = np.divide(data, weights, out=np.zeros_like(data), where=weights > 0)
    safe = np.where(kept, of_bin, 1.0)
    seen = np.maximum((weights > 0).sum(axis=1), 1)
    row_weight = weights.sum(axis=1) / seen
    centroid = (
        bins.time_s
        + total(
            of_row * (time_s[order] - np.repeat(bins.time_s, np.diff(first, append=time_s.size)))
        )
        / safe
    )
    found: dict[str, NDArray[Any]] = {
        name: values[order][first] for name, values in ids.items()
    } | {
        "DATA_DESC_ID": np.full(first.size, description.id, dtype=np.int32),
        "TIME": bins.time_s if work.steady else centroid,
        "TIME_CENTROID": centroid,
        "INTERVAL": total(interval_s[order]),
        "EXPOSURE": total(get("EXPOSURE")[order]),
        "UVW": total(of_row[:, None] * uvw[order]) / safe[:, None],
        "DATA": mean,
        "FLAG": ~(weights > 0),
        "WEIGHT_SPECTRUM": weights,
        "WEIGHT": row_weight,
        "SIGMA": 1 / np.sqrt(np.where(row_weight > 0, row_weight, 1)),
        "FLAG_ROW": np.zeros(first.size, dtype=bool),
        "PROCESSOR_ID": get("PROCESSOR_ID")[order][first],
    }  # fmt: skip
    return {name: values[kept] for name, values in found.items()}


def _views(info: ms.MsInfo, imaging: Imaging) -> list[_View]:
    """Edges: that of the image; in a mosaic, as far as each pointing sees."""
    half = math.radians(imaging.imsize * imaging.cell_arcsec / 3600) / 2
    if imaging.is_mosaic:
        low = min(float(spw.freq_hz.min()) for spw in info.spws)
        dish = min((one.diameter_m for one in info.antennas if one.diameter_m > 0), default=25.0)
        half = mosaic.REACH_BEAMS * making.primary_beam_rad(low, dish)
    shifted = bool(imaging.phasecenter) and not imaging.is_mosaic
    middle = frames.direction(imaging.phasecenter) if shifted else None
    found = []
    for place in map(frames.field_place, info.fields):
        # Nothing is averaged where it is not known how far away the image is.
        away = math.pi if shifted else 0.0
        if place is None:
            found.append(_View(half + away))
            continue
        if middle is not None:
            away = float(place.separation(middle).rad)
        dec = float(place.transform_to(FK5(equinox="J2000")).dec.rad)
        found.append(_View(half + away, place, dec))
    return found
