"""Noise alone must never be accepted: images by formula, and Measurement Sets through CASA.

``python bench/noise.py --images 500 --sets 40``: images of noise (natural weights, uv coverages of five arrays) through
the decisions of `peelkit.core.first_image`, and MSs of noise through its whole first image, trial cleaning and
natural weights included. Prints how many were accepted, and the highest S/N that decided; exit status 5 if any was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "unit")]

from test_first_image import ARRAYS, SIZE, accepted, counts, dirty_pair  # noqa: E402

from makems import MsRecipe, make_ms  # noqa: E402
from peelkit.core import imagers, imaging  # noqa: E402
from peelkit.core.first_image import first_image_by_weights  # noqa: E402
from peelkit.core.measure import measure  # noqa: E402
from peelkit.io import ms  # noqa: E402
from peelkit.io.survey import survey  # noqa: E402
from peelkit.selection import Selection  # noqa: E402

# Seeds of the tests are below.
FIRST_SEED = 1000


def images(number: int) -> int:
    """How many images of noise are accepted."""
    found, highest = 0, 0.0
    nothing = np.zeros((SIZE, SIZE))
    for index in range(number):
        array = ARRAYS[index % len(ARRAYS)]
        image, psf = dirty_pair(
            counts(*array, FIRST_SEED + index // 25), nothing, FIRST_SEED + index
        )
        highest = max(highest, measure(image, np.zeros(nothing.shape, dtype=bool)).dynamic_range)
        found += accepted(image, psf)
    print(f"images: {found} of {number} accepted; highest peak {highest:.1f} times the rms")
    return found


def sets(number: int) -> int:
    """How many MSs of noise have a source in their first image."""
    found, highest = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch, imagers.opened(
        imagers.TCLEAN, Path(scratch) / "casa.log"
    ) as imager:  # fmt: skip
        for index in range(number):
            path = Path(scratch) / f"{index}.ms"
            antennas = (5, 7, 12, 20)[index % 4]
            recipe = MsRecipe(
                n_antenna=antennas, n_scan=1 + index % 2, n_time=6, n_chan=(1,), flux_jy=0.0,
                seed=FIRST_SEED + index,
            )  # fmt: skip
            make_ms(path, recipe)
            info = ms.read_info(path)
            spws = survey(info, Selection()).spws()
            settled, _ = imaging.choose(
                info, survey(info, Selection()), imaging.Choices(imsize=256), spws=spws
            )
            cleaned, _ = first_image_by_weights(
                imager, imaging.Target(path, "0", ""), path.with_suffix(""), settled, sigma=9.0,
                weights_given=False,
            )  # fmt: skip
            found += not cleaned.empty
            highest = max(highest, measure(cleaned.image, cleaned.mask).dynamic_range)
            imaging.remove_products(path.with_suffix(""))
    print(f"MSs: {found} of {number} accepted; highest peak {highest:.1f} times the rms")
    return found


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--sets", type=int, default=40)
    wanted = parser.parse_args()
    sys.exit(5 if images(wanted.images) + sets(wanted.sets) else 0)


if __name__ == "__main__":
    main()
