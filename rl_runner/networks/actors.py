"""Actors: policies over continuous actions, scaled to [-1, 1] in each dimension, or over discrete ones."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn.functional import softplus

from rl_runner.networks.layers import FullyConnected, xavier
from rl_runner.types import Array, Evaluate, FloatArray, UserError

UNBOUNDED = 1e30  # some environments write the largest float where there is no bound
LOG_STD = (-20.0, 2.0)  # range of the logarithm of a Gaussian's standard deviation


class ActionRange:
    """The bounds of an action space, and the scale in which networks see its actions: [-1, 1] in each dimension.

    Args:
        space: a Box of floats with finite bounds in each dimension.

    Raises:
        UserError: the space is another one.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        if not isinstance(space, Box):
            raise UserError(
                f"env: the actions are {space}; this agent needs continuous ones (Box); agent=dqn and "
                "agent=sac_discrete take discrete ones"
            )
        if not np.issubdtype(space.dtype, np.floating):
            raise UserError(f"env: the actions are {space}, of type {space.dtype}; this agent needs floats")
        if not (np.abs([space.low, space.high]) < UNBOUNDED).all():
            raise UserError(
                f"env: the actions {space} have no bounds; this agent's are squashed into bounds. agent=ppo needs "
                "none; a wrapper of your own can set them: env.wrappers=[{_target_: my_pkg.MyWrapper}]"
            )
        if not (space.low < space.high).all():
            raise UserError(f"env: the actions {space} have a dimension with one value only")
        self.space, self.size = space, math.prod(space.shape)
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        self._middle, self._half = (low + high) / 2, (high - low) / 2  # (D,)
        self._tensors: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def to_environment(self, scaled: Array) -> Array:
        """(N, D) in [-1, 1] -> actions (N, *D) in the environment's units, within its bounds."""
        action = (self._middle + self._half * scaled).astype(self.space.dtype).reshape(-1, *self.space.shape)
        clipped: Array = np.clip(action, self.space.low, self.space.high)  # rounding may have left the bounds
        return clipped

    def in_environment(self, scaled: Tensor) -> Tensor:
        """Return the same as `to_environment`, of tensors."""
        arrays = (self._middle, self._half, self.space.low, self.space.high)
        middle, half, low, high = (torch.from_numpy(a).to(scaled.device) for a in arrays)
        action = (middle + half * scaled).to(low.dtype).reshape(-1, *self.space.shape)
        return action.maximum(low).minimum(high)

    def scaled(self, action: Tensor) -> Tensor:
        """Actions (B, *D) in the environment's units -> (B, D) floats in [-1, 1]."""
        if action.device not in self._tensors:
            arrays = (self._middle / self._half, 1 / self._half)
            offset, factor = (torch.from_numpy(a).float().to(action.device) for a in arrays)
            self._tensors[action.device] = offset, factor
        offset, factor = self._tensors[action.device]
        return action.reshape(len(action), -1).float() * factor - offset

    def uniform(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw actions (count, D), uniform in [-1, 1]."""
        return rng.uniform(-1.0, 1.0, (count, self.size)).astype(np.float32)

    def evaluated(self, scaled: Array, mode: Evaluate) -> Array:
        """Return actions (N, *D) of an evaluation: those of the policy, or uniform ones with the mode's epsilon."""
        if mode.epsilon > 0:
            random = mode.rng.random((len(scaled), 1)) < mode.epsilon
            scaled = np.where(random, self.uniform(len(scaled), mode.rng), scaled)
        return self.to_environment(scaled)


class _Actor(nn.Module):
    """Fully connected layers on features.

    Args:
        features: F, of one observation.
        outputs: of the last layer.
        fc: hidden layers.
        init: "default" (torch's) or "xavier" (uniform weights, zero biases).
        last_layer: the output layer's weights and biases start uniform in [-x, x]; None: as `init` says.
    """

    def __init__(
        self, features: int, outputs: int, fc: FullyConnected, init: str = "default", last_layer: float | None = None
    ) -> None:
        super().__init__()
        self.hidden, width = fc.build(features)
        self.out = nn.Linear(width, outputs)
        if init == "xavier":
            self.apply(xavier)
        if last_layer is not None:
            for parameter in self.out.parameters():
                nn.init.uniform_(parameter, -last_layer, last_layer)


class Deterministic(_Actor):
    """One action for each observation, tanh of the last layer.

    Arguments as for `_Actor`; `outputs` is D, the numbers of one action.
    """

    name = "tanh"

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> actions (B, D) in [-1, 1]."""
        action: Tensor = self.out(self.hidden(features)).tanh()
        return action


class SquashedGaussian(_Actor):
    """A Gaussian with mean and deviation from the last layer, squashed by tanh (Haarnoja et al. 2018).

    Arguments as for `_Actor`, with `actions`, the D numbers of one action, instead of `outputs`.
    """

    name = "squashed Gaussian"

    def __init__(
        self, features: int, actions: int, fc: FullyConnected, init: str = "default", last_layer: float | None = None
    ) -> None:
        super().__init__(features, 2 * actions, fc, init, last_layer)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> mean and log standard deviation (B, D) before tanh."""
        mean, log_std = self.out(self.hidden(features)).chunk(2, dim=1)
        return mean, log_std.clamp(*LOG_STD)


class Logits(_Actor):
    """Logits of a policy over A discrete actions.

    Arguments as for `_Actor`; `outputs` is A.
    """

    name = "logits"

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, A)."""
        logits: Tensor = self.out(self.hidden(features))
        return logits


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions of a squashed Gaussian and their log-probabilities.

    The density is that of the scaled action a = tanh(u), u = mean + std * noise. From log N(u) the logarithm of
    da/du = 1 - tanh(u)^2 is subtracted, which is 2 (log 2 - u - softplus(-2 u)) without rounding to log 0.

    Args:
        mean: (B, D).
        log_std: (B, D).
        noise: (B, D) standard normal.

    Returns:
        actions (B, D) in [-1, 1], and log-probabilities (B,), summed over the dimensions.
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    # log N(u) = -noise^2 / 2 - log_std - log(2 pi) / 2; constants are added at the end
    log_p = (u + softplus(-2 * u)) * 2 - log_std - noise.square() / 2
    constant = mean.shape[1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))
    return u.tanh(), log_p.sum(dim=1) - constant


def to_numpy(action: Tensor) -> FloatArray:
    """Return a network's actions as an array on the host."""
    array: FloatArray = action.detach().float().cpu().numpy()
    return array
