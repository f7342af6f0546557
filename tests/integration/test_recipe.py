"""The recipe on a small simulated field: through the shell, and killed in every step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from casacore.tables import table

pytestmark = [pytest.mark.casa, pytest.mark.quartical, pytest.mark.slow]

STEPS = ("selfcal", "mask", "predict", "solve", "image", "stats")
PARAMETERS = {
    "selfcal_options": "--rounds 1 --solint 60s --calmode p",
    "imaging_options": "--imsize 300 --nterms 1",
    "ddsolve_options": "--de-time inf --de-freq spw --no-plots",
}


def shell(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as error:
        return subprocess.Popen(
            ["sh", "peel.sh", *arguments],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdout=out,
            stderr=error,
            start_new_session=True,
        )


def prepare(folder: Path) -> None:
    folder.mkdir()
    peelkit = Path(sys.executable).parent / "peelkit"
    text = subprocess.run(
        [peelkit, "recipe", "peel"], capture_output=True, text=True, check=True
    ).stdout
    for name, value in PARAMETERS.items():
        text = text.replace(f"{name}=''", f"{name}='{value}'")
    (folder / "peel.sh").write_text(text)
    options = (
        "--config D --antennas 14 --integrations 12 --spws 2 --channels 4 --faint 6 --bright 5@4,2 "
        "--pointing-rms 40"
    )
    subprocess.run([peelkit, "-q", "simulate", "sim.ms", *options.split()], cwd=folder, check=True)


def table_1(folder: Path) -> list[dict[str, float]]:
    record = json.loads((folder / "out/stats.json").read_text())
    return [
        {key: image[key] for key in ("peak_jy_beam", "rms_global_jy_beam", "rms_local_jy_beam")}
        for image in record["results"]["images"]
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe") / "whole"
    prepare(folder)
    code = shell(folder, "sim.ms", "out").wait()
    assert code == 0, (folder / "stderr").read_text() + (folder / "stdout").read_text()
    return folder


def test_the_chain_removes_the_source_and_its_artefacts(whole: Path) -> None:
    first, final, peeled = table_1(whole)
    assert first["peak_jy_beam"] > 1.5  # 5 Jy through the beam
    # What is left at its place are the faint sources and artefacts.
    assert peeled["peak_jy_beam"] < 0.03 * first["peak_jy_beam"]
    assert final["rms_local_jy_beam"] < 0.5 * first["rms_local_jy_beam"]
    assert peeled["rms_local_jy_beam"] < 0.6 * final["rms_local_jy_beam"]
    assert (whole / "out/stats.png").exists()


def test_a_second_run_repeats_nothing(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.json")}
    started = time.monotonic()
    assert shell(whole, "sim.ms", "out").wait() == 0
    assert time.monotonic() - started < 5
    assert {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.json")} == before
    # Another MS does not go on there.
    assert shell(whole, "other.ms", "out").wait() == 2


def duration(folder: Path, step: str) -> float:
    """Seconds that a finished step took."""
    begun, done = ((folder / f"out/{step}.{end}").stat().st_mtime for end in ("begun", "done"))
    return done - begun


def kill_in(step: str, folder: Path, after: float) -> None:
    """Run the chain and kill it this long [s] after the step began; sooner, should it be over by then."""
    begun, done = folder / f"out/{step}.begun", folder / f"out/{step}.done"
    while True:
        # Its own marker from the time before stays: it allows the step to replace its products.
        marked = begun.stat().st_mtime_ns if begun.exists() else None
        process = shell(folder, "sim.ms", "out")
        while not begun.exists() or begun.stat().st_mtime_ns == marked:
            assert process.poll() is None, (folder / "stderr").read_text()
            time.sleep(0.02)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not done.exists():
            return
        done.unlink()
        after /= 2


def test_killed_in_every_step_and_started_again_it_ends_the_same(
    whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    prepare(folder)
    with table(f"{folder}/sim.ms", ack=False) as main:
        data = main.getcol("DATA")
    for step in STEPS:
        kill_in(step, folder, 0.6 * duration(whole, step))
    assert shell(folder, "sim.ms", "out").wait() == 0, (folder / "stderr").read_text()
    for one, other in zip(table_1(whole), table_1(folder), strict=True):
        assert other == pytest.approx(one, rel=1e-3)
    with table(f"{folder}/sim.ms", ack=False) as main:
        assert (main.getcol("DATA") == data).all()
        assert not [name for name in main.colnames() if "BEFORE" in name]


def test_the_chain_stops_where_a_command_says_no(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    prepare(folder)
    peelkit = Path(sys.executable).parent / "peelkit"
    options = (
        "--config D --antennas 14 --integrations 12 --spws 1 --channels 4 --without bright "
        "--without faint"
    )
    command = [peelkit, "-q", "simulate", "noise.ms", *options.split()]
    subprocess.run(command, cwd=folder, check=True)
    assert shell(folder, "noise.ms", "out").wait() == 5
    assert not (folder / "out/mask.begun").exists()
