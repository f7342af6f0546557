"""Images by WSClean, with the names and units that tclean's have: what it can do, and its products as CASA images."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.coordinates import FK5, Angle
from numpy.typing import NDArray

from peelkit.core import restoring
from peelkit.core.measure import robust_rms
from peelkit.core.uvrange import in_range
from peelkit.engines import wsclean as engine
from peelkit.engines.casa import Imaging
from peelkit.engines.wsclean import Products
from peelkit.errors import DataError, OptionError
from peelkit.io import frames, ms
from peelkit.io.fitsplace import PLACED, place
from peelkit.io.image import Image, read_image, write_like
from peelkit.io.survey import C_M_S
from peelkit.selection import Selection

log = logging.getLogger(__name__)

# With Taylor terms the band is imaged in parts of this fractional width at most: within one a source of spectral
# index -0.7 changes by 1 per cent rms. (Four spws of a field with 38 sources: rms 63.1 uJy/beam in 4 parts, in 16
# of a fourth of the width 62.5, in five times the time; in 7 or 11, which spws are cut by, 71 and 67.)
SUB_BAND = 0.05
MOST_SUB_BANDS = 16

GRIDDER = "wgridder"

# From one major cycle to the next the peak comes down to this share at least and at most, and in between to so many
# times nsigma and the noise of the dirty image over its peak. Below 1.5 times cleaning can end at once (see
# `peelkit.engines.wsclean`).
LEAST_STEP, MOST_STEP = 0.15, 0.6
STEP_OVER_SIDELOBES = 2.5

# It ended too early, or too deep, if the noise that it went by was so many times that of the residual, or the other
# way round. Then again, down to nsigma times the latter, and so on.
OFF = 1.2
MOST_AGAIN = 3


def check(imaging: Imaging, info: ms.MsInfo, fields: Sequence[int], spw: str) -> None:
    """Refuse what WSClean cannot image, or cannot from here; also if it is not installed.

    Raises
    ------
    OptionError
        With the remedy, in one line.
    EngineError
        If it is not on PATH.
    """
    engine.find()
    remedy = "use --imager tclean"
    if len(fields) > 1 or imaging.is_mosaic:
        raise OptionError(
            f"--imager wsclean: {len(fields)} fields need a mosaic, and WSClean has no primary beams of these dishes; "
            f"{remedy}, or choose one field with --field."
        )
    if imaging.polarised:
        raise OptionError(
            f"--stokes {imaging.stokes}: --imager wsclean is for Stokes I here; {remedy}."
        )
    if info.fields[fields[0]].track:
        raise OptionError(
            f"--imager wsclean: field {fields[0]} of {info.path} moves, which it does not know; {remedy}."
        )
    frame = info.fields[fields[0]].frame
    if frame not in PLACED:
        raise OptionError(
            f"--imager wsclean: field {fields[0]} of {info.path} has its direction in {frame}, which it does not "
            f"know; {remedy}."
        )
    _refuse_part_of_spw(info, spw)


def _refuse_part_of_spw(info: ms.MsInfo, spw: str) -> None:
    for number, ranges in info.channels(Selection(spw=spw)).items():
        if {c for low, high in ranges for c in range(low, high + 1)} != set(
            range(len(info.spws[number].freq_hz))
        ):
            raise OptionError(
                f"--imager wsclean: a part of the channels of spw {number} ({spw or 'those with a line'}) is not "
                "what it can select; use --imager tclean, or split these channels off first."
            )


def clean(
    wsclean: engine.Wsclean,
    path: Path,
    imagename: Path,
    imaging: Imaging,
    *,
    field: str,
    spw: str,
    datacolumn: str,
    mask: Path | None,
    nsigma: float,
    observation: str = "",
    resume: bool = False,
    model_changed: bool = False,
    psf_there: bool = False,
) -> None:
    """Make an image, as `peelkit.engines.casa.clean` does: the same names, units and meaning of the arguments.

    ``resume`` cleans the same data in another mask. It is done anew from the dirty image, which is kept, whether the
    model was changed or not: WSClean has no cheap way to go on.

    With Taylor terms the band is imaged in parts, which are cleaned together; the components of the parts lie on
    a polynomial in frequency, whose coefficients are the Taylor terms. The image is the first term with the
    residual of the whole band, so its noise is that of an image without terms.

    Raises
    ------
    OptionError, EngineError
        If it cannot.
    """
    info = ms.read_info(path)
    number = int(field)
    with _selected(
        wsclean, info, Selection(field=field, spw=spw), imaging, observation, datacolumn
    ) as chosen:

        def run(
            mask: Path | None, gain: float = 0.0, threshold_jy: float = 0.0,
            *, keep_psf: bool = True, keep_dirty: bool = True,
        ) -> Products:  # fmt: skip
            return engine.clean(
                wsclean, chosen.path, imagename.name, imaging, field=number, spws=chosen.spws,
                datacolumn=chosen.column, mask=mask, nsigma=nsigma, threshold_jy=threshold_jy,
                cycle_gain=gain, sub_bands=sub_bands(imaging, info, chosen.spws),
                shift=_shift(imaging.phasecenter), keep_psf=keep_psf, keep_dirty=keep_dirty,
            )  # fmt: skip

        found = run(None, keep_psf=resume or psf_there, keep_dirty=resume)
        if mask is not None:
            inside = read_image(mask).data > 0.5
            mask_fits = wsclean.scratch / f"{imagename.name}-mask.fits"
            write_like(mask_fits, inside, read_image(found.dirty), unit="", overwrite=True)
            peak, noise = _peak_and_noise(found.dirty, inside)
            step = STEP_OVER_SIDELOBES * nsigma * noise / peak if peak > 0 else LEAST_STEP
            gain = 1 - min(MOST_STEP, max(LEAST_STEP, step))
            known = wsclean.noise_jy.get(imagename.name, 0.0)
            found = run(mask_fits, gain, nsigma * known)
            reached = known or found.noise_jy
            for _ in range(MOST_AGAIN):
                peak, noise = _peak_and_noise(found.residual, inside)
                early = peak > OFF * nsigma * noise and reached > OFF * noise
                if not early and noise <= OFF * reached:
                    break
                log.debug("WSClean stopped at %.2g times the noise; again", reached / noise)
                found, reached = run(mask_fits, gain, nsigma * noise), noise
            wsclean.noise_jy[imagename.name] = _peak_and_noise(found.residual, inside)[1]
    _write(imagename, imaging, found, info.fields[number])


def take_psf(wsclean: engine.Wsclean, source: Path, imagename: Path) -> bool:
    """Keep the PSF of ``source``, an image of the same weights that was made before in this command.

    Returns
    -------
    bool
        Whether there was one.
    """
    return engine.take_psf(wsclean, source.name, imagename.name)


def expect(wsclean: engine.Wsclean, residual: Path, imagename: Path) -> None:
    """Clean ``imagename`` to the noise of another image's residual first, which saves a run that finds out."""
    if residual.exists():
        wsclean.noise_jy[imagename.name] = robust_rms(read_image(residual).data)


def sub_bands(imaging: Imaging, info: ms.MsInfo, spws: Sequence[int]) -> int:
    """Parts that the band is imaged in; 1 without Taylor terms."""
    if imaging.nterms == 1:
        return 1
    freqs = np.unique(np.concatenate([info.spws[spw].freq_hz for spw in spws]))
    fewest, most = min(2 * imaging.nterms, freqs.size), min(MOST_SUB_BANDS, freqs.size)
    for count in range(fewest, most):
        # As WSClean splits it: as many channels in each, whatever gaps there are between them.
        if max(np.ptp(part) / part.mean() for part in np.array_split(freqs, count)) <= SUB_BAND:
            return count
    return most


def _shift(phasecenter: str) -> tuple[str, str] | None:
    """Middle of the image in WSClean's words, from CASA's: frame, right ascension, declination."""
    if not phasecenter:
        return None
    middle = frames.direction(phasecenter)
    if middle is None:
        name = phasecenter.split()[0]
        raise OptionError(
            f"--imager wsclean: {phasecenter} is in {name}, which it does not know; use --imager tclean."
        )
    place = middle.transform_to(FK5(equinox="J2000"))
    return (
        Angle(place.ra).to_string(unit="hourangle", sep="hms", precision=5),
        Angle(place.dec).to_string(unit="deg", sep="dms", precision=4, alwayssign=True),
    )


# ---------------------------------------------------------------- what is imaged


@dataclass(frozen=True)
class _Chosen:
    """What WSClean is told to read."""

    path: Path
    column: str
    spws: list[int]


@contextmanager
def _selected(
    wsclean: engine.Wsclean,
    info: ms.MsInfo,
    selection: Selection,
    imaging: Imaging,
    observation: str,
    datacolumn: str,
) -> Iterator[_Chosen]:
    """Give the MS, or one that refers to the rows wanted where WSClean could not choose them itself.

    Those are: rows flagged by FLAG_ROW, which it does not look at; executions; and baselines, which it chooses
    channel by channel, and CASA by the middle of their spw.
    """
    rows = ms.select_rows(info, selection)
    column = info.data_column(datacolumn)
    keep = np.ones(rows.size, dtype=bool)
    spws = set()
    with ms.opened(info.path) as main:
        for start, count in ms.row_ranges(rows.size, 64):
            part = rows[start : start + count]
            wanted = ~ms.get(main, "FLAG_ROW", part).astype(bool)
            if observation:
                wanted &= ms.get(main, "OBSERVATION_ID", part) == int(observation)
            ddids = ms.get(main, "DATA_DESC_ID", part)
            lengths = np.hypot(*ms.get(main, "UVW", part)[:, :2].T) if imaging.uvrange else None
            for ddid in np.unique(ddids):
                own = ddids == ddid
                spw = info.data_descriptions[ddid].spw
                if lengths is not None:
                    per_m = float(info.spws[spw].freq_hz.mean()) / C_M_S
                    wanted[own] &= in_range(imaging.uvrange, lengths[own], per_m)
                if wanted[own].any():
                    spws.add(spw)
            keep[start : start + part.size] = wanted
    if not spws:
        raise DataError(f"{info.path}: nothing is left to image; is all flagged?")
    if keep.all():
        yield _Chosen(info.path, column, sorted(spws))
        return
    view = wsclean.scratch / "view.ms"
    ms.refer_to_rows(info.path, view, rows[keep], data_column=column)
    try:
        yield _Chosen(view, "DATA", sorted(spws))
    finally:
        shutil.rmtree(view, ignore_errors=True)


# ---------------------------------------------------------------- what comes out


def _peak_and_noise(path: Path, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Peak in the mask, and noise of an image as WSClean takes it: of the whole, by its median deviation."""
    data = read_image(path).data
    return float(np.nanmax(np.abs(data[inside]))), robust_rms(data)


def _write(imagename: Path, imaging: Imaging, found: Products, centre: ms.Field) -> None:
    """Write psf, residual, models and image as CASA images; the FITS files of this run are deleted."""
    template = found.psf.with_name("template.fits")
    # Of the dirty image, since the PSF has no date; and a copy, since WSClean may read it again and does not
    # know all frames.
    shutil.copyfile(found.dirty, template)
    place(template, centre)
    psf = replace(read_image(template), data=read_image(found.psf).data)
    beam = restoring.fit_beam(psf.data, psf.cell_arcsec)
    if beam is None:
        raise DataError(f"{imagename}: the PSF has no main lobe; is there enough unflagged data?")
    like = replace(psf, beam=beam, unit="Jy/beam")
    terms = _taylor_terms([read_image(path) for path in found.models], imaging.nterms, psf)
    residual = np.nan_to_num(read_image(found.residual).data)
    image = restoring.restored(residual, terms[0], beam, psf.cell_arcsec)
    write_like(imaging.psf(imagename), psf.data, replace(like, unit=""), overwrite=True)
    write_like(imaging.residual(imagename), residual, like, overwrite=True)
    write_like(imaging.image(imagename), image, like, overwrite=True)
    for path, plane in zip(imaging.models(imagename), terms, strict=True):
        write_like(path, plane, replace(like, beam=None, unit="Jy/pixel"), overwrite=True)
    for path in (found.residual, *found.models):
        if found.models:
            path.unlink()


def _taylor_terms(models: list[Image], nterms: int, like: Image) -> NDArray[np.float64]:
    """Coefficients of the polynomial in ``nu / nu_0 - 1`` on which sub-bands lie, shape (term, ny, nx).

    ``nu_0`` is the middle of the band, as in tclean.
    """
    terms = np.zeros((nterms, *like.data.shape))
    if not models:
        return terms
    cube = np.array([np.nan_to_num(model.data) for model in models], dtype=np.float64)
    ys, xs = np.nonzero(cube.any(axis=0))
    if like.freq_hz is None:
        raise DataError(f"{like.path}: WSClean wrote no frequency.")
    x = np.array([(model.freq_hz or 0.0) / like.freq_hz - 1 for model in models])
    powers = np.vander(x, min(nterms, len(models)), increasing=True)
    if len(models) == 1:
        powers = np.ones((1, 1))
    terms[: powers.shape[1], ys, xs] = np.linalg.lstsq(powers, cube[:, ys, xs], rcond=None)[0]
    return terms
