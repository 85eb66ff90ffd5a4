"""Configuration -> objects: what is chosen for the user, and what a wrong part is told."""

import errno
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from rl_runner import catalogue
from rl_runner.build import jobs as build
from rl_runner.commands.train import TrainJob
from rl_runner.launch import tuned
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError
from tests.commandline import refused


def config(*words: str) -> dict[str, Any]:
    return build.plain(tuned.compose(list(words)))


def job(*words: str) -> TrainJob:
    return build.train_job(config("replay.capacity=1000", *words), RunDirectory(Path("run")))


def test_what_is_built_is_what_was_asked_for(workdir: Path) -> None:
    made = job("env=frozenlake", "env.num_envs=3", "batch_size=7", "learn_every_steps=9", "learning_starts=11")
    assert made.loop.envs.num_envs == 3
    assert (made.loop.batch_size, made.loop.learn_every.period, made.loop.learning_starts) == (7, 9, 11)
    assert dict(made.facts)["environment"].startswith("FrozenLake-v1 × 3")
    assert dict(made.facts)["replay"].startswith("1,000 rows")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu(workdir: Path) -> None:
    made = job("device=cuda", "learning_starts=10", "learn_every_steps=4")
    for _ in range(40):
        made.loop.step()
    assert made.loop.clock.updates > 0


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
    with pytest.raises(UserError, match="at least 12"):
        job("env.num_envs=2", "agent.n_step=4", "replay.capacity=11")
    job("env.num_envs=2", "agent.n_step=4", "replay.capacity=12")


def test_an_agent_that_was_compiled_is_evaluated_where_no_compiler_is(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(trained)
    build.save_run_config(run, {**(cfg := build.load_run_config(run, [])), "agent": {**cfg["agent"], "compiled": True}})
    monkeypatch.delattr(torch, "compile")
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        made = build.eval_job(build.plain(compose("eval", [f"checkpoint={trained}", "episodes=1"])))
    made.envs.close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read: it holds no keys"),
        ("{}", "cannot be read: it holds no keys"),
        ("[1, 2]", "cannot be read: it holds no keys"),
        ("a: [1", "cannot be read: while parsing"),
        ("device: cpu\nseed: 0\n", "is damaged, or no configuration of a run: num_threads: "),
    ],
)
def test_a_broken_configuration_is_named(text: str, why: str, trained: Path) -> None:
    (trained / "config.yaml").write_text(text)
    for words in (["eval", str(trained)], ["train", f"resume={trained}"]):
        assert refused(*words).startswith(f"rlrun: {trained}/config.yaml {why}")


def test_a_configuration_that_cannot_be_written(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any, path: Path) -> None:
        path.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build.OmegaConf, "save", fail)
    before = (trained / "config.yaml").read_text()
    line = refused("train", f"resume={trained}", "total_steps=77")
    assert line == f"rlrun: {trained}/config.yaml cannot be written: No space left on device"
    assert (trained / "config.yaml").read_text() == before
    assert "outputs/new/config.yaml cannot be written" in refused("train", "hydra.run.dir=outputs/new")


def test_only_some_keys_may_change_on_resume(trained: Path) -> None:
    run = RunDirectory(trained)
    words = [
        "total_steps=77",
        "eval.every_steps=5",
        "+resume=x",
        "checkpoint.keep=9",
        "stop.return=1",
        "log.every_steps=3",
        "replay.frames=host",
        "agent.compiled=true",
    ]
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = compose("train", [word.lstrip("+") for word in words])
    changed = build.resumed_config(run, cfg, words)
    before = build.load_run_config(run, [])
    before["total_steps"], before["eval"]["every_steps"], before["checkpoint"]["keep"] = 77, 5, 9
    before["stop"]["return"], before["log"]["every_steps"] = 1, 3
    before["replay"]["frames"], before["agent"]["compiled"] = "host", True
    assert changed == before
    for key in ("seed", "replay.capacity", "env.num_envs", "trusty"):
        with pytest.raises(UserError, match=f"{key}: cannot change"):
            build.resumed_config(run, cfg, [f"{key}=3"])


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
