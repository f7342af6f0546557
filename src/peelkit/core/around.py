"""A small field about one region: which region, where the image goes, how it is cleaned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import Angle, SkyCoord
from numpy.typing import NDArray

from peelkit.core import imagers, imaging
from peelkit.core.imaging import Cleaned, Target
from peelkit.engines import casa as engine
from peelkit.errors import DataError
from peelkit.io import frames, ms
from peelkit.io.image import Image
from peelkit.io.region import LabelledRegion, pixel_box, read_regions, region_mask

# The image is so many times as wide as the region.
WIDTHS = 2.0


@dataclass(frozen=True)
class Around:
    """A region, and the image about it.

    Parameters
    ----------
    regions : Path
        File of the region.
    region : LabelledRegion
        The region; it is the clean mask.
    centre : SkyCoord
        Middle of its bounding box, in ICRS.
    imaging : Imaging
        As another image, but for place and size.
    """

    regions: Path
    region: LabelledRegion
    centre: SkyCoord
    imaging: engine.Imaging

    def record(self) -> dict[str, Any]:
        """What the sidecar says of it."""
        return {
            "regions": str(self.regions),
            "number": self.region.number,
            "label": self.region.label,
            "ra_deg": float(self.centre.ra.deg),
            "dec_deg": float(self.centre.dec.deg),
        }


def settle(
    text: str, like: Image, made: engine.Imaging, info: ms.MsInfo, rows: NDArray[np.int64]
) -> Around:
    """Settle the small field that ``text``, REGIONS[:LABEL or number], asks for.

    Parameters
    ----------
    like : Image
        Gives cell and frame.
    made : Imaging
        How ``like`` was made.
    info : MsInfo
        The MS; its ``rows`` give the frame of the phase centre.

    Raises
    ------
    DataError
        If ``like`` is a mosaic, there is no such region, or it is on the other side of the sky or wider than
        ``like``.
    """
    if made.is_mosaic:
        # Measured: a source in four fields has a quarter of its flux in 64 pixels about it.
        raise DataError(
            f"{like.path}: a mosaic; CASA loses fluxes in a small image of one, where pointings lie outside. "
            "Give --like an image of one field (image-residual --field)."
        )
    path, region = pick(text, like)
    x, y, width = pixel_box(region, like)
    if width > max(like.data.shape):
        raise DataError(
            f"{region}: {width * like.cell_arcsec / 3600:.3g} deg wide, wider than {like.path}; a small field is "
            "imaged about it (DS9 takes a bare number for degrees)."
        )
    centre = like.sky(x, y)
    with ms.opened(info.path) as main:
        field = int(ms.get(main, "FIELD_ID", rows[:1])[0])
    size = imaging.fast_size(WIDTHS * width)
    small = replace(made, imsize=size, phasecenter=casa_direction(centre, info.fields[field].frame))
    return Around(path, region, centre, small)


def pick(text: str, image: Image) -> tuple[Path, LabelledRegion]:
    """Region file and region of REGIONS[:LABEL or number]; a label goes before a number.

    ``image`` is what the regions are for.

    Raises
    ------
    DataError
        If there is no such region, or there are several and none is named.
    """
    path, name = Path(text), ""
    if not path.exists() and ":" in text:
        file, _, name = text.rpartition(":")
        path = Path(file)
    found = read_regions(path, image)
    if not name and len(found) == 1:
        return path, found[0]
    known = ", ".join(region.label or str(region.number) for region in found)
    if not name:
        raise DataError(
            f"{path}: {len(found)} regions ({known}); name one, {path}:{found[0].label or 1}."
        )
    chosen = [region for region in found if region.label == name]
    chosen = chosen or [region for region in found if str(region.number) == name]
    if len(chosen) != 1:
        count = "several regions" if chosen else "no region"
        raise DataError(f"{path}: {count} {name!r}; there are {known}, numbered from 1.")
    return path, chosen[0]


def casa_direction(place: SkyCoord, frame: str) -> str:
    """Direction in CASA's words and ``frame``, or in ICRS where astropy does not know that."""
    known = frames.astropy_frame(frame)
    if known is None or frame == "GALACTIC":
        frame, known = "ICRS", frames.astropy_frame("ICRS")
    sphere = place.transform_to(known).represent_as("unitspherical")
    hours = Angle(sphere.lon).to_string(unit="hourangle", sep="hms", precision=5)
    degrees = Angle(sphere.lat).to_string(unit="deg", sep="dms", precision=4, alwayssign=True)
    return f"{frame} {hours} {degrees}"


def clean(
    imager: imagers.Imager, target: Target, out: Path, around: Around, *, nsigma: float
) -> Cleaned:
    """Image the small field, and clean it in the region alone."""
    small = around.imaging
    dirty = imaging.dirty_image(imager, target, out, small)
    mask = region_mask(around.region, dirty.image)
    return imaging.clean_in_mask(imager, target, out, small, mask, nsigma=nsigma, resume=True)
