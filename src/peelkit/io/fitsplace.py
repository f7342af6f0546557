"""Say in a FITS image where on the sky it is, in the frame of the field that was imaged."""

from __future__ import annotations

import math
from pathlib import Path

from astropy.io import fits

from peelkit.io.image import CASA_FRAMES
from peelkit.io.ms import Field

# Frames that an image of ``u, v, w`` can be given in.
PLACED = frozenset({"J2000", "ICRS", "B1950", "B1950_VLA"})


def place(path: Path, field: Field) -> None:
    """Put the tangent point of a FITS image of WSClean at the field's phase centre, in the field's frame.

    Its pixels are direction cosines about the phase centre along the axes of ``u, v, w``, which are those of the
    frame of the field. WSClean turns the phase centre into J2000 and leaves the pixels as they are: of a field in
    B1950 they are then off by the angle between the two norths.

    Parameters
    ----------
    field : Field
        Of the MS; its frame one of `PLACED`.
    """
    system, equinox = CASA_FRAMES[field.frame]
    with fits.open(path, mode="update") as hdus:
        header = hdus[0].header
        header["CRVAL1"] = math.degrees(field.ra_rad) % 360
        header["CRVAL2"] = math.degrees(field.dec_rad)
        header["RADESYS"] = system
        header.remove("EQUINOX", ignore_missing=True)
        if equinox is not None:
            header["EQUINOX"] = equinox
        # Pixels are of no projection but SIN, whose pole is the phase centre.
        header["LONPOLE"] = 180.0
