"""Soft actor-critic (Haarnoja et al. 2018), with the temperature learned or fixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.networks.actors import ActionRange, squashed_sample, to_numpy
from rl_runner.networks.control import ControlNetwork
from rl_runner.networks.critics import ensemble_loss, least
from rl_runner.optim import named_state, ratios, resume_named_state, set_lr, step_part
from rl_runner.schedules import LinearSchedule
from rl_runner.types import (
    Array,
    Batch,
    BoolArray,
    Carry,
    Clock,
    Evaluate,
    LearnOutput,
    Mode,
    State,
    Sync,
    UserError,
    ValueRepresentation,
)


class SAC:
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
    ) -> None:
        if alpha is not None and not alpha >= 0.0:
            raise UserError(f"agent.alpha: must be 0 or more, or null to learn it, got {alpha}")
        if not initial_alpha > 0.0:
            raise UserError(f"agent.initial_alpha: must be above 0, got {initial_alpha}")
        self.network, self.actions, self.value, self._sync = network, actions, value, sync
        self.device = next(network.parameters()).device
        self.target = sync.make_target(network.critic)
        self._critic, self._policy = list(network.critic.parameters()), list(network.actor.parameters())
        self.fixed_alpha = None if alpha is None else torch.tensor(float(alpha), device=self.device)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial_alpha), device=self.device))
        if alpha is None:  # one of the network's parameters, so that it is saved and optimized with the others
            network.register_parameter("log_alpha", self.log_alpha)
            self._policy.append(self.log_alpha)
        self.target_entropy = -float(actions.size) if target_entropy is None else float(target_entropy)
        lr = {} if actor_lr is None else {"lr": actor_lr}
        self.optimizer = optimizer([{"params": self._critic}, {"params": self._policy, **lr}])
        self._ratios = ratios(self.optimizer)  # of learning rates to the critics'
        self.lr_schedule, self.random_steps = lr_schedule, random_steps

    @property
    def alpha(self) -> Tensor:
        """The temperature, a number."""
        return self.log_alpha.detach().exp() if self.fixed_alpha is None else self.fixed_alpha

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
        with torch.no_grad():
            mean, log_std = self.network.actor(self.network.normalized(tensor))
        noise = mode.rng.standard_normal(mean.shape, dtype=np.float32)
        return self.actions.to_environment(np.tanh(to_numpy(mean) + np.exp(to_numpy(log_std)) * noise)), carry

    @torch.no_grad()
    def greedy(self, obs: Tensor) -> Tensor:
        """Return actions (N, D) in [-1, 1] of observations (N, *O), for evaluation."""
        self.network.eval()
        mean, _ = self.network.actor(self.network.normalized(obs))
        self.network.train()
        action: Tensor = mean.tanh()
        return action

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return the Gaussian's parameters (N, D) before tanh, and the actions (N, *D) of evaluation."""
        mean, log_std = self.network.actor(self.network.normalized(obs))
        return {"mean": mean, "log_std": log_std, "action": self.actions.in_environment(mean.tanh())}

    def metrics(self, step: int) -> dict[str, float]:
        """Nothing to report: the policy explores by itself, and its entropy is a metric of learning."""
        return {}

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update of the critics, then one of the actor and the temperature."""
        obs, next_obs, alpha = self.network.normalized(batch.obs), self.network.normalized(batch.next_obs), self.alpha
        values = self.network.critic(obs, self.actions.scaled(batch.action))  # (K, B, M)
        reward, next_values = self._backup(batch, next_obs, alpha)  # (B,), (B, M)
        losses, priority = ensemble_loss(self.value, values, next_values, reward, batch.discount)  # (B,) each
        loss = (batch.weight * losses).mean()
        step_part(self.optimizer, loss, self._critic)
        with torch.no_grad():
            q, target = self.value.mean(values), reward + batch.discount * self.value.mean(next_values)
            metrics = {"loss": loss.detach(), "q_mean": q.mean(), "target_mean": target.mean()}
            metrics["td_error"] = (target - q).abs().mean()
        entropy = self._learn_policy(obs, alpha)
        return LearnOutput({**metrics, "entropy": entropy, "alpha": alpha}, priority)

    @torch.no_grad()
    def _backup(self, batch: Batch, next_obs: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return reward (B,) and next values (B, M) of the soft target, reward + discount (min Q - alpha log pi).

        The entropy is a number, without a distribution of its own, so it goes into the reward.
        """
        action, log_p = self._sample(next_obs)
        reward = batch.reward - batch.discount * alpha * log_p
        return reward, least(self.value, self.target(next_obs, action))

    def _learn_policy(self, obs: Tensor, alpha: Tensor) -> Tensor:
        """Update actor and temperature; return the mean entropy."""
        action, log_p = self._sample(obs)
        q = self.value.mean(least(self.value, self.network.critic(obs, action)))  # (B,)
        entropy = -log_p.detach().mean()
        loss = (alpha * log_p - q).mean()
        if self.fixed_alpha is None:
            loss = loss + self.log_alpha * (entropy - self.target_entropy)
        step_part(self.optimizer, loss, self._policy)
        return entropy

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions (B, D) in [-1, 1]; return them and their log-probabilities (B,)."""
        mean, log_std = self.network.actor(obs)
        return squashed_sample(mean, log_std, torch.randn_like(mean))

    def sync(self, before: Clock, now: Clock) -> None:
        """Update the target critics and the learning rates after the clock went from `before` to `now`."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(now.steps), self._ratios)
        self._sync(self.network.critic, self.target, before, now)

    def state_dict(self) -> State:
        """Return networks, temperature and optimizer."""
        return {
            "online": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": named_state(self.optimizer, self.network),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore networks, temperature and optimizer."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        resume_named_state(self.optimizer, self.network, state["optimizer"], self.lr_schedule is not None)

    def weights(self) -> State:
        """Return actor, critics and temperature."""
        return {"online": self.network.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore actor, critics and temperature; the target critics begin equal to the others."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(self.network.critic.state_dict())
