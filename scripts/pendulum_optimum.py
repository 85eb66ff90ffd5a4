"""The best possible mean return of Pendulum-v1 on the episodes of an evaluation, by dynamic programming.

    python scripts/pendulum_optimum.py outputs/.../eval/step_000010000_seed0.json

Values of all states with k steps to go are tabulated on a grid, for k up to the 200 steps of an episode. The policy
that is greedy by these tables is then played from the same starts in the environment itself. Its return is a lower
bound of the optimum; a finer grid changes it by less than 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

ANGLES, SPEEDS, STEPS = 181, 181, 200
Array = np.ndarray


def after(angle: Array, speed: Array, torque: Array) -> tuple[Array, Array, Array]:
    """Return the next angle and speed, and the cost of the step, as Pendulum-v1 computes them."""
    cost = angle**2 + 0.1 * speed**2 + 0.001 * torque**2
    speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
    return wrapped(angle + speed * 0.05), speed, cost


def wrapped(angle: Array) -> Array:
    """Return angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def corners(angle: Array, speed: Array) -> tuple[Array, Array, Array]:
    """Return the grid's first corner round each state, and where the state lies between the corners."""
    a, s = (angle + np.pi) / (2 * np.pi) * (ANGLES - 1), (speed + 8) / 16 * (SPEEDS - 1)
    i, j = np.clip(a.astype(int), 0, ANGLES - 2), np.clip(s.astype(int), 0, SPEEDS - 2)
    return i * SPEEDS + j, a - i, s - j


def interpolated(table: Array, where: tuple[Array, Array, Array]) -> Array:
    """Return values between the corners."""
    k, x, y = where
    t = table.ravel()
    low, high = (1 - y) * t[k] + y * t[k + 1], (1 - y) * t[k + SPEEDS] + y * t[k + SPEEDS + 1]
    return (1 - x) * low + x * high


def tables() -> list[Array]:
    """Return the smallest costs of all states with 0, 1, ..., 200 steps to go."""
    axes = np.linspace(-np.pi, np.pi, ANGLES), np.linspace(-8, 8, SPEEDS), np.linspace(-2, 2, 21)
    angle, speed, cost = after(*np.meshgrid(*axes, indexing="ij"))
    where, costs = corners(angle, speed), [np.zeros((ANGLES, SPEEDS))]
    for _ in range(STEPS):
        costs.append((cost + interpolated(costs[-1], where)).min(axis=2))
    return costs


def main(file: Path) -> None:
    """Play the episodes of an evaluation by the tables."""
    env: Any = gym.make("Pendulum-v1")
    costs, torques, returns = tables(), np.linspace(-2, 2, 81), list[float]()
    for row in json.loads(file.read_text(encoding="utf-8"))["per_episode"]:
        env.reset(seed=row["seed"])
        returns.append(0.0)
        for k in range(STEPS, 0, -1):
            angle, speed = env.unwrapped.state
            angle, speed, cost = after(wrapped(angle), speed, torques)
            best = (cost + interpolated(costs[k - 1], corners(angle, speed))).argmin()
            returns[-1] += env.step(torques[[best]].astype(np.float32))[1]
    print(f"{len(returns)} episodes, mean return {np.mean(returns):.2f}, std {np.std(returns, ddof=1):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="scores of an evaluation of Pendulum-v1, in the run's directory eval/")
    main(parser.parse_args().file)
