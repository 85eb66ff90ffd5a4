"""`rlrun train`: train an agent, from the start or from where a run was interrupted."""

from __future__ import annotations

import contextlib
import datetime
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rl_runner import signals
from rl_runner.evaluation import Evaluation
from rl_runner.exact.measure import Exact
from rl_runner.results import EvalResult, TrainResult
from rl_runner.run.checkpoint import Checkpoints
from rl_runner.run.directory import RunDirectory
from rl_runner.run.metrics import MetricsLog
from rl_runner.run.records import EpisodeRecords
from rl_runner.run.terminal import Terminal, recent_return
from rl_runner.trainer import Plan, Trainer
from rl_runner.types import Loop, State, UserError


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


class Interrupted(SystemExit):
    """The run was asked to stop; its exit status is the shell's for that signal."""


class NotSaved(UserError):
    """The agent at the end of the run could not be saved, as on a full disk. The machine failed, not the user."""

    exit_code = 1


def train(job: TrainJob, resume: bool = False) -> TrainResult:
    """Run a training job to its end; return where it stands then.

    Args:
        job: what to run.
        resume: go on from the newest checkpoint.

    Raises:
        UserError: nothing to resume, or a checkpoint that does not fit.
        Interrupted: asked to stop by a signal; the state is saved.
        NotSaved: trained to the end, but the last checkpoint could not be written.
    """
    saved = job.run.load_newest() if resume else None
    with (
        contextlib.closing(job.loop.envs),
        Terminal(job.plan.total_steps, job.run.log, job.loop.agent.metrics) as terminal,
        _signals() as received,
    ):
        terminal.block(job.facts)
        resumed = _load(job, terminal, *saved) if saved else None
        saved = None  # or its files, mapped into memory, would stay on the disk after they were deleted
        files, step = (resumed["files"], job.loop.clock.steps) if resumed else (None, 0)
        with (
            contextlib.closing(MetricsLog(job.run.path, files, step, terminal.say)) as log,
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
            )
            if resumed:
                trainer.load_state_dict(resumed)
            else:
                log.hyperparameters(dict(flatten(job.config)), metric="eval/return_mean")
            trainer.run()
            _closing_words(job, trainer, terminal, bool(received))
    job.run.release()
    if received:
        raise Interrupted(128 + received[0])
    if trainer.saved != trainer.loop.clock:
        raise NotSaved(f"{job.run.path}: the agent at the end of the run is not saved: {trainer.save_error}")
    return _result(job.run.path, trainer)


def _result(run: Path, trainer: Trainer) -> TrainResult:
    clock, best, last = trainer.loop.clock, trainer.best, trainer.evaluated
    return TrainResult(
        run=run,
        steps=clock.steps,
        episodes=clock.episodes,
        updates=clock.updates,
        seconds=trainer.progress.seconds,
        solved=trainer.solved,
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
        raise UserError(f"resume: {path} does not fit the configuration: {' '.join(str(e).split())[:300]}") from e
    terminal.say(f"resumed from {path} at step {job.loop.clock.steps:,}")
    if "replay" in state and state["replay"] is None:
        terminal.say("it holds no replay memory: that is filled again before learning goes on, so this is not exact")
    for i in job.loop.envs.lost.nonzero()[0]:
        terminal.say(f"environment {i} is not deterministic: its running episode was ended as truncated")
    return trainer


def _closing_words(job: TrainJob, trainer: Trainer, terminal: Terminal, interrupted: bool) -> None:
    clock, progress, run = trainer.loop.clock, trainer.progress, job.run.path
    took = datetime.timedelta(seconds=int(progress.seconds))
    recent = progress.recent
    training = f", {recent_return(recent)}" if recent else ""
    path = _word(run)
    trust = " " + shlex.quote(f"trust=[{','.join(job.trust)}]") if job.trust else ""
    if trainer.solved:
        terminal.say(f"solved after {clock.steps:,} steps")
    terminal.say(f"{clock.steps:,} steps, {clock.episodes:,} episodes, {clock.updates:,} updates in {took}{training}")
    if trainer.best.score is not None:
        terminal.say(f"best evaluation: {trainer.best.score:.2f} at step {trainer.best.step:,}")
    if job.exact:
        for line in job.exact.report():
            terminal.say(line)
    resume = f"rlrun train {shlex.quote(f'resume={path}')}{trust}"
    evaluate = f"rlrun eval {shlex.quote(path)}{trust}"
    if trainer.saved != clock:
        terminal.say(f"the agent at step {clock.steps:,} is not saved: {trainer.save_error}")
        if newest := next(job.checkpoints.newest(), None):
            terminal.say(f"go on from {newest.name} with:  {resume}")
        if job.checkpoints.best():
            terminal.say(f"evaluate the best agent:  {evaluate}")
    elif interrupted:
        terminal.say(f"stopped and saved; go on with:  {resume}")
    else:
        terminal.say(f"evaluate it:  {evaluate}")
        terminal.say(f"watch it:     rlrun play {shlex.quote(path)}{trust}")


def _word(run: Path) -> str:
    """Return a run's directory as a command line takes it: `./` before what would be an option, null or latest."""
    text = str(run)
    return text if re.match(r"[\w/.]", text) and text not in ("latest", "null") else f"./{text}"


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the signals that ask a run to stop, instead of dying of them; a second SIGINT interrupts at once.

    SIGHUP, which nohup ignores, and SIGUSR1 and SIGUSR2, the warnings of a cluster before it ends a job, keep a handler
    that they have, unless it is the one of a sweep. Outside the main thread Python allows no signal handlers.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

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


def flatten(node: State, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Return the leaves of a configuration by their dotted keys."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
