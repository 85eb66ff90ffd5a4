"""A grid world with known dynamics (Sutton & Barto 2018, example 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.toy_text.utils import categorical_sample
from gymnasium.spaces import Discrete

from rl_runner import memory
from rl_runner.types import UserError

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # (rows down, columns right) of: up, right, down, left
CELL = 32  # pixels
WHITE, GREY, EXIT, AGENT = (255, 255, 255), (200, 200, 200), (90, 170, 110), (50, 90, 200)  # RGB


class GridWorld(gym.Env[int, int]):
    """A grid with exits. Each step costs 1, including the last; a move against the wall has no effect.

    Observations are cells numbered row by row; actions are up, right, down, left.

    Args:
        rows: number of rows.
        columns: number of columns.
        terminals: (row, column) of the exits; None: the first cell and the last, as in the book.
        slip: probability of moving at a right angle to the action, half of it to each side.
        start: (row, column) where episodes begin; None: any cell but the exits, with equal probability.
        render_mode: "rgb_array" or None.

    Attributes:
        P: the dynamics, `P[state][action]` = list of (probability, next state, reward, terminated).
        initial_state_distrib: (S,) probabilities of the first state.
        shape: (rows, columns).

    Raises:
        UserError: an argument is out of range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 - as in Gymnasium

    def __init__(
        self,
        rows: int = 4,
        columns: int = 4,
        terminals: Sequence[Sequence[int]] | None = None,
        slip: float = 0.0,
        start: Sequence[int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        for key, size in [("rows", rows), ("columns", columns)]:
            if size < 1:
                raise UserError(f"env.kwargs.{key}: must be at least 1, got {size}")
        if not 0.0 <= slip <= 1.0:
            raise UserError(f"env.kwargs.slip: must be a probability in [0, 1], got {slip}")
        what = f"env.kwargs.rows, env.kwargs.columns: a table of {rows:,} × {columns:,} cells"
        memory.require(what, 2_000 * rows * columns, "choose fewer")
        self.shape, self.slip, self.render_mode = (rows, columns), slip, render_mode
        exits = [(0, 0), (rows - 1, columns - 1)] if terminals is None else terminals
        self.terminals = {self._number("terminals", cell) for cell in exits}
        self.P = {s: {a: self._outcomes(s, a) for a in range(4)} for s in range(rows * columns)}
        self.initial_state_distrib = self._first_state(start)
        self.observation_space = Discrete(rows * columns)  # type: ignore[assignment]
        self.action_space = Discrete(4)  # type: ignore[assignment]
        self.state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        self.state = int(categorical_sample(self.initial_state_distrib, self.np_random))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move once. Episodes are not truncated here: a wrapper limits their time."""
        outcomes = self.P[self.state][int(action)]
        k = categorical_sample([outcome[0] for outcome in outcomes], self.np_random)
        _, self.state, reward, terminated = outcomes[k]
        return self.state, reward, terminated, False, {}

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the grid (32 rows, 32 columns, 3): the exits are green, the agent is a blue disc."""
        if self.render_mode != "rgb_array":
            return None
        rows, columns = self.shape
        picture = np.full((rows, columns, CELL, CELL, 3), WHITE, dtype=np.uint8)  # cell by cell
        for s in self.terminals:
            picture[divmod(s, columns)] = EXIT
        picture[:, :, 0, :] = picture[:, :, :, 0] = GREY
        y, x = np.indices((CELL, CELL)) - CELL / 2
        picture[divmod(self.state, columns)][x**2 + y**2 < (CELL / 3) ** 2] = AGENT
        return picture.swapaxes(1, 2).reshape(rows * CELL, columns * CELL, 3)

    def _number(self, key: str, cell: Sequence[int]) -> int:
        """Return a cell's number."""
        rows, columns = self.shape
        if len(cell) != 2 or not (0 <= cell[0] < rows and 0 <= cell[1] < columns):
            raise UserError(f"env.kwargs.{key}: {list(cell)} is not a [row, column] of a grid of {rows} x {columns}")
        return int(cell[0] * columns + cell[1])

    def _outcomes(self, s: int, a: int) -> list[tuple[float, int, float, bool]]:
        if s in self.terminals:
            return [(1.0, s, 0.0, True)]
        half = self.slip / 2
        ways = [(1 - self.slip, a), (half, (a - 1) % 4), (half, (a + 1) % 4)]
        steps = [(probability, self._neighbour(s, way)) for probability, way in ways if probability > 0]
        return [(probability, after, -1.0, after in self.terminals) for probability, after in steps]

    def _neighbour(self, s: int, way: int) -> int:
        rows, columns = self.shape
        row, column = s // columns + MOVES[way][0], s % columns + MOVES[way][1]
        return row * columns + column if 0 <= row < rows and 0 <= column < columns else s

    def _first_state(self, start: Sequence[int] | None) -> npt.NDArray[np.float64]:
        states = self.shape[0] * self.shape[1]
        begins = set(range(states)) if start is None else {self._number("start", start)}
        begins -= self.terminals
        if not begins:
            key = "terminals" if start is None else "start"
            raise UserError(f"env.kwargs.{key}: all cells are exits, none is left to start from")
        return np.array([s in begins for s in range(states)]) / len(begins)
