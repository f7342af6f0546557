"""How much of the model outside the regions is believed: as much as the data confirm.

CLEAN of an image full of artefacts takes these for sources. In a solve they would stay: gains towards the
bright source cannot mend a wrong rest of the sky. No gain of an antenna makes an artefact of other gains
agree with the data, while a true source agrees whatever the gains are. So gains are solved on some
integrations, channel by channel, with ever more of the rest of the model in it, from what stands out most
of its surroundings to all of it, and what leaves the smallest residual is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit.core import stefcal
from peelkit.core.dd_bins import squared
from peelkit.core.dd_data import Block, blocks, gather
from peelkit.core.islands import noise_box_pixels
from peelkit.core.modelcol import Predictor, Samples, Sky
from peelkit.core.noisemap import NEIGHBOURS, WING_SIGMA, noise_map
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import SkyModel
from peelkit.io import ms, rownumbers
from peelkit.io.image import Image
from peelkit.progress import Progress

# Integrations that are looked at for each data description, and visibilities in all, at most.
INTEGRATIONS = 12
MOST_SAMPLES = 600_000

# Parts of the rest of the model, by how far they stand out.
MOST_PARTS = 6

# Box of the local noise [beams]: small enough to follow artefacts around a bright source.
NOISE_BEAMS = 20.0

# Less of the model is believed only where that is better by so many times the scatter from cell to cell.
SIGMAS = 3.0

# S/N that the solutions of a cell of channels have, if the spw is wide enough.
LEAST_SNR = 10.0

# Rounds through the directions, and iterations of each in a round.
ROUNDS, ITERATIONS = 6, 10


@dataclass(frozen=True)
class Trial:
    """A part of the rest of the model that was tried.

    Parameters
    ----------
    least_snr : float or None
        Of its islands, over the local noise of the image; None of the empty part.
    components : int
        Its pixels.
    flux_jy : float
        Its flux.
    chi2 : float
        Of the sample, with gains solved for it; 1 is the noise that the weights promise.
    """

    least_snr: float | None
    components: int
    flux_jy: float
    chi2: float


@dataclass(frozen=True)
class Believed:
    """The part of the rest of the model that the data confirm, and what was tried."""

    sky: SkyModel
    trials: tuple[Trial, ...] = ()
    chosen: int = 0

    @property
    def words(self) -> str | None:
        """What to tell if not all is believed."""
        if not self.trials or self.chosen == len(self.trials) - 1:
            return None
        kept, whole = self.trials[self.chosen], self.trials[-1]
        return (
            f"{whole.components - kept.components} of {whole.components} components outside the regions "
            f"({1e3 * (whole.flux_jy - kept.flux_jy):.4g} of {1e3 * whole.flux_jy:.4g} mJy) are left out: with them the "
            f"data fit worse whatever the gains (chi-squared {whole.chi2:.4g}, without {kept.chi2:.4g}), as artefacts do"
        )


def believed(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    directions: Sequence[Sky],
    rest: SkyModel,
    image: Image,
    *,
    beam: Beam | None,
    progress: Progress,
) -> Believed:
    """Find the part of the rest of the model that the data confirm.

    Parameters
    ----------
    info : MsInfo
        The MS.
    rows : ndarray of int
        Which.
    column : str
        Data.
    directions : sequence of SkyModel or Compact
        The bright sources, which have gains of their own.
    rest : SkyModel
        The model outside their regions.
    image : Image
        Restored image that the model belongs to, on its grid.
    beam : Beam, optional
        Primary beam of each field of a mosaic.
    """
    snr = component_snr(rest, image)
    edges = levels(snr)
    parts = [
        rest.where(_kept(rest, (snr >= low) & (snr < high)))
        for high, low in zip([np.inf, *edges[:-1]], edges, strict=True)
    ]
    selected = gather(info, _sampled(info, rows), combine_fields=False)
    progress.stage("the rest of the sky, against the data", total=selected.rows.size)
    predictor = Predictor(info, beam)
    scores: list[NDArray[np.float64]] = []
    samples = 0
    with ms.opened(info.path) as main:
        for block in blocks(selected, column, [], main):
            where = Samples.read(main, block.rows, block.description.spw)
            models = [predictor.visibilities(sky, where) for sky in (*directions, *parts)]
            samples += int(np.count_nonzero(block.weight[..., block.hands]))
            scores += _scores(block, models, len(directions), len(info.antennas))
            progress.advance(block.rows.size)
    if not samples:
        return Believed(rest)
    cells = np.concatenate(scores, axis=1)
    chosen = choice(cells)
    least = [None, *edges.tolist()]
    counts = np.cumsum([0, *(part.xs.size for part in parts)])
    fluxes = np.cumsum([0.0, *(part.flux_jy for part in parts)])
    trials = tuple(
        Trial(low, int(count), float(flux), float(chi2))
        for low, count, flux, chi2 in zip(
            least, counts, fluxes, cells.sum(axis=1) / (2 * samples), strict=True
        )
    )
    keep = snr >= (edges[chosen - 1] if chosen else np.inf)
    return Believed(rest.where(_kept(rest, keep)), trials, chosen)


def component_snr(rest: SkyModel, image: Image) -> NDArray[np.float64]:
    """How far the island of each component stands out of the local noise, shape (pixel,)."""
    from scipy import ndimage

    data = np.nan_to_num(image.data)
    noise = noise_map(image.data, box_pixels=noise_box_pixels(image, NOISE_BEAMS))
    ratio = data / noise
    islands, count = ndimage.label(ratio > WING_SIGMA, NEIGHBOURS)
    top = np.zeros(count + 1)
    np.maximum.at(top, islands.ravel(), ratio.ravel())
    top[0] = 0.0
    return np.asarray(top[islands[rest.ys, rest.xs]])


def levels(snr: NDArray[np.float64]) -> NDArray[np.float64]:
    """S/N that parts begin at: those of all islands if they are few, else falling by equal factors.

    The last has all that is left.
    """
    islands = np.unique(snr)[::-1]
    if islands.size > MOST_PARTS:
        high = islands[0]
        low = max(float(islands[islands > 0][-1]), high / 1024)
        islands = high * (low / high) ** (np.arange(1, MOST_PARTS + 1) / MOST_PARTS)
    found = islands.copy()
    found[-1] = 0.0
    # Parts that add nothing are no parts.
    added = np.diff([0, *(int((snr >= low).sum()) for low in found)]) > 0
    return np.asarray(found[added])


def choice(cells: NDArray[np.float64]) -> int:
    """The part that leaves the smallest residual; a larger one where that is no worse by its scatter.

    Parameters
    ----------
    cells : ndarray, shape (part, cell)
        Residual power of each cell, solved for itself, from no part to all.
    """
    best = int(np.argmin(cells.sum(axis=1)))
    worse = cells - cells[best]
    error = worse.std(axis=1) * np.sqrt(cells.shape[1])
    free = np.flatnonzero(worse.sum(axis=1) <= SIGMAS * error)
    return int(max(free[free >= best], default=best))


def _kept(rest: SkyModel, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of some components, shape (ny, nx)."""
    keep = np.zeros(rest.grid.shape, dtype=bool)
    keep[rest.ys[inside], rest.xs[inside]] = True
    return keep


def _sampled(info: ms.MsInfo, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of some whole integrations, spread evenly."""
    n_chan = [info.spws[one.spw].freq_hz.size for one in info.data_descriptions]
    with ms.opened(info.path) as main:
        times = rownumbers.times(main, rows)
        samples = int(rownumbers.counts(main, rows, len(n_chan)) @ n_chan) / times.size
        count = int(np.clip(MOST_SAMPLES / samples, 1, INTEGRATIONS))
        chosen = np.unique(np.linspace(0, times.size - 1, count + 2).round().astype(int)[1:-1])
        return rownumbers.at_times(main, rows, times[chosen])


def _scores(
    block: Block, models: Sequence[NDArray[np.complex128]], n_direction: int, n_antenna: int
) -> list[NDArray[np.float64]]:
    """Residual power with ever more parts, of each cell, shape (1 + part, cell); one array an integration."""
    found = []
    for time in np.unique(block.times_s):
        here = block.times_s == time
        one, two = block.antenna1[here], block.antenna2[here]

        def square(values: NDArray[Any], one: Any = one, two: Any = two) -> NDArray[Any]:
            """Shape (row, ...) as (antenna, antenna, ...), both halves."""
            full = np.zeros((n_antenna, n_antenna, *values.shape[1:]), dtype=values.dtype)
            full[one, two] = values
            full[two, one] = np.conj(values)
            return full

        weight = square(block.weight[here][..., block.hands].astype(np.float64))
        data = square(block.data[here][..., block.hands].astype(np.complex128))
        vis = [square(model[here])[..., None] for model in models]
        step = _channels(weight, vis[:n_direction])
        for hand in range(data.shape[-1]):
            for first in range(0, data.shape[2], step):
                cell = slice(first, first + step)
                found.append(
                    _cell(
                        data[:, :, cell, hand], weight[:, :, cell, hand],
                        [one[:, :, cell, 0] for one in vis], n_direction,
                    )[:, None]
                )  # fmt: skip
    return found


def _channels(weight: NDArray[np.float64], bright: Sequence[NDArray[np.complex128]]) -> int:
    """Channels of a cell, so that solutions towards the brightest direction have `LEAST_SNR`."""
    n_chan = weight.shape[2]
    power = max(float((weight * squared(one)).sum()) for one in bright)
    antennas = max(1, int(np.count_nonzero(weight.any(axis=(1, 2, 3)))))
    each = power / (antennas * n_chan * weight.shape[3])
    return int(np.clip(np.ceil(LEAST_SNR**2 / max(each, 1e-30)), 1, n_chan))


def _cell(
    data: NDArray[np.complex128],
    weight: NDArray[np.float64],
    models: Sequence[NDArray[np.complex128]],
    n_direction: int,
) -> NDArray[np.float64]:
    """Residual power of one cell with 0, 1, 2 ... parts of the rest, gains solved for each.

    All arrays are of shape (antenna, antenna, chan). The rest has the gains of the brightest direction,
    which in data without gains are those of the array most of all.
    """
    directions, parts = models[:n_direction], models[n_direction:]
    brightest = int(np.argmax([float((weight * squared(one)).sum()) for one in directions]))
    gains = np.ones((n_direction, data.shape[0]), dtype=np.complex128)
    scores = []
    rest = np.zeros_like(data)
    for part in [None, *parts]:
        if part is not None:
            rest = rest + part
        skies = [sky + rest if n == brightest else sky for n, sky in enumerate(directions)]
        for _ in range(ROUNDS if n_direction > 1 else 2):
            for number, sky in enumerate(skies):
                others = _sum(skies, gains, leave_out=number)
                gains[number] = stefcal.solve(
                    (weight * (data - others) * np.conj(sky)).sum(axis=2),
                    (weight * squared(sky)).sum(axis=2),
                    iterations=ITERATIONS, start=gains[number],
                )  # fmt: skip
        left = data - _sum(skies, gains)
        scores.append(float((weight * squared(left)).sum()) / 2)
    return np.array(scores)


def _sum(
    skies: Sequence[NDArray[np.complex128]],
    gains: NDArray[np.complex128],
    leave_out: int | None = None,
) -> NDArray[np.complex128]:
    """All directions with their gains, but one."""
    total = np.zeros_like(skies[0])
    for number, (sky, gain) in enumerate(zip(skies, gains, strict=True)):
        if number != leave_out:
            total += gain[:, None, None] * sky * np.conj(gain)[None, :, None]
    return total
