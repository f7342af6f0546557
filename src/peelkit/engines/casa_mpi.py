"""CASA in several processes under MPI (casampi), which grid parts of the data for one tclean.

Found by running casampi 0.6.0 with Open MPI 4.1 and CASA 6.7:

- Only Open MPI will do: casampi looks for its environment variables.
- `mpirun` closes the file descriptors that it inherits, and passes stdin on to process 0 alone.
- Process 0 deconvolves, and waits while the others grid: it takes no core beside them.
- Open MPI binds processes to cores, and its processes spin while they wait; with both, three processes took twice as
  long as one.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from peelkit import parallel
from peelkit.errors import OptionError

# Of these a parallel tclean concludes that it goes on with an image.
SIGNS_OF_AN_IMAGE = ("image", "psf", "residual", "sumwt", "weight", "pb", "gridwt", "gridwt_temp")

VARIABLE = "PEELKIT_CASA_PROCESSES"


def processes() -> int:
    """How many processes grid for tclean, as the environment says: 1 is CASA without MPI.

    Raises
    ------
    OptionError
        If it says something else than a number, or there is no mpirun.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    if not asked:
        return 1
    if not asked.isdecimal() or int(asked) == 0:
        raise OptionError(
            f"{VARIABLE}={asked}: give the number of processes that grid for tclean, such as 4, or unset it."
        )
    number = int(asked)
    if number > 1 and shutil.which("mpirun") is None:
        raise OptionError(
            f"{VARIABLE}={number}: there is no mpirun on PATH; install Open MPI ('apt install openmpi-bin') and "
            "casampi ('pip install casampi'), or unset it."
        )
    return number


def command(number: int) -> list[str]:
    """What starts ``number`` processes that grid, and one beside them."""
    # Slots are what a batch system gave or the cores that there are, which process 0 need not have.
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(number + 1)]


def environment(number: int) -> dict[str, str]:
    """Variables for these processes; those that the user has set stay."""
    return {
        "OMP_NUM_THREADS": str(max(1, parallel.cores() // number)),
        "OMPI_MCA_mpi_yield_when_idle": "1",
        # It refuses root, whom containers run as.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def make_psf(clean: Callable[[], object], imagename: Path, models: Sequence[Path]) -> bool:
    """Make the PSF where there is a model to begin with, without that; whether it was made.

    A parallel tclean that finds an image wants the density of the weights that one before has left; a model alone
    will not do (6.7.0: "Imaging weight calculation is requested for a data that was not selected").

    Parameters
    ----------
    clean : callable
        Makes the PSF and the residual of ``imagename``.
    models : sequence of Path
        Where models of it would be.
    """
    aside = {path: path.with_name(f"{path.name}.aside") for path in models if path.exists()}
    for path, other in aside.items():
        path.rename(other)
    try:
        for kind in SIGNS_OF_AN_IMAGE:
            for tail in ("", ".tt?"):
                name = f"{glob.escape(imagename.name)}.{kind}{tail}"
                for path in imagename.parent.glob(name):
                    shutil.rmtree(path)
        if aside:
            clean()
    finally:
        for path, other in aside.items():
            shutil.rmtree(path, ignore_errors=True)
            other.rename(path)
    return bool(aside)
