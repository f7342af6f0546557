"""What a calibration takes from earlier ones: their tables, and their flux scale."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from peelkit.core import calibrate_flux as fluxscale
from peelkit.core import calibrate_tables
from peelkit.core.calibrate_match import match_spws, spans_of
from peelkit.core.calibrate_plan import CalibrateOptions, Term
from peelkit.core.calibrate_solve import Job, Solved
from peelkit.core.calibrate_tables import Earlier, Table, find
from peelkit.errors import DataError, OptionError
from peelkit.io import caltable, ms
from peelkit.io.survey import Survey
from peelkit.selection import Selection

log = logging.getLogger(__name__)


def tables_before(
    info: ms.MsInfo,
    found: Survey,
    selection: Selection,
    options: CalibrateOptions,
    kinds: Sequence[str],
) -> tuple[Earlier, list[str]]:
    """Tables of --pre. Of a run's, those that this run solves for itself are left out.

    Gains go with the source that they were solved on: G or T of another are not applied where this one
    gets its own.

    Returns
    -------
    Earlier
        The tables.
    list of str
        Those whose spws of several executions were told apart by time.
    """
    gains = {"G", "T"}
    own = set(kinds) | (gains if gains & set(kinds) else set())
    kept: list[Table] = []
    by_time: list[str] = []
    spws = list(info.channels(selection))
    for text in options.pre:
        earlier = find(text)
        if earlier.parang is not None and earlier.parang != options.parang:
            raise OptionError(
                f"--pre {text}: was solved {'with' if earlier.parang else 'without'} --parang; "
                f"{'give it here too' if earlier.parang else 'leave it out here'}, or solve that anew."
            )
        for item in earlier.tables:
            if item.given:
                match = match_spws(
                    caltable.read_cal_table(item.path), info, spws, spans=spans_of(found)
                )
                kept.append(replace(item, spwmap=tuple(match.spwmap)))
                by_time += [str(item.path)] if match.by_time else []
            elif item.kind not in own:
                kept.append(item)
            else:
                log.info("%s: left out, since this run solves %s", item.path, item.kind)
    return Earlier(tuple(kept)), by_time


def check_flux_from(
    options: CalibrateOptions, terms: Sequence[Term], earlier: Earlier, reference: Earlier
) -> None:
    """Refuse to compare gains that do not compare, before anything is solved.

    What tells the flux is one table of amplitudes on either side, with one and the same bandpass
    applied. Two terms with amplitudes share them in ways that no one knows; a bandpass of this source's
    own takes up what its assumed flux is wrong by; normalised gains have lost it.

    Raises
    ------
    DataError, OptionError
        If it is not so.
    """
    name = f"--flux-from {options.flux_from}"
    if reference.fluxes_jy is not None and not reference.fluxes_jy:
        raise DataError(
            f"{options.flux_from}: is no calibration on a source of known flux; give the folder of "
            "'selfcal --term ... --model 3C286' or the like."
        )
    own = [term.kind for term in terms if "a" in term.calmode]
    own += [item.kind for item in earlier.tables if _has_amplitudes(item)]
    theirs = [item.kind for item in reference.tables if _has_amplitudes(item)]
    if not theirs or not set(own) & set(theirs):
        raise DataError(
            f"{options.flux_from}: has no amplitude gains of type {' or '.join(sorted(set(own)))} to "
            "compare with; solve the same terms on the flux calibrator first."
        )
    if len(own) > 1 or len(theirs) > 1:
        raise OptionError(
            f"{name}: compares the amplitudes of one term with those of one, and there are "
            f"{' and '.join(own)} here, {' and '.join(theirs)} there; solve the others with --calmode p."
        )
    if options.solnorm:
        raise OptionError(
            f"{name}: normalised gains (--solnorm) tell no flux; leave --solnorm out."
        )
    if any(term.kind == "B" for term in terms):
        raise OptionError(
            f"{name}: a bandpass of this source takes up the flux that is to be found; leave --term B out, "
            "and give that of the flux calibrator as --pre."
        )
    bandpass = _bandpasses(reference)
    here = _bandpasses(earlier)
    if bandpass is not None and bandpass != here:
        raise DataError(
            f"{options.flux_from}: its gains have another bandpass ({', '.join(bandpass) or 'none'}) than "
            f"these ({', '.join(here or ()) or 'none'}); give its folder as --pre too."
        )


def _has_amplitudes(item: Table) -> bool:
    return item.kind in ("G", "T") and "a" in item.calmode


def _bandpasses(earlier: Earlier) -> list[str] | None:
    """Bandpasses among the tables; None where nothing is known of what they were solved with."""
    found = [str(item.path.resolve()) for item in earlier.tables if item.kind == "B"]
    given = [item for item in earlier.tables if item.given and item.kind in ("G", "T")]
    if found or not given:
        return found
    beside = [calibrate_tables.beside(item.path) for item in given]
    if not all(record.tables for record in beside):
        return None
    return sorted(
        {str(t.path.resolve()) for record in beside for t in record.tables if t.kind == "B"}
    )


def bootstrap(
    job: Job, solved: list[Solved], reference: Earlier, fluxes: Mapping[int, float], name: str
) -> tuple[dict[int, float], list[dict[str, Any]]]:
    """True over assumed flux of each spw, from the gains of this source and of the reference."""
    theirs = next(item for item in reference.tables if _has_amplitudes(item))
    own = next(item for item in solved if "a" in item.term.calmode)
    content = caltable.read_cal_table(theirs.path)
    spws = sorted(fluxes)
    there: Sequence[int] = theirs.spwmap
    if theirs.given:
        there = match_spws(content, job.work, spws, spans=spans_of(job.found)).spwmap
    pairs = {spw: (_filed(own.table.spwmap, spw), _filed(there, spw)) for spw in spws}
    if len(set(pairs.values())) > min(len(set(side)) for side in zip(*pairs.values(), strict=True)):
        raise DataError(
            f"{job.options.flux_from}: its {theirs.kind} has other spws combined than "
            f"{own.term.name} here (spw {_listed(pairs, 1)} there, {_listed(pairs, 0)} here); solve both with "
            "the same --combine."
        )
    scale: dict[int, float] = {}
    records = []
    for spw, (here, beyond) in pairs.items():
        found = fluxscale.transfer(own.content, content, here, beyond)
        if found is None:
            raise DataError(
                f"{job.options.flux_from}: no antenna has gains of both sources in spw {spw}; solve the "
                "same spws on both."
            )
        scale[spw] = found.factor
        records.append(
            {
                "field": name,
                "spw": spw,
                "flux_jy": fluxes[spw] * found.factor,
                "flux_error_jy": fluxes[spw] * found.factor * found.error,
                "scatter_percent": 100 * found.scatter,
                "ratios": found.ratios,
                "source": f"gains of {reference.field or job.options.flux_from}",
            }
        )
    return scale, records


def _filed(spwmap: Sequence[int], spw: int) -> int:
    """Spw that the solutions of ``spw`` are filed under."""
    return int(spwmap[spw]) if spw < len(spwmap) else spw


def _listed(pairs: Mapping[int, tuple[int, int]], side: int) -> str:
    return ",".join(str(pair[side]) for pair in pairs.values())


def scaled(item: Solved, scale: Mapping[int, float]) -> Table:
    """Table on the flux scale: gains of an assumed flux are too large by the root of true over it."""
    if "a" not in item.term.calmode:
        return item.table
    target = item.table.path.with_name(f"{item.term.name}.flux.cal")
    caltable.copy_scaled(
        item.table.path,
        target,
        {_filed(item.table.spwmap, spw): factor**-0.5 for spw, factor in scale.items()},
    )
    item.record["caltable_flux_scaled"] = str(target)
    return replace(item.table, path=target)
