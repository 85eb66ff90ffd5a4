"""Trust region policy optimisation (Schulman et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from rl_runner.optim import clip_norm
from rl_runner.policies import PolicyLearner, standardized
from rl_runner.rollouts import Rows, minibatches
from rl_runner.schedules import LinearSchedule
from rl_runner.types import Distribution, Rollout, UserError


class TRPO(PolicyLearner):
    """One natural gradient step of the policy on each rollout, as long as a KL divergence allows; values by gradients.

    Parameters that the policy uses are learned by its loss alone; with a shared torso the value learns its last layer.

    Args:
        network: policy and state value, on its device; without a memory.
        distribution: over actions.
        optimizer: makes the optimizer of the values.
        gamma: discount per step.
        lam: lambda of generalised advantage estimation.
        max_kl: largest mean KL divergence between the policies before and after a step.
        cg_steps: steps of conjugate gradients that solve for the natural gradient.
        damping: added to the diagonal of the Fisher matrix.
        backtracks: step lengths that are tried, each `shrink` times the one before; if none makes the loss smaller
            within `max_kl`, the policy stays as it is.
        shrink: see `backtracks`.
        value_epochs: passes over each rollout for the values.
        batch_size: rows of each gradient step of the values; the last batch of an epoch may be smaller, or one row
            larger.
        normalize_advantages: a rollout's advantages have mean 0 and standard deviation 1.
        normalize_rewards: divide rewards by the standard deviation of the discounted return so far.
        clip_grad_norm: clip the norm of the values' gradient; None: no clipping.
        lr_schedule: learning rate of the values by environment step; None leaves the optimizer's own.

    Raises:
        UserError: a value out of range, or a network with a memory.
    """

    def __init__(
        self,
        network: nn.Module,
        distribution: Distribution,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        gamma: float,
        lam: float = 0.95,
        max_kl: float = 0.01,
        cg_steps: int = 15,
        damping: float = 0.1,
        backtracks: int = 10,
        shrink: float = 0.8,
        value_epochs: int = 10,
        batch_size: int = 128,
        normalize_advantages: bool = True,
        normalize_rewards: bool = False,
        clip_grad_norm: float | None = None,
        lr_schedule: LinearSchedule | None = None,
    ) -> None:
        if not 0.0 <= lam <= 1.0:
            raise UserError(f"agent.lam: must be in [0, 1], got {lam}")
        if not max_kl > 0:
            raise UserError(f"agent.max_kl: must be above 0, got {max_kl}")
        if not damping >= 0:
            raise UserError(f"agent.damping: must be 0 or more, got {damping}")
        if not 0.0 < shrink < 1.0:
            raise UserError(f"agent.shrink: must be between 0 and 1, got {shrink}")
        counts = {"cg_steps": cg_steps, "backtracks": backtracks, "value_epochs": value_epochs}
        for key, count in {**counts, "batch_size": batch_size}.items():
            if count < 1:
                raise UserError(f"agent.{key}: must be at least 1, got {count}")
        super().__init__(network, distribution, optimizer, gamma, lr_schedule, clip_grad_norm, normalize_rewards)
        if self.memory_size:  # torch's recurrent layers have no second derivatives
            raise UserError("network.memory: must be null with this agent; agent=ppo learns with a memory")
        self.lam, self.max_kl, self.cg_steps, self.damping = lam, max_kl, cg_steps, damping
        self.backtracks, self.shrink = backtracks, shrink
        self.value_epochs, self.batch_size = value_epochs, batch_size
        self.normalize_advantages = normalize_advantages

    def learn(self, rollout: Rollout, step: int) -> Iterator[Mapping[str, Tensor]]:
        """Do one step of the policy and all epochs of the values; yield the metrics of each."""
        self.anneal(step)
        rows = self.rows(rollout)
        with torch.no_grad(), self.in_acting:
            value = self.network.value(rows.obs)
        advantage, target = self.advantages(rollout, value, self.lam)
        if self.normalize_advantages:
            advantage = standardized(advantage)
        metrics, of_policy = self._step_policy(rows, advantage)
        yield metrics
        own = set(map(id, of_policy))
        of_value = [parameter for parameter in self._parameters if id(parameter) not in own]
        for index in minibatches(len(target), self.batch_size, self.value_epochs, self.device):
            predicted = self.network.value(rows.obs[index])
            yield self._step_value((predicted - target[index]).square().mean(), predicted, of_value)
        self.update_normalizer(rows)

    def _step_policy(self, rows: Rows, advantage: Tensor) -> tuple[dict[str, Tensor], list[nn.Parameter]]:
        """Do a step of the policy; return its metrics, and the parameters that the policy uses."""
        loss, parameters = self._policy_loss(rows, None, advantage)
        old = parameters.detach()
        self.show(loss)
        grads = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
        used = [p for p, grad in zip(self._parameters, grads, strict=True) if grad is not None]
        gradient = _flat([grad for grad in grads if grad is not None])
        slope = _flat(torch.autograd.grad(self.distribution.kl(old, parameters).mean(), used, create_graph=True))

        def fisher(vector: Tensor) -> Tensor:
            """Return the product with the KL divergence's second derivative, which is the Fisher matrix."""
            return _flat(torch.autograd.grad(slope @ vector, used, retain_graph=True)) + self.damping * vector

        direction = conjugate_gradient(fisher, -gradient, self.cg_steps)
        curvature = direction @ fisher(direction)
        share, kl = torch.zeros_like(loss), torch.zeros_like(loss)
        if float(curvature) > 0:  # 0: nothing to learn, as from a rollout whose rewards are all 0
            longest = (2 * self.max_kl / curvature).sqrt() * direction
            share, kl = self._line_search(rows, old, advantage, loss.item(), used, longest)
        metrics = {"policy_loss": loss.detach(), "entropy": self.distribution.entropy(old).mean(), "kl": kl}
        return {**metrics, "step_share": share, "grad_norm": gradient.norm()}, used

    @torch.no_grad()
    def _line_search(
        self, rows: Rows, old: Tensor, advantage: Tensor, before: float, used: list[nn.Parameter], longest: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take the longest step that makes the loss smaller within `max_kl`.

        Args:
            rows: of the rollout.
            old: (B, P) the parameters of the distributions that acted.
            advantage: (B,).
            before: the loss of the policy that acted.
            used: parameters of the policy.
            longest: the first step that is tried, of all of them.

        Returns:
            The share of `longest` that was taken, 0 if no step was, and the KL divergence.
        """
        start = _flat(used).clone()
        share = torch.ones_like(longest[0])
        for _ in range(self.backtracks):
            _set(used, start + share * longest)
            loss, parameters = self._policy_loss(rows, old, advantage)
            kl = self.distribution.kl(old, parameters).mean()
            if float(loss) < before and float(kl) <= self.max_kl:
                return share, kl
            share = share * self.shrink
        _set(used, start)
        return torch.zeros_like(share), torch.zeros_like(share)

    def _policy_loss(self, rows: Rows, old: Tensor | None, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the mean of ratio times advantage (equation 14), and the distribution's parameters (B, P).

        Args:
            rows: of the rollout.
            old: (B, P) the parameters of the distributions that acted; None: those of the network now.
            advantage: (B,).
        """
        with self.in_acting:
            parameters = self.distribution.masked(self.network.policy(rows.obs), rows.action_mask)
        log_prob = self.distribution.log_prob(parameters, rows.action)
        acted = log_prob.detach() if old is None else self.distribution.log_prob(old, rows.action)
        return -((log_prob - acted).exp() * advantage).mean(), parameters

    def _step_value(self, loss: Tensor, predicted: Tensor, of_value: list[nn.Parameter]) -> dict[str, Tensor]:
        """Do a gradient step of the values' own parameters; return its metrics."""
        for parameter in self._parameters:
            parameter.grad = None
        for parameter, grad in zip(of_value, torch.autograd.grad(loss, of_value, allow_unused=True), strict=True):
            parameter.grad = grad
        clip_norm(of_value, self.clip_grad_norm)
        self.optimizer.step()
        return {"loss": loss.detach(), "value_loss": loss.detach(), "value_mean": predicted.detach().mean()}


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """Return x (n,) with A x = b, for a positive definite A (Nocedal & Wright 2006, algorithm 5.2).

    Args:
        product: A times a vector (n,).
        b: (n,).
        steps: at most so many.
        tolerance: ends once the squared residual is smaller.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, squared = residual, residual @ residual
    for _ in range(steps):
        if float(squared) < tolerance:
            break
        of_direction = product(direction)
        length = squared / (direction @ of_direction)
        x = x + length * direction
        residual = residual - length * of_direction
        before, squared = squared, residual @ residual
        direction = residual + squared / before * direction
    return x


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _set(parameters: list[nn.Parameter], flat: Tensor) -> None:
    """Set parameters to the numbers of a vector, one after the other."""
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
