"""Shared fixtures: the command line as a user calls it, and small MSs with known contents."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from makems import MsRecipe, make_ms
from peelkit.cli.main import cli


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also where the tests run in the background.

    A shell without job control starts background jobs with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Two tests at a time, each with a thread for each core, would wait for each other.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run peelkit in an empty folder; a wrong exit code shows what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(
            cli, [str(argument) for argument in arguments], prog_name="peelkit",
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == code, (
            f"exit {result.exit_code}, expected {code}\n{result.stdout}\n{result.stderr}"
        )
        return result

    return run


@pytest.fixture(scope="session")
def point_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MS with a 1 Jy point at the phase centre, gains that drift, and little noise."""
    path = tmp_path_factory.mktemp("ms") / "point.ms"
    make_ms(path, MsRecipe(flux_jy=1.0, phase_rms_deg=30.0, sigma_jy=0.05, seed=1))
    return path


@pytest.fixture(scope="session")
def noise_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MS with nothing but noise."""
    path = tmp_path_factory.mktemp("ms") / "noise.ms"
    make_ms(path, MsRecipe(flux_jy=0.0, sigma_jy=0.05, seed=2))
    return path


@pytest.fixture
def copy_ms(tmp_path: Path) -> Callable[[Path], Path]:
    """Copy an MS into the test's own folder."""

    def copy(source: Path) -> Path:
        target = tmp_path / source.name
        shutil.copytree(source, target)
        return target

    return copy


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(20261121)
