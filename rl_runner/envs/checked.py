"""A wrapper that checks what a Gymnasium environment returns. An error is one line with the environment's name.

Whether observations and rewards are finite, and states in their space, is checked in `vector.py` for every backend.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_runner import masks
from rl_runner.types import BoolArray, UserError

RESET = "reset(self, *, seed=None, options=None) -> (observation, info)"
STEP = "step(self, action) -> (observation, reward, terminated, truncated, info)"


class Misfit(Exception):
    """Raised for a value that does not fit its space. The message describes the difference."""


class Reader:
    """Checks values against a space, and converts them to its type.

    Args:
        space: of the values. Values of a Dict or Tuple are not checked here: outer wrappers read their parts.

    Raises:
        Misfit: when called, if a value has another shape or type, or an integer is out of range.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self.shape, self.type = space.shape, space.dtype
        floats = space.dtype is not None and np.issubdtype(space.dtype, np.floating)
        self._kinds = "biuf" if floats else "biu"
        self._box = space if isinstance(space, Box) and not floats else None  # of integers
        # Bytes that may take all of their values, as images do, are not looked through: that takes long.
        self._any = self._box is not None and _takes_all_values(self._box)

    def __call__(self, value: Any) -> Any:
        """Return the value."""
        if self.shape is None:
            return value
        got = value if isinstance(value, np.ndarray) else np.asarray(value)
        if got.shape != self.shape:
            raise Misfit(f"of shape {got.shape}; its observation_space has shape {self.shape}")
        if got.dtype.kind not in self._kinds:
            raise Misfit(f"of type {got.dtype}; its observation_space has type {self.type}")
        if self._box is None or (self._any and got.dtype == self.type):
            return value
        outside = (got < self._box.low) | (got > self._box.high)
        if outside.any():
            raise Misfit(f"with {got[outside].flat[0]}, outside its observation_space {self._box}")
        return got.astype(self.type, copy=False)


def _takes_all_values(box: Box) -> bool:
    """Return whether a space of integers has the bounds of its type."""
    if box.dtype.kind == "b":
        return not box.low.any() and bool(box.high.all())
    limits = np.iinfo(str(box.dtype))
    return bool((box.low == limits.min).all() and (box.high == limits.max).all())


class FiveValues(gym.Wrapper[Any, Any, Any, Any]):
    """Checks, inside all other wrappers, that a step returns five values: most wrappers fail if it does not.

    Args:
        env: the innermost environment.
        name: for messages.

    Raises:
        UserError: from `step`.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self.name = name

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        return _five(self.env.step(action), self.name)


class Checked(gym.Wrapper[Any, Any, Any, Any]):
    """Checks what an environment returns, and converts it to plain numbers.

    Rewards become floats, and the end flags bools. Of `info` only the `action_mask` is kept, as an array of bools (A,),
    and at an episode's end the finite numbers and flags, `success` for example, as floats. The shape and type of each
    observation are checked, and the range of integers.

    Args:
        env: the environment.
        name: for messages.

    Attributes:
        notes: lines to show to the user.
        normalized: a wrapper that normalises observations was removed; the agent normalises them.

    Raises:
        UserError: from `reset` and `step`, if the environment returns what Gymnasium's interface does not allow.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self.name = name
        self.notes: list[str] = []
        self.normalized = False
        self._when = "reset"
        self._read = Reader(env.observation_space)
        self._tuples = not isinstance(env.action_space, Discrete)
        self._actions = sum(masks.sizes_of(env.action_space))  # flags of a mask; 0: actions without masks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._when = "reset"
        try:
            answer = self.env.reset(seed=seed, options=options or None)
        except TypeError as e:
            if "unexpected keyword argument" in str(e):
                raise self._wrong(f"its reset takes no seed= or options= ({e}); it must be {RESET}") from e
            raise
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise self._wrong(f"its reset returns {_kind(answer)}; it must be {RESET}")
        obs, info = answer
        return self._observation(obs), self._info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._when = "step"
        obs, reward, terminated, truncated, info = _five(self.env.step(action), self.name)
        if type(reward) is not float:
            reward = self._reward(reward)
        if type(terminated) is not bool:
            terminated = self._flag("terminated", terminated)
        if type(truncated) is not bool:
            truncated = self._flag("truncated", truncated)
        passed_on = self._info(info)
        if (terminated or truncated) and info:
            passed_on |= _numbers(info)
        return self._observation(obs), reward, terminated, truncated, passed_on

    def _reward(self, reward: Any) -> float:
        if isinstance(reward, (int, float)):
            return float(reward)
        if reward is None:
            raise self._wrong("its step returns the reward None; is a `return reward` missing?")
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise self._wrong(f"its step returns the reward {_shown(reward)}; it must be one number")
        return float(number.reshape(()))

    def _flag(self, which: str, flag: Any) -> bool:
        if isinstance(flag, (bool, np.bool_)):
            return bool(flag)
        value = np.asarray(flag)
        if value.size != 1 or value.dtype.kind not in "biu":
            raise self._wrong(f"its step returns {which} = {_shown(flag)}; it must be true or false")
        return bool(value.reshape(()))

    def _info(self, info: Any) -> dict[str, Any]:
        if info is None:
            return {}
        if not isinstance(info, dict):
            raise self._wrong(f"its {self._when} returns the info {_shown(info)}; it must be a dict")
        if "action_mask" not in info:
            return {}  # nothing else is used, and values that cannot be stacked or pickled would fail
        return {"action_mask": self._mask(info["action_mask"])} if self._actions else {}

    def _mask(self, mask: Any) -> BoolArray:
        try:  # Gymnasium's own masks of several choices are tuples of arrays
            in_parts = isinstance(mask, tuple) and self._tuples
            allowed = np.concatenate([np.atleast_1d(part) for part in mask]) if in_parts else np.asarray(mask)
        except ValueError:
            allowed = np.empty(0)
        if allowed.shape != (self._actions,) or allowed.dtype.kind not in "biuf":
            kind = f", those of {self.env.action_space} in a row" if self._tuples else ""
            raise self._wrong(
                f"its {self._when} returns the action_mask {_shown(mask)}; it must be {self._actions} flags{kind}"
            )
        return allowed.astype(np.bool_)

    def _observation(self, obs: Any) -> Any:
        try:
            return self._read(obs)
        except Misfit as e:
            raise self._wrong(f"its {self._when} returns an observation {e}") from e

    def _wrong(self, what: str) -> UserError:
        return UserError(f"env: {self.name}: {what}")


def _five(answer: Any, name: str) -> tuple[Any, Any, Any, Any, Any]:
    if not (isinstance(answer, tuple) and len(answer) == 5):
        raise UserError(f"env: {name}: its step returns {_kind(answer)}; it must be {STEP}")
    return answer


def _kind(answer: Any) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else f"one {type(answer).__name__}"


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:80]


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers and flags of an info, by names that suit a curve."""
    numbers = {
        name: value for name, value in info.items() if isinstance(value, (bool, int, float, np.number, np.bool_))
    }
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w. /-]*", name) and np.isfinite(value)
    }
