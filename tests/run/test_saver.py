"""Saving while a run trains: what is written, and that a full disk ends nothing."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_runner.run.checkpoint import Checkpoints, about, load
from rl_runner.run.saver import Saver
from rl_runner.types import Clock, UserError


class Screen:
    def __init__(self):
        self.said, self.paused = [], []

    @contextlib.contextmanager
    def pause(self, doing):
        self.paused.append(doing)
        yield

    def say(self, line):
        self.said.append(line)


class Table:
    """An agent with a table and a step size, of which a snapshot needs the table alone."""

    def state_dict(self):
        return {"table": torch.ones(3), "lr": 0.5}

    def load_state_dict(self, state): ...

    def weights(self):
        return {"table": torch.ones(3)}

    def load_weights(self, state): ...


@pytest.fixture
def saver(tmp_path):
    return Saver(Checkpoints(tmp_path, keep=2), Screen(), lambda: 12.5)


def test_checkpoints_snapshots_and_the_best_agent(saver, tmp_path):
    clock = Clock(steps=40, updates=7)
    saver.checkpoint(clock, {"agent": {"x": torch.zeros(2)}, "trainer": {"y": 1}})
    assert saver.best(clock, Table(), {"return": {"mean": 3.0}})
    saver.snapshot(clock, Table())
    assert saver.saved == clock
    (whole,) = saver.checkpoints.newest()
    assert load(whole)["trainer"] == {"y": 1}
    assert (about(whole)["steps"], about(whole)["updates"], about(whole)["seconds"]) == (40, 7, 12.5)
    best = saver.checkpoints.best()
    assert load(best)["agent"]["lr"] == 0.5
    assert about(best)["return"] == {"mean": 3.0}
    (snapshot,) = Path(tmp_path, "snapshots").iterdir()
    assert load(snapshot)["agent"].keys() == {"table"}
    assert saver._screen.paused == ["saving"] * 3
    assert saver._screen.said == []


def test_a_full_disk_is_reported_and_ends_nothing(saver, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    saver.checkpoint(Clock(steps=10), {"agent": {"x": torch.zeros(2)}})
    monkeypatch.setattr("rl_runner.run.checkpoint.save", full)
    saver.checkpoint(Clock(steps=2_000), {"agent": {"x": torch.zeros(2)}})
    assert not saver.best(Clock(steps=2_000), Table(), {"return": {"mean": 3.0}})
    assert (saver.saved, saver.error) == (Clock(steps=10), "No space left on device")
    assert saver._screen.said == [
        f"step 2,000: the {what} cannot be saved (No space left on device); the run goes on"
        for what in ("checkpoint", "best agent")
    ]


def test_a_state_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    saver = Saver(Checkpoints(tmp_path), Screen(), lambda: 0.0)
    saver.require_saveable({"agent": {"weight": torch.ones(2)}, "replay": None})
    with pytest.raises(UserError, match=r"^replay/sampler/rng: a state must hold .*, got a Generator$"):
        saver.require_saveable({"replay": {"sampler": {"rng": np.random.default_rng(0)}}})
    assert list(tmp_path.iterdir()) == []
