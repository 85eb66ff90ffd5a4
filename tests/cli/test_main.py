"""The command line: help, completion, sweeps, and one line for whatever the user can put right."""

import contextlib
import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import yaml
from hydra.errors import MissingConfigException

from rl_runner import __version__, catalogue
from rl_runner.build import runs
from rl_runner.cli import failures, help, main
from rl_runner.cli.plain import PLAIN
from rl_runner.cli.table import VERBS
from rl_runner.commands import train
from rl_runner.launch import task as launching
from rl_runner.results import TrainResult
from rl_runner.run.directory import RunDirectory
from tests.commandline import SHORT, files, refused, rlrun


def process(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run rlrun as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rl_runner", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


# Help.


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["-h"], ["train", "--help"], ["eval", "-h"], ["play", "--help"], ["--version"], ["-V"]]
)
def test_help_answers_at_once(args: list[str]) -> None:
    """In less than half a second of CPU time, and nothing heavy is imported."""
    code = (
        f"from rl_runner.cli.main import run; import sys; run({args}); print({{'torch', 'hydra'}} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_overview() -> None:
    out = rlrun().out
    assert out == rlrun("--help").out == rlrun("-h").out
    assert all(f"  rlrun {verb}" in out for verb in (*VERBS, *PLAIN))
    assert len(help.EXAMPLES.splitlines()) == 5
    assert help.EXAMPLES in out
    assert rlrun("--version").out == f"rlrun {__version__}\n"


def test_each_verbs_help() -> None:
    train = rlrun("train", "--help").out
    for group in ("env", "agent", "network", "network/torso", "exploration", "sync", "optimizer", "experiment"):
        row = re.search(rf"\n  {group} +(.*(?:\n {{10,}}.*)*)", train)  # long ones go on in the next line
        assert row
        assert set(row[1].split()) == {p.stem for p in (catalogue.conf_dir() / group).glob("*.yaml")}
    for key in ("seed:", "total_steps:", "resume:", "stop.return:"):
        assert f"\n  {key}" in train
    assert "\n  checkpoint:" in rlrun("eval", "--help").out
    assert "\n  video:" in rlrun("play", "--help").out
    assert "SIGHUP, SIGUSR1 or SIGUSR2" in train
    assert "128 + the signal's number" in train
    for verb in VERBS:
        out = rlrun(verb, "--help").out
        assert "hydra" not in out
        assert "defaults" not in out


@pytest.mark.parametrize("example", [line.split()[1:] for line in help.EXAMPLES.splitlines()])
def test_the_examples_work(example: list[str], workdir: Path) -> None:
    words = [word for word in example if "=" in word or word in VERBS or word.startswith("-")]
    if example[0] == "eval":
        words = ["eval", "latest"]
    jobs = {word.replace("mlp,dueling", "mlp").replace("1,2,3", "1"): None for word in words if word != "-m"}
    done = rlrun(*jobs, "--cfg", "job")
    assert done.code == 0, done
    assert files() == set()


# What Hydra offers works for each verb.


def test_the_whole_configuration_is_shown(workdir: Path) -> None:
    shown = yaml.safe_load(rlrun("train", "env=pong", "--cfg", "job").out)
    assert shown == yaml.safe_load(rlrun("train", "--cfg", "job", "env=pong").out)
    assert shown["env"]["game"] == "pong"
    assert isinstance(shown["exploration"]["steps"], int)  # resolved
    shown = yaml.safe_load(rlrun("eval", "some/run", "--cfg", "job").out)
    assert shown["checkpoint"] == "some/run"
    assert yaml.safe_load(rlrun("play", "env=pong", "--cfg=job").out)["env"]["game"] == "pong"
    assert yaml.safe_load(rlrun("train", "-c", "all", "seed=3").out)["seed"] == 3
    hydras = yaml.safe_load(rlrun("train", "--cfg", "hydra", "seed=3").out)["hydra"]
    assert hydras["overrides"]["task"] == ["seed=3"]
    assert rlrun("train", "--info", "defaults").code == 0
    assert files() == set()


def test_options_may_stand_anywhere(workdir: Path) -> None:
    (workdir / "mine" / "env").mkdir(parents=True)
    (workdir / "mine/env/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - gym\n  - _self_\nenv:\n  name: mine\n  id: Acrobot-v1\n"
    )
    for words in (["--config-dir", "mine", "env=mine", "seed=3"], ["env=mine", "--config-dir=./mine", "seed=3"]):
        shown = yaml.safe_load(rlrun("train", *words, "--cfg", "job").out)
        assert (shown["env"]["id"], shown["seed"]) == ("Acrobot-v1", 3)
    assert "did you mean batch_size?" in refused("train", "--config-dir", "mine", "env=mine", "bach_size=3")
    (Path("mine") / "env" / "cartpole.yaml").write_text("name: other")
    line = "mine/env/cartpole.yaml: rlrun has a file of that name, which would be taken; rename yours, and choose it by"
    assert refused("train", "--config-dir", "mine", "env=cartpole") == f"rlrun: --config-dir: {line} env=NAME"


def test_completion(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    monkeypatch.setenv("COMP_LINE", "rlrun train env=acro seed=3")
    assert rlrun("-sc", "query=bash") == (0, "\n", "")
    monkeypatch.setenv("COMP_POINT", str(len("rlrun train env=acro")))
    assert rlrun("-sc", "query=bash") == (0, "env=acrobot\n", "")


def test_completion_can_be_installed(workdir: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "rlrun -sc query=" in rlrun("-sc", f"install={shell}").out
        assert rlrun("-sc", f"uninstall={shell}").out.startswith("complete -")
    assert "must be install=SHELL or uninstall=SHELL" in refused("-sc", "install=tcsh")


# Bad input: one line, exit code 2, nothing left behind.


@pytest.mark.parametrize(
    ("args", "says"),
    [
        # what is unknown, with the nearest match
        (["trian"], "unknown verb 'trian'; did you mean train?"),
        (["--foo"], "unknown verb '--foo'; must be one of train, eval, play"),
        (["train", "--multrun"], "no option '--multrun'; did you mean --multirun?"),
        (["train", "--cfg", "jobb"], "--cfg: must be job or hydra or all, got 'jobb'"),
        (["train", "--config-dir"], "--config-dir: must be DIRECTORY, got ''"),
        (["train", "--config-dir", "nowhere"], "--config-dir: nowhere: no such directory"),
        (["train", "env=cartpol"], "env: there is no 'cartpol'; did you mean cartpole?"),
        (["train", "network/torso=nature"], "network/torso: there is no 'nature'; did you mean nature_cnn?"),
        (["train", "experiment=pong_dq"], "experiment: there is no 'pong_dq'; did you mean pong_dqn?"),
        (["train", "experiment=[pong_84,pong_dq]"], "experiment: there is no 'pong_dq'; did you mean pong_dqn?"),
        (["train", "netwrk=mlp"], "there is no key 'netwrk'; did you mean network?"),
        (["train", "bath_size=3"], "there is no key 'bath_size'; did you mean batch_size?"),
        (["train", "agent.gama=0.9"], "there is no key 'agent.gama'; did you mean agent.gamma?"),
        (["train", "+optimizer.momentun=0.9"], "optimizer.momentun: Adam takes no such argument"),
        (["train", "+agent.lr=0.1"], "agent.lr: DQN takes no such argument"),
        (["train", "+batchsize=3"], "there is no key 'batchsize'; did you mean batch_size?"),
        (["train", "++agnet.gamma=0.9"], "there is no key 'agnet.gamma'; did you mean agent.gamma=0.9?"),
        (["train", "env.kwargs.gravity=3"], "env.kwargs.gravity: CartPole-v1 takes no such argument"),
        (["train", "env.wrappers=[5]"], r"env.wrappers\[0\]: must be {_target_: package.Wrapper, key: value}, got 5"),
        (["train", "env.wrappers=[{_target_: nowhere.Wrap}]"], r"env.wrappers\[0\]._target_: .*nowhere"),
        (["train", "env.wrappers=[{_target_: gymnasium.wrappers.TimeLimit, wide: 1}]"], r"env.wrappers\[0\].wide: "),
        (["train", "env.frame_stack=0"], "env.frame_stack: must be at least 1, got 0"),
        (["train", "-m", "seed=1,2", "bath_size=3"], "did you mean batch_size?"),
        (["eval", "latest", "episode=3"], "did you mean episodes?"),
        (["play", "env=cartpole", "network=mlp"], "there is no key 'network'"),
        (["train", "agent=q_learning", "env=frozenlake", "network=dueling"], "network: the chosen agent has none"),
        (["train", "agent=q_learning"], "env: CartPole-v1 has observations .* a table needs discrete states"),
        (["train", "env=frozenlake", "env.kwargs.map_name=5x5"], "env.id: FrozenLake-v1 cannot be made"),
        (["train", "value=c51", "value.low=5", "value.high=1"], "value.high: must be above value.low"),
        (
            ["train", "env=gym", "env.id=CartPole-v1", "value=c51"],
            "value.low, value.high: the bounds of",
        ),
        (["train", "value=c51", "value.high=inf"], "value.high: must be a finite number"),
        # what is no override
        (["train", "foo"], "'foo': must be key=value"),
        (["train", "cartpole"], "did you mean env=cartpole?"),
        (["train", "=3"], "must be key=value"),
        (["train", "total_steps=[1"], r"total_steps: '\[1' cannot be read: a bracket or a quote is open; a list is"),
        (["train", "name=ünï"], "name: 'ünï' cannot be read as it is; in quotes it is text: 'name=\"ünï\"'"),
        (["train", "total_steps=${stepz}"], "stepz: there is no such key to refer to"),
        (["train", "~seed"], "seed: a value is needed; leave ~seed out"),
        (["train", "~agent"], "agent: one must be chosen: agent=NAME"),
        (["train", "~env"], "env: one must be chosen: env=NAME"),
        (["train", "agent=null"], "agent=null: choose an option, agent=NAME$"),
        (["train", "seed=1,2"], "seed: one run for each of 1,2 needs -m"),
        (["train", "-m", "seed=[1"], r"seed: '\[1' cannot be read"),
        (["train", "-m", "resume=latest", "seed=1,2"], "resume: .*--multirun"),
        (["train", "-m", "seed=1,2", "--cfg", "job"], "--cfg: shows one configuration; leave out --multirun"),
        # types and ranges
        (["train", "batch_size=-1"], "batch_size: must be a whole number from 1 to 1,000,000,000, got -1"),
        (["train", "batch_size=abc"], "batch_size: must be a whole number from 1 to 1,000,000,000, got 'abc'"),
        (["train", "agent.gamma=1.5"], r"agent.gamma: must be a number in \[0, 1\], got 1.5"),
        (["train", "seed=1.5"], "seed: must be a whole number"),
        (["train", "tuned=null"], "tuned=null: choose an option, tuned=NAME, or leave the group out: ~tuned"),
        (["train", "sync=null"], "sync=null: choose an option, sync=NAME, or leave the group out: ~sync"),
        (["train", "agent.double=maybe"], "agent.double: must be true or false, got 'maybe'"),
        (["train", "optimizer.lr=-1"], "optimizer.lr: must be a number above 0"),
        (["train", "optimizer.eps=-1"], "optimizer.eps: must be a number, 0 or more, got -1"),
        (["train", "exploration.start=2"], r"exploration.start: .*\[0, 1\]"),
        (["train", "exploration.steps=soon"], "exploration.steps: must be a whole number, got 'soon'"),
        (["train", "sync.every_updates=0"], "sync.every_updates: must be at least 1"),
        (["train", "sync.every_steps=1", "sync.every_episodes=1"], "sync: every_steps and every_episodes"),
        (["train", "agent.clip_grad_norm=x"], "agent.clip_grad_norm: must be a number or null, got 'x'"),
        (["train", "network/torso=mlp", "network.torso.sizes=5"], "network.torso.sizes: must be a list"),
        (["train", "network.hidden=[a]"], "network.hidden: must be a list"),
        (["train", "value.loss=l1"], "value.loss: must be one of mse, huber"),
        (["train", "stop.return=much"], "stop.return: must be a number, or null"),
        (["train", "network.last_layer_std=-1"], "network.last_layer_std: must be above 0, or null, got -1"),
        (["train", "network=noisy", "network.head.sigma0=-1"], "network.head.sigma0: must be 0 or more, got -1"),
        (["train", "env.wrappers=foo"], r"env.wrappers: must be a list \[\{_target_: package.Wrapper\}\], got 'foo'"),
        (["train", "batch_size=null"], "batch_size: must be a whole number from 1 to 1,000,000,000, got null"),
        (["train", "env.imports=3"], "env.imports: must be a list"),
        (["train", "replay.capacity=2"], "replay.capacity: .*at least"),
        # parts that are not there or do not fit
        (["train", "optimizer._target_=torch.optim.Foo"], "optimizer._target_: torch.optim has no 'Foo'$"),
        (
            ["train", "network/torso._target_=no_such_pkg.Net"],
            "network.torso._target_: there is no module 'no_such_pkg'$",
        ),
        (["train", "optimizer._target_=torch.optim.SGDD"], "torch.optim has no 'SGDD'; did you mean SGD?$"),
        (["train", "optimizer._target_=torch.optimm.SGD"], "torch has no 'optimm'; did you mean optim?$"),
        (["train", "env=atari"], "env.game: a value is needed, such as env.game=breakout$"),
        (["train", "env=gym"], "env.id: a value is needed"),
        (["train", "optimizer.lr=???"], "optimizer.lr: a value is needed$"),
        (["train", "env=atari", "env.game=pongg"], "env.game: 'pongg' is not a game of ale-py; did you mean pong?"),
        (["train", "env=gym", "env.id=CartPol-v1"], "env.id: .*did you mean CartPole-v1?"),
        (["train", "env.imports=[no_such_pkg]"], "env.imports: cannot import 'no_such_pkg'"),
        (["train", "tuned=lunarlander"], "tuned: there is no 'lunarlander'; there is dqn/lunarlander, ppo/lunarlander"),
        (["train", "tuned=dqn/cartpol"], "tuned: there is no 'dqn/cartpol'; did you mean dqn/cartpole?"),
        (["train", "recipe._target_=rl_runner.report.runs.flatten"], "flatten must take .cfg, envs, device.$"),
        (["train", "env=gym", "env.id=Pendulum-v1"], "env: Pendulum-v1 has actions Box.*Discrete"),
        (["train", "network=nature_cnn"], "network.torso: NatureCNN needs images.*use network=mlp"),
        (["train", "env=pong", "env.screen_size=10"], "network.torso: images of 10x10 are too small for CNN"),
        (["train", "device=cuda:77"], "on this machine, got 'cuda:77'"),
        (["train", "batch_size=1e9"], "batch_size: 1,000,000,000 is more than replay.capacity=100,000: .* use at most"),
        (["train", "device=tpu"], "on this machine, got 'tpu'"),
        (["train", "device=meta"], "on this machine, got 'meta'"),
        (["train", "env=pong", "replay.capacity=10_000_000_000"], "replay.capacity: .* more than can be addressed"),
        (
            ["train", "env=pong", "replay.capacity=10_000_000_000", "total_steps=10_000_000_000"],
            r"replay.capacity: .* 17\d\d\d.\d\d GB, but .* GB",
        ),
        (
            ["train", "env=gym", "env.id=CartPole-v2"],
            "env.id: 'CartPole-v2' is not .*; the newest version is CartPole-v1",
        ),
        (["train", "env.imports=[my-pkg]"], "env.imports: must be names of modules.*, got 'my-pkg'"),
        (["train", "env.imports=['json:']"], "env.imports: must be names of modules.*, got 'json:'"),
        (["train", "env.imports=['json:no_such']"], "env.imports: 'json' has no function 'no_such'"),
        (["train", "hydra.job.chdir=true"], "hydra.job.chdir: must be false"),
        (["train", "hydra.job.chdir=true", "resume=latest"], "hydra.job.chdir: must be false"),
        (["eval", "latest", "hydra.job.chdir=true"], "hydra.job.chdir: must be false"),
        (["train", "hydra.run.dir=/proc/nowhere"], "hydra.run.dir: no directory .* at /proc/nowhere: No such file"),
        (
            ["train", "hydra.run.dir="],
            "hydra.run.dir: must be a directory, got ''; the current directory is hydra.run.dir=.",
        ),
        (["train", "eval=5"], "eval: is a group of keys, such as eval.every_steps; set single ones, got 5"),
        (["train", "tags={a:1}"], "tags: cannot be {a:1}; rlrun train --cfg job shows its value"),
        (["train", "seed=range(1,3)"], r"seed=range\(1,3\): several runs need -m"),
        # directories
        (["train", "resume=nowhere"], "nowhere: no such directory"),
        (["train", "resume=latest"], "latest: no runs under outputs/"),
        (["train", "resume=."], "is no run, because it holds no config.yaml; runs are in outputs/"),
        (["eval"], "eval: name a run, such as rlrun eval latest"),
        (["eval", "nowhere"], "nowhere: no such directory"),
        (["eval", "."], "is no run"),
        (["eval", "latest"], "latest: no runs under outputs/"),
        (["eval", "latest", "episodes=0"], "episodes: must be a whole number, 1 or more"),
        (["eval", "latest", "epsilon=3"], r"epsilon: must be a number in \[0, 1\]"),
        (["play"], "checkpoint: name a run .* or env=NAME for a random agent"),
        (["play", "latest", "env=pong"], "env: .*not both"),
        (["play", "env=cartpole", "video=out.avi"], "video: the file name must end in .mp4 or .gif"),
    ],
)
def test_bad_input_is_refused_in_one_line(args: list[str], says: str, workdir: Path) -> None:
    assert re.search(says.replace("?", r"\?"), refused(*args)), refused(*args)
    assert files() == set()


def test_a_process_says_the_same(workdir: Path) -> None:
    done = process("train", "env=cartpol")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlrun: env: there is no 'cartpol'; did you mean cartpole?\n"
    assert files() == set()


def test_a_bug_is_no_bad_input(workdir: Path) -> None:
    (workdir / "broken_pkg.py").write_text("class Net:\n    def __init__(self, space):\n        1 / 0\n")
    done = rlrun("train", *SHORT, "network/torso._target_=broken_pkg.Net")
    assert done.code == 1
    first, second, third, *_ = done.err.splitlines()
    assert first == "rlrun: network.torso: broken_pkg.Net raised ZeroDivisionError: division by zero"
    assert second == "Traceback (most recent call last):"
    assert third.startswith(f'  File "{workdir}/broken_pkg.py", line 3')
    assert done.err.strip().endswith("ZeroDivisionError: division by zero")
    assert not (workdir / "outputs").exists()


def test_a_run_directory_that_was_deleted_meanwhile(trained: Path) -> None:
    job, config = SimpleNamespace(run=RunDirectory(trained), config={"seed": 3}), trained / "config.yaml"
    with contextlib.redirect_stdout(out := io.StringIO()), runs._kept(job):
        pass
    assert out.getvalue() == ""
    with contextlib.redirect_stdout(out := io.StringIO()), runs._kept(job):
        shutil.rmtree(trained)
    assert (out.getvalue(), trained.exists()) == ("", False)
    with contextlib.redirect_stdout(out := io.StringIO()), runs._kept(job):
        (trained / "checkpoints").mkdir(parents=True)  # as a checkpoint does
    assert yaml.safe_load(config.read_text()) == {"seed": 3}
    assert out.getvalue().startswith(f"{trained} was moved or deleted meanwhile; it now holds what was written since")


# Sweeps.


def test_a_sweep(workdir: Path) -> None:
    done = rlrun("train", "env=cartpole", "-m", "seed=1,2", "network=mlp", *SHORT)
    assert done.code == 0, done
    (sweep,) = (workdir / "outputs/sweeps").iterdir()
    results = {"results.csv", "results.png"}
    assert {p.name for p in sweep.iterdir()} == {"0_seed=1", "1_seed=2", "multirun.yaml", *results}
    for number, seed in enumerate((1, 2)):
        assert yaml.safe_load((sweep / f"{number}_seed={seed}" / "config.yaml").read_text())["seed"] == seed
        assert f"job {number}: " in done.out
    returns = [last_return(sweep / run) for run in ("0_seed=1", "1_seed=2")]
    (row,) = results_of(sweep)
    assert (row["seeds"], row["seeds_missing"]) == ("2", "0")
    assert row["configuration"] == " ".join(["env=cartpole", "network=mlp", *SHORT])
    assert float(row["last_mean"]) == sum(returns) / 2
    assert row["last_ci95"] == ""  # of two seeds
    assert f"{sweep.relative_to(workdir)}: 2 of 2 runs finished\n" in done.out
    done = rlrun("eval", str(sweep / "1_seed=2"), "episodes=1")  # its name holds a "="
    assert done.code == 0, done


def last_return(run: Path) -> float:
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return next(float(value) for _, name, value in reversed(lines) if name == "eval/return_mean")


def results_of(sweep: Path) -> list[dict[str, str]]:
    with open(sweep / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_failing_job_leaves_the_others_alone(workdir: Path) -> None:
    done = rlrun("train", "-m", "env=cartpole,frozenlake", "network=nature_cnn,mlp", *SHORT)
    assert done.code == 1
    (sweep,) = (workdir / "outputs/sweeps").iterdir()
    runs = sorted(p.parent.name for p in sweep.glob("*/config.yaml"))
    assert runs == ["1_env=cartpole,network=mlp", "3_env=frozenlake,network=mlp"]
    head, *jobs = done.err.strip().splitlines()
    assert head == "rlrun: 2 job(s) failed:"
    assert [("env=cartpole" in job, "NatureCNN needs" in job) for job in jobs] == [(True, True), (False, True)]
    table = {row["configuration"]: (row["seeds"], row["seeds_missing"]) for row in results_of(sweep)}
    assert table == {
        "env=cartpole network=nature_cnn": ("0", "1"),
        "env=cartpole network=mlp": ("1", "0"),
        "env=frozenlake network=nature_cnn": ("0", "1"),
        "env=frozenlake network=mlp": ("1", "0"),
    }
    assert "env=frozenlake network=nature_cnn: 1 of 1 seeds failed, not in the numbers: 0\n" in done.out


def test_the_same_sweep_again_reruns_failed_jobs(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", "-m", "seed=1,2", "hydra.sweep.dir=sw", *SHORT]
    real = train.train

    def failing(job: train.TrainJob, **how: Any) -> TrainResult:
        if job.config["seed"] == 2:
            raise RuntimeError("out of luck")
        return real(job, **how)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", failing)
        assert rlrun(*command).code == 1
    done = rlrun(*command)
    assert (done.code, done.err) == (0, "")
    assert "sw/0_seed=1: finished already, nothing to do" in done.out
    assert json.loads((workdir / "sw/1_seed=2/job.json").read_text())["state"] == "finished"


def test_a_sweep_over_a_group_with_a_slash_is_extended(workdir: Path) -> None:
    command = ["train", "-m", "network/torso=auto,auto_tanh", "hydra.sweep.dir=sw", *SHORT]
    assert rlrun(*command, "seed=1").code == 0
    done = rlrun(*command, "seed=1,2")
    assert done.code == 0, done.err
    assert done.out.count("finished already, nothing to do") == 2
    runs = sorted(str(path.parent.relative_to("sw")) for path in Path("sw").rglob("config.yaml"))
    assert runs == [
        "0_network.torso=auto",
        "1_network.torso=auto,seed=2",
        "1_network.torso=auto_tanh",
        "3_network.torso=auto_tanh,seed=2",
    ]
    assert "4 of 4 runs finished" in rlrun("sweep", "sw").out


def test_a_sweep_shows_the_traceback_of_a_bug(workdir: Path) -> None:
    (workdir / "broken_pkg2.py").write_text("class Net:\n    def __init__(self, space):\n        1 / 0\n")
    done = rlrun("train", "-m", "network/torso._target_=broken_pkg2.Net,rl_runner.networks.torsos.MLP", *SHORT)
    assert done.code == 1
    assert "Traceback" in done.err
    line, log = done.err.splitlines()[-1].split("; its log: ")
    assert line.endswith("ZeroDivisionError: division by zero")
    assert "Traceback" in Path(log).read_text()
    assert len(list(workdir.glob("outputs/sweeps/*/*/config.yaml"))) == 1


def test_a_sweep_that_cannot_be_composed_runs_nothing(workdir: Path) -> None:
    done = rlrun("train", "-m", "env=cartpole,foo", *SHORT)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("rlrun: env: there is no 'foo'")
    assert not list(workdir.glob("outputs/**/config.yaml"))


def sweep_file(workdir: Path) -> list[str]:
    (workdir / "mine/experiment").mkdir(parents=True)
    (workdir / "mine/experiment/many.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n"
        "  sweeper:\n    params:\n      optimizer: glob(adam*)\n      seed: 1,2\n"
    )
    return ["--config-dir", "mine", "experiment=many"]


def test_a_sweep_that_an_experiment_describes(workdir: Path) -> None:
    done = rlrun("train", "-m", *sweep_file(workdir), "seed=5", *SHORT)
    assert (done.code, done.err) == (0, "")
    (sweep,) = (workdir / "outputs/sweeps").iterdir()
    assert {p.name for p in sweep.glob("*_*")} == {"0_optimizer=adam", "1_optimizer=adamw"}
    assert [row["configuration"] for row in results_of(sweep)] == ["optimizer=adam", "optimizer=adamw"]
    assert "2 of 2 runs finished" in done.out


def test_nothing_but_m_starts_more_than_one_run(workdir: Path) -> None:
    line = "rlrun: this configuration is a sweep (hydra.mode=MULTIRUN), which needs -m: rlrun "
    words = sweep_file(workdir)
    assert refused("train", *words) == f"{line}train -m --config-dir mine experiment=many"
    assert refused("train", "experiment=ablation", "seed=3") == f"{line}train -m experiment=ablation seed=3"
    assert refused("train", "hydra.mode=MULTIRUN", "seed=3") == f"{line}train -m seed=3"
    assert refused("train", "hydra.mode=MULTIRUN", "seed=3,4") == f"{line}train -m seed=3,4"
    assert refused("eval", "latest", "hydra.mode=MULTIRUN") == f"{line}eval -m latest"
    shown = yaml.safe_load(rlrun("train", "experiment=ablation", "--cfg", "job").out)  # which runs nothing
    assert shown["seed"] == 0


def test_a_sweep_that_is_interrupted_shows_what_there_is(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = train.train

    def interrupted(job: train.TrainJob, resume: bool = False, words: Sequence[str] = (), **more: Any) -> TrainResult:
        result = real(job, resume, words, **more)
        if job.config["seed"] == 2 and not resume:
            raise train.Interrupted(130)
        return result

    monkeypatch.setattr(train, "train", interrupted)
    done = rlrun("train", "-m", "seed=1,2,3", *SHORT)
    assert done.code == 130
    assert "1 of 3 runs finished" in done.out
    assert "\n1 of 3 seeds were interrupted, not in the numbers: 2\n" in done.out
    assert "\n1 of 3 seeds have not begun, not in the numbers: 3\n" in done.out
    (sweep,) = (workdir / "outputs/sweeps").iterdir()
    (row,) = results_of(sweep)
    assert (row["seeds"], row["seeds_missing"]) == ("1", "2")
    assert "\n1 of 3 seeds have not begun, not in the numbers: 3\n" in rlrun("sweep", str(sweep)).out

    job = sweep / "1_seed=2"
    assert rlrun("train", f"resume={job}", "total_steps=60").code == 0
    assert json.loads((job / "job.json").read_text())["state"] == "finished"


def test_the_same_sweep_again_takes_up_what_is_missing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", "-m", "seed=1,2,3", "hydra.sweep.dir=sw", *SHORT, "num_threads=1", "checkpoint.every_steps=20"]
    real, call, values = train.train, launching.Task.__call__, []

    def stopped(job: train.TrainJob, **how: Any) -> TrainResult:
        if job.config["seed"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)  # between two jobs, nothing of which is saved
        return real(job, **how)

    def noting_values(task: launching.Task, cfg: Any) -> float | None:
        values.append(call(task, cfg))
        return values[-1]

    monkeypatch.setattr(train, "train", stopped)
    done = rlrun(*command)
    assert (done.code, done.err) == (143, "")
    assert "1 of 3 runs finished" in done.out
    first = (workdir / "sw/0_seed=1/metrics.csv").stat().st_mtime_ns

    monkeypatch.setattr(train, "train", real)
    monkeypatch.setattr(launching.Task, "__call__", noting_values)
    done = rlrun(*command)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("sw: 1 of 3 jobs have finished already\n")
    assert "3 of 3 runs finished" in done.out
    assert (workdir / "sw/0_seed=1/metrics.csv").stat().st_mtime_ns == first
    assert sorted(path.name for path in workdir.glob("sw/*_*")) == ["0_seed=1", "1_seed=2", "2_seed=3"]
    assert values == [last_return(workdir / f"sw/{seed - 1}_seed={seed}") for seed in (1, 2, 3)]


def test_a_broken_note_does_not_hide_the_table(workdir: Path) -> None:
    command = ["train", "-m", "hydra.sweep.dir=sw", *SHORT, "num_threads=1"]
    assert rlrun(*command, "seed=1").code == 0
    (workdir / "sw/0_/job.json").write_text("")
    done = rlrun(*command, "seed=2")
    assert (done.code, done.err) == (0, "")
    assert "1 of 1 runs finished" in done.out
    assert "sw/0_ left no readable note (job.json), not in the numbers\n" in done.out


@pytest.mark.parametrize(
    ("missing", "package"),
    [("launcher/joblib", "'rlrun[joblib]'"), ("launcher/ray", "'rlrun[ray]'"), ("sweeper/ax", "hydra-ax-sweeper")],
)
def test_a_plugin_that_is_not_installed(missing: str, package: str) -> None:
    line = failures.explain(VERBS["train"], [], MissingConfigException("", f"hydra/{missing}", ["basic"]))
    assert line == f"hydra/{missing.replace('/', '=')} is not installed: pip install {package}"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("jobli", "did you mean joblib?"),
        ("submitit_locl", "did you mean submitit_local?"),
        ("Ray", "did you mean ray?"),
        (
            "foo",
            "must be one of basic, joblib, submitit_local (pip install 'rlrun[slurm]'), submitit_slurm (pip install "
            "'rlrun[slurm]'), ray (pip install 'rlrun[ray]'), ray_aws (pip install 'rlrun[ray]')",
        ),
    ],
)
def test_an_unknown_launcher_is_told_with_those_that_can_be_installed(typed: str, says: str) -> None:
    error = MissingConfigException("", f"hydra/launcher/{typed}", ["basic", "joblib"])
    assert failures.explain(VERBS["train"], [], error) == f"hydra/launcher: there is no {typed!r}; {says}"


def test_the_launcher_that_slurm_includes_goes_by_the_word_that_is_typed() -> None:
    line = failures.explain(VERBS["train"], [], MissingConfigException("", "hydra/launcher/submitit_slurm", ["basic"]))
    assert line == "hydra/launcher=slurm is not installed: pip install 'rlrun[slurm]'"


def test_a_sweep_of_evaluations_has_no_table(trained: Path, workdir: Path) -> None:
    done = rlrun("eval", str(trained), "-m", "seed=1,2", "episodes=1")
    assert done.code == 0, done
    assert "job 1: " in done.out
    assert not list(workdir.rglob("results.*"))


# The user's own package.

PACKAGE = '''
import gymnasium as gym
import numpy as np
import torch

class RoboParking(gym.Env):
    """Drive along a line to the parking lot."""

    observation_space = gym.spaces.Box(-10, 10, (2,), np.float64)
    action_space = gym.spaces.Discrete(3)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, length=5, render_mode=None):
        self.length, self.render_mode = length, render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.integers(-self.length, self.length)), 0
        return np.array([self.x, 0.0]), {}

    def step(self, action):
        self.x, self.t = self.x + action - 1, self.t + 1
        return np.array([self.x, 0.0]), -abs(self.x), self.x == 0, self.t >= 10, {}

    def render(self):
        return np.full((32, 32, 3), int(self.x) % 256, dtype=np.uint8)

gym.register("RoboParking-v0", RoboParking)

class MyNet(torch.nn.Module):
    def __init__(self, space, width=7):
        super().__init__()
        self.fc = torch.nn.Linear(space.shape[0], width)

    def forward(self, obs):
        return torch.tanh(self.fc(obs.float()))
'''


NORMALISED = """
from torch import nn

def Torso(space):
    return nn.Sequential(nn.Linear(space.shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1))
"""


@pytest.fixture
def package(workdir: Path) -> str:
    """A package of the user's own, in the current directory, under a name that no other test has imported."""
    (workdir / "my_pkg").mkdir()
    (workdir / "my_pkg/__init__.py").write_text(PACKAGE)
    gym.registry.pop("RoboParking-v0", None)
    return "my_pkg"


ENV = ["env=gym", "env.id=RoboParking-v0", "env.imports=[my_pkg]"]


@pytest.mark.parametrize("agent", ["dqn", "sac_discrete", "a2c", "ppo", "td3", "sac"])
def test_a_torso_with_batch_normalisation_acts_in_one_environment(agent: str, workdir: Path) -> None:
    (workdir / "norm_pkg.py").write_text(NORMALISED)
    words = [f"agent={agent}", f"env={'pendulum' if agent in ('td3', 'sac') else 'cartpole'}", "tuned=none"]
    words += ["env.num_envs=1", "network/torso._target_=norm_pkg.Torso", "total_steps=60", "eval.episodes=1"]
    words += ["learning_starts=20", "batch_size=8", "replay.capacity=100"] if agent not in ("a2c", "ppo") else []
    done = rlrun("train", *words, *(["rollout_steps=16", "batch_size=8"] if agent == "ppo" else []))
    assert done.code == 0, done


def test_an_environment_and_a_network_of_the_users_own(package: str, workdir: Path) -> None:
    words = [*ENV, "network/torso._target_=my_pkg.MyNet", "+network.torso.width=9", "env.kwargs.length=3"]
    words += ["optimizer._target_=torch.optim.SGD", "~optimizer.eps", "~optimizer.fused"]
    done = rlrun("train", *SHORT, *words, "hydra.run.dir=outputs/mine")
    assert done.code == 0, done
    assert "MyNet + SingleStream, 57 parameters" in done.out  # 2·9 + 9 + 9·3 + 3
    assert done.out.splitlines()[-2] == "evaluate it:  rlrun eval outputs/mine"
    config = yaml.safe_load((workdir / "outputs/mine/config.yaml").read_text())
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"

    done = rlrun("eval", "outputs/mine", "episodes=2", "video=true")  # trusted: this user started it here
    assert done.code == 0, done
    assert json.loads(next((workdir / "outputs/mine/eval").iterdir()).read_text())["environment"] == "RoboParking-v0"
    done = rlrun("train", "resume=outputs/mine", "total_steps=50")
    assert done.code == 0, done
    assert rlrun("eval", "outputs/mine", "episodes=2").code == 0  # with the configuration that the resume changed


def test_the_run_of_somebody_else_asks_for_trust(package: str, workdir: Path) -> None:
    words = [*ENV, "network/torso._target_=my_pkg.MyNet", "hydra.run.dir=outputs/mine"]
    assert rlrun("train", *SHORT, *words).code == 0
    (workdir / "outputs/mine").rename("outputs/theirs")
    for command in (["eval", "outputs/theirs"], ["play", "outputs/theirs", "video=x.mp4"]):
        assert "names code outside rlrun: my_pkg.MyNet, my_pkg; if you trust it: trust=[my_pkg]" in refused(*command)
    assert "trust=[my_pkg]" in refused("train", "resume=outputs/theirs", "total_steps=60")
    done = rlrun("train", "resume=outputs/theirs", "total_steps=50", "trust=[my_pkg]")
    assert done.code == 0, done
    assert done.out.splitlines()[-2] == "evaluate it:  rlrun eval outputs/theirs 'trust=[my_pkg]'"  # a glob unquoted
    assert "trust=[my_pkg]" in refused("eval", "outputs/theirs")  # trusted once, not from now on
    assert rlrun("eval", "outputs/theirs", "episodes=1", "trust=[my_pkg]").code == 0


def test_the_users_configuration_directory(package: str, workdir: Path) -> None:
    (workdir / "my_conf/env").mkdir(parents=True)
    (workdir / "my_conf/env/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - gym\n  - _self_\n"
        "env: {name: mine, id: RoboParking-v0, imports: [my_pkg]}\nbatch_size: 4\n"
    )
    short = [word for word in SHORT if not word.startswith("batch_size")]
    done = rlrun("train", "--config-dir", "./my_conf", "env=mine", *short)
    assert done.code == 0, done
    (config,) = workdir.glob("outputs/mine/dqn/*/config.yaml")
    assert yaml.safe_load(config.read_text())["batch_size"] == 4


def test_the_users_environment_can_be_watched(package: str, workdir: Path) -> None:
    done = rlrun("play", *ENV, "video=random.gif")
    assert done.code == 0, done
    assert (workdir / "random.gif").read_bytes()[:6] == b"GIF89a"


def test_a_process_finds_the_users_package_too(package: str, workdir: Path) -> None:
    script = shutil.which("rlrun", path=Path(sys.executable).parent)
    assert script is not None
    words = [*SHORT, *ENV, "network/torso._target_=my_pkg.MyNet", "device=cpu"]
    done = subprocess.run([script, "train", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "RoboParking-v0" in done.stdout
    assert done.stderr == ""


def test_an_interrupt_before_anything_handles_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", interrupted)
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, err.getvalue()) == (130, "rlrun: stopped\n")
