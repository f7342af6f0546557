"""Take over from another image what would come out the same: its PSF, and a model to begin with."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import imagers, imaging, wsclean_images
from peelkit.engines import casa as engine
from peelkit.engines.wsclean import Wsclean
from peelkit.io import ms

# What PSF and sums of weights are made of: where each sample lies in uv, and what it counts. TIME is there
# since tclean grids in the LSRK frame; ANTENNA1 and ANTENNA2 since dishes have primary beams.
MARKED = (
    "FIELD_ID", "TIME", "ANTENNA1", "ANTENNA2", "UVW", "FLAG_ROW", "FLAG", "WEIGHT", "WEIGHT_SPECTRUM",
)  # fmt: skip


def mark(info: ms.MsInfo, rows: NDArray[np.int64], also: Sequence[str] = ()) -> str:
    """Hash of all that a PSF of these rows depends on, but for how it is made.

    Two selections of rows with one mark have the same PSF, whatever their visibilities. The order of rows
    counts; how they are cut into chunks does not.

    Parameters
    ----------
    rows : ndarray of int, shape (row,)
        Rows that are imaged.
    also : sequence of str
        More columns that count, such as the data.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    total = hashlib.blake2b(digest_size=16)
    for field in info.fields:
        total.update(f"{field.ra_rad!r} {field.dec_rad!r} {field.frame};".encode())
    with ms.opened(info.path) as main:
        parts: dict[tuple[int, str], hashlib.blake2b] = {}
        for description, chunk in ms.chunks(main, info, rows):
            for name in (*MARKED, *also):
                # WEIGHT_SPECTRUM is often there and empty.
                if not ms.has_cells(main, name, int(chunk[0])):
                    continue
                key = (description.id, name)
                if key not in parts:
                    parts[key] = hashlib.blake2b(digest_size=16)
                parts[key].update(ms.get(main, name, chunk).tobytes())
    for (number, name), part in sorted(parts.items()):
        description = next(item for item in info.data_descriptions if item.id == number)
        spw = info.spws[description.spw]
        total.update(f"{number} {name} {description.correlations} {spw.frame}".encode())
        total.update(spw.freq_hz.tobytes())
        total.update(spw.width_hz.tobytes())
        total.update(part.digest())
    return total.hexdigest()


def mark_of(path: Path) -> str:
    """`mark` of all rows of an MS."""
    info = ms.read_info(path)
    return mark(info, ms.every_row(info))


def take_psf(imager: imagers.Imager, source: Path, imagename: Path, made: engine.Imaging) -> bool:
    """Copy PSF, sums of weights and primary beam of ``source`` to ``imagename``.

    Returns
    -------
    bool
        Whether they were all there: the imager then need not make them.
    """
    if isinstance(imager, Wsclean):
        return wsclean_images.take_psf(imager, source, imagename)
    found = _copies(source, imagename, imaging.PSF_PRODUCTS)
    needed = {made.psf(imagename).name, f"{imagename.name}.sumwt{made.suffix}"}
    if made.is_mosaic:
        needed |= {f"{imagename.name}.weight{made.suffix}", made.pb(imagename).name}
    if not needed <= {target.name for _, target in found}:
        return False
    _copy(found)
    return True


def take_model(imager: imagers.Imager, source: Path, imagename: Path, made: engine.Imaging) -> None:
    """Copy the model of ``source`` to ``imagename``: tclean begins with what the data have beyond it.

    WSClean, which begins with nothing, takes over the depth that it is likely to reach.

    Each major cycle lowers the residual by about the PSF's highest sidelobe: with the bright sources in
    from the beginning most are saved (3C273: 12 of an image before, 2 or 3 after, and the rms 1 % lower).
    """
    if isinstance(imager, Wsclean):
        wsclean_images.expect(imager, made.residual(source), imagename)
        return
    pairs = list(zip(made.models(source), made.models(imagename), strict=True))
    if all(one.exists() for one, _ in pairs):
        _copy(pairs)


def _copies(source: Path, imagename: Path, kinds: frozenset[str]) -> list[tuple[Path, Path]]:
    return [
        (path, imagename.with_name(imagename.name + path.name.removeprefix(source.name)))
        for path in imaging.products(source)
        if imaging.kind(path, source) in kinds and path.is_dir()
    ]


def _copy(pairs: list[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        # Copies, not links: CASA writes its history into what it finds.
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
