"""Exact measures of an agent, computed without sampling from known dynamics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rl_runner.exact.drawing import draw, draw_values
from rl_runner.exact.mdp import (
    MDP,
    Floats,
    at_start,
    expected_return,
    greedy,
    optimal_values,
    policy_values,
    reachable,
    require_memory,
    uniform,
)
from rl_runner.types import ValueAgent


class Exact:
    """Compares an agent's values with the optimal values. No random stream is used.

    Args:
        mdp: the dynamics.
        agent: what is measured, by its `q_values`.
        gamma: the discount that the agent learns with.
        first_state: the observation of state 0.
        device: of the agent.

    Raises:
        UserError: there are no optimal values for gamma, or not enough memory for the states.
    """

    def __init__(
        self,
        mdp: MDP,
        agent: ValueAgent,
        gamma: float,
        first_state: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        require_memory(mdp)
        self.mdp, self.agent, self.gamma = mdp, agent, gamma
        self._states = torch.arange(len(mdp.start), device=device) + first_state  # (S,) as observations
        self._optimal = optimal_values(mdp, gamma)  # (S, A)
        self._seen = reachable(mdp)  # (S,)

    def __call__(self) -> dict[str, float]:
        """Measure the agent as it is now.

        Returns:
            `exact/q_error`: the largest |Q - Q*| of the states where an action can be chosen.
            `exact/overestimation`: the mean of max_a Q - V* over these states: the bias of Q-learning's maximum
                (van Hasselt et al. 2016).
            `exact/overestimation_max`: the largest of them.
            `exact/value`: discounted value of the greedy policy where episodes start, without a time limit.
            `exact/value_optimal`: the largest possible value.
            `exact/return`: mean undiscounted return of the greedy policy within the time limit.
        """
        q = self._values()
        policy = self._policy(q)
        error = (q - self._optimal)[self._seen]  # (states, A)
        excess = (q.max(axis=1) - self._optimal.max(axis=1))[self._seen]  # (states,)
        return {
            "exact/q_error": float(abs(error).max()),
            "exact/overestimation": float(excess.mean()),
            "exact/overestimation_max": float(excess.max()),
            "exact/value": at_start(self.mdp, policy_values(self.mdp, policy, self.gamma)),
            "exact/value_optimal": at_start(self.mdp, self._optimal.max(axis=1)),
            "exact/return": expected_return(self.mdp, policy),
        }

    def report(self) -> list[str]:
        """Return lines to show: on a grid the values of the random policy and of the agent; what the agent is worth."""
        now = self()
        limit = f" within {self.mdp.horizon} steps" if self.mdp.horizon else ""
        return [
            *(self._grids() if self.mdp.grid else []),
            f"exact value of the greedy policy at the start: {now['exact/value']:.6f}, "
            f"of {now['exact/value_optimal']:.6f} at best (discounted by {self.gamma} a step)",
            f"exact mean return of an episode{limit}: {now['exact/return']:.4f}; "
            f"largest error of an action value: {now['exact/q_error']:.2g}",
        ]

    def _grids(self) -> list[str]:
        q = self._values()
        random = policy_values(self.mdp, uniform(self.mdp), self.gamma)
        return [
            "values of the random policy",
            *draw_values(self.mdp, random),
            "values and greedy actions of the agent",
            *draw(self.mdp, q, self._policy(q)),
        ]

    def _policy(self, q: Floats) -> Floats:
        """Return the policy (S, A) by which an agent with values q acts in evaluation: one of its own, or greedy."""
        own = getattr(self.agent, "preferences", None)
        return greedy(q if own is None else self._values(own))

    def _values(self, function: Callable[[Tensor], Tensor] | None = None) -> Floats:
        """Return the agent's Q (S, A), where a forbidden action counts as the allowed one that it acts as.

        Args:
            function: of observations, with values that order the actions; None: `q_values`.
        """
        q: Floats = (function or self.agent.q_values)(self._states).double().cpu().numpy()
        return q if self.mdp.acts_as is None else np.take_along_axis(q, self.mdp.acts_as, axis=1)
