"""Soft actor-critic for discrete actions (Christodoulou 2019): expectations over actions instead of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rl_runner.compute import on_device
from rl_runner.distributions import Categorical, draw, mask_on
from rl_runner.networks.control import ControlNetwork
from rl_runner.networks.critics import ensemble_loss, min_over_critics, values_and_next
from rl_runner.networks.layers import evaluating
from rl_runner.schedules import LinearSchedule
from rl_runner.soft import SoftLearner
from rl_runner.types import (
    Array,
    Batch,
    BoolArray,
    Carry,
    LearnOutput,
    Mode,
    Sync,
    Train,
    UserError,
    ValueRepresentation,
)


class SACDiscrete(SoftLearner):
    """A policy over A actions that maximises the values of its critics plus its own entropy.

    Args:
        network: an actor that returns logits (B, A), and critics that return the values of all actions (K, B, A, M).
        actions: A.
        value: what the M numbers of a critic mean.
        optimizer: makes the optimizer from groups of parameters.
        sync: how the target critics follow.
        lr_schedule: learning rate of the critics by environment step; None leaves the optimizer's own. The others fall
            in proportion.
        actor_lr: learning rate of the actor and of the temperature; None: the critics'.
        random_steps: environment steps at the start in which actions are uniform.
        alpha: temperature, the weight of the entropy; None: learned, so that the entropy tends to its target.
        initial_alpha: temperature at the start if it is learned.
        target_entropy: as a share of the largest entropy, the logarithm of the number of allowed actions.
        clip_grad_norm: clip the norm of the critics' gradient, and that of the actor's; None: no clipping.
        ema_decay: evaluation acts by a `WeightAverage` with this decay per update; None: by the weights themselves.
        policy_delay: updates of the critics for each update of the actor and the temperature.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        network: ControlNetwork,
        actions: int,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        lr_schedule: LinearSchedule | None = None,
        actor_lr: float | None = None,
        random_steps: int = 0,
        alpha: float | None = None,
        initial_alpha: float = 1.0,
        target_entropy: float = 0.98,
        clip_grad_norm: float | None = None,
        ema_decay: float | None = None,
        policy_delay: int = 1,
    ) -> None:
        if not 0.0 <= target_entropy <= 1.0:
            raise UserError(f"agent.target_entropy: must be in [0, 1], a share of log A, got {target_entropy}")
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
        self.actions, self.random_steps, self.target_entropy = actions, random_steps, target_entropy
        self.policy = Categorical([actions])

    @torch.no_grad()
    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N,) for observations (N, *O): draws in training, the most probable in evaluation."""
        tensor, allowed = on_device(obs, self.device), mask_on(action_mask, self.device)
        if isinstance(mode, Train):
            if self.network.normalizer is not None:
                self.network.normalizer.update(tensor)
            with self.in_acting:
                logits = self.network.actor(self.network.normalized(tensor))
            if mode.step < self.random_steps:
                logits = torch.zeros_like(logits)
            return draw(self.policy, self.policy.masked(logits, allowed), mode.rng), carry
        with evaluating(self.acting):
            logits = self.acting.actor(self.acting.normalized(tensor))
        action: Array = self.policy.mode(self.policy.masked(logits, allowed)).cpu().numpy()
        if mode.epsilon > 0:
            drawn = draw(self.policy, self.policy.masked(torch.zeros_like(logits), allowed), mode.rng)
            chosen = mode.rng.random(len(obs)) < mode.epsilon
            action[chosen] = drawn[chosen]
        return action, carry

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return the policy's logits (N, A) and the actions (N,) of evaluation."""
        logits = self.acting.actor(self.acting.normalized(obs))
        return {"logits": logits, "action": self.policy.mode(logits)}

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update of the critics, and one of the actor and the temperature if it is due."""
        obs, next_obs, alpha = self.network.normalized(batch.obs), self.network.normalized(batch.next_obs), self.alpha
        every, next_every = values_and_next(self.network.critic, self.target, [obs], [next_obs])  # (K, B, A, M) each
        values = every[:, torch.arange(len(batch.action), device=self.device), batch.action]  # (K, B, M)
        reward, next_values = self._backup(batch, next_obs, next_every, alpha)  # (B,), (B, M)
        losses, priority = ensemble_loss(self.value, values, next_values, reward, batch.discount)  # (B,) each
        metrics = self._learn_critics(losses, batch.weight)
        metrics |= self._about_values(values, reward + batch.discount * self.value.mean(next_values))
        if self._policy_is_due:
            metrics["entropy"] = self._learn_policy(obs, alpha, batch.action_mask)
        return LearnOutput({**metrics, "alpha": alpha}, priority)

    @torch.no_grad()
    def _backup(self, batch: Batch, next_obs: Tensor, next_values: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return reward (B,) and next values (B, M) of the soft target, reward + discount (sum of pi Q + alpha H).

        `next_values` (K, B, A, M) are those of the target critics.
        The entropy H is a number, without a distribution of its own, so it goes into the reward.
        """
        with self.frozen:
            logits = self.policy.masked(self.network.actor(next_obs), batch.next_action_mask)
        reward = batch.reward + batch.discount * alpha * self.policy.entropy(logits)
        values = self._least(next_values)  # (B, A, M)
        return reward, self.value.expectation(values, logits.softmax(dim=1))

    def _learn_policy(self, obs: Tensor, alpha: Tensor, allowed: Tensor | None) -> Tensor:
        """Update actor and temperature; return the mean entropy."""
        logits = self.policy.masked(self.network.actor(obs), allowed)
        with torch.no_grad(), self.frozen:
            q = self.value.mean(self._least(self.network.critic(obs)))  # (B, A)
        entropy = self.policy.entropy(logits)
        loss = -(alpha * entropy + (logits.softmax(dim=1) * q).sum(dim=1)).mean()
        mean = entropy.detach().mean()
        self._step_policy(loss, mean - self.target_entropy * self._largest_entropy(allowed))
        return mean

    def _largest_entropy(self, allowed: Tensor | None) -> Tensor | float:
        return math.log(self.actions) if allowed is None else allowed.sum(dim=1).log().mean()

    def _least(self, values: Tensor) -> Tensor:
        """Return for each action the numbers of the critic with the smallest value: (K, B, A, M) -> (B, A, M)."""
        lowest: Tensor = min_over_critics(self.value, values.flatten(1, 2)).unflatten(0, values.shape[1:3])
        return lowest
