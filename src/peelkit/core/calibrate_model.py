"""MODEL_DATA of a calibrator: a point by formula, or a standard source by CASA's setjy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from peelkit.core.calibrate_plan import (
    CALIBRATORS,
    MATCH_DEG,
    PointModel,
    StandardModel,
    band,
    position,
)
from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms


def point_flux(model: PointModel, freq_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Flux density [Jy] of a point at ``freq_hz``: ``S (nu / nu0)^alpha``."""
    if model.ref_hz is None:
        return np.full(freq_hz.shape, model.flux_jy)
    return np.asarray(model.flux_jy * (freq_hz / model.ref_hz) ** model.alpha)


def write_point(
    work: ms.MsInfo, rows: NDArray[np.int64], model: PointModel, *, scale: dict[int, float]
) -> None:
    """Write a point at the phase centre to MODEL_DATA of ``rows``; cross hands are 0.

    Parameters
    ----------
    scale : dict of float
        Factor for each spw; 1 where it is not named.
    """
    with ms.opened(work.path, write=True) as main:
        for description, chunk in ms.chunks(main, work, rows):
            values = np.zeros_like(ms.get(main, "DATA", chunk))
            flux = point_flux(model, work.spws[description.spw].freq_hz)
            flux = flux * scale.get(description.spw, 1.0)
            values[:, :, ms.parallel_hands(description.correlations)] = flux[:, None]
            ms.put(main, "MODEL_DATA", chunk, values)


def write_standard(
    casa: engine.Casa,
    work: ms.MsInfo,
    model: StandardModel,
    *,
    fields: Sequence[int],
    spws: Sequence[int],
    standard: str,
) -> tuple[dict[int, float], str]:
    """Let setjy write a standard calibrator to MODEL_DATA of the working copy, and check it.

    Returns
    -------
    dict of float
        Flux density [Jy] of each spw.
    str
        What the model is, in words.

    Raises
    ------
    DataError
        If the field is another source, or CASA's data have no such standard or source.
    """
    name = match(work.fields[fields[0]], model.name)
    images = engine.calibrator_images(casa)
    if images is None:
        raise DataError(
            f"model {model.name or 'standard'}: CASA's data in {casa.data} have no calibrators; install "
            "casadata (pip install 'peelkit[casadata]'), or give the flux as --model point:...Jy."
        )
    fluxes: dict[int, float] = {}
    used: set[str] = set()
    for spw in spws:
        image = f"{name}_{band(work.spws[spw].centre_hz)}.im"
        used.add(image if image in images else "a point")
        for field in fields:
            fluxes |= engine.set_standard_model(
                casa, work.path, field=field, spws=[spw], standard=standard,
                model=image if image in images else "",
            )  # fmt: skip
    for spw in spws:
        # Exactly 1 is setjy's answer where it knows nothing; it only logs that.
        if fluxes.get(spw, 1.0) == 1.0:
            raise DataError(
                f"field {work.fields[fields[0]].name}: {standard} does not know this source in spw {spw}; "
                "choose another --standard, or give its flux as --model point:...Jy."
            )
    return fluxes, f"{name or work.fields[fields[0]].name} ({standard}, {', '.join(sorted(used))})"


def match(field: ms.Field, wanted: str) -> str:
    """Name of the standard source at a field's position; empty if none is there.

    Raises
    ------
    DataError
        If another was wanted: setjy would put the flux of one on the structure of the other.
    """
    centre = position(field)
    there = ""
    for name, (ra, dec) in CALIBRATORS.items():
        if centre.separation(SkyCoord(ra * u.deg, dec * u.deg)).deg < MATCH_DEG:
            there = name
    if wanted and there != wanted:
        raise DataError(
            f"field {field.name}: is not at the position of {wanted}"
            + (f" but at that of {there}" if there else "")
            + "; choose the --field, or another --model."
        )
    return there


def fill_others(
    info: ms.MsInfo, work: ms.MsInfo, rows: NDArray[np.int64], fields: Sequence[int]
) -> None:
    """Give rows of other fields in the copy the MODEL_DATA that the MS has, or CASA's default of 1.

    Parameters
    ----------
    rows : ndarray of int, shape (row,)
        Row of the MS for each row of the copy.
    fields : sequence of int
        Fields of the calibrator, which have a model of their own.
    """
    with ms.opened(work.path, write=True) as copy, ms.opened(info.path) as main:
        for description, chunk in ms.chunks(copy, work, ms.every_row(work)):
            other = chunk[~np.isin(ms.get(copy, "FIELD_ID", chunk), list(fields))]
            if not other.size:
                continue
            if "MODEL_DATA" in info.columns:
                values = ms.get(main, "MODEL_DATA", rows[other])
            else:
                values = np.zeros_like(ms.get(copy, "DATA", other))
                values[:, :, ms.parallel_hands(description.correlations)] = 1
            ms.put(copy, "MODEL_DATA", other, values)
