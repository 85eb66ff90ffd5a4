"""Hindsight experience replay (Andrychowicz et al. 2017): learn from achieved goals as if they had been desired.

In part of each batch the desired goal is replaced by one that the same episode achieved later ("future" in the paper).
Nothing more is stored: the goals are read from the rows after the sampled one, and the rewards are computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from rl_runner.replay.storage import RowStorage, Window
from rl_runner.types import Array, Goals, IntArray, UserError


class NewGoals(NamedTuple):
    """The rows of a batch that get another goal."""

    chosen: IntArray  # (K,) their numbers in the batch
    goal: Array  # (K, G)


class Hindsight:
    """Replaces goals in sampled windows.

    Args:
        share: probability that a window gets another goal, in (0, 1]. The paper's 4 of 5 is 0.8.
        goals: of the environment.
        storage: the rows, with frames on the host.
    """

    def __init__(self, share: float, goals: Goals, storage: RowStorage) -> None:
        self.share, self.goals, self.storage = share, goals, storage

    def __call__(self, ids: IntArray, window: Window, rng: np.random.Generator) -> tuple[Window, NewGoals]:
        """Return the windows (B,) that start at rows `ids` (B,), some of them with another goal, and these goals.

        With a new goal the rewards are computed again. Where the environment has `compute_terminated`, a window
        terminates where its new goal ends the episode, and nowhere else.
        """
        chosen = np.flatnonzero(rng.random(len(ids)) < self.share)
        start = ids[chosen]
        ahead = rng.integers(1, self.storage.steps_left(start), endpoint=True)  # uniform over what the episode achieved
        goal = self._achieved(self.storage.after(start, ahead))
        reward, length, terminal = window.reward.copy(), window.length.copy(), window.terminal.copy()
        running = np.ones(len(chosen), dtype=np.bool_)  # the window has not ended before step k
        for k in range(reward.shape[1]):
            inside = running & (k < window.length[chosen])
            rows, reached = chosen[inside], self._achieved(self.storage.after(start[inside], k + 1))
            reward[chosen[~inside], k] = 0
            reward[rows, k] = self._reward(reached, goal[inside])
            if self.goals.terminated is not None:
                over = self.goals.terminated(reached, goal[inside])
                length[rows], terminal[rows] = k + 1, over
                running[inside] = ~over
        next_ids = window.next_ids.copy()
        next_ids[chosen] = self.storage.after(start, length[chosen])
        return Window(reward, length, terminal, next_ids), NewGoals(chosen, goal)

    def write(self, obs: Array | Tensor, new: NewGoals) -> None:
        """Write new goals into the observations (2 B, O) of both ends of the windows."""
        assert isinstance(obs, np.ndarray)  # frames are on the host
        for rows in (new.chosen, new.chosen + len(obs) // 2):
            obs[rows, self.goals.desired] = new.goal

    def _achieved(self, ids: IntArray) -> Array:
        return np.asarray(self.storage.obs(ids))[:, self.goals.achieved]

    def _reward(self, achieved: Array, desired: Array) -> Array:
        reward = self.goals.reward(achieved, desired) if len(achieved) else np.zeros(0)
        if (wrong := reward[~np.isfinite(reward)]).size:
            raise UserError(f"replay.hindsight: the environment's compute_reward returned {wrong[0]}")
        return reward
