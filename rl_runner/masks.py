"""Masks of allowed actions: flags (N, A), one for each action of each choice, one choice after the other.

Discrete actions are one choice. Those of a MultiDiscrete space are several, and those of a MultiBinary one are choices
between 0 and 1. Actions are numbered from 0.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete, MultiBinary, MultiDiscrete

from rl_runner.types import Array, BoolArray


def sizes_of(space: gym.Space[Any]) -> list[int]:
    """Return the number of actions of each choice; nothing for actions without masks."""
    if isinstance(space, Discrete):
        return [int(space.n)]
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1:
        return [int(n) for n in space.nvec]
    if isinstance(space, MultiBinary) and len(space.shape) == 1:
        return [2] * int(space.shape[0])
    return []


def possible(mask: BoolArray, sizes: list[int]) -> BoolArray:
    """Return where a mask allows an action of each choice, (N,)."""
    each = [part.any(axis=1) for part in _parts(mask, sizes)]
    return np.asarray(np.logical_and.reduce(each))


def permits(mask: BoolArray, action: Array, sizes: list[int]) -> BoolArray:
    """Return where a mask allows the actions (N,) or (N, D), (N,)."""
    choices = action.reshape(len(mask), -1).astype(np.int64)  # (N, D)
    starts = np.cumsum([0, *sizes[:-1]])
    return np.asarray(np.take_along_axis(mask, choices + starts, axis=1).all(axis=1))


def first(mask: BoolArray, space: gym.Space[Any]) -> list[Any]:
    """Return the first action that is allowed in each of N environments: numbers, or lists of D numbers."""
    each = np.stack([part.argmax(axis=1) for part in _parts(mask, sizes_of(space))], axis=1)
    return list((each[:, 0] if isinstance(space, Discrete) else each).tolist())


def draw(mask: BoolArray, space: gym.Space[Any], rng: np.random.Generator) -> Any:
    """Draw an allowed action: a number, or an array (D,).

    Args:
        mask: (A,) of one environment.
        space: of its actions.
        rng: the random stream.
    """
    each = [rng.choice(np.flatnonzero(part[0])) for part in _parts(mask[None], sizes_of(space))]
    return each[0] if isinstance(space, Discrete) else np.array(each)


def _parts(mask: BoolArray, sizes: list[int]) -> list[BoolArray]:
    """Return the flags of each choice."""
    return np.split(mask, np.cumsum(sizes[:-1]), axis=1)
