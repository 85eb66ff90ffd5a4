"""`hydra/launcher=processes`: run each job in its own process, several at the same time.

A job that fails or dies does not affect the others. When this process is stopped or dies, the jobs save and end.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rl_runner.launch import launchers
from rl_runner.report.curves import last_return
from rl_runner.run import notes


class Processes(Launcher):
    """Runs the jobs of a sweep in processes of their own, which share the CPU cores and take the GPUs in turn.

    Args:
        n_jobs: how many run at the same time; -1: as many as there are CPU cores.
    """

    def __init__(self, n_jobs: int = -1) -> None:
        self.n_jobs = n_jobs if n_jobs > 0 else os.cpu_count() or 1

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what the jobs need."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs; return their results, and a failed one for each job that died or never started."""
        setup_globals()
        logs = Path(self.config.hydra.sweep.dir) / launchers.LOGS
        logs.mkdir(parents=True, exist_ok=True)
        waiting = collections.deque(enumerate(job_overrides, initial_job_idx))
        failed = launchers.returned(launchers.NO_VALUE)
        returned = {number: failed for number, _ in waiting}
        running: list[Job] = []
        while running or (waiting and not launchers.received):
            while waiting and len(running) < self.n_jobs and not launchers.received:
                number, overrides = waiting.popleft()
                told, log = filter_overrides(overrides), logs / f"{number}.log"
                run, state = notes.find(logs.parent, logs.parent / str(number), told)
                if state == notes.FINISHED:  # no process is needed to find that out
                    returned[number] = launchers.returned(last_return(run))
                    continue
                print(f"job {number}: {', '.join(told)}; output: {log}", flush=True)
                place = min(set(range(self.n_jobs)) - {job.place for job in running})
                config = self._configuration(number, overrides)
                with _environment(share(place, self.n_jobs, str(config.get("device")), os.environ, gpus())):
                    running.append(Job(number, place, log, self.context, config, self.task))
            if running:  # all that were waiting may have finished before
                wait([thing for job in running for thing in (job.answer, job.process.sentinel)])
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                returned[job.number] = job.result() or failed
        return list(returned.values())

    def _configuration(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return config


class Job:
    """A job that was started in its own process.

    Args:
        number: the number of the job.
        place: among those that run at the same time, from 0 on.
        log: file that all output is appended to.
        context: Hydra's.
        config: the job's configuration.
        task: runs the job.
    """

    def __init__(
        self, number: int, place: int, log: Path, context: HydraContext, config: DictConfig, task: TaskFunction
    ) -> None:
        self.number, self.place, self.log = number, place, log
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads, held or not
        self.answer, theirs = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=_run_job, args=(str(log), context, config, task, theirs))
        self.process.start()
        theirs.close()

    def ended(self) -> bool:
        """Return whether the job has returned or died."""
        return self.answer.poll() or not self.process.is_alive()

    def result(self) -> JobReturn | None:
        """Wait for the process to end; return the job's result, None if it died."""
        try:
            result: JobReturn | None = self.answer.recv()
        except (EOFError, OSError):
            launchers.say_died(self.number, self.log)
            result = None
        self.process.join()
        return result


def share(place: int, jobs: int, device: str, told: Mapping[str, str], gpus: int) -> dict[str, str]:
    """Return the environment variables that give a job its share of the CPU cores and one GPU.

    Args:
        place: of the job among those that run at the same time, from 0 on.
        jobs: how many may run at the same time.
        device: that the job was told; cuda:1 and others with a number are left alone.
        told: the environment variables that the user has set; OMP_NUM_THREADS is left alone.
        gpus: how many the machine has.
    """
    found = {}
    if "OMP_NUM_THREADS" not in told:
        found["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    names = told["CUDA_VISIBLE_DEVICES"].split(",") if "CUDA_VISIBLE_DEVICES" in told else list(map(str, range(gpus)))
    if device in ("auto", "cuda") and gpus > 1:
        found["CUDA_VISIBLE_DEVICES"] = names[place % gpus]
    return found


def gpus() -> int:
    """Return how many GPUs torch sees here."""
    import torch

    return torch.cuda.device_count()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while: a process that is started meanwhile has them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_job(log: str, context: HydraContext, config: DictConfig, task: TaskFunction, answer: Any) -> None:
    """Run a job; this is the main function of its process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    setup_globals()
    result = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    result.cfg = result.hydra_cfg = None  # no sweeper uses them, and they need not be sent
    with contextlib.suppress(OSError):  # the sweep's process is gone
        answer.send(result)


def _end_with_the_sweep() -> None:
    """End this process, saved, when its parent process dies."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
