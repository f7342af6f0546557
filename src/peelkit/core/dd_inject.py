"""Proof that peeling eats no other flux: sources that no model has, through a second solve.

A gain that is free enough to follow them takes up sources that no model has, and subtracts them with the
bright one. Point sources that are known go into the data, ``D' = D + G I G^H``; what is left of them
when D' has been solved and peeled like D is measured, and nothing of that is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import dd_apply, dd_auto, dd_balance, dd_classes, dd_gains
from peelkit.core.dd_data import Block, blocks
from peelkit.core.dd_gains import Key, Solutions
from peelkit.core.dd_plan import Plan
from peelkit.core.skymodel import tangent_basis
from peelkit.errors import OptionError
from peelkit.io import ms
from peelkit.io.survey import C_M_S
from peelkit.progress import Progress
from peelkit.spread import IN_PROCESS, Spread

_FORM = re.compile(r"([^@]+?)(mjy|ujy|jy)?@([^,@]+),([^,@]+)", re.IGNORECASE)
_JY = {"": 1.0, "jy": 1.0, "mjy": 1e-3, "ujy": 1e-6}

ARCMIN = math.radians(1 / 60)

# Farthest from the first direction [rad].
FARTHEST = math.radians(10)

# The user is told of a source that loses more than this share, and this many times its noise.
SUPPRESSED, SIGMAS = 0.05, 3.0


@dataclass(frozen=True)
class Injection:
    """A source as the user asked for it: flux [Jy], and direction cosines to the east and north."""

    flux_jy: float
    east: float
    north: float


@dataclass(frozen=True)
class Recovered:
    """What is left of an injected source.

    Parameters
    ----------
    flux_jy : float
        Injected, in every channel.
    ra_deg, dec_deg : float
        Where, in the frame of the fields.
    separation_arcsec : float
        From the nearest direction; NaN if no place of a direction is known.
    recovered_fraction, suppression : float
        Share of its flux that is in the peeled data, and that is not.
    sigma : float
        Noise of the data in that share. Most of it is the same with and without the source, so that the
        share is better than that; but a source below it is not missed.
    """

    flux_jy: float
    ra_deg: float
    dec_deg: float
    separation_arcsec: float
    recovered_fraction: float
    suppression: float
    sigma: float


def parse(texts: Sequence[str]) -> list[Injection]:
    """Sources of ``FLUX@DX,DY``: Jy (or with a unit), and arcmin east and north.

    Raises
    ------
    OptionError
        If one is none, too far, or twice at the same place.
    """
    found: list[Injection] = []
    for text in texts:
        match = _FORM.fullmatch(text.replace(" ", ""))
        try:
            number, unit, east, north = match.groups() if match else ("nan", "", "nan", "nan")
            one = Injection(
                float(number) * _JY[(unit or "").lower()],
                float(east) * ARCMIN,
                float(north) * ARCMIN,
            )
        except ValueError:
            one = Injection(math.nan, math.nan, math.nan)
        if not math.isfinite(one.flux_jy + one.east + one.north) or one.flux_jy <= 0:
            raise OptionError(
                f"--inject {text!r}: give FLUX@DX,DY in Jy (or mJy) and arcmin east and north, such as "
                "5mJy@0.5,-2."
            )
        if math.hypot(one.east, one.north) > FARTHEST:
            raise OptionError(f"--inject {text!r}: farther than 10 degrees; give arcmin.")
        if any((one.east, one.north) == (other.east, other.north) for other in found):
            raise OptionError(f"--inject {text!r}: a second source at the same place; give one.")
        found.append(one)
    return found


def inject(
    plan: Plan,
    groups: Mapping[Key, Solutions],
    chosen: dd_auto.Choice | None,
    scale: Mapping[int, float],
    extra: dict[str, str],
    progress: Progress,
    *,
    spread: Spread = IN_PROCESS,
) -> list[Recovered]:
    """Solve again with the sources of ``--inject`` in the data, and measure what is left of them.

    Parameters
    ----------
    groups : dict
        Solutions of the data as they are, balanced.
    chosen : Choice or None
        Intervals of each direction, where they were chosen.
    scale : dict of int
        Data description to the factor that makes its weights 1/sigma^2.
    extra : dict of str
        Further options of QuartiCal.
    """
    asked = parse(plan.options.inject)
    vectors = _vectors(plan, asked)
    sky = Sky.of(plan, np.array([one.flux_jy for one in asked]), vectors)

    def add(block: Block) -> Block:
        return _having(sky, groups, block)[0]

    again, _ = dd_classes.solve(
        plan, dict(scale), extra, progress, chosen, name="injected", change=add, spread=spread
    )
    if plan.options.balance:
        again, _ = dd_balance.balance(plan, again, scale, progress, change=add)
    share, sigma = _measure(plan, sky, groups, again, scale, progress)
    return [
        Recovered(
            one.flux_jy, *_degrees(vector), _separation_arcsec(plan, vector), float(found),
            float(1 - found), float(noise),
        )
        for one, vector, found, noise in zip(asked, vectors, share, sigma, strict=True)
    ]  # fmt: skip


def records(found: Sequence[Recovered] | None) -> list[dict[str, Any]] | None:
    """Figures for the sidecar."""
    return None if found is None else [asdict(one) for one in found]


def words(found: Sequence[Recovered] | None) -> list[str]:
    """What to tell of sources that were eaten."""
    return [
        f"an injected source of {1e3 * one.flux_jy:.3g} mJy at {one.ra_deg:.5f} {one.dec_deg:+.5f} deg loses "
        f"{100 * one.suppression:.2g} % of its flux to the peeling, and so do faint sources of the field: use "
        "longer --de-time, --de-freq or --g-time"
        for one in found or ()
        if one.suppression > max(SUPPRESSED, SIGMAS * one.sigma)
    ]


# ---------------------------------------------------------------- the sources


@dataclass(frozen=True)
class Sky:
    """Point sources with a flat spectrum: fluxes [Jy], and unit vectors in the frame of the fields.

    It is sent to workers: of a plan it has no more than the MS, and which fields are solved together.
    """

    info: ms.MsInfo
    combine_fields: bool
    flux_jy: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, plan: Plan, flux_jy: NDArray[np.float64], vectors: NDArray[np.float64]) -> Sky:
        """For the data of a plan."""
        info = replace(plan.rows.info, path=plan.rows.info.path.absolute())
        return cls(info, plan.rows.combine_fields, flux_jy, vectors)

    def key(self, block: Block) -> Key:
        """Group of a block's solutions; a class that borrows is solved in blocks of another key."""
        return (-1 if self.combine_fields else block.field, block.description.id)

    def visibilities(
        self, main: Any, rows: NDArray[np.int64], description: ms.DataDescription
    ) -> NDArray[np.complex128]:
        """``S exp(2 pi i b.(s - s_field) f / c)`` of rows of one field [Jy], shape (source, row, chan)."""
        info = self.info
        field = info.fields[int(ms.get(main, "FIELD_ID", rows[:1])[0])]
        uvw, path_m = ms.get(main, "UVW", rows), np.empty((self.vectors.shape[0], rows.size))
        for place, at in field.views(ms.get(main, "TIME", rows)):
            cosines = self.vectors @ tangent_basis(place.ra_rad, place.dec_rad).T
            cosines[:, 2] -= 1
            path_m[:, at] = cosines @ uvw[at].astype(np.float64).T
        turns = path_m[:, :, None] * (info.spws[description.spw].freq_hz / C_M_S)
        return np.asarray(self.flux_jy[:, None, None] * np.exp(2j * np.pi * turns))


def _vectors(plan: Plan, asked: Sequence[Injection]) -> NDArray[np.float64]:
    """Unit vectors of the sources, shape (source, 3)."""
    basis = tangent_basis(*_reference_rad(plan))
    cosines = np.array([[one.east, one.north, 0.0] for one in asked])
    cosines[:, 2] = np.sqrt(1 - np.sum(cosines**2, axis=1))
    return cosines @ basis


def _reference_rad(plan: Plan) -> tuple[float, float]:
    """Right ascension and declination of the first direction, or of the first field with data."""
    first = plan.directions[0]
    if first.ra_deg is not None and first.dec_deg is not None:
        return math.radians(first.ra_deg), math.radians(first.dec_deg)
    with ms.opened(plan.rows.info.path) as main:
        number = int(ms.get(main, "FIELD_ID", plan.rows.rows[:1])[0])
    field = plan.rows.info.fields[number]
    return field.ra_rad, field.dec_rad


def _degrees(vector: NDArray[np.float64]) -> tuple[float, float]:
    x, y, z = (float(value) for value in vector)
    return math.degrees(math.atan2(y, x)) % 360, math.degrees(math.atan2(z, math.hypot(x, y)))


def _separation_arcsec(plan: Plan, vector: NDArray[np.float64]) -> float:
    found = [math.nan]
    for d in plan.directions:
        if d.ra_deg is not None and d.dec_deg is not None:
            there = tangent_basis(math.radians(d.ra_deg), math.radians(d.dec_deg))[2]
            chord = float(np.linalg.norm(there - vector))
            found.append(math.degrees(2 * math.asin(chord / 2)) * 3600)
    return float(np.fmin.reduce(found))


# ---------------------------------------------------------------- into the data, and out of them


def _cells(seen: NDArray[np.complex128], description: ms.DataDescription) -> NDArray[np.complex128]:
    """All sources together, as correlations: the same in both parallel hands."""
    total = seen.sum(axis=0)
    cells = np.zeros((*total.shape, len(description.correlations)), dtype=np.complex128)
    cells[..., ms.parallel_hands(description.correlations)] = total[..., None]
    return cells


def _having(
    sky: Sky, groups: Mapping[Key, Solutions], block: Block
) -> tuple[Block, NDArray[np.complex128]]:
    """A block with the sources, seen through ``groups``, and each source alone, (source, row, chan)."""
    with ms.opened(sky.info.path) as main:
        seen = sky.visibilities(main, block.rows, block.description)
    added = _through(
        groups[sky.key(block)], block.times_s, block.antenna1, block.antenna2,
        _cells(seen, block.description),
    )  # fmt: skip
    return replace(block, data=(block.data + added).astype(np.complex64)), seen


def _through(
    solutions: Solutions,
    times_s: NDArray[np.float64],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
    cells: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    """``G I G^H``: direction 0 has the gains of the array alone."""
    when, n_corr = dd_gains.time_index(solutions.axis, times_s), cells.shape[-1]
    return dd_gains.corrupt(
        cells,
        dd_gains.jones(solutions, when, antenna1, 0, n_corr),
        dd_gains.jones(solutions, when, antenna2, 0, n_corr),
    )


def _measure(
    plan: Plan,
    sky: Sky,
    before: Mapping[Key, Solutions],
    after: Mapping[Key, Solutions],
    scale: Mapping[int, float],
    progress: Progress,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each source in what the peeled data have more than before, by least squares; its noise."""
    count = sky.flux_jy.size
    normal, right = np.zeros((count, count)), np.zeros(count)
    progress.stage("measuring the injected sources", total=plan.rows.rows.size)
    with ms.opened(plan.rows.info.path) as main:
        for block in blocks(plan.rows, plan.data_column, plan.models, main):
            changed, seen = _having(sky, before, block)
            without = _peel(plan, block, before)
            having = _peel(plan, changed, after)
            hands = block.hands
            change = (having.peeled - without.peeled)[..., hands].astype(np.complex128)
            weight = block.weight[..., hands] * scale[block.description.id]
            weight = np.where((without.failed | having.failed)[..., None], 0, weight)
            right += np.einsum("rch,rch,src->s", weight, change, np.conj(seen), optimize=True).real
            normal += np.einsum(
                "rc,src,trc->st", weight.sum(axis=-1), seen, np.conj(seen), optimize=True
            ).real
            progress.advance(block.rows.size)
    if not np.all(np.diag(normal) > 0):
        return np.full(count, math.nan), np.full(count, math.nan)
    inverse = np.linalg.pinv(normal, hermitian=True)
    return inverse @ right, np.sqrt(np.diag(inverse))


def _peel(plan: Plan, block: Block, groups: Mapping[Key, Solutions]) -> dd_apply.Peeled:
    """As the output column has it; with --keep, as if all directions were subtracted."""
    here = plan.at(block.key)
    return dd_apply.peel(
        block, groups, all_column=plan.all_column, directions=here.used,
        subtract=here.subtracted or list(here.used), gains_needed=here.peeled,
    )  # fmt: skip
