"""The JSON record that every finished run leaves, and that the next command reads.

RFC 8259: no NaN, unknown is null. Checked against the JSON Schema in
``peelkit/schemas`` on write and on read. Written last and atomically, so its
presence means that the run finished.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from peelkit.errors import DataError

SCHEMA = "peelkit.sidecar/1"


def image_sidecar(product: Path) -> Path:
    """Sidecar of an image or mask: ``<product>.peelkit.json``."""
    return product.with_name(product.name + ".peelkit.json")


def ms_sidecar(ms: Path, command: str) -> Path:
    """Sidecar of a command that works on an MS: ``<ms>.<command>.peelkit.json``."""
    return ms.with_name(f"{ms.name}.{command}.peelkit.json")


def clean(value: Any) -> Any:
    """Plain JSON values: NaN and infinity become None, paths become strings."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return clean(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(record: Mapping[str, Any]) -> str:
    """JSON text of ``record``, as it is written and printed."""
    return json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``record`` and write it to ``path`` in one step; returns what was written.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    cleaned: dict[str, Any] = clean(record)
    problem = schema_problem(cleaned)
    if problem:
        raise AssertionError(f"peelkit made a sidecar that its own schema refuses: {problem}")
    write_text(path, dumps(cleaned))
    return cleaned


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically (temporary file, then rename)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); choose another place."
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # noqa: PTH101  (mkstemp made it private)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: Path, *commands: str) -> dict[str, Any]:
    """Read and check a sidecar.

    Parameters
    ----------
    path : Path
        The sidecar.
    commands : str
        Commands whose sidecars are accepted; any if none is given.

    Raises
    ------
    DataError
        If it is missing, not JSON, of another schema version, malformed, or of
        another command.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such sidecar; run the command that writes it.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not a sidecar ({error}); run the command that writes it again."
        ) from error
    version = record.get("schema") if isinstance(record, dict) else None
    if version != SCHEMA:
        raise DataError(
            f"{path}: schema {version!r} is not {SCHEMA!r}; write it again with this peelkit."
        )
    problem = schema_problem(record)
    if problem:
        raise DataError(f"{path}: malformed sidecar ({problem}); write it again.")
    if commands and record["command"] not in commands:
        raise DataError(
            f"{path}: written by {record['command']}, where one of {' or '.join(commands)} is needed."
        )
    return dict(record)


def schema_problem(record: Mapping[str, Any]) -> str | None:
    """Say in one line what the schema refuses in ``record``; None if nothing."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(_load_schema("sidecar"))
    error = jsonschema.exceptions.best_match(validator.iter_errors(record))
    where = ""
    if error is None and record["command"] in _commands_with_schema():
        validator = jsonschema.Draft202012Validator(_load_schema(record["command"]))
        error = jsonschema.exceptions.best_match(validator.iter_errors(record["results"]))
        where = "results."
    if error is None:
        return None
    return f"{where}{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message[:200]}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _commands_with_schema() -> set[str]:
    folder = resources.files("peelkit") / "schemas"
    return {item.name.removesuffix(".schema.json") for item in folder.iterdir()} - {"sidecar"}


def _load_schema(name: str) -> dict[str, Any]:
    text = (resources.files("peelkit") / "schemas" / f"{name}.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
