"""The keys of hydra/sweeper=optuna."""

from typing import Any

import pytest

from rl_runner.launch.settings import Settings
from rl_runner.types import UserError

KEYS: dict[str, Any] = {
    "sampler": "tpe",
    "pruner": "none",
    "n_trials": 20,
    "n_jobs": 1,
    "seeds": 3,
    "seed": 0,
    "measure": "last",
    "warmup": 1,
    "startup": 5,
}


@pytest.mark.parametrize(("total", "every", "evaluations"), [(1_000, 300, 3), (1_000, 1_000, 1), (100, 300, 0)])
def test_how_often_a_whole_run_evaluates(total: int, every: int, evaluations: int) -> None:
    assert Settings.of(KEYS, total, every) == Settings(**KEYS, evaluations=evaluations)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("sampler", "gp", "must be tpe, cmaes, random, grid, got gp"),
        ("pruner", "hyper", "must be none, median, halving, hyperband, got hyper"),
        ("measure", "steps", "must be last, best, area, got steps"),
        ("n_trials", 0, "must be at least 1, got 0"),
        ("n_jobs", 0, "must be at least 1, got 0"),
        ("seeds", 0, "must be at least 1, got 0"),
        ("seed", -1, "must be at least 0, got -1"),
        ("warmup", -1, "must be at least 0, got -1"),
        ("startup", -1, "must be at least 0, got -1"),
    ],
)
def test_values_out_of_range(key: str, value: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        Settings.of({**KEYS, key: value}, 1_000, 100)
    assert str(error.value) == f"hydra.sweeper.{key}: {says}"


def test_a_pruner_needs_evaluations() -> None:
    assert Settings.of(KEYS, 1_000, 0).evaluations == 1_000
    with pytest.raises(UserError, match=r"hydra.sweeper.pruner: .* eval.every_steps is 0"):
        Settings.of({**KEYS, "pruner": "median"}, 1_000, 0)
