"""The house: who may import whom, and what must not be loaded for --help."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import peelkit

SOURCE = Path(peelkit.__file__).parent
LAYERS = {
    "cli": {
        "cli",
        "core",
        "sidecar",
        "errors",
        "selection",
        "outcome",
        "progress",
        "products",
        "memory",
        "spread",
        "",
    },
    "core": {
        "core",
        "io",
        "engines",
        "sidecar",
        "errors",
        "selection",
        "outcome",
        "progress",
        "products",
        "parallel",
        "spread",
        "memory",
        "",
    },
    "io": {"io", "errors", "selection", "sidecar", "outcome", "progress", "memory", ""},
    "engines": {
        "engines",
        "errors",
        "selection",
        "sidecar",
        "outcome",
        "progress",
        "memory",
        "parallel",
        "",
    },
}
MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages([str(SOURCE)], "peelkit.")
    if not name.endswith(("_casa_worker", "__main__"))
)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Imported module names, and whether they are imported at the top of the module."""
    tree = ast.parse(path.read_text("utf-8"))
    top = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            top.add(node)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, node in top))
            if node.module in ("peelkit", "peelkit.core", "peelkit.io", "peelkit.engines"):
                found += [(f"{node.module}.{alias.name}", node in top) for alias in node.names]
    return found


def files(layer: str) -> list[Path]:
    return sorted((SOURCE / layer).glob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_from_below(layer: str) -> None:
    for path in files(layer):
        for name, _ in imports(path):
            if name.startswith("peelkit.") and name.split(".")[1] != "__version__":
                part = name.split(".")[1]
                assert part in LAYERS[layer], f"{path.name} imports {name}"


def test_the_basic_modules_import_nothing_of_the_layers() -> None:
    for path in SOURCE.glob("*.py"):
        if path.name != "__main__.py":
            for name, _ in imports(path):
                assert not name.startswith(tuple(f"peelkit.{layer}" for layer in LAYERS)), path


@pytest.mark.parametrize(
    ("module", "where"),
    [
        ("casatasks", {"engines/_casa_worker.py"}),
        ("casatools", set()),
        ("ducc0", {"engines/ducc.py"}),
        ("dask", {"spread.py"}),
        ("distributed", {"spread.py"}),
        ("quartical", {"engines/_quartical_worker.py"}),
        ("rich", {"cli/console.py"}),
        ("click", {"cli/*"}),
    ],
)
def test_each_engine_has_one_door(module: str, where: set[str]) -> None:
    for path in SOURCE.rglob("*.py"):
        relative = path.relative_to(SOURCE)
        if any(relative.match(pattern) for pattern in where):
            continue
        for name, _ in imports(path):
            assert name.split(".")[0] != module, f"{relative} imports {name}"


def test_casacore_is_used_in_io_only() -> None:
    for layer in ("core", "cli", "engines"):
        for path in files(layer):
            for name, _ in imports(path):
                assert name.split(".")[0] != "casacore", f"{path.name} imports {name}"


def test_the_commands_import_their_work_inside_the_callback() -> None:
    for path in files("cli"):
        for name, at_top in imports(path):
            if at_top and "TYPE_CHECKING" not in name:
                assert not name.startswith(("peelkit.core", "numpy", "astropy")), path.name


def test_the_casa_child_imports_nothing_of_peelkit() -> None:
    allowed = set(sys.stdlib_module_names) | {"casatasks", "casaconfig", "casadata", "casampi"}
    for name, _ in imports(SOURCE / "engines" / "_casa_worker.py"):
        assert name.split(".")[0] in allowed


def test_the_quartical_child_imports_nothing_of_peelkit() -> None:
    allowed = set(sys.stdlib_module_names) | {"quartical"}
    for name, _ in imports(SOURCE / "engines" / "_quartical_worker.py"):
        assert name.split(".")[0] in allowed


def test_quarticals_process_is_started_before_anything_heavy() -> None:
    script = (
        "import sys; import peelkit.core.dd_engine; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"numpy", "astropy", "casacore", "scipy", "quartical"} & set(run.stdout.split())


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from peelkit.cli.main import cli; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"numpy", "astropy", "casacore", "casatasks", "rich", "scipy", "matplotlib", "jsonschema", "ducc0"}  # fmt: skip
    assert not heavy & set(run.stdout.split())


@pytest.mark.parametrize("name", MODULES)
def test_each_module_imports_without_the_others_being_loaded_first(name: str) -> None:
    # In one process: what is checked is that the name resolves; cycles show in the first import.
    importlib.import_module(name)


def test_no_file_has_outgrown_its_purpose() -> None:
    long = {
        str(path.relative_to(SOURCE)): len(path.read_text("utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert {name: size for name, size in long.items() if size > 800} == {}
