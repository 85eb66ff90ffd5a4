"""The keys of `hydra/sweeper=optuna`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rl_runner.report.results import MEASURES
from rl_runner.types import UserError

SAMPLERS = ("tpe", "cmaes", "random", "grid")
PRUNERS = ("none", "median", "halving", "hyperband")
JOURNAL = "search.journal"  # file in the sweep's directory


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        sampler: draws the trials; one of SAMPLERS.
        pruner: stops trials that do badly; one of PRUNERS.
        n_trials: how many there are in the end, those of other workers and earlier starts included.
        n_jobs: trials that are launched together.
        seeds: jobs of a trial, each with a seed of its own.
        seed: of the sampler.
        measure: what a trial is judged by, the mean over its seeds; one of MEASURES.
        warmup: evaluations after which a trial can be pruned.
        startup: finished trials before the median pruner stops one.
        evaluations: periodic ones in a whole run, without the one at its end.
    """

    sampler: str
    pruner: str
    n_trials: int
    n_jobs: int
    seeds: int
    seed: int
    measure: str
    warmup: int
    startup: int
    evaluations: int

    @classmethod
    def of(cls, sweeper: Any, total_steps: int, every_steps: int) -> Settings:
        """Return the settings that a configuration has.

        Args:
            sweeper: the node hydra.sweeper.
            total_steps: length of a run.
            every_steps: steps between its evaluations.

        Raises:
            UserError: a value is out of range.
        """
        keys = [key for key in cls.__dataclass_fields__ if key != "evaluations"]
        settings = cls(**{key: sweeper[key] for key in keys}, evaluations=total_steps // max(every_steps, 1))
        measures = tuple(name for name in MEASURES if name != "steps")
        for key, options in {"sampler": SAMPLERS, "pruner": PRUNERS, "measure": measures}.items():
            if (value := getattr(settings, key)) not in options:
                raise UserError(f"hydra.sweeper.{key}: must be {', '.join(options)}, got {value}")
        for key, least in {"n_trials": 1, "n_jobs": 1, "seeds": 1, "seed": 0, "warmup": 0, "startup": 0}.items():
            if (value := getattr(settings, key)) < least:
                raise UserError(f"hydra.sweeper.{key}: must be at least {least}, got {value}")
        if settings.pruner != "none" and every_steps == 0:
            raise UserError("hydra.sweeper.pruner: prunes by evaluations, but eval.every_steps is 0; set it")
        return settings
