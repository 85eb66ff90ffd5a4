"""A run's directory: where things are in it, and that only one process writes to it.

docs/metrics.md lists its files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from rl_runner.run.checkpoint import SNAPSHOTS, Checkpoints, Damaged, about, load
from rl_runner.run.files import (
    CHECKPOINTS,
    CONFIG,
    CURVES,
    EPISODES,
    LOCK,
    LOG,
    MANIFEST,
    OUTPUTS,
    TABLE,
    latest_run,
    remove_unused,
)
from rl_runner.run.lock import BUSY, close_in_forks, flock_patiently, is_at
from rl_runner.run.weights import load_agent_state
from rl_runner.types import Agent, State, UserError, one_line

NAMES = 1_000  # directories that are tried for a new run: name, name_2, ..., name_1000


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / CONFIG
        self.log = path / LOG
        self.checkpoints = path / CHECKPOINTS
        self.evaluations = path / "eval"
        self.videos = path / "videos"
        self._lock: Any = None
        self._unlocked: str | None = None  # why it could not be locked, where it was tried

    @classmethod
    def new(cls, path: Path) -> RunDirectory:
        """Claim a directory for a new run: `path`, or the first of path_2, path_3, ... that holds none.

        A run without its configuration, as of a copy that was not complete, is one too: it is not written over.

        Raises:
            UserError: no directory can be written, or none of the names is free.
        """
        for number in range(1, (NAMES if path.name else 1) + 1):  # "." has no name to add a number to
            run = cls(path.with_name(f"{path.name}_{number}") if number > 1 else path)
            try:
                run.path.mkdir(parents=True, exist_ok=True)
                claimed = run._try_lock(new=True) and not run.holds_a_run()
            except OSError as e:
                run.discard()
                raise UserError(f"hydra.run.dir: {_not_written(run.path, e)}") from e
            if claimed:
                return run
            run.release()
        taken = f"{path} to {run.path} are taken by other runs" if path.name else f"{path} is taken by another run"
        raise UserError(f"hydra.run.dir: {taken}; choose another directory")

    def holds_a_run(self) -> bool:
        """Return whether a run has written its configuration here, or what it learned and measured."""
        files = (self.config, *(self.path / name for name in (TABLE, EPISODES)))
        return any(file.exists() for file in files) or any(self.checkpoints.glob("*_*"))

    @classmethod
    def to_resume(cls, name: str) -> RunDirectory:
        """Return the directory of an existing run, without claiming it.

        Raises:
            UserError: no run is there.
        """
        try:
            return cls.existing(name)
        except UserError as e:
            raise UserError(f"resume: {str(e).removeprefix('run: ')}") from e

    @classmethod
    def resumed(cls, name: str) -> RunDirectory:
        """Claim the directory of an existing run.

        Raises:
            UserError: no run is there, it cannot be written, or another process is at it.
        """
        run = cls.to_resume(name)
        run.refuse_links()  # before the lock's file, which may be one, is opened
        try:
            claimed = run._try_lock()
        except OSError as e:
            raise UserError(f"resume: {_not_written(run.path, e)}") from e
        if not claimed:
            raise UserError(f"resume: {run.path} is in use by another process")
        return run

    def refuse_links(self) -> None:
        """Refuse a run whose files are symbolic links: it may be a stranger's, and files elsewhere would be written.

        A link named checkpoints is allowed, to a larger disk: what is written below it has names of its own.

        Raises:
            UserError: one of them is a link.
        """
        for path in (*self.path.iterdir(), *self.evaluations.glob("*"), *(self.path / CURVES).glob("*")):
            if path.is_symlink() and path != self.checkpoints:
                raise UserError(f"{path}: is a symbolic link, and would be written to; replace it by what it links to")

    @classmethod
    def find(cls, name: str, which: str) -> tuple[RunDirectory, Path]:
        """Find the run and the checkpoint that a person means.

        Args:
            name: a run's directory, a checkpoint's directory, or "latest".
            which: which of a run's checkpoints: best, last, or a step.

        Raises:
            UserError: there is no such thing, or a checkpoint is named and `which` as well.
        """
        path = Path(name)
        if os.path.isfile(path / MANIFEST):  # False also for a name that is too long
            if which != "best":
                raise UserError(f"which: must be left out, because {name} is a checkpoint, got {which}")
            path = path.resolve()
            run = cls(path.parents[2 if path.parent.name == SNAPSHOTS else 1])
            if not run.config.is_file():
                raise UserError(f"checkpoint: {run.config}, the configuration of {path}, is missing")
            return run, path
        run = cls.existing(name)
        return run, Checkpoints(run.checkpoints).find(which)

    @classmethod
    def existing(cls, name: str) -> RunDirectory:
        if name == "latest":
            return cls(latest_run())
        if not name.strip():
            raise UserError("run: must be a run's directory or latest, got an empty name")
        run = cls(Path(name))
        above = next((path for path in run.path.parents if os.path.isfile(path / CONFIG)), None)
        if not os.path.isdir(run.path):
            what = " is a file" if os.path.exists(run.path) else ": no such directory"
            raise UserError(f"{name}{what}; name a run's directory, {f'such as {above}, ' if above else ''}or latest")
        if (run.path / MANIFEST).is_file():
            raise UserError(f"{name} is a checkpoint; name its run, which goes on from the newest one")
        if not run.config.is_file():
            inside = sorted(file.parent for file in run.path.glob(f"*/{CONFIG}"))
            if inside:
                hint = f"name one of its runs, such as {inside[0]}"
            elif above:
                hint = f"name its run, {above}"
            else:
                hint = f"runs are in {OUTPUTS}/<env>/<agent>/"
            raise UserError(f"{name} is no run, because it holds no {CONFIG}; {hint}")
        return run

    @staticmethod
    def load_agent(agent: Agent, checkpoint: Path, facts: State, state: State) -> None:
        """Load what `read_agent` returned into a fresh agent.

        Raises:
            UserError: it is of another shape.
        """
        try:
            load_agent_state(agent, state, facts)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            raise UserError(f"checkpoint {checkpoint} does not fit its configuration: {one_line(e)[:300]}") from e

    @classmethod
    def read_agent(cls, name: str, which: str) -> tuple[Path, State, State]:
        """Read a saved agent; look again where the run, which may still be training, has replaced it meanwhile.

        Args:
            name: as for `find`.
            which: as for `find`.

        Returns:
            its checkpoint, the facts about it (`about`), and its state.

        Raises:
            UserError: there is none, or it is damaged.
        """
        _, checkpoint = cls.find(name, which)
        while True:
            try:
                facts, state = about(checkpoint), load(checkpoint, only=["agent"])
                if "agent" not in state:
                    raise Damaged(f"checkpoint {checkpoint} holds no agent")
                if not isinstance(facts.get("steps"), int):
                    raise Damaged(f"checkpoint {checkpoint} does not say at which step it was saved")
                return checkpoint, facts, state["agent"]
            except Damaged:
                before = checkpoint
                _, checkpoint = cls.find(name, which)
                if checkpoint == before:
                    raise

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
                passed_over.append(f"skipped: {e}")
        raise UserError("; ".join([f"resume: {self.path} holds no whole checkpoint", *passed_over]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def facts(self) -> list[tuple[str, str]]:
        """Return what a user should know of the directory: its path, and whether other processes are kept out."""
        lock = [("lock", f"none here ({self._unlocked}); keep other processes out")] if self._unlocked else []
        return [("run", str(self.path)), *lock]

    def release(self) -> None:
        """Unlock the directory for other processes."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def discard(self) -> None:
        """Remove a directory that was made for nothing; whatever else it holds stays."""
        if self._lock:
            file = self.path / LOCK
            try:
                file.unlink(missing_ok=True)  # while it is locked, so that it is nobody else's
                self.release()
            except PermissionError:  # on Windows open files stay
                self.release()
                file.unlink(missing_ok=True)
        remove_unused(self.path)

    def _try_lock(self, new: bool = False) -> bool:
        """Lock the directory for as long as this process lives; False: another process has it.

        On a file system without locks a run goes on without one, and `facts` says why.

        Args:
            new: the directory is for a new run. Without locks, the one who makes the lock's file has claimed it.
        """
        try:
            lock, made = open(self.path / LOCK, "x"), True  # noqa: SIM115 - open as long as the run
        except FileExistsError:
            lock, made = open(self.path / LOCK, "a"), False  # noqa: SIM115
        try:
            flock_patiently(lock)
        except OSError as e:
            if e.errno in BUSY or (new and not made):
                lock.close()
                return False
            self._unlocked = e.strerror
        if not self._unlocked and not is_at(self.path / LOCK, lock):  # its owner has discarded the directory meanwhile
            lock.close()
            return False
        close_in_forks(lock)
        self._lock = lock
        return True


def _not_written(path: Path, e: OSError) -> str:
    return f"{path} cannot be written: {e.strerror}"
