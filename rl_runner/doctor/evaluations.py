"""How long the evaluations of a run take, from some seconds of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rl_runner.doctor.speed import PATIENCE, duration, now
from rl_runner.run.terminal import counted
from rl_runner.types import State


class Evaluations(NamedTuple):
    """The evaluations of a run, and what was measured of them.

    Attributes:
        number: of evaluations in the whole run.
        episodes: in each.
        rounds: episodes in each that an environment plays one after the other.
        steps_per_s: of one environment, while all of them play.
        length: mean steps of the episodes that ended while measuring; None: none did.
        limit: time limit of an episode in steps; None: unknown.
    """

    number: int
    episodes: int
    rounds: int
    steps_per_s: float
    length: float | None
    limit: int | None

    def hours(self, length: float | None) -> float | None:
        """Return how long they take with episodes of so many steps; None: it is not known how many."""
        return None if length is None else self.number * self.rounds * length / self.steps_per_s / 3600

    def facts(self, total_steps: int, training: float) -> list[tuple[str, str]]:
        """Return how long the run takes, and what is counted, as rows of a table.

        Args:
            total_steps: of training.
            training: hours that they take.
        """
        mine = self.hours(self.length or self.limit)
        if mine is None:
            left_out = "without evaluations, because no episode ended while measuring, and without checkpoints"
            return [("time", f"{total_steps:,} steps take about {duration(training)}, {left_out}")]
        steps, evaluations = (
            f"{total_steps:,} steps",
            f"{counted(self.number, 'evaluation')} of {counted(self.episodes, 'episode')}",
        )
        parts = f"{steps} {duration(training)} + {evaluations} {duration(mine)}"
        return [("time", f"about {duration(training + mine)}: {parts}, without checkpoints"), ("", self._basis())]

    def _basis(self) -> str:
        """Return in words how long the episodes are taken to be."""
        if self.length is None:
            return f"evaluations with {self.limit:,} steps an episode, the time limit; none ended while measuring"
        now_played = f"evaluations with {self.length:,.0f} steps an episode, as the agent plays now"
        longest = self.hours(self.limit)
        if longest is None or self.limit == self.length:
            return now_played
        return f"{now_played}; with {self.limit:,}, the time limit, they take {duration(longest)}"

    def numbers(self) -> State:
        """Return the same for programs."""
        return {**self._asdict(), "hours": self.hours(self.length), "hours_at_limit": self.hours(self.limit)}


def measure(play: Callable[[Callable[[], bool]], list[int]], seconds: float) -> tuple[float, float | None]:
    """Play for a while as evaluations do; return the steps per second and the mean length of the episodes that ended.

    Args:
        play: plays one episode in each environment, asks before each step whether to stop, and returns the lengths of
            the episodes that ended.
        seconds: to measure; it takes longer until an episode has ended everywhere, at most `PATIENCE` times as long.
    """
    steps, lengths = 0, list[int]()
    began = stopped_at = now()

    def stopped() -> bool:
        nonlocal steps
        late = steps > 0 and now() >= began + PATIENCE * seconds
        steps += not late
        return late

    while stopped_at < began + seconds:
        lengths += play(stopped)
        stopped_at = now()
    return steps / (stopped_at - began), sum(lengths) / len(lengths) if lengths else None
