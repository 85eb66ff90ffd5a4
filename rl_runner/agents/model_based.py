"""Planning with estimated dynamics: count what actions lead to, iterate values (Sutton & Barto 2018, chapter 8)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rl_runner import memory
from rl_runner.exploration import choose
from rl_runner.types import Array, BoolArray, Carry, Exploration, IntArray, Mode, State, Transition, UserError

SEEN = ("visits", "reward", "followed", "allowed")  # attributes: what was observed


class ModelBased:
    """Value iteration with p and r estimated from observed transitions, as in the lecture on FrozenLake.

    The estimate of p(s' | s, a) is the share of the visits to (s, a) that went on to s'; that of r(s, a) is their mean
    reward (maximum likelihood). A pair that was never tried is worth `initial`. Every `plan_every_steps` steps sweeps
    over the table follow until no value changes by more than `tolerance`.

    Table and counts stay on the host, in double precision; observations may come from any device.

    Args:
        states: S, the number of states.
        actions: A, the number of actions.
        gamma: discount per step.
        exploration: how action values become actions while training.
        plan_every_steps: environment steps between two plans.
        sweeps: the most sweeps of one plan; the next plan continues from where it stopped.
        tolerance: largest change of a value in the last sweep of a plan.
        initial: value of an action that was never tried; above what can be earned, it makes the agent try everything.
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
        plan_every_steps: int = 100,
        sweeps: int = 1_000,
        tolerance: float = 1e-8,
        initial: float = 0.0,
        first_state: int = 0,
    ) -> None:
        for name, value in (("plan_every_steps", plan_every_steps), ("sweeps", sweeps)):
            if value < 1:
                raise UserError(f"agent.{name}: must be 1 or more, got {value}")
        if not tolerance > 0:
            raise UserError(f"agent.tolerance: must be above 0, got {tolerance}")
        what = f"agent: counts of {states:,} states × {actions:,} actions × {states:,} next states, with a copy,"
        memory.require(what, 2 * 8 * states * actions * states, "use fewer states, or agent=q_learning")
        self.gamma, self.exploration, self.first_state = gamma, exploration, first_state
        self.plan_every_steps, self.sweeps, self.tolerance = plan_every_steps, sweeps, tolerance
        self.table = torch.full((states, actions), initial, dtype=torch.float64)
        self.visits = np.zeros((states, actions))  # how often each action was taken
        self.reward = np.zeros((states, actions))  # sum of its rewards
        self.followed = np.zeros((states, actions, states))  # how often each state followed; ends are left out
        self.allowed = np.ones((states, actions), dtype=np.bool_)  # where the environment masks actions, as last seen
        self.since = 0  # steps since the last plan
        self._q = self.table.numpy()  # the same memory

    def learn(self, tr: Transition, next_action: IntArray) -> dict[str, Tensor]:
        """Count one step of N environments; plan if it is time to.

        Args:
            tr: the step; the observations are states (N,).
            next_action: not used.

        Returns:
            after a plan: the largest change of its last sweep, and its number of sweeps.
        """
        state, following = tr.obs - self.first_state, tr.next_obs - self.first_state
        np.add.at(self.visits, (state, tr.action), 1.0)
        np.add.at(self.reward, (state, tr.action), tr.reward)
        np.add.at(self.followed, (state, tr.action, following), ~tr.terminal)
        if tr.next_action_mask is not None:
            goes_on = ~tr.terminal  # the mask of a terminal state says nothing: nothing is chosen there
            self.allowed[following[goes_on]] = tr.next_action_mask[goes_on]
        self.since += len(state)
        if self.since < self.plan_every_steps:
            return {}
        self.since %= self.plan_every_steps
        return self._plan()

    def _plan(self) -> dict[str, Tensor]:
        """Sweep until the values have settled."""
        tried = self.visits > 0
        visits = self.visits[tried]
        reward, following = self.reward[tried] / visits, self.followed[tried] / visits[:, None]
        for sweep in range(1, self.sweeps + 1):  # noqa: B007 - the number is returned
            q = reward + self.gamma * following @ self._q.max(axis=1, where=self.allowed, initial=-np.inf)
            error = float(np.abs(q - self._q[tried]).max())
            self._q[tried] = q
            if error <= self.tolerance:
                break
        return {"bellman_error": torch.tensor(error), "sweeps": torch.tensor(float(sweep))}

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for states (N,), and the next carry."""
        return choose(self.q_values(torch.from_numpy(obs)), self.exploration, mode, action_mask, carry)

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the exploration rule reports, and the share of actions that were tried at least once."""
        return {**self.exploration.metrics(step), "tried": float((self.visits > 0).mean())}

    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of states (N,)."""
        return self.table[obs.cpu() - self.first_state]

    def state_dict(self) -> State:
        """Return table and counts."""
        return {"table": self.table.clone(), **{name: getattr(self, name).copy() for name in SEEN}, "since": self.since}

    def load_state_dict(self, state: State) -> None:
        """Restore table and counts."""
        self.table.copy_(state["table"])
        for name in SEEN:
            getattr(self, name)[:] = state[name]
        self.since = state["since"]

    def weights(self) -> State:
        """Return the table; acting needs no counts."""
        return {"table": self.table.clone()}

    def load_weights(self, state: State) -> None:
        """Restore the table. What was never tried keeps the value that it has there."""
        self.table.copy_(state["table"])
