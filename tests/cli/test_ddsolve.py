"""What ddsolve refuses, before QuartiCal is started: each with its exit code and one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

from ddtruth import Bright, add_model, make_truth
from makems import MsRecipe
from peelkit.core import ddsolve
from peelkit.errors import EngineError
from peelkit.spread import Machines, Spread

GOOD = ("--all", "ALL", "--peel", "B1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dd") / "x.ms"
    make_truth(path, (Bright(2.0, 60.0, 30.0),), MsRecipe(n_antenna=5, n_scan=1, n_time=3))
    with table(str(path), readonly=False, ack=False) as main:
        data = main.getcol("DATA")
        add_model(main, "ZERO", np.zeros_like(data))
        add_model(main, "NANS", np.full_like(data, np.nan))
        add_model(main, "TAKEN", data)
    return path


def foreign_folder(_: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")


def flag_all(path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        main.putcol("FLAG", np.ones_like(main.getcol("FLAG")))


def own_taken(path: Path) -> None:
    with table(str(path), readonly=False, ack=False) as main:
        add_model(main, "B1_DATA", main.getcol("DATA"))


CASES: list[tuple[tuple[str, ...], int, str, Callable[[Path], None] | None]] = [
    ((), 2, "name the model columns: --all COLUMN and --peel COLUMN, or --from", None),
    (("--all", "ALL"), 2, "name the model columns", None),
    (("--all", "ALL", "--peel", "NOPE"), 3, "no column NOPE; make it with 'peelkit predict-region'", None),
    (("--all", "ALL", "--peel", "B1", "--peel", "B1"), 2, "a column is given twice", None),
    ((*GOOD, "--column", "DATA"), 2, "--column DATA: an input", None),
    ((*GOOD, "--column", "B1"), 2, "--column B1: an input", None),
    ((*GOOD, "--column", "ALL"), 2, "--column ALL: the all-sky model", None),
    ((*GOOD, "--column", "TAKEN"), 3, "TAKEN exist and would be replaced; allow it with --overwrite", None),
    ((*GOOD, "--datacolumn", "corrected"), 3, "no column CORRECTED_DATA", None),
    ((*GOOD, "--de-time", "10 parsecs"), 2, "--de-time '10 parsecs': use auto, inf", None),
    ((*GOOD, "--de-freq", "10"), 2, "frequency interval '10': use spw, 8chan", None),
    ((*GOOD, "--g", "phase", "--k", "delay_and_offset", "--g-time", "10s"), 2, "take up the same phases", None),
    ((*GOOD, "--g-time", "2int", "--k", "delay_and_offset", "--k-time", "20s"), 2, "take up the same phases", None),
    ((*GOOD, "--inject", "5mJy"), 2, "--inject '5mJy': give FLUX@DX,DY in Jy (or mJy)", None),
    ((*GOOD, "--inject", "-5mJy@1,2"), 2, "--inject '-5mJy@1,2': give FLUX@DX,DY", None),
    ((*GOOD, "--inject", "5mJy@1,2", "--inject", "1@1,2"), 2, "a second source at the same place", None),
    ((*GOOD, "--inject", "1@700,0"), 2, "farther than 10 degrees", None),
    ((*GOOD, "--subtract", "B7"), 2, "'B7': no such direction; there are B1", None),
    ((*GOOD, "--decide", "B1=perhaps"), 2, "use LABEL=peel, LABEL=subtract or LABEL=skip", None),
    ((*GOOD, "--decide", "B7=peel"), 2, "'B7': no such direction", None),
    ((*GOOD, "--subtract", "B1", "--keep"), 2, "--subtract and --keep exclude each other", None),
    ((*GOOD, "--own-data", "B7"), 2, "--own-data B7: no such direction; there are B1", None),
    ((*GOOD, "--own-data", "B1"), 3, "B1_DATA exist and would be replaced; allow it with --over", own_taken),
    ((*GOOD, "--own-data", "all", "--column", "B1_DATA"), 2, "its column would be B1_DATA, which is ano", None),
    ((*GOOD, "--uvrange", ">1klambda"), 2, "QuartiCal cuts in metres", None),
    ((*GOOD, "--combine", "spw"), 2, "--combine spw: use field, scan", None),
    ((*GOOD, "--refant", "ea99"), 3, "refant 'ea99': not in the data", None),
    ((*GOOD, "--spw", "7"), 3, "spw '7': not in the data", None),
    ((*GOOD, "--field", "nowhere"), 3, "field 'nowhere': not in the data", None),
    ((*GOOD, "--quartical", "robust=true"), 2, "use SECTION.OPTION=VALUE", None),
    ((*GOOD, "--quartical", "output.flags=true"), 2, "an option that ddsolve sets itself", None),
    (("--from", "absent.json"), 3, "absent.json: no such sidecar", None),
    (("--from", "absent.json", *GOOD), 2, "--from brings the columns", None),
    (("--all", "ALL", "--peel", "ZERO"), 3, "ZERO is zero everywhere in the selected data", None),
    (("--all", "ALL", "--peel", "NANS"), 3, "NANS has 240 values that are no numbers", None),
    (GOOD, 3, "no usable data", flag_all),
    ((*GOOD, "--out", "mine"), 3, "mine: not a folder of peelkit ddsolve", foreign_folder),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message", "spoil"),
    CASES,
    ids=lambda value: getattr(value, "__name__", str(value)[:60]),
)
def test_bad_input_is_one_line_with_its_exit_code(
    source: Path, tmp_path: Path, invoke, arguments, code, message, spoil
) -> None:
    target = tmp_path / "x.ms"
    shutil.copytree(source, target)
    if spoil:
        spoil(target)
    with table(str(target), ack=False) as main:
        before = main.colnames()
    result = invoke("ddsolve", "x.ms", *arguments, code=code)
    error = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(error) == 1 and message in error[0], result.stderr
    with table(str(target), ack=False) as main:
        assert main.colnames() == before


def test_workers_that_do_not_see_the_output_folder_are_told_before_any_work(
    source: Path, tmp_path: Path, invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(source, tmp_path / "x.ms")

    class Elsewhere(Spread):
        def see(self, paths: Sequence[Path]) -> None:
            missing = [path for path in paths if path.suffix != ".ms"]
            if missing:
                raise EngineError(f"Dask: worker tcp://node:1 does not find {missing[0]}.")

    @contextmanager
    def opened(_: Machines) -> Iterator[Spread]:
        yield Elsewhere()

    monkeypatch.setattr(ddsolve, "opened", opened)
    result = invoke("ddsolve", "x.ms", *GOOD, "--out", "mine", code=4)
    assert "does not find mine" in " ".join(result.stderr.split())
