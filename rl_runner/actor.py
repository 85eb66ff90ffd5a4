"""A policy with a rule to explore and a random stream of its own: observations in, actions out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.rng import generator_state, load_generator_state
from rl_runner.types import Array, BoolArray, Exploration, IntArray, State


class Actor:
    """Chooses the actions of a vector of environments.

    Args:
        policy: observations (N, *O) on the device -> action values (N, A).
        exploration: action values -> actions.
        rng: the random stream that exploration draws from.
        device: where the policy computes.
    """

    def __init__(
        self,
        policy: Callable[[Tensor], Tensor],
        exploration: Exploration,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.policy, self.exploration, self.device = policy, exploration, device
        self._rng = rng

    def __call__(self, obs: Array, step: int, action_mask: BoolArray | None = None) -> IntArray:
        """Return actions (N,) for observations (N, *O) at environment step `step`.

        Args:
            obs: (N, *O).
            step: for schedules.
            action_mask: (N, A) the actions that are allowed; None: all. The others count as worth -inf.
        """
        q = self.policy(on_device(obs, self.device)).float().cpu().numpy()
        if action_mask is not None:
            q = np.where(action_mask, q, -np.inf)
        return self.exploration(q, step, self._rng)

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the exploration rule reports, epsilon for example."""
        return self.exploration.metrics(step)

    def state_dict(self) -> State:
        """Return the random stream's state."""
        return {"rng": generator_state(self._rng)}

    def load_state_dict(self, state: State) -> None:
        """Restore the state of the random stream."""
        load_generator_state(self._rng, state["rng"])
