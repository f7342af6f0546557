"""Virtual models: what CASA predicts on the fly where there is no MODEL_DATA, or in its place.

CASA keeps them as records, in keywords of the main table (``definedmodel_field_<id>``) or, where
there is a SOURCE table, in its column SOURCE_MODEL. CASA alone can evaluate them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.io import ms, rownumbers

_KEYWORD = "definedmodel_field_"


def virtual_model_fields(path: Path) -> list[int]:
    """Ids of the fields that have a virtual model; CASA prefers it over MODEL_DATA."""
    fields: set[int] = set()
    with ms.opened(path) as main:
        names = set(main.keywordnames())
        for name in names:
            number = name.removeprefix(_KEYWORD)
            if name != number and number.isdigit() and main.getkeyword(name) in names:
                fields.add(int(number))
    if (path / "SOURCE").exists():
        with ms.opened(path / "SOURCE") as sub:
            # A deleted model leaves an empty record.
            sources = {
                int(sub.getcell("SOURCE_ID", row))
                for row in range(sub.nrows())
                if ms.has_cells(sub, "SOURCE_MODEL", row) and sub.getcell("SOURCE_MODEL", row)
            }
        with ms.opened(path / "FIELD") as sub:
            ids = sub.getcol("SOURCE_ID") if sub.nrows() else []
        fields |= {number for number, source in enumerate(ids) if int(source) in sources}
    return sorted(fields)


def copy_for_casa(info: ms.MsInfo, rows: NDArray[np.int64], target: Path) -> None:
    """Copy rows, in a way that CASA can make their virtual model real in another MS.

    CASA wants a MODEL_DATA column to be there, and serves it where a field has no virtual model: the
    MS's own, or 1 in the parallel hands, as where nothing was predicted. CASA sorts rows, so that
    EXPOSURE gets the row number.
    """
    own = "MODEL_DATA" in info.columns
    ms.copy_rows(info.path, target, rows, data_column="MODEL_DATA" if own else "DATA")
    with ms.opened(target, write=True) as copy:
        copy.renamecol("DATA", "MODEL_DATA")
        every = np.arange(copy.nrows(), dtype=rows.dtype)
        for start, count in ms.row_ranges(every.size, 8):
            copy.putcol("EXPOSURE", rows[start : start + count].astype(np.float64), start, count)
        if not own:
            for description, chunk in ms.chunks(copy, info, every):
                values = np.zeros_like(ms.get(copy, "MODEL_DATA", chunk))
                values[:, :, ms.parallel_hands(description.correlations)] = 1
                ms.put(copy, "MODEL_DATA", chunk, values)


@dataclass(frozen=True)
class RealModel:
    """An MS that CASA made of `copy_for_casa`'s: its DATA is the model.

    Parameters
    ----------
    path : Path
        The MS.
    position : ndarray of int, shape (row of the user's MS,)
        Row here; -1 if it is not here.
    """

    path: Path
    position: NDArray[np.int64]

    @classmethod
    def of(cls, path: Path, n_rows: int) -> RealModel:
        """Find the order of the rows, of the ``n_rows`` of the user's MS."""
        position: NDArray[Any] = np.full(n_rows, -1, dtype=rownumbers.kind(n_rows))
        with ms.opened(path) as main:
            for start, count in ms.row_ranges(main.nrows(), 16):
                numbers = main.getcol("EXPOSURE", start, count)
                position[np.rint(numbers).astype(np.int64)] = start + np.arange(count)
        return cls(path, position)

    def get(self, opened: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Model at ``rows`` of the user's MS, all of one shape; ``opened`` is the table at `path`."""
        here = self.position[rows]
        order = np.argsort(here)
        values = ms.get(opened, "DATA", here[order])
        result = np.empty_like(values)
        result[order] = values
        return result
