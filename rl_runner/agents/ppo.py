"""Proximal policy optimisation (Schulman et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rl_runner.compiled import compiled_function
from rl_runner.policies import PolicyLearner, standardized
from rl_runner.rollouts import Rows, minibatches, sequences
from rl_runner.schedules import LinearSchedule
from rl_runner.types import Distribution, Rollout, UserError

Loss = tuple[Tensor, Tensor, dict[str, Tensor]]  # the loss of a batch, the policy's part of it, metrics


class Old(NamedTuple):
    """What a rollout's rows had before the first epoch, (B,) each."""

    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor  # of the value


class PPO(PolicyLearner):
    """Several epochs of gradient steps on each rollout, with the probability ratio clipped.

    Args:
        network: policy and state value, on its device.
        distribution: over actions.
        optimizer: makes the optimizer from the parameters.
        gamma: discount per step.
        lam: lambda of generalised advantage estimation.
        epochs: passes over each rollout.
        batch_size: rows of each gradient step; the last batch of an epoch may be smaller, or one row larger.
        clip: the ratio of new and old probability is clipped to [1 - x, 1 + x]; None: no clipping.
        clip_end: value that `clip` reaches linearly; None: it is constant.
        clip_steps: environment steps from `clip` to `clip_end`.
        clip_value: values are not learned beyond this distance from those before the first epoch; None: no clipping.
        value_coef: weight of the value's loss.
        entropy_coef: weight of the entropy bonus.
        target_kl: no further gradient step on this rollout once the approximate KL divergence from the policy that
            acted exceeds 1.5 times this; None: never.
        normalize_advantages: each batch's advantages have mean 0 and standard deviation 1.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.
        clip_grad_norm: clip the norm of the whole gradient; None: no clipping.
        lr_schedule: learning rate by environment step; None leaves the optimizer's own.
        sequence_steps: if the network remembers: steps of each sequence, which gradients go back through, at most
            those of a rollout; what was remembered before it is that of the policy that acted. `batch_size` is rounded
            down to whole sequences.
        compiled: run the loss and its gradient through torch.compile, on a GPU as CUDA graphs. Equal to rounding.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        lam: float = 0.95,
        epochs: int = 10,
        batch_size: int = 64,
        clip: float | None = 0.2,
        clip_end: float | None = None,
        clip_steps: int = 0,
        clip_value: float | None = None,
        value_coef: float = 0.5,
        entropy_coef: float = 0.0,
        target_kl: float | None = None,
        normalize_advantages: bool = True,
        normalize_rewards: bool = False,
        clip_grad_norm: float | None = 0.5,
        lr_schedule: LinearSchedule | None = None,
        sequence_steps: int = 16,
        compiled: bool = False,
    ) -> None:
        if not 0.0 <= lam <= 1.0:
            raise UserError(f"agent.lam: must be in [0, 1], got {lam}")
        for key, count in [("epochs", epochs), ("batch_size", batch_size), ("sequence_steps", sequence_steps)]:
            if count < 1:
                raise UserError(f"agent.{key}: must be at least 1, got {count}")
        for key, x in [("clip", clip), ("clip_value", clip_value), ("target_kl", target_kl)]:
            if x is not None and not x > 0:
                raise UserError(f"agent.{key}: must be above 0, got {x}")
        if clip is None and clip_end is not None:
            raise UserError(f"agent.clip_end: must be null where agent.clip is null, got {clip_end}")
        if clip_end is not None and clip_end < 0:
            raise UserError(f"agent.clip_end: must be 0 or more, or null for a constant clip, got {clip_end}")
        if clip_steps < 0:
            raise UserError(f"agent.clip_steps: must be 0 or more, got {clip_steps}")
        super().__init__(network, distribution, optimizer, gamma, lr_schedule, clip_grad_norm, normalize_rewards)
        self.lam, self.epochs, self.batch_size, self.sequence_steps = lam, epochs, batch_size, sequence_steps
        if clip is None:
            clip = math.inf
        self.clip = LinearSchedule(clip, clip, 0) if clip_end is None else LinearSchedule(clip, clip_end, clip_steps)
        self.clip_value, self.value_coef, self.entropy_coef = clip_value, value_coef, entropy_coef
        self.target_kl, self.normalize_advantages = target_kl, normalize_advantages
        self._loss = _compiled_loss(self._plain_loss, self.device) if compiled else self._plain_loss

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do all epochs on a rollout; yield the metrics of each gradient step."""
        self.anneal(step)
        rows, clip = self.rows(rollout), torch.tensor(self.clip(step), device=self.device)
        with torch.no_grad(), self.in_acting:
            old_log_prob, _, old_value = self.evaluate(rows)
        advantage, target = self.advantages(rollout, old_value, self.lam)
        old = Old(old_log_prob, old_value, advantage, target)
        last: dict[str, Tensor] = {}  # metrics of the last gradient step, returned once the next batch is known
        for index in self._batches(*rollout.reward.shape):
            loss_of = self._loss if self.watch is None else self._plain_loss  # a compiled loss has one gradient
            loss, policy_loss, metrics = loss_of(rows.of(index), Old(*(x[index.flatten()] for x in old)), clip)
            if self.target_kl is not None and float(metrics["kl"]) > 1.5 * self.target_kl:
                last |= {name: metrics[name] for name in ("kl", "clipped")}  # so that too large a step is seen
                break
            if last:
                yield last
            self.show(policy_loss)
            last = {**metrics, "grad_norm": self.step(loss)}
        if last:
            yield last
        self.update_normalizer(rows)

    def _batches(self, steps: int, num_envs: int) -> Iterator[Tensor]:
        """Yield the rows of each gradient step: (B,), or (L, C) of a network that remembers."""
        if not self.memory_size:
            return minibatches(steps * num_envs, self.batch_size, self.epochs, self.device)
        length = min(self.sequence_steps, steps)
        return sequences(steps, num_envs, length, self.batch_size, self.epochs, self.device)

    def _plain_loss(self, rows: Rows, old: Old, clip: Tensor) -> Loss:
        """Return the loss of a batch, the policy's part of it, and the metrics."""
        log_prob, entropy, value = self.evaluate(rows)
        log_ratio = log_prob - old.log_prob
        advantage = standardized(old.advantage) if self.normalize_advantages else old.advantage
        policy_loss, mean_entropy = policy_losses(log_ratio, advantage, clip).mean(), entropy.mean()
        value_loss = value_losses(value, old.value, old.target, self.clip_value).mean()
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * mean_entropy
        with torch.no_grad():
            ratio = log_ratio.exp()
            metrics = {"loss": loss.detach(), "policy_loss": policy_loss.detach(), "value_loss": value_loss.detach()}
            metrics["entropy"] = mean_entropy.detach()
            metrics["kl"] = (ratio - 1 - log_ratio).mean()  # Schulman's low-variance estimate
            metrics["clipped"] = ((ratio - 1).abs() > clip).float().mean()
            metrics["value_mean"] = value.detach().mean()
        return loss, policy_loss, metrics


def _compiled_loss(loss: Callable[..., Loss], device: torch.device) -> Callable[..., Loss]:
    """Return the loss, compiled."""
    quick = compiled_function(loss, device)

    def of_batch(rows: Rows, old: Old, clip: Tensor) -> Loss:
        loss, policy_loss, metrics = quick(rows, old, clip)
        # Copies, because the next run of a CUDA graph writes over what it gave.
        return loss, policy_loss, {name: metric.clone() for name, metric in metrics.items()}

    return of_batch


def policy_losses(log_ratio: Tensor, advantage: Tensor, clip: Tensor) -> Tensor:
    """Return -min(ratio A, clipped ratio A), (B,) (equation 7)."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def value_losses(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Return squared errors (B,); with clipping, the larger one of the value and of the value near the old one."""
    losses = (value - target).square()
    if clip is None:
        return losses
    near = old + (value - old).clamp(-clip, clip)
    return torch.maximum(losses, (near - target).square())
