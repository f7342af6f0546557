"""Frames of frequencies and directions: what CASA's images use, and what the correlator wrote."""

from __future__ import annotations

import math
from pathlib import Path

from astropy.coordinates import FK4, FK5, ICRS, BaseCoordinateFrame, Galactic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from casacore.measures import measures
from casacore.quanta import quantity

from peelkit.io.image import B1950_VLA_EPOCH, is_casa_image
from peelkit.io.leapseconds import casa_images, hush
from peelkit.io.ms import Field, MsInfo, Spw

# CASA's image frames for these are the spw's own: no Doppler shift is known for them.
UNSHIFTED = {"LSRK", "REST"}


def lsrk_over_spw(info: MsInfo, spw: Spw, *, field: int, time_s: float) -> float:
    """LSRK frequency over the frequency in the spw's own frame, towards a field at a time.

    tclean images in LSRK: it scales u, v, w by the LSRK frequency, and so its image positions are
    off by this factor (about 1e-4), which a prediction from its model must share.
    """
    if spw.frame in UNSHIFTED:
        return 1.0
    hush()
    machine = measures()
    centre = info.fields[field]
    machine.do_frame(machine.epoch("UTC", quantity(time_s, "s")))
    x, y, z = (quantity(value, "m") for value in info.antennas[0].position_m)
    length = math.sqrt(sum(value**2 for value in info.antennas[0].position_m))
    if length < 6e6:  # not on Earth's surface: no position, no shift
        return 1.0
    machine.do_frame(machine.position("ITRF", x, y, z))
    machine.do_frame(
        machine.direction(
            centre.frame, quantity(centre.ra_rad, "rad"), quantity(centre.dec_rad, "rad")
        )
    )
    own = machine.frequency(spw.frame, quantity(spw.centre_hz, "Hz"))
    shifted = machine.measure(own, "LSRK")
    return float(shifted["m0"]["value"]) / spw.centre_hz


def image_frame(path: Path) -> str:
    """Frequency frame of an image, CASA's word for it; LSRK where it says nothing.

    An image of another imager in TOPO has its sources at their true places; CASA's own are in LSRK.
    """
    if is_casa_image(path):
        CasaImage = casa_images()  # noqa: N806

        for key, entry in CasaImage(str(path)).coordinates().dict().items():
            if key.startswith("spectral"):
                return str(entry.get("system", "LSRK"))
        return "LSRK"
    with fits.open(path) as hdus:
        for hdu in hdus:
            if "SPECSYS" in hdu.header:
                return {"TOPOCENT": "TOPO"}.get(
                    str(hdu.header["SPECSYS"]).strip(), str(hdu.header["SPECSYS"]).strip()
                )
    return "LSRK"


def astropy_frame(name: str) -> BaseCoordinateFrame | None:
    """Direction frame that CASA calls ``name``; None if astropy has no fixed one for it."""
    known: dict[str, BaseCoordinateFrame] = {
        "J2000": FK5(equinox="J2000"),
        "ICRS": ICRS(),
        "B1950": FK4(equinox="B1950"),
        "B1950_VLA": FK4(equinox="B1950", obstime=Time(B1950_VLA_EPOCH, format="byear")),
        "GALACTIC": Galactic(),
    }
    return known.get(name)


def field_place(field: Field) -> SkyCoord | None:
    """Phase centre of a field; None if its frame is none of the fixed ones, as that of a moving source."""
    frame = astropy_frame(field.frame)
    if frame is None:
        return None
    return SkyCoord(field.ra_rad, field.dec_rad, unit="rad", frame=frame)


def direction(text: str) -> SkyCoord | None:
    """A direction in CASA's words, such as ``J2000 12h01m52.4s -18d52m03s``; None as `field_place`."""
    name, ra, dec = text.split()
    frame = astropy_frame(name)
    return None if frame is None else SkyCoord(ra, dec, frame=frame)
