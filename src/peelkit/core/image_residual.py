"""The work of ``peelkit image-residual``: image a column as another image was made."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.core import (
    around,
    averaging,
    image_place,
    image_record,
    imaged_ms,
    imagers,
    imaging,
    mosaic,
    restoring,
    reuse,
)
from peelkit.core import dry_run as rehearsal
from peelkit.core.first_image import FIRST_NSIGMA, first_image
from peelkit.core.image_record import ImageRecord
from peelkit.core.imaging import Cleaned, Target
from peelkit.core.measure import measure, robust_rms
from peelkit.core.noisemap import NEIGHBOURS
from peelkit.core.selfcal_session import figures_record
from peelkit.core.verdict import State
from peelkit.engines import casa as engine
from peelkit.errors import DataError, OptionError
from peelkit.io import journal, ms
from peelkit.io.image import Image, grid_difference, read_image, write_like
from peelkit.io.survey import survey
from peelkit.outcome import Outcome
from peelkit.progress import Progress
from peelkit.selection import Selection, check_uvrange

log = logging.getLogger(__name__)

COMMAND = "image-residual"

# The mask opens so many times at most: faint sources stand out only when the brighter ones' sidelobes are gone
# (a field of 38 sources: local rms 2.6 times that of a perfect image with one, 1.4 with two).
OPENINGS = 3

# From this ratio of the noises the user is warned: robust rms outside the mask, over that of the image
# it is compared with.
WORSE = 1.05


@dataclass(frozen=True)
class ImageOptions:
    """What the user asked for.

    Parameters
    ----------
    column : str
        To image.
    like : Path or None
        Image to repeat; the rest is chosen if None.
    mask : Path or None
        Mask or regions in place of the like-image's, or of one that is made.
    grow_mask : bool or None
        Open the mask to what stands out in it; None for yes, unless ``mask`` is given.
    mask_threshold : float
        Sigma that the mask opens to.
    nsigma : float or None
        Depth of cleaning; that of the like-image if None, or `FIRST_NSIGMA`.
    choices : Choices
        How to image; only without ``like``.
    begin_with : Path or None
        Earlier image of the same pixels, whose model and mask cleaning begins with; only with ``like``.
    around : str
        Region file, and label or number of the region that a small field is imaged about, in the manner
        of ``like``; empty for the whole image.
    imager : str or None
        In place of that of ``like``; only with it (else it is in ``choices``).
    restore : Path or None
        Sidecar of predict-region whose directions are put back as points.
    overwrite : bool
        Replace a finished image.
    """

    column: str = "PEELED_DATA"
    like: Path | None = None
    mask: Path | None = None
    grow_mask: bool | None = None
    mask_threshold: float = 4.5
    nsigma: float | None = None
    choices: imaging.Choices = imaging.Choices()
    begin_with: Path | None = None
    around: str = ""
    imager: str | None = None
    restore: Path | None = None
    overwrite: bool = False


def image_residual(
    path: Path,
    out: Path,
    selection: Selection,
    options: ImageOptions,
    progress: Progress | None = None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Image a column of the MS at ``path``; nothing in the MS is changed.

    Parameters
    ----------
    path : Path
        The MS.
    out : Path
        Name of the image without ``.image``, as tclean's imagename.
    selection : Selection
        Field (one, or those of a mosaic), spw and scan; only without ``options.like``, whose are used.
    options : ImageOptions
        See there.
    dry_run : bool
        Only check, and tell what it would cost.

    Raises
    ------
    OptionError, DataError
        If the options, the MS or the like-image will not do.
    """
    progress = progress or Progress()
    if out.name.endswith((".image", ".image.tt0")) or not out.name:
        raise OptionError(f"{out}: OUT is the name without .image, which CASA adds.")
    record = image_record.read(options.like) if options.like is not None else None
    start = None
    if options.begin_with is not None and record is not None:
        start = _start(options.begin_with, record, options.imager or record.imaging.imager)
    directions = _directions(options.restore) if options.restore is not None else []
    info = ms.read_info(path)
    if (step := journal.unfinished(path)) is not None:
        raise DataError(
            f"{path}: {step.command} was interrupted while it wrote; run it again, or 'peelkit undo' "
            f"{path}."
        )
    info.require(options.column, "give the one to image with --column (ddsolve makes PEELED_DATA).")
    ms.refuse_if_locked(path)
    image_place.check_free(out, overwrite=options.overwrite)
    image_place.keep_apart(out, filter(None, (options.like, options.mask, options.begin_with)))
    warnings: list[str] = []
    if record is not None:
        selection = record.selection
        settled = _switched(info, record, options.imager or record.imaging.imager, progress)
        given = options.choices.smearing
        settled = replace(settled, smearing=engine.SMEARING if given is None else given)
        nsigma = options.nsigma or record.nsigma
    else:
        check_uvrange(options.choices.uvrange)
        settled, fields, warnings = _choose(info, selection, options, progress)
        selection = replace(selection, field=fields)
        nsigma = options.nsigma or FIRST_NSIGMA
    selection = info.by_id(selection)
    imagers.check(settled, info, info.field_ids(selection), selection.spw)
    rows = ms.select_rows(info, selection)
    small = None
    if record is not None and options.around:
        small = around.settle(options.around, read_image(record.image), settled, info, rows)
        settled = small.imaging
    if dry_run:
        grows = options.grow_mask if options.grow_mask is not None else options.mask is None
        return rehearsal.image_residual(
            info, rows, settled, new=record is None, grows=grows and small is None, out=out
        )
    progress.stage(f"reading {options.column}")
    left = imaged_ms.audit(info, rows, options.column).warnings()
    warnings += left
    log_path = out.with_name(f"{out.name}.casa.log")
    with image_place.claimed(out):
        settled = averaging.settled(info, rows, out.absolute().parent, settled)
        # It starts while the data are written.
        with imagers.opened(settled.imager, log_path) as imager:
            while True:
                with imaged_ms.opened(
                    info, rows, options.column, out, settled, imager, copy=bool(left)
                ) as view:
                    target = Target(view, selection.field, selection.spw)
                    work = Work(
                        imager, target, out, settled, nsigma, options, progress, reuse.mark_of(view)
                    )
                    if small is not None:
                        cleaned, added = work.about(replace(small, imaging=settled))
                    elif record is not None:
                        cleaned, added = work.like(record, start)
                    else:
                        cleaned, added = work.new()
                    imaged = ms.read_info(view).n_rows
                needed = _bearable(info, cleaned, settled, selection, options)
                if needed >= settled.smearing:
                    break
                log.info("averages limit the image: once more, at a loss of %.1g", needed / 2)
                settled = replace(settled, smearing=needed / 2)
                imaging.remove_products(out)
            made_by = imager.engine()
        image = cleaned.image
        if image.beam is None:
            raise DataError(f"{image.path}: no beam was fitted; is there enough unflagged data?")
        results = image_record.results(
            out, settled, selection=selection, column=options.column, nsigma=nsigma, mark=work.mark
        )
        # Noise beside a source is not that of a whole field.
        results |= _figures(image, cleaned.mask, record if small is None else None)
        results["around"] = None if small is None else small.record()
        results |= {
            "mask_pixels": int(cleaned.mask.sum()),
            "mask_pixels_added": int(added.sum()),
            "mask_islands_added": new_islands(cleaned.mask, added),
            "rows": int(rows.size),
            "rows_imaged": imaged,
            "restored": None,
        }
        if record is not None and small is None and settled.imager != record.imaging.imager:
            warnings.append(_other_imager(image, record, settled))
        if directions:
            results["restored"], more = restore(image, out, settled, directions)
            warnings += more
        if options.nsigma is None and nsigma < imaging.depth(results["dynamic_range"]):
            warnings.append(
                f"cleaned to {nsigma:g} sigma, as {options.like}; where no bright source is left that cleans "
                "noise away, and the rms comes out too low (--nsigma 3)"
            )
        ratio = results["rms_ratio"]
        same_imager = record is not None and settled.imager == record.imaging.imager
        if ratio is not None and ratio > WORSE and same_imager:
            warnings.append(
                f"the rms is {ratio:.3g} times that of {options.like}; what was done to {options.column} "
                "made the image worse"
            )
        return Outcome(
            results=results,
            inputs={
                "ms": str(path),
                **({"like": str(options.like)} if options.like else {}),
                **({"mask": str(options.mask)} if options.mask else {}),
                **({"begin_with": str(options.begin_with)} if options.begin_with else {}),
                **({"regions": str(small.regions)} if small else {}),
                **({"directions": str(options.restore)} if options.restore else {}),
            },
            parameters={**imaging.summary(settled), **asdict(selection), "out": str(out)},
            reads=(options.column, "FLAG", "WEIGHT"),
            engine=made_by,
            warnings=tuple(warnings),
        )


def _bearable(
    info: ms.MsInfo,
    cleaned: Cleaned,
    settled: engine.Imaging,
    selection: Selection,
    options: ImageOptions,
) -> float:
    """`averaging.bearable`, where that is ours to choose."""
    outside = cleaned.image.data[~cleaned.mask & np.isfinite(cleaned.image.data)]
    ours = options.choices.smearing is None and settled.smearing > 0
    if not ours or outside.size == 0:
        return math.inf
    fields = info.field_ids(selection)
    return averaging.bearable(info, cleaned.image, settled, fields, robust_rms(outside))


def _choose(
    info: ms.MsInfo, selection: Selection, options: ImageOptions, progress: Progress
) -> tuple[engine.Imaging, str, list[str]]:
    """Choose how to image, as selfcal does; also the fields in CASA's words, and warnings."""
    found = survey(info, selection, progress)
    spws = found.spws()
    fields = mosaic.check_fields(info, found, imaging.field_of_view_rad(info, found, spws))
    settled, warnings = imaging.choose(info, found, options.choices, spws=spws, fields=fields)
    if len(fields) > 1:
        log.info("%d fields form a mosaic: they are imaged jointly", len(fields))
    return settled, ",".join(map(str, fields)), warnings


def _switched(
    info: ms.MsInfo, record: ImageRecord, imager: str, progress: Progress
) -> engine.Imaging:
    """How ``record`` was made, by another imager if it is another; tclean's gridder is what it would be anew."""
    settled = imagers.switched(record.imaging, imager)
    if settled == record.imaging or settled.is_mosaic or imager == imagers.WSCLEAN:
        return settled
    w_phase = imaging.w_phase_rad(
        survey(info, record.selection, progress), settled.imsize, settled.cell_arcsec
    )
    return replace(settled, gridder=imaging.tclean_gridder(w_phase))


def _start(path: Path, record: ImageRecord, imager: str) -> ImageRecord:
    """The image to begin with, if it is of the pixels and terms of ``record``, and of the same imager."""
    start = image_record.read(path)
    if start.imaging.imager != imager:
        raise OptionError(
            f"--begin-with {path}: is of {start.imaging.imager}, and this image is to be of {imager}; give one of "
            "the same imager."
        )
    own, other = read_image(path), read_image(record.image)
    difference = grid_difference(own, other)
    if not difference and imager == record.imaging.imager and own.freq_hz != other.freq_hz:
        difference = "it is of other data, whose mean frequency differs"
    kinds = [(one.imaging.nterms, one.imaging.stokes) for one in (start, record)]
    if not difference and kinds[0] != kinds[1]:
        difference = "its Taylor terms or Stokes parameters differ"
    if difference:
        raise OptionError(
            f"--begin-with {path}: does not go with --like {record.image}: {difference}; give an image made "
            "like that."
        )
    return start


@dataclass(frozen=True)
class Work:
    """What one image is made with."""

    imager: imagers.Imager
    target: Target
    out: Path
    imaging: engine.Imaging
    nsigma: float
    options: ImageOptions
    progress: Progress
    mark: str

    @property
    def grows(self) -> bool:
        """Whether the mask may open."""
        grow = self.options.grow_mask
        return grow if grow is not None else self.options.mask is None

    def like(
        self, record: ImageRecord, start: ImageRecord | None
    ) -> tuple[Cleaned, NDArray[np.bool_]]:
        """Repeat an image, and clean on in the mask with what it opened to, which is returned too.

        ``start`` is an earlier image, whose model and mask are there from the beginning.

        The mask stays where a source was peeled: there is only noise to clean there, and cleaning
        stops at ``nsigma``.
        """
        template = read_image(record.image)
        mask = np.zeros(template.data.shape, bool)
        earlier = [record.mask, start.mask if start else None]
        for path in [self.options.mask] if self.options.mask else filter(None, earlier):
            mask |= imaging.user_mask(path, template)
        self.progress.stage(f"imaging as {record.image}")
        if start is not None:
            reuse.take_model(self.imager, start.imagename, self.out, self.imaging)
        # ddsolve may have flagged data since; then, and of another MS, the PSF is made.
        psf_there = (
            record.mark == self.mark
            and record.imaging.imager == self.imaging.imager
            and reuse.take_psf(self.imager, record.imagename, self.out, self.imaging)
        )
        cleaned = imaging.clean_in_mask(
            self.imager, self.target, self.out, self.imaging, mask,
            nsigma=self.nsigma, like=template, psf_there=psf_there,
        )  # fmt: skip
        if difference := grid_difference(cleaned.image, template):
            raise DataError(
                f"{self.out}: comes out on another grid than {record.image}: {difference}; is this an "
                "MS of the same field?"
            )
        return self._opened(cleaned)

    def about(self, small: around.Around) -> tuple[Cleaned, NDArray[np.bool_]]:
        """Image the field about a region; the region is the mask."""
        self.progress.stage(f"imaging around {small.region}")
        cleaned = around.clean(self.imager, self.target, self.out, small, nsigma=self.nsigma)
        return cleaned, np.zeros_like(cleaned.mask)

    def new(self) -> tuple[Cleaned, NDArray[np.bool_]]:
        """Make an image of data of which nothing is known."""
        self.progress.stage("first image")
        cleaned = first_image(
            self.imager, self.target, self.out, self.imaging,
            sigma=2 * self.options.mask_threshold, nsigma=self.nsigma, mask_path=self.options.mask,
        )  # fmt: skip
        return self._opened(cleaned)

    def _opened(self, cleaned: Cleaned) -> tuple[Cleaned, NDArray[np.bool_]]:
        before = cleaned.mask
        if not self.grows:
            return cleaned, np.zeros_like(before)
        self.progress.stage("imaging in the mask that opened")
        cleaned = imaging.opened(
            self.imager, self.target, cleaned, self.imaging,
            sigma=self.options.mask_threshold, nsigma=self.nsigma, passes=OPENINGS,
        )  # fmt: skip
        return cleaned, cleaned.mask & ~before


# ---------------------------------------------------------------- what came out


def _figures(image: Image, mask: NDArray[np.bool_], record: ImageRecord | None) -> dict[str, Any]:
    """Figures of the image, and of the like-image in the same mask."""
    assert image.beam is not None
    own = figures_record(State(measure(image, mask), image.beam, image.cell_arcsec))
    found: dict[str, Any] = {
        **own,
        "dynamic_range_reference_peak": None,
        "rms_ratio": None,
        "like": None,
    }
    if record is not None:
        other = read_image(record.image)
        if other.beam is None:
            raise DataError(f"{record.image}: no restoring beam; use a restored image.")
        like = figures_record(State(measure(other, mask), other.beam, other.cell_arcsec))
        found["like"] = {"image": str(record.image), **like}
        rms = own["rms_jy_beam"]
        found["dynamic_range_reference_peak"] = like["peak_jy_beam"] / rms if rms > 0 else None
        found["rms_ratio"] = rms / like["rms_jy_beam"] if like["rms_jy_beam"] > 0 else None
    return found


def _other_imager(image: Image, record: ImageRecord, settled: engine.Imaging) -> str:
    """How far images of two imagers compare."""
    other = read_image(record.image).beam
    assert image.beam is not None and other is not None
    change = 100 * (image.beam.area_arcsec2 / other.area_arcsec2 - 1)
    return (
        f"{record.image} is of {record.imaging.imager}, this of {settled.imager}: the beam's area differs by "
        f"{change:+.2g} %, noise and residuals also by how each grids and cleans"
    )


def new_islands(mask: NDArray[np.bool_], added: NDArray[np.bool_]) -> int:
    """Islands of ``mask`` that are all of ``added`` pixels; others only grew at their edges."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, NEIGHBOURS)
    old = np.unique(labels[mask & ~added])
    return int(count - old.size)


def _directions(path: Path) -> list[dict[str, Any]]:
    record = sidecar.read(path, "predict-region")
    directions: list[dict[str, Any]] = record["results"]["directions"]
    if not directions:
        raise DataError(f"{path}: names no direction; there is nothing to restore.")
    return directions


def restore(
    image: Image, out: Path, settled: engine.Imaging, directions: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Put peeled sources back as points, in an image of its own beside the unrestored one.

    Each gets the restoring beam times its flux [Jy], in a mosaic also times the primary beam there, since
    ``.image`` is flat-noise.

    Returns
    -------
    dict
        ``image``, and ``sources`` with their peaks, null outside the image.
    list of str
        Warnings.
    """
    plane = np.array(image.data, dtype=np.float64)
    pb = read_image(settled.pb(out)).data if settled.is_mosaic else np.ones(plane.shape)
    sources, warnings = [], []
    ny, nx = plane.shape
    for item in directions:
        x, y = image.pixel(SkyCoord(item["ra_deg"], item["dec_deg"], unit="deg", frame="icrs"))
        peak = None
        if math.isfinite(x) and 0 <= round(x) < nx and 0 <= round(y) < ny:
            seen = float(pb[round(y), round(x)])
            if math.isfinite(seen):
                peak = seen * float(item["flux_jy"])
                plane += peak * restoring_beam(image, x, y)
        if peak is None:
            warnings.append(f"{item['label']} lies outside the image and was not restored")
        sources.append(
            {
                **{key: item[key] for key in ("label", "ra_deg", "dec_deg", "flux_jy")},
                "peak_jy_beam": peak,
            }
        )
    path = out.with_name(f"{out.name}.restored.image{settled.suffix}")
    write_like(path, plane, image, overwrite=True)
    return {"image": str(path), "sources": sources}, warnings


def restoring_beam(image: Image, x: float, y: float) -> NDArray[np.float64]:
    """Restoring beam of an image about pixel (x, y), 1 at its peak, shape (ny, nx)."""
    assert image.beam is not None
    ny, nx = image.data.shape
    return restoring.gaussian((ny, nx), image.beam, image.cell_arcsec, x, y)
