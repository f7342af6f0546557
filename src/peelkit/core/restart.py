"""Cleaning on from a model: what of it is kept where the mask opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peelkit.engines import casa as engine
from peelkit.io.image import read_image
from peelkit.io.modelimage import blank_pixels


def drop_doubtful(imagename: Path, made: engine.Imaging, doubtful_jy: float) -> None:
    """Take components fainter than ``doubtful_jy`` out of the model of ``imagename``, in all its terms.

    In a mask without a source its sidelobes are cleaned in place of it. Those components stay when the mask
    opens: they do no harm in the mask, where the residual is as low as asked for, and all over the rest
    (5 sources of 1 to 0.05 Jy, thermal rms 1.0 mJy/beam: 1.4 when cleaning just went on from the mask of the
    brightest, 1.0 without the components that its sidelobes hide, and 1.0 from nothing).
    """
    models = made.models(imagename)
    if doubtful_jy > 0:
        drop = np.abs(read_image(models[0]).data) < doubtful_jy
        for model in models:
            blank_pixels(model, drop)
