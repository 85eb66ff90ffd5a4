"""resume=auto: the same command starts a run, or resumes it."""

import os
import shutil
from pathlib import Path

import pytest

import rl_runner
from rl_runner.build import runs
from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.run import provenance
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError
from tests.commandline import SHORT, only_run, refused, rlrun
from tests.traps import curves, set_trap


def test_the_same_command_starts_resumes_and_knows_the_end(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "preempt"), "resume=auto"]
    assert rlrun(*command).code == 128 + 12  # SIGUSR2, as a cluster sends it
    run = only_run()
    again = rlrun(*command)
    assert (again.code, again.err) == (0, ""), again
    assert only_run() == run
    assert f"resumed from {run}/checkpoints/step_000000030 at step 30" in again.out
    assert "is finished, 40 of 40 steps" in rlrun(*command).out
    assert rlrun(*command[:-1], "hydra.run.dir=whole").code == 0
    assert curves(run) == curves(Path("whole"))


def test_a_run_that_went_past_its_total_steps_is_finished(workdir: Path) -> None:
    """Three environments take 42 steps where 40 were asked for."""
    words = ["env=cartpole", *SHORT, "env.num_envs=3", "total_steps=40", "hydra.run.dir=mine"]
    assert rlrun("train", *words).code == 0
    again = rlrun("train", "resume=mine")
    assert (again.code, again.err) == (0, ""), again
    assert "is finished, 42 of 40 steps" in again.out
    assert "at least 42, where this run is, got 41" in rlrun("train", "resume=mine", "total_steps=41").err


def test_a_run_without_a_checkpoint_begins_again_in_its_directory(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    assert rlrun(*command).code == 0
    whole = curves(Path("mine"))
    for checkpoint in Path("mine/checkpoints").iterdir():  # as if the process had been killed before the first one
        checkpoint.rename(f"{checkpoint.name}_away")
    assert rlrun(*command).code == 0
    assert curves(Path("mine")) == whole


def test_a_run_that_another_process_begins_is_not_begun_beside_it(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    with RunDirectory.new(Path("mine")):  # submitted twice; the other one has not yet written its configuration
        done = rlrun(*command)
    assert (done.code, done.err) == (2, "rlrun: mine is in use by another process\n")
    assert not Path("mine_2").exists()


def test_a_run_that_begins_again_begins_with_the_same_weights(workdir: Path) -> None:
    """`latest` is the run itself by then."""
    words = set_trap(workdir, "nothing")
    assert rlrun("train", *words, "hydra.run.dir=outputs/first").code == 0
    command = ["train", *words, "resume=auto", "seed=2", "init_from=latest", "hydra.run.dir=outputs/second"]
    assert rlrun(*command).code == 0
    whole, config = curves(Path("outputs/second")), Path("outputs/second/config.yaml")
    for _ in range(2):
        shutil.rmtree("outputs/second/checkpoints")
        os.utime(config)
        done = rlrun(*command)
        assert (done.code, done.err) == (0, "")
        assert curves(Path("outputs/second")) == whole
    shutil.rmtree("outputs/second/checkpoints")
    shutil.rmtree("outputs/first/checkpoints")
    assert rlrun(*command).code == 2  # nothing to begin with; the run is still there
    assert config.is_file()
    assert Path("outputs/second/provenance.json").is_file()


def test_another_run_without_a_checkpoint_is_not_overwritten(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    assert rlrun(*command, "seed=1").code == 0
    shutil.rmtree("mine/checkpoints")
    before = contents(Path("mine"))
    for words in ([], ["seed=2"]):
        done = rlrun(*command, *words)
        assert done.code == 2
        assert done.err.startswith("rlrun: hydra.run.dir: mine holds another run, without a checkpoint to resume from;")
        assert " seed=1" in done.err
    assert contents(Path("mine")) == before


def test_a_resume_that_is_refused_or_has_nothing_to_do_changes_nothing(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "hydra.run.dir=mine"]
    assert rlrun(*command).code == 0
    before = contents(Path("mine"))
    assert "is finished" in rlrun("train", "resume=mine", "batch_size=8").out
    assert contents(Path("mine")) == before
    for checkpoint in Path("mine/checkpoints").glob("step_*"):
        (checkpoint / "agent.npz").write_bytes(b"damaged")
    damaged = rlrun("train", "resume=mine", "total_steps=50")
    assert damaged.code == 2
    assert "holds no whole checkpoint" in damaged.err
    assert contents(Path("mine")) == before


def test_environments_are_closed_if_a_run_does_not_start(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    monkeypatch.setattr(EpisodicVectorEnv, "close", lambda envs: closed.append(envs))
    for checkpoint in (trained / "checkpoints").glob("step_*"):
        (checkpoint / "agent.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        rl_runner.train([f"resume={trained}", "total_steps=60"])
    assert len(closed) == 1

    def fail(run: Path, words: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(provenance, "record", fail)
    with pytest.raises((OSError, UserError), match="no space"):
        rl_runner.train(SHORT)
    assert len(closed) == 2

    def full(*_: object) -> None:
        raise OSError("no space")

    class Service:
        def start(self, config: object, tags: object, resumed: bool) -> None: ...

        def close(self, finished: bool) -> None:
            assert not finished
            closed.append("service")

    (trained / "job.json").write_text('{"overrides": [], "state": "finished"}')
    monkeypatch.setattr("rl_runner.build.jobs._sender", lambda cfg, run: Service())
    monkeypatch.setattr("rl_runner.run.notes._write", full)
    with pytest.raises((OSError, UserError), match="no space"):
        rl_runner.train([f"resume={trained}", "total_steps=60"])
    assert closed[2:] == [closed[2], "service"]


def test_a_resume_with_batches_that_are_too_large_changes_nothing(trained: Path) -> None:
    before = contents(trained)
    line = refused("train", f"resume={trained}", "batch_size=600", "total_steps=60")
    assert line.startswith("rlrun: batch_size: 600 is more than replay.capacity=500: ")
    assert contents(trained) == before


def test_a_resumed_run_does_not_move(trained: Path) -> None:
    before = contents(trained)
    line = refused("train", f"resume={trained}", "hydra.run.dir=other", "total_steps=60")
    assert contents(trained) == before
    assert line == f"rlrun: hydra.run.dir: must be left out with resume={trained}: the run stays where it is"
    assert rlrun("train", "resume=latest", f"hydra.run.dir={trained}", "total_steps=60").code == 0


@pytest.mark.parametrize("steps", ["null", "abc", "1.5"])
def test_a_resume_without_a_number_of_steps_is_refused(trained: Path, steps: str) -> None:
    line = refused("train", f"resume={trained}", f"total_steps={steps}")
    assert line.startswith("rlrun: total_steps: must be a whole number, 1 or more, got ")


def contents(run: Path) -> dict[str, bytes]:
    """Return the files of a run that a resume writes first; its log tells what happened and may grow."""
    names = ("config.yaml", "provenance.json", "changes.csv", "metrics.csv", "episodes.csv")
    return {name: (run / name).read_bytes() for name in names if (run / name).exists()}


def test_in_a_chosen_directory_words_may_change_what_a_resume_may(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    assert rlrun(*command).code == 0
    longer = [word.replace("total_steps=40", "total_steps=50") for word in command]
    assert "changed at step 40: total_steps: 40 -> 50" in rlrun(*longer).out
    done = rlrun(*command, "seed=5")
    assert done.code == 2
    assert done.err.startswith("rlrun: seed: cannot change when a run is resumed; ")


@pytest.mark.parametrize("left", ["", "[{"])
def test_a_run_whose_words_are_lost_is_resumed_by_the_same_command(left: str, workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    assert rlrun(*command).code == 0
    Path("mine/provenance.json").write_text(left)
    longer = [word.replace("total_steps=40", "total_steps=50") for word in command]
    done = rlrun(*longer)
    assert (done.code, done.err) == (0, "")
    assert "resume=auto: mine/provenance.json cannot be read; the words are compared" in done.out
    assert "changed at step 40: total_steps: 40 -> 50" in done.out
    Path("mine/provenance.json").unlink()
    assert rlrun(*longer, "seed=5").err.startswith("rlrun: seed: cannot change when a run is resumed; ")


def test_words_of_the_first_start_that_are_missing_now_are_named(workdir: Path) -> None:
    command = ["train", *set_trap(workdir, "nothing"), "resume=auto", "hydra.run.dir=mine"]
    assert "keeps" not in rlrun(*command, "agent.gamma=0.5").out
    assert "keeps" not in rlrun(*command, "agent.gamma=0.5").out
    done = rlrun(*command)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("resume=auto: the run keeps what it was started with: agent.gamma=0.5\n")


def test_the_run_of_the_same_words_is_the_newest_one(tmp_path: Path) -> None:
    for name, words in (("old", ["seed=1"]), ("new", ["seed=1", "resume=auto"]), ("other", ["seed=2"])):
        (tmp_path / name).mkdir()
        provenance.record(tmp_path / name, words)
    for age, name in enumerate(("other", "new", "old")):
        os.utime(tmp_path / name / "provenance.json", (1e9 - age, 1e9 - age))
    assert runs._same(tmp_path, ["resume='auto'", "seed=1"]) == tmp_path / "new"
    assert runs._same(tmp_path, ["seed=3"]) is None
