"""A copy of the selected data in which QuartiCal 0.2.7 does not stumble.

What it stumbles on, all seen by running it: FEED rows that are not one for each antenna; more than
one POLARIZATION row; data description ids that are not spw ids; NaN; FLAG_ROW without FLAG; and
thousands of groups, for which fields can be put together.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms


@dataclass(frozen=True)
class Family:
    """Data descriptions that one run of QuartiCal can serve: intervals in channels mean the same.

    Parameters
    ----------
    ddids : tuple of int
        Data descriptions of the MS, in the order of those of the copy (0, 1, ...).
    correlations : tuple of str
        Of all of them.
    n_chan : int
        Of all of them.
    width_hz : float
        Channel width of all of them [Hz].
    """

    ddids: tuple[int, ...]
    correlations: tuple[str, ...]
    n_chan: int
    width_hz: float


def families(info: ms.MsInfo, ddids: Sequence[int]) -> list[Family]:
    """Sort data descriptions into families."""
    found: dict[tuple[tuple[str, ...], int, int], list[int]] = {}
    for ddid in ddids:
        description = info.data_descriptions[ddid]
        spw = info.spws[description.spw]
        width = round(float(np.median(np.abs(spw.width_hz))))
        found.setdefault((description.correlations, spw.freq_hz.size, width), []).append(ddid)
    return [
        Family(tuple(members), correlations, n_chan, float(width))
        for (correlations, n_chan, width), members in found.items()
    ]


def make_solve_copy(
    info: ms.MsInfo,
    target: Path,
    rows: NDArray[np.int64],
    family: Family,
    *,
    data_column: str,
    models: Sequence[str],
    scans: NDArray[np.int64],
    combine_fields: bool,
    weight_scale: Mapping[int, float],
) -> None:
    """Copy ``rows``, all of one family, to a new MS at ``target``.

    Parameters
    ----------
    models : sequence of str
        Model columns to take along.
    scans : ndarray of int, shape (row,)
        Scan of each of ``rows``, numbered by time: QuartiCal misses the ends of others.
    combine_fields : bool
        File all rows under field 0; their models have been predicted for their own fields.
    weight_scale : mapping of int to float
        Data description to the factor that makes its weights 1/sigma^2.
    """
    shutil.rmtree(target, ignore_errors=True)
    ms.copy_rows(info.path, target, rows, data_column=data_column, also=tuple(models))
    renumbered = {ddid: number for number, ddid in enumerate(family.ddids)}
    copy = ms.read_info(target)
    with ms.opened(target, write=True) as main:
        spectrum = ms.has_cells(main, "WEIGHT_SPECTRUM")
        for description, chunk in ms.chunks(main, copy, ms.every_row(copy)):
            data = ms.get(main, "DATA", chunk)
            flag = ms.get(main, "FLAG", chunk) | ms.get(main, "FLAG_ROW", chunk)[:, None, None]
            finite = np.isfinite(data)
            ms.put(main, "FLAG", chunk, flag | ~finite)
            if not finite.all():
                ms.put(main, "DATA", chunk, np.where(finite, data, 0))
            scale = weight_scale[description.id]
            for name in ("WEIGHT", *(("WEIGHT_SPECTRUM",) if spectrum else ())):
                ms.put(main, name, chunk, ms.get(main, name, chunk) * np.float32(scale))
        for start, count in ms.row_ranges(copy.n_rows, 64):
            old = main.getcol("DATA_DESC_ID", start, count)
            table = np.array([renumbered.get(n, -1) for n in range(max(renumbered) + 1)])
            main.putcol("DATA_DESC_ID", table[old].astype(old.dtype), start, count)
            main.putcol("SCAN_NUMBER", scans[start : start + count].astype(old.dtype), start, count)
            for name in ("FEED1", "FEED2"):
                main.putcol(name, np.zeros(count, dtype=old.dtype), start, count)
            if combine_fields:
                main.putcol("FIELD_ID", np.zeros(count, dtype=old.dtype), start, count)
    _subtables(info, target, family)


# In a copy that was left for the next solve: what it is a copy of.
_MARK = "peelkit.copy"


def mark(info: ms.MsInfo, rows: NDArray[np.int64], scans: NDArray[np.int64], *of: object) -> str:
    """Hash of the arguments of `make_solve_copy`."""
    digest = hashlib.sha256(repr((str(info.path), *of)).encode())
    digest.update(np.ascontiguousarray(rows).tobytes())
    digest.update(np.ascontiguousarray(scans).tobytes())
    return digest.hexdigest()


def leave(copy: Path, words: str) -> None:
    """Let the next solve of the same data, by its `mark`, take a copy."""
    (copy / _MARK).write_text(words, "utf-8")


def take(folder: Path, words: str, target: Path) -> bool:
    """Move a copy that was left in ``folder`` to ``target``; False if there is none."""
    for found in folder.glob(f"*/{_MARK}"):
        if found.read_text("utf-8") == words:
            found.unlink()
            shutil.rmtree(target, ignore_errors=True)
            found.parent.rename(target)
            return True
    return False


def drop(folder: Path) -> None:
    """Delete copies that nobody took."""
    for found in folder.glob(f"*/{_MARK}"):
        shutil.rmtree(found.parent)


def _subtables(info: ms.MsInfo, target: Path, family: Family) -> None:
    spws = [info.data_descriptions[ddid].spw for ddid in family.ddids]
    with ms.opened(target / "DATA_DESCRIPTION") as sub:
        polarization = int(sub.getcell("POLARIZATION_ID", family.ddids[0]))
    _keep_rows(target / "POLARIZATION", [polarization])
    _keep_rows(target / "SPECTRAL_WINDOW", spws)
    _keep_rows(target / "DATA_DESCRIPTION", family.ddids)
    with ms.opened(target / "DATA_DESCRIPTION", write=True) as sub:
        for number in range(sub.nrows()):
            sub.putcell("SPECTRAL_WINDOW_ID", number, number)
            sub.putcell("POLARIZATION_ID", number, 0)
    with ms.opened(target / "FEED") as sub:
        antennas = [int(antenna) for antenna in sub.getcol("ANTENNA_ID")]
    first = [antennas.index(n) for n in range(len(info.antennas)) if n in antennas]
    if len(first) == len(info.antennas):
        _keep_rows(target / "FEED", first)
        with ms.opened(target / "FEED", write=True) as sub:
            sub.putcol("SPECTRAL_WINDOW_ID", np.full(sub.nrows(), -1, dtype=np.int32))


def _keep_rows(path: Path, rows: Sequence[int]) -> None:
    """Leave only ``rows`` of a subtable, in that order."""
    with ms.opened(path) as sub:
        if list(rows) == list(range(sub.nrows())):
            return
        kept = sub.selectrows(list(rows))
        fresh = path.with_name(f"{path.name}.kept")
        kept.copy(str(fresh), deep=True).close()
        kept.close()
    shutil.rmtree(path)
    fresh.rename(path)
