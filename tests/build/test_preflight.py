"""What is reckoned before a run is what the run then takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.build import jobs, preflight, saved
from rl_runner.launch.composed import compose
from rl_runner.run.directory import RunDirectory


def test_the_size_of_a_checkpoint(trained: Path) -> None:
    job = jobs.planned_job(saved.load_run_config(RunDirectory(trained), []), RunDirectory(Path("new")))
    reckoned = preflight.plan(job.config, job.loop, Path("new/run"), resumed=False).checkpoint
    written = sum(file.stat().st_size for file in (trained / "checkpoints/latest/").iterdir() if file.suffix != ".json")
    assert reckoned == pytest.approx(written, rel=0.05)
    assert not Path("new").exists()


def test_memory_and_what_the_environment_is_registered_with(workdir: Path) -> None:
    words = ["env=gym", "env.imports=[ale_py]", "env.id=ALE/Pong-v5", "replay.capacity=100", "total_steps=2000"]
    cfg = saved.plain(compose([*words, "network=noisy", "exploration=greedy", "network.hidden=[8]"])[0])
    job = jobs.planned_job(cfg, RunDirectory(Path("run")))
    plan = preflight.plan(cfg, job.loop, Path("run"), resumed=False)
    assert (plan.registered["frameskip"], plan.registered["repeat_action_probability"]) == (4, 0.25)
    assert plan.memory["the replay memory"] == pytest.approx(100 * 210 * 160 * 3, rel=0.01)
    weights = sum(p.numel() for p in job.loop.agent.network.parameters())  # type: ignore[attr-defined]
    assert plan.memory["the network"] == 3 * 4 * weights  # gradients and two moments
    assert plan.noisy
    job.loop.envs.close()


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        ({"id": "CartPole-v1"}, 500),
        ({"id": "CartPole-v1", "max_steps": 90}, 90),
        ({"id": "CartPole-v1", "kwargs": {"max_episode_steps": 70}}, 70),
        ({"id": "CartPole-v1", "max_steps": 90, "kwargs": {"max_episode_steps": 70}}, 70),
        ({"id": "gymnasium.envs:CartPole-v1"}, 500),
        ({"id": "CliffWalking-v1"}, 10_000),  # rlrun's own
        ({"id": "CliffWalking-v1", "max_steps": 90}, 90),
        ({"id": "Unknown-v0"}, None),
        ({"_target_": "rl_runner.envs.gridworld.GridWorldBackend", "max_steps": 90}, 90),
        ({"game": "pong", "max_frames": 10, "frame_skip": 4}, 3),
        ({"id": "CartPole-v1", "wrappers": [{}]}, None),
    ],
)
def test_the_time_limit_where_it_is_known(env: Any, limit: int | None) -> None:
    assert preflight.time_limit(env) == limit


@pytest.mark.parametrize(
    ("state", "finite"),
    [
        ({"a": torch.ones(2), "b": [torch.tensor([1.0, torch.inf])]}, False),
        ({"a": (torch.tensor(torch.nan),)}, False),
        ({"a": torch.ones(2, dtype=torch.int64), "b": {"c": 3.0, "d": None}}, True),
        ({"a": np.array([1.0, np.nan])}, False),
    ],
)
def test_finite(state: Any, finite: bool) -> None:
    assert preflight.finite(state) == finite
