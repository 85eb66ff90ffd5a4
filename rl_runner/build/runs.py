"""A run from its configuration to its end: begun, or resumed. What the command line and the Python API share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rl_runner.build import checks, saved
from rl_runner.build.jobs import train_job
from rl_runner.commands import train as training
from rl_runner.commands.train import TrainJob
from rl_runner.results import TrainResult
from rl_runner.run import notes, provenance
from rl_runner.run.directory import RunDirectory
from rl_runner.types import State


def train(cfg: Any, directory: Path, words: Sequence[str], chosen: bool) -> TrainResult:
    """Train a new run, or resume the one that `cfg.resume` names.

    Args:
        cfg: the configuration as Hydra composed it.
        directory: where a new run goes.
        words: the configuration's own words, as they were typed.
        chosen: the user chose the directory; otherwise the run's name is added to it.
    """
    if cfg.resume is not None:
        with RunDirectory.resumed(cfg.resume) as run:
            return resume(saved.resumed_config(run, cfg, list(words)), run, words, notes.resumed(run.path))
    if cfg.name is not None and not chosen:
        checks.require({"name": cfg.name}, {"name": checks.TRAINING["name"]})  # before it is a directory's
        directory = directory.with_name(f"{directory.name}_{cfg.name}")
    with RunDirectory.new(directory) as run:
        return begin(saved.plain(cfg), run, words)


def begin(cfg: State, run: RunDirectory, words: Sequence[str]) -> TrainResult:
    """Train a new run."""
    try:
        job = train_job(cfg, run)
        saved.save_run_config(run, job.config)
        provenance.record(run.path, words)
    except BaseException:
        run.discard()
        raise
    with _kept(job):
        return training.train(job)


def resume(
    cfg: State, run: RunDirectory, words: Sequence[str], noted: AbstractContextManager[None] | None = None
) -> TrainResult:
    """Resume a run with the configuration that it has from now on."""
    job = train_job(cfg, run, resumed=True)
    saved.save_run_config(run, job.config)
    provenance.record(run.path, words)
    with noted or contextlib.nullcontext(), _kept(job):
        return training.train(job, resume=True)


@contextlib.contextmanager
def _kept(job: TrainJob) -> Iterator[None]:
    """Write a run's configuration again where its directory was moved or deleted, and checkpoints were written since.

    Without it they could be neither resumed nor evaluated.
    """
    try:
        yield
    finally:
        run = job.run
        if run.checkpoints.is_dir() and not run.config.exists():
            saved.save_run_config(run, job.config)
            print(f"{run.path} was moved or deleted meanwhile; it now holds what was written since, and config.yaml")
