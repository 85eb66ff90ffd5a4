"""`rlrun train`: train an agent, from the start or from where a run was interrupted."""

from __future__ import annotations

import contextlib
import csv
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl_runner import signals
from rl_runner.commands.closing import closing_lines, finished_line
from rl_runner.evaluation import Evaluation
from rl_runner.exact.measure import Exact
from rl_runner.report.curves import Unreadable, read_table, series
from rl_runner.report.results import setting
from rl_runner.report.runs import flatten
from rl_runner.results import EvalResult, TrainResult
from rl_runner.run import notes
from rl_runner.run.best import BestAgent
from rl_runner.run.checkpoint import Checkpoints
from rl_runner.run.directory import RunDirectory
from rl_runner.run.files import CHANGES
from rl_runner.run.loggers import Sender
from rl_runner.run.metrics import MetricsLog
from rl_runner.run.plan import Plan
from rl_runner.run.progress import Progress
from rl_runner.run.records import EpisodeRecords
from rl_runner.run.terminal import Terminal
from rl_runner.trainer import Trainer
from rl_runner.types import Clock, Loop, State, UserError, one_line

MAIN = ("agent.name", "env.name", "seed", "total_steps", "optimizer.lr", "batch_size", "agent.gamma", "agent.n_step")
# Named by the main keys, or without influence on what is learned.
UNRANKED = ("agent=", "env=", "hydra.", "hydra/", "trust=", "name=", "tags=", "log.", "eval.", "checkpoint.", "device=")


@dataclass
class TrainJob:
    """A training run, built.

    Attributes:
        run: its directory, claimed.
        loop: takes the steps.
        evaluation: evaluates the agent as it is, given the step and a function that says when to stop early.
        exact: measures the agent where the environment's dynamics are known.
        plan: when things happen.
        checkpoints: where states go.
        facts: what was built, to show.
        config: the whole configuration, plain.
        trust: packages of the user's own that it names.
        sender: sends the numbers to a service too.
        changes: of a resume: the keys that changed, each with the value before and after.
    """

    run: RunDirectory
    loop: Loop
    evaluation: Callable[[int, Callable[[], bool]], Evaluation | None]
    exact: Exact | None
    plan: Plan
    checkpoints: Checkpoints
    facts: list[tuple[str, str]]
    config: State
    trust: list[str]
    sender: Sender | None = None
    changes: list[tuple[str, Any, Any]] = field(default_factory=list)


class Interrupted(SystemExit):
    """The run was asked to stop; its exit status is the shell's for that signal."""


class NotSaved(UserError):
    """The agent at the end of the run could not be saved, as on a full disk. The machine failed, not the user."""

    exit_code = 1


def train(
    job: TrainJob,
    resume: bool = False,
    words: Sequence[str] = (),
    prune: Callable[[int, float], bool] = lambda step, mean: False,
    accepted: Callable[[], object] = lambda: None,
) -> TrainResult:
    """Run a training job to its end; return where it stands then.

    Args:
        job: what to run.
        resume: continue from the newest checkpoint.
        words: what the user changed in the configuration, for TensorBoard's page of hyperparameters.
        prune: told the step and the mean return of each evaluation; True ends the run early.
        accepted: called once the checkpoint fits and steps remain; writes down what the run is resumed with.

    Raises:
        UserError: nothing to resume, or a checkpoint that does not fit.
        Interrupted: asked to stop by a signal; the state is saved.
        NotSaved: trained to the end, but the last checkpoint could not be written.
    """
    with (
        _signals() as received,
        contextlib.closing(job.loop.envs),
        Terminal(job.plan.total_steps, job.run.log, job.loop.agent.metrics, hasattr(job.loop, "replay")) as terminal,
        _sending(job.sender, terminal, received),
    ):
        newest = job.run.load_newest() if resume else None
        terminal.block(job.facts)
        resumed = _load(job, terminal, *newest) if newest else None
        del newest  # its files, mapped into memory, would stay on the disk after they were deleted
        if resumed and _is_finished(job):
            for key, before, after in job.changes:
                terminal.say(f"not changed, because nothing is left to do: {key}: {before} -> {after}")
            done, steps = job.loop.done, job.loop.clock.steps
            terminal.say(finished_line(job.run, steps, None if done else job.plan.total_steps, job.trust))
            return _finished_result(job, resumed)
        if resumed:
            accepted()
            _record_changes(job, terminal)
        files, step = (resumed["files"], job.loop.clock.steps) if resumed else (None, 0)
        with (
            contextlib.closing(MetricsLog(job.run.path, files, step, terminal.say, job.sender)) as log,
            contextlib.closing(EpisodeRecords(job.run.path, files, step, terminal.say)) as records,
        ):
            trainer = Trainer(
                job.loop,
                lambda step: job.evaluation(step, lambda: bool(received)),
                job.checkpoints,
                log,
                records,
                terminal,
                job.plan,
                stopped=lambda: bool(received),
                diagnostics=job.exact or dict,
                prune=prune,
            )
            if resumed:
                trainer.load_state_dict(resumed)
            else:
                log.hyperparameters(hyperparameters(job.config, words), metric="eval/return_mean")
                log.text("config", "\n".join(f"{key}: {value}" for key, value in flatten(job.config)))
            with _failure_logged(job.run):
                trainer.run()
            for line in closing_lines(trainer, job.run, job.trust, job.exact, bool(received)):
                terminal.say(line)
    job.run.release()
    if received:
        raise Interrupted(128 + received[0])
    if trainer.saver.saved != trainer.loop.clock:
        raise NotSaved(f"{job.run.path}: the agent at the end of the run is not saved: {trainer.saver.error}")
    clock, seconds = trainer.loop.clock, trainer.progress.seconds
    return _result(job.run.path, clock, trainer.best, seconds, trainer.solved, trainer.pruned, trainer.evaluated)


def _finished_result(job: TrainJob, resumed: State) -> TrainResult:
    """Return where a run stands that was finished before: only its last evaluation is not played again."""
    clock, best = job.loop.clock, BestAgent(job.checkpoints, lambda line: None)
    best.load_state_dict(resumed, clock.steps)
    if best.awaited:
        best.adopt()
    progress = Progress(job.plan.stop_window, clock)
    progress.load_state_dict(resumed, clock)
    solved = progress.reached(job.plan.stop_return) or best.reached(job.plan.stop_eval_return, clock.steps)
    return _result(job.run.path, clock, best, resumed["seconds"], solved)


def _result(
    run: Path,
    clock: Clock,
    best: BestAgent,
    seconds: float,
    solved: bool,
    pruned: bool = False,
    last: State | None = None,
) -> TrainResult:
    return TrainResult(
        run=run,
        steps=clock.steps,
        episodes=clock.episodes,
        updates=clock.updates,
        seconds=seconds,
        solved=solved,
        pruned=pruned,
        best=best.score,
        best_step=None if best.score is None else best.step,
        last=None if last is None else EvalResult.of(last["steps"], last["return"], last["per_episode"]),
    )


def _load(job: TrainJob, terminal: Terminal, path: Path, state: State, passed_over: list[str]) -> State:
    """Restore the loop from a checkpoint; return what the trainer had saved."""
    for line in passed_over:
        terminal.say(line)
    try:
        job.loop.load_state_dict(state)
        trainer: State = state["trainer"]
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise UserError(f"resume: {path} does not fit the configuration: {one_line(e)[:300]}") from e
    job.checkpoints.finish_saving(path)
    terminal.say(f"resumed from {path} at step {job.loop.clock.steps:,}")
    if "replay" in state and state["replay"] is None:
        terminal.say("it holds no replay memory: that is filled again before learning goes on, so this is not exact")
    for i in job.loop.envs.lost.nonzero()[0]:
        terminal.say(f"environment {i} is not deterministic: its running episode was ended as truncated")
    return trainer


def _is_finished(job: TrainJob) -> bool:
    """Return whether a run that was loaded has nothing left to do, its closing numbers and evaluation included."""
    if job.loop.clock.steps < job.plan.total_steps and not job.loop.done:
        return False
    try:
        table = read_table(job.run.path)
    except Unreadable:
        return False
    written = [series(table, name).steps for name in ("time/seconds", "eval/return_mean")]
    return all(len(steps) and int(steps[-1]) >= job.loop.clock.steps for steps in written)


def _record_changes(job: TrainJob, terminal: Terminal) -> None:
    """Show what changed at this resume, and add it to the run's table of changes."""
    step, path = job.loop.clock.steps, job.run.path / CHANGES
    for key, before, after in job.changes:
        terminal.say(f"changed at step {step:,}: {key}: {before} -> {after}")
    if not job.changes:
        return
    try:
        with open(path, "a", newline="", encoding="utf-8") as file:
            if not file.tell():
                csv.writer(file).writerow(["step", "key", "before", "after"])
            csv.writer(file).writerows([step, *change] for change in job.changes)
    except OSError as e:
        terminal.say(f"{path} cannot be written ({e.strerror or e}); the run continues")


def differences(before: State, after: State) -> list[tuple[str, Any, Any]]:
    """Return the keys of two flat configurations that differ, each with both values."""
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


@contextlib.contextmanager
def _failure_logged(run: RunDirectory) -> Iterator[None]:
    """Add to the run's log why training failed. A sweep notes that of its jobs by itself."""
    run = RunDirectory(run.path.absolute())  # an environment may change the working directory
    try:
        yield
    except (Exception, SystemExit) as e:  # games call sys.exit() when their window is closed
        kind = "" if isinstance(e, UserError) else f"{type(e).__name__}: "
        with contextlib.suppress(OSError), open(run.log, "a", encoding="utf-8") as log:
            if notes.read(run.path) is None:
                log.write(f"failed: {kind}{one_line(e)}\n")
        raise


@contextlib.contextmanager
def _sending(sender: Sender | None, terminal: Terminal, received: list[int]) -> Iterator[None]:
    """Close a service's run at the end; it is not finished if training failed or was asked to stop."""
    if sender is None:
        yield
        return
    finished = False
    sender.say = terminal.say
    try:
        yield
        finished = not received
    finally:
        sender.close(finished)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the signals that ask a run to stop, instead of dying of them; a second SIGINT interrupts at once.

    SIGHUP, which nohup ignores, and SIGUSR1 and SIGUSR2, the warnings of a cluster before it ends a job, keep a handler
    that they have, unless it is the command's own.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in signals.unhandled()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hyperparameters(config: State, words: Sequence[str]) -> dict[str, object]:
    """Return what tells a run from others: the main keys, and those that the user changed, as they are or were typed.

    Args:
        config: the whole configuration.
        words: what the user typed, such as "network=dueling".
    """
    values = dict(flatten(config))
    changed = dict(setting(word) for word in words if not word.lstrip("+").startswith(UNRANKED))
    return {key: values.get(key, changed.get(key)) for key in (*MAIN, *changed) if key in values or key in changed}
