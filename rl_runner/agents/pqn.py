"""Q-learning on rollouts, without replay memory and target network: PQN (Gallici et al. 2024, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rl_runner.compute import on_device
from rl_runner.exploration import choose
from rl_runner.networks.layers import Acting, evaluating
from rl_runner.optim import clip_norm, named_state, require_clip, resume_named_state, set_lr
from rl_runner.returns import RewardScale, gae
from rl_runner.rollouts import Rows, ends_of, minibatches, next_values, on_host, on_rows, rows_of
from rl_runner.schedules import LinearSchedule
from rl_runner.types import (
    Array,
    BoolArray,
    Carry,
    Exploration,
    IntArray,
    Mode,
    Rollout,
    State,
    Train,
    UserError,
    ValueRepresentation,
)
from rl_runner.values import masked, of_actions, outputs


class PQN:
    """Several epochs of Q-learning on each rollout, towards lambda-returns of the actions taken.

    The targets of a rollout are computed once, by the network before the first epoch:

        G_t = r_t + gamma ((1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1})

    The bracket is 0 at a termination, and max_a Q(s_{t+1}, a) at a truncation and at the end of the rollout. A
    distributional value representation learns the distribution of these numbers.

    Args:
        network: (B, *O) -> (B, A, M), on its device. The paper stabilises it by LayerNorm instead of a target network.
        value: what the M numbers mean.
        optimizer: makes the optimizer from the parameters.
        exploration: how action values become actions while training.
        gamma: discount per step.
        lam: lambda.
        epochs: passes over each rollout.
        batch_size: rows of each gradient step; the last batch of an epoch may be smaller, or one row larger.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        value: ValueRepresentation,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        exploration: Exploration,
        gamma: float,
        lam: float = 0.65,
        epochs: int = 4,
        batch_size: int = 128,
        normalize_rewards: bool = False,
        clip_grad_norm: float | None = 10.0,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        if not 0.0 <= lam <= 1.0:
            raise UserError(f"agent.lam: must be in [0, 1], got {lam}")
        for key, count in [("epochs", epochs), ("batch_size", batch_size)]:
            if count < 1:
                raise UserError(f"agent.{key}: must be at least 1, got {count}")
        require_clip(clip_grad_norm)
        self.network, self.value, self.exploration = network, value, exploration
        self.optimizer, self.lr_schedule = optimizer(network.parameters()), lr_schedule
        self.gamma, self.lam, self.epochs, self.batch_size = gamma, lam, epochs, batch_size
        self.clip_grad_norm, self._parameters = clip_grad_norm, list(network.parameters())
        self.reward_scale = RewardScale(gamma) if normalize_rewards else None
        self.normalizer = getattr(network, "normalizer", None)
        self.device = next(network.parameters()).device
        self._in_acting = Acting(network)

    @property
    def acting(self) -> nn.Module:
        """The network that acts, in training and in evaluation."""
        return self.network

    def act(
        self, obs: Array, carry: Carry | None, mode: Mode, action_mask: BoolArray | None = None
    ) -> tuple[IntArray, Carry | None]:
        """Return actions (N,) for observations (N, *O), and the next carry."""
        values = self._training_q_values if isinstance(mode, Train) else self.q_values
        return choose(values(on_device(obs, self.device)), self.exploration, mode, action_mask, carry)

    @torch.no_grad()
    def _training_q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) to act by while training; noisy networks draw noise here."""
        with self._in_acting:
            return self.value.mean(self.network(obs))

    @torch.no_grad()
    def q_values(self, obs: Tensor) -> Tensor:
        """Return action values (N, A) of observations (N, *O), for evaluation: mean weights, no noise."""
        with evaluating(self.network):
            return self.value.mean(self.network(obs))

    def outputs(self, obs: Tensor) -> dict[str, Tensor]:
        """Return action values (N, A), greedy actions (N,) and, where it is learned, the distribution of returns."""
        return outputs(self.value, self.network(obs))

    def metrics(self, step: int) -> dict[str, float]:
        """Return what the exploration rule reports, epsilon for example."""
        return self.exploration.metrics(step)

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do all epochs on a rollout; yield the metrics of each gradient step."""
        if self.lr_schedule is not None:
            set_lr(self.optimizer, self.lr_schedule(step))
        rows = rows_of(rollout, self.device)
        target = self._targets(rollout, rows)
        for index in minibatches(len(target), self.batch_size, self.epochs, self.device):
            yield self._update(rows.of(index), target[index])
        if self.normalizer is not None:  # after learning: acting and learning on a rollout use the same statistics
            self.normalizer.update(rows.obs)

    @torch.no_grad()
    def _targets(self, rollout: Rollout, rows: Rows) -> Tensor:
        """Return the lambda-returns (B,) of a rollout's rows."""
        ends, end_mask = ends_of(rollout, self.device)
        now = on_host(self._best(rows.obs, rows.action_mask)).reshape(rollout.reward.shape)
        after = next_values(rollout, now, on_host(self._best(ends, end_mask)))
        reward = rollout.reward if self.reward_scale is None else self.reward_scale(rollout.reward, rollout.ended)
        discount = np.where(rollout.terminal, 0.0, self.gamma)
        return on_rows(gae(reward, now, after, discount, np.where(rollout.ended, 0.0, self.lam)) + now, self.device)

    def _best(self, obs: Tensor, action_mask: Tensor | None) -> Tensor:
        """Return the largest action values (B,) of observations (B, *O), of the actions that are allowed."""
        return masked(self._training_q_values(obs), action_mask).amax(dim=1)

    def _update(self, rows: Rows, target: Tensor) -> dict[str, Tensor]:
        """Do one gradient step towards targets (B,); return its metrics."""
        values = of_actions(self.network(rows.obs), rows.action)  # (B, M)
        # The target is the whole return, so the loss gets discount 0 and bootstraps from nothing.
        losses, _ = self.value.loss(values, torch.zeros_like(values), target, torch.zeros_like(target))
        loss = losses.mean()
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        norm = clip_norm(self._parameters, self.clip_grad_norm)
        self.optimizer.step()
        q = self.value.mean(values.detach())
        return {
            "loss": loss.detach(),
            "q_mean": q.mean(),
            "q_max": q.max(),
            "target_mean": target.mean(),
            "td_error": (target - q).abs().mean(),
            "grad_norm": norm,
        }

    def cut(self, mask: BoolArray) -> None:
        """End the episodes of the environments in `mask` (N,), after the rollout that was learned last."""
        if self.reward_scale is not None:
            self.reward_scale.cut(mask)

    def state_dict(self) -> State:
        """Return network, optimizer and statistics."""
        return {
            "network": self.network.state_dict(),
            "optimizer": named_state(self.optimizer, self.network),
            "reward_scale": None if self.reward_scale is None else self.reward_scale.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore them. A resume may change the optimizer's settings."""
        self.network.load_state_dict(state["network"])
        resume_named_state(self.optimizer, self.network, state["optimizer"], self.lr_schedule is not None)
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state["reward_scale"])

    def weights(self) -> State:
        """Return the network."""
        return {"network": self.network.state_dict()}

    def load_weights(self, state: State) -> None:
        """Restore the network."""
        self.network.load_state_dict(state["network"])
