"""CASA's words for what to select, and for how long: parsed once, with units.

Pure: no files, no engines. Ids and names are resolved against lists that the
caller read from the MS.
"""

import fnmatch
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from peelkit.errors import DataError, OptionError

_CHANNELS = r"[\d~;\s]+"
_TIME = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*(s|sec|min|m|h|hr)?\s*$", re.IGNORECASE)
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "hr": 3600.0}
_COUNT = re.compile(r"^\s*(\d+)\s*int\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """What of the MS a command works on, in CASA's selection syntax; empty is all."""

    field: str = ""
    spw: str = ""
    scan: str = ""
    antenna: str = ""
    uvrange: str = ""


def parse_solint(text: str, *, integration_s: float | None = None) -> float | None:
    """Length of a solution interval.

    Parameters
    ----------
    text : str
        ``inf``, ``int``, ``3int``, or a time such as ``60s``, ``0.5min``; a bare number is in
        seconds, as in CASA.
    integration_s : float, optional
        Integration time [s], needed for ``int``.

    Returns
    -------
    float or None
        Seconds; None for ``inf`` (one solution per scan).

    Raises
    ------
    OptionError
        If the text is none of these.
    """
    word = text.strip().lower()
    if word == "inf":
        return None
    count = 1 if word == "int" else None
    if match := _COUNT.match(word):
        count = int(match.group(1))
    if count is not None:
        if count < 1:
            raise OptionError(f"solint {text!r}: at least one integration is needed.")
        return count * integration_s if integration_s is not None else float(count)
    match = _TIME.match(word)
    if not match or float(match.group(1)) <= 0:
        raise OptionError(
            f"solint {text!r}: use inf (per scan), int, 3int, or a time such as 60s or 2min."
        )
    return float(match.group(1)) * _SECONDS[match.group(2) or "s"]


def casa_solint(text: str, *, integration_s: float) -> str:
    """Spell ``3int`` in seconds for CASA; a bandpass may have an interval in frequency after a comma."""
    time, comma, rest = text.partition(",")
    word = time.strip().lower()
    if word not in ("inf", "int"):
        word = f"{parse_solint(word, integration_s=integration_s):g}s"
    return f"{word}{comma}{rest}"


def parse_angle_arcsec(text: str) -> float:
    """Angle such as ``0.5arcsec``, ``2"``, ``0.1arcmin``, ``1mas`` or a bare number in arcsec.

    Raises
    ------
    OptionError
        If it is no positive angle.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[-+]?\d+)?)\s*([a-z\"\']*)\s*", text.lower())
    units = {
        "": 1.0,
        "arcsec": 1.0,
        '"': 1.0,
        "mas": 1e-3,
        "arcmin": 60.0,
        "'": 60.0,
        "deg": 3600.0,
    }
    if not match or match.group(2) not in units or float(match.group(1)) <= 0:
        raise OptionError(f"angle {text!r}: use a value such as 0.5arcsec, 20mas or 0.1arcmin.")
    return float(match.group(1)) * units[match.group(2)]


def check_uvrange(text: str) -> None:
    """Refuse what CASA would not read as a baseline range, before an engine is started.

    Raises
    ------
    OptionError
        If a piece is not like ``>1klambda``, ``<500m`` or ``100~500m``.
    """
    number = r"\d*\.?\d+"
    form = rf"\s*(?:[<>]\s*{number}|{number}\s*~\s*{number})\s*(?:m|km|lambda|klambda|Mlambda)?\s*"
    for piece in filter(None, text.split(",")):
        if not re.fullmatch(form, piece):
            raise OptionError(
                f"uvrange {piece!r}: use a range such as >1klambda, <500m or 100~500m."
            )


def antenna_words(ids: Sequence[int], names: Sequence[str]) -> list[str]:
    """What engines call antennas: the name, or the id where it is blank, not unique or has CASA's syntax.

    CASA takes a number for a name first, if an antenna is called so (measured, 6.7).
    """
    words = []
    for number in ids:
        name = names[number]
        if re.fullmatch(r"[\w.-]+", name) and names.count(name) == 1:
            words.append(name)
        else:
            words.append(f'"{name}"' if str(number) in names else str(number))
    return words


def _pieces(text: str, names: Collection[str], tail: str = "") -> list[str]:
    """Split a list at its commas, but for those in names; a name may be in quotes, and ``tail`` may follow it."""
    whole = {name.strip() for name in names if "," in name}
    words = text.split(",")
    found: list[str] = []
    while words:
        for count in range(len(words), 0, -1):
            piece = ",".join(words[:count]).strip()
            match = re.fullmatch(rf"(.*?)({tail})", piece, re.DOTALL)
            name = match.group(1).strip('"') if match else piece
            if count == 1 or name in whole or piece in whole:
                break
        found.append(piece)
        words = words[count:]
    return found


def parse_ids(
    text: str, names: Sequence[str], *, kind: str, ids: Sequence[int] | None = None
) -> list[int]:
    """Ids of what a CASA selection names.

    Parameters
    ----------
    text : str
        Comma-separated ids, ranges ``0~3``, open ranges ``>3`` and ``<3``, names, names with
        ``*`` and ``?``; empty selects all. A number is an id before it is a name; of an antenna it is a name first,
        as CASA has it.
    names : sequence of str
        The names, in the order of their ids.
    kind : str
        ``field``, ``antenna``, ... for the message.
    ids : sequence of int, optional
        The ids, where they are not 0, 1, 2, ... (scan numbers).

    Raises
    ------
    DataError
        If something named is not there.
    """
    known = list(ids) if ids is not None else list(range(len(names)))
    if not text.strip() or text.strip() == "*":
        return known
    chosen: list[int] = []
    for part in _pieces(text, names):
        found = _match_ids(part, names, known, name_first=kind in ("antenna", "refant"))
        if not found:
            listing = ", ".join(
                f"{number}={name}" if name else str(number)
                for number, name in zip(known, names, strict=True)
            )
            if len(listing) > 300:
                listing = listing[:297] + "..."
            raise DataError(f"{kind} {part!r}: not in the data, which have {listing}.")
        chosen += [number for number in found if number not in chosen]
    return chosen


def _match_ids(
    part: str, names: Sequence[str], known: Sequence[int], *, name_first: bool
) -> list[int]:
    if not name_first and part.isdigit() and int(part) in known:
        return [int(part)]
    exact = [
        number
        for number, name in zip(known, names, strict=True)
        if name.strip() and name.strip() in (part, part.strip('"'))
    ]
    if exact:
        return exact
    if match := re.fullmatch(r"(\d+)(?:~(\d+))?", part):
        low = int(match.group(1))
        high = int(match.group(2) or low)
        if any(number not in known for number in (low, high)):
            return []
        return [number for number in known if low <= number <= high]
    if match := re.fullmatch(r"([<>])(\d+)", part):
        limit = int(match.group(2))
        above = match.group(1) == ">"
        return [number for number in known if (number > limit if above else number < limit)]
    return [
        number for number, name in zip(known, names, strict=True) if fnmatch.fnmatchcase(name, part)
    ]


def parse_spw(
    text: str, n_chan: Sequence[int], names: Sequence[str]
) -> dict[int, list[tuple[int, int]]]:
    """Channels that a CASA spw selection names.

    Parameters
    ----------
    text : str
        ``0~3``, ``0:5~60``, ``1:3~10;20~30,2``, names; empty is everything.
    n_chan : sequence of int
        Channels of each spw.
    names : sequence of str
        Names of the spws.

    Returns
    -------
    dict
        Spw id to its inclusive channel ranges.
    """
    chosen: dict[int, list[tuple[int, int]]] = {}
    for part in _pieces(text or "*", names, rf"(?::{_CHANNELS})?"):
        spws, channels = part, ""
        # A name may have a colon.
        if part not in names and (match := re.fullmatch(rf"(.*):({_CHANNELS})", part)):
            spws, channels = match.groups()
        elif part not in names:
            spws, _, channels = part.partition(":")
        for spw in parse_ids(spws, names, kind="spw"):
            ranges = chosen.setdefault(spw, [])
            if not channels:
                ranges.append((0, n_chan[spw] - 1))
            for piece in filter(None, channels.split(";")):
                match = re.fullmatch(r"\s*(\d+)(?:~(\d+))?\s*", piece)
                low = int(match.group(1)) if match else -1
                high = int(match.group(2) or low) if match else -1
                if not 0 <= low <= high < n_chan[spw]:
                    raise DataError(
                        f"spw {part!r}: channels {piece!r} are not within 0~{n_chan[spw] - 1} "
                        f"of spw {spw}."
                    )
                ranges.append((low, high))
    return chosen
