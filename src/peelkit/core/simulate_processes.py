"""Error processes by name: what ``simulate --errors`` adds to the gains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peelkit.core.simulate_errors import OWN_SHARE, SLOW_TIME_S, Errors, drift
from peelkit.core.simulate_screen import make_screen
from peelkit.errors import OptionError

Floats = NDArray[np.float64]

# One antenna in so many is bad, and one at least.
ONE_BAD_IN = 13
# Of weak scintillation: correlation of phase and logarithmic amplitude.
SCINTILLATION_CORRELATION = 0.5
# Zenith angle at which the rms of the gain is the one asked for [rad].
ELEVATION_SCALE = math.pi / 4


@dataclass(frozen=True)
class Process:
    """An error process.

    Parameters
    ----------
    kind : str
        Key of `KINDS`.
    phase_deg, amplitude : float
        Rms of the phase, and of the logarithm of the amplitude.
    time_s : float or None
        Its time scale; None where it has none.
    """

    kind: str
    phase_deg: float
    amplitude: float
    time_s: float | None


@dataclass(frozen=True)
class Setting:
    """When and where errors are drawn.

    Parameters
    ----------
    time_s : ndarray, shape (time,)
        Of the integrations.
    place_m : ndarray, shape (antenna, 2)
        East and north.
    elevation : ndarray, shape (time,)
        Of the field [rad].
    reference_hz : float
        Where phases are given.
    """

    time_s: Floats
    place_m: Floats
    elevation: Floats
    reference_hz: float


def walk(
    time_s: Floats, shape: tuple[int, ...], scale_s: float, rng: np.random.Generator
) -> Floats:
    """Ornstein-Uhlenbeck processes of unit variance, shape (time, *shape): correlation exp(-t / scale_s)."""
    keep = np.exp(-np.diff(time_s) / scale_s)
    found = rng.standard_normal((time_s.size, *shape))
    for index, share in enumerate(keep, 1):
        found[index] = share * found[index - 1] + math.sqrt(1 - share**2) * found[index]
    return found


def steps(
    time_s: Floats, shape: tuple[int, ...], scale_s: float, rng: np.random.Generator
) -> Floats:
    """Jumps to independent values of unit variance, one in ``scale_s`` on average: correlation exp(-t / scale_s)."""
    found = np.empty((time_s.size, *shape))
    since = time_s - time_s[0]
    for place in np.ndindex(shape):
        jumps = np.sort(rng.uniform(0.0, since[-1], rng.poisson(since[-1] / scale_s)))
        found[(slice(None), *place)] = rng.standard_normal(jumps.size + 1)[
            np.searchsorted(jumps, since)
        ]
    return found


def kolmogorov(setting: Setting, rng: np.random.Generator) -> Floats:
    """Turbulence that the wind blows over the array, about the mean of the antennas, (time, antenna); unit variance."""
    found = make_screen(rng).phase(setting.time_s - setting.time_s[0], setting.place_m)
    found -= found.mean(axis=1, keepdims=True)
    return np.asarray(found / np.sqrt((found**2).mean()))


# What a process draws: phase and logarithmic amplitude, each (time, antenna, 1 or 2 hands).
Drawn = tuple[Floats, Floats]


def _smooth(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    assert p.time_s is not None
    shape = (at.place_m.shape[0], 1)
    common = drift(at.time_s, shape, p.time_s, rng)
    own = drift(at.time_s, (shape[0], 2), SLOW_TIME_S, rng)
    phase = math.sqrt(1 - OWN_SHARE) * common + math.sqrt(OWN_SHARE) * own
    return phase, drift(at.time_s, (shape[0], 2), p.time_s, rng)


def _walk(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    assert p.time_s is not None
    n_ant = at.place_m.shape[0]
    return walk(at.time_s, (n_ant, 1), p.time_s, rng), walk(at.time_s, (n_ant, 2), p.time_s, rng)


def _kolmogorov(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    return kolmogorov(at, rng)[..., None], np.zeros((1, 1, 1))


def _steps(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    assert p.time_s is not None
    shape = (at.place_m.shape[0], 2)
    return steps(at.time_s, shape, p.time_s, rng), steps(at.time_s, shape, p.time_s, rng)


def _bad_antennas(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    assert p.time_s is not None
    n_ant = at.place_m.shape[0]
    bad = np.zeros((n_ant, 1))
    bad[rng.permutation(n_ant)[: max(1, round(n_ant / ONE_BAD_IN))]] = 1.0
    shape = (n_ant, 2)
    return bad * walk(at.time_s, shape, p.time_s, rng), bad * walk(at.time_s, shape, p.time_s, rng)


def _scintillation(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    assert p.time_s is not None
    shape, share = (at.place_m.shape[0], 1), SCINTILLATION_CORRELATION
    phase, other = (walk(at.time_s, shape, p.time_s, rng) for _ in range(2))
    return phase, share * phase + math.sqrt(1 - share**2) * other


def _jitter(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    shape = (at.time_s.size, at.place_m.shape[0], 2)
    return rng.standard_normal(shape), rng.standard_normal(shape)


def _elevation(p: Process, at: Setting, rng: np.random.Generator) -> Drawn:
    zenith = (math.pi / 2 - at.elevation) / ELEVATION_SCALE
    each = rng.standard_normal((at.place_m.shape[0], 1))
    return np.zeros((1, 1, 1)), zenith[:, None, None] ** 2 * each


@dataclass(frozen=True)
class Kind:
    """A kind of process: how it is drawn, and what it is without further words; None is what it does not have."""

    draw: Callable[[Process, Setting, np.random.Generator], Drawn]
    phase: float | None
    amplitude: float | None
    time: float | None


KINDS = {
    "smooth": Kind(_smooth, 20.0, 0.0, 180.0),
    "walk": Kind(_walk, 20.0, 0.0, 240.0),
    "kolmogorov": Kind(_kolmogorov, 30.0, None, None),
    "steps": Kind(_steps, 20.0, 0.05, 300.0),
    "bad-antennas": Kind(_bad_antennas, 90.0, 0.5, 60.0),
    "scintillation": Kind(_scintillation, 10.0, 0.1, 30.0),
    "jitter": Kind(_jitter, 5.0, 0.0, None),
    "elevation": Kind(_elevation, None, 0.2, None),
}


def parse(texts: tuple[str, ...]) -> list[Process]:
    """Processes of --errors KIND[:phase=DEG,amplitude=FRACTION,time=S].

    Raises
    ------
    OptionError
        If a kind is unknown, or has not what is given, or that is no number.
    """
    found = []
    for text in texts:
        name, _, rest = text.partition(":")
        kind = KINDS.get(name.strip())
        if kind is None:
            raise OptionError(f"--errors {text!r}: no such kind; there are {', '.join(KINDS)}.")
        values = {"phase": kind.phase, "amplitude": kind.amplitude, "time": kind.time}
        has = [key for key, value in values.items() if value is not None]
        for word in filter(None, rest.split(",")):
            key, _, value = (piece.strip() for piece in word.partition("="))
            if key not in has:
                raise OptionError(
                    f"--errors {text!r}: {name} has no {key or word!r}; it has {', '.join(has)}."
                )
            values[key] = _number(text, key, value)
        found.append(Process(name.strip(), values["phase"] or 0.0, values["amplitude"] or 0.0,
                             values["time"]))  # fmt: skip
    return found


def _number(text: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0 and (number > 0 or key != "time")):
        least = "above 0" if key == "time" else "from 0"
        raise OptionError(f"--errors {text!r}: {key} must be a number {least}, such as {key}=30.")
    return number


def add(errors: Errors, processes: list[Process], at: Setting, rng: np.random.Generator) -> Errors:
    """Errors with those of the processes: phases and logarithms of amplitudes add up.

    Turbulence is a path, whose phase grows with frequency (it goes into the delay too); the phase of scintillation, in
    the ionosphere, falls with it.
    """
    for process in processes:
        phase, log_amplitude = KINDS[process.kind].draw(process, at, rng)
        phase_deg = np.broadcast_to(process.phase_deg * phase, errors.phase_deg.shape)
        if process.kind == "scintillation":
            errors = replace(errors, dispersive_deg=errors.dispersive_deg + phase_deg)
        else:
            errors = replace(errors, phase_deg=errors.phase_deg + phase_deg)
        if process.kind == "kolmogorov":
            delay_ns = phase_deg / 360.0 / at.reference_hz * 1e9
            errors = replace(errors, delay_ns=errors.delay_ns + delay_ns)
        amplitude = errors.amplitude * np.exp(process.amplitude * log_amplitude)
        errors = replace(errors, amplitude=amplitude)
    return errors


def correlate(noise: NDArray[np.complex64], correlation: float) -> NDArray[np.complex64]:
    """Noise of shape (row, chan, corr) whose neighbouring channels have this correlation, and n apart its nth power."""
    share = np.float32(math.sqrt(1 - correlation**2))
    for chan in range(1, noise.shape[1] if correlation else 0):
        noise[:, chan] = np.float32(correlation) * noise[:, chan - 1] + share * noise[:, chan]
    return noise
