"""Probe environments: each needs one more ability than the one before, and its values are known."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

ABILITIES = ("constant", "truncated", "observation", "discount", "action", "policy")


class Probe(gym.Env[Any, Any]):
    """One of six.

    constant: one step, reward 1: the value is 1.
    truncated: the same, but the step is cut short instead of an end: the value is 1 + gamma + gamma^2 + ...
    observation: one step; the reward is the observation, 1 or -1: so is the value.
    discount: two steps with the observations 0 and 1; reward 1 at the end: the values are gamma and 1.
    action: one step; action 1 (a number above 0) has reward 1, the other -1: the best value is 1.
    policy: one step; the action must match the observation: reward 1, else -1.
    """

    def __init__(self, ability: str, continuous: bool = False) -> None:
        self.ability = ability
        self.observation_space = Box(-1, 1, (1,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32) if continuous else Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        drawn = self.ability in ("observation", "policy")
        self.obs = float(self.np_random.choice([-1, 1])) if drawn else 0.0
        return np.array([self.obs], np.float32), {}

    def step(self, action: Any) -> Any:
        right = bool(np.asarray(action).ravel()[0] > 0)
        if self.ability == "discount":
            over, self.obs = self.obs == 1, 1.0
            return np.array([1.0], np.float32), float(over), over, False, {}
        reward = {
            "constant": 1.0,
            "truncated": 1.0,
            "observation": self.obs,
            "action": 1.0 if right else -1.0,
            "policy": 1.0 if right == (self.obs > 0) else -1.0,
        }[self.ability]
        cut = self.ability == "truncated"
        return np.array([self.obs], np.float32), reward, not cut, cut, {}


class Joint(Probe):
    """The last one with two numbers as an action; the first one matters."""

    def __init__(self) -> None:
        super().__init__("policy")
        self.action_space = MultiDiscrete([2, 3])


class Memory(Probe):
    """Three steps. The first observation is 1 or -1, the others are 0; the last action must match the first one.

    Reward 1, else -1. Without a memory the mean return is 0 at best.
    """

    def __init__(self) -> None:
        super().__init__("policy")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.steps += 1
        over = self.steps == 3
        reward = (1.0 if bool(action) == (self.obs > 0) else -1.0) if over else 0.0
        return np.zeros(1, np.float32), reward, over, False, {}


gym.register("ProbeJoint-v0", Joint)
gym.register("ProbeMemory-v0", Memory)
for _ability in ABILITIES:
    for _continuous in (False, True):
        gym.register(
            f"Probe{_ability.capitalize()}{'Continuous' if _continuous else ''}-v0",
            Probe,
            kwargs={"ability": _ability, "continuous": _continuous},
        )
