"""A run's configuration on the disk: what is wrong with it, what may change, and what older versions wrote."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rl_runner import catalogue
from rl_runner.build import saved
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError
from tests.commandline import refused, rlrun


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
    def fail(source: Path, target: Path) -> None:
        if Path(target).name == "config.yaml":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "replace", fail)
    before = (trained / "config.yaml").read_text()
    done = rlrun("train", f"resume={trained}", "total_steps=77")
    assert done.code == 2
    assert done.err == f"rlrun: {trained}/config.yaml cannot be written: No space left on device\n"
    assert (trained / "config.yaml").read_text() == before
    assert not (trained / "changes.csv").exists()
    assert not list(trained.glob(".*.tmp"))
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
    changed = saved.resumed_config(run, cfg, words)
    before = saved.load_run_config(run, [])
    before["total_steps"], before["eval"]["every_steps"], before["checkpoint"]["keep"] = 77, 5, 9
    before["stop"]["return"], before["log"]["every_steps"] = 1, 3
    before["replay"]["frames"], before["agent"]["compiled"] = "host", True
    assert changed == before
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        other = compose("train", ["seed=3", "replay.capacity=3", "env.num_envs=3", "+trusty=3"])
    for key in ("seed", "replay.capacity", "env.num_envs", "trusty", "nowhere", "env"):
        with pytest.raises(UserError, match=f"{key}: cannot change"):
            saved.resumed_config(run, other, [f"{key}=3"])


def test_a_reference_is_to_the_runs_own_value(trained: Path) -> None:
    words = ["exploration.steps=${total_steps}", "optimizer.lr_steps=${exploration.steps}"]
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = compose("train", words)
    assert cfg.exploration.steps != 40
    changed = saved.resumed_config(RunDirectory(trained), cfg, words)
    assert (changed["exploration"]["steps"], changed["optimizer"]["lr_steps"]) == (40, 40)


def test_parts_of_values_and_keys_that_another_word_removes(trained: Path) -> None:
    run = RunDirectory(trained)
    words = ["eval.every_steps=100", "~eval.every_steps"]
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = compose("train", words)
    with pytest.raises(UserError, match=r"~eval\.every_steps: cannot change"):
        saved.resumed_config(run, cfg, words)
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = compose("train", ["tags=[a,b]", "tags.0=c", "+logger.project=${env.name}"])
    changed = saved.resumed_config(run, cfg, ["tags=[a,b]", "tags.0=c", "+logger.project=${env.name}"])
    assert (changed["tags"], changed["logger"]["project"]) == (["c", "b"], "cartpole")


def test_naming_a_value_that_the_run_has_is_no_change_on_resume(trained: Path) -> None:
    run = RunDirectory(trained)
    before = saved.load_run_config(run, [])
    words = [f"seed={before['seed']}", f"replay.capacity={before['replay']['capacity']}", "agent.double=false"]
    with initialize_config_dir(str(catalogue.conf_dir()), version_base="1.3"):
        cfg = compose("train", words)
    assert saved.resumed_config(run, cfg, words) == before


def test_the_batch_size_that_ppo_cuts_its_rollouts_by_changes_with_the_runs(workdir: Path) -> None:
    """Its schedules can be made longer as well, and the start says where the learning rate is 0."""
    words = ["num_threads=1", "env.num_envs=1", "rollout_steps=64", "agent.epochs=1", "hydra.run.dir=outputs/ppo"]
    words += ["batch_size=64", "total_steps=128", "log.every_steps=64", "eval.episodes=1"]
    assert rlrun("train", "agent=ppo", "env=cartpole", *words).code == 0
    run = RunDirectory(Path("outputs/ppo"))
    done = rlrun("train", "resume=outputs/ppo", "total_steps=192", "batch_size=16")
    said = " ".join(done.out.split())
    assert "optimizer.lr_steps: 128 steps with optimizer.lr_end=0: the learning rate is 0 from there to" in said
    assert "use optimizer.lr_steps=192 agent.clip_steps=192" in said
    assert saved.load_run_config(run, [])["agent"]["batch_size"] == 16
    line = refused("train", "resume=outputs/ppo", "learn_every_steps=3")
    assert line == "rlrun: learn_every_steps: this run has no such key, so that it would change nothing"
    lengths = ["total_steps=256", "optimizer.lr_steps=256", "agent.clip_steps=256"]
    done = rlrun("train", "resume=outputs/ppo", *lengths)
    assert done.code == 0, done
    assert "the learning rate is 0" not in done.out
    with (run.path / "metrics.csv").open() as file:
        logged = [(row["name"], float(row["value"])) for row in csv.DictReader(file)]
    assert [value for name, value in logged if name == "learn/updates"] == [1, 2, 6, 10]
    rates = [value for name, value in logged if name == "learn/lr"]
    assert rates[1] == rates[2] == 0 < rates[0]


def as_older_versions_wrote_it(run: Path, loop: str) -> None:
    cfg: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    del cfg["recipe"], cfg["precision"]
    cfg["loop"] = {"_target_": loop}
    if "overlap" in cfg:
        cfg["loop"]["overlap"] = cfg.pop("overlap")
    cfg["preset"] = {"torso": "rl_runner.networks.torsos.auto", "gamma": 0.99}
    OmegaConf.save(OmegaConf.create(cfg), run / "config.yaml")


def test_runs_of_older_versions_are_evaluated_and_resumed(trained: Path) -> None:
    wanted = saved.load_run_config(RunDirectory(trained), [])
    wanted.pop("preset", None)
    as_older_versions_wrote_it(trained, "rl_runner.loops.replay.ReplayLoop")
    assert saved.load_run_config(RunDirectory(trained), []) == wanted
    assert rlrun("eval", str(trained), "episodes=2").code == 0
    assert rlrun("train", f"resume={trained}", f"total_steps={wanted['total_steps'] + 50}").code == 0
    assert saved.load_run_config(RunDirectory(trained), [])["recipe"] == wanted["recipe"]


def test_an_older_run_with_a_loop_of_its_own_is_refused(trained: Path) -> None:
    as_older_versions_wrote_it(trained, "my_pkg.Loop")
    with pytest.raises(UserError, match=r"this run's loop, my_pkg.Loop, is from an older version"):
        saved.load_run_config(RunDirectory(trained), [])
