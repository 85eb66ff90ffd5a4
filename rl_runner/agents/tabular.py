"""Temporal-difference control with a table of action values (Sutton & Barto 2018, chapter 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from rl_runner import memory
from rl_runner.exploration import choose
from rl_runner.types import Array, BoolArray, Carry, Exploration, IntArray, Mode, State, Transition, UserError


class QLearning:
    """Q-learning (Watkins 1989; section 6.5): the next state is worth its best action.

    The table stays on the host, in double precision; observations may come from any device.

    Args:
        states: S, the number of states.
        actions: A, the number of actions.
        gamma: discount per step.
        exploration: how action values become actions while training.
        lr: the step size alpha, the share of an error that is learned at once.
        initial: all values at the start; above what can be earned, it makes the agent try everything.
        first_state: the observation that shows state 0.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        states: int,
        actions: int,
        gamma: float,
        exploration: Exploration,
        lr: float = 0.1,
        initial: float = 0.0,
        first_state: int = 0,
    ) -> None:
        if not 0.0 < lr <= 1.0:
            raise UserError(f"agent.lr: must be a share in (0, 1], got {lr}")
        memory.require_for_table(states, actions)
        self.gamma, self.lr, self.first_state, self.exploration = gamma, lr, first_state, exploration
        self.table = torch.full((states, actions), initial, dtype=torch.float64)  # (S, A)
        self._q = self.table.numpy()  # the same memory: single numbers are read and written faster here

    def learn(self, tr: Transition, next_action: IntArray) -> dict[str, Tensor]:
        """Learn from one step of N environments, one after the other.

        Args:
            tr: the step; the observations are states (N,).
            next_action: (N,) what will be done in `tr.next_obs`. It was chosen before this update.
        """
        q, total = self._q, 0.0
        state, next_state = (tr.obs - self.first_state).tolist(), (tr.next_obs - self.first_state).tolist()
        steps = (state, tr.action.tolist(), tr.reward.tolist(), tr.terminal.tolist(), next_state, next_action.tolist())
        masks = [None] * len(state) if tr.next_action_mask is None else tr.next_action_mask
        for s, a, reward, terminal, s_next, a_next, allowed in zip(*steps, masks, strict=True):
            value = 0.0 if terminal else self._next_value(s_next, a_next, allowed)
            error = reward + self.gamma * value - q[s, a]
            q[s, a] += self.lr * error
            total += abs(error)
        return {"td_error": torch.tensor(total / len(state), dtype=torch.float64)}

    def _next_value(self, state: int, action: int, allowed: BoolArray | None) -> float:
        """Return what the next state counts for, where `allowed` (A,) marks the actions that can be taken."""
        values = self._q[state]
        return float(values.max() if allowed is None else values[allowed].max())

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for states (N,), and the next carry."""
        return choose(self.q_values(torch.from_numpy(obs)), self.exploration, mode, action_mask, carry)

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the exploration rule reports, epsilon for example."""
        return self.exploration.metrics(step)

    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of states (N,)."""
        return self.table[obs.cpu() - self.first_state]

    def state_dict(self) -> State:
        """Return the table."""
        return {"table": self.table.clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore the table."""
        self.table.copy_(state["table"])

    weights, load_weights = state_dict, load_state_dict


class Sarsa(QLearning):
    """SARSA (Rummery & Niranjan 1994; section 6.4): the next state is worth the action that will be done there."""

    def _next_value(self, state: int, action: int, allowed: BoolArray | None) -> float:
        """Return what the next state counts for."""
        return float(self._q[state, action])
