"""Images, FITS and CASA alike: one plane with its world coordinates, beam and unit."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import FK4, FK5, ICRS, BaseCoordinateFrame, Galactic, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from peelkit.errors import DataError
from peelkit.io.leapseconds import casa_images

# CASA's B1950_VLA is FK4 at equinox B1950 as the VLA used it, with epoch 1979.9; it writes the
# epoch into EQUINOX of its FITS files.
B1950_VLA_EPOCH = 1979.9

# FITS' numbers of Stokes parameters and correlations (Greisen & Calabretta 2002, A&A 395, 1061, table 7).
STOKES_CODES = {
    1: "I", 2: "Q", 3: "U", 4: "V", -1: "RR", -2: "LL", -3: "RL", -4: "LR",
    -5: "XX", -6: "YY", -7: "XY", -8: "YX",
}  # fmt: skip
_STOKES_NUMBERS = {name: number for number, name in STOKES_CODES.items()}

# Two grids are the same if they differ by no more than this share of a pixel.
GRID_TOLERANCE = 0.05

# Pixels whose sides differ by less than this share are square.
SQUARE = 1e-6


@dataclass(frozen=True)
class Beam:
    """Restoring beam: full widths at half maximum [arcsec] and position angle [deg]."""

    major_arcsec: float
    minor_arcsec: float
    pa_deg: float

    @property
    def area_arcsec2(self) -> float:
        """Solid angle of the Gaussian beam [arcsec^2]."""
        return math.pi * self.major_arcsec * self.minor_arcsec / (4 * math.log(2))


@dataclass(frozen=True)
class Image:
    """One Stokes I plane of an image.

    Parameters
    ----------
    path : Path
        Where it was read.
    data : ndarray of float, shape (ny, nx)
        Brightness in ``unit``; NaN where the image is blank or masked.
    wcs : astropy.wcs.WCS
        Celestial coordinates of the two axes.
    frame : astropy.coordinates.BaseCoordinateFrame
        The frame of these coordinates (CASA's B1950_VLA is told from plain B1950).
    beam : Beam or None
        None if the image has none (a model, a mask).
    unit : str
        ``Jy/beam`` or ``Jy/pixel``, whatever the prefix in the file; another as it is there.
    shape : tuple of int
        Of the whole image: (..., ny, nx).
    freq_hz : float or None
        Reference frequency [Hz].
    stokes : tuple of str
        All planes of the image along its Stokes axis, of which ``data`` is one; empty without an axis.
    """

    path: Path
    data: NDArray[np.floating[Any]]
    wcs: WCS
    frame: BaseCoordinateFrame
    beam: Beam | None
    unit: str
    shape: tuple[int, ...]
    freq_hz: float | None
    stokes: tuple[str, ...] = ()

    @property
    def cell_arcsec(self) -> float:
        """Pixel size, the geometric mean of both axes [arcsec]."""
        scales = np.abs(np.asarray(self.wcs.proj_plane_pixel_scales(), dtype=object))
        values = [scale.to_value("arcsec") for scale in scales]
        return math.sqrt(values[0] * values[1])

    @property
    def stretch(self) -> tuple[float, float]:
        """Sides of a pixel along x and y, in units of `cell_arcsec`: 1 and 1 where it is square."""
        scales = [
            scale.to_value("arcsec") / self.cell_arcsec
            for scale in np.asarray(self.wcs.proj_plane_pixel_scales(), dtype=object)
        ]
        x, y = (1.0 if abs(abs(scale) - 1) < SQUARE else abs(scale) for scale in scales)
        return x, y

    def apart(self, x: Any, y: Any) -> Any:
        """Length of an offset (x, y) [pixel] on the sky, in units of `cell_arcsec`."""
        wide, high = self.stretch
        return np.hypot(x * wide, y * high)

    @property
    def beam_pixels(self) -> float:
        """Beam solid angle in pixels.

        Raises
        ------
        DataError
            If the image has no beam.
        """
        if self.beam is None:
            raise DataError(f"{self.path}: no restoring beam; use a restored image.")
        return self.beam.area_arcsec2 / self.cell_arcsec**2

    def sky(self, x: float, y: float) -> SkyCoord:
        """ICRS position of pixel (x, y), counted from 0."""
        lon, lat = self.wcs.wcs_pix2world(x, y, 0)
        unit = self.wcs.wcs.cunit
        icrs = SkyCoord(lon * unit[0], lat * unit[1], frame=self.frame).icrs
        # Made anew: the transformed one would carry the equinox of our frame into the next frame.
        return SkyCoord(icrs.ra, icrs.dec, frame="icrs")

    def pixel(self, position: SkyCoord) -> tuple[float, float]:
        """Pixel (x, y), counted from 0, of a sky position in any frame."""
        local = position.transform_to(self.frame)
        sphere = local.represent_as("unitspherical")
        unit = self.wcs.wcs.cunit
        x, y = self.wcs.wcs_world2pix(sphere.lon.to_value(unit[0]), sphere.lat.to_value(unit[1]), 0)
        return float(x), float(y)


def grid_difference(one: Image, two: Image) -> str | None:
    """Say how the pixels of two images differ; None if they are the same on the sky."""
    if one.data.shape != two.data.shape:
        return "{1}x{0} pixels, not {3}x{2}".format(*one.data.shape, *two.data.shape)
    ny, nx = one.data.shape
    offsets = []
    for x, y in ((0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1), ((nx - 1) / 2, (ny - 1) / 2)):
        there = one.pixel(two.sky(x, y))
        offsets.append(math.hypot(there[0] - x, there[1] - y))
    # Corners may be off the sky, the middle is not.
    worst = max([offset for offset in offsets if math.isfinite(offset)], default=math.inf)
    if math.isfinite(offsets[-1]) and worst <= GRID_TOLERANCE:
        return None
    reasons = [f"its pixels are up to {worst:.3g} pixels off on the sky"]
    if abs(one.cell_arcsec / two.cell_arcsec - 1) > 1e-6:
        reasons.append(f"cell {one.cell_arcsec:.6g} and not {two.cell_arcsec:.6g} arcsec")
    if one.frame.name != two.frame.name:
        reasons.append(f"frame {one.frame.name} and not {two.frame.name}")
    return ", ".join(reasons)


def pixels_of(
    one: Image, two: Image, x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels of ``two`` at the sky positions of pixels (x, y) of ``one``; NaN off the sky."""
    lon, lat = one.wcs.wcs_pix2world(x, y, 0)  # degrees, whatever unit the header has
    if not one.frame.is_equivalent_frame(two.frame):
        there = SkyCoord(lon, lat, unit="deg", frame=one.frame).transform_to(two.frame)
        local = there.represent_as("unitspherical")
        lon, lat = local.lon.deg, local.lat.deg
    other_x, other_y = two.wcs.wcs_world2pix(lon, lat, 0)
    return np.asarray(other_x), np.asarray(other_y)


def is_casa_image(path: Path) -> bool:
    """Tell whether ``path`` is a CASA image: a folder with a casacore table."""
    return path.is_dir() and (path / "table.dat").exists()


def read_image(path: Path, stokes: str = "") -> Image:
    """Read the Stokes I plane of a FITS or CASA image, or the plane ``stokes``.

    Raises
    ------
    DataError
        If it is no image, has several channels, or has no such plane.
    """
    return as_image(path, *load_image(path), stokes=stokes)


def read_restored(path: Path) -> Image:
    """Read an image in which fluxes can be measured: in Jy/beam, with a beam.

    Raises
    ------
    DataError
        If it is another.
    """
    if (path / "ANTENNA").is_dir():
        raise DataError(f"{path}: a Measurement Set, not an image; give the image made of it.")
    image = read_image(path)
    if image.beam is None:
        raise DataError(f"{path}: no restoring beam; use a restored image.")
    if image.unit != "Jy/beam":
        raise DataError(
            f"{path}: unit {image.unit!r}, where Jy/beam (or mJy/beam, uJy/beam) is needed; use a restored image."
        )
    return image


def load_image(path: Path) -> tuple[NDArray[Any], fits.Header, BaseCoordinateFrame]:
    """Whole array of an image, (..., ny, nx), its header in FITS' words, and its direction frame.

    Raises
    ------
    DataError
        If it is no image.
    """
    if not path.exists():
        raise DataError(f"{path}: no such image.")
    try:
        if is_casa_image(path):
            return _read_casa(path)
        if path.is_file():
            return _read_fits(path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: neither a FITS file nor a CASA image ({str(error).splitlines()[0]})."
        ) from error
    raise DataError(f"{path}: neither a FITS file nor a CASA image.")


def as_image(
    path: Path,
    data: NDArray[Any],
    header: fits.Header,
    frame: BaseCoordinateFrame,
    *,
    stokes: str = "",
) -> Image:
    """Make an `Image` of what `load_image` gave: of plane I (or the only one), or ``stokes``."""
    plane = _plane(path, data, header, stokes)
    unit, factor = brightness_unit(str(header.get("BUNIT", "")))
    if factor != 1:
        plane = plane * plane.dtype.type(factor)
    with warnings.catch_warnings():
        # CASA's FITS files lack what astropy then derives from the rest; nothing to act on.
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header, naxis=2)
    beam = None
    if header.get("BMAJ"):
        beam = Beam(header["BMAJ"] * 3600, header["BMIN"] * 3600, header.get("BPA", 0.0))
    axis = frequency_axis(header, data.ndim)
    return Image(
        path=path,
        data=plane,
        wcs=wcs,
        frame=frame,
        beam=beam,
        unit=unit,
        shape=data.shape,
        freq_hz=None
        if axis is None
        else float(header.get(f"CRVAL{axis}", 0.0)) * freq_unit_hz(header, axis),
        stokes=tuple(stokes_names(data, header)),
    )


def brightness_unit(text: str) -> tuple[str, float]:
    """Unit of an image as it is used here, and what to multiply its values by.

    Fluxes per beam or pixel, however spelt and with whatever prefix, are in ``Jy/beam`` or
    ``Jy/pixel``; all else is as it is.
    """
    text = text.strip()
    # AIPS has capitals, others 'bm' and 'pix'; astropy knows the rest.
    plain = re.sub(r"\bJY\b", "Jy", text)
    plain = re.sub(r"\b(BEAM|BM|bm)\b", "beam", re.sub(r"\b(PIXEL|PIX|pix)\b", "pixel", plain))
    for name in ("Jy/beam", "Jy/pixel"):
        with contextlib.suppress(ValueError, TypeError):
            return name, float(u.Unit(plain).to(name))
    return text, 1.0


def frequency_axis(header: fits.Header, ndim: int) -> int | None:
    """FITS number of the frequency axis, from 3; None without one."""
    for axis in range(3, ndim + 1):
        if str(header.get(f"CTYPE{axis}", "")).startswith("FREQ"):
            return axis
    return None


def freq_unit_hz(header: fits.Header, axis: int) -> float:
    """Unit of a frequency axis [Hz]."""
    return float(u.Unit(str(header.get(f"CUNIT{axis}", "")).strip() or "Hz").to("Hz"))


def _plane(path: Path, data: NDArray[Any], header: fits.Header, stokes: str) -> NDArray[Any]:
    """Pick the plane: several channels are refused, of several Stokes the first is I."""
    names = stokes_names(data, header)
    if stokes and stokes not in names:
        raise DataError(
            f"{path}: no plane of Stokes {stokes} (it has {','.join(names) or 'none'})."
        )
    extra = data.ndim - 2
    index: list[int] = []
    for axis in range(extra):
        number = data.ndim - axis  # FITS axis number
        kind = str(header.get(f"CTYPE{number}", ""))
        if data.shape[axis] > 1 and kind != "STOKES":
            raise DataError(
                f"{path}: {data.shape[axis]} planes along {kind or 'an unnamed axis'}; "
                "give an image of one plane (a continuum image, or one channel)."
            )
        index.append(names.index(stokes) if stokes and kind == "STOKES" else 0)
    return np.asarray(
        data[tuple(index)], dtype=np.float64 if data.dtype.itemsize > 4 else np.float32
    )


def stokes_names(data: NDArray[Any], header: fits.Header) -> list[str]:
    """Planes along the Stokes axis, such as I, Q; empty without such an axis."""
    for axis in range(data.ndim - 2):
        number = data.ndim - axis
        if str(header.get(f"CTYPE{number}", "")) != "STOKES":
            continue
        first, step = header.get(f"CRVAL{number}", 1.0), header.get(f"CDELT{number}", 1.0)
        pixels = np.arange(data.shape[axis]) + 1 - header.get(f"CRPIX{number}", 1.0)
        return [STOKES_CODES.get(round(first + step * pixel), "?") for pixel in pixels]
    return []


def _read_fits(path: Path) -> tuple[NDArray[Any], fits.Header, BaseCoordinateFrame]:
    with fits.open(path, memmap=False) as hdus:
        hdu = _image_hdu(hdus)
        if hdu is None or hdu.data.ndim < 2 or not str(hdu.header.get("CTYPE1", "")):
            raise DataError(f"{path}: no image with sky coordinates in this FITS file.")
        header = hdu.header.copy()
        data = np.asarray(hdu.data, dtype=np.float32)
        if not header.get("BMAJ"):
            header.update(_beam_elsewhere(hdus, header))
    return data, header, _frame(header)


def _image_hdu(hdus: fits.HDUList) -> Any:
    """Find the first part of a FITS file that is an image with pixels; None if none is."""
    return next((hdu for hdu in hdus if hdu.is_image and hdu.data is not None), None)


def _beam_elsewhere(hdus: fits.HDUList, header: fits.Header) -> dict[str, float]:
    """BMAJ, BMIN and BPA [deg] of an image that has none in its header; empty if it has none at all.

    CASA writes a table BEAMS where planes have beams of their own, even of one plane (that of the first
    is taken, as of a CASA image); AIPS writes a line of HISTORY each time that it cleans.
    """
    names = ("BMAJ", "BMIN", "BPA")
    if "BEAMS" in hdus:
        beams = hdus["BEAMS"]
        values = [
            np.asarray(beams.data[name], dtype=float)
            * u.Unit(beams.columns[name].unit or "deg").to("deg")
            for name in names
        ]
        known = np.flatnonzero(values[0] > 0)
        if known.size:
            return {name: float(one[known[0]]) for name, one in zip(names, values, strict=True)}
    number = r"=\s*([-+.\dEe]+)"
    pattern = rf"AIPS\s+CLEAN\s+BMAJ{number}\s+BMIN{number}\s+BPA{number}"
    cleaned = re.findall(pattern, "\n".join(map(str, header.get("HISTORY", []))))
    if cleaned and float(cleaned[-1][0]) > 0:
        return dict(zip(names, map(float, cleaned[-1]), strict=True))
    return {}


def _frame(header: fits.Header) -> BaseCoordinateFrame:
    if str(header.get("CTYPE1", "")).startswith("GLON"):
        return Galactic()
    equinox = header.get("EQUINOX", header.get("EPOCH"))
    system = str(header.get("RADESYS", header.get("RADECSYS", ""))).strip()
    if not system:
        system = "ICRS" if equinox is None else ("FK4" if float(equinox) < 1984 else "FK5")
    if system.startswith("FK4"):
        if equinox is not None and abs(float(equinox) - B1950_VLA_EPOCH) < 0.01:
            header["EQUINOX"] = 1950.0
            return FK4(equinox="B1950", obstime=Time(B1950_VLA_EPOCH, format="byear"))
        return FK4(equinox=Time(equinox or 1950.0, format="byear"))
    if system == "FK5":
        return FK5(equinox=Time(equinox or 2000.0, format="jyear"))
    return ICRS()


# FITS' words, RADESYS and EQUINOX, for the direction frames that images can have.
CASA_FRAMES = {
    "J2000": ("FK5", 2000.0),
    "ICRS": ("ICRS", None),
    "B1950": ("FK4", 1950.0),
    "B1950_VLA": ("FK4", B1950_VLA_EPOCH),
    "GALACTIC": ("", None),
}


def _read_casa(path: Path) -> tuple[NDArray[Any], fits.Header, BaseCoordinateFrame]:
    CasaImage = casa_images()  # noqa: N806

    casa = CasaImage(str(path))
    data = np.array(casa.getdata(), dtype=np.float32)
    # numpy's convention: True is masked out.
    data[np.asarray(casa.getmask(), dtype=bool)] = np.nan
    coordinates = casa.coordinates().dict()
    info = casa.imageinfo()
    unit = casa.unit()
    del casa
    header = fits.Header()
    header["BUNIT"] = unit
    for key, entry in coordinates.items():
        if not isinstance(entry, dict) or "_image_axes" not in entry:
            continue
        axes = [int(axis) for axis in np.atleast_1d(entry["_image_axes"])]
        if key.startswith("direction"):
            _direction_header(header, entry)
            if axes != [data.ndim - 2, data.ndim - 1]:
                raise DataError(f"{path}: the sky axes are not the first two; use imtrans first.")
        elif key.startswith("stokes"):
            number = data.ndim - axes[0]
            header[f"CTYPE{number}"] = "STOKES"
            codes = [_STOKES_NUMBERS.get(str(name), 0) for name in entry["stokes"]]
            header[f"CRVAL{number}"], header[f"CRPIX{number}"] = float(codes[0]), 1.0
            header[f"CDELT{number}"] = float(codes[1] - codes[0]) if len(codes) > 1 else 1.0
        elif key.startswith("spectral"):
            header[f"CTYPE{data.ndim - axes[0]}"] = "FREQ"
            axis = entry["wcs"] if "wcs" in entry else entry["tabular"]
            header[f"CRVAL{data.ndim - axes[0]}"] = float(np.atleast_1d(axis["crval"])[0])
    if "CTYPE1" not in header:
        raise DataError(f"{path}: no sky coordinates.")
    # An image of several Stokes planes has a beam for each; they are of the same data, and plane I's counts.
    beam = info.get("restoringbeam") or info.get("perplanebeams", {}).get("*0")
    if beam and beam.get("major", {}).get("value", 0) > 0:
        header["BMAJ"] = _degrees(beam["major"])
        header["BMIN"] = _degrees(beam["minor"])
        header["BPA"] = _degrees(beam["positionangle"])
    return data, header, _frame(header)


def _degrees(quantity: dict[str, Any]) -> float:
    factor = {"arcsec": 1 / 3600, "deg": 1.0, "rad": 180 / math.pi, "arcmin": 1 / 60}
    return float(quantity["value"]) * factor[quantity["unit"]]


def _direction_header(header: fits.Header, entry: dict[str, Any]) -> None:
    system = str(entry["system"])
    if system not in CASA_FRAMES:
        raise DataError(f"direction frame {system}: not one of {', '.join(CASA_FRAMES)}.")
    radesys, equinox = CASA_FRAMES[system]
    names = ("GLON", "GLAT") if system == "GALACTIC" else ("RA--", "DEC-")
    scale = [180 / math.pi if unit == "rad" else 1.0 for unit in entry["units"]]
    header["WCSAXES"] = 2
    for axis in (1, 2):
        header[f"CTYPE{axis}"] = f"{names[axis - 1]}-{entry['projection']}"
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRVAL{axis}"] = float(entry["crval"][axis - 1]) * scale[axis - 1]
        header[f"CRPIX{axis}"] = float(entry["crpix"][axis - 1]) + 1
        header[f"CDELT{axis}"] = float(entry["cdelt"][axis - 1]) * scale[axis - 1]
    matrix = np.asarray(entry["pc"], dtype=float)
    for row in (1, 2):
        for column in (1, 2):
            header[f"PC{row}_{column}"] = float(matrix[row - 1, column - 1])
    for number, value in enumerate(np.atleast_1d(entry.get("projection_parameters", []))):
        if value:
            header[f"PV2_{number + 1}"] = float(value)
    header["LONPOLE"] = float(entry.get("longpole", 180.0))
    if radesys:
        header["RADESYS"] = radesys
    if equinox:
        header["EQUINOX"] = equinox


def write_like(
    path: Path,
    plane: NDArray[Any],
    like: Image,
    *,
    unit: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a plane with the axes of another image: FITS if ``path`` ends in .fits, else CASA.

    A mask (no unit) is the same in every plane of the template. Of an image with several Stokes planes
    only the first gets the values, the others are blank: they are not known.

    Parameters
    ----------
    path : Path
        The product. Written beside and then renamed, so that it is whole or absent.
    plane : ndarray, shape (ny, nx)
        The values.
    like : Image
        The template.
    unit : str, optional
        Brightness unit; the template's if None, none if empty.
    overwrite : bool
        Replace what exists.

    Raises
    ------
    DataError
        If it exists and may not be replaced, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists; give another name or --overwrite.")
    if plane.shape != like.data.shape:
        raise DataError(
            f"{path}: shape {plane.shape} does not match {like.path} {like.data.shape}."
        )
    full = np.array(np.broadcast_to(plane, like.shape), dtype=np.float32)
    if unit != "" and len(like.stokes) > 1:
        axis = full.ndim - 3 if full.shape[-3] == len(like.stokes) else full.ndim - 4
        np.moveaxis(full, axis, 0)[1:] = np.nan
    temporary = path.with_name(f".{path.name}.part")
    _remove(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".fits", ".fit"):
            _write_fits(temporary, full, like, unit)
        else:
            _write_casa(temporary, full, like, unit)
    except OSError as error:
        _remove(temporary)
        raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from error
    _remove(path)
    os.replace(temporary, path)  # noqa: PTH105


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_fits(path: Path, full: NDArray[Any], like: Image, unit: str | None) -> None:
    header = _full_header(like)
    header.pop("BUNIT", None)
    if word := like.unit if unit is None else unit:
        header["BUNIT"] = word
    fits.PrimaryHDU(full, header).writeto(path, output_verify="fix")


def _full_header(like: Image) -> fits.Header:
    """Complete FITS header of the template, all axes."""
    if not is_casa_image(like.path):
        with fits.open(like.path) as hdus:
            header: fits.Header = _image_hdu(hdus).header.copy()
        # The table of beams stays behind: one plane's beam is in the header.
        for key in ("BLANK", "CASAMBM"):
            header.pop(key, None)
        return _with_beam(header, like)
    CasaImage = casa_images()  # noqa: N806

    # Only the coordinates go through casacore's converter: it prints a line for each long
    # keyword of the image itself.
    handle, name = tempfile.mkstemp(suffix=".fits")
    os.close(handle)
    try:
        coordinates = CasaImage(str(like.path)).coordinates()
        CasaImage("", shape=list(like.shape), coordsys=coordinates).tofits(name)
        header = fits.getheader(name)
    finally:
        Path(name).unlink()
    return _with_beam(header, like)


def _with_beam(header: fits.Header, like: Image) -> fits.Header:
    if like.beam:
        header["BMAJ"] = like.beam.major_arcsec / 3600
        header["BMIN"] = like.beam.minor_arcsec / 3600
        header["BPA"] = like.beam.pa_deg
    return header


@contextlib.contextmanager
def _quiet_casacore() -> Iterator[None]:
    """Keep casacore's log off the terminal: it comments on each FITS card that it does not know."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _write_casa(path: Path, full: NDArray[Any], like: Image, unit: str | None) -> None:
    CasaImage = casa_images()  # noqa: N806

    with _quiet_casacore():
        coordinates = CasaImage(str(like.path)).coordinates()
    product = CasaImage(imagename=str(path), shape=list(like.shape), coordsys=coordinates)
    product.putdata(full)
    del product
    from casacore.tables import table

    with table(str(path), readonly=False, ack=False) as casa:
        if unit is None:
            casa.putkeyword("units", like.unit)
        elif unit:
            casa.putkeyword("units", unit)
        if like.beam is not None and unit != "":
            # A template that is FITS has no imageinfo to copy.
            quantities = {
                "major": {"value": like.beam.major_arcsec, "unit": "arcsec"},
                "minor": {"value": like.beam.minor_arcsec, "unit": "arcsec"},
                "positionangle": {"value": like.beam.pa_deg, "unit": "deg"},
            }
            casa.putkeyword("imageinfo", {"imagetype": "Intensity", "restoringbeam": quantities})
