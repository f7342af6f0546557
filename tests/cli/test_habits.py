"""Spellings of CASA's tasks mean what they mean there."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from makems import MsRecipe, make_ms
from peelkit.cli.habits import as_meant
from peelkit.cli.main import cli


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--imsize", "512", "512"], ["--imsize", "512"]),
        (["--imsize", "[512, 512]"], ["--imsize", "512"]),
        (["--imsize=512,512"], ["--imsize", "512"]),
        (
            ["--imsize", "[512,", "512]", "--cell", "1arcsec"],
            ["--imsize", "512", "--cell", "1arcsec"],
        ),
        (["--imsize", "512", "--niter", "100"], ["--imsize", "512", "--niter", "100"]),
        (["--cell", "0.5arcsec", "0.5arcsec"], ["--cell", "0.5arcsec"]),
        (["--cell", "['0.5arcsec']"], ["--cell", "0.5arcsec"]),
        (["--cell", '2"'], ["--cell", '2"']),
        (["--scales", "[0, 5, 12]"], ["--scales", "0,5,12"]),
        (["--spwmap=[0,0]"], ["--spwmap", "0,0"]),
        (["--solint", "int=x"], ["--solint", "int=x"]),
        (["--", "solint=inf"], ["--", "solint=inf"]),
        (["--overwrite"], ["--overwrite"]),
    ],
)
def test_what_is_typed_is_what_is_meant(typed: list[str], meant: list[str]) -> None:
    assert as_meant(cli.commands["selfcal"], ["a.ms", *typed]) == ["a.ms", *meant]


def test_a_file_that_is_there_is_no_second_side(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("512", "field=0"):
        Path(name).write_text("")
    assert as_meant(cli.commands["selfcal"], ["--imsize", "512", "512"]) == [
        "--imsize",
        "512",
        "512",
    ]
    assert as_meant(cli.commands["selfcal"], ["field=0"]) == ["field=0"]
    with pytest.raises(click.UsageError, match="write --field 1"):
        as_meant(cli.commands["selfcal"], ["field=1"])


def test_a_run_gets_the_size_that_was_given_twice(invoke, tmp_path: Path) -> None:
    make_ms(tmp_path / "a.ms", MsRecipe(n_antenna=6, n_scan=1, n_time=2))
    found = invoke(
        "selfcal",
        "a.ms",
        "--imsize",
        "128",
        "128",
        "--cell",
        "[2arcsec,2arcsec]",
        "--dry-run",
        "--json",
    )
    assert "128" in json.dumps(json.loads(found.stdout)["results"])


def test_help_is_a_word_too(invoke) -> None:
    assert invoke("help", "mask").stdout == invoke("mask", "--help").stdout
    assert invoke("help").stdout == invoke("--help").stdout
    assert "No such command 'masks'" in invoke("help", "masks", code=2).stderr
