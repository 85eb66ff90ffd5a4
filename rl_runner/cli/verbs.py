"""Run a verb with the configuration that Hydra composed."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from rl_runner.build import jobs as build
from rl_runner.build import saved, trust
from rl_runner.cli import evaluations
from rl_runner.cli.failures import failure
from rl_runner.cli.table import VERBS
from rl_runner.cli.theirs import naming_their_code
from rl_runner.commands import eval as evaluation
from rl_runner.commands import play as playing
from rl_runner.commands import train as training
from rl_runner.commands.train import TrainJob
from rl_runner.launch.task import in_sweep, overrides, shortest
from rl_runner.report.curves import last_return
from rl_runner.run import notes
from rl_runner.run.directory import RunDirectory
from rl_runner.types import State, UserError


def _refuse_chdir() -> None:
    """Check that Hydra left the job in the user's directory: the paths of a command line are relative to that.

    Raises:
        UserError: hydra.job.chdir is true.
    """
    config = HydraConfig.get()
    if config.job.chdir:
        os.chdir(config.runtime.cwd)
        RunDirectory(shortest(Path(config.runtime.output_dir))).discard()  # Hydra has made it
        raise UserError("hydra.job.chdir: must be false: paths are relative to the directory that rlrun is started in")


def train(cfg: Any) -> float:
    """Train; return the mean return of the last evaluation, which a sweeper may maximise."""
    _refuse_chdir()
    fresh = RunDirectory(shortest(Path(HydraConfig.get().runtime.output_dir)))
    if cfg.resume is not None:
        fresh.discard()  # Hydra has made it
        with RunDirectory.resumed(cfg.resume) as run:
            _train_on(cfg, run, overrides(), notes.resumed(run.path))
    elif in_sweep():
        run = _train_in_sweep(cfg, fresh)
    else:
        with RunDirectory.new(fresh.path) as run:
            _train_anew(cfg, run)
    return last_return(run.path)


@contextlib.contextmanager
def _kept(job: TrainJob) -> Iterator[None]:
    """Write config.yaml again at the end if the run's directory was moved or deleted meanwhile.

    Without it the checkpoints written since could be neither resumed nor evaluated.
    """
    try:
        yield
    finally:
        run = job.run
        if run.checkpoints.is_dir() and not run.config.exists():
            saved.save_run_config(run, job.config)
            print(f"{run.path} was moved or deleted meanwhile; it now holds what was written since, and config.yaml")


def _train_anew(cfg: Any, run: RunDirectory) -> None:
    try:
        config = saved.plain(cfg)
        with naming_their_code(lambda: config):
            job = build.train_job(config, run)
        _save_config(job, mine=True)
    except BaseException:
        run.discard()
        raise
    with _kept(job), naming_their_code(lambda: config):
        training.train(job)


def _save_config(job: TrainJob, mine: bool) -> None:
    """Write the run's configuration; remember that the user trusts it if the run was started by this user, here."""
    saved.save_run_config(job.run, job.config)
    if mine and trust.remember(job.run.config, job.trust):
        job.trust = []  # need not be named to evaluate or resume the run


def _train_on(cfg: Any, run: RunDirectory, changes: list[str], noted: AbstractContextManager[None]) -> None:
    mine = trust.remembered(run.config)
    config = saved.resumed_config(run, cfg, changes)
    before = training.flatten(saved.load_run_config(run, list(cfg.trust)))
    with naming_their_code(lambda: config):
        job = build.train_job(config, run)
    job.changes = training.differences(dict(before), dict(training.flatten(job.config)))
    _save_config(job, mine=set(job.trust) <= set(mine))
    with noted, _kept(job), naming_their_code(lambda: config):
        training.train(job, resume=True)


def _train_in_sweep(cfg: Any, fresh: RunDirectory) -> RunDirectory:
    """Train a job of a sweep; resume it if an earlier attempt in the same sweep directory was interrupted."""
    told = overrides()
    path, state = notes.find(Path(HydraConfig.get().sweep.dir), fresh.path, told)
    if path != fresh.path:
        fresh.discard()
    if state == notes.FINISHED:
        print(f"{path}: finished already, nothing to do", flush=True)
        return RunDirectory(path)
    explain = functools.partial(failure, VERBS["train"], [])
    with notes.claim(path, known=bool(state)) as run, notes.noted(run.path, told, explain):
        if notes.has_checkpoint(run):
            cfg.trust = [*cfg.trust, *trust.needed(saved.plain(cfg))]  # the same words were just typed
            _train_on(cfg, run, [], contextlib.nullcontext())
        else:
            notes.clear(run)
            _train_anew(cfg, run)
    return run


def eval(cfg: Any) -> None:
    """Evaluate one run or several. One that cannot be evaluated does not stop the others."""
    _refuse_chdir()
    settings = saved.plain(cfg)
    named = settings["checkpoint"]
    if not isinstance(named, list) or not named:
        _eval_one(settings)
        return
    failed: list[str] = []
    for name in named:
        try:
            _eval_one({**settings, "checkpoint": name})
        except Exception as e:
            line, trace, _ = failure(VERBS["eval"], [], e)
            failed.append(line if line.startswith((f"{name}:", f"{name}/")) else f"{name}: {line}")
            if trace:
                print(f"rlrun: {line}\n{trace}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(named)} runs failed: {'; '.join(failed)}")


def _eval_one(settings: dict[str, Any]) -> None:
    with naming_their_code(lambda: _config_of(settings)):
        job = build.eval_job(settings)
        score = evaluation.score(job)
    told = overrides() if in_sweep() else []
    words = [word for word in told if not word.startswith("checkpoint=")]
    evaluations.add([str(job.run.path), *words], score)
    evaluation.write(job, score)


def play(cfg: Any) -> None:
    """Play a few episodes on the screen or into a file."""
    _refuse_chdir()
    settings = saved.plain(cfg)
    with naming_their_code(lambda: _config_of(settings)):
        playing.run(build.play_job(settings))


def _config_of(settings: State) -> State:
    """Return the configuration of the run that is evaluated or watched, or that of a random agent."""
    if settings["checkpoint"] is None:
        return settings
    run, _ = RunDirectory.find(settings["checkpoint"], str(settings["which"]))
    return saved.load_run_config(run, settings["trust"])
