"""Hindsight against whole episodes in lists: which goals it takes, and the rewards and ends of windows with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.replay.hindsight import Hindsight
from rl_runner.replay.replay import Replay
from rl_runner.replay.samplers import Prioritized, Uniform
from rl_runner.replay.storage import RowStorage
from rl_runner.types import Goals, Transition, UserError

CPU, GAMMA, NONE = torch.device("cpu"), 0.5, 9.0


def reward_of(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """-1 at any distance and more the farther away, 0 at the goal: each goal pays something else."""
    return -np.abs(achieved - desired).sum(axis=-1)


def reached(achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    return (achieved == desired).all(axis=-1)


class Memory:
    """Two environments whose observations are [a number of its own, what is achieved, what is desired].

    What is desired is never reached. Each episode is kept as a list of observations, too.
    """

    def __init__(self, rows: int, n_step: int, terminated: Any, share: float = 1.0, sampler: Any = None) -> None:
        storage = RowStorage(2 * rows, 2, (3,), np.float32)
        self.goals = Goals(slice(1, 2), slice(2, 3), reward_of, terminated)
        self.replay, self.plain = (
            Replay(storage, sampler or Uniform(), GAMMA, n_step, None, np.random.default_rng(0), CPU, hindsight)
            for hindsight in (Hindsight(share, self.goals, storage), None)
        )
        self.rows, self.episodes, self.number = rows, [[], []], 0
        self.written: list[list[tuple[int, int]]] = [[], []]  # (episode, step) of each row of each environment

    def run(self, steps: int, end: float = 0.2) -> None:
        rng, obs, over = np.random.default_rng(1), None, np.ones(2, dtype=bool)
        for _ in range(steps):
            first = self._observe(rng)
            obs = first if obs is None else np.where(over[:, None], first, obs)
            for i in np.flatnonzero(over):
                self.episodes[i].append([obs[i]])
            after = self._observe(rng)
            over = rng.random(2) < end
            for i in range(2):
                self.episodes[i][-1].append(after[i])
            zero = np.zeros(2)
            terminated = over & (rng.random(2) < 0.5)
            reward = reward_of(after[:, 1:2], after[:, 2:3])
            tr = Transition(obs, zero.astype(int), reward, terminated, over & ~terminated, zero > 0, after)
            self.replay.add(tr)
            obs = after

    def _observe(self, rng: np.random.Generator) -> np.ndarray:
        self.number += 2
        return np.array([[self.number + i, rng.integers(4), NONE] for i in range(2)], dtype=np.float32)

    def where(self, number: float) -> tuple[list[Any], int]:
        """Return the episode that holds an observation, and its place in it."""
        for episode in self.episodes[int(number) % 2]:
            for t, obs in enumerate(episode):
                if obs[0] == number:
                    return episode, t
        raise AssertionError(number)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("steps", [30, 200], ids=["room", "wrapped"])
def test_windows_with_new_goals_are_those_of_a_slow_loop(n_step: int, ends: bool, steps: int) -> None:
    memory = Memory(64, n_step, reached if ends else None)
    memory.run(steps)
    batch = memory.replay.sample(500)
    plain = memory.plain.read(batch.ids, np.ones(500, dtype=np.float32))
    for b in range(500):
        episode, t = memory.where(float(batch.obs[b, 0]))
        goal = float(batch.obs[b, 2])
        assert goal in {float(obs[1]) for obs in episode[t + 1 :]}
        assert batch.next_obs[b, 2] == goal
        np.testing.assert_array_equal(batch.obs[b, :2], episode[t][:2])
        total, k, over = 0.0, 0, False
        while k < min(n_step, len(episode) - 1 - t) and not over:
            achieved = episode[t + k + 1][1]
            total += GAMMA**k * -abs(achieved - goal)
            k, over = k + 1, bool(ends and achieved == goal)
        assert float(batch.reward[b]) == pytest.approx(total)
        np.testing.assert_array_equal(batch.next_obs[b, :2], episode[t + k][:2])
        discount = (0.0 if over else GAMMA**k) if ends else float(plain.discount[b])
        assert float(batch.discount[b]) == pytest.approx(discount)


def test_goals_are_uniform_over_what_the_episode_achieved_afterwards() -> None:
    """One episode of 70 steps, longer than a block of rows; each step achieves a number of its own."""
    memory = Memory(100, 1, reached)
    memory.run(70, end=0.0)
    for episodes in memory.episodes:
        for t, obs in enumerate(episodes[0]):
            obs[1] = t
    frames = memory.replay.storage.frames
    frames.load(np.stack([np.stack(episodes[0]) for episodes in memory.episodes], axis=1))
    counts = Counter(memory.replay.read(np.zeros(70_000, dtype=np.int64), np.ones(70_000)).obs[:, 2].int().tolist())
    assert sorted(counts) == list(range(1, 71))
    assert min(counts.values()) > 850  # 1,000 on average, with a deviation of 31
    assert max(counts.values()) < 1150


def test_only_a_share_of_the_windows_gets_another_goal() -> None:
    memory = Memory(100, 2, reached, share=0.8)
    memory.run(90)
    ids = np.repeat(np.flatnonzero(memory.replay.storage.startable(np.arange(180))), 50)
    batch, plain = (replay.read(ids, np.ones(len(ids))) for replay in (memory.replay, memory.plain))
    same = batch.obs[:, 2] == NONE
    assert float(same.float().mean()) == pytest.approx(0.2, abs=0.02)
    for given, wanted in zip(batch, plain, strict=True):
        if isinstance(given, torch.Tensor):
            torch.testing.assert_close(given[same], wanted[same])


def test_rewards_are_clipped_after_they_were_computed_and_priorities_go_with_it() -> None:
    memory = Memory(50, 1, None, sampler=Prioritized(100))
    memory.replay.reward_clip = 0.5
    memory.run(40)
    batch = memory.replay.sample(100)
    assert set(batch.reward.tolist()) == {-0.5, 0.0}
    memory.replay.update(batch.ids, torch.ones(100))


def test_what_is_stored_does_not_change() -> None:
    memory = Memory(50, 1, reached)
    memory.run(40)
    before = memory.replay.storage.frames.first(50).copy()
    memory.replay.sample(200)
    np.testing.assert_array_equal(memory.replay.storage.frames.first(50), before)


def test_a_reward_that_is_not_finite_is_refused() -> None:
    memory = Memory(50, 1, reached)
    object.__setattr__(memory.goals, "reward", lambda achieved, desired: np.full(len(achieved), np.nan))
    memory.run(10)
    with pytest.raises(UserError, match=r"^replay.hindsight: the environment's compute_reward returned nan"):
        memory.replay.sample(8)
