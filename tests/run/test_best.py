"""The best agent: a worse one never replaces it, and a resume repeats the run that it goes on with."""

import math
from pathlib import Path
from typing import Any

import pytest

from rl_runner.run.best import BestAgent, evaluation_scalars
from rl_runner.run.checkpoint import Checkpoints


def summary(step: int, mean: float) -> dict[str, Any]:
    returns = {"mean": mean, "std": 1.0, "min": mean - 1, "max": mean + 1}
    return {"steps": step, "return": returns, "length": {"mean": 9.0}}


class Run:
    """What a trainer does with its evaluations."""

    def __init__(self, path: Path, state: dict[str, Any] | None = None, steps: int = 0) -> None:
        self.said: list[str] = []
        self.checkpoints = Checkpoints(path)
        self.best = BestAgent(self.checkpoints, self.said.append)
        if state is not None:
            self.best.load_state_dict(state, steps)

    def evaluate(self, step: int, mean: float, saves: bool = True) -> bool:
        def save() -> bool:
            if saves:
                self.checkpoints.save_best(step, {"agent": {"step": step}}, summary(step, mean))
            return saves

        return self.best.offer(step, summary(step, mean), save)

    @property
    def kept(self) -> str:
        found = self.checkpoints.best()
        return found.name if found else ""


def test_the_highest_evaluation_counts_and_of_equal_ones_the_last(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert [run.evaluate(step, mean) for step, mean in ((10, 1.0), (20, 0.5), (30, math.nan), (40, 1.0))] == [
        *(True, False, False, True)
    ]
    assert (run.best.score, run.best.step, run.kept) == (1.0, 40, "best_000000040")
    assert [run.best.reached(goal, 40) for goal in (1.0, 1.5, None)] == [True, False, False]


def test_an_agent_that_could_not_be_saved_is_not_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.evaluate(10, 1.0)
    assert not run.evaluate(20, 2.0, saves=False)
    assert (run.best.score, run.kept) == (1.0, "best_000000010")


def test_a_resume_from_before_the_best_one_awaits_it_and_repeats_the_run(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.evaluate(10, 1.0)
    state = first.best.state_dict()
    first.evaluate(30, 3.0)
    resumed = Run(tmp_path, state, steps=20)
    assert (resumed.best.score, resumed.best.awaited and resumed.best.awaited["steps"]) == (1.0, 30)
    assert not resumed.best.reached(2.0, 20)  # not before the clock is there
    assert resumed.best.reached(2.0, 30)
    assert resumed.evaluate(30, 3.0)  # as it was: nothing is written again
    assert (resumed.best.awaited, resumed.best.score, resumed.kept) == (None, 3.0, "best_000000030")
    assert resumed.said == []


def test_a_goal_that_a_later_agent_reached_is_not_reached_before(tmp_path: Path) -> None:
    """A signal ends the resumed run there: the agent on the disk is kept, but training has not come to its step."""
    run = Run(tmp_path)
    run.evaluate(30, 3.0)
    resumed = Run(tmp_path, {"best": None, "best_step": 0}, steps=20)
    resumed.best.adopt()
    assert not resumed.best.reached(2.0, 25)
    assert resumed.best.reached(2.0, 30)


def test_a_worse_repetition_does_not_replace_the_agent_on_the_disk(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.evaluate(30, 3.0)
    resumed = Run(tmp_path, {"best": None, "best_step": 0}, steps=20)
    assert resumed.best.outdoes(30, 2.0)
    assert not resumed.best.outdoes(30, 3.0)
    assert not resumed.best.outdoes(29, 2.0)
    assert [resumed.best.passed(step) for step in (29, 30, 31)] == [False, False, True]
    resumed.best.adopt()
    assert (resumed.best.score, resumed.best.step, resumed.kept) == (3.0, 30, "best_000000030")
    assert resumed.said == ["step 30: evaluated before the resume: mean 3.00 (best so far, kept)"]
    assert not resumed.evaluate(40, 2.0)


def test_a_better_one_before_the_awaited_step_is_the_best_one_then(tmp_path: Path) -> None:
    Run(tmp_path).evaluate(30, 3.0)
    resumed = Run(tmp_path, {"best": None, "best_step": 0}, steps=10)
    assert resumed.evaluate(20, 2.0)  # of the run so far; the agent on the disk is better
    assert resumed.kept == "best_000000030"
    assert resumed.evaluate(25, 4.0)
    assert (resumed.best.awaited, resumed.kept) == (None, "best_000000025")


@pytest.mark.parametrize("damage", ["missing", "not whole", "not finite"])
def test_an_agent_that_is_lost_is_named_and_the_next_one_is_the_best(damage: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.evaluate(10, 1.0)
    state = run.best.state_dict()
    if damage == "missing":
        run.checkpoints.best().rename(tmp_path / "away")  # type: ignore[union-attr]
    elif damage == "not whole":
        (run.checkpoints.best() / "agent.npz").write_bytes(b"")  # type: ignore[operator]
    else:
        run.checkpoints.save_best(10, {"agent": {}}, summary(10, math.inf))
    resumed = Run(tmp_path, state, steps=20)
    assert resumed.said == ["the best agent, of step 10, is missing or damaged; the next evaluation is the best so far"]
    assert resumed.evaluate(30, -5.0)


def test_what_curves_get_of_an_evaluation() -> None:
    found = evaluation_scalars({**summary(10, 2.0), "info": {"lap": 0.5}})
    assert found == {
        "eval/return_mean": 2.0,
        "eval/return_std": 1.0,
        "eval/return_min": 1.0,
        "eval/return_max": 3.0,
        "eval/info/lap": 0.5,
        "eval/length_mean": 9.0,
    }
