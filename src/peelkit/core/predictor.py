"""Visibilities of skies at the samples of an MS, each field about its own phase centre."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit import memory
from peelkit.core import fourier, predict_plan
from peelkit.core.compact import Compact
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import Grid, SkyModel
from peelkit.engines import ducc
from peelkit.io import frames, ms
from peelkit.io.survey import C_M_S

# Error of the primary beam's interpolation in frequency over a spw, relative to the peak.
BEAM_ACCURACY = 1e-5

# Earth's spin changes the LSRK scale by less than 1e-9 between these and their line [s].
DOPPLER_STEP_S = 600.0

# Fields whose LSRK scales differ by less are predicted in one go: their spectra are taken at one scale.
SAME_SCALE = 3e-6

# Bytes that the grid of one call may take at most, and its share of what this process may: larger models are cut up.
MOST_GRID_BYTES, GRID_SHARE = 2**29, 1 / 4

# What one column is predicted from: pixels of an image, or one source by formula.
Sky = SkyModel | Compact


@dataclass(frozen=True)
class Samples:
    """Where the visibilities of some rows of one spw are.

    Parameters
    ----------
    spw : int
        Which.
    uvw_m : ndarray, shape (row, 3)
        Baselines [m].
    time_s : ndarray, shape (row,)
        Times [s].
    fields : ndarray of int, shape (row,)
        Fields.
    lsrk : ndarray, shape (row,), optional
        LSRK frequency over the spw's own (`Doppler`); found when it is needed if it is not given, but not in
        threads.
    """

    spw: int
    uvw_m: NDArray[np.float64]
    time_s: NDArray[np.float64]
    fields: NDArray[np.int64]
    lsrk: NDArray[np.float64] | None = None

    @classmethod
    def read(
        cls, main: object, rows: NDArray[np.int64], spw: int, doppler: Doppler | None = None
    ) -> Samples:
        """Read them from the main table."""
        time_s, fields = ms.get(main, "TIME", rows), ms.get(main, "FIELD_ID", rows)
        return cls(
            spw,
            ms.get(main, "UVW", rows).astype(np.float64),
            time_s,
            fields,
            doppler.scales(spw, time_s, fields) if doppler else None,
        )


class Doppler:
    """LSRK frequencies over those of the MS's own frame, for its rows.

    casacore has one measures frame for a process: to be used in one thread only.
    """

    def __init__(self, info: ms.MsInfo) -> None:
        self._info = info
        self._known: dict[tuple[int, str, int], float] = {}

    def scales(
        self, spw: int, time_s: NDArray[np.float64], fields: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Scale of each row, linear in time between steps of `DOPPLER_STEP_S`."""
        scales = np.ones(time_s.size)
        for field in np.unique(fields).tolist():
            mine = fields == field
            steps = time_s[mine] / DOPPLER_STEP_S
            low = np.floor(steps).astype(np.int64)
            edges = np.unique(np.concatenate([low, low + 1]))
            values = [self._scale(field, spw, int(edge)) for edge in edges]
            scales[mine] = np.interp(steps, edges, values)
        return scales

    def _scale(self, field: int, spw: int, step: int) -> float:
        # A Doppler shift is the same for all frequencies.
        key = field, self._info.spws[spw].frame, step
        if key not in self._known:
            self._known[key] = frames.lsrk_over_spw(
                self._info, self._info.spws[spw], field=field, time_s=step * DOPPLER_STEP_S
            )
        return self._known[key]


@dataclass(frozen=True)
class _View:
    """Rows that see the same sky: baselines in the image's axes, and what the image's pixels are.

    Parameters
    ----------
    rows : ndarray of int
        Which.
    turned_m : ndarray, shape (row, 3)
        Baselines along east, north and outwards at the image's tangent point [m].
    w_m : ndarray, shape (row,)
        w of the fields' own phase centres [m].
    own_hz : ndarray, shape (chan,)
        Frequencies that go with the baselines, which have the scale to the image's frame [Hz].
    freq_hz : ndarray, shape (chan,)
        In the image's frame: where its spectrum is taken [Hz].
    basis : ndarray or None
        Of the field, whose primary beam the sky is seen through.
    """

    rows: NDArray[np.int64]
    turned_m: NDArray[np.float64]
    w_m: NDArray[np.float64]
    own_hz: NDArray[np.float64]
    freq_hz: NDArray[np.float64]
    basis: NDArray[np.float64] | None


def grid_bytes() -> int:
    """Bytes that the grid of one call may take under the limit of memory (`peelkit.memory`)."""
    share = memory.limit_gib() * memory.GIB / memory.processes() * GRID_SHARE
    return int(min(MOST_GRID_BYTES, share))


class Predictor:
    """Predicts skies for the rows of an MS, each field about its own phase centre.

    Parameters
    ----------
    info : MsInfo
        The MS.
    beam : Beam or None
        Primary beam that each field sees the sky through; None if the model has it already.
    threads : int
        Of one call; 0 is one for each core.
    """

    def __init__(self, info: ms.MsInfo, beam: Beam | None = None, *, threads: int = 0) -> None:
        self.info = info
        self.beam = beam
        self.threads = threads
        # The limit belongs to the thread that makes the predictor, and not to those that it is used in.
        self.grid_bytes = grid_bytes()
        self._doppler = Doppler(info)

    def visibilities(self, sky: Sky, samples: Samples) -> NDArray[np.complex128]:
        """Visibilities of ``sky`` [Jy], shape (row, chan)."""
        if isinstance(sky, SkyModel):
            return self._of_pixels(sky, samples)
        freq = self.info.spws[samples.spw].freq_hz
        total = np.empty((samples.uvw_m.shape[0], freq.size), dtype=np.complex128)
        for number in np.unique(samples.fields):
            mine = samples.fields == number
            field = self.info.fields[number]
            uvw, times = samples.uvw_m[mine], samples.time_s[mine]
            seen = sky.apparent.get((int(number), samples.spw))
            if seen is None:
                total[mine] = sky.visibilities(field, uvw, freq, self.beam, time_s=times)
            else:
                total[mine] = seen * sky.unit.visibilities(field, uvw, freq, time_s=times)
        return total

    def _of_pixels(self, sky: SkyModel, samples: Samples) -> NDArray[np.complex128]:
        """Visibilities of an image's pixels.

        The image may be centred anywhere: u, v, w are turned from the field's directions to those
        at the image's tangent point, exactly, and the phase is put back to the field's centre,
        ``V = exp(2 pi i (w_c - w) f / c) sum I exp(2 pi i (u_c l + v_c m + w_c (n - 1)) f / c)``,
        which is ``sum I exp(2 pi i b.(s - s_field) f / c)`` for unit vectors s of the sources.
        """
        shape = (samples.uvw_m.shape[0], self.info.spws[samples.spw].freq_hz.size)
        total = np.zeros(shape, dtype=np.complex128)
        if sky.xs.size == 0:
            return total
        for view in self._views(sky, samples):
            vis = np.empty((view.rows.size, shape[1]), dtype=np.complex128)
            for channels in _smooth_parts(sky, view.freq_hz):
                found = self._of_view(sky, view, channels)
                if channels.size == shape[1]:
                    vis = found
                else:
                    vis[:, channels] = found
            if view.rows.size == shape[0]:
                return vis
            total[view.rows] = vis
        return total

    def _views(self, sky: SkyModel, samples: Samples) -> Iterator[_View]:
        """Rows that can be predicted in one go: of one field, or of all where there is no beam."""
        freq = self.info.spws[samples.spw].freq_hz
        uvw, mean = samples.uvw_m, dict.fromkeys(np.unique(samples.fields).tolist(), 1.0)
        if sky.grid.in_lsrk:
            scales = samples.lsrk
            if scales is None:
                scales = self._doppler.scales(samples.spw, samples.time_s, samples.fields)
            mean = {one: float(scales[samples.fields == one].mean()) for one in mean}
            # The baselines are scaled in place of the frequencies, which remain the same for all rows.
            uvw = uvw * scales[:, None]
        groups: list[list[int]] = []
        for one in sorted(mean, key=lambda one: mean[one]):
            together = groups and self.beam is None
            if together and mean[one] - mean[groups[-1][0]] < SAME_SCALE:
                groups[-1].append(one)
            else:
                groups.append([one])
        for group in groups:
            whole = len(groups) == 1
            rows = np.arange(uvw.shape[0]) if whole else np.flatnonzero(
                np.isin(samples.fields, group)
            )  # fmt: skip
            mine = uvw if whole else uvw[rows]
            turned = np.empty_like(mine)
            for one in group:
                here = slice(None) if len(group) == 1 else samples.fields[rows] == one
                times = samples.time_s[rows][here]
                turned[here] = _turned(sky.grid, self.info.fields[one], mine[here], times)
            basis = None
            if self.beam is not None:
                # One that moves does so by little of a beam in a call.
                middle = self.info.fields[group[0]].at(float(samples.time_s[rows].mean()))
                basis = sky.grid.field_basis(middle)
            yield _View(
                rows, turned, mine[:, 2], freq, freq * mean[group[0]], basis
            )  # fmt: skip

    def _of_view(
        self, sky: SkyModel, view: _View, channels: NDArray[np.intp]
    ) -> NDArray[np.complex128]:
        """Visibilities in channels over which the sky is smooth, shape (row, chan)."""
        values, weights = self._planes(sky, view, view.freq_hz[channels])
        lit = np.flatnonzero(values.any(axis=0))
        values, weights = predict_plan.fewest_planes(values[:, lit], weights)
        freq, xs, ys = view.own_hz[channels], sky.xs[lit], sky.ys[lit]
        grid, turned = sky.grid, view.turned_m
        total = np.zeros((turned.shape[0], freq.size), dtype=np.complex128)
        if lit.size == 0 or turned.shape[0] == 0:
            return total
        much = predict_plan.Amount(
            rows=turned.shape[0], chans=freq.size, planes=values.shape[0],
            w_waves=float(np.ptp(turned[:, 2]) * freq.max() / C_M_S), cell_rad=max(grid.cell_rad),
            most_pixels=self.grid_bytes / predict_plan.GRID_PIXEL_BYTES,
        )  # fmt: skip
        direct, grids = predict_plan.pieces(xs, ys, grid.centre_pixel, much)
        for number, part in enumerate(grids):
            found = ducc.predict_pixels(
                xs[part], ys[part], values[:, part], weights, cell_rad=grid.cell_rad,
                centre_pixel=grid.centre_pixel, uvw_m=turned, freq_hz=freq, threads=self.threads,
            )  # fmt: skip
            total = np.add(total, found, out=found) if number else found
        path_m = turned[:, 2] - view.w_m
        if grids and np.any(np.abs(path_m) > 1e-9):
            fourier.turn(total, path_m, freq)
        if direct.size:
            cosines = grid.direction_cosines(xs[direct], ys[direct])
            flux = values[:, direct].T @ weights
            fourier.add_sum(total, turned, cosines, view.w_m, flux, freq)
        return total

    def _planes(
        self, sky: SkyModel, view: _View, freq: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels of images, shape (plane, pixel), and their weights in the channels, as they are seen."""
        if self.beam is None or view.basis is None:
            return sky.values, sky.weights(freq)
        chord = np.linalg.norm(
            sky.grid.direction_cosines(sky.xs, sky.ys) - sky.grid.basis @ view.basis[2], axis=1
        )
        offset = 2 * np.arcsin(np.minimum(1.0, chord / 2))
        nodes = chebyshev_nodes(float(freq.min()), float(freq.max()))
        planes = [
            shares @ sky.values * self.beam.power(float(node), offset)
            for node, shares in zip(nodes, sky.weights(nodes).T, strict=True)
        ]
        return np.array(planes), lagrange_weights(nodes, freq)


def _turned(
    grid: Grid, field: ms.Field, uvw_m: NDArray[np.float64], time_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Baselines of a field in the axes at an image's tangent point, shape (row, 3)."""
    turned = np.empty_like(uvw_m)
    for place, at in field.views(time_s):
        turn = grid.field_basis(place) @ grid.basis.T
        turned[at] = np.einsum("ij,jk->ik", uvw_m[at], turn)
    return turned


def _smooth_parts(sky: SkyModel, freq: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Channels over which the sky is smooth in frequency: between two sub-bands each."""
    if sky.is_taylor:
        return [np.arange(freq.size)]
    between = np.searchsorted(sky.freq_hz, freq)
    return [np.flatnonzero(between == number) for number in np.unique(between)]


def chebyshev_nodes(low: float, high: float) -> NDArray[np.float64]:
    """Frequencies at which the primary beam is evaluated, to `BEAM_ACCURACY` in between.

    Interpolation at n Chebyshev nodes over a relative half width h errs by at most
    ``max|f^(n)| h^n / (2^(n-1) n!)``; a power beam out to its first null changes no faster than
    ``cos(6 ln f)``.
    """
    half = (high - low) / (high + low)
    count = 1
    while (6 * half) ** count / (2 ** (count - 1) * math.factorial(count)) > BEAM_ACCURACY:
        count += 1
    points = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    return np.sort((high + low) / 2 + (high - low) / 2 * points)


def lagrange_weights(nodes: NDArray[np.float64], freq: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the value at each node in the polynomial through all, shape (node, chan)."""
    weights = np.ones((nodes.size, freq.size))
    for j, node in enumerate(nodes):
        for other in np.delete(nodes, j):
            weights[j] *= (freq - other) / (node - other)
    return weights
