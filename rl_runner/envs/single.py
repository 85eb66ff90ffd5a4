"""A run's environment as Gymnasium has it: one environment, with the preprocessing of the run."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from rl_runner.envs.spaces import first_action
from rl_runner.envs.vector import Backend
from rl_runner.types import Array, UserError


class SingleEnv(gym.Env[Any, Any]):
    """The one environment of a backend. Observations are those that the run's agent reads.

    Where actions are masked, `info["action_mask"]` holds those that are allowed (A,). At the end of an episode `info`
    holds the numbers that the environment reports there, such as whether the task was solved.

    Args:
        backend: with num_envs=1.
        render_mode: "rgb_array" if the backend draws.
    """

    def __init__(self, backend: Backend, render_mode: str | None = None) -> None:
        self.backend, self.render_mode = backend, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": backend.fps}
        self.observation_space, self.action_space = backend.observation_space, backend.action_space
        self._first_action = first_action(backend.action_space)
        self._running = False
        self._frame: Array | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; without a seed it gets one from the environment's own stream.

        Raises:
            UserError: options, which rlrun's environments do not take.
        """
        if options:
            raise UserError("options: must be left out; an environment made with raw=True takes them")
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        obs = self.backend.reset(np.ones(1, dtype=np.bool_), [episode])
        self._running = True
        return obs[0].copy(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step.

        Raises:
            ResetNeeded: no episode is running.
        """
        if not self._running:
            raise ResetNeeded("the episode is over, or none has begun: call reset first")
        taken = np.array([action], dtype=self.action_space.dtype)
        self.backend.send(taken if self._first_action is None else taken - self._first_action)
        step = self.backend.recv()
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._running = not (terminated or truncated)
        reported = {} if self._running or not step.info else dict(step.info[0])
        return step.obs[0].copy(), float(step.reward[0]), terminated, truncated, {**self._info(), **reported}

    def render(self) -> Any:
        """Return the newest picture (H, W, 3), None if the environment does not draw."""
        if frames := self.backend.frames():
            self._frame = frames[-1]
        return self._frame

    def close(self) -> None:
        """Free what the environment holds."""
        self.backend.close()

    def _info(self) -> dict[str, Any]:
        mask = self.backend.action_mask
        return {} if mask is None else {"action_mask": mask[0].copy()}
