"""The place of an image's products: free, or taken by those of a run before, which are not lost if this one fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from peelkit.core import imaging
from peelkit.errors import DataError, OptionError


def _marker(out: Path) -> Path:
    return out.with_name(f".{out.name}.peelkit-unfinished")


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raise `DataError` if there are products of this name that may not be replaced.

    What an interrupted run left may be.
    """
    there = [item for item in imaging.products(out) if not item.name.endswith("mask")]
    if there and not overwrite and not _marker(out).exists():
        raise DataError(f"{there[0]}: exists; give another OUT, or --overwrite to replace it.")


def keep_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raise `OptionError` if an input is a product of this name, which makes room."""
    there = {item.resolve() for item in imaging.products(out)}
    for path in inputs:
        if path.resolve() in there:
            raise OptionError(
                f"{path}: is a product of {out}, which is replaced; give another OUT."
            )


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Mark ``out`` as being made; products that are there make room, and come back if the block fails.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    before = out.with_name(f".{out.name}.peelkit-before")
    interrupted = _marker(out).exists()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _marker(out).touch()
        if interrupted:
            # What was there before that run is put aside already.
            imaging.remove_products(out)
        else:
            _move(imaging.products(out), before)
    except OSError as error:
        raise DataError(f"{out}: cannot be made ({error.strerror}); give another OUT.") from error
    try:
        yield
    except BaseException:
        if before.exists():
            imaging.remove_products(out)
            _move(list(before.iterdir()), out.parent)
            before.rmdir()
            _marker(out).unlink()
        raise
    shutil.rmtree(before, ignore_errors=True)
    _marker(out).unlink()


def _move(paths: list[Path], folder: Path) -> None:
    if paths:
        folder.mkdir(exist_ok=True)
    for path in paths:
        path.rename(folder / path.name)
