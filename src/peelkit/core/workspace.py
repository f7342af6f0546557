"""The folder in which self-calibration works, and what it needs to go on after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peelkit import sidecar
from peelkit.errors import DataError, EngineError, OptionError
from peelkit.io import mending, ms

STATE = "state.json"

LOGS = ("casa.log", "wsclean.log")


@dataclass
class Workspace:
    """Output folder of one self-calibration.

    The data are solved and imaged in a copy of the selected rows, so that the user's MS is touched
    only once, at the end. The copy is deleted when the run finishes.

    Parameters
    ----------
    folder : Path
        Output folder.
    fingerprint : str
        Of the parameters and the MS: an interrupted run is gone on with only if it is the same.
    """

    folder: Path
    fingerprint: str
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def ms(self) -> Path:
        """The working copy."""
        return self.folder / "work.ms"

    @property
    def averaged(self) -> Path:
        """The working copy as it is imaged."""
        return self.folder / "averaged.ms"

    @property
    def log(self) -> Path:
        """CASA's log."""
        return self.folder / "casa.log"

    def path(self, name: str) -> Path:
        """A product in the folder."""
        return self.folder / name

    def save(self) -> None:
        """Record the state, atomically."""
        record = {"fingerprint": self.fingerprint, **self.state}
        sidecar.write_text(self.folder / STATE, json.dumps(sidecar.clean(record), indent=1))

    def drop_averages(self) -> None:
        """Delete what was imaged."""
        shutil.rmtree(self.averaged, ignore_errors=True)

    def drop_copy(self) -> None:
        """Delete the working copy and what came with it."""
        self.drop_averages()
        for path in (self.ms, self.folder / "work.ms.flagversions"):
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """The run has finished: nothing is left to resume."""
        self.drop_copy()
        (self.folder / STATE).unlink(missing_ok=True)

    @contextlib.contextmanager
    def closed_if_refused(self) -> Iterator[None]:
        """Leave nothing but the log where an error says that the same could not succeed.

        A corrected command then finds the folder free, and needs no --overwrite.
        """
        try:
            yield
        except (DataError, OptionError, EngineError):
            self.close()
            for path in self.folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in LOGS:
                    path.unlink(missing_ok=True)
            raise


def fingerprint(info: ms.MsInfo, parameters: Mapping[str, Any]) -> str:
    """Hash of what must be the same for a run to be resumed: the parameters, and the files they name."""
    text = json.dumps(
        [
            str(info.path.absolute()),
            info.n_rows,
            sidecar.clean(parameters),
            [_state_of(path) for path in inputs(parameters)],
        ],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Parameters that name files or folders in words, with commas; others do as a Path.
NAMING = ("pre", "flux_from", "tables")


def inputs(parameters: Mapping[str, Any]) -> list[Path]:
    """Files and folders that parameters name, but for the output."""
    found: list[Path] = []
    for key, value in parameters.items():
        if key == "out":
            continue
        if isinstance(value, Mapping):
            found += inputs(value)
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Path):
                found.append(item)
            elif isinstance(item, str) and key in NAMING:
                found += [Path(piece.strip()) for piece in item.split(",") if piece.strip()]
    return found


def _state_of(path: Path) -> list[Any]:
    """When it was changed last, and its size: of a table's or a calibration's folder, those of its list."""
    named = (path / name for name in ("table.dat", "calibration.json"))
    for item in (*named, path):
        try:
            state = item.stat()
        except OSError:
            continue  # it is for the command to say that an input is not there
        return [str(item), state.st_mtime_ns, state.st_size]
    return [str(path), None, None]


def open_workspace(
    folder: Path, mark: str, *, overwrite: bool, needed: Sequence[Path] = ()
) -> tuple[Workspace, bool]:
    """Make the output folder, or find an interrupted run in it.

    Parameters
    ----------
    needed : sequence of Path
        The MS and other inputs of the run, which must not be deleted with what is in the folder.

    Returns
    -------
    Workspace
        With the state of the interrupted run, if there is one.
    bool
        Whether it is gone on with.

    Raises
    ------
    DataError
        If the folder holds something else and may not be replaced.
    OptionError
        If an input is in the folder that would be replaced.
    """
    workspace = Workspace(folder, mark)
    state = check_folder(folder, mark, overwrite=overwrite)
    if state is not None:
        workspace.state = state
        return workspace, state.get("stage") == "rounds"
    if _has_results(folder):
        keep_inputs(folder, needed)
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "casa.log").touch()
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}); give another place with --out."
        ) from error
    workspace.state = {"stage": "copying"}
    workspace.save()
    return workspace, False


def keep_inputs(folder: Path, needed: Sequence[Path]) -> None:
    """Refuse to replace a folder that has inputs of the run.

    Raises
    ------
    OptionError
        If it has one.
    """
    whole = folder.resolve()
    for path in needed:
        place = path.resolve()
        if place.exists() and (whole == place or whole in place.parents):
            raise OptionError(
                f"{path}: is in the output folder {folder}, which would be replaced; put it elsewhere, or give "
                "another --out."
            )


def check_folder(folder: Path, mark: str, *, overwrite: bool) -> dict[str, Any] | None:
    """State of the interrupted run in ``folder`` that would be gone on with; None if there is none.

    Raises
    ------
    DataError
        If the folder holds something else and may not be replaced.
    """
    state_file = folder / STATE
    if state_file.exists():
        try:
            state: dict[str, Any] = json.loads(state_file.read_text("utf-8"))
        except ValueError:
            state = {}
        if state.pop("fingerprint", None) == mark:
            return state
        if not overwrite:
            raise DataError(
                f"{folder}: holds an interrupted run with other parameters or data; run it again "
                "with the same to go on, or with --overwrite to start anew."
            )
    if _has_results(folder):
        if not overwrite:
            raise DataError(f"{folder}: exists; give another --out, or --overwrite to replace it.")
        if not (folder / "casa.log").exists():
            raise DataError(
                f"{folder}: not a folder of peelkit selfcal (no casa.log), so it is not deleted; "
                "give another --out."
            )
    return None


def _has_results(folder: Path) -> bool:
    # A run that was refused leaves logs, which are nothing to lose.
    return folder.exists() and any(item.name not in LOGS for item in folder.iterdir())


def make_copy(
    workspace: Workspace,
    info: ms.MsInfo,
    rows: NDArray[np.int64],
    data_column: str,
    execution_of: Mapping[int, int] | None = None,
    *,
    weights: bool = True,
) -> tuple[ms.MsInfo, list[str]]:
    """Copy the rows into the working MS, with MODEL_DATA and CORRECTED_DATA; flags what is NaN there.

    Of another column than DATA the weights are its own, and SIGMA is made theirs: gaincal and applycal know no
    other (`CalibratingVi2` resets weights from SIGMA).

    Parameters
    ----------
    execution_of : mapping of int, optional
        `Survey.execution_of`: OBSERVATION_IDs that are joined in the copy. CASA solves and interpolates
        within each.
    weights : bool
        Whether weights that are no numbers leave their data out; if not, they will be derived anew.

    Returns
    -------
    MsInfo
        Of the copy.
    list of str
        What was left out: samples or weights that were NaN or infinite, and unflagged.

    Raises
    ------
    DataError
        If all visibilities are zero, or the column has no values in some rows.
    """
    shutil.rmtree(workspace.ms, ignore_errors=True)
    if empty := mending.without_values(info, data_column, rows).size:
        workspace.close()
        raise DataError(
            f"{info.path}: {data_column} has no values in {empty} of the selected rows; leave them out with --field "
            "and --spw, or choose another --datacolumn."
        )
    ms.copy_rows(info.path, workspace.ms, rows, data_column=data_column)
    left = mending.Left()
    copy = ms.read_info(workspace.ms)
    nonzero = _fill(copy, left, data_column, execution_of or {}, weights=weights)
    if not nonzero:
        workspace.close()
        raise DataError(
            f"{info.path}: all visibilities in {data_column} are zero; choose another --datacolumn."
        )
    return ms.read_info(workspace.ms), left.warnings()


def _fill(
    copy: ms.MsInfo,
    left: mending.Left,
    data_column: str,
    execution_of: Mapping[int, int],
    *,
    weights: bool,
) -> bool:
    """Fill the columns of the copy, and mend what is no number; whether any visibility is not zero."""
    nonzero = False
    with ms.opened(copy.path, write=True) as main:
        for name in ("MODEL_DATA", "CORRECTED_DATA"):
            ms.add_column(main, name)
        for _, chunk in ms.chunks(main, copy, ms.every_row(copy)):
            if any(one != other for one, other in execution_of.items()):
                ids = ms.get(main, "OBSERVATION_ID", chunk)
                joined = [execution_of.get(int(one), int(one)) for one in ids]
                ms.put(main, "OBSERVATION_ID", chunk, np.array(joined, dtype=ids.dtype))
            data = mending.mend(main, chunk, left, weights=weights)
            if data_column != "DATA":
                _sigma_of_weights(main, chunk)
            nonzero |= bool(np.any(data))
            ms.put(main, "CORRECTED_DATA", chunk, data)
            ms.put(main, "MODEL_DATA", chunk, np.zeros_like(data))
    return nonzero


def _sigma_of_weights(main: Any, chunk: NDArray[np.int64]) -> None:
    """SIGMA (and SIGMA_SPECTRUM) as the weights have it."""
    for sigma, weight in mending.PAIRS:
        if all(ms.has_cells(main, name, int(chunk[0])) for name in (sigma, weight)):
            ms.put(main, sigma, chunk, mending.sigma_of(ms.get(main, weight, chunk)))
