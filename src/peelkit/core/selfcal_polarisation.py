"""Polarised sources in self-calibration: what can be asked for, and what to say about it."""

from __future__ import annotations

from collections.abc import Sequence

from peelkit.core import selfcal_terms, snr_physics
from peelkit.core.selfcal_session import SelfcalOptions
from peelkit.engines.casa import Imaging
from peelkit.errors import OptionError
from peelkit.io import ms
from peelkit.io.modelimage import read_planes
from peelkit.io.survey import Survey

# From this range on Q and U of the feeds' frame are said to be averages [deg].
RANGE_DEG = 10.0


def check(info: ms.MsInfo, spws: Sequence[int], options: SelfcalOptions) -> None:
    """Refuse what the data or the model do not hold, before any work.

    Raises
    ------
    OptionError
        If --parang is asked for without four correlations, or with fitted terms.
    DataError
        If the user's model lacks a plane.
    """
    for plane in options.choices.stokes[1:]:
        for path in options.model:
            read_planes(path, plane)
    if not options.parang:
        return
    for item in info.data_descriptions:
        if item.spw in spws and len(item.correlations) != 4:
            raise OptionError(
                f"--parang: spw {item.spw} has {','.join(item.correlations)}, and the parallactic angle mixes all "
                "four correlations; leave --parang out."
            )
    for gaintype in options.gaintypes:
        if selfcal_terms.is_fitted(gaintype):
            raise OptionError(
                f"--parang with --gaintype {gaintype}: it is fitted to data that turn with the parallactic angle; "
                "use K, G or T."
            )


def warnings(
    info: ms.MsInfo, found: Survey, fields: Sequence[int], imaging: Imaging, *, parang: bool
) -> list[str]:
    """Say what Q and U are, where the feeds turn on the sky."""
    planes = [plane for plane in imaging.polarised if plane in "QU"]
    if not planes or parang:
        return []
    ranges = [snr_physics.parallactic_angle_deg(info, found, field) for field in fields]
    turned = max((high - low for low, high in filter(None, ranges)), default=0.0)
    if turned <= RANGE_DEG:
        return []
    shown = " and ".join(planes)
    return [
        f"the parallactic angle runs through {turned:.0f} deg: Stokes {shown} here {'is' if len(planes) == 1 else 'are'} "
        "of the feeds' frame, averaged over them; use --parang with four correlations, else shorter pieces (--scan) "
        "or gaintype T"
    ]
