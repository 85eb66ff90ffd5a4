"""Gymnasium environments, the user's own included, on Gymnasium's vector environments."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from rl_runner.envs import ids
from rl_runner.envs.vector import Step
from rl_runner.mdp import MDP
from rl_runner.types import Array, BoolArray, UserError

ENDLESS = 10_000  # time limit where the environment has none: a policy that knows nothing may never end an episode

gym.register("rlrun/GridWorld-v0", "rl_runner.envs.gridworld:GridWorld", max_episode_steps=100)


class GymBackend:
    """N copies of a registered Gymnasium environment.

    Args:
        id: registered id, for example "CartPole-v1".
        num_envs: how many.
        imports: modules to import first, so that they can register environments of the user's own.
        kwargs: passed to `gymnasium.make`.
        max_steps: time limit of an episode; None: the environment's own, or 10,000 where it has none.
        processes: step each environment in a process of its own (pays when a step takes milliseconds).
        sticky: not offered here (Atari only); accepted as 0 so that `env.sticky` is a key of every environment.
        render: draw every step, for `frames`.

    Raises:
        UserError: unknown id, import that fails, spaces that are not supported.
    """

    stack = 1

    def __init__(
        self,
        id: str,
        num_envs: int = 1,
        imports: Sequence[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        processes: bool = False,
        sticky: float = 0.0,
        render: bool = False,
    ) -> None:
        for module in imports:
            _import(module)
        if sticky:
            raise UserError("env.sticky: sticky actions are for Atari games only; leave it at 0 here")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"env.max_steps: must be at least 1, or null, got {max_steps}")
        extra = {"max_episode_steps": max_steps, **(kwargs or {})}
        spec = _spec(id)
        if render:
            extra["render_mode"] = "rgb_array"

        def make() -> gym.Env[Any, Any]:
            if multiprocessing.parent_process():  # Ctrl-C is the run's to answer, which then asks us to end
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            env = gym.make(id, disable_env_checker=True, **extra)
            if _limit(env) is None:
                env = gym.wrappers.TimeLimit(env, ENDLESS)
            return gym.wrappers.FlattenObservation(env) if isinstance(env.observation_space, (Dict, Tuple)) else env

        vector = AsyncVectorEnv if processes else SyncVectorEnv
        try:
            self._envs: Any = vector([make] * num_envs, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        except (gym.error.Error, TypeError, ValueError, KeyError, AttributeError, ImportError) as e:
            raise UserError(f"env.id: {id} cannot be made: {_one_line(e)}") from e
        self.name = spec.id if spec else id
        self.num_envs = num_envs
        self.observation_space = _observation_space(self.name, self._envs.single_observation_space)
        self.action_space = self._envs.single_action_space
        limit = extra["max_episode_steps"]
        own = limit is None and (spec is None or spec.max_episode_steps is not None)
        self.protocol: dict[str, Any] = {} if own else {"max_steps": limit or ENDLESS}
        self.fps = float(self._envs.metadata.get("render_fps") or 30)
        self._render = render
        self._offset = self.action_space.start if isinstance(self.action_space, Discrete) else 0
        self._frames: list[Array] = []

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """See `Backend`."""
        chosen = [s if m else None for s, m in zip(seeds, mask, strict=True)]
        # None leaves an environment's own stream alone; the mask leaves the environment itself alone.
        obs, _ = self._envs.reset(seed=chosen, options={"reset_mask": mask.copy()})
        if mask[0]:
            self._draw()
        return self._keep(obs)

    def send(self, action: Array) -> None:
        """See `Backend`."""
        actions = action + self._offset if self._offset else action
        if isinstance(self._envs, AsyncVectorEnv):
            self._envs.step_async(actions)
        else:
            self._sent = actions

    def recv(self) -> Step:
        """See `Backend`."""
        asynchronous = isinstance(self._envs, AsyncVectorEnv)
        obs, reward, terminated, truncated, _ = self._envs.step_wait() if asynchronous else self._envs.step(self._sent)
        self._draw()
        life_lost = np.zeros(self.num_envs, dtype=np.bool_)
        return Step(self._keep(obs), reward.astype(np.float32), terminated, truncated, life_lost)

    def frames(self) -> list[Array]:
        """See `Backend`: one frame a step."""
        frames, self._frames = self._frames, []
        return frames

    def mdp(self) -> MDP | None:
        """See `Backend`: known where the environment has a table of them, as Gymnasium's small text ones do."""
        if isinstance(self._envs, AsyncVectorEnv):
            return None
        env = self._envs.envs[0]
        inner = env.unwrapped
        table, start = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
        if not isinstance(table, dict) or start is None or not isinstance(env.observation_space, Discrete):
            return None
        shape = getattr(inner, "shape", None) or getattr(getattr(inner, "desc", None), "shape", None)
        grid = shape if shape and shape[0] * shape[1] == len(table) else None
        try:
            return MDP.from_table(table, start, _limit(env), grid)
        except (LookupError, TypeError, ValueError):  # an environment of somebody's own, with another kind of table
            return None

    def close(self) -> None:
        """See `Backend`."""
        self._envs.close()

    def _keep(self, obs: Array) -> Array:
        """Copy an observation out of the library's buffer, as the type that is stored."""
        return np.array(obs, dtype=self.observation_space.dtype)

    def _draw(self) -> None:
        if self._render:
            self._frames.append(np.asarray(self._envs.render()[0]))


def _limit(env: gym.Env[Any, Any]) -> int | None:
    """Give the time limit of an environment's episodes in steps; None: it has none."""
    return env.spec.max_episode_steps if env.spec else None


def _import(module: str) -> None:
    """Import a module, so that it can register its environments.

    Raises:
        UserError: it cannot be imported, or this is no module's name.
    """
    if not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"env.imports: a module's dotted name is wanted, such as my_pkg.envs, got {module!r}")
    try:
        importlib.import_module(module)
    except ImportError as e:
        raise UserError(f"env.imports: cannot import {module!r}: {_one_line(e)}") from e


def _spec(id: str) -> Any:
    """Return what is registered under an id, None for "module:id", which gymnasium.make looks up.

    Raises:
        UserError: nothing is, with a hint at what was probably meant.
    """
    if ":" in id:  # "module:id" imports the module itself
        return None
    try:
        return gym.spec(id)
    except gym.error.Error as e:
        raise UserError(f"env.id: {id!r} is no registered environment; {ids.hint(id)}") from e


def _observation_space(name: str, space: gym.Space[Any]) -> gym.Space[Any]:
    """Give the space of what is stored: floats as float32, and only what a network can read."""
    if isinstance(space, Box):
        if np.issubdtype(space.dtype, np.floating):
            return Box(-np.inf, np.inf, space.shape, np.float32)
        return space
    if isinstance(space, (Discrete, MultiBinary, MultiDiscrete)):
        return space
    raise UserError(f"env.id: {name} has observations of type {type(space).__name__}, which no network here reads")


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split())
