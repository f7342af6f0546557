"""What can be checked of a self-calibration before any work."""

from __future__ import annotations

from peelkit.core import ladder, selfcal_terms
from peelkit.core.selfcal_session import SelfcalOptions
from peelkit.errors import DataError, OptionError
from peelkit.io import ms
from peelkit.io.region import check_regions


def check(info: ms.MsInfo, options: SelfcalOptions) -> None:
    """Check options before any work."""
    if options.plan is not None and (options.calmodes or options.combines or options.gaintypes):
        raise OptionError("--from brings calmode, combine and gaintype; leave these options out.")
    if options.plan is None and options.solints == ("auto",):
        if options.calmodes:
            raise OptionError("--calmode goes with --solint intervals; --solint auto chooses it.")
        if len(options.combines) > 1 or len(options.gaintypes) > 1:
            raise OptionError("--combine and --gaintype are given once with --solint auto.")
        for gaintype in options.gaintypes:
            # The automatic ladder goes on to amplitudes.
            if selfcal_terms.is_over_frequency(gaintype):
                raise OptionError(
                    f"--gaintype {gaintype} goes with named intervals, such as --solint inf --solint 60s "
                    f"--gaintype {gaintype} --gaintype G."
                )
    if options.spwmap and (
        len(options.spwmap) < len(info.spws) or max(options.spwmap) >= len(info.spws)
    ):
        raise DataError(
            f"spwmap {','.join(map(str, options.spwmap))}: {info.path} has {len(info.spws)} spws; "
            "give the id of a spw for each."
        )
    if options.plan is None and options.solints != ("auto",):
        # Refused now rather than after the first image.
        rungs = ladder.explicit_rungs(
            options.solints, calmodes=options.calmodes, combines=options.combines,
            gaintypes=options.gaintypes, minsnr=options.minsnr, scan_s=1.0, integration_s=1.0,
        )  # fmt: skip
        for rung in rungs:
            selfcal_terms.check(rung.gaintype, rung.calmode, rung.combine, options.minblperant)
    for combine in options.combines:
        ladder.check_combine(combine)
    # Read now rather than after the first image.
    if options.leave_out is not None:
        check_regions(options.leave_out)
    for path in filter(None, (options.mask, *options.model)):
        if not path.exists():
            raise DataError(f"{path}: no such mask or model.")
