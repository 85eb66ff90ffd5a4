"""The shell round a training loop: log, evaluate, checkpoint, stop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from rl_runner.evaluate import Evaluation
from rl_runner.run.checkpoint import Checkpoints, Damaged, about, load
from rl_runner.run.metrics import MetricsLog
from rl_runner.schedules import Every
from rl_runner.types import Clock, Loop, State


class Terminal(Protocol):
    """What the person in front of the run sees."""

    def advance(self, clock: Clock, returns: Sequence[float]) -> None: ...
    def pause(self, doing: str) -> AbstractContextManager[None]: ...
    def update(self, clock: Clock, scalars: dict[str, float]) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass(frozen=True)
class Plan:
    """When things happen.

    Attributes:
        total_steps: the run's length.
        log: write scalars this often.
        evaluate: play evaluation episodes this often.
        checkpoint: write a whole checkpoint this often.
        keep_replay: whole checkpoints hold the replay memory; without it a resumed run is not exact.
        stop_return: stop when the mean return of the last `stop_window` training episodes reaches this; None: do not.
        stop_window: episodes.
        stop_eval_return: stop when the mean return of an evaluation reaches this; None: do not.
    """

    total_steps: int
    log: Every
    evaluate: Every
    checkpoint: Every
    keep_replay: bool = True
    stop_return: float | None = None
    stop_window: int = 100
    stop_eval_return: float | None = None


@dataclass
class Progress:
    """What the trainer itself must remember across a resume."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=100))  # returns of the last episodes
    interval: list[tuple[float, int]] = field(default_factory=list)  # (return, length) of episodes since the last log
    logged: Clock = field(default_factory=Clock)  # the clock at the last log line
    evaluated: Clock = field(default_factory=Clock)  # the clock at the last evaluation
    best: float | None = None  # best evaluation so far, always a finite number, and where
    best_step: int = 0
    seconds: float = 0.0  # wall-clock of training, over all resumes


class Trainer:
    """Runs a loop to its end.

    The best agent of a run is never replaced by a worse one. A resume may start from a step before the best evaluation:
    after a crash, from an older checkpoint, or from the last one, which is written before the closing evaluation. The
    best agent on the disk is then kept, but training does not count its score before the clock has passed that step, so
    that an exact resume repeats the original run. If the repeated evaluation is worse, or is missing, the saved agent
    stays the best one and the rows of its evaluation are written again.

    Args:
        loop: takes the steps.
        evaluation: returns an evaluation of the agent as it is, None if it was interrupted; the step picks its seeds.
        checkpoints: where states go.
        log: where scalars go.
        terminal: what the person sees.
        plan: when things happen.
        stopped: asked after every step; True ends the run after a checkpoint.
        diagnostics: returns further scalars each time that scalars are written.
    """

    def __init__(
        self,
        loop: Loop,
        evaluation: Callable[[int], Evaluation | None],
        checkpoints: Checkpoints,
        log: MetricsLog,
        terminal: Terminal,
        plan: Plan,
        stopped: Callable[[], bool] = lambda: False,
        diagnostics: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.loop, self.evaluation, self.checkpoints, self.log = loop, evaluation, checkpoints, log
        self.terminal, self.plan, self.stopped, self.diagnostics = terminal, plan, stopped, diagnostics
        self.progress = Progress(recent=deque(maxlen=plan.stop_window))
        self.saved: Clock | None = None  # the clock at the last checkpoint that was written or loaded
        self.save_error = ""  # why the last checkpoint that failed did
        self._ahead: State | None = None  # what is known of the best agent, where its evaluation is ahead of the clock
        self._started = self._logged_at = time.perf_counter()
        self._counted = loop.clock  # where the clock stood then: a resumed run is not credited with what it did before

    @property
    def solved(self) -> bool:
        """The mean return of the last episodes, or of the best evaluation, has reached what was asked for."""
        recent, goal = self.progress.recent, self.plan.stop_return
        if goal is not None and len(recent) == recent.maxlen and sum(recent) / len(recent) >= goal:
            return True
        best, goal = self.progress.best, self.plan.stop_eval_return
        if self._ahead and self._ahead["steps"] <= self.loop.clock.steps:
            best = self._ahead["return"]["mean"]
        return goal is not None and best is not None and best >= goal

    @property
    def seconds(self) -> float:
        """Wall-clock of the run so far, over all resumes."""
        return self.progress.seconds + time.perf_counter() - self._started

    def run(self) -> None:
        """Train until the steps are done, the task is solved, nothing is left to learn, or somebody asks to stop."""
        plan, loop = self.plan, self.loop
        self.terminal.advance(loop.clock, self.progress.recent)
        self._evaluate_if_due()  # an evaluation that the run was interrupted in is made up for
        while loop.clock.steps < plan.total_steps and not (self.solved or loop.done or self.stopped()):
            before = loop.clock
            loop.step()
            for episode in loop.envs.finished:
                self.progress.recent.append(episode.total_reward)
                self.progress.interval.append((episode.total_reward, episode.length))
            self.terminal.advance(loop.clock, self.progress.recent)
            if self._ahead and self._ahead["steps"] < loop.clock.steps:
                self._adopt_best()
            if plan.log.crossings(before, loop.clock):
                self.write_scalars()
            self._evaluate_if_due()
            if plan.checkpoint.crossings(before, loop.clock):
                self.checkpoint()
        # First the checkpoint, then the closing numbers: a run that is resumed with more steps drops those.
        self.checkpoint()
        if not self.stopped():
            if loop.clock != self.progress.logged:
                self.write_scalars()
            if loop.clock != self.progress.evaluated:
                self.evaluate()
        if self._ahead:
            self._adopt_best()

    def write_scalars(self) -> None:
        """Write what happened since the last call."""
        progress, clock = self.progress, self.loop.clock
        scalars: dict[str, float] = {}
        if progress.interval:
            count = len(progress.interval)
            scalars["train/return"] = sum(total for total, _ in progress.interval) / count
            scalars["train/length"] = sum(length for _, length in progress.interval) / count
            scalars[f"train/return_last_{progress.recent.maxlen}"] = sum(progress.recent) / len(progress.recent)
        scalars["train/episodes"] = clock.episodes
        scalars |= self.loop.scalars()
        elapsed = max(time.perf_counter() - self._logged_at, 1e-9)
        scalars |= self.diagnostics()
        scalars["time/steps_per_s"] = (clock.steps - self._counted.steps) / elapsed
        scalars["time/updates_per_s"] = (clock.updates - self._counted.updates) / elapsed
        scalars["time/seconds"] = self.seconds
        progress.interval, progress.logged, self._counted = [], clock, clock
        self.log.write(clock.steps, scalars)
        self.terminal.update(clock, scalars)
        self._logged_at = time.perf_counter()  # steps/s are those of training, without what was measured here

    def _evaluate_if_due(self) -> None:
        if self.plan.evaluate.crossings(self.progress.evaluated, self.loop.clock):
            self.evaluate()

    def evaluate(self) -> None:
        """Evaluate the agent; keep it if it is the best so far."""
        step, started = self.loop.clock.steps, time.perf_counter()
        with self.terminal.pause("evaluating"):
            evaluation = self.evaluation(step)
        if evaluation is None:
            return
        self.progress.evaluated = self.loop.clock
        summary = evaluation.summary()
        result = summary["return"]
        if self._ahead and self._ahead["steps"] == step and not result["mean"] >= self._ahead["return"]["mean"]:
            self._adopt_best()
        self.log.write(step, _scalars(summary))
        is_best = self._keep_if_best(step, summary)
        self.terminal.say(
            f"step {step:,}: evaluation over {summary['episodes']} episodes: return {result['mean']:.2f}, "
            f"std {result['std']:.2f}{' (best so far)' if is_best else ''}"
        )
        self._logged_at += time.perf_counter() - started  # steps/s are those of training

    def _keep_if_best(self, step: int, summary: State) -> bool:
        """Save the agent if none was better; return whether it is the best so far. One that is not saved is not."""
        progress, mean = self.progress, summary["return"]["mean"]
        if not math.isfinite(mean) or (progress.best is not None and mean < progress.best):
            return False
        ahead = self._ahead
        if ahead is None or mean >= ahead["return"]["mean"]:
            made_again = ahead is not None and (step, mean) == (ahead["steps"], ahead["return"]["mean"])
            agent = {"agent": self.loop.agent.state_dict()}
            if not made_again and not self._save(
                "best agent", self.checkpoints.save_best, agent, self._about(**summary)
            ):
                return False
            self._ahead = None
        progress.best, progress.best_step = mean, step
        return True

    def _adopt_best(self) -> None:
        """Count the best agent on the disk as this run's, though its evaluation did not come again."""
        assert self._ahead is not None
        best, self._ahead = self._ahead, None
        self.progress.best, self.progress.best_step = best["return"]["mean"], best["steps"]
        self.log.write(best["steps"], _scalars(best))
        score = f"return {self.progress.best:.2f} (best so far, kept)"
        self.terminal.say(f"step {best['steps']:,}: evaluated before the resume: {score}")

    def checkpoint(self) -> None:
        """Write everything that the run needs to go on, unless it stands there already."""
        if self.saved == self.loop.clock:
            return
        state = {**self.loop.state_dict(), "trainer": self._state()}
        if "replay" in state and not self.plan.keep_replay:
            state["replay"] = None
        if self._save("checkpoint", self.checkpoints.save, state, self._about()):
            self.saved = self.loop.clock

    def _save(self, what: str, save: Callable[[int, State, State], object], state: State, about: State) -> bool:
        """Save; return whether that was possible. A full disk is said, and the run goes on."""
        step = self.loop.clock.steps
        try:
            with self.terminal.pause("saving"):
                save(step, state, about)
        except OSError as e:
            self.save_error = f"{e.strerror or e}"
            self.terminal.say(f"step {step:,}: the {what} cannot be saved ({self.save_error}); the run goes on")
            return False
        return True

    def _about(self, **more: object) -> State:
        return {**vars(self.loop.clock), "seconds": self.seconds, **more}

    def _state(self) -> State:
        p = self.progress
        return {
            "recent": list(p.recent),
            "interval": list(p.interval),
            "logged": vars(p.logged),
            "evaluated": vars(p.evaluated),
            "best": p.best,
            "best_step": p.best_step,
            "seconds": self.seconds,
            "files": self.log.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what the trainer remembers; the loop has been restored by itself."""
        p, mine = self.progress, state
        p.recent.extend(mine["recent"])
        p.interval = list(mine["interval"])
        p.logged, p.evaluated = Clock(**mine["logged"]), Clock(**mine["evaluated"])
        p.best, p.best_step, p.seconds = mine["best"], mine["best_step"], mine["seconds"]
        if p.best is not None and not math.isfinite(p.best):
            p.best, p.best_step = None, 0
        self._compare_best()
        self.saved = self.loop.clock
        self._started = self._logged_at = time.perf_counter()

    def _compare_best(self) -> None:
        """Compare what is remembered of the best agent with the one on the disk, which counts."""
        p, found = self.progress, self._best_on_disk()
        if found is None:
            if p.best is not None:
                lost = f"the best agent, of step {p.best_step:,}, is missing or damaged"
                self.terminal.say(f"{lost}; the next evaluation is the best so far")
            p.best, p.best_step = None, 0
        elif (found["steps"], found["return"]["mean"]) == (p.best_step, p.best):
            return
        elif found["steps"] >= self.loop.clock.steps:
            self._ahead = found
        else:
            p.best, p.best_step = found["return"]["mean"], found["steps"]

    def _best_on_disk(self) -> State | None:
        """Return the summary of the best agent's evaluation, None if there is no whole agent or its score is none."""
        path = self.checkpoints.best()
        if path is None:
            return None
        try:
            load(path, only=["agent"])  # raises Damaged if it is not whole
            found = about(path)
            return found if all(map(math.isfinite, [found["steps"], *_scalars(found).values()])) else None
        except (Damaged, KeyError, TypeError):
            return None


def _scalars(evaluation: State) -> dict[str, float]:
    """Return the curves' values of an evaluation's summary."""
    scalars = {f"eval/return_{name}": evaluation["return"][name] for name in ("mean", "std", "min", "max")}
    return {**scalars, "eval/length_mean": evaluation["length"]["mean"]}
