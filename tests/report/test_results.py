"""The configurations of a sweep and what their seeds gave, from what jobs leave."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rl_runner.report import results
from rl_runner.report.curves import Series
from rl_runner.run import notes
from tests.runs import a_job


def labels(directory: Path, planned: Sequence[list[str]] = ()) -> list[str]:
    return [row.label for row in results.summarise(directory, planned)]


def test_a_run_that_goes_on_is_counted_when_it_ends(tmp_path: Path) -> None:
    job = a_job(tmp_path / "0", "network=mlp seed=0", {100: 1.0}, end=SystemExit)
    assert results.summarise(tmp_path)[0].evaluations == []
    with notes.resumed(job):
        (job / "metrics.csv").write_text("step,name,value\n100,eval/return_mean,1.0\n200,eval/return_mean,4.0\n")
        assert results.summarise(tmp_path)[0].evaluations == []
    assert results.summarise(tmp_path)[0].measured("last") == [4]
    with notes.resumed(tmp_path):  # a run that is no job of a sweep
        pass
    assert not (tmp_path / "job.json").exists()


def test_a_seed_that_ran_again_counts_once(tmp_path: Path) -> None:
    a_job(tmp_path / "0", "network=mlp seed=0", {100: 1.0})
    a_job(tmp_path / "1", "network=mlp seed=1", {100: 5.0}, end=ValueError)
    a_job(tmp_path / "2", "seed=1 network=mlp", {100: 6.0})
    a_job(tmp_path / "3", "network=mlp seed=0", {100: 2.0})
    a_job(tmp_path / "4", "network=mlp seed=0", {100: 9.0}, end=ValueError)
    (row,) = results.summarise(tmp_path)
    assert list(row.jobs) == ["0", "1"]
    assert row.measured("last") == [2, 6]


def test_the_default_seed_and_the_same_one_typed_are_one(tmp_path: Path) -> None:
    for number, (words, seed, value) in enumerate(
        [("network=mlp", 0, 1.0), ("network=mlp seed=0", 0, 2.0), ("network=mlp seed=01", 1, 6.0)]
    ):
        run = a_job(tmp_path / str(number), words, {100: value})
        (run / "config.yaml").write_text(f"seed: {seed}\ntotal_steps: 100\n")
    planned = [words.split() for words in ("network=mlp", "network=mlp seed=1", "network=mlp seed=2")]
    (row,) = results.summarise(tmp_path, planned)
    assert {seed: job.state for seed, job in row.jobs.items()} == {
        "0": "finished",
        "1": "finished",
        "2": "have not begun",
    }
    assert row.measured("last") == [2, 6]


def test_rows_stand_as_they_were_planned(tmp_path: Path) -> None:
    for name in "cab":  # jobs that run side by side begin in any order
        a_job(tmp_path / name, f"network={name} seed=0", {100: 1.0})
    assert labels(tmp_path) == ["network=c", "network=a", "network=b"]
    assert labels(tmp_path, [[f"network={name}", "seed=0"] for name in "abc"]) == [f"network={name}" for name in "abc"]


def test_what_a_run_is_measured_by(tmp_path: Path) -> None:
    run = a_job(tmp_path / "0", "network=mlp", {50: 2.0, 150: 6.0, 200: 4.0})
    (run / "config.yaml").write_text("seed: 0\ntotal_steps: 200\n")
    (row,) = results.summarise(tmp_path)
    assert {name: row.measured(name) for name in results.MEASURES} == {
        "last": [4.0],
        "best": [6.0],
        "area": [(50 * 2 + 100 * 6 + 50 * 4) / 200],
        "steps": [200.0],
    }


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", "1e-3"),
        ("+env.kwargs.a=b=c", "env.kwargs.a", "b=c"),
        ("++seed=1", "seed", "1"),
        ("~logger", "logger", "removed"),
        ("~logger=csv", "logger", "removed"),
    ],
)
def test_the_key_and_the_value_of_an_override(typed: str, key: str, value: str) -> None:
    assert results.setting(typed) == (key, value)


@pytest.mark.parametrize(
    ("told", "keys", "names"),
    [
        (["a=1 b=2", "a=1 b=3"], ["b"], ["2", "3"]),
        (["a=1 b=2", "a=2 b=3"], ["a", "b"], ["a=1 b=2", "a=2 b=3"]),
        (["a=1", "a=1 b=3"], ["b"], ["default", "3"]),
        (["b=3", "+b=3"], [], ["b=3", "+b=3"]),  # the values alone would be the same
    ],
)
def test_the_keys_that_were_swept_and_short_names(told: list[str], keys: list[str], names: list[str]) -> None:
    series = Series(np.array([1]), np.array([0.0]))
    rows = results._rows([results.Job(words.split(), "0", "finished", series) for words in told])
    assert results.swept(rows) == keys
    assert results.names(rows) == names


def test_the_configuration_of_each_run_is_told(tmp_path: Path) -> None:
    for number, words in enumerate(["lr=1 seed=0", "lr=1 seed=1", "lr=2 seed=0"]):
        a_job(tmp_path / f"{number}", words, {100: 1.0})
    told, keys = results.told(tmp_path)
    assert {run.name: name for run, name in told.items()} == {"0": "1", "1": "1", "2": "2"}
    assert keys == ["lr"]


def test_a_run_that_was_changed_at_a_resume_is_not_in_the_numbers(tmp_path: Path) -> None:
    for seed in range(3):
        a_job(tmp_path / str(seed), f"network=mlp seed={seed}", {100: 1.0 + seed})
    header = "step,key,before,after\n"
    (tmp_path / "1/changes.csv").write_text(f"{header}50,agent.lr,0.1,0.5\n50,total_steps,100,200\n")
    (tmp_path / "2/changes.csv").write_text(
        f"{header}50,log.every_steps,1,2\n50,agent.lr,0.1,0.5\n60,agent.lr,0.5,0.1\n"
    )
    (row,) = results.summarise(tmp_path)
    assert row.measured("last") == [1, 3]  # nothing that tells runs apart is other than at the start
    assert row.jobs["1"].state == "had agent.lr, total_steps changed at a resume"
