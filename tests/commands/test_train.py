"""`rlrun train`: what is said, what is written, how it stops."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rl_runner.cli import main as cli
from rl_runner.cli.words import quote
from rl_runner.commands import train
from rl_runner.report import runs
from rl_runner.run.checkpoint import Checkpoints, load
from rl_runner.trainer import Trainer
from tests.commandline import SHORT, Done, files, only_run, refused, rlrun


def test_what_is_said(workdir: Path) -> None:
    done = rlrun("train", "env=cartpole", "env.num_envs=2", *SHORT)
    assert (done.code, done.err) == (0, "")
    run = only_run()
    facts = {
        "environment": "CartPole-v1 × 2",
        "observations": "4 numbers in .*, as they are",
        "actions": r"Discrete\(2\)",
        "network": "MLP . SingleStream, 67,586 parameters",  # 4·256 + 256 + 256·256 + 256 + 256·2 + 2
        "optimizer": "Adam, learning rate 0.0023",
        "replay": r"500 rows, [\d.]+ [kMG]B",
        "device": r"\w+, \d+ CPU threads?, computing in fp32",
        "run": str(run),
    }
    for name, fact in facts.items():
        assert re.search(f"(?m)^{name} +{fact}", done.out), name
    closing = done.out.splitlines()[-5:]
    assert re.match(r"40 steps, \d+ episodes, \d+ updates in \d+:\d\d:\d\d", closing[0])
    assert re.match(r"best evaluation: \d+\.\d\d at step 40", closing[1])
    assert closing[2:] == [
        f"plot it:      rlrun plot {run}",
        f"evaluate it:  rlrun eval {run}",
        f"watch it:     rlrun play {run}",
    ]


def test_what_is_written(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()} - {".lock"}
    tables = {"provenance.json", "metrics.csv", "episodes.csv", "evaluations.jsonl"}
    assert names == {"config.yaml", "train.log", "tensorboard", "checkpoints", *tables}
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {
        "step_000000040",
        "best_000000040",
        "latest",
        "best",
    }
    log = (trained / "train.log").read_text()
    assert "step 40/40  return" in log
    assert f"evaluate it:  rlrun eval {trained}" in log
    scalars = {line.split(",")[1] for line in (trained / "metrics.csv").read_text().splitlines()}
    assert {"train/return", "train/length", "learn/loss", "explore/epsilon", "eval/return_mean"} <= scalars
    assert list((trained / "tensorboard").glob("events.*"))
    assert not list(trained.glob("**/*.pkl")) + list(trained.glob("**/*.pt"))


def test_the_saved_configuration_is_whole_and_resolved(trained: Path) -> None:
    text = (trained / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert "${" not in text
    assert (config["total_steps"], config["batch_size"], config["env"]["id"]) == (40, 8, "CartPole-v1")
    assert config["network"]["torso"]["_target_"].startswith("rl_runner.networks.torsos.")
    assert isinstance(config["num_threads"], int)  # part of what exact resume needs
    assert "hydra" not in config


def test_a_name_and_tags(workdir: Path) -> None:
    done = rlrun("train", *SHORT, "name=first-try", "tags=[paper,v1.2,7]")
    assert done.code == 0, done
    run = only_run()
    assert re.fullmatch(r"[\d-]+_[\d-]+_s0_first-try", run.name)
    assert [line.split() for line in done.out.splitlines()[:2]] == [
        ["name", "first-try"],
        ["tags", "paper,", "v1.2,", "7"],
    ]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["name"], config["tags"]) == ("first-try", ["paper", "v1.2", 7])
    assert rlrun("train", *SHORT, "name=b", "hydra.run.dir=outputs/chosen").code == 0
    assert (workdir / "outputs/chosen/config.yaml").is_file()


@pytest.mark.parametrize("word", ["name=a/b", "name='x y'", "name=[1]", "name=''", "tags=x", "tags=[a/b]", "tags=null"])
def test_names_and_tags_that_are_none(workdir: Path, word: str) -> None:
    key = word.partition("=")[0]
    assert re.match(
        rf"rlrun: {key}: must be a .*letters, digits, _, - and \.(, or null)?, got ", refused("train", word)
    )


def test_runs_that_start_together_do_not_share_a_directory(workdir: Path) -> None:
    for _ in range(2):
        assert rlrun("train", *SHORT, "hydra.run.dir=outputs/same").code == 0
    assert {p.name for p in (workdir / "outputs").iterdir()} == {"same", "same_2"}


def test_solved(workdir: Path) -> None:
    done = rlrun("train", *SHORT, "total_steps=5000", "stop.return=5", "stop.window=3", "learning_starts=5000")
    assert done.code == 0, done
    (steps,) = re.findall(r"(?m)^solved after (\d+) steps$", done.out)
    assert 24 <= int(steps) < 1000
    assert f"\n{steps} steps, 3 episodes" in done.out
    assert "solved" not in rlrun("train", *SHORT, "stop.return=500").out


def test_resume(trained: Path) -> None:
    done = rlrun("train", f"resume={trained}", "total_steps=60")
    assert (done.code, done.err) == (0, "")
    assert f"resumed from {trained}/checkpoints/step_000000040 at step 40" in done.out
    assert "\n60 steps, " in done.out
    assert only_run() == trained  # no other directory was made
    assert list(Path("outputs").glob("*/*/*")) == [trained]
    done = rlrun("train", "resume=latest", "total_steps=80")
    assert "at step 60" in done.out


@pytest.mark.parametrize("word", ["env=frozenlake", "seed=3", "agent.gamma=0.5", "network=dueling", "optimizer=adamw"])
def test_what_cannot_change_on_resume(word: str, trained: Path) -> None:
    line = refused("train", f"resume={trained}", "total_steps=50", word)
    assert f"rlrun: {word.split('=')[0]}: cannot change when a run is resumed; leave it out" in line
    assert f"init_from={trained}; what can change: total_steps, stop" in line
    assert "; of optimizer lr, lr_end, lr_steps, eps; of exploration start, end, steps; of sync " in line
    assert "weight_decay" not in line  # the run has no such key


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    online = load(run / f"checkpoints/step_{step:09}", only=["agent"])["agent"]["online"]
    return {name: value.clone() for name, value in online.items()}


@pytest.mark.parametrize("schedule", [[], ["optimizer.lr_end=1e-30", "optimizer.lr_steps=0"]])
def test_a_changed_learning_rate_takes_effect(schedule: list[str], trained: Path) -> None:
    """At a learning rate of almost 0 the weights stay; a schedule sets it with the first update."""
    copy = trained.with_name("unchanged")
    shutil.copytree(trained, copy, symlinks=True)
    assert rlrun("train", f"resume={copy}", "total_steps=60").code == 0
    before, unchanged = weights(trained, 40), weights(copy, 60)
    assert any((before[name] != unchanged[name]).any() for name in before)

    words = schedule or ["optimizer.lr=1e-30"]
    done = rlrun("train", f"resume={trained}", "total_steps=44", *words)
    assert (done.code, done.err) == (0, "")
    begun = weights(trained, 44)
    assert rlrun("train", f"resume={trained}", "total_steps=60").code == 0
    after = weights(trained, 60)
    assert all((begun[name] == after[name]).all() for name in begun)
    assert schedule or all((before[name] == after[name]).all() for name in before)


def test_changes_of_a_resume_are_recorded(trained: Path) -> None:
    words = ["total_steps=60", "optimizer.lr=0.5", "batch_size=4", "exploration.end=0.5", "sync.every_updates=3"]
    done = rlrun("train", f"resume={trained}", *words)
    assert (done.code, done.err) == (0, "")
    assert "\nchanged at step 40: optimizer.lr: 0.0023 -> 0.5\n" in done.out
    assert "changed at step 40: batch_size: 8 -> 4" in (trained / "train.log").read_text()
    assert rlrun("train", f"resume={trained}", "total_steps=80").code == 0
    with open(trained / "changes.csv", newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    assert rows[0] == ("step", "key", "before", "after")
    assert set(rows[1:]) == {
        ("40", "total_steps", "40", "60"),
        ("40", "optimizer.lr", "0.0023", "0.5"),
        ("40", "batch_size", "8", "4"),
        ("40", "exploration.end", "0.04", "0.5"),
        ("40", "sync.every_updates", "128", "3"),
        ("60", "total_steps", "60", "80"),
    }
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert (config["optimizer"]["lr"], config["batch_size"]) == (0.5, 4)


def test_changes_count_from_the_resume_that_takes_steps(trained: Path) -> None:
    assert "is finished" in rlrun("train", f"resume={trained}", "optimizer.weight_decay=0.1").out
    assert rlrun("train", f"resume={trained}", "total_steps=60").code == 0
    rows = (trained / "changes.csv").read_text().splitlines()
    assert rows[1:] == ["40,total_steps,40,60"]


def test_a_run_is_not_made_shorter_than_it_is(trained: Path) -> None:
    before = (trained / "config.yaml").read_text()
    line = refused("train", f"resume={trained}", "total_steps=39")
    assert line == "rlrun: total_steps: must be at least 40, where this run is, got 39"
    assert (trained / "config.yaml").read_text() == before


def test_a_group_is_not_changed_as_a_whole_on_resume(trained: Path) -> None:
    """It would set the keys that were not named to the defaults of today."""
    before = (trained / "config.yaml").read_text()
    line = refused("train", f"resume={trained}", "eval={every_steps: 50}")
    assert line.startswith("rlrun: eval: name single keys when a run is resumed, such as eval.")
    assert (trained / "config.yaml").read_text() == before


def test_a_key_of_the_saved_agent_may_change_though_the_default_one_has_none(workdir: Path) -> None:
    short = ["env=frozenlake", "total_steps=40", "eval.episodes=1", "hydra.run.dir=run"]
    assert rlrun("train", "agent=q_learning", *short).code == 0
    done = rlrun("train", "resume=run", "total_steps=60", "agent.lr=0.5")
    assert "changed at step 40: agent.lr: 0.2 -> 0.5" in done.out
    assert refused("train", "resume=run", "total_steps=80", "sync.tau=0.5") == "rlrun: sync.tau: this run has no sync"


def test_resume_of_a_finished_run(trained: Path) -> None:
    grow = ("train.log", "provenance.json")
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and path.name not in grow}
    done = rlrun("train", "resume=latest")
    assert (done.code, done.err) == (0, "")
    last = done.out.splitlines()[-1]
    command = f"rlrun train resume={trained} total_steps=80"
    assert last == f"nothing to do: {trained} is finished, 40 of 40 steps; to train it further:  {command}"
    assert "steps/s" not in done.out
    done = rlrun("train", "resume=latest", "tags=[late]")
    assert done.out.splitlines()[-2] == "not changed, because nothing is left to do: tags: [] -> ['late']"
    assert {path: path.read_bytes() for path in before} == before
    done = rlrun(*command.split()[1:])
    assert "\n80 steps, " in done.out


def damage(checkpoint: Path) -> None:
    file = checkpoint / "agent.npz"
    file.write_bytes(file.read_bytes()[:-100])


def test_damaged_checkpoints_are_passed_over(trained: Path) -> None:
    assert rlrun("train", f"resume={trained}", "total_steps=60").code == 0
    damage(trained / "checkpoints/step_000000060")
    done = rlrun("train", f"resume={trained}", "total_steps=60")
    assert done.code == 0, done
    assert re.search("skipped: .*step_000000060 is damaged: agent.npz has", done.out)
    assert "step_000000040 at step 40" in done.out
    for step in (40, 60):
        damage(trained / f"checkpoints/step_0000000{step}")
    line = refused("train", f"resume={trained}", "total_steps=60")
    assert "holds no whole checkpoint" in line
    assert "is damaged" in line


def test_a_checkpoint_of_another_shape(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    config["network"]["hidden"] = [7]
    (trained / "config.yaml").write_text(yaml.safe_dump(config))
    done = rlrun("train", f"resume={trained}", "total_steps=60")
    assert done.code == 2
    assert re.fullmatch(
        r"rlrun: resume: .*step_000000040 does not fit the configuration: .*size mismatch.*\n", done.err
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: int, workdir: Path) -> None:
    words = [*SHORT, "total_steps=10_000_000", "log.every_steps=200", "hydra.run.dir=outputs/stopped"]
    command = [sys.executable, "-m", "rl_runner", "train", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            next(line for line in process.stdout if line.startswith("step "))
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (128 + number, "")
    last = out.splitlines()[-1]
    assert last == "stopped and saved; resume with:  rlrun train resume=outputs/stopped"
    steps = int(re.findall(r"(?m)^([\d,]+) steps, ", out)[-1].replace(",", ""))
    done = rlrun(*last.split("rlrun ")[1].split(), f"total_steps={steps + 20}", "eval.episodes=1")
    assert done.code == 0, done
    assert f"at step {steps:,}" in done.out


# What the machine does.


@pytest.fixture
def _full_after_one_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no room for a whole checkpoint after the first one of a run."""
    save = Checkpoints.save

    def full(checkpoints: Checkpoints, step: int, *state: Any) -> Path:
        if step > 20:
            raise OSError(28, "No space left on device")
        return save(checkpoints, step, *state)

    monkeypatch.setattr(Checkpoints, "save", full)


@pytest.mark.usefixtures("_full_after_one_checkpoint")
def test_an_agent_that_cannot_be_saved_at_the_end_is_a_failure(workdir: Path) -> None:
    done = rlrun("train", *SHORT, "checkpoint.every_steps=20", "hydra.run.dir=outputs/run")
    assert done.code == 1
    assert done.err == "rlrun: outputs/run: the agent at the end of the run is not saved: No space left on device\n"
    assert done.out.splitlines()[-3:] == [
        "the agent at step 40 is not saved: No space left on device",
        "resume from step_000000020 with:  rlrun train resume=outputs/run",
        "evaluate the best agent:  rlrun eval outputs/run",
    ]
    assert "the agent at step 40 is not saved" in Path("outputs/run/train.log").read_text()
    done = rlrun("train", "resume=outputs/run", "total_steps=20")
    assert done.code == 0, done.err


@pytest.mark.usefixtures("_full_after_one_checkpoint")
def test_a_sweep_counts_it_as_failed(workdir: Path) -> None:
    done = rlrun("train", "-m", *SHORT, "seed=0,1", "total_steps=20,40", "hydra.sweep.dir=sweep")
    assert done.code == 1
    assert done.err.count("the agent at the end of the run is not saved: No space left on device") == 2
    assert "Traceback" not in done.err
    assert "2 of 4 runs finished" in done.out
    assert "2 of 2 seeds failed" in done.out


@pytest.mark.parametrize("broken", ["closed pipe", "full disk", "ascii", "closed"])
def test_what_the_screen_does_never_ends_a_run(workdir: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    if broken == "closed pipe":
        reader, descriptor = os.pipe()
        os.close(reader)
    else:
        descriptor = os.open("out" if broken == "ascii" else "/dev/full", os.O_WRONLY | os.O_CREAT)
    with open(descriptor, "w", encoding="ascii") as screen:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, None if broken == "closed" else screen)
        monkeypatch.setattr(sys, "argv", ["rlrun", "train", *SHORT, "hydra.run.dir=outputs/run"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        sys.stdout.flush()
    assert end.value.code == 0
    assert "watch it:     rlrun play outputs/run" in Path("outputs/run/train.log").read_text(encoding="utf-8")
    assert Path("outputs/run/checkpoints/step_000000040").is_dir()
    if broken == "ascii":
        assert re.search(rb"environment +CartPole-v1 x 1", Path("out").read_bytes())


def test_the_exit_code_is_not_that_of_a_failed_flush(workdir: Path) -> None:
    """Python ends with 120 where it cannot flush standard output."""
    command = f"{sys.executable} -m rl_runner --help"
    assert subprocess.run(f"{command} > /dev/full", shell=True).returncode == 0
    assert subprocess.run(f"{command} >&- 2>&- <&-", shell=True).returncode == 0
    wrong = subprocess.run(f"{command[:-6]} nonsense 2> /dev/full", shell=True)
    assert wrong.returncode == 2


def test_a_table_that_is_shorter_than_the_checkpoint(workdir: Path) -> None:
    assert rlrun("train", *SHORT, "log.every_steps=10", "hydra.run.dir=outputs/run").code == 0
    table = Path("outputs/run/metrics.csv")
    rows = table.read_bytes().splitlines(keepends=True)
    kept = [row for row in rows if not re.match(rb"[234]0,", row)]
    table.write_bytes(b"".join(kept) + b"20,train/ret")
    done = rlrun("train", "resume=outputs/run", "total_steps=60")
    assert done.code == 0, done.err
    words = "its last row is of step 10, what followed up to step 40 is missing"
    assert f"{table} is shorter than at the checkpoint: {words}\n" in done.out
    now = table.read_bytes().splitlines(keepends=True)
    assert now[: len(kept)] == kept
    assert {row.split(b",")[0] for row in now[len(kept) :]} >= {b"50", b"60"}
    assert all(re.fullmatch(rb"\d+,[\w/]+,[\w.+-]+\n", row) for row in now[1:])


# Signals, and closing words.


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signals as a process has them at its start, whatever pytest was started under; put back afterwards."""
    numbers = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raise_at_the_first_log(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have training receive a signal when it logs for the first time."""

    def update(*_: Any) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.Signals(number))

    monkeypatch.setattr(train.Terminal, "update", update)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_each_signal_saves(number: int, workdir: Path, handlers: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        raise_at_the_first_log(patch, number)
        done = rlrun("train", *SHORT, "log.every_steps=20", "hydra.run.dir=outputs/a")
    assert (done.code, done.err) == (128 + number, "")
    assert done.out.splitlines()[-1] == "stopped and saved; resume with:  rlrun train resume=outputs/a"
    assert (workdir / "outputs/a/checkpoints/step_000000020").is_dir()


@pytest.mark.parametrize(
    "place",
    ["rl_runner.cli.verbs.train", "rl_runner.build.runs.train_job", "rl_runner.build.runs.provenance.record"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_leaves_no_directory(
    place: str, number: int, workdir: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, lambda *_: signal.raise_signal(signal.Signals(number)))
    done = rlrun("train", *SHORT)
    said = "rlrun: stopped outside of training; there was nothing to save\n"
    assert (done.code, done.out, done.err) == (128 + number, "", said)
    assert list(workdir.iterdir()) == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_signal_before_the_first_job_of_a_sweep_leaves_no_directory(
    workdir: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rl_runner.cli.verbs.train", lambda *_: signal.raise_signal(signal.SIGTERM))
    done = rlrun("train", "-m", *SHORT, "seed=1,2")
    said = "rlrun: stopped outside of training; there was nothing to save\n"
    assert (done.code, done.err) == (128 + signal.SIGTERM, said)
    assert list(workdir.iterdir()) == []


def test_a_signal_before_the_first_step_of_a_resumed_run_leaves_it_alone(
    trained: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files()
    monkeypatch.setattr("rl_runner.build.runs.train_job", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    done = rlrun("train", f"resume={trained}")
    assert (done.code, done.err.count("\n")) == (143, 1)
    assert files() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_a_sweep_saves_the_running_job(number: int, workdir: Path, handlers: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        raise_at_the_first_log(patch, number)
        done = rlrun("train", "-m", *SHORT, "seed=0,1", "log.every_steps=20", "hydra.sweep.dir=sw")
    assert done.code == 128 + number, done
    assert (workdir / "sw/0_seed=0/checkpoints/step_000000020").is_dir()
    assert not (workdir / "sw/1_seed=1").exists()
    assert "0 of 2 runs finished" in done.out


def test_signals_that_others_handle_stay_theirs(handlers: None) -> None:
    theirs: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.signal(signal.SIGUSR1, lambda number, _: theirs.append(number))
    with train._signals() as received:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.raise_signal(number)
    assert (theirs, received) == ([signal.SIGUSR1], [signal.SIGUSR2])
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_second_sigint_interrupts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), train._signals() as received:  # noqa: PT012 - the second one, not the first
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)


def test_training_in_a_thread(workdir: Path) -> None:
    """Where no handler can be installed."""
    done: list[Done] = []
    thread = threading.Thread(target=lambda: done.append(rlrun("train", *SHORT, "hydra.run.dir=outputs/a")))
    thread.start()
    thread.join()
    assert (done[0].code, done[0].err) == (0, "")


@pytest.mark.parametrize("name", ['-it\'s "5" grün=$HOME; rm x', "latest", "~a"])
def test_the_closing_words_can_be_pasted(name: str, workdir: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        raise_at_the_first_log(patch, signal.SIGTERM)
        done = rlrun("train", *SHORT, "log.every_steps=20", f"hydra.run.dir={quote(name)}")
    assert done.code == 128 + signal.SIGTERM, done
    assert {p.name for p in workdir.iterdir()} == {name}
    done = rlrun(*pasted(done.out.splitlines()[-1]), "total_steps=30")
    assert done.code == 0, done
    assert f"\n{30} steps" in done.out
    plot, evaluate, watch = done.out.splitlines()[-3:]
    assert rlrun(*pasted(plot), "--out", "x.png").code == 0
    assert rlrun(*pasted(evaluate), "episodes=1").code == 0
    assert rlrun(*pasted(watch), "episodes=1", "video=x.gif").code == 0
    assert {p.name for p in workdir.iterdir()} == {name, "x.gif", "x.png", "x.csv"}


def pasted(line: str) -> list[str]:
    """Return the words after `rlrun` of a line as a shell takes them."""
    command = "rlrun() { printf '%s\\0' \"$@\"; }; rlrun " + line.split("  rlrun ")[1]
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return shell.stdout.split("\0")[:-1]


def test_hyperparameters_are_the_main_keys_and_what_was_changed() -> None:
    config = {"seed": 3, "batch_size": 64, "agent": {"name": "dqn", "gamma": 0.9, "double": True}, "log": {"every": 5}}
    words = ["agent.double=true", "network=dueling", "+agent.gamma=0.9", "hydra.run.dir=x", "log.every=5", "env=pong"]
    assert train.hyperparameters(config, words) == {
        "agent.name": "dqn",
        "seed": 3,
        "batch_size": 64,
        "agent.gamma": 0.9,
        "agent.double": True,
        "network": "dueling",
    }


def test_the_learning_rate_is_logged(workdir: Path) -> None:
    done = rlrun("train", *SHORT, "optimizer.lr=0.002", "optimizer.lr_end=0.001", "log.every_steps=20", "num_threads=1")
    assert done.code == 0, done.err
    rows = [line.split(",") for line in (only_run() / "metrics.csv").read_text().splitlines()]
    assert [(step, float(v)) for step, name, v in rows if name == "learn/lr"] == [("20", 0.0015), ("40", 0.001)]


def test_a_run_that_dies_before_its_closing_numbers_writes_them(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation is due at the last step and numbers are not, so the evaluation's rows come first."""
    words = ["agent=q_learning", "env=frozenlake", "total_steps=300", "num_threads=1", "checkpoint.every_steps=100"]
    words += ["eval.every_steps=100", "eval.episodes=2", "log.every_steps=130"]
    assert rlrun("train", *words, "hydra.run.dir=whole").code == 0
    write = Trainer.write_scalars

    def dies(trainer: Trainer) -> None:
        if trainer.loop.clock.steps == 300:
            raise RuntimeError("the machine dies")
        write(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "write_scalars", dies)
        assert rlrun("train", *words, "hydra.run.dir=run").code == 1
    done = rlrun("train", "resume=run")
    assert (done.code, done.err) == (0, "")
    tables = [Path(run, "metrics.csv").read_text().splitlines() for run in ("run", "whole")]
    timeless = [[line for line in table if ",time/" not in line] for table in tables]
    assert timeless[0] == timeless[1]
    assert "is finished" in rlrun("train", "resume=run").out


def test_a_run_that_fails_in_its_closing_evaluation_repeats_it(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint at the end was written before it, so only the evaluation's own rows tell that it is done."""
    words = ["agent=q_learning", "env=frozenlake", "total_steps=300", "num_threads=1", "checkpoint.every_steps=250"]
    words += ["eval.every_steps=0", "eval.episodes=2"]
    assert rlrun("train", *words, "hydra.run.dir=whole").code == 0

    def fails(*args: Any) -> Any:
        raise RuntimeError("the machine dies")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_best", fails)
        assert rlrun("train", *words, "hydra.run.dir=run").code == 1
    assert Path("run/train.log").read_text().splitlines()[-1] == "failed: RuntimeError: the machine dies"
    assert runs.read(Path("run")).state == runs.FAILED
    done = rlrun("train", "resume=run")
    assert (done.code, done.err) == (0, "")
    assert runs.read(Path("run")).state == runs.FINISHED
    for name in ("evaluations.jsonl", "episodes.csv"):
        assert Path("run", name).read_text() == Path("whole", name).read_text()
    best = [sorted(p.name for p in Path(run, "checkpoints").iterdir()) for run in ("run", "whole")]
    assert best[0] == best[1]
