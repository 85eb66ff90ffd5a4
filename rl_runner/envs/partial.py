"""Environments that show only a part of their state, so that an agent has to remember earlier observations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from rl_runner.types import Array, UserError


class PartialObservation(gym.ObservationWrapper[Array, Any, Array]):
    """Shows some numbers of each observation, without velocities for example.

    Args:
        env: its observations are a Box of one dimension.
        keep: positions of the numbers that are shown, in this order.

    Raises:
        UserError: other observations, or a position that they do not have.
    """

    def __init__(self, env: gym.Env[Array, Any], keep: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise UserError(f"env.wrappers: PartialObservation needs a Box of one dimension, got {space}")
        size, given = space.shape[0], list(keep)
        if not given or not all(isinstance(i, int) and 0 <= i < size for i in given) or len(set(given)) < len(given):
            raise UserError(
                f"env.wrappers: PartialObservation needs different positions from 0 to {size - 1} in keep, got {given}"
            )
        self._keep = np.array(given)
        self.observation_space = Box(space.low[self._keep], space.high[self._keep], dtype=space.dtype.type)

    def observation(self, observation: Array) -> Array:
        """(n,) -> (k,) the numbers that are shown."""
        shown: Array = observation[self._keep]
        return shown
