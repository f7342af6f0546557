"""The whole chain, measured stage by stage: peelkit's recipe with either imager, and the published recipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import PEELKIT, SELFCAL, Dataset, Prepared, prepare, run_peelkit
from measuring import SHELL_STAGE, Stage, measure
from peelkit.engines.quartical import cache_folder

HERE = Path(__file__).parent
PUBLISHED, PEELKIT_TCLEAN, PEELKIT_WSCLEAN = "published", "peelkit", "peelkit-wsclean"
VARIANTS = (PUBLISHED, PEELKIT_TCLEAN, PEELKIT_WSCLEAN)
# peelkit's chain with the default rounds of peeling; for scaling with one, since their number depends on the data.
ROUNDS = 5


def why_absent(variant: str, kind: str) -> str | None:
    """Why a variant cannot be run here; None if it can."""
    if variant != PEELKIT_WSCLEAN:
        return None
    if kind == "mosaic":
        return "peelkit images mosaics with tclean only"
    if shutil.which("wsclean") is None:
        return "wsclean is not installed (apt install wsclean)"
    said = subprocess.run(
        [*PEELKIT, "selfcal", "--help"], capture_output=True, text=True, check=True
    )
    return None if "--imager" in said.stdout else "this peelkit has no --imager"


def warm_up(work: Path) -> None:
    """Run the chains once on little data, unless that was done: QuartiCal is compiled the first time, in 30 to 100 s."""
    done = cache_folder() / "bench-warm"
    if not done.exists():
        data = prepare(Dataset("tiny"), work)
        for variant in (PUBLISHED, PEELKIT_TCLEAN):
            run_chain(data, variant, work, rounds=1)
        done.touch()


def run_chain(data: Prepared, variant: str, work: Path, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Run a chain on a fresh copy of the data; stages, whole, quality, and how many rounds there were.

    Parameters
    ----------
    rounds : int
        Of peeling at most; of no meaning for the published recipe.
    """
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(data.ms, folder / "sim.ms")
    shutil.copy(data.regions, folder / "bright.reg")
    load = os.getloadavg()[0]
    if variant == PUBLISHED:
        whole, stages = _published(data, folder)
        images = [folder / "out" / f"{name}.image.tt0" for name in ("first", "selfcal", "peeled")]
    else:
        whole, stages = _peelkit(data, folder, variant, rounds)
        images = _images(folder)
    if whole.status != 0:
        kept = work / f"failed-{data.dataset.name}-{variant}"
        shutil.rmtree(kept, ignore_errors=True)
        folder.rename(kept)
        return {"failed": f"exit status {whole.status}; see {kept.name} in the work folder"}
    found = {
        "load_1min": round(load, 2),
        "whole": whole.as_json(),
        "stages": [one.as_json() for one in stages],
        "rounds": sum(one.name.startswith("ddsolve") for one in stages) or 1,
        "quality": quality(data, folder, images),
    }
    shutil.rmtree(folder)
    return found


def _published(data: Prepared, folder: Path) -> tuple[Stage, list[Stage]]:
    program = [sys.executable, HERE / "published.py"]
    # CASA's threads otherwise spin while they wait, which costs nothing on an idle machine; peelkit sets this too.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    # What numba compiled is kept, as it is for peelkit.
    environment.setdefault("NUMBA_CACHE_DIR", str(cache_folder()))
    return measure(
        [*program, "sim.ms", "bright.reg", "out", "--like", data.like, "--mask", data.mask],
        cwd=folder,
        log=folder / "log",
        env=environment,
    )


def _peelkit(data: Prepared, folder: Path, variant: str, rounds: int) -> tuple[Stage, list[Stage]]:
    """The recipe as `peelkit recipe peel` prints it, each command a stage; repeated ones are numbered."""
    text = subprocess.run(
        [*PEELKIT, "recipe", "peel"], capture_output=True, text=True, check=True
    ).stdout
    made = data.imaging
    imaging = (
        f"--imsize {made['imsize']} --cell {made['cell_arcsec']}arcsec --robust {made['robust']} "
        f"--nterms {made['nterms']}"
    )
    imager = "wsclean" if variant == PEELKIT_WSCLEAN else "tclean"
    for old, new in (
        ("selfcal_options=''", f"selfcal_options='{SELFCAL}'"),
        ("imaging_options=''", f"imaging_options='{imaging}'"),
        ("imager=tclean ", f"imager={imager} "),
        ("rounds=5 ", f"rounds={rounds} "),
    ):
        if old not in text:
            raise SystemExit(f"the recipe has no {old!r} to replace")
        text = text.replace(old, new, 1)
    (folder / "peel.sh").write_text(text)
    stand_in = folder / "bin" / "peelkit"
    stand_in.parent.mkdir()
    stand_in.write_text(SHELL_STAGE.replace("{program}", f"'{sys.executable}' -m peelkit"))
    stand_in.chmod(0o755)
    path = f"{stand_in.parent.absolute()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    whole, stages = measure(
        ["sh", "peel.sh", "sim.ms", "bright.reg", "out"],
        cwd=folder,
        log=folder / "log",
        env={**os.environ, "PATH": path},
    )
    return whole, stages


def _images(folder: Path) -> list[Path]:
    """First, self-calibrated and peeled image of a chain of peelkit's."""
    record = folder / "out/stats.json"
    if not record.exists():
        return []
    listed = [Path(one["path"]) for one in json.loads(record.read_text())["results"]["images"]]
    return [path if path.is_absolute() else folder / path for path in listed]


def quality(data: Prepared, folder: Path, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Noise and dynamic range of the images and of the best possible one, on the same pixels.

    rms is robust; the local one is around the bright source, and the sources that any image shows are left out.
    ``over_best`` is the local rms in units of the best image's. The dynamic range has the brightest peak of all
    images for its peak.
    """
    paths = [*images, data.best]
    run_peelkit(folder, "stats", *paths, "--regions", "bright.reg", "--sidecar", "quality.json")
    found = json.loads((folder / "quality.json").read_text())["results"]["images"]
    peak = max(one["peak_jy_beam"] for one in found)
    best = found[-1]["rms_local_jy_beam"]
    names = ["first", "selfcal", "peeled"] if len(images) == 3 else ["first", "peeled"]
    return [
        {
            "image": name,
            "rms_local_jy_beam": one["rms_local_jy_beam"],
            "rms_global_jy_beam": one["rms_global_jy_beam"],
            "dynamic_range": peak / one["rms_local_jy_beam"],
            "over_best": one["rms_local_jy_beam"] / best,
        }
        for name, one in zip([*names, "best"], found, strict=True)
    ]
