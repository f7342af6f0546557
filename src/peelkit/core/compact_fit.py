"""Fitting bright sources as points or Gaussians to the data, without all else that is in the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.coordinates import ICRS
from numpy.typing import NDArray

from peelkit.core.compact import ARCSEC_RAD, CANNOT_TURN, Compact
from peelkit.core.compact_shape import (
    LEAST_SNR,
    Size,
    Spectrum,
    fit_offset,
    fit_size,
    fit_spectrum,
    judge,
    offset_place,
)
from peelkit.core.compact_sums import Seen, Sums, errors_of_antennas
from peelkit.core.dd_data import Block, Rows, blocks, gather
from peelkit.core.modelcol import Predictor, Samples, Sky
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import SkyModel, field_basis
from peelkit.errors import DataError
from peelkit.io import ms, rownumbers
from peelkit.progress import Progress

# Time bins of the sums: phases of a place a beam off turn little within one, antenna errors average out.
TIME_BINS = 24

# More visibilities than these tell nothing new: whole integrations are left out, evenly.
MAX_SAMPLES = 20_000_000

# Fields that see a source through less than this primary beam say nothing of it. Tables of beams end at the first
# null or before it; antennas do not, and what these fields show of it is for `peelkit.core.apparent`.
LEAST_POWER = 0.05


@dataclass(frozen=True)
class Asked:
    """A source to fit: its part of the CLEAN model, and shape (``auto``, ``point``, ``gaussian``)."""

    label: str
    clean: SkyModel
    kind: str


@dataclass(frozen=True)
class Fitted:
    """What a source is.

    Parameters
    ----------
    shape : str
        ``point``, ``gaussian`` or ``clean``.
    model : Compact or None
        None for ``clean``.
    position_error_arcsec, spectrum_rms : float
        Error of either coordinate; rms of the channels about the spectrum, relative.
    size : Size
        As the amplitudes have it, whatever the shape.
    reason : str
        Why, in words.
    warning : str or None
        If the data contradict the shape that was asked for.
    """

    shape: str
    model: Compact | None
    position_error_arcsec: float
    spectrum_rms: float
    size: Size
    reason: str
    warning: str | None


def fit_compact(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    asked: Sequence[Asked],
    others: Sequence[Sky],
    *,
    reference_hz: float,
    beam: Beam | None = None,
    progress: Progress | None = None,
) -> list[Fitted]:
    """Fit each source to ``column`` without ``others`` and without the other sources.

    Passes over the data, with the place, spectrum and size of the one before: the first finds the
    places, the second the shapes, a third what sizes and better neighbours change.

    Parameters
    ----------
    info : MsInfo
        The MS.
    rows : ndarray of int
        Which.
    column : str
        Data.
    asked : sequence of Asked
        The sources.
    others : sequence of SkyModel or Compact
        All else that is in the data.
    reference_hz : float
        Where fluxes are given [Hz].
    beam : Beam, optional
        Primary beam of each field of a mosaic; fluxes are then of the sky.

    Raises
    ------
    DataError
        If there are no data, or nothing of a source is in them.
    """
    progress = progress or Progress()
    selected = gather(info, thinned(info, rows), combine_fields=False)
    work = [_Source(one, _start(one.clean, reference_hz)) for one in asked]
    for number in range(3):
        progress.stage(f"fitting sources, pass {number + 1}", total=selected.rows.size)
        sums = _one_pass(selected, column, work, others, beam, progress)
        work = [
            one.updated(info, of, number, reference_hz) for one, of in zip(work, sums, strict=True)
        ]
        has_size = any(one.guess.major_arcsec > 0 for one in work)
        if number == 1 and len(work) == 1 and not has_size:
            break
    return [one.fitted() for one in work]


@dataclass(frozen=True)
class _Source:
    """A source between passes."""

    asked: Asked
    guess: Compact
    error_rad: float = 0.0
    spectrum: Spectrum | None = None
    size: Size | None = None
    noise: float = math.inf

    @property
    def shape(self) -> str:
        if self.asked.kind != "auto":
            return self.asked.kind
        return judge(self.size)[0] if self.size is not None else "point"

    @property
    def sky(self) -> Sky:
        """Best known, for the others to be fitted without it."""
        if self.spectrum is None or self.shape == "clean":
            return self.asked.clean
        return self.guess

    def updated(self, info: ms.MsInfo, sums: Sums, number: int, reference_hz: float) -> _Source:
        """Take what a pass found; sizes from the second on, since they need the place."""
        if not sums.weight.any():
            raise DataError(
                f"{self.asked.label}: no unflagged data of fields that see it; use --shape clean."
            )
        east, north, error = fit_offset(sums, search=number == 0)
        guess = offset_place(self.guess, east, north)
        spectrum = fit_spectrum(info, sums, reference_hz)
        if spectrum is None:
            raise DataError(
                f"{self.asked.label}: no positive flux at its place in the data; use --shape clean, or "
                "another --datacolumn."
            )
        guess = replace(guess, flux_jy=spectrum.flux_jy, spectrum=spectrum.coefficients)
        found = replace(
            self, guess=guess, error_rad=error, spectrum=spectrum, noise=sums.noise_scale
        )
        if number == 0:
            return found
        size = fit_size(sums)
        found = replace(found, size=size)
        is_gaussian = found.shape == "gaussian"
        return replace(
            found,
            guess=replace(
                guess,
                major_arcsec=size.major_arcsec if is_gaussian else 0.0,
                minor_arcsec=size.minor_arcsec if is_gaussian else 0.0,
                pa_deg=size.pa_deg if is_gaussian else 0.0,
            ),
        )

    def fitted(self) -> Fitted:
        assert self.size is not None and self.spectrum is not None
        found, reason = judge(self.size)
        warning = None
        if self.asked.kind not in ("auto", found):
            warning = f"{self.asked.label}: {self.asked.kind} as asked for, but the data say {found}: {reason}"
            reason = f"as asked for; the data say {reason}"
        return Fitted(
            shape=self.shape,
            model=None if self.shape == "clean" else self.guess,
            position_error_arcsec=self.error_rad / ARCSEC_RAD,
            spectrum_rms=self.spectrum.rms,
            size=self.size,
            reason=reason,
            warning=warning,
        )


def _start(clean: SkyModel, reference_hz: float) -> Compact:
    """A point of unit flux at the brightest component; CLEAN's centroid may be between islands."""
    peak = int(np.argmax(clean.reference()))
    place = clean.grid.like.sky(float(clean.xs[peak]), float(clean.ys[peak]))
    return Compact(float(place.ra.deg), float(place.dec.deg), 1.0, reference_hz)


def thinned(info: ms.MsInfo, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of so many integrations, evenly spread, that at most `MAX_SAMPLES` are read."""
    n_chan = [info.spws[one.spw].freq_hz.size for one in info.data_descriptions]
    with ms.opened(info.path) as main:
        step = -(-int(rownumbers.counts(main, rows, len(n_chan)) @ n_chan) // MAX_SAMPLES)
        if step <= 1:
            return rows
        return rownumbers.at_times(main, rows, rownumbers.times(main, rows)[::step])


def _one_pass(
    selected: Rows,
    column: str,
    work: Sequence[_Source],
    others: Sequence[Sky],
    beam: Beam | None,
    progress: Progress,
) -> list[Sums]:
    info = selected.info
    predictor = Predictor(info, beam)
    all_times = np.unique(np.concatenate([axis.times_s for axis in selected.axes.values()]))
    n_bins = min(TIME_BINS, all_times.size)
    sums = [Sums(len(info.spws), n_bins, len(info.antennas)) for _ in work]
    nothing = True
    with ms.opened(info.path) as main:
        for block in blocks(selected, column, [], main):
            where = Samples.read(main, block.rows, block.description.spw)
            bins = np.searchsorted(all_times, block.times_s) * n_bins // all_times.size
            skies = [predictor.visibilities(one.sky, where) for one in work]
            whole = np.sum(
                [*skies, *(predictor.visibilities(sky, where) for sky in others)], axis=0
            )
            data = block.data[:, :, block.hands].astype(np.complex128)
            # What is subtracted has the antennas' errors too; a first pass has no model to find them.
            phasor = errors_of_antennas(
                block, data, whole, len(info.antennas),
                least_snr=LEAST_SNR, noise=min(one.noise for one in work),
            )[:, None, :]  # fmt: skip
            nothing &= not block.data.any()
            for one, own, of in zip(work, skies, sums, strict=True):
                seen = _seen(info, one, block, where, beam)
                if seen.power.max() >= LEAST_POWER:
                    of.add(block, data - (whole - own)[..., None] * phasor, bins, seen)
            progress.advance(block.rows.size)
    if nothing:
        raise DataError(f"{info.path}: {column} is all zero; use another --datacolumn.")
    return sums


def _seen(info: ms.MsInfo, one: _Source, block: Block, where: Samples, beam: Beam | None) -> Seen:
    field, times = info.fields[int(where.fields[0])], where.time_s
    freq = info.spws[where.spw].freq_hz
    flux = one.guess.flux(freq)
    point = Compact(one.guess.ra_deg, one.guess.dec_deg, 1.0, one.guess.reference_hz)
    # The axes turn by far less than a size shows, even for a field that moves.
    middle = field.at(float(times.mean()))
    uv = where.uvw_m @ field_basis(middle, ICRS(), CANNOT_TURN) @ point.basis[:2].T
    power = np.ones(freq.size) if beam is None else point.power(middle, freq, beam)
    fringe = point.visibilities(field, where.uvw_m, freq, time_s=times)
    return Seen(fringe, power, flux, one.guess.taper(uv, freq), uv, freq)
