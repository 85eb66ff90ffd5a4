"""What each verb does with the configuration that Hydra made."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from rl_runner.build import jobs as build
from rl_runner.build import runs, saved, trust
from rl_runner.cli import evaluations
from rl_runner.cli.failures import failure
from rl_runner.commands import eval as evaluation
from rl_runner.commands import play as playing
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
    """Train; return the mean return of the last evaluation, for a sweeper that looks for the best."""
    _refuse_chdir()
    fresh = RunDirectory(shortest(Path(HydraConfig.get().runtime.output_dir)))
    if in_sweep():
        return last_return(_train_in_sweep(cfg, fresh).path)
    if cfg.resume is not None or cfg.name is not None:
        fresh.discard()  # Hydra has made it
    chosen = any(word.lstrip("+").startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra)
    return last_return(runs.train(cfg, fresh.path, overrides(), chosen).run)


def _train_in_sweep(cfg: Any, fresh: RunDirectory) -> RunDirectory:
    """Train a job of a sweep, from where an earlier attempt in the same sweep directory left it."""
    told = overrides()
    path, state = notes.find(Path(HydraConfig.get().sweep.dir), fresh.path, told)
    if path != fresh.path:
        fresh.discard()
    if state == notes.FINISHED:
        print(f"{path}: finished already, nothing to do", flush=True)
        return RunDirectory(path)
    explain = functools.partial(failure, "train", [])
    with notes.claim(path, known=bool(state)) as run, notes.noted(run.path, told, explain):
        if notes.has_checkpoint(run):
            cfg.trust = [*cfg.trust, *trust.needed(saved.plain(cfg))]  # the same words were just typed
            runs.resume(saved.resumed_config(run, cfg, []), run, told)
        else:
            notes.clear(run)
            runs.begin(saved.plain(cfg), run, told)
    return run


def eval(cfg: Any) -> None:
    """Evaluate the run that is named, or each of several. One that cannot be evaluated does not lose the others."""
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
            line, trace, _ = failure("eval", [], e)
            failed.append(line if line.startswith((f"{name}:", f"{name}/")) else f"{name}: {line}")
            if trace:
                print(trace, file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(named)} runs failed: {'; '.join(failed)}")


def _eval_one(settings: dict[str, Any]) -> None:
    job = build.eval_job(settings)
    score = evaluation.score(job)
    told = overrides() if in_sweep() else []
    words = [word for word in told if not word.startswith("checkpoint=")]
    evaluations.add([str(job.run.path), *words], score)
    evaluation.write(job, score)


def play(cfg: Any) -> None:
    """Play a few episodes on the screen or into a file."""
    _refuse_chdir()
    playing.run(build.play_job(saved.plain(cfg)))
