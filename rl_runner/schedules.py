"""Periods, and numbers that change with time."""

from __future__ import annotations

from dataclasses import dataclass

from rl_runner.types import Clock, UserError


@dataclass(frozen=True)
class Every:
    """A period with its unit. It has no state: it counts the multiples between two clocks.

    Attributes:
        period: in units; 0 means never.
        unit: what is counted: "steps", "updates" or "episodes" (the fields of `Clock`).
    """

    period: int
    unit: str = "steps"

    def crossings(self, before: Clock, now: Clock) -> int:
        """Return the number of multiples of the period in (before, now]; correct for any number of environments."""
        if self.period <= 0:
            return 0
        return int(getattr(now, self.unit) // self.period - getattr(before, self.unit) // self.period)


@dataclass(frozen=True)
class LinearSchedule:
    """A number that changes linearly from `start` to `end` over `steps` steps and then stays.

    Raises:
        UserError: a value out of range.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"steps of a linear schedule must be 0 or more, got {self.steps}")

    def __call__(self, step: int) -> float:
        """Return the value after `step` steps."""
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * step / self.steps
