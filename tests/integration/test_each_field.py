"""selfcal --each-field: each field by itself, here and on workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms
from peelkit.core import selfcal_fields
from peelkit.core.imaging import Choices
from peelkit.core.selfcal_session import SelfcalOptions
from peelkit.io import journal
from peelkit.selection import Selection

pytestmark = pytest.mark.casa

SMALL = ("--imsize", 100, "--cell", "1.5arcsec", "--no-plots", "--rounds", 1)
OPTIONS = SelfcalOptions(choices=Choices(imsize=100, cell_arcsec=1.5), plots=False, rounds=1)


def column(path: Path, name: str) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol(name))


def names(path: Path) -> set[str]:
    with table(str(path), ack=False) as main:
        return set(main.colnames())


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four fields: two with a source of 2 Jy, one with noise alone, one flagged."""
    path = tmp_path_factory.mktemp("ms") / "four.ms"
    make_ms(
        path,
        MsRecipe(
            n_antenna=10, n_field=4, n_scan=4, n_time=6, n_chan=(2,), flux_jy=2.0, phase_rms_deg=25.0,
            sigma_jy=0.05, seed=3,
        ),
    )  # fmt: skip
    with table(str(path), readonly=False, ack=False) as main:
        field = main.getcol("FIELD_ID")
        data, flag = main.getcol("DATA"), main.getcol("FLAG")
        noise = np.random.default_rng(5).normal(0, 0.05, (2, *data.shape))
        data[field == 2] = (noise[0] + 1j * noise[1])[field == 2]
        flag[field == 3] = True
        main.putcol("DATA", data)
        main.putcol("FLAG", flag)
    return path


@pytest.mark.slow
def test_fields_that_gain_are_written_and_the_others_do_not_stop_them(
    invoke, four: Path, copy_ms
) -> None:
    path = copy_ms(four)
    before = column(path, "DATA")
    invoke("selfcal", path, "--each-field", "--out", "here", *SMALL)
    found = json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]
    assert [item["status"] for item in found["fields"]] == ["gained", "gained", "no gain", "failed"]
    assert found["gained"] == 2
    assert "flagged" in found["fields"][3]["reason"]
    assert not any("as it was" in (one["reason"] or "") for one in found["fields"])
    # Phases of 25 deg take exp(-s^2/2) twice, 17 %, of the flux; what is left of 2 Jy is noise.
    for item in found["fields"][:2]:
        assert item["results"]["final"]["flux_jy"] == pytest.approx(2.0, abs=0.02)
    field = column(path, "FIELD_ID")
    corrected, model = column(path, "CORRECTED_DATA"), column(path, "MODEL_DATA")
    # Antennas' phases of 25 deg leave 2 Jy sqrt(2) 25 deg = 1.2 Jy; noise and the errors of the first model
    # are a tenth of that. One scan alone does not tell a shift of the source from phases: the model has it.
    for number in (0, 1):
        rows = field == number
        left = np.sqrt(np.mean(np.abs(corrected[rows] - model[rows]) ** 2))
        assert left < 0.2 * np.sqrt(np.mean(np.abs(before[rows] - 2.0) ** 2))
    np.testing.assert_array_equal(corrected[field >= 2], before[field >= 2])
    np.testing.assert_array_equal(model[field >= 2], 1)
    # Nothing is left of the work, and one step of all fields.
    assert not list(Path("here").glob("*/work.ms")) and not list(Path("here").glob("**/state.json"))
    assert len(journal.steps(path)) == 1
    here = corrected

    invoke("undo", path)
    assert not {"CORRECTED_DATA", "MODEL_DATA"} & names(path)

    # On workers, the same to the rounding of CASA's single precision.
    invoke("selfcal", path, "--each-field", "--out", "there", "--workers", 2, *SMALL)
    scale = np.abs(here).max()
    np.testing.assert_allclose(column(path, "CORRECTED_DATA"), here, rtol=0, atol=1e-4 * scale)


@pytest.mark.slow
def test_a_field_that_was_done_is_not_done_again_and_the_ms_stays_as_it_is(
    four: Path, copy_ms, tmp_path: Path
) -> None:
    path = copy_ms(four)
    (tmp_path / "out").mkdir()
    task = selfcal_fields.Task(path, Selection(), replace(OPTIONS, out=tmp_path / "out"))
    first = selfcal_fields.calibrate_field(0, task)
    assert first.gained
    log = first.folder / "casa.log"
    length = log.stat().st_size
    again = selfcal_fields.calibrate_field(0, task)
    assert log.stat().st_size == length
    assert again.columns == first.columns and again.folder == first.folder
    assert not {"CORRECTED_DATA", "MODEL_DATA"} & names(path) and not journal.steps(path)
    # The round took the PSF of the first image, and said so to CASA.
    calls = [line for line in log.read_text().splitlines() if "tclean( vis=" in line]
    assert ["calcpsf=True" in line for line in calls].count(True) == 1


@pytest.mark.slow
def test_without_a_field_that_gains_the_ms_is_as_it_was(invoke, four: Path, copy_ms) -> None:
    path = copy_ms(four)
    result = invoke("selfcal", path, "--each-field", "--field", "2,3", *SMALL, code=5)
    assert "no field gained" in result.stderr
    assert not {"CORRECTED_DATA", "MODEL_DATA"} & names(path) and not journal.steps(path)


def test_workers_go_with_each_field_only_and_a_model_with_one_field(invoke, four: Path) -> None:
    assert "--each-field" in invoke("selfcal", four, "--workers", 2, code=2).stderr
    model = Path("m.model")
    model.mkdir()
    result = invoke("selfcal", four, "--each-field", "--model", model, code=2)
    assert "--model" in result.stderr
