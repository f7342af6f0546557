"""The recipe on a small simulated field: through the shell, and killed in every step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import table

pytestmark = [pytest.mark.casa, pytest.mark.quartical, pytest.mark.slow]

STEPS = (
    "selfcal", "mask", "predict1", "solve1", "image1", "predict2", "solve2", "image2",
    "fall1", "fall2", "stats",
)  # fmt: skip
KILLED = ("selfcal", "mask", "predict1", "solve1", "image1", "predict2", "solve2", "stats")
PARAMETERS = {
    "selfcal_options": "--rounds 1 --solint 60s --calmode p",
    "imaging_options": "--imsize 300 --nterms 1",
    "ddsolve_options": "--de-time inf --de-freq 1chan --no-plots",
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
    # Two rounds, whatever the second brings.
    for old, new in (
        ("rounds=5 ", "rounds=2 "), ("least_fall=0.1 ", "least_fall=0 "), ("enough=1.2 ", "enough=0 "),
        ("enough_chi2=1.02 ", "enough_chi2=0 "),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
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
    assert all((whole / f"out/{step}.done").exists() for step in STEPS)
    first, final, peeled = table_1(whole)
    assert first["peak_jy_beam"] > 1.5  # 5 Jy through the beam
    # What is left at its place are the faint sources and artefacts.
    assert peeled["peak_jy_beam"] < 0.03 * first["peak_jy_beam"]
    assert final["rms_local_jy_beam"] < 0.5 * first["rms_local_jy_beam"]
    assert peeled["rms_local_jy_beam"] < 0.6 * final["rms_local_jy_beam"]
    assert (whole / "out/stats.png").exists()


def test_a_second_run_repeats_nothing(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.json")}
    assert shell(whole, "sim.ms", "out").wait() == 0
    assert {path: path.stat().st_mtime_ns for path in (whole / "out").rglob("*.json")} == before
    # Another MS does not go on there.
    assert shell(whole, "other.ms", "out").wait() == 2


def test_a_round_that_makes_it_worse_is_undone(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "worse"
    shutil.copytree(whole, folder)
    # The second round images what nothing was subtracted from, as if its solve had gone wrong.
    script = folder / "peel.sh"
    wrong = "if [ $round -eq 2 ]; then echo CORRECTED_DATA; else echo PEELED_DATA; fi"
    text = script.read_text()
    assert "--column PEELED_DATA" in text
    script.write_text(text.replace("--column PEELED_DATA", f"--column $({wrong})"))
    for step in ("image2", "fall2", "stats"):
        (folder / f"out/{step}.done").unlink()
    before = peeled_data(folder)
    assert shell(folder, "sim.ms", "out").wait() == 0, (folder / "stderr").read_text()
    assert "undone" in (folder / "stdout").read_text()
    # What the first round left: its own solve and its own models.
    record = json.loads((folder / "out/solve1.json").read_text())["results"]
    assert np.abs(peeled_data(folder) - before).max() > 0
    last = json.loads((folder / "out/stats.json").read_text())["results"]["images"][-1]
    assert "peeled1.image" in last["path"]
    listing = json.loads(
        subprocess.run(
            [Path(sys.executable).parent / "peelkit", "undo", "sim.ms", "--list", "--json"],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    commands = [step["command"] for step in listing["results"]["steps"]]
    assert commands.count("ddsolve") == 1 and commands.count("predict-region") == 1
    assert record["output_column"] == "PEELED_DATA"
    # Run again, it does not try that round again, nor undo what the user did since.
    peelkit = Path(sys.executable).parent / "peelkit"
    mine = [peelkit, "-q", "add-model-col", "sim.ms", "MINE", "--expression", "DATA"]
    subprocess.run(mine, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "out/stats.done").unlink()
    assert shell(folder, "sim.ms", "out").wait() == 0, (folder / "stderr").read_text()
    with table(f"{folder}/sim.ms", ack=False) as main:
        assert "MINE" in main.colnames()


def peeled_data(folder: Path) -> np.ndarray:
    with table(f"{folder}/sim.ms", ack=False) as main:
        return main.getcol("PEELED_DATA")


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
    for step in KILLED:
        # Well before a step writes into the MS, though the other run may have been slower: repeated after
        # that, it would keep what it replaced.
        kill_in(step, folder, 0.3 * duration(whole, step))
    assert shell(folder, "sim.ms", "out").wait() == 0, (folder / "stderr").read_text()
    for one, other in zip(table_1(whole), table_1(folder), strict=True):
        assert other == pytest.approx(one, rel=1e-3)
    with table(f"{folder}/sim.ms", ack=False) as main:
        assert (main.getcol("DATA") == data).all()
        names = sorted(main.colnames())
    with table(f"{whole}/sim.ms", ack=False) as main:
        # No more is kept than without interruption: what the second round replaced.
        assert names == sorted(main.colnames())


def nothing_to_peel(folder: Path, options: str, *regions: str) -> str:
    """What the chain says; exit 5, and the data and their columns as they were."""
    peelkit = Path(sys.executable).parent / "peelkit"
    base = "--config D --antennas 14 --integrations 12 --spws 1 --channels 4"
    command = [peelkit, "-q", "simulate", "field.ms", *base.split(), *options.split()]
    subprocess.run(command, cwd=folder, check=True)
    with table(f"{folder}/field.ms", ack=False) as main:
        before = main.getcol("DATA"), main.getcol("FLAG")
    assert shell(folder, "field.ms", *regions, "out").wait() == 5, (folder / "stderr").read_text()
    with table(f"{folder}/field.ms", ack=False) as main:
        assert (main.getcol("DATA") == before[0]).all() and (main.getcol("FLAG") == before[1]).all()
        assert "PEELED_DATA" not in main.colnames()
    return (folder / "stderr").read_text()


def test_noise_has_nothing_to_peel(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    prepare(folder)
    said = nothing_to_peel(folder, "--without bright --without faint")
    assert "no source in out/selfcal/first.image has artefacts worth peeling" in said
    assert not (folder / "out/predict1.begun").exists()
    # Nor was anything calibrated.
    with table(f"{folder}/field.ms", ack=False) as main:
        assert "CORRECTED_DATA" not in main.colnames()


def test_a_source_that_needs_no_peeling_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "perfect"
    prepare(folder)
    said = nothing_to_peel(folder, "--bright 0.01@4,2 --without errors --faint 6")
    assert "worth peeling" in said or "no better" in said
