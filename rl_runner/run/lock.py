"""The lock of a run's directory: the process that writes to the run holds it. Needs no torch."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import IO
from weakref import WeakSet

from rl_runner.run.files import LOCK

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # flock: another process has the lock


def flock(file: IO[str], shared: bool = False, wait: bool = False) -> None:
    """Lock a file.

    Args:
        file: stays locked until it is closed.
        shared: the lock keeps out only those who want the file for themselves.
        wait: wait until no other process has the lock.

    Raises:
        OSError: an errno of BUSY: another process has the lock. Any other: there are no locks here.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def flock_patiently(file: IO[str]) -> None:
    """Lock a file; ask again for 0.2 s where another process has the lock: `in_use` has it for a moment.

    Raises:
        OSError: as `flock`.
    """
    for _ in range(20):
        try:
            return flock(file)
        except OSError as e:
            if e.errno not in BUSY:
                raise
            time.sleep(0.01)
    flock(file)


def is_at(path: Path, file: IO[str]) -> bool:
    """Return whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


_held: WeakSet[IO[str]] = WeakSet()


def close_in_forks(file: IO[str]) -> None:
    """Register a locked file whose copies forked processes close. Otherwise it stays locked after this process died."""
    _held.add(file)


def _close_held() -> None:
    for file in list(_held):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)


def in_use(run: Path) -> bool:
    """Return whether a process writes to a run now, as far as this machine's locks tell."""
    try:
        with open(run / LOCK, encoding="utf-8") as file:
            flock(file, shared=True)
    except OSError as e:
        return is_busy(e)
    return False


def is_busy(e: OSError) -> bool:
    """Return whether a lock was refused because another process has it."""
    return e.errno in BUSY and not isinstance(e, PermissionError)
