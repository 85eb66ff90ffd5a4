"""A run from its configuration to its end: begun, or resumed. What the command line and the Python API share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from rl_runner.build import checks, saved, trust
from rl_runner.build.jobs import train_job
from rl_runner.build.theirs import naming_their_code
from rl_runner.commands import train as training
from rl_runner.commands.train import TrainJob
from rl_runner.report.runs import flatten
from rl_runner.results import TrainResult
from rl_runner.run import notes, provenance
from rl_runner.run.directory import RunDirectory
from rl_runner.run.files import CONFIG, PROVENANCE, modified, saved_step
from rl_runner.types import State, UserError

Prune = Callable[[int, float], bool]


def never(step: int, mean: float) -> bool:
    """Prune nothing."""
    return False


def train(cfg: Any, directory: Path, words: Sequence[str], chosen: bool, there: bool = False) -> TrainResult:
    """Train a new run, or resume the one that `cfg.resume` names.

    Args:
        cfg: the configuration as Hydra composed it.
        directory: where a new run goes.
        words: the configuration's own words, as they were typed.
        chosen: the user chose the directory; otherwise the run's name is added to it.
        there: a new run must be in that directory; otherwise another name is taken where it is not free.
    """
    if cfg.resume == saved.AUTO:
        return _start_or_resume(cfg, directory, words, chosen)
    if cfg.resume is not None:
        with RunDirectory.resumed(cfg.resume) as run:
            if chosen and directory.resolve() != run.path.resolve():
                raise UserError(f"hydra.run.dir: must be left out with resume={cfg.resume}: the run stays where it is")
            return resume(cfg, run, words, words, notes.resumed(run.path))
    if cfg.name is not None and not chosen:
        checks.require({"name": cfg.name}, {"name": checks.TRAINING["name"]})  # before it is a directory's
        directory = directory.with_name(f"{directory.name}_{cfg.name}")
    try:
        settings = saved.plain(cfg)
    except OmegaConfBaseException:  # a value refers to nothing
        RunDirectory(directory).discard()  # Hydra has made it
        raise
    with notes.claim(directory, known=True) if there else RunDirectory.new(directory) as run:
        return begin(settings, run, words)


def _start_or_resume(cfg: Any, directory: Path, words: Sequence[str], chosen: bool) -> TrainResult:
    """Resume the run that was started with the same words; start one where there is none.

    A run that was stopped before its first checkpoint begins again, in the same directory.

    Args:
        cfg: the configuration as Hydra composed it.
        directory: where a new run goes.
        words: the configuration's own words, as they were typed.
        chosen: the user chose the directory: only a run in it is resumed, with words that may differ.
    """
    cfg.resume = None
    found = directory if chosen else _same(directory.parent, words)
    if found is None or not (found / CONFIG).is_file():
        return train(cfg, directory, words, chosen, there=chosen)
    began = provenance.first_words(found)
    changes = [word for word in words if word not in began] if chosen else []
    with RunDirectory.resumed(str(found)) as run:
        if not notes.has_checkpoint(run):
            if began and _about_the_run(began) != _about_the_run(words):
                raise UserError(
                    f"hydra.run.dir: {found} holds another run, without a checkpoint to resume from; choose another "
                    f"directory, or the words of that run: {' '.join(_about_the_run(began))}"
                )
            notes.clear(run)
            if cfg.init_from == "latest":  # by now that is this run
                cfg.init_from = saved.load_run_config(run, list(cfg.trust))["init_from"]
            return begin(saved.plain(cfg), run, words)
        named = {_key(word) for word in words}
        if chosen and (kept := [word for word in _about_the_run(began) if _key(word) not in named]):
            print(f"resume=auto: the run keeps what it was started with: {' '.join(kept)}")
        cfg.trust = [*cfg.trust, *trust.needed(saved.plain(cfg))]  # the same words were just typed
        if chosen and not began:
            print(f"resume=auto: {found / PROVENANCE} cannot be read; the words are compared with the run's {CONFIG}")
            changes = saved.differing(run, cfg)
        return resume(cfg, run, words, changes, notes.resumed(run.path))


def _same(folder: Path, words: Sequence[str]) -> Path | None:
    """Return the newest run in a folder that was started with the same words; None if there is none."""
    runs = sorted(folder.glob(f"*/{PROVENANCE}"), key=modified)
    said = [(file.parent, _about_the_run(provenance.first_words(file.parent))) for file in runs]
    return next((run for run, told in reversed(said) if told == _about_the_run(words)), None)


def _about_the_run(words: Sequence[str]) -> list[str]:
    return sorted(word for word in words if not word.startswith(("resume=", "trust=", "hydra.")))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def begin(cfg: State, run: RunDirectory, words: Sequence[str], prune: Prune = never) -> TrainResult:
    """Train a new run."""
    written = [file for file in (CONFIG, PROVENANCE) if not (run.path / file).exists()]
    try:
        with naming_their_code(lambda: cfg):
            job = train_job(cfg, run)
        with _closed_at_errors(job):
            _start_logger(job, resumed=False)
            _save_config(job, mine=True)
            provenance.record(run.path, words)
    except BaseException:
        for file in written:  # a signal may come after they were
            (run.path / file).unlink(missing_ok=True)
        run.discard()
        raise
    with _kept(job), naming_their_code(lambda: cfg):
        return training.train(job, words=words, prune=prune)


def resume(
    cfg: Any,
    run: RunDirectory,
    words: Sequence[str],
    changes: Sequence[str],
    noted: AbstractContextManager[object] | None = None,
    prune: Prune = never,
) -> TrainResult:
    """Resume a run.

    Args:
        cfg: the configuration as Hydra composed it.
        run: the run, claimed.
        words: what was typed.
        changes: those of the words that may change the run's own configuration.
        noted: notes how training ends.
        prune: told the step and the mean return of each evaluation; True ends the run early.
    """
    mine = trust.remembered(run.config)
    config = saved.resumed_config(run, cfg, list(changes))
    before = saved.load_run_config(run, list(cfg.trust))
    reached, total = saved_step(run.path), config["total_steps"]
    # Several environments may have gone past the run's own steps.
    if isinstance(total, int) and total < reached and total != before["total_steps"]:
        raise UserError(f"total_steps: must be at least {reached:,}, where this run is, got {total:,}")
    with naming_their_code(lambda: config):
        job = train_job(config, run, resumed=True)
    job.changes = training.differences(dict(flatten(before)), dict(flatten(job.config)))

    def record() -> None:
        _save_config(job, mine=set(job.trust) <= set(mine))
        provenance.record(run.path, words)

    with contextlib.ExitStack() as stack:
        with _closed_at_errors(job):
            _start_logger(job, resumed=True)
            stack.enter_context(noted or contextlib.nullcontext())
        stack.enter_context(_kept(job))
        stack.enter_context(naming_their_code(lambda: config))
        return training.train(job, resume=True, prune=prune, accepted=record)


@contextlib.contextmanager
def _closed_at_errors(job: TrainJob) -> Iterator[None]:
    """Close the environments, and the service's run, of a job that does not come to train, which closes them."""
    try:
        yield
    except BaseException:
        job.loop.envs.close()
        if job.sender:
            job.sender.close(finished=False)
        raise


def _start_logger(job: TrainJob, resumed: bool) -> None:
    """Open a run of the service that the configuration names; a new run is refused if that fails."""
    if job.sender:
        config = {key: value for key, value in job.config.items() if key != "logger"}  # an address may hold a password
        job.sender.start(dict(flatten(config)), config.get("tags", []), resumed)


def _save_config(job: TrainJob, mine: bool) -> None:
    """Write the run's configuration; remember that the user trusts it if the run was started by this user, here."""
    saved.save_run_config(job.run, job.config)
    if mine and trust.remember(job.run.config, job.trust):
        job.trust = []  # need not be named to evaluate or resume the run


@contextlib.contextmanager
def _kept(job: TrainJob) -> Iterator[None]:
    """Write a run's configuration again where its directory was moved or deleted, and checkpoints were written since.

    Without it they could be neither resumed nor evaluated.
    """
    name = job.run.path
    run = RunDirectory(name.absolute())  # an environment may change the working directory
    try:
        yield
    finally:
        if run.checkpoints.is_dir() and not run.config.exists():
            saved.save_run_config(run, job.config)
            print(f"{name} was moved or deleted meanwhile; it now holds what was written since, and config.yaml")
