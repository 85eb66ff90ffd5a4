"""Torsos: observations -> features (B, F).

A torso is any `nn.Module` that is made from an observation space and maps observations (B, *O) to features (B, F).
Two attributes are optional: `fc`, hidden layers that the head builds after the torso, and `reads`, a description of its
inputs for the start of a run. The torsos here have both. Observations are passed as the environment returns them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from rl_runner import memory
from rl_runner.networks.inputs import (
    Image,
    PixelConvolution,
    Pixels,
    bytes_of,
    flat_input,
    image,
    in_words,
    looks_like_image,
)
from rl_runner.networks.layers import FullyConnected
from rl_runner.types import UserError

Space = gym.Space[Any]


class MLP(nn.Module):
    """Hidden layers on a flat observation: discrete states one-hot, images flattened (see `networks.inputs`).

    The head builds the last hidden layer (`fc`), the torso all others.

    Args:
        space: of one observation.
        sizes: of the hidden layers.
        activation: relu, leaky_relu, tanh, elu, gelu or silu.
        layer_norm: LayerNorm between each linear layer and its activation.
    """

    def __init__(
        self, space: Space, sizes: Sequence[int] = (256, 256), activation: str = "relu", layer_norm: bool = False
    ) -> None:
        super().__init__()
        self.reads = in_words(space)
        self.input, in_features = flat_input(space)
        memory.require_for_inputs(in_features, sizes[0] if sizes else 1)
        self.hidden, _ = FullyConnected(tuple(sizes[:-1]), activation, layer_norm).build(in_features)
        self.fc = FullyConnected(tuple(sizes[-1:]), activation, layer_norm)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, F)."""
        features: Tensor = self.hidden(self.input(obs))
        return features


class CNN(nn.Module):
    """Convolutions on images, each followed by ReLU.

    The convolutions read every pixel: if strides would leave out the last rows or columns, zeros are added around the
    image. Without them the paddle of a game can be invisible.

    Args:
        space: of one observation.
        layers: (filters, kernel size, stride) of each convolution.
        fc: sizes of the hidden layers after them.
        centre: subtract the mean of the pixels from each observation. Otherwise a bright background dominates the few
            pixels that change.
        layer_norm: LayerNorm between each layer, convolutional or linear, and its ReLU. After a convolution it
            normalises over all channels and pixels and has one scale and one shift per channel.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        space: Space,
        layers: Sequence[Sequence[int]],
        fc: Sequence[int] = (256,),
        centre: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.fc = FullyConnected(tuple(fc), layer_norm=layer_norm)
        seen = self._image(space)
        self.reads = in_words(space, seen) + (", minus their mean" if centre else "")
        self.channels, self.input = seen.channels, Pixels(seen.channels_last, centre)
        self.first: type[nn.Conv2d] = PixelConvolution if bytes_of(space).all() else nn.Conv2d
        self.convolutions = nn.Sequential()
        self.padding: nn.Module = nn.Identity()
        kind, channels, size = self.first, self.channels, seen.side
        for layer in layers:
            if len(layer) != 3 or min(layer) < 1:
                raise UserError(f"network.torso.layers: each must be [filters, kernel size, stride], got {list(layer)}")
            filters, kernel_size, stride = layer
            if kernel_size > size:
                raise self._too_small(seen)
            self.convolutions.append(kind(channels, filters, kernel_size, stride))
            if layer_norm:
                self.convolutions.append(nn.GroupNorm(1, filters))  # one group: LayerNorm
            self.convolutions.append(nn.ReLU())
            kind, channels, size = nn.Conv2d, filters, (size - kernel_size) // stride + 1
        padding = (*_padding(seen.width, layers), *_padding(seen.height, layers))
        if any(padding):
            self.padding = nn.ZeroPad2d(padding)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, F)."""
        features: Tensor = self.convolutions(self.padding(self.input(obs))).flatten(1)
        return features

    @classmethod
    def _too_small(cls, seen: Image) -> UserError:
        return UserError(
            f"network.torso: images of {seen.height}x{seen.width} are too small for {cls.__name__}; use "
            f"network/torso=small_cnn, or network/torso=cnn with layers of your own"
        )

    @classmethod
    def _image(cls, space: Space) -> Image:
        seen = image(space)
        if seen is None:
            raise UserError(
                f"network.torso: {cls.__name__} needs images, but this environment's observations are {space}; "
                f"use network=mlp"
            )
        return seen


def _padding(size: int, layers: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the fewest zeros before and after `size` pixels with which the convolutions reach the last pixel."""
    whole = size
    for _, kernel_size, stride in layers:
        whole = -(-(whole - kernel_size) // stride) + 1
    for _, kernel_size, stride in reversed(layers):
        whole = (whole - 1) * stride + kernel_size
    missing = whole - size
    return missing // 2, missing - missing // 2


class NatureCNN(CNN):
    """The network of Mnih et al. 2015: 32 8x8 stride 4, 64 4x4 stride 2, 64 3x3 stride 1, then 512 units."""

    def __init__(
        self, space: Space, fc: Sequence[int] = (512,), centre: bool = False, layer_norm: bool = False
    ) -> None:
        super().__init__(space, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], fc, centre, layer_norm)


class NipsCNN(CNN):
    """The network of Mnih et al. 2013: 16 8x8 stride 4, 32 4x4 stride 2, then 256 units."""

    def __init__(
        self, space: Space, fc: Sequence[int] = (256,), centre: bool = False, layer_norm: bool = False
    ) -> None:
        super().__init__(space, [(16, 8, 4), (32, 4, 2)], fc, centre, layer_norm)


class SmallCNN(CNN):
    """3x3 convolutions for images too small for `NatureCNN`: 32 filters, then 64 with stride 2, once or twice.

    Args:
        space: of one observation; images of 5x5 or more.
        fc: sizes of the hidden layers after them.
        layer_norm: see `CNN`.
    """

    def __init__(self, space: Space, fc: Sequence[int] = (128,), layer_norm: bool = False) -> None:
        halvings = 1 if self._image(space).side < 16 else 2
        super().__init__(space, [(32, 3, 1), *[(64, 3, 2)] * halvings], fc, layer_norm=layer_norm)


class Conv3x3(CNN):
    """3x3 convolutions, each followed by ReLU and 2x2 max-pooling; made for 96x96 images.

    Args:
        space: of one observation.
        widths: channels of each convolution.
        fc: sizes of the hidden layers after them.
        layer_norm: see `CNN`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        space: Space,
        widths: Sequence[int] = (32, 64, 64, 64),
        fc: Sequence[int] = (512,),
        layer_norm: bool = False,
    ) -> None:
        if min(widths, default=1) < 1:
            raise UserError(f"network.torso.widths: each must be at least 1, got {list(widths)}")
        super().__init__(space, (), fc, layer_norm=layer_norm)
        seen = self._image(space)
        if seen.side < 2 ** len(widths):
            raise self._too_small(seen)
        kind, channels = self.first, self.channels
        for width in widths:
            self.convolutions.append(kind(channels, width, 3, padding=1))
            if layer_norm:
                self.convolutions.append(nn.GroupNorm(1, width))  # one group: LayerNorm
            self.convolutions.extend([nn.ReLU(), nn.MaxPool2d(2)])
            kind, channels = nn.Conv2d, width


def auto(
    space: Space, sizes: Sequence[int] = (256, 256), activation: str = "relu", layer_norm: bool = False
) -> nn.Module:
    """Return NatureCNN for large images, SmallCNN for small images and MLP for all other observations.

    Args:
        space: of one observation.
        sizes: of the hidden layers of the MLP.
        activation: of the MLP.
        layer_norm: LayerNorm between each layer and its activation, of all three.
    """
    seen = image(space)
    if seen is None or not looks_like_image(space):
        return MLP(space, sizes, activation, layer_norm)
    return NatureCNN(space, layer_norm=layer_norm) if seen.side >= 36 else SmallCNN(space, layer_norm=layer_norm)
