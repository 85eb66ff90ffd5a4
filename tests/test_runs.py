"""A run's directory: never shared, found by its name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rl_runner.runs import RunDirectory
from rl_runner.types import UserError
from tests.commandline import files, refused, rlrun

HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


def test_new_runs_never_share_a_directory(workdir: Path) -> None:
    with RunDirectory.new(Path("outputs/a")) as first, RunDirectory.new(Path("outputs/a")) as second:
        assert (str(first.path), str(second.path)) == ("outputs/a", "outputs/a_2")
        first.config.touch()
    with RunDirectory.new(Path("outputs/a")) as third:  # free again, but it holds a run
        assert str(third.path) == "outputs/a_2"


def test_a_directory_claimed_for_nothing_is_given_up(workdir: Path) -> None:
    RunDirectory.new(Path("outputs/a/b")).discard()
    assert files() == set()
    run = RunDirectory.new(Path("outputs/a/b"))
    run.log.touch()
    run.discard()
    assert "./outputs/a/b/train.log" in files()


def test_a_run_in_use_by_another_process(trained: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(trained / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        line = refused("train", f"resume={trained}", "total_steps=50")
        assert line == f"rlrun: resume: {trained} is in use by another process"
        assert rlrun("eval", str(trained), "episodes=1").code == 0  # reading is no matter
        other.communicate("\n")
    assert rlrun("train", f"resume={trained}", "total_steps=50").code == 0


def test_a_failed_resume_leaves_the_run_free(trained: Path) -> None:
    assert "batch_size: cannot change" in refused("train", f"resume={trained}", "batch_size=3")
    RunDirectory.resumed(str(trained)).release()


def test_finding(trained: Path) -> None:
    checkpoints = trained / "checkpoints"
    run, checkpoint = RunDirectory.find(str(trained), "best")
    assert (run.path, checkpoint) == (trained, checkpoints / "best_000000040")
    assert RunDirectory.find(str(trained), "last")[1] == checkpoints / "step_000000040"
    assert RunDirectory.find(str(trained), "40")[1] == checkpoints / "step_000000040"
    run, checkpoint = RunDirectory.find(str(checkpoints / "best"), "last")  # a link
    assert (run.path, checkpoint) == (trained.resolve(), (checkpoints / "best_000000040").resolve())
    assert RunDirectory.find("latest", "best")[0].path == trained
    with pytest.raises(UserError, match=r"which: no checkpoint '7' .* 40"):
        RunDirectory.find(str(trained), "7")


def test_latest_is_the_newest_run_wherever_it_is(trained: Path) -> None:
    newer = Path("outputs/sweeps/s/0_seed=1")
    shutil.copytree(trained, newer)
    os.utime(newer / "config.yaml", (2e9, 2e9))
    assert RunDirectory.find("latest", "best")[0].path == newer
    os.utime(trained / "config.yaml", (2.1e9, 2.1e9))
    assert RunDirectory.find("latest", "best")[0].path == trained


def test_what_is_no_run(trained: Path) -> None:
    for name, says in [("nowhere", "no such directory"), ("outputs", "is no run"), ("~", "no such directory")]:
        with pytest.raises(UserError, match=says):
            RunDirectory.find(name, "best")
    (trained / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config.yaml, the configuration of .*, is missing"):
        RunDirectory.find(str(trained / "checkpoints/best"), "best")
    with pytest.raises(UserError, match="no runs under outputs/"):
        RunDirectory.find("latest", "best")
