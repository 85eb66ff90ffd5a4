"""The Q-network: a torso and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from rl_runner.networks.inputs import Normalizer
from rl_runner.networks.layers import (
    FullyConnected,
    QuantileLevels,
    fc_of,
    features_of,
    in_precision,
    linear_layers,
    xavier,
)
from rl_runner.types import UserError

INITS = ("default", "xavier")


class QNetwork(nn.Module):
    """Action values of observations.

    Args:
        observation_space: of one observation.
        actions: A.
        outputs_per_action: numbers per action that the head returns.
        quantile_levels: K, quantile levels drawn in each pass (IQN); the head is evaluated at each. 0: none.
        torso: makes the torso from the observation space.
        head: makes the head from (in_features, fc, actions, outputs_per_action).
        hidden: sizes of the head's hidden layers; None: those that the torso declares.
        init: "default" (torch's) or "xavier" (uniform weights, zero biases) for linear and convolutional layers.
        last_layer_std: standard deviation of the output layers' weights, with biases 0; None: as `init` says. 1e-3
            starts all values near zero.
        precision: "fp32", or "bf16": the torso computes in bfloat16. Weights, gradients and optimizer stay in float32,
            and so does the head, because differences between action values are smaller than bfloat16's resolution.
        normalize: normalise observations by their running mean and standard deviation before the torso sees them.

    Attributes:
        normalizer: running statistics of observations, to be updated with each new one; None: not normalised.

    Raises:
        UserError: the parts do not fit each other or the observations.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        actions: int,
        outputs_per_action: int,
        quantile_levels: int,
        torso: Callable[[gym.Space[Any]], nn.Module],
        head: Callable[..., nn.Module],
        hidden: Sequence[int] | None = None,
        init: str = "default",
        last_layer_std: float | None = None,
        precision: str = "fp32",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.normalizer = Normalizer(observation_space) if normalize else None
        if self.normalizer:
            observation_space = self.normalizer.space
        if last_layer_std is not None and not last_layer_std > 0:
            raise UserError(f"network.last_layer_std: must be above 0, or null, got {last_layer_std}")
        if init not in INITS:
            raise UserError(f"network.init: must be one of {', '.join(INITS)}, got {init!r}")
        self.torso = torso(observation_space)
        fc = fc_of(self.torso)
        if hidden is not None:
            fc = FullyConnected(tuple(hidden), fc.activation, fc.layer_norm)
        features = features_of(self.torso, observation_space)
        self.embedding = QuantileLevels(features, quantile_levels) if quantile_levels else None
        self.head = head(features, fc, actions, outputs_per_action)
        if init == "xavier":
            self.apply(xavier)
        if last_layer_std is not None:
            _small_outputs(self.head, last_layer_std)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, A, M); with quantile levels M = 2 K: K quantiles, then their levels."""
        if self.normalizer is not None:
            obs = self.normalizer(obs)
        features = in_precision(self.torso, obs, self.precision)
        if self.embedding is None:
            return cast(Tensor, self.head(features))
        features, level = self.embedding(features)
        quantiles: Tensor = self.head(features).unflatten(0, level.shape).squeeze(-1).transpose(1, 2)  # (B, A, K)
        return torch.cat([quantiles, level[:, None, :].expand_as(quantiles)], dim=-1)


@torch.no_grad()
def _small_outputs(head: nn.Module, std: float) -> None:
    """Reinitialise the output layer of each stream, which is its last linear layer."""
    for stream in head.children():
        last: Any = list(linear_layers(stream))[-1]
        last.weight.normal_(0.0, std)
        if last.bias is not None:
            last.bias.zero_()
