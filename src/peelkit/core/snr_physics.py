"""What limits self-calibration of these data: atmosphere, coherence time, parallactic angle.

After the VLA guide "Complex Gain Calibration" (seed 003) and Brogan, Hunter & Fomalont (seed 002). What no
source tells is None: there is a table of seasons for the VLA only, and no measure of the ionosphere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import atmosphere, horizon, snr
from peelkit.core.atmosphere import THIRTY_DEG, Troposphere
from peelkit.io import ms
from peelkit.io.frames import astropy_frame
from peelkit.io.survey import Survey

log = logging.getLogger(__name__)

VLA_NAMES = ("VLA", "EVLA")

# From this share of the amplitude on the loss within an interval is worth a word.
NOTABLE_LOSS = 0.05

# A parallactic angle that turns by less leaves the ratio of the hands as good as constant [deg].
NOTABLE_TURN_DEG = 5.0


@dataclass(frozen=True)
class Weather:
    """When the data were taken, and what the VLA's table says of that.

    Parameters
    ----------
    months : tuple of int
        1 to 12.
    day_fraction : float
        Share of the time on source between sunrise and sunset.
    convection_fraction : float
        Share between 10 AM and two hours after sunset.
    api_rms_deg : float or None
        Phase rms on 300 m at 11.7 GHz [deg]; None where there is no table.
    """

    months: tuple[int, ...]
    day_fraction: float
    convection_fraction: float
    api_rms_deg: float | None


@dataclass(frozen=True)
class Conditions:
    """What the phases of one field are up against.

    Parameters
    ----------
    freq_hz : float
        Of the observation [Hz].
    telescope : str
        OBSERVATION::TELESCOPE_NAME.
    configuration : str or None
        Of the VLA, A to D, from its longest baseline; None for another telescope.
    median_m, longest_m : float
        Of the distances between antennas with data [m].
    weather : Weather or None
        None if the antennas have no place on Earth.
    """

    freq_hz: float
    telescope: str
    configuration: str | None
    median_m: float
    longest_m: float
    weather: Weather | None

    @property
    def unimportant(self) -> bool:
        """The guide calls the atmosphere nearly always unimportant here."""
        return atmosphere.unimportant(self.configuration, self.freq_hz)

    @property
    def dominant(self) -> str:
        """``ionosphere`` or ``troposphere``."""
        return snr.dominant_atmosphere(self.freq_hz)

    def troposphere(self, wind_m_s: float = atmosphere.WIND_ALOFT_M_S) -> Troposphere | None:
        """Troposphere of the season; None if unknown."""
        if self.weather is None or self.weather.api_rms_deg is None:
            return None
        return Troposphere(self.weather.api_rms_deg, wind_m_s)

    @property
    def predictable(self) -> bool:
        """Whether the phases can be foretold: where the ionosphere counts they cannot."""
        known = self.dominant == "troposphere" or self.unimportant
        return known and self.troposphere() is not None

    def decorrelation(self, seconds: float) -> float | None:
        """Share of the amplitude lost within an interval on the median baseline; None if unknown."""
        air = self.troposphere()
        if air is None or not self.predictable:
            return None
        return air.decorrelation(seconds, self.median_m, self.freq_hz)

    def limited(self, needed_s: float) -> bool | None:
        """Whether an interval is longer than the coherence time of the median baseline; None if unknown."""
        air = self.troposphere()
        if air is None or not self.predictable:
            return None
        coherent = air.coherence_time_s(self.median_m, self.freq_hz)
        return coherent is not None and needed_s > coherent


def weather(info: ms.MsInfo, found: Survey, field: int) -> Weather | None:
    """Season and time of day of a field's data."""
    visits = [visit for visit in found.visits if visit.field == field]
    where = horizon.site(info.antennas[int(found.antennas[0])].position_m)
    if where is None:
        return None
    # By the minute: the sun does not move by more, and integrations are many.
    minutes, which = np.unique(
        np.concatenate([visit.times_s // 60 for visit in visits]), return_inverse=True
    )
    times = 60 * minutes + 30
    exposure = np.bincount(which, np.concatenate([visit.exposures_s for visit in visits]))
    day = _is_day(where, times)
    after = _is_day(where, times - atmosphere.CONVECTION_AFTER_SUNSET_S)
    hot = (day | after) & (horizon.solar_hour(where, times) >= atmosphere.CONVECTION_FROM_HOUR)
    months = horizon.months(times)
    rms = None
    if info.telescope.upper() in VLA_NAMES:
        values = [
            atmosphere.api_rms_deg(month, day=bool(light))
            for month, light in zip(months, day, strict=True)
        ]
        rms = atmosphere.mean_rms_deg(values, list(exposure))
    return Weather(
        tuple(dict.fromkeys(months)),
        float(np.average(day, weights=exposure)),
        float(np.average(hot, weights=exposure)),
        rms,
    )


def _is_day(where: horizon.Site, times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(horizon.sun_elevation_deg(where, times_s) > horizon.SUNRISE_DEG)


def conditions(info: ms.MsInfo, found: Survey, *, field: int, spws: Sequence[int]) -> Conditions:
    """Conditions under which a field was observed."""
    positions = np.array([info.antennas[int(number)].position_m for number in found.antennas])
    median, longest = atmosphere.baselines_m(positions)
    array = atmosphere.configuration(longest) if info.telescope.upper() in VLA_NAMES else None
    return Conditions(
        freq_hz=float(np.mean([info.spws[spw].centre_hz for spw in spws])),
        telescope=info.telescope,
        configuration=array,
        median_m=median,
        longest_m=longest,
        weather=weather(info, found, field),
    )


def needed_interval_s(
    rows: Sequence[snr.Row], *, phase_snr: float, integration_s: float
) -> float | None:
    """Shortest interval in which phases could be solved, all spws and both hands together [s].

    S/N grows with the root of the interval; no shorter than one integration. None without any S/N.
    """
    best = max(
        (row for row in rows if row.solint == "inf" and not {"scan", "field"} & {*row.combine.split(",")}),
        key=lambda row: row.snr, default=None,
    )  # fmt: skip
    if best is None or not best.snr > 0:
        return None
    return max(best.solint_s * (phase_snr / best.snr) ** 2, integration_s)


def parallactic_angle_deg(info: ms.MsInfo, found: Survey, field: int) -> tuple[float, float] | None:
    """Range of the parallactic angle over a field's data [deg]; None without alt-azimuth mounts."""
    used = [info.antennas[int(number)] for number in found.antennas]
    if not any(antenna.mount.upper().startswith("ALT-AZ") for antenna in used):
        return None
    where = horizon.site(used[0].position_m)
    centre = info.fields[field]
    frame = astropy_frame(centre.frame)
    if where is None or frame is None:
        return None
    times = np.unique(np.concatenate([v.times_s for v in found.visits if v.field == field]))
    return horizon.parallactic_range_deg(where, times, centre.ra_rad, centre.dec_rad, frame)


def feeds(info: ms.MsInfo, spws: Sequence[int]) -> str | None:
    """``linear`` or ``circular``, by the names of the correlations; None for Stokes parameters."""
    names = {
        name for item in info.data_descriptions if item.spw in spws for name in item.correlations
    }
    if names & {"XX", "YY"}:
        return "linear"
    return "circular" if names & {"RR", "LL"} else None


def planning(
    here: Conditions,
    *,
    needed_s: float | None,
    angle_deg: tuple[float, float] | None,
    feed: str | None,
    ladder: Sequence[snr.Rung],
) -> dict[str, Any]:
    """Results for the sidecar: coherence, weather, and notes for people."""
    air, fast = here.troposphere(), here.troposphere(atmosphere.FAST_WIND_ALOFT_M_S)
    by_baseline: list[dict[str, Any]] = []
    for name, length in (("median", here.median_m), ("longest", here.longest_m)):
        entry: dict[str, Any] = {"baseline": name, "baseline_m": length}
        if air is None or fast is None:
            entry |= dict.fromkeys(
                ("troposphere_rms_deg", "coherence_time_s", "coherence_time_fast_wind_s",
                 "coherence_time_30deg_s")
            )  # fmt: skip
        else:
            freq = here.freq_hz
            entry |= {
                "troposphere_rms_deg": math.degrees(air.rms_rad(length, freq)),
                "coherence_time_s": air.coherence_time_s(length, freq),
                "coherence_time_fast_wind_s": fast.coherence_time_s(length, freq),
                "coherence_time_30deg_s": air.coherence_time_s(length, freq, limit_rad=THIRTY_DEG),
            }
            if not here.predictable:
                # The troposphere's alone, where the ionosphere is the faster, would mislead.
                entry |= dict.fromkeys(
                    ("coherence_time_s", "coherence_time_fast_wind_s", "coherence_time_30deg_s")
                )
        by_baseline.append(entry)
    now = here.weather
    return {
        "configuration": here.configuration,
        "coherence": by_baseline,
        "coherence_known": here.predictable,
        "atmosphere_unimportant": here.unimportant,
        "corner_time_s": atmosphere.CORNER_TIME_S.get(here.telescope.upper()),
        "wind_aloft_m_s": atmosphere.WIND_ALOFT_M_S if air is not None else None,
        "months": list(now.months) if now else None,
        "day_fraction": now.day_fraction if now else None,
        "convection_fraction": now.convection_fraction if now else None,
        "api_rms_deg": now.api_rms_deg if now else None,
        "needed_interval_s": needed_s,
        "notes": [
            *_weather_notes(here, by_baseline[0]),
            *_interval_notes(here, needed_s, by_baseline[0]["coherence_time_s"], ladder),
            *_angle_notes(angle_deg, feed),
        ],
    }


def _weather_notes(here: Conditions, median: dict[str, Any]) -> list[str]:
    notes = []
    now = here.weather
    array = (
        f"the VLA in {here.configuration} configuration" if here.configuration else here.telescope
    )
    if here.unimportant:
        notes.append(
            f"For {array} at {here.freq_hz / 1e9:.3g} GHz the atmosphere is nearly always unimportant; "
            "three or four solutions per hour follow the instrument."
        )
    elif here.dominant == "ionosphere":
        notes.append(
            f"Coherence time unknown for {array} at {here.freq_hz / 1e9:.3g} GHz: the ionosphere dominates, "
            "of which there is no table; try intervals of minutes, and shorter while solutions hold."
        )
    elif now is None or now.api_rms_deg is None:
        corner = atmosphere.CORNER_TIME_S.get(here.telescope.upper())
        notes.append(
            f"Coherence time unknown: no table of the seasons for {here.telescope or 'this telescope'}"
            + (f"; its phases change fastest within some {corner:.0f} s." if corner else ".")
        )
    else:
        radian, thirty = median["coherence_time_s"], median["coherence_time_30deg_s"]
        if thirty is None:
            turn = "which never changes by 30 deg"
        elif radian is None:
            turn = f"which changes by 30 deg in {thirty:.0f} s, never by 1 rad"
        else:
            turn = f"which changes by 30 deg in {thirty:.0f} s, by 1 rad in {radian:.0f} s"
        light = f"{100 * now.day_fraction:.0f} % of it by daylight"
        notes.append(
            f"{array[0].upper()}{array[1:]}, month {', '.join(map(str, now.months))}, {light}: phase rms "
            f"{now.api_rms_deg:.1f} deg on 300 m at 11.7 GHz, {median['troposphere_rms_deg']:.0f} deg on the median "
            f"baseline ({here.median_m:.0f} m), {turn}."
        )
    if (
        now is not None
        and now.api_rms_deg is not None
        and now.convection_fraction > 0.5
        and not here.unimportant
        and here.dominant == "troposphere"
    ):
        notes.append(
            f"{100 * now.convection_fraction:.0f} % of it is between 10 AM and two hours after sunset, when convection "
            "often makes phases much less stable than the table says, in summer above all: prefer shorter intervals."
        )
    return notes


def _interval_notes(
    here: Conditions,
    needed_s: float | None,
    coherent_s: float | None,
    ladder: Sequence[snr.Rung],
) -> list[str]:
    if needed_s is not None and here.limited(needed_s) and coherent_s is not None:
        return [
            f"The S/N needs {needed_s:.0f} s per solution, the phases are coherent for {coherent_s:.0f} s only: "
            "self-calibration will not follow them, and amplitudes are lost within an interval."
        ]
    phases = [rung for rung in ladder if rung.calmode == "p"]
    if not phases:
        return []
    lost = here.decorrelation(phases[-1].solint_s)
    if lost is not None and lost >= NOTABLE_LOSS:
        return [
            f"Within the shortest interval, {phases[-1].solint_s:g} s, {100 * lost:.0f} % of the amplitude is lost "
            "to the troposphere."
        ]
    return []


def _angle_notes(angle_deg: tuple[float, float] | None, feed: str | None) -> list[str]:
    if feed != "linear" or angle_deg is None:
        return []
    turn = angle_deg[1] - angle_deg[0]
    if turn < NOTABLE_TURN_DEG:
        return []
    return [
        f"The parallactic angle turns by {turn:.0f} deg, and with it XX/YY of a polarised source: gaintype T is the "
        "safe choice unless the source is unpolarised or its polarisation is in the model."
    ]
