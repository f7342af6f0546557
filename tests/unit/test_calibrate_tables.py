"""An earlier run says the same of itself by its folder and by its sidecar."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit import sidecar
from peelkit.core.calibrate_earlier import check_flux_from
from peelkit.core.calibrate_plan import CalibrateOptions, make_terms
from peelkit.core.calibrate_tables import Earlier, Table, find, write_record
from peelkit.errors import DataError
from peelkit.io import ms
from peelkit.io.caltable_write import Bandpass, write_bandpass

FLUXES = {0: 14.9, 1: 14.2}


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A G table with amplitudes, of two spws."""
    folder = tmp_path_factory.mktemp("tables")
    make_ms(folder / "x.ms", MsRecipe(n_antenna=4, n_scan=1, n_time=1, n_chan=(1, 1)))
    one = np.ones((4, 2))
    solutions = [
        Bandpass(5e9, 10.0, 0, spw, 1, 0, 0, 2 * one[:, None] + 0j, one < 0, 9 * one)
        for spw in (0, 1)
    ]
    write_bandpass(folder / "G.cal", folder / "x.ms", solutions)
    with ms.opened(folder / "G.cal", write=True) as cal:
        cal.putinfo({"type": "Calibration", "subType": "G Jones", "readme": ""})
    return folder / "G.cal"


def table_of(gains: Path) -> Table:
    return Table(gains, "G", "ap", (0, 0), "linear", given=False)


def record_of(gains: Path, folder: Path, fluxes_jy: dict[int, float]) -> Earlier:
    folder.mkdir()
    write_record(folder, tables=[table_of(gains)], field="3C286", fluxes_jy=fluxes_jy)
    return find(str(folder))


def sidecar_of(path: Path, results: dict[str, Any]) -> Earlier:
    record = {
        "schema": sidecar.SCHEMA, "command": "selfcal", "peelkit": "0.1.0",
        "started": "2026-11-21T10:00:00Z", "seconds": 1.5, "inputs": {}, "parameters": {"parang": False},
        "reads": [], "writes": [], "engine": None, "results": results,
    }  # fmt: skip
    sidecar.write(path, record)
    return find(str(path))


def of_calibrator(gains: Path, path: Path) -> Earlier:
    flux = [
        {"field": "3C286", "spw": spw, "flux_jy": value, "scatter_percent": None}
        for spw, value in FLUXES.items()
    ]
    return sidecar_of(
        path,
        {
            "mode": "calibrator", "terms": [], "applied": [], "flux": flux, "parang": False,
            "tables": [{**asdict(table_of(gains)), "path": str(gains)}],
        },
    )  # fmt: skip


def of_rounds(gains: Path, path: Path) -> Earlier:
    figures = dict.fromkeys(
        ("solint", "calmode", "peak_jy_beam", "rms_jy_beam", "dynamic_range", "flux_jy", "solutions",
         "solutions_failed", "accepted", "reason", "caltable", "image")
    )  # fmt: skip
    final = {**figures, "solutions": 16, "solutions_failed": 0, "accepted": True}
    final |= {"reason": "", "caltable": str(gains), "image": "final.image"}
    return sidecar_of(
        path,
        {
            "rounds": [], "final": final, "gaintables": [str(gains)], "spwmap": [[0, 0]],
            "interp": ["linear"],
        },
    )  # fmt: skip


def test_the_sidecar_of_a_calibrator_says_what_its_folder_does(gains: Path, tmp_path: Path) -> None:
    folder = record_of(gains, tmp_path / "cal", FLUXES)
    assert folder.fluxes_jy == FLUXES and folder.tables == (table_of(gains),)
    assert of_calibrator(gains, tmp_path / "x.json") == replace(folder, field="")


def test_rounds_tell_no_flux_by_folder_or_sidecar(gains: Path, tmp_path: Path) -> None:
    options = CalibrateOptions("point:1Jy", ("G",), flux_from="x")
    terms = make_terms(options)
    check_flux_from(options, terms, Earlier(()), of_calibrator(gains, tmp_path / "x.json"))
    for rounds in (
        record_of(gains, tmp_path / "rounds", {}),
        of_rounds(gains, tmp_path / "rounds.json"),
    ):
        # Amplitudes that would compare, but of a source whose flux was not known.
        assert [item.calmode[:1] for item in rounds.tables] == ["a"]
        with pytest.raises(DataError, match="no calibration on a source of known flux"):
            check_flux_from(options, terms, Earlier(()), rounds)
