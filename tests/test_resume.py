"""A resumed run is the uninterrupted run, bit for bit: everything it holds and everything it wrote."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl_runner.cli import main as cli
from rl_runner.loops.replay import ReplayLoop
from rl_runner.run import checkpoint
from rl_runner.run.checkpoint import Checkpoints

CARTPOLE = [
    *["env=cartpole", "env.num_envs=3", "network=noisy", "agent.n_step=3", "total_steps=900", "learning_starts=100"],
    *["learn_every_steps=8", "updates_per_learn=2", "replay.capacity=600", "log.every_steps=100"],
    *["eval.every_steps=250", "eval.episodes=2", "checkpoint.every_steps=0", "exploration.steps=600"],
]
PONG = [
    *[
        "experiment=pong_84",
        "env.num_envs=2",
        "env.sticky=0.25",
        "env.max_frames=400",
        "total_steps=400",
        "num_threads=1",
    ],
    *["learning_starts=100", "learn_every_steps=20", "batch_size=8", "replay.capacity=300", "log.every_steps=50"],
    *[
        "eval.every_steps=200",
        "eval.episodes=1",
        "eval.num_envs=1",
        "checkpoint.every_steps=0",
        "checkpoint.replay=true",
    ],
]


def train(run: str, *arguments: str) -> int:
    return cli.run(["train", *arguments, f"hydra.run.dir={run}"] if arguments else ["train", f"resume={run}"])


def train_until_interrupted(monkeypatch: pytest.MonkeyPatch, run: str, at_step: int, *arguments: str) -> None:
    """Train, press Ctrl-C in the middle of a step, and see that the run stops by itself."""
    step = ReplayLoop.step

    def interrupted_step(loop: ReplayLoop) -> None:
        before = loop.clock.steps
        if before < at_step <= before + loop.envs.num_envs:
            os.kill(os.getpid(), signal.SIGINT)
        step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayLoop, "step", interrupted_step)
        with pytest.raises(SystemExit) as stop:
            train(run, *arguments)
        assert stop.value.code == 128 + signal.SIGINT


def final_state(run: str) -> dict[str, Any]:
    state = checkpoint.load(Checkpoints(Path(run, "checkpoints")).find("last"))
    for timed in ("seconds", "files"):  # wall-clock, and the names and sizes of files that hold it
        del state["trainer"][timed]
    return state


def assert_same(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert a == b, where


def table(run: str) -> list[str]:
    lines = Path(run, "metrics.csv").read_text().splitlines()
    return [line for line in lines if ",time/" not in line]


def curves(run: str) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(Path(run, "tensorboard")))
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("time/")]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def assert_same_run(a: str, b: str) -> None:
    assert_same(final_state(a), final_state(b))
    assert len(table(a)) > 30
    assert table(a) == table(b)
    assert curves(a) == curves(b)
    for name in ("episodes.csv", "evaluations.jsonl"):
        assert Path(a, name).read_bytes() == Path(b, name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "at_step"),
    [
        (CARTPOLE, 403),
        ([*CARTPOLE, "learn_every_episodes=2", "sync.every_episodes=3"], 403),
        (PONG, 275),
        ([*PONG, "precision=bf16"], 275),
    ],
    ids=["cartpole", "cartpole-episodes", "pong", "pong-bf16"],
)
def test_interrupted_and_resumed_is_uninterrupted(monkeypatch, tmp_path, arguments, at_step):
    monkeypatch.chdir(tmp_path)
    assert train("whole", *arguments) == 0
    train_until_interrupted(monkeypatch, "resumed", at_step, *arguments)
    torch.rand(7)  # whatever else the process does with the global stream in between
    assert train("resumed") == 0
    assert_same_run("whole", "resumed")


def test_a_run_that_died_goes_on_from_its_last_checkpoint(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [*CARTPOLE, "checkpoint.every_steps=300", "checkpoint.keep=3"]
    assert train("whole", *arguments) == 0
    step = ReplayLoop.step

    def dies(loop: ReplayLoop) -> None:
        if loop.clock.steps >= 777:
            raise MemoryError("the machine is gone")
        step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayLoop, "step", dies)
        assert train("resumed", *arguments) == 1
    assert table("resumed")[-1].startswith("7")  # it had written more than its checkpoint at 600 knows of
    assert train("resumed") == 0
    assert_same_run("whole", "resumed")


def test_more_steps_for_a_finished_run_give_the_longer_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # The shorter run's evaluation at its end is one more, which must not find the best agent by chance.
    assert train("whole", *CARTPOLE, "device=cpu") == 0
    assert train("longer", *CARTPOLE, "device=cpu", "total_steps=520") == 0
    assert cli.run(["train", "resume=longer", "total_steps=900"]) == 0
    assert_same_run("whole", "longer")


def test_a_run_that_died_with_a_better_agent_than_its_checkpoint_knows_goes_on_to_the_same_end(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [*CARTPOLE, "seed=2", "eval.every_steps=50", "checkpoint.every_steps=300"]
    assert train("whole", *arguments) == 0
    step = ReplayLoop.step

    def dies(loop: ReplayLoop) -> None:
        if loop.clock.steps >= 590:
            raise MemoryError("the machine is gone")
        step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayLoop, "step", dies)
        assert train("resumed", *arguments) == 1
    best = checkpoint.about(Checkpoints(Path("resumed", "checkpoints")).find("best"))["steps"]
    known = final_state("resumed")
    assert known["clock"]["steps"] == 300 > known["trainer"]["best_step"]
    assert best > 300
    assert train("resumed") == 0
    assert_same_run("whole", "resumed")
    assert_same(*(checkpoint.load(Path(run, "checkpoints", "best")) for run in ("whole", "resumed")))


def test_two_runs_of_the_same_command_are_the_same_and_another_seed_is_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for run, seed in [("a", 5), ("b", 5), ("c", 0)]:
        assert train(run, *CARTPOLE, f"seed={seed}", "total_steps=300") == 0
    assert_same(final_state("a"), final_state("b"))
    assert table("a") == table("b")
    assert table("a") != table("c")
    assert not torch.equal(
        final_state("a")["agent"]["online"]["head.values.out.weight"],
        final_state("c")["agent"]["online"]["head.values.out.weight"],
    )


def test_evaluating_leaves_training_as_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert train("often", *CARTPOLE, "eval.every_steps=50") == 0
    assert train("never", *CARTPOLE, "eval.every_steps=0") == 0
    often, never = final_state("often"), final_state("never")
    for name in ("envs", "actor", "agent", "replay", "clock", "torch"):
        assert_same(often[name], never[name], name)


def test_without_the_replay_it_is_filled_again_first(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    train_until_interrupted(monkeypatch, "run", 400, *CARTPOLE, "checkpoint.replay=false")
    before = final_state("run")
    assert before["replay"] is None
    assert cli.run(["train", "resume=run", "total_steps=480"]) == 0
    assert "holds no replay memory" in capsys.readouterr().out
    # 80 steps are fewer than learning_starts: nothing was learned from a memory that is not there.
    assert final_state("run")["clock"]["updates"] == before["clock"]["updates"]
    assert cli.run(["train", "resume=run", "total_steps=700"]) == 0
    assert final_state("run")["clock"]["updates"] > before["clock"]["updates"]


def test_without_the_replay_schedules_still_follow_the_clock(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    schedules = ["replay=prioritized", "replay.sampler.beta_steps=900", "network=mlp", "exploration=epsilon_greedy"]
    arguments = [*CARTPOLE, *schedules, "optimizer.lr=1e-3", "optimizer.lr_end=1e-4", "optimizer.lr_steps=900"]
    assert train("run", *arguments, "checkpoint.replay=false", "total_steps=600") == 0
    for more in ("total_steps=700", "total_steps=900"):  # the first one's last checkpoint holds the replay again
        assert cli.run(["train", "resume=run", "checkpoint.replay=true", more]) == 0
    rows = [line.split(",") for line in table("run")]
    beta = {int(step): float(value) for step, name, value in rows if name == "learn/beta"}
    assert len(beta) >= 9
    for step, value in beta.items():
        assert value == pytest.approx(0.4 + 0.6 * step / 900, abs=1e-6)
    (group,) = final_state("run")["agent"]["optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(1e-4)
