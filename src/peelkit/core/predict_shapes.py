"""What each direction is predicted as: a point, a Gaussian, or components of a model image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core.apparent import apparent_fluxes
from peelkit.core.compact import Compact
from peelkit.core.compact_fit import Asked, Fitted, fit_compact
from peelkit.core.datacolumn import choose_calibrated
from peelkit.core.modelcol import Sky, read_models
from peelkit.core.predict_inputs import Direction, model_paths, mosaic_beam
from peelkit.core.primary_beam import Beam
from peelkit.core.skymodel import SkyModel, sky_model
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.image import Image, read_image
from peelkit.io.region import region_mask
from peelkit.products import product
from peelkit.progress import Progress

KINDS = ("auto", "clean", "point", "gaussian")

# Where no restoring beam is known, it is taken to be so many pixels wide.
BEAM_PIXELS = 5.0


@dataclass(frozen=True)
class Choice:
    """One direction's model.

    Parameters
    ----------
    sky : SkyModel or Compact
        What is predicted.
    reference_hz : float
        Where its flux is given [Hz].
    reason : str
        Why this shape, in words.
    fitted : Fitted or None
        How well it fits the data; None if it was not fitted.
    warning : str or None
        What the user should know.
    """

    sky: Sky
    reference_hz: float
    reason: str
    fitted: Fitted | None = None
    warning: str | None = None

    @property
    def fit(self) -> dict[str, Any]:
        """For the sidecar: figures of the fit, null if there was none, and why this shape."""
        size = self.fitted.size if self.fitted else None
        return {
            "position_error_arcsec": self.fitted.position_error_arcsec if self.fitted else None,
            "spectrum_rms": self.fitted.spectrum_rms if self.fitted else None,
            "amplitude_scatter": size.scatter if size else None,
            "drop": size.drop if size else None,
            "major_arcsec": size.major_arcsec if size else None,
            "minor_arcsec": size.minor_arcsec if size else None,
            "reason": self.reason,
        }

    @property
    def compact(self) -> Compact | None:
        """The point or Gaussian, if it is one."""
        return self.sky if isinstance(self.sky, Compact) else None

    @property
    def shape(self) -> str:
        """``point``, ``gaussian`` or ``clean``."""
        return self.sky.shape if isinstance(self.sky, Compact) else "clean"

    @property
    def flux_jy(self) -> float:
        """Flux at the model's reference frequency, or in its middle sub-band [Jy]."""
        if isinstance(self.sky, Compact):
            return float(self.sky.flux(np.array([self.reference_hz]))[0])
        return self.sky.flux_jy

    @property
    def components(self) -> int:
        """Pixels that are not zero; 1 of a point or Gaussian."""
        return 1 if isinstance(self.sky, Compact) else int(self.sky.xs.size)

    @property
    def peak_jy_pixel(self) -> float | None:
        """Largest pixel; None of a point or Gaussian."""
        return None if isinstance(self.sky, Compact) else float(self.sky.reference().max())

    @property
    def place(self) -> tuple[float, float]:
        """ICRS right ascension and declination [deg]: centroid of the positive pixels."""
        if isinstance(self.sky, Compact):
            return self.sky.ra_deg, self.sky.dec_deg
        # Negative components would pull the centroid out of the source.
        weight = np.maximum(self.sky.reference(), 0.0)
        place = self.sky.grid.like.sky(
            float(np.average(self.sky.xs, weights=weight)),
            float(np.average(self.sky.ys, weights=weight)),
        )
        return float(place.ra.deg), float(place.dec.deg)


@dataclass(frozen=True)
class Given:
    """Models of directions that come from elsewhere than the image.

    Parameters
    ----------
    source : Path or None
        Sidecar of ddsolve, for messages.
    refined : dict of str
        Label to refined point or Gaussian.
    clean : frozenset of str
        Labels of the earlier solve that have none: they need an image.
    images : dict of str
        Label to restored image of that direction alone.
    own : dict of str
        Label to column with the data of that direction alone.
    """

    source: Path | None = None
    refined: Mapping[str, Compact] = field(default_factory=dict)
    clean: frozenset[str] = frozenset()
    images: Mapping[str, Path] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> set[str]:
        """Directions that the image need not have."""
        return {*self.refined, *self.clean, *self.images}

    @classmethod
    def read(cls, refine: Path | None, direction_models: Sequence[str]) -> Given:
        """Read the sidecar, and take ``LABEL=IMAGE`` apart.

        Raises
        ------
        OptionError, DataError
            If one will not do.
        """
        images: dict[str, Path] = {}
        for text in direction_models:
            label, equals, image = text.partition("=")
            if not (label and equals and image):
                raise OptionError(f"--direction-model {text!r}: give LABEL=IMAGE.")
            if label in images:
                raise OptionError(f"--direction-model {text!r}: {label} has an image already.")
            images[label] = product(Path(image))
        if refine is None:
            return cls(images=images)
        results = sidecar.read(refine, "ddsolve")["results"]
        entries = results["directions"]
        refined = {
            one["label"]: Compact.of_record(one["refined"]) for one in entries if one.get("refined")
        }
        for label in sorted(set(refined) & set(images)):
            raise OptionError(
                f"--direction-model {label}: {refine} has a refined {refined[label].shape} of it; leave "
                "one out."
            )
        clean = frozenset(one["label"] for one in entries) - set(refined)
        return cls(refine, refined, clean, images, results.get("own_data", {}))


def parse_shapes(texts: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Kind of each direction, from ``KIND`` of all and ``LABEL=KIND`` of one.

    Raises
    ------
    OptionError
        If a kind or label is not known.
    """
    everywhere = "auto"
    single: dict[str, str] = {}
    for text in texts:
        label, equals, kind = text.rpartition("=")
        if kind not in KINDS:
            raise OptionError(f"--shape {text!r}: {kind!r} is not one of {', '.join(KINDS)}.")
        if not equals:
            everywhere = kind
            continue
        if label not in labels:
            raise OptionError(
                f"--shape {text!r}: no region is called {label!r}, only {', '.join(labels)}."
            )
        single[label] = kind
    return {label: single.get(label, everywhere) for label in labels}


def choose(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    parts: Sequence[Direction],
    sky: SkyModel,
    given: Given,
    *,
    shapes: Sequence[str],
    datacolumn: str,
    predictor: str,
    beam: Beam | None,
    beam_arcsec: float,
    is_mosaic: bool,
    progress: Progress,
) -> tuple[list[Choice], SkyModel]:
    """Model of each direction, and the rest of the sky.

    Components within a region are of its source: where that is compact they are CLEAN's scattered image
    of it, and go. With a refined model they are of an image without the source: only those within a
    beam of it are what is left of it, others are of the rest.

    Raises
    ------
    OptionError, DataError
        If options, or the data that a source is fitted to, will not do.
    """
    labels = [part.label for part in parts]
    kinds = parse_shapes(shapes, labels)
    _check_given(given, labels, shapes)
    if predictor == "tclean":
        _only_clean(kinds, given)
        kinds = dict.fromkeys(labels, "clean")
    rest = _rest(sky, parts, given, beam_arcsec)
    reference_hz = sky.reference_hz or float(np.mean([spw.centre_hz for spw in info.spws]))
    chosen: dict[str, Choice] = {}
    for part in parts:
        if part.label in given.refined:
            chosen[part.label] = Choice(
                given.refined[part.label], reference_hz, f"refined, from {given.source}"
            )
        elif part.label in given.images:
            image = given.images[part.label]
            own = _direction_sky(info, rows, part, image, is_mosaic=is_mosaic)
            asked = Asked(part.label, own, "auto")
            chosen[part.label] = _alone(
                info, rows, asked, given, reference_hz, beam, progress
            ) or Choice(own, reference_hz, f"model beside {image}")
        elif kinds[part.label] == "clean":
            why = "tclean predicts pixels only" if predictor == "tclean" else "as asked for"
            chosen[part.label] = Choice(part.sky, reference_hz, why)
    open_ones = [part for part in parts if part.label not in chosen]
    if open_ones:
        sources = [Asked(part.label, part.sky, kinds[part.label]) for part in open_ones]
        others = [rest, *(choice.sky for choice in chosen.values())]
        fitted = fit_compact(
            info, rows, choose_calibrated(info, rows, datacolumn), sources, others,
            reference_hz=reference_hz, beam=beam, progress=progress,
        )  # fmt: skip
        for part, found in zip(open_ones, fitted, strict=True):
            chosen[part.label] = _fitted(part, found, reference_hz)
    if beam is not None:
        chosen = _beyond_beams(
            info, rows, choose_calibrated(info, rows, datacolumn), chosen, rest, beam, progress
        )
    return [chosen[label] for label in labels], rest


def _beyond_beams(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    column: str,
    chosen: Mapping[str, Choice],
    rest: SkyModel,
    beam: Beam,
    progress: Progress,
) -> dict[str, Choice]:
    """Compact sources with the fluxes that fields show in which their primary beam is not known."""
    compact = {label: one.compact for label, one in chosen.items() if one.compact is not None}
    if not compact:
        return dict(chosen)
    others = [rest, *(one.sky for label, one in chosen.items() if label not in compact)]
    seen = apparent_fluxes(info, rows, column, compact, others, beam, progress)
    return {
        label: replace(one, sky=replace(compact[label], apparent=seen[label]))
        if label in compact
        else one
        for label, one in chosen.items()
    }


def _alone(
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    asked: Asked,
    given: Given,
    reference_hz: float,
    beam: Beam | None,
    progress: Progress,
) -> Choice | None:
    """Point or Gaussian that the data of a direction alone show; None without these, or if it is neither.

    Beside a brighter source with gains not yet known, a compact one passes for extended; in its own data
    that is over.
    """
    column = given.own.get(asked.label)
    if column is None or column not in info.columns:
        return None
    (found,) = fit_compact(
        info, rows, column, [asked], [], reference_hz=reference_hz, beam=beam, progress=progress
    )
    if found.model is None:
        return None
    return Choice(found.model, reference_hz, f"in {column}: {found.reason}", found, found.warning)


def _fitted(part: Direction, found: Fitted, reference_hz: float) -> Choice:
    return Choice(found.model or part.sky, reference_hz, found.reason, found, found.warning)


def _check_given(given: Given, labels: Sequence[str], shapes: Sequence[str]) -> None:
    for text in shapes:
        label = text.rpartition("=")[0]
        if label in given.labels:
            raise OptionError(f"--shape {text!r}: the model of {label} is given; leave one out.")
    for label in given.images:
        if label not in labels:
            raise OptionError(
                f"--direction-model {label}: no region is called so, only {', '.join(labels)}."
            )
    for label in labels:
        if label in given.clean and label not in given.images:
            raise DataError(
                f"{given.source}: {label} has no refined model; give an image of it with "
                f"--direction-model {label}=IMAGE."
            )


def _only_clean(kinds: Mapping[str, str], given: Given) -> None:
    asked = [label for label, kind in kinds.items() if kind in ("point", "gaussian")]
    if asked or given.labels:
        raise OptionError(
            "--predictor tclean predicts pixels of one model only; use --predictor ducc with --shape "
            "point or gaussian, --refine and --direction-model."
        )


def _rest(sky: SkyModel, parts: Sequence[Direction], given: Given, beam_arcsec: float) -> SkyModel:
    inside = np.zeros(sky.grid.shape, dtype=bool)
    for part in parts:
        mask = np.zeros(sky.grid.shape, dtype=bool)
        mask[part.sky.ys, part.sky.xs] = True
        if part.label in given.refined:
            mask &= _within(sky, given.refined[part.label], beam_arcsec)
        inside |= mask
    return sky.where(~inside)


def _within(sky: SkyModel, source: Compact, radius_arcsec: float) -> NDArray[np.bool_]:
    """Pixels that are no farther from a source, shape (ny, nx)."""
    x, y = sky.grid.like.pixel(SkyCoord(source.ra_deg, source.dec_deg, unit="deg", frame="icrs"))
    if not (math.isfinite(x) and math.isfinite(y)):
        return np.zeros(sky.grid.shape, dtype=bool)
    ys, xs = np.ogrid[: sky.grid.shape[0], : sky.grid.shape[1]]
    cell = sky.grid.like.cell_arcsec
    return np.asarray(sky.grid.like.apart(xs - x, ys - y) * cell <= radius_arcsec)


def _direction_sky(
    info: ms.MsInfo, rows: NDArray[np.int64], part: Direction, image: Path, *, is_mosaic: bool
) -> SkyModel:
    """The model beside an image of one direction, within the direction's region."""
    paths = model_paths((), image)
    pb = mosaic_beam(info, rows, paths, None) if is_mosaic else None
    whole = sky_model(read_models(paths), pb)
    found = whole.where(region_mask(part.region, whole.grid.like))
    if found.xs.size == 0 or not found.flux_jy > 0:
        raise DataError(f"{paths[0]}: no positive flux in {part.region}; give its own image.")
    return found


def restored_image(paths: Sequence[Path], image: Path | None) -> Image | None:
    """The restored image that was named, or is beside the model; None if there is none with a beam."""
    beside = image or paths[0].with_name(paths[0].name.replace(".model", ".image"))
    if beside == paths[0] or not beside.exists():
        return None
    found = read_image(beside)
    return found if found.beam is not None else None


def restoring_beam_arcsec(paths: Sequence[Path], image: Path | None, sky: SkyModel) -> float:
    """Major axis of the restoring beam, from the image beside the model, else `BEAM_PIXELS`."""
    restored = restored_image(paths, image)
    if restored is not None and restored.beam is not None:
        return restored.beam.major_arcsec
    return BEAM_PIXELS * sky.grid.like.cell_arcsec


def clean_skies(skies: Mapping[str, Sky]) -> dict[str, SkyModel]:
    """Those that are of pixels; with --predictor tclean all are."""
    return {name: sky for name, sky in skies.items() if isinstance(sky, SkyModel)}
