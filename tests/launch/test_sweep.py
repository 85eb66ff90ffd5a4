"""A job in a process of a launcher's: signals, and a cluster that queues the job again."""

import math
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from rl_runner.commands import train
from rl_runner.launch import sweep, task
from rl_runner.run import notes


@pytest.fixture(autouse=True)
def _signals_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(task, "_stopped", [])
    for name in ("_announce", "_remove_unused"):
        monkeypatch.setattr(task, name, lambda: None)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def elsewhere(work: Any) -> task.Task:
    return task.Task(work, notes.failure_of, noted=True, home=("elsewhere", 1))


def test_a_clusters_handler_runs_when_the_job_has_saved() -> None:
    events: list[str] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: events.append("queued again"))

    def work(cfg: Any) -> float:
        with train._signals() as received:
            os.kill(os.getpid(), signal.SIGUSR2)
            while not received:
                pass
            events.append("saved")
        raise train.Interrupted(128 + received[0])

    assert math.isnan(elsewhere(work)({}))
    assert events == ["saved", "queued again"]


def test_a_process_that_was_told_to_stop_begins_no_job() -> None:
    begun: list[Any] = []

    def work(cfg: Any) -> float:
        begun.append(cfg)
        os.kill(os.getpid(), signal.SIGTERM)  # while it builds, before training handles signals
        return 1.0

    assert math.isnan(elsewhere(work)(1))
    os.kill(os.getpid(), signal.SIGTERM)  # while it waits for its next job
    assert begun == [1]


def test_a_machine_without_slurm_is_one_line() -> None:
    e = RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')
    refused = sweep._refused(task.Task(lambda cfg: None, notes.failure_of, noted=True), e)
    assert refused.trace is None
    assert refused.exit_code == 2
    assert refused.line.startswith("hydra/launcher: there is no srun here, so no Slurm: ")
