"""Bit flipping: reach a goal by flipping one bit at a time (Andrychowicz et al. 2017, section 3.1)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete

from rl_runner.types import UserError

Bits = npt.NDArray[np.float32]

CELL, MARK = 32, 4  # pixels: side of a bit's square, and half that of the mark of a wrong one
WHITE, BLUE, GREY, RED = (255, 255, 255), (50, 90, 200), (200, 200, 200), (200, 60, 60)  # RGB


class BitFlip(gym.Env[Any, Any]):
    """n bits and a goal, both drawn at random. Action i flips bit i.

    The reward is -1 per step, and 0 for the step that reaches the goal, which ends the episode. After n steps it is
    truncated. For large n random actions hardly ever reach the goal.

    Args:
        bits: n.
        render_mode: "rgb_array" or None. Pictures have the goal above the bits; wrong bits are marked.

    Raises:
        UserError: there is no bit.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as in Gymnasium

    def __init__(self, bits: int = 15, render_mode: str | None = None) -> None:
        if bits < 1:
            raise UserError(f"env.kwargs.bits: must be at least 1, got {bits}")
        self.bits, self.render_mode = bits, render_mode
        part = Box(0.0, 1.0, (bits,), np.float32)
        self.observation_space: gym.Space[Any] = Dict(
            {"observation": part, "achieved_goal": part, "desired_goal": part}
        )
        self.action_space: gym.Space[Any] = Discrete(bits)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw bits, and a goal that differs from them."""
        super().reset(seed=seed)
        self._state, self._goal = (self.np_random.integers(0, 2, self.bits).astype(np.float32) for _ in range(2))
        if (self._state == self._goal).all():
            bit = self.np_random.integers(self.bits)
            self._goal[bit] = 1 - self._goal[bit]
        self._steps = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Flip a bit."""
        self._state[action] = 1 - self._state[action]
        self._steps += 1
        reached = self.compute_terminated(self._state, self._goal, {})
        reward = float(self.compute_reward(self._state, self._goal, {}))
        return self._obs(), reward, reached, self._steps >= self.bits and not reached, {"is_success": float(reached)}

    def render(self) -> Any:
        """Return a picture (2 CELL, n CELL, 3) of the goal and, below it, the bits; None without a render mode."""
        if self.render_mode is None:
            return None
        colours = np.array([WHITE, BLUE], dtype=np.uint8)
        rows = colours[np.stack([self._goal, self._state]).astype(np.int64)]  # (2, n, 3)
        picture = rows.repeat(CELL, axis=0).repeat(CELL, axis=1)
        picture[::CELL] = picture[:, ::CELL] = GREY
        for bit in np.flatnonzero(self._state != self._goal):
            left, middle = bit * CELL, CELL + CELL // 2
            picture[middle - MARK : middle + MARK, left + CELL // 2 - MARK : left + CELL // 2 + MARK] = RED
        return picture

    def compute_reward(self, achieved_goal: Bits, desired_goal: Bits, info: Any) -> Any:
        """Return 0 where the goal (..., n) is achieved, else -1: (...)."""
        return -(achieved_goal != desired_goal).any(axis=-1).astype(np.float32)

    def compute_terminated(self, achieved_goal: Bits, desired_goal: Bits, info: Any) -> bool:
        """Return whether the goal (n,) is achieved."""
        return bool((achieved_goal == desired_goal).all())

    def _obs(self) -> dict[str, Bits]:
        state, goal = self._state, self._goal
        return {"observation": state.copy(), "achieved_goal": state.copy(), "desired_goal": goal.copy()}
