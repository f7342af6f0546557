"""The work of ``peelkit import-uvfits``: a Measurement Set of a UVFITS file.

Older data, such as the VLA's archive before 2010, come as UVFITS; all else here works on an MS.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import ms, newms
from peelkit.io.survey import survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

COMMAND = "import-uvfits"

# Numbers of baselines from here on are those of more than 255 antennas (AIPS Memo 117).
WIDE_BASELINES = 65536


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
    from_zero = counts_from_zero(fitsfile)
    # Twice the file: CASA writes weights and flags of every visibility too.
    newms.require_space(out, (3 if from_zero else 2) * fitsfile.stat().st_size)
    progress.stage("importing")
    log_path = out.with_name(f"{out.name}.import.casa.log")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        made = Path(folder) / "new.ms"
        source = count_from_one(fitsfile, Path(folder) / "from-one.fits") if from_zero else fitsfile
        with engine.Casa(log_path) as casa:
            engine.import_uvfits(casa, source, made)
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
        warnings=(
            f"{fitsfile}: counts its antennas from 0, where UVFITS counts from 1: antenna 0 is antenna 1 here, "
            "and so on.",
        )
        if from_zero
        else (),
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
        # The header alone is read; where GROUPS stands in it is the writer's choice.
        with fits.open(path, memmap=True) as hdus:
            has_groups = isinstance(hdus[0], fits.GroupsHDU)
    except OSError as error:
        why = error.strerror or "give the UVFITS of the visibilities"
        raise DataError(f"{path}: is no FITS file that can be read ({why}).") from error
    if not has_groups:
        raise DataError(
            f"{path}: is FITS, but holds no visibilities (no random groups); an image, or FITS-IDI, which "
            "CASA's importfitsidi reads?"
        )


def counts_from_zero(path: Path) -> bool:
    """Whether the antennas of a UVFITS file have numbers from 0 (AIPS Memo 117 has them from 1)."""
    with fits.open(path, memmap=True) as hdus:
        return any(np.any(table.data["NOSTA"] == 0) for table in _antenna_tables(hdus))


def count_from_one(path: Path, copy: Path) -> Path:
    """Copy a UVFITS file with the numbers of its antennas one higher; gives ``copy``.

    CASA takes one off each number, and fails on antenna -1. The data stay as they are: a baseline is a
    scaled parameter, and its zero point is moved.

    Raises
    ------
    DataError
        If its baselines are numbered in a way that has no such step.
    """
    shutil.copyfile(path, copy)
    with fits.open(copy, mode="update", memmap=True) as hdus:
        header = hdus[0].header
        names = {
            str(header.get(f"PTYPE{n}", "")).strip(): n for n in range(1, header["PCOUNT"] + 1)
        }
        if "BASELINE" in names:
            numbers = hdus[0].data.par("BASELINE")
            # 256 a + b, or 65536 + 2048 a + b in arrays of more than 255 antennas.
            wide = np.asarray(numbers >= WIDE_BASELINES)
            if wide.any() and not wide.all():
                raise DataError(
                    f"{path}: counts its antennas from 0, with baselines numbered in two ways; write it again "
                    "with antennas from 1."
                )
            steps = {"BASELINE": 2049.0 if wide.any() else 257.0}
        else:
            steps = {"ANTENNA1": 1.0, "ANTENNA2": 1.0}
        for name, step in steps.items():
            key = f"PZERO{names[name]}"
            header[key] = header.get(key, 0.0) + step
        for table in _antenna_tables(hdus):
            table.data["NOSTA"] += 1
    return copy


def _antenna_tables(hdus: fits.HDUList) -> list[fits.BinTableHDU]:
    return [hdu for hdu in hdus[1:] if hdu.name.startswith("AIPS AN")]
