"""The block at the start of a run says what was built, each fact in one line."""

import re
from typing import Any

import gymnasium as gym
import pytest
import torch

from rl_runner.agents.random import Random
from rl_runner.build import facts, jobs, saved
from rl_runner.launch import tuned
from rl_runner.loops.planning import PlanningLoop


def block(*words: str) -> dict[str, str]:
    cfg = saved.plain(tuned.compose([*words, "num_threads=1"]))
    envs = jobs.environments(cfg["env"], cfg["env"]["num_envs"], 0, "test")
    learner = jobs.learner_of(cfg, envs, torch.device("cpu"))
    said = facts.built(cfg, learner.loop()) + facts.machine(learner.agent, torch.device("cpu"))
    envs.close()
    return dict(said)


def test_a_network() -> None:
    said = block("env=cartpole", "env.num_envs=3", "replay.capacity=1_000", "network=dueling", "name=x", "tags=[a,b]")
    assert said["environment"].startswith("CartPole-v1 × 3")
    assert (said["name"], said["tags"]) == ("x", "a, b")
    assert said["agent"] == "DQN, learning in ReplayLoop"
    assert said["network"].startswith("MLP + Dueling, ")
    assert said["optimizer"] == "Adam, learning rate 0.0023"
    assert said["replay"].startswith("1,000 rows, ")
    assert said["device"].startswith("cpu, ")
    assert re.search(r" CPU threads?, computing in fp32$", said["device"])


@pytest.mark.parametrize(
    ("capacity", "total", "says"),
    [
        (500, 200, "500 rows, 17 kB, of which this run writes 8 kB"),
        (500, 5, "500 rows, 17 kB, of which this run writes 272 B"),
        (500, 1_000, "500 rows, 17 kB"),
    ],
)
def test_a_small_replay_memory_is_not_said_to_be_nothing(capacity: int, total: int, says: str) -> None:
    said = block("env=cartpole", f"replay.capacity={capacity}", f"total_steps={total}")
    assert said["replay"] == says


@pytest.mark.parametrize(
    ("words", "agent", "rollout"),
    [
        (["agent=ppo", "env=cartpole"], "PPO", "32 steps of each environment"),
        (["agent=actor_critic", "env=cartpole"], "actor_critic (class A2C)", "1 step of each environment"),
        (["agent=reinforce", "env=cartpole", "rollout_episodes=2"], "REINFORCE", "2 whole episodes"),
        (["agent=td3", "env=pendulum"], "td3 (class DDPG)", None),
    ],
)
def test_the_agent_by_its_name_and_class(words: list[str], agent: str, rollout: str | None) -> None:
    said = block(*words)
    assert said["agent"].split(",")[0] == agent
    assert said.get("rollout") == rollout


def test_a_table_has_no_network_and_no_replay() -> None:
    said = block("env=frozenlake", "agent=q_learning")
    assert said["observations"] == "16 states"
    assert said["actions"] == "Discrete(4)"
    assert said["exploration"].startswith("epsilon 1 throughout: training acts at random")
    assert "exploration" not in block("env=frozenlake", "agent=q_learning", "exploration.end=0.1")
    assert not {"network", "optimizer", "replay", "name", "tags"} & said.keys()
    assert "computing" not in said["device"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["env=cartpole"], "dqn/cartpole"),
        (["env=cartpole", "tuned=none"], "none, as asked (tuned=none)"),
        (["env=acrobot", "agent=rainbow"], "none for rainbow on acrobot, the agent's defaults"),
        (["env=cartpole", "exploration=greedy"], "dqn/cartpole, without exploration.end, exploration.steps"),
    ],
)
def test_tuned_values_are_named(words: list[str], says: str) -> None:
    assert block(*words)["tuned"] == says


def test_a_space_is_shown_in_one_line() -> None:
    cfg = saved.plain(tuned.compose(["env=cartpole"]))
    del cfg["env"]["name"]  # which a file of the user's own may lack
    envs = jobs.environments(cfg["env"], 1, 0, "test")
    envs.observation_space = gym.spaces.MultiDiscrete([3] * 60)  # NumPy breaks its text
    agent: Any = Random(envs.action_space, 0)
    agent.metrics = lambda step: {}
    said = dict(facts.built(cfg, PlanningLoop(envs, agent)))
    assert "\n" not in said["observations"]
    assert said["observations"].startswith("MultiDiscrete([3 3 3")
