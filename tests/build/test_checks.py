"""Values against ranges, types and memory."""

import re
from typing import Any

import numpy as np
import pytest

from rl_runner import memory
from rl_runner.build import checks
from rl_runner.replay.storage import RowStorage
from rl_runner.types import Transition, UserError

# Memory.


def replay(capacity: int, total_steps: int, num_envs: int = 1) -> dict[str, Any]:
    return {"replay": {"capacity": capacity}, "total_steps": total_steps, "env": {"num_envs": num_envs}}


def test_replay_that_does_not_fit_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    checks.memory_for_replay(replay(100_000, 10**7), 7_074)  # 0.71 GB
    with pytest.raises(UserError, match=r"the 1,000,000 rows take 7\.\d\d GB, but 1\.00 GB .* at most 113,") as e:
        checks.memory_for_replay(replay(1_000_000, 10**7), 7_074)
    most = int(str(e.value).split("at most ")[1].split()[0].replace(",", ""))
    checks.memory_for_replay(replay(most, 10**7), 7_074)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    checks.memory_for_replay(replay(10**12, 10**12), 7_074)


def test_of_a_replay_the_rows_are_counted_that_the_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    checks.memory_for_replay(replay(1_000_000, 100_000), 7_074)  # 0.78 GB
    line = r"^replay.capacity: the 220,003 rows that total_steps=200,000 writes take 1\.56 GB, but 1\.00 GB of memory"
    with pytest.raises(UserError, match=line):
        checks.memory_for_replay(replay(1_000_000, 200_000), 7_074)


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize(("length", "enough"), [(10, True), (100, True), (4, False)])
def test_the_rows_that_are_written_against_a_replay(num_envs: int, length: int, enough: bool) -> None:
    """Episodes of the same length, to the first step of all environments that reaches total_steps."""
    storage = RowStorage(100_000, num_envs, (1,), np.float32)
    steps, flags = 0, np.zeros(num_envs, dtype=np.bool_)
    while steps < 1_000:
        ended = flags | ((steps // num_envs + 1) % length == 0)
        obs = np.zeros((num_envs, 1))
        storage.add(Transition(obs, flags, flags * 1.0, ended, flags, flags, obs))
        steps += num_envs
    reckoned = checks.rows_written(replay(100_000, 1_000, num_envs))
    assert (storage.written.sum() <= reckoned) == enough
    assert reckoned < 1.15 * 1_000 + 3 * num_envs
    assert checks.rows_written(replay(700, 1_000, num_envs)) == 700


# Values.


@pytest.mark.parametrize("key", ["eps", "weight_decay", "momentum", "lr_end"])
def test_other_numbers_of_an_optimizer_are_not_negative(key: str) -> None:
    cfg = {"agent": {"gamma": 0.9}, "reward_clip": None, "optimizer": {"lr": 1e-3}}
    checks.require(cfg | {"optimizer": {"lr": 1e-3, key: 0}}, checks.GRADIENTS)
    with pytest.raises(UserError, match=rf"^optimizer\.{key}: must be a number, 0 or more(, or null)?, got -1"):
        checks.require(cfg | {"optimizer": {"lr": 1e-3, key: -1}}, checks.GRADIENTS)


@pytest.mark.parametrize("alpha", [2, -0.1, "x"])
def test_a_decay_of_an_optimizer_is_a_share(alpha: Any) -> None:
    cfg = {"agent": {"gamma": 0.9}, "reward_clip": None, "optimizer": {"lr": 1e-3}}
    checks.require(cfg, checks.GRADIENTS)
    checks.require(cfg | {"optimizer": {"lr": 1e-3, "alpha": 0.95}}, checks.GRADIENTS)
    with pytest.raises(UserError, match=r"^optimizer\.alpha: must be a number in \[0, 1\], got "):
        checks.require(cfg | {"optimizer": {"lr": 1e-3, "alpha": alpha}}, checks.GRADIENTS)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("stop.window", 10**20, "a whole number from 1 to 1,000,000,000"),
        ("num_threads", 10**12, "auto, or a whole number from 1 to 65,536"),
        ("env.num_envs", 10**9, "a whole number from 1 to 65,536"),
    ],
)
def test_numbers_that_no_machine_can_hold(key: str, wrong: int, right: str) -> None:
    group, _, name = key.rpartition(".")
    cfg = {group: {name: wrong}} if group else {name: wrong}
    with pytest.raises(UserError, match=rf"^{re.escape(key)}: must be {right}, got {wrong}$"):
        checks.require(cfg, {key: checks.TRAINING[key]})
    most = int(re.findall(r"[\d,]+", right)[-1].replace(",", ""))
    checks.require({group: {name: most}} if group else {name: most}, {key: checks.TRAINING[key]})


# Keys.


def test_misspelt_keys_at_the_top_are_refused_and_keys_of_ones_own_are_not() -> None:
    cfg: dict[str, Any] = {"total_steps": 1, "batch_size": 32, "width": 64, "tuned": {"file": "dqn/mine", "unused": []}}
    checks.keys(cfg)
    with pytest.raises(UserError, match=r"^there is no key 'batch_sizes'; did you mean batch_size\?$"):
        checks.keys({**cfg, "batch_sizes": 8})


def test_a_file_of_values_without_its_first_line_is_refused() -> None:
    line = r"must begin with the line '# @package _global_'$"
    with pytest.raises(UserError, match=rf"^tuned: the file dqn/mine.yaml {line}"):
        checks.keys({"tuned": {"file": "dqn/mine", "unused": [], "total_steps": 5}})
    with pytest.raises(UserError, match=rf"^experiment: the file {line}"):
        checks.keys({"experiment": {"total_steps": 5}})
