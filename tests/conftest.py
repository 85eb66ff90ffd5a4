"""What tests of whole commands share."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.commandline import SHORT, rlrun


def pytest_collection_finish() -> None:
    """Leave what is there by now, a million objects of modules, out of garbage collections: a fifth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True, scope="session")
def _without_waiting_for_the_disk() -> Iterator[None]:
    """Files are written but not flushed to the disk: the difference shows only after a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the test's own, instead of the user's."""
    directory = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(directory))
    return directory


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what a command changes in the process is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    modules, threads = set(sys.modules), torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(scope="session")
def _cartpole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short CartPole run, trained once."""
    before, directory = os.getcwd(), tmp_path_factory.mktemp("cartpole")
    os.chdir(directory)
    try:
        done = rlrun("train", "env=cartpole", *SHORT, "hydra.run.dir=outputs/cartpole/dqn/first")
    finally:
        os.chdir(before)
    assert done.code == 0, done.err
    return directory


@pytest.fixture
def trained(workdir: Path, _cartpole: Path) -> Path:
    """A copy of that run, as a path from the current directory."""
    shutil.copytree(_cartpole / "outputs", workdir / "outputs", symlinks=True)
    return Path("outputs/cartpole/dqn/first")
