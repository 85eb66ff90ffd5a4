"""Returns and advantages of rollouts (T, N), in double precision."""

from __future__ import annotations

import numpy as np

from rl_runner.types import BoolArray, DoubleArray, State

CLIP = 10.0  # of scaled rewards
EPSILON = 1e-8  # added to the variance


def gae(
    reward: DoubleArray, value: DoubleArray, next_value: DoubleArray, discount: DoubleArray, trace: DoubleArray
) -> DoubleArray:
    """Return generalised advantage estimates (Schulman et al. 2016, equation 16).

    A_t = delta_t + discount_t trace_t A_{t+1} with delta_t = r_t + discount_t V(s'_t) - V(s_t); A_T is 0.

    Lambda-returns are these plus the values. With a trace of 1 they are returns, bootstrapped at the end of the
    rollout; with 0 they are one-step targets.

    Args:
        reward: (T, N).
        value: (T, N) of the states in which the actions were taken.
        next_value: (T, N) of their true successors, also at the end of an episode.
        discount: (T, N) gamma, and 0 where the successor's value must not be counted.
        trace: (T, N) lambda, and 0 where the next row belongs to another episode.

    Returns:
        (T, N).
    """
    advantage = reward + discount * next_value - value
    decay = discount * trace
    for t in reversed(range(len(reward) - 1)):
        advantage[t] += decay[t] * advantage[t + 1]
    return advantage


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return so far, and clips them to [-10, 10].

    The return of each environment is followed from step to step, as OpenAI's baselines do; it begins again with each
    episode. Rewards are not centred, so that their signs stay.

    Args:
        gamma: discount per step.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.running: DoubleArray = np.zeros(0)  # (N,) discounted returns so far
        self.count, self.mean, self.squares = 0, 0.0, 0.0  # squares: the sum of squared distances from the mean

    def __call__(self, reward: DoubleArray, ended: BoolArray) -> DoubleArray:
        """Add rewards (T, N) to the statistics and return them scaled.

        Args:
            reward: (T, N).
            ended: (T, N) the step ended an episode.
        """
        if not self.running.size:
            self.running = np.zeros(reward.shape[1])
        returns = np.empty_like(reward)
        for t in range(len(reward)):
            self.running = self.running * self.gamma + reward[t]
            returns[t] = self.running
            self.running = np.where(ended[t], 0.0, self.running)
        self._add(returns)
        scaled = reward / np.sqrt(self.squares / self.count + EPSILON)
        return np.asarray(scaled.clip(-CLIP, CLIP))

    def cut(self, mask: BoolArray) -> None:
        """End the episodes of the environments in `mask` (N,): the next reward begins a new return."""
        if self.running.size:
            self.running = np.where(mask, 0.0, self.running)

    def _add(self, returns: DoubleArray) -> None:
        """Add a sample to mean and squares (Chan et al. 1979)."""
        n, mean = returns.size, float(returns.mean())
        delta, total = mean - self.mean, self.count + n
        self.squares += float(((returns - mean) ** 2).sum()) + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count = total

    def state_dict(self) -> State:
        """Return the statistics and the returns so far."""
        return {"running": self.running, "count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.running, self.count = state["running"].copy(), state["count"]
        self.mean, self.squares = state["mean"], state["squares"]
