"""Whether peeling did good: what two images and the solve between them say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The global rms may rise by this share without the answer being no: it is known no better.
GLOBAL_RISE = 0.05
# What is left counts from so many times the noise.
LEFT_SIGMA = 5.0
# Fluxes of the other sources have changed if their median is off by this share, and by so many times its error.
FLUX_SHARE, FLUX_SIGMA = 0.02, 3.0
# The error of a median of n values is this many times their scatter / sqrt(n).
MEDIAN_ERROR = 1.2533
# Data that were held out of the solve are described worse than those in it by more than this share.
HELD_OUT_SHARE = 0.2
# Fluxes that change by more than this share from one round to the next are not settled.
SETTLED_SHARE = 0.03
# Chi-squared above that of the noise by this factor leaves artefacts above it in the image.
NOISE_FACTOR = 1.5
# An injected source loses more than this share.
SUPPRESSED_SHARE = 0.05

CLEAN, BETTER, WORSE = "clean", "better", "worse"


@dataclass(frozen=True)
class PeelVerdict:
    """The verdict.

    Parameters
    ----------
    verdict : str
        ``worse``; ``better``, where something is left to be said against it; ``clean``.
    reasons : tuple of str
        What is said against it.
    record : dict
        All for the sidecar.
    """

    verdict: str
    reasons: tuple[str, ...]
    record: dict[str, Any]


def judge(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    pair: Mapping[str, Any],
    solve: Mapping[str, Any],
    *,
    fell: float | None,
) -> PeelVerdict:
    """Judge a peeling.

    Parameters
    ----------
    before, after : dict
        Records of the images in the results of ``peelkit stats``.
    pair : dict
        Record of their fluxes against each other.
    solve : dict
        Results of the ``peelkit ddsolve`` in between.
    fell : float or None
        Share by which the local rms fell.
    """
    worse = []
    if fell is not None and fell <= 0:
        worse.append(f"the local rms rose by {-100 * fell:.3g} %")
    rise = after["rms_global_jy_beam"] / before["rms_global_jy_beam"] - 1
    if rise > GLOBAL_RISE:
        worse.append(f"the global rms rose by {100 * rise:.3g} %")
    held_out = _held_out(solve)
    over_noise = solve["chi2"]["solved"] / solve["chi2"].get("noise", 1.0)
    settled = _settled(pair)
    unfinished = (
        [
            f"the solve leaves {over_noise:.3g} times the chi-squared of the noise: models and gains do not describe the "
            "data yet"
        ]
        if over_noise > NOISE_FACTOR
        else []
    )
    injected = [
        {"flux_jy": one["flux_jy"], "suppression": one["suppression"], "sigma": one["sigma"]}
        for one in solve.get("injected") or ()
    ]
    reasons = [
        *worse,
        *_left(after["regions"]),
        *_fluxes(pair),
        *unfinished,
        *(
            f"{one['direction']}: data held out of the solve have chi-squared {one['chi2_held_out']:.3g}, those in it "
            f"{one['chi2_fitted']:.3g}"
            for one in held_out
            if one["chi2_held_out"] > (1 + HELD_OUT_SHARE) * max(1.0, one["chi2_fitted"])
        ),
        *(
            f"an injected source of {1e3 * one['flux_jy']:.3g} mJy lost {100 * one['suppression']:.3g} %"
            for one in injected
            if one["suppression"] - 2 * one["sigma"] > SUPPRESSED_SHARE
        ),
    ]
    thermal = after["rms_thermal_jy_beam"]
    local = [region["rms_local_jy_beam"] for region in after["regions"]]
    over = max(local) / thermal if thermal and local else None
    verdict = WORSE if worse else BETTER if reasons else CLEAN
    record = {
        "before": before["path"],
        "after": after["path"],
        "rms_global_rose_by": rise,
        "local_rms_fell_by": fell,
        "local_rms_over_thermal": over,
        "chi2_before": solve["chi2"]["direction_independent"],
        "chi2_after": solve["chi2"]["solved"],
        "chi2_over_noise": over_noise,
        "fluxes_settled": settled,
        "finished": not worse and not unfinished and settled is not False,
        "held_out": held_out,
        "injected": injected,
        "verdict": verdict,
        "reasons": reasons,
    }
    return PeelVerdict(verdict, tuple(reasons), record)


def _left(regions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is left at the peeled places."""
    found = []
    for region in regions:
        left, rms = region["ghost_left_jy_beam"], region["rms_local_jy_beam"]
        if left is None or not rms:
            continue
        times = left / rms
        if abs(times) > LEFT_SIGMA:
            found.append(
                f"{region['label']}: {1e3 * left:.3g} mJy/beam are left at its place, "
                f"{times:.2g} times the local rms"
            )
        snr = region["ghost_sidelobes_snr"]
        if snr is not None and abs(snr) > LEFT_SIGMA:
            found.append(
                f"{region['label']}: sidelobes of the synthesised beam are left, of a point of "
                f"{1e3 * region['ghost_sidelobes_jy']:.3g} mJy, {snr:.2g} sigma"
            )
    return found


def _change(pair: Mapping[str, Any]) -> tuple[float, float] | None:
    """Share by which the fluxes of the other sources changed, and its error; None where too few are compared."""
    count, median = pair["sources_compared"], pair["flux_ratio_median"]
    if count < 3 or median is None:
        return None
    return median - 1, MEDIAN_ERROR * (pair["flux_ratio_scatter"] or 0.0) / math.sqrt(count)


def _fluxes(pair: Mapping[str, Any]) -> list[str]:
    """Whether the other sources lost or won flux."""
    change = _change(pair)
    if change is None or abs(change[0]) <= max(FLUX_SHARE, FLUX_SIGMA * change[1]):
        return []
    return [
        f"the other sources have {pair['flux_ratio_median']:.3g} times the flux they had before "
        f"({pair['sources_compared']} compared): one of the two images has them wrong"
    ]


def _settled(pair: Mapping[str, Any]) -> bool | None:
    """Whether the other sources have the flux they had before; None where too few are compared."""
    change = _change(pair)
    return None if change is None else bool(abs(change[0]) - change[1] <= SETTLED_SHARE)


def _held_out(solve: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores, of the chosen intervals, on the data held out; empty if they were given."""
    intervals = solve.get("intervals")
    if not intervals:
        return []
    return [
        {
            "direction": chosen["direction"],
            "chi2_held_out": one["chi2_held_out"],
            "chi2_fitted": solve["chi2"]["solved"],
        }
        for chosen in intervals["chosen"]
        for one in intervals["candidates"]
        if (one["term"], one["direction"], one["integrations"], one["channels"])
        == ("dE", chosen["direction"], chosen["integrations"], chosen["channels"])
    ]
