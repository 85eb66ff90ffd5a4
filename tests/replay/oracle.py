"""A replay as one would write it without a thought for memory or speed, and a world that fills it.

It keeps whole episodes as Python lists of whole (stacked) observations and reads n-step windows with a slow loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rl_runner.types import Transition


@dataclass
class Log:
    """One episode: T + 1 observations, T steps, and the rows that the observations were the 1st, 2nd, ... to take."""

    obs: list = field(default_factory=list)
    steps: list = field(default_factory=list)  # (action, reward, terminal)
    rows: list = field(default_factory=list)
    priority: list = field(default_factory=list)  # of each step, to the alpha


class NaiveReplay:
    def __init__(self, rows, num_envs, stack, n_step, gamma, reward_clip=None):
        self.rows, self.num_envs, self.stack = rows, num_envs, stack
        self.n_step, self.gamma, self.reward_clip = n_step, gamma, reward_clip
        self.episodes: list[list[Log]] = [[] for _ in range(num_envs)]
        self.running = [False] * num_envs
        self.count = [0] * num_envs
        self.highest, self.added = 1.0, 0

    def add(self, tr: Transition) -> None:
        for i in range(self.num_envs):
            if not self.running[i]:
                self.episodes[i].append(Log())
                self._observe(i, tr.obs[i])
            log = self.episodes[i][-1]
            np.testing.assert_array_equal(log.obs[-1], tr.obs[i], err_msg="obs is not the last next_obs")
            terminal = bool(tr.terminated[i]) or bool(tr.no_bootstrap[i])
            log.steps.append((np.array(tr.action[i]), float(np.float32(tr.reward[i])), terminal))
            log.priority.append(self.highest)
            self.added += 1
            self._observe(i, tr.next_obs[i])
            self.running[i] = not (tr.terminated[i] or tr.truncated[i])

    def cut(self, mask) -> None:
        for i in range(self.num_envs):
            if mask[i]:
                self.running[i] = False

    def starts(self) -> dict[int, tuple[Log, int]]:
        """Every id that a window may start at, and where that is."""
        found = {}
        for i in range(self.num_envs):
            for log in self.episodes[i]:
                for t in range(len(log.steps)):
                    oldest_frame = max(t - self.stack + 1, 0)
                    if log.rows[oldest_frame] >= self.count[i] - self.rows:  # not overwritten yet
                        found[log.rows[t] % self.rows * self.num_envs + i] = (log, t)
        return found

    def prioritize(self, ids, priorities, alpha, epsilon) -> None:
        starts = self.starts()
        for i, priority in zip(ids, priorities, strict=True):
            log, t = starts[i]
            log.priority[t] = (priority + epsilon) ** alpha
            self.highest = max(self.highest, log.priority[t])

    def priorities(self) -> dict[int, float]:
        """Of every row that a window may start at."""
        return {i: log.priority[t] for i, (log, t) in self.starts().items()}

    def read(self, log: Log, t: int):
        """Return obs, action, n-step reward, discount and next_obs of the window that starts at step t."""
        total, discount, k = 0.0, 1.0, 0
        while True:
            _, reward, terminal = log.steps[t + k]
            if self.reward_clip is not None:
                reward = max(-self.reward_clip, min(self.reward_clip, reward))
            total += discount * reward
            discount *= self.gamma
            k += 1
            if terminal:
                discount = 0.0
                break
            if k == self.n_step or t + k == len(log.steps):
                break
        return log.obs[t], log.steps[t][0], total, discount, log.obs[t + k]

    def _observe(self, i, obs):
        self.episodes[i][-1].obs.append(np.array(obs))
        self.episodes[i][-1].rows.append(self.count[i])
        self.count[i] += 1


OUTCOMES = ("go", "terminated", "truncated", "both", "life", "life and truncated", "cut")
KINDS = ("frames", "vector", "discrete")  # observations: uint8 to be stacked, float32, a number


class World:
    """N environments that do what a script says. No two frames are alike, and none is zero."""

    def __init__(self, num_envs: int, stack: int, kind: str = "frames", seed: int = 0):
        self.num_envs, self.stack, self.kind = num_envs, stack, kind
        self.obs_shape = {"frames": (stack, 2, 3) if stack > 1 else (2, 3), "vector": (3,), "discrete": ()}[kind]
        self.obs_dtype = {"frames": np.uint8, "vector": np.float32, "discrete": np.int64}[kind]
        self.action_shape = (2,) if kind == "vector" else ()
        self.action_dtype = np.float32 if kind == "vector" else np.int64
        self._rng = np.random.default_rng(seed)
        self._frames = 0
        self._obs = [self._reset() for _ in range(num_envs)]

    def step(self, outcomes: Sequence[str]) -> tuple[Transition, np.ndarray]:
        """Return a transition, and where the replay must be cut after it."""
        obs = np.stack(self._obs)
        self._obs = [self._push(o) for o in self._obs]
        is_in = lambda *names: np.array([o in names for o in outcomes])  # noqa: E731
        tr = Transition(
            obs=obs,
            action=self._rng.integers(0, 200, size=(self.num_envs, *self.action_shape)).astype(self.action_dtype),
            reward=self._rng.choice([0.0, 0.1, -0.3, 1.0, -1.0, 7.5, -400.0, 1e5], self.num_envs).astype(np.float32),
            terminated=is_in("terminated", "both"),
            truncated=is_in("truncated", "both", "life and truncated"),
            no_bootstrap=is_in("life", "life and truncated"),
            next_obs=np.stack(self._obs),
        )
        cut = is_in("cut")
        for i in np.flatnonzero(tr.ended | cut):
            self._obs[i] = self._reset()
        return tr, cut

    def _frame(self, shape):
        self._frames += 1
        if self.kind == "discrete":
            return np.array(self._frames, dtype=np.int64)
        if self.kind == "vector":
            return np.array([self._frames, -self._frames, self._frames / 3], dtype=np.float32)
        digits = [self._frames % 256, self._frames // 256 % 256, 255 - self._frames % 256, 0, 255, 1]
        return np.array(digits, dtype=np.uint8).reshape(shape)

    def _reset(self):
        if self.kind == "frames" and self.stack > 1:
            zeros = np.zeros((self.stack - 1, *self.obs_shape[1:]), dtype=np.uint8)
            return np.concatenate([zeros, self._frame(self.obs_shape[1:])[None]])
        return self._frame(self.obs_shape)

    def _push(self, obs):
        if self.kind == "frames" and self.stack > 1:
            return np.concatenate([obs[1:], self._frame(self.obs_shape[1:])[None]])
        return self._frame(self.obs_shape)


def random_script(seed: int, steps: int, num_envs: int) -> list[tuple[str, ...]]:
    """Return outcomes for some steps, most of them uneventful."""
    rng = np.random.default_rng(seed)
    p = [0.7] + [0.3 / (len(OUTCOMES) - 1)] * (len(OUTCOMES) - 1)
    return [tuple(row) for row in rng.choice(OUTCOMES, size=(steps, num_envs), p=p).tolist()]
