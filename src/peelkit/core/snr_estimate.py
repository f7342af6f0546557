"""The work of ``peelkit snr-estimate``: figures of an MS and its first image into a plan."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import (
    averaging,
    datacolumn,
    imaged_ms,
    imagers,
    imaging,
    snr,
    snr_physics,
    weights,
)
from peelkit.core.first_image import first_image_by_weights, natural_text, nothing_text
from peelkit.core.measure import measure
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.image import Image, read_restored
from peelkit.io.survey import Survey, survey
from peelkit.io.usable import usable_weights
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection

log = logging.getLogger(__name__)

COMMAND = "snr-estimate"


@dataclass(frozen=True)
class SnrOptions:
    """What the user gave: an image, or peak and rms [Jy/beam], or neither (an image is made)."""

    image: Path | None = None
    peak: float | None = None
    rms: float | None = None
    phase_snr: float = 3.0
    amplitude_snr: float = 10.0
    model_column: str = "MODEL_DATA"
    choices: imaging.Choices = imaging.Choices()
    mask_threshold: float = 4.5
    datacolumn: str = "auto"


@dataclass(frozen=True)
class Plan:
    """What `make_plan` found: the table, the ladder and what they rest on (`measure.Figures.signal_jy`)."""

    rows: list[snr.Row]
    ladder: list[snr.Rung]
    n_ant: int
    on_source_s: float
    scan_s: float
    peak: float
    rms: float
    signal: float

    @property
    def image_snr(self) -> float:
        """Peak over rms of the image."""
        return self.peak / self.rms if self.rms > 0 else math.nan

    @property
    def detected(self) -> bool:
        """What the image shows is no noise."""
        return self.signal / self.rms >= snr.DETECTION_SNR if self.rms > 0 else False

    @property
    def feasible(self) -> bool:
        """Self-calibration is possible: something is there and some solution has the S/N."""
        return self.detected and bool(self.ladder)


def shares(info: ms.MsInfo, found: Survey, field: int) -> snr.Shares:
    """How the sensitivity towards ``field`` is split between spws and hands."""
    weights: dict[int, float] = {}
    executions: dict[int, float] = {}
    seen: dict[int, set[int]] = {}
    for visit in found.visits:
        if visit.field == field:
            weight = float(visit.weight_sum.sum())
            weights[visit.spw] = weights.get(visit.spw, 0.0) + weight
            executions[visit.observation] = executions.get(visit.observation, 0.0) + weight
            seen.setdefault(visit.spw, set()).add(visit.observation)
    part = [weights[spw] / sum(executions[o] for o in seen[spw]) for spw in sorted(weights)]
    return snr.Shares(spw=part, two_hands=info.n_hands(weights) > 1)


def scan_length_s(found: Survey, field: int) -> float:
    """Median time on source of one scan [s]."""
    lengths: dict[tuple[int, int], float] = {}
    for visit in found.visits:
        if visit.field == field:
            scan = (visit.observation, visit.scan)
            lengths[scan] = max(lengths.get(scan, 0.0), visit.on_source_s)
    return float(np.median(list(lengths.values())))


def make_plan(
    info: ms.MsInfo,
    found: Survey,
    *,
    field: int,
    peak: float,
    rms: float,
    phase_snr: float = 3.0,
    amplitude_snr: float = 10.0,
    n_field: float = 1.0,
    field_noise: float = 1.0,
    signal: float | None = None,
) -> Plan:
    """Rows and ladder for one field, from its image's peak and rms [Jy/beam].

    ``signal`` is what baselines see of it [Jy] (`measure.Figures.signal_jy`); the peak if not given.
    ``field_noise`` is the noise of the field's own data over that of the image, where this is a mosaic of
    several.
    """
    n_ant = len(found.antennas)
    on_source = found.on_source_s(field)
    scan = scan_length_s(found, field)
    share = shares(info, found, field)
    if n_field > 1:
        share = snr.Shares(share.spw, n_field, share.two_hands)
    signal = peak if signal is None else signal
    rows = snr.snr_rows(
        signal,
        rms * field_noise,
        n_ant=n_ant,
        on_source_s=on_source,
        intervals=snr.interval_ladder(scan, found.integration_s),
        shares=share,
        execution_s=found.execution_s(field),
        phase_snr=phase_snr,
        amplitude_snr=amplitude_snr,
    )
    ladder = snr.recommend_ladder(
        rows, n_ant=n_ant, phase_snr=phase_snr, amplitude_snr=amplitude_snr
    )
    plan = Plan(rows, ladder, n_ant, on_source, scan, peak, rms, signal)
    return plan if plan.detected else replace(plan, ladder=[])


def weight_warnings(info: ms.MsInfo, found: Survey) -> list[str]:
    """What is wrong with the weights: constant, or zero."""
    result = []
    if found.weight_max > 0 and found.weight_max <= found.weight_min * (1 + 1e-5):
        result.append(
            f"all weights are {found.weight_min:g}: antennas of different sensitivity count the same; "
            "CASA's statwt derives weights from the scatter"
        )
    if found.zero_weights > 0:
        result.append(
            f"{100 * found.zero_weights:.2g} % of the unflagged data have zero weight (or none that is a number) and do not count"
        )
    idle = len(info.antennas) - len(found.antennas)
    if idle:
        result.append(
            f"{idle} of {len(info.antennas)} antennas have no unflagged data and do not count"
        )
    return result


def model_signal(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    channels: dict[int, list[tuple[int, int]]],
) -> NDArray[np.float64] | None:
    """Signal that each antenna sees on its own baselines, from a model column.

    ``S_a = sqrt(sum_b w_ab |M_ab|^2 / sum_b w_ab)`` over the unflagged parallel hands: what enters the
    S/N of antenna a in place of the peak (seed 002, 2.3.1: antennas with short baselines see the
    integrated flux, those with long ones only the compact part).

    Returns
    -------
    ndarray, shape (antenna,), or None
        Signal [Jy], NaN for an antenna without data; None if the model is missing, zero or CASA's
        default of 1.
    """
    if column not in info.columns:
        return None
    power = np.zeros(len(info.antennas))
    weights = np.zeros(len(info.antennas))
    trivial = True
    with ms.opened(info.path) as main:
        for description, chunk in ms.chunks(main, info, rows):
            hands = ms.parallel_hands(description.correlations)
            if not ms.has_cells(main, column, int(chunk[0])):
                return None
            n_chan = len(info.spws[description.spw].freq_hz)
            inside = ms.channel_mask(channels[description.spw], n_chan)
            model = ms.get(main, column, chunk)[:, inside][:, :, hands]
            weight = usable_weights(main, chunk, hands, inside)
            weight = np.where(np.isfinite(model), weight, 0.0)
            one, two = ms.get(main, "ANTENNA1", chunk), ms.get(main, "ANTENNA2", chunk)
            squared = np.where(weight > 0, np.abs(model) ** 2, 0.0)
            trivial &= bool(np.all((squared[weight > 0] == 0) | (model[weight > 0] == 1)))
            for antenna in (one, two):
                power += np.bincount(antenna, (weight * squared).sum(axis=(1, 2)), len(power))
                weights += np.bincount(antenna, weight.sum(axis=(1, 2)), len(power))
    if trivial:
        return None
    return np.sqrt(np.divide(power, weights, out=np.full_like(power, np.nan), where=weights > 0))


def antenna_rows(
    info: ms.MsInfo, found: Survey, plan: Plan, signal: NDArray[np.float64] | None
) -> list[dict[str, Any]]:
    """S/N of each antenna for one solution per scan: its own signal and its own weights."""
    total = np.sum([visit.weight_sum for visit in found.visits], axis=0)
    used = found.antennas
    mean = float(total[used].mean())
    base = snr.antenna_snr(
        plan.signal, plan.rms, n_ant=plan.n_ant, on_source_s=plan.on_source_s, solint_s=plan.scan_s
    )
    result = []
    for antenna in used:
        own = float(signal[antenna]) if signal is not None else plan.signal
        result.append(
            {
                "antenna": info.antennas[antenna].name,
                "unflagged": float(found.antenna_unflagged[antenna]),
                "signal_jy": own,
                "snr_inf": base * own / plan.signal * math.sqrt(total[antenna] / mean),
            }
        )
    return result


def field_peaks(
    info: ms.MsInfo, image: Image, fields: Sequence[int], spws: Sequence[int]
) -> dict[int, float]:
    """Peak that each field of a mosaic sees: the image times its primary beam [Jy/beam].

    Primary beam: a Gaussian of half-power width `imaging.primary_beam_rad`.
    """
    from astropy.coordinates import SkyCoord

    frequency = float(np.mean([info.spws[spw].centre_hz for spw in spws]))
    diameter = min((a.diameter_m for a in info.antennas if a.diameter_m > 0), default=25.0)
    width = math.degrees(imaging.primary_beam_rad(frequency, diameter)) * 3600 / image.cell_arcsec
    ys, xs = np.ogrid[: image.data.shape[0], : image.data.shape[1]]
    peaks = {}
    for field in fields:
        centre = info.fields[field]
        frame = {"ICRS": "icrs", "B1950": "fk4", "B1950_VLA": "fk4"}.get(centre.frame, "fk5")
        x, y = image.pixel(SkyCoord(centre.ra_rad, centre.dec_rad, unit="rad", frame=frame))
        beam = np.exp(-4 * math.log(2) * image.apart(xs - x, ys - y) ** 2 / width**2)
        peaks[field] = float(np.nanmax(np.nan_to_num(image.data) * beam))
    return peaks


@dataclass(frozen=True)
class FirstLook:
    """What an image shows [Jy/beam], and whether nothing stands out; with the engine's record and warnings."""

    peak: float
    rms: float
    signal: float
    empty: bool = False
    engine: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def make_first_image(
    info: ms.MsInfo,
    found: Survey,
    *,
    field: int,
    selection: Selection,
    options: SnrOptions,
    log_path: Path,
    progress: Progress,
) -> FirstLook:
    """Make a first image for the purpose, as `selfcal` would, in a scratch folder."""
    settled, warnings = imaging.choose(info, found, options.choices, spws=found.spws(field))
    imagers.check(settled, info, [field], selection.spw)
    progress.stage("making a first image")
    ms.refuse_if_locked(info.path)
    with (
        tempfile.TemporaryDirectory(prefix="peelkit-") as scratch,
        imagers.opened(settled.imager, log_path) as imager,
    ):
        name, column = Path(scratch) / "first", info.data_column(options.datacolumn)
        rows = ms.select_rows(info, replace(selection, field=str(field), uvrange=""))
        settled = averaging.settled(info, rows, name.parent, settled)
        left = imaged_ms.audit(info, rows, column).warnings()
        for warning in left:
            log.info("%s", warning)
        with imaged_ms.opened(info, rows, column, name, settled, imager, copy=bool(left)) as view:
            cleaned, made = first_image_by_weights(
                imager,
                imaging.Target(view, str(field), selection.spw),
                name,
                settled,
                sigma=2 * options.mask_threshold,
                weights_given=options.choices.robust is not None,
            )
        if made.robust != settled.robust:
            warnings.append(natural_text(settled))
        figures = measure(cleaned.image, cleaned.mask)
        return FirstLook(
            figures.peak_jy_beam, figures.rms_jy_beam, figures.signal_jy, cleaned.empty,
            imager.engine(), tuple(warnings),
        )  # fmt: skip


def physics(
    info: ms.MsInfo, found: Survey, plan: Plan, here: snr_physics.Conditions
) -> dict[str, Any]:
    """What the lecture and the VLA guide would expect to limit these data."""
    phases = [rung for rung in plan.ladder if rung.calmode == "p"]
    shortest = phases[-1] if phases else None
    return {
        "frequency_hz": here.freq_hz,
        "atmosphere": here.dominant,
        "longest_baseline_m": found.max_uv_m,
        "effective_baseline_m": list(snr.effective_baseline_m(shortest.solint_s))
        if shortest
        else None,
        "gain_transfer_dynamic_range": snr.transfer_limit(info.telescope),
        "rule_of_thumb_image_snr": snr.rule_of_thumb(plan.n_ant),
        "worth_trying": plan.image_snr >= snr.rule_of_thumb(plan.n_ant),
    }


def estimate(
    path: Path, selection: Selection, options: SnrOptions, progress: Progress | None = None
) -> Outcome:
    """Estimate the S/N of gain solutions, and recommend a ladder.

    Parameters
    ----------
    path : Path
        The MS; nothing in it is changed.
    selection : Selection
        Field, spw and scan to use.
    options : SnrOptions
        Image or figures, and thresholds.

    Raises
    ------
    DataError, OptionError
        If the data will not do, or neither an image nor a field to image is settled.
    """
    progress = progress or Progress()
    if (options.peak is None) != (options.rms is None):
        raise OptionError("--peak and --rms go together; give both, or --image.")
    if options.rms is not None and not options.rms > 0:
        raise OptionError(f"--rms {options.rms:g}: the rms must be positive [Jy/beam].")
    if options.peak is not None and options.image is not None:
        raise OptionError("--image and --peak --rms exclude each other; give one.")
    info = ms.read_info(path)
    selection = info.by_id(selection)
    chosen = datacolumn.choose(info, ms.select_rows(info, selection), options.datacolumn)
    data_column = chosen.column
    options = replace(options, datacolumn=data_column)
    if chosen.why:
        log.info("%s: %s", path, chosen.why)
    found = survey(info, selection, progress)
    fields, spws = found.fields(), found.spws()
    peaks: dict[int, float] = {}
    if options.image is not None:
        image = read_restored(options.image)
        from peelkit.core.islands import threshold_mask

        figures = measure(image, threshold_mask(image, sigma=options.mask_threshold).mask)
        look = FirstLook(figures.peak_jy_beam, figures.rms_jy_beam, figures.signal_jy)
        peaks = field_peaks(info, image, fields, spws) if len(fields) > 1 else {}
    elif options.peak is not None and options.rms is not None:
        look = FirstLook(options.peak, options.rms, options.peak)
    elif len(fields) > 1:
        listing = ", ".join(f"{field}={info.fields[field].name}" for field in fields[:12])
        raise OptionError(
            f"{path}: several fields ({listing}{', ...' if len(fields) > 12 else ''}); choose one with "
            "--field, or give the --image of the mosaic."
        )
    else:
        look = make_first_image(
            info, found, field=fields[0], selection=selection, options=options,
            log_path=path.with_name(f"{path.name}.{COMMAND}.casa.log"), progress=progress,
        )  # fmt: skip
    plans = {
        field: make_plan(
            info, found, field=field, peak=peaks.get(field, look.peak), rms=look.rms,
            signal=peaks.get(field, look.signal),
            phase_snr=options.phase_snr, amplitude_snr=options.amplitude_snr,
            n_field=fields_per_scan(found),
        )
        for field in fields
    }  # fmt: skip
    best = max(plans, key=lambda field: plans[field].peak)
    plan = plans[best]
    signal = model_signal(
        info, ms.select_rows(info, selection), options.model_column, info.channels(selection)
    )
    checked = weights.check(
        info, ms.select_rows(info, selection), column=data_column, channels=info.channels(selection)
    )
    warnings = [*look.warnings, *weight_warnings(info, found), *weights.warnings(checked)]
    refusal = None
    if look.empty:
        refusal = (
            f"{nothing_text(path, 2 * options.mask_threshold)}; there is nothing to calibrate on."
        )
    elif not plan.feasible:
        refusal = refusal_text(info, plan, options.phase_snr)
    results = plan_results(
        info,
        found,
        plan,
        plans,
        spws,
        field=best,
        phase_snr=options.phase_snr,
        feasible=refusal is None,
    )
    results["antennas"] = antenna_rows(info, found, plan, signal)
    results["weights"] = [asdict(each) for each in checked]
    results["signal_from"] = options.model_column if signal is not None else "peak"
    return Outcome(
        results=results,
        inputs={"ms": str(path), **({"image": str(options.image)} if options.image else {})},
        parameters={**asdict(selection), "field": ",".join(map(str, fields))},
        reads=(
            data_column,
            "FLAG",
            "WEIGHT",
            *((options.model_column,) if signal is not None else ()),
        ),
        engine=look.engine,
        warnings=tuple(warnings),
        refusal=refusal,
    )


def refusal_text(info: ms.MsInfo, plan: Plan, needed: float) -> str:
    """Why self-calibration is not possible, in one line."""
    if not plan.detected:
        return (
            f"{info.path}: the image's peak is only {plan.image_snr:.1f} times its noise, which noise "
            f"alone can be (at least {snr.DETECTION_SNR:g} is needed); there is nothing to calibrate on."
        )
    top = max(row.snr for row in plan.rows)
    return (
        f"{info.path}: the best S/N per antenna and solution is {top:.1f}, below {needed:g}; "
        "self-calibration is not possible on this source."
    )


def fields_per_scan(found: Survey) -> float:
    """Median number of fields in a scan."""
    per_scan: dict[tuple[int, int], set[int]] = {}
    for visit in found.visits:
        per_scan.setdefault((visit.observation, visit.scan), set()).add(visit.field)
    return float(np.median([len(fields) for fields in per_scan.values()]))


def plan_results(
    info: ms.MsInfo,
    found: Survey,
    plan: Plan,
    plans: dict[int, Plan],
    spws: Sequence[int],
    *,
    field: int,
    phase_snr: float,
    feasible: bool,
) -> dict[str, Any]:
    """Results for the sidecar; ``plan`` is that of ``field``."""
    here = snr_physics.conditions(info, found, field=field, spws=spws)
    needed = snr_physics.needed_interval_s(
        plan.rows, phase_snr=phase_snr, integration_s=found.integration_s
    )
    angle = snr_physics.parallactic_angle_deg(info, found, field)
    feed = snr_physics.feeds(info, spws)
    weights = {
        spw: sum(float(v.weight_sum.sum()) for v in found.visits if v.spw == spw) for spw in spws
    }
    total = sum(weights.values())
    per_scan = snr.antenna_snr(
        plan.signal, plan.rms, n_ant=plan.n_ant, on_source_s=plan.on_source_s, solint_s=plan.scan_s
    )
    return {
        "n_antenna": plan.n_ant,
        "on_source_s": plan.on_source_s,
        "integration_s": found.integration_s,
        "n_scans": len({(visit.observation, visit.scan) for visit in found.visits}),
        "scan_s": plan.scan_s,
        "image_peak_jy_beam": plan.peak,
        "image_rms_jy_beam": plan.rms,
        "image_snr": plan.image_snr,
        "signal_jy": plan.signal,
        "feasible": feasible,
        "minblperant": snr.recommended_minblperant(plan.n_ant, calmode="p"),
        "minblperant_amplitude": snr.recommended_minblperant(plan.n_ant, calmode="ap"),
        "rows": [
            {
                **asdict(row),
                "phase_error_deg": row.phase_error_deg,
                "amplitude_error_percent": row.amplitude_error_percent,
                "decorrelation": here.decorrelation(row.solint_s),
            }
            for row in plan.rows
        ],
        "ladder": [
            {**asdict(rung), "decorrelation": here.decorrelation(rung.solint_s)}
            for rung in plan.ladder
        ],
        "limited_by_coherence": here.limited(needed) if needed is not None else None,
        "parallactic_angle_deg": list(angle) if angle else None,
        "feeds": feed,
        "fields": [
            {
                "field": field,
                "name": info.fields[field].name,
                "on_source_s": each.on_source_s,
                "peak_jy_beam": each.peak,
                "snr_inf": max(
                    (row.snr for row in each.rows if row.combine == ""), default=math.nan
                ),
                "feasible": each.feasible,
            }
            for field, each in plans.items()
        ],
        "spws": [
            {
                "spw": spw,
                "frequency_hz": info.spws[spw].centre_hz,
                "sensitivity_share": weights[spw] / total,
                "snr_inf": per_scan * math.sqrt(weights[spw] / total),
            }
            for spw in spws
        ],
        "physics": {
            **physics(info, found, plan, here),
            **snr_physics.planning(
                here, needed_s=needed, angle_deg=angle, feed=feed, ladder=plan.ladder
            ),
        },
    }


__all__ = ["COMMAND", "DataError", "Plan", "SnrOptions", "estimate", "make_plan", "weight_warnings"]
