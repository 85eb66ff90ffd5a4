"""`hydra/sweeper=optuna`: search for the configuration with the highest return.

Each trial is a configuration, run with one seed or several. The trials are kept in a journal in the sweep's directory:
a search that was stopped continues there, and several processes of the same command share it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import filter_overrides
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from rl_runner.launch import best, launchers, sweep
from rl_runner.launch.settings import Settings
from rl_runner.launch.task import shortest
from rl_runner.report import search as report
from rl_runner.report.curves import Unreadable, last_step, read_table, series
from rl_runner.report.results import MEASURES
from rl_runner.report.search import Trial
from rl_runner.run import notes
from rl_runner.types import State, UserError

if TYPE_CHECKING:
    from rl_runner.launch.space import Space
    from rl_runner.launch.study import Search


def optuna_or_refuse() -> None:
    """Check that Optuna is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as e:
        raise UserError("hydra/sweeper=optuna is not installed: pip install 'rlrun[search]'") from e


class Optuna(Sweeper):
    """Searches with Optuna.

    Hydra passes the keys of hydra.sweeper one by one, and a key that is none of these arguments is refused. Settings
    checks them, except for `params`: overrides with several values, by their keys, beside those of the command line.
    """

    def __init__(
        self,
        params: dict[str, str],
        sampler: str,
        pruner: str,
        n_trials: int,
        n_jobs: int,
        seeds: int,
        seed: int,
        measure: str,
        warmup: int,
        startup: int,
        trial: int | None,
        judged: bool,
    ) -> None:
        self._params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the search; nothing is written yet.

        Raises:
            UserError: it cannot be run.
        """
        optuna_or_refuse()
        if config.hydra.job.config_name != "train":
            raise UserError("hydra/sweeper=optuna: must be used with rlrun train")
        self.config, self._loader = config, hydra_context.config_loader
        self._first_seed, self._sources = int(config.seed), config.hydra.runtime.config_sources
        self.settings = Settings.of(config.hydra.sweeper, config.total_steps, config.eval.every_steps)
        self.directory = shortest(Path(config.hydra.sweep.dir).absolute())
        self._read([*(f"{key}={value}" for key, value in self._params.items()), *config.hydra.overrides.task])
        for words in _each_once(self.space):
            self._loader.load_sweep_config(config, [*self.fixed, *words])  # raises if it cannot
        plugins = Plugins.instance()
        launcher = plugins.instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)
        self._launch = launcher.launch

    def _read(self, words: list[str]) -> None:
        """Tell what is searched from what is the same in all jobs.

        Raises:
            UserError: it cannot be searched.
        """
        from rl_runner.launch import space

        parsed = OverridesParser.create(config_loader=self._loader).parse_overrides(words)
        self.space = space.of(parsed)
        self.fixed = _without_seed([override for override in parsed if not override.is_sweep_override()])
        if not self.space:
            example = "'optimizer.lr=tag(log,interval(1e-5,1e-2))'"
            raise UserError(f"hydra/sweeper=optuna: no key has several values, such as {example}")
        if "seed" in {key.lstrip("+") for key in self.space}:
            raise UserError("seed: is not searched; hydra.sweeper.seeds=3 runs each trial with three seeds")
        self.most = self.settings.n_trials
        if self.settings.sampler == "grid":
            self.most = min(self.most, len(space.grid(self.space)))

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are as many as were asked for; show what was found, however it ends."""
        from rl_runner.launch.study import Search

        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(Search(self.directory, self.settings, self.space)) as search:
            search.define(self._definition(arguments))
            try:
                while not launchers.received and (batch := search.batch(self.settings.n_jobs, self.most)):
                    self._run(search, batch)
            finally:
                self._show(search)

    def _definition(self, arguments: Sequence[str]) -> State:
        """Return what every process of the search, and every start of it, must have in common."""
        words = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        return {"words": sorted(words), "seeds": self.settings.seeds, "measure": self.settings.measure}

    def _run(self, search: Search, batch: dict[int, dict[str, Any]]) -> None:
        jobs = {number: list(self._jobs(number, values)) for number, values in batch.items()}
        words = [job for of_trial in jobs.values() for job in of_trial]
        sweep.plan([list(filter_overrides(job)) for job in words])
        self._launch(words, initial_job_idx=min(batch) * self.settings.seeds)
        for number, of_trial in jobs.items():
            self._finish(search, number, of_trial)

    def _jobs(self, number: int, values: dict[str, Any]) -> Iterator[list[str]]:
        """Yield the words of each job of a trial."""
        words = [*self.fixed, *(f"{key}={value}" for key, value in values.items())]
        for i in range(self.settings.seeds):
            seed = self._first_seed + i
            yield [
                *words,
                f"seed={seed}",
                f"hydra.sweep.subdir={_subdirectory(number, seed)}",
                f"hydra.sweeper.trial={number}",
                f"hydra.sweeper.judged={str(i == 0).lower()}",
            ]

    def _finish(self, search: Search, number: int, jobs: list[list[str]]) -> None:
        """Note what a trial gave. Where a job's process died or was stopped, the trial is left to the next start."""
        ends = [self._end(number, job, seed) for seed, job in enumerate(jobs, self._first_seed)]
        states = {state for state, _ in ends}
        if states == {notes.FINISHED}:
            value = sum(value for _, value in ends) / len(ends)
            search.finish(number, value if math.isfinite(value) else None)
        elif notes.PRUNED in states:
            search.finish(number, None, pruned=True)
        elif notes.FAILED in states:
            search.finish(number, None)

    def _end(self, number: int, job: list[str], seed: int) -> tuple[str, float]:
        """Return how a job ended, and what it gave."""
        own = self.directory / _subdirectory(number, seed)
        run, state = notes.find(self.directory, own, list(filter_overrides(job)), ended_only=True)
        try:
            evaluations = series(read_table(run), "eval/return_mean")
        except Unreadable:
            return state, math.nan
        if not len(evaluations.steps):
            return state, math.nan
        return state, MEASURES[self.settings.measure](evaluations, run)

    def _show(self, search: Search) -> None:
        """Show the trials, and write the best configuration as an experiment."""
        sweep.hide_table()
        trials = trials_of(self.directory, search)
        command = None
        if trials and trials[0].value is not None and trials[0].state == "finished":
            command = self._write_best(trials[0])
        report.show(self.directory, trials, self.settings.measure, _importances(search), command)

    def _write_best(self, trial: Trial) -> str:
        """Write the configuration of a trial as an experiment; return the command that trains with it."""
        words = [*self.fixed, *(f"{key}={value}" for key, value in trial.params.items())]
        seeds = "one seed" if self.settings.seeds == 1 else f"the mean of {self.settings.seeds} seeds"
        about = f"Trial {trial.number} of {self.directory}: {self.settings.measure} {trial.value:.6g}, {seeds}."
        files = [source for source in self._sources if source.schema == "file"]
        own = [shortest(Path(source.path)) for source in files if source.provider == "command-line"]
        sources = [Path(source.path) for source in files]
        return best.write(self.directory, words, about, self._loader, sources, own[0] if own else None)


def _without_seed(overrides: Sequence[Override]) -> list[str]:
    """Return the words that are the same in all jobs."""
    return [o.input_line for o in overrides if o.key_or_group != "seed" and o.input_line is not None]


def _each_once(space: Space) -> Iterator[list[str]]:
    """Yield words in which each choice of a space comes at least once, to see whether a configuration can be made."""
    choices = {key: getattr(distribution, "choices", None) or [distribution.low] for key, distribution in space.items()}
    for row in range(max(map(len, choices.values()))):
        yield [f"{key}={values[min(row, len(values) - 1)]}" for key, values in choices.items()]


def _subdirectory(number: int, seed: int) -> str:
    return f"trial_{number}_seed_{seed}"


def _importances(search: Search) -> dict[str, float]:
    from rl_runner.launch import study

    return study.importances(search.study)


def trials_of(directory: Path, search: Search) -> list[Trial]:
    """Return the trials of a search, the best one first; those that were pruned or failed come last."""
    names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    found = [
        Trial(
            number=trial.number,
            state=names.get(trial.state.name, "unfinished"),
            value=trial.value,
            steps=sum(_steps(run) for run in directory.glob(f"trial_{trial.number}_seed_*")),
            params={key: str(value) for key, value in trial.params.items()},
        )
        for trial in search.study.trials
    ]
    order = ["finished", "pruned", "unfinished", "failed"]
    return sorted(found, key=lambda t: (order.index(t.state), -math.inf if t.value is None else -t.value, t.number))


def _steps(run: Path) -> int:
    try:
        return last_step(read_table(run))
    except Unreadable:
        return 0


# In a job.


@dataclass(frozen=True)
class OfJob:
    """The trial that a job belongs to.

    Attributes:
        search: of the trial.
        number: the trial's.
        judged: the job is that of the first seed, by whose evaluations the trial is judged.
        every_steps: steps between evaluations.
    """

    search: Search
    number: int
    judged: bool
    every_steps: int

    def pruned(self) -> bool:
        """Return whether the trial is pruned."""
        return self.search.decided(self.number)

    def prune(self, step: int, mean: float) -> bool:
        """Return whether the job is to stop at an evaluation."""
        evaluation = step // self.every_steps
        if not self.judged or evaluation == 0:
            return self.pruned()
        return self.search.judge(self.number, evaluation, mean)


def of_job(cfg: Any) -> OfJob | None:
    """Return the trial that the running job belongs to; None if there is none, or nothing is pruned."""
    config = HydraConfig.get()
    if config.runtime.choices["hydra/sweeper"] != "optuna" or config.sweeper.get("trial") is None:
        return None
    from rl_runner.launch.study import Search

    settings = Settings.of(config.sweeper, cfg.total_steps, cfg.eval.every_steps)
    search = Search(Path(config.sweep.dir), settings, {})
    return OfJob(search, config.sweeper.trial, config.sweeper.judged, max(cfg.eval.every_steps, 1))
