"""A Measurement Set with a bright source off axis, by a generator that shares no code with peelkit.

casatools' simulator makes the rows (times, antennas, uvw), and plain numpy the measurement equation. It knows the same regimes of
errors (`regimes.py`) as `peelkit simulate`, written anew, and writes its truth in the same form (`peelkit.truth/1`).
It runs in a process of its own, because casatools and python-casacore do not share one:

    python bench/independent.py OUT.ms --regime walk --seed 3
    python bench/independent.py OUT.ms --regime walk --seed 3 --without bright,errors

With ``--fill --sky TRUTH.json`` the MS is there already, and its DATA are replaced by what the sources of a truth file look like.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from regimes import REGIMES, Process, Regime

Floats = NDArray[np.float64]

LIGHT = 299792458.0
REFERENCE_HZ = 3e9
ARCSEC = math.pi / 180 / 3600
FIELD = (math.radians(203.077), math.radians(30.4999))
EPOCH = "2022/01/16"
SLEW_S = 20.0
DISH_M, BLOCKAGE_M = 25.0, 3.0
# Of the R beam from the middle of R and L, in widths of the beam, and where it lies from the antenna's up direction.
SQUINT, SQUINT_ANGLE = 0.03, math.radians(60)
SPW_HZ = 128e6
DELAY_NS, AMPLITUDE, POINTING_ARCSEC = 0.1, 0.05, 12.0


def main() -> None:
    """Make the MS and its truth."""
    asked = arguments()
    streams = {
        name: np.random.default_rng([asked.seed, number])
        for number, name in enumerate(("sky", "noise", "fixed", "pointing", "process"))
    }
    start_casa()
    regime = REGIMES[asked.regime]
    if asked.without & {"errors"}:
        regime = Regime(
            regime.name, (), regime.beam, regime.weights_scale, regime.noise_correlation
        )
    if not asked.fill:
        make_rows(asked)
    rows = read_rows(asked.out)
    sources = given_sky(asked.sky) if asked.sky else draw_sky(asked, rows, streams["sky"])
    seen = [s for s in sources if ("bright" if s["bright"] else "faint") not in asked.without]
    errors = draw_errors(regime, rows, streams, none="errors" in asked.without)
    beam = asked.beam or regime.beam
    noise_jy = write_data(asked, regime, beam, rows, seen, errors, streams["noise"])
    write_truth(asked, regime, beam, rows, seen, errors, noise_jy)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--regime", choices=list(REGIMES), default="smooth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", choices=list("ABCD"), default="C")
    parser.add_argument("--spws", type=int, default=3)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--integrations", type=int, default=20)
    parser.add_argument("--integration", type=float, default=10.0)
    parser.add_argument("--scans", type=int, default=2)
    parser.add_argument(
        "--noise", type=float, default=0.012, help="of a visibility's real part, Jy"
    )
    parser.add_argument("--bright", action="append", default=[], help="FLUX@DX,DY, Jy and arcmin")
    parser.add_argument("--central", type=float, default=0.0, help="of a source in the middle, Jy")
    parser.add_argument("--faint", type=int, default=30)
    parser.add_argument("--faint-flux", type=float, nargs=2, default=(1e-3, 30e-3))
    parser.add_argument("--beam", choices=("airy", "gaussian"), help="in place of the regime's")
    parser.add_argument("--no-squint", action="store_true")
    parser.add_argument("--without", type=lambda text: set(text.split(",")), default=set())
    parser.add_argument("--fill", action="store_true")
    parser.add_argument("--sky", type=Path)
    return parser.parse_args()


def start_casa() -> None:
    """Let casatools find its data, which it looks for when it is imported; nothing is downloaded."""
    import casadata

    folder = Path(tempfile.mkdtemp(prefix="independent-"))
    path = repr(casadata.datapath)
    (folder / "casasiteconfig.py").write_text(
        f"datapath = [{path}]\nmeasurespath = {path}\nrundata = {path}\n"
        "measures_auto_update = data_auto_update = False\nlogfile = '/dev/null'\nnologger = True\n"
    )
    os.environ["CASASITECONFIG"] = str(folder / "casasiteconfig.py")
    import casatools  # noqa: F401

    shutil.rmtree(folder)


# ---------------------------------------------------------------- rows


def make_rows(asked: argparse.Namespace) -> None:
    """Empty data of the VLA by casatools' simulator: it alone decides on times, order and uvw."""
    from casatools import ctsys, measures, simulator, table

    shutil.rmtree(asked.out, ignore_errors=True)
    pads = [
        line.split()
        for line in _layout(ctsys.resolve(f"alma/simmos/vla.{asked.config.lower()}.cfg"))
    ]
    place = np.array([[float(word) for word in pad[:3]] for pad in pads])
    sim, me = simulator(), measures()
    sim.open(str(asked.out))
    sim.setconfig(
        telescopename="EVLA", x=list(place[:, 0]), y=list(place[:, 1]), z=list(place[:, 2]),
        dishdiameter=[DISH_M] * len(pads), mount=["alt-az"], antname=[f"ea{n + 1:02d}" for n in range(len(pads))],
        padname=[pad[4] for pad in pads], coordsystem="global", referencelocation=me.observatory("VLA"),
    )  # fmt: skip
    width = SPW_HZ / asked.channels
    for number in range(asked.spws):
        middle = 2e9 + (number + 0.5) * 2e9 / asked.spws
        first = middle - (asked.channels - 1) / 2 * width
        sim.setspwindow(
            spwname=f"S{number}", freq=f"{first!r}Hz", deltafreq=f"{width!r}Hz",
            freqresolution=f"{width!r}Hz", nchannels=asked.channels, stokes="RR LL",
        )  # fmt: skip
    sim.setfeed(mode="perfect R L")
    sim.setfield(
        sourcename="TARGET",
        sourcedirection=me.direction("J2000", f"{FIELD[0]!r}rad", f"{FIELD[1]!r}rad"),
    )
    sim.setlimits(shadowlimit=1e-9, elevationlimit="8deg")
    sim.setauto(autocorrwt=0.0)
    sim.settimes(
        integrationtime=f"{asked.integration}s",
        usehourangle=True,
        referencetime=me.epoch("UTC", EPOCH),
    )
    length = asked.integrations * asked.integration
    for scan in range(asked.scans):
        begin = -3600 + scan * (length + SLEW_S)
        for number in range(asked.spws):
            sim.observe(
                "TARGET", f"S{number}", starttime=f"{begin}s", stoptime=f"{begin + length}s"
            )
    sim.done()
    main_table = table()
    main_table.open(str(asked.out), nomodify=False)
    # The simulator gives each spw a scan of its own.
    main_table.putcol("SCAN_NUMBER", (main_table.getcol("SCAN_NUMBER") - 1) // asked.spws + 1)
    extra = [name for name in ("MODEL_DATA", "CORRECTED_DATA") if name in main_table.colnames()]
    main_table.removecols(extra)
    main_table.close()


def _layout(path: str) -> list[str]:
    text = Path(path).read_text()
    if "XYZ" not in text:
        raise SystemExit(f"{path}: positions are not XYZ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


class Rows:
    """What the rows of an MS say: of one field."""

    def __init__(self, path: Path) -> None:
        from casatools import table

        one = table()

        def column(name: str, part: str = "") -> Any:
            one.open(f"{path}{part}")
            try:
                return one.getcol(name)
            finally:
                one.close()

        self.time, self.time_index = np.unique(column("TIME"), return_inverse=True)
        self.ant1, self.ant2 = column("ANTENNA1"), column("ANTENNA2")
        self.dd, self.uvw = column("DATA_DESC_ID"), column("UVW").T
        self.place = column("POSITION", "/ANTENNA").T
        self.names = [str(name) for name in column("NAME", "/ANTENNA")]
        self.field = tuple(float(value) for value in column("PHASE_DIR", "/FIELD").ravel()[:2])
        one.open(f"{path}/SPECTRAL_WINDOW")
        self.freq = [np.ravel(one.getcell("CHAN_FREQ", n)) for n in range(one.nrows())]
        self.width_hz = float(np.ravel(one.getcell("CHAN_WIDTH", 0))[0])
        one.close()
        self.integration_s = float(np.median(column("INTERVAL")))
        self.spw_of_dd = np.ravel(column("SPECTRAL_WINDOW_ID", "/DATA_DESCRIPTION"))
        self.elevation, self.parallactic = _angles(self.time, self.field, self.place.mean(axis=0))

    @property
    def n_antenna(self) -> int:
        """How many."""
        return len(self.names)


def read_rows(path: Path) -> Rows:
    """Of an MS with one field."""
    return Rows(path)


def _angles(time: Floats, field: tuple[float, ...], place: Floats) -> tuple[Floats, Floats]:
    """Elevation and parallactic angle [rad] at each time, from the zenith's place on the sky by CASA's measures."""
    from casatools import measures

    me = measures()
    me.doframe(me.position("ITRF", *(f"{float(value)!r}m" for value in place)))
    found = []
    for moment in time:
        me.doframe(me.epoch("UTC", f"{float(moment)!r}s"))
        zenith = me.measure(me.direction("AZEL", "0deg", "90deg"), "J2000")
        ra, dec = zenith["m0"]["value"] - field[0], zenith["m1"]["value"]
        north = math.sin(dec) * math.cos(field[1]) - math.cos(dec) * math.sin(field[1]) * math.cos(
            ra
        )
        high = math.sin(dec) * math.sin(field[1]) + math.cos(dec) * math.cos(field[1]) * math.cos(
            ra
        )
        found.append((math.asin(high), math.atan2(math.cos(dec) * math.sin(ra), north)))
    elevation, parallactic = np.array(found).T
    return elevation, parallactic


# ---------------------------------------------------------------- sky


def _source(
    name: str,
    l: float,  # noqa: E741
    m: float,
    flux: float,
    index: float,
    bright: bool,
) -> dict[str, Any]:
    return {
        "name": name,
        "l": l,
        "m": m,
        "flux_jy": flux,
        "spectral_index": index,
        "bright": bright,
    }


def draw_sky(
    asked: argparse.Namespace, rows: Rows, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Bright sources as asked for, and faint ones: a sixth of them within 2' of a bright one."""
    found = []
    for number, text in enumerate(asked.bright or ["9.5@6.4,4.8"], 1):
        flux, place = text.split("@")
        east, north = (float(word) * 60 * ARCSEC for word in place.split(","))
        found.append(_source(f"BRIGHT_{number}", east, north, float(flux), -0.7, True))
    bright = list(found)
    if asked.central:
        found.append(_source("CENTRAL", 0, 0, asked.central, -0.7, False))
    longest = np.linalg.norm(rows.place[:, None] - rows.place[None], axis=2).max()
    apart = 4 * 1.15 * LIGHT / REFERENCE_HZ / longest
    low, high = np.log10(asked.faint_flux)
    for number in range(asked.faint):
        flux, index = 10 ** rng.uniform(low, high), -0.7 + 0.2 * rng.standard_normal()
        for _ in range(500):
            if number < asked.faint // 6:
                near = bright[number % len(bright)]
                radius, centre = rng.uniform(0.5, 2) * 60 * ARCSEC, (near["l"], near["m"])
            else:
                radius, centre = math.sqrt(rng.uniform(0, 1)) * 9.5 * 60 * ARCSEC, (0.0, 0.0)
            angle = rng.uniform(0, 2 * math.pi)
            l, m = centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)  # noqa: E741
            if all(math.hypot(l - s["l"], m - s["m"]) > apart for s in found):
                break
        found.append(_source(f"FAINT_{number + 1}", l, m, float(flux), float(index), False))
    for one in found:
        one["ra_deg"], one["dec_deg"] = (
            math.degrees(value) for value in _sky(one["l"], one["m"], rows.field)
        )
    return found


def _sky(l: float, m: float, centre: tuple[float, ...]) -> tuple[float, float]:  # noqa: E741
    n = math.sqrt(1 - l * l - m * m)
    dec = math.asin(m * math.cos(centre[1]) + n * math.sin(centre[1]))
    return centre[0] + math.atan2(l, n * math.cos(centre[1]) - m * math.sin(centre[1])), dec


def given_sky(path: Path) -> list[dict[str, Any]]:
    """Points of a truth file, about its first field."""
    truth = json.loads(path.read_text())
    ra0, dec0 = (math.radians(truth["fields"][0][key]) for key in ("ra_deg", "dec_deg"))
    found = []
    for one in truth["sources"]:
        ra, dec = math.radians(one["ra_deg"]) - ra0, math.radians(one["dec_deg"])
        l = math.cos(dec) * math.sin(ra)  # noqa: E741
        m = math.sin(dec) * math.cos(dec0) - math.cos(dec) * math.sin(dec0) * math.cos(ra)
        found.append({**one, "l": l, "m": m})
    return found


# ---------------------------------------------------------------- errors


def draw_errors(
    regime: Regime, rows: Rows, streams: dict[str, np.random.Generator], *, none: bool
) -> dict[str, Floats]:
    """Phases and delays and amplitudes (time, antenna, hand), pointing (time, antenna, 2); `none` for perfect ones."""
    n_time, n_ant = rows.time.size, rows.n_antenna
    shape = (n_time, n_ant, 2)
    zero = np.zeros(shape)
    if none:
        return {"phase_deg": zero, "delay_ns": zero, "amplitude": zero + 1, "pointing_arcsec": zero,
                "dispersive_deg": zero}  # fmt: skip
    fixed, moving = streams["fixed"], streams["pointing"]
    delay = np.broadcast_to(DELAY_NS * fixed.standard_normal((n_ant, 2)), shape).copy()
    log_amplitude = np.broadcast_to(AMPLITUDE * fixed.standard_normal((n_ant, 2)), shape).copy()
    # A constant part, and one that walks: 12" together.
    share = math.sqrt(0.8)
    pointing = POINTING_ARCSEC * (
        share * fixed.standard_normal((1, n_ant, 2))
        + math.sqrt(1 - share**2) * walk(rows.time, 600, (n_ant, 2), moving)
    )
    phase, dispersive = zero.copy(), zero.copy()
    for process in regime.processes:
        one_phase, one_amplitude = draw_process(process, rows, streams["process"])
        if process.kind == "kolmogorov":
            # Water vapour is a path: the phase goes with frequency.
            delay += one_phase / 360 / REFERENCE_HZ * 1e9
        if process.kind == "scintillation":
            dispersive += one_phase
        else:
            phase += one_phase
        log_amplitude += one_amplitude
    return {"phase_deg": phase, "delay_ns": delay, "amplitude": np.exp(log_amplitude),
            "pointing_arcsec": pointing, "dispersive_deg": dispersive}  # fmt: skip


def draw_process(process: Process, rows: Rows, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Phase [deg] and log amplitude, each (time, antenna, hand)."""
    time, n_ant = rows.time, rows.n_antenna
    both, air = (n_ant, 2), (n_ant, 1)
    phase, amplitude = process.phase_deg, process.amplitude
    unit = np.ones((time.size, n_ant, 2))
    if process.kind == "smooth":
        draws = [gaussian_process(time, process.time_s, shape, rng) for shape in (air, both)]
    elif process.kind == "walk":
        draws = [walk(time, process.time_s, shape, rng) for shape in (air, both)]
    elif process.kind == "kolmogorov":
        draws = [kolmogorov(rows, rng)[..., None], np.zeros((time.size, n_ant, 1))]
    elif process.kind == "steps":
        draws = [steps(time, process.time_s, both, rng) for _ in range(2)]
    elif process.kind == "bad-antennas":
        bad = np.zeros((n_ant, 1))
        bad[rng.permutation(n_ant)[: max(1, round(n_ant / 13))]] = 1
        draws = [bad * walk(time, process.time_s, both, rng) for _ in range(2)]
    elif process.kind == "scintillation":
        # Amplitude and phase of one wave: the same in both hands, half correlated.
        one, two = (walk(time, process.time_s, air, rng) for _ in range(2))
        draws = [one, (one + math.sqrt(3) * two) / 2]
    elif process.kind == "jitter":
        draws = [rng.standard_normal((time.size, *both)) for _ in range(2)]
    elif process.kind == "elevation":
        zenith = (math.pi / 2 - rows.elevation) / (math.pi / 4)
        draws = [0 * unit, zenith[:, None, None] ** 2 * rng.standard_normal(air)]
    else:
        raise SystemExit(f"no such process: {process.kind}")
    return phase * draws[0] * unit, amplitude * draws[1] * unit


def gaussian_process(
    time: Floats, scale: float, shape: tuple[int, ...], rng: np.random.Generator
) -> Floats:
    """Unit variance, correlation exp(-t^2 / 2 scale^2)."""
    gap = time[:, None] - time[None]
    return coloured(np.exp(-0.5 * (gap / scale) ** 2), shape, rng)


def coloured(covariance: Floats, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Normal numbers of a covariance along the first axis."""
    value, vector = np.linalg.eigh(covariance)
    root = vector * np.sqrt(np.clip(value, 0, None))
    return np.tensordot(root, rng.standard_normal((covariance.shape[0], *shape)), axes=1)


def walk(time: Floats, scale: float, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """An Ornstein-Uhlenbeck process of unit variance: correlation exp(-t / scale)."""
    found = np.empty((time.size, *shape))
    found[0] = rng.standard_normal(shape)
    for n in range(1, time.size):
        keep = math.exp(-(time[n] - time[n - 1]) / scale)
        found[n] = keep * found[n - 1] + math.sqrt(1 - keep**2) * rng.standard_normal(shape)
    return found


def steps(time: Floats, scale: float, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Constant between jumps to a new value of unit variance, which come at random, one in `scale` seconds."""
    found = np.empty((time.size, *shape))
    found[0] = rng.standard_normal(shape)
    for n in range(1, time.size):
        jump = rng.uniform(size=shape) < 1 - math.exp(-(time[n] - time[n - 1]) / scale)
        found[n] = np.where(jump, rng.standard_normal(shape), found[n - 1])
    return found


def kolmogorov(
    rows: Rows, rng: np.random.Generator, wind: float = 10.0, outer: float = 6000.0
) -> Floats:
    """A frozen von Karman screen in the wind, less the mean of the antennas, of unit variance: (time, antenna).

    Its structure function goes with distance to the 5/3, well below the outer scale. From the covariance of all places of the
    screen that are looked through.
    """
    up = rows.place.mean(axis=0)
    up = up / np.linalg.norm(up)
    east = np.cross([0, 0, 1.0], up)
    east /= np.linalg.norm(east)
    flat = (rows.place - rows.place.mean(axis=0)) @ np.stack([east, np.cross(up, east)]).T
    angle = rng.uniform(0, 2 * math.pi)
    blown = (
        wind * (rows.time - rows.time[0])[:, None] * np.array([math.cos(angle), math.sin(angle)])
    )
    place = (flat[None] + blown[:, None]).reshape(-1, 2)
    x = 2 * math.pi / outer * np.linalg.norm(place[:, None] - place[None], axis=2)
    x = np.maximum(x, 1e-6)
    covariance = x ** (5 / 6) * special.kv(5 / 6, x) / (2 ** (-1 / 6) * special.gamma(5 / 6))
    found = coloured(covariance, (), rng).reshape(rows.time.size, rows.n_antenna)
    found -= found.mean(axis=1, keepdims=True)
    return found / found.std()


# ---------------------------------------------------------------- measurement equation


def voltage(beam: str, l: Floats, m: Floats, freq: Floats) -> Floats:  # noqa: E741
    """Voltage pattern at offsets from the beam's centre."""
    radius = np.hypot(l, m)
    if beam == "gaussian":
        return np.exp(-2 * math.log(2) * (radius * freq / beam_width()) ** 2)
    x = np.maximum(math.pi * DISH_M * radius * freq / LIGHT, 1e-9)
    hole = BLOCKAGE_M / DISH_M
    ring = 2 * special.j1(x) / x - hole**2 * 2 * special.j1(hole * x) / (hole * x)
    return ring / (1 - hole**2)


@functools.cache
def beam_width() -> float:
    """Full width at half power of either beam at 1 Hz [rad]."""
    radius = np.linspace(0, 1.5 * LIGHT / DISH_M, 200001)
    power = voltage("airy", radius, 0 * radius, np.ones(1)) ** 2
    first = int(np.argmax(power < 0.5))
    return 2 * float(np.interp(-0.5, -power[first - 1 : first + 1], radius[first - 1 : first + 1]))


def squint(rows: Rows, none: bool) -> Floats:
    """Offset of the R beam (time, 2), times the frequency."""
    angle = rows.parallactic + SQUINT_ANGLE
    size = 0.0 if none else SQUINT * beam_width()
    return size * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def write_data(
    asked: argparse.Namespace, regime: Regime, beam: str, rows: Rows,
    sources: list[dict[str, Any]], errors: dict[str, Floats], rng: np.random.Generator,
) -> float:  # fmt: skip
    """DATA, WEIGHT and SIGMA; the noise of a visibility's real part."""
    from casatools import table

    l, m, flux, index = (  # noqa: E741
        np.array([one[key] for one in sources], dtype=float)
        for key in ("l", "m", "flux_jy", "spectral_index")
    )
    n1 = np.sqrt(1 - l**2 - m**2) - 1
    offset = squint(rows, asked.no_squint)
    pointing = errors["pointing_arcsec"] * ARCSEC
    noise = 0.0 if "noise" in asked.without else asked.noise
    main_table = table()
    main_table.open(str(asked.out), nomodify=False)
    n_corr = main_table.getcell("DATA", 0).shape[0] if asked.fill else 2
    for dd in np.unique(rows.dd):
        spw = int(rows.spw_of_dd[dd])
        freq, chosen = rows.freq[spw], np.flatnonzero(rows.dd == dd)
        one, two, when = rows.ant1[chosen], rows.ant2[chosen], rows.time_index[chosen]
        path = rows.uvw[chosen] @ np.stack([l, m, n1])
        data = np.zeros((n_corr, freq.size, chosen.size), dtype=complex)
        for hand, corr in ((0, 0), (1, n_corr - 1)):
            g = gains(errors, freq, hand)
            for channel, f in enumerate(freq):
                centre = pointing + (1 - 2 * hand) * offset[:, None] / f
                seen = voltage(beam, l - centre[..., 0:1], m - centre[..., 1:2], f)
                fringe = np.exp(2j * math.pi * f / LIGHT * path) * (
                    flux * (f / REFERENCE_HZ) ** index
                )
                value = (fringe * seen[when, one] * seen[when, two]).sum(axis=1)
                data[corr, channel] = g[when, one, channel] * g[when, two, channel].conj() * value
        data += noise * coloured_noise(data.shape, regime.noise_correlation, rng)
        weight = regime.weights_scale / noise**2 if noise else 1.0
        part = main_table.selectrows(chosen.tolist())
        part.putcol("DATA", data)
        if not asked.fill:
            part.putcol("WEIGHT", np.full((n_corr, chosen.size), weight))
            part.putcol("SIGMA", np.full((n_corr, chosen.size), weight**-0.5))
        part.close()
    main_table.close()
    return noise


def gains(errors: dict[str, Floats], freq: Floats, hand: int) -> NDArray[np.complex128]:
    """(time, antenna, chan)."""
    turns = errors["delay_ns"][..., hand, None] * 1e-9 * (freq - REFERENCE_HZ)
    phase = np.radians(errors["phase_deg"][..., hand, None]) + 2 * math.pi * turns
    phase = phase + np.radians(errors["dispersive_deg"][..., hand, None]) * REFERENCE_HZ / freq
    return errors["amplitude"][..., hand, None] * np.exp(1j * phase)


def coloured_noise(
    shape: tuple[int, ...], correlation: float, rng: np.random.Generator
) -> NDArray[np.complex128]:
    """(corr, chan, row): each channel as its neighbour by so much, unit variance of the real and imaginary part."""
    found = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    for channel in range(1, shape[1]):
        found[:, channel] = (
            correlation * found[:, channel - 1] + math.sqrt(1 - correlation**2) * found[:, channel]
        )
    return found


def write_truth(
    asked: argparse.Namespace, regime: Regime, beam: str, rows: Rows,
    sources: list[dict[str, Any]], errors: dict[str, Floats], noise_jy: float,
) -> None:  # fmt: skip
    """In the form of peelkit's truth."""
    for one in sources:
        seen = float(
            voltage(beam, np.array(one["l"]), np.array(one["m"]), np.array(REFERENCE_HZ)) ** 2
        )
        one["apparent_flux_jy"] = [one["flux_jy"] * seen]
    ra, dec = (math.degrees(value) for value in rows.field)
    visibilities = rows.time_index.size * rows.freq[0].size * 2
    truth = {
        "schema": "peelkit.truth/1",
        "generator": "independent",
        "seed": asked.seed,
        "without": sorted(asked.without),
        "regime": asdict(regime),
        "beam": beam,
        "reference_hz": REFERENCE_HZ,
        "phase_centre": {"ra_deg": ra, "dec_deg": dec, "frame": "J2000"},
        "fields": [{"name": "TARGET", "ra_deg": ra, "dec_deg": dec}],
        "sources": sources,
        "gains": {
            "antennas": rows.names,
            "hands": ["R", "L"],
            "times_s": rows.time.tolist(),
            **{name: value.round(9).tolist() for name, value in errors.items()},
            "squint_arcsec": (squint(rows, asked.no_squint) / REFERENCE_HZ / ARCSEC).tolist(),
        },
        "noise_jy": noise_jy,
        "rms_thermal_jy_beam": noise_jy / math.sqrt(visibilities),
    }
    asked.out.with_name(f"{asked.out.name}.truth.json").write_text(json.dumps(truth))


if __name__ == "__main__":
    sys.exit(main())
