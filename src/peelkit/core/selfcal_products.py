"""What one self-calibration leaves: the final image, its tables for use elsewhere, plots, the sidecar's results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from peelkit.core import calibrate_tables, plots, selfcal_holdout, snr
from peelkit.core import selfcal_prepare as preparing
from peelkit.core import selfcal_session as state
from peelkit.core.selfcal_session import Session
from peelkit.core.selfcal_solve import interp
from peelkit.core.verdict import Verdict
from peelkit.io.caltable import read_cal_table, read_gain_table
from peelkit.io.image import read_image


def record_tables(session: Session) -> None:
    """Say in the folder how its tables are applied, for ``--apply FOLDER``."""
    best = session.best
    tables = [
        calibrate_tables.Table(
            session.workspace.path(name),
            read_cal_table(session.workspace.path(name)).kind,
            mode,
            tuple(spwmap),
            how,
        )
        for name, mode, spwmap, how in zip(
            best.tables, best.table_modes, best.table_spwmaps, interp(session, best.table_modes),
            strict=True,
        )
    ]  # fmt: skip
    calibrate_tables.write_record(
        session.workspace.folder,
        tables=tables,
        field=session.field_names,
        fluxes_jy={},
        parang=session.options.parang,
    )


def results_of(session: Session, made: list[Path]) -> dict[str, Any]:
    """Results for the sidecar; the first and the final image are measured in the final mask."""
    first = state.state_of(session, "first")
    final: dict[str, Any]
    accepted = [item for item in session.rounds if item["accepted"]]
    if accepted:
        # Measured with the final mask, as the first image is here: the two compare.
        final = {
            **accepted[-1],
            **state.figures_record(state.state_of(session, session.best.imagename)),
        }
    else:
        nothing = Verdict(False, "no round was accepted")
        rung = snr.Rung("", 0.0, "p", "", "G", 0.0, math.nan)
        final = state.round_record(rung, first, first, nothing, 0, 0, None, None, [])
        final |= dict.fromkeys(("solint", "calmode", "combine", "gaintype", "minsnr", "solint_s"))
        final["image"] = str(session.imaging.image(session.name("first")))
    return {
        "first": {
            **state.figures_record(first),
            "own_mask": _in_own_mask(session),
            "image": str(session.imaging.image(session.name("first"))),
        },
        "rounds": session.rounds,
        "final": final,
        "gaintables": [str(session.workspace.path(name)) for name in session.best.tables],
        "spwmap": session.best.table_spwmaps,
        "interp": interp(session, session.best.table_modes),
        "mask_pixels": int(session.mask.sum()),
        "left_out": selfcal_holdout.check(session),
        "prepared": preparing.prepared(session),
        "plots": [str(path) for path in made],
    }


def _in_own_mask(session: Session) -> dict[str, Any]:
    """Figures of the first image with the mask that it had; an older run that is resumed does not know it."""
    return session.first or state.figures_record(state.state_of(session, "first"))


def make_plots(session: Session, check: dict[str, Any] | None) -> list[Path]:
    """Plots of the gains that are applied, the rounds, the model against the data, and the images."""
    folder = session.workspace.folder
    made = []
    names = session.info.antenna_labels
    for name, mode in zip(session.best.tables, session.best.table_modes, strict=True):
        table = read_gain_table(session.workspace.path(name))
        made += plots.gains(table, names, folder / name.removesuffix(".g"), calmode=mode)
    if session.rounds:
        made.append(plots.rounds(_in_own_mask(session), session.rounds, folder / "rounds.png"))
    if check is not None and check["bins"]:
        made.append(plots.model_check(check, folder / "model.png"))
    images = ["first", *([session.best.imagename] if session.best.tables else [])]
    made.append(
        plots.images(
            [read_image(session.imaging.image(session.name(name))) for name in images],
            ["first image", "self-calibrated"][: len(images)],
            session.mask,
            folder / "images.png",
        )
    )
    return made
