"""Shared test set-up: one thread, our own packages, the real documents when they are there."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipeline", "stages", "synth", "mixes", "trainer")


def pytest_configure(config: pytest.Config) -> None:
    """Our package names are generic: another distribution that ships one of them would shadow ours in silence."""
    del config
    owners = packages_distributions()
    for name in PACKAGES:
        foreign = set(owners.get(name, ())) - {"seodang"}
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if foreign or origin is None or ROOT not in origin.parents:
            message = f"package `{name}` is not this repository's (found {origin}, owned by {sorted(foreign)})"
            raise pytest.UsageError(message)


@pytest.fixture
def sandboxed() -> None:
    """Skips where programs cannot be shut in; the reason says what is missing."""
    from pipeline.core.errors import UserError
    from pipeline.core.verify.sandbox import sandbox_command

    try:
        sandbox_command()
    except UserError as error:
        pytest.skip(error.what)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real documents; skips where there is none."""
    root = Path(os.environ.get("SEODANG_DATA", ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real documents at {root}: set SEODANG_DATA")
    return root


def seodang(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, one thread, a wide terminal."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="session")
def command_line() -> Callable[..., subprocess.CompletedProcess[str]]:
    return seodang


@pytest.fixture(scope="session")
def mini_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `tests/mini.yaml`, run whole and uninterrupted through the command line."""
    store = tmp_path_factory.mktemp("mini") / "store"
    done = seodang("train", "tests/mini.yaml", "--set", f"store={store}")
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(scope="session")
def quickstart_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `configs/quickstart.yaml`, run as far as its split step."""
    store = tmp_path_factory.mktemp("quickstart") / "store"
    done = seodang("run", "configs/quickstart.yaml", "split", "--set", f"store={store}")
    assert done.returncode == 0, done.stderr
    return store
