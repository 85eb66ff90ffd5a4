"""Configuration -> objects: what is chosen for the user, and what a wrong part is told."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from rl_runner import catalogue
from rl_runner.build import jobs as build
from rl_runner.build import saved
from rl_runner.commands.train import TrainJob
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.launch import tuned
from rl_runner.run.directory import RunDirectory
from rl_runner.schedules import Every
from rl_runner.types import UserError


def config(*words: str) -> dict[str, Any]:
    return saved.plain(tuned.compose(list(words)))


def job(*words: str) -> TrainJob:
    return build.train_job(config("replay.capacity=1000", *words), RunDirectory(Path("run")))


def test_what_is_built_is_what_was_asked_for(workdir: Path) -> None:
    made = job("env=frozenlake", "env.num_envs=3", "batch_size=7", "learn_every_steps=9", "learning_starts=11")
    assert made.loop.envs.num_envs == 3
    assert (made.loop.batch_size, made.loop.learn_every.period, made.loop.learning_starts) == (7, 9, 11)
    assert {"environment", "replay", "device"} <= dict(made.facts).keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu(workdir: Path) -> None:
    made = job("device=cuda", "learning_starts=10", "learn_every_steps=4")
    for _ in range(40):
        made.loop.step()
    assert made.loop.clock.updates > 0


@pytest.mark.parametrize("words", [["+network.torso.wrong=1"], ["total_steps=10", "learning_starts=10"]], ids=str)
def test_environments_are_closed_if_a_run_is_refused(
    words: list[str], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(EpisodicVectorEnv, "close", lambda envs: closed.append(envs))
    with pytest.raises(UserError):
        job(*words)
    assert len(closed) == 1


def test_the_same_seed_gives_the_same_run(workdir: Path) -> None:
    weights = []
    for seed in (0, 0, 1):
        made = job(f"seed={seed}", "learning_starts=10", "learn_every_steps=4", "updates_per_learn=1")
        for _ in range(40):
            made.loop.step()
        weights.append(torch.cat([p.detach().flatten() for p in made.loop.agent.online.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_evaluations_do_not_touch_training(workdir: Path) -> None:
    rows = []
    for evaluates in (False, True):
        made = job("eval.episodes=2", "eval.num_envs=2")
        for step in range(60):
            made.loop.step()
            if evaluates and step % 20 == 0:
                made.evaluation(step, lambda: False)
        rows.append(made.loop.obs)
    assert np.array_equal(*rows)


def test_the_least_replay_capacity() -> None:
    with pytest.raises(UserError, match=r"replay.capacity: 31 rows are too few for 4 environment.* at least 40"):
        job("experiment=pong_84", "replay.capacity=31")
    words = ["env.num_envs=2", "agent.n_step=4", "batch_size=4", "learning_starts=4"]
    with pytest.raises(UserError, match="at least 12"):
        job(*words, "replay.capacity=11")
    job(*words, "replay.capacity=12")


def test_an_agent_that_was_compiled_is_evaluated_where_no_compiler_is(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(trained)
    saved.save_run_config(run, {**(cfg := saved.load_run_config(run, [])), "agent": {**cfg["agent"], "compiled": True}})
    monkeypatch.delattr(torch, "compile")
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        made = build.eval_job(saved.plain(compose("eval", [f"checkpoint={trained}", "episodes=1"])))
    made.envs.close()


def test_where_there_are_no_exact_measures_the_reason_is_said(workdir: Path) -> None:
    def built(*words: str) -> TrainJob:
        return build.train_job(config(*words), RunDirectory(Path("run")))

    lake = built("env=frozenlake", "agent=q_learning")
    assert lake.exact is not None
    assert "exact measures" not in dict(lake.facts)
    taxi = built("env=gym", "env.id=Taxi-v4", "++env.kwargs.fickle_passenger=true", "agent=q_learning")
    assert taxi.exact is None
    said = (
        r"none, the table P of Taxi-v4 does not match the environment: in state \d+ action \d led to .*, where P has "
    )
    assert re.match(said, dict(taxi.facts)["exact measures"])
    without_a_table = built("env=cartpole")
    assert without_a_table.exact is None
    assert "exact measures" not in dict(without_a_table.facts)
    gradient = built("env=frozenlake", "agent=reinforce", "agent.returns=to_go", "log.every_steps=7")
    assert gradient.exact is None
    assert gradient.loop.gradient.gamma == 1.0
    assert gradient.loop.measure_every == Every(7)
    no_gradient = built("env=cartpole", "agent=reinforce")
    assert no_gradient.loop.gradient is None
    fickle = built("env=gym", "env.id=Taxi-v4", "++env.kwargs.fickle_passenger=true", "agent=ppo")
    assert fickle.loop.gradient is None
    assert re.match(said, dict(fickle.facts)["exact measures"])
