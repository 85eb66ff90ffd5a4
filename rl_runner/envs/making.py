"""One Gymnasium environment: made, limited in time, wrapped and checked."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled

from rl_runner.envs.checked import Checked, FiveValues
from rl_runner.envs.spaces import about_wrappers, readable, without_normalization
from rl_runner.types import UserError, described, one_line

Env = gym.Env[Any, Any]

KEEP_THEIR_WORLD = (
    "gymnasium.envs.box2d.bipedal_walker:BipedalWalker",
    "gymnasium.envs.box2d.car_racing:CarRacing",
)
ENDLESS = 10_000  # time limit where the environment has none: an untrained policy may never end an episode


def make_env(id: str, name: str, extra: Mapping[str, Any], wrappers: Sequence[Callable[[Env], Env]]) -> Env:
    """Return one environment.

    Its answers are checked, inside and outside of all wrappers, and its observations are one array.

    Args:
        id: registered id, for example "CartPole-v1".
        name: for messages.
        extra: keyword arguments of `gymnasium.make`.
        wrappers: applied in this order.

    Raises:
        UserError: a wrapper cannot be applied, or a space is not supported.
    """
    env = registered(id, disable_env_checker=True, **extra)
    if _limit(env) is None:
        env = gym.wrappers.TimeLimit(env, ENDLESS)
    _check_inside(env, name)
    for i, wrapper in enumerate(wrappers):
        try:
            env = _with_tuples(wrapper)(env)
        except Exception as e:  # someone else's code may raise anything
            said = f"{wrapper_name(wrapper)} cannot wrap {name}: {described(e)}"
            raise UserError(f"env.wrappers[{i}]: {said}") from e
    env, normalized = without_normalization(env, name)
    notes = about_wrappers(env)
    env, made = readable(env, name)
    checked = Checked(env, name)
    checked.notes, checked.normalized = ([f"its observations: {made}"] if made else []) + notes, normalized
    return checked


def registered(id: str, **extra: Any) -> Env:
    """Return what `gymnasium.make` returns, made independent of the episodes before where it is not."""
    with _quiet_models(id):
        env = gym.make(id, **extra)
    kind = type(env.unwrapped)
    return NewWorld(env) if f"{kind.__module__}:{kind.__name__}" in KEEP_THEIR_WORLD else env


class NewWorld(gym.Wrapper[Any, Any, Any, Any]):
    """A Box2D environment that makes a new world for each episode.

    Gymnasium's BipedalWalker and CarRacing use one for all episodes. It keeps traces of those before, so an episode
    would depend on more than its seed and its actions, and a resumed run would not be the uninterrupted one.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        env: Any = self.unwrapped
        env._destroy()
        env.world = type(env.world)(gravity=env.world.gravity)
        return super().reset(seed=seed, options=options)


@contextlib.contextmanager
def _quiet_models(id: str) -> Iterator[None]:
    """Hide MuJoCo's warnings about Gymnasium's own models, as of HalfCheetah: they are for the models' authors.

    Without this, MuJoCo prints them, and writes them into a file in the current directory. Its warnings about a running
    simulation stay.
    """
    spec = gym.registry.get(id)
    own = spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco.")
    if not own or importlib.util.find_spec("mujoco") is None:
        yield
        return
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def why(e: Exception) -> str:
    """Return in one line why an environment cannot be made."""
    if isinstance(e, DependencyNotInstalled) and importlib.util.find_spec("mujoco") is None and "mujoco" in str(e):
        return "MuJoCo is not installed: pip install 'rlrun[mujoco]'"
    return one_line(e) or type(e).__name__


def _with_tuples(wrapper: Any) -> Any:
    """Return a Gymnasium wrapper with its lists as tuples, which it requires and a configuration cannot hold."""
    if not (isinstance(wrapper, partial) and wrapper.func.__module__.startswith("gymnasium.")):
        return wrapper
    return partial(wrapper.func, **{k: tuple(v) if isinstance(v, list) else v for k, v in wrapper.keywords.items()})


def _check_inside(env: Env, name: str) -> None:
    """Check the steps of the innermost environment before any wrapper sees them."""
    while isinstance(env, gym.Wrapper) and isinstance(env.env, gym.Wrapper):
        env = env.env
    if isinstance(env, gym.Wrapper):
        env.env = FiveValues(env.env, name)


def wrapper_name(wrapper: Any) -> str:
    """Return the name of a wrapper's class."""
    return str(getattr(getattr(wrapper, "func", wrapper), "__name__", wrapper))


def _limit(env: gym.Env[Any, Any]) -> int | None:
    """Return the time limit of an environment's episodes in steps; None: there is none."""
    return env.spec.max_episode_steps if env.spec else None
