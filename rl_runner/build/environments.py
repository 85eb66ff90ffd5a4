"""Environments from the `env` group of a configuration."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import Any

import gymnasium as gym

from rl_runner.build.checks import written
from rl_runner.build.signatures import make
from rl_runner.envs.gym import GymBackend, import_module
from rl_runner.envs.making import registered, why
from rl_runner.envs.single import SingleEnv
from rl_runner.envs.vector import Backend, EpisodicVectorEnv
from rl_runner.screen.playback import playback
from rl_runner.types import State, UserError, one_line


def backend(node: State, num_envs: int, render: bool = False) -> Backend:
    """Build the backend of `num_envs` environments."""
    node = {**{k: v for k, v in node.items() if k not in ("name", "returns")}, "num_envs": num_envs, "render": render}
    if "wrappers" in node:
        if not isinstance(node["wrappers"], list):
            wrong = written(node["wrappers"])
            raise UserError(f"env.wrappers: must be a list [{{_target_: package.Wrapper}}], got {wrong}")
        node["wrappers"] = [_wrapper(i, wrapper) for i, wrapper in enumerate(node["wrappers"])]
    made: Backend = make("env", node)
    return made


def _wrapper(i: int, node: Any) -> State:
    """Return the node of a wrapper, which the backend calls with the environment."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"env.wrappers[{i}]: must be {{_target_: package.Wrapper, key: value}}, got {written(node)}")
    return {**node, "_partial_": True}


def environments(node: State, num_envs: int, seed: int, stream: str) -> EpisodicVectorEnv:
    """Build environments from the `env` group: `num_envs` of them, seeded by the run's seed and the stream's name."""
    return EpisodicVectorEnv(backend(node, num_envs), seed, stream)


def viewer(node: State) -> Backend:
    """Return one environment that draws, in this process.

    Raises:
        UserError: it cannot be drawn.
    """
    if "processes" in node:
        node = {**node, "processes": False}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*render_mode")  # said below
            made = backend(node, 1, render=True)
    except UserError as e:
        if "unexpected keyword argument 'render_mode'" not in str(e):
            raise
        raise UserError(f"env: {node['id']} cannot be drawn: it takes no render_mode='rgb_array'") from e
    if isinstance(made, GymBackend) and "rgb_array" not in made.render_modes:
        modes = f"metadata['render_modes'] is {made.render_modes}, without 'rgb_array'"
        raise UserError(f"env: {made.name} cannot be drawn: its {modes}")
    _physics_without_a_screen()  # only now: where EGL is missing, importing MuJoCo would fail too
    try:
        frames = next(playback(made, 0, [])).frames
    except (NotImplementedError, ImportError, gym.error.Error) as e:
        said = one_line(e) or "its render is not implemented"
        raise UserError(f"env: {made.name} cannot be drawn: {said}") from e
    except Exception as e:  # MuJoCo's, OpenGL's and the system's libraries raise errors of many types
        if not any("mujoco_rendering" in frame.filename for frame in traceback.extract_tb(e.__traceback__)):
            raise
        remedy = "without a screen it needs EGL (libegl1) and MUJOCO_GL=egl"
        raise UserError(f"env: {made.name} cannot be drawn: MuJoCo found no OpenGL; {remedy}") from e
    if not frames:
        raise UserError(f"env: {made.name} cannot be drawn: it gives no frames")
    return made


def trained_environment(node: State, render_mode: str | None) -> SingleEnv:
    """Return one environment with the preprocessing of the run, as Gymnasium has it.

    Raises:
        UserError: it cannot be made, or drawn.
    """
    if render_mode is None:
        return SingleEnv(backend(node, 1))
    if render_mode != "rgb_array":
        raise UserError(f"render_mode: must be rgb_array, or None, got {render_mode!r}; raw=True takes others")
    if not _has_screen():  # a program may open windows of its own
        draw_without_a_screen()
    return SingleEnv(viewer(node), render_mode)


def raw_environment(node: State, render_mode: str | None) -> gym.Env[Any, Any]:
    """Return Gymnasium's own environment, without what a run puts round it.

    Raises:
        UserError: it cannot be made, or it is no environment of Gymnasium's.
    """
    extra: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        if "game" in node:
            import ale_py  # noqa: F401 - registers its games

            (id,) = (
                spec.id
                for spec in gym.registry.values()
                if spec.namespace == "ALE" and spec.kwargs.get("game") == node["game"] and spec.version == 5
            )
            return registered(id, **extra)
        if "id" in node:
            for module in node.get("imports") or []:
                import_module(module)
            return registered(node["id"], **extra, **(node.get("kwargs") or {}))
    except UserError:
        raise
    except Exception as e:  # of whatever kind, in somebody else's constructor
        raise UserError(f"env: {node.get('id') or node.get('game')} cannot be made: {why(e)}") from e
    raise UserError(f"env: {node['_target_']} is no environment of Gymnasium's; raw=False makes it")


def draw_without_a_screen() -> None:
    """Tell Gymnasium's drawing library that no screen is needed; otherwise it complains where there is none."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _physics_without_a_screen() -> None:
    """Tell MuJoCo to draw by EGL where there is no screen; otherwise it looks for one first, and warns."""
    if not _has_screen():
        os.environ.setdefault("MUJOCO_GL", "egl")


def _has_screen() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
