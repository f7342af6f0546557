"""The sidecar of an image: how it was made, so that another column can be imaged in the same way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peelkit import __version__, sidecar
from peelkit.core import imaging as making
from peelkit.engines.casa import Imaging
from peelkit.errors import DataError
from peelkit.selection import Selection

COMMAND = "image"

# Commands whose sidecars describe an image.
ACCEPTED = (COMMAND, "image-residual")


def results(
    imagename: Path,
    imaging: Imaging,
    *,
    selection: Selection,
    column: str,
    nsigma: float,
    mark: str | None = None,
) -> dict[str, Any]:
    """Results of the sidecar of an image that was made of ``column``.

    ``pb`` is null unless the models are multiplied with it, which they are in a mosaic. ``mark`` is
    `peelkit.core.reuse.mark` of the rows; another image with the same may take the PSF.
    """
    mask = cleanmask(imagename)
    return {
        "image": str(imaging.image(imagename)),
        "psf": str(imaging.psf(imagename)),
        "models": [str(path) for path in imaging.models(imagename)],
        "residual": str(imaging.residual(imagename)),
        "mask": str(mask) if mask.exists() else None,
        "pb": str(imaging.pb(imagename)) if imaging.is_mosaic else None,
        "field": selection.field,
        "spw": selection.spw,
        "scan": selection.scan,
        "datacolumn": column,
        "nsigma": nsigma,
        "psf_mark": mark,
        "imaging": making.summary(imaging),
    }


def cleanmask(imagename: Path) -> Path:
    """Mask that an image is cleaned in."""
    return imagename.with_name(f"{imagename.name}.cleanmask")


def write(
    imagename: Path,
    imaging: Imaging,
    *,
    ms: Path,
    selection: Selection,
    column: str,
    nsigma: float,
    engine: Mapping[str, Any],
    started: float,
    mark: str | None = None,
) -> Path:
    """Write the sidecar beside an image; returns its path.

    Parameters
    ----------
    imagename : Path
        As tclean calls it, without ``.image``.
    ms : Path
        The user's MS, and what of it was imaged: ``selection`` and ``column``.
    nsigma : float
        Depth that it was cleaned to.
    engine : dict
        From `Casa.engine`.
    started : float
        When the work on it began [s since 1970].
    mark : str, optional
        `peelkit.core.reuse.mark` of the rows.
    """
    path = sidecar.image_sidecar(imaging.image(imagename))
    sidecar.write(
        path,
        {
            "schema": sidecar.SCHEMA,
            "command": COMMAND,
            "peelkit": __version__,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(max(0.0, time.time() - started), 3),
            "inputs": {"ms": str(ms)},
            "parameters": asdict(selection),
            "reads": (column, "FLAG", "WEIGHT"),
            "writes": (),
            "engine": engine,
            "warnings": (),
            "refusal": None,
            "results": results(
                imagename, imaging, selection=selection, column=column, nsigma=nsigma, mark=mark
            ),
        },
    )
    return path


@dataclass(frozen=True)
class ImageRecord:
    """What the sidecar of an image says.

    Parameters
    ----------
    image, psf : Path
        Where they are now: beside the sidecar.
    mask : Path or None
        That it was cleaned in; None if it was not cleaned.
    selection : Selection
        Fields, spws and scans.
    column : str
        What was imaged.
    nsigma : float
        Depth of cleaning.
    imaging : Imaging
        All else.
    mark : str or None
        `peelkit.core.reuse.mark` of the rows; None if it is not known.
    """

    image: Path
    psf: Path
    mask: Path | None
    selection: Selection
    column: str
    nsigma: float
    imaging: Imaging
    mark: str | None = None

    @property
    def imagename(self) -> Path:
        """As tclean calls it, without ``.image``."""
        return self.image.with_name(self.image.name.removesuffix(f".image{self.imaging.suffix}"))


def read(image: Path) -> ImageRecord:
    """Read the sidecar of ``image``.

    Raises
    ------
    DataError
        If there is none, or what it names is gone.
    """
    if not image.exists():
        raise DataError(f"{image}: no such image.")
    path = sidecar.image_sidecar(image)
    if not path.exists():
        raise DataError(
            f"{image}: has no sidecar {path.name} that says how it was made; give an image of peelkit "
            "selfcal or image-residual."
        )
    found = sidecar.read(path, *ACCEPTED)["results"]
    mask = None
    if found["mask"] is not None:
        mask = _beside(path, found["mask"])
        if not mask.exists():
            raise DataError(f"{mask}: the mask of {image} is gone; give another with --mask.")
    return ImageRecord(
        image=image,
        psf=_beside(path, found["psf"]),
        mask=mask,
        selection=Selection(field=found["field"], spw=found["spw"], scan=found["scan"]),
        column=found["datacolumn"],
        nsigma=float(found["nsigma"]),
        imaging=making.from_summary(found["imaging"]),
        mark=found.get("psf_mark"),
    )


def _beside(sidecar_path: Path, name: str) -> Path:
    # Paths in a sidecar are as the run saw them; the folder may have moved since.
    return sidecar_path.with_name(Path(name).name)
