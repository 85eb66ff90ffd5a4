"""Conversion of observations to network inputs. All scaling of observations happens here.

Values whose space has the bounds [0, 255] are divided by 255. All other values are unchanged: flags, measurements,
float pixels in [0, 1]. Discrete states become one-hot vectors. `in_words` describes the conversion of a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor, nn

from rl_runner.types import BoolArray, UserError

Space = gym.Space[Any]

SMALLEST_IMAGE = 5  # pixels; smaller images are flattened, unless a convolutional torso is chosen by name
SMALLEST_PLANE = 10  # pixels; smaller matrices (two axes), and matrices without bounds, are flattened too
CLIP = 10.0  # of normalised observations
EPSILON = 1e-8  # added to their variance


class Image(NamedTuple):
    """The axes of a space read as images of height x width; all other axes are channels."""

    channels: int
    height: int
    width: int
    channels_last: bool

    @property
    def side(self) -> int:
        """The smaller of height and width."""
        return min(self.height, self.width)


def image(space: Space) -> Image | None:
    """Return the axes of a space that can be read as images; None: it cannot.

    Images are (H, W), (C, H, W), (H, W, C), or a stack (S, ...) of the latter two. If two neighbouring axes of three
    are equal, the third holds the channels; otherwise the smaller of the first and the last, or the last if all are
    equal.
    """
    if not isinstance(space, Box) or len(space.shape) not in (2, 3, 4):
        return None
    shape = space.shape
    if len(shape) == 2:
        return Image(1, *shape, channels_last=False)
    stack, frame = (shape[0], shape[1:]) if len(shape) == 4 else (1, shape)
    first, middle, last = frame
    channels_last = first == middle if (first == middle) != (middle == last) else last < first or first == last
    channels, height, width = (last, first, middle) if channels_last else frame
    return Image(stack * channels, height, width, channels_last)


def looks_like_image(space: Space) -> bool:
    """Return whether `auto` reads observations as images: large enough, and, for a matrix, with bounds."""
    seen = image(space)
    if seen is None:
        return False
    assert isinstance(space, Box)
    if len(space.shape) == 2:
        return seen.side >= SMALLEST_PLANE and bool(np.isfinite([space.low, space.high]).all())
    return seen.side >= SMALLEST_IMAGE


def bytes_of(space: Space) -> BoolArray:
    """Return which values (O) of a Box have the bounds [0, 255] and are divided by 255."""
    assert isinstance(space, Box)
    return np.asarray((space.low == 0) & (space.high == 255))


def in_words(space: Space, seen: Image | None = None) -> str:
    """Return a description of the network inputs made of observations: of images, or of vectors if `seen` is None."""
    if isinstance(space, Discrete):
        return f"{space.n:,} states, one-hot"
    if isinstance(space, MultiDiscrete):
        sizes = ", ".join(f"{n:,}" for n in space.nvec.ravel())
        return f"{space.nvec.size} discrete values of {sizes} states, one-hot"
    count = f"{int(np.prod(space.shape or ())):,}"
    if not isinstance(space, Box):
        return f"{count} flags, as they are"
    divided = bytes_of(space)
    scaling = "divided by 255" if divided.all() else "as they are"
    if seen is not None:
        planes = "" if seen.channels == 1 else f", {seen.channels} planes"
        return f"images of {seen.height}x{seen.width}{planes}, {_values(space)}, {scaling}"
    if divided.any() and not divided.all():
        scaling = f"{int(divided.sum()):,} of them divided by 255"
    flattened = f" of shape {'x'.join(map(str, space.shape))}, flattened" if len(space.shape) > 1 else ""
    return f"{count} {_values(space)}{flattened}, {scaling}"


def _values(space: Box) -> str:
    low, high = space.low.min(), space.high.max()
    if (low, high) == (0, 1) and not np.issubdtype(space.dtype, np.floating):
        return "flags"
    return f"number{'s' if np.prod(space.shape) != 1 else ''} in [{low:.6g}, {high:.6g}]"


def flat_input(space: Space) -> tuple[nn.Module, int]:
    """Return a module that maps observations (B, *O) to vectors (B, F), and F.

    Raises:
        UserError: the space cannot be converted to vectors.
    """
    if isinstance(space, Discrete):
        return OneHot([int(space.n)], [int(space.start)]), int(space.n)
    if isinstance(space, MultiDiscrete):
        sizes = [int(n) for n in space.nvec.ravel()]
        return OneHot(sizes, [int(s) for s in space.start.ravel()]), sum(sizes)
    if isinstance(space, MultiBinary):
        return Flat(None), int(np.prod(space.shape))
    if not isinstance(space, Box):
        raise UserError(f"network.torso: no network of rlrun reads observations of type {type(space).__name__}")
    return Flat(bytes_of(space)), int(np.prod(space.shape))


class Flat(nn.Module):
    """Observations (B, *O) -> floats (B, F), values in [0, 255] divided by 255.

    Args:
        divided: (O) which values are divided; None: none.
    """

    def __init__(self, divided: BoolArray | None) -> None:
        super().__init__()
        divisor = None
        if divided is not None and divided.any():
            divisor = torch.from_numpy(np.where(divided, 255.0, 1.0)).float()
        self.divisor: Tensor | None
        self.register_buffer("divisor", divisor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *O) -> (B, F); scalars (B,) become (B, 1)."""
        x = x.float()
        if self.divisor is not None:
            x = x / self.divisor
        return x.flatten(1) if x.dim() > 1 else x[:, None]


class OneHot(nn.Module):
    """Discrete states (B,) -> (B, n), or (B, k) -> (B, sum of sizes) for several; `starts` are the first states."""

    def __init__(self, sizes: Sequence[int], starts: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.starts = list(sizes), list(starts)

    def forward(self, x: Tensor) -> Tensor:
        """(B,) or (B, k) integers -> (B, sum of sizes) floats."""
        columns = x.long().reshape(x.shape[0], len(self.sizes)).unbind(dim=1)
        hot = [nn.functional.one_hot(c - s, n) for c, s, n in zip(columns, self.starts, self.sizes, strict=True)]
        return torch.cat(hot, dim=1).float()


class Pixels(nn.Module):
    """Images -> floats (B, C, H, W), not scaled: if they are in [0, 255], a `PixelConvolution` follows.

    Args:
        channels_last: frames are (H, W, C).
        centre: subtract the mean of each image, all channels together.
    """

    def __init__(self, channels_last: bool, centre: bool = False) -> None:
        super().__init__()
        self.channels_last, self.centre = channels_last, centre

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W), (B, C, H, W), (B, H, W, C), or stacks (B, S, ...) of these -> (B, C, H, W) floats."""
        x = self._channels_first(x)
        low = torch.is_autocast_enabled(x.device.type)
        if torch.is_grad_enabled() and not low and not self.channels_last:
            # On CPUs the backward pass of strided convolutions is many times faster with channels last in memory; the
            # forward pass is not. Bytes are moved, a quarter of the work of floats, and by `stack`, which takes a third
            # of the time of `contiguous`.
            x = torch.stack(x.unbind(dim=1), dim=-1).permute(0, 3, 1, 2)
        if low and not self.centre:
            return x.to(torch.get_autocast_dtype(x.device.type))  # bfloat16 holds whole numbers up to 256
        pixels = x.float()
        if not self.centre:
            return pixels
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        return pixels - mean if pixels is x else pixels.sub_(mean)  # in place, except in the observation itself

    def _channels_first(self, x: Tensor) -> Tensor:
        if x.dim() == 3:  # (B, H, W)
            return x[:, None]
        if self.channels_last:
            x = x.movedim(-1, -3)
        return x.flatten(1, 2) if x.dim() == 5 else x


class PixelConvolution(nn.Conv2d):
    """A convolution of `x / 255`, which divides the few weights instead of the many pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) floats in [0, 255] -> (B, F, H', W')."""
        y: Tensor = self._conv_forward(x, self.weight / 255, self.bias)
        return y


class Normalizer(nn.Module):
    """Observations minus their running mean, divided by their running standard deviation, clipped to [-10, 10].

    The statistics are buffers: they are saved with the network and copied to its target. Only `update` changes them;
    evaluation does not call it.

    Args:
        space: a Box.

    Raises:
        UserError: the space is not a Box.
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        if not isinstance(space, Box):
            raise UserError(f"network.normalize: observations must be a Box of numbers, these are {space}; use false")
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor
        self._space = space
        self.register_buffer("mean", torch.zeros(space.shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(space.shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def space(self) -> Box:
        """The space of normalised observations, unbounded where the original space is."""
        low = np.where(np.isfinite(self._space.low), -CLIP, -np.inf)
        high = np.where(np.isfinite(self._space.high), CLIP, np.inf)
        return Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    @torch.no_grad()
    def update(self, obs: Tensor) -> None:
        """Add observations (B, *O) to the statistics (Chan et al. 1979, the parallel form of Welford's update)."""
        x = obs.double()
        n, mean, variance = len(x), x.mean(dim=0), x.var(dim=0, correction=0)
        total = self.count + n
        delta = mean - self.mean
        squares = self.variance * self.count + variance * n + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.variance.copy_(squares / total)
        self.count.copy_(total)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, *O) -> (B, *O) floats."""
        scaled = (obs.double() - self.mean) / (self.variance + EPSILON).sqrt()
        return scaled.float().clamp(-CLIP, CLIP)
