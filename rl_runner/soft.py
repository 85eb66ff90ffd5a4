"""What agents that maximise value plus entropy share: the temperature, gradient steps, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rl_runner.networks.control import ControlNetwork
from rl_runner.networks.critics import require_own_target
from rl_runner.networks.layers import Acting, Frozen
from rl_runner.optim import named_state, ratios, require_clip, resume_named_state, set_lr, step_part
from rl_runner.schedules import LinearSchedule
from rl_runner.sync import WeightAverage, target_of
from rl_runner.types import Clock, State, Sync, UserError, ValueRepresentation


class SoftLearner:
    """Actor, critics, target critics and a temperature. Algorithms say how they act and learn.

    Args:
        network: actor and critics, on their device.
        value: what the M numbers of a critic mean.
        optimizer: makes the optimizer from groups of parameters.
        sync: how the target critics follow.
        lr_schedule: learning rate of the critics by environment step; None leaves the optimizer's own.
        actor_lr: learning rate of the actor and of the temperature; None: the critics'.
        alpha: fixed temperature; None: it is learned.
        initial_alpha: temperature at the start if it is learned.
        clip_grad_norm: clip the norm of the critics' gradient, and that of the actor's; None: no clipping.
        ema_decay: evaluation acts by a `WeightAverage` with this decay per update; None: by the weights themselves.
        policy_delay: updates of the critics for each update of the actor and the temperature.

    Raises:
        UserError: a value out of range, or batch normalisation with target critics.
    """

    def __init__(
        self,
        network: ControlNetwork,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        lr_schedule: LinearSchedule | None,
        actor_lr: float | None,
        alpha: float | None,
        initial_alpha: float,
        clip_grad_norm: float | None,
        ema_decay: float | None,
        policy_delay: int,
    ) -> None:
        if alpha is not None and not alpha >= 0.0:
            raise UserError(f"agent.alpha: must be 0 or more, or null to learn it, got {alpha}")
        if not initial_alpha > 0.0:
            raise UserError(f"agent.initial_alpha: must be above 0, got {initial_alpha}")
        if policy_delay < 1:
            raise UserError(f"agent.policy_delay: must be 1 or more, got {policy_delay}")
        require_clip(clip_grad_norm)
        self.network, self.value, self._sync, self.clip_grad_norm = network, value, sync, clip_grad_norm
        self.in_acting, self.frozen = Acting(network), Frozen(network)
        self.device = next(network.parameters()).device
        self.target = target_of(sync, network.critic)
        require_own_target(network.critic, self.target)
        self._critic, self._actor = list(network.critic.parameters()), list(network.actor.parameters())
        self.fixed_alpha = None if alpha is None else torch.tensor(float(alpha), device=self.device)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(initial_alpha), device=self.device))
        self._temperature = [self.log_alpha] if alpha is None else []
        if alpha is None:  # one of the network's parameters, so that it is saved and optimized with the others
            network.register_parameter("log_alpha", self.log_alpha)
        self.average = WeightAverage(network, ema_decay)
        lr = {} if actor_lr is None else {"lr": actor_lr}
        self.optimizer = optimizer([{"params": self._critic}, {"params": self._actor + self._temperature, **lr}])
        if self._temperature and self.optimizer.defaults.get("weight_decay"):  # it would pull the temperature to 1
            alone = {"params": self._temperature, "weight_decay": 0.0, **lr}
            self.optimizer = optimizer([{"params": self._critic}, {"params": self._actor, **lr}, alone])
        self._ratios = ratios(self.optimizer)  # of learning rates to the critics'
        self.lr_schedule, self.policy_delay = lr_schedule, policy_delay
        self.updates = 0  # of the critics

    @property
    def acting(self) -> Any:
        """The network that evaluation acts by, a `ControlNetwork`: `network`, or the average of its weights."""
        return self.average.network

    @property
    def alpha(self) -> Tensor:
        """The temperature, a number."""
        return self.log_alpha.detach().exp() if self.fixed_alpha is None else self.fixed_alpha

    def metrics(self, step: int) -> dict[str, float]:
        """Nothing to report: the policy explores by itself, and its entropy is a metric of learning."""
        return {}

    def _learn_critics(self, losses: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Do a gradient step on the critics' losses (B,) with these weights (B,); return the loss."""
        loss = (weight * losses).mean()
        step_part(self.optimizer, loss, self._critic, self.clip_grad_norm)
        self.updates += 1
        return {"loss": loss.detach()}

    @torch.no_grad()
    def _about_values(self, values: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return metrics of the critics' values (K, B, M) and of their targets (B,)."""
        q = self.value.mean(values)
        return {"q_mean": q.mean(), "target_mean": target.mean(), "td_error": (target - q).abs().mean()}

    @property
    def _policy_is_due(self) -> bool:
        return self.updates % self.policy_delay == 0

    def _step_policy(self, loss: Tensor, excess_entropy: Tensor) -> None:
        """Do a gradient step on the actor, and on the temperature if it is learned.

        Args:
            loss: the actor's.
            excess_entropy: the policy's entropy minus its target; a positive one makes the temperature smaller.
        """
        if self._temperature:
            loss = loss + self.log_alpha * excess_entropy
        step_part(self.optimizer, loss, self._actor + self._temperature, self.clip_grad_norm, clipped=self._actor)

    def sync(self, before: Clock, now: Clock) -> None:
        """Update target critics, average and learning rates after the clock went from `before` to `now`."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(now.steps), self._ratios)
        self._sync(self.network.critic, self.target, before, now)
        self.average.sync(before, now)

    def state_dict(self) -> State:
        """Return networks, temperature and optimizer."""
        return {
            "online": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": named_state(self.optimizer, self.network),
            "updates": self.updates,
            **self.average.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore networks, temperature and optimizer."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.average.load_state_dict(state)
        resume_named_state(self.optimizer, self.network, state["optimizer"], self.lr_schedule is not None)
        self.updates = int(state.get("updates", 0))  # older checkpoints have no such number and no delay

    def weights(self) -> State:
        """Return actor, critics and temperature as evaluation uses them."""
        return {"online": self.acting.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore actor, critics and temperature; the target critics and the average begin equal to them."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(self.network.critic.state_dict())
        self.average.restart()
