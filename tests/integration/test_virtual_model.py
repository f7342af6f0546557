"""Virtual models, which CASA alone can evaluate, made real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table
from click.testing import Result

from makems import MsRecipe, make_ms
from peelkit.engines.casa import Casa
from peelkit.io import ms, virtual

pytestmark = [pytest.mark.casa, pytest.mark.slow]

Invoke = Callable[..., Result]


def columns(path: Path, *names: str) -> list[np.ndarray]:
    with table(str(path), ack=False) as main:
        return [main.getcol(name) for name in names]


def set_flux(path: Path, log: Path, field: str, flux_jy: float) -> None:
    """A point at the phase centre, as a virtual model."""
    with Casa(log) as casa:
        casa.run(
            "setjy", vis=str(path), field=field, standard="manual",
            fluxdensity=[flux_jy, 0, 0, 0], usescratch=False,
        )  # fmt: skip


def test_a_virtual_model_is_made_real_in_the_rows_it_belongs_to(
    invoke: Invoke, tmp_path: Path
) -> None:
    # Flagged rows count too, and CASA sorts rows, by spw here: fluxes tell the fields apart.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_time=4, n_chan=(3, 3), n_field=2, n_corr=4,
                           flagged_antennas=(2,)))  # fmt: skip
    assert virtual.virtual_model_fields(path) == []
    set_flux(path, tmp_path / "casa.log", "0", 2.5)
    assert virtual.virtual_model_fields(path) == [0]
    result = invoke("add-model-col", path, "ALL", code=3)
    assert "constant 1, as where nothing was predicted, in field 1, spw 0~1" in result.stderr
    set_flux(path, tmp_path / "casa.log", "1", 0.5)
    assert virtual.virtual_model_fields(path) == [0, 1]
    result = invoke("add-model-col", path, "ALL")
    assert "virtual model was made real" in result.stdout
    field, found = columns(path, "FIELD_ID", "ALL")
    expected = np.zeros_like(found)
    expected[:, :, 0] = expected[:, :, 3] = np.where(field == 0, 2.5, 0.5)[:, None]
    assert np.abs(found - expected).max() < 1e-6
    record = json.loads((tmp_path / "a.ms.add-model-col.ALL.peelkit.json").read_text())
    assert record["results"]["virtual_fields"] == [0, 1]
    assert record["engine"]["calls"] == {"mstransform": 1}
    assert not list(tmp_path.glob(".a.ms*"))
    assert virtual.virtual_model_fields(path) == [0, 1]  # the user's to delete


def test_the_virtual_model_goes_before_model_data_as_in_casa(
    invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=6, n_time=2, n_field=2))
    set_flux(path, tmp_path / "casa.log", "0", 2.5)
    with ms.opened(path, write=True) as main:
        ms.add_column(main, "MODEL_DATA")
        main.putcol("MODEL_DATA", np.full_like(main.getcol("DATA"), 7 + 1j))
    result = invoke("add-model-col", path, "ALL")
    assert "as well as MODEL_DATA" in result.stderr
    field, found = columns(path, "FIELD_ID", "ALL")
    assert np.abs(found[field == 0] - 2.5).max() < 1e-6
    assert np.abs(found[field == 1] - (7 + 1j)).max() < 1e-6
    # Fields without one need no CASA; and CASA would not use a new MODEL_DATA.
    invoke("add-model-col", path, "PART", "--field", "1")
    assert not json.loads((tmp_path / "a.ms.add-model-col.PART.peelkit.json").read_text())["engine"]
    result = invoke("add-model-col", path, "MODEL_DATA", "--expression", "ALL", "--overwrite")
    assert "which CASA uses in place of MODEL_DATA" in " ".join(result.stderr.split())


def test_a_model_that_tclean_saved_as_virtual_is_its_image(invoke: Invoke, tmp_path: Path) -> None:
    # Truth: 1 Jy at the centre and 0.5 Jy beside it; the model image is what tclean made of them.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=8, n_chan=(3, 5), n_scan=1, sigma_jy=0.01,
                           sources=((0.5, 20.0, 10.0),)))  # fmt: skip
    with Casa(tmp_path / "casa.log") as casa:
        casa.run(
            "tclean", vis=str(path), imagename=str(tmp_path / "im"), imsize=[128],
            cell="1arcsec", niter=200, gain=0.2, threshold="0.02Jy", savemodel="virtual",
            product=tmp_path / "im.model",
        )  # fmt: skip
    invoke("add-model-col", path, "ALL", "--model-image", tmp_path / "im.model")
    record = json.loads((tmp_path / "a.ms.add-model-col.ALL.peelkit.json").read_text())
    for group in record["results"]["groups"]:
        # The standard gridder leaves w out: a percent or so 20" from the centre.
        assert group["amplitude_ratio"] == pytest.approx(1, abs=0.02)
    with table(str(path), ack=False) as main:
        for ddid in (0, 1):
            rows = main.query(f"DATA_DESC_ID=={ddid}")
            # What is left is noise (0.014 Jy) and what the clean did not reach.
            left = np.abs(rows.getcol("ALL") - rows.getcol("DATA"))
            assert np.sqrt(np.mean(left**2)) < 0.1


def test_a_source_table_holds_virtual_models_too(tmp_path: Path) -> None:
    # Where there is a SOURCE table, CASA keeps the model there, by source.
    path = tmp_path / "a.ms"
    make_ms(path, MsRecipe(n_antenna=5, n_time=2, n_field=2))
    from casacore.tables import default_ms_subtable

    default_ms_subtable("SOURCE", f"{path}/SOURCE").close()
    with table(str(path / "SOURCE"), readonly=False, ack=False) as sub:
        sub.addrows(2)
        sub.putcol("SOURCE_ID", np.array([0, 1]))
        sub.putcol("SPECTRAL_WINDOW_ID", np.array([-1, -1]))
        sub.putcol("NAME", ["field0", "field1"])
    with table(str(path), readonly=False, ack=False) as main:
        main.putkeyword("SOURCE", f"Table: {path / 'SOURCE'}")
    with table(str(path / "FIELD"), readonly=False, ack=False) as sub:
        sub.putcol("SOURCE_ID", np.array([0, 1]))
    set_flux(path, tmp_path / "casa.log", "1", 2.5)
    assert virtual.virtual_model_fields(path) == [1]
