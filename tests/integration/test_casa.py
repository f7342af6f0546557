"""The child that runs CASA: products, failures, data, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from makems import MsRecipe, make_ms
from peelkit.engines import casa as engine
from peelkit.engines.casa import Casa, Imaging
from peelkit.errors import EngineError
from peelkit.io.image import read_image, write_like
from peelkit.io.modelimage import blank_pixels

pytestmark = pytest.mark.casa


def test_one_child_serves_all_calls_and_leaves_nothing_in_the_folder(
    point_ms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with Casa(tmp_path / "casa.log") as casa:
        for name in ("one.txt", "two.txt"):
            casa.run(
                "listobs", vis=str(point_ms), listfile=str(tmp_path / name), overwrite=True,
                product=tmp_path / name,
            )  # fmt: skip
        child = casa._process
    assert child is not None and child.poll() is not None
    assert casa.calls == {"listobs": 2}
    assert list(folder.iterdir()) == []
    assert "listobs" in (tmp_path / "casa.log").read_text()
    assert casa.engine()["version"].startswith("6.")


def test_a_failing_task_is_an_engine_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        Casa(tmp_path / "casa.log") as casa,
        pytest.raises(EngineError, match="listobs failed") as caught,
    ):
        casa.run("listobs", vis=str(tmp_path / "absent.ms"))
    assert str(tmp_path / "casa.log") in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_task_without_its_product_is_not_believed(point_ms: Path, tmp_path: Path) -> None:
    with (
        Casa(tmp_path / "casa.log") as casa,
        pytest.raises(EngineError, match=r"made no absent\.txt"),
    ):
        casa.run("listobs", vis=str(point_ms), product=tmp_path / "absent.txt")


def test_a_child_that_dies_is_reported(tmp_path: Path) -> None:
    with Casa(tmp_path / "casa.log") as casa:
        assert casa._process is not None
        os.kill(casa._process.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="SIGKILL"):
            casa.run("listobs", vis="x")
    # Between two tasks: what it was asked then never reaches it.
    with (
        pytest.raises(EngineError, match=r"died in listobs \(SIGKILL\)"),
        Casa(tmp_path / "casa.log") as casa,
    ):
        casa.greet()
        assert casa._process is not None
        os.kill(casa._process.pid, signal.SIGKILL)
        casa._process.wait()
        casa.run("listobs", vis="x")


def test_a_wrong_python_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEELKIT_CASA_PYTHON", str(tmp_path / "no-python"))
    with pytest.raises(EngineError, match="no-python"), Casa(tmp_path / "casa.log"):
        pass


def test_a_tclean_that_goes_on_makes_the_image_that_new_ones_make(tmp_path: Path) -> None:
    recipe = MsRecipe(
        n_antenna=8, n_scan=1, n_time=6, flux_jy=1.0, sources=((0.5, 40.0, 20.0), (0.2, -30.0, -30.0)),
        sigma_jy=0.01, n_chan=(2,), seed=8,
    )  # fmt: skip
    path = tmp_path / "a.ms"
    make_ms(path, recipe)
    imaging = Imaging(imsize=128, cell_arcsec=2.0)
    small, large = np.zeros((2, 128, 128), dtype=bool)
    small[60:69, 60:69] = large[30:100, 30:100] = True
    other = tmp_path / "other"
    images, weighted = {}, {}
    for how in ("kept", "new"):
        name, log = tmp_path / how, tmp_path / f"{how}.log"
        with Casa(log) as casa:
            # The last has nothing left to do.
            for number, mask in enumerate((None, small, large, large, large)):
                if number == 3:
                    # In this process, while CASA's has the image open.
                    blank_pixels(imaging.models(name)[0], small)
                path_of_mask = None
                if mask is not None:
                    path_of_mask = tmp_path / f"{how}.cleanmask"
                    like = read_image(imaging.image(name))
                    write_like(path_of_mask, mask, like, unit="", overwrite=True)
                if how == "new":
                    # Anything else between lets it begin anew.
                    casa.run("listobs", vis=str(path), listfile=str(other), overwrite=True)
                engine.clean(
                    casa, path, name, imaging, field="0", spw="", datacolumn="data",
                    mask=path_of_mask, nsigma=3.0 if number < 4 else 100.0, resume=number > 0, model_changed=number == 3,
                )  # fmt: skip
            if how == "kept":
                assert files_of(casa, path)
                casa.forget()
                assert not files_of(casa, path)
        kinds = [imaging.image(name), imaging.residual(name), *imaging.models(name)]
        images[how] = [read_image(one).data for one in kinds]
        weighted[how] = log.read_text().count("Set imaging weights")
    assert weighted == {"kept": 1, "new": 5}
    for one, two in zip(images["kept"], images["new"], strict=True):
        assert np.array_equal(one, two)
    # All three sources are in it, which lie in the large mask.
    assert images["new"][2].sum() == pytest.approx(1.7, rel=0.1)


def files_of(casa: Casa, path: Path) -> list[str]:
    """What CASA's child has open of an MS."""
    assert casa._process is not None
    links = [one.readlink() for one in Path(f"/proc/{casa._process.pid}/fd").iterdir()]
    return [str(link) for link in links if path in link.parents]


def worker_data(home: Path, code: str) -> str:
    """What the worker's search for CASA's data finds with another HOME; ``code`` runs before."""
    worker = Path(engine.__file__).with_name("_casa_worker.py")
    script = (
        f"import sys, runpy; sys.argv = ['w']; {code}; "
        f"found = runpy.run_path({str(worker)!r}); import casaconfig.config as c; "
        "print(found['find_data'](c)[0])"
    )
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("CASASITECONFIG", None)
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip().splitlines()[-1]


def test_the_users_own_data_come_first(tmp_path: Path) -> None:
    own = tmp_path / ".casa" / "data" / "geodetic" / "IERSeop2000"
    own.mkdir(parents=True)
    assert worker_data(tmp_path, "pass") == str(tmp_path / ".casa" / "data")


def test_then_casadata_then_the_wheel_of_python_casacore(tmp_path: Path) -> None:
    assert "casadata" in worker_data(tmp_path, "pass")
    without = worker_data(tmp_path, "sys.modules['casadata'] = None")
    assert without.endswith("casacore/data")


def test_flags_are_saved_and_restored(point_ms: Path, copy_ms) -> None:
    import numpy as np
    from casacore.tables import table

    path = copy_ms(point_ms)
    with Casa(path.with_suffix(".log")) as casa:
        engine.save_flags(casa, path, "before")
        with table(str(path), readonly=False, ack=False) as main:
            flag = main.getcol("FLAG")
            main.putcol("FLAG", np.ones_like(flag))
        engine.restore_flags(casa, path, "before")
        with table(str(path), ack=False) as main:
            assert np.array_equal(main.getcol("FLAG"), flag)
        with pytest.raises(EngineError, match="flag version nope"):
            engine.restore_flags(casa, path, "nope")


SLOW = """
import sys
from pathlib import Path
from peelkit.engines.casa import Casa
with Casa(Path(sys.argv[2])) as casa:
    casa.run("listobs", vis=sys.argv[1], listfile=sys.argv[2] + ".txt")
    print(casa._process.pid, flush=True)
    while True:
        casa.run("listobs", vis=sys.argv[1], listfile=sys.argv[2] + ".txt", overwrite=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(point_ms: Path, tmp_path: Path, how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(point_ms), str(tmp_path / "casa.log")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(how)
    try:
        parent.wait(20)
    finally:
        parent.kill()
        parent.stdout.close()
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split(")")[1].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"CASA's child {child} is still running")
