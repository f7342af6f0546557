"""Names that are blank, alike, or hold CASA's syntax: of antennas, fields and spws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms

pytestmark = pytest.mark.casa

ANTENNAS = ["A&B", "C,D", "", "x y", "e;f", "!g", "h~i", "", "@j", "1"]
FIELDS = ["3C1,2;b", "0"]
SPWS = ("a:b,c", "#d&e")
SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-plots")


def odd_ms(path: Path) -> None:
    recipe = MsRecipe(
        n_antenna=10, n_scan=2, n_time=8, gain_step=2, phase_rms_deg=30.0, n_field=2, n_chan=(2, 2),
        spw_names=SPWS, seed=11,
    )  # fmt: skip
    make_ms(path, recipe)
    for name, values in (("ANTENNA", ANTENNAS), ("FIELD", FIELDS)):
        with table(f"{path}/{name}", readonly=False, ack=False) as sub:
            sub.putcol("NAME", values)


@pytest.mark.parametrize("refant", ["", "C,D", "1"])
def test_gains_are_solved_whatever_things_are_called(invoke, tmp_path: Path, refant: str) -> None:
    path = tmp_path / "a.ms"
    odd_ms(path)
    more = ("--refant", refant) if refant else ()
    invoke("selfcal", path, "--field", FIELDS[0], "--spw", "a:b,c", "--solint", "20s", "--calmode", "p",
           "--out", "out", *SMALL, *more)  # fmt: skip
    found = json.loads(Path("a.ms.selfcal.peelkit.json").read_text())
    assert found["results"]["rounds"][0]["accepted"]
    # "1" is the name of the last, as in CASA.
    expected = {"C,D": 1, "1": 9}.get(refant)
    with table(found["results"]["rounds"][0]["caltable"], ack=False) as cal:
        assert expected is None or set(cal.getcol("ANTENNA2").tolist()) == {expected}
    with table(str(path), ack=False) as main:
        mine = (main.getcol("FIELD_ID") == 0) & (main.getcol("DATA_DESC_ID") == 0)
        size = np.abs(main.getcol("CORRECTED_DATA") - main.getcol("DATA"))
        assert size[mine].mean() > 0.1
        assert size[~mine].max() == 0


def test_each_field_is_the_one_with_that_id(invoke, tmp_path: Path) -> None:
    """Field 1 is called 0."""
    path = tmp_path / "a.ms"
    odd_ms(path)
    invoke("selfcal", path, "--field", "0", "--solint", "20s", "--calmode", "p", *SMALL)
    with table(str(path), ack=False) as main:
        changed = np.abs(main.getcol("CORRECTED_DATA") - main.getcol("DATA")).mean(axis=(1, 2)) > 0
        assert set(main.getcol("FIELD_ID")[changed].tolist()) == {0}
