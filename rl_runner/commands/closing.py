"""What is said when a training run has ended, with the commands that lead on."""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rl_runner.exact.measure import Exact
from rl_runner.run.directory import RunDirectory
from rl_runner.run.terminal import recent_return
from rl_runner.trainer import Trainer


def closing_lines(
    trainer: Trainer, run: RunDirectory, trust: Sequence[str], exact: Exact | None, interrupted: bool
) -> Iterator[str]:
    """Yield the lines that end a run.

    Args:
        trainer: has run.
        run: its directory.
        trust: packages that the next command must name.
        exact: measures the agent where the environment's dynamics are known.
        interrupted: a signal stopped the run.
    """
    clock, progress, best = trainer.loop.clock, trainer.progress, trainer.best
    took = datetime.timedelta(seconds=int(progress.seconds))
    training = f", {recent_return(progress.recent)}" if progress.recent else ""
    if trainer.solved:
        yield f"solved after {clock.steps:,} steps"
    if trainer.pruned:
        yield f"pruned by the search after {clock.steps:,} of {trainer.plan.total_steps:,} steps"
    yield f"{clock.steps:,} steps, {clock.episodes:,} episodes, {clock.updates:,} updates in {took}{training}"
    if best.score is not None:
        yield f"best evaluation: {best.score:.2f} at step {best.step:,}"
    yield from exact.report() if exact else []
    path = _word(run.path)
    resume = shlex.join(["rlrun", "train", f"resume={path}", *_trust(trust)])
    evaluate = shlex.join(["rlrun", "eval", path, *_trust(trust)])
    if trainer.saver.saved != clock:
        yield f"the agent at step {clock.steps:,} is not saved: {trainer.saver.error}"
        if newest := next(trainer.saver.checkpoints.newest(), None):
            yield f"resume from {newest.name} with:  {resume}"
        if trainer.saver.checkpoints.best():
            yield f"evaluate the best agent:  {evaluate}"
    elif interrupted:
        yield f"stopped and saved; resume with:  {resume}"
    else:
        yield f"plot it:      {shlex.join(['rlrun', 'plot', path])}"
        yield f"evaluate it:  {evaluate}"
        yield f"watch it:     {shlex.join(['rlrun', 'play', path, *_trust(trust)])}"


def finished_line(run: RunDirectory, steps: int, total_steps: int | None, trust: Sequence[str]) -> str:
    """Return what is said when a finished run is resumed, with the command that trains it further.

    Args:
        run: its directory.
        steps: it has taken.
        total_steps: it was to take; None: nothing is left to learn.
        trust: packages that the command must name.
    """
    if total_steps is None:
        return f"nothing to do: {run.path} is finished after {steps:,} steps, nothing is left to learn"
    words = [f"resume={_word(run.path)}", f"total_steps={2 * total_steps:_}", *_trust(trust)]
    command = shlex.join(["rlrun", "train", *words])
    return f"nothing to do: {run.path} is finished, {steps:,} of {total_steps:,} steps; to train it further:  {command}"


def _trust(packages: Sequence[str]) -> list[str]:
    return [f"trust=[{','.join(packages)}]"] if packages else []


def _word(run: Path) -> str:
    """Return a run's directory as a command line takes it: `./` before what would be an option, null or latest."""
    text = str(run)
    return text if re.match(r"[\w/.]", text) and text not in ("latest", "null") else f"./{text}"
