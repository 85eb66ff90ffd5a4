"""Episodes of a policy, without learning: shared by train, eval, export and doctor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rl_runner.envs.vector import EpisodicVectorEnv
from rl_runner.report.stats import mean_and_ci
from rl_runner.run.progress import means
from rl_runner.types import Carry, Episode, Evaluate, Policy, State


class Evaluation(NamedTuple):
    """K finished episodes, in the order in which they ended."""

    episodes: list[Episode]

    def summary(self) -> State:
        """Return statistics of returns (raw, undiscounted) and lengths (steps) as plain numbers.

        "info" holds the mean of each number that the environment reported at an episode's end, if there are any.
        """
        info = means([e.info for e in self.episodes])
        return {
            "return": _statistics([e.total_reward for e in self.episodes]),
            "length": _statistics([e.length for e in self.episodes]),
            "episodes": len(self.episodes),
            **({"info": info} if info else {}),
        }

    def rows(self) -> list[State]:
        """Return the seed, return and length of each episode."""
        return [{"seed": e.seed, "return": e.total_reward, "length": e.length} for e in self.episodes]


def evaluate(
    policy: Policy,
    envs: EpisodicVectorEnv,
    episodes: int,
    mode: Evaluate,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play episodes and count every one that was begun, long or short, so that short ones are not favoured.

    Args:
        policy: chooses the actions.
        envs: fresh environments, with seeds of their own.
        episodes: K.
        mode: how the policy acts.
        stopped: asked before each step; True ends it early with the episodes finished so far.
    """
    obs, carry = envs.reset(), None
    counts = np.arange(envs.num_envs) < episodes  # (N,) environments whose episode counts
    begun = int(counts.sum())
    finished: list[Episode] = []
    while counts.any() and not stopped():
        action, carry = policy.act(obs, carry, mode, envs.action_mask)
        envs.send(action)
        tr = envs.recv()
        obs = tr.next_obs
        if not tr.ended.any():
            continue
        finished += [episode for episode in envs.finished if counts[episode.env]]
        for i in np.flatnonzero(tr.ended & counts):
            counts[i] = begun < episodes
            begun += int(counts[i])
        obs, carry = envs.reset(tr.ended), Carry.begin(carry, tr.ended)
    return Evaluation(finished)


def _statistics(values: Sequence[float]) -> dict[str, float | list[float]]:
    x = np.asarray(values, dtype=np.float64)
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    mean, half = map(float, mean_and_ci(values))
    return {
        "mean": mean,
        "std": std,
        "median": float(np.median(x)),
        "min": float(x.min()),
        "max": float(x.max()),
        "ci95": [mean - half, mean + half],
    }
