"""The work of ``peelkit add-model-col``."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import columns, commit
from peelkit.core import dry_run as rehearsal
from peelkit.core.columns import Audit, Groups, Term
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import ms, rownumbers, virtual
from peelkit.io.virtual import RealModel
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection
from peelkit.spread import HERE, Machines, opened

# What only a comparison with images needs is imported there: astropy takes longer than copying a small column.
if TYPE_CHECKING:
    from peelkit.core.skymodel import SkyModel

COMMAND = "add-model-col"

FINDINGS = ("zero", "nan", "one", "unpredicted", "flux")

# No visibility can be larger than the sum of all components; this much for gridding.
MOST_AMPLITUDE = 1.05
# Where the image is centred on the field, amplitudes on the shortest baselines are within this
# factor of those that the image gives there. Elsewhere the primary beam may take most away.
AMPLITUDE_FACTOR = 2.0
LEAST_AMPLITUDE = 1e-3

# The share of baselines that counts as short, and how much of them is looked at.
SHORT_SHARE = 0.1
MOST_ROWS = 64
# Rows of a group that tell which baselines are short.
MOST_LENGTHS = 10**6
MOST_GROUPS = 200


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Parameters
    ----------
    expression : str
        Column, or sum and difference of columns.
    selection : Selection
        Fields, spws and scans.
    model_image : tuple of Path
        Model images that the column is of (Taylor terms), to compare amplitudes with.
    flux_jy : float or None
        Total flux of the model [Jy], in place of images.
    allow : tuple of str
        Findings that are no error.
    overwrite : bool
        Replace the column if it exists.
    """

    expression: str = "MODEL_DATA"
    selection: Selection = field(default_factory=Selection)
    model_image: tuple[Path, ...] = ()
    flux_jy: float | None = None
    allow: tuple[str, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Short:
    """Amplitudes of one group on its shortest baselines [Jy]; None where there are none."""

    median_jy: float | None
    rms_jy: float | None
    expected_jy: float | None
    centred: bool
    equals_data: bool


@dataclass(frozen=True)
class Finding:
    """What the audit found: its name among `FINDINGS`, the groups that have it, and the words for it."""

    name: str
    groups: tuple[int, ...]
    text: str


def add_model_col(
    path: Path,
    column: str,
    options: Options,
    progress: Progress,
    *,
    machines: Machines = HERE,
    dry_run: bool = False,
) -> Outcome:
    """Write a column of model visibilities into the MS, after a look at what they are.

    ``machines`` read, sum and audit; this process writes. With ``dry_run`` only check, and tell what it
    would cost.

    Raises
    ------
    OptionError
        If the expression or the name of the column makes no sense.
    DataError
        If columns are missing or unalike, the column exists, or the audit finds something that is
        not allowed; the MS is then as it was.
    """
    terms = columns.parse_expression(options.expression)
    columns.check_target(column)
    if options.model_image and options.flux_jy is not None:
        raise OptionError("--model-image and --flux: give one of them.")
    info = ms.read_info(path)
    if dry_run:
        rehearsal.refuse_unfinished(path)
    elif commit.recover(path):
        info = ms.read_info(path)
    if column in info.columns and not options.overwrite:
        raise DataError(f"{path}: column {column} exists; give another name, or --overwrite.")
    rows = _rows(info, options.selection)
    sky = _sky(options.model_image, info) if options.model_image else None
    groups = Groups.of(info, rows)
    fields = virtual.virtual_model_fields(path)
    warnings: list[str] = []
    if column == "MODEL_DATA" and fields:
        warnings.append(
            f"{path}: {_fields(info, fields)} have a virtual model, which CASA uses in place of "
            "MODEL_DATA; delete it with CASA's delmod(otf=True, scr=False)."
        )
    if dry_run:
        # What CASA would make real needs no check.
        ours = sorted(set(fields) & set(groups.fields.tolist()))
        known = [term for term in terms if not (ours and term.column == "MODEL_DATA")]
        columns.check_operands(info, known, rows, {})
        _check_target_fits(info, column, rows)
        return rehearsal.add_model_col(info, rows, terms=len(terms))
    with ExitStack() as stack:
        made: dict[str, RealModel] = {}
        casa = None
        ours = sorted(set(fields) & set(groups.fields.tolist()))
        if ours and any(term.column == "MODEL_DATA" for term in terms):
            progress.stage("making the virtual model real")
            model, casa = stack.enter_context(_real_model(info, rows))
            made["MODEL_DATA"] = model
            if "MODEL_DATA" in info.columns:
                warnings.append(
                    f"{path}: {_fields(info, ours)} have a virtual model as well as MODEL_DATA; "
                    "copied is the virtual one, which CASA uses."
                )
        columns.check_operands(info, terms, rows, made)
        _check_target_fits(info, column, rows)
        _check_space(info)
        short = _short_baselines(info, terms, rows, groups, made, sky, options.flux_jy)
        limits = _limits(info, groups, sky, options.flux_jy)
        # Machines first: if there are none, the MS is not touched.
        spread = stack.enter_context(opened(machines))
        spread.see([path, *(model.path for model in made.values())])
        with commit.recorded_step(path, COMMAND) as step:
            audit = columns.copy_column(
                info, step, column, terms, rows, groups=groups, made=made, progress=progress,
                spread=spread,
            )  # fmt: skip
            findings = judge(info, audit, short, limits)
            _refuse(path, options.expression, findings, options.allow)
            ms.add_history(
                path,
                command=COMMAND,
                message=f"peelkit add-model-col: {column} = {options.expression}",
                parameters={
                    "column": column,
                    "expression": options.expression,
                    "field": options.selection.field,
                    "spw": options.selection.spw,
                    "scan": options.selection.scan,
                },
            )
    warnings += [f"accepted: {item.text}" for item in findings]
    equal = bool(short) and all(item.equals_data for item in short.values())
    if equal and all(term.column != "DATA" for term in terms):
        warnings.append(
            f"{column} is the same as DATA: a model that is the data calibrates nothing."
        )
    read = dict.fromkeys(term.column for term in terms)
    return Outcome(
        results={
            "column": column,
            "expression": options.expression,
            "replaced": column in info.columns,
            "virtual_fields": ours if made else [],
            "rows": int(rows.size),
            "rows_outside": int(info.n_rows - rows.size),
            "zero_fraction": _share(audit.zeros.sum(), audit.samples.sum()),
            "nan_count": int(audit.nans.sum()),
            "one_rows": int(audit.default_rows.sum()),
            "equal_to_data": equal,
            "max_amplitude_jy": float(audit.max_jy.max()),
            "model_flux_jy": sky.flux_jy if sky else options.flux_jy,
            "groups": _group_entries(info, audit, short, limits),
            "findings": [
                {"name": item.name, "text": item.text, "groups": list(item.groups)}
                for item in findings
            ],
        },
        inputs={
            "ms": str(path),
            **{f"model_image_{n}": str(one) for n, one in enumerate(options.model_image)},
        },
        reads=(*read, *(str(one) for one in options.model_image)),
        writes=(column,),
        engine=casa.engine() if casa else None,
        warnings=tuple(warnings),
    )


def default_sidecar(path: Path, column: str) -> Path:
    """Where the sidecar goes: one for each column, ``<ms>.add-model-col.<column>.peelkit.json``."""
    return sidecar.ms_sidecar(path, f"{COMMAND}.{column}")


# ---------------------------------------------------------------- before


def _rows(info: ms.MsInfo, selection: Selection) -> NDArray[np.int64]:
    if info.parts_of_spws(selection):
        raise OptionError(
            f"--spw {selection.spw!r}: a column has all channels of a row; select whole spws."
        )
    return ms.select_rows(info, selection)


def _sky(paths: Sequence[Path], info: ms.MsInfo) -> SkyModel:
    from peelkit.core.modelcol import read_models
    from peelkit.core.skymodel import sky_model

    sky = sky_model(read_models(paths))
    if len(sky.freq_hz) == 1 and not sky.freq_hz[0]:
        # One image without a frequency: that of the data.
        middle = np.mean([spw.centre_hz for spw in info.spws])
        return replace(sky, freq_hz=np.array([middle]))
    return sky


def _fields(info: ms.MsInfo, ids: Sequence[int]) -> str:
    names = ", ".join(f"{number} ({info.fields[number].name})" for number in ids[:5])
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return f"field{'s' if len(ids) > 1 else ''} {names}{more}"


@contextlib.contextmanager
def _real_model(
    info: ms.MsInfo, rows: NDArray[np.int64]
) -> Iterator[tuple[RealModel, engine.Casa]]:
    """Let CASA make the virtual model real, in a folder beside the MS that is deleted again."""
    path = info.path
    ms.refuse_if_locked(path)
    _check_space(info, columns_needed=3)
    try:
        folder = tempfile.TemporaryDirectory(
            dir=path.absolute().parent, prefix=f".{path.name}.virtual-"
        )
    except OSError as error:
        raise DataError(
            f"{path.absolute().parent}: not writable ({error.strerror}); the virtual model is made "
            "real there first."
        ) from error
    with folder as name:
        copy, real = Path(name) / "copy.ms", Path(name) / "real.ms"
        virtual.copy_for_casa(info, rows, copy)
        with engine.Casa(path.with_name(f"{path.name}.{COMMAND}.casa.log")) as casa:
            engine.make_model_real(casa, copy, real)
        shutil.rmtree(copy)
        yield RealModel.of(real, info.n_rows), casa


def _check_target_fits(info: ms.MsInfo, column: str, rows: NDArray[np.int64]) -> None:
    """Rows that are not selected keep what a replaced column has there: it has to fit."""
    if column in info.columns and rows.size < info.n_rows:
        columns.check_operands(info, [Term(1, column)], ms.other_rows(info, rows), {})


def _check_space(info: ms.MsInfo, columns_needed: int = 1) -> None:
    with ms.opened(info.path) as main:
        ddids = rownumbers.counts(main, ms.every_row(info), len(info.data_descriptions))
    cells = [
        info.spws[item.spw].freq_hz.size * len(item.correlations) for item in info.data_descriptions
    ]
    needed = int(np.dot(ddids, cells)) * 8 * columns_needed
    free = shutil.disk_usage(info.path).free
    if needed > free:
        raise DataError(
            f"{info.path}: {needed / 1e9:.1f} GB of disk are needed and {free / 1e9:.1f} GB free; "
            "make room, or drop replaced columns with peelkit undo --forget."
        )


# ---------------------------------------------------------------- amplitudes


def _short_baselines(
    info: ms.MsInfo,
    terms: Sequence[Term],
    rows: NDArray[np.int64],
    groups: Groups,
    made: Mapping[str, RealModel],
    sky: SkyModel | None,
    flux_jy: float | None,
) -> dict[int, Short]:
    """Amplitudes on the shortest baselines of each group, and what the model image gives there."""
    chosen = _short_rows(info, rows, groups)
    modelled = _modelled(info) if sky is not None else None
    result = {}
    with ExitStack() as stack:
        main = stack.enter_context(ms.opened(info.path))
        reader = columns.Reader(main, stack, made)
        for number, mine in chosen.items():
            ddid = int(main.getcell("DATA_DESC_ID", int(mine[0])))
            description = info.data_descriptions[ddid]
            operands = [reader.get(term.column, mine) for term in terms]
            values = columns.evaluate(terms, operands)
            hands = ms.parallel_hands(description.correlations)
            used = ~columns.read_flags(main, mine)[:, :, hands] & np.isfinite(values[:, :, hands])
            amplitude = np.abs(values[:, :, hands][used]).astype(np.float64)
            expected: float | None = flux_jy
            centred = False
            if sky is not None and modelled is not None:
                model = np.abs(modelled(sky, main, mine, description.spw))[:, :, None]
                expected = _rms(np.broadcast_to(model, used.shape)[used])
                centred = _centred(info, sky, int(groups.fields[number]))
            result[number] = Short(
                median_jy=float(np.median(amplitude)) if amplitude.size else None,
                rms_jy=_rms(amplitude),
                expected_jy=expected,
                centred=centred,
                equals_data=bool(np.array_equal(values, ms.get(main, "DATA", mine))),
            )
    return result


def _modelled(
    info: ms.MsInfo,
) -> Callable[[SkyModel, Any, NDArray[np.int64], int], NDArray[np.complex128]]:
    """Visibilities of a sky at rows of a spw, of one predictor."""
    from peelkit.core.predictor import Predictor, Samples

    predictor = Predictor(info)
    return lambda sky, main, rows, spw: predictor.visibilities(sky, Samples.read(main, rows, spw))


def _short_rows(
    info: ms.MsInfo, rows: NDArray[np.int64], groups: Groups
) -> dict[int, NDArray[np.int64]]:
    """Some rows of the shortest baselines of each group, or of some groups if there are many."""
    wanted = np.unique(np.linspace(0, groups.fields.size - 1, MOST_GROUPS).astype(np.int64))
    length = np.empty(rows.size, dtype=np.float32)
    with ms.opened(info.path) as main:
        for start, count in ms.row_ranges(rows.size, 96):
            part = slice(start, start + count)
            length[part] = np.linalg.norm(ms.get(main, "UVW", rows[part])[:, :2], axis=1)
            single = ms.get(main, "ANTENNA1", rows[part]) == ms.get(main, "ANTENNA2", rows[part])
            length[part][single] = np.inf
    chosen = {}
    for number in wanted.tolist():
        limit = _short_limit(length, groups, number)
        if limit is None:
            continue
        mine = np.zeros(rows.size, dtype=bool)
        for start, count in ms.row_ranges(rows.size, 16):
            part = slice(start, start + count)
            mine[part] = (groups.of_row[part] == number) & (length[part] <= limit)
        short = rownumbers.where(mine)
        chosen[number] = rows[
            short[np.unique(np.linspace(0, short.size - 1, MOST_ROWS).astype(int))]
        ]
    return chosen


def _short_limit(length: NDArray[np.float32], groups: Groups, number: int) -> float | None:
    """Length below which the shortest baselines of a group are; of `MOST_LENGTHS` of its rows, by chance."""
    share = min(1.0, MOST_LENGTHS / max(1, int(groups.rows[number])))
    dice = np.random.default_rng(number)
    pieces = []
    for start, count in ms.row_ranges(length.size, 16):
        part = slice(start, start + count)
        inside = (groups.of_row[part] == number) & np.isfinite(length[part])
        if share < 1:
            inside &= dice.random(count) < share
        pieces.append(length[part][inside])
    lengths = np.concatenate(pieces)
    return float(np.quantile(lengths, SHORT_SHARE)) if lengths.size else None


def _rms(amplitude: NDArray[np.float64]) -> float | None:
    return float(np.sqrt(np.mean(np.square(amplitude)))) if amplitude.size else None


def _centred(info: ms.MsInfo, sky: SkyModel, number: int) -> bool:
    """Whether the image is centred on the field: the primary beam is then not in its model."""
    apart = sky.grid.field_basis(info.fields[number])[2] - sky.grid.basis[2]
    return bool(np.linalg.norm(apart) < max(sky.grid.cell_rad))


def _limits(
    info: ms.MsInfo, groups: Groups, sky: SkyModel | None, flux_jy: float | None
) -> list[float | None]:
    """Largest amplitude [Jy] that the model can have in each group; None if no flux is given."""
    if sky is None:
        return [flux_jy] * groups.fields.size
    largest = {}
    for spw in np.unique(groups.spws).tolist():
        freq = info.spws[spw].freq_hz
        total = np.abs(sky.weights(freq).T @ sky.values).sum(axis=1)
        if len(sky.values) == 1:
            # One term has no spectrum: the column may, with an index of 1 either way.
            ratio = freq / sky.freq_hz[0]
            total = total * np.maximum(ratio, 1 / ratio)
        largest[spw] = float(total.max())
    return [largest[spw] for spw in groups.spws.tolist()]


# ---------------------------------------------------------------- the verdict


def judge(
    info: ms.MsInfo, audit: Audit, short: Mapping[int, Short], limits: Sequence[float | None]
) -> list[Finding]:
    """Say what is wrong with a column.

    zero
        Nothing but 0 in a field and spw, where not flagged.
    nan
        NaN or infinite values, flagged or not: 0 times NaN is NaN.
    one
        Nothing but CASA's default model in a field and spw.
    unpredicted
        CASA's default model, or unflagged zeros, in some rows or channels of a field and spw.
    flux
        An amplitude above 1.05 times the sum of the model's components; or, on the shortest 10 % of
        baselines, more than a factor of 2 from what the image gives there if it is centred on the
        field, above twice or below a thousandth of it if it is not (the primary beam).
    """
    groups = audit.groups
    n_chan = np.array([info.spws[spw].freq_hz.size for spw in groups.spws])
    zero = ~audit.nonzero & (audit.zeros > 0)
    one = audit.default_rows == groups.rows
    default = (audit.default_samples > 0) & ~one
    patchy = (audit.zeros > 0) & ~zero
    finding: list[Finding] = []

    def found(name: str, where: NDArray[np.bool_], text: str) -> None:
        if where.any():
            numbers = np.flatnonzero(where)
            finding.append(
                Finding(name, tuple(numbers.tolist()), f"{text} in {_where(groups, numbers)}")
            )

    found("zero", zero, "all zero")
    found("nan", audit.nans > 0, f"{int(audit.nans.sum())} values NaN or infinite")
    found("one", one, "constant 1, as where nothing was predicted,")
    share = _share(audit.default_samples[default].sum(), (groups.rows * n_chan)[default].sum())
    found("unpredicted", default, f"{_percent(share)} never predicted (1 in the parallel hands)")
    share = _share(audit.zeros[patchy].sum(), audit.samples[patchy].sum())
    found("unpredicted", patchy, f"{_percent(share)} never predicted (0 where not flagged)")
    return finding + _flux_findings(audit, short, limits)


def _flux_findings(
    audit: Audit, short: Mapping[int, Short], limits: Sequence[float | None]
) -> list[Finding]:
    groups = audit.groups
    finding = []
    largest = audit.max_jy
    high = [
        number
        for number, limit in enumerate(limits)
        if limit is not None and largest[number] > MOST_AMPLITUDE * limit
    ]
    if high:
        worst = max(high, key=lambda number: largest[number])
        finding.append(
            Finding(
                "flux",
                tuple(high),
                f"amplitudes up to {largest[worst]:.4g} Jy, where the model has "
                f"{limits[worst]:.4g} Jy in all, in {_where(groups, high)}",
            )
        )
    far = []
    for number, item in short.items():
        if item.rms_jy is None or not item.expected_jy or number in high:
            continue
        ratio = item.rms_jy / item.expected_jy
        least = 1 / AMPLITUDE_FACTOR if item.centred else LEAST_AMPLITUDE
        # What is all zero or never predicted has been named as such.
        named = not audit.nonzero[number] or audit.default_rows[number] == groups.rows[number]
        if not least <= ratio <= AMPLITUDE_FACTOR and not named:
            far.append((number, ratio))
    if far:
        number, ratio = max(far, key=lambda one: abs(math.log(max(one[1], 1e-30))))
        item = short[number]
        finding.append(
            Finding(
                "flux",
                tuple(one for one, _ in far),
                f"{item.rms_jy:.4g} Jy on the shortest baselines, where the model gives "
                f"{item.expected_jy:.4g} Jy, in {_where(groups, [one for one, _ in far])}",
            )
        )
    return finding


def _refuse(path: Path, expression: str, findings: Sequence[Finding], allow: Sequence[str]) -> None:
    wrong = [item for item in findings if item.name not in allow]
    if not wrong:
        return
    remedy = {
        "zero": "predict the model there",
        "nan": "predict the model again",
        "one": "predict the model there",
        "unpredicted": "predict the model again, after flags have changed or for all fields",
        "flux": "predict the model again, or give the model image that it was made of",
    }[wrong[0].name]
    names = " ".join(f"--allow {name}" for name in dict.fromkeys(item.name for item in wrong))
    raise DataError(
        f"{path}: {expression} is {'; '.join(item.text for item in wrong)}: {remedy}, leave it out "
        f"with --field or --spw, or accept it with {names}."
    )


def _where(groups: Groups, numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Name groups: ``field 0, spw 1,3; field 2, spw 0~3``."""
    by_field: dict[int, list[int]] = {}
    for number in numbers:
        by_field.setdefault(int(groups.fields[number]), []).append(int(groups.spws[number]))
    by_spws: dict[str, list[int]] = {}
    for one, spws in by_field.items():
        by_spws.setdefault(_ranges(sorted(spws)), []).append(one)
    parts = [f"field {_ranges(fields)}, spw {spws}" for spws, fields in by_spws.items()]
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "; ".join(parts[:3]) + more


def _ranges(numbers: Sequence[int]) -> str:
    """Write ids as CASA does: 0~3,5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}~{part[-1]}" for part in parts)


def _share(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _group_entries(
    info: ms.MsInfo, audit: Audit, short: Mapping[int, Short], limits: Sequence[float | None]
) -> list[dict[str, Any]]:
    groups = audit.groups
    entries = []
    for number, (one, spw) in enumerate(zip(groups.fields, groups.spws, strict=True)):
        item = short.get(number)
        ratio = item.rms_jy / item.expected_jy if (
            item and item.rms_jy is not None and item.expected_jy
        ) else None  # fmt: skip
        entries.append(
            {
                "field": int(one),
                "field_name": info.fields[one].name,
                "spw": int(spw),
                "rows": int(groups.rows[number]),
                "zero_fraction": _share(audit.zeros[number], audit.samples[number]),
                "nan_count": int(audit.nans[number]),
                "one_rows": int(audit.default_rows[number]),
                "max_amplitude_jy": float(audit.max_jy[number]),
                "limit_amplitude_jy": limits[number],
                "median_amplitude_short_jy": item.median_jy if item else None,
                "rms_amplitude_short_jy": item.rms_jy if item else None,
                "expected_amplitude_short_jy": item.expected_jy if item else None,
                "amplitude_ratio": ratio,
            }
        )
    return entries
