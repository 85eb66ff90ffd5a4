"""A robot drives into the only free bay of a car park."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

SIDE, ROW = 10.0, 8.0  # metres: the car park is a square, its bays are above the line y = ROW
BAYS, GAP = 4, 1.0  # number of bays; half the width of the free one
ACTIONS = ((1.0, 0.0), (1.0, np.pi / 6), (1.0, -np.pi / 6), (-1.0, 0.0))  # (metres, turn): ahead, left, right, back
PIXELS = 20  # per metre
GROUND, CAR, BAY, ROBOT, FRONT = (90, 90, 95), (190, 60, 60), (80, 170, 100), (70, 130, 220), (255, 255, 255)

Observation = npt.NDArray[np.float32]


class RoboParking(gymnasium.Env[Observation, np.int64]):
    """Park without a crash.

    Observations (6,) are in [-1, 1]: the position, cosine and sine of the heading, and how far the free bay is to the
    right and above. The reward is the distance that the robot came nearer to the bay in metres, +10 when it is parked,
    and -10 for a crash. It is parked when it is deep inside of the bay and straight, within 45 degrees.

    Args:
        render_mode: "rgb_array" or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (6,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self.x = self.y = self.heading = self.bay = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start anywhere in the lower part of the car park, in any direction, with any bay free."""
        super().reset(seed=seed)  # seeds self.np_random: use no other source of random numbers
        self.x, self.y = self.np_random.uniform((2.0, 2.0), (SIDE - 2.0, 5.0))
        self.heading = self.np_random.uniform(-np.pi, np.pi)
        self.bay = (self.np_random.integers(BAYS) + 0.5) * SIDE / BAYS
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Turn, then drive one metre."""
        before = self._distance()
        metres, turn = ACTIONS[action]
        self.heading = (self.heading + turn + np.pi) % (2 * np.pi) - np.pi
        self.x += metres * np.cos(self.heading)
        self.y += metres * np.sin(self.heading)
        crashed = not (0 <= self.x <= SIDE and 0 <= self.y <= SIDE)
        crashed |= self.y > ROW and abs(self.x - self.bay) > GAP
        parked = not crashed and self.y > SIDE - 1.7 and abs(self.heading - np.pi / 2) < np.pi / 4
        reward = before - self._distance() + 10.0 * parked - 10.0 * crashed
        return self._observation(), float(reward), bool(crashed or parked), False, {"parked": bool(parked)}

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the car park as an array (H, W, 3), with y upwards."""
        if self.render_mode != "rgb_array":
            return None
        y, x = np.mgrid[SIDE : 0 : -1 / PIXELS, 0 : SIDE : 1 / PIXELS]
        picture = np.full((*x.shape, 3), GROUND, dtype=np.uint8)
        picture[y > ROW] = CAR
        picture[(y > ROW) & (abs(x - self.bay) < GAP)] = BAY
        picture[np.hypot(x - self.x, y - self.y) < 0.4] = ROBOT
        front = (self.x + 0.3 * np.cos(self.heading), self.y + 0.3 * np.sin(self.heading))
        picture[np.hypot(x - front[0], y - front[1]) < 0.15] = FRONT
        return picture

    def _distance(self) -> float:
        return float(np.hypot(self.bay - self.x, SIDE - 1.0 - self.y))

    def _observation(self) -> Observation:
        position = (2 * self.x / SIDE - 1, 2 * self.y / SIDE - 1)
        bay = ((self.bay - self.x) / SIDE, (SIDE - 1.0 - self.y) / SIDE)
        numbers = (*position, np.cos(self.heading), np.sin(self.heading), *bay)
        return np.clip(np.array(numbers, dtype=np.float32), -1.0, 1.0)
