"""What is done to the working copy before the first image: reviewed flags, and weights, on request.

Nothing of it reaches the MS unless a round is accepted; then it is part of the same step, and `undo` puts
it back with the rest.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from peelkit import sidecar
from peelkit.core import weights
from peelkit.core.selfcal_session import Session
from peelkit.engines import casa as engine
from peelkit.errors import DataError, EngineError, OptionError
from peelkit.io import ms
from peelkit.io.survey import survey
from peelkit.selection import Selection

log = logging.getLogger(__name__)

RECORD = "prepared.json"


def check(info: ms.MsInfo, how: str, fitspw: str, flag_list: Path | None) -> None:
    """Check the options before any work."""
    if fitspw and how != weights.STATWT:
        raise OptionError("--statwt-fitspw goes with --weights statwt; give both, or neither.")
    info.channels(Selection(spw=fitspw))
    if flag_list is not None and not flag_list.is_file():
        raise DataError(
            f"{flag_list}: no such list of flags; 'peelkit selfcal' proposes one as flag_proposals.txt."
        )


def prepare(session: Session) -> None:
    """Apply the list of flags, then the weights, to the working copy; the survey is taken again.

    Called after the copy was made and before the first image.
    """
    options = session.options
    work = session.work
    record: dict[str, Any] = {"weights": None, "flags": None}
    if options.flag_list is not None:
        session.progress.stage("applying the list of flags")
        before = weights.unflagged(work)
        try:
            engine.flag_by_list(session.casa, work.path, options.flag_list)
        except EngineError as error:
            # The list is the user's: an antenna that is not there, or a word that flagdata does not know.
            reason = str(error).splitlines()[0].split(" Its log is")[0]
            raise DataError(
                f"{options.flag_list}: cannot be applied ({reason}); see {session.workspace.log}, and mend it."
            ) from error
        flagged = before - weights.unflagged(work)
        record["flags"] = {"list": str(options.flag_list), "flagged": flagged, "unflagged": before}
        log.info("%s: flagged %d of %d samples", options.flag_list, flagged, before)
    if options.weights != weights.KEEP:
        session.progress.stage(f"weights: {options.weights}")
        channels = (
            work.channels(Selection(spw=options.statwt_fitspw)) if options.statwt_fitspw else None
        )
        record["weights"] = weights.reweigh(
            work, options.weights, session.casa, integration_s=session.found.integration_s,
            fitspw=options.statwt_fitspw, channels=channels,
        )  # fmt: skip
        for line in record["weights"]["warnings"]:
            log.warning("%s", line)
    text = json.dumps(sidecar.clean(record), indent=1)
    sidecar.write_text(session.workspace.path(RECORD), text)
    look_again(session)


def look_again(session: Session) -> None:
    """Survey the working copy, where flags or weights are not those of the MS any more."""
    if session.options.flag_list is not None or session.options.weights != weights.KEEP:
        selection = replace(session.selection, uvrange="")
        session.found = survey(session.work, selection, session.progress)


def prepared(session: Session) -> dict[str, Any]:
    """What `prepare` did: ``weights`` (see `weights.reweigh`) and ``flags``, each None if not asked for."""
    path = session.workspace.path(RECORD)
    if not path.exists():
        return {"weights": None, "flags": None}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def columns(session: Session) -> dict[str, str]:
    """Columns of the copy that the MS takes over, each with what fills rows that were not selected."""
    if prepared(session)["weights"] is None:
        return {}
    names = weights.columns(session.work.path)
    if session.info.data_column(session.options.datacolumn) != "DATA":
        # SIGMA is of DATA.
        names.remove("SIGMA")
    return {name: name for name in names}


def has_new_flags(session: Session) -> bool:
    """Whether FLAG of the copy must go into the MS, too."""
    record = prepared(session)
    return any(part is not None and part["flagged"] > 0 for part in record.values())
