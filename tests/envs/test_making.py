"""Simulators: the environments of Box2D's and MuJoCo's that act by continuous actions."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rl_runner.envs import making
from rl_runner.envs.gym import GymBackend
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.types import Array
from tests.commandline import refused, rlrun

MUJOCO = ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Ant-v5"]
installed = importlib.util.find_spec("mujoco") is not None
needs_mujoco = pytest.mark.skipif(not installed, reason="needs mujoco: pip install 'rlrun[mujoco]'")


def make(id: str, num_envs: int, **kwargs: object) -> EpisodicVectorEnv:
    return EpisodicVectorEnv(GymBackend(id, num_envs, kwargs=kwargs), 3, "train")


def steps(envs: EpisodicVectorEnv, rng: np.random.Generator, n: int) -> list[tuple[Array, Array]]:
    """Take n random steps; return the observations and rewards."""
    space, seen = envs.action_space, []
    for _ in range(n):
        envs.send(rng.uniform(space.low, space.high, (envs.num_envs, *space.shape)).astype(space.dtype))
        tr = envs.recv()
        seen.append((tr.next_obs, tr.reward))
        if tr.ended.any():
            envs.reset(tr.ended)
    return seen


@pytest.mark.parametrize(
    ("id", "num_envs", "before", "kwargs"),
    [
        pytest.param("CarRacing-v3", 1, 25, {"max_episode_steps": 15}),
        *(pytest.param(id, 2, 70, {"max_episode_steps": 45}, marks=needs_mujoco) for id in MUJOCO),
    ],
)
def test_a_simulator_restored_in_the_middle_of_an_episode_goes_on_bit_for_bit(
    id: str, num_envs: int, before: int, kwargs: dict[str, int]
) -> None:
    envs, other = make(id, num_envs, **kwargs), make(id, num_envs, **kwargs)
    envs.reset()
    (*_, (obs, _)) = steps(envs, np.random.default_rng(0), before)
    state = copy.deepcopy(envs.state_dict())
    assert (state["length"] > 0).all()
    assert (state["episode"] > 0).any()  # not only the first episodes
    np.testing.assert_array_equal(other.load_state_dict(state), obs)
    assert not other.lost.any()
    for ours, theirs in zip(*(steps(e, np.random.default_rng(1), 10) for e in (envs, other)), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@needs_mujoco
@pytest.mark.parametrize("id", MUJOCO)
def test_mujoco_warns_nobody_of_its_models(id: str, capfd: pytest.CaptureFixture[str], workdir: Path) -> None:
    envs = make(id, 1)
    assert envs.reset().dtype == np.float32
    assert (envs.action_space.low, envs.action_space.high) == (pytest.approx(-1), pytest.approx(1))
    assert tuple(capfd.readouterr()) == ("", "")
    assert list(workdir.iterdir()) == []  # MuJoCo writes its warnings into a file, too


@needs_mujoco
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a screen is there")
def test_mujoco_draws_without_a_screen(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    done = rlrun("play", "env=halfcheetah", "max_steps=2", "video=a.gif")
    if "found no OpenGL" in done.err:
        pytest.skip("needs EGL")
    assert (done.code, done.err) == (0, "")
    assert (workdir / "a.gif").stat().st_size


@pytest.mark.skipif(installed, reason="mujoco is installed")
@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah", "ant"])
def test_without_mujoco_one_line_says_what_to_install(env: str, workdir: Path) -> None:
    said = refused("train", f"env={env}")
    assert said.endswith("cannot be made: MuJoCo is not installed: pip install 'rlrun[mujoco]'"), said


@pytest.mark.parametrize(("id", "steps", "episodes"), [("BipedalWalker-v3", 400, 6), ("CarRacing-v3", 30, 2)])
def test_an_episode_of_box2d_depends_on_its_seed_and_its_actions_alone(id: str, steps: int, episodes: int) -> None:
    def episode(env: gym.Env[Any, Any], seed: int) -> list[tuple[float, bytes]]:
        env.action_space.seed(seed)
        seen = [(0.0, env.reset(seed=seed)[0].tobytes())]
        for _ in range(steps):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append((float(reward), obs.tobytes()))
            if terminated or truncated:
                break
        return seen

    used = making.registered(id)
    for seed in range(episodes):
        after = episode(used, seed)
        assert after == episode(making.registered(id), seed)
