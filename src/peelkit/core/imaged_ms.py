"""What is imaged of an MS: averages of the selected rows, or the rows themselves."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peelkit.core import averaging
from peelkit.engines.casa import Imaging
from peelkit.io import ms


@contextmanager
def opened(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    out: Path,
    made: Imaging,
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
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.peelkit-ms-") as scratch:
        view = Path(scratch) / "view.ms"
        if made.smearing > 0:
            averaging.write(info, rows, column, view, made)
        elif copy:
            ms.copy_rows(info.path, view, rows, data_column=column)
            own = ms.read_info(view)
            with ms.opened(view, write=True) as main:
                for _, chunk in ms.chunks(main, own, ms.every_row(own)):
                    data = ms.get(main, "DATA", chunk)
                    finite = np.isfinite(data)
                    ms.put(main, "FLAG", chunk, ms.get(main, "FLAG", chunk) | ~finite)
                    ms.put(main, "DATA", chunk, np.where(finite, data, 0))
        else:
            ms.refer_to_rows(info.path, view, rows, data_column=column)
        yield view
