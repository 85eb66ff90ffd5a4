"""The lock of a run's directory."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl_runner.run import lock

HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


def test_a_run_is_in_use_while_a_process_holds_its_lock(tmp_path: Path) -> None:
    assert not lock.in_use(tmp_path)  # there is no file
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert lock.in_use(tmp_path)
        with open(tmp_path / ".lock") as file, pytest.raises(BlockingIOError) as refused:
            lock.flock(file)
        assert lock.is_busy(refused.value)
        holder.communicate("\n")
    assert not lock.in_use(tmp_path)


def test_who_only_looks_keeps_nobody_out_who_only_looks(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with open(tmp_path / ".lock") as one, open(tmp_path / ".lock") as other:
        lock.flock(one, shared=True)
        lock.flock(other, shared=True)
        assert not lock.in_use(tmp_path)
        with pytest.raises(BlockingIOError) as refused:
            lock.flock(other)
        assert lock.is_busy(refused.value)


@pytest.mark.parametrize(
    ("number", "busy"),
    [(errno.EWOULDBLOCK, True), (errno.EAGAIN, True), (errno.EACCES, False), (errno.ENOLCK, False)],
)
def test_what_is_no_lock_of_another_process_is_not_taken_for_one(number: int, busy: bool) -> None:
    assert lock.is_busy(OSError(number, os.strerror(number))) == busy  # EACCES: the file cannot be opened


def test_without_locks_nobody_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(lock, "fcntl", None)
    assert not lock.in_use(tmp_path)
    with open(tmp_path / ".lock") as file, pytest.raises(OSError, match=os.strerror(errno.ENOSYS)) as refused:
        lock.flock(file)
    assert refused.value.errno == errno.ENOSYS
