"""How far gains are from the truth: those of self-calibration, round by round, against those that a generator put in.

What self-calibration can find is the gain towards what dominates the field: the antenna's own, times its beam at the bright
sources over the nominal one, with the sources' shares of the flux. It cannot find a phase that all antennas have in common at a
time, the scale of all fluxes (of each hand and spw), nor where the sky is (one gradient of the phase over the array): these are
taken out of the ratio before it is measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import independent

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]

# Sources below this share of the flux of all do not count.
LEAST_SHARE = 0.02
# A round brings gains nearer to the truth, or takes them away, if their error changes by more than this.
CHANGE = 0.02


@dataclass(frozen=True)
class Setting:
    """What the rows of an MS are.

    Parameters
    ----------
    time_s : ndarray, shape (time,)
        As in the truth.
    freq_hz : ndarray, shape (spw,)
        Middles of the spws.
    place_m : ndarray, shape (antenna, 3)
        ITRF.
    """

    time_s: Floats
    freq_hz: Floats
    place_m: Floats


def read_setting(path: Path, truth: dict[str, Any]) -> Setting:
    """Of an MS with one field."""
    from casacore.tables import table

    with table(f"{path}::SPECTRAL_WINDOW", ack=False) as spws:
        freq = np.array([spws.getcell("CHAN_FREQ", row).mean() for row in range(spws.nrows())])
    with table(f"{path}::ANTENNA", ack=False) as antennas:
        place = antennas.getcol("POSITION")
    return Setting(np.array(truth["gains"]["times_s"]), freq, place)


def true_gains(truth: dict[str, Any], setting: Setting) -> Complex:
    """Effective gains, shape (time, antenna, hand, spw)."""
    values = {
        key: np.array(truth["gains"][key])
        for key in ("phase_deg", "delay_ns", "amplitude", "dispersive_deg", "pointing_arcsec")
    }
    squint = np.array(truth["gains"]["squint_arcsec"]) * independent.ARCSEC * truth["reference_hz"]
    own = np.stack([independent.gains(values, setting.freq_hz, hand) for hand in (0, 1)], axis=2)
    sources = _dominant(truth)
    seen = np.zeros(own.shape)
    for share, l, m in sources:  # noqa: E741
        for number, freq in enumerate(setting.freq_hz):
            nominal = independent.voltage(truth["beam"], np.array(l), np.array(m), freq)
            for hand, sign in ((0, 1), (1, -1)):
                centre = values["pointing_arcsec"] * independent.ARCSEC
                centre = centre + sign * squint[:, None] / freq
                towards = independent.voltage(
                    truth["beam"], l - centre[..., 0], m - centre[..., 1], freq
                )
                seen[:, :, hand, number] += share * towards / nominal
    return np.asarray(own * seen)


def _dominant(truth: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Shares and direction cosines of the sources that count."""
    ra0, dec0 = (math.radians(truth["fields"][0][key]) for key in ("ra_deg", "dec_deg"))
    fluxes = [source["apparent_flux_jy"][0] for source in truth["sources"]]
    chosen = [
        (flux, source)
        for flux, source in zip(fluxes, truth["sources"], strict=True)
        if flux > LEAST_SHARE * sum(fluxes)
    ]
    total = sum(flux for flux, _ in chosen)
    found = []
    for flux, source in chosen:
        ra, dec = math.radians(source["ra_deg"]) - ra0, math.radians(source["dec_deg"])
        north = math.sin(dec) * math.cos(dec0) - math.cos(dec) * math.sin(dec0) * math.cos(ra)
        found.append((flux / total, math.cos(dec) * math.sin(ra), north))
    return found


def error(truth: Complex, solved: Complex, setting: Setting) -> float:
    """Rms of what is left of the ratio of gains, less 1, without what cannot be known."""
    ratio = truth / solved
    for _ in range(2):
        mean = ratio.mean(axis=1, keepdims=True)
        ratio = ratio * np.exp(-1j * np.angle(mean))
        ratio = ratio * np.exp(-1j * _gradient(np.angle(ratio), setting))
    scale = np.exp(np.log(np.abs(ratio)).mean(axis=(0, 1), keepdims=True))
    return float(np.sqrt((np.abs(ratio / scale - 1) ** 2).mean()))


def _gradient(phase: Floats, setting: Setting) -> Floats:
    """The part of phases (time, antenna, hand, spw) that goes with place and frequency, at all times alike."""
    place = setting.place_m - setting.place_m.mean(axis=0)
    size = np.abs(place).max()
    wave = setting.freq_hz / setting.freq_hz.mean()
    mean = (phase * wave).mean(axis=(0, 2, 3)) / (wave**2).mean()
    slope = np.linalg.lstsq(place / size, mean, rcond=1e-6)[0]
    return np.asarray((place / size @ slope)[None, :, None, None] * wave)


def applied(tables: Sequence[tuple[Path, Sequence[int]]], setting: Setting) -> Complex:
    """Product of gain tables at each time, (time, antenna, hand, spw); linear in between, 1 for what has no solution.

    Parameters
    ----------
    tables : sequence of tuple
        Path, and the map of spws (empty for none).
    """
    from peelkit.io.caltable import read_gain_table

    n_ant, n_spw = setting.place_m.shape[0], setting.freq_hz.size
    found = np.ones((setting.time_s.size, n_ant, 2, n_spw), dtype=complex)
    for path, spwmap in tables:
        one = read_gain_table(path)
        for spw in range(n_spw):
            filed = spwmap[spw] if spwmap else spw
            for antenna in range(n_ant):
                rows = np.flatnonzero((one.spw == filed) & (one.antenna == antenna))
                rows = rows[np.argsort(one.time_s[rows])]
                for hand in (0, 1):
                    column = min(hand, one.gain.shape[1] - 1)
                    good = rows[~one.failed[rows, column]]
                    if good.size:
                        found[:, antenna, hand, spw] *= _between(
                            setting.time_s, one.time_s[good], one.gain[good, column]
                        )
    return found


def _between(time_s: Floats, at_s: Floats, gain: Complex) -> Complex:
    phase = np.interp(time_s, at_s, np.unwrap(np.angle(gain)))
    return np.asarray(np.interp(time_s, at_s, np.abs(gain)) * np.exp(1j * phase))


def judge_rounds(folder: Path, record: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Each round of ``peelkit selfcal``: error of the gains before and after it, and whether it was accepted.

    Phases replace those of the round before; amplitudes are solved, and used, on top of the last phases that were accepted.
    """
    setting = read_setting(folder / "sim.ms", truth)
    right = true_gains(truth, setting)
    rounds = json.loads(record.read_text())["results"]["rounds"]
    phases: list[tuple[Path, Sequence[int]]] = []
    before = error(right, np.ones_like(right), setting)
    found = []
    for one in rounds:
        if not one["caltable"] or not (folder / one["caltable"]).exists():
            continue
        table = [(folder / one["caltable"], one["spwmap"])]
        is_phase = one["calmode"] == "p"
        after = error(right, applied(table if is_phase else [*phases, *table], setting), setting)
        change = after / before - 1
        found.append(
            {
                "round": f"{one['calmode']} {one['solint']}",
                "accepted": bool(one["accepted"]),
                "before": round(before, 5),
                "after": round(after, 5),
                "nearer": None if abs(change) < CHANGE else bool(change < 0),
                "reason": one["reason"],
            }
        )
        if one["accepted"]:
            before = after
            phases = table if is_phase else phases
    return found
