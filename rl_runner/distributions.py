"""Distributions over actions, of parameters (B, P) that a network returns.

Random numbers for acting come from the run's own numpy stream, so that the same run acts alike on every device.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rl_runner.types import Array, BoolArray, Distribution, DoubleArray, UserError

FAR = 1e6  # bounds beyond it count as none
LOWEST = -1e30  # logit of a masked action, of probability 0; unlike -inf it makes no NaN in products and gradients


def of_actions(space: gym.Space[Any], name: str, scaled: bool = True) -> Distribution:
    """Return the distribution for an action space: categorical for discrete actions, else Gaussian.

    Args:
        space: of one environment's actions.
        name: of the environment, for messages.
        scaled: a Gaussian's parameters are in units in which the bounds of each dimension are -1 and 1, where both are
            within 1e6; otherwise they are in the environment's units.

    Raises:
        UserError: there is none.
    """
    if isinstance(space, gym.spaces.Discrete):
        return Categorical([int(space.n)])
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return Categorical([int(n) for n in space.nvec], joint=True)
    if isinstance(space, gym.spaces.MultiBinary) and len(space.shape) == 1:
        return Categorical([2] * int(space.shape[0]), joint=True)
    if isinstance(space, gym.spaces.Box) and space.dtype.kind == "f":
        return Gaussian(space.shape, *(_middle_and_half(space) if scaled else ()))
    raise UserError(
        f"env: {name} has actions {space}; this agent needs discrete ones (Discrete), a vector of them (MultiDiscrete, "
        f"MultiBinary) or floats (Box)"
    )


def _middle_and_half(space: gym.spaces.Box) -> tuple[DoubleArray, DoubleArray]:
    """Return the middles of the bounds and half of their distances, (D,) each; 0 and 1 without two near bounds."""
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    bounded = (np.abs([low, high]) < FAR).all(axis=0) & ((high - low).astype(np.float32) > 0)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    return (low + high) / 2, (high - low) / 2


class Categorical:
    """Independent choices, each among actions numbered from 0; P logits are theirs, one after the other.

    Args:
        sizes: the number of actions of each choice.
        joint: actions are vectors (B, D) of choices; otherwise one choice is one number (B,).
    """

    def __init__(self, sizes: list[int], joint: bool = False) -> None:
        self.sizes, self.joint = sizes, joint
        self.size = sum(sizes)
        self.state_independent = 0

    def noise(self, n: int, rng: np.random.Generator) -> Array:
        """Return what `sample` needs for n actions, (n, P)."""
        return rng.gumbel(size=(n, self.size)).astype(np.float32)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Draw actions: the largest logit plus Gumbel noise is a draw from the softmax."""
        return self.mode(parameters + noise)

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the most probable actions, (B,) or (B, D)."""
        if not self.joint:
            return parameters.argmax(dim=1)
        return torch.stack([logits.argmax(dim=1) for logits in parameters.split(self.sizes, dim=1)], dim=1)

    def named(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the parameters by name."""
        return {"logits": parameters}

    def masked(self, parameters: Tensor, allowed: Tensor | None) -> Tensor:
        """Return the parameters with probability 0 where `allowed` (B, P) is False."""
        return parameters if allowed is None else parameters.masked_fill(~allowed, LOWEST)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-probabilities (B,) of actions."""
        if not self.joint:
            return parameters.log_softmax(dim=1).gather(1, action[:, None]).squeeze(1)
        choices = zip(parameters.split(self.sizes, dim=1), action.long().unbind(dim=1), strict=True)
        each = [logits.log_softmax(dim=1).gather(1, a[:, None]) for logits, a in choices]
        return torch.cat(each, dim=1).sum(dim=1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the entropies (B,) in nats."""
        if not self.joint:
            return _entropy(parameters)
        return torch.stack([_entropy(logits) for logits in parameters.split(self.sizes, dim=1)]).sum(dim=0)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the KL divergences (B,) of new distributions from old ones, E_old[log old - log new], in nats."""
        pairs = zip(old.split(self.sizes, dim=1), new.split(self.sizes, dim=1), strict=True)
        each = [(a.log_softmax(dim=1), b.log_softmax(dim=1)) for a, b in pairs]
        return torch.stack([(a.exp() * (a - b)).sum(dim=1) for a, b in each]).sum(dim=0)


class Gaussian:
    """Independent normal distributions; the P = 2 D parameters are means, then logarithms of standard deviations.

    Both are in units in which `middle` - `half` is -1 and `middle` + `half` is 1; actions, densities and entropies are
    in the environment's. Actions are not squashed. The environment clips those outside its bounds.

    Args:
        shape: of an action, with D numbers.
        middle: (D,) the action that a mean of 0 is; None: 0.
        half: (D,) what a mean of 1 adds to it; None: 1.

    Attributes:
        plain: the parameters are in the environment's units.
    """

    def __init__(
        self, shape: tuple[int, ...], middle: DoubleArray | None = None, half: DoubleArray | None = None
    ) -> None:
        self.shape, self.dimensions = shape, math.prod(shape)
        self.size = 2 * self.dimensions
        self.state_independent = self.dimensions  # log standard deviations may be the network's own parameters
        middle = np.zeros(self.dimensions) if middle is None else middle
        half = np.ones(self.dimensions) if half is None else half
        self.plain = bool((middle == 0).all() and (half == 1).all())
        self._middle, self._half = torch.from_numpy(middle).float(), torch.from_numpy(half).float()
        self._log_half = float(np.log(half).sum())

    def noise(self, n: int, rng: np.random.Generator) -> Array:
        """Return what `sample` needs for n actions, (n, D)."""
        return rng.standard_normal((n, self.dimensions), dtype=np.float32)

    def sample(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Draw actions (B, *shape)."""
        mean, log_std = parameters.chunk(2, dim=1)
        return self._in_environment(mean + log_std.exp() * noise)

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the means (B, *shape)."""
        return self._in_environment(parameters.chunk(2, dim=1)[0])

    def named(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the parameters (B, D) by name, in the environment's units."""
        mean, log_std = parameters.chunk(2, dim=1)
        if self.plain:
            return {"mean": mean, "log_std": log_std}
        middle, half = self._middle.to(mean), self._half.to(mean)
        return {"mean": middle + half * mean, "log_std": log_std + half.log()}

    def masked(self, parameters: Tensor, allowed: Tensor | None) -> Tensor:
        """Return the parameters; there are no masks of continuous actions."""
        return parameters

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-densities (B,) of actions (B, *shape)."""
        mean, log_std = parameters.chunk(2, dim=1)
        action = action.reshape(len(action), self.dimensions)
        if not self.plain:
            action = (action - self._middle.to(mean)) / self._half.to(mean)
        scaled = (action - mean) * (-log_std).exp()
        constant = 0.5 * math.log(2 * math.pi) * self.dimensions + self._log_half
        return (-0.5 * scaled.square() - log_std).sum(dim=1) - constant

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the differential entropies (B,) in nats."""
        constant = 0.5 * math.log(2 * math.pi * math.e) * self.dimensions + self._log_half
        return parameters.chunk(2, dim=1)[1].sum(dim=1) + constant

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the KL divergences (B,) of new distributions from old ones, E_old[log old - log new], in nats."""
        (mean, log_std), (new_mean, new_log_std) = old.chunk(2, dim=1), new.chunk(2, dim=1)
        squares = (2 * log_std).exp() + (mean - new_mean).square()
        return (new_log_std - log_std + 0.5 * squares * (-2 * new_log_std).exp() - 0.5).sum(dim=1)

    def _in_environment(self, action: Tensor) -> Tensor:
        """(B, D) -> (B, *shape) in the environment's units."""
        if not self.plain:
            action = self._middle.to(action) + self._half.to(action) * action
        return action.reshape(len(action), *self.shape)


def draw(distribution: Distribution, parameters: Tensor, rng: np.random.Generator) -> Array:
    """Return actions (N, *D) drawn from the distributions with parameters (N, P)."""
    noise = torch.from_numpy(distribution.noise(len(parameters), rng)).to(parameters.device)
    action: Array = distribution.sample(parameters, noise).cpu().numpy()
    return action


def mask_on(mask: BoolArray | None, device: torch.device) -> Tensor | None:
    """Return a mask of allowed actions on a device."""
    return None if mask is None else torch.from_numpy(mask).to(device)


def _entropy(logits: Tensor) -> Tensor:
    """Return the entropies (B,) of softmax distributions with logits (B, A)."""
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)
