"""casacore's measures and images, without three SEVERE lines on stderr about a table of leap seconds.

casacore complains, once in each process, of a table older than half a year. There was no leap second since 2017, and
nobody who runs peelkit can do anything about the wheel's table.
"""

from __future__ import annotations

import functools
import os
from typing import Any

# When a table of any age is out of date for casacore: far enough after the last one that is made.
LATE = "2100-01-01"


@functools.cache
def hush() -> None:
    """Have casacore complain now, to nobody; it logs to descriptor 2, past `sys.stderr`."""
    from casacore.measures import measures

    machine = measures()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        machine.measure(machine.epoch("UTC", LATE), "TAI")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def casa_images() -> Any:
    """Class of casacore's images."""
    hush()
    from casacore.images import image

    return image
