"""A run's directory: where things are in it, and that only one process writes to it.

config.yaml  train.log  metrics.csv  tensorboard/  checkpoints/  eval/  videos/
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any, Self

from rl_runner.checkpoint import MANIFEST, Checkpoints, Damaged, load
from rl_runner.types import Agent, State, UserError

OUTPUTS = Path("outputs")


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "train.log"
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "eval"
        self.videos = path / "videos"
        self._lock: Any = None

    @classmethod
    def new(cls, path: Path) -> RunDirectory:
        """Claim a directory for a new run: `path`, or the first of path_2, path_3, ... that holds none."""
        number = 1
        while True:
            run = cls(path if number == 1 else path.with_name(f"{path.name}_{number}"))
            run.path.mkdir(parents=True, exist_ok=True)
            if run._try_lock() and not run.config.exists():
                return run
            run.release()
            number += 1

    @classmethod
    def resumed(cls, name: str) -> RunDirectory:
        """Claim the directory of an existing run.

        Raises:
            UserError: no run is there, or another process is at it.
        """
        run = cls._existing(name)
        if not run._try_lock():
            raise UserError(f"resume: {run.path} is in use by another process")
        return run

    @classmethod
    def find(cls, name: str, which: str) -> tuple[RunDirectory, Path]:
        """Find the run and the checkpoint that a person means.

        Args:
            name: a run's directory, a checkpoint's directory, or "latest".
            which: which of a run's checkpoints: best, last, or a step.

        Raises:
            UserError: there is no such thing.
        """
        path = Path(name)
        if (path / MANIFEST).is_file():
            path = path.resolve()
            run = cls(path.parent.parent)
            if not run.config.is_file():
                raise UserError(f"checkpoint: {run.config}, the configuration of {path}, is missing")
            return run, path
        run = cls._existing(name)
        return run, Checkpoints(run.checkpoints).find(which)

    @classmethod
    def _existing(cls, name: str) -> RunDirectory:
        if name == "latest":
            return cls(_latest())
        run = cls(Path(name))
        if not run.path.is_dir():
            raise UserError(f"{name}: no such directory; a run's directory is wanted, or latest")
        if not run.config.is_file():
            raise UserError(f"{name} is no run: it holds no config.yaml; runs are under {OUTPUTS}/<env>/<agent>/")
        return run

    @staticmethod
    def load_agent(agent: Agent, checkpoint: Path) -> None:
        """Put a saved agent into a fresh one.

        Raises:
            UserError: the checkpoint is damaged, or of another shape.
        """
        state = load(checkpoint, only=["agent"])
        try:
            agent.load_state_dict(state["agent"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise UserError(f"checkpoint {checkpoint} does not fit its configuration: {_first_lines(e)}") from e

    def load_newest(self) -> tuple[Path, State, list[str]]:
        """Load the newest checkpoint that is whole.

        Returns:
            its path, its state, and a line for each newer one that had to be passed over.

        Raises:
            UserError: there is none.
        """
        passed_over: list[str] = []
        for path in Checkpoints(self.checkpoints).newest():
            try:
                return path, load(path), passed_over
            except Damaged as e:
                passed_over.append(f"passed over: {e}")
        raise UserError("; ".join([f"resume: {self.path} holds no whole checkpoint", *passed_over]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the directory free for other processes."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def discard(self) -> None:
        """Give up a directory that was claimed for nothing; whatever it may hold already stays."""
        self.release()
        (self.path / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # removes what is empty, upwards
            os.removedirs(self.path)

    def _try_lock(self) -> bool:
        """Lock the directory for as long as this process lives."""
        lock = open(self.path / ".lock", "w")  # noqa: SIM115 - open as long as the run
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True


def _latest() -> Path:
    runs = sorted(OUTPUTS.glob("**/config.yaml"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise UserError(f"latest: no runs under {OUTPUTS}/ in this directory yet")
    return runs[-1].parent


def _first_lines(e: Exception) -> str:
    return " ".join(str(e).split())[:300]
