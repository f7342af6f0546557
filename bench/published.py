"""The published recipe (VLASS memo 23) with the same engines, as a yardstick: wall time and images.

    python bench/published.py MS REGIONS OUTDIR --like SELFCAL_SIDECAR

Everything is done as in the memo's scripts: one image, one round of phase self-calibration, CLEAN model of
the bright source predicted by tclean, QuartiCal with G (phase, 10 s), K (delay, 10 s) and dE (complex, 100 s),
image of the residual. Image size, cell and weights are those of a peelkit run, so that only the method
differs. Times go to OUTDIR/times.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import casaconfig.config
import numpy as np
from casacore.images import image
from casacore.tables import makearrcoldesc, maketabdesc, table

from peelkit.engines._casa_worker import find_data
from peelkit.io.image import read_image
from peelkit.io.region import read_regions, region_mask

# Before casatasks is imported, which looks for its data.
casaconfig.config.measurespath, casaconfig.config.datapath = find_data(casaconfig.config)
casaconfig.config.measures_auto_update = casaconfig.config.data_auto_update = False
casaconfig.config.logfile = "published.casa.log"

import casatasks  # noqa: E402


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ms", type=Path)
    parser.add_argument("regions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    imaging = json.loads(given.like.read_text())["parameters"]
    settings = {
        "imsize": imaging["imsize"],
        "cell": f"{imaging['cell_arcsec']}arcsec",
        "weighting": "briggs",
        "robust": imaging["robust"],
        "deconvolver": "mtmfs",
        "nterms": imaging["nterms"],
        "gridder": imaging["gridder"],
        **({"wprojplanes": 128} if imaging["gridder"] == "wproject" else {}),
        "niter": 20000,
        "nsigma": 3.0,
        "usemask": "auto-multithresh",
    }
    times: dict[str, float] = {}

    def timed(name, function, *arguments, **options):  # type: ignore[no-untyped-def]
        start = time.monotonic()
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
    timed("gaincal", casatasks.gaincal, ms, gains, solint="30s", calmode="p", refant="ea10")
    timed("applycal", casatasks.applycal, ms, gaintable=[gains])
    timed("tclean 2", casatasks.tclean, ms, imagename=second, datacolumn="corrected",
          savemodel="modelcolumn", **settings)  # fmt: skip
    timed("columns", copy_column, ms, "MODEL_DATA", "ALL_SKY_MODEL")
    models = sorted(given.out.glob("selfcal.model.tt*"))
    restored = read_image(given.out / "selfcal.image.tt0")
    names = []
    for region in read_regions(given.regions):
        inside = region_mask(region, restored)
        masked = []
        for model in models:
            target = given.out / f"bright{region.number}.{model.suffix[1:]}"
            subprocess.run(["cp", "-r", str(model), str(target)], check=True)
            plane = image(str(target))
            values = plane.getdata()
            plane.putdata(
                values * inside.T if values.shape[-2:] != inside.shape else values * inside
            )
            masked.append(str(target))
        name = f"BRIGHT_{region.number}"
        timed(f"predict {name}", casatasks.tclean, ms, imagename=str(given.out / f"predict{region.number}"),
              datacolumn="corrected", savemodel="modelcolumn", startmodel=masked, calcres=False,
              **{**settings, "niter": 0, "usemask": "user"})  # fmt: skip
        timed(f"copy {name}", copy_column, ms, "MODEL_DATA", name)
        names.append(name)
    timed("quartical", quartical, ms, names, given.out)
    timed(
        "tclean 3",
        casatasks.tclean,
        str(given.out / "work.ms"),
        imagename=peeled,
        datacolumn="data",
        **settings,
    )
    times["total"] = round(sum(times.values()), 1)
    (given.out / "times.json").write_text(json.dumps(times, indent=1))
    print(json.dumps(times))


def copy_column(ms: str, source: str, target: str) -> None:
    """Copy a column of visibilities to a new one."""
    with table(ms, readonly=False, ack=False) as main:
        main.addcols(maketabdesc([makearrcoldesc(target, 0j, valuetype="complex", ndim=2)]))
        main.putcol(target, main.getcol(source))


def quartical(ms: str, names: list[str], out: Path) -> None:
    """Solve as in the memo, subtract the first direction's model, and put the result in a copy's DATA."""
    with table(ms, readonly=False, ack=False) as main:
        main.putcol("WEIGHT", main.getcol("WEIGHT"))
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
    subprocess.run(
        [
            str(Path(sys.executable).with_name("goquartical")),
            *[o.replace(" ", "") for o in options],
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(["cp", "-r", ms, str(out / "work.ms")], check=True)
    with table(str(out / "work.ms"), readonly=False, ack=False) as main:
        values = main.getcol("PEELED")
        main.putcol("DATA", np.nan_to_num(values))


if __name__ == "__main__":
    main()
