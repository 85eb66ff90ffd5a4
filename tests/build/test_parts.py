"""Configuration nodes become objects, given what their signatures ask for."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl_runner import compute, memory
from rl_runner.agents.dqn import DQN
from rl_runner.build import jobs as build
from rl_runner.build.parts import Parts, make
from rl_runner.launch import tuned
from rl_runner.loops.online import OnlineLoop
from rl_runner.loops.replay import ReplayLoop
from rl_runner.replay.frames import DeviceFrames
from rl_runner.types import UserError

CPU = torch.device("cpu")


def parts(*words: str) -> Parts:
    cfg = build.plain(tuned.compose(list(words)))
    return Parts(cfg, build.environments(cfg["env"], cfg["env"]["num_envs"], 0, "test"), CPU)


def test_wrong_parts_are_named() -> None:
    wrong: dict[str, dict[str, Any]] = {
        "part._target_: .*nowhere": {"_target_": "nowhere.Net"},
        "part._target_: ": {"_target_": "rl_runner.sync.Harder"},
        "part.every_steps: a whole number or null": {"_target_": "rl_runner.sync.Hard", "every_steps": "often"},
        "sync.every_steps: must be at least 1": {"_target_": "rl_runner.sync.Hard", "every_steps": 0},
        "part.every_day: Hard takes no such argument; it takes every_updates, every_steps, every_episodes": {
            "_target_": "rl_runner.sync.Hard",
            "every_day": 1,
        },
        "part: .*'tau'": {"_target_": "rl_runner.sync.Soft"},
        "part.head.tau: a number": {
            "_target_": "rl_runner.networks.qnetwork.QNetwork",
            "head": {"_target_": "rl_runner.sync.Soft", "tau": "a"},
        },
    }
    for says, node in wrong.items():
        with pytest.raises(UserError, match=says):
            make("part", node)


def test_each_frame_is_counted_once_and_lies_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def place(*wanted: Any) -> torch.device:
        asked.append(wanted)
        return torch.device("meta")

    monkeypatch.setattr(compute, "frames_device", place)
    replay = parts("experiment=pong_84", "replay.capacity=5000", "replay.frames=device", "agent=dqn").replay
    assert asked == [("device", CPU, 5000, 84 * 84)]  # of the four frames in an observation, one
    assert isinstance(replay.storage.frames, DeviceFrames)
    assert replay.storage.nbytes == 5000 * (84 * 84 + 8 + 4 + 1 + 1 + 4)
    asked.clear()
    assert parts("env=cartpole", "replay.capacity=5000").replay.storage.nbytes == 5000 * (4 * 4 + 18)
    assert asked == [("auto", CPU, 5000, 4 * 4)]


def test_facts_are_passed_on() -> None:
    space = gym.spaces.Box(-1, 1, (3,))
    torso = make("part", {"_target_": "rl_runner.networks.torsos.MLP", "sizes": [5, 4]}, space)
    assert torso(torch.zeros(2, 3)).shape == (2, 5)


class Asks:
    """Takes parts by their names, a value of the configuration, and something with a default."""

    def __init__(self, actions: int, observation_space: Any, gamma: float, mine: int, other: str = "left alone"):
        self.given = (actions, observation_space.shape, gamma, mine, other)


class AsksForAnything:
    def __init__(self, **everything: Any):
        self.given = everything


def agent(name: str, **values: Any) -> Any:
    """Build an agent of this file's on CartPole."""
    cfg = build.plain(tuned.compose([]))
    cfg["agent"] = {"_target_": f"{__name__}.{name}", "name": "mine", "gamma": 0.5, "n_step": 2, **values}
    return Parts(cfg, build.environments(cfg["env"], 1, 0, "test"), CPU).agent


def test_a_signature_is_given_the_parts_that_it_names_and_nothing_else() -> None:
    assert agent("Asks", mine=3).given == (2, (4,), 0.5, 3, "left alone")
    assert agent("AsksForAnything").given == {}
    with pytest.raises(UserError, match=r"agent: .*'mine'"):
        agent("Asks")
    with pytest.raises(UserError, match=r"agent.yours: Asks takes no such argument"):
        agent("Asks", mine=3, yours=4)


def test_the_configuration_comes_before_the_parts() -> None:
    assert agent("Asks", mine=3, actions=7).given[0] == 7


def test_only_what_is_asked_for_is_built() -> None:
    table = parts("agent=q_learning", "env=frozenlake")
    assert isinstance(table.loop, OnlineLoop)
    assert table.built("network") is None
    assert table.built("replay") is None
    deep = parts("env=cartpole")
    assert isinstance(deep.loop, ReplayLoop)
    assert isinstance(deep.agent, DQN)
    assert deep.built("network") is deep.agent.online
    assert deep.loop.replay is deep.replay


def test_each_part_is_built_once() -> None:
    made = parts("env=cartpole", "agent=rainbow", "replay.capacity=500")
    assert made.loop.agent is made.agent  # type: ignore[attr-defined]
    assert made.actor.policy == made.agent.policy
    assert made.replay.sampler._tree.size == 500  # type: ignore[attr-defined]


def test_the_learning_rate_falls_only_where_that_is_asked_for() -> None:
    assert parts("env=cartpole").lr_schedule is None
    agent: Any = parts("env=cartpole", "optimizer.lr=0.5", "optimizer.lr_end=0.1", "total_steps=200").agent
    assert [agent.lr_schedule(step) for step in (0, 100, 200, 300)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_what_an_environment_cannot_give_is_said() -> None:
    with pytest.raises(UserError, match=r"env: CartPole-v1 has observations Box.*a table needs numbered states"):
        _ = parts("agent=q_learning", "env=cartpole").agent
    with pytest.raises(UserError, match=r"env: planning needs the dynamics, and CartPole-v1 does not tell them"):
        _ = parts("agent=value_iteration", "env=cartpole").agent
    with pytest.raises(UserError, match=r"env: Pendulum-v1 has actions Box.*finite number"):
        _ = parts("env=gym", "env.id=Pendulum-v1").agent


def test_planning_knows_the_lake() -> None:
    mdp = parts("agent=value_iteration", "env=frozenlake").mdp
    assert mdp.reward.shape == (16, 4)
    assert mdp.horizon == 100
    assert mdp.grid == (4, 4)
    np.testing.assert_allclose(mdp.reward.sum(), 3 * 1 / 3)  # three actions of the cell beside the goal may reach it


class HasDefaults:
    """A class of somebody's own, whose defaults have the names of parts."""

    def __init__(self, actions: int, size: int = 64, lr: float = 0.5):
        self.given = (actions, size, lr)


def test_the_defaults_of_somebodys_own_class_are_left_alone() -> None:
    assert agent("HasDefaults").given == (2, 64, 0.5)


def test_planning_with_a_table_that_does_not_say_what_is_played_is_refused() -> None:
    wrong = r"env: planning needs the dynamics, but the table P of Taxi-v4 does not match the environment: in state"
    for planner in ("value_iteration", "policy_iteration"):
        with pytest.raises(UserError, match=wrong):
            _ = parts(f"agent={planner}", "env=gym", "env.id=Taxi-v4", "++env.kwargs.fickle_passenger=true").agent


def test_a_batch_of_one_hot_inputs_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["env=gym", "env.id=Taxi-v4", "agent=dqn", "network=mlp", "replay.capacity=1000"]
    asked: list[int] = []
    monkeypatch.setattr(memory, "require", lambda what, wanted, remedy: asked.append(wanted))
    made = parts(*words, "batch_size=1000")
    network: Any = made.loop.agent.online  # type: ignore[attr-defined]
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert asked[-1] == 3 * weights + 1000 * 500 * 12  # gradients and two moments; 500 states
