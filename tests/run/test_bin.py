"""Removing runs: they are moved, none is lost, and none that is being written."""

import fcntl
from pathlib import Path

import pytest

from rl_runner.run import bin as bins
from rl_runner.run import lock, notes
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError
from tests.runs import a_run


def test_runs_are_moved_and_names_in_the_bin_are_not_taken_twice(workdir: Path) -> None:
    for first in (1.0, 2.0):
        a_run(Path("outputs/pong/dqn/a"), {100: first})
        (moved,) = bins.move([Path("outputs/pong/dqn/a")])
        assert moved[0] == Path("outputs/pong/dqn/a")
        assert f"100,eval/return_mean,{first}" in (moved[1] / "metrics.csv").read_text()
    assert moved[1] == workdir / "outputs/.bin/pong/dqn/a_2"
    assert not Path("outputs/pong/dqn/a").exists()
    a_run(Path("else/b"), {})
    ((_, place),) = bins.move([Path("else/b")])
    assert place == workdir / "else/.bin/b"


def test_nothing_is_moved_if_one_run_is_being_written(workdir: Path) -> None:
    paths = [a_run(Path("outputs") / name, {}) for name in "ab"]
    assert not lock.in_use(paths[1])
    with open(paths[1] / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock.in_use(paths[1])
        with pytest.raises(UserError, match="outputs/b is being written by another process; nothing was moved"):
            list(bins.move(paths))
    assert all(path.is_dir() for path in paths)
    with RunDirectory.resumed("outputs/a"):  # its lock is free again
        assert lock.in_use(paths[0])


def test_a_link_is_not_moved(workdir: Path) -> None:
    a_run(Path("outputs/a"), {})
    Path("link").symlink_to("outputs/a")
    with pytest.raises(UserError, match="link is a symbolic link"):
        list(bins.move([Path("link")]))


def test_what_is_in_the_bin_is_neither_latest_nor_of_a_sweep(workdir: Path) -> None:
    a_run(Path("outputs/s/a"), {})
    a_run(Path("outputs/s/b"), {})
    for name in "ab":
        with notes.noted(Path("outputs/s") / name, [f"seed={name}"]):
            pass
    list(bins.move([Path("outputs/s/b")]))
    Path("outputs/.bin/s/b").rename("outputs/s/.bin")
    assert RunDirectory.resumed("latest").path == Path("outputs/s/a")
    assert [path for path, _ in notes.of_sweep(Path("outputs/s"))] == [Path("outputs/s/a")]
