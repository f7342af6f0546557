"""The work of ``peelkit import-uvfits``: a Measurement Set of a UVFITS file.

Older data, such as the VLA's archive before 2010, come as UVFITS; all else here works on an MS.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms, newms
from peelkit.io.survey import survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

COMMAND = "import-uvfits"

# A FITS header is made of cards of 80 characters, in blocks of 2880.
CARD, BLOCK = 80, 2880


def import_uvfits(
    fitsfile: Path, out: Path, *, overwrite: bool, progress: Progress | None = None
) -> Outcome:
    """Make the MS ``out`` of a UVFITS file.

    It is made under another name beside it, so that a run that is killed leaves nothing, or the old one:
    at worst, in the moment between two renamings, as ``<out>.old``.

    Raises
    ------
    DataError
        If the file is no UVFITS, or ``out`` exists and may not be replaced.
    """
    progress = progress or Progress()
    check_uvfits(fitsfile)
    newms.refuse_other(out, overwrite=overwrite)
    # Twice the file: CASA writes weights and flags of every visibility too.
    newms.require_space(out, 2 * fitsfile.stat().st_size)
    progress.stage("importing")
    log_path = out.with_name(f"{out.name}.import.casa.log")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        made = Path(folder) / "new.ms"
        with engine.Casa(log_path) as casa:
            engine.import_uvfits(casa, fitsfile, made)
            made_by = casa.engine()
        put_in_place(made, out)
    info = ms.read_info(out)
    progress.stage("reading what is in it")
    found = survey(info, Selection(), progress)
    fields = [_field(info, found, field.id) for field in info.fields]
    return Outcome(
        results={
            "ms": str(out),
            "telescope": info.telescope,
            "rows": info.n_rows,
            "antennas": [antenna.name for antenna in info.antennas],
            "scans": list(info.scans),
            "unflagged_fraction": found.unflagged,
            "integration_s": found.integration_s,
            "fields": fields,
            "spws": [
                {
                    "id": spw.id,
                    "channels": len(spw.freq_hz),
                    "centre_hz": spw.centre_hz,
                    "bandwidth_hz": spw.bandwidth_hz,
                    "frame": spw.frame,
                }
                for spw in info.spws
            ],
            "correlations": list(info.data_descriptions[0].correlations),
        },
        inputs={"fitsfile": str(fitsfile)},
        reads=(str(fitsfile),),
        writes=(str(out),),
        engine=made_by,
    )


def put_in_place(made: Path, out: Path) -> None:
    """Rename a finished MS to ``out``. An MS that is there, and its flag versions, are deleted after that only."""
    flags = out.with_name(f"{out.name}.flagversions")
    moved: list[tuple[Path, Path]] = []
    try:
        for path in (out, flags):
            if path.exists():
                aside = _free(path.with_name(f"{path.name}.old"))
                path.rename(aside)
                moved.append((aside, path))
        made.rename(out)
    except BaseException:
        for aside, path in reversed(moved):
            aside.rename(path)
        raise
    for aside, _ in moved:
        shutil.rmtree(aside, ignore_errors=True)


def _free(path: Path) -> Path:
    """The path, or with a number what is not there yet."""
    number = 1
    while path.exists():
        number += 1
        path = path.with_suffix(f".old{number}")
    return path


def _field(info: ms.MsInfo, found: Any, field: int) -> dict[str, Any]:
    return {
        "id": field,
        "name": info.fields[field].name,
        "scans": sorted({visit.scan for visit in found.visits if visit.field == field}),
        "on_source_s": found.on_source_s(field),
    }


def check_uvfits(path: Path) -> None:
    """Raise `DataError` unless the file is FITS with random groups, which visibilities are kept in."""
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        with path.open("rb") as stream:
            head = stream.read(BLOCK).decode("ascii", "replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    cards = {head[i : i + 8].strip(): head[i + 10 : i + 30].strip() for i in range(0, BLOCK, CARD)}
    if cards.get("SIMPLE") != "T":
        raise DataError(f"{path}: is no FITS file; give the UVFITS of the visibilities.")
    if cards.get("GROUPS") != "T":
        raise DataError(
            f"{path}: is FITS, but holds no visibilities (no random groups); an image, or FITS-IDI, which "
            "CASA's importfitsidi reads?"
        )
