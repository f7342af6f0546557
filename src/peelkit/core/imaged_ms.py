"""What is imaged of an MS: averages of the selected rows, or the rows themselves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import averaging, imagers
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.io import mending, ms


@contextmanager
def opened(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    out: Path,
    made: Imaging,
    imager: imagers.Imager,
    *,
    copy: bool,
) -> Iterator[Path]:
    """Give an MS whose DATA is ``column``, in a scratch folder beside ``out``; tclean knows no other names.

    It has averages; where ``made`` asks for none it refers to the user's MS, and with ``copy`` is a copy, in which
    samples that are not numbers are flagged (one would make the image blank).
    """
    # Of a killed run.
    for left in out.parent.glob(f".{out.name}.peelkit-ms-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f".{out.name}.peelkit-ms-", ignore_cleanup_errors=True
    ) as scratch:
        view = Path(scratch) / "view.ms"
        if made.smearing > 0:
            averaging.write(info, rows, column, view, made)
        elif copy:
            ms.copy_rows(info.path, view, rows, data_column=column)
            own = ms.read_info(view)
            with ms.opened(view, write=True) as main:
                for _, chunk in ms.chunks(main, own, ms.every_row(own)):
                    mending.mend(main, chunk, mending.Left())
        else:
            ms.refer_to_rows(info.path, view, rows, data_column=column)
        yield view
        imagers.forget(imager)


def audit(info: ms.MsInfo, rows: NDArray[np.int64], column: str) -> mending.Left:
    """Count unflagged samples of ``column`` that are not numbers, or whose weights are none.

    Raises
    ------
    DataError
        If these are no visibilities, there are none, or all are zero.
    """
    left, nonzero = mending.Left(), False
    with ms.opened(info.path) as main:
        for _, chunk in ms.chunks(main, info, rows):
            if not ms.has_cells(main, column, int(chunk[0])):
                raise DataError(f"{info.path}: {column} has no values in the selected rows.")
            data = ms.get(main, column, chunk)
            if not np.iscomplexobj(data):
                raise DataError(
                    f"{info.path}: column {column} holds no visibilities; give another --column."
                )
            nonzero |= bool(np.any(data[np.isfinite(data)]))
            left.count(data, mending.raw_weights(main, chunk), ms.get(main, "FLAG", chunk))
    if not nonzero:
        raise DataError(
            f"{info.path}: all visibilities in {column} are zero; give another --column."
        )
    return left
