"""Evaluation: every begun episode counts, so that short ones are not favoured."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rl_runner import rng
from rl_runner.envs.vector import EpisodicVectorEnv, Step
from rl_runner.evaluation import Evaluation, evaluate
from rl_runner.types import Carry, Episode, Evaluate

SEED, STREAM = 7, "eval"


MODE = Evaluate(np.random.default_rng(0))


class Scripted:
    """Episode k of environment i lasts lengths[i][k mod ...] steps and pays 0.5 each; observations are (i, k, t)."""

    name, stack, fps = "scripted", 1, 30.0
    action_mask, normalized, notes = None, False, ()

    def __init__(self, lengths: Sequence[Sequence[int]], truncate: bool = False) -> None:
        self.lengths, self.num_envs, self.truncate = lengths, len(lengths), truncate
        self.observation_space, self.action_space = Box(0, 99, (3,), np.float32), Discrete(2)
        self.protocol: dict[str, Any] = {}
        self.k, self.t = np.full(self.num_envs, -1), np.zeros(self.num_envs, dtype=int)

    def _obs(self) -> np.ndarray:
        return np.stack([np.arange(self.num_envs), self.k, self.t], axis=1).astype(np.float32)

    def _length(self) -> np.ndarray:
        return np.array([lengths[k % len(lengths)] for lengths, k in zip(self.lengths, self.k, strict=True)])

    def reset(self, mask: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        self.k[mask] += 1
        self.t[mask] = 0
        return self._obs()

    def send(self, action: np.ndarray) -> None:
        assert np.all(self.t < self._length()), "an ended environment was stepped"
        self.t += 1

    def recv(self) -> Step:
        ended, never = self.t == self._length(), np.zeros(self.num_envs, dtype=bool)
        reward = np.full(self.num_envs, 0.5, dtype=np.float32)
        terminated, truncated = (never, ended) if self.truncate else (ended, never)
        return Step(self._obs(), reward, terminated, truncated, never)

    def frames(self) -> list[np.ndarray]:
        return []

    def close(self) -> None: ...


class Ones:
    """Always takes action 1; writes down how long ago each episode began, which it remembers."""

    def __init__(self) -> None:
        self.ages: list[list[int]] = []

    def act(self, obs: Any, carry: Any, mode: Any, action_mask: Any = None) -> Any:
        assert mode is MODE
        age = np.zeros(len(obs), np.int64) if carry is None else np.where(carry.reset, 0, carry.state["age"] + 1)
        self.ages.append(age.tolist())
        return np.ones(len(obs), np.int64), Carry({"age": age}, np.zeros(len(obs), np.bool_))


def test_a_memory_lasts_as_long_as_the_episode() -> None:
    policy, envs = Ones(), EpisodicVectorEnv(Scripted([[2, 2], [4]]), SEED, STREAM)
    evaluate(policy, envs, 3, MODE)
    assert policy.ages == [[0, 0], [1, 1], [0, 2], [1, 3]]


def play(lengths: Sequence[Sequence[int]], episodes: int, **kwargs: Any) -> tuple[Evaluation, list[np.ndarray]]:
    seen: list[np.ndarray] = []

    class Policy(Ones):
        def act(self, obs: Any, carry: Any, mode: Any, action_mask: Any = None) -> Any:
            seen.append(obs.copy())
            return super().act(obs, carry, mode, action_mask)

    envs = EpisodicVectorEnv(Scripted(lengths), SEED, STREAM)
    return evaluate(Policy(), envs, episodes, MODE, **kwargs), seen


def which(evaluation: Evaluation) -> list[tuple[int, int]]:
    """Return (environment, its how-manieth episode) of each, by their seeds."""
    known = {rng.integer(SEED, STREAM, i, k): (i, k) for i in range(8) for k in range(40)}
    return [known[e.seed] for e in evaluation.episodes]


LONG_AND_SHORT = [[9, 1], [1], [9, 1], [1]]  # environments 1 and 3 could finish nine while 0 and 2 finish one


def test_every_begun_episode_counts() -> None:
    """Worked by hand, with seven episodes in four environments.

    Four begin. At t = 1 environments 1 and 3 end and begin again: six begun. At t = 2 both end, 1 begins the seventh,
    3 is done. At t = 3 the seventh ends. 0 and 2 end at t = 9.
    """
    evaluation, seen = play(LONG_AND_SHORT, 7)
    assert which(evaluation) == [(1, 0), (3, 0), (1, 1), (3, 1), (1, 2), (0, 0), (2, 0)]
    assert [e.length for e in evaluation.episodes] == [1, 1, 1, 1, 1, 9, 9]
    assert [e.total_reward for e in evaluation.episodes] == [0.5] * 5 + [4.5] * 2
    assert [e.env for e in evaluation.episodes] == [1, 3, 1, 3, 1, 0, 2]
    assert len(seen) == 9
    assert all(e.actions == [1] * e.length for e in evaluation.episodes)


def test_as_many_episodes_as_environments_are_one_of_each() -> None:
    evaluation, _ = play(LONG_AND_SHORT, 4)  # taking the first four to finish would give only short ones
    assert sorted(which(evaluation)) == [(0, 0), (1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_fewer_episodes_than_environments(episodes: int) -> None:
    evaluation, _ = play(LONG_AND_SHORT, episodes)
    assert sorted(which(evaluation)) == [(i, 0) for i in range(episodes)]


@pytest.mark.parametrize("episodes", [5, 6, 7, 8, 13])
@pytest.mark.parametrize("pattern", [[[9, 1]] * 4, [[1, 9]] * 4, [[9, 1], [1, 9], [4], [1, 1, 20]]])
def test_the_count_is_exact_and_no_episode_is_skipped(pattern: list[list[int]], episodes: int) -> None:
    evaluation, _ = play(pattern, episodes)
    played = which(evaluation)
    assert len(set(played)) == len(played) == episodes
    for i in range(4):  # of each environment the first ones, without a gap
        mine = sorted(k for j, k in played if j == i)
        assert mine == list(range(len(mine)))
        assert len(mine) >= 1
    assert all(
        e.length == pattern[i][k % len(pattern[i])] for e, (i, k) in zip(evaluation.episodes, played, strict=True)
    )


def test_long_episodes_keep_their_share() -> None:
    """Half of all episodes are long. Of 400 begun ones half must be; of the first 400 to finish fewer would be."""
    lengths = [[40 if x < 0.5 else 2 for x in np.random.default_rng(i).random(400)] for i in range(4)]
    evaluation, _ = play(lengths, 400)
    longs = sum(e.length == 40 for e in evaluation.episodes)
    assert abs(longs - 200) < 3.3 * math.sqrt(400 * 0.25)


def test_truncated_episodes_count_too() -> None:
    envs = EpisodicVectorEnv(Scripted([[3], [2]], truncate=True), SEED, STREAM)
    assert sorted(e.length for e in evaluate(Ones(), envs, 3, MODE).episodes) == [2, 2, 3]


def test_the_policy_sees_first_observations_and_never_last_ones() -> None:
    _, seen = play([[2], [3]], 4)
    assert [[tuple(row[1:]) for row in obs.tolist()] for obs in seen] == [
        [(0, 0), (0, 0)],
        [(0, 1), (0, 1)],
        [(1, 0), (0, 2)],  # environment 0 began anew
        [(1, 1), (1, 0)],
        [(2, 0), (1, 1)],  # 0 has done its two; it goes on, uncounted
        [(2, 1), (1, 2)],
    ]


def test_stopping_gives_what_was_finished() -> None:
    asked: list[None] = []

    def stopped() -> bool:
        asked.append(None)
        return len(asked) > 3

    evaluation, seen = play(LONG_AND_SHORT, 100, stopped=stopped)
    assert len(seen) == 3
    assert which(evaluation) == [(1, 0), (3, 0), (1, 1), (3, 1), (1, 2), (3, 2)]
    assert play(LONG_AND_SHORT, 4, stopped=lambda: True)[0].episodes == []


def episode(total: float, length: int) -> Episode:
    return Episode(0, 0, total, length, [])


def test_statistics_by_hand() -> None:
    summary = Evaluation([episode(t, n) for t, n in [(1, 10), (10, 10), (3, 30), (2, 10)]]).summary()
    # returns 1, 2, 3, 10: mean 4, sum of squares 9 + 4 + 1 + 36 = 50, std sqrt(50 / 3), its error sqrt(50 / 3) / 2
    std = math.sqrt(50 / 3)
    assert summary["return"] == {
        "mean": 4.0,
        "std": pytest.approx(std),
        "median": 2.5,
        "min": 1.0,
        "max": 10.0,
        "ci95": pytest.approx([4 - 3.1824 / 2 * std, 4 + 3.1824 / 2 * std], rel=1e-3),  # t with 3 degrees of freedom
    }
    # lengths 10, 10, 10, 30: mean 15, squares 25 * 3 + 225 = 300
    assert summary["length"]["mean"] == 15.0
    assert summary["length"]["std"] == pytest.approx(10.0)
    assert summary["length"]["median"] == 10.0
    assert summary["episodes"] == 4
    assert all(type(v) is float for v in summary["return"].values() if not isinstance(v, list))


def test_one_episode_has_no_spread() -> None:
    result = Evaluation([episode(-3.5, 7)]).summary()["return"]
    assert result == {"mean": -3.5, "std": 0.0, "median": -3.5, "min": -3.5, "max": -3.5, "ci95": [-3.5, -3.5]}
