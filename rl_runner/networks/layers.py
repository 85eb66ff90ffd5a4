"""Layers of networks, how they are initialised, and contexts in which a network acts or is evaluated."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from rl_runner import memory
from rl_runner.networks.renorm import BatchRenorm
from rl_runner.types import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

LinearFactory = Callable[[int, int], nn.Module]  # (in_features, out_features) -> layer


@dataclass(frozen=True)
class FullyConnected:
    """Fully connected hidden layers: their sizes, activation and normalisation.

    A torso declares the layers that follow it. The head builds them, because a noisy head makes them noisy and a
    dueling head builds them once per stream.

    Raises:
        UserError: a value out of range, or layers that do not fit into memory.
    """

    sizes: tuple[int, ...] = ()
    activation: str = "relu"
    layer_norm: bool = False  # between each linear layer and its activation
    batch_norm: bool = False  # BatchRenorm before each linear layer, the one that follows these layers too

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UserError(f"network: activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if any(size < 1 for size in self.sizes):
            raise UserError(f"network: layer sizes must be at least 1, got {list(self.sizes)}")

    def build(self, in_features: int, linear: LinearFactory = nn.Linear) -> tuple[nn.Sequential, int]:
        """Return the layers, (B, in_features) -> (B, F), and F."""
        layers: list[nn.Module] = []
        for size in self.sizes:
            memory.require_for_layer(in_features, size)
            if self.batch_norm:
                layers.append(BatchRenorm(in_features))
            layers.append(linear(in_features, size))
            if self.layer_norm:
                layers.append(nn.LayerNorm(size))
            layers.append(ACTIVATIONS[self.activation]())
            in_features = size
        if self.batch_norm:
            layers.append(BatchRenorm(in_features))
        return nn.Sequential(*layers), in_features


def fc_of(torso: nn.Module) -> FullyConnected:
    """Return the fully connected layers that a torso declares in its attribute `fc`: none if it has no such."""
    fc = getattr(torso, "fc", None)
    return fc if isinstance(fc, FullyConnected) else FullyConnected()  # a user's torso may have a layer of this name


class NoisyLinear(nn.Module):
    """A linear layer with factorised Gaussian noise on its weights (Fortunato et al. 2018, equations 10 and 11).

    In training mode each forward pass draws new noise from torch's global generator. In evaluation mode the mean
    weights are used.

    Args:
        in_features: number of inputs.
        out_features: number of outputs.
        sigma0: initial noise; each sigma starts at sigma0 / sqrt(in_features).

    Raises:
        UserError: negative noise.
    """

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5) -> None:
        super().__init__()
        if not sigma0 >= 0:
            raise UserError(f"network.head.sigma0: must be 0 or more, got {sigma0}")
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((out_features, in_features), sigma0 * bound))
        self.bias_sigma = nn.Parameter(torch.full((out_features,), sigma0 * bound))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        if not self.training:
            return nn.functional.linear(x, self.weight, self.bias)
        noise_in = _scaled_noise(self.in_features, x.device)
        noise_out = _scaled_noise(self.out_features, x.device)
        weight = torch.addcmul(self.weight, self.weight_sigma, noise_out[:, None] * noise_in)
        bias = torch.addcmul(self.bias, self.bias_sigma, noise_out)
        return nn.functional.linear(x, weight, bias)


def _scaled_noise(size: int, device: torch.device) -> Tensor:
    x = torch.randn(size, device=device)
    return x.sign() * x.abs().sqrt()


class QuantileLevels(nn.Module):
    """Multiplies features by an embedding of each quantile level (Dabney et al. 2018b, eq. 4).

    In training mode each forward pass draws new levels from torch's global generator: one in each of K equal parts of
    (0, 1), so that means over them have less variance than with independent levels. In evaluation mode the levels are
    the middles of K parts, or of 32 if K is smaller.

    Args:
        features: F.
        levels: K, levels per sample in training mode.
        cosines: size of the embedding's input, cos(pi i level).
    """

    def __init__(self, features: int, levels: int, cosines: int = 64) -> None:
        super().__init__()
        self.levels = levels
        self.embedding = nn.Sequential(nn.Linear(cosines, features), nn.ReLU())
        self.frequency: Tensor
        self.register_buffer("frequency", math.pi * torch.arange(cosines), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> (B K, F), one row per level, and the levels (B, K)."""
        if self.training:
            part = torch.arange(self.levels, device=features.device)
            level = (part + torch.rand(len(features), self.levels, device=features.device)) / self.levels
        else:
            count = max(self.levels, 32)
            middles = (torch.arange(count, device=features.device) + 0.5) / count
            level = middles.expand(features.shape[0], count)
        embedded = self.embedding(torch.cos(level[..., None] * self.frequency))  # (B, K, F)
        return (features[:, None, :] * embedded).flatten(0, 1), level


class Acting:
    """A context in which dropout and batch normalisation work as in evaluation, and noisy layers as in training.

    Actions in training are chosen in it: an action must not depend on the other environments' observations, and batch
    normalisation cannot train on one observation.

    Args:
        network: that acts.
    """

    kinds: tuple[type[nn.Module], ...] = (BatchRenorm, _BatchNorm, _DropoutNd)

    def __init__(self, network: nn.Module) -> None:
        self._layers = [layer for layer in network.modules() if isinstance(layer, self.kinds)]
        self._training: list[bool] = []

    def __enter__(self) -> None:
        self._training = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.eval()

    def __exit__(self, *_: object) -> None:
        for layer, training in zip(self._layers, self._training, strict=True):
            layer.train(training)


class Frozen(Acting):
    """A context in which `BatchRenorm` uses its running statistics and does not change them."""

    kinds = (BatchRenorm,)


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode, and at the end each of its layers back to the mode that it was in.

    A layer that its user has set to evaluation mode for good, as in a torso trained elsewhere, stays in it.
    """
    modes = [(layer, layer.training) for layer in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def linear_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Return all linear and convolutional layers, in order."""
    return (m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv2d, NoisyLinear)))


def blank(space: gym.Space[Any]) -> Tensor:
    """Return two observations (2, *O) to try a network with: the lowest states, or zeros."""
    return torch.from_numpy(np.full((2, *(space.shape or ())), getattr(space, "start", 0), dtype=space.dtype))


def features_of(torso: nn.Module, space: gym.Space[Any]) -> int:
    """Run the torso once, on the lowest states or zeros, and return its number of features.

    Raises:
        UserError: it is no module, cannot read such observations, returns something else than features, or computes
            with weights that are not its parameters, which would neither be learned nor saved.
    """
    if not isinstance(torso, nn.Module):
        raise UserError(f"network.torso: must be an nn.Module, got a {type(torso).__name__}")
    obs = blank(space)
    try:
        with evaluating(torso):  # BatchNorm must not count these observations
            features = torso(obs)
    except (RuntimeError, ValueError, IndexError) as e:
        raise UserError(f"network.torso: {type(torso).__name__} cannot read observations {space}: {e}") from e
    wrong = f"network.torso: {type(torso).__name__} must return features (B, F), it returned "
    if not isinstance(features, Tensor):
        raise UserError(f"{wrong}a {type(features).__name__}")
    if features.dim() != 2 or len(features) != len(obs):
        raise UserError(f"{wrong}{tuple(features.shape)} for {len(obs)} observations")
    own = set(map(id, torso.parameters()))
    if any(id(weight) not in own for weight in _weights_of(features)):
        raise UserError(
            f"network.torso: {type(torso).__name__} computes with weights that are not its parameters; keep layers in "
            f"attributes or in an nn.ModuleList, not in a list"
        )
    return int(features.shape[1])


def stream(
    torso: Callable[[gym.Space[Any]], nn.Module], space: gym.Space[Any]
) -> tuple[tuple[nn.Module, nn.Module], int]:
    """Return a torso and the hidden layers that it declares, and how many features they return."""
    made = torso(space)
    hidden, width = fc_of(made).build(features_of(made, space))
    return (made, hidden), width


def _weights_of(x: Tensor) -> Iterator[Tensor]:
    """Yield the tensors to which a gradient of `x` goes."""
    nodes, seen = [x.grad_fn], set[Any]()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (weight := getattr(node, "variable", None)) is not None:
            yield weight
        nodes += [following for following, _ in node.next_functions]


def in_precision(torso: nn.Module, obs: Tensor, precision: str) -> Tensor:
    """Return a torso's features (B, F) of observations (B, *O) as floats, computed in "fp32" or "bf16"."""
    if precision == "bf16":
        with torch.autocast(obs.device.type, torch.bfloat16):
            low: Tensor = torso(obs)
        return low.float()
    features: Tensor = torso(obs)  # entering autocast takes as long as a small layer
    return features.float()


def xavier(module: nn.Module) -> None:
    """Initialise a layer as Glorot & Bengio 2010 do, uniformly, with zero biases."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def orthogonal(module: nn.Module) -> None:
    """Initialise a layer with an orthogonal matrix times sqrt(2), the gain for ReLU, and zero biases."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.orthogonal_(module.weight, 2**0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
