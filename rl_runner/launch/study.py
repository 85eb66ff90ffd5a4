"""The trials of a search, in a journal that several processes share. Needs Optuna, so import it late."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from rl_runner import rng
from rl_runner.launch import space as spaces
from rl_runner.launch.settings import JOURNAL, Settings
from rl_runner.launch.space import Space
from rl_runner.run.lock import BUSY, flock
from rl_runner.types import State, UserError

NAME = "search"  # of the study in the journal
DECIDED = "pruned"  # attribute of a trial: its jobs are to stop

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Seeded(BaseSampler):  # type: ignore[misc]
    """Draws each trial with a sampler of its own, whose seed depends on the search's seed and the trial's number.

    So a search that was stopped continues as if it had not been, although no state of a sampler is saved.

    Args:
        make: returns a sampler, given a seed.
        seed: of the search.
    """

    def __init__(self, make: Callable[[int], Any], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: Any, trial: Any) -> None:
        self._sampler = self._make(rng.integer(self._seed, "trial", trial.number))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return self._sampler.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)


class Grid(BaseSampler):  # type: ignore[misc]
    """Draws the points of a grid in their order, by the numbers of the trials."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = points

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return self._points[trial.number % len(self._points)][name]


def _sampler(settings: Settings, space: Space) -> Any:
    if settings.sampler == "grid":
        return Grid(spaces.grid(space))
    if settings.sampler == "cmaes":
        try:
            import cmaes  # noqa: F401 - or the first trial would report it
        except ImportError as e:
            raise UserError("hydra.sweeper.sampler=cmaes needs cmaes: pip install 'rlrun[search]'") from e
    make: dict[str, Callable[[int], Any]] = {
        "random": lambda seed: RandomSampler(seed=seed),
        "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),  # workers do not draw what others are trying
        "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    }
    return Seeded(make[settings.sampler], settings.seed)


def _pruner(settings: Settings) -> Any:
    """Return the pruner; its unit is one evaluation."""
    if settings.pruner == "median":
        return MedianPruner(settings.startup, settings.warmup)
    if settings.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=max(settings.warmup, 1))
    if settings.pruner == "hyperband":
        return HyperbandPruner(max(settings.warmup, 1), max(settings.evaluations, settings.warmup, 1))
    return optuna.pruners.NopPruner()


class Search:
    """A search in its directory, as one of the processes that work at it sees it.

    Args:
        directory: the sweep's.
        settings: how to search.
        space: what to search; empty: trials are only read, or judged.
    """

    def __init__(self, directory: Path, settings: Settings, space: Space) -> None:
        self._directory, self._space = directory.absolute(), space  # absolute: the journal's lock is a link to it
        sampler = _sampler(settings, space) if space else RandomSampler()
        self._storage = JournalStorage(JournalFileBackend(str(self._directory / JOURNAL)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                sampler=sampler,
                pruner=_pruner(settings),
                direction="maximize",
                load_if_exists=True,
            )
        self._claims: dict[int, IO[str]] = {}  # trials of this process, with the files that it has locked for them

    def define(self, definition: State) -> None:
        """Note what the search is about, or check that the directory's search is about the same.

        Raises:
            UserError: it is not.
        """
        for key, value in definition.items():
            if (noted := self.study.user_attrs.get(key, value)) != value:
                raise UserError(
                    f"hydra.sweep.dir: {self._directory} holds a search with other {key}: {_text(noted)}, not "
                    f"{_text(value)}; choose another directory"
                )
            self.study.set_user_attr(key, value)

    def batch(self, size: int, most: int) -> dict[int, dict[str, Any]]:
        """Return trials to run, by their numbers: first those whose process has died, then new ones.

        Args:
            size: how many.
            most: trials that the search may have.
        """
        self._directory.joinpath("claims").mkdir(exist_ok=True)
        with _locked(self._directory / "claims" / "ask.lock"):
            begun = (trial.number for trial in self.study.get_trials(states=(TrialState.RUNNING,)))
            numbers = list(itertools.islice(filter(self._claim, begun), size))
            # Batches end at multiples of their size, so that a search that was stopped has the same ones.
            while (total := len(self.study.trials)) < most and (not numbers or total % size) and len(numbers) < size:
                number = self.study.ask().number
                if self._claim(number):
                    numbers.append(number)
            return {number: spaces.suggest(self._trial(number), self._space) for number in numbers}

    def _trial(self, number: int) -> Any:
        return optuna.Trial(self.study, self._id(number))

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(NAME)
        return int(self._storage.get_trial_id_from_study_id_trial_number(study, number))

    def _claim(self, number: int) -> bool:
        """Return whether no process was at a trial, and this one is now."""
        if number in self._claims:  # it was tried, and its jobs did not come to an end
            return False
        file = open(self._directory / "claims" / f"{number}.lock", "a")  # noqa: SIM115 - open as long as the claim
        try:
            flock(file)
        except OSError as e:
            if e.errno in BUSY:
                file.close()
                return False  # elsewhere there are no locks, and no second worker can be told from this one
        self._claims[number] = file
        return True

    def finish(self, number: int, value: float | None, pruned: bool = False) -> None:
        """Note how a trial ended.

        Args:
            number: the trial's.
            value: what it gave; None: nothing, because it failed or was pruned.
            pruned: it was pruned.
        """
        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        self.study.tell(number, None if pruned else value, state=state)
        self._claims.pop(number).close()
        (self._directory / "claims" / f"{number}.lock").unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the trials of this process that did not come to an end to whoever continues the search."""
        for file in self._claims.values():
            file.close()
        self._claims.clear()

    def judge(self, number: int, step: int, value: float) -> bool:
        """Note an evaluation of a trial's first seed; return whether the trial is pruned.

        Args:
            number: the trial's.
            step: number of the evaluation, from 1 on.
            value: mean return.
        """
        self._storage.set_trial_intermediate_value(self._id(number), step, value)
        if self.study.pruner.prune(self.study, self._storage.get_trial(self._id(number))):
            self._storage.set_trial_user_attr(self._id(number), DECIDED, True)
        return self.decided(number)

    def decided(self, number: int) -> bool:
        """Return whether a trial is pruned."""
        return bool(self._storage.get_trial(self._id(number)).user_attrs.get(DECIDED))


def importances(study: Any) -> dict[str, float]:
    """Return how much each key mattered, as shares of 1; empty if there are too few finished trials to tell."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len({trial.value for trial in finished}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {key: float(share) for key, share in found.items()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "a") as file:
        with contextlib.suppress(OSError):  # no locks here
            flock(file, wait=True)
        yield


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
