"""Torsos: observations -> features (B, F).

A torso is any `nn.Module` that is made from an observation space and gives (B, F) for observations (B, *O). If it has
an attribute `fc`, the head builds those hidden layers after it; the ones here do, a torso of your own need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn

from rl_runner import memory
from rl_runner.networks.layers import Bytes, FullyConnected, OneHot, PixelConvolution, Pixels
from rl_runner.types import UserError

Space = gym.Space[Any]


class MLP(nn.Module):
    """Hidden layers on a flat observation: vectors as they are, discrete states one-hot, images flattened in [0, 1].

    All sizes but the last are built here; the last one is the head's (`fc`).

    Args:
        space: of one observation.
        sizes: hidden layers.
        activation: relu, leaky_relu, tanh, elu, gelu or silu.
        layer_norm: LayerNorm between each linear layer and its activation.
    """

    def __init__(
        self, space: Space, sizes: Sequence[int] = (256, 256), activation: str = "relu", layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.input, in_features = _flat_input(space)
        memory.require_for_inputs(in_features, sizes[0] if sizes else 1)
        self.hidden, _ = FullyConnected(tuple(sizes[:-1]), activation, layer_norm).build(in_features)
        self.fc = FullyConnected(tuple(sizes[-1:]), activation, layer_norm)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, F)."""
        features: Tensor = self.hidden(self.input(obs))
        return features


class CNN(nn.Module):
    """Convolutions on images, each followed by ReLU.

    Args:
        space: of one observation.
        layers: (filters, kernel size, stride) of each convolution.
        fc: hidden layers after them.
        centre: subtract from each observation the mean of its pixels. Else whatever is bright everywhere drowns the
            little that moves.
    """

    def __init__(
        self, space: Space, layers: Sequence[Sequence[int]], fc: Sequence[int] = (256,), centre: bool = False
    ) -> None:
        super().__init__()
        self.fc = FullyConnected(tuple(fc))
        self.channels, self.input = _image_input(space, type(self).__name__, centre)
        self.convolutions = nn.Sequential()
        kind: type[nn.Conv2d] = PixelConvolution
        channels = self.channels
        for layer in layers:
            if len(layer) != 3 or min(layer) < 1:
                raise UserError(f"network.torso.layers: [filters, kernel size, stride] are wanted, got {list(layer)}")
            filters, kernel_size, stride = layer
            self.convolutions.extend([kind(channels, filters, kernel_size, stride), nn.ReLU()])
            kind, channels = nn.Conv2d, filters

    def forward(self, obs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W, C), uint8 -> (B, F)."""
        features: Tensor = self.convolutions(self.input(obs)).flatten(1)
        return features


class NatureCNN(CNN):
    """The network of Mnih et al. 2015: 32 8x8 stride 4, 64 4x4 stride 2, 64 3x3 stride 1, then 512 units."""

    def __init__(self, space: Space, fc: Sequence[int] = (512,)) -> None:
        super().__init__(space, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], fc)


class NipsCNN(CNN):
    """The network of Mnih et al. 2013: 16 8x8 stride 4, 32 4x4 stride 2, then 256 units."""

    def __init__(self, space: Space, fc: Sequence[int] = (256,)) -> None:
        super().__init__(space, [(16, 8, 4), (32, 4, 2)], fc)


class Conv3x3(CNN):
    """Four 3x3 convolutions, each followed by 2x2 max-pooling; made for 96x96 images.

    Args:
        space: of one observation.
        widths: channels of the four convolutions.
        fc: hidden layers after them.
    """

    def __init__(self, space: Space, widths: Sequence[int] = (32, 64, 64, 64), fc: Sequence[int] = (512,)) -> None:
        super().__init__(space, (), fc)
        kind: type[nn.Conv2d] = PixelConvolution
        channels = self.channels
        for width in widths:
            self.convolutions.extend([kind(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)])
            kind, channels = nn.Conv2d, width


def auto(space: Space) -> nn.Module:
    """Choose by the observations: images -> NatureCNN, anything else -> MLP (discrete states one-hot)."""
    return NatureCNN(space) if is_image(space) else MLP(space)


def is_image(space: Space) -> bool:
    """Say whether observations are images: uint8 with three axes, large enough for the convolutions."""
    return isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3 and sorted(space.shape)[1] >= 36


def _flat_input(space: Space) -> tuple[nn.Module, int]:
    if isinstance(space, Discrete):
        return OneHot([int(space.n)], [int(space.start)]), int(space.n)
    if isinstance(space, MultiDiscrete):
        sizes = [int(n) for n in space.nvec.ravel()]
        return OneHot(sizes, [int(s) for s in space.start.ravel()]), sum(sizes)
    if space.shape is None:
        raise UserError(f"network.torso: no network here reads observations of type {type(space).__name__}")
    scale = Bytes() if space.dtype == np.uint8 else _Float()
    return nn.Sequential(scale, _Flatten(len(space.shape))), int(np.prod(space.shape))


def _image_input(space: Space, torso: str, centre: bool) -> tuple[int, nn.Module]:
    if not is_image(space):
        raise UserError(
            f"network.torso: {torso} needs uint8 images of 36x36 or more, but this environment's observations are "
            f"{space}; use network=mlp"
        )
    assert space.shape is not None
    channels_last = space.shape[-1] < space.shape[0]  # an image has fewer channels than rows
    return space.shape[-1 if channels_last else 0], Pixels(channels_last, centre)


class _Float(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class _Flatten(nn.Module):
    """Flatten all but the batch; scalars (B,) become (B, 1)."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.axes else x[:, None]
