"""A finite MDP whose states are a grid, drawn as text."""

from __future__ import annotations

import numpy as np

from rl_runner.exact.mdp import MDP, Floats, greedy, reachable

STAY, NEVER = "○", "·"  # an action that leads nowhere, a cell where no action is ever chosen


def arrows(mdp: MDP) -> list[str] | None:
    """Return the arrow of each action on a grid: where its moves to a neighbouring cell go on average. None: no grid.

    Longer moves say nothing about direction: from the foot of a cliff back to the start, for example.
    """
    if mdp.grid is None:
        return None
    row, column = np.divmod(np.arange(len(mdp.start)), mdp.grid[1])
    down = row[mdp.state] - row[:, None, None]  # (S, A, K) cells
    right = column[mdp.state] - column[:, None, None]
    weight = np.where(abs(down) + abs(right) == 1, mdp.probability, 0.0)
    if mdp.acts_as is not None:  # the moves of a forbidden action are those of another one
        weight[mdp.acts_as != np.arange(mdp.acts_as.shape[1])] = 0.0
    means = [(weight * way).sum(axis=(0, 2)) for way in (down, right)]  # (A,) each
    return [_arrow(*mean) for mean in zip(*means, strict=True)]


def _arrow(down: float, right: float) -> str:
    if max(abs(down), abs(right)) < 1e-9:
        return STAY
    if abs(down) > abs(right):
        return "↓" if down > 0 else "↑"
    return "→" if right > 0 else "←"


def draw(mdp: MDP, q: Floats) -> list[str]:
    """Draw values (S, A) on the grid, a line of text for each row: every cell's greedy action and its value.

    Cells where no action is ever chosen (terminal ones, walls) are dots. Without a grid there are no lines.
    """
    symbols = arrows(mdp)
    if symbols is None or mdp.grid is None:
        return []
    numbers = [f"{value:.2f}" for value in q.max(axis=1)]
    chosen, seen = greedy(q).argmax(axis=1), reachable(mdp)
    if mdp.acts_as is not None:
        chosen = mdp.acts_as[np.arange(len(chosen)), chosen]
    width = max(len(number) for number, s in zip(numbers, seen, strict=True) if s)
    cells = [
        f"{symbols[a]} {number:>{width}}" if s else NEVER.center(width + 2)
        for a, number, s in zip(chosen, numbers, seen, strict=True)
    ]
    columns = mdp.grid[1]
    return ["   ".join(cells[i : i + columns]).rstrip() for i in range(0, len(cells), columns)]
