"""A torso: observations (B, *O) -> features (B, F)."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn


class Fourier(nn.Module):
    """Sines and cosines of random directions of the observation, then one hidden layer (Yang et al. 2022).

    Values that change quickly from place to place, as beside a wall, are learned sooner from these than from the plain
    numbers.

    Args:
        space: the space of one observation; rlrun passes it.
        directions: number of random directions.
        scale: standard deviation of their frequencies.
        width: units of the hidden layer, F.
    """

    def __init__(self, space: gymnasium.Space[Any], directions: int = 64, scale: float = 0.3, width: int = 128) -> None:
        super().__init__()
        assert isinstance(space, gymnasium.spaces.Box)
        (numbers,) = space.shape
        self.reads = f"{numbers} numbers, as Fourier features"  # optional: what the start of a run says of it
        self.frequency: Tensor
        self.register_buffer("frequency", 2 * math.pi * scale * torch.randn(numbers, directions))  # saved, not learned
        self.hidden = nn.Sequential(nn.Linear(numbers + 2 * directions, width), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        """(B, O) -> (B, F)."""
        angle = obs @ self.frequency
        features: Tensor = self.hidden(torch.cat([obs, angle.sin(), angle.cos()], dim=1))
        return features
