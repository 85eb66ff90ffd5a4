"""Errors as one line."""

import errno

import pytest
import torch

from rl_runner.cli import failures
from rl_runner.cli.table import VERBS
from rl_runner.types import UserError


def test_the_full_memory_of_a_gpu_is_told_in_one_line() -> None:
    text = "CUDA out of memory. Tried to allocate 105.15 GiB. GPU 0 has a total capacity of 79.19 GiB of which 30.00 "
    text += "GiB is free. Including non-PyTorch memory, this process has 49.18 GiB memory in use. See documentation"
    failure = failures.failure(VERBS["train"], [], torch.OutOfMemoryError(text))
    assert failure.exit_code == 2
    assert not failure.trace
    assert failure.line == (
        "device: the GPU's memory is full: Tried to allocate 105.15 GiB. GPU 0 has a total capacity of 79.19 GiB of "
        "which 30.00 GiB is free; use a smaller batch_size or network, or replay.frames=host"
    )


def test_a_full_disk_is_answered_with_the_keys_of_directories() -> None:
    line = "No space left on device: free some, or choose another hydra.run.dir or hydra.sweep.dir"
    assert failures.explain(VERBS["train"], ["-m"], OSError(errno.ENOSPC, "No space left on device")) == line


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("outputs/a", "hydra.run.dir: no directory can be made at outputs/a: No space"),
        ("outputs", "hydra.run.dir: no directory can be made at outputs: No space"),
        ("outputs/a/metrics.csv", "outputs/a/metrics.csv: No space"),
        ("outputs/ab", "outputs/ab: No space"),
    ],
)
def test_the_key_of_a_directory_is_named_for_it_and_those_above_it_alone(file: str, says: str) -> None:
    assert (
        failures.explain(VERBS["train"], ["seed=1", "hydra.run.dir='outputs/a'"], OSError(28, "No space", file)) == says
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("agent=ppo experiment=pong_84", "; experiment=pong_84 sets it"),  # as the experiment that it extends does
        ("agent=ppo experiment=pong_84 agent.double=true", ""),
        ("agent=ppo experiment=frozenlake_q_learning", ""),
        ("agent=ppo +agent.double=true", ""),
        ("agent=ppo tuned=dqn/pong", "; tuned=dqn/pong sets it"),
    ],
)
def test_a_key_that_was_not_typed_is_told_with_the_experiment_that_sets_it(args: str, says: str) -> None:
    error = UserError("agent.double: PPO takes no such argument; it takes gamma")
    assert failures.failure(VERBS["train"], args.split(), error).line == f"{error}{says}"


def test_a_key_of_an_experiment_that_the_chosen_option_has_not_can_be_left_out() -> None:
    error = UserError("sync.every_updates: NoTarget takes no such argument; it takes none")
    line = failures.failure(VERBS["train"], ["experiment=lunarlander_dqn", "sync=none"], error).line
    assert line == f"{error}; experiment=lunarlander_dqn sets it; add '~sync.every_updates'"
    error = UserError("exploration.end: Boltzmann takes no such argument; it takes start, low, steps")
    line = failures.failure(VERBS["train"], ["experiment=atari_fast", "exploration=boltzmann"], error).line
    assert line == f"{error}; experiment=atari_fast sets it; add '~exploration.end'"
    error = UserError("exploration.end: Greedy takes no such argument; it takes none")
    line = failures.failure(VERBS["train"], ["experiment=atari_fast", "exploration=greedy"], error).line
    assert line == f"{error}; experiment=atari_fast sets it; add '~exploration.end' '~exploration.steps'"
    error = UserError("exploration.steps: Greedy takes no such argument; it takes none")
    typed = ["experiment=atari_fast", "exploration=greedy", "~exploration.end"]
    assert failures.failure(VERBS["train"], typed, error).line.endswith("sets it; add '~exploration.steps'")
