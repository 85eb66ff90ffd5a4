"""A small environment of images and actions with bounds of a dimension's own, as CarRacing has."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box


class PixelControl(gym.Env[Any, Any]):
    """The first number of the action moves a bright column; a step's reward is how near the middle it stands."""

    observation_space = Box(0, 255, (12, 12, 3), np.uint8)
    action_space = Box(np.array([-1, 0], np.float32), np.array([1, 1], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(0, 11)), 0
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.x = float(np.clip(self.x + action[0] - action[1] / 2, 0, 11))
        self.t += 1
        return self._obs(), -abs(self.x - 5.5), False, self.t >= 5, {}

    def _obs(self) -> Any:
        obs = np.zeros((12, 12, 3), np.uint8)
        obs[:, round(self.x)] = 255
        return obs


gym.register("RlrunPixels-v0", entry_point=PixelControl)
