"""Adapters for Hydra's launchers: one dead job is one failed job, and at a signal all jobs save and stop.

Without them, the launchers for joblib, submitit and Ray end the sweep when the first job dies.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

Stop = Callable[[int], bool]  # sends a signal to the processes of jobs; returns whether there are any

BROKEN = (
    "the process of a job died, and joblib has ended the others; the same command with hydra.sweep.dir={} runs what is "
    "missing; with hydra/launcher=processes the others continue"
)
# Whose jobs write to files, not to the terminal.
QUIET = ("processes", "ray", "slurm", "submitit_local", "submitit_slurm")
NO_CLUSTER = (
    "hydra/launcher: there is no srun here, so no Slurm: give the command on a cluster's login node; "
    "hydra/launcher=processes uses this machine"
)
PLUGINS = str(Path(__file__).parent / "plugins")  # where Hydra finds the launcher and the sweeper of this package
LOGS = "logs"  # the directory in that of a sweep for what jobs in processes of their own print
NO_VALUE = math.nan  # of a job that failed, as sweepers take it
received: list[int] = []  # signals that stop this command: no further job starts


def is_broken(e: Exception) -> bool:
    """Return whether joblib has given up because a process died."""
    return type(e).__name__ == "TerminatedWorkerError"


def is_no_cluster(e: Exception) -> bool:
    """Return whether submitit found no Slurm on this machine."""
    return type(e) is RuntimeError and '"srun"' in str(e)


def returned(value: float) -> JobReturn:
    """Return what a launcher hands to the sweeper for a job that returned a value."""
    return JobReturn(_return_value=value, status=JobStatus.COMPLETED)


@contextlib.contextmanager
def adapted(launcher: str) -> Iterator[Stop]:
    """Change a launcher so that a dead job does not end the sweep; yield the function that stops its jobs.

    Args:
        launcher: the chosen option of the group hydra/launcher.
    """
    dead = returned(NO_VALUE)
    if launcher in ("processes", "joblib"):
        yield _stop_children
    elif launcher in ("slurm", "submitit_local", "submitit_slurm"):
        with _submitit(launcher == "submitit_local", dead) as stop:
            yield stop
    elif launcher == "ray":
        from rl_runner.launch import on_ray

        with on_ray.adapted(dead) as stop:
            yield stop
    else:
        yield lambda number: False


def _stop_children(number: int) -> bool:
    children = multiprocessing.active_children()
    for child in children:
        _send(child.pid, number)
    return bool(children)


def _send(pid: int | None, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, number)


def say_died(job: int, log: object) -> None:
    """Report that the process of a job died, unless this command is being stopped."""
    if not received:
        print(f"rlrun: job {job}: its process died; its output: {log}", file=sys.stderr)


@contextlib.contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Give an attribute another value for a while."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


@contextlib.contextmanager
def _submitit(local: bool, dead: JobReturn) -> Iterator[Stop]:
    import submitit

    submit = submitit.AutoExecutor.map_array
    begun: list[Any] = []

    class Waited:
        """One job, as the launcher waits for it."""

        def __init__(self, number: int, job: Any) -> None:
            self.number, self.job = number, job

        def results(self) -> list[Any]:
            try:
                return list(self.job.results())
            except Exception:  # whose text is the whole log
                say_died(self.number, self.job.paths.stderr)
                return [dead]

    def map_array(executor: Any, work: Any, *arguments: Any) -> list[Waited]:
        begun[:] = submit(executor, work, *arguments)
        return [Waited(call[2], job) for call, job in zip(zip(*arguments, strict=True), begun, strict=True)]

    def stop(number: int) -> bool:
        if not local:
            print("the jobs stay with the cluster; to end them: scancel JOB", file=sys.stderr)
            return False
        for job in begun:
            if not job.done():
                _send(int(job.job_id), signal.SIGTERM)  # which it passes on; SIGINT would give the job one second
        return bool(begun)

    with replaced(submitit.AutoExecutor, "map_array", map_array):
        yield stop
