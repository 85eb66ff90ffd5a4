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
from gymnasium.wrappers import FlattenObservation, NormalizeReward

from rl_runner.envs.spaces import MASK, stored, wrappers_of
from rl_runner.types import Array, BoolArray, Goals, UserError, described

STEPS = 100  # for the comparison: enough to see another formula, and a fraction of a second

Env = gym.Env[Any, Any]


def copy_of(make: Callable[[], Env], name: str) -> Env:
    """Return another environment, to compute rewards with.

    Raises:
        UserError: it cannot be made.
    """
    try:
        return make()
    except Exception as e:  # someone else's code: it may allow only one such environment at a time
        raise UserError(f"{name} cannot be made a second time: {described(e)}") from e


def known(env: Env, name: str) -> Goals | None:
    """Return the goals of an environment; None: it has none.

    Args:
        env: with all wrappers. It must stay open, because its `compute_reward` may need its simulator.
        name: for messages.

    Raises:
        UserError: `compute_reward` does not return the rewards of the environment's steps, or raises an exception, or a
            wrapper changes rewards.
    """
    goals = _goals(env)
    if goals is None:
        return None
    for wrapper in wrappers_of(env):
        if isinstance(wrapper, (gym.RewardWrapper, NormalizeReward)):
            raise UserError(f"{name}: its {type(wrapper).__name__} changes rewards, which compute_reward does not know")
    obs, reward, terminated = _random_steps(env, name)
    try:
        _compare(goals, obs, reward, terminated, name)
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"{name}: its compute_reward or compute_terminated raised {described(e)}") from e
    return goals


def _goals(env: Env) -> Goals | None:
    """Return the goals as the environment computes them; None: it has none."""
    space, inner = _flattened(env), cast(Any, env.unwrapped)
    if space is None or not hasattr(inner, "compute_reward"):
        return None
    goal = space["desired_goal"]
    ends = [0, *itertools.accumulate(gym.spaces.flatdim(part) for part in space.spaces.values())]
    at = {key: slice(*ends[i : i + 2]) for i, key in enumerate(space.spaces)}

    def own(goals: Array) -> Array:  # a copy in the environment's type: the memory holds float32 or bytes
        return goals.astype(goal.dtype)

    def reward(achieved: Array, desired: Array) -> Array:
        return np.asarray(inner.compute_reward(own(achieved), own(desired), {}), dtype=np.float64)

    def terminated(achieved: Array, desired: Array) -> BoolArray:  # Gymnasium-Robotics defines it for one goal
        pairs = zip(own(achieved), own(desired), strict=True)
        return np.array([bool(inner.compute_terminated(a, d, {})) for a, d in pairs], dtype=np.bool_)

    tells_ends = hasattr(inner, "compute_terminated")
    return Goals(at["achieved_goal"], at["desired_goal"], reward, terminated if tells_ends else None)


def _flattened(env: Env) -> Dict | None:
    """Return the Dict that was flattened, if it holds goals: Boxes with one axis, of one shape."""
    wrapper = next((w for w in wrappers_of(env) if isinstance(w, FlattenObservation)), None)
    space = wrapper.env.observation_space if wrapper else None
    if not isinstance(space, Dict):
        return None
    goals = [space.spaces.get(key) for key in ("achieved_goal", "desired_goal")]
    shapes = {goal.shape for goal in goals if isinstance(goal, Box)}
    right = all(isinstance(goal, Box) for goal in goals) and len(shapes) == 1 and len(shapes.pop()) == 1
    return space if right else None


def _random_steps(env: Env, name: str) -> tuple[Array, Array, BoolArray]:
    """Return the observations (STEPS, O) after random steps, as they are stored, rewards, and terminations.

    Raises:
        UserError: the environment raised an exception.
    """
    kind = stored(name, env.observation_space).dtype
    seen: list[tuple[Array, float, bool]] = []
    env.action_space.seed(0)
    try:
        while len(seen) < STEPS:
            _, info = env.reset(seed=len(seen))
            over = False
            while not over and len(seen) < STEPS:
                allowed = {"mask": np.asarray(info[MASK], dtype=np.int8)} if MASK in info else {}
                obs, reward, terminated, truncated, info = env.step(env.action_space.sample(**allowed))
                seen.append((np.asarray(obs, dtype=kind), float(reward), bool(terminated)))
                over = terminated or truncated
    except UserError:
        raise
    except Exception as e:  # someone else's code may raise anything
        raise UserError(f"{name}: a random step raised {described(e)}") from e
    obs, rewards, ends = zip(*seen, strict=True)
    return np.stack(obs), np.array(rewards), np.array(ends)


def _compare(goals: Goals, obs: Array, reward: Array, terminated: BoolArray, name: str) -> None:
    """Compare rewards and terminations with those of steps."""
    achieved, desired = obs[:, goals.achieved], obs[:, goals.desired]
    given = goals.reward(achieved, desired)
    if given.shape != reward.shape:
        raise UserError(
            f"{name}: its compute_reward must take arrays of goals (B, G) and return rewards (B,), here "
            f"{reward.shape}, got {given.shape}"
        )
    if (wrong := np.flatnonzero(~np.isclose(given, reward, rtol=1e-3, atol=1e-4))).size:
        i = wrong[0]
        raise UserError(
            f"{name}: its compute_reward returns {given[i]:g} where a step paid {reward[i]:g}, "
            f"in {len(wrong)} of {STEPS} sampled steps"
        )
    if goals.terminated is None:
        return
    if (wrong := np.flatnonzero(goals.terminated(achieved, desired) != terminated)).size:
        raise UserError(f"{name}: its compute_terminated differs from {len(wrong)} of {STEPS} sampled steps")
