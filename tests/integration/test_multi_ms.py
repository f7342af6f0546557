"""Multi-MSs are refused by every command before anything is written; the remedy that is told works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.engines.casa import Casa

pytestmark = pytest.mark.casa

COMMANDS = (
    ("snr-estimate", "a.mms", "--peak", 1, "--rms", 0.1),
    ("selfcal", "a.mms"),
    ("selfcal", "a.mms", "--each-field"),
    ("selfcal", "a.mms", "--dry-run"),
    ("selfcal", "a.mms", "--term", "G", "--model", "point:1Jy"),
    ("add-model-col", "a.mms", "NEW", "--expression", "DATA"),
    ("predict-region", "a.mms", "--model", "m.fits", "--regions", "b.crtf"),
    ("ddsolve", "a.mms", "--all", "DATA", "--peel", "DATA"),
    ("image-residual", "a.mms", "out", "--column", "DATA"),
    ("undo", "a.mms"),
    ("undo", "a.mms", "--list"),
)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but locks, which every reader touches."""
    return {
        str(item): item.read_bytes()
        for item in folder.rglob("*")
        if item.is_file() and item.name != "table.lock"
    }


def test_every_command_refuses_a_multi_ms_and_the_remedy_works(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=7, n_scan=2, n_time=2, n_chan=(3, 3), seed=2))
    for name in ("m.fits", "b.crtf"):
        (tmp_path / name).write_text("")
    with Casa(tmp_path / "casa.log") as casa:
        where = {name: str(tmp_path / name) for name in ("a.ms", "a.mms", "a.plain.ms")}
        casa.run("partition", vis=where["a.ms"], outputvis=where["a.mms"], datacolumn="data")
        before = contents(tmp_path / "a.mms")
        for command in COMMANDS:
            told = invoke(*command, code=3).stderr
            assert "a.mms: is a Multi-MS" in told
            assert len([line for line in told.splitlines() if "Error" in line]) == 1
        assert contents(tmp_path / "a.mms") == before
        assert {path.name for path in tmp_path.iterdir()} <= {
            "a.ms", "a.mms", "a.mms.flagversions", "m.fits", "b.crtf", "casa.log"
        }  # fmt: skip
        remedy = re.search(r"split\(vis='a.mms', outputvis='a.plain.ms', (.*)\)", told)
        assert remedy is not None
        assert remedy.group(1) == "datacolumn='all', keepmms=False"
        casa.run(
            "split",
            vis=where["a.mms"],
            outputvis=where["a.plain.ms"],
            datacolumn="all",
            keepmms=False,
        )
    # A reference to rows of one is one too.
    with table("a.mms", ack=False) as main:
        main.selectrows([0, 1]).copy("view.ms").close()
    assert "Multi-MS" in invoke("undo", "view.ms", code=3).stderr
    invoke("snr-estimate", "a.plain.ms", "--peak", 1, "--rms", 0.01)
    invoke("add-model-col", "a.plain.ms", "NEW", "--expression", "DATA")
    invoke("undo", "a.plain.ms")
