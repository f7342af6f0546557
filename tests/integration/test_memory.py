"""Memory does not grow with the MS: commands in processes of their own, watched from outside.

Two directions of growth: samples (an MS of more than 2 GiB, under a limit of half a GiB), and rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from bigms import make_big_ms
from makemodel import DEC_DEG, RA_DEG, SIZE, write_model
from makems import MsRecipe, make_ms
from peakmemory import Peak, run_watched
from peelkit.core.cost import KEPT_PER_ROW

GIB = 2**30
LIMIT_GIB = 0.5
REGION = (
    f'# Region file format: DS9 version 4.1\nicrs\ncircle({RA_DEG},{DEC_DEG},20") # text={{SRC}}\n'
)


def _model(folder: Path) -> tuple[Path, Path]:
    """A point of 1 Jy at the phase centre, and a region about it."""
    plane = np.zeros((SIZE, SIZE))
    plane[SIZE // 2, SIZE // 2] = 1.0
    model = write_model(folder / "x.model.fits", [plane], centre=(RA_DEG, DEC_DEG))
    (folder / "source.reg").write_text(REGION)
    return model, folder / "source.reg"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an MS of more than 2 GiB of visibilities, deleted at the end."""
    folder = tmp_path_factory.mktemp("large")
    recipe = MsRecipe(
        n_antenna=27, n_scan=4, n_time=200, n_chan=(64,), n_corr=4, integration_s=2.0,
        chan_width_hz=2e6, frame="ICRS",
    )  # fmt: skip
    rows = make_big_ms(folder / "large.ms", recipe, extra=("ALL", "B1", "B2"))
    assert rows * 64 * 4 * 8 * 4 > 2 * GIB
    yield folder
    shutil.rmtree(folder)


def commands(ms: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    """Every command without an engine, by what it is called here."""
    model, regions = _model(folder)
    return {
        "snr-estimate": ("snr-estimate", ms, "--peak", 1, "--rms", 1e-4, "--imsize", 256),
        "add-model-col": ("add-model-col", ms, "COPY", "--expression", "ALL", "--allow", "one"),
        "undo": ("undo", ms),
        "predict-region": (
            "predict-region", ms, "--model", model, "--regions", regions, "--all-column",
            "--shape", "clean",
        ),
        "dry-run": ("ddsolve", ms, "--all", "ALL_SKY_MODEL", "--peel", "SRC", "--dry-run"),
    }  # fmt: skip


@pytest.mark.slow
def test_an_ms_of_more_than_2_gib_is_worked_on_in_half_a_gib(large: Path) -> None:
    ms = large / "large.ms"
    peaks: dict[str, Peak] = {}
    for name, command in commands(ms, large).items():
        limit = () if name == "undo" else ("--memory", LIMIT_GIB)
        peaks[name] = run_watched([*command, *limit], large)
    over = {name: peak.total / GIB for name, peak in peaks.items() if peak.total > LIMIT_GIB * GIB}
    assert not over
    # They did their work: the point is at the phase centre.
    with table(str(ms), ack=False) as main:
        assert np.allclose(main.getcol("SRC", main.nrows() - 10, 10)[:, :, 0], 1.0, atol=1e-4)


@pytest.mark.slow
def test_what_grows_with_the_rows_is_a_few_bytes_each(tmp_path: Path) -> None:
    recipe = {"n_antenna": 27, "n_chan": (1,), "n_corr": 2, "integration_s": 1.0}
    few, many = tmp_path / "few.ms", tmp_path / "many.ms"
    rows = [
        make_big_ms(path, MsRecipe(n_scan=3, n_time=n_time, **recipe), extra=("ALL",))
        for path, n_time in ((few, 1000), (many, 2500))
    ]
    grown = {}
    for name in ("snr-estimate", "add-model-col", "undo", "predict-region", "dry-run"):
        # Pieces of half a GiB's limit are full in both.
        limit = () if name == "undo" else ("--memory", LIMIT_GIB)
        small, big = (
            run_watched([*commands_in(tmp_path, ms)[name], *limit], tmp_path) for ms in (few, many)
        )
        grown[name] = (big.own - small.own) / (rows[1] - rows[0])
    shutil.rmtree(many)
    # Windows of a million rows and casacore's caches (80 MB from some 0.8 M rows on) are full in both; what a
    # process has resident is known to some 20 MB.
    unknown = 20 * 2**20 / (rows[1] - rows[0])
    over = {
        name: per_row
        for name, per_row in grown.items()
        if per_row > KEPT_PER_ROW.get(name, 12.0) + unknown
    }
    assert not over


def commands_in(folder: Path, ms: Path) -> dict[str, tuple[object, ...]]:
    """`commands` with their model in a folder of its own."""
    own = folder / f"{ms.stem}.inputs"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    return commands(ms, own)


def test_the_memory_option_is_checked_and_recorded(tmp_path: Path, invoke) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=5, n_scan=1, n_time=3))
    asked = ("snr-estimate", "a.ms", "--peak", 1, "--rms", 0.01)
    assert '"memory_gib": 1.5' in invoke(*asked, "--memory", 1.5, "--json").stdout
    result = invoke(*asked, "--memory", 0.1, code=2)
    assert "--memory" in result.stderr and "0.5" in result.stderr
