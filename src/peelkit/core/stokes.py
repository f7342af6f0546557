"""Stokes planes: which the correlations hold, and what each correlation is of them. Pure.

Linear feeds (XX, XY, YX, YY): ``XX = I + Q``, ``YY = I - Q``, ``XY = U + iV``, ``YX = U - iV``; circular feeds:
``RR = I + V``, ``LL = I - V``, ``RL = Q + iU``, ``LR = Q - iU`` (Hamaker & Bregman 1996, A&AS 117, 161; CASA's
convention, in which a parallel hand of an unpolarised source is I). Q and U are in the frame that the data
have: that of the feeds, until the parallactic angle is taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from peelkit.errors import OptionError

# What is imaged, by the word of --stokes.
CHOICES = ("I", "IQ", "IV", "IQUV")

FACTORS: dict[str, dict[str, complex]] = {
    "XX": {"I": 1, "Q": 1}, "YY": {"I": 1, "Q": -1}, "XY": {"U": 1, "V": 1j}, "YX": {"U": 1, "V": -1j},
    "RR": {"I": 1, "V": 1}, "LL": {"I": 1, "V": -1}, "RL": {"Q": 1, "U": 1j}, "LR": {"Q": 1, "U": -1j},
    "I": {"I": 1}, "Q": {"Q": 1}, "U": {"U": 1}, "V": {"V": 1},
}  # fmt: skip


def held_by(correlations: Collection[str]) -> set[str]:
    """Stokes parameters that can be made of correlations: both that hold them must be there."""
    held = set()
    for first, second, planes in (
        ("XX", "YY", "IQ"), ("XY", "YX", "UV"), ("RR", "LL", "IV"), ("RL", "LR", "QU"),
    ):  # fmt: skip
        if {first, second} <= set(correlations):
            held |= set(planes)
    return held


def check(stokes: str, correlations: Collection[str]) -> None:
    """Refuse planes that the correlations do not hold.

    Raises
    ------
    OptionError
        If there are any.
    """
    held = held_by(correlations)
    # CASA makes two planes of the parallel hands only.
    wrong = {"IQ": {"RR", "LL"}, "IV": {"XX", "YY"}}.get(stokes, set())
    if wrong & set(correlations) and len(set(correlations)) > 2:
        other = {"IQ": "IV", "IV": "IQ"}[stokes]
        whole = " or IQUV" if set("IQUV") <= held else ""
        raise OptionError(
            f"--stokes {stokes}: {','.join(sorted(correlations))} have {stokes[1]} in the cross hands, of which two "
            f"planes are not made; use I or {other}{whole}."
        )
    missing = [plane for plane in stokes if plane not in held]
    if missing and stokes != "I":
        possible = [choice for choice in CHOICES if set(choice) <= held]
        raise OptionError(
            f"--stokes {stokes}: {','.join(sorted(correlations))} do not hold {' and '.join(missing)}; use "
            f"{' or '.join(possible) or 'I'}."
        )


def to_correlations(
    planes: Mapping[str, NDArray[np.complex128]], correlations: Sequence[str]
) -> NDArray[np.complex64]:
    """Visibilities of correlations from those of Stokes planes.

    Parameters
    ----------
    planes : mapping
        ``I``, ``Q``, ... to visibilities [Jy], shape (row, chan); those that are not there are 0.
    correlations : sequence of str
        ``XX``, ``YY``, ...

    Returns
    -------
    ndarray, shape (row, chan, corr)
        Visibilities [Jy].
    """
    shape = next(iter(planes.values())).shape
    cells = np.zeros((*shape, len(correlations)), dtype=np.complex64)
    for number, name in enumerate(correlations):
        for plane, factor in FACTORS.get(name, {}).items():
            if plane in planes:
                cells[:, :, number] += (factor * planes[plane]).astype(np.complex64)
    return cells
