"""Critics: an ensemble of action values, evaluated in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rl_runner.networks.layers import ACTIVATIONS, FullyConnected
from rl_runner.networks.renorm import ALL, BatchRenorm, has_batch_norm, of_members
from rl_runner.types import UserError, ValueRepresentation


class EnsembleLinear(nn.Module):
    """K linear layers as one batched product: (K, B, in_features) -> (K, B, out_features).

    Args:
        members: K.
        in_features: number of inputs.
        out_features: number of outputs.
    """

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: slice) -> Tensor:
        """(K', B, in_features) -> (K', B, out_features) of some of the members."""
        weight, bias = of_members(self.weight, members), of_members(self.bias, members)
        if weight.shape[2] == 1:  # several times faster than a batched product with one column
            return (x * weight.transpose(1, 2)).sum(dim=2, keepdim=True) + bias
        return torch.baddbmm(bias, x, weight)


class EnsembleNorm(nn.Module):
    """LayerNorm with weights of its own for each of K members: (K, B, F) -> (K, B, F)."""

    def __init__(self, members: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, features))
        self.bias = nn.Parameter(torch.zeros(members, 1, features))

    def forward(self, x: Tensor, members: slice) -> Tensor:
        """(K', B, F) -> (K', B, F)."""
        scaled = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(of_members(self.bias, members), scaled, of_members(self.weight, members))


class Critic(nn.Module):
    """K critics, each with fully connected layers of its own, on observation features that they share.

    Args:
        features: F, of one observation.
        actions: D, numbers of one action; 0: the action is no input.
        fc: hidden layers of each critic.
        outputs: numbers that each critic returns: M, or A M of discrete actions.
        members: K.
        init: "default" (torch's) or "xavier" (uniform weights, zero biases).
        last_layer: the output layers' weights and biases start uniform in [-x, x]; None: as `init` says.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        fc: FullyConnected,
        outputs: int,
        members: int,
        init: str = "default",
        last_layer: float | None = None,
    ) -> None:
        super().__init__()
        self.members, self.sizes = members, fc.sizes
        sizes = [features + actions, *fc.sizes, outputs]
        layers = [EnsembleLinear(members, a, b) for a, b in pairwise(sizes)]
        self.norms = nn.ModuleList(EnsembleNorm(members, size) for size in fc.sizes if fc.layer_norm)
        self.renorms = nn.ModuleList(BatchRenorm(size, members) for size in sizes[:-1] if fc.batch_norm)
        self.activation = ACTIVATIONS[fc.activation]()
        if init == "xavier":
            for layer in layers:
                bound = math.sqrt(6 / sum(layer.weight.shape[1:]))
                nn.init.uniform_(layer.weight, -bound, bound)
                nn.init.zeros_(layer.bias)
        if last_layer is not None:
            for parameter in layers[-1].parameters():
                nn.init.uniform_(parameter, -last_layer, last_layer)
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Tensor, action: Tensor, members: slice = ALL) -> Tensor:
        """Return the values of actions.

        Args:
            features: (B, F).
            action: (B, D), scaled to [-1, 1].
            members: which of the critics; all by default.

        Returns:
            (K, B, M).
        """
        x = torch.cat([features, action], dim=1)
        x = x.expand(len(range(self.members)[members]), *x.shape)
        for i, layer in enumerate(self.layers):
            if self.renorms:
                x = self.renorms[i](x, members)
            x = layer(x, members)
            if i < len(self.sizes):  # a hidden layer
                if self.norms:
                    x = self.norms[i](x, members)
                x = self.activation(x)
        return x


def min_over_critics(value: ValueRepresentation, values: Tensor) -> Tensor:
    """Return for each sample the numbers of the critic with the smallest value: (K, B, M) -> (B, M)."""
    if len(values) == 1:
        return values[0]
    if values.shape[2] == 1:
        return values.amin(dim=0)
    lowest = value.mean(values).argmin(dim=0)  # (B,)
    return values.gather(0, lowest[None, :, None].expand(1, -1, values.shape[2])).squeeze(0)


def truncated_mixture(values: Tensor, dropped: int) -> Tensor:
    """Return the quantiles of all critics together without the highest ones (Kuznetsov et al. 2020, section 4).

    Args:
        values: (K, B, M) quantiles.
        dropped: how many per critic.

    Returns:
        (B, K (M - dropped)), in ascending order.
    """
    members, _, quantiles = values.shape
    together = values.transpose(0, 1).flatten(1).sort(dim=1).values
    return together[:, : members * (quantiles - dropped)]


def require_own_target(critic: nn.Module, target: nn.Module) -> None:
    """Raise UserError if critics with batch normalisation have a target network, which would see other statistics."""
    if has_batch_norm(critic) and target is not critic:
        raise UserError("network.batch_norm: needs sync=none, critics without a target network")


def values_and_next(
    critic: nn.Module, target: nn.Module, inputs: Sequence[Tensor], next_inputs: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the critics' values of a batch, and the target critics' of its successors, without gradient.

    Critics with batch normalisation evaluate both in one pass, so that each is normalised by the statistics of both
    (Bhatt et al. 2024, section 3.2).

    Args:
        critic: the critics.
        target: the target critics, `critic` itself if there are none.
        inputs: of the critics, (B, ...) each.
        next_inputs: of the successors.

    Returns:
        (K, B, ...) each.
    """
    if has_batch_norm(critic):
        values, next_values = critic(*map(torch.cat, zip(inputs, next_inputs, strict=True))).chunk(2, dim=1)
        return values, next_values.detach()
    with torch.no_grad():
        next_values = target(*next_inputs)
    return critic(*inputs), next_values


def ensemble_loss(
    value: ValueRepresentation, values: Tensor, next_values: Tensor, reward: Tensor, discount: Tensor
) -> tuple[Tensor, Tensor]:
    """Compare the values of K critics with one backup.

    Args:
        value: what the M numbers mean.
        values: (K, B, M) of the actions taken.
        next_values: (B, M) of the next actions; of quantiles any number of them.
        reward: (B,).
        discount: (B,).

    Returns:
        losses (B,), summed over the critics, and priorities (B,), the mean over them.
    """
    k = len(values)
    if k == 1:
        return value.loss(values[0], next_values, reward, discount)
    backup = [x.expand(k, *x.shape).flatten(0, 1) for x in (next_values, reward, discount)]
    losses, priority = value.loss(values.flatten(0, 1), *backup)  # (K B,), (K B,)
    return losses.view(k, -1).sum(dim=0), priority.view(k, -1).mean(dim=0)
