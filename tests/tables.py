"""Small Markov decision processes as tables, and their values by plain loops over these, as oracles."""

from typing import Any

import numpy as np

Table = dict[int, dict[int, list[tuple[float, int, float, bool]]]]


def random_table(seed: int, states: int = 5, actions: int = 3, ending: float = 0.2) -> Table:
    """Up to three outcomes each, the same state possibly twice; `ending` is the share of them that end the episode."""
    rng = np.random.default_rng(seed)

    def outcomes() -> list[tuple[float, int, float, bool]]:
        probabilities = rng.dirichlet(np.ones(rng.integers(1, 4)))
        return [
            (float(p), int(rng.integers(states)), float(rng.normal()), rng.random() < ending) for p in probabilities
        ]

    return {s: {a: outcomes() for a in range(actions)} for s in range(states)}


def random_policy(seed: int, states: int = 5, actions: int = 3) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(actions), size=states)


def backup(table: Table, s: int, a: int, values: list[float], gamma: float) -> float:
    return sum(p * (r + gamma * (0.0 if end else values[s2])) for p, s2, r, end in table[s][a])


def best_values(table: Table, gamma: float, sweeps: int) -> list[list[float]]:
    """Q* by value iteration."""
    values = [0.0] * len(table)
    for _ in range(sweeps):
        values = [max(backup(table, s, a, values, gamma) for a in table[s]) for s in table]
    return [[backup(table, s, a, values, gamma) for a in table[s]] for s in table]


def values_of(table: Table, policy: Any, gamma: float, sweeps: int) -> list[float]:
    """V of a policy, by doing so many steps of it."""
    values = [0.0] * len(table)
    for _ in range(sweeps):
        values = [sum(policy[s][a] * backup(table, s, a, values, gamma) for a in table[s]) for s in table]
    return values
