"""Value representations: the meaning of the M numbers per action, and the loss.

A representation has three operations: `mean` maps the numbers to action values, `expectation` averages the numbers over
a policy's actions (for a deterministic policy, the numbers of its action), and `loss` compares the numbers with their
backup, reward + discount * next. `loss` returns one loss per sample, and the sample's new priority.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, log_softmax, mse_loss

from rl_runner.types import HasReturns, UserError, ValueRepresentation

LOSSES = ("mse", "huber")


class Scalar:
    """One number: the expected return.

    Args:
        loss: "mse", (target - Q)^2, or "huber" with threshold 1, whose gradient is the TD error clipped to [-1, 1]
            (Mnih et al. 2015).

    Raises:
        UserError: a value out of range.
    """

    outputs_per_action = 1
    quantile_levels = 0

    def __init__(self, loss: str = "huber") -> None:
        if loss not in LOSSES:
            raise UserError(f"value.loss: must be one of {', '.join(LOSSES)}, got {loss!r}")
        self._loss = mse_loss if loss == "mse" else huber_loss

    def mean(self, values: Tensor) -> Tensor:
        """(..., 1) -> (...)."""
        return values.squeeze(-1)

    def expectation(self, values: Tensor, policy: Tensor) -> Tensor:
        """(B, A, 1), probabilities (B, A) -> (B, 1)."""
        return _expected(values, policy)

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        """Compare values with their one-window backup.

        Args:
            values: (B, 1) of the actions taken.
            next_values: (B, 1) of the next actions.
            reward: (B,) discounted sum of the window.
            discount: (B,) of the next values; 0 after a terminal step.

        Returns:
            loss (B,), priority (B,) = |reward + discount * next value - value|.
        """
        q = self.mean(values)
        target = reward + discount * self.mean(next_values)
        return self._loss(q, target, reduction="none"), (target - q).detach().abs()


class Categorical:
    """Probabilities of fixed returns, as logits: C51 (Bellemare et al. 2017).

    Args:
        low: the smallest return that can be represented; smaller returns count as `low`.
        high: the largest return that can be represented; larger returns count as `high`.
        atoms: M, number of returns, evenly spaced.

    Raises:
        UserError: a value out of range.
    """

    quantile_levels = 0

    def __init__(self, low: float | None = -10.0, high: float | None = 10.0, atoms: int = 51) -> None:
        if low is None or high is None:  # env=gym cannot know them; returns outside would be clipped silently
            raise UserError(
                "value.low, value.high: the bounds of discounted returns are not known for this environment; "
                "choose them, for example value.low=-100 value.high=100"
            )
        for key, bound in [("low", low), ("high", high)]:
            if not math.isfinite(bound):
                raise UserError(f"value.{key}: must be a finite number, got {bound}")
        if not low < high:
            raise UserError(f"value.high: must be above value.low, {low}, got {high}")
        if atoms < 2:
            raise UserError(f"value.atoms: must be at least 2, got {atoms}")
        self.outputs_per_action = atoms
        self.low, self.high, self.spacing = low, high, (high - low) / (atoms - 1)
        self._returns = torch.linspace(low, high, atoms)  # (M,)

    def returns(self, device: torch.device) -> Tensor:
        """Return the returns (M,) whose probabilities the numbers are."""
        if self._returns.device != device:
            self._returns = self._returns.to(device)
        return self._returns

    def mean(self, values: Tensor) -> Tensor:
        """(..., M) logits -> (...)."""
        return values.softmax(dim=-1) @ self.returns(values.device)

    def distribution(self, values: Tensor) -> dict[str, Tensor]:
        """Return the probabilities (..., M) of the returns."""
        return {"probabilities": values.softmax(dim=-1)}

    def expectation(self, values: Tensor, policy: Tensor) -> Tensor:
        """(B, A, M) logits, probabilities (B, A) -> (B, M) logits of the mixture."""
        return _expected(values.softmax(dim=-1), policy).log()

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy (B,) to the projected backup, and as priority (B,) the Kullback-Leibler divergence.

        Arguments as for `Scalar.loss`, with (B, M) logits. The priority is that of Hessel et al. 2018: the divergence
        is the cross-entropy minus the entropy of the target, and so 0 if nothing is left to learn.
        """
        target = self.project(next_values.softmax(dim=-1), reward, discount)  # (B, M)
        cross_entropy = -(target * log_softmax(values, dim=-1)).sum(dim=-1)
        entropy = -torch.special.xlogy(target, target).sum(dim=-1)
        return cross_entropy, (cross_entropy.detach() - entropy).clamp(min=0)

    def project(self, probability: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """Project probabilities (B, M) of reward + discount * return onto the fixed returns (equation 7 of the paper).

        The probability of a return between two fixed ones is divided in proportion to nearness. A return beyond the
        ends counts as the end.
        """
        moved = reward[:, None] + discount[:, None] * self.returns(reward.device)  # (B, M)
        position = (moved.clamp_(self.low, self.high) - self.low) / self.spacing  # in atoms, 0 to M - 1
        # A GPU's scattered sums have no fixed order, and so other last bits each time.
        share = scattered if position.device.type == "cpu" else weighted
        shared = share(position, probability)
        return shared / shared.sum(dim=1, keepdim=True)  # the sum is 1 up to rounding


def scattered(position: Tensor, probability: Tensor) -> Tensor:
    """Divide probabilities (B, M) at positions (B, M), 0 to M - 1, between the two atoms beside each: (B, M)."""
    below = position.floor()
    above_share = (position - below) * probability
    atom, last = below.long(), probability.shape[1] - 1
    shared = torch.zeros_like(probability).scatter_add_(1, atom, probability - above_share)
    # Beyond the last atom there is nothing to share.
    return shared.scatter_add_(1, (atom + 1).clamp_(max=last), above_share)


def weighted(position: Tensor, probability: Tensor) -> Tensor:
    """Return the same as `scattered`, from the nearness of each position to each atom, (B, M, M) numbers."""
    atoms = torch.arange(probability.shape[1], device=position.device, dtype=position.dtype)
    nearness = (1.0 - (position[:, :, None] - atoms).abs_()).clamp_(min=0.0)
    return torch.einsum("bm,bma->ba", probability, nearness)


class Quantile:
    """Quantiles of the return at M fixed levels, the middles of M equal parts: QR-DQN (Dabney et al. 2018a).

    Args:
        quantiles: M.
        kappa: threshold of the Huber loss.

    Raises:
        UserError: a value out of range.
    """

    quantile_levels = 0

    def __init__(self, quantiles: int = 51, kappa: float = 1.0) -> None:
        _check_quantiles(quantiles, "quantiles", kappa)
        self.outputs_per_action, self.kappa = quantiles, kappa

    def mean(self, values: Tensor) -> Tensor:
        """(..., M) -> (...)."""
        return values.mean(dim=-1)

    def distribution(self, values: Tensor) -> dict[str, Tensor]:
        """Return the quantiles (..., M)."""
        return {"quantiles": values}

    def expectation(self, values: Tensor, policy: Tensor) -> Tensor:
        """(B, A, M), probabilities (B, A) -> (B, M): quantiles averaged, as in Vieillard et al. 2020."""
        return _expected(values, policy)

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantile Huber loss (B,), and as priority (B,) the error of the mean.

        Arguments as for `Scalar.loss`, with (B, M) quantiles.
        """
        count = self.outputs_per_action
        level = (torch.arange(count, device=values.device) + 0.5) / count  # (M,)
        target = reward[:, None] + discount[:, None] * next_values  # (B, M)
        priority = (target.mean(dim=-1) - values.mean(dim=-1)).detach().abs()
        return quantile_huber(values, level, target, self.kappa), priority


class ImplicitQuantile:
    """Quantiles of the return at levels drawn in each pass: IQN (Dabney et al. 2018b).

    The M = 2 K numbers per action are K quantiles, then the K levels that the network drew for them.

    Args:
        samples: K, levels per pass.
        kappa: threshold of the Huber loss.

    Raises:
        UserError: a value out of range.
    """

    outputs_per_action = 1  # the head is called once per level

    def __init__(self, samples: int = 8, kappa: float = 1.0) -> None:
        _check_quantiles(samples, "samples", kappa)
        self.quantile_levels, self.kappa = samples, kappa

    def mean(self, values: Tensor) -> Tensor:
        """(..., 2 K) -> (...)."""
        return values[..., : values.shape[-1] // 2].mean(dim=-1)

    def distribution(self, values: Tensor) -> dict[str, Tensor]:
        """Return the quantiles (..., K)."""
        return {"quantiles": values[..., : values.shape[-1] // 2]}

    def expectation(self, values: Tensor, policy: Tensor) -> Tensor:
        """(B, A, 2 K), probabilities (B, A) -> (B, 2 K); all actions have the same levels."""
        return _expected(values, policy)

    def loss(self, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantile Huber loss (B,), and as priority (B,) the error of the mean.

        Arguments as for `Scalar.loss`, with (B, 2 K) numbers.
        """
        quantiles, level = values.chunk(2, dim=-1)  # (B, K) each
        target = reward[:, None] + discount[:, None] * next_values.chunk(2, dim=-1)[0]  # (B, K)
        priority = (target.mean(dim=-1) - quantiles.mean(dim=-1)).detach().abs()
        return quantile_huber(quantiles, level.detach(), target, self.kappa), priority


def outputs(value: ValueRepresentation, values: Tensor) -> dict[str, Tensor]:
    """Return action values (N, A), greedy actions (N,) and, where it is learned, the distribution of returns.

    Args:
        value: what the M numbers mean.
        values: (N, A, M).
    """
    q = value.mean(values)
    returns = value.distribution(values) if isinstance(value, HasReturns) else {}
    return {"q": q, **returns, "action": q.argmax(dim=1)}


def of_actions(values: Tensor, action: Tensor) -> Tensor:
    """Return the numbers of the actions taken: (B, A, ...), (B,) -> (B, ...)."""
    index = action.reshape(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index).squeeze(1)  # a GPU takes less time for its gradient than for that of an index


def masked(q: Tensor, action_mask: Tensor | None) -> Tensor:
    """Return action values (B, A), -inf where the mask (B, A) does not allow the action."""
    return q if action_mask is None else q.masked_fill(~action_mask, -torch.inf)


def quantile_huber(quantiles: Tensor, level: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Return the quantile Huber loss (B,), a sum over quantiles of means over targets (Dabney et al. 2018b, eq. 3).

    Args:
        quantiles: (B, K).
        level: (K,) or (B, K), in (0, 1): the probability of a target below each quantile.
        target: (B, L) samples.
        kappa: threshold between the quadratic and the linear part; 0: linear everywhere.
    """
    with torch.no_grad():  # value and slope in closed form: autograd keeps no tensor of size B K L
        error = target[:, None, :] - quantiles[:, :, None]  # (B, K, L)
        # An error costs 1 - level if the quantile is too high and level if it is too low.
        level = level[..., None]
        tilt = torch.where(error < 0, 1 - level, level)
        direction = (error / kappa).clamp_(-1, 1) if kappa else error.sign()  # the derivative of the Huber loss
        tilt *= direction
        slope = -tilt.mean(dim=2)  # (B, K)
        value = (tilt * (error - direction * (kappa / 2))).mean(dim=2)  # (B, K)
    return (value + slope * (quantiles - quantiles.detach())).sum(dim=1)


def _expected(values: Tensor, policy: Tensor) -> Tensor:
    """Average over the actions: (B, A, M), (B, A) -> (B, M)."""
    return (policy[:, None, :] @ values).squeeze(1)


def _check_quantiles(count: int, key: str, kappa: float) -> None:
    if count < 1:
        raise UserError(f"value.{key}: must be at least 1, got {count}")
    if kappa < 0:
        raise UserError(f"value.kappa: must be 0 or more, got {kappa}")
