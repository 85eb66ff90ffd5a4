"""Observation spaces: each observation becomes one array. `NormalizeObservation` is removed: agents normalise."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.wrappers import (
    FlattenObservation,
    NormalizeObservation,
    NormalizeReward,
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    TimeLimit,
)
from gymnasium.wrappers.utils import RunningMeanStd

from rl_runner import masks
from rl_runner.envs.checked import Checked, Misfit, Reader
from rl_runner.types import UserError

MASK = "action_mask"  # the name, in a Dict observation or in `info`, of the flags of allowed actions

LEAVE_OBSERVATIONS = (
    *(TimeLimit, OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, Checked),
    *(gym.RewardWrapper, gym.ActionWrapper),
)

Env = gym.Env[Any, Any]
Keys = tuple[Any, ...]  # the keys and indices that lead to a part


def readable(env: Env, name: str) -> tuple[Env, str | None]:
    """Wrap an environment so that its observations are one array.

    An `action_mask` in a Dict is moved to `info`. A Dict with one part is that part, else Dicts and Tuples are
    flattened.

    Returns:
        The environment, and a description of the changed observations; None: they are unchanged.

    Raises:
        UserError: a part does not consist of numbers.
    """
    if isinstance(env.observation_space, (Dict, Tuple)):
        env, made = _one_array(env, name)
    else:
        made = None
    stored(name, env.observation_space)
    return env, made


def _one_array(env: Env, name: str) -> tuple[Env, str]:
    """Return an environment whose Dict or Tuple observations are one array, and a description of them."""
    space, done = env.observation_space, []
    masked = isinstance(space, Dict) and MASK in space.spaces and bool(masks.sizes_of(env.action_space))
    parts = [(path, part) for path, part in _leaves(space) if not (masked and path[0] == MASK)]
    if not parts:
        raise UserError(f"env: {name} has no observations{' but its action_mask' if masked else ''}")
    for path, part in parts:
        if not isinstance(part, (Box, Discrete, MultiBinary, MultiDiscrete)):
            raise UserError(_unreadable(name, space, path, part))
    env = CheckedParts(env, name)
    if masked:
        env = MaskToInfo(env)
        done.append(f"its {MASK} marks the allowed actions")
    names = [repr(_label(path)) for path, _ in parts]
    if isinstance(space, Dict) and len(parts) == 1 and len(parts[0][0]) == 1:
        env = OnePart(env, parts[0][0][0])
        done.append(f"its {names[0]}")
    else:
        env = FlattenObservation(env)
        done.append(f"{', '.join(names)} in one vector")
    return env, "; ".join(done)


def stored(name: str, space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of stored observations: float32 for floats, bytes if possible, native byte order, same bounds.

    A single state is int64.

    Raises:
        UserError: no network of rlrun reads this space.
    """
    if isinstance(space, Discrete) and space.dtype != np.int64:  # tables are indexed by it; differences fit
        return Discrete(int(space.n), start=int(space.start))
    if isinstance(space, (Discrete, MultiBinary, MultiDiscrete)):
        return space
    if not isinstance(space, Box) or space.dtype.kind not in "biuf":
        raise UserError(
            f"env: {name} has observations of type {type(space).__name__}, which no network of rlrun reads; "
            f"a wrapper can convert them to numbers: env.wrappers=[{{_target_: my_pkg.MyWrapper}}]"
        )
    if 0 in space.shape:
        raise UserError(f"env: {name} has observations {space}, which hold no number")
    kind = space.dtype.newbyteorder("=")
    if kind.kind == "f":
        kind = np.dtype(np.float32)
    elif kind.itemsize > 1 and (space.low >= 0).all() and (space.high <= 255).all():
        kind = np.dtype(np.uint8)
    elif kind.kind == "u" and kind.itemsize > 1:  # torch has few operations for these types
        kind = np.dtype(np.float32 if (space.high > np.iinfo(np.int64).max).any() else np.int64)
    if kind == space.dtype:
        return space
    with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
        return Box(space.low.astype(kind), space.high.astype(kind), space.shape, kind.type)


def refuse_actions(name: str, space: gym.Space[Any]) -> None:
    """Refuse a space whose actions are not one array of numbers.

    Raises:
        UserError: it is another one than Discrete, Box, MultiDiscrete and MultiBinary, or an empty one.
    """
    if not isinstance(space, (Discrete, Box, MultiDiscrete, MultiBinary)):
        raise UserError(
            f"env: {name} has actions of type {type(space).__name__}; rlrun sends Discrete, Box, MultiDiscrete and "
            f"MultiBinary ones; a wrapper can convert them: env.wrappers=[{{_target_: my_pkg.MyWrapper}}]"
        )
    if 0 in (space.shape or ()):
        raise UserError(f"env: {name} has an empty action space, {space}")


def first_action(space: gym.Space[Any]) -> Any:
    """Return what to add to an agent's action, which counts from 0; None: nothing."""
    if isinstance(space, (Discrete, MultiDiscrete)) and np.any(space.start):
        return space.start
    return None


def state_outside(space: gym.Space[Any], obs: Any) -> Any | None:
    """Return the first of N states (N, ...) that is not in a space of discrete states; None: all are in it."""
    if isinstance(space, Discrete):
        first, end = int(space.start), int(space.start + space.n)
        return next((state for state in obs.tolist() if not first <= state < end), None)  # faster than arrays
    wrong = np.zeros(1, dtype=np.bool_)
    if isinstance(space, MultiDiscrete):
        wrong = (obs < space.start) | (obs >= space.start + space.nvec)
    elif isinstance(space, MultiBinary):
        wrong = (obs < 0) | (obs > 1)
    return obs[wrong][0] if wrong.any() else None


def without_normalization(env: Env, name: str) -> tuple[Env, bool]:
    """Remove `NormalizeObservation`: the agent normalises observations instead, and saves the statistics.

    Returns:
        The environment, and whether the wrapper was there.

    Raises:
        UserError: an outer wrapper uses its normalised observations, so that it cannot be removed.
    """
    chain = wrappers_of(env)
    found = next((i for i, w in enumerate(chain) if isinstance(w, NormalizeObservation)), None)
    if found is None:
        return env, False
    above = [w for w in chain[:found] if not isinstance(w, LEAVE_OBSERVATIONS)]
    if above:
        raise UserError(
            f"env: {name}: {type(above[-1]).__name__} uses the output of NormalizeObservation, so its statistics "
            f"cannot be saved with the agent; remove it, or make it the last wrapper (network.normalize=true)"
        )
    inside = chain[found].env
    if found == 0:
        return inside, True
    chain[found - 1].env = inside
    return env, True


def about_wrappers(env: Env) -> list[str]:
    """Return a line for each wrapper that keeps running statistics, which are not saved, or that changes rewards."""
    chain = wrappers_of(env)
    kept = [
        f"its {type(w).__name__} keeps statistics that are not saved: its output depends on all earlier steps. "
        f"A resumed run is not exact, and scores depend on num_envs"
        for w in chain
        if any(isinstance(value, RunningMeanStd) for value in vars(w).values())
    ]
    changed = [
        f"its {type(w).__name__} changes rewards: all returns, those of evaluations too, are of its rewards. "
        f"reward_clip and agent.normalize_rewards change what is learned from alone"
        for w in chain
        if isinstance(w, (gym.RewardWrapper, NormalizeReward))
    ]
    return kept + changed


def wrappers_of(env: Env) -> list[gym.Wrapper[Any, Any, Any, Any]]:
    """Return the wrappers of an environment, the outermost first."""
    chain = []
    while isinstance(env, gym.Wrapper):
        chain.append(env)
        env = env.env
    return chain


class MaskToInfo(gym.ObservationWrapper[Any, Any, Any]):
    """Moves the `action_mask` of a Dict observation to `info`."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        self.observation_space = Dict({k: v for k, v in env.observation_space.spaces.items() if k != MASK})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self.observation(obs), {**info, MASK: obs[MASK]}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.observation(obs), reward, terminated, truncated, {**info, MASK: obs[MASK]}

    def observation(self, observation: Any) -> Any:
        """Return the observation without the mask."""
        return {k: v for k, v in observation.items() if k != MASK}


class CheckedParts(gym.ObservationWrapper[Any, Any, Any]):
    """Checks each part of a Dict or Tuple observation. A wrong state would be flattened to another valid one."""

    def __init__(self, env: Env, name: str) -> None:
        super().__init__(env)
        self.name = name
        self._parts = [(path, part, Reader(part)) for path, part in _leaves(env.observation_space)]

    def observation(self, observation: Any) -> Any:
        """Return the observation unchanged."""
        for path, space, read in self._parts:
            value, where = observation, f"env: {self.name}: the part {_label(path)!r} of its observation"
            try:
                for key in path:
                    value = value[key]
                value = np.asarray(read(value))
            except (KeyError, IndexError, TypeError, ValueError) as e:
                raise UserError(f"{where} is missing") from e
            except Misfit as e:
                raise UserError(f"{where} is {e}") from e
            if (state := state_outside(space, value[None])) is not None:
                raise UserError(f"{where} is the state {state}, which is not in its space {space}")
        return observation


class OnePart(gym.ObservationWrapper[Any, Any, Any]):
    """Replaces a Dict observation by one of its parts."""

    def __init__(self, env: Env, key: str) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, Dict)
        self.key, self.observation_space = key, env.observation_space[key]

    def observation(self, observation: Any) -> Any:
        """Return the part."""
        return observation[self.key]


def _leaves(space: gym.Space[Any], path: Keys = ()) -> list[tuple[Keys, gym.Space[Any]]]:
    """Return the parts of a Dict or Tuple, including nested ones, as (path, space)."""
    if isinstance(space, (Dict, Tuple)):
        named = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
        return [leaf for key, part in named for leaf in _leaves(part, (*path, key))]
    return [(path, space)]


def _label(path: Keys) -> str:
    return ".".join(map(str, path))


def _unreadable(name: str, space: gym.Space[Any], path: Keys, part: gym.Space[Any]) -> str:
    what = (
        f"env: {name}: the part {_label(path)!r} of its observations ({type(part).__name__}) cannot be read as numbers"
    )
    if not isinstance(space, Dict) or len(path) > 1:
        return f"{what}; remove it by a wrapper: env.wrappers=[{{_target_: my_pkg.MyWrapper}}]"
    keys = [k for k, v in space.spaces.items() if isinstance(v, (Box, Discrete, MultiBinary, MultiDiscrete))]
    return (
        f"{what}; remove it: 'env.wrappers=[{{_target_: gymnasium.wrappers.FilterObservation, "
        f"filter_keys: [{', '.join(keys)}]}}]'"
    )
