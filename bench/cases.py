"""The matrix of cases: the whole chain of `peelkit recipe peel` with its defaults, against truth.

    python bench/cases.py [--only REGEX] [--seeds 1,2,3] [--jobs N] [--selfcal] [--list] [--table] [--keep]

Ten regimes of errors (`regimes.py`) by two generators (`peelkit simulate`, and `independent.py`, which shares no code with it),
each with three seeds; configuration, a source in the middle, and the S/N of the bright source in a visibility go through their
values from case to case. Nothing is given to the chain but the MS, regions by a fixed rule, and the folder. The twin of each case
is the same sky in the same noise, without errors and without the bright source, imaged with the same parameters.

A result is a line of JSON in bench/cases.jsonl, written when the case ends: one that is done with this code is not done
again, and a run that was killed goes on. Seeds 1 to 3 are for tuning, 11 to 13 for reports. ``--selfcal`` runs self-calibration
alone, and compares the gains of each round with the truth (`gains_truth.py`). ``--table`` writes the tables of what is done into
docs/peeling.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cases_report
from regimes import REGIMES, Regime

HERE = Path(__file__).parent
ROOT = HERE.parent
PEELKIT = [sys.executable, "-m", "peelkit"]
GENERATORS = ("peelkit", "independent")
TUNING, REPORT = (1, 2, 3), (11, 12, 13)
SNRS = (500.0, 120.0, 30.0, 8.0, 2.0, 0.5)

BRIGHT_JY, SECOND_SHARE, CENTRAL_SHARE = 9.5, 0.3, 0.25
BEAM_ARCMIN = 14.2
# About the synthesised beam at 3 GHz.
BEAM_ARCSEC = {"C": 7.0, "D": 23.0}
# The rule for regions: a circle around each bright source, so many beams in radius.
REGION_BEAMS = 4.0
SHAPE = {"spws": 3, "channels": 4, "integrations": 20, "integration": 10, "scans": 2, "faint": 30}
# Of those in `make test`.
SMALL_SHAPE = SHAPE | {"spws": 1, "integrations": 12, "scans": 1, "faint": 8}
# What the recipe ends with, whatever came of it.
PRODUCTS = re.compile(r"== (images:|plots:|\d+ rounds; the peeled data are in)")
N_BASELINE, N_HAND = 351, 2

# Local rms within so many beams of the bright source, other sources left out to so many.
RMS_BEAMS, SOURCE_BEAMS = 15.0, 2.5
# Sources above so many sigma of the twin are compared.
COMPARED_SIGMA = 10.0
# Verdicts: the local rms over that of the twin, and the median flux over that in the twin.
GOOD_RMS, WRONG_RMS, WRONG_FLUX = 1.3, 2.0, 0.05
LONGEST_S = 7200
# Code here that results depend on, beside peelkit's.
OWN = ("regimes.py", "independent.py", "cases.py", "gains_truth.py")


@dataclass(frozen=True)
class Case:
    """One set of data.

    Parameters
    ----------
    regime, generator : str
        Name in `REGIMES`, and one of `GENERATORS`.
    seed : int
        Of sky, errors and noise.
    config : str
        Of the VLA.
    central : bool
        There is a source of a quarter of the bright one's flux in the middle.
    snr : float
        Apparent flux of the bright source over the noise of a visibility.
    small : bool
        Few data.
    """

    regime: str
    generator: str
    seed: int
    config: str
    central: bool
    snr: float
    small: bool = False

    @property
    def shape(self) -> dict[str, int]:
        """Of the data: options of both generators."""
        return SMALL_SHAPE if self.small else SHAPE

    @property
    def name(self) -> str:
        """Such as walk-independent-C-central-snr30-s1."""
        middle = ("central" if self.central else "empty") + ("-small" if self.small else "")
        return f"{self.regime}-{self.generator}-{self.config}-{middle}-snr{self.snr:g}-s{self.seed}"

    @property
    def what(self) -> Regime:
        """Its errors."""
        return REGIMES[self.regime]

    def bright(self) -> list[tuple[float, float, float]]:
        """Flux [Jy] and arcmin east and north; each third seed has a second one."""
        rng = np.random.default_rng([self.seed, 77])
        radius, angle = rng.uniform(5.5, 8.5), rng.uniform(0, 2 * math.pi)
        found = [(BRIGHT_JY, radius * math.sin(angle), radius * math.cos(angle))]
        if self.seed % 10 == 3:
            angle += rng.uniform(0.5, 1.5) * math.pi
            radius = rng.uniform(5.5, 8.5)
            found.append(
                (SECOND_SHARE * BRIGHT_JY, radius * math.sin(angle), radius * math.cos(angle))
            )
        return found

    @property
    def apparent_jy(self) -> float:
        """Of the first bright source, about."""
        flux, east, north = self.bright()[0]
        return flux * 2 ** (-4 * (math.hypot(east, north) / BEAM_ARCMIN) ** 2)

    @property
    def noise_jy(self) -> float:
        """Of a visibility's real part."""
        return self.apparent_jy / self.snr

    @property
    def faint_jy(self) -> tuple[float, float]:
        """Least and greatest flux of the faint sources: they stand out of the noise, and are faint."""
        size = math.prod(self.shape[key] for key in ("spws", "channels", "integrations", "scans"))
        thermal = self.noise_jy / math.sqrt(N_BASELINE * N_HAND * size)
        return 12 * thermal, max(60 * thermal, min(600 * thermal, self.apparent_jy / 15))


def matrix(seeds: tuple[int, ...]) -> Iterator[Case]:
    """All cases, regime by regime."""
    for number, regime in enumerate(REGIMES):
        for g, generator in enumerate(GENERATORS):
            for seed in seeds:
                k = seed % 10 - 1
                yield Case(
                    regime=regime,
                    generator=generator,
                    seed=seed,
                    config="CD"[(k + g + number // 2) % 2],
                    central=(k + number + g) % 3 == 0,
                    snr=SNRS[(number + 2 * k + 3 * g) % len(SNRS)],
                )


# ---------------------------------------------------------------- data


def simulate(case: Case, folder: Path, name: str, *, twin: bool) -> None:
    """Make the data of a case, or of its twin."""
    words = {
        "peelkit": simulate_words,
        "independent": independent_words,
    }[case.generator](case, folder / f"{name}.ms", twin)
    run(folder, words, "simulate.log", must=True)


def _common(case: Case) -> list[str]:
    low, high = case.faint_jy
    found = [f"--{key}={value}" for key, value in case.shape.items()]
    found += [f"--config={case.config}", f"--seed={case.seed}"]
    return [*found, "--faint-flux", f"{low:.6g}", f"{high:.6g}"]


def independent_words(case: Case, out: Path, twin: bool) -> list[str]:
    """The command line of `independent.py`."""
    words = [sys.executable, str(HERE / "independent.py"), str(out), *_common(case)]
    words += [f"--regime={case.regime}", f"--noise={case.noise_jy:.6g}"]
    words += [f"--bright={flux:g}@{east:.4f},{north:.4f}" for flux, east, north in case.bright()]
    if case.central:
        words.append(f"--central={CENTRAL_SHARE * case.apparent_jy:.6g}")
    return [*words, "--without=bright,errors"] if twin else words


def simulate_words(case: Case, out: Path, twin: bool) -> list[str]:
    """The command line of `peelkit simulate`."""
    width = 128e6 / case.shape["channels"]
    sefd = case.noise_jy * 0.93 * math.sqrt(2 * width * case.shape["integration"])
    words = [*PEELKIT, "-q", "simulate", str(out), *_common(case), f"--sefd={sefd:.9g}"]
    what = case.what
    # A source in the middle is a bright one to `simulate`, which the twin keeps; the others go down to nothing in it, so that
    # the faint ones stay where they are.
    share = 1e-12 if twin else 1.0
    words += [
        f"--bright={share * flux:g}@{east:.4f},{north:.4f}" for flux, east, north in case.bright()
    ]
    if case.central:
        words.append(f"--bright={CENTRAL_SHARE * case.apparent_jy:.6g}@0,0")
    if twin:
        words.append("--without=errors")
    for process in what.processes:
        values = {
            "phase": process.phase_deg,
            "amplitude": process.amplitude,
            "time": process.time_s,
        }
        said = ",".join(f"{key}={value:g}" for key, value in values.items() if value)
        words.append(f"--errors={process.kind}:{said}")
    if what.beam != "airy":
        words.append(f"--beam={what.beam}")
    if what.weights_scale != 1:
        words.append(f"--weights-scale={what.weights_scale:g}")
    if what.noise_correlation:
        words.append(f"--noise-correlation={what.noise_correlation:g}")
    return words


def run(folder: Path, words: list[str], log: str, *, must: bool = False) -> int:
    """Run a command; its exit status, or 124 if it was too long."""
    with (folder / log).open("ab") as where:
        try:
            done = subprocess.run(
                words, cwd=folder, stdout=where, stderr=where, check=False, timeout=LONGEST_S,
                env=environment(),
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            done = 124
    if must and done:
        raise RuntimeError(f"{' '.join(words)}: exit status {done}: {last_line(folder / log)}")
    return done


def environment() -> dict[str, str]:
    """For children: with the peelkit and the Python that run here."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    source = f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    return {**os.environ, "PATH": path, "PYTHONPATH": source}


def last_line(log: Path) -> str:
    """The last thing that was said, but for where the products are."""
    lines = [
        line
        for line in log.read_text(errors="replace").splitlines()
        if line.strip() and not PRODUCTS.match(line)
    ]
    return lines[-1].strip() if lines else ""


def write_regions(case: Case, truth: dict[str, Any], path: Path) -> None:
    """One circle around each bright source; the one in the middle is none."""
    lines = ["#CRTFv0"]
    for number, source in enumerate(bright_of(case, truth), 1):
        radius = REGION_BEAMS * BEAM_ARCSEC[case.config]
        place = f"[{source['ra_deg']:.7f}deg, {source['dec_deg']:.7f}deg]"
        lines.append(f"circle[{place}, {radius:g}arcsec] coord=ICRS, label='BRIGHT_{number}'")
    path.write_text("\n".join(lines) + "\n")


def bright_of(case: Case, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The sources to peel."""
    names = [f"BRIGHT_{number}" for number in range(1, len(case.bright()) + 1)]
    return [one for one in truth["sources"] if one["name"] in names]


# ---------------------------------------------------------------- one case


def prepare(case: Case, work: Path) -> tuple[Path, dict[str, Any]]:
    """A new folder with the data of a case, and its truth."""
    folder = work / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    simulate(case, folder, "sim", twin=False)
    return folder, json.loads((folder / "sim.ms.truth.json").read_text())


def run_selfcal(case: Case, work: Path, *, keep: bool) -> dict[str, Any]:
    """Self-calibration alone, and its rounds against the truth."""
    import gains_truth

    folder, truth = prepare(case, work)
    begin = time.monotonic()
    words = ["selfcal", "sim.ms", "--out", "selfcal", "--sidecar", "selfcal.json"]
    status = run(folder, [*PEELKIT, *words], "log")
    seconds = round(time.monotonic() - begin, 1)
    record = folder / "selfcal.json"
    rounds = gains_truth.judge_rounds(folder, record, truth) if record.exists() else []
    wrong = sum(one["nearer"] not in (None, one["accepted"]) for one in rounds)
    found = {
        "status": status, "message": last_line(folder / "log")[:300], "seconds": seconds,
        "rounds": rounds, "verdict": f"{wrong} of {len(rounds)} wrong",
    }  # fmt: skip
    if not keep:
        shutil.rmtree(folder)
    return found


def run_case(case: Case, work: Path, *, keep: bool) -> dict[str, Any]:
    """The chain on one case, and what came of it."""
    folder, truth = prepare(case, work)
    simulate(case, folder, "twin", twin=True)
    write_regions(case, truth, folder / "bright.crtf")
    with (folder / "peel.sh").open("w") as script:
        subprocess.run([*PEELKIT, "recipe", "peel"], stdout=script, check=True, env=environment())
    begin = time.monotonic()
    status = run(folder, ["sh", "peel.sh", "sim.ms", "bright.crtf", "out"], "log")
    found: dict[str, Any] = {
        "status": status,
        "message": last_line(folder / "log")[:300],
        "seconds": round(time.monotonic() - begin, 1),
        "load": round(os.getloadavg()[0], 2),
        "bright_jy": [round(one["apparent_flux_jy"][0], 4) for one in bright_of(case, truth)],
        "thermal_jy_beam": truth["rms_thermal_jy_beam"],
        **chain_figures(folder / "out"),
    }
    image = last_image(folder / "out")
    if image is not None:
        found.update(measure(case, folder, truth, image))
    found["verdict"] = verdict(found)
    if not keep:
        shutil.rmtree(folder)
    return found


def chain_figures(out: Path) -> dict[str, Any]:
    """What the chain said of itself: rounds of self-calibration accepted, rounds of peeling, chi-squared."""
    found: dict[str, Any] = {"selfcal": None, "rounds": 0, "chi2": None}
    if (out / "selfcal.json").exists():
        rounds = json.loads((out / "selfcal.json").read_text())["results"]["rounds"]
        found["selfcal"] = f"{sum(bool(one['accepted']) for one in rounds)}/{len(rounds)}"
    for number in range(1, 10):
        record = out / f"fall{number}.json"
        if not record.exists() or (out / f"undone{number}").exists():
            break
        found["rounds"] = number
        said = re.search(r'"chi2_over_noise": *([-+.0-9e]+)', record.read_text())
        found["chi2"] = float(said.group(1)) if said else None
    return found


def last_image(out: Path) -> Path | None:
    """The peeled image of the last round that was kept, or what there is before that; without the suffix."""
    names = [
        f"peeled{number}" for number in range(9, 0, -1) if not (out / f"undone{number}").exists()
    ]
    for name in [*names, "selfcal/final", "selfcal/first"]:
        if restored(out / name) is not None and (not name.startswith("peeled") or _kept(out, name)):
            return out / name
    return None


def _kept(out: Path, name: str) -> bool:
    return (out / f"fall{name.removeprefix('peeled')}.done").exists()


def restored(image: Path) -> Path | None:
    """The restored image of a name, with or without Taylor terms."""
    for suffix in (".image.tt0", ".image"):
        if image.with_name(image.name + suffix).exists():
            return image.with_name(image.name + suffix)
    return None


def measure(case: Case, folder: Path, truth: dict[str, Any], image: Path) -> dict[str, Any]:
    """Image the twin as the case was imaged, and compare."""
    mine = restored(image)
    if mine is None:
        raise RuntimeError(f"{image}: no image")
    record = json.loads(mine.with_name(f"{mine.name}.peelkit.json").read_text())
    made = record["results"]["imaging"]
    words = [f"--imsize={made['imsize']}", f"--cell={made['cell_arcsec']}arcsec"]
    words += [f"--robust={made['robust']}", f"--nterms={made['nterms']}"]
    run(folder, [*PEELKIT, "-q", "image-residual", "twin.ms", "twin", "--column=DATA", *words],
        "twin.log", must=True)  # fmt: skip
    best = restored(folder / "twin")
    if best is None:
        raise RuntimeError(f"{folder}: no image of the twin")
    one, other = Picture(mine), Picture(best)
    bright = bright_of(case, truth)
    rest = [source for source in truth["sources"] if source not in bright]
    local = [
        (one.rms_around(source, rest, truth), other.rms_around(source, rest, truth))
        for source in bright
    ]
    against_truth, against_twin, twin_truth = [], [], []
    for source in rest:
        level = other.peak_of(source)
        alone = all(
            one.beams_between(source, thing) > SOURCE_BEAMS
            for thing in truth["sources"]
            if thing is not source
        )
        if not alone or level is None or level < COMPARED_SIGMA * local[0][1]:
            continue
        seen = one.peak_of(source)
        if seen is None:
            continue
        flux = source["apparent_flux_jy"][0]
        against_truth.append(seen / flux)
        against_twin.append(seen / level)
        twin_truth.append(level / flux)
    return {
        "image": image.name,
        "local_rms_jy_beam": [mine for mine, _ in local],
        "rms_over": [round(mine / best, 4) for mine, best in local],
        "left_over": [
            round((one.peak_of(source) or math.nan) / best, 2)
            for source, (_, best) in zip(bright, local, strict=True)
        ],
        "compared": len(against_truth),
        "flux_truth": spread(against_truth),
        "flux_twin": spread(against_twin),
        "twin_flux_truth": spread(twin_truth),
    }


def robust(values: NDArray[np.float64]) -> float:
    """1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def spread(values: list[float]) -> list[float] | None:
    """Median and robust scatter."""
    if not values:
        return None
    return [round(float(np.median(values)), 4), round(robust(np.array(values)), 4)]


class Picture:
    """An image, and where the sources are in it."""

    def __init__(self, path: Path) -> None:
        from peelkit.io.image import read_image

        found = read_image(path)
        if found.beam is None:
            raise RuntimeError(f"{path}: no beam")
        self.image, self.data = found, found.data
        self.beam_arcsec = math.sqrt(found.beam.major_arcsec * found.beam.minor_arcsec)
        scale = abs(float(found.wcs.wcs.cdelt[1])) * 3600
        self.beam_pixels = self.beam_arcsec / scale

    def pixel(self, source: dict[str, Any]) -> tuple[float, float]:
        """Column and row."""
        from astropy import units
        from astropy.coordinates import SkyCoord

        place = SkyCoord(source["ra_deg"] * units.deg, source["dec_deg"] * units.deg)
        x, y = (float(value) for value in self.image.pixel(place))
        return x, y

    def beams_between(self, one: dict[str, Any], two: dict[str, Any]) -> float:
        """Distance of two sources in beams."""
        east = (one["ra_deg"] - two["ra_deg"]) * math.cos(math.radians(one["dec_deg"]))
        return math.hypot(east, one["dec_deg"] - two["dec_deg"]) * 3600 / self.beam_arcsec

    def away(self, source: dict[str, Any]) -> NDArray[np.float64]:
        """Distance of each pixel in beams."""
        x, y = self.pixel(source)
        rows, columns = np.indices(self.data.shape)
        return np.asarray(np.hypot(columns - x, rows - y) / self.beam_pixels)

    def rms_around(
        self, bright: dict[str, Any], rest: list[dict[str, Any]], truth: dict[str, Any]
    ) -> float:
        """Robust rms around a bright source, without the other sources that can be seen."""
        used = self.away(bright) < RMS_BEAMS
        for source in rest:
            if source["apparent_flux_jy"][0] > 2 * truth["rms_thermal_jy_beam"]:
                used &= self.away(source) > SOURCE_BEAMS
        values = self.data[used]
        return robust(values[np.isfinite(values)])

    def peak_of(self, source: dict[str, Any]) -> float | None:
        """Peak within a beam of where a point is, of a parabola through 3 x 3 pixels."""
        near = np.where(self.away(source) < 1, self.data, -np.inf)
        row, column = np.unravel_index(int(np.nanargmax(near)), near.shape)
        cut = self.data[row - 1 : row + 2, column - 1 : column + 2]
        if cut.shape != (3, 3) or not np.isfinite(cut).all() or not np.isfinite(near.max()):
            return None
        dy, dx = (grid.ravel() for grid in np.mgrid[-1:2, -1:2])
        terms = np.stack([np.ones(9), dx, dy, dx**2, dy**2, dx * dy], axis=1)
        c = np.linalg.lstsq(terms, cut.ravel(), rcond=None)[0]
        curve = np.array([[2 * c[3], c[5]], [c[5], 2 * c[4]]])
        step = -np.linalg.solve(curve, c[1:3]) if abs(np.linalg.det(curve)) > 0 else np.zeros(2)
        return float(c[0] + 0.5 * c[1:3] @ np.clip(step, -1, 1))


def verdict(found: dict[str, Any]) -> str:
    """good, fair or wrong if the chain says that it is done; refused if it says no; failed."""
    if found["status"] in (3, 5):
        return "refused"
    if found["status"] != 0:
        return "failed"
    worst = max(found.get("rms_over") or [math.inf])
    flux = found.get("flux_twin")
    off = abs(flux[0] - 1) if flux else 0.0
    if worst > WRONG_RMS or off > WRONG_FLUX:
        return "wrong"
    return "good" if worst <= GOOD_RMS else "fair"


# ---------------------------------------------------------------- results


@functools.cache
def code_version() -> str:
    """Of all code that a result depends on."""
    digest = hashlib.sha256()
    files = [*(ROOT / "src/peelkit").rglob("*.py"), *(ROOT / "src/peelkit").rglob("*.sh")]
    for path in sorted([*files, *(HERE / name for name in OWN)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Short name of the commit."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True,
                          text=True, check=False)  # fmt: skip
    return done.stdout.strip() or "unknown"


def read_results(path: Path) -> list[dict[str, Any]]:
    """All lines; one that was cut off is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def add_result(path: Path, result: dict[str, Any]) -> None:
    """One line more, in one piece."""
    with path.open("a") as where:
        where.write(json.dumps(result) + "\n")


def main() -> None:
    """Run what is asked for and is not done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this regular expression")
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=HERE / "work" / "cases")
    parser.add_argument("--results", type=Path, default=HERE / "cases.jsonl")
    parser.add_argument("--keep", action="store_true", help="keep the folders of the cases")
    parser.add_argument("--selfcal", action="store_true", help="self-calibration alone")
    parser.add_argument(
        "--table", action="store_true", help="write the tables into docs/peeling.md"
    )
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    asked = parser.parse_args()
    seeds = tuple(int(word) for word in asked.seeds.split(","))
    cases = [case for case in matrix(seeds) if re.search(asked.only, case.name)]
    if asked.list:
        sys.stdout.write("".join(f"{case.name}\n" for case in cases))
        return
    if asked.table:
        cases_report.write(ROOT / "docs/peeling.md", read_results(asked.results), seeds)
        return
    version, chain = code_version(), "selfcal" if asked.selfcal else "peel"
    done = {
        one["case"]
        for one in read_results(asked.results)
        if (one["code"], one.get("chain"), one["verdict"] != "not run") == (version, chain, True)
    }
    work = asked.work.absolute() / chain
    run_one = run_selfcal if asked.selfcal else run_case

    def one(case: Case) -> None:
        about = {
            "case": case.name,
            **asdict(case),
            "chain": chain,
            "code": version,
            "commit": commit(),
        }
        try:
            found = run_one(case, work, keep=asked.keep)
        except Exception as error:  # one case that cannot be run is no reason to stop the others
            found = {"verdict": "not run", "message": f"{type(error).__name__}: {error}"[:500]}
        add_result(asked.results, {**about, **found})
        line = selfcal_line_of if asked.selfcal and "rounds" in found else line_of
        sys.stdout.write(line({**about, **found}) + "\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(one, (case for case in cases if case.name not in done)))


def selfcal_line_of(one: dict[str, Any]) -> str:
    """A result of self-calibration in a line: the error of the gains, and what was taken back in brackets."""
    errors = [f"{value['before']:.3f}" for value in one["rounds"][:1]]
    errors += [
        f"{value['after']:.3f}" if value["accepted"] else f"({value['after']:.3f})"
        for value in one["rounds"]
    ]
    said = f"{one['case']:44s} {one['verdict']:12s} status {one['status']} {' '.join(errors)}"
    return f"{said} {one['seconds']} s: {one['message']}"


def line_of(one: dict[str, Any]) -> str:
    """A result in a line."""
    flux = one.get("flux_truth") or [math.nan, math.nan]
    rms = " ".join(f"{value:.2f}" for value in one.get("rms_over") or [])
    return (
        f"{one['case']:44s} {one['verdict']:8s} status {one.get('status')} rms x {rms or '-'} "
        f"flux {flux[0]:.3f} +- {flux[1]:.3f} ({one.get('compared', 0)}) chi2 {one.get('chi2')} "
        f"selfcal {one.get('selfcal')} rounds {one.get('rounds')} {one.get('seconds')} s: {one.get('message')}"
    )


if __name__ == "__main__":
    main()
