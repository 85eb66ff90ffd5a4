"""Masked actions from the environment to the values: against value iteration over the allowed actions alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Dict, Discrete, MultiBinary

from rl_runner.agents.dqn import DQN
from rl_runner.agents.pqn import PQN
from rl_runner.agents.tabular import QLearning
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.evaluation import evaluate
from rl_runner.exploration import EpsilonGreedy
from rl_runner.loops.online import OnlineLoop
from rl_runner.loops.replay import ReplayLoop
from rl_runner.loops.rollout import RolloutLoop
from rl_runner.networks.heads import SingleStream
from rl_runner.networks.qnetwork import QNetwork
from rl_runner.networks.torsos import MLP
from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.schedules import Every
from rl_runner.sync import Hard
from rl_runner.types import Evaluate, UserError
from rl_runner.values import Scalar

GAMMA, STATES, ACTIONS, CPU = 0.8, 5, 3, torch.device("cpu")
# Deterministic moves (next state, reward); state 0 begins, reaching state 4 ends. What is forbidden would pay 10.
MOVES = {
    0: [(1, 0.0), (2, 0.1), (0, 10.0)],
    1: [(3, 0.5), (0, 10.0), (0, -0.2)],
    2: [(0, 10.0), (4, 0.6), (1, 0.3)],
    3: [(4, 2.0), (2, 0.0), (3, 10.0)],
}
ALLOWED = np.array([[reward < 5 for _, reward in moves] for moves in MOVES.values()] + [[False] * 3])


def best_values() -> np.ndarray:
    """Q* of the allowed actions, by value iteration."""
    value = [0.0] * STATES
    for _ in range(100):
        q = [[r + GAMMA * value[s] for s, r in MOVES[i]] for i in range(4)]
        value = [max(q[i][a] for a in range(ACTIONS) if ALLOWED[i, a]) for i in range(4)] + [0.0]
    return np.array(q)


class Masked(gym.Env[Any, Any]):
    """Walks along MOVES, and fails where a forbidden action is taken."""

    action_space: gym.Space[Any] = Discrete(ACTIONS)

    def __init__(self, in_dict: bool = False, wrong: bool = False) -> None:
        self.in_dict, self.wrong = in_dict, wrong
        states = Discrete(STATES)
        self.observation_space = Dict({"observation": states, "action_mask": MultiBinary(3)}) if in_dict else states

    def _show(self) -> tuple[Any, dict[str, Any]]:
        mask = ALLOWED[self.s].astype(np.int8) * (not self.wrong)
        return ({"observation": self.s, "action_mask": mask}, {}) if self.in_dict else (self.s, {"action_mask": mask})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.s = 0
        return self._show()

    def step(self, action: Any) -> Any:
        assert ALLOWED[self.s, action], f"action {action} in state {self.s}"
        self.s, reward = MOVES[self.s][action]
        obs, info = self._show()
        return obs, reward, self.s == 4, False, info


gym.register("RlrunMasked-v0", Masked, max_episode_steps=30)


def make(num_envs: int, **kwargs: Any) -> EpisodicVectorEnv:
    return EpisodicVectorEnv(GymBackend("RlrunMasked-v0", num_envs, kwargs=kwargs), 0, "train")


@pytest.mark.parametrize("in_dict", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_masks_are_those_of_the_states_shown(num_envs: int, in_dict: bool) -> None:
    envs = make(num_envs, in_dict=in_dict)
    obs, rng = envs.reset(), np.random.default_rng(0)
    for _ in range(60):
        assert envs.action_mask is not None
        np.testing.assert_array_equal(envs.action_mask, ALLOWED[obs])
        before = envs.action_mask
        envs.send(np.where(before, rng.random(before.shape), -1).argmax(axis=1))
        tr = envs.recv()
        np.testing.assert_array_equal(tr.action_mask, before)
        shown = np.where(tr.next_obs[:, None] == 4, True, ALLOWED[tr.next_obs])  # where nothing follows, all are
        np.testing.assert_array_equal(tr.next_action_mask, shown)
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs


def test_a_state_in_which_nothing_is_allowed_is_refused() -> None:
    with pytest.raises(UserError, match=r"^env: RlrunMasked-v0 allows no action at step 0 of episode 0$"):
        make(1, wrong=True).reset()


def test_a_restored_run_has_the_same_masks() -> None:
    envs, other = make(3), make(3)
    obs, rng = envs.reset(), np.random.default_rng(1)
    for _ in range(17):
        assert envs.action_mask is not None
        envs.send(np.where(envs.action_mask, rng.random((3, 3)), -1).argmax(axis=1))
        tr = envs.recv()
        obs = envs.reset(tr.ended) if tr.ended.any() else tr.next_obs
    np.testing.assert_array_equal(other.load_state_dict(envs.state_dict()), obs)
    assert not other.lost.any()
    np.testing.assert_array_equal(other.action_mask, envs.action_mask)  # type: ignore[arg-type]


def test_q_learning_finds_the_values_of_the_allowed_actions() -> None:
    envs = make(2)
    agent = QLearning(
        STATES, ACTIONS, GAMMA, EpsilonGreedy(1.0, 1.0, 0), lr=0.5, initial=5.0
    )  # what is never tried stays at 5
    loop = OnlineLoop(envs, agent, np.random.default_rng(0))
    for _ in range(2000):
        loop.step()
    q = agent.table.numpy()[:4]
    np.testing.assert_allclose(q[ALLOWED[:4]], best_values()[ALLOWED[:4]], atol=1e-6)
    assert (q[~ALLOWED[:4]] == 5.0).all()
    mode = Evaluate(np.random.default_rng(0), epsilon=0.3)
    assert len(evaluate(agent, make(2), 20, mode).episodes) == 20  # the environment checks each action


def test_dqn_finds_them_through_the_replay() -> None:
    torch.manual_seed(0)
    envs = make(2)
    network = QNetwork(Discrete(STATES), ACTIONS, 1, 0, partial(MLP, sizes=(32,)), SingleStream)
    with torch.no_grad():
        network.head.values.out.bias.fill_(5.0)  # what is never learned looks good
    explore = EpsilonGreedy(1.0, 1.0, 0)
    agent = DQN(
        network, Scalar("mse"), partial(torch.optim.Adam, lr=5e-3), Hard(every_updates=20), explore, double=True
    )
    storage = RowStorage(2000, 2, (), np.int64)
    replay = Replay(storage, Uniform(), GAMMA, 1, None, np.random.default_rng(0), CPU)
    loop = ReplayLoop(envs, agent, replay, np.random.default_rng(0), 64, 200, Every(2))
    for _ in range(900):
        loop.step()
    q = agent.q_values(torch.arange(4)).numpy()
    np.testing.assert_allclose(q[ALLOWED[:4]], best_values()[ALLOWED[:4]], atol=0.1)


def test_pqn_finds_them_in_rollouts() -> None:
    """With lambda 0, because the actions are random; the episodes are cut short at 3 steps, inside rollouts of 8."""
    torch.manual_seed(0)
    gym.register("RlrunMaskedShort-v0", Masked, max_episode_steps=3)
    envs = EpisodicVectorEnv(GymBackend("RlrunMaskedShort-v0", 4), 0, "train")
    network = QNetwork(Discrete(STATES), ACTIONS, 1, 0, partial(MLP, sizes=(32,)), SingleStream)
    with torch.no_grad():
        network.head.values.out.bias.fill_(5.0)  # what is never learned looks good
    optimizer, explore = partial(torch.optim.Adam, lr=5e-3), EpsilonGreedy(1.0, 1.0, 0)
    agent = PQN(network, Scalar("mse"), optimizer, explore, GAMMA, lam=0.0, epochs=4, batch_size=16)
    loop = RolloutLoop(envs, agent, np.random.default_rng(0), steps=8)
    for _ in range(1200):
        loop.step()
    q = agent.q_values(torch.arange(4)).numpy()
    np.testing.assert_allclose(q[ALLOWED[:4]], best_values()[ALLOWED[:4]], atol=0.1)
