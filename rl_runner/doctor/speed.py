"""How fast a run will be: some seconds of it, with updates, in an agent and environments that are thrown away."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import torch

from rl_runner.loops.replay import ReplayLoop
from rl_runner.run.terminal import counted
from rl_runner.types import Loop

WARM_UP = 3  # cycles of acting and learning before the clock starts: caches, lazy allocations, compilation
FILLED = 200  # rows at least before learning is measured, as far as the run has them before it learns
PATIENCE = 3  # times the seconds that were asked for: no measurement takes longer


class Speed(NamedTuple):
    """What was measured.

    Attributes:
        steps_per_s: of training, with all the updates that belong to the steps; None: there was no update.
        updates_per_s: in that time.
        before_per_s: steps per second before learning begins; None: not measured.
        seconds: that the measurement of training took.
    """

    steps_per_s: float | None
    updates_per_s: float
    before_per_s: float | None
    seconds: float

    def hours(self, total: int, before: int) -> float | None:
        """Return how long training takes.

        Args:
            total: steps.
            before: of them, those before learning begins.
        """
        if self.steps_per_s is None:
            return None
        before = min(before, total)
        return (before / (self.before_per_s or self.steps_per_s) + (total - before) / self.steps_per_s) / 3600


def measure(loop: Loop, seconds: float, random_steps: int = 0) -> Speed:
    """Run a loop for a while. It cannot be used for training afterwards.

    Learning often comes in bursts, some hundred updates after some hundred steps. Therefore the clock starts and stops
    after an update, so that whole cycles are measured.

    Args:
        loop: newly built.
        seconds: to measure; it takes longer where a cycle does.
        random_steps: steps at the start in which the agent does not ask its network.

    Raises:
        UserError: what training raises too, such as an environment that returns NaN.
    """
    before = _fill(loop, seconds, random_steps) if isinstance(loop, ReplayLoop) else None
    deadline = time.perf_counter() + PATIENCE * seconds
    for _ in range(WARM_UP):
        _cycle(loop, deadline)
    began, clock = now(), loop.clock
    stopped = began
    while stopped - began < seconds and not loop.done and _cycle(loop, began + PATIENCE * seconds):
        stopped = now()
    took, updates = stopped - began, loop.clock.updates - clock.updates
    if not updates or took <= 0:
        return Speed(None, 0.0, before, took)
    loop.scalars()  # raises UserError if the loss is not finite
    return Speed((loop.clock.steps - clock.steps) / took, updates / took, before, took)


def _fill(loop: ReplayLoop, seconds: float, random_steps: int) -> float | None:
    """Fill the replay memory as far as sampling needs it, then begin with learning; return the steps per second."""
    starts, storage = loop.learning_starts, loop.replay.storage
    least = max(FILLED, 2 * loop.batch_size, loop.envs.num_envs * (storage.stack + loop.replay.n_step + 2))
    began, deadline = now(), time.perf_counter() + PATIENCE * seconds
    while loop.replay.added < min(starts, least) or (loop.replay.added < starts and now() < began + seconds / 5):
        loop.step()
        if time.perf_counter() > deadline:
            break
    took = now() - began
    rate = loop.clock.steps / took if loop.clock.steps and took > 0 else None
    loop.learning_starts = 0
    loop.clock = loop.clock.plus(steps=max(0, max(starts, random_steps) - loop.clock.steps))  # schedules, too
    return rate


def _cycle(loop: Loop, deadline: float) -> bool:
    """Step until something was learned; return False if the time was up before."""
    updates = loop.clock.updates
    while loop.clock.updates == updates and not loop.done:
        if time.perf_counter() > deadline:
            return False
        loop.step()
    return True


def now() -> float:
    """Return the time at which all work is done that was begun so far, also that of a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def duration(hours: float) -> str:
    """Return a time in words, as exact as an estimate is."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    if hours > 1.5 / 60:
        return counted(math.ceil(hours * 60), "minute")
    return counted(math.ceil(hours * 3600), "second")
