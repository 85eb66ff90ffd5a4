"""A wrapper round each Gymnasium environment that checks what it gives, and says in one line what is wrong with it.

Observations and rewards that are not finite, and states outside of their space, are checked for every kind of
environment in `vector.py`.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_runner.types import BoolArray, UserError

RESET = "reset(self, *, seed=None, options=None) -> (observation, info)"
STEP = "step(self, action) -> (observation, reward, terminated, truncated, info)"


class Misfit(Exception):
    """Says in words how a value does not fit its space."""


class Reader:
    """Checks values against a space, and returns them as numbers of its type.

    Args:
        space: of the values. Values of a Dict or Tuple pass as they are: wrappers further up read their parts.

    Raises:
        Misfit: when called, a value of another shape or type; of whole numbers, one out of range.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self.shape, self.type = space.shape, space.dtype
        floats = space.dtype is not None and np.issubdtype(space.dtype, np.floating)
        self._kinds = "biuf" if floats else "biu"
        self._box = space if isinstance(space, Box) and not floats else None  # of whole numbers

    def __call__(self, value: Any) -> Any:
        """Return the value."""
        if self.shape is None:
            return value
        got = value if isinstance(value, np.ndarray) else np.asarray(value)
        if got.shape != self.shape:
            raise Misfit(f"of shape {got.shape}; its observation_space says {self.shape}")
        if got.dtype.kind not in self._kinds:
            raise Misfit(f"of type {got.dtype}; its observation_space says {self.type}")
        if self._box is None or (got.dtype == self.type and got.dtype.itemsize == 1):
            return value
        outside = (got < self._box.low) | (got > self._box.high)
        if outside.any():
            raise Misfit(f"with {got[outside].flat[0]}, outside of its observation_space {self._box}")
        return got.astype(self.type, copy=False)


class FiveValues(gym.Wrapper[Any, Any, Any, Any]):
    """Checks, below all other wrappers, that a step gives five values: most wrappers fail over another number.

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
    """Checks the answers of an environment, and passes them on as plain numbers.

    Rewards become floats and the end flags bools. Of `info` only an `action_mask` stays, an array of bools (A,),
    and at an episode's end the finite numbers and flags, `success` for example, as floats. Each observation's shape and
    type are checked, and the range of whole numbers.

    Args:
        env: the environment.
        name: for messages.

    Attributes:
        notes: what a person should know of the environment, as lines.
        normalized: a wrapper that normalises observations was taken out; the agent does that.

    Raises:
        UserError: from `reset` and `step`, an answer that Gymnasium's interface does not allow.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        self.name = name
        self.notes: list[str] = []
        self.normalized = False
        self._when = "reset"
        self._read = Reader(env.observation_space)
        self._actions = int(env.action_space.n) if isinstance(env.action_space, Discrete) else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._when = "reset"
        try:
            answer = self.env.reset(seed=seed, options=options or None)
        except TypeError as e:
            if "unexpected keyword argument" in str(e):
                raise self._wrong(f"its reset takes no seed= or options= ({e}); wanted: {RESET}") from e
            raise
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise self._wrong(f"its reset gives {_kind(answer)}; wanted: {RESET}")
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
            raise self._wrong("its step gives the reward None; is a `return reward` missing?")
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise self._wrong(f"its step gives the reward {_shown(reward)}; one number is wanted")
        return float(number.reshape(()))

    def _flag(self, which: str, flag: Any) -> bool:
        if isinstance(flag, (bool, np.bool_)):
            return bool(flag)
        value = np.asarray(flag)
        if value.size != 1 or value.dtype.kind not in "biu":
            raise self._wrong(f"its step gives {which} = {_shown(flag)}; true or false is wanted")
        return bool(value.reshape(()))

    def _info(self, info: Any) -> dict[str, Any]:
        if info is None:
            return {}
        if not isinstance(info, dict):
            raise self._wrong(f"its {self._when} gives the info {_shown(info)}; a dict is wanted")
        if "action_mask" not in info or self._actions is None:
            return {}  # nobody asks for more, and what cannot be stacked or pickled would fail further up
        return {"action_mask": self._mask(info["action_mask"], self._actions)}

    def _mask(self, mask: Any, actions: int) -> BoolArray:
        allowed = np.asarray(mask)
        if allowed.shape != (actions,) or allowed.dtype.kind not in "biuf":
            raise self._wrong(f"its {self._when} gives the action_mask {_shown(mask)}; {actions} flags are wanted")
        return allowed.astype(np.bool_)

    def _observation(self, obs: Any) -> Any:
        try:
            return self._read(obs)
        except Misfit as e:
            raise self._wrong(f"its {self._when} gives an observation {e}") from e

    def _wrong(self, what: str) -> UserError:
        return UserError(f"env: {self.name}: {what}")


def _five(answer: Any, name: str) -> tuple[Any, Any, Any, Any, Any]:
    if not (isinstance(answer, tuple) and len(answer) == 5):
        raise UserError(f"env: {name}: its step gives {_kind(answer)}; wanted: {STEP}")
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
