"""What fields of a mosaic show of a compact source where no primary beam is known: by its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peelkit.core.compact import Compact
from peelkit.core.compact_fit import LEAST_POWER
from peelkit.core.dd_data import blocks, gather
from peelkit.core.modelcol import Predictor, Samples, Sky
from peelkit.core.primary_beam import Beam
from peelkit.io import ms
from peelkit.progress import Progress

# Flux that is taken for the source's [sigma].
LEAST_SNR = 5.0

# (field, spw) to flux [Jy].
Fluxes = Mapping[tuple[int, int], float]


def apparent_fluxes(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    sources: Mapping[str, Compact],
    others: Sequence[Sky],
    beam: Beam,
    progress: Progress,
) -> dict[str, Fluxes]:
    """Flux of each source in the fields and spws that see it through next to no primary beam.

    Least squares, ``sum_j S_j sum w F_j conj(F_i) = sum w V conj(F_i)``, of data V without all other models,
    and visibilities F_i of 1 Jy at the places of all such sources; the flux is ``|S_i|``. The errors of
    antennas in their sidelobes are for dE; without a model near the truth it has nothing to multiply.

    Parameters
    ----------
    column : str
        Data.
    sources : dict of str
        Label to source.
    others : sequence of SkyModel or Compact
        All else that is in the data.

    Returns
    -------
    dict of str
        Label to fluxes, of the pairs of field and spw where it is found and its beam is not known.
    """
    selected = gather(info, rows, combine_fields=False)
    predictor = Predictor(info, beam)
    sums: dict[tuple[int, int], _Sums] = {}
    progress.stage("sources beyond the primary beams", total=rows.size)
    with ms.opened(info.path) as main:
        for block in blocks(selected, column, [], main):
            spw = info.spws[block.description.spw]
            field = info.fields[block.field]
            middle = field.at(float(block.times_s.mean()))
            beyond = [
                label
                for label, one in sources.items()
                if one.power(middle, spw.freq_hz, beam).max() < LEAST_POWER
            ]
            progress.advance(block.rows.size)
            if not beyond:
                continue
            where = Samples.read(main, block.rows, block.description.spw)
            known = np.zeros((block.rows.size, spw.freq_hz.size), dtype=np.complex128)
            for sky in [*others, *(one for label, one in sources.items() if label not in beyond)]:
                known += predictor.visibilities(sky, where)
            left = block.data[..., block.hands] - known[..., None]
            weight = block.weight[..., block.hands].astype(np.float64)
            own = np.stack(
                [
                    sources[label].unit.visibilities(
                        field, where.uvw_m, spw.freq_hz, time_s=where.time_s
                    )
                    for label in beyond
                ]
            )
            key = block.field, block.description.spw
            sums.setdefault(key, _Sums.of(beyond)).add(own, left, weight)
    found: dict[str, dict[tuple[int, int], float]] = {label: {} for label in sources}
    for key, one in sums.items():
        for label, flux in one.found().items():
            found[label][key] = flux
    return dict(found)


@dataclass
class _Sums:
    """Normal equations of the sources ``labels`` in one field and spw."""

    labels: list[str]
    matrix: NDArray[np.complex128]
    overlap: NDArray[np.complex128]
    scatter: NDArray[np.float64]

    @classmethod
    def of(cls, labels: list[str]) -> _Sums:
        n = len(labels)
        return cls(labels, np.zeros((n, n), complex), np.zeros(n, complex), np.zeros(n))

    def add(
        self,
        own: NDArray[np.complex128],
        left: NDArray[np.complex128],
        weight: NDArray[np.float64],
    ) -> None:
        """Add data (row, chan, hand), and models (source, row, chan)."""
        both = weight.sum(axis=-1)
        self.matrix += np.einsum("rc,irc,jrc->ij", both, np.conj(own), own)
        self.overlap += np.einsum("rch,irc,rch->i", weight, np.conj(own), left)
        # |F| is 1 but for a Gaussian's.
        self.scatter += np.einsum("rch,irc->i", (weight * np.abs(left)) ** 2, np.abs(own) ** 2)

    def found(self) -> dict[str, float]:
        """Fluxes that stand out, by label [Jy]."""
        power = np.real(np.diag(self.matrix))
        if not (power > 0).all():
            return {}
        fluxes = np.abs(np.linalg.lstsq(self.matrix, self.overlap, rcond=1e-6)[0])
        # Of each of the two components of the sum; it has the errors of other sources' models too.
        sigma = np.sqrt(self.scatter / 2) / power
        return {
            label: float(flux)
            for label, flux, one in zip(self.labels, fluxes, sigma, strict=True)
            if flux > LEAST_SNR * one
        }
