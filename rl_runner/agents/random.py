"""The agent that knows nothing."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rl_runner.masks import draw
from rl_runner.types import Array, BoolArray, Carry, Mode


class Random:
    """Draws each action from the action space, whatever it sees.

    Args:
        action_space: of one environment. Bounded Boxes are uniform.
        seed: of its random stream.
    """

    def __init__(self, action_space: gym.Space[Any], seed: int) -> None:
        # Discrete actions are numbered from 0 everywhere; the backend adds the space's start.
        self._space: gym.Space[Any] = action_space
        if isinstance(action_space, gym.spaces.Discrete):
            self._space = gym.spaces.Discrete(action_space.n)
        elif isinstance(action_space, gym.spaces.MultiDiscrete):
            self._space = gym.spaces.MultiDiscrete(action_space.nvec, dtype=action_space.dtype.type)
        self._space.seed(seed)

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N, *D) for observations (N, *O)."""
        if action_mask is None:
            actions = [self._space.sample() for _ in obs]
        else:
            actions = [draw(mask, self._space, self._space.np_random) for mask in action_mask]
        return np.array(actions, dtype=self._space.dtype), carry
