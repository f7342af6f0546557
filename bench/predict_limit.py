"""Prediction against its limits: ducc0 alone, and tclean's own prediction of the same model.

    python bench/predict_limit.py MS OUTDIR [REPEATS]

The model is CLEAN-like: blobs of a few pixels at places by chance, in an image that covers the field (a mosaic
with tclean's gridder for that). ``peelkit predict-region`` writes it to one column, with one region around
all of it; so does tclean (its call in a running CASA, savemodel='modelcolumn', no image, no PSF) to MODEL_DATA
of a copy; ducc0 predicts the same image for the same u, v, w and frequencies in one call for each spw and
field, from arrays in memory, and writes nothing. All three in turn, so often; medians. A table is printed and
OUTDIR/predict_limit.json written. ``run(ms, out)`` gives the same figures.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from casacore.tables import table

from peelkit.engines import casa as engine
from peelkit.io import ms as tables

SIZE, BLOBS, PIXELS = 1024, 60, 8


def cpu_of(pid: int) -> float:
    """CPU seconds that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def make_model(casa: engine.Casa, path: Path, out: Path, cell_arcsec: float) -> dict[str, Any]:
    """An image of no iterations whose model has blobs; arguments of tclean that predict it."""
    info = tables.read_info(path)
    mosaic = len({(field.ra_rad, field.dec_rad) for field in info.fields}) > 1
    middle = info.fields[len(info.fields) // 2]
    arguments: dict[str, Any] = {
        "imsize": [SIZE, SIZE],
        "cell": f"{cell_arcsec!r}arcsec",
        "gridder": "mosaic" if mosaic else "standard",
        "specmode": "mfs",
        "deconvolver": "hogbom",
        "pblimit": 0.1 if mosaic else -0.1,
    }
    if mosaic:
        frame = {"J2000": "J2000", "ICRS": "ICRS"}.get(middle.frame, "J2000")
        arguments |= {
            "phasecenter": f"{frame} {middle.ra_rad!r}rad {middle.dec_rad!r}rad",
            "normtype": "flatnoise",
            "mosweight": False,
        }
    casa.run(
        "tclean", vis=str(path.absolute()), imagename=str((out / "model").absolute()), niter=0,
        datacolumn="data", calcpsf=True, calcres=True, restoration=True, savemodel="none", **arguments,
    )  # fmt: skip
    rng = np.random.default_rng(7)
    plane = np.zeros((SIZE, SIZE), dtype=np.float32)
    places = rng.normal(SIZE / 2, SIZE / 10, (BLOBS, 2)).clip(20, SIZE - 20).astype(int)
    flux = 10 ** rng.uniform(-3, 0, BLOBS)
    for (x, y), total in zip(places, flux, strict=True):
        spots = rng.integers(-3, 4, (PIXELS, 2))
        plane[y + spots[:, 0], x + spots[:, 1]] += total / PIXELS
    with table(str(out / "model.model"), readonly=False, ack=False) as image:
        image.putcell("map", 0, plane[None, None])
    lines = ["#CRTFv0"]
    low, high = SIZE // 2, SIZE // 2
    ys, xs = np.nonzero(plane)
    low, high = int(min(xs.min(), ys.min())) - 5, int(max(xs.max(), ys.max())) + 5
    lines.append(f"box [[{low}pix, {low}pix], [{high}pix, {high}pix]]")
    (out / "all.crtf").write_text("\n".join(lines) + "\n")
    return arguments


def ducc_alone(path: Path, out: Path, cell_arcsec: float) -> dict[str, float]:
    """Seconds of ducc0, in a process of its own."""
    script = f"""
import json, sys, time, resource
import numpy as np
from pathlib import Path
from ducc0.wgridder import dirty2vis
from peelkit.io import ms
from peelkit.io.image import read_image
from peelkit.parallel import cores
info = ms.read_info(Path({str(path)!r}))
image = np.ascontiguousarray(np.nan_to_num(read_image(Path({str(out / "model.model")!r})).data).T, dtype=np.float64)
with ms.opened(info.path) as main:
    uvw, ddid, field = (main.getcol(name) for name in ("UVW", "DATA_DESC_ID", "FIELD_ID"))
wall = cpu = 0.0
cell = np.radians({cell_arcsec!r} / 3600)
for one in info.data_descriptions:
    for number in np.unique(field):
        mine = np.ascontiguousarray(uvw[(ddid == one.id) & (field == number)])
        if not len(mine):
            continue
        start, begun = time.monotonic(), time.process_time()
        vis = dirty2vis(
            uvw=mine, freq=info.spws[one.spw].freq_hz, dirty=image, pixsize_x=cell, pixsize_y=cell,
            epsilon=1e-6, do_wgridding=True, flip_v=True, divide_by_n=False, nthreads=cores(),
        )
        wall += time.monotonic() - start
        cpu += time.process_time() - begun
print(json.dumps({{"wall_s": wall, "cpu_s": cpu}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def peelkit(path: Path, out: Path, *more: str) -> dict[str, float]:
    """Wall, CPU, and the wall time that the command itself counts, of predict-region."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    sidecar = out / "predict.json"
    subprocess.run(
        [
            sys.executable, "-m", "peelkit", "-q", "predict-region", str(path), "--model",
            str(out / "model.model"), "--regions", str(out / "all.crtf"), "--prefix", "LIMIT",
            "--shape", "clean", "--overwrite", "--sidecar", str(sidecar), *more,
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The column again, so that the MS stays as it was.
    subprocess.run(
        [sys.executable, "-m", "peelkit", "-q", "undo", str(path)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return {"wall_s": wall, "cpu_s": used, "work_s": json.loads(sidecar.read_text())["seconds"]}


def run(ms: Path, out: Path, *, repeats: int = 3, workers: int = 0) -> dict[str, Any]:
    """Figures of one MS, which is left as it was; ``out`` is a new folder.

    Parameters
    ----------
    ms : Path
        The MS.
    out : Path
        For the model, a copy of the MS for tclean, and logs.
    repeats : int
        How often.
    workers : int
        predict-region with so many workers as well; 0 for not.
    """
    out.mkdir(parents=True)
    info = tables.read_info(ms)
    copy = out / "copy.ms"
    shutil.copytree(ms, copy)
    with tables.opened(ms) as main:
        longest = max(
            float(np.abs(main.getcol("UVW", start, count)[:, :2]).max())
            for start, count in tables.row_ranges(main.nrows(), 64)
        )
        ddids = np.concatenate(
            [main.getcol("DATA_DESC_ID", s, n) for s, n in tables.row_ranges(main.nrows(), 8)]
        )
    highest = max(float(spw.freq_hz.max()) for spw in info.spws)
    cell_arcsec = round(float(np.degrees(299792458.0 / highest / longest / 3) * 3600), 4)
    samples = sum(
        int(np.count_nonzero(ddids == one.id)) * info.spws[one.spw].freq_hz.size
        for one in info.data_descriptions
    )
    runs: dict[str, list[dict[str, float]]] = {"ducc0": [], "peelkit": [], "tclean": []}
    with engine.Casa(out / "casa.log") as casa:
        arguments = make_model(casa, copy, out, cell_arcsec)
        child = casa._process
        assert child is not None
        for _ in range(repeats):
            runs["ducc0"].append(ducc_alone(ms, out, cell_arcsec))
            runs["peelkit"].append(peelkit(ms, out))
            if workers:
                runs.setdefault("workers", []).append(peelkit(ms, out, "--workers", str(workers)))
            begun, start = cpu_of(child.pid), time.monotonic()
            engine.predict(casa, copy, out / "model", arguments)
            runs["tclean"].append(
                {"wall_s": time.monotonic() - start, "cpu_s": cpu_of(child.pid) - begun}
            )
    shutil.rmtree(copy)
    median = {
        name: {key: statistics.median(one[key] for one in values) for key in values[0]}
        for name, values in runs.items()
    }
    result = {
        "ms": str(ms),
        "visibilities": samples,
        "column_bytes": column_bytes(info, ddids),
        "image_pixels": SIZE,
        "cell_arcsec": cell_arcsec,
        "median": median,
        "runs": runs,
        "tclean_over_peelkit_wall": median["tclean"]["wall_s"] / median["peelkit"]["wall_s"],
        "tclean_over_peelkit_cpu": median["tclean"]["cpu_s"] / median["peelkit"]["cpu_s"],
        "peelkit_over_ducc0_wall": median["peelkit"]["wall_s"] / median["ducc0"]["wall_s"],
        "peelkit_over_ducc0_cpu": median["peelkit"]["cpu_s"] / median["ducc0"]["cpu_s"],
    }
    (out / "predict_limit.json").write_text(json.dumps(result, indent=1))
    return result


def column_bytes(info: tables.MsInfo, ddids: np.ndarray) -> int:
    """Bytes of a column of visibilities."""
    return sum(
        int(np.count_nonzero(ddids == one.id))
        * info.spws[one.spw].freq_hz.size
        * len(one.correlations)
        * 8
        for one in info.data_descriptions
    )


def main() -> None:
    """Print the table."""
    path, out, *more = sys.argv[1:]
    found = run(Path(path), Path(out), repeats=int(more[0]) if more else 3, workers=2)
    print(
        f"{found['visibilities'] / 1e6:.1f} M visibilities, column {found['column_bytes'] / 1e6:.0f} MB"
    )
    for name, figures in found["median"].items():
        print(f"{name:8s} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    for key, value in found.items():
        if "_over_" in key:
            print(f"{key} {value:.2f}")


if __name__ == "__main__":
    main()
