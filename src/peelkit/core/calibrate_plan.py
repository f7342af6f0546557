"""Calibrating on a known source: what the user asked for, and the terms that it comes to.

The terms are solved in sequence, each with the earlier ones applied on the fly, as in the practical
demonstration of Marvil, "Calibration" (seed 001): delay, bandpass, complex gain.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from astropy.coordinates import SkyCoord

from peelkit.core import datacolumn
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.frames import field_place
from peelkit.selection import Selection, parse_solint

MINSNR = 3.0
MINBLPERANT = 4

STANDARD = "Perley-Butler 2017"

# Those that setjy knows.
STANDARDS = (
    STANDARD, "Perley-Butler 2013", "Perley-Butler 2010", "Perley-Taylor 99", "Perley-Taylor 95",
    "Perley 90", "Baars", "Scaife-Heald 2012", "Stevens-Reynolds 2016", "Butler-JPL-Horizons 2012",
    "Butler-JPL-Horizons 2010",
)  # fmt: skip

# Sources that have model images in CASA's data, or that its standards know: J2000 right ascension and
# declination [deg] (Perley & Butler 2017, ApJS 230, 7, table 1).
CALIBRATORS = {
    "3C48": (24.4220808, 33.1597594),
    "3C123": (69.2682292, 29.6705056),
    "3C138": (80.2911917, 16.6394586),
    "3C147": (85.6505746, 49.8520094),
    "3C196": (123.4001379, 48.2173778),
    "3C286": (202.7845329, 30.5091550),
    "3C295": (212.8354950, 52.2027694),
    "3C380": (277.3824000, 48.7462000),
}  # fmt: skip

# A field within this of a standard source is that source [deg].
MATCH_DEG = 1 / 60

# Fields within this are pointings at one source.
SAME_ARCSEC = 1.0

# The VLA's bands [Hz]: upper end, and letter of the model images.
BANDS = (
    (0.7e9, "P"), (2e9, "L"), (4e9, "S"), (8e9, "C"), (12e9, "X"), (18e9, "U"), (26.5e9, "K"),
    (40e9, "A"), (float("inf"), "Q"),
)  # fmt: skip


@dataclass(frozen=True)
class PointModel:
    """A point at the phase centre: ``flux_jy (nu / ref_hz)^alpha``; flat if ``ref_hz`` is None."""

    flux_jy: float
    alpha: float = 0.0
    ref_hz: float | None = None


@dataclass(frozen=True)
class StandardModel:
    """A calibrator that CASA's setjy knows; ``name`` empty: by its position."""

    name: str = ""


@dataclass(frozen=True)
class CalibrateOptions:
    """What the user asked for. Names and defaults are CASA's where it has them."""

    model: str
    terms: tuple[str, ...]
    out: Path | None = None
    standard: str = STANDARD
    solints: tuple[str, ...] = ()
    calmodes: tuple[str, ...] = ()
    combines: tuple[str, ...] = ()
    apply_to: str = ""
    pre: tuple[str, ...] = ()
    flux_from: str = ""
    refant: str = ""
    minsnr: float | None = None
    minblperant: int | None = None
    solnorm: bool = False
    datacolumn: str = "data"
    applymode: str = "calonly"
    interp: str = ""
    calwt: bool = False
    parang: bool = False
    plots: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Term:
    """One solve.

    Parameters
    ----------
    kind : str
        ``K``, ``B``, ``G`` or ``T``.
    name : str
        Unique: ``G``, and ``G2`` for a second one.
    solint, combine : str
        As in CASA.
    calmode : str
        ``p``, ``a`` or ``ap``; empty for K and B, which have none.
    """

    kind: str
    name: str
    solint: str
    combine: str
    calmode: str


def is_calibrator(text: str) -> bool:
    """Whether a --model names a calibrator rather than an image."""
    if text.lower().startswith("point:"):
        return True
    return text.lower() == "standard" or text.upper() in CALIBRATORS


def parse_model(text: str) -> PointModel | StandardModel:
    """Read ``point:1.0Jy``, ``point:1Jy,alpha=-0.7@3GHz``, ``3C286`` or ``standard``.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if text.lower() == "standard":
        return StandardModel()
    if text.upper() in CALIBRATORS:
        return StandardModel(text.upper())
    match = re.fullmatch(
        r"point:\s*([0-9]*\.?[0-9]+(?:e[-+]?\d+)?)\s*(m?jy)"
        r"(?:\s*,\s*alpha\s*=\s*([-+]?[0-9]*\.?[0-9]+)\s*@\s*([0-9]*\.?[0-9]+)\s*(mhz|ghz))?",
        text.strip().lower(),
    )
    if not match or float(match.group(1)) <= 0:
        raise OptionError(
            f"--model {text}: use point:1.0Jy, point:1Jy,alpha=-0.7@3GHz, standard, or one of "
            f"{', '.join(CALIBRATORS)}."
        )
    flux = float(match.group(1)) * (1e-3 if match.group(2) == "mjy" else 1.0)
    if match.group(3) is None:
        return PointModel(flux)
    unit = {"mhz": 1e6, "ghz": 1e9}[match.group(5)]
    return PointModel(flux, float(match.group(3)), float(match.group(4)) * unit)


def band(freq_hz: float) -> str:
    """Letter of the VLA's band, as the names of CASA's model images end: L at 1.4 GHz."""
    return next(letter for top, letter in BANDS if freq_hz < top)


def make_terms(options: CalibrateOptions) -> list[Term]:
    """Terms in order, with the intervals, modes and combinations of the user or the field's.

    By themselves: delays for each scan, one bandpass of all scans, gains (amplitude and phase) for
    each scan.
    """
    if options.standard not in STANDARDS:
        raise OptionError(f"--standard {options.standard}: setjy knows {', '.join(STANDARDS)}.")
    count = len(options.terms)
    gains = any(kind in "GT" for kind in options.terms)
    for word, given in (
        ("solint", options.solints), ("calmode", options.calmodes), ("combine", options.combines),
    ):  # fmt: skip
        if len(given) not in (0, 1, count):
            raise OptionError(
                f"--{word}: given {len(given)} times; give it once (for G and T), or once for each of "
                f"{count} terms."
            )
    made: list[Term] = []
    for number, kind in enumerate(options.terms):
        # One word for all is meant for the gains, if there are any.
        lone = kind in "GT" or not gains
        solint = _nth(options.solints, number, "inf", lone=lone)
        if kind != "B" or "," not in solint:
            parse_solint(solint)
        usual = "scan" if kind == "B" else ""
        combine = _nth(options.combines, number, usual, lone=lone).replace(" ", "")
        unknown = set(filter(None, combine.split(","))) - {"scan", "spw", "field", "obs"}
        if unknown or (kind == "B" and "spw" in combine):
            raise OptionError(
                f"--combine {combine}: for {kind} use {'scan, field' if kind == 'B' else 'scan, spw, field'}."
            )
        calmode = _nth(options.calmodes, number, "ap", lone=lone) if kind in "GT" else ""
        seen = sum(item.kind == kind for item in made)
        made.append(Term(kind, f"{kind}{seen + 1}" if seen else kind, solint, combine, calmode))
    if options.calmodes and not any(item.kind in "GT" for item in made):
        raise OptionError("--calmode: only G and T have one; leave it out.")
    return made


def _nth(given: tuple[str, ...], number: int, default: str, *, lone: bool) -> str:
    if len(given) > 1:
        return given[number]
    return given[0] if given and lone else default


def check_data(
    info: ms.MsInfo, selection: Selection, options: CalibrateOptions
) -> tuple[list[int], list[int]]:
    """Check the options against the MS, before any work.

    Returns
    -------
    list of int
        Fields of the calibrator: one, or several of one position.
    list of int
        Other fields to calibrate.

    Raises
    ------
    DataError, OptionError
        If they do not go together.
    """
    fields = info.field_ids(selection)
    names = [f"{field}={info.fields[field].name}" for field in fields]
    first = info.fields[fields[0]]
    if any(_apart_arcsec(info.fields[field], first) > SAME_ARCSEC for field in fields):
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        raise OptionError(
            f"--field {selection.field or '(all)'}: {', '.join(names[:6])}{more} are several sources; name the "
            "one that --model describes."
        )
    others = info.field_ids(Selection(field=options.apply_to)) if options.apply_to else []
    spws = info.channels(selection)
    if "K" in options.terms:
        single = [spw for spw in spws if len(info.spws[spw].freq_hz) == 1]
        if single and "spw" not in ",".join(options.combines):
            raise DataError(
                f"{info.path}: spw {', '.join(map(str, single))} has one channel, and a delay is a slope "
                "over channels; leave --term K out, or --combine spw."
            )
    hands = {
        name for item in info.data_descriptions if item.spw in spws for name in item.correlations
    }
    if options.parang and len(hands) < 4:
        raise DataError(
            f"{info.path}: has {', '.join(sorted(hands))} only: the parallactic angle needs all four "
            "correlations; leave --parang out."
        )
    others = [field for field in others if field not in fields]
    written = Selection(field=",".join(map(str, [*fields, *others])), spw=selection.spw)
    datacolumn.refuse_replacing(
        info,
        ms.select_rows(info, written),
        info.data_column(options.datacolumn),
        overwrite=options.overwrite,
    )
    return fields, others


def _apart_arcsec(one: ms.Field, two: ms.Field) -> float:
    """Distance of two fields of one MS, which share a frame."""
    east = math.remainder(one.ra_rad - two.ra_rad, 2 * math.pi) * math.cos(one.dec_rad)
    return math.degrees(math.hypot(east, one.dec_rad - two.dec_rad)) * 3600


def position(field: ms.Field) -> SkyCoord:
    """ICRS position of a field's phase centre.

    Raises
    ------
    DataError
        If it moves.
    """
    found = field_place(field)
    if found is None or field.track:
        raise DataError(
            f"field {field.name}: its position in {field.frame} is that of a moving source, which is no "
            "standard calibrator here; give its flux as --model point:...Jy."
        )
    return found.icrs
