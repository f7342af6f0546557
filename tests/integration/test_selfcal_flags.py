"""Self-calibration proposes to flag what is bad, flags nothing by itself, and applies a reviewed list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from makems import MsRecipe, make_ms

pytestmark = pytest.mark.casa

# The artefacts of the bad antenna make the S/N of the image low.
SMALL = ("--imsize", 160, "--cell", "1.5arcsec", "--no-plots", "--solint", "20s", "--phase-snr", 1)
BAD = 5


@pytest.fixture(scope="module")
def bad_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steady phases, but for ea06, where they are random every 20 s; both hands alike."""
    path = tmp_path_factory.mktemp("ms") / "bad.ms"
    make_ms(path, MsRecipe(n_antenna=10, n_scan=2, n_time=24, phase_rms_deg=30.0, n_chan=(2,)))
    rng = np.random.default_rng(8)
    with table(str(path), readonly=False, ack=False) as main:
        data, times = main.getcol("DATA"), main.getcol("TIME")
        step = np.unique(times, return_inverse=True)[1] // 2
        phase = rng.uniform(-np.pi, np.pi, step.max() + 1)[step]
        for name, sign in (("ANTENNA1", 1), ("ANTENNA2", -1)):
            mine = main.getcol(name) == BAD
            data[mine] *= np.exp(1j * sign * phase[mine])[:, None, None]
        main.putcol("DATA", data)
    return path


def flags(path: Path) -> np.ndarray:
    with table(str(path), ack=False) as main:
        return np.asarray(main.getcol("FLAG"))


def results(path: Path) -> dict:
    return json.loads(Path(f"{path}.selfcal.peelkit.json").read_text())["results"]


@pytest.mark.slow
def test_a_jumping_antenna_is_proposed_flagged_on_request_and_undone(
    invoke, bad_ms: Path, copy_ms, tmp_path: Path
) -> None:
    path = copy_ms(bad_ms)
    out = invoke("selfcal", path, *SMALL).stdout
    found = results(path)["flag_proposals"]
    assert [item["antenna"] for item in found] == ["ea06"]
    assert "jump at random" in found[0]["reason"] and found[0]["timerange"] == ""
    assert "Nothing of it was flagged" in out and not flags(path).any()
    listing = tmp_path / "bad.selfcal" / "flag_proposals.txt"
    assert found[0]["command"] in listing.read_text().splitlines()
    # Reviewed, and applied in another run.
    reviewed = tmp_path / "reviewed.txt"
    reviewed.write_text(listing.read_text())
    invoke("undo", path)
    out = invoke(
        "selfcal", path, *SMALL, "--flag-list", reviewed, "--out", tmp_path / "second"
    ).stdout
    with table(str(path), ack=False) as main:
        mine = (main.getcol("ANTENNA1") == BAD) | (main.getcol("ANTENNA2") == BAD)
    assert np.array_equal(flags(path).all(axis=(1, 2)), mine)
    record = results(path)["prepared"]["flags"]
    assert record["flagged"] == mine.sum() * 2 * 2 and f"flagged {record['flagged']} of" in out
    assert results(path)["flag_proposals"] == []
    invoke("undo", path)
    assert not flags(path).any()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, 3, "no such list of flags"),
        ("antenna='nosuch'\n", 3, "cannot be applied"),
        ("this is no list\n", 3, "cannot be applied"),
    ],
)
def test_a_list_that_cannot_be_applied_is_refused_and_the_ms_left_alone(
    invoke, bad_ms: Path, copy_ms, tmp_path: Path, text: str | None, code: int, words: str
) -> None:
    path = copy_ms(bad_ms)
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    run = invoke("selfcal", path, *SMALL, "--flag-list", "list.txt", code=code)
    assert words in run.stderr and "list.txt" in run.stderr
    with table(str(path), ack=False) as main:
        assert "CORRECTED_DATA" not in main.colnames()
    assert not flags(path).any()
