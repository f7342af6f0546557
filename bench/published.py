"""The published recipe (VLASS memo 23) with the same engines, as a yardstick: wall time and images.

    python bench/published.py MS REGIONS OUTDIR --like SIDECAR [--mask REGIONS]

Everything is done as in the memo's scripts, in one process: image, one round of phase self-calibration (each
field and spw by itself), image, copy of the model to a column, CLEAN model of each bright source predicted by
tclean and copied, QuartiCal with G (phase, 10 s), K (delay, 10 s) and dE (complex, 100 s), image of the residual.
Image size, cell, weights and phase centre are those of a peelkit image (SIDECAR of selfcal or of an image), so
that only the method differs; the mask, which the memo's author made by eye, is given. One field or a mosaic.
Times go to OUTDIR/times.json; under bench/run.py each step is a stage that is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import casaconfig.config
import numpy as np
from casacore.images import image
from casacore.tables import makearrcoldesc, maketabdesc, table

from measuring import stage
from peelkit.engines._casa_worker import find_data
from peelkit.io.image import read_image
from peelkit.io.region import read_regions, region_mask

# Before casatasks is imported, which looks for its data.
casaconfig.config.measurespath, casaconfig.config.datapath = find_data(casaconfig.config)
casaconfig.config.measures_auto_update = casaconfig.config.data_auto_update = False
casaconfig.config.logfile = "published.casa.log"

import casatasks  # noqa: E402

COLUMN_ROWS = 20000


def settings_like(path: Path) -> dict[str, Any]:
    """Arguments of tclean from the sidecar of a peelkit image, or of selfcal."""
    record = json.loads(path.read_text())
    imaging = record["results"].get("imaging") or record["parameters"]
    found: dict[str, Any] = {
        "imsize": imaging["imsize"],
        "cell": f"{imaging['cell_arcsec']}arcsec",
        "phasecenter": imaging["phasecenter"],
        "weighting": "briggs",
        "robust": imaging["robust"],
        "deconvolver": "mtmfs",
        "nterms": imaging["nterms"],
        "gridder": imaging["gridder"],
        "niter": 20000,
        "nsigma": 3.0,
        "usemask": "auto-multithresh",
    }
    if imaging["gridder"] == "wproject":
        found["wprojplanes"] = 128
    if imaging["gridder"] == "mosaic":
        # As the survey's pipeline; as far out as peelkit images.
        found |= {"mosweight": False, "usepointing": False, "pblimit": 0.1}
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ms", type=Path)
    parser.add_argument("regions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, required=True)
    parser.add_argument("--mask", type=Path, help="regions to clean; found by tclean if not given")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    settings = settings_like(given.like)
    if given.mask is not None:
        settings |= {"usemask": "user", "mask": str(given.mask)}
    times: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        start = time.monotonic()
        with stage(name):
            function(*arguments, **options)
        times[name] = round(time.monotonic() - start, 1)
        print(name, times[name], "s", flush=True)

    ms, first, second, peeled = (
        str(given.ms),
        *(str(given.out / n) for n in ("first", "selfcal", "peeled")),
    )
    gains = str(given.out / "phase.g")
    timed("tclean 1", casatasks.tclean, ms, imagename=first, datacolumn="data",
          savemodel="modelcolumn", **settings)  # fmt: skip
    timed("gaincal", casatasks.gaincal, ms, gains, solint="30s", calmode="p",
          refant=reference_antenna(ms))  # fmt: skip
    timed("applycal", casatasks.applycal, ms, gaintable=[gains])
    timed("tclean 2", casatasks.tclean, ms, imagename=second, datacolumn="corrected",
          savemodel="modelcolumn", **settings)  # fmt: skip
    timed("copy ALL_SKY_MODEL", copy_column, ms, "MODEL_DATA", "ALL_SKY_MODEL")
    names = []
    for region in read_regions(given.regions):
        name = f"BRIGHT_{region.number}"
        target = given.out / f"predict{region.number}"
        models: list[str] = []
        timed(f"mask {name}", lambda models=models, region=region: models.extend(
            mask_models(given.out, region)))  # fmt: skip
        timed(f"predict {name}", casatasks.tclean, ms, imagename=str(target), datacolumn="corrected",
              savemodel="modelcolumn", startmodel=models, calcres=False,
              **{**settings, "niter": 0, "usemask": "user", "mask": ""})  # fmt: skip
        timed(f"copy {name}", copy_column, ms, "MODEL_DATA", name)
        names.append(name)
    timed("quartical", quartical, ms, names, given.out)
    # tclean images DATA and CORRECTED_DATA only.
    timed("copy PEELED", copy_column, ms, "PEELED", "CORRECTED_DATA")
    timed("tclean 3", casatasks.tclean, ms, imagename=peeled, datacolumn="corrected", **settings)
    times["total"] = round(sum(times.values()), 1)
    (given.out / "times.json").write_text(json.dumps(times, indent=1))
    print(json.dumps(times))


def reference_antenna(ms: str) -> str:
    """Name of the antenna nearest to the middle of the array."""
    with table(f"{ms}::ANTENNA", ack=False) as antennas:
        places = antennas.getcol("POSITION")
        nearest = np.linalg.norm(places - np.median(places, axis=0), axis=1).argmin()
        return str(antennas.getcell("NAME", int(nearest)))


def mask_models(out: Path, region: Any) -> list[str]:
    """Models of the second image with all but a region blank; their names."""
    inside = region_mask(region, read_image(next(iter(out.glob("selfcal.image*")))))
    names = []
    for model in sorted(out.glob("selfcal.model*")):
        target = out / f"bright{region.number}{model.suffix}"
        shutil.copytree(model, target)
        plane = image(str(target))
        values = plane.getdata()
        plane.putdata(values * inside.T if values.shape[-2:] != inside.shape else values * inside)
        names.append(str(target))
    return names


def copy_column(ms: str, source: str, target: str) -> None:
    """Copy a column of visibilities, to a new one if there is none."""
    with table(ms, readonly=False, ack=False) as main:
        if target not in main.colnames():
            main.addcols(maketabdesc([makearrcoldesc(target, 0j, valuetype="complex", ndim=2)]))
        for start in range(0, main.nrows(), COLUMN_ROWS):
            rows = min(COLUMN_ROWS, main.nrows() - start)
            main.putcol(target, np.nan_to_num(main.getcol(source, start, rows)), start, rows)


def quartical(ms: str, names: list[str], out: Path) -> None:
    """Solve as in the memo, and subtract the bright sources' models."""
    recipe = ":".join(["~".join(["ALL_SKY_MODEL", *names]), *names])
    options = [
        f"input_ms.path={ms}", "input_ms.data_column=CORRECTED_DATA", "input_ms.weight_column=WEIGHT",
        "input_ms.group_by=[FIELD_ID,DATA_DESC_ID]", f"input_model.recipe={recipe}",
        f"output.gain_directory={out / 'gains'}", f"output.log_directory={out / 'logs'}",
        "output.products=[corrected_residual]", "output.columns=[PEELED]",
        f"output.subtract_directions={list(range(1, len(names) + 1))}",
        "solver.terms=[G,K,dE]", "solver.iter_recipe=[50,50,50]", "solver.threads=1",
        "G.type=phase", "G.time_interval=10s", "G.freq_interval=0",
        "K.type=delay", "K.time_interval=10s", "K.freq_interval=0",
        "dE.type=complex", "dE.time_interval=100s", "dE.freq_interval=0",
        "dE.direction_dependent=true", "dask.threads=2",
    ]  # fmt: skip
    program = Path(sys.executable).with_name("goquartical")
    with (out / "quartical.log").open("wb") as log:
        subprocess.run(
            [str(program), *[option.replace(" ", "") for option in options]],
            check=True,
            stdout=log,
            stderr=log,
        )


if __name__ == "__main__":
    main()
