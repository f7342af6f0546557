"""Regions around islands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from numpy.typing import NDArray
from regions import EllipseSkyRegion
from scipy import ndimage
from scipy.spatial import ConvexHull

from peelkit.core.islands import Labels
from peelkit.io.image import Image
from peelkit.io.region import LabelledRegion, region_mask

# Regions reach this far beyond the pixels of their island [beams].
REGION_MARGIN = 0.5

# Of the search for the smallest ellipse; it has mostly found it after some dozens.
MOST_STEPS = 1000


@dataclass(frozen=True)
class Ellipse:
    """An ellipse around the centres of an island's pixels.

    Parameters
    ----------
    x, y : float
        Middle [pixel].
    major, minor : float
        Half axes [cell].
    along : tuple of float
        Direction (x, y) of the major axis [pixel], a cell long.
    """

    x: float
    y: float
    major: float
    minor: float
    along: tuple[float, float]


def enclosing_ellipses(labels: Labels, image: Image) -> list[Ellipse]:
    """Smallest ellipses around islands numbered 1, 2, ..., in that order."""
    wide, high = image.stretch
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        # Only pixels on the rim can touch the ellipse.
        rows, columns = np.nonzero(inside & ~ndimage.binary_erosion(inside))
        x, y, major, minor, along = _smallest_ellipse(
            (columns + box[1].start) * wide, (rows + box[0].start) * high
        )
        found.append(Ellipse(x / wide, y / high, major, minor, (along[0] / wide, along[1] / high)))
    return found


def _smallest_ellipse(
    columns: NDArray[Any], rows: NDArray[Any]
) -> tuple[float, float, float, float, tuple[float, float]]:
    """Ellipse of least area around points (Khachiyan's algorithm, to 1 %), as `Ellipse` has it."""
    # The corners of a small square for each point: no set of them is on a line.
    steps = np.array([(-0.1, -0.1), (-0.1, 0.1), (0.1, -0.1), (0.1, 0.1)])
    points = (np.stack([columns, rows], axis=1)[:, None, :] + steps).reshape(-1, 2)
    points = points[ConvexHull(points).vertices]
    count = len(points)
    lifted = np.vstack([points.T, np.ones(count)])
    weights = np.full(count, 1 / count)
    for _ in range(MOST_STEPS):
        reach = np.einsum(
            "ij,ij->j", lifted, np.linalg.solve((lifted * weights) @ lifted.T, lifted)
        )
        worst = int(np.argmax(reach))
        if reach[worst] <= 3 * 1.01:
            break
        step = (reach[worst] - 3) / (3 * (reach[worst] - 1))
        weights *= 1 - step
        weights[worst] += step
    centre = points.T @ weights
    offsets = points - centre
    values, vectors = np.linalg.eigh((offsets.T * weights) @ offsets)
    # Scaled so that all points are inside, to the last digit.
    scale = math.sqrt(float(np.max(np.sum((offsets @ vectors) ** 2 / values, axis=1))))
    minor, major = scale * np.sqrt(values)
    along = float(vectors[0, 1]), float(vectors[1, 1])
    return float(centre[0]), float(centre[1]), float(major), float(minor), along


def ellipse_region(image: Image, ellipse: Ellipse, label: str) -> LabelledRegion:
    """Region on the sky, in ICRS, half a beam wider than the ellipse."""
    assert image.beam is not None
    margin = REGION_MARGIN * image.beam.major_arcsec
    centre = image.sky(ellipse.x, ellipse.y)
    tip = image.sky(ellipse.x + ellipse.along[0], ellipse.y + ellipse.along[1])
    return LabelledRegion(
        EllipseSkyRegion(
            centre,
            width=2 * (ellipse.minor * image.cell_arcsec + margin) * u.arcsec,
            height=2 * (ellipse.major * image.cell_arcsec + margin) * u.arcsec,
            angle=(centre.position_angle(tip).deg % 180) * u.deg,
        ),
        label,
    )


def overlaps(image: Image, regions: Sequence[LabelledRegion]) -> list[str]:
    """Warn of regions that share pixels: what is in both would be subtracted twice."""
    owner = np.zeros(image.data.shape, dtype=np.int32)
    found = []
    for number, region in enumerate(regions, 1):
        pixels = region_mask(region, image)
        found += [
            f"{regions[other - 1].label} and {region.label}"
            for other in np.unique(owner[pixels])
            if other
        ]
        owner[pixels] = number
    if not found:
        return []
    return [
        f"regions overlap: {'; '.join(found)}; make one region of them, or shrink them, before "
        "predict-region, or what is in both is subtracted twice."
    ]
