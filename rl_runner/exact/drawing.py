"""Text drawing of a finite MDP whose states form a grid."""

from __future__ import annotations

import numpy as np

from rl_runner.exact.mdp import MDP, Floats, greedy, reachable

STAY, NEVER = "○", "·"  # an action without a move, a cell where no action is chosen


def arrows(mdp: MDP) -> list[str] | None:
    """Return the arrow of each action on a grid: the mean direction of its moves to neighbouring cells. None: no grid.

    Longer moves are ignored, such as the return to the start after a fall from a cliff.
    """
    if mdp.grid is None:
        return None
    row, column = np.divmod(np.arange(len(mdp.start)), mdp.grid[1])
    down = row[mdp.state] - row[:, None, None]  # (S, A, K) cells
    right = column[mdp.state] - column[:, None, None]
    weight = np.where(abs(down) + abs(right) == 1, mdp.probability, 0.0)
    if mdp.acts_as is not None:  # a forbidden action has the moves of another one
        weight[mdp.acts_as != np.arange(mdp.acts_as.shape[1])] = 0.0
    means = [(weight * way).sum(axis=(0, 2)) for way in (down, right)]  # (A,) each
    return [_arrow(*mean) for mean in zip(*means, strict=True)]


def _arrow(down: float, right: float) -> str:
    if max(abs(down), abs(right)) < 1e-9:
        return STAY
    if abs(down) > abs(right):
        return "↓" if down > 0 else "↑"
    return "→" if right > 0 else "←"


def draw(mdp: MDP, q: Floats, policy: Floats | None = None) -> list[str]:
    """Return one line of text per row of the grid: the action taken in each cell, and the cell's value.

    Cells where no action is chosen (terminal cells, walls) are dots. Without a grid there are no lines.

    Args:
        mdp: has the grid.
        q: action values (S, A).
        policy: probabilities (S, A), of which the largest is drawn; None: the greedy policy.
    """
    symbols = arrows(mdp)
    if symbols is None:
        return []
    chosen = (greedy(q) if policy is None else policy).argmax(axis=1)
    if mdp.acts_as is not None:
        chosen = mdp.acts_as[np.arange(len(chosen)), chosen]
    return _rows(mdp, [f"{symbols[a]} " for a in chosen], q.max(axis=1))


def draw_values(mdp: MDP, values: Floats) -> list[str]:
    """Return the same without actions, from the values (S,) of states."""
    return [] if mdp.grid is None else _rows(mdp, ["  "] * len(values), values)


def _rows(mdp: MDP, symbols: list[str], values: Floats) -> list[str]:
    assert mdp.grid is not None
    numbers, seen = [f"{value:.2f}" for value in values], reachable(mdp)
    width = max(len(number) for number, s in zip(numbers, seen, strict=True) if s)
    cells = [
        f"{symbol}{number:>{width}}" if s else NEVER.center(width + 2)
        for symbol, number, s in zip(symbols, numbers, seen, strict=True)
    ]
    columns = mdp.grid[1]
    return ["   ".join(cells[i : i + columns]).rstrip() for i in range(0, len(cells), columns)]
