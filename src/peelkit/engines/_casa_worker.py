"""The child that runs casatasks: one JSON request a line on stdin, one JSON reply a line.

Standard library and casatasks only; nothing of peelkit is imported, so that python-casacore and
casatools never meet in one process. Usage: ``_casa_worker.py REPLY_FD LOG``.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from typing import Any


def find_data(config: Any) -> tuple[str, list[str]]:
    """Folder with CASA's measures data: the user's own, else casadata's, else python-casacore's."""
    import importlib.util

    def usable(folder: str) -> bool:
        return bool(folder) and os.path.exists(os.path.join(folder, "geodetic", "IERSeop2000"))

    own = os.path.expanduser(config.measurespath or "")
    if usable(own):
        return own, [os.path.expanduser(path) for path in config.datapath] or [own]
    candidates = []
    with contextlib.suppress(ImportError):
        import casadata

        candidates.append(casadata.datapath)
    # find_spec does not import casacore.
    spec = importlib.util.find_spec("casacore")
    if spec and spec.origin:
        candidates.append(os.path.join(os.path.dirname(spec.origin), "data"))
    for folder in candidates:
        if usable(folder):
            return folder, [folder]
    raise RuntimeError(
        "CASA's measures data are nowhere: not in ~/.casa/data, casadata or python-casacore; "
        "install casadata"
    )


def start(log: str) -> tuple[Any, str]:
    """Import casatasks with its data found and its log where we want it."""
    # casaconfig parses sys.argv when it is imported.
    sys.argv = sys.argv[:1]
    import casaconfig.config as config

    data, datapath = find_data(config)
    config.measurespath = data
    config.datapath = datapath
    # An engine call is not the time for downloads.
    config.measures_auto_update = config.data_auto_update = False
    config.logfile = log
    config.log2term = False
    config.nogui = config.agg = True
    config.casaconfig_verbose = 0
    import casatasks

    return casatasks, data


def plain(value: Any) -> Any:
    """Give what JSON has no word for in plain values."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def main() -> None:
    """Answer requests until stdin ends."""
    reply_fd, log = int(sys.argv[1]), sys.argv[2]
    # Ctrl-C is the parent's to handle: it decides whether a task may end at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the parent
    replies = os.fdopen(reply_fd, "w", encoding="utf-8")

    def reply(**record: Any) -> None:
        replies.write(json.dumps(record, default=plain) + "\n")
        replies.flush()

    try:
        casatasks, data = start(log)
    except BaseException as error:
        reply(ok=False, error=str(error), kind=type(error).__name__)
        return
    reply(ok=True, version=casatasks.version_string(), data=data)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = getattr(casatasks, request["task"])(**request["arguments"])
            reply(ok=True, result=result)
        except BaseException as error:
            traceback.print_exc()
            reply(ok=False, error=str(error), kind=type(error).__name__)


if __name__ == "__main__":
    main()
