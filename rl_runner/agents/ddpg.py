"""Deep deterministic policy gradient (Lillicrap et al. 2016) and its relatives.

TD3 (Fujimoto et al. 2018) is two critics (`network.critics`), a policy delay and noise on the target's actions. D4PG
(Barth-Maron et al. 2018) is a categorical critic, n-step windows and prioritized replay, which are parts that come in
from outside. The agent is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.exploration import draw
from rl_runner.networks.actors import ActionRange, to_numpy
from rl_runner.networks.control import ControlNetwork
from rl_runner.networks.critics import ensemble_loss, min_over_critics, require_own_target, values_and_next
from rl_runner.networks.layers import Acting, Frozen, evaluating
from rl_runner.optim import named_state, ratios, require_clip, resume_named_state, set_lr, step_part
from rl_runner.schedules import LinearSchedule
from rl_runner.sync import WeightAverage, target_of
from rl_runner.types import (
    ActionNoise,
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

FIRST = slice(0, 1)  # of the critics, the one that the actor follows


class DDPG:
    """A deterministic actor that climbs the action values of its critics.

    Args:
        network: actor and critics, on their device.
        actions: the bounds of the actions.
        value: what the M numbers of a critic mean.
        optimizer: makes the optimizer from groups of parameters.
        sync: how the target networks follow, actor and critics. They move with the actor: its period counts updates of
            the actor.
        exploration: noise on the actions while training.
        lr_schedule: learning rate of the critics by environment step; None leaves the optimizer's own. The actor's
            falls in proportion.
        actor_lr: learning rate of the actor; None: the critics'.
        random_steps: environment steps at the start in which actions are uniform.
        policy_delay: updates of the critics for each update of the actor and the targets.
        target_noise: standard deviation of Gaussian noise on the target's actions, in units of half the range.
        target_noise_clip: this noise is clipped to [-x, x].
        clip_grad_norm: clip the norm of the critics' gradient, and that of the actor's; None: no clipping.
        ema_decay: evaluation acts by a `WeightAverage` with this decay per update; None: by the weights themselves.

    Raises:
        UserError: a value out of range, or batch normalisation with target networks.
    """

    def __init__(
        self,
        network: ControlNetwork,
        actions: ActionRange,
        value: ValueRepresentation,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        sync: Sync,
        exploration: ActionNoise,
        lr_schedule: LinearSchedule | None = None,
        actor_lr: float | None = None,
        random_steps: int = 0,
        policy_delay: int = 1,
        target_noise: float = 0.0,
        target_noise_clip: float = 0.5,
        clip_grad_norm: float | None = None,
        ema_decay: float | None = None,
    ) -> None:
        if policy_delay < 1:
            raise UserError(f"agent.policy_delay: must be 1 or more, got {policy_delay}")
        for key, number in [("target_noise", target_noise), ("target_noise_clip", target_noise_clip)]:
            if not number >= 0.0:
                raise UserError(f"agent.{key}: must be 0 or more, got {number}")
        require_clip(clip_grad_norm)
        self.network, self.actions, self.value, self._sync = network, actions, value, sync
        self._online = nn.ModuleDict({"actor": network.actor, "critic": network.critic})  # what has a target
        self.target, self.average = target_of(sync, self._online), WeightAverage(network, ema_decay)
        require_own_target(network.critic, self.target["critic"])
        self._in_acting, self._frozen = Acting(network), Frozen(network)
        self._critic, self._actor = list(network.critic.parameters()), list(network.actor.parameters())
        lr = {} if actor_lr is None else {"lr": actor_lr}
        self.optimizer = optimizer([{"params": self._critic}, {"params": self._actor, **lr}])
        self._ratios = ratios(self.optimizer)  # of learning rates to the critics'
        self.exploration, self.lr_schedule, self.random_steps = exploration, lr_schedule, random_steps
        self.policy_delay, self.target_noise, self.target_noise_clip = policy_delay, target_noise, target_noise_clip
        self.clip_grad_norm = clip_grad_norm
        self.updates = 0  # of the critics
        self.device = next(network.parameters()).device

    @property
    def acting(self) -> Any:
        """The network that evaluation acts by, a `ControlNetwork`: `network`, or the average of its weights."""
        return self.average.network

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[Array, Carry | None]:
        """Return actions (N, *D) for observations (N, *O), and the next carry."""
        tensor = on_device(obs, self.device)
        if isinstance(mode, Evaluate):
            return self.actions.evaluated(to_numpy(self.greedy(tensor)), mode), carry
        if self.network.normalizer is not None:
            self.network.normalizer.update(tensor)
        if mode.step < self.random_steps:
            return self.actions.to_environment(self.actions.uniform(len(obs), mode.rng)), carry
        with torch.no_grad(), self._in_acting:
            action = to_numpy(self.network.actor(self.network.normalized(tensor)))
        noise, carry = draw(self.exploration, action.shape, mode, carry)
        return self.actions.to_environment((action + noise).clip(-1.0, 1.0)), carry

    @torch.no_grad()
    def greedy(self, obs: Tensor) -> Tensor:
        """Return actions (N, D) in [-1, 1] of observations (N, *O), for evaluation."""
        with evaluating(self.acting):
            action: Tensor = self.acting.actor(self.acting.normalized(obs))
        return action

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return the actions (N, *D) of evaluation."""
        return {"action": self.actions.in_environment(self.acting.actor(self.acting.normalized(obs)))}

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the noise reports, its standard deviation."""
        return self.exploration.metrics(step)

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update of the critics, and of the actor if it is due."""
        obs, next_obs = self.network.normalized(batch.obs), self.network.normalized(batch.next_obs)
        values, next_values = values_and_next(  # (K, B, M) each
            self.network.critic,
            self.target["critic"],
            (obs, self.actions.scaled(batch.action)),
            (next_obs, self._next_action(next_obs)),
        )
        next_values = min_over_critics(self.value, next_values)  # (B, M)
        losses, priority = ensemble_loss(self.value, values, next_values, batch.reward, batch.discount)  # (B,) each
        loss = (batch.weight * losses).mean()
        step_part(self.optimizer, loss, self._critic, self.clip_grad_norm)
        with torch.no_grad():
            q, target = self.value.mean(values), batch.reward + batch.discount * self.value.mean(next_values)
            metrics = {"loss": loss.detach(), "q_mean": q.mean(), "target_mean": target.mean()}
            metrics["td_error"] = (target - q).abs().mean()
        self.updates += 1
        if self.updates % self.policy_delay == 0:
            action = self.network.actor(obs)
            with self._frozen:
                value = self.value.mean(self.network.critic(obs, action, FIRST))
            step_part(self.optimizer, -value.mean(), self._actor, self.clip_grad_norm)
            metrics["actor_value"] = value.detach().mean()
        return LearnOutput(metrics, priority)

    @torch.no_grad()
    def _next_action(self, next_obs: Tensor) -> Tensor:
        """Return the target actor's actions (B, D) in [-1, 1], with noise."""
        with self._frozen:
            action: Tensor = self.target["actor"](next_obs)
        if self.target_noise > 0:
            noise = torch.randn_like(action).mul_(self.target_noise)
            noise.clamp_(-self.target_noise_clip, self.target_noise_clip)
            action = (action + noise).clamp_(-1.0, 1.0)
        return action

    def sync(self, before: Clock, now: Clock) -> None:
        """Update target networks, average and learning rates after the clock went from `before` to `now`."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(now.steps), self._ratios)
        done = self.updates // self.policy_delay
        last = (self.updates - (now.updates - before.updates)) // self.policy_delay
        self._sync(
            self._online,
            self.target,
            Clock(before.steps, last, before.episodes),
            Clock(now.steps, done, now.episodes),
        )
        self.average.sync(before, now)

    def state_dict(self) -> State:
        """Return networks and optimizer."""
        return {
            "online": self.network.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": named_state(self.optimizer, self.network),
            "updates": self.updates,
            **self.average.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore networks and optimizer."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.average.load_state_dict(state)
        resume_named_state(self.optimizer, self.network, state["optimizer"], self.lr_schedule is not None)
        self.updates = int(state["updates"])

    def weights(self) -> State:
        """Return actor and critics as evaluation uses them."""
        return {"online": self.acting.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore actor and critics; the target networks and the average begin equal to them."""
        self.network.load_state_dict(state["online"])
        self.target.load_state_dict(self._online.state_dict())
        self.average.restart()
