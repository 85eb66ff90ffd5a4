"""Which rows of the replay are learned from."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from rl_runner.types import FloatArray, IntArray, State


class Uniform:
    """Every row with the same probability."""

    def __init__(self) -> None:
        self._high = 0

    def add(self, ids: IntArray) -> None:
        """Take rows in; ids (N,) grow from 0, so the rows known are [0, high)."""
        self._high = max(self._high, int(ids.max()) + 1)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
        """Draw n ids with replacement; all weights are 1."""
        return rng.integers(self._high, size=n), np.ones(n, dtype=np.float32)

    def update(self, ids: IntArray, priority: Tensor | None) -> None:
        """Do nothing: there are no priorities."""

    def state_dict(self) -> State:
        """Give the number of rows known."""
        return {"high": self._high}

    def load_state_dict(self, state: State) -> None:
        """Put the number of rows known back."""
        self._high = state["high"]
