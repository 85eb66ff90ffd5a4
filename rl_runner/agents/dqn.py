"""Deep Q-learning (Mnih et al. 2013, 2015).

Double estimation (van Hasselt et al. 2016) and Munchausen (Vieillard et al. 2020) are switches of the agent. Dueling,
noisy, n-step, prioritized and distributional are parts that come in from outside: the network, the replay, the value
representation. The agent is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rl_runner.compiled import compiled_function
from rl_runner.compute import on_device
from rl_runner.exploration import choose
from rl_runner.networks.layers import Acting, evaluating
from rl_runner.optim import clip_norm, named_state, require_clip, resume_named_state, set_lr
from rl_runner.schedules import LinearSchedule
from rl_runner.sync import WeightAverage, target_of
from rl_runner.types import (
    Array,
    Batch,
    BoolArray,
    Carry,
    Clock,
    Exploration,
    IntArray,
    LearnOutput,
    Mode,
    State,
    Sync,
    Train,
    UserError,
    ValueRepresentation,
)
from rl_runner.values import masked, of_actions, outputs

Loss = tuple[Tensor, dict[str, Tensor], Tensor]


class DQN:
    """Q-learning with a network and its target network.

    Args:
        network: online network, (B, *O) -> (B, A, M), on its device.
        value: what the M numbers mean.
        optimizer: makes the optimizer from the parameters.
        sync: how the target network follows.
        exploration: how action values become actions while training.
        double: the online network chooses the next action, the target network values it.
        munchausen: reward the agent with its own log-probability of the action taken, and value the next state under
            the softmax of its values, entropy included (section 2 of the paper). With n-step windows this is done for
            the window's first action and for its last state. With `double` the softmax of the next state is the online
            network's; that of the action taken is always the target network's.
        munchausen_alpha: share of the log-probability that is added.
        munchausen_temperature: of the softmax.
        munchausen_clip: the temperature times the log-probability is not counted below this.
        clip_grad_value: clip each gradient component to [-x, x]; None: no clipping.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        compiled: run the loss and its gradient through torch.compile, on a GPU as CUDA graphs, and there the values to
            act by too. The results differ by rounding from those without it; with noisy networks the noise differs too.
        ema_decay: evaluation acts by a `WeightAverage` with this decay per update; None: by the weights themselves.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        value: ValueRepresentation,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        sync: Sync,
        exploration: Exploration,
        double: bool = False,
        munchausen: bool = False,
        munchausen_alpha: float = 0.9,
        munchausen_temperature: float = 0.03,
        munchausen_clip: float = -1.0,
        clip_grad_value: float | None = None,
        clip_grad_norm: float | None = None,
        compiled: bool = False,
        ema_decay: float | None = None,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        require_clip(clip_grad_norm)
        if clip_grad_value is not None and not clip_grad_value > 0:
            raise UserError(f"agent.clip_grad_value: must be above 0, or null for no clipping, got {clip_grad_value}")
        if munchausen and not 0.0 <= munchausen_alpha <= 1.0:
            raise UserError(f"agent.munchausen_alpha: must be in [0, 1], got {munchausen_alpha}")
        if munchausen and not munchausen_temperature > 0:
            raise UserError(f"agent.munchausen_temperature: must be above 0, got {munchausen_temperature}")
        if munchausen and not munchausen_clip < 0:
            raise UserError(f"agent.munchausen_clip: must be below 0, got {munchausen_clip}")
        self.online, self.target = network, target_of(sync, network)
        self.average, self._in_acting = WeightAverage(network, ema_decay), Acting(network)
        self.value, self.optimizer, self._sync = value, optimizer(network.parameters()), sync
        self._parameters = list(network.parameters())  # to look for them takes as long as an operation on a GPU
        self.lr_schedule, self.double, self.munchausen, self.alpha = lr_schedule, double, munchausen, munchausen_alpha
        self.temperature, self.least_bonus = munchausen_temperature, munchausen_clip
        self.clip_grad_value, self.clip_grad_norm = clip_grad_value, clip_grad_norm
        self.exploration, self.normalizer = exploration, getattr(network, "normalizer", None)
        self.device = next(network.parameters()).device
        self._loss = _compiled_loss(self._plain_loss, self.device) if compiled else self._plain_loss
        graphs = compiled and self.device.type == "cuda"  # a CPU is about as quick without
        self._action_values = _compiled_values(self._plain_values) if graphs else self._plain_values

    @property
    def network(self) -> nn.Module:
        """The online network."""
        return self.online

    @property
    def acting(self) -> nn.Module:
        """The network that evaluation acts by: the online network, or the average of its weights."""
        return self.average.network

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for observations (N, *O), and the next carry."""
        values = self.training_q_values if isinstance(mode, Train) else self.q_values
        return choose(values(on_device(obs, self.device)), self.exploration, mode, action_mask, carry)

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the exploration rule reports, epsilon for example."""
        return self.exploration.metrics(step)

    @torch.no_grad()
    def training_q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of observations (N, *O), to act by while training.

        Noisy networks draw noise here, so that they explore. A network that normalises observations updates its
        statistics with these.
        """
        if self.normalizer is not None:
            self.normalizer.update(obs)
        with self._in_acting:
            return self._action_values(obs)

    def _plain_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of observations (N, *O)."""
        return self.value.mean(self.online(obs))

    @torch.no_grad()
    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of observations (N, *O), for evaluation: mean weights, no noise."""
        with evaluating(self.acting):
            return self.value.mean(self.acting(obs))

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return action values (N, A), greedy actions (N,) and, where it is learned, the distribution of returns."""
        return outputs(self.value, self.acting(obs))

    def learn(self, batch: Batch) -> LearnOutput:
        """Do one gradient update."""
        loss, metrics, priority = self._loss(batch)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        grad_norm = self._clip_gradients()
        self.optimizer.step()
        return LearnOutput({**metrics, "grad_norm": grad_norm}, priority)

    def _plain_loss(self, batch: Batch) -> Loss:
        """Return the loss, metrics, and the priorities (B,)."""
        values = of_actions(self.online(batch.obs), batch.action)  # (B, M)
        reward, next_values = self._backup(batch)  # (B,), (B, M)
        losses, priority = self.value.loss(values, next_values, reward, batch.discount)  # (B,), (B,)
        loss = (batch.weight * losses).mean()
        q = self.value.mean(values.detach())
        target = reward + batch.discount * self.value.mean(next_values)
        q_metrics = {"q_mean": q.mean(), "q_max": q.max(), "target_mean": target.mean()}
        return loss, {"loss": loss.detach(), **q_metrics, "td_error": (target - q).abs().mean()}, priority

    @torch.no_grad()
    def _backup(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the reward (B,) and the next-state values (B, M) for the TD target."""
        if self.munchausen:
            return self._munchausen_backup(batch)
        target = self.target(batch.next_obs)  # (B, A, M)
        return batch.reward, of_actions(target, self._next_q(batch, target).argmax(dim=1))

    def _next_q(self, batch: Batch, target: Tensor) -> Tensor:
        """Return the action values (B, A) by which the next action is chosen; -inf where it is not allowed."""
        q = self.value.mean(self.online(batch.next_obs) if self.double else target)
        return masked(q, batch.next_action_mask)

    def _munchausen_backup(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return reward (B,) and next values (B, M) of the Munchausen target, where pi = softmax(q / T).

        r + alpha [T log pi(a|s)] + gamma sum_a' pi(a'|s') (value(s', a') - T log pi(a'|s'))

        The entropy is a number, without a distribution of its own, so it goes into the reward.
        """
        # In one pass: each row of a larger batch takes less time.
        now, target = self.target(torch.cat([batch.obs, batch.next_obs])).chunk(2)  # (B, A, M) each
        log_pi = (self._next_q(batch, target) / self.temperature).log_softmax(dim=1)  # (B, A)
        pi = log_pi.exp()
        if batch.next_action_mask is not None:
            log_pi = log_pi.masked_fill(~batch.next_action_mask, 0.0)  # 0 log 0 counts as 0
        entropy = -self.temperature * (pi * log_pi).sum(dim=1)  # (B,)
        q_now = masked(self.value.mean(now), batch.action_mask)
        log_pi_now = of_actions((q_now / self.temperature).log_softmax(dim=1), batch.action)  # (B,)
        bonus = self.alpha * (self.temperature * log_pi_now).clamp(self.least_bonus, 0.0)
        return batch.reward + bonus + batch.discount * entropy, self.value.expectation(target, pi)

    def _clip_gradients(self) -> Tensor:
        """Clip as configured; return the norm before clipping."""
        norm = clip_norm(self._parameters, self.clip_grad_norm)
        if self.clip_grad_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self.clip_grad_value)
        return norm

    def sync(self, before: Clock, now: Clock) -> None:
        """Update target network, average and learning rate after the clock went from `before` to `now`."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(now.steps))
        self._sync(self.online, self.target, before, now)
        self.average.sync(before, now)

    def state_dict(self) -> State:
        """Return networks and optimizer."""
        return {
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": named_state(self.optimizer, self.online),
            **self.average.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore networks and optimizer."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        self.average.load_state_dict(state)
        resume_named_state(self.optimizer, self.online, state["optimizer"], self.lr_schedule is not None)

    def weights(self) -> State:
        """Return the network that evaluation acts by, under the name of the online network."""
        return {"online": self.acting.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore the online network; the target network and the average begin equal to it."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["online"])
        self.average.restart()


def _compiled_loss(loss: Callable[[Batch], Loss], device: torch.device) -> Callable[[Batch], Loss]:
    """Return the loss, compiled."""
    no_ids: Any = None  # rows of the host's replay: nothing for a compiler

    def of_tensors(*tensors: Any) -> Loss:
        *first, action_mask, next_action_mask = tensors
        return loss(Batch._make([*first, no_ids, action_mask, next_action_mask]))

    quick = compiled_function(of_tensors, device)

    def of_batch(batch: Batch) -> Loss:
        loss, metrics, priority = quick(*batch[:6], batch.action_mask, batch.next_action_mask)
        # Copies, because the next run of a CUDA graph writes over what it gave.
        return loss, {name: metric.clone() for name, metric in metrics.items()}, priority.clone()

    return of_batch


def _compiled_values(values: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function of observations to act by, compiled to a CUDA graph."""
    quick = torch.compile(values, dynamic=False, mode="reduce-overhead")

    def of_obs(obs: Tensor) -> Tensor:
        return quick(obs).clone()  # the next run of the graph writes over what it returned

    return of_obs
