"""What ``peelkit ddsolve`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from peelkit.core.dd_terms import TermChoice

DEFAULT_TERMS = (
    TermChoice("G", "diag_complex", "auto", "spw"),
    TermChoice("K", "none", "10s", "spw"),
    TermChoice("dE", "diag_complex", "auto", "auto"),
)


@dataclass(frozen=True)
class DdOptions:
    """Options of a direction-dependent solve.

    Parameters
    ----------
    all_column : str
        Model of the whole sky; empty if ``plan`` names it.
    peel : tuple of str
        Columns with one bright source each; empty if ``plan`` names them.
    plan : Path or None
        Sidecar of predict-region.
    datacolumn : str
        ``auto`` (CORRECTED_DATA if it is there), ``data`` or ``corrected``.
    terms : tuple of TermChoice
        G, K and dE.
    combine : frozenset of str
        ``field`` and ``scan``: solutions across them.
    refant : str
        Reference antennas by name or id, in order of preference.
    rounds, iterations : int
        Rounds through all terms, at least, and iterations of each in a round.
    min_snr : float
        Least S/N of a dE solution.
    decisions : dict of str
        Label to ``peel``, ``subtract`` or ``skip``, whatever the S/N.
    subtract : tuple of str
        Labels to subtract; all if empty.
    keep : bool
        Solve only, subtract nothing.
    column : str
        Column for the peeled data.
    corrected : bool
        Write CORRECTED_DATA too: direction-independent gains taken out, nothing subtracted.
    own_data : tuple of str
        Labels of directions whose own data are written (`peelkit.core.dd_own`), or ``all``.
    balance : bool
        Let the rest of the sky decide what is G and what is dE (`peelkit.core.dd_balance`).
    inject : tuple of str
        Test sources FLUX@DX,DY (`peelkit.core.dd_inject`).
    flag : bool
        Flag what failed solutions serve.
    threads : int
        Chunks solved at a time; 0 for as many as there are cores.
    quartical : tuple of str
        Further options of QuartiCal, ``KEY=VALUE``.
    out : Path or None
        Folder for solutions, logs and plots.
    plots, overwrite : bool
        Make plots; replace what exists.
    """

    all_column: str = ""
    peel: tuple[str, ...] = ()
    plan: Path | None = None
    datacolumn: str = "auto"
    terms: tuple[TermChoice, ...] = DEFAULT_TERMS
    combine: frozenset[str] = frozenset()
    refant: str = ""
    rounds: int = 2
    iterations: int = 25
    min_snr: float = 3.0
    decisions: dict[str, str] = field(default_factory=dict)
    subtract: tuple[str, ...] = ()
    keep: bool = False
    column: str = "PEELED_DATA"
    corrected: bool = False
    own_data: tuple[str, ...] = ()
    balance: bool = True
    inject: tuple[str, ...] = ()
    flag: bool = True
    threads: int = 0
    quartical: tuple[str, ...] = ()
    out: Path | None = None
    plots: bool = True
    overwrite: bool = False
