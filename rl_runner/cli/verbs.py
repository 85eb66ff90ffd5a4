"""Run a verb with the configuration that Hydra composed."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from rl_runner.build import jobs, runs, saved, trust
from rl_runner.build.theirs import naming_their_code
from rl_runner.cli import evaluations
from rl_runner.cli.failures import failure
from rl_runner.cli.table import VERBS
from rl_runner.commands import eval as evaluation
from rl_runner.commands import export as exporting
from rl_runner.commands import play as playing
from rl_runner.launch import search
from rl_runner.launch.task import in_sweep, overrides, shortest
from rl_runner.report.curves import last_return
from rl_runner.run import notes
from rl_runner.run.directory import RunDirectory
from rl_runner.types import UserError


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
    if in_sweep():
        return last_return(_train_in_sweep(cfg, fresh).path)
    typed = [word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.hydra]
    if sweeps := [key for key in typed if key.startswith("hydra.sweep.")]:
        fresh.discard()
        raise UserError(f"{sweeps[0]}: needs -m; the directory of a single run is hydra.run.dir")
    if cfg.resume is not None or cfg.name is not None:
        fresh.discard()  # Hydra has made it
    chosen = "hydra.run.dir" in typed
    return last_return(runs.train(cfg, fresh.path, overrides(), chosen).run)


def _train_in_sweep(cfg: Any, fresh: RunDirectory) -> RunDirectory:
    """Train a job of a sweep; resume it if an earlier attempt in the same sweep directory was interrupted."""
    told, searched = overrides(), search.of_job(cfg)
    path, state = notes.find(Path(HydraConfig.get().sweep.dir), fresh.path, told, ended_only=searched is not None)
    if path != fresh.path:
        fresh.discard()
    if state in notes.ENDED:
        print(f"{path}: {'pruned' if state == notes.PRUNED else 'finished'} already, nothing to do", flush=True)
        return RunDirectory(path)
    explain = functools.partial(failure, VERBS["train"], [])
    with notes.claim(path, known=bool(state)) as run, notes.noted(run.path, told, explain) as ending:
        if searched and searched.pruned():
            print(f"{path}: its trial is pruned", flush=True)
            ending.state = notes.PRUNED
            return run
        prune = searched.prune if searched else runs.never
        if notes.has_checkpoint(run):
            cfg.trust = [*cfg.trust, *trust.needed(saved.plain(cfg))]  # the same words were just typed
            result = runs.resume(cfg, run, told, changes=[], prune=prune)
        else:
            notes.clear(run)
            result = runs.begin(saved.plain(cfg), run, told, prune)
        if result.pruned:
            ending.state = notes.PRUNED
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
    with naming_their_code(lambda: saved.config_of(settings)):
        job = jobs.eval_job(settings)
        score = evaluation.score(job)
    told = overrides() if in_sweep() else []
    words = [word for word in told if not word.startswith("checkpoint=")]
    evaluations.add([str(job.run.path), *words], score)
    evaluation.write(job, score)


def play(cfg: Any) -> None:
    """Play a few episodes on the screen or into a file."""
    _refuse_chdir()
    settings = saved.plain(cfg)
    with naming_their_code(lambda: saved.config_of(settings)):
        playing.run(jobs.play_job(settings))


def export(cfg: Any) -> None:
    """Write a saved agent as a directory for other programs and model hubs."""
    _refuse_chdir()
    settings = saved.plain(cfg)
    with naming_their_code(lambda: saved.config_of(settings)):
        exporting.run(jobs.export_job(settings))
