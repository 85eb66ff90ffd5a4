"""Environments with goals: Dict observations with what was achieved and what is desired, as in Gymnasium-Robotics.

Their `compute_reward` tells what another goal would have paid. It describes the innermost environment, and a wrapper
may change rewards or goals. So it is compared with sampled steps before it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import FlattenObservation

from rl_runner.types import Array, BoolArray, Goals, UserError, described

STEPS = 100  # for the comparison: enough to see another formula, and a fraction of a second

Env = gym.Env[Any, Any]


def known(make: Callable[[], Env], name: str) -> Goals | None:
    """Return the goals of an environment; None: it has none.

    The comparison plays a separate copy with seeds of its own, so that the run's environments are not touched.

    Args:
        make: makes the environment, including its wrappers.
        name: of the environment, for messages.

    Raises:
        UserError: `compute_reward` does not return the rewards of the environment's steps, or raises an exception, or
            the environment cannot be made a second time.
    """
    try:
        env = make()
    except Exception as e:  # someone else's code: it may allow only one such environment at a time
        raise UserError(f"{name} cannot be made a second time: {described(e)}") from e
    goals = _goals(env)
    try:
        if goals is not None:
            _compare(env, goals, name)
            return goals  # the environment stays open, because compute_reward may need its simulator
    except UserError:
        env.close()
        raise
    except Exception as e:
        env.close()
        raise UserError(f"{name}: its compute_reward or compute_terminated raised {described(e)}") from e
    env.close()
    return None


def _goals(env: Env) -> Goals | None:
    """Return the goals as the environment computes them; None: it has none."""
    where, inner = _positions(env), cast(Any, env.unwrapped)
    if where is None or not hasattr(inner, "compute_reward"):
        return None

    def reward(achieved: Array, desired: Array) -> Array:
        return np.asarray(inner.compute_reward(achieved, desired, {}), dtype=np.float64)

    def terminated(achieved: Array, desired: Array) -> BoolArray:  # Gymnasium-Robotics defines it for one goal
        over = [bool(inner.compute_terminated(a, d, {})) for a, d in zip(achieved, desired, strict=True)]
        return np.array(over, dtype=np.bool_)

    return Goals(*where, reward, terminated if hasattr(inner, "compute_terminated") else None)


def _positions(env: Env) -> tuple[slice, slice] | None:
    """Return where a flattened Dict observation holds the achieved and the desired goal; None: nowhere."""
    while isinstance(env, gym.Wrapper) and not isinstance(env, FlattenObservation):
        env = env.env
    space = env.env.observation_space if isinstance(env, FlattenObservation) else None
    if not isinstance(space, Dict):
        return None
    ends = [0, *itertools.accumulate(gym.spaces.flatdim(part) for part in space.spaces.values())]
    at = {key: slice(*ends[i : i + 2]) for i, key in enumerate(space.spaces)}
    goals = [space.spaces.get(key) for key in ("achieved_goal", "desired_goal")]
    if not all(isinstance(goal, Box) and len(goal.shape) == 1 for goal in goals):
        return None
    return at["achieved_goal"], at["desired_goal"]


def _compare(env: Env, goals: Goals, name: str) -> None:
    """Compare rewards and terminations with those of random steps."""
    env.action_space.seed(0)
    seen: list[tuple[Array, float, bool]] = []  # the observation after a step, its reward, whether it is terminal
    while len(seen) < STEPS:
        env.reset(seed=len(seen))
        over = False
        while not over and len(seen) < STEPS:
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append((np.asarray(obs, dtype=np.float32), float(reward), bool(terminated)))
            over = terminated or truncated
    obs = np.stack([o for o, _, _ in seen])
    achieved, desired = obs[:, goals.achieved], obs[:, goals.desired]
    given, stepped = goals.reward(achieved, desired), np.array([r for _, r, _ in seen])
    if given.shape != stepped.shape:
        raise UserError(
            f"{name}: its compute_reward must take arrays of goals (B, G) and return rewards (B,), here "
            f"{stepped.shape}, got {given.shape}"
        )
    if (wrong := np.flatnonzero(~np.isclose(given, stepped, rtol=1e-3, atol=1e-4))).size:
        i = wrong[0]
        raise UserError(
            f"{name}: its compute_reward returns {given[i]:g} where a step paid {stepped[i]:g}, "
            f"in {len(wrong)} of {STEPS} sampled steps"
        )
    ends = np.array([t for _, _, t in seen])
    if goals.terminated is not None and (wrong := np.flatnonzero(goals.terminated(achieved, desired) != ends)).size:
        raise UserError(f"{name}: its compute_terminated differs from {len(wrong)} of {STEPS} sampled steps")
