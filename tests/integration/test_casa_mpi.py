"""tclean in several processes (casampi): the same images, errors that say what is missing, nobody left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.engines.casa import Casa
from peelkit.errors import EngineError
from peelkit.io.image import read_image

pytestmark = [pytest.mark.casa, pytest.mark.mpi, pytest.mark.slow]

RECIPE = MsRecipe(
    n_antenna=10, n_scan=2, n_time=6, flux_jy=0.2, sources=((1.0, 45.0, 30.0), (0.03, -40.0, -20.0)),
    sigma_jy=0.02, n_chan=(4, 4), seed=3,
)  # fmt: skip
SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-grow-mask")


def ranks(log: Path) -> list[int]:
    """Processes that run with this log."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(log).encode() in words and any(b"_casa_worker" in word for word in words):
            found.append(int(entry.name))
    return found


def test_images_are_the_same_whether_new_or_with_a_model_to_begin_with(
    invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ms(tmp_path / "a.ms", RECIPE)
    images, records = {}, {}
    for number in (1, 2):
        monkeypatch.setenv("PEELKIT_CASA_PROCESSES", str(number))
        how = ("image-residual", tmp_path / "a.ms")
        invoke(*how, f"new{number}", "--column", "DATA", "--nterms", 2, *SMALL)
        invoke(
            *how,
            f"again{number}",
            "--column",
            "DATA",
            "--like",
            "new1.image.tt0",
            "--begin-with",
            "new1.image.tt0",
        )
        for name in (f"new{number}", f"again{number}"):
            images[name] = read_image(Path(f"{name}.image.tt0")).data
            records[name] = json.loads(Path(f"{name}.image.tt0.peelkit.json").read_text())
    for name in ("new", "again"):
        rms = records[f"{name}1"]["results"]["rms_jy_beam"]
        assert np.nanstd(images[f"{name}2"] - images[f"{name}1"]) < 0.1 * rms
        assert records[f"{name}2"]["results"]["rms_jy_beam"] == pytest.approx(rms, rel=0.02)
        assert records[f"{name}2"]["engine"]["processes"] == 2
        assert "MPIServer-2" in Path(f"{name}2.casa.log").read_text()
    assert not list(Path().glob("*.aside")) + list(Path().glob(".*peelkit*"))
    assert not list(Path().glob("*gridwt_temp"))


def test_all_processes_end_with_the_command_also_where_it_fails(tmp_path: Path) -> None:
    log = tmp_path / "casa.log"
    with pytest.raises(KeyboardInterrupt), Casa(log, 2) as casa:
        casa.greet()
        # mpirun, and three that it started.
        assert len(ranks(log)) == 4
        raise KeyboardInterrupt
    deadline = time.monotonic() + 10
    while ranks(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ranks(log) == []


def test_a_task_that_fails_says_why(tmp_path: Path) -> None:
    with (
        Casa(tmp_path / "casa.log", 2) as casa,
        pytest.raises(EngineError, match="tclean failed"),
    ):
        casa.run("tclean", vis=str(tmp_path / "absent.ms"), imagename="x", parallel=True)


def test_what_is_missing_is_named(invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ms(tmp_path / "a.ms", RECIPE)
    how = ("image-residual", tmp_path / "a.ms", "new", "--column", "DATA", *SMALL)
    monkeypatch.setenv("PEELKIT_CASA_PROCESSES", "many")
    assert "PEELKIT_CASA_PROCESSES=many: give the number" in invoke(*how, code=2).stderr
    monkeypatch.setenv("PEELKIT_CASA_PROCESSES", "2")
    with monkeypatch.context() as without:
        without.setenv("PATH", os.defpath.replace("/usr/bin", "").replace("/bin", ""))
        assert "there is no mpirun on PATH" in invoke(*how, code=2).stderr
    # Python finds this casampi first.
    (tmp_path / "casampi.py").write_text("raise ImportError('not this one')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert "needs casampi in CASA's Python (not this one)" in invoke(*how, code=4).stderr
    assert not Path("new.image").exists()
