"""Soft actor-critic (Haarnoja et al. 2018), with the temperature learned or fixed.

Truncated quantile critics (Kuznetsov et al. 2020) are a switch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.networks.actors import ActionRange, squashed_sample, to_numpy
from rl_runner.networks.control import ControlNetwork
from rl_runner.networks.critics import ensemble_loss, min_over_critics, truncated_mixture, values_and_next
from rl_runner.networks.layers import evaluating
from rl_runner.schedules import LinearSchedule
from rl_runner.soft import SoftLearner
from rl_runner.types import (
    Array,
    Batch,
    BoolArray,
    Carry,
    Evaluate,
    LearnOutput,
    Mode,
    Sync,
    UserError,
    ValueRepresentation,
)
from rl_runner.values import Quantile


class SAC(SoftLearner):
    """A stochastic actor that maximises the values of its critics plus its own entropy.

    Args:
        network: a squashed Gaussian actor and critics, on their device.
        actions: the bounds of the actions.
        value: what the M numbers of a critic mean.
        optimizer: makes the optimizer from groups of parameters.
        sync: how the target critics follow.
        lr_schedule: learning rate of the critics by environment step; None leaves the optimizer's own. The others fall
            in proportion.
        actor_lr: learning rate of the actor and of the temperature; None: the critics'.
        random_steps: environment steps at the start in which actions are uniform.
        alpha: temperature, the weight of the entropy; None: learned, so that the entropy tends to `target_entropy`.
        initial_alpha: temperature at the start if it is learned.
        target_entropy: of the policy over actions scaled to [-1, 1]; None: minus the number of dimensions.
        clip_grad_norm: clip the norm of the critics' gradient, and that of the actor's; None: no clipping.
        ema_decay: evaluation acts by a `WeightAverage` with this decay per update; None: by the weights themselves.
        policy_delay: updates of the critics for each update of the actor and the temperature.
        dropped_quantiles: the critics' quantiles are pooled for the targets, without the highest ones, so many per
            critic, and the actor maximises the mean over all critics. 0: the critic with the smallest value counts.

    Raises:
        UserError: a value out of range, or quantiles to drop from a value that has none.
    """

    def __init__(
        self,
        network: ControlNetwork,
        actions: ActionRange,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        lr_schedule: LinearSchedule | None = None,
        actor_lr: float | None = None,
        random_steps: int = 0,
        alpha: float | None = None,
        initial_alpha: float = 1.0,
        target_entropy: float | None = None,
        clip_grad_norm: float | None = None,
        ema_decay: float | None = None,
        policy_delay: int = 1,
        dropped_quantiles: int = 0,
    ) -> None:
        if dropped_quantiles < 0:
            raise UserError(f"agent.dropped_quantiles: must be 0 or more, got {dropped_quantiles}")
        if dropped_quantiles and not isinstance(value, Quantile):
            raise UserError(
                f"agent.dropped_quantiles: must be 0 with a value of type {type(value).__name__}, got "
                f"{dropped_quantiles}; value=qr_dqn has quantiles"
            )
        if dropped_quantiles >= value.outputs_per_action:
            raise UserError(
                f"agent.dropped_quantiles: must be below value.quantiles, {value.outputs_per_action}, got "
                f"{dropped_quantiles}"
            )
        super().__init__(
            network,
            value,
            optimizer,
            sync,
            lr_schedule,
            actor_lr,
            alpha,
            initial_alpha,
            clip_grad_norm,
            ema_decay,
            policy_delay,
        )
        self.actions, self.random_steps, self.dropped_quantiles = actions, random_steps, dropped_quantiles
        self.target_entropy = -float(actions.size) if target_entropy is None else float(target_entropy)

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N, *D) for observations (N, *O): draws in training, tanh of the mean in evaluation."""
        tensor = on_device(obs, self.device)
        if isinstance(mode, Evaluate):
            return self.actions.evaluated(to_numpy(self.greedy(tensor)), mode), carry
        if self.network.normalizer is not None:
            self.network.normalizer.update(tensor)
        if mode.step < self.random_steps:
            return self.actions.to_environment(self.actions.uniform(len(obs), mode.rng)), carry
        with torch.no_grad(), self.in_acting:
            mean, log_std = self.network.actor(self.network.normalized(tensor))
        noise = mode.rng.standard_normal(mean.shape, dtype=np.float32)
        return self.actions.to_environment(np.tanh(to_numpy(mean) + np.exp(to_numpy(log_std)) * noise)), carry

    @torch.no_grad()
    def greedy(self, obs: Tensor) -> Tensor:
        """Return actions (N, D) in [-1, 1] of observations (N, *O), for evaluation."""
        with evaluating(self.acting):
            mean, _ = self.acting.actor(self.acting.normalized(obs))
        action: Tensor = mean.tanh()
        return action

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return the Gaussian's parameters (N, D) before tanh, and the actions (N, *D) of evaluation."""
        mean, log_std = self.acting.actor(self.acting.normalized(obs))
        return {"mean": mean, "log_std": log_std, "action": self.actions.in_environment(mean.tanh())}

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update of the critics, and one of the actor and the temperature if it is due."""
        obs, next_obs, alpha = self.network.normalized(batch.obs), self.network.normalized(batch.next_obs), self.alpha
        with torch.no_grad(), self.frozen:
            next_action, log_p = self._sample(next_obs)
        values, next_values = values_and_next(  # (K, B, M) each
            self.network.critic, self.target, (obs, self.actions.scaled(batch.action)), (next_obs, next_action)
        )
        reward, next_values = self._backup(batch, next_values, alpha * log_p)  # (B,), (B, M)
        losses, priority = ensemble_loss(self.value, values, next_values, reward, batch.discount)  # (B,) each
        metrics = self._learn_critics(losses, batch.weight)
        metrics |= self._about_values(values, reward + batch.discount * self.value.mean(next_values))
        if self._policy_is_due:
            metrics["entropy"] = self._learn_policy(obs, alpha)
        return LearnOutput({**metrics, "alpha": alpha}, priority)

    def _backup(self, batch: Batch, next_values: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Return reward (B,) and next values (B, M) of the soft target, reward + discount (min Q - penalty).

        Truncated, there are K (M - dropped) next values.

        Args:
            batch: of transitions.
            next_values: of the target critics (K, B, M).
            penalty: alpha log pi of the next actions (B,). It is a number, without a distribution of its own, so it
                goes into the reward.
        """
        reward = batch.reward - batch.discount * penalty
        if self.dropped_quantiles:
            return reward, truncated_mixture(next_values, self.dropped_quantiles)
        return reward, min_over_critics(self.value, next_values)

    def _learn_policy(self, obs: Tensor, alpha: Tensor) -> Tensor:
        """Update actor and temperature; return the mean entropy."""
        action, log_p = self._sample(obs)
        with self.frozen:
            values = self.network.critic(obs, action)  # (K, B, M)
        if self.dropped_quantiles:
            q = self.value.mean(values).mean(dim=0)  # (B,)
        else:
            q = self.value.mean(min_over_critics(self.value, values))  # (B,)
        entropy = -log_p.detach().mean()
        self._step_policy((alpha * log_p - q).mean(), entropy - self.target_entropy)
        return entropy

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions (B, D) in [-1, 1]; return them and their log-probabilities (B,)."""
        mean, log_std = self.network.actor(obs)
        return squashed_sample(mean, log_std, torch.randn_like(mean))
