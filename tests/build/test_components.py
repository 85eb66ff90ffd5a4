"""The parts of an agent and of its loop, from their groups of the configuration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]

from rl_runner import catalogue, compute, memory
from rl_runner.build import components, jobs, saved
from rl_runner.build.recipes import Learner
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.exploration import Greedy
from rl_runner.launch import tuned
from rl_runner.replay.frames import DeviceFrames
from rl_runner.replay.replay import Replay
from rl_runner.types import Exploration, State, UserError
from tests.commandline import refused

CPU = torch.device("cpu")


def configuration(*words: str) -> State:
    return saved.plain(tuned.compose(list(words)))


def environments(cfg: State) -> EpisodicVectorEnv:
    return jobs.environments(cfg["env"], cfg["env"]["num_envs"], 0, "test")


def replay(*words: str) -> Replay:
    cfg = configuration(*words)
    return components.replay_memory(cfg, environments(cfg), CPU)


def learner(*words: str) -> Learner:
    cfg = configuration(*words)
    return jobs.learner_of(cfg, environments(cfg), CPU)


def test_each_frame_is_counted_once_and_lies_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def place(*wanted: Any) -> torch.device:
        asked.append(wanted)
        return torch.device("meta")

    monkeypatch.setattr(compute, "frames_device", place)
    memory = replay("experiment=pong_84", "replay.capacity=5000", "replay.frames=device", "agent=dqn")
    assert asked == [("device", CPU, 5000, 84 * 84)]  # of the four frames in an observation, one
    assert isinstance(memory.storage.frames, DeviceFrames)
    assert memory.storage.nbytes == 5000 * (84 * 84 + 8 + 4 + 1 + 1 + 4)
    asked.clear()
    assert replay("env=cartpole", "replay.capacity=5000").nbytes == 5000 * (4 * 4 + 18)
    prioritized = replay("env=cartpole", "replay.capacity=5000", "replay=prioritized")
    assert prioritized.nbytes == prioritized.storage.nbytes + prioritized.sampler.nbytes
    assert 8 * 5000 <= prioritized.sampler.nbytes <= 32 * 5000  # a tree of float64
    assert asked == 2 * [("auto", CPU, 5000, 4 * 4)]


def test_the_learning_rate_falls_only_where_that_is_asked_for() -> None:
    assert components.lr_schedule(configuration("env=cartpole")) is None
    agent: Any = learner("env=cartpole", "optimizer.lr=0.5", "optimizer.lr_end=0.1", "total_steps=200").agent
    assert [agent.lr_schedule(step) for step in (0, 100, 200, 300)] == pytest.approx([0.5, 0.3, 0.1, 0.1])
    mine = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.5, "lr_end": 0.1}, "total_steps": 200}  # no lr_steps
    schedule: Any = components.lr_schedule(mine)
    assert schedule(100) == pytest.approx(0.3)
    del mine["optimizer"]["lr"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^optimizer\.lr: .*it is missing"):
        components.lr_schedule(mine)


def test_values_of_adams_file_are_left_out_for_other_classes_and_values_that_were_set_are_not() -> None:
    assert learner("env=cartpole", "optimizer._target_=torch.optim.SGD", "replay.capacity=500")
    line = r"^optimizer\.eps: SGD takes no such argument; it takes params, lr"
    with pytest.raises(UserError, match=line):
        learner("env=cartpole", "optimizer._target_=torch.optim.SGD", "optimizer.eps=0.001", "replay.capacity=500")
    adam = yaml.safe_load((catalogue.conf_dir() / "optimizer/adam.yaml").read_text())
    assert {key: float(adam[key]) for key in components.LEFT_OVER} == components.LEFT_OVER


def test_an_optimizer_that_needs_a_closure_is_refused(workdir: Path) -> None:
    line = refused("train", "optimizer._target_=torch.optim.LBFGS")
    assert "evaluates the loss once per step, such as torch.optim.Adam, got torch.optim.LBFGS" in line


@pytest.mark.parametrize(
    ("target", "why"),
    [("nn.Linear", "a torch.optim.Optimizer"), ("optim.SparseAdam", "an optimizer for dense gradients")],
)
def test_what_is_no_optimizer_for_dense_gradients_is_refused(workdir: Path, target: str, why: str) -> None:
    line = refused("train", f"optimizer._target_=torch.{target}")
    assert line == f"rlrun: optimizer._target_: must be {why}, such as torch.optim.Adam, got torch.{target}"


def none_of(params: Any, lr: float) -> None:
    return None


def test_what_makes_no_optimizer_is_named() -> None:
    line = r"^optimizer\._target_: must be a function that returns a torch\.optim\.Optimizer, .*none_of returned None$"
    with pytest.raises(UserError, match=line):
        learner("env=cartpole", f"optimizer._target_={__name__}.none_of", "replay.capacity=500")
    with pytest.raises(UserError, match=r"^optimizer: a list is too short for torch\.optim\.Adam$"):
        learner("env=cartpole", "+optimizer.betas=[0.9]", "replay.capacity=500")


def test_what_an_environment_cannot_give_is_said() -> None:
    with pytest.raises(
        UserError, match=r"env: CartPole-v1 has observations of shape \(4,\); a table needs discrete states"
    ):
        learner("agent=q_learning", "env=cartpole")
    with pytest.raises(UserError, match=r"env: planning needs the dynamics, and CartPole-v1 does not tell them"):
        learner("agent=value_iteration", "env=cartpole")
    with pytest.raises(UserError, match=r"env: Pendulum-v1 has actions Box.*finite number"):
        learner("env=gym", "env.id=Pendulum-v1")


def test_planning_knows_the_lake() -> None:
    mdp = components.dynamics(environments(configuration("env=frozenlake")))
    assert mdp.reward.shape == (16, 4)
    assert mdp.horizon == 100
    assert mdp.grid == (4, 4)
    np.testing.assert_allclose(mdp.reward.sum(), 3 * 1 / 3)  # three actions of the cell beside the goal may reach it


def test_planning_with_a_table_that_does_not_say_what_is_played_is_refused() -> None:
    wrong = r"env: planning needs the dynamics, but the table P of Taxi-v4 does not match the environment: in state"
    for planner in ("value_iteration", "policy_iteration"):
        with pytest.raises(UserError, match=wrong):
            learner(f"agent={planner}", "env=gym", "env.id=Taxi-v4", "++env.kwargs.fickle_passenger=true")


def test_a_batch_of_one_hot_inputs_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["env=gym", "env.id=Taxi-v4", "agent=dqn", "network=mlp", "replay.capacity=1000"]
    asked: list[int] = []
    monkeypatch.setattr(memory, "require", lambda what, wanted, remedy: asked.append(wanted))
    loop: Any = learner(*words, "batch_size=1000").loop()
    network = loop.agent.online
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert asked[-1] == 3 * weights + 1000 * 500 * 12  # gradients and two moments; 500 states


class Saves(Greedy):
    def state_dict(self) -> dict[str, int]:
        return {}


class TakesLess(Greedy):
    def explore(self, q, step, rng):
        return q.argmax(axis=1), None


@pytest.mark.parametrize(
    ("kind", "line"),
    [(Saves, "Saves has a state_dict, which is not saved"), (TakesLess, "TakesLess is no RemembersActions")],
)
def test_a_rule_of_exploration_with_a_memory_keeps_the_contract(kind: type, line: str) -> None:
    cfg = {"exploration": {"_target_": f"{__name__}.{kind.__name__}"}}
    with pytest.raises(UserError, match=f"^exploration: {line}"):
        components.exploration(cfg, Exploration, "exploration=epsilon_greedy")
