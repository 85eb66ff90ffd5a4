"""The shell round a training loop: log, evaluate, checkpoint, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rl_runner.evaluation import Evaluation
from rl_runner.run.best import BestAgent, evaluation_scalars
from rl_runner.run.checkpoint import Checkpoints
from rl_runner.run.metrics import MetricsLog
from rl_runner.run.plan import Plan
from rl_runner.run.progress import Progress
from rl_runner.run.records import EpisodeRecords
from rl_runner.run.saver import Saver, Screen
from rl_runner.run.terminal import counted
from rl_runner.types import Clock, Loop, State


class Terminal(Screen, Protocol):
    """What the person in front of the run sees."""

    def advance(self, clock: Clock, returns: Sequence[float]) -> None: ...
    def update(self, clock: Clock, scalars: dict[str, float]) -> None: ...


class Trainer:
    """Runs a loop to its end.

    Args:
        loop: takes the steps.
        evaluation: returns an evaluation of the agent as it is, None if it was interrupted; the step picks its seeds.
        checkpoints: where states go.
        log: where scalars go.
        records: where single episodes go.
        terminal: what the person sees.
        plan: when things happen.
        stopped: asked after every step; True ends the run after a checkpoint.
        diagnostics: returns further scalars each time that scalars are written.
        prune: told the step and the mean return of each evaluation; True ends the run early.

    Attributes:
        progress: what has happened so far.
        best: the best agent so far.
        evaluated: the summary of the last evaluation, None before the first one since the start or the last resume.
        saver: writes checkpoints; knows the last one.
        pruned: an evaluation has ended the run early.
    """

    def __init__(
        self,
        loop: Loop,
        evaluation: Callable[[int], Evaluation | None],
        checkpoints: Checkpoints,
        log: MetricsLog,
        records: EpisodeRecords,
        terminal: Terminal,
        plan: Plan,
        stopped: Callable[[], bool] = lambda: False,
        diagnostics: Callable[[], dict[str, float]] = dict,
        prune: Callable[[int, float], bool] = lambda step, mean: False,
    ) -> None:
        self.loop, self.evaluation = loop, evaluation
        self.log, self.records, self.terminal, self.plan = log, records, terminal, plan
        self.stopped, self.diagnostics, self.prune = stopped, diagnostics, prune
        self.pruned = False
        self.progress = Progress(plan.stop_window, loop.clock)
        self.saver = Saver(checkpoints, terminal, lambda: self.progress.seconds)
        self.best = BestAgent(checkpoints, terminal.say)
        self.evaluated: State | None = None

    @property
    def solved(self) -> bool:
        """The mean return of the last episodes, or of the best evaluation, has reached what was asked for."""
        goals, steps = self.plan, self.loop.clock.steps
        return self.progress.reached(goals.stop_return) or self.best.reached(goals.stop_eval_return, steps)

    def run(self) -> None:
        """Train until the steps are done, the task is solved, nothing is left to learn, or somebody asks to stop."""
        plan, loop = self.plan, self.loop
        self.terminal.advance(loop.clock, self.progress.recent)
        self._evaluate_if_due()  # repeat an evaluation that was interrupted
        while loop.clock.steps < plan.total_steps and not (self.solved or loop.done or self.pruned or self.stopped()):
            before = loop.clock
            loop.step()
            if not before.steps:
                self.saver.require_saveable(loop.state_dict())
            if loop.envs.finished:
                self.progress.add(loop.envs.finished)
                self.records.training(loop.clock.steps, loop.envs.finished)
                self.log.episodes(loop.clock.steps, loop.envs.finished)
            self.terminal.advance(loop.clock, self.progress.recent)
            if self.best.passed(loop.clock.steps):
                self.best.adopt()
            if plan.log.crossings(before, loop.clock):
                self.write_scalars()
            self._evaluate_if_due()
            if plan.snapshot.crossings(before, loop.clock):
                self.saver.snapshot(loop.clock, loop.agent)
            if plan.checkpoint.crossings(before, loop.clock):
                self.checkpoint()
        # First the checkpoint, then the closing numbers: a run that is resumed with more steps drops those.
        self.checkpoint()
        if not self.stopped():
            if loop.clock != self.progress.logged:
                self.write_scalars()
            if loop.clock != self.progress.evaluated:
                self.evaluate()
        if self.best.awaited:
            self.best.adopt()

    def write_scalars(self) -> None:
        """Write what happened since the last call."""
        clock = self.loop.clock
        scalars = {**self.progress.episodes(clock), **self.loop.scalars()}
        if frame_skip := self.loop.envs.frame_skip:
            scalars["train/frames"] = clock.steps * frame_skip
        speed = self.progress.speed(clock)  # of training, without what is measured here
        scalars |= {**self.diagnostics(), **speed}
        self.log.write(clock.steps, scalars)
        self.terminal.update(clock, scalars)
        self.progress.begin_interval(clock)

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
        summary, episodes = evaluation.summary(), evaluation.rows()
        result = summary["return"]
        if self.best.outdoes(step, result["mean"]):
            self.best.adopt()
        self.evaluated = evaluated = {**summary, "per_episode": episodes, "steps": step}
        self.records.evaluation(step, episodes)
        is_best = self.best.offer(step, summary, lambda: self.saver.best(self.loop.clock, self.loop.agent, evaluated))
        self.log.write(step, evaluation_scalars(summary))  # last: a run with this row at its end counts as finished
        self.terminal.say(
            f"step {step:,}: evaluation over {counted(summary['episodes'], 'episode')}: return {result['mean']:.2f}, "
            f"std {result['std']:.2f}{' (best so far)' if is_best else ''}"
        )
        left = step < self.plan.total_steps and not (self.solved or self.loop.done)
        self.pruned = self.prune(step, result["mean"]) and left
        self.progress.leave_out(time.perf_counter() - started)

    def checkpoint(self) -> None:
        """Write everything that the run needs to go on, unless it stands there already."""
        if self.saver.saved == self.loop.clock:
            return
        state = {**self.loop.state_dict(), "trainer": self.state_dict()}
        if "replay" in state and not self.plan.keep_replay:
            state["replay"] = None
        self.saver.checkpoint(self.loop.clock, state)

    def state_dict(self) -> State:
        """Return what the trainer itself must remember across a resume."""
        files = {**self.log.state_dict(), **self.records.state_dict()}
        return {**self.progress.state_dict(), **self.best.state_dict(), "files": files}

    def load_state_dict(self, state: State) -> None:
        """Restore what `state_dict` returned. The loop must be restored first."""
        self.progress.load_state_dict(state, self.loop.clock)
        self.best.load_state_dict(state, self.loop.clock.steps)
        self.saver.saved = self.loop.clock
