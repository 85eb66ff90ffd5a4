"""Run a job when Hydra calls it, in this process or in a launcher's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from rl_runner import streams
from rl_runner.launch import launchers
from rl_runner.run.files import remove_unused
from rl_runner.run.notes import Failure
from rl_runner.types import UserError


def overrides() -> list[str]:
    """Return the overrides of the running job, as they were typed."""
    return [str(word) for word in OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False) or []]


def in_sweep() -> bool:
    """Return whether the running job is part of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def shortest(path: Path) -> Path:
    """Return a path relative to the current directory where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _here() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


@dataclass
class Task:
    """Hydra calls this for each job. Launchers send it to other processes, so it is small and can be pickled.

    A job that fails returns no value instead of raising: an exception would end most launchers and sweepers.

    Attributes:
        work: runs a job, given its configuration; returns what a sweeper may optimise.
        explain: returns why a job failed.
        noted: jobs of a sweep note how they ended, so that the sweep's process can read it.
        failed: the overrides and the failure of each job that failed in this process.
    """

    work: Callable[[Any], float | None]
    explain: Callable[[Exception], Failure]
    noted: bool
    failed: list[tuple[list[str], Failure]] = field(default_factory=list)
    home: tuple[str, int] = field(default_factory=_here)

    def __call__(self, cfg: Any) -> float | None:
        """Run a job."""
        if _here() != self.home:
            return self._elsewhere(cfg)
        _announce()
        try:
            return self.work(cfg)
        except Exception as e:
            self.failed.append((overrides(), self.explain(e)))
            return launchers.NO_VALUE
        except SystemExit:
            remove_unused(shortest(Path(HydraConfig.get().runtime.output_dir)))  # Hydra has made it
            raise

    def _elsewhere(self, cfg: Any) -> float | None:
        """Run a job in a launcher's process; once that is being stopped, no further job starts in it."""
        streams.protect()
        with _obeying_signals() as stopped:
            if stopped:
                _remove_unused()
                return launchers.NO_VALUE
            _announce()
            try:
                return self.work(cfg)
            except Exception as e:
                failure = self.explain(e)
                print(
                    f"rlrun: {', '.join(overrides())}: {failure.line}\n{failure.trace or ''}", end="", file=sys.stderr
                )
                if self.noted:
                    return launchers.NO_VALUE
                raise UserError(failure.line) from None  # the launcher brings the first one back
            except (SystemExit, KeyboardInterrupt):
                stopped.append(signal.SIGTERM)
                _remove_unused()
                return launchers.NO_VALUE


def _remove_unused() -> None:
    """Remove the directory that Hydra has made for the running job if nothing was written into it."""
    with contextlib.suppress(OSError):
        os.rmdir(HydraConfig.get().runtime.output_dir)


def _announce() -> None:
    if in_sweep():
        print(f"\njob {HydraConfig.get().job.num}: {', '.join(overrides())}", flush=True)


_stopped: list[int] = []  # signals that stop this process, one of a launcher's: its state, from one job to the next


@contextlib.contextmanager
def _obeying_signals() -> Iterator[list[int]]:
    """Handle signals in a launcher's process: the running job saves and ends, and no further job starts.

    A handler that the cluster installed, which requeues the job, is called after the job has saved.
    """
    busy = True
    warned: list[int] = []

    def stop(number: int, _: object) -> None:
        _stopped.append(number)
        if busy:
            raise SystemExit(128 + number)

    def warn(number: int, _: object) -> None:
        warned.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    cluster = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    theirs: dict[int, Any] = {n: signal.getsignal(n) for n in cluster if callable(signal.getsignal(n))}
    for name in theirs:
        signal.signal(name, warn)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    try:
        yield _stopped
    finally:
        busy = False  # where nobody else handled SIGTERM, `stop` stays: an idle process must not die of it
        for name, handler in theirs.items():
            signal.signal(name, handler)
    for name in warned:
        theirs[name](name, None)
