"""What training and evaluation return to a program: the numbers that the commands print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rl_runner.types import State


@dataclass(frozen=True)
class EvalResult:
    """The episodes of an evaluation. Returns are raw and undiscounted.

    Attributes:
        step: of training, at which the agent was saved or evaluated.
        mean: of the returns, like the others.
        std: standard deviation; 0 for one episode.
        median: median.
        min: lowest.
        max: highest.
        ci95: 95 % confidence interval of the mean, by Student's t; without width for one episode.
        returns: of each episode.
        lengths: of each episode, in steps.
        seeds: of each episode.
        checkpoint: the agent; None: it was evaluated while it was trained.
    """

    step: int
    mean: float
    std: float
    median: float
    min: float
    max: float
    ci95: tuple[float, float]
    returns: list[float] = field(repr=False)
    lengths: list[int] = field(repr=False)
    seeds: list[int] = field(repr=False)
    checkpoint: Path | None = None

    @classmethod
    def of(cls, step: int, returns: State, rows: Sequence[State], checkpoint: Path | None = None) -> EvalResult:
        """Return the result of an evaluation.

        Args:
            step: of training.
            returns: statistics of the returns.
            rows: seed, return and length of each episode.
            checkpoint: the agent.
        """
        low, high = returns["ci95"]
        return cls(
            step=step,
            **{name: returns[name] for name in ("mean", "std", "median", "min", "max")},
            ci95=(low, high),
            returns=[row["return"] for row in rows],
            lengths=[row["length"] for row in rows],
            seeds=[row["seed"] for row in rows],
            checkpoint=checkpoint,
        )


@dataclass(frozen=True)
class TrainResult:
    """Where a training run stands at its end.

    Attributes:
        run: its directory.
        steps: decisions of the agent.
        episodes: finished training episodes.
        updates: gradient updates.
        seconds: wall-clock, over all resumes.
        solved: `stop.return` or `stop.eval_return` was reached.
        best: mean return of the best evaluation, None if there was none.
        best_step: the step of that evaluation.
        last: the last evaluation, None if there was none since the start or the last resume.
        pruned: a search ended it early.
    """

    run: Path
    steps: int
    episodes: int
    updates: int
    seconds: float
    solved: bool
    best: float | None
    best_step: int | None
    last: EvalResult | None
    pruned: bool = False
