"""The random agent covers its action space evenly, and nothing else."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from rl_runner.agents.random import Random
from rl_runner.types import Evaluate

MODE = Evaluate(np.random.default_rng(0))


def actions(space: gym.Space[Any], steps: int = 2_000, mask: Any = None) -> np.ndarray:
    agent = Random(space, 5)
    return np.array([agent.act(np.zeros((3, 4)), None, MODE, mask)[0] for _ in range(steps)])


@pytest.mark.parametrize(
    "space", [Box(-2, 3, (2,), np.float32), MultiDiscrete([3, 2]), MultiBinary(4), Discrete(5)], ids=str
)
def test_actions_have_the_form_of_the_space(space: gym.Space[Any]) -> None:
    drawn = actions(space, 50)
    assert drawn.shape == (50, 3, *(space.shape or ()))
    assert drawn.dtype == space.dtype
    assert all(space.contains(action if action.shape else action.item()) for action in drawn[:, 0])
    np.testing.assert_array_equal(drawn, actions(space, 50))  # by the seed alone


def test_boxes_are_uniform() -> None:
    drawn = actions(Box(np.array([-2.0, 0.0]), np.array([3.0, 1.0]), dtype=np.float64)).reshape(-1, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, 0.5], atol=4 * 5 / 12**0.5 / 6_000**0.5)
    np.testing.assert_allclose(drawn.std(axis=0), [5 / 12**0.5, 1 / 12**0.5], rtol=0.05)


def test_discrete_actions_are_numbered_from_0_and_keep_to_the_mask() -> None:
    assert set(actions(Discrete(3, start=7)).ravel().tolist()) == {0, 1, 2}
    mask = np.array([[True, False, True], [False, True, False], [True, True, True]])
    drawn = actions(Discrete(3), mask=mask)
    assert [set(drawn[:, i].tolist()) for i in range(3)] == [{0, 2}, {1}, {0, 1, 2}]


def test_multi_discrete_actions_are_numbered_from_0() -> None:
    drawn = actions(MultiDiscrete([3, 2], start=[7, 4]), 50).reshape(-1, 2)
    assert [set(drawn[:, i].tolist()) for i in range(2)] == [{0, 1, 2}, {0, 1}]
