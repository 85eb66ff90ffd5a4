"""Runs on the disk: found, read, and how they stand."""

import contextlib
import fcntl
import math
import os
from pathlib import Path

import pytest

from rl_runner.report import runs
from rl_runner.report.curves import Unreadable
from rl_runner.run import notes
from rl_runner.run.checkpoint import Checkpoints, save
from rl_runner.types import UserError
from tests.runs import FINISHED, INTERRUPTED, a_run, an_evaluation


def test_runs_are_found_by_name_directory_and_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/pong/a", "outputs/pong/b", "outputs/.bin/c", "outputs/sweeps/s/1"):
        a_run(Path(name), {})
    (Path("outputs/pong/a/checkpoints/step_1")).mkdir(parents=True)
    Path("outputs/pong/a/checkpoints/step_1/config.yaml").touch()
    Path("outputs/conf").mkdir()
    Path("outputs/conf/config.yaml").touch()  # no run
    assert [str(path) for path in runs.find(["outputs"])] == ["outputs/pong/a", "outputs/pong/b", "outputs/sweeps/s/1"]
    assert runs.find(["outputs/p*/*", "outputs/pong/a"]) == [Path("outputs/pong/a"), Path("outputs/pong/b")]
    with pytest.raises(UserError, match=r"^nowhere: no such directory$"):
        runs.find(["outputs", "nowhere"])
    with pytest.raises(UserError, match="outputs/conf: holds no run"):
        runs.find(["outputs/conf"])
    Path("outputs/conf/checkpoints").mkdir()  # a run whose logs were removed; it can be resumed
    assert runs.find(["outputs/conf"]) == [Path("outputs/conf")]


@pytest.mark.parametrize(
    ("log", "evaluations", "state"),
    [
        (FINISHED, {300: 1.0}, "finished"),
        (FINISHED, {100: 1.0}, "finished"),  # solved early
        (INTERRUPTED, {100: 1.0}, "interrupted"),
        ("failed: device: no such thing\n", {}, "failed"),
        (
            "resumed from step 8\nnothing to do: r is finished after 8 steps, nothing is left to learn\n",
            {8: 1.0},
            "finished",
        ),
        ("step 100/300\n", {100: 1.0}, "killed"),
        (f"{FINISHED}step 400/600\nstep 500/600\nstep 510/600\n", {200: 1.0}, "killed"),  # resumed after its end
        ("", {300: 1.0}, "finished"),
    ],
)
def test_how_a_run_stands(tmp_path: Path, log: str, evaluations: dict[int, float], state: str) -> None:
    assert runs.read(a_run(tmp_path / "r", evaluations, log=log)).state == state


def test_the_step_of_a_run_is_the_last_one_saved_or_logged(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 1.0}, log=INTERRUPTED)
    assert runs.read(path).step == 100
    for step in ("000000090", "000000120", "copy"):
        save(path / f"checkpoints/step_{step}", {}, {})
    (path / "checkpoints/step_000000130").mkdir()  # being written
    assert runs.read(path).step == 120


def test_a_run_that_is_being_written(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 1.0})
    with open(path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert runs.read(path).state == "running"
    assert runs.read(path).state == "finished"


def test_the_note_of_a_sweep_says_how_a_job_ended(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 1.0}, log="")
    with contextlib.suppress(KeyboardInterrupt), notes.noted(path, []):
        assert runs.read(path).state == "killed"
        raise KeyboardInterrupt
    assert runs.read(path).state == "interrupted"
    with notes.noted(path, []):
        pass
    assert runs.read(path).state == "finished"


def test_a_name_that_is_too_long_leads_to_no_run() -> None:
    with pytest.raises(UserError, match="no such directory"):
        runs.find(["a" * 300])


def test_what_is_read(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 1.0, 200: float("nan"), 300: 3.0}, {"seed": 7})
    run = runs.read(path)
    assert (run.seed, run.step, run.config["env.id"], run.config["tags"]) == ("7", 300, "CartPole-v1", [])
    assert (list(run.evaluations.steps), list(run.evaluations.values)) == ([100, 300], [1, 3])
    for text in ("[1, 2]", "a: [", "\0", "a: &a\n  b: *a\n", "total_steps: 100\n", "env: {id: x}\ntotal_steps: x\n"):
        (path / "config.yaml").write_text(text)
        with pytest.raises(Unreadable):
            runs.read(path)


def test_keys_that_came_later_have_the_value_that_older_runs_had(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 1.0})
    assert not set(runs.LATER) & set(runs.read(path).config)  # this one has no replay memory, torso and temperature
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(
        f"{text}\nreplay: {{capacity: 9}}\nnetwork: {{torso: {{_target_: A, layer_norm: true}}}}\n"
    )
    config = runs.read(path).config
    assert config["replay.hindsight"] == 0
    assert config["network.torso.layer_norm"] is True
    assert "agent.dropped_quantiles" not in config


def test_a_configuration_that_is_nested_too_deeply(tmp_path: Path) -> None:
    """Read by libyaml, it would end the process."""
    path = a_run(tmp_path / "r", {})
    (path / "config.yaml").write_text("[" * 100_000)
    with pytest.raises(Unreadable, match=r"config.yaml cannot be read"):
        runs.read(path)


def test_a_configuration_cannot_run_code(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {})
    (path / "config.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(Unreadable):
        runs.read(path)
    assert not (tmp_path / "made").exists()


def test_evaluations_that_can_be_read(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {})
    an_evaluation(path, "step_000000300", 5.0)
    an_evaluation(path, "step_000000300", float("nan"))
    an_evaluation(path, "step_000000300", 6.0, step="x")
    an_evaluation(path, "step_000000300", 6.0, protocol=[])
    (path / "eval" / "broken.json").write_text("{")
    assert [(score["checkpoint"], score["mean"]) for score in runs.scores(path)] == [("step_000000300", 5)]


def test_the_disk_that_a_run_takes(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {})
    before = runs.disk(path)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "large").write_bytes(os.urandom(1_000_000))
    os.sync()
    assert 1_000_000 <= runs.disk(path) - before < 1_100_000


def test_the_best_score_is_that_of_the_saved_agent_though_a_resumed_run_did_not_repeat_it(tmp_path: Path) -> None:
    path = a_run(tmp_path / "r", {100: 3.0, 200: 2.0})
    Checkpoints(path / "checkpoints").save_best(150, {"agent": {}}, {"return": {"mean": 5.0}})
    assert (runs.read(path).best, runs.read(path).last) == (5, 2)
    assert runs.read(a_run(tmp_path / "without", {100: 3.0, 200: 2.0})).best == 3


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_last_evaluation_that_is_not_finite_is_not_passed_over(tmp_path: Path, last: float) -> None:
    run = runs.read(a_run(tmp_path / "r", {100: 7.0, 200: 9.0, 300: last}))
    assert math.isnan(run.last)
    assert run.best == 9


def test_runs_come_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    names = ["0_x", "1_x", "2_x=9", "2_x=10", "10_x", "a0.01", "a0.05", "a0.1", "b"]
    for name in reversed(names):
        a_run(tmp_path / name, {100: 1.0})
    assert [path.name for path in runs.find([str(tmp_path)])] == names


def test_a_directory_that_is_named_twice_is_one(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", {100: 1.0})
    (tmp_path / "link").symlink_to(run)
    assert runs.find([str(run), f"{tmp_path}/../{tmp_path.name}/r", str(tmp_path / "link")]) == [run]
