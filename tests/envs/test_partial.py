"""Environments that show a part of their state."""

import gymnasium as gym
import numpy as np
import pytest

from rl_runner.envs.partial import PartialObservation
from rl_runner.types import UserError


def test_the_numbers_that_are_kept_are_shown_in_their_order() -> None:
    whole, part = gym.make("CartPole-v1"), PartialObservation(gym.make("CartPole-v1"), keep=[2, 0])
    assert part.observation_space.shape == (2,)
    np.testing.assert_array_equal(part.observation_space.high, whole.observation_space.high[[2, 0]])
    (shown, _), (seen, _) = part.reset(seed=3), whole.reset(seed=3)
    for action in [0, 1, 1, 0]:
        np.testing.assert_array_equal(shown, seen[[2, 0]])
        shown, seen = part.step(action)[0], whole.step(action)[0]
    assert part.observation_space.contains(shown)


@pytest.mark.parametrize("keep", [[], [4], [-1], [0, 0], [0.5]], ids=str)
def test_positions_that_are_not_there_are_refused(keep: list[int]) -> None:
    with pytest.raises(UserError, match=r"^env.wrappers: PartialObservation needs different positions from 0 to 3"):
        PartialObservation(gym.make("CartPole-v1"), keep)


def test_other_observations_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^env.wrappers: PartialObservation needs a Box of one dimension, got Discrete"
    ):
        PartialObservation(gym.make("FrozenLake-v1"), [0])
