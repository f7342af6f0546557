"""Rounds of self-calibration that solve for delays or TEC instead of a phase for each spw."""

from __future__ import annotations

from pathlib import Path

from peelkit.core import dispersive_solve, snr
from peelkit.core.dispersive import KINDS
from peelkit.core.selfcal_session import Best, Session
from peelkit.errors import OptionError
from peelkit.selection import Selection

# gaincal's own delay, one for each spw.
CASA_DELAY = "K"


def is_fitted(gaintype: str) -> bool:
    """It is fitted over all spws by peelkit, and not solved by gaincal."""
    return gaintype in KINDS


def is_over_frequency(gaintype: str) -> bool:
    """Its phases change over a spw: G and T go on top of it, and not in its place."""
    return gaintype == CASA_DELAY or is_fitted(gaintype)


def check(gaintype: str, calmode: str, combine: str, minblperant: int | None) -> None:
    """Refuse amplitudes of a term that has none, and what the fit over all spws does not know.

    Raises
    ------
    OptionError
        If it is so.
    """
    if is_over_frequency(gaintype) and calmode != "p":
        raise OptionError(
            f"gaintype {gaintype} with calmode {calmode}: it is a term of phases; use calmode p, and G or T "
            "for amplitudes."
        )
    if is_fitted(gaintype) and "baseband" in combine.split(","):
        raise OptionError(
            f"gaintype {gaintype} with combine baseband: it is fitted over all spws together; leave baseband out."
        )
    if is_fitted(gaintype) and minblperant is not None:
        raise OptionError(
            f"--minblperant {minblperant} with gaintype {gaintype}: the fit has no such limit; leave it out."
        )


def ending(rung: snr.Rung) -> str:
    """Ending of a round's table: the term, if it is over frequency, which tells `kept_for` what it holds."""
    return rung.gaintype if is_over_frequency(rung.gaintype) else "g"


def kept_for(best: Best, rung: snr.Rung) -> list[int]:
    """Which tables of the best state a round builds on.

    Phases are solved anew in each round, but a phase for each spw does not contain the delay and TEC that
    was found before, and goes on top of it. Amplitudes go on top of all phases.
    """
    if is_over_frequency(rung.gaintype):
        return []
    return [
        index
        for index, (name, mode) in enumerate(zip(best.tables, best.table_modes, strict=True))
        if mode == "p" and (rung.calmode != "p" or is_over_frequency(name.rsplit(".", 1)[-1]))
    ]


def solve(
    session: Session, rung: snr.Rung, caltable: Path, fields: list[int]
) -> dispersive_solve.Report:
    """Fit the delays or TEC of a round; the table is at ``caltable``, its parameters beside it."""
    return dispersive_solve.solve_term(
        session.work,
        kind=rung.gaintype,
        out=caltable,
        solint_s=None if rung.solint == "inf" else rung.solint_s,
        refants=session.refants,
        minsnr=rung.minsnr,
        combine=rung.combine,
        selection=Selection(
            field=",".join(map(str, fields)),
            spw=session.selection.spw,
            uvrange=session.selection.uvrange,
        ),
    )
