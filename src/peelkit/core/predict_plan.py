"""How pixels of a model are predicted at the least cost: by sums over few of them, or on grids cut to them.

Also the least number of images that stand for a sky whose brightness changes with frequency, since each
image is gridded anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Seconds of one core, as measured on an AMD EPYC (2 to 2.5 GHz, AVX-512) in double precision.
# For a component: each row, and each visibility; and for a visibility whatever the components.
DIRECT_ROW_S, DIRECT_VIS_S, DIRECT_LEAST_S = 80e-9, 2.3e-9, 30e-9
# On a grid: each visibility, and each pixel in each plane of w.
GRID_VIS_S, GRID_PIXEL_S = 200e-9, 45e-9
# Planes of w that a kernel of ducc's width needs, and more for each turn of phase that w makes at the edge.
W_LEAST, W_MORE = 8.0, 3.0
# A call beside that.
GRID_CALL_S = 1e-3

# Bytes of ducc0's grid for each pixel: it is up to twice as fine, and complex.
GRID_PIXEL_BYTES = 64

# Sum of what is left out when images are replaced by fewer, over the sum of all components.
PLANE_ACCURACY = 3e-6

# Cuts are made in gaps wider than this [pixel], and so often at most.
LEAST_GAP = 16
MOST_DEPTH = 12


@dataclass(frozen=True)
class Amount:
    """How much is to be predicted.

    Parameters
    ----------
    rows, chans : int
        Baselines and frequencies.
    planes : int
        Images that stand for the sky.
    w_waves : float
        Extent of w [wavelengths].
    cell_rad : float
        Pixel size [rad].
    most_pixels : float
        Pixels of one grid at most.
    """

    rows: int
    chans: int
    planes: int
    w_waves: float
    cell_rad: float
    most_pixels: float

    def direct_s(self, components: int) -> float:
        """Cost of a direct sum [s]."""
        vis = self.rows * self.chans
        return vis * DIRECT_LEAST_S + components * (self.rows * DIRECT_ROW_S + vis * DIRECT_VIS_S)

    def grid_s(
        self, xs: NDArray[np.int64], ys: NDArray[np.int64], centre: tuple[float, float]
    ) -> float:
        """Cost of a grid around these pixels [s]."""
        width, height = (int(one.max() - one.min()) + 1 for one in (xs, ys))
        pixels = max(32, width) * max(32, height)
        far = max(abs(float(edge) - centre[0]) for edge in (xs.min(), xs.max())) ** 2
        far += max(abs(float(edge) - centre[1]) for edge in (ys.min(), ys.max())) ** 2
        layers = W_LEAST + W_MORE * self.w_waves * far * self.cell_rad**2 / 2
        one = self.rows * self.chans * GRID_VIS_S + pixels * layers * GRID_PIXEL_S + GRID_CALL_S
        return self.planes * one if pixels <= self.most_pixels else np.inf


def pieces(
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    centre: tuple[float, float],
    amount: Amount,
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Cut a model up for the least cost: indices of what is summed directly, and of each grid.

    Parameters
    ----------
    xs, ys : ndarray of int, shape (pixel,)
        Pixels that are not zero.
    centre : tuple of float
        Pixel of the tangent point.
    amount : Amount
        What is predicted.
    """
    _, found = _best(np.arange(xs.size), xs, ys, centre, amount, 0)
    direct = [index for index, gridded in found if not gridded]
    joined = np.sort(np.concatenate(direct)) if direct else np.empty(0, dtype=np.int64)
    return joined, [index for index, gridded in found if gridded]


def _best(
    index: NDArray[np.int64],
    xs: NDArray[np.int64],
    ys: NDArray[np.int64],
    centre: tuple[float, float],
    amount: Amount,
    depth: int,
) -> tuple[float, list[tuple[NDArray[np.int64], bool]]]:
    """Cheapest way for some pixels: as one piece, or cut in two at the widest gap."""
    here_x, here_y = xs[index], ys[index]
    direct, grid = amount.direct_s(index.size), amount.grid_s(here_x, here_y, centre)
    best, found = min((direct, [(index, False)]), (grid, [(index, True)]), key=lambda one: one[0])
    # Nothing is won by cutting what costs as little as the visibilities alone.
    if index.size < 2 or depth >= MOST_DEPTH or best <= amount.direct_s(1):
        return best, found
    cut = _cut(here_x, here_y, forced=not np.isfinite(grid))
    if cut is not None:
        cost = 0.0
        parts: list[tuple[NDArray[np.int64], bool]] = []
        for side in (index[cut], index[~cut]):
            one, more = _best(side, xs, ys, centre, amount, depth + 1)
            cost, parts = cost + one, parts + more
        if cost < best:
            best, found = cost, parts
    return best, found


def _cut(xs: NDArray[np.int64], ys: NDArray[np.int64], *, forced: bool) -> NDArray[np.bool_] | None:
    """One side of the widest gap along x or y; of the middle if there must be a cut, and no gap is wide."""
    widest, cut = 0, None
    for places in (xs, ys):
        order = np.unique(places)
        gaps = np.diff(order)
        if gaps.size and gaps.max() > widest:
            widest = int(gaps.max())
            cut = places <= order[int(np.argmax(gaps))]
    if widest > LEAST_GAP:
        return cut
    if forced and cut is not None:
        places = max((xs, ys), key=lambda one: int(one.max() - one.min()))
        return np.asarray(places <= (int(places.max()) + int(places.min())) // 2)
    return None


def fewest_planes(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fewest images, and their weights, that give the same sky to `PLANE_ACCURACY`.

    The sky ``S = values^T weights``, of shape (pixel, chan), has as many singular values that count as
    there are ways in which sources differ over the band: one where all have the same spectrum.

    Parameters
    ----------
    values : ndarray, shape (plane, pixel)
        Images.
    weights : ndarray, shape (plane, chan)
        Their weights.
    """
    if values.shape[0] == 1 or values.shape[1] == 0:
        return values, weights
    # S = values^T R^T Q^T with weights^T = Q R: the SVD of a matrix with few columns.
    q, r = np.linalg.qr(weights.T)
    left, scale, right = np.linalg.svd(values.T @ r.T, full_matrices=False)
    images, shares = left * scale, right @ q.T
    total = np.abs(values.T @ weights).sum(axis=0).max()
    # What leaving out the last images, one after another, takes away at most.
    lost = np.abs(images).sum(axis=0) * np.abs(shares).max(axis=1)
    rest = np.cumsum(lost[::-1])[::-1]
    count = max(1, int(np.count_nonzero(rest > PLANE_ACCURACY * total)))
    if count >= values.shape[0]:
        return values, weights
    return np.ascontiguousarray(images[:, :count].T), shares[:count]


__all__ = ["Amount", "fewest_planes", "pieces"]
