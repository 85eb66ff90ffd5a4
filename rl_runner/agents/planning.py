"""Dynamic programming: agents that know the dynamics and plan with them (Sutton & Barto 2018, chapter 4).

Their tables stay on the host, in double precision; observations may come from any device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rl_runner.exact.mdp import MDP, action_values, has_converged, policy_values, require_memory
from rl_runner.exploration import Greedy, choose
from rl_runner.types import Array, BoolArray, Carry, IntArray, Mode, State, UserError


class ValueIteration:
    """Value iteration (section 4.4): each sweep replaces all values by their optimal backup, from zeros.

    Args:
        mdp: the dynamics.
        gamma: discount per step.
        tolerance: the values have converged when they are known to be this near to the optimal ones.
        first_state: the observation that shows state 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, mdp: MDP, gamma: float, tolerance: float = 1e-10, first_state: int = 0) -> None:
        _check_tolerance(tolerance)
        self.mdp, self.gamma, self.tolerance, self.first_state = mdp, gamma, tolerance, first_state
        self.table = torch.zeros(mdp.reward.shape, dtype=torch.float64)  # (S, A)
        self.converged = False
        self._q = self.table.numpy()  # the same memory

    def learn(self) -> dict[str, Tensor]:
        """Do one sweep. The Bellman error is the greatest change that it made."""
        q = action_values(self.mdp, self._q.max(axis=1), self.gamma)
        error = np.abs(q - self._q).max()
        self.converged = has_converged(self._q, q, self.gamma, self.tolerance)
        self._q[:] = q
        return {"bellman_error": torch.tensor(error)}

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for states (N,), and the next carry."""
        return choose(self.q_values(torch.from_numpy(obs)), Greedy(), mode, action_mask, carry)

    def metrics(self, step: int) -> dict[str, float]:
        """Return nothing: a plan needs no exploration."""
        return {}

    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of states (N,)."""
        return self.table[obs.cpu() - self.first_state]

    def state_dict(self) -> State:
        """Return the table."""
        return {"table": self.table.clone(), "converged": self.converged}

    def load_state_dict(self, state: State) -> None:
        """Restore the table."""
        self.table.copy_(state["table"])
        self.converged = state["converged"]


class PolicyIteration:
    """Policy iteration (section 4.3): each sweep values a policy exactly, then makes it greedy; first it is random.

    Where the policy's action is as good as any, it is kept. So equally good policies do not take turns forever.

    Args:
        mdp: the dynamics.
        gamma: discount per step. With 1 the result is guaranteed to be optimal only if episodes end under every policy.
        tolerance: an action is better if its value is higher by more than this, relative to the largest
            absolute value, or to 1 if that is smaller.
        first_state: the observation that shows state 0.

    Raises:
        UserError: a value out of range, or not enough memory for the states.
    """

    def __init__(self, mdp: MDP, gamma: float, tolerance: float = 1e-10, first_state: int = 0) -> None:
        _check_tolerance(tolerance)
        self.mdp, self.gamma, self.tolerance, self.first_state = mdp, gamma, tolerance, first_state
        require_memory(mdp)
        states, actions = mdp.reward.shape
        self.table = torch.zeros(states, actions, dtype=torch.float64)  # (S, A) values of the policy
        self.converged = False
        self._pi = np.full((states, actions), 1 / actions)

    def learn(self) -> dict[str, Tensor]:
        """Evaluate the policy, improve it. The Bellman error is what the best action adds at most.

        Raises:
            UserError: a policy that goes on forever, for an infinite return.
        """
        values = policy_values(self.mdp, self._pi, self.gamma)  # (S,)
        if not np.isfinite(values).all():
            raise UserError(f"agent.gamma: must be below 1 here, because some episodes never end, got {self.gamma}")
        q = action_values(self.mdp, values, self.gamma)
        gain = q.max(axis=1) - values
        better = gain > self.tolerance * max(1.0, np.abs(values).max())
        self._pi[better] = np.eye(q.shape[1])[q[better].argmax(axis=1)]
        self.converged = not better.any()
        self.table.copy_(torch.from_numpy(q))
        return {"bellman_error": torch.tensor(np.abs(gain).max())}

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for states (N,), by the policy."""
        return choose(self.preferences(torch.from_numpy(obs)), Greedy(), mode, action_mask, carry)

    def metrics(self, step: int) -> dict[str, float]:
        """Return nothing: a plan needs no exploration."""
        return {}

    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of states (N,)."""
        return self.table[obs.cpu() - self.first_state]

    def preferences(self, obs: Tensor) -> Tensor:
        """Return the same, with the policy's actions above all others. Equally good ones may not lead to the goal.

        Without discount, for example, a step into the wall is worth as much as one towards the goal.
        """
        values, chosen = self.q_values(obs), torch.from_numpy(self._pi)[obs.cpu() - self.first_state] == 1.0
        return torch.where(chosen, 2.0 * self.table.abs().max() + 1.0, values)

    def state_dict(self) -> State:
        """Return table and policy."""
        return {"table": self.table.clone(), "policy": self._pi.copy(), "converged": self.converged}

    def load_state_dict(self, state: State) -> None:
        """Restore table and policy."""
        self.table.copy_(state["table"])
        self._pi[:] = state["policy"]
        self.converged = state["converged"]


def _check_tolerance(tolerance: float) -> None:
    if not tolerance > 0:
        raise UserError(f"agent.tolerance: must be above 0, got {tolerance}")
