"""REINFORCE (Williams 1992), with the steps that reduce its variance one by one as switches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.policies import PolicyLearner, standardized
from rl_runner.returns import gae
from rl_runner.rollouts import on_host, on_rows
from rl_runner.schedules import LinearSchedule
from rl_runner.types import BoolArray, Distribution, DoubleArray, Rollout, UserError

RETURNS = ("trajectory", "to_go", "discounted")
BASELINES = ("none", "mean", "value")


class REINFORCE(PolicyLearner):
    """One gradient step on whole episodes: log-probabilities weighted by returns.

    Losses are summed over the steps of an episode, and averaged over the episodes. A mean over steps would give the
    steps of a short episode more weight than those of a long one, and the gradient another direction on average.

    Args:
        network: policy and state value, on its device.
        distribution: over actions.
        optimizer: makes the optimizer from the parameters.
        gamma: discount per step, of `returns=discounted`.
        returns: what an action is credited with: "trajectory", the return of its whole episode; "to_go", what came
            after it; "discounted", the same with discount.
        baseline: what is subtracted: "none"; "mean", the mean return over the steps of the rollout's other episodes, of
            which there must be one at least; "value", the state value, which is learned alongside, from what came
            after the state. An episode's own mean depends on its actions, and would bias the gradient.
        value_coef: weight of the value's loss, with baseline="value".
        entropy_coef: weight of the entropy bonus.
        normalize_advantages: returns minus baseline have mean 0 and standard deviation 1 in each rollout. Their mean
            holds each step's own return, so the gradient is biased, the more the fewer episodes a rollout has.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.

    Attributes:
        whole_episodes: rollouts must be whole episodes.

    Raises:
        UserError: a value out of range.
    """

    whole_episodes = True

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        returns: str = "discounted",
        baseline: str = "value",
        value_coef: float = 0.5,
        entropy_coef: float = 0.0,
        normalize_advantages: bool = False,
        normalize_rewards: bool = False,
        clip_grad_norm: float | None = None,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        for key, given, known in [("returns", returns, RETURNS), ("baseline", baseline, BASELINES)]:
            if given not in known:
                raise UserError(f"agent.{key}: must be one of {', '.join(known)}, got {given!r}")
        super().__init__(network, distribution, optimizer, gamma, lr_schedule, clip_grad_norm, normalize_rewards)
        self.returns, self.baseline = returns, baseline
        self.value_coef, self.entropy_coef = value_coef, entropy_coef
        self.normalize_advantages = normalize_advantages

    @property
    def discount(self) -> float:
        """The discount per step of the return that the policy is to make larger."""
        return self.gamma if self.returns == "discounted" else 1.0

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do one gradient step; yield its metrics, losses as means over the steps."""
        self.anneal(step)
        rows = self.rows(rollout)
        log_prob, entropy, value = self.evaluate(rows)
        returns, to_go = self._returns(rollout, value.detach())
        advantage = returns - self._baseline(rollout, returns, value.detach())
        if self.normalize_advantages:
            advantage = standardized(advantage)
        policy_loss, mean_entropy = -(log_prob * advantage).mean(), entropy.mean()
        loss = policy_loss - self.entropy_coef * mean_entropy
        metrics = {"policy_loss": policy_loss.detach(), "entropy": mean_entropy.detach()}
        if self.baseline == "value":
            value_loss = (value - to_go).square().mean()
            loss = loss + self.value_coef * value_loss
            metrics |= {"value_loss": value_loss.detach(), "value_mean": value.detach().mean()}
        self.show(policy_loss)
        steps_per_episode = len(returns) / int(rollout.ended.sum())
        norm = self.step(steps_per_episode * loss)
        yield {"loss": loss.detach(), **metrics, "return_mean": returns.mean(), "grad_norm": norm}
        self.update_normalizer(rows)

    def _returns(self, rollout: Rollout, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each action is credited with, and what came after its state, (B,) each.

        Where an episode was cut short, the value of its last state stands for the rest, if there is a value.
        """
        discount = np.where(rollout.terminal, 0.0, self.discount)
        now, after = self.values(rollout, value) if self.baseline == "value" else (np.zeros(discount.shape),) * 2
        to_go = gae(self.rewards(rollout), now, after, discount, np.where(rollout.ended, 0.0, 1.0)) + now
        credit = _whole_episodes(to_go, rollout.ended | rollout.terminal) if self.returns == "trajectory" else to_go
        return on_rows(credit, self.device), on_rows(to_go, self.device)

    def _baseline(self, rollout: Rollout, returns: Tensor, value: Tensor) -> Tensor | float:
        if self.baseline == "value":
            return value
        if self.baseline == "mean":
            return on_rows(_mean_of_others(on_host(returns)[:, None], rollout.ended), self.device)
        return 0.0


def _mean_of_others(returns: DoubleArray, ended: BoolArray) -> DoubleArray:
    """Return for each row of (T, 1) the mean over the rows of the other episodes.

    Args:
        returns: (T, 1).
        ended: (T, 1) the next row belongs to another episode.

    Raises:
        UserError: there is one episode.
    """
    episode = np.cumsum(np.concatenate([[False], ended[:-1, 0]]))
    if episode[-1] == 0:
        raise UserError("agent.baseline: must be none or value for rollouts of one episode, got mean")
    sums, rows = np.bincount(episode, returns[:, 0]), np.bincount(episode)
    means = (sums.sum() - sums) / (rows.sum() - rows)
    return np.asarray(means[episode][:, None])


def _whole_episodes(to_go: DoubleArray, ended: BoolArray) -> DoubleArray:
    """Return for each row of (T, 1) the return of its whole episode: that to go at the episode's first row.

    Args:
        to_go: (T, 1).
        ended: (T, 1) the next row belongs to another episode, or to another life where a lost one counts as an end.
    """
    first = np.concatenate([[0], np.flatnonzero(ended[:-1, 0]) + 1])
    episode = np.cumsum(np.concatenate([[False], ended[:-1, 0]]))
    return np.asarray(to_go[first[episode]])
