"""Advantage actor-critic (Mnih et al. 2016, synchronous), and with one environment the lecture's actor-critic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from rl_runner.policies import PolicyLearner, standardized
from rl_runner.schedules import LinearSchedule
from rl_runner.types import Distribution, Rollout, UserError


class A2C(PolicyLearner):
    """One gradient step on each rollout: the policy by its advantages, the value by its returns.

    Args:
        network: policy and state value, on its device.
        distribution: over actions.
        optimizer: makes the optimizer from the parameters.
        gamma: discount per step.
        lam: lambda of generalised advantage estimation; 1: returns up to the end of the rollout, as in the paper.
        value_coef: weight of the value's loss.
        entropy_coef: weight of the entropy bonus.
        normalize_advantages: a rollout's advantages have mean 0 and standard deviation 1.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        lam: float = 1.0,
        value_coef: float = 0.5,
        entropy_coef: float = 0.0,
        normalize_advantages: bool = False,
        normalize_rewards: bool = False,
        clip_grad_norm: float | None = 0.5,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        if not 0.0 <= lam <= 1.0:
            raise UserError(f"agent.lam: must be in [0, 1], got {lam}")
        super().__init__(network, distribution, optimizer, gamma, lr_schedule, clip_grad_norm, normalize_rewards)
        self.lam, self.value_coef, self.entropy_coef = lam, value_coef, entropy_coef
        self.normalize_advantages = normalize_advantages

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do one gradient step; yield its metrics."""
        self.anneal(step)
        rows = self.rows(rollout)
        log_prob, entropy, value = self.evaluate(rows)
        advantage, target = self.advantages(rollout, value.detach(), self.lam)
        if self.normalize_advantages:
            advantage = standardized(advantage)
        policy_loss, value_loss = -(log_prob * advantage).mean(), (value - target).square().mean()
        mean_entropy = entropy.mean()
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * mean_entropy
        self.show(policy_loss)
        norm = self.step(loss)
        yield {
            **{"loss": loss.detach(), "policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()},
            **{"entropy": mean_entropy.detach(), "grad_norm": norm, "value_mean": value.detach().mean()},
        }
        self.update_normalizer(rows)
