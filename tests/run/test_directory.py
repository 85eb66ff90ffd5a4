"""A run's directory: never shared, found by its name."""

import contextlib
import errno
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from rl_runner.run import checkpoint, lock
from rl_runner.run import directory as runs
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError
from tests.commandline import SHORT, files, refused, rlrun

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


def test_a_directory_that_its_owner_discards_meanwhile_is_not_claimed_twice(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, flock = RunDirectory.new(Path("outputs/a")), lock.flock

    def discarded(file: IO[str], shared: bool = False, wait: bool = False) -> None:
        """Lock the file, as soon as its owner has gone."""
        first.discard()
        flock(file, shared, wait)

    monkeypatch.setattr(lock, "flock", discarded)
    second = RunDirectory.new(Path("outputs/a"))  # has opened the file that the first one deletes
    monkeypatch.setattr(lock, "flock", flock)
    third = RunDirectory.new(Path("outputs/a"))
    assert second.path != third.path


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


def test_a_look_at_the_lock_stops_no_resume(workdir: Path) -> None:
    with RunDirectory.new(Path("outputs/a")) as run:
        run.config.touch()
    with open("outputs/a/.lock") as looking:
        lock.flock(looking, shared=True)
        threading.Timer(0.05, looking.close).start()
        RunDirectory.resumed("outputs/a").release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_keep_the_lock(workdir: Path) -> None:
    """One of an environment may hang, or be in a long step, when the run is killed."""
    run = RunDirectory.new(Path("outputs/a"))
    run.config.touch()
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.read(reading, 1)  # lives until it is told to end
        os._exit(0)
    os.close(run._lock.fileno())  # as a kill does, which unlocks nothing while another process shares the file
    RunDirectory.resumed("outputs/a").release()
    os.write(writing, b"x")
    os.waitpid(child, 0)
    with contextlib.suppress(OSError):  # it is closed
        run.release()


def test_a_failed_resume_leaves_the_run_free(trained: Path) -> None:
    assert "seed: cannot change" in refused("train", f"resume={trained}", "seed=3")
    RunDirectory.resumed(str(trained)).release()


def test_no_file_is_made_through_a_link(trained: Path) -> None:
    (trained / ".lock").unlink()
    (trained / ".lock").symlink_to(Path("made").absolute())
    assert refused("train", f"resume={trained}", "total_steps=60").startswith(f"rlrun: {trained}/.lock: is a symbolic")


@pytest.mark.parametrize("name", ["metrics.csv", "config.tmp", "train.log", "tensorboard", "eval", "eval/x.json"])
def test_nothing_is_written_through_links(name: str, trained: Path) -> None:
    """A run may be a stranger's, whose links lead to files of this user."""
    mine = Path("mine")
    link = trained / name
    if link.is_dir():
        shutil.rmtree(link)
        mine.mkdir()
    else:
        link.unlink(missing_ok=True)
        link.parent.mkdir(exist_ok=True)
        mine.write_text("precious")
    link.symlink_to(mine.absolute())
    line = refused("train", f"resume={trained}", "total_steps=60")
    assert line.endswith("is a symbolic link, and would be written to; replace it by what it links to")
    assert "is a symbolic link" in refused("eval", str(trained), "episodes=1")
    assert list(mine.iterdir()) == [] if mine.is_dir() else mine.read_text() == "precious"


def test_checkpoints_may_lie_elsewhere(trained: Path) -> None:
    shutil.move(trained / "checkpoints", "disk")
    (trained / "checkpoints").symlink_to(Path("disk").absolute())
    assert rlrun("train", f"resume={trained}", "total_steps=60").code == 0


def test_finding(trained: Path) -> None:
    checkpoints = trained / "checkpoints"
    run, checkpoint = RunDirectory.find(str(trained), "best")
    assert (run.path, checkpoint) == (trained, checkpoints / "best_000000040")
    assert RunDirectory.find(str(trained), "last")[1] == checkpoints / "step_000000040"
    assert RunDirectory.find(str(trained), "40")[1] == checkpoints / "step_000000040"
    run, checkpoint = RunDirectory.find(str(checkpoints / "best"), "best")  # a link
    assert (run.path, checkpoint) == (trained.resolve(), (checkpoints / "best_000000040").resolve())
    assert RunDirectory.find("latest", "best")[0].path == trained
    with pytest.raises(UserError, match=r"which: must be left out, because .*/best is a checkpoint, got last"):
        RunDirectory.find(str(checkpoints / "best"), "last")
    with pytest.raises(UserError, match=r"which: no checkpoint '7' .* 40"):
        RunDirectory.find(str(trained), "7")


def test_a_checkpoint_that_does_not_say_its_step(trained: Path) -> None:
    manifest = trained / "checkpoints/best_000000040/manifest.json"
    said = json.loads(manifest.read_text())
    said["about"].pop("steps")
    said.pop("sha256")
    manifest.write_text(json.dumps({**said, "sha256": checkpoint._sha256_of(said)}))
    with pytest.raises(UserError, match=r"best_000000040 does not say at which step it was saved$"):
        RunDirectory.read_agent(str(trained), "best")


def test_latest_is_the_newest_run_wherever_it_is(trained: Path) -> None:
    newer = Path("outputs/sweeps/s/0_seed=1")
    shutil.copytree(trained, newer)
    os.utime(newer / "config.yaml", (2e9, 2e9))
    assert RunDirectory.find("latest", "best")[0].path == newer
    os.utime(trained / "config.yaml", (2.1e9, 2.1e9))
    assert RunDirectory.find("latest", "best")[0].path == trained
    wandb = trained / "wandb/run-1/files/config.yaml"  # as Weights & Biases writes it
    wandb.parent.mkdir(parents=True)
    wandb.touch()
    os.utime(wandb, (2.2e9, 2.2e9))
    assert RunDirectory.find("latest", "best")[0].path == trained


def test_what_is_no_run(trained: Path) -> None:
    for name, says in [
        ("nowhere", "no such directory"),
        ("outputs", "is no run"),
        ("~", "no such directory"),
        (f"outputs/{'a' * 300}/b", "no such directory"),  # longer than file systems allow
    ]:
        with pytest.raises(UserError, match=says):
            RunDirectory.find(name, "best")
    (trained / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config.yaml, the configuration of .*, is missing"):
        RunDirectory.find(str(trained / "checkpoints/best"), "best")
    with pytest.raises(UserError, match="no runs under outputs/"):
        RunDirectory.find("latest", "best")


def test_a_run_that_is_deleted_while_the_newest_is_looked_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rl_runner.run.files.runs_under", lambda _: [Path("outputs/deleted"), trained])
    assert RunDirectory.find("latest", "best")[0].path == trained


# File systems without locks.


@pytest.fixture
def flock_fails(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every lock fails with the errno that the test is called with."""

    def fail(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", fail)


@pytest.mark.parametrize("flock_fails", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], indirect=True)
def test_without_locks_new_runs_still_share_no_directory(flock_fails: None, workdir: Path) -> None:
    first, second = (RunDirectory.new(Path("outputs/a")) for _ in range(2))
    assert (str(first.path), str(second.path)) == ("outputs/a", "outputs/a_2")
    assert dict(first.facts())["lock"].startswith("none here (")
    first.discard()
    assert RunDirectory.new(Path("outputs/a")).path == first.path


@pytest.mark.parametrize("flock_fails", [errno.ENOSYS], indirect=True)
def test_without_locks_a_run_says_so_and_goes_on(flock_fails: None, workdir: Path) -> None:
    said = "lock +none here .Function not implemented.; keep other processes out"
    done = rlrun("train", *SHORT, "hydra.run.dir=outputs/a")
    assert (done.code, done.err) == (0, "")
    assert {p.name for p in Path("outputs").iterdir()} == {"a"}
    done_again = rlrun("train", "resume=outputs/a", "total_steps=60")
    assert (done_again.code, done_again.err) == (0, "")
    log = Path("outputs/a/train.log").read_text()
    assert [len(re.findall(said, text)) for text in (done.out, done_again.out, log)] == [1, 1, 2]


def test_with_locks_nothing_is_said(trained: Path) -> None:
    assert "lock" not in (trained / "train.log").read_text()


@pytest.mark.parametrize("flock_fails", [errno.EWOULDBLOCK, errno.EACCES], indirect=True)
def test_a_lock_that_is_held(flock_fails: None, trained: Path) -> None:
    assert refused("train", f"resume={trained}") == f"rlrun: resume: {trained} is in use by another process"


@pytest.mark.parametrize("flock_fails", [errno.EWOULDBLOCK], indirect=True)
def test_the_search_for_a_free_name_ends(flock_fails: None, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "NAMES", 3)
    with pytest.raises(UserError, match=r"^hydra.run.dir: outputs/a to outputs/a_3 are taken by other runs; choose an"):
        RunDirectory.new(Path("outputs/a"))
    assert {p.name for p in Path("outputs").iterdir()} == {"a", "a_2", "a_3"}


def test_the_current_directory_holds_one_run(workdir: Path) -> None:
    with RunDirectory.new(Path(".")) as run:
        run.config.touch()
    with pytest.raises(UserError, match=r"^hydra.run.dir: \. is taken by another run; choose another directory$"):
        RunDirectory.new(Path("."))
    assert files() == {"./.lock", "./config.yaml"}


def test_a_platform_without_fcntl(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it raises ImportError
    monkeypatch.setattr(lock, "fcntl", runpy.run_path(lock.__file__)["fcntl"])
    first, second = (RunDirectory.new(Path("outputs/a")) for _ in range(2))
    assert (str(first.path), str(second.path)) == ("outputs/a", "outputs/a_2")
    assert first.facts() == [
        ("run", "outputs/a"),
        ("lock", "none here (Function not implemented); keep other processes out"),
    ]


# Directories that cannot be written.


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_run_that_cannot_be_written(number: int, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(runs, "open", fail, raising=False)
    why = f"cannot be written: {os.strerror(number)}"
    assert refused("train", f"resume={trained}") == f"rlrun: resume: {trained} {why}"
    assert refused("train", "hydra.run.dir=outputs/new") == f"rlrun: hydra.run.dir: outputs/new {why}"


@pytest.mark.parametrize("left", ["checkpoints/best_000000040", "metrics.csv", "episodes.csv"])
def test_a_run_that_has_lost_its_configuration_is_not_written_over(left: str, trained: Path) -> None:
    kept = trained.with_name("kept") / left
    kept.parent.mkdir(parents=True)
    (trained / left).rename(kept)
    shutil.rmtree(trained)
    trained.with_name("kept").rename(trained)
    before = files()
    line = refused("train", "env=cartpole", *SHORT, "num_threads=1", "resume=auto", f"hydra.run.dir={trained}")
    assert line.startswith(f"rlrun: hydra.run.dir: {trained} holds a run without its config.yaml; put it back, or ")
    assert {name for name in files() if not name.endswith(".lock")} == before
    with RunDirectory.new(trained) as run:
        assert run.path == trained.with_name(f"{trained.name}_2")


def test_a_directory_that_cannot_be_made(workdir: Path) -> None:
    Path("file").touch()
    with pytest.raises(UserError, match=r"^hydra.run.dir: file/a cannot be written: Not a directory$"):
        RunDirectory.new(Path("file/a"))


def test_a_sweep_in_the_place_of_a_run_leads_to_its_runs(workdir: Path) -> None:
    for job in ("1_seed=1", "0_seed=0"):
        Path("sw", job).mkdir(parents=True)
        Path("sw", job, "config.yaml").touch()
    with pytest.raises(
        UserError, match=r"^sw is no run, because it holds no config.yaml; name .* such as sw/0_seed=0$"
    ):
        RunDirectory.existing("sw")


def test_what_is_inside_of_a_run_leads_to_it(workdir: Path) -> None:
    Path("a", "checkpoints").mkdir(parents=True)
    for file in ("a/config.yaml", "a/metrics.csv", "alone.csv"):
        Path(file).touch()
    for name, message in {
        "a/checkpoints": "a/checkpoints is no run, because it holds no config.yaml; name its run, a",
        "a/metrics.csv": "a/metrics.csv is a file; name a run's directory, such as a, or latest",
        "a/nowhere": "a/nowhere: no such directory; name a run's directory, such as a, or latest",
        "alone.csv": "alone.csv is a file; name a run's directory, or latest",
    }.items():
        with pytest.raises(UserError) as e:
            RunDirectory.existing(name)
        assert str(e.value) == message
