"""Masks of several choices, by hand, and from an environment to a trained policy."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from rl_runner import masks
from rl_runner.agents.random import Random
from rl_runner.build.environments import environments
from rl_runner.evaluation import evaluate
from rl_runner.types import Evaluate
from tests.test_control import goes_on_with_the_same_bits, loop_of
from tests.test_parts_compose import config

SIZES = [2, 3]
MASK = np.array([[1, 0, 0, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 0, 0]], dtype=np.bool_)


def test_sizes_of_spaces() -> None:
    assert masks.sizes_of(Discrete(3, start=5)) == [3]
    assert masks.sizes_of(MultiDiscrete([2, 3])) == [2, 3]
    assert masks.sizes_of(MultiBinary(2)) == [2, 2]
    assert (
        masks.sizes_of(Box(0, 1))
        == masks.sizes_of(MultiDiscrete([[2, 3]]))
        == masks.sizes_of(MultiBinary([2, 2]))
        == []
    )


def test_each_choice_needs_an_allowed_action() -> None:
    assert masks.possible(MASK, SIZES).tolist() == [True, True, False]
    assert masks.possible(MASK, [5]).tolist() == [True, True, True]


def test_an_action_is_permitted_if_each_of_its_choices_is() -> None:
    for a in range(2):
        for b in range(3):
            wanted = [bool(row[a] and row[2 + b]) for row in MASK]
            assert masks.permits(MASK, np.array([[a, b]] * 3), SIZES).tolist() == wanted
    assert masks.permits(MASK, np.array([0, 0, 1]), [5]).tolist() == [True, False, True]


def test_first_and_drawn_actions_are_allowed() -> None:
    several, one = MultiDiscrete(SIZES), Discrete(5)
    assert masks.first(MASK[:2], several) == [[0, 1], [1, 0]]
    assert masks.first(MASK, one) == [0, 1, 0]
    assert masks.first(MASK, MultiDiscrete([5])) == [[0], [1], [0]]
    rng = np.random.default_rng(0)
    assert {tuple(masks.draw(MASK[1], several, rng)) for _ in range(50)} == {(1, 0), (1, 2)}
    assert {int(masks.draw(MASK[1], one, rng)) for _ in range(50)} == {1, 2, 4}


class Locked(gym.Env[Any, Any]):
    """Choices of 2 and of 3 actions. One action of each is forbidden at each step, and would pay 10; it fails if taken.

    Of the others, the numbers are the reward: the best return of 4 steps is known for each seed.
    """

    def __init__(self, space: gym.Space[Any] | None = None) -> None:
        self.action_space = space or MultiDiscrete([2, 3])
        self.sizes = masks.sizes_of(self.action_space)
        self.observation_space = Box(0, 1, (sum(self.sizes),), np.float32)

    def _shown(self) -> Any:
        self.mask = np.concatenate([np.arange(n) != self.np_random.integers(n) for n in self.sizes])
        return self.mask.astype(np.float32), {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._shown()

    def step(self, action: Any) -> Any:
        assert np.shape(action) == self.action_space.shape
        assert masks.permits(self.mask[None], np.asarray(action)[None], self.sizes)[0]
        self.steps += 1
        obs, info = self._shown()
        return obs, float(np.sum(action)), False, self.steps == 4, info


gym.register("RlrunLocked-v0", Locked)
gym.register("RlrunLockedBinary-v0", Locked, kwargs={"space": MultiBinary(2)})
gym.register("RlrunLockedAlone-v0", Locked, kwargs={"space": MultiDiscrete([3])})
WORDS = ["env=gym", "env.imports=[tests.test_masks]", "tuned=none", "env.num_envs=2", "rollout_steps=8"]
WORDS += ["network/torso=mlp", "network.torso.sizes=[8]"]


@pytest.mark.parametrize("agent", ["ppo", "a2c"])
@pytest.mark.parametrize("env", ["RlrunLocked-v0", "RlrunLockedBinary-v0", "RlrunLockedAlone-v0"])
def test_a_policy_of_several_choices_takes_allowed_actions_and_is_resumed(agent: str, env: str, tmp_path: Any) -> None:
    goes_on_with_the_same_bits([f"agent={agent}", f"env.id={env}", *WORDS], tmp_path, [3, 8, 13], 40)


def test_a_policy_finds_the_best_allowed_action_of_each_choice(tmp_path: Any) -> None:
    words = ["agent=ppo", "env.id=RlrunLocked-v0", *WORDS, "optimizer.lr=1e-2", "rollout_steps=64"]
    cfg = config(words)
    loop = loop_of(cfg, tmp_path)
    while loop.clock.steps < 4_000:
        loop.step()
    envs, mode = environments(cfg["env"], 2, 0, "test"), Evaluate(np.random.default_rng(0), epsilon=0.0)
    allowed = []
    act = loop.agent.act

    def acts(obs: Any, carry: Any, mode: Any, action_mask: Any = None) -> Any:
        action, carry = act(obs, carry, mode, action_mask)
        best = [[max(np.flatnonzero(row[:2])), max(np.flatnonzero(row[2:]))] for row in action_mask]
        allowed.append(np.array_equal(action, best))
        return action, carry

    loop.agent.act = acts
    evaluate(loop.agent, envs, 20, mode)
    assert np.mean(allowed) == 1.0


@pytest.mark.parametrize("env", ["RlrunLocked-v0", "RlrunLockedAlone-v0"])
def test_environments_of_unequal_age_are_restored_and_episodes_repeat(env: str, tmp_path: Any) -> None:
    node = config(["agent=ppo", f"env.id={env}", *WORDS])["env"]
    envs, other = environments(node, 2, 0, "test"), environments(node, 2, 0, "test")
    obs, rng = envs.reset(), np.random.default_rng(0)
    envs.reset(np.array([False, True]))
    for _ in range(2):
        envs.send(np.array([masks.draw(mask, envs.action_space, rng) for mask in envs.action_mask]))
        obs = envs.recv().next_obs
    envs.reset(np.array([False, True]))
    envs.send(np.array([masks.draw(mask, envs.action_space, rng) for mask in envs.action_mask]))
    obs = envs.recv().next_obs
    np.testing.assert_array_equal(other.load_state_dict(envs.state_dict()), obs)
    assert not other.lost.any()
    agent = Random(envs.action_space, 0)
    played = evaluate(agent, environments(node, 2, 0, "test"), 3, Evaluate(rng)).episodes
    assert all(environments(node, 2, 0, "test").repeats(episode) for episode in played)


def test_random_actions_are_allowed() -> None:
    agent, mode = Random(MultiDiscrete([2, 3]), 0), Evaluate(np.random.default_rng(0))
    for _ in range(30):
        action, _ = agent.act(np.zeros(2), None, mode, MASK[:2])
        assert masks.permits(MASK[:2], action, SIZES).all()
