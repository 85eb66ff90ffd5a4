"""Gymnasium environments, including the user's own, in Gymnasium's vector environments."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from rl_runner import masks
from rl_runner.envs import dynamics, goals, ids
from rl_runner.envs.making import ENDLESS, make_env, why, wrapper_name
from rl_runner.envs.processes import answering, in_processes, kill
from rl_runner.envs.spaces import MASK, first_action, refuse_actions, stored
from rl_runner.envs.vector import Step
from rl_runner.exact.mdp import MDP
from rl_runner.types import Array, BoolArray, Goals, UserError, one_line

Env = gym.Env[Any, Any]

PLAIN = (bool, int, float, str)  # arguments of an environment that a line can show
CALLED: set[str] = set()  # functions of env.imports; a second call would register the same ids again

gym.register("rlrun/BitFlip-v0", "rl_runner.envs.bitflip:BitFlip", max_episode_steps=ENDLESS)  # its own limit is lower
gym.register("rlrun/GridWorld-v0", "rl_runner.envs.gridworld:GridWorld", max_episode_steps=100)


class GymBackend:
    """N copies of a registered Gymnasium environment.

    Args:
        id: registered id, for example "CartPole-v1".
        num_envs: number of environments.
        imports: modules to import first, which register the user's own environments, or module:function to call.
        kwargs: passed to `gymnasium.make`.
        wrappers: applied to each environment, the first one innermost.
        frame_stack: number of the environment's observations in one; zeros before an episode's first.
        max_steps: time limit of an episode; None: the environment's own, or 10,000 where it has none.
        processes: run each environment in its own process (worthwhile if a step takes milliseconds).
        sticky: must be 0 (for Atari only), so that `env.sticky` is a key of every environment.
        render: draw every step, for `frames`.

    Raises:
        UserError: the id is unknown, an import fails, or a space is not supported.
    """

    def __init__(
        self,
        id: str,
        num_envs: int = 1,
        imports: Sequence[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[Callable[[Env], Env]] = (),
        frame_stack: int = 1,
        max_steps: int | None = None,
        processes: bool = False,
        sticky: float = 0.0,
        render: bool = False,
    ) -> None:
        for module in imports:
            import_module(module)
        if sticky:
            raise UserError("env.sticky: sticky actions are for Atari games only; leave it at 0 here")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"env.max_steps: must be at least 1, or null, got {max_steps}")
        if frame_stack < 1:
            raise UserError(f"env.frame_stack: must be at least 1, got {frame_stack}")
        extra = {"max_episode_steps": max_steps, **(kwargs or {})}
        if extra.get("render_mode") == "human":
            raise UserError("env.kwargs.render_mode: must not be human, which waits for the screen; see rlrun play")
        spec = _spec(id)
        if render:
            extra["render_mode"] = "rgb_array"
        self.name = spec.id if spec else id
        makers = [partial(_make, tuple(imports), id, self.name, extra, wrappers)] * num_envs
        self._envs = _vector_env(makers, id, kwargs or {}, processes)
        if processes:  # they ignore signals, and at exit Python would wait for them forever
            weakref.finalize(self, kill, self._envs.processes)
        self.num_envs, self.stack = num_envs, frame_stack
        self._space = stored(self.name, self._envs.single_observation_space)  # of one frame
        self.observation_space = _stacked(self._space, frame_stack)
        self.action_space: Any = self._envs.single_action_space
        refuse_actions(self.name, self.action_space)
        self.notes: list[str] = list(self._envs.get_attr("notes")[0])
        self.normalized = bool(self._envs.get_attr("normalized")[0])
        self.action_mask: BoolArray | None = None
        limit = extra["max_episode_steps"]
        spec = gym.registry.get(id.rpartition(":")[2])  # "module:id" is registered by now
        own = limit is None and (spec is None or spec.max_episode_steps is not None)
        self.protocol: dict[str, Any] = {} if own else {"max_steps": limit or ENDLESS}
        self.protocol |= {k: v for k, v in (kwargs or {}).items() if isinstance(v, PLAIN) and k != "max_episode_steps"}
        if wrappers:
            self.protocol["wrappers"] = ", ".join(wrapper_name(wrapper) for wrapper in wrappers)
        self.render_modes = list(self._envs.metadata.get("render_modes") or [])
        self.fps = float(self._envs.metadata.get("render_fps") or 30)
        self._render = render
        self._offset = first_action(self.action_space)
        self._clips = isinstance(self.action_space, Box)
        self._frames: list[Array] = []
        self._copy: Env | None = None  # of the environments, to compute rewards for other goals
        self._last = np.zeros((num_envs, frame_stack, *(self._space.shape or ())), self._space.dtype)

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        """See `Backend`."""
        chosen = [s if m else None for s, m in zip(seeds, mask, strict=True)]
        # None leaves an environment's own stream alone; the mask leaves the environment itself alone.
        with self._alive():
            obs, infos = self._envs.reset(seed=chosen, options={"reset_mask": mask.copy()})
        if mask[0]:
            self._draw()
        self._allow(mask, infos)
        return self._begin(mask, np.array(obs, dtype=self._space.dtype))

    def send(self, action: Array) -> None:
        """See `Backend`."""
        space = self.action_space
        actions = np.asarray(action if self._offset is None else action + self._offset, dtype=space.dtype)
        if self._clips:  # as gymnasium.wrappers.ClipAction; the log keeps what the agent chose
            actions = np.clip(actions, space.low, space.high)
        if isinstance(self._envs, AsyncVectorEnv):
            with self._alive():
                self._envs.step_async(actions)
        else:
            self._sent = actions

    def recv(self) -> Step:
        """See `Backend`."""
        with self._alive():
            asynchronous = isinstance(self._envs, AsyncVectorEnv)
            answer = self._envs.step_wait() if asynchronous else self._envs.step(self._sent)
        obs, reward, terminated, truncated, infos = answer
        self._draw()
        self._allow(np.ones(self.num_envs, dtype=np.bool_), infos)
        no_bootstrap = np.zeros(self.num_envs, dtype=np.bool_)
        # Copies, because the library's buffers are written to in the next step.
        kept = self._push(np.array(obs, dtype=self._space.dtype))
        info = [_numbers(infos, i) for i in range(self.num_envs)] if (terminated | truncated).any() else ()
        return Step(kept, np.array(reward, dtype=np.float64), terminated, truncated, no_bootstrap, info)

    def frames(self) -> list[Array]:
        """See `Backend`: one frame per step."""
        frames, self._frames = self._frames, []
        return frames

    def mdp(self) -> MDP | None:
        """See `Backend`: known if the environment has a table of them that matches it."""
        return dynamics.known(self._envs.env_fns[0], self.name, self.observation_space, self.action_space)

    def goals(self) -> Goals | None:
        """See `Backend`: known if observations are a Dict with goals, and the environment has `compute_reward`."""
        if self._copy is None:
            self._copy = goals.copy_of(self._envs.env_fns[0], self.name)
        return goals.known(self._copy, self.name)

    def close(self) -> None:
        """See `Backend`."""
        copy, self._copy = self._copy, None
        try:
            self._close_envs()
        finally:
            if copy is not None:
                copy.close()

    def _close_envs(self) -> None:
        if isinstance(self._envs, AsyncVectorEnv) and self._envs._state is not AsyncState.DEFAULT:
            # An exception came while the processes were stepping. Gymnasium would wait for answers that were read.
            kill(self._envs.processes)
            self._envs.closed = True
        else:
            self._envs.close()

    def _begin(self, mask: BoolArray, obs: Array) -> Array:
        """Return the observations (N, *O) after a reset of the environments in `mask`, from their frames."""
        if self.stack == 1:
            return obs
        self._last = self._last.copy()
        self._last[mask] = 0
        self._last[mask, -1] = obs[mask]
        return self._last

    def _push(self, obs: Array) -> Array:
        """Return the observations (N, *O) after a step, from their newest frames."""
        if self.stack == 1:
            return obs
        self._last = np.concatenate([self._last[:, 1:], obs[:, None]], axis=1)
        return self._last

    def _allow(self, mask: BoolArray, infos: dict[str, Any]) -> None:
        """Read the masks of allowed actions of the environments in `mask`; without one, all actions are allowed."""
        if MASK not in infos and self.action_mask is None:
            return
        actions = sum(masks.sizes_of(self.action_space))
        before = np.ones((self.num_envs, actions), dtype=np.bool_) if self.action_mask is None else self.action_mask
        now: BoolArray = before | mask[:, None]
        if MASK in infos:
            told = mask & infos[f"_{MASK}"]
            now[told] = infos[MASK][told]
        self.action_mask = now

    def _alive(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._envs, AsyncVectorEnv):
            return answering(self._envs, self.name)
        return contextlib.nullcontext()

    def _draw(self) -> None:
        if self._render:
            self._frames.append(self._envs.render()[0])


def _stacked(space: gym.Space[Any], stack: int) -> gym.Space[Any]:
    """Return the space of `stack` frames; frames from before an episode are zeros."""
    if stack == 1:
        return space
    if not isinstance(space, Box):
        raise UserError(f"env.frame_stack: only Box observations can be stacked, these are {space}; leave it at 1")
    low, high = np.minimum(space.low, 0), np.maximum(space.high, 0)
    return Box(np.repeat(low[None], stack, axis=0), np.repeat(high[None], stack, axis=0), dtype=space.dtype.type)


def import_module(name: str) -> None:
    """Import a module, so that it can register its environments; of "module:function" call the function, once.

    Raises:
        UserError: it cannot be imported, there is no such function, or this is not the name of a module.
    """
    module, colon, function = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *([function] if colon else [])]):
        raise UserError(
            f"env.imports: must be names of modules, such as my_pkg.envs or my_pkg.envs:register, got {name!r}"
        )
    try:
        imported = importlib.import_module(module)
    except (ImportError, SyntaxError) as e:
        raise UserError(f"env.imports: cannot import {module!r}: {one_line(e)}") from e
    if colon and not callable(getattr(imported, function, None)):
        raise UserError(f"env.imports: {module!r} has no function {function!r}")
    if colon and name not in CALLED:
        CALLED.add(name)
        getattr(imported, function)()


def _vector_env(makers: Sequence[Callable[[], Env]], id: str, kwargs: Mapping[str, Any], processes: bool) -> Any:
    """Return Gymnasium's vector environment.

    Raises:
        UserError: an environment cannot be made.
    """
    try:
        if processes:
            return in_processes(makers, id)
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    except UserError:
        raise
    except Exception as e:  # someone else's constructor may raise anything
        for key in kwargs:
            if f"unexpected keyword argument '{key}'" in str(e):
                raise UserError(f"env.kwargs.{key}: {id} takes no such argument") from e
        raise UserError(f"env.id: {id} cannot be made: {why(e)}") from e


def _make(imports: Sequence[str], *of_env: Any) -> Env:
    """Return one environment. A process that was not forked imports this module and theirs first, for their ids."""
    for module in imports:
        import_module(module)
    return make_env(*of_env)


def _spec(id: str) -> Any:
    """Return the spec of a registered id, or None for "module:id", which gymnasium.make looks up.

    Raises:
        UserError: the id is not registered; the message has a hint.
    """
    if ":" in id:  # "module:id" imports the module itself
        return None
    try:
        return gym.spec(id)
    except gym.error.Error as e:
        raise UserError(f"env.id: {id!r} is not a registered environment; {ids.hint(id)}") from e


def _numbers(infos: Mapping[str, Any], i: int) -> dict[str, float]:
    """Return the numbers that environment i reported, as gymnasium's vector environments hand them on."""
    names = [name for name in infos if f"_{name}" in infos and name != MASK]
    return {name: float(infos[name][i]) for name in names if infos[f"_{name}"][i]}
