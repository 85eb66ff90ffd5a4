"""An exploration rule: action values (N, A) -> actions (N,)."""

from __future__ import annotations

import numpy as np

from rl_runner.schedules import LinearSchedule
from rl_runner.types import Array, IntArray, UserError


class MaxBoltzmann:
    """With probability epsilon draw an action from softmax(Q / temperature), else take the best one (Wiering 1999).

    A bad action is tried less often than a promising one, which is worth much where a wrong turn ends the episode.

    Args:
        start: epsilon at the start of the run.
        end: epsilon after `steps` environment steps; it changes linearly.
        steps: see `end`.
        temperature: of the softmax.
    """

    def __init__(self, start: float, end: float, steps: int, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise UserError(f"exploration.temperature: must be above 0, got {temperature}")  # one line, no traceback
        self.epsilon, self.temperature = LinearSchedule(start, end, steps), temperature

    def __call__(self, q: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Return actions (N,). The value of an action that is not allowed is -inf: it is never drawn."""
        drawn = (q / self.temperature + rng.gumbel(size=q.shape)).argmax(axis=1)  # a draw from the softmax
        explore = rng.random(len(q)) < self.epsilon(step)  # use `rng` alone: a resumed run draws the same numbers
        action: IntArray = np.where(explore, drawn, q.argmax(axis=1))
        return action

    def metrics(self, step: int) -> dict[str, float]:
        """Return what is logged, here as explore/epsilon."""
        return {"epsilon": self.epsilon(step)}
