"""The benchmark's data: one field and a mosaic by `peelkit simulate`, in sizes 1, 2, 4, 8 of rows, channels, fields.

Each comes with regions of its bright sources, and with an image of the same faint sources in the same noise
without the bright one and without errors: how good a peeled image can be. That image also settles the pixels,
weights and Taylor terms of all others.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEELKIT = [sys.executable, "-m", "peelkit", "-q"]
SIZES = (1, 2, 4, 8)
# Words of the report on how peelkit self-calibrates in the benchmark: as the published recipe, in one round.
SELFCAL = "--solint 30s --calmode p"
SELFCAL_NOTE = f" and `selfcal {SELFCAL}`"
REGION_ARCSEC = 60
# The published recipe's mask is made at 8 sigma and then "inspected manually to include only real sources".
MASK_SIGMA, MASK_ARCSEC = 8, 30

# Size 1. The bright source is where the beam is at half power, through beams that point wrongly.
BASE: dict[str, dict[str, int]] = {
    "field": {"fields": 1, "spws": 4, "channels": 8, "integrations": 30, "integration": 10, "scans": 1},
    "mosaic": {"fields": 12, "spws": 2, "channels": 4, "integrations": 2, "integration": 5, "scans": 2},
    # For tests of the benchmark itself.
    "tiny": {"fields": 1, "spws": 2, "channels": 4, "integrations": 12, "integration": 10, "scans": 1},
}  # fmt: skip
MORE = {"tiny": "--antennas 14 --faint 6 --bright 5@4,2 --pointing-rms 40"}
# A mosaic with four pixels across the beam, to save time.
IMAGING = {"mosaic": "--cell 4.5arcsec", "tiny": "--imsize 300 --nterms 1"}
# What grows: rows by longer observing; channels by more of the same width; fields by a larger mosaic.
AXES = {"rows": "integrations", "channels": "channels", "fields": "fields"}


@dataclass(frozen=True)
class Dataset:
    """Which data.

    Parameters
    ----------
    kind : str
        ``field`` or ``mosaic``.
    axis : str
        What grows, one of `AXES`; of no meaning at size 1.
    """

    kind: str
    axis: str = "rows"
    size: int = 1

    @property
    def name(self) -> str:
        """Such as mosaic-1 or field-rows4."""
        return f"{self.kind}-1" if self.size == 1 else f"{self.kind}-{self.axis}{self.size}"

    def options(self) -> list[str]:
        """Words for `peelkit simulate`."""
        shape = dict(BASE[self.kind])
        shape[AXES[self.axis]] *= self.size
        words = [word for key, value in shape.items() for word in (f"--{key}", str(value))]
        return ["--config", "D", *words, *MORE.get(self.kind, "").split()]


@dataclass(frozen=True)
class Prepared:
    """Data on disk: ``sim.ms``, ``bright.reg``, ``best.image*``.

    Parameters
    ----------
    shape : dict
        ``fields``, ``rows``, ``channels`` (of all spws), ``correlations``, ``visibilities``, ``column_bytes``.
    imaging : dict
        From the sidecar of the best image: imsize, cell, robust, nterms, gridder, phase centre.
    best : Path
        Image of the faint sources in the noise.
    """

    dataset: Dataset
    folder: Path
    shape: dict[str, int]
    imaging: dict[str, Any]
    best: Path

    @property
    def ms(self) -> Path:
        """The MS; copy it before a run."""
        return self.folder / "sim.ms"

    @property
    def regions(self) -> Path:
        """Circles around the bright sources."""
        return self.folder / "bright.reg"

    @property
    def mask(self) -> Path:
        """Circles around all sources that stand out."""
        return self.folder / "mask.crtf"

    @property
    def like(self) -> Path:
        """Sidecar of the best image."""
        return self.folder / "best.json"


def run_peelkit(folder: Path, *words: object, codes: tuple[int, ...] = (0,)) -> None:
    """Run peelkit where nothing is measured; what it said goes to ``peelkit.log``."""
    with (folder / "peelkit.log").open("ab") as log:
        done = subprocess.run(
            [*PEELKIT, *map(str, words)], cwd=folder, stdout=log, stderr=log, check=False
        )
    if done.returncode not in codes:
        raise SystemExit(
            f"peelkit {' '.join(map(str, words))}: exit status {done.returncode}; see {folder}/peelkit.log"
        )


def prepare(dataset: Dataset, work: Path) -> Prepared:
    """Make the data in a folder of their own, unless they are there."""
    folder = work / dataset.name
    done = folder / "shape.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run_peelkit(folder, "simulate", "sim.ms", *dataset.options())
        without = ("--without", "bright", "--without", "errors")
        run_peelkit(folder, "simulate", "best.ms", *dataset.options(), *without)
        run_peelkit(folder, "image-residual", "best.ms", "best", "--column", "DATA", "--sidecar",
                    "best.json", *IMAGING.get(dataset.kind, "").split())  # fmt: skip
        _write_regions(folder)
        _write_mask(folder)
        shutil.rmtree(folder / "best.ms")
        done.write_text(json.dumps(shape_of(folder / "sim.ms"), indent=1))
    made = json.loads((folder / "best.json").read_text())["results"]
    return Prepared(
        dataset, folder, json.loads(done.read_text()), made["imaging"], folder / made["image"]
    )


def _write_regions(folder: Path) -> None:
    truth = json.loads((folder / "sim.ms.truth.json").read_text())
    lines = ["# Region file format: DS9", "icrs"]
    for source in (one for one in truth["sources"] if one["bright"]):
        circle = f'{source["ra_deg"]},{source["dec_deg"]},{REGION_ARCSEC}"'
        lines.append(f"circle({circle}) # text={{{source['name']}}}")
    (folder / "bright.reg").write_text("\n".join(lines) + "\n")


def _write_mask(folder: Path) -> None:
    """Circles around the true sources that stand out in the image, as a person would draw them."""
    truth = json.loads((folder / "sim.ms.truth.json").read_text())
    made = json.loads((folder / "best.json").read_text())["results"]["imaging"]
    half_deg = (made["imsize"] / 2 * made["cell_arcsec"] - MASK_ARCSEC) / 3600
    ra_deg, dec_deg = (truth["phase_centre"][key] for key in ("ra_deg", "dec_deg"))
    lines = ["#CRTFv0"]
    for one in truth["sources"]:
        x = abs(one["ra_deg"] - ra_deg) * math.cos(math.radians(dec_deg))
        inside = max(x, abs(one["dec_deg"] - dec_deg)) < half_deg
        if inside and max(one["apparent_flux_jy"]) > MASK_SIGMA * truth["rms_thermal_jy_beam"]:
            place = f"{one['ra_deg']}deg, {one['dec_deg']}deg"
            lines.append(f"circle[[{place}], {MASK_ARCSEC}arcsec] coord=ICRS")
    (folder / "mask.crtf").write_text("\n".join(lines) + "\n")


def shape_of(path: Path) -> dict[str, int]:
    """Fields, rows, channels of all spws, correlations, visibilities of one, and bytes of a column."""
    from casacore.tables import table

    with table(str(path), ack=False) as main:
        rows, cell = main.nrows(), main.getcell("DATA", 0)
    with table(f"{path}::FIELD", ack=False) as fields:
        n_fields = fields.nrows()
    with table(f"{path}::SPECTRAL_WINDOW", ack=False) as spws:
        channels = int(spws.getcol("NUM_CHAN").sum())
    return {
        "fields": n_fields,
        "rows": rows,
        "channels": channels,
        "correlations": int(cell.shape[1]),
        "visibilities": rows * int(cell.shape[0]),  # for each correlation
        "column_bytes": rows * cell.nbytes,
    }
