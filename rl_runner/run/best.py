"""The best agent of a run: which it is, and that a worse one never replaces it, not even after a resume."""

from __future__ import annotations

import math
from collections.abc import Callable

from rl_runner.run.checkpoint import Checkpoints, Damaged, about, load
from rl_runner.types import State


class BestAgent:
    """Knows the best evaluation so far.

    A resume may start from a step before the best evaluation: after a crash, from an older checkpoint, or from the last
    one, which is written before the closing evaluation. The best agent on the disk is then kept, but its score is
    *awaited*: it does not count before the clock has passed its step, so that an exact resume repeats the original run.
    If the repeated evaluation is worse, or is missing, the saved agent stays the best one: it is adopted. The curves do
    not get its evaluation again: they are those of the agents that the resumed run has had.

    Args:
        checkpoints: where the best agent is saved.
        say: told what a user must know.

    Attributes:
        score: mean return of the best evaluation so far, always a finite number; None: there is none.
        step: of training, at which it was evaluated.
        awaited: the evaluation of the agent on the disk, if training has not come to its step again.
    """

    def __init__(self, checkpoints: Checkpoints, say: Callable[[str], object]) -> None:
        self._checkpoints, self._say = checkpoints, say
        self.score: float | None = None
        self.step = 0
        self.awaited: State | None = None

    def reached(self, goal: float | None, steps: int) -> bool:
        """Return whether the best evaluation up to a step is as high as the goal; None is never reached."""
        awaited, score, step = self.awaited, self.score, self.step
        if awaited and awaited["steps"] <= steps:
            score, step = awaited["return"]["mean"], awaited["steps"]
        return goal is not None and score is not None and score >= goal and step <= steps

    def offer(self, step: int, evaluation: State, save: Callable[[], bool]) -> bool:
        """Return whether the current agent is the best so far.

        Args:
            step: of training.
            evaluation: the summary of its evaluation.
            save: saves the agent; False: it could not, and the agent does not count as the best.
        """
        mean = evaluation["return"]["mean"]
        if not math.isfinite(mean) or (self.score is not None and mean < self.score):
            return False
        awaited = self.awaited
        if awaited is None or mean >= awaited["return"]["mean"]:
            same = awaited is not None and (step, mean) == (awaited["steps"], awaited["return"]["mean"])
            if not same and not save():
                return False
            self.awaited = None
        self.score, self.step = mean, step
        return True

    def passed(self, steps: int) -> bool:
        """Return whether the clock has passed the step of the awaited evaluation."""
        return self.awaited is not None and self.awaited["steps"] < steps

    def outdoes(self, step: int, mean: float) -> bool:
        """Return whether the awaited evaluation is of this step and better than the one that was made now."""
        awaited = self.awaited
        return awaited is not None and awaited["steps"] == step and not mean >= awaited["return"]["mean"]

    def adopt(self) -> None:
        """Count the awaited agent as this run's best."""
        assert self.awaited is not None
        adopted, self.awaited = self.awaited, None
        self.score, self.step = adopted["return"]["mean"], adopted["steps"]
        score = f"mean {self.score:.2f} (best so far, kept)"
        self._say(f"step {self.step:,}: evaluated before the resume: {score}")

    def state_dict(self) -> State:
        """Return the score and its step."""
        return {"best": self.score, "best_step": self.step}

    def load_state_dict(self, state: State, steps: int) -> None:
        """Restore the score and compare it with the agent on the disk, which decides.

        Args:
            state: as `state_dict` returned it.
            steps: where the clock of the resumed run stands.
        """
        self.score, self.step = state["best"], state["best_step"]
        if self.score is not None and not math.isfinite(self.score):
            self.score, self.step = None, 0
        saved = self._saved()
        if saved is None:
            if self.score is not None:
                lost = f"the best agent, of step {self.step:,}, is missing or damaged"
                self._say(f"{lost}; the next evaluation is the best so far")
            self.score, self.step = None, 0
        elif (saved["steps"], saved["return"]["mean"]) == (self.step, self.score):
            return
        elif saved["steps"] >= steps:
            self.awaited = saved
        else:
            self.score, self.step = saved["return"]["mean"], saved["steps"]

    def _saved(self) -> State | None:
        """Return the evaluation of the agent on the disk, None if no whole agent with finite scores is there."""
        path = self._checkpoints.best()
        if path is None:
            return None
        try:
            load(path, only=["agent"])  # raises Damaged if it is not whole
            found = about(path)
            return found if all(map(math.isfinite, [found["steps"], *evaluation_scalars(found).values()])) else None
        except (Damaged, KeyError, TypeError, AttributeError):
            return None


def evaluation_scalars(evaluation: State) -> dict[str, float]:
    """Return the curves' values of an evaluation's summary."""
    values = {f"eval/return_{name}": evaluation["return"][name] for name in ("mean", "std", "min", "max")}
    reported = {f"eval/info/{name}": mean for name, mean in evaluation.get("info", {}).items()}
    return {**values, "eval/length_mean": evaluation["length"]["mean"], **reported}
