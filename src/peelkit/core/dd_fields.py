"""Decisions of a mosaic: a bright source is elsewhere in the beam of every field, and as bright as that.

Fields with the same decisions are a class. Each class is solved by itself, as a plan of its own; a
direction that is too faint in every single field of a class, but not in all of them together, borrows:
the class is then solved with its fields and scans put together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_gate, dd_terms
from peelkit.core.dd_data import Rows, gather
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_gate import FieldDecision
from peelkit.core.dd_plan import Plan
from peelkit.io import ms, rownumbers
from peelkit.io.gains import TermGains

if TYPE_CHECKING:
    from peelkit.core.dd_apply import Sums
    from peelkit.core.dd_measure import Meter

# From the strongest to the weakest.
ORDER = (dd_gate.PEEL, dd_gate.BORROW, dd_gate.SUBTRACT, dd_gate.SKIP)


def decide(
    plan: Plan,
    meters: Mapping[str, Meter],
    independent: Sequence[Meter],
    scale: Mapping[int, float],
) -> Plan:
    """Decide for every field and direction, and sort the fields into classes.

    Parameters
    ----------
    meters : dict of str
        Label to the information on its dE.
    independent : sequence of Meter
        Of the direction-independent terms.
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.

    Returns
    -------
    Plan
        As it is where all fields agree, but for its `Plan.fields`; with a plan for each class of
        fields otherwise.
    """
    if plan.rows.combine_fields:
        return plan
    numbers = sorted({field for field, _ in plan.rows.axes})
    alone = {
        n: tuple(_alone(plan, label, meters[label], scale, n) for label in meters) for n in numbers
    }
    if len(numbers) > 1:
        alone = _borrowed(plan, meters, scale, alone)
    vectors = {n: tuple(one.decision for one in alone[n]) for n in numbers}
    if len(set(vectors.values())) == 1 and dd_gate.BORROW not in vectors[numbers[0]]:
        return replace(plan, fields=_as_planned(plan, alone))
    whole = replace(
        plan,
        directions=tuple(_strongest(d, alone) for d in plan.directions),
        fields=tuple(one for n in numbers for one in alone[n]),
    )
    members: dict[tuple[Any, ...], list[int]] = {}
    for n in numbers:
        own = any(word in dd_gate.OWN for word in vectors[n])
        weak = not own and any(meter.snr(scale, n) < plan.options.min_snr for meter in independent)
        members.setdefault((vectors[n], weak), []).append(n)
    field_of_row = _field_of_rows(plan.rows)
    by_field: dict[int, Plan] = {}
    for (_, weak), fields in members.items():
        one = _class(whole, [alone[n] for n in fields], np.isin(field_of_row, fields), weak=weak)
        by_field |= dict.fromkeys(fields, one)
    return replace(whole, by_field=by_field)


def _alone(
    plan: Plan, label: str, meter: Meter, scale: Mapping[int, float], number: int
) -> FieldDecision:
    """What a field says of a direction by itself."""
    snr = meter.snr(scale, number)
    total = math.sqrt(meter.by_field.get(number, 0.0) * float(np.mean(list(scale.values()))))
    if total == 0:
        decision, reason = dd_gate.SKIP, "its model is zero here"
    elif label in plan.options.decisions:
        decision, reason = plan.options.decisions[label], dd_gate.ASKED
    else:
        decision, reason = dd_gate.decide(snr, total, min_snr=plan.options.min_snr)
    return FieldDecision(number, label, snr, total, decision, reason)


def _borrowed(
    plan: Plan,
    meters: Mapping[str, Meter],
    scale: Mapping[int, float],
    alone: Mapping[int, tuple[FieldDecision, ...]],
) -> dict[int, tuple[FieldDecision, ...]]:
    """Let directions borrow that are too faint in a field, but not in all of its kind together.

    Not where another direction has solutions of the field's own: these would be lost.
    """
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, found in alone.items():
        kinds.setdefault(tuple(one.decision for one in found), []).append(number)
    result = dict(alone)
    for words, fields in kinds.items():
        if dd_gate.PEEL in words:
            continue
        for place, (label, word) in enumerate(zip(meters, words, strict=True)):
            if word != dd_gate.SUBTRACT or label in plan.options.decisions:
                continue
            snr = together(plan, meters[label], scale, fields)
            if snr < plan.options.min_snr:
                continue
            for number in fields:
                one = result[number][place]
                reason = (
                    f"S/N {one.snr_per_solution:.1f} per solution in this field, {snr:.1f} with all "
                    f"{len(fields)} fields of its kind"
                )
                fresh = replace(one, decision=dd_gate.BORROW, reason=reason)
                result[number] = (*result[number][:place], fresh, *result[number][place + 1 :])
    return result


def together(plan: Plan, meter: Meter, scale: Mapping[int, float], fields: Sequence[int]) -> float:
    """Median S/N of a solution where ``fields`` and their scans are solved together."""
    dependent = dd_terms.longest(
        next(term for term in plan.options.terms if term.direction_dependent)
    )
    pieces = []
    for ddid in plan.rows.ddids:
        keys = [(n, ddid) for n in fields if (n, ddid) in meter.information]
        if not keys:
            continue
        total = sum(meter.information[key].values.sum(axis=0) for key in keys)
        n_time = sum(plan.rows.axes[key].times_s.size for key in keys)
        count = dd_terms.time_integrations(dependent.time, plan.rows.integration_s[ddid])
        share = min(1.0, count / n_time) if count else 1.0
        values: NDArray[np.float64] = scale[ddid] * share * np.asarray(total)
        pieces.append(np.sqrt(values[values > 0]))
    every = np.concatenate(pieces) if pieces else np.empty(0)
    return float(np.median(every)) if every.size else 0.0


def _as_planned(
    plan: Plan, alone: Mapping[int, tuple[FieldDecision, ...]]
) -> tuple[FieldDecision, ...]:
    """Decisions of fields that agree: those over all data."""
    whole = {d.label: d for d in plan.directions}
    return tuple(
        replace(one, decision=whole[one.direction].decision, reason=whole[one.direction].reason)
        for found in alone.values()
        for one in found
    )


def _strongest(
    d: dd_gate.Direction, alone: Mapping[int, tuple[FieldDecision, ...]]
) -> dd_gate.Direction:
    """A direction with the strongest decision of its fields."""
    words = [one.decision for found in alone.values() for one in found if one.direction == d.label]
    counts = ", ".join(f"{word} in {words.count(word)}" for word in ORDER if word in words)
    return replace(
        d, decision=min(words, key=ORDER.index), reason=f"of {len(words)} fields: {counts}"
    )


def _class(
    plan: Plan,
    found: Sequence[tuple[FieldDecision, ...]],
    mine: NDArray[np.bool_],
    *,
    weak: bool,
) -> Plan:
    """Plan of some fields that have the same decisions; ``weak`` leaves all gains 1."""
    directions = []
    for d, ones in zip(plan.directions, zip(*found, strict=True), strict=True):
        snr = float(np.median([one.snr_per_solution for one in ones]))
        total = math.sqrt(sum(one.snr_total**2 for one in ones))
        fresh = replace(d, decision=ones[0].decision, reason=ones[0].reason)
        directions.append(replace(fresh, snr_per_solution=snr, snr_total=total))
    borrow = any(d.decision == dd_gate.BORROW for d in directions)
    options = plan.options
    if borrow:
        options = replace(options, combine=options.combine | {"field", "scan"})
    if weak:
        none = tuple(
            term if term.direction_dependent else replace(term, type=dd_terms.NONE)
            for term in options.terms
        )
        options = replace(options, terms=none)
    rows = gather(plan.rows.info, plan.rows.rows[mine], combine_fields=borrow)
    return replace(plan, options=options, rows=rows, directions=tuple(directions), fields=())


def _field_of_rows(rows: Rows) -> NDArray[np.int64]:
    found: NDArray[Any] = np.empty(rows.rows.size, dtype=np.int32)
    with ms.opened(rows.info.path) as main:
        for start, window, _ in rownumbers.windows(main, rows.rows):
            found[start : start + window.size] = rownumbers.column(main, "FIELD_ID", window)
    return found


def towards(plan: Plan, groups: Mapping[Key, Solutions], label: str) -> list[TermGains]:
    """Gains dE of one direction alone, in the groups where it has gains of its own."""
    found = []
    for key, solutions in groups.items():
        here = plan.at(key)
        last = solutions.terms[-1]
        if label in here.peeled and last.gains.shape[3] > 1:
            which = [list(here.used).index(label) + 1]
            found.append(
                replace(last, gains=last.gains[:, :, :, which], flags=last.flags[:, :, :, which])
            )
    return found


def complete(plan: Plan, sums: Sums) -> None:
    """Score directions that a field does not have: without them nothing changes there."""
    for label in plan.used:
        sums.without.setdefault(label, sums.solved)


def records(plan: Plan, groups: Mapping[Key, Sums] | None) -> list[dict[str, Any]]:
    """Decision and figures of each field and direction for the sidecar."""
    by_field: dict[int, Sums] = {}
    for (number, _), sums in (groups or {}).items():
        if number in by_field:
            by_field[number].add(sums)
        else:
            by_field[number] = _copied(sums)
    found = []
    for one in plan.fields:
        here = by_field.get(one.field) if one.decision != dd_gate.SKIP else None
        found.append(
            {
                "field": plan.rows.info.fields[one.field].name,
                "field_id": one.field,
                "direction": one.direction,
                "snr_per_solution": one.snr_per_solution,
                "snr_total": one.snr_total,
                "decision": one.decision,
                "reason": one.reason,
                "chi2_before": here.reduced(here.without[one.direction]) if here else None,
                "chi2_after": here.reduced(here.solved) if here else None,
                "left_fraction": here.left(one.direction) if here else None,
            }
        )
    return found


def _copied(sums: Sums) -> Sums:
    fresh = type(sums)()
    fresh.add(sums)
    return fresh
