"""The verdict on a direction-dependent solve, and its figures for the sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_fields, dd_own, dd_terms
from peelkit.core.dd_apply import Peeled, Sums
from peelkit.core.dd_data import Block
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_noise import Noise
from peelkit.io.gains import TermGains

if TYPE_CHECKING:
    from peelkit.core.dd_auto import Choice
    from peelkit.core.dd_balance import Balance
    from peelkit.core.dd_gate import Direction
    from peelkit.core.dd_plan import Plan
    from peelkit.core.dd_refine import Refinement
    from peelkit.engines.quartical import Solved

# Amplitudes of a dE outside these bounds are no beam and no atmosphere (CubiCal clips at 0.1 and 10).
CREDIBLE_AMPLITUDE = (0.1, 10.0)

# Phases of neighbouring intervals that differ by more than this are not one curve [deg].
PHASE_JUMP_DEG = 60.0

# Chi-squared above that of the noise by this factor is told.
WARN_LEFT = 1.5

# Below this share of solves that converged the user is told.
WARN_CONVERGED = 0.9

# Above these shares the user is told, and above the second the answer is no.
WARN_SHARE, REFUSE_SHARE = 0.05, 0.5


@dataclass
class Judgement:
    """What subtracting brought, gathered block by block."""

    total: Sums = field(default_factory=Sums)
    groups: dict[Key, Sums] = field(default_factory=dict)
    flagged_before: int = 0
    flagged_new: int = 0
    samples: int = 0
    rows_flagged: int = 0
    refinements: dict[str, Refinement] = field(default_factory=dict)
    noise: dict[int, Noise] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refusal: str | None = None

    def merge(self, other: Judgement) -> None:
        """Add what was gathered of other blocks."""
        self.total.add(other.total)
        for key, sums in other.groups.items():
            self.groups.setdefault(key, Sums()).add(sums)
        for name in ("flagged_before", "flagged_new", "samples", "rows_flagged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for label, refinement in other.refinements.items():
            self.refinements[label].merge(refinement)
        for ddid, noise in other.noise.items():
            self.noise.setdefault(ddid, Noise()).merge(noise)

    def add(self, block: Block, done: Peeled) -> None:
        """Count a block."""
        self.total.add(done.sums)
        self.groups.setdefault(block.key, Sums()).add(done.sums)
        self.samples += block.flag.size
        self.flagged_before += int(block.flag.sum())
        self.flagged_new += int(np.count_nonzero(done.failed[:, :, None] & ~block.flag))
        self.rows_flagged += int(block.flag.all(axis=(1, 2)).sum())
        self.noise.setdefault(block.description.id, Noise()).add(
            done.residual[..., block.hands], block.weight[..., block.hands],
            block.series, block.times_s, np.random.default_rng(int(block.rows[0])),
        )  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """Of the solutions of one term, in one direction.

    Parameters
    ----------
    solutions, failed : int
        Those of antennas that have any that did not fail; how many of them failed.
    converged : float
        Share that QuartiCal calls converged.
    amplitude_median, amplitude_scatter : float
        Median, and 1.4826 x median absolute deviation.
    phase_rms_deg : float
        Scatter of the phases, without each antenna's mean.
    incredible : float
        Share with an amplitude outside `CREDIBLE_AMPLITUDE`, or a jump of phase.
    """

    solutions: int
    failed: int
    converged: float
    amplitude_median: float
    amplitude_scatter: float
    phase_rms_deg: float
    incredible: float


def quality(terms: Sequence[TermGains], direction: int) -> Quality:
    """Look at the solutions of one term over all groups, in one direction."""
    solutions = failed = strange = 0
    amplitudes: list[NDArray[np.float64]] = []
    phases: list[NDArray[np.float64]] = []
    converged = []
    for term in terms:
        which = direction if term.flags.shape[3] > 1 else 0
        flags = term.flags[..., which]
        alive = ~flags.all(axis=(0, 1))
        hands = [0, -1] if term.gains.shape[-1] > 1 else [0]
        gains = term.gains[:, :, alive, which][..., hands]
        bad = flags[:, :, alive]
        solutions += bad.size
        failed += int(bad.sum())
        converged.append(float(np.mean(term.converged)))
        if not gains.size or bad.all():
            continue
        good = ~bad[..., None] & np.ones(gains.shape, dtype=bool)
        size = np.abs(gains)
        amplitudes.append(size[good])
        mean = np.where(good, gains, 0).sum(axis=(0, 1), keepdims=True)
        turned = np.angle(gains * np.exp(-1j * np.angle(mean)), deg=True)
        phases.append(turned[good])
        low, high = CREDIBLE_AMPLITUDE
        odd = (size < low) | (size > high)
        if gains.shape[0] > 1:
            step = np.abs(np.angle(gains[1:] * np.conj(gains[:-1]), deg=True))
            # Over a gap between scans anything may happen.
            apart = np.diff(term.time_s)
            near = apart <= 2 * apart.min()
            odd[1:] |= (step > PHASE_JUMP_DEG) & near[:, None, None, None]
        strange += int((odd & good).any(axis=-1).sum())
    every = np.concatenate(amplitudes) if amplitudes else np.array([math.nan])
    median = float(np.median(every))
    turned_all = np.concatenate(phases) if phases else np.array([math.nan])
    return Quality(
        solutions,
        failed,
        float(np.mean(converged)) if converged else math.nan,
        median,
        float(1.4826 * np.median(np.abs(every - median))),
        float(np.sqrt(np.mean(turned_all**2))),
        strange / max(1, solutions - failed),
    )


def judge(plan: Plan, groups: Mapping[Key, Solutions], judged: Judgement) -> None:
    """Set the verdict: refuse what left the residual worse than before."""
    total = judged.total
    path = plan.rows.info.path
    if not math.isfinite(total.solved):
        judged.refusal = f"{path}: the residual is no number; see the log; the MS is as it was."
        return
    raw, solved = total.reduced(total.raw), total.reduced(total.solved)
    if solved >= raw:
        judged.refusal = (
            f"{path}: the residual is worse than before (chi-squared {solved:.4g} after, {raw:.4g} with the "
            "models as they are); the MS is as it was."
        )
        return
    # G alone may mend chi-squared while a wrong model puts in what it should take out.
    before, after = total.reduced(total.data), total.reduced(total.subtracted)
    if plan.subtracted and after >= before:
        judged.refusal = (
            f"{path}: the residual is worse than before (chi-squared {before:.4g} of the data, {after:.4g} "
            f"without {', '.join(plan.subtracted)}); the MS is as it was."
        )
        return
    for label in plan.peeled:
        if total.without[label] <= total.solved:
            judged.refusal = (
                f"{path}: {label}: its gains leave more than none do (chi-squared "
                f"{solved:.4g} and {total.reduced(total.without[label]):.4g}); the MS is as it was."
            )
            return
        found = quality(dd_fields.towards(plan, groups, label), 0)
        share = found.failed / max(1, found.solutions)
        for what, value in (("failed", share), ("are not credible", found.incredible)):
            words = f"{label}: {100 * value:.0f} % of the dE solutions {what}"
            if value > REFUSE_SHARE:
                judged.refusal = (
                    f"{path}: {words}; the MS is as it was. Use longer --de-time or --de-freq."
                )
                return
            if value > WARN_SHARE:
                judged.warnings.append(
                    f"{words}; look at the plots, and use longer --de-time or --de-freq"
                )
    judged.warnings += convergence_words(_by_term(groups))
    if solved < 0.7:
        judged.warnings.append(
            f"chi-squared {solved:.2g} after the solve is below the noise that the weights promise: the "
            "solutions take up noise, or the weights are too small"
        )
    left = solved / _expected(judged)
    if left > WARN_LEFT:
        judged.warnings.append(
            f"chi-squared {solved:.3g} after the solve is {left:.3g} times that of the noise in it: the models do not "
            "describe the data yet; another round with models of the peeled image may, or self-calibration before"
        )


def convergence_words(terms: Mapping[str, Sequence[TermGains]]) -> list[str]:
    """What to tell of terms whose solves did not converge."""
    shares = {
        name: float(np.mean([np.mean(one.converged) for one in found]))
        for name, found in terms.items()
    }
    return [
        f"{name}: {100 * share:.0f} % of the solves converged; more --iterations or longer intervals may help"
        for name, share in shares.items()
        if share < WARN_CONVERGED
    ]


def results(
    plan: Plan,
    groups: Mapping[Key, Solutions],
    judged: Judgement | None,
    noise: Mapping[int, Noise],
    scale: Mapping[int, float],
    runs: Sequence[Solved],
    balanced: Balance | None = None,
    chosen: Choice | None = None,
) -> dict[str, Any]:
    """Figures for the sidecar."""
    total = judged.total if judged else Sums()
    by_term = _by_term(groups)
    directions = []
    for d in plan.directions:
        own = dd_fields.towards(plan, groups, d.label)
        found = quality(own, 0) if own else None
        scored = judged is not None and d.label in plan.used
        directions.append(
            {
                "label": d.label,
                "column": d.column,
                "ra_deg": d.ra_deg,
                "dec_deg": d.dec_deg,
                "flux_jy": d.flux_jy,
                "snr_per_solution": d.snr_per_solution,
                "snr_total": d.snr_total,
                "decision": d.decision,
                "reason": d.reason,
                "subtracted": d.label in plan.subtracted,
                "refined": _refined(judged, d),
                "chi2_before": total.reduced(total.without[d.label])
                if d.label in total.without
                else None,
                "chi2_after": total.reduced(total.solved) if scored else None,
                "left_fraction": total.left(d.label) if scored else None,
                "flagged_fraction": found.failed / max(1, found.solutions) if found else None,
                **_quality_record(found),
            }
        )
    return {
        "directions": directions,
        "fields": dd_fields.records(plan, judged.groups if judged else None),
        "terms": _terms(plan, by_term),
        "intervals": None if chosen is None else _intervals(plan, chosen),
        "balance": None if balanced is None else asdict(balanced),
        "output_column": None if plan.options.keep else plan.options.column,
        "corrected_column": "CORRECTED_DATA" if plan.options.corrected else None,
        "own_data": dd_own.columns(plan),
        "datacolumn": plan.data_column,
        "all_column": plan.all_column,
        "refant": plan.rows.info.antennas[plan.refant].name,
        "combine": sorted(plan.options.combine),
        "chi2": {
            "data": total.reduced(total.data),
            "subtracted": total.reduced(total.subtracted),
            "model_only": total.reduced(total.raw),
            "direction_independent": total.reduced(total.independent),
            "solved": total.reduced(total.solved),
            "noise": _expected(judged),
            "samples": int(total.samples),
        },
        "groups": _groups(plan, judged),
        "chunks": [
            {
                "run": number,
                # A chunk may be of several fields.
                "field": one.field if one.field >= 0 else None,
                "ddid": one.ddid,
                "time_chunk": one.time_chunk,
                # QuartiCal's is the mean of w |r|^2, which is 2 for noise.
                "chi2_before": one.before / 2,
                "chi2_after": one.after / 2,
            }
            for number, run in enumerate(runs)
            for one in run.chi2
        ],
        "weights": [
            {
                "ddid": ddid,
                "scatter_over_promise": one.ratio,
                "scale": scale[ddid],
                **_noise(judged, ddid, scale[ddid]),
            }
            for ddid, one in noise.items()
        ],
        "flags": None
        if judged is None
        else {
            "samples": judged.samples,
            "flagged_before": judged.flagged_before,
            "flagged_by_failed_solutions": judged.flagged_new if plan.options.flag else 0,
            "served_by_failed_solutions": judged.flagged_new,
            "rows_flagged": judged.rows_flagged,
        },
        "solutions": [str(run.gains) for run in runs],
        "plots": [],
    }


def _noise(judged: Judgement | None, ddid: int, scale: float) -> dict[str, Any]:
    """Noise of what is left, over what the weights of the MS promise, and by which difference."""
    found = judged.noise.get(ddid, Noise()) if judged else Noise()
    return {
        "noise_over_promise": found.ratio / math.sqrt(scale),
        "noise_from": found.kind,
        "white": found.is_white if found.kind else None,
    }


def _expected(judged: Judgement | None) -> float:
    """Chi-squared of the noise alone that is in the residual, by the differences in which errors cancel."""
    found = [one.ratio**2 for one in judged.noise.values() if one.ratio > 0] if judged else []
    return float(np.mean(found)) if found else 1.0


def _refined(judged: Judgement | None, direction: Direction) -> dict[str, Any] | None:
    """The model of a compact direction for the next round: as it was, where no gains could mend it."""
    if judged is None or judged.refusal or direction.model is None:
        return None
    if direction.label not in judged.refinements:
        return direction.model.record()
    return judged.refinements[direction.label].refined().record()


def _intervals(plan: Plan, chosen: Choice) -> dict[str, Any]:
    """What was tried, and what was chosen."""
    integration = plan.rows.integration_s[plan.rows.ddids[0]]
    return {
        "base": {"integrations": chosen.base[0], "channels": chosen.base[1]},
        "samples_held_out": chosen.samples,
        "chosen": [
            {"direction": label, "integrations": time, "channels": freq}
            for label, (time, freq) in chosen.by_direction.items()
        ],
        "candidates": [
            {
                "term": one.term,
                "direction": one.direction or None,
                "integrations": one.time,
                "channels": one.freq,
                "time_interval_s": one.time * integration if one.time else None,
                "chi2_held_out": one.score,
                "excess": one.excess,
                "sigma": one.sigma,
                "parameters": one.parameters,
            }
            for one in chosen.candidates
        ],
    }


def _by_term(groups: Mapping[Key, Solutions]) -> dict[str, list[TermGains]]:
    """Terms of all groups; fields that were solved together have the same ones, with one time axis."""
    found: dict[str, list[TermGains]] = {}
    for solutions in {(id(one.axis), key[1]): one for key, one in groups.items()}.values():
        for term in solutions.terms:
            found.setdefault(term.term, []).append(term)
    return found


def _terms(plan: Plan, by_term: Mapping[str, Sequence[TermGains]]) -> list[dict[str, Any]]:
    info = plan.rows.info
    # Of the first data description; others may differ where spws do.
    ddid = plan.rows.ddids[0]
    integration = plan.rows.integration_s[ddid]
    spw = info.spws[info.data_descriptions[ddid].spw]
    channel = float(np.median(np.abs(spw.width_hz)))
    records = []
    for choice in plan.options.terms:
        if choice.name not in by_term:
            continue
        terms = by_term[choice.name]
        count = dd_terms.time_integrations(choice.time, integration)
        channels = dd_terms.freq_channels(choice.freq, channel, spw.freq_hz.size)
        found = quality(terms, 1 if choice.direction_dependent else 0)
        records.append(
            {
                "name": choice.name,
                "type": choice.type,
                "time": choice.time,
                "freq": choice.freq,
                # Unknown where it is the whole scan: scans differ.
                "time_interval_s": count * integration if count else None,
                "freq_interval_hz": channels * channel if channels else spw.bandwidth_hz,
                "direction_dependent": choice.direction_dependent,
                "solutions": sum(int(term.flags[..., -1].size) for term in terms),
                "flagged_fraction": found.failed / max(1, found.solutions),
                **_quality_record(found),
            }
        )
    return records


def _quality_record(found: Quality | None) -> dict[str, Any]:
    names = {
        "converged_fraction": "converged",
        "amplitude_median": "amplitude_median",
        "amplitude_scatter": "amplitude_scatter",
        "phase_rms_deg": "phase_rms_deg",
        "incredible_fraction": "incredible",
    }
    return {key: getattr(found, name) if found else None for key, name in names.items()}


def _groups(plan: Plan, judged: Judgement | None) -> list[dict[str, Any]]:
    if judged is None:
        return []
    info = plan.rows.info
    return [
        {
            "field": None if key[0] < 0 else info.fields[key[0]].name,
            "spw": info.data_descriptions[key[1]].spw,
            "chi2_model_only": sums.reduced(sums.raw),
            "chi2_direction_independent": sums.reduced(sums.independent),
            "chi2_solved": sums.reduced(sums.solved),
        }
        for key, sums in judged.groups.items()
    ]
