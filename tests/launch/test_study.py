"""The journal of a search: the same trials whatever stops it, each tried by one process."""

from pathlib import Path
from typing import Any

import pytest

from rl_runner.launch.settings import Settings
from rl_runner.types import UserError

pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rl_runner.launch.study import Search, importances

SPACE = {"lr": FloatDistribution(1e-4, 1.0, log=True), "width": IntDistribution(1, 9)}
GRID = {"net": CategoricalDistribution(["a", "b"]), "width": IntDistribution(1, 9, step=4)}


def settings(**keys: Any) -> Settings:
    usual = {"sampler": "tpe", "pruner": "none", "n_trials": 14, "n_jobs": 1, "seeds": 1, "seed": 0}
    return Settings(**{**usual, "measure": "last", "warmup": 1, "startup": 2, "evaluations": 9, **keys})


def value(params: dict[str, Any]) -> float:
    return float(params["width"]) - 10 * params.get("lr", 0.5)


def run(search: Search, trials: int, most: int = 14, size: int = 1) -> None:
    """Finish some trials."""
    for _ in range(trials):
        for number, params in search.batch(size, most).items():
            search.finish(number, value(params))


def params(search: Search) -> list[dict[str, Any]]:
    return [trial.params for trial in search.study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_a_search_that_was_stopped_has_the_same_trials(sampler: str, tmp_path: Path) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    space: Any = GRID if sampler == "grid" else SPACE
    directories = [tmp_path / name for name in ("whole", "stopped", "seed")]
    for directory in directories:
        directory.mkdir()
    trials = 12 if sampler == "tpe" else 6  # it draws the first ten at random
    whole = Search(directories[0], settings(sampler=sampler), space)
    run(whole, trials)
    for _ in range(2):
        part = Search(directories[1], settings(sampler=sampler), space)
        run(part, trials // 2)
        part.batch(1, trials)  # begun, then the process dies: the system unlocks its claims
        part.close()
    assert params(part) == params(whole)
    assert len({tuple(values.values()) for values in params(whole)}) == trials
    if sampler != "grid":
        other = Search(directories[2], settings(sampler=sampler, seed=1), space)
        run(other, 1)
        assert params(other) != params(whole)[:1]


def test_batches_end_where_they_ended_before(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(), SPACE)
    assert list(search.batch(3, 14)) == [0, 1, 2]
    search.finish(0, 1.0)
    search.close()
    again = Search(tmp_path, settings(), SPACE)
    assert list(again.batch(3, 14)) == [1, 2]
    again.finish(1, 1.0)
    again.finish(2, 1.0)
    assert list(again.batch(3, 14)) == [3, 4, 5]


def test_workers_share_the_trials_and_take_over_those_of_a_dead_one(tmp_path: Path) -> None:
    one, two = Search(tmp_path, settings(), SPACE), Search(tmp_path, settings(), SPACE)
    first, second = one.batch(1, 4), two.batch(1, 4)
    assert (list(first), list(second)) == ([0], [1])
    one.close()
    assert two.batch(1, 4) == first
    assert list(two.batch(1, 4)) == [2]
    two.finish(0, 1.0)
    three = Search(tmp_path, settings(), SPACE)
    assert list(three.batch(5, 4)) == [3]  # the last one of four
    assert three.batch(5, 4) == {}


def test_a_trial_that_did_not_come_to_its_end_is_tried_again_by_the_next_start_only(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(), SPACE)
    assert list(search.batch(1, 2)) == [0]
    assert list(search.batch(1, 2)) == [1]
    assert search.batch(1, 2) == {}
    search.close()
    assert list(Search(tmp_path, settings(), SPACE).batch(1, 2)) == [0]


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_a_bad_trial_is_pruned_in_every_process(pruner: str, tmp_path: Path) -> None:
    search = Search(tmp_path, settings(pruner=pruner), SPACE)
    for good in range(8):
        (number,) = search.batch(1, 14)
        assert not any(search.judge(number, step, 100.0 + good) for step in range(1, 10))
        search.finish(number, 100.0 + good)
    (number,) = search.batch(1, 14)
    job = Search(tmp_path, settings(pruner=pruner), {})  # as a job in another process sees it
    asked = [job.judge(number, step, 0.0) for step in range(1, 10)]
    assert asked == sorted(asked)
    assert asked[-1]
    assert search.decided(number)
    search.finish(number, None, pruned=True)
    assert search.study.trials[number].state.name == "PRUNED"


def test_another_search_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    Search(tmp_path, settings(), SPACE).define({"words": ["lr=interval(0,1)"], "seeds": 2})
    Search(tmp_path, settings(sampler="random"), SPACE).define({"words": ["lr=interval(0,1)"], "seeds": 2})
    with pytest.raises(UserError, match=r"holds a search with other words: lr=interval\(0,1\), not lr=1,2; choose"):
        Search(tmp_path, settings(), SPACE).define({"words": ["lr=1,2"], "seeds": 2})


def test_what_matters_is_important(tmp_path: Path) -> None:
    search = Search(tmp_path, settings(sampler="random"), SPACE)
    assert importances(search.study) == {}
    for _ in range(14):
        ((number, values),) = search.batch(1, 14).items()
        search.finish(number, float(values["width"]))
    assert list(importances(search.study)) == ["width", "lr"]
